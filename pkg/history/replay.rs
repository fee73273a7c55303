use std::sync::Arc;
use std::vec;

use futures_core::stream::BoxStream;
use futures_util::StreamExt;
use futures_util::stream;

use super::pages::LogPages;
use super::rebuild::{Rebuilder, Step};
use super::state::DocumentState;
use crate::document::{DocumentKey, Version};
use crate::error::Result;
use crate::storage::backend::{Backend, LogEntry};

/// One version of a document: what the log recorded, and the document as it was afterwards.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Revision {
    /// The log entry.
    pub entry: LogEntry,
    /// The document after it; `None` where it was deleted.
    pub state: Option<DocumentState>,
}

/// A document's versions one after the other, a page in memory at a time.
#[derive(Debug)]
pub(super) struct Replay {
    pages: LogPages,
    page: vec::IntoIter<LogEntry>,
    rebuilder: Rebuilder,
    begun: bool,
}

impl Replay {
    pub(super) fn new(backend: Arc<dyn Backend>, key: DocumentKey) -> Self {
        Self {
            pages: LogPages::new(backend, key, Version::NONE, Version::MAX),
            page: Vec::new().into_iter(),
            rebuilder: Rebuilder::default(),
            begun: false,
        }
    }

    /// The next version; `None` after the newest.
    ///
    /// # Errors
    /// `Corrupt` where the log does not lead from one version to the next, and those of the backend.
    pub(super) async fn next(&mut self) -> Result<Option<Revision>> {
        if self.page.len() == 0 {
            self.page = self.pages.next_page().await?.into_iter();
        }
        let Some(entry) = self.page.next() else {
            return Ok(None);
        };
        if !self.begun {
            Step::between(None, &entry).check(&entry)?;
            self.begun = true;
        }
        self.rebuilder.apply(&entry)?;
        let state = self.rebuilder.state(&entry);
        Ok(Some(Revision { entry, state }))
    }

    /// As a stream, which ends after the newest version or an error.
    pub(super) fn into_stream(self) -> BoxStream<'static, Result<Revision>> {
        stream::try_unfold(self, |mut replay| async move {
            let revision = replay.next().await?;
            Ok(revision.map(|revision| (revision, replay)))
        })
        .boxed()
    }
}
