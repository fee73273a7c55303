use crate::document::ExpectedVersion;
use crate::event::Metadata;
use crate::storage::RetryPolicy;

/// What a command may be sent with.
///
/// # Examples
/// ```
/// use nodestorage::Metadata;
/// use nodestorage::command::CommandOptions;
///
/// let options = CommandOptions::new()
///     .with_command_id("payment-4711")
///     .with_metadata(Metadata::new().with_actor("teller-7"));
/// # let _ = options;
/// ```
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct CommandOptions {
    /// Identifies the command: sent again under the same id it does not run again, and returns the first
    /// result. Default: none, each call runs.
    ///
    /// Stored with the commit, so it holds across processes and crashes. A command that was rejected or
    /// changed nothing leaves no trace and is decided anew. Costs one read before and one small document
    /// in the commit, which stays until [`Storage::forget_commands`](crate::Storage::forget_commands).
    pub command_id: Option<String>,
    /// Where the command comes from; goes into the log entry and the events. Default: nothing; the causation
    /// is the command's id, if it has one and nothing else is set.
    pub metadata: Metadata,
    /// The version the aggregate must have. Default: any.
    pub expected: ExpectedVersion,
    /// How often and how fast to decide again after conflicts. Default: as the storage is configured.
    pub retry: Option<RetryPolicy>,
}

impl CommandOptions {
    /// No id, no metadata, any version.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Identifies the command, 1 to 512 bytes.
    #[must_use]
    pub fn with_command_id(mut self, id: impl Into<String>) -> Self {
        self.command_id = Some(id.into());
        self
    }

    /// Says where the command comes from.
    #[must_use]
    pub fn with_metadata(mut self, metadata: Metadata) -> Self {
        self.metadata = metadata;
        self
    }

    /// Requires a version.
    #[must_use]
    pub fn with_expected(mut self, expected: impl Into<ExpectedVersion>) -> Self {
        self.expected = expected.into();
        self
    }

    /// Sets how often and how fast to decide again.
    #[must_use]
    pub fn with_retry(mut self, retry: RetryPolicy) -> Self {
        self.retry = Some(retry);
        self
    }
}
