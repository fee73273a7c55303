use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::group::Group;
use crate::bus::work::{Crew, Finish, attempt};
use crate::bus::{DeadLetter, EventHandler, SubscriptionControl, SubscriptionState};
use crate::error::{Error, ErrorKind, Result};
use crate::event::EventId;

/// One subscription: some workers on a group.
pub(super) struct Member {
    group: Arc<Group>,
    number: u64,
    handler: Arc<dyn EventHandler>,
    state: watch::Sender<SubscriptionState>,
    crew: Crew,
    drain_timeout: Duration,
}

impl Member {
    /// Joins a group and starts its workers; `None` if the group has ended.
    pub(super) fn start(
        group: Arc<Group>,
        handler: Arc<dyn EventHandler>,
        workers: usize,
        kill: &CancellationToken,
        drain_timeout: Duration,
    ) -> Option<Arc<Self>> {
        let state = watch::Sender::new(SubscriptionState::Running);
        let number = group.join(&state)?;
        let member = Arc::new(Self {
            group,
            number,
            handler,
            state,
            crew: Crew::new(kill),
            drain_timeout,
        });
        for _ in 0..workers {
            member.crew.hire(work(Arc::clone(&member)));
        }
        Some(member)
    }

    pub(super) fn has_closed(&self) -> bool {
        *self.state.borrow() == SubscriptionState::Closed
    }

    /// Ends the membership in good order by `deadline`.
    pub(super) async fn leave(&self, deadline: Instant) -> Result<()> {
        if self.has_closed() {
            return Ok(());
        }
        self.state.send_replace(SubscriptionState::Draining);
        let mut late = false;
        // Once told to stop, this member has left already and has nobody to drain with.
        if !self.crew.stop().is_cancelled() && self.group.leave(self.number, true) {
            late |= timeout_at(deadline, self.group.drained()).await.is_err();
        }
        let finish = self.crew.finish(deadline).await;
        late |= finish == Finish::Late;
        self.state.send_replace(SubscriptionState::Closed);
        let left = self.group.end();

        let name = &self.group.name;
        if finish == Finish::Blocked {
            return Err(Error::new(
                ErrorKind::Timeout,
                format!("a handler of subscription {name} blocks its thread and cannot be stopped"),
            ));
        }
        if left.events == 0 && !late {
            return Ok(());
        }
        let (kind, why) = match left.stalled {
            Some(reason) => (ErrorKind::DeadLettered, reason.to_string()),
            None => (
                ErrorKind::Timeout,
                format!("not drained within {:?}", self.drain_timeout),
            ),
        };
        Err(Error::new(
            kind,
            format!(
                "subscription {name} ended with {} events unhandled: {why}",
                left.events
            ),
        ))
    }

    /// Ends the membership at once.
    pub(super) fn die(&self) {
        self.group.leave(self.number, false);
        self.crew.kill().cancel();
        self.state.send_replace(SubscriptionState::Closed);
        if self.group.spec.group.is_none() {
            self.group.end();
        }
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member")
            .field("group", &self.group.name)
            .field("number", &self.number)
            .field("state", &*self.state.borrow())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl SubscriptionControl for Member {
    fn name(&self) -> &str {
        &self.group.name
    }

    fn state(&self) -> watch::Receiver<SubscriptionState> {
        self.state.subscribe()
    }

    async fn unsubscribe(&self) -> Result<()> {
        self.leave(Instant::now() + self.drain_timeout).await
    }

    fn abort(&self) {
        self.die();
    }

    async fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>> {
        Ok(self.group.dead_letters(limit))
    }

    async fn redrive(&self, events: &[EventId]) -> Result<usize> {
        self.group.remove_dead(events, true)
    }

    async fn discard(&self, events: &[EventId]) -> Result<usize> {
        self.group.remove_dead(events, false)
    }
}

async fn work(member: Arc<Member>) {
    loop {
        let job = tokio::select! {
            biased;
            () = member.crew.stop().cancelled() => return,
            job = member.group.next() => job,
        };
        let event = job.event().clone();
        // Dropping an unsettled job gives its event back.
        if let Some(result) = attempt(&member.handler, event, member.crew.kill().cancelled()).await
        {
            job.settle(result);
        }
    }
}
