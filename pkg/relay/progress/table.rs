use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use tokio::sync::oneshot;

use crate::document::{DocumentKey, Version};
use crate::error::{Error, ErrorKind, Result};
use crate::relay::letters::Parked;
use crate::storage::backend::Position;

/// How many documents' last confirmed versions are remembered, so that a question that comes after the
/// confirmation is answered at once: some seconds of full load.
pub(super) const REMEMBERED: usize = 50_000;

/// What [`Progress`](super::Progress) knows.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// Everything committed up to here was passed.
    pub(super) position: Position,
    /// The highest confirmed version of documents, the oldest of `order` forgotten first.
    pub(super) recent: HashMap<DocumentKey, Version>,
    pub(super) order: VecDeque<DocumentKey>,
    pub(super) parked: Parked,
    /// Whether this relay holds the lease, so that `parked` is complete and current.
    pub(super) leading: bool,
    pub(super) stopped: Option<Arc<Error>>,
    pub(super) waiters: HashMap<u64, Waiter>,
    pub(super) by_position: BTreeSet<(Position, u64)>,
    pub(super) by_document: HashMap<DocumentKey, BTreeSet<(Version, u64)>>,
    next: u64,
}

#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) committed: Position,
    /// `None` waits for everything up to the position.
    pub(super) version: Option<(DocumentKey, Version)>,
    pub(super) answer: oneshot::Sender<Result<()>>,
}

impl Table {
    pub(super) fn answer_now(
        &self,
        version: Option<&(DocumentKey, Version)>,
        committed: Position,
    ) -> Option<Result<()>> {
        if let Some((document, version)) = version {
            if self.holds(document, *version) {
                return Some(Err(held_back(document)));
            }
            if self
                .recent
                .get(document)
                .is_some_and(|last| last >= version)
            {
                return Some(Ok(()));
            }
        }
        if let Some(error) = &self.stopped {
            return Some(Err(stopped(error)));
        }
        // Without the lease a document may have been parked elsewhere.
        (self.leading && self.position >= committed).then(|| match version {
            None if !self.parked.is_empty() => Err(some_held_back(self.parked.len())),
            _ => Ok(()),
        })
    }

    pub(super) fn holds(&self, document: &DocumentKey, version: Version) -> bool {
        self.parked
            .get(document)
            .is_some_and(|first| *first <= version)
    }

    pub(super) fn confirmed(&mut self, document: &DocumentKey, version: Version) {
        self.remember(document, version);
        for number in self.waiting_for(document, Version::NONE, version) {
            self.answer(number, Ok(()));
        }
    }

    /// Everything committed up to `position` is confirmed or held back.
    pub(super) fn passed(&mut self, position: Position) {
        self.position = self.position.max(position);
        for number in self.due(position) {
            let Some(waiter) = self.waiters.get(&number) else {
                continue;
            };
            let result = match &waiter.version {
                Some((document, version)) if self.holds(document, *version) => {
                    Err(held_back(document))
                }
                None if !self.parked.is_empty() => Err(some_held_back(self.parked.len())),
                _ => Ok(()),
            };
            self.answer(number, result);
        }
    }

    pub(super) fn add(&mut self, waiter: Waiter) -> u64 {
        let number = self.next;
        self.next += 1;
        self.by_position.insert((waiter.committed, number));
        if let Some((document, version)) = &waiter.version {
            self.by_document
                .entry(document.clone())
                .or_default()
                .insert((*version, number));
        }
        self.waiters.insert(number, waiter);
        number
    }

    pub(super) fn remove(&mut self, number: u64) -> Option<Waiter> {
        let waiter = self.waiters.remove(&number)?;
        self.by_position.remove(&(waiter.committed, number));
        if let Some((document, version)) = &waiter.version
            && let Some(waiting) = self.by_document.get_mut(document)
        {
            waiting.remove(&(*version, number));
            if waiting.is_empty() {
                self.by_document.remove(document);
            }
        }
        Some(waiter)
    }

    pub(super) fn answer(&mut self, number: u64, result: Result<()>) {
        if let Some(waiter) = self.remove(number) {
            // Whoever waited may be gone by now.
            let _ = waiter.answer.send(result);
        }
    }

    pub(super) fn answer_all(&mut self, error: impl Fn() -> Error) {
        let numbers: Vec<_> = self.waiters.keys().copied().collect();
        for number in numbers {
            self.answer(number, Err(error()));
        }
    }

    pub(super) fn waiting_for(
        &self,
        document: &DocumentKey,
        from: Version,
        to: Version,
    ) -> Vec<u64> {
        let Some(waiting) = self.by_document.get(document) else {
            return Vec::new();
        };
        let range = waiting.range((from, 0)..=(to, u64::MAX));
        range.map(|(_, number)| *number).collect()
    }

    pub(super) fn due(&self, position: Position) -> Vec<u64> {
        let range = self.by_position.range(..=(position, u64::MAX));
        range.map(|(_, number)| *number).collect()
    }

    pub(super) fn remember(&mut self, document: &DocumentKey, version: Version) {
        if let Some(last) = self.recent.get_mut(document) {
            *last = version.max(*last);
            return;
        }
        if self.order.len() >= REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.recent.remove(&oldest);
        }
        self.recent.insert(document.clone(), version);
        self.order.push_back(document.clone());
    }
}

pub(in crate::relay) fn held_back(document: &DocumentKey) -> Error {
    Error::new(
        ErrorKind::DeadLettered,
        format!("events of {document} are held back behind a dead letter"),
    )
}

pub(in crate::relay) fn some_held_back(documents: usize) -> Error {
    Error::new(
        ErrorKind::DeadLettered,
        format!("events of {documents} documents are held back behind dead letters"),
    )
}

pub(super) fn stopped(error: &Error) -> Error {
    Error::new(ErrorKind::Closed, format!("relay has stopped: {error}"))
}
