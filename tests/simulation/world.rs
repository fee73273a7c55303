//! What the model store holds, and everything it ever held.

use std::collections::BTreeMap;

use bson::RawDocumentBuf;
use nodestorage::DocumentKey;
use nodestorage::storage::backend::{Condition, LogEntry, LogHead, Position, Unit, version_of};

/// What tells one state of a document from another: version and tag of its last writer. Of a stream:
/// its version. `None` where there is nothing.
pub(crate) type Seen = Option<(u64, i64)>;

/// Moments in which the committed state changed.
pub(crate) type Moment = u64;

#[derive(Debug, Default)]
pub(crate) struct World {
    documents: BTreeMap<DocumentKey, RawDocumentBuf>,
    log: BTreeMap<DocumentKey, BTreeMap<u64, LogEntry>>,
    /// The highest version that a document ever had.
    highest: BTreeMap<DocumentKey, u64>,
    /// Since when a document was in which state.
    history: BTreeMap<DocumentKey, Vec<(Moment, Seen)>>,
    now: Moment,
}

impl World {
    pub(crate) fn now(&self) -> Moment {
        self.now
    }

    pub(crate) fn position(&self) -> Position {
        Position::from_u64(self.now)
    }

    pub(crate) fn document(&self, key: &DocumentKey) -> Option<&RawDocumentBuf> {
        self.documents.get(key)
    }

    pub(crate) fn head(&self, key: &DocumentKey) -> Option<LogHead> {
        let (_, last) = self.log.get(key)?.last_key_value()?;
        Some(LogHead {
            version: last.version,
            kind: last.kind,
        })
    }

    pub(crate) fn log(&self, key: &DocumentKey) -> impl DoubleEndedIterator<Item = &LogEntry> {
        self.log.get(key).into_iter().flat_map(BTreeMap::values)
    }

    pub(crate) fn keys(&self) -> Vec<DocumentKey> {
        let mut keys: Vec<_> = self.history.keys().cloned().collect();
        keys.sort();
        keys
    }

    /// The highest version that the store knows of a document, its log included.
    pub(crate) fn highest(&self, key: &DocumentKey) -> u64 {
        let logged = self.head(key).map_or(0, |head| head.version.get());
        logged.max(self.highest.get(key).copied().unwrap_or(0))
    }

    fn holds(&self, key: &DocumentKey, condition: Condition) -> bool {
        let found = self.documents.get(key);
        match condition {
            Condition::Absent => found.is_none(),
            Condition::Version(version) => {
                found.is_some_and(|d| version_of(d, "version").unwrap() == Some(version))
            }
            Condition::Unversioned => {
                found.is_some_and(|d| version_of(d, "version").unwrap().is_none())
            }
        }
    }

    /// Whether a unit can be committed now.
    pub(crate) fn admits(&self, unit: &Unit) -> bool {
        let writes = unit
            .writes
            .iter()
            .map(|write| (&write.key, write.condition));
        let checks = unit.checks.iter().map(|(key, condition)| (key, *condition));
        let is_free = |entry: &LogEntry| {
            let log = self.log.get(&entry.key);
            log.is_none_or(|log| !log.contains_key(&entry.version.get()))
        };
        writes
            .chain(checks)
            .all(|(key, condition)| self.holds(key, condition))
            && unit.entries.iter().all(is_free)
    }

    /// Writes what was found to be possible.
    pub(crate) fn apply(&mut self, units: &[Unit]) {
        self.now += 1;
        for unit in units {
            for write in &unit.writes {
                self.install(&write.key, write.document.clone());
            }
            for entry in &unit.entries {
                let mut entry = entry.clone();
                self.now += 1;
                entry.position = self.position();
                let log = self.log.entry(entry.key.clone()).or_default();
                let before = log.insert(entry.version.get(), entry);
                assert!(before.is_none(), "a unit logs one version twice");
            }
            for entry in &unit.entries {
                self.note(&entry.key);
            }
        }
    }

    /// What another program does, which knows nothing of the log.
    pub(crate) fn put(&mut self, key: &DocumentKey, document: Option<RawDocumentBuf>) {
        self.now += 1;
        self.install(key, document);
        self.note(key);
    }

    fn install(&mut self, key: &DocumentKey, document: Option<RawDocumentBuf>) {
        match document {
            Some(document) => {
                let version = version_of(&document, "version").unwrap();
                let highest = self.highest.entry(key.clone()).or_default();
                *highest = version.map_or(0, |version| version.get()).max(*highest);
                self.documents.insert(key.clone(), document);
            }
            None => {
                self.documents.remove(key);
            }
        }
    }

    fn note(&mut self, key: &DocumentKey) {
        let seen = match self.documents.get(key) {
            Some(document) => {
                let version = version_of(document, "version").unwrap();
                let tag = document
                    .get_i64("tag")
                    .expect("every writer leaves its tag");
                Some((version.map_or(0, |version| version.get()), tag))
            }
            None if is_stream(key) => self.head(key).map(|head| (head.version.get(), 0)),
            None => None,
        };
        let now = self.now;
        let history = self
            .history
            .entry(key.clone())
            .or_insert_with(|| vec![(0, None)]);
        history.push((now, seen));
    }

    /// Whether a document was in a state at some moment from `from` to `to`.
    pub(crate) fn was(
        &self,
        key: &DocumentKey,
        is_it: impl Fn(Seen) -> bool,
        from: Moment,
        to: Moment,
    ) -> bool {
        let never = vec![(0, None)];
        let history = self.history.get(key).unwrap_or(&never);
        history.iter().enumerate().any(|(index, (since, seen))| {
            let until = history.get(index + 1).map_or(Moment::MAX, |next| next.0);
            *since <= to && until > from && is_it(*seen)
        })
    }

    pub(crate) fn states(&self, key: &DocumentKey) -> &[(Moment, Seen)] {
        self.history.get(key).map_or(&[], Vec::as_slice)
    }
}

pub(crate) fn is_stream(key: &DocumentKey) -> bool {
    key.collection() == "nodestorage.streams"
}
