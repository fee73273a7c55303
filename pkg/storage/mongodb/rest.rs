//! What is left of a batch when some of its documents were no longer at their versions.
//!
//! The server says how many documents a command replaced, not which. The transaction is still open then: the
//! documents can be read within it, and those that were replaced are byte for byte what was to be written.
//! Versions would not tell: whoever was faster has gone to the same one as a rule.

use std::collections::HashMap;

use bson::{RawArrayBuf, RawBsonRef, RawDocument, RawDocumentBuf, rawdoc};

use super::failure::Failure;
use super::step::Step;
use super::store::reply_document;
use super::transaction::Transaction;
use crate::document::DocumentId;
use crate::storage::backend::{Condition, DocumentWrite, Unit};

/// Documents of more bytes are not read back. Beyond some hundred documents of usual size a second attempt
/// costs less.
const READ_BACK_BYTES: usize = 1024 * 1024;

/// The units of a step whose documents were left as they are. `None` if that is not certain, or if one of
/// them has more to it than a document and its log entries, part of which may have been written.
pub(super) async fn lost(
    transaction: &mut Transaction<'_>,
    step: &Step,
    units: &[Unit],
    reply: &RawDocument,
) -> Result<Option<Vec<usize>>, Failure> {
    let Some(replaced) = step.replaced(reply) else {
        return Ok(None);
    };
    let writes = writes(step, units);
    let bytes: usize = writes
        .iter()
        .map(|write| write.document.as_bytes().len())
        .sum();
    if writes.len() != step.units.len() || bytes > READ_BACK_BYTES {
        return Ok(None);
    }
    let ids: RawArrayBuf = writes.iter().map(|write| write.id.to_raw()).collect();
    let reply = transaction
        .run(rawdoc! {
            "find": step.collection(),
            "filter": { "_id": { "$in": ids } },
            "batchSize": writes.len() as i64 + 1,
            "singleBatch": true,
        })
        .await?;
    let found = found(&reply)?;
    let is_written = |write: &Write<'_>| {
        let stored = found.get(write.id);
        stored.is_some_and(|stored| stored.as_bytes() == write.document.as_bytes())
    };
    let lost: Vec<_> = writes.iter().filter(|write| !is_written(write)).collect();
    // Somebody else may have written the very same bytes. Then the numbers differ.
    let is_certain = writes.len() - lost.len() == replaced;
    let can_go = lost
        .iter()
        .all(|write| units.get(write.unit).is_some_and(is_simple));
    Ok((is_certain && can_go).then(|| lost.into_iter().map(|write| write.unit).collect()))
}

/// A document that a step replaces.
struct Write<'a> {
    unit: usize,
    id: &'a DocumentId,
    document: &'a RawDocument,
}

/// What a step replaces, or other documents than that if units of several documents take part; their number
/// is another then.
fn writes<'a>(step: &Step, units: &'a [Unit]) -> Vec<Write<'a>> {
    let mut numbers = step.units.clone();
    numbers.sort_unstable();
    numbers.dedup();
    let of_unit = |unit: usize| {
        let writes = units
            .get(unit)
            .into_iter()
            .flat_map(|content| &content.writes);
        writes.filter_map(move |write| as_swap(unit, write))
    };
    let writes = numbers.into_iter().flat_map(of_unit);
    writes
        .filter(|(collection, _)| *collection == step.collection())
        .map(|(_, write)| write)
        .collect()
}

fn as_swap(unit: usize, write: &DocumentWrite) -> Option<(&str, Write<'_>)> {
    let (Condition::Version(_), Some(document)) = (write.condition, &write.document) else {
        return None;
    };
    let id = write.key.id();
    let write_of = Write { unit, id, document };
    Some((write.key.collection(), write_of))
}

/// Whether a unit is one document and its log entries.
fn is_simple(unit: &Unit) -> bool {
    unit.writes.len() == 1
        && unit.checks.is_empty()
        && unit.records.is_empty()
        && unit.fence.is_none()
}

fn found(reply: &RawDocumentBuf) -> Result<HashMap<DocumentId, &RawDocument>, Failure> {
    let batch = reply_document(reply, "cursor").map(|cursor| cursor.get_array("firstBatch"));
    let Some(Ok(batch)) = batch else {
        return Err(Failure::reply("the reply has no batch"));
    };
    let mut found = HashMap::new();
    for value in batch {
        let RawBsonRef::Document(document) = value.map_err(Failure::reply)? else {
            return Err(Failure::reply(
                "a batch holds something else than documents",
            ));
        };
        let id = document.get("_id").map_err(Failure::reply)?;
        if let Some(Ok(id)) = id.map(DocumentId::from_bson) {
            found.insert(id, document);
        }
    }
    Ok(found)
}
