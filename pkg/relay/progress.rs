use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot};

use super::letters::Parked;
use crate::document::{DocumentKey, Version};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::backend::Position;

/// How many documents' last confirmed versions are remembered, so that a question that comes after the
/// confirmation is answered at once: some seconds of full load.
const REMEMBERED: usize = 50_000;

/// What was confirmed so far, and who waits for more.
///
/// Its memory is bounded by [`REMEMBERED`], by the parked documents, and by the number of callers that
/// wait: a waiter that is dropped takes itself out.
#[derive(Debug)]
pub(super) struct Progress {
    table: Mutex<Table>,
    /// Someone has begun to wait.
    asked: Notify,
}

#[derive(Debug, Default)]
struct Table {
    /// Everything committed up to here was passed.
    position: Position,
    /// The highest confirmed version of documents, the oldest of `order` forgotten first.
    recent: HashMap<DocumentKey, Version>,
    order: VecDeque<DocumentKey>,
    parked: Parked,
    /// Whether this relay holds the lease, so that `parked` is complete and current.
    leading: bool,
    stopped: Option<Arc<Error>>,
    waiters: HashMap<u64, Waiter>,
    by_position: BTreeSet<(Position, u64)>,
    by_document: HashMap<DocumentKey, BTreeSet<(Version, u64)>>,
    next: u64,
}

#[derive(Debug)]
struct Waiter {
    committed: Position,
    /// `None` waits for everything up to the position.
    version: Option<(DocumentKey, Version)>,
    answer: oneshot::Sender<Result<()>>,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self {
            table: Mutex::default(),
            asked: Notify::new(),
        }
    }

    /// No code of others runs under this lock, so a poisoned one means nothing.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a version is confirmed, or everything up to a position. Cancel-safe.
    pub(super) async fn wait(
        &self,
        version: Option<(DocumentKey, Version)>,
        committed: Position,
    ) -> Result<()> {
        let (answer, answered) = oneshot::channel();
        let number = {
            let mut table = self.table();
            if let Some(result) = table.answer_now(version.as_ref(), committed) {
                return result;
            }
            table.add(Waiter {
                committed,
                version,
                answer,
            })
        };
        let _waiting = Waiting {
            progress: self,
            number,
        };
        self.asked.notify_one();
        match answered.await {
            Ok(result) => result,
            // The sender is dropped only with its table.
            Err(_) => Err(Error::new(ErrorKind::Closed, "relay is gone")),
        }
    }

    /// Waits until someone waits.
    pub(super) async fn asked(&self) {
        self.asked.notified().await;
    }

    pub(super) fn has_waiters(&self) -> bool {
        !self.table().waiters.is_empty()
    }

    /// Becomes the one who knows what is parked.
    pub(super) fn lead(&self, parked: Parked) {
        let mut table = self.table();
        table.leading = true;
        table.stopped = None;
        table.parked = parked;
    }

    /// Another relay may publish from here on.
    pub(super) fn follow(&self) {
        let mut table = self.table();
        table.leading = false;
        table.parked = Parked::new();
    }

    pub(super) fn parked_from(&self, document: &DocumentKey) -> Option<Version> {
        self.table().parked.get(document).copied()
    }

    /// Whether events of this version are held back.
    pub(super) fn holds(&self, document: &DocumentKey, version: Version) -> bool {
        self.table().holds(document, version)
    }

    /// Whether all buses are known to have this version.
    pub(super) fn has_confirmed(&self, document: &DocumentKey, version: Version) -> bool {
        let table = self.table();
        let last = table.recent.get(document);
        last.is_some_and(|last| *last >= version)
    }

    pub(super) fn parked_documents(&self) -> usize {
        self.table().parked.len()
    }

    pub(super) fn position(&self) -> Position {
        self.table().position
    }

    /// Holds back a document from a version on.
    pub(super) fn park(&self, document: &DocumentKey, from: Version) {
        let mut table = self.table();
        table.parked.insert(document.clone(), from);
        for number in table.waiting_for(document, from, Version::MAX) {
            table.answer(number, Err(held_back(document)));
        }
    }

    pub(super) fn unpark(&self, document: &DocumentKey) {
        self.table().parked.remove(document);
    }

    /// All events of this version and below are confirmed.
    pub(super) fn confirmed(&self, document: &DocumentKey, version: Version) {
        let mut table = self.table();
        table.remember(document, version);
        for number in table.waiting_for(document, Version::NONE, version) {
            table.answer(number, Ok(()));
        }
    }

    /// Everything committed up to `position` is confirmed or held back.
    pub(super) fn passed(&self, position: Position) {
        let mut table = self.table();
        table.position = table.position.max(position);
        for number in table.due(position) {
            let Some(waiter) = table.waiters.get(&number) else {
                continue;
            };
            let result = match &waiter.version {
                Some((document, version)) if table.holds(document, *version) => {
                    Err(held_back(document))
                }
                None if !table.parked.is_empty() => Err(some_held_back(table.parked.len())),
                _ => Ok(()),
            };
            table.answer(number, result);
        }
    }

    /// Whose answers depend on what another relay has parked, once that relay has passed `position`.
    pub(super) fn due_elsewhere(
        &self,
        position: Position,
    ) -> Vec<(u64, Option<(DocumentKey, Version)>)> {
        let table = self.table();
        let due = table.due(position).into_iter();
        due.filter_map(|number| Some((number, table.waiters.get(&number)?.version.clone())))
            .collect()
    }

    /// Answers one waiter.
    pub(super) fn answer(&self, number: u64, result: Result<()>) {
        self.table().answer(number, result);
    }

    /// Answers all waiters, and all that come until [`lead`](Self::lead) or [`resume`](Self::resume),
    /// with `Closed`.
    pub(super) fn stop(&self, error: &Arc<Error>) {
        let mut table = self.table();
        table.stopped = Some(Arc::clone(error));
        table.answer_all(|| stopped(error));
    }

    pub(super) fn resume(&self) {
        self.table().stopped = None;
    }

    /// Answers all present waiters.
    pub(super) fn refuse(&self, error: impl Fn() -> Error) {
        self.table().answer_all(error);
    }
}

impl Table {
    fn answer_now(
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

    fn holds(&self, document: &DocumentKey, version: Version) -> bool {
        self.parked
            .get(document)
            .is_some_and(|first| *first <= version)
    }

    fn add(&mut self, waiter: Waiter) -> u64 {
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

    fn remove(&mut self, number: u64) -> Option<Waiter> {
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

    fn answer(&mut self, number: u64, result: Result<()>) {
        if let Some(waiter) = self.remove(number) {
            // Whoever waited may be gone by now.
            let _ = waiter.answer.send(result);
        }
    }

    fn answer_all(&mut self, error: impl Fn() -> Error) {
        let numbers: Vec<_> = self.waiters.keys().copied().collect();
        for number in numbers {
            self.answer(number, Err(error()));
        }
    }

    fn waiting_for(&self, document: &DocumentKey, from: Version, to: Version) -> Vec<u64> {
        let Some(waiting) = self.by_document.get(document) else {
            return Vec::new();
        };
        let range = waiting.range((from, 0)..=(to, u64::MAX));
        range.map(|(_, number)| *number).collect()
    }

    fn due(&self, position: Position) -> Vec<u64> {
        let range = self.by_position.range(..=(position, u64::MAX));
        range.map(|(_, number)| *number).collect()
    }

    fn remember(&mut self, document: &DocumentKey, version: Version) {
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

/// Takes a waiter out when its future ends or is dropped.
struct Waiting<'a> {
    progress: &'a Progress,
    number: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.progress.table().remove(self.number);
    }
}

pub(super) fn held_back(document: &DocumentKey) -> Error {
    Error::new(
        ErrorKind::DeadLettered,
        format!("events of {document} are held back behind a dead letter"),
    )
}

pub(super) fn some_held_back(documents: usize) -> Error {
    Error::new(
        ErrorKind::DeadLettered,
        format!("events of {documents} documents are held back behind dead letters"),
    )
}

fn stopped(error: &Error) -> Error {
    Error::new(ErrorKind::Closed, format!("relay has stopped: {error}"))
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn key(id: &str) -> DocumentKey {
        DocumentKey::new("users", id)
    }

    fn at(number: u64) -> Position {
        Position::from_u64(number)
    }

    fn version(id: &str, number: u64) -> Option<(DocumentKey, Version)> {
        Some((key(id), Version::new(number)))
    }

    fn leader() -> Progress {
        let progress = Progress::new();
        progress.lead(Parked::new());
        progress
    }

    #[test]
    fn a_version_is_confirmed_exactly_or_by_position_whichever_comes_first() {
        let progress = leader();
        let mut exact = Box::pin(progress.wait(version("a", 3), at(10)));
        let mut passed = Box::pin(progress.wait(version("b", 1), at(10)));
        let mut flush = Box::pin(progress.wait(None, at(10)));
        for waiting in [&mut exact, &mut passed, &mut flush] {
            assert!(waiting.now_or_never().is_none());
        }
        progress.confirmed(&key("a"), Version::new(2));
        progress.passed(at(9));
        assert!((&mut exact).now_or_never().is_none());
        progress.confirmed(&key("a"), Version::new(4));
        exact.now_or_never().unwrap().unwrap();
        assert!((&mut passed).now_or_never().is_none());
        progress.passed(at(10));
        passed.now_or_never().unwrap().unwrap();
        flush.now_or_never().unwrap().unwrap();
        // Later questions need no waiting.
        for version in [version("a", 3), version("b", 1), None] {
            progress
                .wait(version, at(10))
                .now_or_never()
                .unwrap()
                .unwrap();
        }
        assert!(!progress.has_waiters());
    }

    #[test]
    fn parked_documents_answer_dead_lettered() {
        let progress = leader();
        let mut waiting = Box::pin(progress.wait(version("a", 3), at(10)));
        let mut earlier = Box::pin(progress.wait(version("a", 1), at(5)));
        assert!((&mut waiting).now_or_never().is_none());
        assert!((&mut earlier).now_or_never().is_none());
        progress.park(&key("a"), Version::new(2));
        let error = waiting.now_or_never().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DeadLettered);
        progress.passed(at(10));
        earlier.now_or_never().unwrap().unwrap();
        for version in [version("a", 2), None] {
            let error = progress.wait(version, at(10)).now_or_never().unwrap();
            assert_eq!(error.unwrap_err().kind(), ErrorKind::DeadLettered);
        }
    }

    #[test]
    fn dropped_waiters_leave_nothing_behind() {
        let progress = leader();
        for _ in 0..3 {
            let mut waiting = Box::pin(progress.wait(version("a", 3), at(10)));
            assert!((&mut waiting).now_or_never().is_none());
            assert!(progress.has_waiters());
        }
        assert!(!progress.has_waiters());
        assert!(progress.table().by_document.is_empty() && progress.table().by_position.is_empty());
    }

    #[test]
    fn a_stopped_relay_answers_closed() {
        let progress = leader();
        let mut waiting = Box::pin(progress.wait(version("a", 3), at(10)));
        assert!((&mut waiting).now_or_never().is_none());
        progress.stop(&Arc::new(Error::new(ErrorKind::Corrupt, "bad entry")));
        let error = waiting.now_or_never().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Closed);
        let error = progress
            .wait(None, at(1))
            .now_or_never()
            .unwrap()
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Closed);
    }

    #[test]
    fn remembered_versions_are_bounded() {
        let progress = leader();
        for n in 0..REMEMBERED + 10 {
            progress.confirmed(&key(&n.to_string()), Version::new(1));
        }
        let table = progress.table();
        assert_eq!(
            (table.recent.len(), table.order.len()),
            (REMEMBERED, REMEMBERED)
        );
    }
}
