//! The system's own collections.

use bson::{Binary, RawBsonRef, RawDocument, rawdoc, spec::BinarySubtype};
use uuid::Uuid;

use super::collection::{Wanted, ensure, ensure_indexes};
use super::failure::DUPLICATE_KEY;
use super::store::{LEASES, LOG, META, RECORDS, Store, WRITERS, reply_document};
use crate::error::{Error, ErrorKind, Result};

/// The format of the stored data. A program that finds another number must not write.
const FORMAT: i32 = 1;

/// Creates what is missing and returns the store's identity. Several processes may do this at once.
pub(super) async fn install(store: &Store) -> Result<Uuid> {
    // The identity comes first: of a store in another format, nothing is touched.
    let id = identify(store).await?;
    for name in [META, LOG, LEASES, RECORDS, WRITERS] {
        ensure(store, name).await?;
    }
    let by_position = Wanted {
        name: "position".to_owned(),
        paths: vec!["position".to_owned()],
        unique: false,
    };
    ensure_indexes(store, LOG, &[by_position]).await?;
    Ok(id)
}

async fn identify(store: &Store) -> Result<Uuid> {
    ensure(store, META).await?;
    let drawn = Binary {
        subtype: BinarySubtype::Uuid,
        bytes: Uuid::new_v4().into_bytes().to_vec(),
    };
    let command = rawdoc! {
        "findAndModify": META,
        "query": { "_id": "store" },
        "update": { "$setOnInsert": { "format": FORMAT, "store": drawn } },
        "upsert": true,
        "new": true,
    };
    let reply = match store.write(command.clone()).await {
        // Two first openings at once: the other one has drawn.
        Err(failure) if failure.code() == Some(DUPLICATE_KEY) => store.write(command).await,
        outcome => outcome,
    }
    .map_err(|failure| failure.into_error("opening the store"))?;
    reply_document(&reply, "value")
        .ok_or_else(|| Error::new(ErrorKind::Corrupt, "the store's identity cannot be read"))
        .and_then(read_identity)
}

fn read_identity(meta: &RawDocument) -> Result<Uuid> {
    let format = match meta.get("format") {
        Ok(Some(RawBsonRef::Int32(number))) => Some(i64::from(number)),
        Ok(Some(RawBsonRef::Int64(number))) => Some(number),
        _ => None,
    };
    if format != Some(FORMAT.into()) {
        let found = format.map_or_else(|| "an unknown one".to_owned(), |n| n.to_string());
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "the store has format {found}, this version of nodestorage reads format {FORMAT}"
            ),
        ));
    }
    let binary = meta.get_binary("store").ok();
    binary
        .and_then(|binary| Uuid::from_slice(binary.bytes).ok())
        .ok_or_else(|| Error::new(ErrorKind::Corrupt, "the store's identity cannot be read"))
}
