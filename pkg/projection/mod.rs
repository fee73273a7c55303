//! Read models: views folded from the events of the log, kept up to date, and built anew when their code
//! changes.
//!
//! A [`Projection`] is a pure fold from events to views. [`Storage::project`] runs it: from its checkpoint
//! in the log, in one process at a time, into collections of the storage or a [`ProjectionTarget`] of your
//! own. `docs/projections.md` says what it guarantees.

mod build;
mod cache;
mod catch_up;
mod definition;
mod fold;
mod handle;
mod handled;
mod leading;
mod ledger;
mod letters;
mod marks;
mod options;
mod parking;
mod reader;
mod run;
mod settling;
mod shared;
mod state;
mod storing;
mod supervise;
mod target;
#[cfg(all(test, feature = "embedded", feature = "testing"))]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;
mod views;
mod waiting;

use std::sync::Arc;

use tokio_util::task::TaskTracker;

use self::shared::Shared;
use self::supervise::Supervisor;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::Storage;

pub use build::{Build, BuildProgress, ProjectionLag};
pub use definition::Projection;
pub use handle::ProjectionHandle;
pub use letters::ProjectionDeadLetter;
pub use options::ProjectionOptions;
pub use state::ProjectionState;
pub use target::{ProjectionTarget, StorageTarget, StoredView, ViewWrite};
pub use views::Views;

/// The longest name, in bytes: collections are called by it.
const MAX_NAME_BYTES: usize = 128;

impl Storage {
    /// Runs a projection of this storage's log, in tasks of the current tokio runtime, until it is shut down
    /// or the last handle is dropped.
    ///
    /// * **Once, in order.** Every event of the log that concerns the projection changes its views exactly
    ///   once, the events of a document in version order, whatever is repeated after a crash.
    /// * **Nothing is lost.** While the target or the store does not answer, it is tried again. An event that
    ///   fails goes to the dead letters, and the later events of its document wait in the log behind it.
    /// * **One at a time.** Of the projections with one name and version, in any process, one runs; when it
    ///   ends or dies another goes on within the lease.
    /// * **Built beside.** Under a higher [`version`](Projection::version) the views are built anew beside the
    ///   ones in use, and take their place when they have caught up.
    ///
    /// ```
    /// # use nodestorage::{DocumentId, Event, Result, Storage};
    /// # use nodestorage::error::BoxError;
    /// use nodestorage::projection::{Projection, ProjectionOptions};
    /// # use serde::{Deserialize, Serialize};
    ///
    /// #[derive(Clone, Default, Serialize, Deserialize)]
    /// struct Changes { count: u64 }
    ///
    /// /// How often each document has changed.
    /// struct ChangeCounts;
    ///
    /// impl Projection for ChangeCounts {
    ///     type View = Changes;
    ///
    ///     fn name(&self) -> &str { "change_counts" }
    ///
    ///     fn apply(&self, _: &DocumentId, view: Option<Changes>, _: &Event) -> Result<Option<Changes>, BoxError> {
    ///         Ok(Some(Changes { count: view.unwrap_or_default().count + 1 }))
    ///     }
    /// }
    ///
    /// # async fn example(storage: Storage) -> Result<()> {
    /// let counts = storage.project(ChangeCounts, ProjectionOptions::new())?;
    /// if let Some(changes) = counts.views().find("user123").await? {
    ///     println!("changed {} times", changes.count);
    /// }
    /// counts.shutdown().await;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// `InvalidName` for a name that is none, `InvalidConfig` for options that make no sense, for version 0
    /// and without a runtime, `Closed`. What happens later is in the state.
    pub fn project<P: Projection>(
        &self,
        projection: P,
        options: ProjectionOptions,
    ) -> Result<ProjectionHandle<P>> {
        self.check_open()?;
        let (name, version) = (projection.name().to_owned(), projection.version());
        validate_name(&name)?;
        options.validate()?;
        if version == 0 {
            let what = format!("projection {name}: versions begin at 1");
            return Err(Error::new(ErrorKind::InvalidConfig, what));
        }
        let runtime = tokio::runtime::Handle::try_current().map_err(|e| {
            let what = "a projection needs a tokio runtime, and there is none here";
            Error::new(ErrorKind::InvalidConfig, what).with_source(e)
        })?;
        let target = options.target.clone().unwrap_or_else(|| {
            let target = StorageTarget::new(self, name.as_str());
            let indexes = options.indexes.iter().cloned();
            Arc::new(indexes.fold(target, StorageTarget::with_index))
        });
        let backend = Arc::clone(self.backend());
        let shared = Arc::new(Shared::new(&name, version, backend, target, options));
        let supervisor = Supervisor::new(Arc::clone(&shared), Arc::new(projection));
        let task = TaskTracker::new();
        task.spawn_on(supervisor.run(), &runtime);
        task.close();
        Ok(ProjectionHandle::new(shared, task))
    }
}

fn validate_name(name: &str) -> Result<()> {
    let is_fine = |c: char| c.is_ascii_alphanumeric() || ['_', '-', '.'].contains(&c);
    let reason = if name.is_empty() {
        "is empty".to_owned()
    } else if name.len() > MAX_NAME_BYTES {
        let length = name.len();
        format!("has {length} bytes, at most {MAX_NAME_BYTES} are allowed")
    } else if !name.chars().all(is_fine) {
        "has other characters than letters, digits, '_', '-' and '.'".to_owned()
    } else {
        return Ok(());
    };
    Err(Error::new(
        ErrorKind::InvalidName,
        format!("projection name {reason}"),
    ))
}
