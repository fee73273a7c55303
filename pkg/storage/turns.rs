//! Who goes first among the updates of one document within this process, where going all at once does
//! not work.
//!
//! Updates build on each other's results as they come. What takes long between seeing a document and
//! handing in a result, a closure that awaits or a transaction, could lose for ever against those that
//! do not; so after losing once it lines up for its document, and while there is a line everybody
//! lines up. A turn is a hint and no lock: correctness comes from the version check alone. Whoever has kept a turn to
//! himself for [`PATIENCE`], or as long as those turns last, loses it to the next in line, so an update that is never polled again (held in
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

#[derive(Debug)]
pub(crate) struct Turns {
    lines: Mutex<HashMap<DocumentKey, Line>>,
    patience: Duration,
}

impl Default for Turns {
    fn default() -> Self {
        Self::with_patience(PATIENCE)
    }
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
    pub(crate) fn with_patience(patience: Duration) -> Self {
        Self {
            lines: Mutex::default(),
            patience,
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<DocumentKey, Line>> {
        // No code panics while holding the lock; the map is consistent even if it did.
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_since(&self, key: &DocumentKey, ticket: u64, since: Option<Instant>) {
        let mut lines = self.lock();
        if let Some(line) = lines.get_mut(key)
            && line.is_held_by(ticket)
        {
            line.holder = Some((ticket, since));
        }
    }

    /// Whether somebody has the turn on a document or waits for it.
    pub(crate) fn is_taken(&self, key: &DocumentKey) -> bool {
        self.lock().contains_key(key)
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

/// A turn while the engine works.
#[derive(Debug)]
pub(crate) struct Entrusted {
    turns: Arc<Turns>,
    key: DocumentKey,
    ticket: u64,
}

impl Drop for Entrusted {
    /// The caller is next to do something.
    fn drop(&mut self) {
        let now = Some(Instant::now());
        self.turns.set_since(&self.key, self.ticket, now);
    }
}

impl Turn {
    /// The engine begins to work on the caller's behalf: patience does not run out until what is
    /// returned is dropped, which must happen in a task that runs to its end.
    pub(crate) fn entrust(&self) -> Entrusted {
        self.turns.set_since(&self.key, self.ticket, None);
        Entrusted {
            turns: Arc::clone(&self.turns),
            key: self.key.clone(),
            ticket: self.ticket,
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
                line.advance(now, self.turns.patience);
                match line.holder {
                    Some((ticket, since)) if ticket != self.ticket => {
                        since.unwrap_or(now) + self.turns.patience
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
    fn advance(&mut self, now: Instant, patience: Duration) {
        let free = self
            .holder
            .is_none_or(|(_, since)| since.is_some_and(|s| now.duration_since(s) >= patience));
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
        line.advance(Instant::now(), self.turns.patience);
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
        let entrusted = working.entrust();
        let start = Instant::now();
        let end = async {
            tokio::time::sleep(10 * PATIENCE).await;
            drop(entrusted);
        };
        let (next, ()) = tokio::join!(turns.take(&key), end);
        assert_eq!(start.elapsed(), 11 * PATIENCE);
        drop((working, next));
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
