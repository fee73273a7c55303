//! User management: a model, its commands, and a subscriber. Needs no server:
//!
//! ```text
//! cargo run --example simple
//! ```
//!
//! With a database and a broker, each of them empty:
//!
//! ```text
//! cargo run --example simple --features mongodb,redis -- \
//!     --url mongodb://127.0.0.1:27017/simple --bus redis://127.0.0.1:6379
//! ```

mod commands;
#[path = "../common/mod.rs"]
mod common;
mod events;
mod queries;
mod user;

use nodestorage::aggregate::Repository;
use nodestorage::bus::Subscription;
use nodestorage::command::{Command, Dispatcher};
use nodestorage::error::BoxError;
use nodestorage::{Event, UpdateError, VersionRange};
use serde_json::json;
use tokio::sync::mpsc;

use commands::UserCommand;
use common::{builder, heading, summary};
use queries::{GetUser, GetUsers, queries};
use user::User;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // React to what happens: whoever is new is welcomed. Here the welcome goes to a channel, so that this
    // program can print it in its place.
    let (outbox, mut welcomes) = mpsc::channel(16);
    let welcome = move |event: Event| {
        let outbox = outbox.clone();
        async move {
            let name = event.data()["name"].as_str().unwrap_or("stranger");
            let text = format!("welcome, {name} ({})", event.aggregate_id());
            outbox.send(text).await
        }
    };
    let storage = builder()
        .subscribe(Subscription::to("UserCreated"), welcome)
        .open()
        .await?;
    let users = Repository::<User>::new(&storage);
    let dispatcher = Dispatcher::builder().aggregate(users.clone())?.build();
    let queries = queries(&storage)?;

    heading("Create a user");
    // By name and with JSON, as a command arrives over HTTP or from a queue.
    let create_user = Command::new(
        "CreateUser",
        "user123",
        json!({ "name": "John Doe", "email": "john@example.com" }),
    );
    let created = dispatcher.dispatch(create_user).await;
    let created = created.map_err(UpdateError::flatten)?;
    println!("{}", summary(&created));
    println!("{}", welcomes.recv().await.ok_or("no welcome")?);

    heading("Update it");
    // Typed, as the program itself sends it.
    let update = |name: &str, email: &str| UserCommand::UpdateUser {
        name: name.into(),
        email: email.into(),
    };
    let renamed = update("John A. Doe", "john@example.com");
    println!("{}", summary(&dispatcher.send("user123", renamed).await?));
    let moved = update("John A. Doe", "john.doe@example.com");
    println!("{}", summary(&dispatcher.send("user123", moved).await?));
    let the_same = update("John A. Doe", "john.doe@example.com");
    println!("{}", summary(&dispatcher.send("user123", the_same).await?));

    heading("What is refused, and why");
    // By a rule of the model: the error is the model's own.
    let wrong = update("John", "nowhere");
    if let Err(error) = dispatcher.send("user123", wrong).await {
        println!("{error}");
    }
    // Because there is one: nobody is created twice.
    let again = UserCommand::CreateUser {
        name: "Jane Doe".into(),
        email: "jane@example.com".into(),
    };
    if let Err(error) = dispatcher.send("user123", again).await {
        println!("{error}");
    }
    // Because it is no command, or not all of one.
    for (name, data) in [
        ("PromoteUser", json!({})),
        ("CreateUser", json!({ "name": "Jane Doe" })),
    ] {
        let command = Command::new(name, "user124", data);
        if let Err(error) = dispatcher.dispatch(command).await {
            println!("{error}");
        }
    }

    heading("Queries");
    for (id, name, email) in [
        ("user124", "Jane Doe", "jane@example.com"),
        ("user125", "Kim Minji", "minji@example.org"),
        ("user126", "Kim Jisoo", "jisoo@example.com"),
        ("user127", "Lee Hana", "hana@example.org"),
    ] {
        let create = UserCommand::CreateUser {
            name: name.into(),
            email: email.into(),
        };
        dispatcher.send(id, create).await?;
        println!("{}", welcomes.recv().await.ok_or("no welcome")?);
    }
    let user123 = || GetUser {
        id: "user123".into(),
    };
    if let Some(user) = queries.ask(user123()).await? {
        println!("user123 is {} <{}>", user.name, user.email);
    }
    let asked = [
        ("named Kim", GetUsers::new().named("Kim")),
        ("at example.org", GetUsers::new().at("@example.org")),
        (
            "named Kim, at example.org",
            GetUsers::new().named("Kim").at("@example.org"),
        ),
        ("the second page of two", GetUsers::new().page(2, 2)),
    ];
    for (what, query) in asked {
        let page = queries.ask(query).await?;
        let names: Vec<_> = page.items.iter().map(|user| user.name.as_str()).collect();
        println!("{what}: {} (of {})", names.join(", "), page.total);
    }

    heading("Delete it");
    let deleted = dispatcher.send("user123", UserCommand::DeleteUser).await?;
    println!("{}", summary(&deleted));
    let found = queries.ask(user123()).await?;
    println!("found: {}", found.is_some());

    heading("Travel back in time");
    for event in users.events("user123", VersionRange::new()).await?.items {
        println!("version {}: {}", event.version(), event.event_type());
    }
    if let Some(then) = users.load_at("user123", 2).await? {
        println!("version 2 was {} <{}>", then.name, then.email);
    }

    storage.close().await;
    Ok(())
}
