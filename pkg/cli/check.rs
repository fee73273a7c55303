//! `nodestorage check`: log and documents against what workloads acknowledged.

use std::collections::{HashMap, HashSet};
use std::process::ExitCode;

use bson::RawDocumentBuf;
use futures_util::StreamExt;
use nodestorage::storage::backend::{
    EntryKind, LogEntry, LogRange, TailFrom, TailItem, version_of,
};
use nodestorage::{DocumentId, DocumentKey, Query, Storage, Version};
use serde_json::json;

use crate::Failure;
use crate::acks::{self, Line};
use crate::args::Check;
use crate::output;

/// How many problems are printed one by one.
const SHOWN: u64 = 20;

/// Documents that are read at a time.
const PAGE: usize = 1_000;

/// What is known of one document.
#[derive(Default)]
struct Seen {
    logged: Vec<u64>,
    acknowledged: Vec<u64>,
    /// `n` and the version; `None` without a document.
    stored: Option<(i64, u64)>,
}

#[derive(Default)]
struct Checked {
    documents: HashMap<DocumentId, Seen>,
    /// The names that the workloads gave their updates.
    names: HashSet<String>,
    updates: u64,
    acknowledged: u64,
    lost: u64,
    gaps: u64,
    duplicates: u64,
    problems: u64,
}

pub(crate) async fn run(arguments: Check, json: bool) -> Result<ExitCode, Failure> {
    let mut checked = Checked::default();
    for path in &arguments.acks {
        acks::read(path, |line| checked.acknowledge(line))?;
    }
    let storage = arguments.store.open().await?;
    let read = read(&storage, &arguments, &mut checked).await;
    storage.close().await;
    read?;
    checked.compare(&arguments.collection);
    checked.report(json)
}

async fn read(storage: &Storage, arguments: &Check, checked: &mut Checked) -> Result<(), Failure> {
    let collection = &arguments.collection;
    let mut tail = storage.backend().tail(TailFrom::Beginning);
    while let Some(TailItem::Entry { entry, .. }) = tail.next().await.transpose()? {
        if entry.key.collection() == collection {
            checked.log(&entry);
        }
    }
    let mut query = Query::new().allow_scan().limit(PAGE as u64);
    loop {
        let found = storage
            .find_many::<RawDocumentBuf>(collection, &query)
            .await?;
        let Some(last) = found.last() else { break };
        query = query.after(last.id().clone());
        for stored in &found {
            let n = number(stored, "n")?;
            let version = version_of(stored, &arguments.store.version_field)?;
            let version = version.map_or(0, Version::get);
            checked
                .catch_up(storage, collection, stored.id(), version)
                .await?;
            checked.document(stored.id()).stored = Some((n, version));
        }
    }
    Ok(())
}

fn number(document: &RawDocumentBuf, field: &str) -> Result<i64, Failure> {
    match document.get(field) {
        Ok(Some(bson::RawBsonRef::Int64(n))) => Ok(n),
        Ok(Some(bson::RawBsonRef::Int32(n))) => Ok(n.into()),
        _ => Err(Failure::new(format!(
            "a document has no integer {field:?}: the collection is not one of a workload"
        ))),
    }
}

impl Checked {
    fn document(&mut self, id: &DocumentId) -> &mut Seen {
        self.documents.entry(id.clone()).or_default()
    }

    fn acknowledge(&mut self, line: &Line<'_>) {
        if let Line::Acknowledged { id, version } = line {
            self.acknowledged += 1;
            let id = DocumentId::from(*id);
            self.document(&id).acknowledged.push(version.get());
        }
    }

    fn log(&mut self, entry: &LogEntry) {
        self.updates += 1;
        self.document(entry.key.id())
            .logged
            .push(entry.version.get());
        let at = |what: &str| format!("{} version {} {what}", entry.key, entry.version);
        let is_ours = matches!(entry.kind, EntryKind::Created | EntryKind::Updated);
        match &entry.metadata.correlation {
            Some(name) if is_ours => {
                if !self.names.insert(name.clone()) {
                    self.duplicates += 1;
                    self.problem(&at("is an update that was made before"));
                }
            }
            _ => {
                self.gaps += 1;
                self.problem(&at("was not written by a workload"));
            }
        }
    }

    /// A commit that a killed workload had sent may come into force between the reading of the log and
    /// that of its document.
    async fn catch_up(
        &mut self,
        storage: &Storage,
        collection: &str,
        id: &DocumentId,
        version: u64,
    ) -> Result<(), Failure> {
        let newest = self.document(id).logged.iter().max().copied().unwrap_or(0);
        if version <= newest {
            return Ok(());
        }
        let range = LogRange {
            key: DocumentKey::new(collection, id.clone()),
            from: Version::new(newest + 1),
            to: Version::new(version),
            until: None,
            newest_first: false,
            limit: PAGE,
        };
        for entry in storage.backend().read_log(&range).await? {
            self.log(&entry);
        }
        Ok(())
    }

    fn compare(&mut self, collection: &str) {
        for (id, mut seen) in std::mem::take(&mut self.documents) {
            let name = format!("{collection}/{id}");
            seen.logged.sort_unstable();
            let mut last = 0;
            for &version in &seen.logged {
                if version == last {
                    self.duplicates += 1;
                    self.problem(&format!("{name} version {version} is in the log twice"));
                } else if version != last + 1 {
                    self.gaps += version - last - 1;
                    self.problem(&format!("{name} has no version {} in the log", last + 1));
                }
                last = version;
            }
            seen.acknowledged.sort_unstable();
            let mut last = 0;
            for &version in &seen.acknowledged {
                if version == last {
                    self.lost += 1;
                    self.problem(&format!("{name} version {version} was acknowledged twice"));
                } else if seen.logged.binary_search(&version).is_err() {
                    self.lost += 1;
                    self.problem(&format!(
                        "{name} version {version} was acknowledged and is gone"
                    ));
                }
                last = version;
            }
            self.compare_document(&name, &seen);
        }
    }

    /// The document must count as many updates as the log, and its version with it.
    fn compare_document(&mut self, name: &str, seen: &Seen) {
        let entries = i64::try_from(seen.logged.len()).unwrap_or(i64::MAX);
        let (n, version) = seen.stored.unwrap_or_default();
        if n < entries {
            self.lost += n.abs_diff(entries);
        } else if n > entries {
            self.duplicates += n.abs_diff(entries);
        }
        let newest = seen.logged.last().copied().unwrap_or(0);
        if version != newest {
            self.gaps += version.abs_diff(newest);
        }
        if n != entries || version != newest {
            self.problem(&format!(
                "{name} counts {n} at version {version}, its log has {entries} entries up to {newest}"
            ));
        }
    }

    fn problem(&mut self, text: &str) {
        self.problems += 1;
        if self.problems <= SHOWN {
            eprintln!("{text}");
        }
    }

    fn report(&self, json: bool) -> Result<ExitCode, Failure> {
        let Self {
            updates,
            acknowledged,
            lost,
            gaps,
            duplicates,
            ..
        } = self;
        output::line(&if json {
            json!({
                "updates": updates,
                "acknowledged": acknowledged,
                "lost": lost,
                "gaps": gaps,
                "duplicates": duplicates,
            })
            .to_string()
        } else {
            format!(
                "{updates} updates, {acknowledged} acknowledged, {lost} lost, {gaps} gaps, \
                 {duplicates} duplicates"
            )
        })?;
        Ok(if self.problems == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}
