//! All leases of this process.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::lease::Lease;
use crate::bus::broker::Claim;

/// The leases of the members in this process, by group, member and partition.
#[derive(Debug, Default)]
pub(super) struct Leases(Mutex<HashMap<Owner, HashMap<u32, Arc<Lease>>>>);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Owner {
    group: Arc<str>,
    member: Arc<str>,
}

impl Owner {
    fn new(group: &str, member: &str) -> Self {
        Self {
            group: group.into(),
            member: member.into(),
        }
    }
}

impl Leases {
    /// No code of others runs under this lock, so a poisoned one means nothing.
    fn all(&self) -> MutexGuard<'_, HashMap<Owner, HashMap<u32, Arc<Lease>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The leases of those claims that are current as far as this process knows.
    pub(super) fn current(&self, group: &str, member: &str, claims: &[Claim]) -> Vec<Arc<Lease>> {
        let all = self.all();
        let Some(leases) = all.get(&Owner::new(group, member)) else {
            return Vec::new();
        };
        let current = |claim: &Claim| {
            let lease = leases.get(&claim.partition)?;
            (lease.claim == *claim).then(|| Arc::clone(lease))
        };
        claims.iter().filter_map(current).collect()
    }

    pub(super) fn insert(&self, group: &str, member: &str, lease: Arc<Lease>) {
        let earlier = self
            .all()
            .entry(Owner::new(group, member))
            .or_default()
            .insert(lease.claim.partition, lease);
        if let Some(earlier) = earlier {
            earlier.give_back();
        }
    }

    /// Takes a lease out, if it is still the current one, and stops its reading.
    pub(super) fn remove(&self, group: &str, member: &str, claim: Claim) -> Option<Arc<Lease>> {
        let owner = Owner::new(group, member);
        let mut all = self.all();
        let leases = all.get_mut(&owner)?;
        if leases.get(&claim.partition)?.claim != claim {
            return None;
        }
        let lease = leases.remove(&claim.partition)?;
        if leases.is_empty() {
            all.remove(&owner);
        }
        drop(all);
        lease.give_back();
        Some(lease)
    }

    /// Stops all reading for a group that is gone.
    pub(super) fn forget(&self, group: &str) {
        let mut gone = Vec::new();
        self.all().retain(|owner, leases| {
            let stays = &*owner.group != group;
            if !stays {
                gone.extend(leases.drain().map(|(_, lease)| lease));
            }
            stays
        });
        for lease in gone {
            lease.give_back();
        }
    }

    /// Stops all reading.
    pub(super) fn clear(&self) {
        for lease in self
            .all()
            .drain()
            .flat_map(|(_, leases)| leases.into_values())
        {
            lease.give_back();
        }
    }
}
