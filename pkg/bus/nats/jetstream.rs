//! JetStream as a durable broker.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use super::leases::Leases;
use super::reader::MemberReader;
use super::server::Server;
use super::state::State;
use super::subject::Subjects;
use crate::bus::broker::{
    Acknowledgement, AppendFailure, Broker, Burial, Claim, GroupRecord, Letter, Outgoing, Pulse,
    Reader,
};
use crate::error::Result;
use crate::event::EventId;

/// What a message needs beside the payload: subject, headers, and an error's text in a dead letter.
pub(super) const ENVELOPE: usize = 8 * 1_024;

/// A pull request brings at most this many bytes, or one message of the largest size.
const REQUEST_BYTES: usize = 2 * 1_024 * 1_024;

/// What all parts of the adapter share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) server: Server,
    pub(super) subjects: Subjects,
    pub(super) stream: String,
    pub(super) state: State,
    pub(super) leases: Leases,
    pub(super) partitions: u32,
    /// After this the server delivers again what was not acknowledged.
    pub(super) ack_wait: Duration,
    pub(super) content_type: &'static str,
    /// Whether the stream takes atomic batches.
    pub(super) atomic: bool,
    /// One trims at a time.
    pub(super) trimming: tokio::sync::Mutex<()>,
    /// The transient groups that were opened here.
    pub(super) transient: Mutex<HashSet<Arc<str>>>,
}

impl Shared {
    /// No code of others runs under this lock, so a poisoned one means nothing.
    pub(super) fn transient(&self) -> MutexGuard<'_, HashSet<Arc<str>>> {
        self.transient
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn request_bytes(&self) -> usize {
        REQUEST_BYTES.max(self.server.client().max_payload() * 2)
    }
}

#[derive(Debug)]
pub(super) struct JetStream(pub(super) Arc<Shared>);

#[async_trait]
impl Broker for JetStream {
    fn label(&self) -> &'static str {
        "nats bus"
    }

    fn partitions(&self) -> u32 {
        self.0.partitions
    }

    fn max_event_bytes(&self) -> Option<usize> {
        let largest = self.0.server.client().max_payload();
        Some(largest.saturating_sub(ENVELOPE))
    }

    async fn append(&self, events: &[Outgoing]) -> Result<(), AppendFailure> {
        self.0.append(events).await
    }

    async fn open_group(&self, group: &GroupRecord) -> Result<GroupRecord> {
        self.0.open_group(group).await
    }

    async fn remove_group(&self, group: &str) -> Result<()> {
        self.0.remove_group(group).await
    }

    async fn reap(&self, silence: Duration) -> Result<()> {
        self.0.reap(silence).await
    }

    async fn pulse(
        &self,
        group: &str,
        member: &str,
        held: &[Claim],
        ttl: Duration,
    ) -> Result<Pulse> {
        self.0.pulse(group, member, held, ttl).await
    }

    async fn acquire(
        &self,
        group: &str,
        member: &str,
        at_most: usize,
        ttl: Duration,
    ) -> Result<Vec<Claim>> {
        self.0.acquire(group, member, at_most, ttl).await
    }

    async fn release(&self, group: &str, member: &str, held: &[Claim]) -> Result<()> {
        self.0.release(group, member, held).await
    }

    async fn resign(&self, group: &str, member: &str, held: &[Claim]) -> Result<()> {
        self.0.resign(group, member, held).await
    }

    fn reader(&self, group: &str, member: &str) -> Box<dyn Reader> {
        Box::new(MemberReader::new(Arc::clone(&self.0), group, member))
    }

    async fn acknowledge(&self, group: &str, member: &str, done: &[Acknowledgement]) -> Result<()> {
        self.0.acknowledge(group, member, done).await
    }

    async fn begun(
        &self,
        group: &str,
        member: &str,
        delivery: Acknowledgement,
    ) -> Result<Option<u32>> {
        self.0.begun(group, member, delivery).await
    }

    async fn begin(
        &self,
        group: &str,
        member: &str,
        delivery: Acknowledgement,
    ) -> Result<Option<u32>> {
        self.0.begin(group, member, delivery).await
    }

    async fn bury(
        &self,
        group: &str,
        member: &str,
        done: Acknowledgement,
        letter: &Letter,
        at_most: usize,
    ) -> Result<Burial> {
        self.0.bury(group, member, done, letter, at_most).await
    }

    async fn letters(&self, group: &str, at_most: usize) -> Result<Vec<Letter>> {
        self.0.letters(group, at_most).await
    }

    async fn redrive(&self, group: &str, letters: &[EventId]) -> Result<usize> {
        self.0.redrive(group, letters).await
    }

    async fn discard(&self, group: &str, letters: &[EventId]) -> Result<usize> {
        self.0.discard(group, letters).await
    }

    async fn close(&self) {
        self.0.leases.clear();
        self.0.server.close().await;
    }
}
