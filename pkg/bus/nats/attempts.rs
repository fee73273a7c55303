//! Attempts at events that were handed out often: entries of the state, which go with the acknowledgement.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::HeaderMap;

use super::jetstream::Shared;
use super::lease::Lease;
use super::state::{Put, Terms};
use crate::bus::broker::Acknowledgement;
use crate::error::Result;

/// An entry whose removal got lost goes after this. An event must have killed its process again before.
const KEPT: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The entries that were written under a lease, by the event's place in the stream.
#[derive(Debug, Default)]
pub(super) struct Attempts(Mutex<HashMap<u64, u64>>);

impl Attempts {
    /// No code of others runs under this lock, so a poisoned one means nothing.
    fn revisions(&self) -> MutexGuard<'_, HashMap<u64, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, place: u64, revision: u64) {
        self.revisions().insert(place, revision);
    }

    fn take(&self, place: u64) -> Option<u64> {
        self.revisions().remove(&place)
    }
}

impl Shared {
    /// See [`Broker::begun`](crate::bus::broker::Broker::begun).
    pub(super) async fn begun(
        &self,
        group: &str,
        member: &str,
        delivery: Acknowledgement,
    ) -> Result<Option<u32>> {
        let current = self.leases.current(group, member, &[delivery.claim]);
        if current.is_empty() {
            return Ok(None);
        }
        let (_, begun) = self.attempts(&self.attempt(group, delivery)).await?;
        Ok(Some(begun))
    }

    /// See [`Broker::begin`](crate::bus::broker::Broker::begin).
    pub(super) async fn begin(
        &self,
        group: &str,
        member: &str,
        delivery: Acknowledgement,
    ) -> Result<Option<u32>> {
        let subject = self.attempt(group, delivery);
        loop {
            let current = self.leases.current(group, member, &[delivery.claim]);
            let Some(lease) = current.first() else {
                return Ok(None);
            };
            let (revision, begun) = self.attempts(&subject).await?;
            let begun = begun.saturating_add(1);
            let terms = Terms {
                expected: Some(revision),
                ttl: Some(KEPT),
            };
            let payload = begun.to_string().into_bytes();
            let put = self
                .state
                .put(subject.clone(), terms, HeaderMap::new(), payload);
            // A conflict is a call of our own whose answer got lost, or an owner whose claim has run out.
            if let Put::Stored(revision) = put.await? {
                lease.attempts.note(delivery.position.major, revision);
                return Ok(Some(begun));
            }
        }
    }

    /// Forgets what was noted of deliveries that are acknowledged.
    pub(super) async fn forget_attempts(&self, lease: &Lease, done: &[Acknowledgement]) {
        for done in done.iter().filter(|done| done.claim == lease.claim) {
            let Some(revision) = lease.attempts.take(done.position.major) else {
                continue;
            };
            if let Err(error) = self.state.remove(revision).await {
                tracing::debug!(%error, "what was noted of an event's attempts stays until its time is up");
            }
        }
    }

    fn attempt(&self, group: &str, delivery: Acknowledgement) -> String {
        let group = self.subjects.group(group);
        group.attempt(delivery.claim.partition, delivery.position.major)
    }

    /// The entry's revision and what it says; zeros if there is none.
    async fn attempts(&self, subject: &String) -> Result<(u64, u32)> {
        let found = self.state.last(std::slice::from_ref(subject)).await?;
        let Some(entry) = found.into_iter().next() else {
            return Ok((0, 0));
        };
        let begun = std::str::from_utf8(&entry.payload).ok();
        let begun = begun.and_then(|text| text.parse().ok());
        Ok((entry.revision, begun.unwrap_or_default()))
    }
}
