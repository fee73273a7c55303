//! From units to statements.

use std::collections::BTreeMap;

use bson::{RawBsonRef, RawDocument, RawDocumentBuf, Timestamp, rawdoc};

use super::condition::{matching, there_and_back};
use super::failure::Failure;
use super::lease::held;
use super::step::{Statement, Step, Target, Verb};
use super::store::Store;
use super::swap::Swap;
use super::{MAX_DOCUMENT_BYTES, MAX_ENTRY_BYTES, record};
use crate::document::{DocumentKey, validate};
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

/// How documents are replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// As fast as can be; some failures name no unit.
    Fast,
    /// One statement per document, each with its own answer.
    Exact,
}

type Groups<'a> = BTreeMap<(Target, Verb), Vec<(usize, Statement<'a>)>>;

impl Plan {
    pub(super) fn of(store: &Store, units: &[Unit], form: Form) -> Result<Self, CommitFailure> {
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
            plan.write(store, unit, write, form, &mut groups)
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
                    Statement::Made(touch),
                );
                plan.fences.push(fence.clone());
            }
            push_entries(unit, content, &mut groups)?;
        }
        plan.append_all(groups)?;
        Ok(plan)
    }

    /// The log entries of all units but those in `lost`, which is sorted.
    pub(super) fn log(units: &[Unit], lost: &[usize]) -> Result<Self, CommitFailure> {
        let mut plan = Self::default();
        let mut groups = Groups::new();
        for (unit, content) in units.iter().enumerate() {
            if lost.binary_search(&unit).is_err() {
                push_entries(unit, content, &mut groups)?;
            }
        }
        plan.append_all(groups)?;
        Ok(plan)
    }

    /// Target order is the order of sending: the log comes last, so that positions are drawn as late as
    /// possible.
    fn append_all(&mut self, groups: Groups<'_>) -> Result<(), CommitFailure> {
        for ((target, verb), statements) in groups {
            self.append(target, verb, statements)
                .map_err(|failure| CommitFailure::Failed(failure.into_error("commit")))?;
        }
        Ok(())
    }

    fn write<'a>(
        &mut self,
        store: &Store,
        unit: usize,
        write: &'a DocumentWrite,
        form: Form,
        groups: &mut Groups<'a>,
    ) -> Result<(), Error> {
        let key = &write.key;
        let target = Target::Documents(key.collection_arc());
        let Some(document) = &write.document else {
            if write.condition == Condition::Absent {
                self.absent.push((unit, key.clone()));
                return Ok(());
            }
            let statement = rawdoc! { "q": matching(store, key, write.condition)?, "limit": 1 };
            push(
                groups,
                target,
                Verb::Delete,
                unit,
                Statement::Made(statement),
            );
            return Ok(());
        };
        check_size(document.as_bytes().len(), MAX_DOCUMENT_BYTES, key)?;
        // A key that stands twice in one document aborts the whole server when it computes the
        // difference for its oplog (6.0.5, invariant in document_diff_serialization.cpp).
        validate(document).map_err(|e| e.context(key))?;
        if write.condition == Condition::Absent && !has_empty_timestamp(document) {
            push(
                groups,
                target,
                Verb::Insert,
                unit,
                Statement::Document(document),
            );
            return Ok(());
        }
        let swap = Swap {
            write,
            document,
            field: store.version_field(key.collection()),
        };
        let verb = match form {
            Form::Fast if swap.version().is_some() => Verb::Swap,
            _ => Verb::Update,
        };
        push(groups, target, verb, unit, Statement::Replace(swap));
        Ok(())
    }

    fn check(
        &mut self,
        store: &Store,
        unit: usize,
        key: &DocumentKey,
        condition: Condition,
        groups: &mut Groups<'_>,
    ) -> Result<(), Error> {
        let Some((there, back)) = there_and_back(store, key, condition)? else {
            self.absent.push((unit, key.clone()));
            return Ok(());
        };
        let target = Target::Documents(key.collection_arc());
        for statement in [there, back] {
            let statement = Statement::Made(statement);
            push(groups, target.clone(), Verb::Update, unit, statement);
        }
        Ok(())
    }

    fn append(
        &mut self,
        target: Target,
        verb: Verb,
        statements: Vec<(usize, Statement<'_>)>,
    ) -> Result<(), Failure> {
        let mut rest = statements.as_slice();
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = rest.iter().take_while(|(_, statement)| {
                bytes += statement.bytes();
                bytes <= COMMAND_BYTES
            });
            let (part, more) = rest.split_at(fits.count().max(1));
            self.steps.push(Step::new(target.clone(), verb, part)?);
            rest = more;
        }
        Ok(())
    }
}

fn push<'a>(
    groups: &mut Groups<'a>,
    target: Target,
    verb: Verb,
    unit: usize,
    statement: Statement<'a>,
) {
    let group = groups.entry((target, verb)).or_default();
    group.push((unit, statement));
}

fn push_entries(unit: usize, content: &Unit, groups: &mut Groups<'_>) -> Result<(), CommitFailure> {
    for entry in &content.entries {
        let raw = log_entry(entry).map_err(|error| CommitFailure::Refused { unit, error })?;
        let statement = Statement::Made(raw);
        push(groups, Target::Log, Verb::Insert, unit, statement);
    }
    Ok(())
}

fn write_record(unit: usize, write: &RecordWrite, groups: &mut Groups<'_>) -> Result<(), Error> {
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
    let statement = Statement::Made(statement);
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
