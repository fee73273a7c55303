//! The change stream on the log: new entries in commit order.

use std::collections::VecDeque;
use std::time::Duration;

use ::mongodb::raw_batch_cursor::RawBatchCursor;
use bson::raw::cstr;
use bson::{RawArrayBuf, RawBsonRef, RawDocument, RawDocumentBuf, Timestamp, rawdoc};
use futures_util::StreamExt;

use super::commit::PLACEHOLDER;
use super::failure::Failure;
use super::place::{Place, time_of};
use super::store::{LOG, Store, reply_document};
use crate::storage::backend::Position;

/// How long the server waits for an event before it answers with an empty batch, which moves
/// checkpoints while nothing happens. Events are sent at once.
const WAIT: Duration = Duration::from_millis(500);

/// Events in a batch; one also ends at 16 MiB.
const BATCH: u32 = 256;

pub(super) struct Follow {
    batches: RawBatchCursor,
    events: VecDeque<RawDocumentBuf>,
    /// Everything up to here has been passed.
    reached: Position,
    /// The time in the first resume token. It stands before all events of that time, while a later
    /// token of an empty batch stands after those of its own.
    initial: Option<Position>,
    is_first: bool,
}

/// What the change stream says next.
pub(super) enum Step {
    /// A new entry, in stored form.
    Entry {
        entry: RawDocumentBuf,
        position: Position,
        place: Place,
    },
    /// Nothing more at the moment.
    Idle { position: Position, place: Place },
    /// The log was dropped or renamed.
    Gone,
}

impl Follow {
    /// Opens the change stream behind a place; `reached` is what is known to be passed there.
    pub(super) async fn open(
        store: &Store,
        place: &Place,
        reached: Position,
    ) -> Result<Self, Failure> {
        let start = match &place.resume {
            Some(token) => rawdoc! { "resumeAfter": token.clone() },
            None => {
                let next = Position::from_u64(place.time.to_u64().saturating_add(1));
                rawdoc! { "startAtOperationTime": Timestamp::from(next) }
            }
        };
        let mut pipeline = RawArrayBuf::new();
        pipeline.push(rawdoc! { "$changeStream": start });
        pipeline.push(rawdoc! { "$match": {
            "operationType": { "$in": ["insert", "drop", "rename", "dropDatabase", "invalidate"] },
            "fullDocument.kind": { "$ne": PLACEHOLDER },
        } });
        // An event must not outgrow a message although its entry has the largest size.
        pipeline.push(rawdoc! { "$project": {
            "operationType": 1, "clusterTime": 1, "fullDocument": 1,
        } });
        let command = rawdoc! {
            "aggregate": LOG,
            "pipeline": pipeline,
            "cursor": { "batchSize": BATCH as i32 },
            "readConcern": { "level": "majority" },
        };
        let batches = store
            .database
            .run_raw_cursor_command(command)
            .max_time(WAIT)
            .batch_size(BATCH)
            .batch()
            .await?;
        Ok(Self {
            batches,
            events: VecDeque::new(),
            reached,
            initial: None,
            is_first: true,
        })
    }

    /// `None` if there is more to come at once.
    pub(super) async fn next(&mut self) -> Result<Option<Step>, Failure> {
        if let Some(event) = self.events.pop_front() {
            return self.event(&event).map(Some);
        }
        let Some(batch) = self.batches.next().await else {
            return Ok(Some(Step::Gone));
        };
        let batch = batch?;
        for value in batch.doc_slices()? {
            match value.map_err(Failure::reply)? {
                RawBsonRef::Document(event) => self.events.push_back(event.to_owned()),
                _ => {
                    return Err(Failure::reply(
                        "a batch of the change stream holds no documents",
                    ));
                }
            }
        }
        let was_first = std::mem::replace(&mut self.is_first, false);
        let token = reply_document(batch.as_raw_document(), "cursor")
            .and_then(|cursor| reply_document(cursor, "postBatchResumeToken"));
        let Some(token) = token else {
            return Ok(None);
        };
        let time = time_of(token);
        if was_first {
            self.initial = time;
        }
        if !self.events.is_empty() {
            return Ok(None);
        }
        if let Some(time) = time
            && self.initial != Some(time)
        {
            self.reached = self.reached.max(time);
        }
        Ok(Some(Step::Idle {
            position: self.reached,
            place: Place {
                resume: Some(token.to_owned()),
                ..Place::after(self.reached)
            },
        }))
    }

    fn event(&mut self, event: &RawDocument) -> Result<Step, Failure> {
        if !event
            .get_str("operationType")
            .is_ok_and(|kind| kind == "insert")
        {
            return Ok(Step::Gone);
        }
        let time: Position = event
            .get_timestamp("clusterTime")
            .map_err(Failure::reply)?
            .into();
        let resume = event.get_document("_id").map_err(Failure::reply)?;
        let entry = event.get_document("fullDocument").map_err(Failure::reply)?;
        // More entries of the same commit may follow.
        let before = Position::from_u64(time.to_u64().saturating_sub(1));
        self.reached = self.reached.max(before);
        if self.initial == Some(time) {
            // Now something of that time has been seen, and an empty batch means all of it.
            self.initial = None;
        }
        Ok(Step::Entry {
            entry: entry.to_owned(),
            position: self.reached,
            place: Place {
                resume: Some(resume.to_owned()),
                ..Place::after(self.reached)
            },
        })
    }
}

/// The server's present cluster time: what is committed later lies above it.
pub(super) async fn now(store: &Store) -> Result<Position, Failure> {
    let mut command = RawDocumentBuf::new();
    command.append(cstr!("ping"), 1);
    let reply = store.run(command).await?;
    let time = reply
        .get_timestamp("operationTime")
        .map_err(Failure::reply)?;
    Ok(time.into())
}
