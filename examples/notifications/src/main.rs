//! Changes of documents, pushed to browsers as they happen.
//!
//! ```text
//! cargo run --manifest-path examples/notifications/Cargo.toml
//! ```
//!
//! and then open the address that it prints, in two windows. With `--url` and `--bus` the same program runs on
//! a database and a broker, in as many processes as you like:
//!
//! ```text
//! cargo run --manifest-path examples/notifications/Cargo.toml --features mongodb,nats -- \
//!     --url mongodb://127.0.0.1:27017/notifications --bus nats://127.0.0.1:4222
//! ```
//!
//! | request | answer |
//! |---|---|
//! | `GET /` | the page |
//! | `PUT /orders/{id}` with `{"status": "…"}` | changes an order; the change becomes the event |
//! | `GET /events` | server-sent events; a browser that comes back says what it had, and gets the rest |

mod feed;

use std::convert::Infallible;
use std::error::Error;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{KeepAlive, Sse};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, put};
use axum::{Json, Router};
use clap::Parser;
use futures_util::Stream;
use nodestorage::bus::Subscription;
use nodestorage::{ChangeKind, ChangeView, Event, MapError, NewEvent, Storage};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::net::TcpListener;

use feed::Feed;

#[derive(Parser)]
struct Arguments {
    /// Where the orders are: embedded:PATH, embedded::memory:, mongodb://…
    #[arg(long, default_value = "embedded::memory:")]
    url: String,
    /// What carries the events: memory:, redis://…, nats://…
    #[arg(long, default_value = "memory:")]
    bus: String,
    /// Address and port; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:3000")]
    listen: String,
}

#[derive(Serialize, Deserialize)]
struct Order {
    status: String,
}

/// What the handlers share.
#[derive(Clone)]
struct App {
    storage: Storage,
    feed: Arc<Feed>,
}

/// An order's changes become events that say what a person wants to know.
fn map_order(change: &ChangeView<'_>) -> Result<Vec<NewEvent>, MapError> {
    let event_type = match change.kind() {
        ChangeKind::Created => "OrderPlaced",
        ChangeKind::Deleted => "OrderRemoved",
        _ => "OrderStatusChanged",
    };
    let order = change.after_as::<Order>()?;
    let status = order.map(|order| order.status);
    Ok(vec![NewEvent::new(
        event_type,
        json!({ "status": status }),
    )?])
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let feed = Arc::new(Feed::new());

    // A broadcast, so that every process hears of every change. Told to the builder, it is there before the
    // relay publishes what earlier runs may have left.
    let pushing = Arc::clone(&feed);
    let storage = Storage::builder()
        .url(arguments.url)
        .bus_url(arguments.bus)
        .mapper("orders", map_order)
        .subscribe(Subscription::to_all(), move |event: Event| {
            let pushing = Arc::clone(&pushing);
            async move { pushing.push(event).await }
        })
        .open()
        .await?;
    feed.connect(storage.clone());

    let app = App {
        storage: storage.clone(),
        feed: Arc::clone(&feed),
    };
    let routes = Router::new()
        .route("/", get(|| async { Html(include_str!("page.html")) }))
        .route("/orders/{id}", put(change_order))
        .route("/events", get(events))
        .with_state(app);
    let listener = TcpListener::bind(arguments.listen).await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, routes)
        .with_graceful_shutdown(async move {
            // Without a way to learn of it the process simply ends with the signal.
            let _ = tokio::signal::ctrl_c().await;
            feed.close();
        })
        .await?;
    storage.close().await;
    Ok(())
}

/// One call changes the order; nobody has to publish anything.
async fn change_order(
    State(app): State<App>,
    Path(id): Path<String>,
    Json(order): Json<Order>,
) -> Result<Response, Failure> {
    let wanted = |_: Option<Order>| Order {
        status: order.status.clone(),
    };
    let change = app.storage.update("orders", id, wanted).await?;
    Ok(Json(json!({ "version": change.version().get() })).into_response())
}

/// A browser sends the id of the last event it had when it connects again; `EventSource` does so by itself.
async fn events(
    State(app): State<App>,
    headers: HeaderMap,
) -> Sse<impl Stream<Item = Result<axum::response::sse::Event, Infallible>>> {
    let last = headers
        .get("last-event-id")
        .and_then(|id| id.to_str().ok())
        .and_then(|id| id.parse().ok());
    Sse::new(app.feed.follow(last)).keep_alive(KeepAlive::default())
}

/// An update that failed, as an answer.
struct Failure(nodestorage::Error);

impl From<nodestorage::Error> for Failure {
    fn from(error: nodestorage::Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = if self.0.is_retryable() {
            StatusCode::SERVICE_UNAVAILABLE
        } else {
            StatusCode::BAD_REQUEST
        };
        (status, Json(json!({ "error": self.0.to_string() }))).into_response()
    }
}
