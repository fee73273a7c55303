//! The public signatures take what users write: in spawned tasks, with borrowed captures, with values
//! that are not `Send`, with every form of outcome; and the common mistakes give errors that help.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::cell::Cell;
use std::rc::Rc;

use nodestorage::{
    Change, ChangeKind, Error, ErrorKind, NewEvent, Storage, UpdateContext, UpdateError,
    UpdateOptions,
};
use serde::{Deserialize, Serialize};

#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
struct User {
    name: String,
    logins: u32,
}

#[derive(Debug, PartialEq)]
struct Rejected(String);

async fn storage() -> Storage {
    Storage::builder()
        .url("embedded::memory:")
        .open()
        .await
        .unwrap()
}

#[tokio::test]
async fn update_takes_every_outcome() -> Result<(), Box<dyn std::error::Error>> {
    let storage = storage().await;
    // T: the error is the crate's own.
    let change: Result<Change<User>, Error> = storage
        .update("users", "u", |user: Option<User>| {
            let mut user = user.unwrap_or_default();
            user.logins += 1;
            user
        })
        .await;
    assert_eq!(change?.kind(), ChangeKind::Created);
    // Result<T, E>
    let rejected = storage
        .update("users", "u", |user: Option<User>| {
            let user = user.ok_or(Rejected("no user".into()))?;
            if user.logins > 0 {
                return Err(Rejected(user.name));
            }
            Ok(user)
        })
        .await;
    assert_eq!(
        rejected.unwrap_err().rejected(),
        Some(&Rejected(String::new()))
    );
    // Result<Option<T>, E>
    let change = storage
        .update("users", "u", |_: Option<User>| {
            Ok::<Option<User>, Rejected>(None)
        })
        .await
        .unwrap();
    assert_eq!(change.kind(), ChangeKind::Deleted);
    Ok(())
}

#[tokio::test]
async fn a_domain_error_that_holds_the_storages_flattens() {
    #[derive(Debug)]
    enum Failed {
        Empty,
        Storage(Error),
    }
    impl From<Error> for Failed {
        fn from(error: Error) -> Self {
            Self::Storage(error)
        }
    }
    async fn rename(storage: &Storage, id: &str, name: &str) -> Result<u64, Failed> {
        let change = storage
            .collection::<User>("users")
            .modify(id, |user| {
                if name.is_empty() {
                    return Err(Failed::Empty);
                }
                user.name = name.into();
                Ok(())
            })
            .await
            .map_err(UpdateError::flatten)?;
        Ok(change.version().get())
    }
    let storage = storage().await;
    let Err(Failed::Storage(error)) = rename(&storage, "u", "Ann").await else {
        panic!("there is no user");
    };
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let users = storage.collection::<User>("users");
    users.create("u", User::default()).await.unwrap();
    assert!(matches!(
        rename(&storage, "u", "").await,
        Err(Failed::Empty)
    ));
    assert_eq!(rename(&storage, "u", "Ann").await.unwrap(), 2);
}

#[tokio::test]
async fn every_call_runs_in_a_spawned_task() {
    let storage = storage().await;
    let name = String::from("Ann");
    let task = tokio::spawn(async move {
        let user = |user: Option<User>| User {
            name: name.clone(),
            ..user.unwrap_or_default()
        };
        storage.update("users", 1, user).await?;
        storage
            .update_with(
                "users",
                1,
                UpdateOptions::new(),
                |user: Option<User>, context| {
                    context.emit(NewEvent::new("Seen", context.attempt())?);
                    user.ok_or_else(|| Error::new(ErrorKind::NotFound, "gone"))
                },
            )
            .await
            .map_err(UpdateError::flatten)?;
        storage
            .update_async(
                "users",
                1,
                UpdateOptions::new(),
                |user: Option<User>, _| async move {
                    tokio::task::yield_now().await;
                    let mut user = user.unwrap_or_default();
                    user.logins += 1;
                    user
                },
            )
            .await?;
        let users = storage.collection::<User>("users");
        users.modify(1, |user| user.logins += 1).await?;
        users.update(1, |user| user.unwrap_or_default()).await?;
        storage
            .transaction(|tx| async move {
                let user = tx.load::<User>("users", 1).await?;
                tx.update("users", 2, |_| user.clone().into_inner()).await?;
                tx.modify("users", 1, |user: &mut User| user.logins = 0)
                    .await?;
                Ok::<_, Error>(user.logins)
            })
            .await
            .map_err(UpdateError::flatten)
    });
    assert_eq!(task.await.unwrap().unwrap(), 2);
}

#[tokio::test]
async fn closures_borrow_from_their_caller_also_in_spawned_tasks() {
    let storage = storage().await;
    let task = tokio::spawn(async move {
        let names = vec![String::from("Ann"), String::from("Bob")];
        let mut runs = 0;
        for name in &names {
            storage
                .update("users", name.as_str(), |_: Option<User>| {
                    runs += 1;
                    User {
                        name: name.clone(),
                        logins: 0,
                    }
                })
                .await
                .unwrap();
        }
        let mut seen = 0;
        storage
            .collection::<User>("users")
            .modify("Ann", |user| seen = user.name.len())
            .await
            .unwrap();
        let names = &names;
        let written = storage
            .transaction(|tx| async move {
                for name in names {
                    tx.modify("users", name.as_str(), |user: &mut User| user.logins += 1)
                        .await?;
                }
                Ok::<_, Error>(names.len())
            })
            .await
            .unwrap();
        (runs, seen, written)
    });
    assert_eq!(task.await.unwrap(), (2, 3, 2));
}

#[tokio::test]
async fn what_is_not_send_stays_on_its_thread() {
    let local = tokio::task::LocalSet::new();
    let logins = local
        .run_until(async {
            let storage = storage().await;
            let counter = Rc::new(Cell::new(0));
            let counted = Rc::clone(&counter);
            tokio::task::spawn_local(async move {
                for _ in 0..3 {
                    let update = |user: Option<User>, _: UpdateContext| {
                        let counted = Rc::clone(&counted);
                        async move {
                            counted.set(counted.get() + 1);
                            tokio::task::yield_now().await;
                            User {
                                logins: counted.get(),
                                ..user.unwrap_or_default()
                            }
                        }
                    };
                    let options = UpdateOptions::new();
                    storage
                        .update_async("users", 1, options, update)
                        .await
                        .unwrap();
                }
                storage.load::<User>("users", 1).await.unwrap().logins
            })
            .await
            .unwrap()
        })
        .await;
    assert_eq!(logins, 3);
}

#[test]
fn common_mistakes_are_explained() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
