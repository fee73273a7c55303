//! How large documents and log entries may be.

use bson::{Binary, Document, doc, spec::BinarySubtype};
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

/// A document is created up to the size that fits into its log entry, which is printed; one byte more is
/// `TooLarge` before anything is sent, nothing is written, and the next update goes on.
pub async fn the_largest_document_fits_and_one_byte_more_does_not(store: &dyn TestStore) {
    let storage = open(store).await;
    let can = storage.backend().capabilities();
    // What document and entry have beside the bytes. The name is part of the entry, so all have one length.
    let small = DocumentKey::new("blobs1", 1);
    assert!(fits(&storage, "blobs1", 1_000).await);
    let document = load_raw(&storage, &small).await.unwrap();
    let entry = log_of(&storage, &small).await.remove(0);
    let beside_document = document.as_bytes().len() - 1_000;
    let beside_entry = entry.to_raw().unwrap().as_bytes().len() - 1_000;
    let largest =
        (can.max_document_bytes - beside_document).min(can.max_entry_bytes - beside_entry);
    print_line(&format!(
        "largest document created with its log entry: {} bytes (documents up to {}, entries up to {})",
        largest + beside_document,
        can.max_document_bytes,
        can.max_entry_bytes
    ));
    let key = DocumentKey::new("blobs2", 1);
    assert!(!fits(&storage, "blobs2", largest + 1).await);
    assert_eq!(load_raw(&storage, &key).await, None);
    assert!(log_of(&storage, &key).await.is_empty());
    assert!(fits(&storage, "blobs2", largest).await);
    assert!(
        !fits(&storage, "blobs2", largest + 100).await,
        "an update is bounded too"
    );
    storage
        .update("blobs2", 1, |_: Option<Document>| blob(1))
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
