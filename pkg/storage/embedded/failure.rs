//! Translation of what the file store below says.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::error::{Error, ErrorKind, Result};

/// Translates an error of the file store.
pub(super) fn translate(error: impl Into<redb::Error>) -> Error {
    let error = error.into();
    let (kind, what) = match &error {
        redb::Error::Io(io) => return translate_io(io.kind(), error),
        redb::Error::DatabaseAlreadyOpen => {
            (ErrorKind::InUse, "the embedded store is open elsewhere")
        }
        redb::Error::UpgradeRequired(_) => (
            ErrorKind::Unsupported,
            "the embedded store has an older file format",
        ),
        redb::Error::ValueTooLarge(_) => (
            ErrorKind::TooLarge,
            "a value is too large for the embedded store",
        ),
        redb::Error::DatabaseClosed => return closed(),
        redb::Error::PreviousIo => (
            ErrorKind::Unavailable,
            "the embedded store failed before and has not been opened anew",
        ),
        _ => (ErrorKind::Corrupt, "the embedded store is damaged"),
    };
    Error::new(kind, what).with_source(error)
}

fn translate_io(kind: io::ErrorKind, source: redb::Error) -> Error {
    let (kind, what) = match kind {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            (
                ErrorKind::StorageFull,
                "no space is left for the embedded store",
            )
        }
        // A page that the store refers to lies behind the end of the file.
        io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData => {
            (ErrorKind::Corrupt, "the embedded store is damaged")
        }
        _ => (
            ErrorKind::Unavailable,
            "the embedded store cannot be read or written",
        ),
    };
    Error::new(kind, what).with_source(source)
}

/// What calls after the end get.
pub(super) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the embedded store was closed")
}

/// Damage that was found in a stored value.
pub(super) fn damaged(what: impl std::fmt::Display) -> Error {
    Error::new(
        ErrorKind::Corrupt,
        format!("{what} in the embedded store does not read back"),
    )
}

/// Runs `work`, and takes a panic for damage: the file store checks pages only in part when it reads
/// them, and panics on what cannot be.
pub(super) fn guarded<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    // Safe to go on with what `work` borrowed: a read transaction has no state of its own, and a write
    // transaction that met a panic is not committed.
    // The panic's own words are dropped: they may quote what was read.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        Err(Error::new(
            ErrorKind::Corrupt,
            "the embedded store is damaged",
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn io_errors_say_what_to_do() {
        for (io, kind) in [
            (io::ErrorKind::StorageFull, ErrorKind::StorageFull),
            (io::ErrorKind::QuotaExceeded, ErrorKind::StorageFull),
            (io::ErrorKind::UnexpectedEof, ErrorKind::Corrupt),
            (io::ErrorKind::PermissionDenied, ErrorKind::Unavailable),
        ] {
            assert_eq!(translate(redb::Error::Io(io.into())).kind(), kind);
        }
    }
}
