//! Reading the log's past in the state at one cluster time, page by page.

use std::collections::VecDeque;

use bson::raw::cstr;
use bson::{RawBsonRef, RawDocumentBuf, Timestamp, rawdoc};
use futures_util::StreamExt;

use super::failure::Failure;
use super::place::Place;
use super::store::{LOG, Store, reply_document};
use crate::storage::backend::Position;

/// Entries in a page. A page is one batch, so it also ends at 16 MiB.
const PAGE: i32 = 256;

/// A scan of all entries above a position in the state at one time. No cursor stays open between pages,
/// so a slow reader holds nothing on the server; its snapshot may be gone when it comes back.
#[derive(Debug)]
pub(super) struct Scan {
    /// The cluster time of the state; chosen by the server with the first page.
    pub(super) time: Option<Position>,
    pub(super) after: Position,
    pub(super) page: VecDeque<RawDocumentBuf>,
}

impl Scan {
    pub(super) fn new(after: Position) -> Self {
        Self {
            time: None,
            after,
            page: VecDeque::new(),
        }
    }

    /// The rest of a scan that was broken off at a place.
    pub(super) fn resume(place: &Place) -> Self {
        Self {
            time: (place.time > Position::START).then_some(place.time),
            ..Self::new(place.scanned.unwrap_or(Position::START))
        }
    }

    /// Reads the next page. An empty one is the end; a short one is not, since bytes end a page too.
    pub(super) async fn read(&mut self, store: &Store) -> Result<(), Failure> {
        let mut concern = rawdoc! { "level": "snapshot" };
        if let Some(time) = self.time {
            concern.append(cstr!("atClusterTime"), Timestamp::from(time));
        }
        let command = rawdoc! {
            "find": LOG,
            "filter": { "position": { "$gt": Timestamp::from(self.after) } },
            "sort": { "position": 1 },
            "limit": PAGE,
            "batchSize": PAGE,
            "singleBatch": true,
            "readConcern": concern,
        };
        let mut batches = store
            .database
            .run_raw_cursor_command(command)
            .batch()
            .await?;
        let Some(batch) = batches.next().await else {
            return Err(Failure::reply("a page of the log has no batch"));
        };
        let batch = batch?;
        if self.time.is_none() {
            let time = reply_document(batch.as_raw_document(), "cursor")
                .and_then(|cursor| cursor.get_timestamp("atClusterTime").ok())
                .ok_or_else(|| Failure::reply("a page of the log has no cluster time"))?;
            self.time = Some(time.into());
        }
        for value in batch.doc_slices()? {
            match value.map_err(Failure::reply)? {
                RawBsonRef::Document(entry) => self.page.push_back(entry.to_owned()),
                _ => return Err(Failure::reply("a page of the log holds no documents")),
            }
        }
        Ok(())
    }
}
