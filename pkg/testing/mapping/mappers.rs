//! Default and custom mappers, and events that closures emit.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::document::DocumentKey;
use crate::error::ErrorKind;
use crate::event::{
    ChangeKind, ChangeView, DefaultEventMapper, Event, EventId, EventMapper, EventNames, MapError,
    Metadata, NewEvent,
};
use crate::storage::{Change, UpdateOptions};
use crate::testing::support::{User, load_raw, log_of, open, open_with};
use crate::testing::{TestStore, check_log};

fn types<T>(change: &Change<T>) -> Vec<&str> {
    change.events().iter().map(Event::event_type).collect()
}

/// By default creations, updates and deletions make one event each, named after the collection in
/// Pascal case.
pub async fn default_events_are_named_after_the_collection(store: &dyn TestStore) {
    let storage = open(store).await;
    for (collection, name) in [
        ("users", "Users"),
        ("order_items", "OrderItems"),
        ("app.order-items", "AppOrderItems"),
    ] {
        let created = storage
            .update(collection, 1, |_| User::new("a"))
            .await
            .unwrap();
        assert_eq!(types(&created), [format!("{name}Created")]);
        assert_eq!(created.events()[0].aggregate_type(), name);
        let updated = storage
            .update(collection, 1, |_| User::new("b"))
            .await
            .unwrap();
        assert_eq!(types(&updated), [format!("{name}Updated")]);
        let deleted = storage.delete(collection, 1).await.unwrap();
        assert_eq!(types(&deleted), [format!("{name}Deleted")]);
        check_log(storage.backend().as_ref(), created.document()).await;
    }
}

/// A collection's registered names take the place of the default ones, for it alone.
pub async fn registered_names_take_the_place_of_the_default_ones(store: &dyn TestStore) {
    let storage = open_with(store, |builder| {
        let people = EventNames::of("Person")
            .with_created("PersonJoined")
            .with_deleted("PersonLeft");
        builder.default_mapper(DefaultEventMapper::new().with_names("users", people))
    })
    .await;
    let created = storage
        .update("users", 1, |_| User::new("a"))
        .await
        .unwrap();
    let updated = storage
        .update("users", 1, |_| User::new("b"))
        .await
        .unwrap();
    let deleted = storage.delete("users", 1).await.unwrap();
    assert_eq!(types(&created), ["PersonJoined"]);
    assert_eq!(types(&updated), ["PersonUpdated"]);
    assert_eq!(types(&deleted), ["PersonLeft"]);
    assert_eq!(created.events()[0].aggregate_type(), "Person");
    let other = storage
        .update("admins", 1, |_| User::new("a"))
        .await
        .unwrap();
    assert_eq!(types(&other), ["AdminsCreated"]);
}

/// What the custom mapper of the cases makes: nothing, one, or several events.
fn map_users(change: &ChangeView<'_>) -> Result<Vec<NewEvent>, MapError> {
    if change.kind() == ChangeKind::Deleted {
        return Ok(Vec::new());
    }
    let mut events = vec![NewEvent::of_change("UserChanged")?];
    if change.diff().changed("email") {
        let email = change.diff().after("email");
        events.push(NewEvent::new("UserEmailChanged", json!({ "email": email }))?.with_schema(2));
    }
    Ok(events)
}

/// A custom mapper makes the events of its collection, several or none; other collections fall back to
/// the default mapper.
pub async fn a_custom_mapper_serves_its_collection_only(store: &dyn TestStore) {
    let storage = open_with(store, |builder| builder.mapper("users", map_users)).await;
    let created = storage
        .update("users", 1, |_| User::new("a"))
        .await
        .unwrap();
    assert_eq!(types(&created), ["UserChanged", "UserEmailChanged"]);
    let email = storage
        .collection::<User>("users")
        .modify(1, |user| user.email = "e".into())
        .await
        .unwrap();
    assert_eq!(types(&email), ["UserChanged", "UserEmailChanged"]);
    assert_eq!(email.events()[1].data(), &json!({ "email": "e" }));
    assert_eq!(
        (email.events()[1].schema(), email.events()[1].index()),
        (2, 1)
    );
    let name = storage
        .collection::<User>("users")
        .modify(1, |user| user.name = "b".into())
        .await
        .unwrap();
    assert_eq!(types(&name), ["UserChanged"]);
    let deleted = storage.delete("users", 1).await.unwrap();
    assert_eq!((deleted.version().get(), types(&deleted)), (4, vec![]));
    let other = storage
        .update("admins", 1, |_| User::new("a"))
        .await
        .unwrap();
    assert_eq!(types(&other), ["AdminsCreated"]);
    let log = check_log(storage.backend().as_ref(), created.document()).await;
    assert_eq!(
        log.versions(),
        [1, 2, 3, 4],
        "a change without events is logged too"
    );
}

/// A mapper sees the change as it is committed: kind, version, both states with `_id` and version, the
/// diff, and the metadata.
pub async fn a_mapper_sees_the_whole_change(store: &dyn TestStore) {
    struct Tell;
    impl EventMapper for Tell {
        fn map(&self, change: &ChangeView<'_>) -> Result<Vec<NewEvent>, MapError> {
            let name = |user: Option<User>| user.map(|user| user.name);
            let number = |document: Option<&bson::RawDocument>| {
                document.map(|document| document.get_i64("version").ok())
            };
            let told = json!({
                "kind": change.kind().to_string(),
                "key": change.document().to_string(),
                "version": change.version().get(),
                "before": name(change.before_as()?),
                "after": name(change.after_as()?),
                "versions": [number(change.before()), number(change.after())],
                "patch": change.diff().merge_patch()?.into_value(),
                "actor": change.metadata().actor,
            });
            Ok(vec![NewEvent::new("Told", told)?])
        }

        fn aggregate_type(&self, _: &str) -> String {
            "Person".to_owned()
        }
    }
    let storage = open_with(store, |builder| builder.mapper("users", Tell)).await;
    let by = |actor: &str| UpdateOptions::new().with_metadata(Metadata::new().with_actor(actor));
    let created = storage
        .update_with("users", 1, by("me"), |_, _| User::new("a"))
        .await
        .unwrap();
    let updated = storage
        .update_with("users", 1, by("you"), |_, _| User::new("b"))
        .await
        .unwrap();
    let deleted = storage.delete("users", 1).await.unwrap();
    assert_eq!(
        created.events()[0].data(),
        &json!({ "kind": "created", "key": "users/1", "version": 1, "before": null, "after": "a",
            "versions": [null, 1], "patch": { "name": "a", "email": "" }, "actor": "me" })
    );
    assert_eq!(
        updated.events()[0].data(),
        &json!({ "kind": "updated", "key": "users/1", "version": 2, "before": "a", "after": "b",
            "versions": [1, 2], "patch": { "name": "b" }, "actor": "you" })
    );
    assert_eq!(
        deleted.events()[0].data(),
        &json!({ "kind": "deleted", "key": "users/1", "version": 3, "before": "b", "after": null,
            "versions": [2, null], "patch": null, "actor": null })
    );
    assert_eq!(created.events()[0].aggregate_type(), "Person");
}

/// A mapper that refuses a change fails the update with `Mapping`, the reason and the document's name;
/// nothing is written, alone or in a transaction.
pub async fn a_failing_mapper_writes_nothing(store: &dyn TestStore) {
    let refuse = |change: &ChangeView<'_>| match change.after_as::<User>()? {
        Some(user) if user.name == "refused" => Err(MapError::new("no such name")),
        _ => Ok(vec![NewEvent::of_change("UserChanged")?]),
    };
    let storage = open_with(store, |builder| builder.mapper("users", refuse)).await;
    let mut runs = 0;
    let refused = storage.update("users", 1, |_| {
        runs += 1;
        User::new("refused")
    });
    let error = refused.await.unwrap_err();
    assert_eq!((error.kind(), runs), (ErrorKind::Mapping, 1));
    let message = error.to_string();
    assert!(
        message.contains("users/1") && message.contains("no such name"),
        "{message}"
    );
    let transaction = storage.transaction(|tx| async move {
        tx.update("users", 2, |_| User::new("fine")).await?;
        tx.update("users", 1, |_| User::new("refused")).await
    });
    assert_eq!(
        transaction.await.unwrap_err().kind(),
        Some(ErrorKind::Mapping)
    );
    for id in [1, 2] {
        let key = DocumentKey::new("users", id);
        assert_eq!(load_raw(&storage, &key).await, None);
        assert!(
            check_log(storage.backend().as_ref(), &key)
                .await
                .entries
                .is_empty()
        );
    }
    storage
        .update("users", 1, |_| User::new("fine"))
        .await
        .unwrap();
}

/// A mapper that panics takes only its own caller with it; nothing is written, and the next update of
/// the document goes on.
pub async fn a_panicking_mapper_writes_nothing(store: &dyn TestStore) {
    let calls = Arc::new(AtomicUsize::new(0));
    let panic_first = {
        let calls = Arc::clone(&calls);
        move |_: &ChangeView<'_>| -> Result<Vec<NewEvent>, MapError> {
            if calls.fetch_add(1, Ordering::SeqCst) == 0 {
                panic!("part of the case: the mapper panics");
            }
            Ok(vec![NewEvent::of_change("UserChanged")?])
        }
    };
    let storage = open_with(store, |builder| builder.mapper("users", panic_first)).await;
    let update = {
        let storage = storage.clone();
        tokio::spawn(async move { storage.update("users", 1, |_| User::new("a")).await.is_ok() })
    };
    assert!(update.await.unwrap_err().is_panic());
    let key = DocumentKey::new("users", 1);
    assert_eq!(load_raw(&storage, &key).await, None);
    let change = storage
        .update("users", 1, |_| User::new("b"))
        .await
        .unwrap();
    assert_eq!(
        (change.version().get(), types(&change)),
        (1, vec!["UserChanged"])
    );
    check_log(storage.backend().as_ref(), &key).await;
}

/// Event ids derive from store, document, version and index: a change that is mapped twice, because it
/// lost a race, has the ids that it would have had at once, and no two events share one.
pub async fn event_ids_follow_from_what_they_are_about(store: &dyn TestStore) {
    let storage = open_with(store, |builder| builder.mapper("users", map_users)).await;
    let users = storage.collection::<User>("users");
    users.create(1, User::new("a")).await.unwrap();
    let change = storage.update_async(
        "users",
        1,
        UpdateOptions::new(),
        |user: Option<User>, context| {
            let users = users.clone();
            async move {
                if context.attempt() == 1 {
                    users
                        .modify(1, |user| user.name = "overtaken".into())
                        .await
                        .unwrap();
                }
                User {
                    email: "e".into(),
                    ..user.unwrap()
                }
            }
        },
    );
    let change = change.await.unwrap();
    let id = storage.backend().store_id();
    let expected: Vec<_> = (0..2)
        .map(|index| EventId::derive(id, change.document(), 3.into(), index))
        .collect();
    let found: Vec<_> = change.events().iter().map(Event::id).collect();
    assert_eq!(found, expected);
    let mut ids = Vec::new();
    for entry in log_of(&storage, change.document()).await {
        ids.extend(entry.events.iter().map(|event| event.id));
    }
    let all = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!((all, ids.len()), (5, 5));
}

/// Events that a closure emits follow those of the mapper, in the order in which they were emitted; those
/// of runs that did not count are gone.
pub async fn emitted_events_follow_the_mapped_ones(store: &dyn TestStore) {
    let storage = open(store).await;
    let users = storage.collection::<User>("users");
    users.create(1, User::new("a")).await.unwrap();
    let change = storage.update_async(
        "users",
        1,
        UpdateOptions::new(),
        |user: Option<User>, context| {
            let users = users.clone();
            async move {
                context.emit(NewEvent::new("First", json!(context.attempt()))?);
                if context.attempt() == 1 {
                    users
                        .modify(1, |user| user.name = "overtaken".into())
                        .await
                        .unwrap();
                }
                context.emit(NewEvent::new(
                    "Second",
                    json!(context.version().map(|v| v.get())),
                )?);
                Ok::<_, crate::Error>(User {
                    email: "e".into(),
                    ..user.unwrap()
                })
            }
        },
    );
    let change = change.await.unwrap();
    assert_eq!(types(&change), ["UsersUpdated", "First", "Second"]);
    assert_eq!(change.events()[1].data(), &json!(2));
    assert_eq!(change.events()[2].data(), &json!(2));
    let log = check_log(storage.backend().as_ref(), change.document()).await;
    let logged = log.entries.last().unwrap().to_events().unwrap();
    assert_eq!(logged, change.events());
}

/// An update that emits is a version of its own even if the document stays equal, with an empty patch
/// and without mapped events; also where there is no document.
pub async fn emitting_without_a_change_is_a_version(store: &dyn TestStore) {
    let storage = open(store).await;
    let emit = |user: Option<User>, context: &mut crate::UpdateContext| {
        context.emit(NewEvent::new("UserGreeted", json!({})).unwrap());
        Ok::<_, std::convert::Infallible>(user)
    };
    storage
        .update("users", 1, |_| User::new("a"))
        .await
        .unwrap();
    let change = storage
        .update_with("users", 1, UpdateOptions::new(), emit)
        .await
        .unwrap();
    assert_eq!(
        (change.kind(), change.version().get()),
        (ChangeKind::Updated, 2)
    );
    assert!(change.diff().is_empty());
    assert_eq!(types(&change), ["UserGreeted"]);
    assert_eq!(storage.load::<User>("users", 1).await.unwrap().version(), 2);
    check_log(storage.backend().as_ref(), change.document()).await;

    let nobody = storage
        .update_with("users", 2, UpdateOptions::new(), emit)
        .await
        .unwrap();
    assert_eq!(
        (nobody.version().get(), types(&nobody)),
        (1, vec!["UserGreeted"])
    );
    assert!(storage.find::<User>("users", 2).await.unwrap().is_none());
    let created = storage
        .update("users", 2, |_| User::new("b"))
        .await
        .unwrap();
    assert_eq!(
        (created.kind(), created.version().get()),
        (ChangeKind::Created, 2)
    );
    check_log(storage.backend().as_ref(), created.document()).await;
}

/// Metadata travels with the change, its log entry and each of its events; a closure may change it.
pub async fn metadata_travels_with_the_events(store: &dyn TestStore) {
    let storage = open(store).await;
    let metadata = Metadata::new()
        .with_correlation("c-1")
        .with_causation("e-1")
        .with_actor("me")
        .with_tenant("t")
        .with_trace(
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            Some("a=b".into()),
        )
        .with_extra("k.$", "\u{10ffff}");
    let options = UpdateOptions::new().with_metadata(metadata.clone());
    let change = storage.update_with("users", 1, options.clone(), |_, context| {
        context.emit(NewEvent::new("UserGreeted", Value::Null).unwrap());
        User::new("a")
    });
    let change = change.await.unwrap();
    assert_eq!(change.events().len(), 2);
    assert!(
        change
            .events()
            .iter()
            .all(|event| event.metadata() == &metadata)
    );
    let changed = storage.update_with("users", 1, options, |_, context| {
        context.set_metadata(|metadata| metadata.actor = Some("you".into()));
        User::new("b")
    });
    assert_eq!(
        changed.await.unwrap().events()[0]
            .metadata()
            .actor
            .as_deref(),
        Some("you")
    );
    let log = log_of(&storage, change.document()).await;
    assert_eq!(log[0].metadata, metadata);
    assert_eq!(log[0].to_events().unwrap(), change.events());
    assert_eq!(log[1].metadata, metadata.with_actor("you"));
}

/// Event types and data that cannot be stored are refused when the event is made or the change is
/// mapped, and nothing is written.
pub async fn unusable_events_are_refused(store: &dyn TestStore) {
    for name in ["", "a\nb", "a\0", &"x".repeat(257)] {
        let error = NewEvent::new(name, Value::Null).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidName, "{name:?}");
    }
    let bad =
        |change: &ChangeView<'_>| match change.after_as::<User>()?.map(|user| user.name).as_deref()
        {
            Some("type") => Ok(vec![NewEvent::new("", Value::Null)?]),
            _ => Ok(vec![NewEvent::new("Big", json!({ "n": u64::MAX }))?]),
        };
    let storage = open_with(store, |builder| builder.mapper("users", bad)).await;
    for (name, kind) in [
        ("type", ErrorKind::Mapping),
        ("data", ErrorKind::Serialization),
    ] {
        let refused = storage.update("users", 1, |_| User::new(name)).await;
        assert_eq!(refused.unwrap_err().kind(), kind, "{name}");
        assert_eq!(
            load_raw(&storage, &DocumentKey::new("users", 1)).await,
            None
        );
    }
}
