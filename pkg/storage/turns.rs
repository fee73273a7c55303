//! Who goes first among the updates of one document within this process.
//!
//! Updates that collide cost a commit and a re-run each, so the updates of a document take turns. A turn
//! is a hint and no lock: correctness comes from the version check alone. Whoever has kept a turn to
//! himself for [`PATIENCE`] loses it to the next in line, so an update that is never polled again (held in
//! a `select!`, say) holds up nobody for longer. Time that the engine's own tasks spend on reading and
//! committing does not count: they come to an end by themselves, and under load, when they take long,
//! handing on turns would make everybody collide.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::document::DocumentKey;

/// A closure takes microseconds; this is more than a task waits to be polled on a busy machine.
const PATIENCE: Duration = Duration::from_millis(50);

#[derive(Debug, Default)]
pub(crate) struct Turns {
    lines: Mutex<HashMap<DocumentKey, Line>>,
}

#[derive(Debug, Default)]
struct Line {
    next_ticket: u64,
    /// Who has the turn, and since when it lies in the caller's hands; `None` while the engine works.
    holder: Option<(u64, Option<Instant>)>,
    waiting: VecDeque<(u64, Arc<Notify>)>,
}

/// A turn or a place in the line; given up when dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    turns: Arc<Turns>,
    key: DocumentKey,
    ticket: u64,
}

impl Turns {
    fn lock(&self) -> MutexGuard<'_, HashMap<DocumentKey, Line>> {
        // No code panics while holding the lock; the map is consistent even if it did.
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the turn on a document. Cancel-safe: dropping the future leaves the line.
    pub(crate) async fn take(self: &Arc<Self>, key: &DocumentKey) -> Turn {
        let wake = Arc::new(Notify::new());
        let turn = {
            let mut lines = self.lock();
            let line = lines.entry(key.clone()).or_default();
            let ticket = line.next_ticket;
            line.next_ticket += 1;
            line.waiting.push_back((ticket, Arc::clone(&wake)));
            Turn {
                turns: Arc::clone(self),
                key: key.clone(),
                ticket,
            }
        };
        turn.wait(&wake).await;
        turn
    }
}

impl Turn {
    /// Goes on with a turn after a run that did not succeed: at once, or at the head of the line if it
    /// was lost meanwhile. At its end some would lose against other processes for ever; beside it they
    /// would collide with everybody.
    pub(crate) async fn resume(self) -> Self {
        let wake = Arc::new(Notify::new());
        {
            let mut lines = self.turns.lock();
            let line = lines.entry(self.key.clone()).or_default();
            if !line.is_held_by(self.ticket) {
                let ticket = self.ticket;
                line.waiting.retain(|(waiting, _)| *waiting != ticket);
                line.waiting.push_front((ticket, Arc::clone(&wake)));
            }
        }
        self.wait(&wake).await;
        self
    }

    /// The engine begins to work on the caller's behalf: patience does not run out meanwhile. Whoever
    /// calls this calls [`hand_back`](Self::hand_back) in a task that runs to its end.
    pub(crate) fn entrust(&self) {
        self.set_since(None);
    }

    /// The caller is next to do something.
    pub(crate) fn hand_back(&self) {
        self.set_since(Some(Instant::now()));
    }

    fn set_since(&self, since: Option<Instant>) {
        let mut lines = self.turns.lock();
        if let Some(line) = lines.get_mut(&self.key)
            && line.is_held_by(self.ticket)
        {
            line.holder = Some((self.ticket, since));
        }
    }

    async fn wait(&self, wake: &Notify) {
        loop {
            let until = {
                let mut lines = self.turns.lock();
                let Some(line) = lines.get_mut(&self.key) else {
                    return;
                };
                let now = Instant::now();
                line.advance(now);
                match line.holder {
                    Some((ticket, since)) if ticket != self.ticket => {
                        since.unwrap_or(now) + PATIENCE
                    }
                    _ => return,
                }
            };
            // A waiter wakes for its own turn, or to take it from a holder that is overdue.
            let _ = tokio::time::timeout_at(until, wake.notified()).await;
        }
    }
}

impl Line {
    /// Hands the turn on if nobody has it or the holder is overdue.
    fn advance(&mut self, now: Instant) {
        let free = self
            .holder
            .is_none_or(|(_, since)| since.is_some_and(|s| now.duration_since(s) >= PATIENCE));
        if free {
            self.holder = self.waiting.pop_front().map(|(ticket, wake)| {
                wake.notify_one();
                (ticket, Some(now))
            });
        }
    }

    fn is_held_by(&self, ticket: u64) -> bool {
        self.holder.is_some_and(|(holder, _)| holder == ticket)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut lines = self.turns.lock();
        let Some(line) = lines.get_mut(&self.key) else {
            return;
        };
        line.waiting.retain(|(ticket, _)| *ticket != self.ticket);
        if line.is_held_by(self.ticket) {
            line.holder = None;
        }
        line.advance(Instant::now());
        if line.holder.is_none() && line.waiting.is_empty() {
            lines.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn turns_come_in_order_and_leave_nothing_behind() {
        let turns = Arc::new(Turns::default());
        let key = DocumentKey::new("users", 1);
        let order = Arc::new(Mutex::new(Vec::new()));
        let first = turns.take(&key).await;
        let tasks: Vec<_> = (0..10)
            .map(|n| {
                let (turns, key, order) = (Arc::clone(&turns), key.clone(), Arc::clone(&order));
                tokio::spawn(async move {
                    let _turn = turns.take(&key).await;
                    order.lock().unwrap().push(n);
                    tokio::task::yield_now().await;
                })
            })
            .collect();
        tokio::task::yield_now().await;
        assert!(order.lock().unwrap().is_empty());
        drop(first);
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(*order.lock().unwrap(), (0..10).collect::<Vec<_>>());
        assert!(turns.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_holder_that_does_not_come_back_holds_up_nobody_for_long() {
        let turns = Arc::new(Turns::default());
        let key = DocumentKey::new("users", 1);
        let stuck = turns.take(&key).await;
        let start = Instant::now();
        drop(turns.take(&key).await);
        assert_eq!(start.elapsed(), PATIENCE);
        drop(stuck);
        assert!(turns.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn patience_does_not_run_out_while_the_engine_works() {
        let turns = Arc::new(Turns::default());
        let key = DocumentKey::new("users", 1);
        let working = turns.take(&key).await;
        working.entrust();
        let start = Instant::now();
        let end = async {
            tokio::time::sleep(10 * PATIENCE).await;
            working.hand_back();
        };
        let (next, ()) = tokio::join!(turns.take(&key), end);
        assert_eq!(start.elapsed(), 11 * PATIENCE);
        drop((working, next));
        assert!(turns.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_turn_is_resumed_at_the_head_of_the_line() {
        let turns = Arc::new(Turns::default());
        let key = DocumentKey::new("users", 1);
        let first = turns.take(&key).await;
        let overtaking = turns.take(&key).await;
        let order = Mutex::new(Vec::new());
        let late = async {
            drop(turns.take(&key).await);
            order.lock().unwrap().push("late");
        };
        let resumed = async {
            let first = first.resume().await;
            order.lock().unwrap().push("resumed");
            drop(first.resume().await);
        };
        tokio::join!(late, resumed, async { drop(overtaking) });
        assert_eq!(*order.lock().unwrap(), ["resumed", "late"]);
        assert!(turns.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiter_that_is_dropped_leaves_the_line() {
        let turns = Arc::new(Turns::default());
        let key = DocumentKey::new("users", 1);
        let first = turns.take(&key).await;
        {
            let mut waiter = Box::pin(turns.take(&key));
            assert!(futures_util::poll!(&mut waiter).is_pending());
        }
        drop(first);
        assert!(turns.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiter_that_is_never_polled_again_delays_the_others_once() {
        let turns = Arc::new(Turns::default());
        let key = DocumentKey::new("users", 1);
        let first = turns.take(&key).await;
        let mut unpolled = Box::pin(turns.take(&key));
        assert!(futures_util::poll!(&mut unpolled).is_pending());
        let start = Instant::now();
        let (others, ()) = tokio::join!(turns.take(&key), async { drop(first) });
        assert_eq!(start.elapsed(), PATIENCE);
        drop(others);
        drop(unpolled);
        assert!(turns.lock().is_empty());
    }
}
