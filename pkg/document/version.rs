use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind};

/// The version of a document: 1 when it is created, one more with every change, deletion included.
///
/// A document that is deleted and created again continues its numbering. Stored as a BSON `Int64`.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Version(u64);

impl Version {
    /// The version of a document that was never written.
    pub const NONE: Self = Self(0);

    /// The largest version: BSON integers are signed.
    pub const MAX: Self = Self(i64::MAX as u64);

    /// A version by its number, 0 meaning [`NONE`](Self::NONE).
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The version after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The number as BSON stores it.
    #[must_use]
    pub const fn to_i64(self) -> i64 {
        if self.0 > Self::MAX.0 {
            i64::MAX
        } else {
            self.0 as i64
        }
    }
}

impl From<u64> for Version {
    fn from(number: u64) -> Self {
        Self(number)
    }
}

impl From<Version> for u64 {
    fn from(version: Version) -> Self {
        version.0
    }
}

impl PartialEq<u64> for Version {
    fn eq(&self, other: &u64) -> bool {
        self.0 == *other
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The version a caller requires a document to have before its change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ExpectedVersion {
    /// Whatever is there, or nothing.
    #[default]
    Any,
    /// Exactly this version.
    Exact(Version),
    /// The document must not exist.
    MustNotExist,
    /// The document must exist, at any version.
    MustExist,
}

impl ExpectedVersion {
    /// Whether a document at `current` (`None` when it does not exist) is as expected.
    #[must_use]
    pub fn accepts(self, current: Option<Version>) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(version) => current == Some(version),
            Self::MustNotExist => current.is_none(),
            Self::MustExist => current.is_some(),
        }
    }
}

impl From<Version> for ExpectedVersion {
    fn from(version: Version) -> Self {
        Self::Exact(version)
    }
}

impl From<u64> for ExpectedVersion {
    fn from(version: u64) -> Self {
        Self::Exact(Version(version))
    }
}

impl fmt::Display for ExpectedVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::Exact(version) => version.fmt(f),
            Self::MustNotExist => f.write_str("no document"),
            Self::MustExist => f.write_str("a document"),
        }
    }
}

/// What an [`ErrorKind::VersionConflict`] is about; the error's source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}, found {}", Found(*actual))]
#[non_exhaustive]
pub struct VersionConflict {
    /// What the caller required.
    pub expected: ExpectedVersion,
    /// The committed version at the time of the decision; `None` when the document did not exist.
    pub actual: Option<Version>,
}

struct Found(Option<Version>);

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(version) => version.fmt(f),
            None => f.write_str("no document"),
        }
    }
}

impl VersionConflict {
    pub(crate) fn into_error(self, document: impl fmt::Display) -> Error {
        Error::new(
            ErrorKind::VersionConflict,
            format!("version conflict on {document}: {self}"),
        )
        .with_source(self)
    }

    pub(crate) fn new(expected: ExpectedVersion, actual: Option<Version>) -> Self {
        Self { expected, actual }
    }
}

impl Error {
    /// The expected and the actual version, when the kind is [`ErrorKind::VersionConflict`].
    #[must_use]
    pub fn version_conflict(&self) -> Option<&VersionConflict> {
        std::error::Error::source(self)?.downcast_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expectations() {
        let seven = Some(Version::new(7));
        assert!(ExpectedVersion::Any.accepts(None) && ExpectedVersion::Any.accepts(seven));
        assert!(ExpectedVersion::from(7).accepts(seven) && !ExpectedVersion::from(7).accepts(None));
        assert!(ExpectedVersion::MustNotExist.accepts(None));
        assert!(!ExpectedVersion::MustNotExist.accepts(seven));
        assert!(ExpectedVersion::MustExist.accepts(seven));
        assert!(!ExpectedVersion::MustExist.accepts(None));
    }

    #[test]
    fn a_conflict_names_document_and_both_versions() {
        let conflict = VersionConflict::new(5.into(), Some(Version::new(9)));
        let error = conflict.into_error("users/user123");
        assert_eq!(
            error.to_string(),
            "version conflict on users/user123: expected 5, found 9"
        );
        assert_eq!(error.version_conflict(), Some(&conflict));
    }
}
