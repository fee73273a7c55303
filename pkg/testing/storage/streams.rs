//! Event streams without a document.

use futures_util::future::join_all;
use serde_json::json;

use crate::document::{DocumentKey, ExpectedVersion, Version};
use crate::error::ErrorKind;
use crate::event::{Event, Metadata, NewEvent};
use crate::storage::backend::EntryKind;
use crate::storage::{Storage, UpdateOptions};
use crate::testing::support::open;
use crate::testing::{TestStore, check_log};

fn event(number: usize) -> NewEvent {
    NewEvent::new("Counted", json!({ "number": number })).unwrap()
}

fn numbers(events: &[Event]) -> Vec<u64> {
    events
        .iter()
        .map(|event| event.data()["number"].as_u64().unwrap())
        .collect()
}

async fn append(storage: &Storage, stream: &str, numbers: std::ops::Range<usize>) -> Version {
    let events = numbers.map(event).collect();
    let appended = storage.append(stream, events, UpdateOptions::new()).await;
    appended.unwrap().version()
}

/// Events are appended and read back in order, each as one version of its stream, with type, data,
/// metadata, and the aggregate type that the stream's name begins with.
pub async fn appended_events_are_read_back(store: &dyn TestStore) {
    let storage = open(store).await;
    let options = UpdateOptions::new().with_metadata(Metadata::new().with_actor("me"));
    let events = vec![
        NewEvent::new("OrderPlaced", json!({ "total": 5, "note": null })).unwrap(),
        NewEvent::new("OrderPaid", json!("cash"))
            .unwrap()
            .with_schema(3),
    ];
    let appended = storage.append("order-42", events, options).await.unwrap();
    assert_eq!(appended.version(), 2);
    assert_eq!(append(&storage, "order-42", 0..1).await, 3);
    let read = storage.read("order-42", ..).await.unwrap();
    assert_eq!(&read[..2], appended.events());
    let shape: Vec<_> = read
        .iter()
        .map(|event| (event.event_type(), event.version().get(), event.schema()))
        .collect();
    assert_eq!(
        shape,
        [
            ("OrderPlaced", 1, 1),
            ("OrderPaid", 2, 3),
            ("Counted", 3, 1)
        ]
    );
    assert_eq!(read[0].data(), &json!({ "total": 5, "note": null }));
    assert_eq!(read[1].data(), &json!("cash"));
    assert_eq!(read[0].metadata().actor.as_deref(), Some("me"));
    assert_eq!(read[0].aggregate_type(), "order");
    assert_eq!(read[0].aggregate_id().to_string(), "order-42");
    let log = check_log(storage.backend().as_ref(), read[0].document()).await;
    assert_eq!(log.kinds(), [EntryKind::Appended; 3]);
    assert_eq!(
        log.entries[0].commit, log.entries[1].commit,
        "one append is one commit"
    );
}

/// Ranges of versions are read as asked for: inclusive, exclusive, open, empty, beyond the end, and
/// longer than a page.
pub async fn streams_are_read_by_ranges_of_versions(store: &dyn TestStore) {
    let storage = open(store).await;
    for batch in 0..6 {
        append(&storage, "long", batch * 100..(batch + 1) * 100).await;
    }
    let all: Vec<u64> = (0..600).collect();
    assert_eq!(numbers(&storage.read("long", ..).await.unwrap()), all);
    assert_eq!(
        numbers(&storage.read("long", 1..=3).await.unwrap()),
        all[..3]
    );
    assert_eq!(
        numbers(&storage.read("long", 2..4).await.unwrap()),
        all[1..3]
    );
    assert_eq!(
        numbers(&storage.read("long", 301..).await.unwrap()),
        all[300..]
    );
    assert_eq!(
        numbers(&storage.read("long", ..=257).await.unwrap()),
        all[..257]
    );
    assert_eq!(
        numbers(&storage.read("long", 599..10_000).await.unwrap()),
        all[598..]
    );
    assert!(storage.read("long", 601..).await.unwrap().is_empty());
    assert!(storage.read("long", 5..5).await.unwrap().is_empty());
    assert!(storage.read("long", ..0).await.unwrap().is_empty());
    assert!(storage.read("never written", ..).await.unwrap().is_empty());
}

/// Expected versions guard a stream as they guard documents; a stream without events does not exist.
pub async fn appends_are_guarded_by_expected_versions(store: &dyn TestStore) {
    let storage = open(store).await;
    let expecting = |expected: ExpectedVersion| UpdateOptions::new().with_expected(expected);
    let cases = [
        (ExpectedVersion::MustExist, false),
        (ExpectedVersion::Exact(Version::new(1)), false),
        (ExpectedVersion::MustNotExist, true),
        (ExpectedVersion::MustNotExist, false),
        (ExpectedVersion::Exact(Version::new(1)), true),
        (ExpectedVersion::Exact(Version::new(1)), false),
        (ExpectedVersion::MustExist, true),
    ];
    let mut count = 0;
    for (expected, holds) in cases {
        match storage
            .append("s", vec![event(count)], expecting(expected))
            .await
        {
            Ok(_) => assert!(holds, "{expected:?} at {count}"),
            Err(error) => {
                assert!(!holds, "{expected:?} at {count}: {error:?}");
                assert_eq!(error.kind(), ErrorKind::VersionConflict);
                let actual = (count > 0).then(|| Version::new(count as u64));
                assert_eq!(error.version_conflict().unwrap().actual, actual);
            }
        }
        count += usize::from(holds);
    }
    let nothing = storage
        .append("s", Vec::new(), UpdateOptions::new())
        .await
        .unwrap();
    assert_eq!((nothing.version().get(), nothing.events().len()), (3, 0));
    assert_eq!(numbers(&storage.read("s", ..).await.unwrap()), [0, 1, 2]);
}

/// Appends from many tasks and storages leave no gap and no duplicate, and each append stays together.
pub async fn concurrent_appends_stay_together(store: &dyn TestStore) {
    let (one, other) = (open(store).await, open(store).await);
    let tasks = (0..12).map(|task| {
        let storage = if task % 2 == 0 {
            one.clone()
        } else {
            other.clone()
        };
        tokio::spawn(async move {
            for round in 0..5 {
                let first = (task * 5 + round) * 3;
                append(&storage, "s", first..first + 3).await;
            }
        })
    });
    for result in join_all(tasks).await {
        result.unwrap();
    }
    let read = one.read("s", ..).await.unwrap();
    let versions: Vec<u64> = read.iter().map(|event| event.version().get()).collect();
    assert_eq!(versions, (1..=180).collect::<Vec<_>>());
    let mut seen = numbers(&read);
    for chunk in seen.chunks(3) {
        assert_eq!(
            (chunk[0] % 3, chunk[1], chunk[2]),
            (0, chunk[0] + 1, chunk[0] + 2)
        );
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..180).collect::<Vec<_>>());
    check_log(one.backend().as_ref(), read[0].document()).await;
}

/// Streams and documents of the same name have nothing to do with each other, and streams of different
/// types of names neither.
pub async fn streams_are_apart_from_documents(store: &dyn TestStore) {
    let storage = open(store).await;
    storage
        .update("streams", "s", |_| bson::doc! { "a": 1 })
        .await
        .unwrap();
    append(&storage, "s", 0..1).await;
    let by_number = storage
        .append(1, vec![event(7)], UpdateOptions::new())
        .await
        .unwrap();
    append(&storage, "1", 1..2).await;
    assert_eq!(by_number.version(), 1);
    assert_eq!(numbers(&storage.read("1", ..).await.unwrap()), [1]);
    assert_eq!(numbers(&storage.read(1, ..).await.unwrap()), [7]);
    let log = check_log(
        storage.backend().as_ref(),
        &DocumentKey::new("streams", "s"),
    )
    .await;
    assert_eq!(log.kinds(), [EntryKind::Created]);
}
