use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::group::{Group, Job};
use crate::bus::{DeadLetter, EventHandler, SubscriptionControl, SubscriptionState};
use crate::error::{BoxError, Error, ErrorKind, Result};
use crate::event::{Event, EventId};

/// How long to wait for a handler to reach an `await` after it was told to stop. One that blocks its
/// thread cannot be stopped at all, and must not hold up the end of the program for ever.
const STOP_GRACE: Duration = Duration::from_secs(1);

/// One subscription: some workers on a group.
pub(super) struct Member {
    group: Arc<Group>,
    number: u64,
    handler: Arc<dyn EventHandler>,
    state: watch::Sender<SubscriptionState>,
    /// Finish what is in work, take nothing new.
    stop: CancellationToken,
    /// Drop what is in work.
    kill: CancellationToken,
    workers: TaskTracker,
    drain_timeout: Duration,
}

impl Member {
    /// Joins a group and starts its workers; `None` if the group has ended.
    pub(super) fn start(
        group: Arc<Group>,
        handler: Arc<dyn EventHandler>,
        workers: usize,
        kill: CancellationToken,
        drain_timeout: Duration,
    ) -> Option<Arc<Self>> {
        let state = watch::Sender::new(SubscriptionState::Running);
        let number = group.join(&state)?;
        let member = Arc::new(Self {
            group,
            number,
            handler,
            state,
            stop: kill.child_token(),
            kill,
            workers: TaskTracker::new(),
            drain_timeout,
        });
        for _ in 0..workers {
            member.workers.spawn(work(Arc::clone(&member)));
        }
        member.workers.close();
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
        if !self.stop.is_cancelled() && self.group.leave(self.number, true) {
            late |= timeout_at(deadline, self.group.drained()).await.is_err();
        }
        self.stop.cancel();
        late |= timeout_at(deadline, self.workers.wait()).await.is_err();
        self.kill.cancel();
        let stopped = tokio::time::timeout(STOP_GRACE, self.workers.wait()).await;
        self.state.send_replace(SubscriptionState::Closed);
        let left = self.group.end();

        let name = &self.group.name;
        if stopped.is_err() {
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
        self.kill.cancel();
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
            () = member.stop.cancelled() => return,
            job = member.group.next() => job,
        };
        attempt(&member, job).await;
    }
}

async fn attempt(member: &Member, job: Job) {
    let handler = Arc::clone(&member.handler);
    let event: Event = job.event().clone();
    // The call itself may panic as well as the polling, hence a future of our own around both.
    let mut handling = Box::pin(async move { handler.handle(event).await });
    let result = tokio::select! {
        biased;
        () = member.kill.cancelled() => None,
        result = AssertUnwindSafe(&mut handling).catch_unwind() => Some(result),
    };
    // Values that the handler's future holds may panic when they are dropped.
    let dropped = catch_unwind(AssertUnwindSafe(|| drop(handling)));
    match (result, dropped) {
        // Dropping `job` gives the event back.
        (None, _) => {}
        (Some(Ok(Ok(()))), Ok(())) => job.settle(Ok(())),
        (Some(Ok(Err(error))), Ok(())) => job.settle(Err(with_causes(error))),
        (Some(Err(panic)), _) | (_, Err(panic)) => job.settle(Err(panic_message(panic))),
    }
}

fn with_causes(error: BoxError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        // Many errors repeat their cause in their own message.
        if !text.ends_with(&message) {
            text = format!("{text}: {message}");
        }
        cause = error.source();
    }
    text
}

fn panic_message(panic: Box<dyn Any + Send>) -> String {
    let message = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    format!("handler panicked: {message}")
}
