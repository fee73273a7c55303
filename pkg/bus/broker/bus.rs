use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::join_all;
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::member::{Control, Grounds, Member};
use super::options::MachineOptions;
use super::wire::Wire;
use super::{Broker, GroupRecord};
use crate::bus::{BusCapabilities, EventHandler, PublishError, Subscription, SubscriptionHandle};
use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;

/// A bus on a durable broker. Handles of it are clones of an `Arc` around this; when the last is
/// dropped without [`close`](Self::close), handlers are stopped at their next `await`.
#[derive(Debug)]
pub(in crate::bus) struct DurableBus {
    grounds: Grounds,
    registry: Mutex<Registry>,
    kill: CancellationToken,
}

#[derive(Debug, Default)]
struct Registry {
    members: Vec<Arc<Member>>,
    closed: bool,
}

impl DurableBus {
    /// A bus on a broker that is connected. Must be called within a tokio runtime, on which it runs its
    /// handlers.
    pub(in crate::bus) fn new(broker: Arc<dyn Broker>, options: MachineOptions) -> Result<Self> {
        options.validate()?;
        let runtime = Handle::try_current().map_err(|_| {
            Error::new(
                ErrorKind::InvalidConfig,
                format!(
                    "a {} runs its handlers on a tokio runtime, and there is none here",
                    broker.label()
                ),
            )
        })?;
        let kill = CancellationToken::new();
        let wire = Wire::new(
            Arc::clone(&options.serializer),
            broker.partitions(),
            broker.max_event_bytes(),
        );
        runtime.spawn(reap(
            Arc::clone(&broker),
            options.clone(),
            kill.child_token(),
        ));
        Ok(Self {
            grounds: Grounds {
                broker,
                wire,
                options,
                runtime,
            },
            registry: Mutex::default(),
            kill,
        })
    }

    pub(in crate::bus) fn broker(&self) -> &Arc<dyn Broker> {
        &self.grounds.broker
    }

    /// No code of others runs under this lock, so a poisoned one means nothing.
    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn closed(&self) -> Error {
        Error::new(
            ErrorKind::Closed,
            format!("{} is closed", self.grounds.broker.label()),
        )
    }

    /// What such a bus can do.
    pub(in crate::bus) fn capabilities(&self) -> BusCapabilities {
        BusCapabilities {
            groups: true,
            total_order: false,
            durable: true,
            across_processes: true,
            durable_groups: true,
            from_beginning: true,
            deduplicates: true,
            max_event_bytes: self.grounds.broker.max_event_bytes(),
        }
    }

    /// See [`EventBus::publish`](crate::bus::EventBus::publish).
    pub(in crate::bus) async fn publish(&self, events: &[Event]) -> Result<(), PublishError> {
        if self.registry().closed {
            return Err(PublishError::unavailable(0, self.closed()));
        }
        let (outgoing, poison) = self.grounds.wire.all_outgoing(events);
        if !outgoing.is_empty() {
            let appended = self.grounds.broker.append(&outgoing).await;
            appended.map_err(PublishError::from)?;
        }
        match poison {
            Some(error) => Err(PublishError::poison(outgoing.len(), error)),
            None => Ok(()),
        }
    }

    /// See [`EventBus::attach`](crate::bus::EventBus::attach).
    pub(in crate::bus) async fn attach(
        &self,
        subscription: Subscription,
        handler: Arc<dyn EventHandler>,
    ) -> Result<SubscriptionHandle> {
        subscription.validate()?;
        if self.registry().closed {
            return Err(self.closed());
        }
        let transient = subscription.group.is_none();
        let record = GroupRecord {
            name: match &subscription.group {
                Some(name) => Arc::clone(name),
                None => format!("broadcast-{}", Uuid::now_v7()).into(),
            },
            asks: subscription.asks(),
            start: subscription.start,
            transient,
        };
        let stored = self.grounds.broker.open_group(&record).await?;
        if stored.asks != record.asks || stored.transient != record.transient {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                format!(
                    "group {} exists with another filter, start, retry policy or bound",
                    record.name
                ),
            ));
        }
        let mut registry = self.registry();
        if registry.closed {
            // A broadcast that was just opened is reaped.
            return Err(self.closed());
        }
        registry.members.retain(|member| !member.has_closed());
        let grounds = self.grounds.clone();
        let member = Member::start(grounds, record, subscription, handler, &self.kill);
        registry.members.push(Arc::clone(&member));
        Ok(SubscriptionHandle::new(Arc::new(Control(member))))
    }

    /// See [`EventBus::close`](crate::bus::EventBus::close).
    pub(in crate::bus) async fn close(&self) -> Result<()> {
        let members = {
            let mut registry = self.registry();
            registry.closed = true;
            registry.members.clone()
        };
        let deadline = Instant::now() + self.grounds.options.drain_timeout;
        let leaving = members.iter().map(|member| member.leave(deadline, true));
        let result = join_all(leaving).await.into_iter().collect::<Result<()>>();
        self.kill.cancel();
        self.grounds.broker.close().await;
        result
    }
}

impl Drop for DurableBus {
    fn drop(&mut self) {
        for member in &self.registry().members {
            member.die();
        }
        self.kill.cancel();
    }
}

pub(super) fn ended(group: &str) -> Error {
    Error::new(ErrorKind::Closed, format!("subscription {group} has ended"))
}

/// Removes broadcasts of processes that died, as long as the bus is open.
async fn reap(broker: Arc<dyn Broker>, options: MachineOptions, end: CancellationToken) {
    let silence = options.broadcast_ttl;
    loop {
        // One that does not answer is asked again the next time.
        match timeout(silence, broker.reap(silence)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::debug!(bus = broker.label(), %error, "dead broadcasts not removed");
            }
            Err(_) => tracing::debug!(bus = broker.label(), "dead broadcasts not removed in time"),
        }
        tokio::select! {
            () = end.cancelled() => return,
            () = tokio::time::sleep(silence / 2) => {}
        }
    }
}
