//! Workers: they put batches together and see them through.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Shared;
use super::commit::Flight;
use super::state::State;

/// How long the next update is waited for while nothing else is under way: those that are about to come
/// are on their way to a processor, and each that comes shows that others may follow.
const SETTLING: Duration = Duration::from_micros(150);

impl Shared {
    /// Takes a seat for a worker if there is something to commit and room for one. It is to be
    /// [started](Self::start_worker) once the lock is released.
    pub(super) fn pump(self: &Arc<Self>, state: &mut State) -> Option<Seat> {
        if state.ready.is_empty() || state.gathering || state.workers >= self.seats(state) {
            return None;
        }
        state.workers += 1;
        Some(Seat(Some(Arc::clone(self))))
    }

    /// How many commits there may be now: one more than usual while there is a whole batch for it. With
    /// less, batches would only get smaller.
    fn seats(&self, state: &State) -> usize {
        let is_full = state.ready.len() >= self.options.batch_updates;
        self.options.commits_in_flight + usize::from(is_full)
    }

    pub(super) fn start_worker(self: &Arc<Self>, seat: Option<Seat>) {
        let Some(seat) = seat else {
            return;
        };
        let shared = Arc::clone(self);
        self.tasks.spawn(async move {
            while let Some(flight) = shared.next_batch().await {
                flight.land().await;
            }
            seat.given_back();
        });
    }

    async fn next_batch(self: &Arc<Self>) -> Option<Flight> {
        {
            let mut state = self.lock();
            if state.workers > self.seats(&state) {
                // The others have seats, and see to what is queued.
                state.workers -= 1;
                return None;
            }
        }
        self.gather().await;
        let active = self.active();
        let began = self.tick();
        let mut state = self.lock();
        state.gathering = false;
        state.note_crowd(active);
        let Some(batch) = state.take_batch(self.options.batch_bytes) else {
            // The seat is given back under the lock that found nothing more to do.
            state.workers -= 1;
            return None;
        };
        let number = state.batches;
        let seat = self.pump(&mut state);
        drop(state);
        self.start_worker(seat);
        let mut flight = Flight::new(Arc::clone(self), batch, began);
        if let Some(batch) = flight.batches.last_mut() {
            batch.fill();
            self.telemetry.batch(batch, number);
        }
        Some(flight)
    }

    /// Waits for the updates that are about to come, if there are any.
    ///
    /// Callers that were answered a moment ago, or whose documents are being read, come back within
    /// microseconds, one after the other. Whoever leaves with the first of them leaves with few and
    /// makes the others wait for the whole of its commit. A lone caller is never waited for: nobody
    /// else was there lately.
    async fn gather(&self) {
        let start = Instant::now();
        let (mut came, mut last) = (0, start);
        loop {
            let arrived = self.gathered.notified();
            let waits = {
                let mut state = self.lock();
                let queued = state.tickets.len();
                let share = state.crowd.div_ceil(self.options.commits_in_flight);
                let enough = share.clamp(1, state.batch_updates.max(1));
                let missing = state.is_missing(self.active());
                let now = Instant::now();
                if queued > came {
                    (came, last) = (queued, now);
                }
                let is_late = now - start >= self.options.linger
                    || state.flying == 0 && now - last >= SETTLING;
                if queued == 0 || state.ready.len() >= enough || !missing || is_late {
                    return;
                }
                state.gathering = true;
                state.enough = enough;
                state.flying > 0
            };
            if waits {
                // Until enough have come; the timer is only for those that do not.
                let _ = tokio::time::timeout(self.options.linger, arrived).await;
            } else {
                // Too short for a timer.
                tokio::task::yield_now().await;
            }
        }
    }
}

/// A worker's seat, given back if its task ends before its work.
pub(super) struct Seat(Option<Arc<Shared>>);

impl Seat {
    fn given_back(mut self) {
        self.0 = None;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let Some(shared) = self.0.take() else {
            return;
        };
        let mut state = shared.lock();
        state.workers -= 1;
        state.gathering = false;
        // After a panic nobody else looks after what is queued until the next proposal, which may never
        // come. A runtime that ends takes no more tasks.
        let seat = match std::thread::panicking() {
            true => shared.pump(&mut state),
            false => None,
        };
        drop(state);
        shared.start_worker(seat);
    }
}
