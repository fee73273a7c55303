//! What was acknowledged lately.

use std::collections::{HashSet, VecDeque};

/// How many acknowledged deliveries an owner recognises when a server that was killed has forgotten the
/// acknowledgement and delivers them again.
const REMEMBERED: usize = 8_192;

/// The latest deliveries that were acknowledged.
#[derive(Debug, Default)]
pub(super) struct Done {
    places: HashSet<u64>,
    order: VecDeque<u64>,
}

impl Done {
    pub(super) fn contains(&self, place: u64) -> bool {
        self.places.contains(&place)
    }

    pub(super) fn remember(&mut self, place: u64) {
        if self.places.insert(place) {
            self.order.push_back(place);
        }
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.places.remove(&oldest);
        }
    }
}
