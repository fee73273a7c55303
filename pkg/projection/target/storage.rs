use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bson::raw::{CStr, cstr};
use bson::spec::BinarySubtype;
use bson::{Binary, RawBsonRef, RawDocument, RawDocumentBuf};
use tokio::sync::OnceCell;

use super::{Build, ProjectionTarget, StoredView, ViewWrite};
use crate::document::{DocumentId, DocumentKey, Version, validate_collection_name};
use crate::error::{BoxError, Error, ErrorKind, Result};
use crate::storage::backend::{Backend, CommitFailure, Condition, DocumentWrite, Unit};
use crate::storage::{CollectionSpec, Index, Query, Storage};

/// The fields that a stored view has beside its own.
const REVISION: &CStr = cstr!("nodestorage_revision");
const MARKS: &CStr = cstr!("nodestorage_marks");

/// Of the marks of a removed view: the second until which they are kept.
const KEEP_UNTIL: &CStr = cstr!("keep_until");

/// Views in one commit: enough to make its cost disappear, few enough that it takes no second.
const CHUNK: usize = 1_000;
const CHUNK_BYTES: usize = 4 << 20;

/// Keys or views that are read at once.
const PAGE: usize = 1_000;

/// How long one commit may take.
const COMMIT_WITHIN: Duration = Duration::from_secs(30);

/// Views as documents of a storage, the one whose log is read or another.
///
/// A build has a collection of its own, `<name>_v<version>`, and `<name>_v<version>_<generation>` after a
/// rebuild; removed views leave their marks in `<collection>.removed` for some minutes. A view is stored as
/// it serializes, with two fields behind its own, `nodestorage_revision` and `nodestorage_marks`. It has no
/// log and raises no events.
///
/// ```
/// use std::sync::Arc;
/// use nodestorage::projection::{ProjectionOptions, StorageTarget};
/// use nodestorage::{Index, Storage};
///
/// # async fn example() -> nodestorage::Result<()> {
/// // Views apart from the documents, in a file of their own.
/// let views = Storage::builder().url("embedded:///var/lib/shop/views").open().await?;
/// let target = StorageTarget::new(&views, "spent_by_customer").with_index(Index::on("cents"));
/// let options = ProjectionOptions::new().with_target(Arc::new(target));
/// # Ok(())
/// # }
/// ```
pub struct StorageTarget {
    storage: Storage,
    name: String,
    indexes: Vec<Index>,
    opened: Mutex<HashMap<Build, Arc<OnceCell<Arc<Place>>>>>,
}

/// The collections of a build.
#[derive(Debug)]
struct Place {
    views: CollectionSpec,
    removed: CollectionSpec,
}

impl StorageTarget {
    /// Views in collections whose names begin with `name`.
    #[must_use]
    pub fn new(storage: &Storage, name: impl Into<String>) -> Self {
        Self {
            storage: storage.clone(),
            name: name.into(),
            indexes: Vec::new(),
            opened: Mutex::default(),
        }
    }

    /// Declares an index on views, for queries.
    #[must_use]
    pub fn with_index(mut self, index: Index) -> Self {
        self.indexes.push(index);
        self
    }

    /// The collection of a build.
    #[must_use]
    pub fn collection(&self, build: Build) -> String {
        match build.generation() {
            0 => format!("{}_v{}", self.name, build.version()),
            generation => format!("{}_v{}_{generation}", self.name, build.version()),
        }
    }

    fn backend(&self) -> &Arc<dyn Backend> {
        self.storage.backend()
    }

    /// Opens the collections on their first use.
    async fn place(&self, build: Build) -> Result<Arc<Place>> {
        let cell = {
            let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(opened.entry(build).or_default())
        };
        let open = || async {
            self.storage.check_open()?;
            let name = self.collection(build);
            let removed = format!("{name}.removed");
            validate_collection_name(&removed)?;
            let revision = REVISION.as_str();
            let mut views = CollectionSpec::new(name).with_version_field(revision);
            views.indexes.clone_from(&self.indexes);
            let removed = CollectionSpec::new(removed)
                .with_version_field(revision)
                .with_index(Index::on(KEEP_UNTIL.as_str()));
            self.backend().open_collection(&views).await?;
            self.backend().open_collection(&removed).await?;
            Ok(Arc::new(Place { views, removed }))
        };
        cell.get_or_try_init(open).await.cloned()
    }

    async fn commit(&self, unit: Unit) -> Result<()> {
        if unit.writes.is_empty() {
            return Ok(());
        }
        let deadline = Instant::now() + COMMIT_WITHIN;
        let committed = self.backend().commit(&[unit], deadline).await;
        committed.map(drop).map_err(|failure| match failure {
            CommitFailure::Conflict { source, .. } => {
                Error::new(ErrorKind::VersionConflict, "a view was written elsewhere")
                    .with_source(source)
            }
            failure => failure.into_error(),
        })
    }

    /// Deletes documents page by page, those of a query without an order.
    async fn delete(&self, collection: &str, query: &Query) -> Result<()> {
        loop {
            let found = self.backend().query(collection, query).await?;
            if found.is_empty() {
                return Ok(());
            }
            let mut unit = Unit::default();
            for document in &found {
                let revision = document.get_i64(REVISION.as_str()).unwrap_or_default();
                unit.writes.push(DocumentWrite {
                    key: DocumentKey::new(collection, id_of(document)?),
                    condition: Condition::Version(Version::new(revision.unsigned_abs())),
                    document: None,
                });
            }
            self.commit(unit).await?;
        }
    }

    async fn find(&self, spec: &CollectionSpec, keys: &[DocumentId]) -> Result<Vec<StoredView>> {
        let mut views = Vec::with_capacity(keys.len());
        for keys in keys.chunks(PAGE) {
            let query = Query::new().is_in("_id", keys.iter().cloned());
            for document in self.backend().query(&spec.name, &query).await? {
                views.push(view_of(&document).map_err(|e| e.context(&spec.name))?);
            }
        }
        Ok(views)
    }
}

#[async_trait]
impl ProjectionTarget for StorageTarget {
    async fn open(&self, build: Build) -> Result<()> {
        self.place(build).await.map(drop)
    }

    async fn load(&self, build: Build, keys: &[DocumentId]) -> Result<Vec<StoredView>> {
        let place = self.place(build).await?;
        let mut found = self.find(&place.views, keys).await?;
        if found.len() < keys.len() {
            let there: Vec<DocumentId> = found.iter().map(|view| view.key.clone()).collect();
            let there: std::collections::HashSet<_> = there.into_iter().collect();
            let missing: Vec<_> = keys.iter().filter(|key| !there.contains(*key)).collect();
            let missing: Vec<_> = missing.into_iter().cloned().collect();
            for mut removed in self.find(&place.removed, &missing).await? {
                removed.document = None;
                found.push(removed);
            }
        }
        Ok(found)
    }

    async fn store(&self, build: Build, writes: &[ViewWrite]) -> Result<()> {
        let place = self.place(build).await?;
        let mut unit = Unit::default();
        let mut bytes = 0;
        for write in writes {
            append(&mut unit.writes, &place, write)?;
            bytes += write
                .view
                .document
                .as_ref()
                .map_or(0, |it| it.as_bytes().len())
                + write.view.marks.len();
            if unit.writes.len() >= CHUNK || bytes >= CHUNK_BYTES {
                self.commit(std::mem::take(&mut unit)).await?;
                bytes = 0;
            }
        }
        self.commit(unit).await
    }

    async fn clear(&self, build: Build) -> Result<()> {
        let place = self.place(build).await?;
        let page = Query::new().limit(PAGE as u64);
        self.delete(&place.views.name, &page).await?;
        self.delete(&place.removed.name, &page).await
    }

    async fn forget(&self, build: Build, before: u32) -> Result<()> {
        let place = self.place(build).await?;
        let old = Query::new()
            .range(KEEP_UNTIL.as_str(), ..i64::from(before))
            .limit(PAGE as u64);
        self.delete(&place.removed.name, &old).await
    }

    async fn query(&self, build: Build, query: &Query) -> Result<Vec<StoredView>> {
        let place = self.place(build).await?;
        query.check(&place.views)?;
        let found = self.backend().query(&place.views.name, query).await?;
        let views = found.iter().map(|document| view_of(document));
        views
            .collect::<Result<_>>()
            .map_err(|e| e.context(&place.views.name))
    }

    async fn count(&self, build: Build, query: &Query) -> Result<u64> {
        let place = self.place(build).await?;
        query.check_count(&place.views)?;
        self.backend().count(&place.views.name, query).await
    }
}

/// The one or two documents that a view's change writes.
fn append(writes: &mut Vec<DocumentWrite>, place: &Place, write: &ViewWrite) -> Result<()> {
    let view = &write.view;
    let before = |is_view: bool| match write.expected {
        Some(revision) if write.replaces_view == is_view => {
            Condition::Version(Version::new(revision))
        }
        _ => Condition::Absent,
    };
    let mut push = |spec: &CollectionSpec, is_view: bool, document: Option<RawDocumentBuf>| {
        let condition = before(is_view);
        if document.is_some() || condition != Condition::Absent {
            writes.push(DocumentWrite {
                key: DocumentKey::new(spec.name.as_str(), view.key.clone()),
                condition,
                document,
            });
        }
    };
    match &view.document {
        Some(document) => {
            push(
                &place.views,
                true,
                Some(stored(view, Some(document), None)?),
            );
            push(&place.removed, false, None);
        }
        None => {
            push(&place.views, true, None);
            let kept = stored(view, None, Some(write.keep_until))?;
            push(&place.removed, false, Some(kept));
        }
    }
    Ok(())
}

/// The stored form: `_id`, the view's own fields, revision and marks.
fn stored(
    view: &StoredView,
    document: Option<&RawDocument>,
    keep_until: Option<u32>,
) -> Result<RawDocumentBuf> {
    view.key.validate()?;
    let mut raw = RawDocumentBuf::new();
    raw.append(cstr!("_id"), view.key.to_raw());
    for field in document.into_iter().flatten() {
        let (key, value) = field.map_err(unreadable)?;
        if ![cstr!("_id"), REVISION, MARKS].contains(&key) {
            raw.append(key, value);
        }
    }
    if let Some(second) = keep_until {
        raw.append(KEEP_UNTIL, i64::from(second));
    }
    raw.append(REVISION, Version::new(view.revision).to_i64());
    raw.append(
        MARKS,
        Binary {
            subtype: BinarySubtype::Generic,
            bytes: view.marks.clone(),
        },
    );
    Ok(raw)
}

fn view_of(document: &RawDocument) -> Result<StoredView> {
    let key = id_of(document)?;
    let mut own = RawDocumentBuf::new();
    let mut revision = None;
    let mut marks = None;
    for field in document {
        let (name, value) = field.map_err(unreadable)?;
        match value {
            RawBsonRef::Int64(number) if name == REVISION => revision = u64::try_from(number).ok(),
            RawBsonRef::Binary(binary) if name == MARKS => marks = Some(binary.bytes.to_vec()),
            value => own.append(name, value),
        }
    }
    match (revision, marks) {
        (Some(revision), Some(marks)) => Ok(StoredView {
            key,
            revision,
            document: Some(own),
            marks,
        }),
        _ => Err(Error::new(
            ErrorKind::Corrupt,
            format!("{key} was not stored by a projection"),
        )),
    }
}

fn id_of(document: &RawDocument) -> Result<DocumentId> {
    let id = document.get("_id").map_err(unreadable)?;
    let id = id.ok_or_else(|| Error::new(ErrorKind::Corrupt, "a view has no _id"))?;
    DocumentId::from_bson(id)
}

fn unreadable(error: impl Into<BoxError>) -> Error {
    Error::new(ErrorKind::Corrupt, "a view does not read back").with_source(error)
}

impl fmt::Debug for StorageTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StorageTarget")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
