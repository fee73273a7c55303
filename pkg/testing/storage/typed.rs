//! Rust types that show a stored document in another form.

use std::collections::{BTreeMap, HashMap, HashSet};

use bson::{RawDocumentBuf, rawdoc};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::document::DocumentKey;
use crate::error::{ErrorKind, Result};
use crate::event::ChangeKind;
use crate::storage::{Change, Storage};
use crate::testing::support::{assert_same_bytes, foreign, load_raw, open};
use crate::testing::{TestStore, check_log};

fn key() -> DocumentKey {
    DocumentKey::new("typed", 1)
}

/// A storage whose document `typed/1` was written by another program, at version 1.
async fn with_stored(store: &dyn TestStore, stored: &RawDocumentBuf) -> Storage {
    let storage = open(store).await;
    foreign(store).await.put(&key(), stored.clone()).await;
    storage
}

async fn modify<T: Serialize + DeserializeOwned>(
    storage: &Storage,
    change: impl FnMut(&mut T),
) -> Result<Change<T>> {
    let mut change = change;
    storage
        .collection::<T>("typed")
        .modify(1, |value| change(value))
        .await
}

/// The document is stored as expected, after its adoption.
async fn assert_stored(storage: &Storage, expected: RawDocumentBuf) {
    assert_same_bytes(&load_raw(storage, &key()).await.unwrap(), &expected);
    check_log(storage.backend().as_ref(), &key()).await;
}

/// The update failed with `Serialization` that names the path, and nothing was written.
async fn assert_refused<T>(
    storage: &Storage,
    result: Result<Change<T>>,
    path: &str,
    stored: &RawDocumentBuf,
) {
    let error = match result {
        Ok(change) => panic!("{change:?} was stored"),
        Err(error) => error,
    };
    assert_eq!(error.kind(), ErrorKind::Serialization, "{error:?}");
    assert!(error.to_string().contains("typed/1"), "{error}");
    assert!(error.to_string().contains(path), "{path} in {error}");
    assert_same_bytes(&load_raw(storage, &key()).await.unwrap(), stored);
    assert!(
        crate::testing::support::log_of(storage, &key())
            .await
            .is_empty()
    );
}

#[derive(Serialize, Deserialize, Default)]
#[serde(default)]
struct Settings {
    theme: Theme,
    title: String,
}

#[derive(Serialize, Deserialize, Default)]
#[serde(default)]
struct Theme {
    color: Color,
    font: String,
}

#[derive(Serialize, Deserialize, Default)]
#[serde(default)]
struct Color {
    name: String,
    alpha: i32,
}

/// A change below a parent that the stored document lacks, because the type defaults it, writes the
/// nearest missing ancestor whole; defaults that did not change are not written.
pub async fn a_change_below_a_defaulted_parent_writes_it_whole(store: &dyn TestStore) {
    let storage = with_stored(store, &rawdoc! { "_id": 1, "version": 1_i64, "title": "x" }).await;
    let change = modify(&storage, |settings: &mut Settings| {
        settings.theme.color.alpha = 7
    })
    .await;
    change.unwrap();
    assert_stored(
        &storage,
        rawdoc! {
            "_id": 1, "version": 3_i64, "title": "x",
            "theme": { "color": { "name": "", "alpha": 7 }, "font": "" },
        },
    )
    .await;
    modify(&storage, |settings: &mut Settings| {
        settings.title = "y".into()
    })
    .await
    .unwrap();
    let read = storage.load::<Settings>("typed", 1).await.unwrap();
    assert_eq!((read.theme.color.alpha, read.title.as_str()), (7, "y"));
    check_log(storage.backend().as_ref(), &key()).await;
}

/// Defaults that the closure did not touch are not written at all.
pub async fn untouched_defaults_are_not_written(store: &dyn TestStore) {
    let storage = with_stored(store, &rawdoc! { "_id": 1, "version": 1_i64 }).await;
    modify(&storage, |settings: &mut Settings| {
        settings.title = "x".into()
    })
    .await
    .unwrap();
    assert_stored(
        &storage,
        rawdoc! { "_id": 1, "version": 3_i64, "title": "x" },
    )
    .await;
    let same = modify(&storage, |_: &mut Settings| ()).await.unwrap();
    assert_eq!(same.kind(), ChangeKind::Unchanged);
}

/// A field that was read through an alias stays under its stored name while it does not change; changing
/// it is refused, because the type would write another name.
pub async fn an_aliased_field_is_kept_or_refused(store: &dyn TestStore) {
    #[derive(Serialize, Deserialize)]
    struct User {
        #[serde(alias = "mail")]
        email: String,
        name: String,
    }
    let stored = rawdoc! { "_id": 1, "version": 1_i64, "mail": "a", "name": "Ann" };
    let storage = with_stored(store, &stored).await;
    let refused = modify(&storage, |user: &mut User| user.email = "b".into()).await;
    assert_refused(&storage, refused, "mail", &stored).await;
    modify(&storage, |user: &mut User| user.name = "Bob".into())
        .await
        .unwrap();
    assert_stored(
        &storage,
        rawdoc! { "_id": 1, "version": 3_i64, "mail": "a", "name": "Bob" },
    )
    .await;
}

/// Renamed fields are stored under the name they are renamed to, in both directions.
pub async fn renamed_fields_are_stored_under_their_stored_names(store: &dyn TestStore) {
    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct User {
        first_name: String,
        #[serde(rename = "e-mail")]
        email: Option<String>,
    }
    let stored = rawdoc! { "_id": 1, "version": 1_i64, "firstName": "Ann", "e-mail": null, "first_name": "other" };
    let storage = with_stored(store, &stored).await;
    modify(&storage, |user: &mut User| {
        user.first_name = "Bob".into();
        user.email = Some("b".into());
    })
    .await
    .unwrap();
    assert_stored(
        &storage,
        rawdoc! { "_id": 1, "version": 3_i64, "firstName": "Bob", "e-mail": "b", "first_name": "other" },
    )
    .await;
}

/// A field that is read under one name and written under another cannot be changed.
pub async fn a_field_written_under_another_name_is_refused(store: &dyn TestStore) {
    #[derive(Serialize, Deserialize)]
    struct User {
        #[serde(rename(serialize = "newName", deserialize = "oldName"))]
        name: String,
    }
    let stored = rawdoc! { "_id": 1, "version": 1_i64, "oldName": "Ann" };
    let storage = with_stored(store, &stored).await;
    let refused = modify(&storage, |user: &mut User| user.name = "Bob".into()).await;
    assert_refused(&storage, refused, "newName", &stored).await;
}

/// A flattened map holds every key that the type does not name; keys are changed, added and removed.
pub async fn flattened_maps_change_add_and_remove_keys(store: &dyn TestStore) {
    #[derive(Serialize, Deserialize)]
    struct Form {
        title: String,
        #[serde(flatten)]
        answers: BTreeMap<String, bson::Bson>,
    }
    let stored = rawdoc! { "_id": 1, "q1": "a", "version": 1_i64, "title": "x", "q2": { "k": 1 }, "q3": 3_i64 };
    let storage = with_stored(store, &stored).await;
    modify(&storage, |form: &mut Form| {
        form.answers.insert("q1".into(), "b".into());
        form.answers.remove("q2");
        form.answers.insert("q4".into(), 4.into());
    })
    .await
    .unwrap();
    assert_stored(
        &storage,
        rawdoc! { "_id": 1, "q1": "b", "version": 3_i64, "title": "x", "q3": 3_i64, "q4": 4 },
    )
    .await;
}

/// A field that the type never writes stays as it is stored; a field that it writes only sometimes is
/// removed when it is no longer written.
pub async fn skipped_fields_stay_and_omitted_ones_go(store: &dyn TestStore) {
    #[derive(Serialize, Deserialize)]
    struct User {
        name: String,
        #[serde(skip)]
        cached: i32,
        #[serde(skip_serializing, default)]
        secret: String,
        #[serde(skip_serializing_if = "Option::is_none", default)]
        nick: Option<String>,
    }
    let stored = rawdoc! { "_id": 1, "version": 1_i64, "cached": 5, "secret": "s", "nick": "n", "name": "Ann" };
    let storage = with_stored(store, &stored).await;
    modify(&storage, |user: &mut User| {
        user.cached = 9;
        user.secret.clear();
        user.nick = None;
        user.name = "Bob".into();
    })
    .await
    .unwrap();
    assert_stored(
        &storage,
        rawdoc! { "_id": 1, "version": 3_i64, "cached": 5, "secret": "s", "name": "Bob" },
    )
    .await;
    let change = modify(&storage, |user: &mut User| user.nick = Some("m".into())).await;
    assert_eq!(change.unwrap().version(), 4);
}

/// Sets and maps without an order write nothing when nothing in them changed, and store what changed.
pub async fn sets_and_maps_without_an_order_change_by_value(store: &dyn TestStore) {
    #[derive(Serialize, Deserialize)]
    struct Tagged {
        tags: HashSet<String>,
        counts: HashMap<String, i32>,
    }
    let all: Vec<String> = (0..50).map(|n| format!("tag{n}")).collect();
    let storage = open(store).await;
    let tagged = storage.collection::<Tagged>("typed");
    tagged
        .update(1, |_| Tagged {
            tags: all.iter().cloned().collect(),
            counts: all.iter().cloned().zip(0..).collect(),
        })
        .await
        .unwrap();
    for _ in 0..3 {
        let change = modify(&storage, |tagged: &mut Tagged| {
            tagged.tags.insert("extra".into());
            tagged.counts.insert("tag7".into(), 700);
        });
        let change = change.await.unwrap();
        let after = change.after().unwrap().unwrap();
        assert_eq!((after.tags.len(), after.counts["tag7"]), (51, 700));
    }
    let found = storage.load::<Tagged>("typed", 1).await.unwrap();
    let mut tags: Vec<_> = found.tags.iter().cloned().collect();
    tags.sort();
    let mut expected = all.clone();
    expected.push("extra".into());
    expected.sort();
    assert_eq!(tags, expected);
    check_log(storage.backend().as_ref(), &key()).await;
    modify(&storage, |tagged: &mut Tagged| tagged.tags.clear())
        .await
        .unwrap();
    assert!(
        storage
            .load::<Tagged>("typed", 1)
            .await
            .unwrap()
            .tags
            .is_empty()
    );
    check_log(storage.backend().as_ref(), &key()).await;
}

/// Elements of an array are matched by value: unknown fields of those that stay or change in place
/// survive a removal and an insertion elsewhere.
pub async fn array_elements_are_matched_by_value(store: &dyn TestStore) {
    #[derive(Serialize, Deserialize)]
    struct Order {
        lines: Vec<Line>,
    }
    #[derive(Serialize, Deserialize)]
    struct Line {
        sku: String,
        count: i32,
    }
    let stored = rawdoc! { "_id": 1, "version": 1_i64, "lines": [
        { "sku": "a", "count": 1, "note": 1 }, { "sku": "b", "count": 1, "note": 2 }, { "sku": "c", "count": 1, "note": 3 },
    ] };
    let storage = with_stored(store, &stored).await;
    modify(&storage, |order: &mut Order| {
        order.lines.remove(0);
        order.lines.push(Line {
            sku: "d".into(),
            count: 4,
        });
    })
    .await
    .unwrap();
    assert_stored(
        &storage,
        rawdoc! { "_id": 1, "version": 3_i64, "lines": [
            { "sku": "b", "count": 1, "note": 2 }, { "sku": "c", "count": 1, "note": 3 }, { "sku": "d", "count": 4 },
        ] },
    )
    .await;
}

/// Enums, options and nested values change their shape in the stored document.
pub async fn enums_and_options_change_their_shape(store: &dyn TestStore) {
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    #[serde(tag = "kind")]
    enum Payment {
        Cash,
        Card {
            number: String,
            expires: Option<i32>,
        },
    }
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Order {
        payment: Payment,
        state: State,
        note: Option<(i32, String)>,
    }
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    enum State {
        Open,
        Shipped { by: String },
    }
    let storage = open(store).await;
    let orders = storage.collection::<Order>("typed");
    let card = Payment::Card {
        number: "1".into(),
        expires: None,
    };
    let states = [
        Order {
            payment: Payment::Cash,
            state: State::Open,
            note: None,
        },
        Order {
            payment: card.clone(),
            state: State::Open,
            note: Some((1, "x".into())),
        },
        Order {
            payment: card,
            state: State::Shipped { by: "sea".into() },
            note: Some((2, "x".into())),
        },
        Order {
            payment: Payment::Cash,
            state: State::Open,
            note: None,
        },
    ];
    for state in states {
        let change = orders.update(1, |_| state.clone()).await.unwrap();
        assert_eq!(change.after().unwrap(), Some(state.clone()));
        assert_eq!(orders.load(1).await.unwrap().into_inner(), state);
    }
    check_log(storage.backend().as_ref(), &key()).await;
}

/// A stored document that is no `T`, and a `T` that is no document, are `Serialization` with the
/// document's name and without its contents; nothing is written.
pub async fn what_does_not_fit_the_type_is_an_error(store: &dyn TestStore) {
    #[derive(Debug, Serialize, Deserialize)]
    struct Strict {
        count: i32,
    }
    #[derive(Debug, Serialize, Deserialize)]
    struct Odd {
        map: HashMap<u8, HashMap<String, u64>>,
    }
    let stored = rawdoc! { "_id": 1, "version": 1_i64, "count": "secret" };
    let storage = with_stored(store, &stored).await;
    let refused = modify(&storage, |strict: &mut Strict| strict.count = 1).await;
    if let Err(error) = &refused {
        assert!(!error.to_string().contains("secret"), "{error}");
    }
    assert_refused(&storage, refused, "", &stored).await;
    let error = storage.load::<Strict>("typed", 1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Serialization);
    let twice = [(1, HashMap::from([("n".to_owned(), u64::MAX)]))];
    let odd = storage.update("odd", 1, |_: Option<Odd>| Odd {
        map: HashMap::from(twice.clone()),
    });
    assert_eq!(odd.await.unwrap_err().kind(), ErrorKind::Serialization);
    let number = storage.update("odd", 1, |_: Option<i32>| 7).await;
    assert_eq!(number.unwrap_err().kind(), ErrorKind::Serialization);
    assert_eq!(load_raw(&storage, &DocumentKey::new("odd", 1)).await, None);
}
