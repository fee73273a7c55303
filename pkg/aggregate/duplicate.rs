//! Commands that were carried out before.

use std::time::{Duration, Instant};

use bson::raw::cstr;
use bson::{DateTime, RawDocument, RawDocumentBuf};

use super::CommandResult;
use crate::document::{DocumentId, DocumentKey, Version};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::Storage;
use crate::storage::backend::{CommitFailure, LogRange, Record, RecordWrite, Unit};

/// The kind of the records that tell which commands were carried out.
const KIND: &str = "command";

/// The longest command id, in bytes: half of what a record's key may have.
const MAX_ID_BYTES: usize = 512;

pub(super) fn validate_id(id: &str) -> Result<()> {
    let reason = if id.is_empty() {
        "is empty".to_owned()
    } else if id.len() > MAX_ID_BYTES {
        format!("has {} bytes, at most {MAX_ID_BYTES} are allowed", id.len())
    } else if id.chars().any(char::is_control) {
        "contains a control character".to_owned()
    } else {
        return Ok(());
    };
    Err(Error::new(
        ErrorKind::InvalidName,
        format!("command id {reason}"),
    ))
}

/// How many records are looked at and deleted together.
const PAGE: usize = 500;

/// How long a deletion may take.
const DELETE_WITHIN: Duration = Duration::from_secs(30);

impl Storage {
    /// Forgets the ids of commands that were carried out before a time, by the clock of the processes
    /// that did; how many it were. A command that is sent again under an id that was forgotten runs again, so
    /// keep them for longer than anybody may repeat a command.
    ///
    /// Reads all ids there are, some hundreds at a time. May be called while commands are sent, and by several
    /// processes; dropping the future leaves the rest as it is.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`, `Closed`.
    ///
    /// # Examples
    /// ```
    /// # use nodestorage::{Result, Storage};
    /// # use nodestorage::bson::DateTime;
    /// # async fn example(storage: Storage) -> Result<()> {
    /// const MONTH_MILLIS: i64 = 30 * 24 * 3_600 * 1_000;
    /// let before = DateTime::from_millis(DateTime::now().timestamp_millis() - MONTH_MILLIS);
    /// println!("{} forgotten", storage.forget_commands(before).await?);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn forget_commands(&self, before: DateTime) -> Result<u64> {
        self.check_open()?;
        let mut after: Option<String> = None;
        let mut forgotten = 0;
        loop {
            let page = self
                .backend()
                .read_records(KIND, after.as_deref(), PAGE)
                .await?;
            let is_old = |record: &&Record| {
                let at = record.value.get_datetime("at");
                at.is_ok_and(|at| at < before)
            };
            let old: Vec<_> = page.iter().filter(is_old).collect();
            if !old.is_empty() {
                let delete = |record: &&Record| RecordWrite::Delete {
                    kind: KIND.to_owned(),
                    key: record.key.clone(),
                };
                let unit = Unit {
                    records: old.iter().map(delete).collect(),
                    ..Unit::default()
                };
                let deadline = Instant::now() + DELETE_WITHIN;
                let committed = self.backend().commit(&[unit], deadline).await;
                committed.map_err(CommitFailure::into_error)?;
                forgotten += old.len() as u64;
            }
            if page.len() < PAGE {
                return Ok(forgotten);
            }
            after = page.into_iter().next_back().map(|record| record.key);
        }
    }
}

/// What is stored with the commit of a command: `{ c: collection, d: document id, v: version, at: time }`. It
/// must not exist yet, so that of two deliveries one commits.
pub(super) fn record(id: &str, key: &DocumentKey, version: Version, at: DateTime) -> RecordWrite {
    let mut value = RawDocumentBuf::new();
    value.append(cstr!("c"), key.collection());
    value.append(cstr!("d"), key.id().to_raw());
    value.append(cstr!("v"), version.to_i64());
    value.append(cstr!("at"), at);
    RecordWrite::Insert(Record {
        kind: KIND.to_owned(),
        key: id.to_owned(),
        value,
    })
}

/// The result of the command with this id, if it was carried out.
///
/// # Errors
/// `Constraint` if it was another aggregate's command.
pub(super) async fn find(
    storage: &Storage,
    id: &str,
    wanted: &DocumentKey,
) -> Result<Option<CommandResult>> {
    let backend = storage.backend();
    let Some(record) = backend.read_record(KIND, id).await? else {
        return Ok(None);
    };
    let (key, version) = read(&record.value).ok_or_else(|| {
        let what = format!("the record of command {id} does not read back");
        Error::new(ErrorKind::Corrupt, what)
    })?;
    if key.collection() != wanted.collection() {
        return Err(Error::new(
            ErrorKind::Constraint,
            format!("command id {id} was used for {key}, and now for {wanted}"),
        ));
    }
    let range = LogRange {
        key: key.clone(),
        from: version,
        to: version,
        until: None,
        newest_first: false,
        limit: 1,
    };
    let mut events = Vec::new();
    // Retention may have taken the entry; that the command ran is known all the same.
    for entry in backend.read_log(&range).await? {
        events.extend(entry.to_events()?);
    }
    Ok(Some(CommandResult::before(key, version, events)))
}

fn read(value: &RawDocument) -> Option<(DocumentKey, Version)> {
    let id = DocumentId::from_bson(value.get("d").ok().flatten()?).ok()?;
    let version = u64::try_from(value.get_i64("v").ok()?).ok()?;
    let key = DocumentKey::new(value.get_str("c").ok()?, id);
    Some((key, Version::new(version)))
}
