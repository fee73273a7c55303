use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{OnceCell, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::intake::Intake;
use super::options::MachineOptions;
use super::wire::Wire;
use super::{AppendFailure, Outgoing, Payload};
use crate::bus::memory::{MemoryBus, MemoryBusOptions};
use crate::bus::{
    BusCapabilities, DeadLetter, EventBus, EventHandler, PublishError, Subscription,
    SubscriptionControl, SubscriptionHandle, SubscriptionState,
};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, EventId};

/// How long an end waits at most for what is on its way: a mark that does not come back was lost.
const CATCHING_UP: Duration = Duration::from_secs(5);

/// A broker that carries messages to whoever listens at the moment and keeps nothing.
#[async_trait]
pub(in crate::bus) trait Channel: Debug + Send + Sync + 'static {
    /// What messages call it: `"redis bus"`.
    fn label(&self) -> &'static str;

    /// The largest event in its form on the wire, in bytes.
    fn max_event_bytes(&self) -> Option<usize>;

    /// Sends events in order and returns when the broker has taken them; events about the same document
    /// do not overtake each other on the way. After an unclear failure the caller repeats the call.
    async fn send(&self, events: &[Outgoing]) -> Result<(), AppendFailure>;

    /// Sends a message of the bus's own, behind what was sent before.
    async fn send_mark(&self, mark: Payload) -> Result<()>;

    /// Listens, and offers every message to `intake` in the order it comes. Returns when the broker has
    /// confirmed that it listens; the rest is done by a task that connects again after failures and ends
    /// with [`Intake::closed`].
    async fn listen(&self, intake: Intake) -> Result<()>;

    /// Lets go of connections. Nothing is called afterwards.
    async fn close(&self);
}

/// A bus on such a broker: this process listens once, and a bus in memory hands on what comes.
#[derive(Debug)]
pub(in crate::bus) struct LiveBus {
    channel: Arc<dyn Channel>,
    wire: Wire,
    options: MachineOptions,
    memory: MemoryBus,
    listening: OnceCell<Intake>,
    closed: AtomicBool,
    end: CancellationToken,
}

impl LiveBus {
    pub(in crate::bus) fn new(channel: Arc<dyn Channel>, options: MachineOptions) -> Result<Self> {
        options.validate()?;
        // One partition: everything travels on one channel.
        let serializer = Arc::clone(&options.serializer);
        let wire = Wire::new(serializer, 1, channel.max_event_bytes());
        let memory = MemoryBusOptions::new().with_drain_timeout(options.drain_timeout);
        Ok(Self {
            channel,
            wire,
            options,
            memory: MemoryBus::with_options(memory),
            listening: OnceCell::new(),
            closed: AtomicBool::new(false),
            end: CancellationToken::new(),
        })
    }

    /// What such a bus can do.
    pub(in crate::bus) fn capabilities(&self) -> BusCapabilities {
        BusCapabilities {
            groups: false,
            total_order: true,
            across_processes: true,
            deduplicates: true,
            max_event_bytes: self.channel.max_event_bytes(),
            ..BusCapabilities::default()
        }
    }

    fn closed_error(&self) -> Error {
        Error::new(
            ErrorKind::Closed,
            format!("{} is closed", self.channel.label()),
        )
    }

    /// See [`EventBus::publish`](crate::bus::EventBus::publish).
    pub(in crate::bus) async fn publish(&self, events: &[Event]) -> Result<(), PublishError> {
        if self.closed.load(Ordering::Acquire) {
            return Err(PublishError::unavailable(0, self.closed_error()));
        }
        let (outgoing, poison) = self.wire.all_outgoing(events);
        if !outgoing.is_empty() {
            let sent = self.channel.send(&outgoing).await;
            sent.map_err(PublishError::from)?;
        }
        match poison {
            Some(error) => Err(PublishError::poison(outgoing.len(), error)),
            None => Ok(()),
        }
    }

    /// See [`EventBus::attach`](crate::bus::EventBus::attach).
    pub(in crate::bus) async fn attach(
        self: &Arc<Self>,
        subscription: Subscription,
        handler: Arc<dyn EventHandler>,
    ) -> Result<SubscriptionHandle> {
        subscription.validate()?;
        if self.closed.load(Ordering::Acquire) {
            return Err(self.closed_error());
        }
        if subscription.group.is_some() {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "a {} in this mode cannot share events in a group",
                    self.channel.label()
                ),
            ));
        }
        // The bus in memory refuses a start at the beginning.
        let inner = self.memory.attach(subscription, handler).await?;
        if let Err(error) = self.listen().await {
            inner.abort();
            return Err(error);
        }
        Ok(SubscriptionHandle::new(Arc::new(LiveControl {
            inner,
            bus: Arc::clone(self),
        })))
    }

    async fn listen(&self) -> Result<()> {
        let listen = || async {
            let intake = Intake::new(
                self.channel.label(),
                self.memory.clone(),
                self.wire.clone(),
                self.end.child_token(),
            );
            self.channel.listen(intake.clone()).await?;
            Ok(intake)
        };
        self.listening.get_or_try_init(listen).await.map(|_| ())
    }

    /// Waits until what this process has published before has come back to it.
    async fn catch_up(&self) {
        let Some(intake) = self.listening.get() else {
            return;
        };
        let (mark, seen) = intake.mark();
        let caught_up = async {
            if self.channel.send_mark(mark).await.is_ok() {
                // The sender goes when the intake does.
                let _ = seen.await;
            }
        };
        // Without it, what is still on its way is lost, as it may be at any time on such a bus.
        let patience = self.options.drain_timeout.min(CATCHING_UP);
        if timeout(patience, caught_up).await.is_err() {
            tracing::warn!(bus = self.channel.label(), "not caught up before the end");
        }
    }

    /// See [`EventBus::close`](crate::bus::EventBus::close).
    pub(in crate::bus) async fn close(&self) -> Result<()> {
        if !self.closed.swap(true, Ordering::AcqRel) {
            self.catch_up().await;
        }
        let result = self.memory.close().await;
        self.end.cancel();
        self.channel.close().await;
        result
    }
}

impl Drop for LiveBus {
    fn drop(&mut self) {
        self.end.cancel();
    }
}

/// A subscription in memory that first waits for what is on its way.
#[derive(Debug)]
struct LiveControl {
    inner: SubscriptionHandle,
    bus: Arc<LiveBus>,
}

#[async_trait]
impl SubscriptionControl for LiveControl {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn state(&self) -> watch::Receiver<SubscriptionState> {
        self.inner.state_changes()
    }

    async fn unsubscribe(&self) -> Result<()> {
        if self.inner.state() == SubscriptionState::Running {
            self.bus.catch_up().await;
        }
        self.inner.unsubscribe().await
    }

    fn abort(&self) {
        self.inner.abort();
    }

    async fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>> {
        self.inner.dead_letters(limit).await
    }

    async fn redrive(&self, events: &[EventId]) -> Result<usize> {
        self.inner.redrive(events).await
    }

    async fn discard(&self, events: &[EventId]) -> Result<usize> {
        self.inner.discard(events).await
    }
}
