//! `nodestorage import`: each line an update.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::process::ExitCode;
use std::time::Instant;

use bson::RawDocumentBuf;
use indicatif::ProgressBar;
use nodestorage::{
    ChangeKind, DocumentId, Error, ErrorKind, Metadata, Storage, UpdateContext, UpdateOptions,
    Version,
};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::Failure;
use crate::args::Import;
use crate::input::{Format, Line, Lines};
use crate::{output, verify};

/// Lines that wait for a writer; a bound on memory.
const QUEUE: usize = 64;

/// What an import has done so far.
#[derive(Debug, Default)]
pub(crate) struct Imported {
    pub(crate) lines: u64,
    pub(crate) versions: u64,
    /// The first version that the import made of each document.
    pub(crate) first: HashMap<DocumentId, Version>,
}

impl Imported {
    fn add(&mut self, other: Self) {
        self.lines += other.lines;
        self.versions += other.versions;
        self.first.extend(other.first);
    }
}

pub(crate) async fn run(arguments: Import, json: bool) -> Result<ExitCode, Failure> {
    let storage = arguments.store.open().await?;
    let result = import_and_verify(&storage, &arguments, json).await;
    storage.close().await;
    result
}

async fn import_and_verify(
    storage: &Storage,
    arguments: &Import,
    json: bool,
) -> Result<ExitCode, Failure> {
    let format = Format {
        history: arguments.history,
        key: arguments.key.clone(),
        version_field: arguments.store.version_field.clone(),
    };
    let started = Instant::now();
    let lines = Lines::open(&arguments.file, format.clone())?;
    let bar = output::progress("imported", json);
    let imported = import(storage, arguments, lines, &bar).await?;
    bar.finish_and_clear();
    let seconds = started.elapsed().as_secs_f64();
    if json {
        output::line(
            &json!({
                "imported_lines": imported.lines,
                "versions": imported.versions,
                "documents": imported.first.len(),
                "seconds": seconds,
            })
            .to_string(),
        )?;
    } else {
        output::line(&format!(
            "imported {} lines as {} versions of {} documents in {seconds:.1} s",
            imported.lines,
            imported.versions,
            imported.first.len(),
        ))?;
    }
    if !arguments.verify {
        return Ok(ExitCode::SUCCESS);
    }
    let lines = Lines::open(&arguments.file, format)?;
    verify::run(storage, &arguments.collection, lines, &imported, json).await
}

/// Feeds the lines to writers, each document always to the same one, so that its lines stay in order.
async fn import(
    storage: &Storage,
    arguments: &Import,
    lines: Lines,
    bar: &ProgressBar,
) -> Result<Imported, Failure> {
    let mut writers = JoinSet::new();
    let mut queues = Vec::new();
    for _ in 0..arguments.parallel {
        let (queue, lines) = mpsc::channel(QUEUE);
        queues.push(queue);
        let collection = arguments.collection.clone();
        writers.spawn(write(storage.clone(), collection, lines, bar.clone()));
    }
    // Reading and decompressing block; they have a thread of their own.
    let reading = tokio::task::spawn_blocking(move || feed(lines, &queues));
    let mut imported = Imported::default();
    let mut failed = None;
    while let Some(ended) = writers.join_next().await {
        let (part, result) =
            ended.map_err(|e| Failure::new(format!("a writer ended unexpectedly: {e}")))?;
        imported.add(part);
        failed = failed.or(result.err());
    }
    let read = reading
        .await
        .map_err(|e| Failure::new(format!("reading ended unexpectedly: {e}")))?;
    match failed.or(read.err()) {
        Some(failure) => Err(failure.after(format_args!(
            "{} lines were imported before",
            imported.lines
        ))),
        None => Ok(imported),
    }
}

fn feed(mut lines: Lines, queues: &[mpsc::Sender<Line>]) -> Result<(), Failure> {
    while let Some(line) = lines.next()? {
        let mut hasher = DefaultHasher::new();
        line.id.hash(&mut hasher);
        let writer = hasher.finish() % queues.len() as u64;
        if queues[writer as usize].blocking_send(line).is_err() {
            // The writer has failed and says why itself.
            return Ok(());
        }
    }
    Ok(())
}

async fn write(
    storage: Storage,
    collection: String,
    mut lines: mpsc::Receiver<Line>,
    bar: ProgressBar,
) -> (Imported, Result<(), Failure>) {
    let mut imported = Imported::default();
    while let Some(line) = lines.recv().await {
        let (number, id) = (line.number, line.id.clone());
        match write_line(&storage, &collection, line).await {
            Ok((kind, version)) => {
                bar.inc(1);
                imported.lines += 1;
                if kind != ChangeKind::Unchanged {
                    imported.versions += 1;
                    imported.first.entry(id).or_insert(version);
                }
            }
            Err(error) => {
                let failure = Failure::from(error.context(format_args!("line {number}")));
                return (imported, Err(failure));
            }
        }
    }
    (imported, Ok(()))
}

async fn write_line(
    storage: &Storage,
    collection: &str,
    line: Line,
) -> nodestorage::Result<(ChangeKind, Version)> {
    let mut metadata = Metadata::new();
    if let Some(at) = line.at {
        metadata = metadata.with_extra("at", at);
    }
    // The line is the document: nothing of the stored one is kept, and key order counts.
    let options = UpdateOptions::new()
        .with_metadata(metadata)
        .with_whole_document();
    match line.document {
        Some(document) => {
            // Raw, because typed BSON takes keys such as `$date` for Extended JSON.
            let document = RawDocumentBuf::try_from(document).map_err(|e| {
                Error::new(ErrorKind::Serialization, "the document has no BSON form").with_source(e)
            })?;
            let whole = move |_: Option<RawDocumentBuf>, _: &mut UpdateContext| document.clone();
            let change = storage
                .update_with(collection, line.id, options, whole)
                .await?;
            Ok((change.kind(), change.version()))
        }
        None => {
            let change = storage.delete_with(collection, line.id, options).await?;
            Ok((change.kind(), change.version()))
        }
    }
}
