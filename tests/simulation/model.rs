//! A store in memory that takes its time and fails as it likes, all of it by a seed.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bson::RawDocumentBuf;
use futures_core::stream::BoxStream;
use futures_util::{StreamExt, stream};
use nodestorage::storage::backend::{
    Backend, Capabilities, CommitFailure, CommitReceipt, Cursor, Fence, Lease, LeaseRequest,
    Loaded, LogEntry, LogRange, PartialCommit, Record, TailFrom, TailItem, Unit,
};
use nodestorage::{CollectionSpec, DocumentKey, Error, ErrorKind, Query, Result};
use uuid::Uuid;

use crate::chance::{Chance, pass};
use crate::coverage::count;
use crate::world::World;

/// How often in a thousand calls something goes wrong, and how long calls take.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Rates {
    pub(crate) load: u64,
    /// Loading more than one document fails for no outage.
    pub(crate) spoilt: u64,
    pub(crate) conflict: u64,
    pub(crate) failed: u64,
    pub(crate) unwritten: u64,
    pub(crate) written: u64,
    pub(crate) panics: u64,
    /// How often a conflict names its units.
    pub(crate) named: u64,
    /// How often the other units are committed where they may be.
    pub(crate) in_part: u64,
    pub(crate) longest_ms: u64,
}

#[derive(Debug)]
pub(crate) struct Model {
    world: Mutex<World>,
    chance: Mutex<Chance>,
    rates: Mutex<Rates>,
    /// Documents of the commits under way, which must not meet.
    flying: Mutex<Vec<BTreeSet<DocumentKey>>>,
    most_flying: usize,
    /// What went against the contract.
    pub(crate) offences: Mutex<VecDeque<String>>,
}

impl Model {
    pub(crate) fn new(chance: Chance, rates: Rates, most_flying: usize) -> Arc<Self> {
        Arc::new(Self {
            world: Mutex::default(),
            chance: Mutex::new(chance),
            rates: Mutex::new(rates),
            flying: Mutex::default(),
            most_flying,
            offences: Mutex::default(),
        })
    }

    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    /// From now on nothing goes wrong.
    pub(crate) fn calm(&self) {
        let longest_ms = self.rates().longest_ms;
        *self.rates.lock().unwrap() = Rates {
            longest_ms,
            named: 1_000,
            ..Rates::default()
        };
    }

    fn rates(&self) -> Rates {
        *self.rates.lock().unwrap()
    }

    fn happens(&self, rate: u64, what: &'static str) -> bool {
        let happens = self.chance.lock().unwrap().permille(rate);
        if happens {
            count(what);
        }
        happens
    }

    fn pause(&self) -> Duration {
        let longest_ms = self.rates().longest_ms;
        self.chance.lock().unwrap().pause(longest_ms)
    }

    fn offence(&self, what: String) {
        self.offences.lock().unwrap().push_back(what);
    }

    fn take_off(&self, units: &[Unit]) -> Landing<'_> {
        let mut keys = BTreeSet::new();
        for unit in units {
            let mut own = BTreeSet::new();
            own.extend(unit.writes.iter().map(|write| write.key.clone()));
            own.extend(unit.entries.iter().map(|entry| entry.key.clone()));
            own.extend(unit.checks.iter().map(|(key, _)| key.clone()));
            for key in own {
                if !keys.insert(key.clone()) {
                    self.offence(format!("two units of one commit touch {key}"));
                }
            }
        }
        let mut flying = self.flying.lock().unwrap();
        for other in flying.iter() {
            if let Some(key) = other.intersection(&keys).next() {
                self.offence(format!("two commits at once touch {key}"));
            }
        }
        flying.push(keys.clone());
        if flying.len() > self.most_flying {
            self.offence(format!("{} commits at once", flying.len()));
        }
        Landing(self, keys)
    }

    async fn commit_units(
        &self,
        units: &[Unit],
        in_part: bool,
    ) -> Result<PartialCommit, CommitFailure> {
        count("commit");
        let landing = self.take_off(units);
        pass(self.pause()).await;
        let result = self.write(units, in_part).await;
        pass(self.pause()).await;
        drop(landing);
        result
    }

    async fn write(&self, units: &[Unit], in_part: bool) -> Result<PartialCommit, CommitFailure> {
        let rates = self.rates();
        if self.happens(rates.failed, "commit failed") {
            return Err(CommitFailure::Failed(injected(ErrorKind::Unavailable)));
        }
        if self.happens(rates.unwritten, "unknown, unwritten") {
            return Err(CommitFailure::Unknown(injected(ErrorKind::CommitUnknown)));
        }
        if self.happens(rates.conflict, "conflict over nothing") {
            return Err(conflict(Vec::new()));
        }
        assert!(
            !self.happens(rates.panics, "panic in a commit"),
            "{INJECTED}"
        );
        let mut world = self.world();
        let lost = |(index, unit)| (!world.admits(unit)).then_some(index);
        let lost: Vec<usize> = units.iter().enumerate().filter_map(lost).collect();
        let some_hold = in_part && lost.len() < units.len();
        let go_on =
            some_hold && !lost.is_empty() && self.happens(rates.in_part, "committed in part");
        if !lost.is_empty() && !go_on {
            let is_named = self.happens(rates.named, "conflict with suspects");
            if !is_named {
                count("conflict without suspects");
            }
            return Err(conflict(if is_named { lost } else { Vec::new() }));
        }
        let is_held = |unit: &usize| !lost.contains(unit);
        let held = (0..units.len()).filter(is_held);
        if let Some(unit) = held.clone().find(|unit| is_poisoned(&units[*unit])) {
            count("refused");
            let error = injected(ErrorKind::Constraint);
            return Err(CommitFailure::Refused { unit, error });
        }
        let held: Vec<_> = held.map(|unit| units[unit].clone()).collect();
        world.apply(&held);
        let position = world.position();
        drop(world);
        if self.happens(rates.written, "unknown, written") {
            return Err(CommitFailure::Unknown(injected(ErrorKind::CommitUnknown)));
        }
        Ok(PartialCommit { position, lost })
    }
}

/// The commit is over, however it ended.
struct Landing<'a>(&'a Model, BTreeSet<DocumentKey>);

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        let mut flying = self.0.flying.lock().unwrap();
        let at = flying.iter().position(|keys| *keys == self.1);
        flying.remove(at.expect("what takes off lands once"));
    }
}

/// What the panics say that are part of the game.
pub(crate) const INJECTED: &str = "part of the game";

fn injected(kind: ErrorKind) -> Error {
    Error::new(kind, INJECTED)
}

fn conflict(suspects: Vec<usize>) -> CommitFailure {
    let source = injected(ErrorKind::VersionConflict);
    CommitFailure::Conflict { suspects, source }
}

/// What stands for a unique index or a validator.
fn is_poisoned(unit: &Unit) -> bool {
    let mut documents = unit
        .writes
        .iter()
        .filter_map(|write| write.document.as_ref());
    documents.any(|document| document.get_bool("poison").unwrap_or(false))
}

#[async_trait]
impl Backend for Model {
    fn capabilities(&self) -> Capabilities {
        Capabilities::new(16 << 20, 16 << 20)
    }

    fn store_id(&self) -> Uuid {
        Uuid::from_u128(7)
    }

    async fn open_collection(&self, _: &CollectionSpec) -> Result<()> {
        pass(self.pause()).await;
        Ok(())
    }

    async fn load(&self, keys: &[DocumentKey]) -> Result<Vec<Loaded>> {
        pass(self.pause()).await;
        let rates = self.rates();
        if self.happens(rates.load, "load failed") {
            return Err(injected(ErrorKind::Unavailable));
        }
        if keys.len() > 1 && self.happens(rates.spoilt, "load spoilt") {
            return Err(injected(ErrorKind::Corrupt));
        }
        assert!(!self.happens(rates.panics, "panic in a load"), "{INJECTED}");
        let loaded = {
            let world = self.world();
            let of = |key| Loaded {
                document: world.document(key).cloned(),
                head: world.head(key),
            };
            keys.iter().map(of).collect()
        };
        // What was read may be old when it arrives.
        pass(self.pause()).await;
        Ok(loaded)
    }

    async fn commit(
        &self,
        units: &[Unit],
        _: Instant,
    ) -> std::result::Result<CommitReceipt, CommitFailure> {
        let PartialCommit { position, .. } = self.commit_units(units, false).await?;
        Ok(CommitReceipt { position })
    }

    async fn commit_what_holds(
        &self,
        units: &[Unit],
        _: Instant,
    ) -> std::result::Result<PartialCommit, CommitFailure> {
        self.commit_units(units, true).await
    }

    async fn read_log(&self, range: &LogRange) -> Result<Vec<LogEntry>> {
        let world = self.world();
        let within = |entry: &&LogEntry| {
            range.from <= entry.version
                && entry.version <= range.to
                && range.until.is_none_or(|until| entry.position <= until)
        };
        let entries = world.log(&range.key).filter(within);
        Ok(match range.newest_first {
            true => entries.rev().take(range.limit).cloned().collect(),
            false => entries.take(range.limit).cloned().collect(),
        })
    }

    fn tail(&self, _: TailFrom) -> BoxStream<'static, Result<TailItem>> {
        stream::once(async { Err(injected(ErrorKind::Unsupported)) }).boxed()
    }

    async fn query(&self, _: &str, _: &Query) -> Result<Vec<RawDocumentBuf>> {
        Err(injected(ErrorKind::Unsupported))
    }

    async fn acquire_lease(&self, _: &LeaseRequest) -> Result<Lease> {
        Err(injected(ErrorKind::Unsupported))
    }

    async fn save_checkpoint(&self, _: &Fence, _: &Cursor, _: Duration) -> Result<()> {
        Err(injected(ErrorKind::Unsupported))
    }

    async fn release_lease(&self, _: &Fence) -> Result<()> {
        Err(injected(ErrorKind::Unsupported))
    }

    async fn read_records(&self, _: &str, _: Option<&str>, _: usize) -> Result<Vec<Record>> {
        Err(injected(ErrorKind::Unsupported))
    }

    async fn read_record(&self, _: &str, _: &str) -> Result<Option<Record>> {
        Err(injected(ErrorKind::Unsupported))
    }

    async fn close(&self) {}
}
