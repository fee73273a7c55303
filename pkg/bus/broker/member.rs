use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use tokio::runtime::Handle;
use tokio::sync::{Notify, RwLock, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::claims::keep_claims;
use super::desk::Desk;
use super::options::MachineOptions;
use super::reading::read;
use super::wire::Wire;
use super::working::{acknowledge, work};
use super::{Broker, GroupRecord};
use crate::bus::work::Crew;
use crate::bus::{DeadLetter, EventHandler, Subscription, SubscriptionControl, SubscriptionState};
use crate::error::Result;
use crate::event::EventId;

/// What all members of a bus stand on.
#[derive(Debug, Clone)]
pub(super) struct Grounds {
    pub(super) broker: Arc<dyn Broker>,
    pub(super) wire: Wire,
    pub(super) options: MachineOptions,
    pub(super) runtime: Handle,
}

/// One subscription: a member of a group, with a reader, workers, and the upkeep of its claims.
pub(super) struct Member {
    pub(super) broker: Arc<dyn Broker>,
    pub(super) wire: Wire,
    pub(super) options: MachineOptions,
    pub(super) record: GroupRecord,
    pub(super) spec: Subscription,
    /// Unique among all members of the group that there ever were.
    pub(super) name: String,
    pub(super) handler: Arc<dyn EventHandler>,
    pub(super) state: watch::Sender<SubscriptionState>,
    pub(super) desk: Arc<Desk>,
    /// Reads and handles.
    pub(super) crew: Crew,
    /// Acknowledges and keeps the claims; ends after the crew.
    pub(super) upkeep: Crew,
    /// How many members of the group were live at the last heartbeat; 0 before the first.
    pub(super) live: AtomicUsize,
    /// For handlers at work; see [`unfinished`](super::unfinished).
    pub(super) turns: RwLock<()>,
    /// Someone in this process took dead letters out.
    pub(super) letters_taken: Notify,
    /// How leaving ended, once it has; who leaves is a task of its own.
    pub(super) left: watch::Sender<Option<Result<()>>>,
    leaving: std::sync::Once,
    runtime: Handle,
}

impl Member {
    /// Starts a membership of a group that exists.
    pub(super) fn start(
        grounds: Grounds,
        record: GroupRecord,
        spec: Subscription,
        handler: Arc<dyn EventHandler>,
        kill: &CancellationToken,
    ) -> Arc<Self> {
        let Grounds {
            broker,
            wire,
            options,
            runtime,
        } = grounds;
        let workers = spec.workers;
        let member = Arc::new(Self {
            broker,
            wire,
            options,
            record,
            desk: Arc::new(Desk::new(spec.queue)),
            spec,
            // In order of time, so that the members in front of a new one keep their ranks.
            name: Uuid::now_v7().to_string(),
            handler,
            state: watch::Sender::new(SubscriptionState::Running),
            crew: Crew::new(kill),
            upkeep: Crew::new(kill),
            live: AtomicUsize::new(0),
            turns: RwLock::new(()),
            letters_taken: Notify::new(),
            left: watch::Sender::new(None),
            leaving: std::sync::Once::new(),
            runtime,
        });
        member.upkeep.hire(keep_claims(Arc::clone(&member)));
        member.upkeep.hire(acknowledge(Arc::clone(&member)));
        member.crew.hire(read(Arc::clone(&member)));
        for _ in 0..workers {
            member.crew.hire(work(Arc::clone(&member)));
        }
        member
    }

    pub(super) fn group(&self) -> &str {
        &self.record.name
    }

    pub(super) fn has_closed(&self) -> bool {
        *self.state.borrow() == SubscriptionState::Closed
    }

    /// Whether no other member is known to be live.
    pub(super) fn is_alone(&self) -> bool {
        self.live.load(Ordering::Relaxed) == 1
    }

    /// Ends the membership in good order by `deadline`. With `whole` it first handles all that waits in
    /// its partitions; the last member does so in any case, in all partitions.
    pub(super) async fn leave(self: &Arc<Self>, deadline: Instant, whole: bool) -> Result<()> {
        if self.has_closed() {
            return Ok(());
        }
        self.leaving.call_once(|| {
            self.state.send_replace(SubscriptionState::Draining);
            let member = Arc::clone(self);
            // A task of its own: whoever drops the future leaves a subscription that goes on ending.
            self.runtime.spawn(async move {
                let result = super::leaving::leave(&member, deadline, whole).await;
                member.left.send_replace(Some(result));
            });
        });
        let mut left = self.left.subscribe();
        match left.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(result)) => result.clone(),
            // The sender is a field of ours.
            _ => Ok(()),
        }
    }

    /// Ends the membership at once.
    pub(super) fn die(self: &Arc<Self>) {
        if self.has_closed() {
            return;
        }
        self.state.send_replace(SubscriptionState::Closed);
        self.crew.kill().cancel();
        let member = Arc::clone(self);
        self.runtime.spawn(async move {
            // Only when no handler runs here any more may another member have the events.
            let now = Instant::now();
            let finish = member.crew.finish(now).await;
            let upkeep = member.upkeep.finish(now).await;
            tracing::debug!(
                subscription = member.group(),
                ?finish,
                ?upkeep,
                "subscription aborted"
            );
            super::leaving::resign(&member).await;
            member.left.send_replace(Some(Ok(())));
        });
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member")
            .field("group", &self.record.name)
            .field("name", &self.name)
            .field("state", &*self.state.borrow())
            .finish_non_exhaustive()
    }
}

/// The handle's side of a member.
#[derive(Debug)]
pub(super) struct Control(pub(super) Arc<Member>);

#[async_trait]
impl SubscriptionControl for Control {
    fn name(&self) -> &str {
        self.0.group()
    }

    fn state(&self) -> watch::Receiver<SubscriptionState> {
        self.0.state.subscribe()
    }

    async fn unsubscribe(&self) -> Result<()> {
        let deadline = Instant::now() + self.0.options.drain_timeout;
        self.0.leave(deadline, false).await
    }

    fn abort(&self) {
        self.0.die();
    }

    async fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>> {
        let letters = self.0.broker.letters(self.0.group(), limit).await?;
        let decode = |letter| self.0.wire.dead_letter(letter);
        Ok(letters.into_iter().map(decode).collect())
    }

    async fn redrive(&self, events: &[EventId]) -> Result<usize> {
        if self.0.has_closed() {
            return Err(super::bus::ended(self.0.group()));
        }
        let found = self.0.broker.redrive(self.0.group(), events).await?;
        self.0.letters_taken.notify_waiters();
        Ok(found)
    }

    async fn discard(&self, events: &[EventId]) -> Result<usize> {
        let found = self.0.broker.discard(self.0.group(), events).await?;
        self.0.letters_taken.notify_waiters();
        Ok(found)
    }
}
