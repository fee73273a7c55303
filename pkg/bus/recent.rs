use std::collections::{HashSet, VecDeque};

use crate::event::EventId;

/// The event ids seen last, the oldest forgotten first.
#[derive(Debug)]
pub(super) struct Recent {
    ids: HashSet<EventId>,
    order: VecDeque<EventId>,
    capacity: usize,
}

impl Recent {
    /// Remembers at most `capacity` ids. An id takes about 50 bytes.
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            ids: HashSet::new(),
            order: VecDeque::new(),
            capacity,
        }
    }

    pub(super) fn contains(&self, id: EventId) -> bool {
        self.ids.contains(&id)
    }

    pub(super) fn remember(&mut self, id: EventId) {
        if self.capacity == 0 || !self.ids.insert(id) {
            return;
        }
        if self.order.len() >= self.capacity
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
        self.order.push_back(id);
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
