//! Documents against their log: what other programs changed behind the storage's back, and logs that do
//! not lead to their documents.

mod examine;
mod report;
mod walk;

use self::walk::Walk;
use crate::document::validate_collection_name;
use crate::error::Result;
use crate::storage::Storage;

pub use report::{DoctorReport, Finding, Problem};

impl Storage {
    /// Checks documents and log against each other and changes nothing. `None` checks every collection
    /// that is declared or has log entries, and the streams; a name checks that collection, which is
    /// opened as any first use opens it.
    ///
    /// Finds documents that were changed without raising their version, are not logged, ahead of the
    /// log, behind it, missing, or there although they were deleted, and logs with gaps or with patches
    /// that do not apply. A version that another program raised is found too: it is in order, and the
    /// document's next update adopts it.
    ///
    /// Takes a while: it reads the whole log twice and every document. Holds a few megabytes in memory.
    /// Others may write meanwhile; what they are writing is looked at again before it is reported.
    ///
    /// # Errors
    /// `InvalidName`, `Unavailable`, `Closed`; `Corrupt` where the store itself does not read back.
    pub async fn doctor(&self, collection: Option<&str>) -> Result<DoctorReport> {
        self.check_open()?;
        if let Some(name) = collection {
            validate_collection_name(name)?;
        }
        Walk::new(self, collection).run().await
    }
}
