use tokio_util::sync::CancellationToken;

use super::{Desk, Owned};
use crate::bus::broker::Claim;
use crate::bus::work::{Lanes, Recent};

/// The partitions that a member holds.
impl Desk {
    /// The claims that are held, those being given back included.
    pub(in crate::bus::broker) fn claims(&self) -> Vec<Claim> {
        self.state().owned.values().map(|it| it.claim).collect()
    }

    /// How many partitions are held and not being given back.
    pub(in crate::bus::broker) fn kept(&self) -> usize {
        let state = self.state();
        state.owned.values().filter(|it| !it.yielding).count()
    }

    pub(in crate::bus::broker) fn add(&self, claims: &[Claim]) {
        let mut state = self.state();
        for claim in claims {
            state.forget(claim.partition);
            state.owned.insert(
                claim.partition,
                Owned {
                    claim: *claim,
                    lost: CancellationToken::new(),
                    lanes: Lanes::new(),
                    recent: Recent::default(),
                    busy: 0,
                    yielding: false,
                    exhausted: false,
                },
            );
            state.revision += 1;
        }
        drop(state);
        self.moved();
    }

    /// Drops partitions with everything in them; handlers at work on them are broken off.
    pub(in crate::bus::broker) fn lose(&self, lost: impl Fn(Claim) -> bool) -> usize {
        let mut state = self.state();
        let gone: Vec<u32> = state
            .owned
            .values()
            .filter(|it| lost(it.claim))
            .map(|it| it.claim.partition)
            .collect();
        for partition in &gone {
            state.forget(*partition);
        }
        drop(state);
        self.moved();
        gone.len()
    }

    /// Begins to give back so many partitions, the last ones first.
    pub(in crate::bus::broker) fn give_back(&self, count: usize) {
        let mut state = self.state();
        let kept = state.owned.values_mut().rev().filter(|it| !it.yielding);
        for owned in kept.take(count) {
            owned.yielding = true;
        }
        state.revision += 1;
        drop(state);
        self.moved();
    }

    /// Takes off the desk what is being given back and is idle, with everything acknowledged.
    pub(in crate::bus::broker) fn take_given_back(&self) -> Vec<Claim> {
        let mut state = self.state();
        let idle: Vec<Claim> = state
            .owned
            .values()
            .filter(|it| it.yielding && it.busy == 0 && !state.unacknowledged(it.claim))
            .map(|it| it.claim)
            .collect();
        for claim in &idle {
            state.forget(claim.partition);
        }
        idle
    }

    pub(in crate::bus::broker) fn has_given_back(&self) -> bool {
        let state = self.state();
        state
            .owned
            .values()
            .any(|it| it.yielding && it.busy == 0 && !state.unacknowledged(it.claim))
    }
}
