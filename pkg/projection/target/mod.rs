//! Where views are kept.

mod storage;

use async_trait::async_trait;
use bson::RawDocumentBuf;

use super::build::Build;
use crate::document::DocumentId;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::Query;

pub use storage::StorageTarget;

/// A view as a target keeps it.
///
/// # Examples
/// ```
/// use nodestorage::projection::StoredView;
///
/// /// What a table needs for a row of it.
/// fn row(view: &StoredView) -> (String, u64, Option<&[u8]>, &[u8]) {
///     let document = view.document.as_ref().map(|document| document.as_bytes());
///     (view.key.to_string(), view.revision, document, &view.marks)
/// }
/// ```
#[derive(Debug, Clone, PartialEq)]
#[allow(clippy::exhaustive_structs)]
pub struct StoredView {
    /// The key.
    pub key: DocumentId,
    /// Rises with every write of the view.
    pub revision: u64,
    /// The view; `None` for one that was removed and whose marks are kept.
    pub document: Option<RawDocumentBuf>,
    /// Which events the view has seen, in the runner's own terms; kept as they are.
    pub marks: Vec<u8>,
}

/// A change to one view.
///
/// # Examples
/// ```
/// use nodestorage::projection::ViewWrite;
///
/// /// Whether a write may take the place of a row at this revision.
/// fn fits(write: &ViewWrite, stored: Option<u64>) -> bool {
///     write.expected == stored
/// }
/// ```
#[derive(Debug, Clone, PartialEq)]
#[allow(clippy::exhaustive_structs)]
pub struct ViewWrite {
    /// The revision that must be stored now; `None`: nothing is, not even marks.
    pub expected: Option<u64>,
    /// What takes its place.
    pub view: StoredView,
    /// Whether what is stored now is a view, and not only the marks of one that was removed.
    pub replaces_view: bool,
    /// From this second of the log's time on, the marks of a removed view may be forgotten.
    pub keep_until: u32,
}

/// A place for views: the storage, or one of your own.
///
/// The runner is the only writer, but one that was paused for too long may wake and write late. So every
/// write names the revision that it replaces, and a target that compares it keeps such writes out. Marks
/// are stored together with their view, in one atomic step: that is what makes an event count once in a
/// view, however often it is handed out.
///
/// Several builds are kept beside each other; nothing of one may show in another.
///
/// # Errors
/// What [is retryable](Error::is_retryable), and `CommitUnknown`, is tried again until it succeeds.
/// `VersionConflict` makes the runner read again what is stored. `TooLarge`, `Constraint`, `Serialization`
/// and `InvalidName` are the fault of a view: the event that made it so goes to the dead letters.
/// Anything else stops the projection.
///
/// # Examples
/// ```
/// use std::collections::HashMap;
/// use std::sync::Mutex;
///
/// use async_trait::async_trait;
/// use nodestorage::projection::{Build, ProjectionTarget, StoredView, ViewWrite};
/// use nodestorage::{DocumentId, Error, ErrorKind, Result};
///
/// #[derive(Debug, Default)]
/// struct InMemory(Mutex<HashMap<(Build, DocumentId), StoredView>>);
///
/// #[async_trait]
/// impl ProjectionTarget for InMemory {
///     async fn load(&self, build: Build, keys: &[DocumentId]) -> Result<Vec<StoredView>> {
///         let views = self.0.lock().unwrap();
///         Ok(keys.iter().filter_map(|key| views.get(&(build, key.clone())).cloned()).collect())
///     }
///
///     async fn store(&self, build: Build, writes: &[ViewWrite]) -> Result<()> {
///         let mut views = self.0.lock().unwrap();
///         for write in writes {
///             let stored = views.get(&(build, write.view.key.clone()));
///             if stored.map(|view| view.revision) != write.expected {
///                 return Err(Error::new(ErrorKind::VersionConflict, "the view has changed"));
///             }
///             views.insert((build, write.view.key.clone()), write.view.clone());
///         }
///         Ok(())
///     }
///
///     async fn clear(&self, build: Build) -> Result<()> {
///         self.0.lock().unwrap().retain(|(other, _), _| *other != build);
///         Ok(())
///     }
/// }
/// ```
#[async_trait]
pub trait ProjectionTarget: Send + Sync + 'static {
    /// Prepares the place of a build; called before anything else in each process.
    ///
    /// # Errors
    /// As for the trait.
    async fn open(&self, build: Build) -> Result<()> {
        let _ = build;
        Ok(())
    }

    /// Reads views, in any order; those that are not stored are left out. Removed ones whose marks are
    /// kept are returned.
    ///
    /// # Errors
    /// As for the trait.
    async fn load(&self, build: Build, keys: &[DocumentId]) -> Result<Vec<StoredView>>;

    /// Stores views, each atomically with its marks; if it fails, some may be stored and others not.
    ///
    /// # Errors
    /// As for the trait.
    async fn store(&self, build: Build, writes: &[ViewWrite]) -> Result<()>;

    /// Removes everything of a build.
    ///
    /// # Errors
    /// As for the trait.
    async fn clear(&self, build: Build) -> Result<()>;

    /// Forgets marks of removed views that need not be kept after this second of the log's time. Called
    /// now and then; a target that keeps them loses nothing but space.
    ///
    /// # Errors
    /// As for the trait.
    async fn forget(&self, build: Build, before: u32) -> Result<()> {
        let _ = (build, before);
        Ok(())
    }

    /// Answers a query over the views of a build.
    ///
    /// # Errors
    /// `Unsupported`, unless the target implements it.
    async fn query(&self, build: Build, query: &Query) -> Result<Vec<StoredView>> {
        let _ = (build, query);
        Err(unsupported("query"))
    }

    /// Counts the views that match a query.
    ///
    /// # Errors
    /// `Unsupported`, unless the target implements it.
    async fn count(&self, build: Build, query: &Query) -> Result<u64> {
        let _ = (build, query);
        Err(unsupported("count"))
    }
}

fn unsupported(what: &str) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        format!("this target of views does not {what}"),
    )
}
