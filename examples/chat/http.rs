//! The room over HTTP.
//!
//! | request | answer |
//! |---|---|
//! | `POST /rooms/{id}/commands/{name}` with the command's fields | the room's version afterwards |
//! | `GET /rooms/{id}/messages` | the 100 newest messages, from the view |
//! | `…?version=7` | the same, once the view has that version |
//! | `…?from=replay` | the same, from the events |
//! | `…?from=replay&at=3` | as it was at version 3 |
//!
//! With the header `Idempotency-Key` a command that is sent again is not carried out again.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use nodestorage::aggregate::Repository;
use nodestorage::command::{Command, CommandError, Dispatcher};
use nodestorage::error::BoxError;
use nodestorage::projection::ProjectionHandle;
use nodestorage::{DocumentKey, ErrorKind, UpdateError};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::room::{RECENT, Room};
use crate::view::{MessageView, MessageViews};
use crate::{replay, view};

/// How long a reader waits for its own writes to be in the view.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the handlers share.
pub(crate) struct App {
    pub(crate) dispatcher: Dispatcher,
    pub(crate) rooms: Repository<Room>,
    pub(crate) views: ProjectionHandle<MessageViews>,
}

pub(crate) fn routes(app: App) -> Router {
    Router::new()
        .route("/rooms/{id}/commands/{name}", post(command))
        .route("/rooms/{id}/messages", get(messages))
        .with_state(Arc::new(app))
}

async fn command(
    State(app): State<Arc<App>>,
    Path((room, name)): Path<(String, String)>,
    headers: HeaderMap,
    Json(data): Json<Value>,
) -> Result<Json<Value>, Failure> {
    let mut command = Command::new(name, room, data);
    if let Some(key) = headers.get("idempotency-key") {
        let key = key.to_str().map_err(|e| Failure::Other(e.into()))?;
        command = command.with_id(key);
    }
    let done = app.dispatcher.dispatch(command).await?;
    Ok(Json(json!({ "version": done.version().get() })))
}

#[derive(Deserialize)]
struct Asked {
    #[serde(default)]
    from: ReadFrom,
    version: Option<u64>,
    at: Option<u64>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ReadFrom {
    #[default]
    View,
    Replay,
}

async fn messages(
    State(app): State<Arc<App>>,
    Path(room): Path<String>,
    Query(asked): Query<Asked>,
) -> Result<Json<Vec<MessageView>>, Failure> {
    let found = match asked.from {
        ReadFrom::Replay => replay::recent(&app.rooms, &room, asked.at, RECENT).await,
        ReadFrom::View => {
            if let Some(version) = asked.version {
                let room = DocumentKey::new("rooms", room.as_str());
                app.views.wait_for(&room, version, PATIENCE).await?;
            }
            let found = view::recent(&app.views.views(), &room, RECENT as u64).await;
            found.map_err(Into::into)
        }
    };
    Ok(Json(found?))
}

/// What went wrong, as an answer.
enum Failure {
    Storage(nodestorage::Error),
    Other(BoxError),
}

impl From<CommandError> for Failure {
    fn from(error: CommandError) -> Self {
        match error {
            UpdateError::Rejected(reason) => Self::Other(reason),
            UpdateError::Storage(error) => Self::Storage(error),
        }
    }
}

impl From<nodestorage::Error> for Failure {
    fn from(error: nodestorage::Error) -> Self {
        Self::Storage(error)
    }
}

impl From<BoxError> for Failure {
    fn from(error: BoxError) -> Self {
        match error.downcast() {
            Ok(error) => Self::Storage(*error),
            Err(error) => Self::Other(error),
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let (status, error) = match self {
            // The room's own rules.
            Self::Other(error) => (StatusCode::UNPROCESSABLE_ENTITY, error.to_string()),
            Self::Storage(error) => (status_of(&error), error.to_string()),
        };
        (status, Json(json!({ "error": error }))).into_response()
    }
}

fn status_of(error: &nodestorage::Error) -> StatusCode {
    match error.kind() {
        ErrorKind::UnknownCommand | ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::Serialization | ErrorKind::InvalidName => StatusCode::BAD_REQUEST,
        ErrorKind::VersionConflict | ErrorKind::Constraint => StatusCode::CONFLICT,
        ErrorKind::Timeout => StatusCode::GATEWAY_TIMEOUT,
        _ if error.is_retryable() => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
