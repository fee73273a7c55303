//! Bringing a started server to the point where it takes writes.

use std::time::{Duration, Instant};

use ::mongodb::Client;
use ::mongodb::options::ClientOptions;
use bson::{Document, doc};

use super::{POLL_INTERVAL, START_DEADLINE};

pub(super) async fn hello(client: &Client) -> ::mongodb::error::Result<Document> {
    client
        .database("admin")
        .run_command(doc! { "hello": 1 })
        .await
}

/// A client that talks to this one server, whatever state it is in.
pub(super) async fn direct_client(port: u16) -> ::mongodb::error::Result<Client> {
    let mut options =
        ClientOptions::parse(format!("mongodb://127.0.0.1:{port}/?directConnection=true")).await?;
    // Short, because the callers try again until their own deadline.
    options.server_selection_timeout = Some(Duration::from_millis(500));
    options.connect_timeout = Some(Duration::from_millis(500));
    Client::with_options(options)
}

/// Runs a command on this one server.
pub(super) async fn run_on(
    port: u16,
    database: &str,
    command: Document,
) -> ::mongodb::error::Result<Document> {
    let client = direct_client(port).await?;
    client.database(database).run_command(command).await
}

pub(super) async fn initiate(port: u16) -> Result<(), String> {
    let members = vec![doc! { "_id": 0, "host": format!("127.0.0.1:{port}") }];
    initiate_as(port, doc! { "_id": "rs0", "members": members }).await
}

/// Makes the server, and those that the configuration names, a replica set.
pub(super) async fn initiate_as(port: u16, config: Document) -> Result<(), String> {
    let command = doc! { "replSetInitiate": config };
    let deadline = Instant::now() + START_DEADLINE;
    loop {
        let error = match run_on(port, "admin", command.clone()).await {
            Ok(_) => return Ok(()),
            // 23 is AlreadyInitialized: the answer to an earlier attempt was lost.
            Err(error) if matches!(&*error.kind, ::mongodb::error::ErrorKind::Command(it) if it.code == 23) =>
            {
                return Ok(());
            }
            Err(error) => error,
        };
        if Instant::now() > deadline {
            return Err(format!(
                "no mongod for the tests: the replica set cannot be initiated: {error}"
            ));
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// Waits until the server takes writes.
pub(super) async fn await_ready(port: u16, replica_set: bool) -> Result<(), String> {
    let deadline = Instant::now() + START_DEADLINE;
    let mut client = None;
    loop {
        if client.is_none() {
            client = direct_client(port).await.ok();
        }
        let state = match &client {
            Some(client) => hello(client).await,
            None => return Err("the driver takes no client".into()),
        };
        match &state {
            Ok(hello)
                if hello.get_bool("isWritablePrimary").unwrap_or(false)
                    && hello.contains_key("setName") == replica_set =>
            {
                return Ok(());
            }
            _ if Instant::now() > deadline => {
                return Err(format!(
                    "no mongod for the tests: it does not become primary: {state:?}"
                ));
            }
            _ => tokio::time::sleep(POLL_INTERVAL).await,
        }
    }
}
