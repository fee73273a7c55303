//! Carrying out what was checked, inside the writer's transaction.

use std::time::Instant;

use super::catalog::{self, Collection};
use super::chain::Head;
use super::check::{Plan, check};
use super::commit::Prepared;
use super::failure::translate;
use super::keys;
use super::leases;
use super::row;
use super::seal;
use super::store::Store;
use super::tables::{State, Tables, put};
use super::work::{Done, Work};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::backend::{CommitFailure, CommitReceipt, Position, RecordWrite};

/// Why a piece of work did not happen.
pub(super) enum Stop {
    /// It was found impossible before anything was written; the transaction goes on.
    Unwritten(CommitFailure),
    /// Writing failed half-way; the transaction must not be committed.
    HalfWritten(Error),
}

/// Carries out one piece of work.
pub(super) fn perform(
    store: &Store,
    tables: &mut Tables<'_>,
    state: &mut State,
    work: &Work,
) -> std::result::Result<Done, Stop> {
    let now = store.clock.now();
    // What these refuse they refuse before their one write.
    let alone = |error| Stop::Unwritten(CommitFailure::Failed(error));
    match work {
        Work::Commit { deadline, .. } if *deadline <= Instant::now() => Err(alone(Error::new(
            ErrorKind::Timeout,
            "the deadline passed before the commit's turn came",
        ))),
        Work::Commit { units, .. } => commit(store, tables, state, units).map(Done::Committed),
        Work::Open(spec) => catalog::open(tables, spec)
            .map(|collection: Collection| Done::Opened(collection.into()))
            .map_err(Stop::HalfWritten),
        Work::Acquire(request) => leases::acquire(&mut tables.leases, request, now)
            .map(Done::Leased)
            .map_err(alone),
        Work::Save { fence, cursor, ttl } => {
            leases::save(&mut tables.leases, fence, cursor, *ttl, now)
                .map(|()| Done::Nothing)
                .map_err(alone)
        }
        Work::Release(fence) => leases::release(&mut tables.leases, fence)
            .map(|()| Done::Nothing)
            .map_err(alone),
    }
}

fn commit(
    store: &Store,
    tables: &mut Tables<'_>,
    state: &mut State,
    units: &[Prepared],
) -> std::result::Result<CommitReceipt, Stop> {
    let plan = check(store, tables, units).map_err(Stop::Unwritten)?;
    let seconds = store.clock.now().timestamp_millis().div_euclid(1_000);
    // Never below the number before, so a clock that goes back only makes ordinals go on in the
    // newest second there was.
    let floor = Position::new(u32::try_from(seconds.max(0)).unwrap_or(u32::MAX), 0).to_u64();
    write(tables, state, units, plan, floor).map_err(Stop::HalfWritten)?;
    Ok(CommitReceipt {
        position: Position::from_u64(state.last),
    })
}

fn write(
    tables: &mut Tables<'_>,
    state: &mut State,
    units: &[Prepared],
    mut plan: Plan<'_>,
    floor: u64,
) -> Result<()> {
    for entry in units.iter().flat_map(|unit| &unit.entries) {
        let Some(pending) = plan.documents.get_mut(entry.row.as_slice()) else {
            continue;
        };
        state.last = state.last.max(floor) + 1;
        let (head, node) = Head::push(
            pending.head.take(),
            state.last,
            entry.version.get(),
            entry.kind,
        );
        pending.head = Some(head);
        // 64 more: the pointers.
        let mut value = seal::room(64 + entry.raw.len());
        node.append(&mut value);
        let begin = value.len();
        value.extend_from_slice(&entry.raw);
        let position = begin + entry.position_at;
        value[position..position + 8].copy_from_slice(&state.last.to_le_bytes());
        seal::seal(&state.last.to_be_bytes(), &mut value);
        tables
            .log
            .insert(state.last, value.as_slice())
            .map_err(translate)?;
    }
    for (key, pending) in &plan.documents {
        let document = match pending.after {
            Some(after) => after,
            None => pending.before.as_ref().map(|before| before.as_bytes()),
        };
        if document.is_none() && pending.head.is_none() {
            tables.documents.remove(*key).map_err(translate)?;
            continue;
        }
        let row = row::write(key, pending.head.as_ref(), document);
        tables
            .documents
            .insert(*key, row.as_slice())
            .map_err(translate)?;
    }
    plan.indexes.write(&mut tables.indexes)?;
    for write in units.iter().flat_map(|unit| &unit.records) {
        match write {
            RecordWrite::Insert(record) | RecordWrite::Put(record) => put(
                &mut tables.records,
                &keys::record_key(&record.kind, &record.key),
                record.value.as_bytes(),
            )?,
            RecordWrite::Delete { kind, key } => {
                let row = keys::record_key(kind, key);
                tables.records.remove(row.as_slice()).map_err(translate)?;
            }
        }
    }
    Ok(())
}
