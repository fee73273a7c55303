//! Documents, and the events that their changes become. Needs no server:
//!
//! ```text
//! cargo run --example quickstart
//! ```
//!
//! The same program against MongoDB (a replica set, which may have a single node):
//!
//! ```text
//! cargo run --example quickstart --features mongodb -- --url mongodb://127.0.0.1:27017/quickstart
//! ```
//!
//! And its events through a broker, from which any other program can have them as well:
//!
//! ```text
//! cargo run --example quickstart --features nats -- --bus nats://127.0.0.1:4222
//! cargo run --example quickstart --features redis -- --bus redis://127.0.0.1:6379
//! ```

use std::error::Error;
use std::sync::Arc;

use nodestorage::bus::Subscription;
use nodestorage::{ChangeKind, ChangeView, Event, EventMapper, MapError, NewEvent, Storage};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::Notify;

/// A model is any type that serde can read and write.
#[derive(Debug, Serialize, Deserialize)]
struct User {
    name: String,
    email: String,
}

/// Says which events a change becomes.
struct UserMapper;

impl EventMapper for UserMapper {
    fn map(&self, change: &ChangeView<'_>) -> Result<Vec<NewEvent>, MapError> {
        let mut events = vec![NewEvent::of_change(match change.kind() {
            ChangeKind::Created => "UserCreated",
            ChangeKind::Deleted => "UserDeleted",
            _ => "UserUpdated",
        })?];
        if change.kind() == ChangeKind::Updated && change.diff().changed("email") {
            let user = change.after_as::<User>()?;
            let email = user.map(|user| user.email);
            events.push(NewEvent::new(
                "UserEmailChanged",
                json!({ "new_email": email }),
            )?);
        }
        Ok(events)
    }

    fn aggregate_type(&self, _collection: &str) -> String {
        "User".to_owned()
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // React to changes.
    let deleted = Arc::new(Notify::new());
    let was_deleted = Arc::clone(&deleted);
    let show = move |event: Event| {
        println!(
            "event    {} of {} version {}",
            event.event_type(),
            event.document(),
            event.version()
        );
        if event.event_type() == "UserDeleted" {
            was_deleted.notify_one();
        }
        async {}
    };

    // Open a store: in memory here, in a file with `embedded:PATH`, or on a server; and a bus: in memory, or a
    // broker.
    let storage = Storage::builder()
        .url(argument("--url").unwrap_or_else(|| "embedded::memory:".into()))
        .bus_url(argument("--bus").unwrap_or_else(|| "memory:".into()))
        .subscribe(Subscription::to_all(), show)
        .mapper("users", UserMapper)
        .open()
        .await?;

    // Create. The closure gets the newest document, or None, and returns what it should become.
    let change = storage
        .update("users", "user123", |user: Option<User>| {
            user.unwrap_or_else(|| User {
                name: "John Doe".into(),
                email: "john@example.com".into(),
            })
        })
        .await?;
    println!(
        "{:<8} {}",
        change.kind().to_string(),
        change.diff().merge_patch()?
    );
    change.delivered().await?;

    // Update. Nobody has to publish anything: the change itself becomes the events.
    let users = storage.collection::<User>("users");
    let change = users
        .modify("user123", |user| user.email = "john.doe@example.com".into())
        .await?;
    println!(
        "{:<8} {}",
        change.kind().to_string(),
        change.diff().merge_patch()?
    );
    change.delivered().await?;

    // Delete.
    let change = users.delete("user123").await?;
    println!(
        "{:<8} {}",
        change.kind().to_string(),
        change.diff().merge_patch()?
    );
    change.delivered().await?;

    // Travel back in time: every version is still there.
    let first = change.version().get() - 2;
    let then = storage
        .history("users", "user123")
        .at_version(first)
        .await?;
    if let Some(then) = then {
        println!(
            "version {first} was {:?}",
            then.decode::<User>()?.into_inner()
        );
    }

    // The broker has confirmed the last event; it may still be on its way to us.
    deleted.notified().await;
    storage.close().await;
    Ok(())
}

/// The text after an option.
fn argument(option: &str) -> Option<String> {
    std::env::args()
        .skip_while(|argument| argument != option)
        .nth(1)
}
