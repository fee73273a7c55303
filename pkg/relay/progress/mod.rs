mod table;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot};

use self::table::{Table, Waiter, stopped};
use super::letters::Parked;
use super::outgoing::Step;
use crate::document::{DocumentKey, Version};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::backend::Position;

pub(super) use table::{held_back, some_held_back};

/// What was confirmed so far, and who waits for more.
///
/// Its memory is bounded by [`REMEMBERED`](table::REMEMBERED), by the parked documents, and by the number of callers that
/// wait: a waiter that is dropped takes itself out.
#[derive(Debug)]
pub(super) struct Progress {
    table: Mutex<Table>,
    /// Someone has begun to wait.
    asked: Notify,
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

    /// Whether events of this version are held back, or all buses are known to have them.
    pub(super) fn skips(&self, document: &DocumentKey, version: Version) -> bool {
        let table = self.table();
        let last = table.recent.get(document);
        table.holds(document, version) || last.is_some_and(|last| *last >= version)
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
        self.table().confirmed(document, version);
    }

    /// The log up to each of these steps is confirmed or held back.
    pub(super) fn passed<'a>(&self, steps: impl Iterator<Item = &'a Step>) {
        let mut table = self.table();
        for step in steps {
            if let Some((document, version)) = &step.version
                && !table.holds(document, *version)
            {
                table.confirmed(document, *version);
            }
            if let Some(cursor) = &step.cursor {
                table.passed(cursor.position);
            }
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

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::table::REMEMBERED;
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
        progress.table().passed(at(9));
        assert!((&mut exact).now_or_never().is_none());
        progress.confirmed(&key("a"), Version::new(4));
        exact.now_or_never().unwrap().unwrap();
        assert!((&mut passed).now_or_never().is_none());
        progress.table().passed(at(10));
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
        progress.table().passed(at(10));
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
