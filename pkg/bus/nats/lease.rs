//! What one owner of a partition has in hand, from the first request to the acknowledgement.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use async_nats::Subject;

use super::attempts::Attempts;
use super::hand::{Hand, Redriven};
use crate::bus::broker::{Claim, Delivery};

/// A partition that is owned, and everything that was delivered for it and is not acknowledged.
///
/// The server counts what it delivers for a consumer. As long as those numbers follow each other here,
/// everything that it delivered came here, and in order. A number that is missing went to somebody whose
/// claim has run out, or down with a connection: from then on nothing is handed out until everything
/// that is unacknowledged is in hand again, see [`settle`](super::settle).
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) claim: Claim,
    /// What the claim's entry in the state says: whose it is.
    pub(super) title: String,
    /// The revision of that entry.
    revision: AtomicU64,
    pub(super) consumer: String,
    /// What was noted of attempts at events in hand.
    pub(super) attempts: Attempts,
    redriven: Redriven,
    hand: Mutex<Hand>,
}

impl Lease {
    pub(super) fn new(claim: Claim, title: String, consumer: String, redriven: Redriven) -> Self {
        Self {
            redriven,
            revision: AtomicU64::new(claim.fence),
            claim,
            title,
            consumer,
            attempts: Attempts::default(),
            hand: Mutex::new(Hand::new()),
        }
    }

    /// No code of others runs under this lock, so a poisoned one means nothing.
    pub(super) fn hand(&self) -> MutexGuard<'_, Hand> {
        self.hand.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn revision(&self) -> u64 {
        self.revision.load(Ordering::Relaxed)
    }

    pub(super) fn set_revision(&self, revision: u64) {
        self.revision.store(revision, Ordering::Relaxed);
    }

    /// Takes in everything that has arrived. Adds whom to acknowledge at once, and is ready if anything
    /// came.
    pub(super) fn poll(&self, cx: &mut Context<'_>, again: &mut Vec<Subject>) -> Poll<()> {
        self.hand().poll(&self.redriven, cx, again)
    }

    /// Hands out the next delivery.
    pub(super) fn next(&self) -> Option<Delivery> {
        self.hand().next(self.claim, &self.redriven)
    }

    /// Reads no more: what is in hand is the next owner's.
    pub(super) fn give_back(&self) {
        self.hand().give_back();
    }
}
