//! Past states of a document: the nearest whole document in the log, and the patches since.

use std::sync::Arc;

use bson::RawDocumentBuf;

use super::pages::LogPages;
use super::state::DocumentState;
use crate::document::{DocumentKey, Version};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::backend::{Backend, EntryKind, LogEntry, LogRange};
use crate::storage::{Codec, SNAPSHOT_EVERY};

/// What a log begins with, unless a document of another program's was adopted.
const FIRST: Version = Version::new(1);

/// Whether the state after an entry follows from the entry alone. Before version 1 there is no document,
/// and events alone can make an update the first version.
pub(super) fn is_base(entry: &LogEntry) -> bool {
    entry.after.is_some() || entry.kind != EntryKind::Updated || entry.version == FIRST
}

/// How an entry stands to the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// It is the next one.
    Follows,
    /// This version is missing in front of it, perhaps with others.
    Gap(Version),
    /// It is not above the one before.
    Repeats,
}

impl Step {
    /// From the version before, `None` at the log's beginning, to an entry. Only an adoption passes over
    /// versions.
    pub(super) fn between(last: Option<Version>, entry: &LogEntry) -> Self {
        let last = last.unwrap_or(Version::NONE);
        if entry.version <= last {
            Self::Repeats
        } else if entry.version == last.next() || entry.kind == EntryKind::Adopted {
            Self::Follows
        } else if last == Version::NONE {
            // Nobody knows where the log once began.
            Self::Gap(before(entry.version))
        } else {
            Self::Gap(last.next())
        }
    }

    pub(super) fn check(self, entry: &LogEntry) -> Result<()> {
        match self {
            Self::Follows => Ok(()),
            Self::Gap(version) => Err(missing(&entry.key, version)),
            Self::Repeats => Err(corrupt(
                &entry.key,
                format_args!("version {} comes again", entry.version),
            )),
        }
    }
}

/// Follows a document's log entries in version order and holds the state after the last one.
#[derive(Debug, Default)]
pub(super) struct Rebuilder {
    /// The last entry's version; `None` before the first.
    version: Option<Version>,
    document: Option<Arc<RawDocumentBuf>>,
}

impl Rebuilder {
    /// The document after the last entry.
    pub(super) fn document(&self) -> Option<&Arc<RawDocumentBuf>> {
        self.document.as_ref()
    }

    /// The state after `entry`, which was the last one applied.
    pub(super) fn state(&self, entry: &LogEntry) -> Option<DocumentState> {
        let document = self.document.as_ref()?;
        Some(DocumentState::after(entry, Arc::clone(document)))
    }

    /// Goes on to the next entry. The first one may be any that [`is_base`].
    ///
    /// # Errors
    /// `Corrupt`, naming document and version, if a version is missing in front of the entry, or if its
    /// patch does not fit.
    pub(super) fn apply(&mut self, entry: &LogEntry) -> Result<()> {
        if self.version.is_some() || !is_base(entry) {
            Step::between(self.version, entry).check(entry)?;
        }
        self.document = match (&entry.after, entry.kind) {
            (Some(after), _) => Some(Arc::new(after.clone())),
            (None, EntryKind::Updated) => self.patched(entry)?,
            (None, _) => None,
        };
        self.version = Some(entry.version);
        Ok(())
    }

    /// What the entry's patch makes of the document so far, whether or not the entry holds the whole
    /// document as well.
    ///
    /// # Errors
    /// `Corrupt`, naming document and version, if the patch is missing or does not fit.
    pub(super) fn patched(&self, entry: &LogEntry) -> Result<Option<Arc<RawDocumentBuf>>> {
        let Some(patch) = &entry.patch else {
            return Err(corrupt(
                &entry.key,
                format_args!("version {} has no patch", entry.version),
            ));
        };
        let Some(before) = &self.document else {
            // Events alone make a version without there being a document.
            if patch.is_empty() {
                return Ok(None);
            }
            let what = format_args!("version {} changes a document that was gone", entry.version);
            return Err(corrupt(&entry.key, what));
        };
        let codec = Codec {
            key: &entry.key,
            version_field: &entry.version_field,
        };
        // Patches say nothing about the version field: it is the entry's own version.
        let patched = patch
            .apply(before)
            .and_then(|patched| codec.with_version(&patched, entry.version))
            .map_err(|e| {
                e.context(format_args!(
                    "log of {}: version {}",
                    entry.key, entry.version
                ))
            })?;
        Ok(Some(Arc::new(patched)))
    }
}

fn before(version: Version) -> Version {
    Version::new(version.get().saturating_sub(1))
}

fn missing(key: &DocumentKey, version: Version) -> Error {
    corrupt(key, format_args!("version {version} is missing"))
}

fn corrupt(key: &DocumentKey, what: std::fmt::Arguments<'_>) -> Error {
    Error::new(ErrorKind::Corrupt, format!("log of {key}: {what}"))
}

/// The newest entry at or below `to`, and the state after it; `None` if there is no such entry.
///
/// Reads newest first down to the nearest entry that holds the whole document, normally one page of at
/// most [`SNAPSHOT_EVERY`] entries.
pub(super) async fn rebuild(
    backend: &Arc<dyn Backend>,
    key: &DocumentKey,
    to: Version,
) -> Result<Option<(LogEntry, Option<DocumentState>)>> {
    let mut upper = to;
    let mut newest = None;
    // The snapshots stand at the multiples of SNAPSHOT_EVERY; the first page ends at the nearest one.
    let mut limit = to.get() % SNAPSHOT_EVERY + 1;
    loop {
        let range = LogRange {
            key: key.clone(),
            from: Version::NONE,
            to: upper,
            until: None,
            newest_first: true,
            limit: usize::try_from(limit).unwrap_or(1),
        };
        let page = backend.read_log(&range).await?;
        let Some(lowest) = page.last().map(|entry| entry.version) else {
            return match newest {
                // Patches all the way down: what they apply to is gone.
                Some(_) => Err(missing(key, upper)),
                None => Ok(None),
            };
        };
        let newest = *newest.get_or_insert_with(|| page.first().map_or(lowest, |e| e.version));
        if let Some(base) = page.iter().position(is_base) {
            let mut rebuilder = Rebuilder::default();
            let mut last = None;
            for entry in page.into_iter().take(base + 1).rev() {
                rebuilder.apply(&entry)?;
                last = Some(entry);
            }
            // Where a snapshot was too large for its entry the way back is longer. The pages in between
            // were not kept, however many they were, and are read again.
            let from = last.as_ref().map_or(newest, |entry| entry.version).next();
            let mut rest = LogPages::new(Arc::clone(backend), key.clone(), from, newest);
            loop {
                let entries = rest.next_page().await?;
                if entries.is_empty() {
                    break;
                }
                for entry in entries {
                    rebuilder.apply(&entry)?;
                    last = Some(entry);
                }
            }
            return Ok(last.map(|entry| {
                let state = rebuilder.state(&entry);
                (entry, state)
            }));
        }
        upper = before(lowest);
        limit = SNAPSHOT_EVERY;
    }
}

#[cfg(test)]
mod tests;

#[cfg(all(test, feature = "embedded"))]
mod log_tests;
