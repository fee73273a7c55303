//! Leases, fences and checkpoints.

use std::time::Duration;

use bson::raw::cstr;
use bson::{DateTime, RawDocument, RawDocumentBuf, Timestamp};
use redb::ReadTransaction;

use super::failure::{damaged, translate};
use super::tables::{Bytes, LEASES, Writing, put, take};
use crate::error::{BoxError, Error, ErrorKind, Result};
use crate::storage::backend::{Cursor, Fence, Lease, LeaseRequest};

/// A lease as the file keeps it.
struct Stored {
    /// Empty after a release.
    owner: String,
    fence: i64,
    expires: DateTime,
    checkpoint: Option<Cursor>,
}

impl Stored {
    fn find(leases: &impl redb::ReadableTable<Bytes, Bytes>, name: &str) -> Result<Option<Self>> {
        let Some(stored) = take(leases, "a lease", name.as_bytes())? else {
            return Ok(None);
        };
        Self::parse(&stored)
            .map(Some)
            .map_err(|e| damaged(format_args!("lease {name}")).with_source(e))
    }

    fn parse(stored: &[u8]) -> std::result::Result<Self, BoxError> {
        let raw = RawDocument::from_bytes(stored)?;
        let checkpoint = match raw.get("token")? {
            Some(token) => Some(Cursor {
                position: raw.get_timestamp("position")?.into(),
                token: token
                    .as_document()
                    .ok_or("the token is no document")?
                    .to_owned(),
            }),
            None => None,
        };
        Ok(Self {
            owner: raw.get_str("owner")?.to_owned(),
            fence: raw.get_i64("fence")?,
            expires: raw.get_datetime("expires")?,
            checkpoint,
        })
    }

    fn store(&self, leases: &mut Writing<'_>, name: &str) -> Result<()> {
        let mut raw = RawDocumentBuf::new();
        raw.append(cstr!("owner"), self.owner.as_str());
        raw.append(cstr!("fence"), self.fence);
        raw.append(cstr!("expires"), self.expires);
        if let Some(checkpoint) = &self.checkpoint {
            raw.append(cstr!("position"), Timestamp::from(checkpoint.position));
            raw.append(cstr!("token"), &checkpoint.token);
        }
        put(leases, name.as_bytes(), raw.as_bytes())
    }

    fn is_held_by(&self, fence: &Fence) -> bool {
        self.owner == fence.owner && u64::try_from(self.fence) == Ok(fence.number)
    }
}

/// Grants the lease if nobody else's is alive.
pub(super) fn acquire(
    leases: &mut Writing<'_>,
    request: &LeaseRequest,
    now: DateTime,
) -> Result<Lease> {
    let mut lease = Stored::find(leases, &request.name)?.unwrap_or_else(|| Stored {
        owner: String::new(),
        fence: 0,
        expires: DateTime::MIN,
        checkpoint: None,
    });
    if lease.owner != request.owner {
        if !lease.owner.is_empty() && lease.expires > now {
            return Err(Error::new(
                ErrorKind::InUse,
                format!("lease {} is held by {}", request.name, lease.owner),
            ));
        }
        lease.fence += 1;
        lease.owner.clone_from(&request.owner);
    }
    lease.expires = after(now, request.ttl);
    lease.store(leases, &request.name)?;
    Ok(Lease {
        fence: Fence {
            name: request.name.clone(),
            owner: lease.owner,
            number: lease.fence.unsigned_abs(),
        },
        checkpoint: lease.checkpoint,
    })
}

/// Refuses a fence that another owner has passed.
pub(super) fn check(leases: &Writing<'_>, fence: &Fence) -> Result<()> {
    held(leases, fence).map(drop)
}

/// Stores a checkpoint and prolongs the lease.
pub(super) fn save(
    leases: &mut Writing<'_>,
    fence: &Fence,
    cursor: &Cursor,
    ttl: Duration,
    now: DateTime,
) -> Result<()> {
    let mut lease = held(leases, fence)?;
    lease.checkpoint = Some(cursor.clone());
    lease.expires = after(now, ttl);
    lease.store(leases, &fence.name)
}

/// The checkpoint that the last owner stored.
pub(super) fn checkpoint(transaction: &ReadTransaction, name: &str) -> Result<Option<Cursor>> {
    let leases = transaction.open_table(LEASES).map_err(translate)?;
    Ok(Stored::find(&leases, name)?.and_then(|lease| lease.checkpoint))
}

/// Whether somebody holds the lease.
pub(super) fn is_held(transaction: &ReadTransaction, name: &str, now: DateTime) -> Result<bool> {
    let leases = transaction.open_table(LEASES).map_err(translate)?;
    let lease = Stored::find(&leases, name)?;
    Ok(lease.is_some_and(|lease| !lease.owner.is_empty() && lease.expires > now))
}

/// Lets the next owner in at once.
pub(super) fn release(leases: &mut Writing<'_>, fence: &Fence) -> Result<()> {
    match Stored::find(leases, &fence.name)? {
        Some(mut lease) if lease.is_held_by(fence) => {
            lease.owner.clear();
            lease.store(leases, &fence.name)
        }
        _ => Ok(()),
    }
}

fn held(leases: &Writing<'_>, fence: &Fence) -> Result<Stored> {
    match Stored::find(leases, &fence.name)? {
        Some(lease) if lease.is_held_by(fence) => Ok(lease),
        _ => Err(Error::new(
            ErrorKind::InUse,
            format!(
                "lease {} is no longer held by {} with fence {}",
                fence.name, fence.owner, fence.number
            ),
        )),
    }
}

fn after(now: DateTime, ttl: Duration) -> DateTime {
    let ttl = i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX);
    DateTime::from_millis(now.timestamp_millis().saturating_add(ttl))
}
