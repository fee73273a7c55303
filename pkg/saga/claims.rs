//! Which sagas are in work, in line, or to be left alone for a while.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bson::DateTime;
use tokio::task;
use tokio::time::Instant;

/// How long a saga is left alone that can be neither read nor written.
const PARKED: Duration = Duration::from_secs(30);

/// Bounded by the runner's concurrency and the length of one look.
#[derive(Debug, Default)]
pub(super) struct Claims {
    queue: VecDeque<Arc<str>>,
    working: HashMap<task::Id, Arc<str>>,
    /// In line or in work.
    taken: HashSet<Arc<str>>,
    parked: HashMap<Arc<str>, Instant>,
    /// When the next of the sagas that were seen is due.
    pub(super) next_due: Option<DateTime>,
    /// Whether the stored sagas have to be looked through.
    pub(super) look: bool,
}

impl Claims {
    /// What a look found, earliest first.
    pub(super) fn found(
        &mut self,
        sagas: impl IntoIterator<Item = (String, DateTime)>,
        now: DateTime,
    ) {
        self.next_due = None;
        let at = Instant::now();
        self.parked.retain(|_, until| *until > at);
        for (id, due) in sagas {
            if due > now {
                self.due(due);
                break;
            }
            let id: Arc<str> = id.into();
            if !self.parked.contains_key(&id) && self.taken.insert(Arc::clone(&id)) {
                self.queue.push_back(id);
            }
        }
    }

    /// Something will be due then.
    pub(super) fn due(&mut self, due: DateTime) {
        self.next_due = Some(self.next_due.map_or(due, |next| next.min(due)));
    }

    /// Whether something is due by now.
    pub(super) fn is_due(&self, now: DateTime) -> bool {
        self.next_due.is_some_and(|due| due <= now)
    }

    /// The next in line, if fewer than so many are in work.
    pub(super) fn next(&mut self, concurrency: usize) -> Option<Arc<str>> {
        match self.working.len() < concurrency {
            true => self.queue.pop_front(),
            false => None,
        }
    }

    pub(super) fn begun(&mut self, task: task::Id, id: Arc<str>) {
        self.working.insert(task, id);
    }

    /// A task has ended; the saga that it was for.
    pub(super) fn ended(&mut self, task: task::Id) -> Option<Arc<str>> {
        let id = self.working.remove(&task)?;
        self.taken.remove(&id);
        Some(id)
    }

    /// Leaves a saga alone for a while.
    pub(super) fn park(&mut self, id: Arc<str>) {
        self.parked.insert(id, Instant::now() + PARKED);
    }

    /// A saga was changed, by whomever. Those in work are looked for when they leave it.
    pub(super) fn changed(&mut self, id: &str) {
        if !self.taken.contains(id) {
            self.look = true;
        }
    }

    /// Whether it is time to look: what is in line comes first.
    pub(super) fn wants_look(&self) -> bool {
        self.look && self.queue.is_empty()
    }

    /// How many sagas a look must be able to pass over.
    pub(super) fn passed_over(&self) -> usize {
        self.working.len() + self.parked.len()
    }
}
