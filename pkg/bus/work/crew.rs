use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long to wait for a handler to reach an `await` after it was told to stop. One that blocks its
/// thread cannot be stopped at all, and must not hold up the end of the program for ever.
const STOP_GRACE: Duration = Duration::from_secs(1);

/// The tasks that work for one subscription, and the two ways to end them.
#[derive(Debug)]
pub(in crate::bus) struct Crew {
    /// Finish what is in work, take nothing new.
    stop: CancellationToken,
    /// Drop what is in work.
    kill: CancellationToken,
    tasks: TaskTracker,
}

/// How the tasks of a crew ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::bus) enum Finish {
    InTime,
    /// What was in work at the deadline was dropped.
    Late,
    /// A handler blocks its thread; it may still run.
    Blocked,
}

impl Crew {
    /// A crew without tasks, which ends at the latest with `kill`. Ending it does not cancel `kill`.
    pub(in crate::bus) fn new(kill: &CancellationToken) -> Self {
        let kill = kill.child_token();
        Self {
            stop: kill.child_token(),
            kill,
            tasks: TaskTracker::new(),
        }
    }

    pub(in crate::bus) fn hire(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    pub(in crate::bus) fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    pub(in crate::bus) fn kill(&self) -> &CancellationToken {
        &self.kill
    }

    /// Ends the tasks: in good order until the deadline, then by force.
    pub(in crate::bus) async fn finish(&self, deadline: Instant) -> Finish {
        self.stop.cancel();
        self.tasks.close();
        let late = timeout_at(deadline, self.tasks.wait()).await.is_err();
        self.kill.cancel();
        match tokio::time::timeout(STOP_GRACE, self.tasks.wait()).await {
            Err(_) => Finish::Blocked,
            Ok(()) if late => Finish::Late,
            Ok(()) => Finish::InTime,
        }
    }
}
