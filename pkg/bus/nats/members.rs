//! Members and claims: entries of the state that vanish unless they are renewed.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use async_nats::HeaderMap;
use futures_util::future::{join, join_all};
use uuid::Uuid;

use super::hand::Redriven;
use super::jetstream::Shared;
use super::lease::Lease;
use super::state::{Put, Terms};
use super::subject;
use crate::bus::broker::{Claim, Pulse};
use crate::error::Result;

impl Shared {
    /// See [`Broker::pulse`](crate::bus::broker::Broker::pulse).
    pub(super) async fn pulse(
        &self,
        group: &str,
        member: &str,
        held: &[Claim],
        ttl: Duration,
    ) -> Result<Pulse> {
        let subjects = self.subjects.group(group);
        let leases = self.leases.current(group, member, held);
        let lives = Terms {
            expected: None,
            ttl: Some(ttl),
        };
        let alive = self.state.put(
            subjects.member(member),
            lives,
            HeaderMap::new(),
            member.as_bytes().to_vec(),
        );
        let renewals = leases.iter().map(|lease| self.renew(group, lease, ttl));
        let (alive, renewed) = join(alive, join_all(renewals)).await;
        alive?;
        let renewed = renewed.into_iter().collect::<Result<Vec<bool>>>()?;
        self.see(group).await?;
        let found = self
            .state
            .last(&[subjects.record(), subjects.members()])
            .await?;
        let record = subjects.record();
        if !found.iter().any(|entry| entry.subject == record) {
            return Err(self.no_group(group));
        }
        let members = found.into_iter().filter(|entry| entry.subject != record);
        let mut members: Vec<String> = members
            .filter_map(|entry| String::from_utf8(entry.payload).ok())
            .collect();
        members.sort_unstable();
        let mut still = Vec::new();
        for (lease, renewed) in leases.iter().zip(renewed) {
            if renewed {
                still.push(lease.claim);
                self.keep_alive(lease).await?;
            } else {
                self.leases.remove(group, member, lease.claim);
            }
        }
        Ok(Pulse {
            members,
            held: still,
        })
    }

    /// Renews a claim. Says whether it was still the lease's.
    async fn renew(&self, group: &str, lease: &Lease, ttl: Duration) -> Result<bool> {
        let subject = self.subjects.group(group).claim(lease.claim.partition);
        // Twice: a renewal whose answer was lost has left a revision that is not known here.
        for _ in 0..2 {
            let terms = Terms {
                expected: Some(lease.revision()),
                ttl: Some(ttl),
            };
            let title = lease.title.clone().into_bytes();
            match self
                .state
                .put(subject.clone(), terms, HeaderMap::new(), title)
                .await?
            {
                Put::Stored(revision) => {
                    lease.set_revision(revision);
                    return Ok(true);
                }
                Put::Conflict => match self.entry_of(group, lease).await? {
                    Some(revision) => lease.set_revision(revision),
                    None => return Ok(false),
                },
            }
        }
        Ok(false)
    }

    /// The revision of the claim's entry, if there is one and it is the lease's.
    async fn entry_of(&self, group: &str, lease: &Lease) -> Result<Option<u64>> {
        let subject = self.subjects.group(group).claim(lease.claim.partition);
        let found = self.state.last(&[subject]).await?;
        let own = found
            .into_iter()
            .find(|entry| entry.payload == lease.title.as_bytes());
        Ok(own.map(|entry| entry.revision))
    }

    /// See [`Broker::acquire`](crate::bus::broker::Broker::acquire).
    pub(super) async fn acquire(
        &self,
        group: &str,
        member: &str,
        at_most: usize,
        ttl: Duration,
    ) -> Result<Vec<Claim>> {
        let subjects = self.subjects.group(group);
        let found = self
            .state
            .last(&[subjects.record(), subjects.claims()])
            .await?;
        let record = subjects.record();
        if !found.iter().any(|entry| entry.subject == record) {
            return Err(self.no_group(group));
        }
        let taken: HashSet<&str> = found.iter().map(|entry| entry.name()).collect();
        // Each member begins somewhere else, so that they seldom want the same ones.
        let mut hasher = DefaultHasher::new();
        member.hash(&mut hasher);
        let begin = u32::try_from(hasher.finish() % u64::from(self.partitions)).unwrap_or_default();
        let free = (0..self.partitions)
            .map(|n| (begin + n) % self.partitions)
            .filter(|partition| !taken.contains(partition.to_string().as_str()))
            .take(at_most);
        let taking = free.map(|partition| self.take(group, member, partition, ttl));
        let taken: Result<Vec<_>> = join_all(taking).await.into_iter().collect();
        Ok(taken?.into_iter().flatten().collect())
    }

    async fn take(
        &self,
        group: &str,
        member: &str,
        partition: u32,
        ttl: Duration,
    ) -> Result<Option<Claim>> {
        let terms = Terms {
            expected: Some(0),
            ttl: Some(ttl),
        };
        let title = format!("{member} {}", Uuid::new_v4());
        let put = self
            .state
            .put(
                self.subjects.group(group).claim(partition),
                terms,
                HeaderMap::new(),
                title.clone().into_bytes(),
            )
            .await?;
        let Put::Stored(fence) = put else {
            return Ok(None);
        };
        // The number of the message in its stream: above that of every earlier claim.
        let claim = Claim { partition, fence };
        let redriven = Redriven {
            own: self.subjects.redriven(group, partition),
            all: self.subjects.all_redriven(),
        };
        let consumer = subject::consumer(group, partition);
        let lease = Lease::new(claim, title, consumer, redriven);
        self.leases.insert(group, member, Arc::new(lease));
        Ok(Some(claim))
    }

    /// See [`Broker::release`](crate::bus::broker::Broker::release).
    pub(super) async fn release(&self, group: &str, member: &str, held: &[Claim]) -> Result<()> {
        let given_back: Vec<_> = held
            .iter()
            .filter_map(|claim| self.leases.remove(group, member, *claim))
            .collect();
        let removing = given_back.iter().map(|lease| async move {
            if self.state.remove(lease.revision()).await? {
                return Ok(());
            }
            // A renewal whose answer was lost, or the claim is not the lease's any more.
            if let Some(revision) = self.entry_of(group, lease).await? {
                self.state.remove(revision).await?;
            }
            Ok(())
        });
        join_all(removing).await.into_iter().collect()
    }

    /// See [`Broker::resign`](crate::bus::broker::Broker::resign).
    pub(super) async fn resign(&self, group: &str, member: &str, held: &[Claim]) -> Result<()> {
        self.release(group, member, held).await?;
        let own = self.subjects.group(group).member(member);
        self.state.purge(&own).await
    }

    /// Tells the server of deliveries that are in hand for long, so that it does not repeat them.
    async fn keep_alive(&self, lease: &Lease) -> Result<()> {
        // A third: two such messages may get lost.
        let replies = lease.hand().keep_alive(self.ack_wait / 3);
        for reply in replies {
            self.server
                .client()
                .publish(reply, "+WPI".into())
                .await
                .map_err(|error| super::error::unsent("a sign of life", error))?;
        }
        Ok(())
    }
}
