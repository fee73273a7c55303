//! Leases and the checkpoints under them, on the server's clock.
//!
//! One document per lease: `{ _id: name, owner, fence: Int64, until: Date, checkpoint: { position,
//! token } }`. Every write compares owner and fence, so one that comes late changes nothing.

use std::time::Duration;

use bson::{DateTime, RawArrayBuf, RawBsonRef, RawDocument, RawDocumentBuf, Timestamp, rawdoc};

use super::failure::DUPLICATE_KEY;
use super::store::{LEASES, Store, count, reply_document};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::backend::{Cursor, Fence, Lease, LeaseRequest};

pub(super) async fn acquire(store: &Store, request: &LeaseRequest) -> Result<Lease> {
    let command = rawdoc! {
        "findAndModify": LEASES,
        "query": { "_id": request.name.as_str() },
        "update": pipeline(take_if_free(request)),
        "upsert": true,
        "new": true,
    };
    let reply = match store.write(command.clone()).await {
        // Two first requests at once: the other one has inserted the document.
        Err(failure) if failure.code() == Some(DUPLICATE_KEY) => store.write(command).await,
        outcome => outcome,
    }
    .map_err(|failure| failure.into_error(format!("acquiring lease {}", request.name)))?;
    let lease = reply_document(&reply, "value").ok_or_else(|| corrupt(&request.name))?;
    if lease
        .get_str("owner")
        .is_ok_and(|owner| owner != request.owner)
    {
        return Err(Error::new(
            ErrorKind::InUse,
            format!("lease {} is held by another owner", request.name),
        ));
    }
    let number = lease.get_i64("fence").map_err(|_| corrupt(&request.name))?;
    Ok(Lease {
        fence: Fence {
            name: request.name.clone(),
            owner: request.owner.clone(),
            number: u64::try_from(number).map_err(|_| corrupt(&request.name))?,
        },
        checkpoint: read_checkpoint(lease, &request.name)?,
    })
}

/// All fields are computed from the document as it was: either all change or none.
fn take_if_free(request: &LeaseRequest) -> RawDocumentBuf {
    let owner = rawdoc! { "$literal": request.owner.as_str() };
    let is_mine = rawdoc! { "$eq": ["$owner", owner.clone()] };
    // A missing `until` counts as long ago.
    let is_free = rawdoc! { "$or": [
        is_mine.clone(),
        { "$lte": [{ "$ifNull": ["$until", DateTime::from_millis(0)] }, "$$NOW"] },
    ] };
    let fence = rawdoc! { "$ifNull": ["$fence", 0_i64] };
    rawdoc! {
        "owner": { "$cond": [is_free.clone(), owner, "$owner"] },
        "fence": { "$cond": [
            { "$and": [is_free.clone(), { "$not": [is_mine] }] },
            { "$add": [fence.clone(), 1_i64] },
            fence,
        ] },
        "until": { "$cond": [is_free, from_now(request.ttl), "$until"] },
    }
}

pub(super) async fn save_checkpoint(
    store: &Store,
    fence: &Fence,
    cursor: &Cursor,
    ttl: Duration,
) -> Result<()> {
    let checkpoint = rawdoc! {
        "position": Timestamp::from(cursor.position),
        "token": cursor.token.clone(),
    };
    let changes = rawdoc! { "checkpoint": { "$literal": checkpoint }, "until": from_now(ttl) };
    if update(store, fence, changes).await? {
        return Ok(());
    }
    Err(lost(fence))
}

/// The checkpoint under a lease, whoever holds it.
pub(super) async fn checkpoint(store: &Store, name: &str) -> Result<Option<Cursor>> {
    let command = rawdoc! {
        "find": LEASES,
        "filter": { "_id": name },
        "limit": 1,
        "readConcern": store.read_concern(),
    };
    let found = store
        .find(command)
        .await
        .map_err(|failure| failure.into_error(format!("reading lease {name}")))?;
    match found.first() {
        Some(lease) => read_checkpoint(lease, name),
        None => Ok(None),
    }
}

/// Whether somebody holds the lease, on the server's clock.
pub(super) async fn is_held(store: &Store, name: &str) -> Result<bool> {
    let command = rawdoc! {
        "find": LEASES,
        "filter": {
            "_id": name,
            "owner": { "$ne": "" },
            "$expr": { "$gt": ["$until", "$$NOW"] },
        },
        "limit": 1,
        "projection": { "_id": 1 },
        "readConcern": store.read_concern(),
    };
    let found = store
        .find(command)
        .await
        .map_err(|failure| failure.into_error(format!("reading lease {name}")))?;
    Ok(!found.is_empty())
}

pub(super) async fn release(store: &Store, fence: &Fence) -> Result<()> {
    // Without an owner the next one takes over, and raises the fence, even if it has the same name.
    let changes = rawdoc! { "owner": "", "until": DateTime::from_millis(0) };
    update(store, fence, changes).await?;
    Ok(())
}

/// Whether the lease was still held.
async fn update(store: &Store, fence: &Fence, changes: RawDocumentBuf) -> Result<bool> {
    let mut updates = RawArrayBuf::new();
    updates.push(rawdoc! { "q": held(fence), "u": pipeline(changes) });
    let reply = store
        .write(rawdoc! { "update": LEASES, "updates": updates })
        .await
        .map_err(|failure| failure.into_error(format!("writing lease {}", fence.name)))?;
    Ok(count(&reply, "n") == 1)
}

/// Matches the lease document while `fence` holds it.
pub(super) fn held(fence: &Fence) -> RawDocumentBuf {
    rawdoc! {
        "_id": fence.name.as_str(),
        "owner": fence.owner.as_str(),
        "fence": fence.number as i64,
    }
}

pub(super) fn lost(fence: &Fence) -> Error {
    Error::new(
        ErrorKind::InUse,
        format!(
            "lease {} was taken over, fence {} is stale",
            fence.name, fence.number
        ),
    )
}

fn pipeline(set: RawDocumentBuf) -> RawArrayBuf {
    let mut stages = RawArrayBuf::new();
    stages.push(rawdoc! { "$set": set });
    stages
}

fn from_now(ttl: Duration) -> RawDocumentBuf {
    let ttl = i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX / 4);
    rawdoc! { "$add": ["$$NOW", ttl] }
}

fn read_checkpoint(lease: &RawDocument, name: &str) -> Result<Option<Cursor>> {
    let checkpoint = match lease.get("checkpoint") {
        Ok(None) => return Ok(None),
        Ok(Some(RawBsonRef::Document(checkpoint))) => checkpoint,
        _ => return Err(corrupt(name)),
    };
    let position = checkpoint
        .get_timestamp("position")
        .map_err(|_| corrupt(name))?;
    let token = checkpoint
        .get_document("token")
        .map_err(|_| corrupt(name))?;
    Ok(Some(Cursor {
        position: position.into(),
        token: token.to_owned(),
    }))
}

fn corrupt(name: &str) -> Error {
    Error::new(
        ErrorKind::Corrupt,
        format!("lease {name} does not read back"),
    )
}
