//! How far the builds that run here have come, and who waits for it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::build::Build;
use super::letters::Parked;
use crate::document::{DocumentKey, Version};
use crate::storage::backend::Position;

/// How many documents' last versions are remembered, so that a question is answered before the log has
/// been read to its end.
const REMEMBERED: usize = 10_000;

/// What is known of one version of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// The views have it.
    Handled,
    /// It waits behind a dead letter.
    Parked,
    /// Not yet.
    NotYet,
    /// The build does not run here.
    Elsewhere,
}

#[derive(Debug, Default)]
pub(super) struct Handled {
    builds: Mutex<HashMap<Build, Progress>>,
    /// Rises with everything that may be an answer.
    changes: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Progress {
    /// Everything committed up to here is in the views, or parked.
    position: Position,
    recent: HashMap<DocumentKey, Version>,
    /// The oldest of `recent` first.
    order: VecDeque<DocumentKey>,
    parked: Parked,
}

impl Handled {
    /// A build runs here from now on, with these documents parked.
    pub(super) fn lead(&self, build: Build, parked: Parked) {
        let progress = Progress {
            parked,
            ..Progress::default()
        };
        self.builds().insert(build, progress);
        self.changed();
    }

    /// The build runs elsewhere, or nowhere.
    pub(super) fn leave(&self, build: Build) {
        self.builds().remove(&build);
        self.changed();
    }

    pub(super) fn park(&self, build: Build, document: DocumentKey, from: Version) {
        if let Some(progress) = self.builds().get_mut(&build) {
            progress.parked.insert(document, from);
        }
        self.changed();
    }

    pub(super) fn unpark(&self, build: Build, document: &DocumentKey) {
        if let Some(progress) = self.builds().get_mut(&build) {
            progress.parked.remove(document);
        }
        self.changed();
    }

    /// Everything up to a position is stored, these versions of documents among it.
    pub(super) fn passed(
        &self,
        build: Build,
        position: Position,
        documents: impl IntoIterator<Item = (DocumentKey, Version)>,
    ) {
        if let Some(progress) = self.builds().get_mut(&build) {
            progress.position = progress.position.max(position);
            for (document, version) in documents {
                progress.remember(document, version);
            }
        }
        self.changed();
    }

    pub(super) fn position(&self, build: Build) -> Option<Position> {
        self.builds().get(&build).map(|it| it.position)
    }

    /// Whether the views of a build have a version of a document; `committed` is a position that is not
    /// before it, if one is known.
    pub(super) fn ask(
        &self,
        build: Build,
        document: &DocumentKey,
        version: Version,
        committed: Option<Position>,
    ) -> Answer {
        let builds = self.builds();
        let Some(progress) = builds.get(&build) else {
            return Answer::Elsewhere;
        };
        let is_parked = |from: &Version| *from <= version;
        if progress.parked.get(document).is_some_and(is_parked) {
            return Answer::Parked;
        }
        let recent = progress.recent.get(document);
        let is_recent = recent.is_some_and(|last| *last >= version);
        let is_passed = committed.is_some_and(|at| progress.position >= at);
        match is_recent || is_passed {
            true => Answer::Handled,
            false => Answer::NotYet,
        }
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn changed(&self) {
        self.changes.send_modify(|changes| *changes += 1);
    }

    /// No code of others runs under this lock, so a poisoned one means nothing.
    fn builds(&self) -> MutexGuard<'_, HashMap<Build, Progress>> {
        self.builds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Progress {
    fn remember(&mut self, document: DocumentKey, version: Version) {
        if let Some(last) = self.recent.get_mut(&document) {
            *last = version.max(*last);
            return;
        }
        if self.order.len() >= REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.recent.remove(&oldest);
        }
        self.recent.insert(document.clone(), version);
        self.order.push_back(document);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_handled_by_name_or_by_position() {
        let handled = Handled::default();
        let build = Build::new(1, 0);
        let key = DocumentKey::new("users", 1);
        let ask = |version, at| handled.ask(build, &key, Version::new(version), at);
        assert_eq!(ask(1, None), Answer::Elsewhere);
        handled.lead(build, Parked::new());
        assert_eq!(ask(1, None), Answer::NotYet);
        handled.passed(build, Position::new(5, 0), [(key.clone(), Version::new(3))]);
        assert_eq!(ask(3, None), Answer::Handled);
        assert_eq!(ask(4, Some(Position::new(5, 1))), Answer::NotYet);
        assert_eq!(ask(4, Some(Position::new(5, 0))), Answer::Handled);
        handled.park(build, key.clone(), Version::new(4));
        assert_eq!(ask(4, Some(Position::new(5, 0))), Answer::Parked);
        assert_eq!(ask(3, None), Answer::Handled);
        handled.unpark(build, &key);
        assert_eq!(ask(4, Some(Position::new(5, 0))), Answer::Handled);
        handled.leave(build);
        assert_eq!(ask(3, None), Answer::Elsewhere);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let handled = Handled::default();
        let build = Build::new(1, 0);
        handled.lead(build, Parked::new());
        let documents =
            (0..2 * REMEMBERED as i64).map(|id| (DocumentKey::new("users", id), Version::new(1)));
        handled.passed(build, Position::START, documents);
        let builds = handled.builds();
        assert_eq!(builds[&build].recent.len(), REMEMBERED);
        assert_eq!(builds[&build].order.len(), REMEMBERED);
    }
}
