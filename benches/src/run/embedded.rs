//! The comparisons on the embedded store: no server, a file on disk.

use anyhow::Result;
use serde_json::{Value, json};

use super::{DOCUMENTS, Outcome, folder};
use crate::contender::{Contender, Counted, Tasks, alternate, best_of};
use crate::embedded::Store;
use crate::embedded::batches::{BATCH, Batches};
use crate::embedded::sqlite::{SETTINGS, Sqlite};
use crate::ours::{Choice, Ours};
use crate::scenario::Plan;

const TASKS: usize = 64;
/// How many workers the full batches are tried with: one, and two, of which one prepares while the other
/// commits. With more, batches would wait for the writer together and share its next transaction, which would
/// then hold more updates than 64 callers can have under way.
const WORKERS: [usize; 2] = [1, 2];

pub(super) async fn against_batches(plan: &Plan) -> Result<Outcome> {
    let (_folder, path) = folder()?;
    let store = Store::create(&path("theirs.redb"), DOCUMENTS).await?;
    let with = |workers| Tasks::new(Batches::new(store.clone(), workers), workers);
    let best = best_of(&WORKERS, plan.length, with).await?;
    let theirs = Counted::theirs(with(best.workers)).having(best.acknowledged);
    let settings = json!({
        "call": "Backend::load and Backend::commit with 64 units, each a document and its log entry",
        "batch": BATCH,
        "workers_tried": best.tried,
        "workers": best.workers,
    });
    let outcome = compare(plan, &path("ours.redb"), theirs, settings).await;
    store.close().await;
    outcome
}

pub(super) async fn against_sqlite(plan: &Plan) -> Result<Outcome> {
    let (_folder, path) = folder()?;
    let sqlite = Sqlite::create(&path("theirs.sqlite"), DOCUMENTS)?;
    let settings: Vec<String> = SETTINGS
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let settings = json!({
        "call": "BEGIN IMMEDIATE, SELECT, UPDATE with version, INSERT into the log, COMMIT; the document as JSON",
        "tasks": TASKS,
        "connections": "one, on a thread of its own",
        "pragmas": settings,
    });
    let theirs = Counted::theirs(Tasks::new(sqlite, TASKS));
    compare(plan, &path("ours.redb"), theirs, settings).await
}

async fn compare<T: Contender>(
    plan: &Plan,
    path: &std::path::Path,
    theirs: Counted<T>,
    their_settings: Value,
) -> Result<Outcome> {
    let store = Store::create(path, DOCUMENTS).await?;
    let storage = store.storage().await?;
    let ours = Ours {
        storage: storage.clone(),
        choice: Choice::any_of(DOCUMENTS),
        store: store.clone(),
    };
    let rounds = alternate(theirs, Counted::ours(Tasks::new(ours, TASKS)), plan).await?;
    storage.close().await;
    Ok(Outcome {
        rounds,
        sides: json!({
            "documents": DOCUMENTS,
            "ours": super::mongo::our_settings(TASKS),
            "theirs": their_settings,
        }),
    })
}
