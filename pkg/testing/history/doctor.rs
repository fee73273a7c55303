//! Documents and their log against each other.

use bson::{Bson, Document, doc, rawdoc};

use crate::document::{DocumentKey, Version};
use crate::event::NewEvent;
use crate::history::Problem;
use crate::storage::{CollectionSpec, Storage, UpdateOptions};
use crate::testing::TestStore;
use crate::testing::support::{User, foreign, open, open_with};

async fn write(storage: &Storage, id: &str, names: &[&str]) {
    for name in names {
        let write = |_: Option<User>| User::new(name);
        storage.update("users", id, write).await.unwrap();
    }
}

/// What was written by the storage alone is in order: documents, deleted ones, those of several
/// collections, streams.
pub async fn what_the_storage_wrote_is_healthy(store: &dyn TestStore) {
    let storage = open(store).await;
    for n in 0..40 {
        write(&storage, &format!("u{n}"), &["a", "b"]).await;
    }
    for _ in 0..110 {
        let count = |before: Option<Document>| {
            let n = before
                .and_then(|before| before.get_i64("n").ok())
                .unwrap_or(0);
            doc! { "n": n + 1 }
        };
        storage.update("counters", 1, count).await.unwrap();
    }
    storage.delete("users", "u3").await.unwrap();
    let events = vec![NewEvent::new("OrderPlaced", ()).unwrap()];
    let options = UpdateOptions::default();
    storage.append("order-1", events, options).await.unwrap();

    let report = storage.doctor(None).await.unwrap();
    assert!(report.is_healthy(), "{:?}", report.findings);
    assert_eq!((report.documents, report.versions), (42, 80 + 1 + 110 + 1));
    let users = storage.doctor(Some("users")).await.unwrap();
    assert_eq!((users.documents, users.versions), (40, 81));
}

/// What other programs did is found and named: changed without raising the version, never logged,
/// ahead of the log, behind it, without a version, deleted, deleted and back.
pub async fn what_other_programs_did_is_found(store: &dyn TestStore) {
    let storage = open(store).await;
    for id in [
        "ahead", "back", "behind", "changed", "fine", "gone", "stripped",
    ] {
        write(&storage, id, &["a", "b", "c"]).await;
    }
    storage.delete("users", "back").await.unwrap();
    let foreign = foreign(store).await;
    let put = async |id: &str, version: Option<i64>| {
        let mut document = rawdoc! { "_id": id, "name": "theirs" };
        if let Some(version) = version {
            document.append(bson::raw::cstr!("version"), version);
        }
        foreign.put(&DocumentKey::new("users", id), document).await;
    };
    put("ahead", Some(5)).await;
    put("back", Some(4)).await;
    put("behind", Some(2)).await;
    put("changed", Some(3)).await;
    put("stripped", None).await;
    put("strange", Some(7)).await;
    foreign.delete(&DocumentKey::new("users", "gone")).await;

    let report = storage.doctor(None).await.unwrap();
    let mut found: Vec<_> = report
        .findings
        .iter()
        .map(|finding| {
            let id = finding.key.id().to_string();
            (
                id,
                finding.version.map(Version::get),
                finding.problem.clone(),
            )
        })
        .collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    let logged = Version::new(3);
    let expected = [
        ("ahead", Some(5), Problem::Ahead { logged }),
        ("back", Some(4), Problem::Undeleted),
        ("behind", Some(2), Problem::Behind { logged }),
        ("changed", Some(3), Problem::Changed),
        ("gone", Some(3), Problem::Missing),
        ("strange", Some(7), Problem::NotLogged),
        ("stripped", None, Problem::Unversioned),
    ];
    let expected = expected.map(|(id, version, problem)| (id.to_owned(), version, problem));
    assert_eq!(found, expected);
    assert_eq!(report.problems, 7);
    assert_eq!(report.documents, 8);
    let message = report.findings.iter().map(ToString::to_string);
    assert!(
        message
            .into_iter()
            .any(|line| line.starts_with("users/changed at version 3: "))
    );

    // The next updates adopt what they find, all but the change that nobody can notice.
    for id in ["ahead", "back", "behind", "gone", "strange", "stripped"] {
        write(&storage, id, &["ours"]).await;
    }
    let report = storage.doctor(Some("users")).await.unwrap();
    let problems: Vec<_> = report
        .findings
        .iter()
        .map(|finding| &finding.problem)
        .collect();
    assert_eq!(problems, [&Problem::Changed]);
}

/// Documents of declared collections are checked even if none of them was ever logged.
pub async fn declared_collections_are_checked_without_a_log(store: &dyn TestStore) {
    let users = CollectionSpec::new("users");
    let storage = open_with(store, |builder| builder.collection(users)).await;
    assert!(storage.doctor(None).await.unwrap().is_healthy());
    let key = DocumentKey::new("users", "u1");
    let document = rawdoc! { "_id": "u1", "version": 3_i64 };
    foreign(store).await.put(&key, document).await;
    let report = storage.doctor(None).await.unwrap();
    assert_eq!(report.problems, 1);
    assert_eq!(report.findings[0].key, key);
    assert_eq!(report.findings[0].version, Some(Version::new(3)));
    assert_eq!(report.findings[0].problem, Problem::NotLogged);
}

/// A version field that holds no version is found, with its type and without its content.
pub async fn a_version_field_without_a_version_is_found(store: &dyn TestStore) {
    let storage = open(store).await;
    write(&storage, "u1", &["a"]).await;
    let document = doc! { "_id": "u1", "version": Bson::from("secret") };
    let document = bson::RawDocumentBuf::try_from(&document).unwrap();
    let foreign = foreign(store).await;
    foreign
        .put(&DocumentKey::new("users", "u1"), document)
        .await;
    let report = storage.doctor(Some("users")).await.unwrap();
    assert_eq!(report.problems, 1);
    let message = report.findings[0].to_string();
    assert!(matches!(
        report.findings[0].problem,
        Problem::BadVersion { .. }
    ));
    assert!(
        message.contains("String") && !message.contains("secret"),
        "{message}"
    );
}
