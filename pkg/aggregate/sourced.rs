//! Aggregates that are events alone: states by replay from snapshots.

use bson::DateTime;
use bson::raw::cstr;
use bson::{RawDocument, RawDocumentBuf};

use super::fold::Fold;
use super::{Aggregate, Repository};
use crate::document::{DocumentKey, Version};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::backend::{LogRange, Position, Record, RecordWrite};

/// The kind of the records that hold snapshots.
const KIND: &str = "snapshot";

impl<A: Aggregate> Repository<A> {
    /// The state at a version or at a time, whichever is earlier.
    ///
    /// Reads the entries since the nearest multiple of the snapshot interval, and the snapshot there. A
    /// snapshot that is missing or does not read (the interval or the type has changed since) costs
    /// time and nothing else: then all events are replayed.
    pub(super) async fn sourced_at(
        &self,
        key: &DocumentKey,
        to: Version,
        time: Option<DateTime>,
    ) -> Result<Fold<A>> {
        let until = time.map(Position::end_of);
        let interval = self.form.snapshot_every;
        // Where a version is asked for the page can end at its snapshot.
        let limit = match until {
            None if to < Version::MAX => to.get() % interval + 1,
            _ => interval,
        };
        let range = LogRange {
            key: key.clone(),
            from: Version::NONE,
            to: to.min(Version::MAX),
            until,
            newest_first: true,
            limit: usize::try_from(limit).unwrap_or(1),
        };
        let entries = self.storage.backend().read_log(&range).await?;
        let Some(newest) = entries.first().map(|entry| entry.version) else {
            return Ok(Fold::new());
        };
        let base = Version::new(newest.get() - newest.get() % interval);
        let start = match base {
            Version::NONE => Some(Fold::new()),
            base => self.snapshot(key, base).await?,
        };
        let Some(mut fold) = start else {
            return self.fold(key, Fold::new(), newest).await;
        };
        let oldest = entries.last().map_or(newest, |entry| entry.version);
        if oldest > base.next() {
            // The version lies above the newest one, and the page does not reach back to the snapshot.
            return self.fold(key, fold, newest).await;
        }
        for entry in entries.iter().rev() {
            if entry.version > base {
                fold.entry(&self.codec, entry)?;
            }
        }
        Ok(fold)
    }

    async fn snapshot(&self, key: &DocumentKey, version: Version) -> Result<Option<Fold<A>>> {
        let backend = self.storage.backend();
        let Some(record) = backend.read_record(KIND, &place(key, version)).await? else {
            return Ok(None);
        };
        let state = match read(&record.value) {
            Ok(state) => state,
            Err(error) => {
                tracing::warn!(%error, document = %key, "a snapshot does not read, all events are replayed");
                return Ok(None);
            }
        };
        Ok(Some(Fold { version, state }))
    }

    /// The snapshot to be stored with a version, where one is due.
    pub(super) fn snapshot_of(
        &self,
        key: &DocumentKey,
        version: Version,
        state: Option<&A>,
    ) -> Result<Option<RecordWrite>> {
        if !version.get().is_multiple_of(self.form.snapshot_every) {
            return Ok(None);
        }
        let mut value = RawDocumentBuf::new();
        if let Some(state) = state {
            let raw = bson::serialize_to_raw_document_buf(state).map_err(|e| {
                let what = format!("{key} has no form as a document");
                Error::new(ErrorKind::Serialization, what).with_source(e)
            })?;
            value.append(cstr!("state"), raw);
        }
        Ok(Some(RecordWrite::Put(Record {
            kind: KIND.to_owned(),
            key: place(key, version),
            value,
        })))
    }
}

fn place(key: &DocumentKey, version: Version) -> String {
    format!("{key}/{version}")
}

fn read<A: Aggregate>(value: &RawDocument) -> Result<Option<A>> {
    let unread = |e: bson::error::Error| {
        Error::new(ErrorKind::Serialization, "the state does not read").with_source(e)
    };
    let Some(state) = value.get("state").map_err(unread_raw)? else {
        return Ok(None);
    };
    let Some(state) = state.as_document() else {
        return Err(Error::new(ErrorKind::Corrupt, "the state is no document"));
    };
    bson::deserialize_from_slice(state.as_bytes())
        .map(Some)
        .map_err(unread)
}

fn unread_raw(e: bson::error::Error) -> Error {
    Error::new(ErrorKind::Corrupt, "malformed snapshot").with_source(e)
}
