//! Every document once: the deleted ones by way of the log, the others by way of their collections.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use bson::RawBsonRef;
use futures_util::StreamExt;

use super::examine::examine;
use super::report::{DoctorReport, Finding, Problem};
use crate::document::{DocumentId, DocumentKey, Version, validate_collection_name};
use crate::error::Result;
use crate::history::pages::{FIRST_PAGE, next_limit};
use crate::storage::backend::{Backend, Loaded, TailFrom, TailItem};
use crate::storage::{Page, Query, Storage};

/// The walk of one `doctor` call.
pub(super) struct Walk<'a> {
    storage: &'a Storage,
    only: Option<&'a str>,
    report: DoctorReport,
    /// The collections with log entries. Their number is small, that of the documents is not.
    logged: BTreeSet<Arc<str>>,
    limit: usize,
}

impl<'a> Walk<'a> {
    pub(super) fn new(storage: &'a Storage, only: Option<&'a str>) -> Self {
        Self {
            storage,
            only,
            report: DoctorReport::default(),
            logged: BTreeSet::new(),
            limit: FIRST_PAGE,
        }
    }

    pub(super) async fn run(mut self) -> Result<DoctorReport> {
        // The log first: it tells which collections there are.
        self.walk_log().await?;
        let mut collections: BTreeSet<Arc<str>> = std::mem::take(&mut self.logged);
        collections.extend(self.storage.declared_collections().map(Arc::from));
        if let Some(only) = self.only {
            collections = BTreeSet::from([Arc::from(only)]);
        }
        for name in collections {
            // Streams have log entries and no documents.
            if validate_collection_name(&name).is_ok() {
                self.walk_collection(&name).await?;
            }
        }
        Ok(self.report)
    }

    fn backend(&self) -> &'a Arc<dyn Backend> {
        self.storage.backend()
    }

    /// Examines the keys that have log entries and no document.
    async fn walk_log(&mut self) -> Result<()> {
        let mut tail = self.backend().tail(TailFrom::Beginning);
        let mut newest: HashMap<DocumentKey, Version> = HashMap::new();
        while let Some(item) = tail.next().await.transpose()? {
            let TailItem::Entry { entry, .. } = item else {
                break;
            };
            let key = entry.key;
            if self.only.is_some_and(|only| only != key.collection()) {
                continue;
            }
            if !self.logged.contains(key.collection()) {
                self.logged.insert(key.collection().into());
            }
            newest.insert(key, entry.version);
            if newest.len() >= self.limit {
                self.examine_absent(&mut newest).await?;
            }
        }
        self.examine_absent(&mut newest).await
    }

    async fn examine_absent(&mut self, newest: &mut HashMap<DocumentKey, Version>) -> Result<()> {
        let (keys, versions): (Vec<_>, Vec<_>) = newest.drain().unzip();
        let loaded = self.load(&keys).await?;
        for ((key, version), loaded) in keys.iter().zip(versions).zip(loaded) {
            // Each key has one newest entry, so that it is examined once, however long its log.
            let is_newest = loaded.head.is_some_and(|head| head.version == version);
            if loaded.document.is_none() && is_newest {
                examine(self.backend(), key, loaded, "", &mut self.report).await?;
            }
        }
        Ok(())
    }

    async fn load(&mut self, keys: &[DocumentKey]) -> Result<Vec<Loaded>> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let loaded = self.backend().load(keys).await?;
        let documents = loaded.iter().filter_map(|loaded| loaded.document.as_ref());
        let bytes = documents.map(|document| document.as_bytes().len()).sum();
        self.limit = next_limit(self.limit, keys.len(), bytes);
        Ok(loaded)
    }

    /// Examines the documents of a collection.
    async fn walk_collection(&mut self, name: &str) -> Result<()> {
        let spec = self.storage.open_collection(name).await?;
        let mut seen: u64 = 0;
        let mut page = Page::First;
        loop {
            let mut query = Query::new().allow_scan().limit(self.limit as u64);
            query.page = page;
            let found = self.backend().query(name, &query).await?;
            if found.is_empty() {
                return Ok(());
            }
            let mut keys = Vec::with_capacity(found.len());
            let mut last = None;
            for document in &found {
                let id = document.get("_id").ok().flatten();
                let id = id.unwrap_or(RawBsonRef::Null);
                last = DocumentId::from_bson(id).ok();
                if let Some(id) = &last {
                    keys.push(DocumentKey::new(name, id));
                } else {
                    // What it is may be long, and a document's content; its type will do.
                    let key = DocumentKey::new(name, format!("<{:?}>", id.element_type()));
                    self.report.documents += 1;
                    self.report
                        .add(Finding::new(&key, None, Problem::UnusableId));
                }
            }
            seen += found.len() as u64;
            drop(found);
            for (key, loaded) in keys.iter().zip(self.load(&keys).await?) {
                // One that was deleted since had its turn in the log, or is in use.
                if loaded.document.is_some() {
                    let backend = self.backend();
                    examine(backend, key, loaded, &spec.version_field, &mut self.report).await?;
                }
            }
            // There is no going on after an id that is none, other than by counting.
            page = last.map_or(Page::Skip(seen), Page::After);
        }
    }
}
