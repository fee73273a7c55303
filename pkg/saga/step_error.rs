use std::fmt;

use crate::error::{BoxError, Error, ErrorKind};
use crate::storage::UpdateError;

/// Why a step or a compensation did not succeed: rejected for good, or failed in a way that may pass.
///
/// The errors of the storage become the one or the other by themselves: what was
/// [rejected](UpdateError::Rejected) by a closure, and what trying again does not mend, is a rejection;
/// outages, timeouts and [unknown commits](ErrorKind::CommitUnknown) are tried again.
///
/// The text is stored with the saga, so it should hold no secret.
///
/// # Examples
/// ```
/// use nodestorage::saga::StepError;
/// use nodestorage::{Error, ErrorKind};
///
/// assert!(!StepError::rejected("account is closed").is_retryable());
/// assert!(StepError::retryable("the bank does not answer").is_retryable());
/// assert!(StepError::from(Error::new(ErrorKind::Unavailable, "no primary")).is_retryable());
/// ```
#[derive(Debug)]
pub struct StepError {
    kind: Kind,
    source: BoxError,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Rejected,
    Retryable,
    /// The saga's data do not fit the type: neither the step nor its compensation can run.
    Unreadable,
}

impl StepError {
    /// A rejection: the step had no effect, and trying again will not help. The saga is compensated.
    pub fn rejected(reason: impl Into<BoxError>) -> Self {
        Self {
            kind: Kind::Rejected,
            source: reason.into(),
        }
    }

    /// A failure that may pass. Whether the step had its effect need not be known.
    pub fn retryable(reason: impl Into<BoxError>) -> Self {
        Self {
            kind: Kind::Retryable,
            source: reason.into(),
        }
    }

    pub(super) fn unreadable(error: Error) -> Self {
        Self {
            kind: Kind::Unreadable,
            source: error.into(),
        }
    }

    /// Whether the step is tried again.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.kind == Kind::Retryable
    }

    pub(super) fn is_rejected(&self) -> bool {
        self.kind == Kind::Rejected
    }

    pub(super) fn is_unreadable(&self) -> bool {
        self.kind == Kind::Unreadable
    }
}

impl From<Error> for StepError {
    fn from(error: Error) -> Self {
        // A closed storage or a full disk says nothing of the business, and a commit whose outcome is
        // unknown is settled by the repetition.
        let passes = error.is_retryable()
            || matches!(
                error.kind(),
                ErrorKind::CommitUnknown | ErrorKind::Closed | ErrorKind::StorageFull
            );
        match passes {
            true => Self::retryable(error),
            false => Self::rejected(error),
        }
    }
}

impl<E: Into<BoxError>> From<UpdateError<E>> for StepError {
    fn from(error: UpdateError<E>) -> Self {
        match error {
            UpdateError::Rejected(reason) => Self::rejected(reason),
            UpdateError::Storage(error) => error.into(),
        }
    }
}

impl fmt::Display for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.source.fmt(f)
    }
}

impl std::error::Error for StepError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(self.source.as_ref())
    }
}
