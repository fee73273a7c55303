//! Units of the backend contract: one document and its log entry each, as `Storage::update` makes them.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use bson::{DateTime, RawDocument, RawDocumentBuf};
use nodestorage::storage::backend::{
    Backend, Condition, DocumentWrite, EntryKind, LogEntry, LoggedData, LoggedEvent, Position, Unit,
};
use nodestorage::{CollectionSpec, DocumentKey, EventId, Metadata, Patch, Version};
use uuid::Uuid;

use crate::user::{COLLECTION, StoredUser};

/// How many documents are created per commit: enough to make the commit itself not count.
const CREATED_AT_ONCE: usize = 256;

/// Creates the documents `0..count` with a log entry each.
pub(crate) async fn seed(backend: &dyn Backend, count: usize) -> Result<()> {
    backend
        .open_collection(&CollectionSpec::new(COLLECTION))
        .await?;
    let indexes: Vec<usize> = (0..count).collect();
    for part in indexes.chunks(CREATED_AT_ONCE) {
        let stamp = Stamp::new(backend);
        let units: Result<Vec<Unit>> = part
            .iter()
            .map(|index| stamp.creation(&StoredUser::new(*index)))
            .collect();
        commit(backend, &units?)
            .await
            .context("documents to begin with")?;
    }
    Ok(())
}

pub(crate) async fn commit(backend: &dyn Backend, units: &[Unit]) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(30);
    let committed = backend.commit(units, deadline).await;
    committed.map_err(|failure| anyhow!(failure.into_error()))?;
    Ok(())
}

/// What the entries of one commit have in common.
pub(crate) struct Stamp {
    store: Uuid,
    commit: Uuid,
    at: DateTime,
}

impl Stamp {
    pub(crate) fn new(backend: &dyn Backend) -> Self {
        Self {
            store: backend.store_id(),
            commit: Uuid::now_v7(),
            at: DateTime::now(),
        }
    }

    fn creation(&self, user: &StoredUser) -> Result<Unit> {
        let key = DocumentKey::new(COLLECTION, &user.id);
        let document = user.to_raw()?;
        let mut entry = self.entry(key, Version::new(1), EntryKind::Created, "UsersCreated");
        entry.after = Some(document.clone());
        Ok(unit(Condition::Absent, document, entry))
    }

    /// The unit that takes a document from one version to the next.
    pub(crate) fn update(&self, before: &RawDocument, after: &StoredUser) -> Result<Unit> {
        let key = DocumentKey::new(COLLECTION, &after.id);
        let version = Version::new(u64::try_from(after.version)?);
        let document = after.to_raw()?;
        let mut entry = self.entry(key, version, EntryKind::Updated, "UsersUpdated");
        entry.patch = Some(Patch::between(before, &document, &["_id", "version"])?);
        let condition = Condition::Version(Version::new(version.get() - 1));
        Ok(unit(condition, document, entry))
    }

    fn entry(&self, key: DocumentKey, version: Version, kind: EntryKind, event: &str) -> LogEntry {
        let event = LoggedEvent {
            id: EventId::derive(self.store, &key, version, 0),
            event_type: event.to_owned(),
            schema: 1,
            data: LoggedData::Change { merge_patch: None },
        };
        LogEntry {
            key,
            version,
            position: Position::START,
            at: self.at,
            commit: self.commit,
            kind,
            patch: None,
            after: None,
            events: vec![event],
            aggregate_type: COLLECTION.to_owned(),
            version_field: "version".into(),
            metadata: Metadata::default(),
        }
    }
}

fn unit(condition: Condition, document: RawDocumentBuf, entry: LogEntry) -> Unit {
    let write = DocumentWrite {
        key: entry.key.clone(),
        condition,
        document: Some(document),
    };
    Unit {
        writes: vec![write],
        entries: vec![entry],
        ..Unit::default()
    }
}
