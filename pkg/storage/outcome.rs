use std::convert::Infallible;
use std::fmt;

use crate::error::{Error, ErrorKind};

/// What an update closure may return: the new document, or a reason not to change it.
///
/// | returned | effect |
/// |---|---|
/// | `T` | the document becomes this |
/// | `Result<T, E>` | `Err(e)` rejects: nothing is written, the caller gets [`UpdateError::Rejected`] |
/// | `Result<Option<T>, E>` | `Ok(None)` deletes the document |
///
/// A bare `Option<T>` is no outcome, because `None` would delete where "no change" was meant as often
/// as not.
#[diagnostic::on_unimplemented(
    message = "an update closure cannot return `{Self}`",
    label = "expected the document type `{T}`, `Result<{T}, E>` or `Result<Option<{T}>, E>`",
    note = "return `Ok::<_, E>(None)` to delete the document"
)]
pub trait Outcome<T> {
    /// The error of the whole call.
    type Error: From<Error>;

    /// The document to store, `None` to delete it, or the rejection.
    fn into_result(self) -> Result<Option<T>, Self::Error>;
}

impl<T> Outcome<T> for T {
    type Error = Error;

    fn into_result(self) -> Result<Option<T>, Error> {
        Ok(Some(self))
    }
}

impl<T, E> Outcome<T> for Result<T, E> {
    type Error = UpdateError<E>;

    fn into_result(self) -> Result<Option<T>, UpdateError<E>> {
        self.map(Some).map_err(UpdateError::Rejected)
    }
}

impl<T, E> Outcome<T> for Result<Option<T>, E> {
    type Error = UpdateError<E>;

    fn into_result(self) -> Result<Option<T>, UpdateError<E>> {
        self.map_err(UpdateError::Rejected)
    }
}

/// What a closure given to [`modify`](crate::Collection::modify) may return: nothing, or
/// `Result<(), E>`, of which `Err` rejects the change.
#[diagnostic::on_unimplemented(
    message = "a modify closure cannot return `{Self}`",
    label = "expected `()` or `Result<(), E>`"
)]
pub trait Verdict {
    /// The error of the whole call.
    type Error: From<Error>;

    /// Whether the change is accepted.
    fn into_verdict(self) -> Result<(), Self::Error>;
}

impl Verdict for () {
    type Error = Error;

    fn into_verdict(self) -> Result<(), Error> {
        Ok(())
    }
}

impl<E> Verdict for Result<(), E> {
    type Error = UpdateError<E>;

    fn into_verdict(self) -> Result<(), UpdateError<E>> {
        self.map_err(UpdateError::Rejected)
    }
}

/// The error of an update whose closure can reject: the closure's own error, typed, or the storage's.
#[derive(Debug)]
pub enum UpdateError<E> {
    /// The closure rejected the change. Nothing was written.
    Rejected(E),
    /// The storage could not carry the change out.
    Storage(Error),
}

impl<E> UpdateError<E> {
    /// One error type for both, where the closure's error can hold the storage's.
    pub fn flatten(self) -> E
    where
        E: From<Error>,
    {
        match self {
            Self::Rejected(error) => error,
            Self::Storage(error) => error.into(),
        }
    }

    /// The closure's error.
    pub fn rejected(&self) -> Option<&E> {
        match self {
            Self::Rejected(error) => Some(error),
            Self::Storage(_) => None,
        }
    }

    /// The storage's error.
    pub fn storage(&self) -> Option<&Error> {
        match self {
            Self::Rejected(_) => None,
            Self::Storage(error) => Some(error),
        }
    }

    /// The kind of the storage's error.
    pub fn kind(&self) -> Option<ErrorKind> {
        self.storage().map(Error::kind)
    }
}

impl<E> From<Error> for UpdateError<E> {
    fn from(error: Error) -> Self {
        Self::Storage(error)
    }
}

impl From<UpdateError<Infallible>> for Error {
    fn from(error: UpdateError<Infallible>) -> Self {
        match error {
            UpdateError::Rejected(never) => match never {},
            UpdateError::Storage(error) => error,
        }
    }
}

impl<E: fmt::Display> fmt::Display for UpdateError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rejected(error) => error.fmt(f),
            Self::Storage(error) => error.fmt(f),
        }
    }
}

impl<E: std::error::Error + 'static> std::error::Error for UpdateError<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Rejected(error) => error.source(),
            Self::Storage(error) => error.source(),
        }
    }
}
