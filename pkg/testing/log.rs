//! Cases of the log that updates write.

use bson::{DateTime, Document, doc};

use super::random::Random;
use super::support::{Counter, User, load_raw, log_of, open, open_with};
use super::{TestStore, check_log};
use crate::clock::Clock;
use crate::document::DocumentKey;
use crate::error::{Error, ErrorKind};
use crate::event::{Metadata, NewEvent};
use crate::storage::backend::{EntryKind, Position};
use crate::storage::{CollectionSpec, Index, UpdateOptions};

/// A clock that stands still.
#[derive(Debug)]
struct Stopped;

const NOON: DateTime = DateTime::from_millis(1_700_000_000_123);

impl Clock for Stopped {
    fn now(&self) -> DateTime {
        NOON
    }
}

/// Each version has one entry, which says what happened, when by the storage's clock, in which commit, to
/// what kind of thing and from where; creations hold the document, updates the patch.
pub async fn entries_say_what_happened(store: &dyn TestStore) {
    let storage = open_with(store, |builder| builder.clock(Stopped)).await;
    let by = |actor: &str| UpdateOptions::new().with_metadata(Metadata::new().with_actor(actor));
    storage
        .update_with("users", 1, by("a"), |_, _| User::new("Ann"))
        .await
        .unwrap();
    let change = storage
        .update_with("users", 1, by("b"), |_, _| User::new("Bob"))
        .await
        .unwrap();
    storage.delete_with("users", 1, by("c")).await.unwrap();
    let log = check_log(storage.backend().as_ref(), change.document()).await;
    assert_eq!(log.versions(), [1, 2, 3]);
    assert_eq!(
        log.kinds(),
        [EntryKind::Created, EntryKind::Updated, EntryKind::Deleted]
    );
    for (entry, actor) in log.entries.iter().zip(["a", "b", "c"]) {
        assert_eq!((entry.at, entry.aggregate_type.as_str()), (NOON, "Users"));
        assert_eq!(entry.metadata.actor.as_deref(), Some(actor));
        assert_eq!(entry.commit.get_version_num(), 7);
        assert_eq!(&*entry.version_field, "version");
        assert_eq!(entry.after.is_some(), entry.kind == EntryKind::Created);
        assert_eq!(entry.patch.is_some(), entry.kind == EntryKind::Updated);
        assert_eq!(entry.events.len(), 1);
        assert!(entry.position > Position::START);
    }
    assert_eq!(log.entries[1].patch.as_ref(), Some(change.diff().patch()));
    let mut commits: Vec<_> = log.entries.iter().map(|entry| entry.commit).collect();
    commits.dedup();
    assert_eq!(commits.len(), 3, "a commit each");
}

/// Every hundredth version holds the whole document, and only those; replaying agrees with each of them.
pub async fn every_hundredth_version_holds_the_whole_document(store: &dyn TestStore) {
    let storage = open(store).await;
    for _ in 0..205 {
        storage
            .update("counters", 1, Counter::incremented)
            .await
            .unwrap();
    }
    let log = check_log(storage.backend().as_ref(), &DocumentKey::new("counters", 1)).await;
    let whole: Vec<u64> = log
        .entries
        .iter()
        .filter(|entry| entry.after.is_some())
        .map(|entry| entry.version.get())
        .collect();
    assert_eq!(whole, [1, 100, 200]);
    assert_eq!(log.entries[99].after, log.states[99]);
}

/// Random documents that turn into each other, through typed values and whole, deleted and created again:
/// the log replays to the stored bytes.
pub async fn random_changes_replay_to_the_stored_bytes(store: &dyn TestStore) {
    let storage = open(store).await;
    let mut random = Random::new(0x106);
    for _ in 0..60 {
        let next = (random.below(12) > 0).then(|| random.document(3));
        let options = match random.below(3) {
            0 => UpdateOptions::new().with_whole_document(),
            _ => UpdateOptions::new(),
        };
        let change = storage.update_with("things", 1, options, |_: Option<Document>, _| {
            Ok::<_, std::convert::Infallible>(next.clone())
        });
        change.await.unwrap();
    }
    check_log(storage.backend().as_ref(), &DocumentKey::new("things", 1)).await;
}

/// An update that fails, for whatever reason, leaves neither document nor log entry, and the document
/// that was there as it was.
pub async fn failed_updates_leave_no_trace(store: &dyn TestStore) {
    let unique = CollectionSpec::new("users").with_index(Index::on("email").unique());
    let refuse = |change: &crate::ChangeView<'_>| match change.after_as::<Document>()? {
        Some(user) if user.contains_key("unmappable") => Err(crate::MapError::new("refused")),
        _ => Ok(vec![NewEvent::of_change("UserChanged")?]),
    };
    let storage = open_with(store, |builder| {
        builder.collection(unique).mapper("users", refuse)
    })
    .await;
    storage
        .update(
            "users",
            "other",
            |_: Option<Document>| doc! { "email": "taken" },
        )
        .await
        .unwrap();
    let huge = "x".repeat(storage.backend().capabilities().max_document_bytes);
    let failing = [
        (doc! { "email": "taken" }, ErrorKind::Constraint),
        (
            doc! { "email": "a", "unmappable": true },
            ErrorKind::Mapping,
        ),
        (doc! { "email": "b", "huge": huge }, ErrorKind::TooLarge),
    ];
    let key = DocumentKey::new("users", "u");
    for entries in 0..2 {
        let before = load_raw(&storage, &key).await;
        for (document, kind) in &failing {
            let failed = storage.update("users", "u", |_: Option<Document>| document.clone());
            assert_eq!(failed.await.unwrap_err().kind(), *kind);
        }
        let stale = UpdateOptions::new().with_expected(99);
        let failed = storage.update_with("users", "u", stale, |_: Option<Document>, _| doc! {});
        assert_eq!(failed.await.unwrap_err().kind(), ErrorKind::VersionConflict);
        let rejected = storage.update("users", "u", |_: Option<Document>| Err::<Document, _>("no"));
        assert_eq!(rejected.await.unwrap_err().rejected(), Some(&"no"));
        let rolled_back = storage.transaction(|tx| async move {
            tx.update("users", "u", |_: Option<Document>| doc! { "email": "lost" })
                .await?;
            Err::<(), _>(Error::new(ErrorKind::NotFound, "part of the case"))
        });
        assert!(rolled_back.await.is_err());
        assert_eq!(load_raw(&storage, &key).await, before);
        assert_eq!(log_of(&storage, &key).await.len(), entries);
        storage
            .update("users", "u", |_: Option<Document>| doc! { "email": "mine" })
            .await
            .unwrap();
    }
    check_log(storage.backend().as_ref(), &key).await;
}
