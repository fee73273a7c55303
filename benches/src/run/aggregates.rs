//! Reads of an aggregate with ten thousand versions, beside one with ten.

use std::sync::Arc;

use anyhow::{Result, ensure};
use nodestorage::Storage;
use nodestorage::aggregate::Repository;
use serde_json::json;

use super::{Bench, Outcome, folder};
use crate::contender::{Contender as _, Counted, Tasks, alternate};
use crate::cqrs::account::Account;
use crate::cqrs::counting::Counting;
use crate::cqrs::reading::{Reading, Subject, Tasks as Fillers, What, fill};
use crate::embedded::Store;
use crate::format::time;
use crate::mongo::Database;
use crate::report::{Figures, Round};
use crate::scenario::Plan;

const OURS: &str = "ours";
const LARGE: Subject = Subject {
    id: "large",
    versions: 10_000,
};
const SMALL: Subject = Subject {
    id: "small",
    versions: 10,
};
/// The same as events alone.
const LARGE_EVENTS: Subject = Subject {
    id: "large-events",
    versions: 10_000,
};
const SMALL_EVENTS: Subject = Subject {
    id: "small-events",
    versions: 10,
};
/// What the large one's state is compared with: the middle of the small one.
const SMALL_MIDDLE: u64 = 5;
/// On a snapshot, in the middle between two, and as far from one as there is.
const ON_SNAPSHOT: u64 = 5_000;
const BETWEEN: u64 = 4_950;
const FARTHEST: u64 = 4_999;
/// The most that a state may take.
const MOST_PATCHES: usize = 100;

/// What the two aggregates are compared by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Read {
    Newest,
    Past,
}

/// Whether what has no bar is measured as well: once, and not where somebody only tries it.
fn informs(plan: &Plan, read: Read) -> bool {
    read == Read::Past && !plan.quick
}

/// Both aggregates in both modes, and how to read them.
struct Setup {
    storage: Storage,
    documents: Repository<Account>,
    events: Repository<Account>,
}

impl Setup {
    async fn new(storage: Storage, plan: &Plan, read: Read) -> Result<Self> {
        let documents = Repository::new(&storage);
        let events = Repository::new(&storage).event_sourced();
        for subject in [SMALL, LARGE] {
            fill(&documents, subject, Fillers::Many).await?;
        }
        if informs(plan, read) {
            for subject in [SMALL_EVENTS, LARGE_EVENTS] {
                fill(&events, subject, Fillers::One).await?;
            }
        }
        Ok(Self {
            storage,
            documents,
            events,
        })
    }

    fn reading(&self, subject: Subject, what: What) -> Reading {
        let is_events = subject.id == LARGE_EVENTS.id || subject.id == SMALL_EVENTS.id;
        let repository = if is_events {
            &self.events
        } else {
            &self.documents
        };
        Reading {
            repository: repository.clone(),
            subject,
            what,
        }
    }

    async fn measure(&self, plan: &Plan, read: Read) -> Result<Vec<Round>> {
        let (theirs, ours) = match read {
            Read::Newest => (What::Newest, What::Newest),
            Read::Past => (What::At(SMALL_MIDDLE), What::At(ON_SNAPSHOT)),
        };
        let theirs = Tasks::new(self.reading(SMALL, theirs), 1);
        let ours = Tasks::new(self.reading(LARGE, ours), 1);
        let mut rounds = alternate(Counted::theirs(theirs), Counted::ours(ours), plan).await?;
        if informs(plan, read) {
            for (number, round) in rounds.iter_mut().enumerate() {
                self.inform(plan, number + 1, round).await?;
            }
        }
        if let Some(last) = rounds.last_mut() {
            last.notes.push(self.count(read).await?);
        }
        Ok(rounds)
    }

    /// Measures what has no bar.
    async fn inform(&self, plan: &Plan, number: usize, round: &mut Round) -> Result<()> {
        for (name, subject, what) in [
            ("at 4,950", LARGE, What::At(BETWEEN)),
            ("at 4,999", LARGE, What::At(FARTHEST)),
            ("events alone, newest of 10", SMALL_EVENTS, What::Newest),
            ("events alone, newest of 10,000", LARGE_EVENTS, What::Newest),
            (
                "events alone, at 5 of 10",
                SMALL_EVENTS,
                What::At(SMALL_MIDDLE),
            ),
            (
                "events alone, at 5,000",
                LARGE_EVENTS,
                What::At(ON_SNAPSHOT),
            ),
            ("events alone, at 4,950", LARGE_EVENTS, What::At(BETWEEN)),
        ] {
            let tasks = Tasks::new(self.reading(subject, what), 1);
            let sample = tasks.run(plan.length, number).await?;
            tasks.check(0).await?;
            let figures = Figures::of(&sample);
            eprintln!("  {name}, round {number}: median {}", time(figures.p50_us));
            round.groups.insert(name.to_owned(), figures);
        }
        Ok(())
    }

    /// Counts the log entries that each read takes, and fails where they are too many.
    async fn count(&self, read: Read) -> Result<String> {
        let backend = Counting::new(self.storage.backend());
        let shared = Arc::clone(&backend);
        let storage = Storage::builder().shared_backend(shared).open().await?;
        let reads: &[What] = match read {
            Read::Newest => &[What::Newest],
            Read::Past => &[What::At(ON_SNAPSHOT), What::At(BETWEEN), What::At(FARTHEST)],
        };
        let mut counted = Vec::new();
        for what in reads {
            let reading = Reading {
                repository: Repository::new(&storage),
                subject: LARGE,
                what: *what,
            };
            backend.take();
            reading.read().await?;
            let entries = backend.take();
            // The first one holds the whole document, the others a patch each.
            let patches = entries.saturating_sub(1);
            ensure!(
                patches <= MOST_PATCHES,
                "{what:?} takes {patches} patches, {MOST_PATCHES} at most are allowed"
            );
            counted.push(match what {
                What::Newest => format!("{entries} for the newest"),
                What::At(version) => format!("{entries} for version {version}"),
            });
        }
        storage.close().await;
        Ok(format!("log entries read: {}", counted.join(", ")))
    }
}

fn outcome(rounds: Vec<Round>, read: Read) -> Outcome {
    let (theirs, ours) = match read {
        Read::Newest => ("Repository::find", "Repository::find"),
        Read::Past => ("Repository::load_at(5)", "Repository::load_at(5000)"),
    };
    Outcome {
        rounds,
        sides: json!({
            "aggregate": "an account of about 500 bytes; a deposit per version; snapshots every 100 versions",
            "theirs": format!("{theirs} of one with {} versions", SMALL.versions),
            "ours": format!("{ours} of one with {} versions", LARGE.versions),
            "tasks": 1,
        }),
    }
}

impl Bench {
    pub(super) async fn aggregate_on_mongodb(&self, plan: &Plan, read: Read) -> Result<Outcome> {
        let database = Database::empty(self.server().await?, OURS, 1).await?;
        let storage = Storage::builder().url(&database.url).open().await?;
        let setup = Setup::new(storage.clone(), plan, read).await?;
        let rounds = setup.measure(plan, read).await?;
        storage.close().await;
        database.drop().await?;
        Ok(outcome(rounds, read))
    }
}

pub(super) async fn aggregate_on_embedded(plan: &Plan, read: Read) -> Result<Outcome> {
    let (_folder, path) = folder()?;
    let store = Store::create(&path("ours.redb"), 0).await?;
    let storage = store.storage().await?;
    let setup = Setup::new(storage.clone(), plan, read).await?;
    let rounds = setup.measure(plan, read).await?;
    storage.close().await;
    store.close().await;
    Ok(outcome(rounds, read))
}
