//! How large documents and log entries may be.

use bson::raw::cstr;
use bson::{Binary, Document, doc, rawdoc, spec::BinarySubtype};
use serde_json::json;

use crate::document::DocumentKey;
use crate::error::ErrorKind;
use crate::event::{DefaultEventMapper, EventNames, NewEvent};
use crate::storage::{Storage, UpdateOptions};
use crate::testing::support::{load_raw, log_of, open, open_with, print_line};
use crate::testing::{TestStore, check_log};

fn blob(bytes: usize) -> Document {
    doc! { "blob": Binary { subtype: BinarySubtype::Generic, bytes: vec![7; bytes] } }
}

/// The stored size of [`blob`] without its bytes, under the id 1.
fn overhead() -> usize {
    let mut stored = rawdoc! { "_id": 1 };
    stored.append(
        cstr!("blob"),
        Binary {
            subtype: BinarySubtype::Generic,
            bytes: Vec::new(),
        },
    );
    stored.append(cstr!("version"), 1_i64);
    stored.as_bytes().len()
}

async fn fits(storage: &Storage, collection: &str, bytes: usize) -> bool {
    match storage
        .update(collection, 1, |_: Option<Document>| blob(bytes))
        .await
    {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::TooLarge, "{error:?}");
            assert!(
                error.to_string().contains(&format!("{collection}/1")),
                "{error}"
            );
            assert!(
                error.to_string().chars().any(|c| c.is_ascii_digit()),
                "{error}"
            );
            false
        }
    }
}

/// A document is created up to the size that fits into its log entry, which is found and printed; one
/// byte more is `TooLarge` before anything is sent, nothing is written, and the next update goes on.
pub async fn the_largest_document_fits_and_one_byte_more_does_not(store: &dyn TestStore) {
    let storage = open(store).await;
    let can = storage.backend().capabilities();
    // An entry has at least this beside the document; then half the distance again and again.
    let (mut fitting, mut failing) = (0, can.max_document_bytes.min(can.max_entry_bytes));
    let mut tries = 0;
    while failing - fitting > 1 {
        // First close to where it must be, for every try writes megabytes.
        let middle = match tries {
            0 => failing - 2_048,
            1 => failing.min(fitting + 2_048) - 1,
            _ => fitting + (failing - fitting) / 2,
        };
        let middle = middle.clamp(fitting + 1, failing - 1);
        // Names of one length: they are part of the log entry.
        let collection = format!("blobs{tries:02}");
        if fits(&storage, &collection, middle).await {
            fitting = middle;
        } else {
            failing = middle;
            assert_eq!(
                load_raw(&storage, &DocumentKey::new(collection, 1)).await,
                None
            );
        }
        tries += 1;
    }
    let largest = fitting + overhead();
    assert!(fitting > 0 && largest <= can.max_document_bytes);
    print_line(&format!(
        "largest document created with its log entry: {largest} bytes (documents up to {}, entries up to {})",
        can.max_document_bytes, can.max_entry_bytes
    ));
    let key = DocumentKey::new("largest", 1);
    assert!(!fits(&storage, "largest", failing).await);
    assert!(log_of(&storage, &key).await.is_empty());
    assert!(fits(&storage, "largest", fitting).await);
    assert!(
        !fits(&storage, "largest", failing + 100).await,
        "an update is bounded too"
    );
    storage
        .update("largest", 1, |_: Option<Document>| blob(1))
        .await
        .unwrap();
    let log = check_log(storage.backend().as_ref(), &key).await;
    assert_eq!(log.versions(), [1, 2]);
}

/// A document far over the limit is `TooLarge`, in a transaction too, where the others are not written
/// either.
pub async fn a_document_far_over_the_limit_is_refused(store: &dyn TestStore) {
    let storage = open(store).await;
    let far = storage.backend().capabilities().max_document_bytes + (1 << 20);
    assert!(!fits(&storage, "blobs", far).await);
    let refused = storage.transaction(|tx| async move {
        tx.update("blobs", 2, |_: Option<Document>| blob(1)).await?;
        tx.update("blobs", 1, |_: Option<Document>| blob(far)).await
    });
    assert_eq!(refused.await.unwrap_err().kind(), Some(ErrorKind::TooLarge));
    for id in [1, 2] {
        assert_eq!(
            load_raw(&storage, &DocumentKey::new("blobs", id)).await,
            None
        );
    }
}

/// Events that do not fit into a log entry are `TooLarge` too: of an update, whose document would fit,
/// and of an append.
pub async fn events_beyond_the_limit_are_refused(store: &dyn TestStore) {
    let storage = open_with(store, |builder| {
        builder
            .default_mapper(DefaultEventMapper::new().with_names("blobs", EventNames::of("Blob")))
    })
    .await;
    let limit = storage.backend().capabilities().max_entry_bytes;
    let huge = NewEvent::new("Huge", json!("x".repeat(limit))).unwrap();
    let mut runs = 0;
    let refused = storage.update_with(
        "blobs",
        1,
        UpdateOptions::new(),
        |_: Option<Document>, context| {
            runs += 1;
            context.emit(huge.clone());
            blob(1)
        },
    );
    assert_eq!(refused.await.unwrap_err().kind(), ErrorKind::TooLarge);
    assert_eq!(
        (
            runs,
            load_raw(&storage, &DocumentKey::new("blobs", 1)).await
        ),
        (1, None)
    );
    let small = NewEvent::new("Small", json!(1)).unwrap();
    let refused = storage
        .append("stream", vec![small.clone(), huge], UpdateOptions::new())
        .await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::TooLarge);
    assert!(storage.read("stream", ..).await.unwrap().is_empty());
    let appended = storage
        .append("stream", vec![small], UpdateOptions::new())
        .await;
    assert_eq!(appended.unwrap().version(), 1);
}

/// Small changes of a large document cost small log entries, and a document that is too large for a
/// snapshot in its entry is still updated.
pub async fn small_changes_of_large_documents_have_small_entries(store: &dyn TestStore) {
    let storage = open(store).await;
    let large = blob(1 << 20);
    storage
        .update("blobs", 1, |_: Option<Document>| large.clone())
        .await
        .unwrap();
    for round in 0..3 {
        let change = storage.update("blobs", 1, |document: Option<Document>| {
            let mut document = document.unwrap();
            document.insert("round", round);
            document
        });
        change.await.unwrap();
    }
    let log = check_log(storage.backend().as_ref(), &DocumentKey::new("blobs", 1)).await;
    for entry in &log.entries[1..] {
        let bytes = entry.to_raw().unwrap().as_bytes().len();
        assert!(bytes < 4_096, "an entry of {bytes} bytes");
    }
}
