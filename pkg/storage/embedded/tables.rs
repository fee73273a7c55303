//! The tables of the file, and one write transaction over all of them.

use redb::{Database, ReadOnlyTable, ReadTransaction, Table, TableDefinition, WriteTransaction};

use super::chain::{Link, Node};
use super::failure::{damaged, translate};
use super::row::Row;
use super::seal;
use crate::error::Result;

pub(super) type Bytes = &'static [u8];

/// A table read in a transaction.
pub(super) type Reading = ReadOnlyTable<Bytes, Bytes>;
/// A table written in a transaction.
pub(super) type Writing<'t> = Table<'t, Bytes, Bytes>;

/// Document key → row.
pub(super) const DOCUMENTS: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("documents");
/// Position → log entry.
pub(super) const LOG: TableDefinition<'_, u64, Bytes> = TableDefinition::new("log");
/// Index number, values and document id → the id's length.
pub(super) const INDEXES: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("indexes");
/// Kind and key → record.
pub(super) const RECORDS: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("records");
/// Name → lease and checkpoint.
pub(super) const LEASES: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("leases");
/// Name → version field and indexes.
pub(super) const COLLECTIONS: TableDefinition<'_, Bytes, Bytes> =
    TableDefinition::new("collections");
/// What concerns the whole store.
pub(super) const META: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("meta");

/// What every commit moves on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct State {
    /// How many commits there were: after a failure it tells whether the last one happened.
    pub(super) commits: u64,
    /// The newest position in the log.
    pub(super) last: u64,
}

impl State {
    const KEY: &'static [u8] = b"state";

    pub(super) fn read(stored: &[u8]) -> Result<Self> {
        let value = seal::open("the state", Self::KEY, stored)?;
        let number = |at: usize| {
            let bytes = value.get(at..at + 8)?;
            bytes.try_into().ok().map(u64::from_le_bytes)
        };
        match (number(0), number(8)) {
            (Some(commits), Some(last)) => Ok(Self { commits, last }),
            _ => Err(damaged("the state")),
        }
    }

    pub(super) fn of(database: &Database) -> Result<Self> {
        use redb::ReadableDatabase;
        let transaction = database.begin_read().map_err(translate)?;
        let meta = transaction.open_table(META).map_err(translate)?;
        match meta.get(Self::KEY).map_err(translate)? {
            Some(stored) => Self::read(stored.value()),
            None => Err(damaged("the state")),
        }
    }

    pub(super) fn write(self, meta: &mut Writing<'_>) -> Result<()> {
        let mut value = [0; 16];
        value[..8].copy_from_slice(&self.commits.to_le_bytes());
        value[8..].copy_from_slice(&self.last.to_le_bytes());
        put(meta, Self::KEY, &value)
    }
}

/// All tables, open for writing.
pub(super) struct Tables<'t> {
    pub(super) documents: Writing<'t>,
    pub(super) log: Table<'t, u64, Bytes>,
    pub(super) indexes: Writing<'t>,
    pub(super) records: Writing<'t>,
    pub(super) leases: Writing<'t>,
    pub(super) collections: Writing<'t>,
    pub(super) meta: Writing<'t>,
}

impl<'t> Tables<'t> {
    pub(super) fn open(transaction: &'t WriteTransaction) -> Result<Self> {
        let open = |definition| transaction.open_table(definition).map_err(translate);
        Ok(Self {
            documents: open(DOCUMENTS)?,
            log: transaction.open_table(LOG).map_err(translate)?,
            indexes: open(INDEXES)?,
            records: open(RECORDS)?,
            leases: open(LEASES)?,
            collections: open(COLLECTIONS)?,
            meta: open(META)?,
        })
    }

    pub(super) fn state(&self) -> Result<State> {
        use redb::ReadableTable;
        match self.meta.get(State::KEY).map_err(translate)? {
            Some(stored) => State::read(stored.value()),
            None => Ok(State::default()),
        }
    }

    /// Hands the row of a document to `see`, or `None` if there is none.
    pub(super) fn row<T>(
        &self,
        key: &[u8],
        see: impl FnOnce(Option<Row<'_>>) -> Result<T>,
    ) -> Result<T> {
        use redb::ReadableTable;
        match self.documents.get(key).map_err(translate)? {
            Some(stored) => see(Some(Row::read(key, stored.value())?)),
            None => see(None),
        }
    }
}

/// Seals and writes a value.
pub(super) fn put(table: &mut Writing<'_>, key: &[u8], value: &[u8]) -> Result<()> {
    let sealed = seal::sealed(key, value);
    table
        .insert(key, sealed.as_slice())
        .map(drop)
        .map_err(translate)
}

/// Reads a sealed value.
pub(super) fn take(
    table: &impl redb::ReadableTable<Bytes, Bytes>,
    what: &str,
    key: &[u8],
) -> Result<Option<Vec<u8>>> {
    match table.get(key).map_err(translate)? {
        Some(stored) => Ok(Some(seal::open(what, key, stored.value())?.to_vec())),
        None => Ok(None),
    }
}

/// The log, open for reading.
pub(super) struct Log(ReadOnlyTable<u64, Bytes>);

impl Log {
    pub(super) fn open(transaction: &ReadTransaction) -> Result<Self> {
        transaction.open_table(LOG).map(Self).map_err(translate)
    }

    /// Hands an entry's node and document to `see`.
    ///
    /// # Errors
    /// `Corrupt` if there is no entry or not the one that the link promises.
    pub(super) fn entry<T>(
        &self,
        link: Link,
        see: impl FnOnce(Node, &[u8]) -> Result<T>,
    ) -> Result<T> {
        let stored = self.0.get(link.position).map_err(translate)?;
        let stored = stored.ok_or_else(|| damaged("a log entry"))?;
        let (node, raw) = open_entry(link.position, stored.value())?;
        if node.this != link {
            return Err(damaged("a log entry"));
        }
        see(node, raw)
    }

    /// Hands the entries above `after` to `see`, oldest first, until it returns false.
    pub(super) fn follow(
        &self,
        after: u64,
        mut see: impl FnMut(u64, &[u8]) -> Result<bool>,
    ) -> Result<()> {
        let Some(first) = after.checked_add(1) else {
            return Ok(());
        };
        for stored in self.0.range(first..).map_err(translate)? {
            let (position, stored) = stored.map_err(translate)?;
            let (_, raw) = open_entry(position.value(), stored.value())?;
            if !see(position.value(), raw)? {
                break;
            }
        }
        Ok(())
    }

    /// How many entries lie above `after`, counted up to `limit`; none of them is decoded.
    pub(super) fn count(&self, after: u64, limit: u64) -> Result<u64> {
        let Some(first) = after.checked_add(1) else {
            return Ok(0);
        };
        let mut entries = 0;
        for stored in self.0.range(first..).map_err(translate)? {
            if entries == limit {
                break;
            }
            stored.map_err(translate)?;
            entries += 1;
        }
        Ok(entries)
    }
}

fn open_entry(position: u64, stored: &[u8]) -> Result<(Node, &[u8])> {
    let mut rest = seal::open("a log entry", &position.to_be_bytes(), stored)?;
    let node = Node::take(position, &mut rest).ok_or_else(|| damaged("a log entry"))?;
    Ok((node, rest))
}
