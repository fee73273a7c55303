//! The open database: who may use it, and opening it anew after a failure.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use redb::{Database, ReadTransaction, ReadableDatabase};
use tokio::sync::watch;
use uuid::Uuid;

use super::catalog::Collection;
use super::failure::{closed, guarded, translate};
use super::tables::State;
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};

/// Opens the database that belongs to a store, again and again.
pub(super) type Opener = Box<dyn Fn() -> Result<Database> + Send + Sync>;

/// What the writer and all readers share.
pub(super) struct Store {
    slot: RwLock<Slot>,
    /// `None` when the data would be gone with the database, as in memory.
    opener: Option<Opener>,
    /// Collections opened in this process, by name.
    pub(super) catalog: RwLock<HashMap<String, Arc<Collection>>>,
    pub(super) id: Uuid,
    pub(super) clock: Arc<dyn Clock>,
    /// Whether commits reach a disk.
    pub(super) durable: bool,
    /// The newest committed position; wakes those who follow the log.
    pub(super) tip: watch::Sender<u64>,
}

/// The database, and how often it was opened.
enum Slot {
    Open(Box<Database>, u64),
    /// Opening it anew after a failure failed as well, for this reason.
    Broken(ErrorKind, String, u64),
    Closed,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("id", &self.id)
            .field("durable", &self.durable)
            .finish_non_exhaustive()
    }
}

/// The right to use the database: as long as it lives, nobody closes or reopens it.
pub(super) struct Held<'s>(RwLockReadGuard<'s, Slot>);

impl Held<'_> {
    pub(super) fn database(&self) -> Result<&Database> {
        match &*self.0 {
            Slot::Open(database, _) => Ok(database),
            Slot::Broken(kind, why, _) => Err(Error::new(*kind, why.clone())),
            Slot::Closed => Err(closed()),
        }
    }

    fn generation(&self) -> u64 {
        match &*self.0 {
            Slot::Open(_, generation) | Slot::Broken(_, _, generation) => *generation,
            Slot::Closed => 0,
        }
    }
}

impl Store {
    pub(super) fn new(
        database: Database,
        id: Uuid,
        clock: Arc<dyn Clock>,
        opener: Option<Opener>,
        durable: bool,
    ) -> Result<Self> {
        let state = State::of(&database)?;
        Ok(Self {
            slot: RwLock::new(Slot::Open(Box::new(database), 1)),
            opener,
            catalog: RwLock::default(),
            id,
            clock,
            durable,
            tip: watch::Sender::new(state.last),
        })
    }

    pub(super) fn hold(&self) -> Held<'_> {
        Held(self.slot.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn slot(&self) -> RwLockWriteGuard<'_, Slot> {
        self.slot.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads in one snapshot, which commits do not disturb and which disturbs no commit.
    pub(super) fn read<T>(&self, see: impl FnOnce(&ReadTransaction) -> Result<T>) -> Result<T> {
        let (result, generation) = {
            let held = self.hold();
            let result = guarded(|| {
                let transaction = held.database()?.begin_read().map_err(translate)?;
                see(&transaction)
            });
            (result, held.generation())
        };
        if let Err(error) = &result
            && error.kind() == ErrorKind::Unavailable
        {
            // After one failed read the database refuses all others until it is opened anew.
            let _ = self.reopen(generation);
        }
        result
    }

    /// The collection as it was opened in this process.
    pub(super) fn collection(&self, name: &str) -> Option<Arc<Collection>> {
        self.catalog
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(name)
            .cloned()
    }

    pub(super) fn add_collection(&self, collection: Arc<Collection>) {
        self.catalog
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(collection.name.clone(), collection);
    }

    /// How often the database was opened.
    pub(super) fn generation(&self) -> u64 {
        self.hold().generation()
    }

    /// Opens the database anew, unless that was done since `generation`. The caller has no
    /// transaction open.
    pub(super) fn reopen(&self, generation: u64) -> Result<()> {
        let Some(opener) = &self.opener else {
            return Ok(());
        };
        let mut slot = self.slot();
        match &*slot {
            Slot::Closed => return Err(closed()),
            Slot::Open(_, now) | Slot::Broken(_, _, now) if *now != generation => return Ok(()),
            _ => {}
        }
        // The old database must let go of the file before the new one takes it.
        let old = std::mem::replace(&mut *slot, Slot::Closed);
        let _ = guarded(|| {
            drop(old);
            Ok(())
        });
        match guarded(opener) {
            Ok(database) => {
                *slot = Slot::Open(Box::new(database), generation + 1);
                Ok(())
            }
            Err(error) => {
                *slot = Slot::Broken(error.kind(), error.to_string(), generation + 1);
                Err(error)
            }
        }
    }

    /// Whether the last attempt to open the database failed; then every commit tries again first.
    pub(super) fn is_broken(&self) -> bool {
        matches!(*self.hold().0, Slot::Broken(..))
    }

    /// Waits for reads under way and lets go of the file.
    pub(super) fn close(&self) {
        let old = std::mem::replace(&mut *self.slot(), Slot::Closed);
        let _ = guarded(|| {
            drop(old);
            Ok(())
        });
        // Nothing is there to follow any more; those who wait for it find out by reading.
        self.tip.send_modify(|_| {});
    }
}
