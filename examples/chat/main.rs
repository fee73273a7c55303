//! A chat room over HTTP, whose messages are read in two ways: from a view, and by replay of the events. Needs no
//! server but its own:
//!
//! ```text
//! cargo run --example chat
//! ```
//!
//! tells a story through its own HTTP interface; with `--listen 127.0.0.1:3000` it serves yours, as `http.rs`
//! describes it. With a database and a broker, each of them empty:
//!
//! ```text
//! cargo run --example chat --features mongodb,redis -- \
//!     --url mongodb://127.0.0.1:27017/chat --bus redis://127.0.0.1:6379
//! ```

mod client;
mod commands;
#[path = "../common/mod.rs"]
mod common;
mod events;
mod http;
mod replay;
mod room;
mod view;

use nodestorage::aggregate::Repository;
use nodestorage::bus::Subscription;
use nodestorage::command::Dispatcher;
use nodestorage::error::BoxError;
use nodestorage::projection::ProjectionOptions;
use nodestorage::{DocumentKey, Event, Index};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};

use client::Client;
use common::{argument, builder, heading};
use http::{App, routes};
use room::Room;
use view::MessageViews;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // Telephones in the lobby ring for each message.
    let (outbox, mut telephones) = mpsc::channel(16);
    let ring = move |event: Event| {
        let outbox = outbox.clone();
        async move {
            let text = |field: &str| event.data()[field].as_str().unwrap_or_default().to_owned();
            let notice = format!("telephones show: {}: {}", text("sender"), text("content"));
            // In the story somebody reads along; when serving there may be no one.
            let _ = outbox.try_send(notice);
        }
    };
    let in_lobby =
        Subscription::to("MessageSent").with_document(DocumentKey::new("rooms", "lobby"));
    let storage = builder().subscribe(in_lobby, ring).open().await?;

    // A room is its events, with a snapshot every 100.
    let rooms = Repository::<Room>::new(&storage).event_sourced();
    let options = ProjectionOptions::new().with_index(Index::on("room").then("number"));
    let views = storage.project(MessageViews, options)?;
    let app = App {
        dispatcher: Dispatcher::builder().aggregate(rooms.clone())?.build(),
        rooms,
        views: views.clone(),
    };

    let listen = argument("--listen");
    let listener = TcpListener::bind(listen.as_deref().unwrap_or("127.0.0.1:0")).await?;
    let server = listener.local_addr()?;
    let (stop, stopped) = oneshot::channel();
    let serving = axum::serve(listener, routes(app)).with_graceful_shutdown(async {
        // Either way it is over.
        let _ = stopped.await;
    });
    let serving = tokio::spawn(serving.into_future());

    if listen.is_some() {
        println!("listening on http://{server}");
        tokio::signal::ctrl_c().await?;
    } else {
        tell(&Client { server }, &mut telephones).await?;
    }

    // Whoever waits for it is gone only if the server is.
    let _ = stop.send(());
    serving.await??;
    views.shutdown().await;
    storage.close().await;
    Ok(())
}

async fn tell(client: &Client, telephones: &mut mpsc::Receiver<String>) -> Result<(), BoxError> {
    heading("Messages");
    for (message, sender, content) in [
        ("m1", "kim", "hello"),
        ("m2", "lee", "hi, Kim"),
        ("m3", "kim", "lunch at noom?"),
        ("m4", "park", "wrong room"),
    ] {
        let sent = json!({ "message": message, "sender": sender, "content": content });
        command(client, "SendMessage", &sent, None).await?;
        println!("{}", telephones.recv().await.ok_or("no telephone")?);
    }

    heading("Edited, deleted, read");
    for (name, data) in [
        (
            "EditMessage",
            json!({ "message": "m3", "sender": "kim", "content": "lunch at noon?" }),
        ),
        (
            "DeleteMessage",
            json!({ "message": "m4", "sender": "park" }),
        ),
        ("ReadMessage", json!({ "message": "m3", "reader": "lee" })),
        ("ReadMessage", json!({ "message": "m3", "reader": "park" })),
        ("ReadMessage", json!({ "message": "m1", "reader": "lee" })),
        ("ReadMessage", json!({ "message": "m1", "reader": "lee" })),
    ] {
        command(client, name, &data, None).await?;
    }

    heading("What is refused");
    for (name, data) in [
        (
            "EditMessage",
            json!({ "message": "m1", "sender": "lee", "content": "bye" }),
        ),
        (
            "DeleteMessage",
            json!({ "message": "m4", "sender": "park" }),
        ),
        (
            "SendMessage",
            json!({ "message": "m5", "sender": "kim", "content": "" }),
        ),
        ("SendMessage", json!({ "message": "m5", "sender": "kim" })),
        ("PinMessage", json!({ "message": "m1" })),
    ] {
        command(client, name, &data, None).await?;
    }

    heading("Sent twice, there once");
    let sent = json!({ "message": "m5", "sender": "lee", "content": "noon is fine" });
    for _ in 0..2 {
        command(client, "SendMessage", &sent, Some("lee-17")).await?;
    }

    heading("Both ways to read");
    let by_view = show(client, "/rooms/lobby/messages?version=10").await?;
    let by_replay = show(client, "/rooms/lobby/messages?from=replay").await?;
    println!("both are the same: {}", by_view == by_replay);

    heading("The recent 100");
    for number in 1..=120 {
        let message = format!("t{number}");
        let sent = json!({ "message": message, "sender": "kim", "content": "…" });
        let path = "/rooms/town-hall/commands/SendMessage";
        client.post(path, &sent, None).await?;
    }
    let deleted = json!({ "message": "t100", "sender": "kim" });
    let path = "/rooms/town-hall/commands/DeleteMessage";
    client.post(path, &deleted, None).await?;
    let mut read = Vec::new();
    for path in [
        "/rooms/town-hall/messages?version=121",
        "/rooms/town-hall/messages?from=replay",
    ] {
        let (status, messages) = client.get(path).await?;
        let messages = messages.as_array().cloned().unwrap_or_default();
        let name =
            |message: Option<&Value>| message.map_or(Value::Null, |it| it["message"].clone());
        println!(
            "GET {path}: {status}, {} messages, from {} to {}",
            messages.len(),
            name(messages.first()),
            name(messages.last())
        );
        read.push(messages);
    }
    println!("both are the same: {}", read[0] == read[1]);

    heading("Travel back in time");
    show(client, "/rooms/lobby/messages?from=replay&at=4").await?;
    Ok(())
}

/// Sends a command to the lobby and prints the answer.
async fn command(
    client: &Client,
    name: &str,
    data: &Value,
    key: Option<&str>,
) -> Result<(), BoxError> {
    let path = format!("/rooms/lobby/commands/{name}");
    let (status, answer) = client.post(&path, data, key).await?;
    let again = key.map_or(String::new(), |key| format!(", key {key}"));
    println!("POST {path} {data}{again}: {status} {answer}");
    Ok(())
}

/// Reads messages and prints them.
async fn show(client: &Client, path: &str) -> Result<Value, BoxError> {
    let (status, messages) = client.get(path).await?;
    println!("GET {path}: {status}");
    for message in messages.as_array().into_iter().flatten() {
        println!("  {message}");
    }
    Ok(messages)
}
