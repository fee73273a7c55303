use std::sync::Arc;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Content, Desk, Lane, Owned};
use crate::bus::RedeliveryPolicy;
use crate::bus::broker::Acknowledgement;
use crate::bus::work::FOREVER;

/// An attempt in progress. Dropping it without a result puts it back in its old place.
#[derive(Debug)]
pub(in crate::bus::broker) struct Job {
    desk: Arc<Desk>,
    lane: Lane,
    done: Acknowledgement,
    pub(in crate::bus::broker) content: Content,
    failures: u32,
    times: u32,
    /// Cancelled when the claim is lost.
    pub(in crate::bus::broker) lost: CancellationToken,
    settled: bool,
}

impl Desk {
    /// Waits for the next attempt. Dropping the future takes nothing.
    pub(in crate::bus::broker) async fn next(self: &Arc<Self>) -> Job {
        loop {
            let due = match self.take() {
                Ok(job) => return job,
                Err(due) => due,
            };
            match due {
                Some(due) => {
                    tokio::select! {
                        () = self.work.notified() => {}
                        () = tokio::time::sleep_until(due) => {}
                    }
                }
                None => self.work.notified().await,
            }
        }
    }

    fn take(self: &Arc<Self>) -> Result<Job, Option<Instant>> {
        let mut guard = self.state();
        let state = &mut *guard;
        if state.stalled.is_some() {
            return Err(None);
        }
        let now = Instant::now();
        let mut due: Option<Instant> = None;
        let turn = state.turn;
        let ranges = [(turn, u32::MAX), (0, turn)];
        for (from, to) in ranges {
            for (partition, owned) in state.owned.range_mut(from..to) {
                if owned.yielding {
                    continue;
                }
                let Some(attempt) = owned.lanes.take(now) else {
                    due = due.into_iter().chain(owned.lanes.next_due()).min();
                    continue;
                };
                owned.busy += 1;
                state.turn = partition + 1;
                let job = Job {
                    desk: Arc::clone(self),
                    lane: attempt.key,
                    done: Acknowledgement {
                        claim: owned.claim,
                        position: attempt.item.position,
                    },
                    content: attempt.item.content,
                    failures: attempt.failures,
                    times: attempt.item.times,
                    lost: owned.lost.clone(),
                    settled: false,
                };
                if state.owned.values().any(|it| it.lanes.has_more()) {
                    // This worker is busy from here on: another one must see to what is ready or
                    // resting.
                    self.work.notify_one();
                }
                return Ok(job);
            }
        }
        Err(due)
    }
}

impl Job {
    pub(in crate::bus::broker) fn done(&self) -> Acknowledgement {
        self.done
    }

    /// How many attempts there were when this one fails as well.
    pub(in crate::bus::broker) fn attempts(&self) -> u32 {
        self.failures.saturating_add(1)
    }

    /// How often the broker has handed it out.
    pub(in crate::bus::broker) fn deliveries(&self) -> u32 {
        self.times
    }

    /// It was handled, or needs no handling any more, and is to be acknowledged.
    pub(in crate::bus::broker) fn handled(self) {
        self.finish(true);
    }

    /// It lies in the dead letters, which acknowledged it.
    pub(in crate::bus::broker) fn buried(self) {
        self.finish(false);
    }

    fn finish(mut self, acknowledge: bool) {
        self.settle(|owned, lane| owned.lanes.finish(lane), acknowledge);
    }

    /// It failed. Says whether it will be tried again; otherwise it stays in work.
    pub(in crate::bus::broker) fn retried(&mut self, policy: RedeliveryPolicy) -> bool {
        let Some(delay) = policy.delay_after(self.attempts()) else {
            return false;
        };
        let until = Instant::now() + delay.min(FOREVER);
        self.settle(|owned, lane| owned.lanes.rest(lane, until), false);
        true
    }

    fn settle(&mut self, how: impl FnOnce(&mut Owned, &Lane), acknowledge: bool) {
        self.settled = true;
        let mut state = self.desk.state();
        // A lost claim took its lanes along.
        let Some(owned) = state.current(self.done.claim) else {
            return;
        };
        owned.busy -= 1;
        how(owned, &self.lane);
        if acknowledge {
            state.handled.push(self.done);
            self.desk.handled.notify_one();
        }
        drop(state);
        self.desk.moved();
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if !self.settled {
            self.settle(|owned, lane| owned.lanes.put_back(lane), false);
        }
    }
}
