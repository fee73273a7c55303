//! From units to statements.

use std::collections::BTreeMap;

use bson::raw::{CString, cstr};
use bson::{RawArrayBuf, RawBson, RawBsonRef, RawDocument, RawDocumentBuf, Timestamp, rawdoc};

use super::lease::held;
use super::step::{Step, Target, Verb};
use super::store::Store;
use super::{MAX_DOCUMENT_BYTES, MAX_ENTRY_BYTES, record};
use crate::document::{DocumentKey, Version, validate};
use crate::error::{Error, ErrorKind};
use crate::storage::backend::{
    CommitFailure, Condition, DocumentWrite, Fence, LogEntry, Position, RecordWrite, Unit,
};

/// At most this many bytes of statements in one command. A command's body ends at 16 MiB and one
/// statement may take all of it; half leaves room for anything.
const COMMAND_BYTES: usize = 8 * 1024 * 1024;

/// All that one commit sends, in order.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) steps: Vec<Step>,
    /// Documents that must stay absent, with their units.
    pub(super) absent: Vec<(usize, DocumentKey)>,
    /// The fences to compare.
    pub(super) fences: Vec<Fence>,
}

type Groups = BTreeMap<(Target, Verb), Vec<(usize, RawDocumentBuf)>>;

impl Plan {
    pub(super) fn of(store: &Store, units: &[Unit]) -> Result<Self, CommitFailure> {
        let mut plan = Self::default();
        let mut groups = Groups::new();
        let mut writes: Vec<_> = units
            .iter()
            .enumerate()
            .flat_map(|(unit, content)| content.writes.iter().map(move |write| (unit, write)))
            .collect();
        // In one order everywhere: two commits over the same documents meet on the first of them.
        writes.sort_by(|(_, a), (_, b)| a.key.cmp(&b.key));
        for (unit, write) in writes {
            plan.write(store, unit, write, &mut groups)
                .map_err(|error| CommitFailure::Refused { unit, error })?;
        }
        for (unit, content) in units.iter().enumerate() {
            let refused = |error| CommitFailure::Refused { unit, error };
            for (key, condition) in &content.checks {
                plan.check(store, unit, key, *condition, &mut groups)
                    .map_err(refused)?;
            }
            for write in &content.records {
                write_record(unit, write, &mut groups).map_err(refused)?;
            }
            if let Some(fence) = &content.fence
                && !plan.fences.contains(fence)
            {
                // Any change will do: it makes the commit and a takeover conflict.
                let touch = rawdoc! { "q": held(fence), "u": { "$inc": { "uses": 1_i64 } } };
                push(
                    &mut groups,
                    Target::Lease(plan.fences.len()),
                    Verb::Update,
                    unit,
                    touch,
                );
                plan.fences.push(fence.clone());
            }
            for entry in &content.entries {
                let raw = log_entry(entry).map_err(refused)?;
                push(&mut groups, Target::Log, Verb::Insert, unit, raw);
            }
        }
        // Target order is the order of sending: the log comes last, so that positions are drawn as late
        // as possible.
        for ((target, verb), statements) in groups {
            plan.append(target, verb, statements);
        }
        Ok(plan)
    }

    fn write(
        &mut self,
        store: &Store,
        unit: usize,
        write: &DocumentWrite,
        groups: &mut Groups,
    ) -> Result<(), Error> {
        let key = &write.key;
        let target = Target::Documents(key.collection_arc());
        let Some(document) = &write.document else {
            if write.condition == Condition::Absent {
                self.absent.push((unit, key.clone()));
                return Ok(());
            }
            let statement = rawdoc! { "q": matching(store, key, write.condition)?, "limit": 1 };
            push(groups, target, Verb::Delete, unit, statement);
            return Ok(());
        };
        check_size(document.as_bytes().len(), MAX_DOCUMENT_BYTES, key)?;
        // A key that stands twice in one document aborts the whole server when it computes the
        // difference for its oplog (6.0.5, invariant in document_diff_serialization.cpp).
        validate(document).map_err(|e| e.context(key))?;
        if write.condition == Condition::Absent && !has_empty_timestamp(document) {
            push(groups, target, Verb::Insert, unit, document.clone());
            return Ok(());
        }
        let mut statement = rawdoc! {
            "q": matching(store, key, write.condition)?,
            "u": [{ "$replaceWith": { "$literal": document.clone() } }],
        };
        if write.condition == Condition::Absent {
            statement.append(cstr!("upsert"), true);
        }
        push(groups, target, Verb::Update, unit, statement);
        Ok(())
    }

    /// A document that was only read is written and written back, so that whoever writes it meanwhile
    /// conflicts. Its bytes stay as they are.
    fn check(
        &mut self,
        store: &Store,
        unit: usize,
        key: &DocumentKey,
        condition: Condition,
        groups: &mut Groups,
    ) -> Result<(), Error> {
        let field = store.version_field(key.collection());
        let (there, back) = match condition {
            Condition::Absent => {
                self.absent.push((unit, key.clone()));
                return Ok(());
            }
            Condition::Version(version) => {
                // The largest Int32 would become an Int64 by going up.
                let step = if version == i32::MAX as u64 { -1 } else { 1 };
                let change = |by: i32| Ok::<_, Error>(rawdoc! { "$inc": named(&field, by)? });
                let moved = Version::new(version.get().wrapping_add_signed(step.into()));
                let there = rawdoc! { "q": matching(store, key, condition)?, "u": change(step)? };
                let back = rawdoc! {
                    "q": matching(store, key, Condition::Version(moved))?,
                    "u": change(-step)?,
                };
                (there, back)
            }
            Condition::Unversioned => {
                let set = rawdoc! { "$set": named(&field, 0_i64)? };
                let unset = rawdoc! { "$unset": named(&field, "")? };
                let there = rawdoc! { "q": matching(store, key, condition)?, "u": set };
                let back = rawdoc! {
                    "q": matching(store, key, Condition::Version(Version::NONE))?,
                    "u": unset,
                };
                (there, back)
            }
        };
        let target = Target::Documents(key.collection_arc());
        push(groups, target.clone(), Verb::Update, unit, there);
        push(groups, target, Verb::Update, unit, back);
        Ok(())
    }

    fn append(&mut self, target: Target, verb: Verb, statements: Vec<(usize, RawDocumentBuf)>) {
        let mut bytes = 0;
        let mut part = Vec::new();
        for (unit, statement) in statements {
            let size = statement.as_bytes().len();
            if bytes + size > COMMAND_BYTES && !part.is_empty() {
                self.steps.push(Step {
                    target: target.clone(),
                    verb,
                    statements: std::mem::take(&mut part),
                });
                bytes = 0;
            }
            bytes += size;
            part.push((unit, statement));
        }
        self.steps.push(Step {
            target,
            verb,
            statements: part,
        });
    }
}

fn push(groups: &mut Groups, target: Target, verb: Verb, unit: usize, statement: RawDocumentBuf) {
    let group = groups.entry((target, verb)).or_default();
    group.push((unit, statement));
}

fn write_record(unit: usize, write: &RecordWrite, groups: &mut Groups) -> Result<(), Error> {
    let (verb, statement) = match write {
        RecordWrite::Insert(record) => (Verb::Insert, record::to_raw(record)),
        RecordWrite::Put(record) => {
            let raw = record::to_raw(record);
            let id = record::id(&record.kind, record.key.as_str());
            (
                Verb::Update,
                rawdoc! { "q": { "_id": id }, "u": [{ "$replaceWith": { "$literal": raw } }], "upsert": true },
            )
        }
        RecordWrite::Delete { kind, key } => {
            let id = record::id(kind, key.as_str());
            (Verb::Clear, rawdoc! { "q": { "_id": id }, "limit": 1 })
        }
    };
    check_size(statement.as_bytes().len(), MAX_DOCUMENT_BYTES, "a record")?;
    push(groups, Target::Records, verb, unit, statement);
    Ok(())
}

fn log_entry(entry: &LogEntry) -> Result<RawDocumentBuf, Error> {
    let raw = if entry.position == Position::START {
        entry.to_raw()?
    } else {
        // Only an empty timestamp is filled in by the server.
        LogEntry {
            position: Position::START,
            ..entry.clone()
        }
        .to_raw()?
    };
    let what = format_args!("log entry {} of {}", entry.version, entry.key);
    check_size(raw.as_bytes().len(), MAX_ENTRY_BYTES, what)?;
    Ok(raw)
}

fn check_size(bytes: usize, allowed: usize, what: impl std::fmt::Display) -> Result<(), Error> {
    if bytes > allowed {
        return Err(Error::new(
            ErrorKind::TooLarge,
            format!("{what} has {bytes} bytes, at most {allowed} are allowed"),
        ));
    }
    Ok(())
}

/// The filter that only the document in the expected state passes.
fn matching(
    store: &Store,
    key: &DocumentKey,
    condition: Condition,
) -> Result<RawDocumentBuf, Error> {
    let field = store.version_field(key.collection());
    let mut filter = rawdoc! { "_id": key.id().to_raw() };
    match condition {
        Condition::Version(version) => append(&mut filter, &field, version.to_i64())?,
        Condition::Unversioned => append(&mut filter, &field, rawdoc! { "$exists": false })?,
        // Nothing passes, so an upsert always inserts, or fails on the id that is taken.
        Condition::Absent => filter.append(
            cstr!("$nor"),
            [RawDocumentBuf::new()].into_iter().collect::<RawArrayBuf>(),
        ),
    }
    Ok(filter)
}

fn named(field: &str, value: impl Into<RawBson>) -> Result<RawDocumentBuf, Error> {
    let mut document = RawDocumentBuf::new();
    append(&mut document, field, value)?;
    Ok(document)
}

fn append(
    document: &mut RawDocumentBuf,
    field: &str,
    value: impl Into<RawBson>,
) -> Result<(), Error> {
    let name = CString::try_from(field).map_err(|e| {
        Error::new(ErrorKind::InvalidConfig, "the version field has a NUL").with_source(e)
    })?;
    document.append(&name, value.into());
    Ok(())
}

/// An insert fills in `Timestamp(0, 0)` at the top level; a pipeline upsert keeps it [tested against
/// 6.0.5, together with all other odd values and names, which both keep].
fn has_empty_timestamp(document: &RawDocument) -> bool {
    let empty = Timestamp {
        time: 0,
        increment: 0,
    };
    document
        .iter()
        .flatten()
        .any(|(_, value)| value == RawBsonRef::Timestamp(empty))
}
