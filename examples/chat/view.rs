//! The first way to read a room: from views that follow the events, one per message.

use nodestorage::error::BoxError;
use nodestorage::projection::{Projection, Views};
use nodestorage::{DocumentId, Event, Order, Query, Result};
use serde::{Deserialize, Serialize};

use crate::events::RoomEvent;

/// A message as readers see it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct MessageView {
    pub(crate) room: String,
    pub(crate) message: String,
    /// Its place in the room: the version in which it was sent.
    pub(crate) number: i64,
    pub(crate) sender: String,
    pub(crate) content: String,
    pub(crate) edited: bool,
    pub(crate) read_by: Vec<String>,
}

/// Keeps one view per message that was not deleted.
pub(crate) struct MessageViews;

impl Projection for MessageViews {
    type View = MessageView;

    fn name(&self) -> &str {
        "message_view"
    }

    fn handles(&self, _event_type: &str, collection: &str) -> bool {
        collection == "rooms"
    }

    /// Every event of a room is about one of its messages.
    fn keys(&self, event: &Event) -> Vec<DocumentId> {
        let message = event.data()["message"].as_str();
        let key = message.map(|message| format!("{}/{message}", event.aggregate_id()));
        key.map(DocumentId::from).into_iter().collect()
    }

    fn apply(
        &self,
        _: &DocumentId,
        view: Option<MessageView>,
        event: &Event,
    ) -> Result<Option<MessageView>, BoxError> {
        Ok(match event.typed()? {
            RoomEvent::MessageSent {
                message,
                sender,
                content,
            } => Some(MessageView {
                room: event.aggregate_id().to_string(),
                message,
                number: i64::try_from(event.version().get())?,
                sender,
                content,
                edited: false,
                read_by: Vec::new(),
            }),
            RoomEvent::MessageEdited { content, .. } => view.map(|view| MessageView {
                content,
                edited: true,
                ..view
            }),
            RoomEvent::MessageRead { reader, .. } => view.map(|mut view| {
                view.read_by.push(reader);
                view
            }),
            RoomEvent::MessageDeleted { .. } => None,
        })
    }
}

/// The newest messages of a room, oldest first: one indexed read, whatever has happened before.
pub(crate) async fn recent(
    views: &Views<MessageView>,
    room: &str,
    limit: u64,
) -> Result<Vec<MessageView>> {
    let newest = Query::new()
        .equal("room", room)
        .sort("number", Order::Descending)
        .limit(limit);
    let found = views.query(&newest).await?.into_iter();
    Ok(found.rev().map(|view| view.into_inner()).collect())
}
