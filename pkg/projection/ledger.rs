//! Which build is in use, and which is being made: one small record, changed by compare and swap.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bson::raw::cstr;
use bson::{RawArrayBuf, RawBsonRef, RawDocument, RawDocumentBuf, rawdoc};

use super::build::Build;
use crate::error::{BoxError, Error, ErrorKind, Result};
use crate::storage::backend::{Backend, CommitFailure, Record, RecordWrite, Unit};

/// How long one change of the record may take.
pub(super) const COMMIT_WITHIN: Duration = Duration::from_secs(10);

/// What is known of the builds of a projection.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Builds {
    /// The number of this state; 0 before the first.
    sequence: u64,
    /// What readers get.
    pub(super) live: Option<Build>,
    /// What takes its place when it has caught up.
    pub(super) building: Option<Build>,
    /// What is in use stands still, so that what takes its place can have all that it has.
    pub(super) sealed: bool,
    /// What is to be removed.
    pub(super) retired: Vec<Build>,
}

impl Builds {
    /// Whether this is a later state than the other.
    pub(super) fn is_after(&self, other: &Self) -> bool {
        self.sequence > other.sequence
    }

    /// What code of a version makes of it when it starts; `None` if nothing is to be changed.
    pub(super) fn started(&self, version: u32) -> Option<Self> {
        let mut next = self.clone();
        match self.live {
            None => next.live = Some(Build::new(version, 0)),
            Some(live) if live.version() >= version => return None,
            Some(_) => match self.building {
                Some(building) if building.version() >= version => return None,
                building => {
                    next.retired.extend(building);
                    next.building = Some(Build::new(version, 0));
                    next.sealed = false;
                }
            },
        }
        Some(next)
    }

    /// With a new build of the version in use.
    ///
    /// # Errors
    /// `AlreadyRegistered` while another one is being made.
    pub(super) fn rebuilt(&self, version: u32) -> Result<Self> {
        if let Some(building) = self.building {
            return Err(Error::new(
                ErrorKind::AlreadyRegistered,
                format!("build {building} is being made"),
            ));
        }
        let newest = self.live.into_iter().chain(self.retired.iter().copied());
        let newest = newest.filter(|build| build.version() == version).max();
        Ok(Self {
            building: Some(newest.map_or(Build::new(version, 0), Build::next)),
            ..self.clone()
        })
    }

    /// With what is in use standing still, or going on again, for a build that is being made; `None` if it is
    /// so already or the build is not the one.
    pub(super) fn with_seal(&self, build: Build, sealed: bool) -> Option<Self> {
        let changes = self.building == Some(build) && self.sealed != sealed;
        changes.then(|| Self {
            sealed,
            ..self.clone()
        })
    }

    /// With the build that was being made in use; `None` if it is not the one.
    pub(super) fn swapped(&self, build: Build) -> Option<Self> {
        if self.building != Some(build) {
            return None;
        }
        let mut next = self.clone();
        next.retired.extend(self.live);
        next.live = Some(build);
        next.building = None;
        next.sealed = false;
        Some(next)
    }

    pub(super) fn without_retired(&self, build: Build) -> Self {
        let mut next = self.clone();
        next.retired.retain(|retired| *retired != build);
        next
    }

    /// What a process with code of this version runs.
    pub(super) fn of_version(&self, version: u32) -> impl Iterator<Item = Build> {
        let live = self.live.filter(|_| !self.sealed);
        let both = live.into_iter().chain(self.building);
        both.filter(move |build| build.version() == version)
    }

    fn to_raw(&self) -> RawDocumentBuf {
        let mut raw = RawDocumentBuf::new();
        if let Some(live) = self.live {
            raw.append(cstr!("live"), build_to_raw(live));
        }
        if let Some(building) = self.building {
            raw.append(cstr!("building"), build_to_raw(building));
        }
        raw.append(cstr!("sealed"), self.sealed);
        let retired: RawArrayBuf = self.retired.iter().copied().map(build_to_raw).collect();
        raw.append(cstr!("retired"), retired);
        raw
    }

    fn from_record(record: &Record) -> Result<Self> {
        let read = || -> Result<Self, BoxError> {
            let raw = &record.value;
            let build = |name: &str| match raw.get(name)? {
                Some(RawBsonRef::Document(build)) => build_from_raw(build).map(Some),
                Some(_) => Err("a build is no document".into()),
                None => Ok(None),
            };
            let mut retired = Vec::new();
            for build in raw.get_array("retired")? {
                let build = build?.as_document().ok_or("a build is no document")?;
                retired.push(build_from_raw(build)?);
            }
            Ok(Self {
                sequence: record.key.parse()?,
                live: build("live")?,
                building: build("building")?,
                sealed: raw.get_bool("sealed")?,
                retired,
            })
        };
        read().map_err(|e| {
            let Record { kind, key, .. } = record;
            let what = format!("record {key} of kind {kind} does not read back");
            Error::new(ErrorKind::Corrupt, what).with_source(e)
        })
    }
}

fn build_to_raw(build: Build) -> RawDocumentBuf {
    rawdoc! { "version": i64::from(build.version()), "generation": i64::from(build.generation()) }
}

fn build_from_raw(raw: &RawDocument) -> Result<Build, BoxError> {
    let number = |name| -> Result<u32, BoxError> { Ok(u32::try_from(raw.get_i64(name)?)?) };
    Ok(Build::new(number("version")?, number("generation")?))
}

/// Where the builds of one projection are written down.
///
/// Each state is a record of its own, numbered, and whoever writes the next number changed the state; of
/// two that try at once one is refused. The record before goes in the same step.
#[derive(Clone)]
pub(super) struct Ledger {
    backend: Arc<dyn Backend>,
    kind: String,
}

impl Ledger {
    pub(super) fn new(backend: Arc<dyn Backend>, name: &str) -> Self {
        Self {
            backend,
            kind: format!("projection/{name}"),
        }
    }

    pub(super) async fn read(&self) -> Result<Builds> {
        // Seldom more than one: a writer that was late may have left an older one behind.
        let records = self.backend.read_records(&self.kind, None, 1_000).await?;
        let newest = records.last().map(Builds::from_record);
        newest.unwrap_or_else(|| Ok(Builds::default()))
    }

    /// Replaces a state that was read; `None` if somebody else has meanwhile.
    pub(super) async fn replace(&self, before: &Builds, after: Builds) -> Result<Option<Builds>> {
        let key = |sequence: u64| format!("{sequence:020}");
        let after = Builds {
            sequence: before.sequence + 1,
            ..after
        };
        let mut records = vec![RecordWrite::Insert(Record {
            kind: self.kind.clone(),
            key: key(after.sequence),
            value: after.to_raw(),
        })];
        if before.sequence > 0 {
            records.push(RecordWrite::Delete {
                kind: self.kind.clone(),
                key: key(before.sequence),
            });
        }
        let unit = Unit {
            records,
            ..Unit::default()
        };
        let deadline = Instant::now() + COMMIT_WITHIN;
        match self.backend.commit(&[unit], deadline).await {
            Ok(_) => Ok(Some(after)),
            Err(CommitFailure::Conflict { .. }) => Ok(None),
            Err(failure) => {
                let error = failure.into_error();
                if error.kind() == ErrorKind::CommitUnknown {
                    // Reading again tells.
                    return Ok(None);
                }
                Err(error.context(&self.kind))
            }
        }
    }

    /// Changes the state, however often somebody else is faster; `None` from `change` leaves it.
    pub(super) async fn change(
        &self,
        change: impl Fn(&Builds) -> Result<Option<Builds>>,
    ) -> Result<Builds> {
        loop {
            let before = self.read().await?;
            let Some(after) = change(&before)? else {
                return Ok(before);
            };
            if let Some(after) = self.replace(&before, after).await? {
                return Ok(after);
            }
        }
    }
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledger").field("kind", &self.kind).finish()
    }
}

#[cfg(all(test, feature = "embedded"))]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::storage::embedded::EmbeddedBackend;

    fn ledger() -> Ledger {
        Ledger::new(Arc::new(EmbeddedBackend::in_memory().unwrap()), "totals")
    }

    #[tokio::test]
    async fn of_two_changes_at_once_one_is_refused() {
        let ledger = ledger();
        let empty = ledger.read().await.unwrap();
        assert_eq!(empty, Builds::default());
        let first = empty.started(1).unwrap();
        let first = ledger.replace(&empty, first).await.unwrap().unwrap();
        assert_eq!(first.live, Some(Build::new(1, 0)));
        let late = empty.started(2).unwrap();
        assert_eq!(ledger.replace(&empty, late).await.unwrap(), None);
        assert_eq!(ledger.read().await.unwrap(), first);
        let rebuilt = first.rebuilt(1).unwrap();
        ledger.replace(&first, rebuilt.clone()).await.unwrap();
        assert_eq!(ledger.replace(&first, rebuilt).await.unwrap(), None);
    }

    #[test]
    fn builds_take_each_others_places() {
        let first = Builds::default().started(1).unwrap();
        assert_eq!(first.started(1), None);
        let second = first.started(2).unwrap();
        assert_eq!(
            (second.live, second.building),
            (Some(Build::new(1, 0)), Some(Build::new(2, 0)))
        );
        // A third one does not wait for the second.
        let third = second.started(3).unwrap();
        assert_eq!(third.retired, [Build::new(2, 0)]);
        assert_eq!(third.swapped(Build::new(2, 0)), None);
        let live = third.swapped(Build::new(3, 0)).unwrap();
        assert_eq!(live.live, Some(Build::new(3, 0)));
        assert_eq!(live.retired, [Build::new(2, 0), Build::new(1, 0)]);
        assert_eq!(live.of_version(2).next(), None);
        let again = live.rebuilt(3).unwrap();
        assert_eq!(again.building, Some(Build::new(3, 1)));
        assert!(again.rebuilt(3).is_err());
        assert_eq!(again.with_seal(Build::new(3, 0), true), None);
        let sealed = again.with_seal(Build::new(3, 1), true).unwrap();
        assert_eq!(sealed.of_version(3).collect::<Vec<_>>(), [Build::new(3, 1)]);
        assert_eq!(sealed.with_seal(Build::new(3, 1), false).unwrap(), again);
        let swapped = sealed.swapped(Build::new(3, 1)).unwrap();
        assert!(!swapped.sealed);
        // The number of a build is never used twice while there is something of it.
        assert_eq!(swapped.rebuilt(3).unwrap().building, Some(Build::new(3, 2)));
    }
}
