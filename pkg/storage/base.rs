//! What a change starts from: the stored document and how it relates to the log.

use std::sync::Arc;

use bson::RawDocumentBuf;

use super::backend::{Condition, EntryKind, Loaded};
use super::codec::Codec;
use crate::document::Version;
use crate::error::Result;

/// The committed state that a change is decided on.
#[derive(Debug, Clone)]
pub(super) struct Base {
    /// The stored document.
    pub(super) document: Option<Arc<RawDocumentBuf>>,
    /// The version that callers see: `None` without a document, 0 for one never versioned.
    pub(super) version: Option<Version>,
    /// What the commit compares with.
    pub(super) condition: Condition,
    /// Set when the log does not know this state: the version under which it has to be adopted first.
    pub(super) adopt: Option<Version>,
    /// The version that the change will have.
    pub(super) next: Version,
}

impl Base {
    /// Whether this is the same state, byte for byte.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let same_bytes = match (&self.document, &other.document) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b) || a.as_bytes() == b.as_bytes(),
            (None, None) => true,
            _ => false,
        };
        same_bytes
            && self.condition == other.condition
            && self.adopt == other.adopt
            && self.next == other.next
    }

    /// The last version that was used.
    pub(super) fn last(&self) -> Version {
        Version::new(self.next.get().saturating_sub(1))
    }

    /// The state after a change on top of this one has been committed.
    pub(super) fn after(&self, document: Option<Arc<RawDocumentBuf>>) -> Self {
        let version = document.is_some().then_some(self.next);
        Self {
            condition: version.map_or(Condition::Absent, Condition::Version),
            document,
            version,
            adopt: None,
            next: self.next.next(),
        }
    }

    /// Relates document and log. The states another program can leave behind (no version field, a jump
    /// of the version, a document restored, re-created or deleted) need an `adopted` entry first, at one
    /// above the highest version known.
    pub(super) fn new(codec: Codec<'_>, loaded: Loaded) -> Result<Self> {
        let Loaded { document, head } = loaded;
        let logged = head.map_or(Version::NONE, |head| head.version);
        let Some(document) = document else {
            // A head that is adopted is a deletion by another program that was taken over; one that is
            // appended emitted events where there was no document.
            let known = head.is_none_or(|head| {
                use EntryKind::{Adopted, Appended, Deleted};
                matches!(head.kind, Deleted | Adopted | Appended)
            });
            return Ok(Self {
                document: None,
                version: None,
                condition: Condition::Absent,
                adopt: (!known).then(|| logged.next()),
                next: if known {
                    logged.next()
                } else {
                    logged.next().next()
                },
            });
        };
        let field = codec.version(&document)?;
        let version = field.unwrap_or(Version::NONE);
        // After a deletion, or events without a document, there was none in the log's eyes: one of the
        // same number is another program's.
        let known = field.is_some()
            && head.is_some_and(|head| {
                use EntryKind::{Appended, Deleted};
                head.version == version && !matches!(head.kind, Deleted | Appended)
            });
        let highest = logged.max(version);
        Ok(Self {
            document: Some(Arc::new(document)),
            version: Some(version),
            condition: match field {
                Some(version) => Condition::Version(version),
                None => Condition::Unversioned,
            },
            adopt: (!known).then(|| highest.next()),
            next: if known {
                highest.next()
            } else {
                highest.next().next()
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::backend::LogHead;
    use super::*;
    use crate::document::DocumentKey;
    use bson::rawdoc;

    fn base(document: Option<RawDocumentBuf>, head: Option<(u64, EntryKind)>) -> Base {
        let key = DocumentKey::new("users", 1);
        let codec = Codec {
            key: &key,
            version_field: "version",
        };
        let head = head.map(|(version, kind)| LogHead {
            version: Version::new(version),
            kind,
        });
        Base::new(codec, Loaded { document, head }).unwrap()
    }

    fn shape(base: &Base) -> (Option<u64>, Condition, Option<u64>, u64) {
        (
            base.version.map(Version::get),
            base.condition,
            base.adopt.map(Version::get),
            base.next.get(),
        )
    }

    #[test]
    fn states_that_the_log_knows() {
        use EntryKind::{Created, Deleted, Updated};
        let at = |v: i64| Some(rawdoc! { "_id": 1, "version": v });
        let is = |v: u64| Condition::Version(Version::new(v));
        assert_eq!(shape(&base(None, None)), (None, Condition::Absent, None, 1));
        let deleted = base(None, Some((4, Deleted)));
        assert_eq!(shape(&deleted), (None, Condition::Absent, None, 5));
        let emitted = base(None, Some((4, EntryKind::Appended)));
        assert_eq!(shape(&emitted), (None, Condition::Absent, None, 5));
        let created = base(at(1), Some((1, Created)));
        assert_eq!(shape(&created), (Some(1), is(1), None, 2));
        let updated = base(at(7), Some((7, Updated)));
        assert_eq!(shape(&updated), (Some(7), is(7), None, 8));
    }

    #[test]
    fn states_that_other_programs_made_are_adopted_above_the_highest_version() {
        use EntryKind::{Appended, Created, Deleted, Updated};
        let at = |v: i64| Some(rawdoc! { "_id": 1, "version": v });
        let is = |v: u64| Condition::Version(Version::new(v));
        let plain = || Some(rawdoc! { "_id": 1 });
        let cases = [
            (
                "never versioned",
                plain(),
                None,
                (Some(0), Condition::Unversioned, Some(1), 2),
            ),
            ("never logged", at(5), None, (Some(5), is(5), Some(6), 7)),
            (
                "raised",
                at(9),
                Some((7, Updated)),
                (Some(9), is(9), Some(10), 11),
            ),
            (
                "restored",
                at(3),
                Some((7, Updated)),
                (Some(3), is(3), Some(8), 9),
            ),
            (
                "stripped",
                plain(),
                Some((7, Updated)),
                (Some(0), Condition::Unversioned, Some(8), 9),
            ),
            (
                "deleted",
                None,
                Some((7, Created)),
                (None, Condition::Absent, Some(8), 9),
            ),
            (
                "undeleted",
                at(7),
                Some((7, Deleted)),
                (Some(7), is(7), Some(8), 9),
            ),
            (
                "created while events were emitted without a document",
                at(1),
                Some((1, Appended)),
                (Some(1), is(1), Some(2), 3),
            ),
        ];
        for (name, document, head, expected) in cases {
            assert_eq!(shape(&base(document, head)), expected, "{name}");
        }
    }
}
