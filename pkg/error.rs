//! The one error type of the crate.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

/// The source of an error: any error that can cross threads.
pub type BoxError = Box<dyn StdError + Send + Sync + 'static>;

/// A result with the crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, in terms of what a caller can do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The document, stream, collection or version does not exist.
    NotFound,
    /// The document is not at the version the caller expected. The error's source is a
    /// [`VersionConflict`](crate::VersionConflict).
    VersionConflict,
    /// The deadline passed before the outcome of a commit was known: it may or may not have happened.
    CommitUnknown,
    /// The database or broker cannot be reached right now. Nothing was written.
    Unavailable,
    /// The deadline passed. Nothing was written.
    Timeout,
    /// A value could not be converted to or from its stored form without loss.
    Serialization,
    /// An event mapper refused a change or produced an unusable event. Nothing was written.
    Mapping,
    /// A unique index or validator of the user's own collection refused the document.
    Constraint,
    /// A document, log entry or event is larger than the store accepts.
    TooLarge,
    /// A collection name, document id or event type is not acceptable.
    InvalidName,
    /// The backend, bus or deployment cannot do what was asked.
    Unsupported,
    /// The configuration is wrong: an URL, an option, a missing index.
    InvalidConfig,
    /// Every attempt failed; the error's source is the last failure.
    RetriesExhausted {
        /// How many attempts were made.
        attempts: u32,
    },
    /// The event was given up and lies in the dead letters.
    DeadLettered,
    /// Stored data does not read back as it must have been written.
    Corrupt,
    /// The disk that holds the store is full.
    StorageFull,
    /// Another process holds the store, or another owner holds the lease.
    InUse,
    /// Code around a handler refused a command: an authorization or a validation. Nothing was written.
    Refused,
    /// No handler is registered for a command.
    UnknownCommand,
    /// Code of the application's own panicked: a decision, for example. Nothing was written.
    Panicked,
    /// No handler is registered for a query.
    UnknownQuery,
    /// A handler or name is registered already.
    AlreadyRegistered,
    /// The storage, bus or subscription was closed.
    Closed,
}

/// The error of every operation: a [kind](ErrorKind), a message that names what and where, and the
/// error below it, if any.
///
/// Messages never hold document bodies, payloads or credentials.
///
/// Cloning is cheap: whoever shares a commit that failed gets the same error.
#[derive(Clone)]
pub struct Error(Box<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    message: String,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl Error {
    /// Creates an error. `message` is lower case, without a full stop, and names what and which.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            message: message.into(),
            source: None,
        }))
    }

    /// Sets the error that caused this one.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.0.source = Some(Arc::from(source.into()));
        self
    }

    /// Puts `context` in front of the message, for callers that know more about where it happened.
    #[must_use]
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.0.message = format!("{context}: {}", self.0.message);
        self
    }

    /// What went wrong, in terms of what a caller can do about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether the same call may succeed later without any change by the caller.
    ///
    /// `CommitUnknown` is not retryable: the change may have happened.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(
            self.0.kind,
            ErrorKind::Unavailable
                | ErrorKind::Timeout
                | ErrorKind::InUse
                | ErrorKind::RetriesExhausted { .. }
        )
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut s = f.debug_struct("Error");
        s.field("kind", &self.0.kind)
            .field("message", &self.0.message);
        if let Some(source) = &self.0.source {
            s.field("source", source);
        }
        s.finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0
            .source
            .as_deref()
            .map(|source| source as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn context_comes_first_and_the_kind_stays() {
        let error = Error::new(ErrorKind::TooLarge, "log entry has 17 bytes").context("users/7");
        assert_eq!(error.to_string(), "users/7: log entry has 17 bytes");
        assert_eq!(error.kind(), ErrorKind::TooLarge);
        assert!(!error.is_retryable());
    }

    #[test]
    fn the_source_is_kept() {
        let error = Error::new(ErrorKind::Unavailable, "no primary").with_source("refused");
        assert_eq!(error.source().unwrap().to_string(), "refused");
        assert!(error.is_retryable());
    }
}
