use std::collections::{HashSet, VecDeque};

use crate::event::EventId;

/// How many event ids are remembered to recognise repetitions: a relay repeats at most what it
/// published since its last checkpoint, by default some thousand events. About 200 kB.
const REMEMBERED_IDS: usize = 4_096;

/// The ids of the events that came last.
#[derive(Debug, Default)]
pub(in crate::bus) struct Recent {
    ids: HashSet<EventId>,
    order: VecDeque<EventId>,
}

impl Recent {
    pub(in crate::bus) fn contains(&self, id: EventId) -> bool {
        self.ids.contains(&id)
    }

    /// Remembers an id; says whether it was new.
    pub(in crate::bus) fn remember(&mut self, id: EventId) -> bool {
        if !self.ids.insert(id) {
            return false;
        }
        if self.order.len() >= REMEMBERED_IDS
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
    use super::*;

    #[test]
    fn the_oldest_ids_are_forgotten() {
        let id = |n: usize| EventId::from(uuid::Uuid::from_u128(n as u128));
        let mut recent = Recent::default();
        for n in 0..=REMEMBERED_IDS {
            assert!(recent.remember(id(n)));
            assert!(!recent.remember(id(n)));
        }
        assert!(!recent.contains(id(0)));
        assert!(recent.contains(id(1)));
    }
}
