use std::collections::{HashSet, VecDeque};

use crate::event::EventId;

/// How many event ids a bus remembers to recognise repetitions: a relay repeats at most what it
/// published since its last checkpoint, by default some thousand events. About 200 kB.
const REMEMBERED_IDS: usize = 4_096;

/// The event ids seen last, the oldest forgotten first.
#[derive(Debug)]
pub(in crate::bus) struct Recent {
    ids: HashSet<EventId>,
    order: VecDeque<EventId>,
    capacity: usize,
}

impl Default for Recent {
    fn default() -> Self {
        Self::new(REMEMBERED_IDS)
    }
}

impl Recent {
    /// Remembers at most `capacity` ids. An id takes about 50 bytes.
    pub(in crate::bus) fn new(capacity: usize) -> Self {
        Self {
            ids: HashSet::new(),
            order: VecDeque::new(),
            capacity,
        }
    }

    pub(in crate::bus) fn contains(&self, id: EventId) -> bool {
        self.ids.contains(&id)
    }

    /// Remembers an id; says whether it was new.
    pub(in crate::bus) fn remember(&mut self, id: EventId) -> bool {
        if self.capacity == 0 {
            return true;
        }
        if !self.ids.insert(id) {
            return false;
        }
        if self.order.len() >= self.capacity
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
        self.order.push_back(id);
        true
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn the_oldest_is_forgotten_first() {
        let id = |n| EventId::from(Uuid::from_u128(n));
        let mut recent = Recent::new(2);
        // Remembering twice does not take a second place.
        for n in [1, 2, 2, 2] {
            recent.remember(id(n));
        }
        assert!(recent.contains(id(1)) && recent.contains(id(2)));
        recent.remember(id(3));
        assert!(!recent.contains(id(1)) && recent.contains(id(2)) && recent.contains(id(3)));
        assert_eq!((recent.ids.len(), recent.order.len()), (2, 2));
        let mut none = Recent::new(0);
        none.remember(id(1));
        assert!(!none.contains(id(1)));
    }
}
