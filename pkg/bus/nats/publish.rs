//! Storing events, each document's in order, whatever gets lost on the way.
//!
//! The client sends what it could not send once it is connected again, and what it did send may be lost
//! with a connection: of two messages under way the first may be lost and the second stored. Therefore
//! an event is sent only when its predecessor of the same document is confirmed; events of different
//! documents are under way together. Where one document has many events in a call, the call is one
//! atomic batch instead, which the server stores as a whole or not at all.
//!
//! Every message carries its event's id as `Nats-Msg-Id`: what is sent again, by whoever is not sure, the
//! server recognises within the stream's window and does not store a second time.

use std::collections::HashMap;

use async_nats::HeaderMap;
use async_nats::header::{HeaderName, NATS_MESSAGE_ID};
use async_nats::jetstream::context::{PublishAckFuture, PublishError, PublishErrorKind};
use async_nats::jetstream::publish::PublishAck;
use async_nats::jetstream::response::Response;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use uuid::Uuid;

use super::error;
use super::jetstream::Shared;
use crate::bus::broker::{AppendFailure, Outgoing, Payload};
use crate::error::Result;

/// From so many events of one document on a call is an atomic batch. Such a batch costs the server a few
/// milliseconds, as much as this many confirmations one after the other.
const DEEP: usize = 16;

/// How many messages a server takes in one atomic batch.
const LARGEST_BATCH: usize = 1_000;

/// A server keeps an atomic batch aside until it is complete; larger ones go message by message.
const LARGEST_BATCH_BYTES: usize = 8 * 1_024 * 1_024;

pub(super) const MESSAGE_ID: HeaderName = NATS_MESSAGE_ID;
pub(super) const CONTENT_TYPE: HeaderName = HeaderName::from_static("content-type");
const BATCH_ID: &str = "Nats-Batch-Id";
const BATCH_SEQUENCE: &str = "Nats-Batch-Sequence";
const BATCH_COMMIT: &str = "Nats-Batch-Commit";

impl Shared {
    /// See [`Broker::append`](crate::bus::broker::Broker::append).
    pub(super) async fn append(&self, events: &[Outgoing]) -> Result<(), AppendFailure> {
        let mut confirmed = 0;
        for batch in events.chunks(LARGEST_BATCH) {
            if let Err(mut failure) = self.append_or_trim(batch).await {
                failure.confirmed += confirmed;
                return Err(failure);
            }
            confirmed += batch.len();
        }
        Ok(())
    }

    /// Stores a batch; if there is no room, makes some and stores the rest.
    async fn append_or_trim(&self, batch: &[Outgoing]) -> Result<(), AppendFailure> {
        let failure = match self.append_batch(batch).await {
            Err(failure) if error::is_full(&failure.error) => failure,
            other => return other,
        };
        let confirmed = failure.confirmed;
        match self.trim().await {
            Ok(true) => {}
            Ok(false) => return Err(failure),
            Err(error) => {
                tracing::warn!(%error, stream = self.stream, "a full stream could not be trimmed");
                return Err(failure);
            }
        }
        let rest = self.append_batch(&batch[confirmed..]).await;
        rest.map_err(|mut failure| {
            failure.confirmed += confirmed;
            failure
        })
    }

    async fn append_batch(&self, batch: &[Outgoing]) -> Result<(), AppendFailure> {
        let nothing = |error| AppendFailure {
            confirmed: 0,
            poison: false,
            error,
        };
        self.server.check_connected().map_err(nothing)?;
        let order = Order::of(batch);
        let bytes: usize = batch.iter().map(|event| event.payload.0.len()).sum();
        if order.depth >= DEEP
            && self.atomic
            && bytes <= LARGEST_BATCH_BYTES
            && self.append_whole(batch).await.map_err(nothing)?
        {
            return Ok(());
        }
        self.append_each(batch, &order).await
    }

    /// As one atomic batch. Says whether the server took it; it does not if it has one of the events
    /// already, or too many batches at a time.
    async fn append_whole(&self, batch: &[Outgoing]) -> Result<bool> {
        let what = "a batch of events";
        let client = self.server.client();
        let id = Uuid::new_v4().to_string();
        for (place, event) in batch.iter().enumerate() {
            let subject = self.subjects.event(&event.event, event.partition);
            let payload = event.payload.0.clone();
            let mut headers = self.headers(event);
            headers.insert(BATCH_ID, id.as_str());
            headers.insert(BATCH_SEQUENCE, (place + 1).to_string());
            if place + 1 < batch.len() {
                client
                    .publish_with_headers(subject, headers, payload)
                    .await
                    .map_err(|error| error::unsent(what, error))?;
                continue;
            }
            headers.insert(BATCH_COMMIT, "1");
            let request = async_nats::Request::new()
                .headers(headers)
                .payload(payload)
                .timeout(Some(self.server.timeout()));
            let answer = client
                .send_request(subject, request)
                .await
                .map_err(|error| error::no_reply(what, error))?;
            let answer: Response<PublishAck> = serde_json::from_slice(&answer.payload)
                .map_err(|error| error::unsent(what, error))?;
            match answer {
                Response::Ok(_) => return Ok(true),
                Response::Err { error } if error.error_code() == error::STREAM_FULL => {
                    return Err(error::refused(what, error));
                }
                Response::Err { error } => {
                    tracing::debug!(%error, "an atomic batch is sent message by message");
                }
            }
        }
        Ok(false)
    }

    /// One by one per document, the documents at the same time.
    async fn append_each(&self, batch: &[Outgoing], order: &Order) -> Result<(), AppendFailure> {
        let mut under_way = FuturesUnordered::new();
        let confirmation =
            |place: usize, sent: PublishAckFuture| async move { (place, sent.await) };
        let mut stored = vec![false; batch.len()];
        let mut failed: Option<(usize, PublishError)> = None;
        for place in &order.first {
            match self.send(&batch[*place]).await {
                Ok(sent) => under_way.push(confirmation(*place, sent)),
                Err(error) => {
                    note(&mut failed, *place, error);
                    break;
                }
            }
        }
        while let Some((place, result)) = under_way.next().await {
            if let Err(error) = result {
                note(&mut failed, place, error);
                continue;
            }
            stored[place] = true;
            // Poison concerns its own document only; everything else ends the call.
            let goes_on = failed.as_ref().is_none_or(|(_, error)| is_poison(error));
            let Some(next) = order.next[place].filter(|_| goes_on) else {
                continue;
            };
            match self.send(&batch[next]).await {
                Ok(sent) => under_way.push(confirmation(next, sent)),
                Err(error) => note(&mut failed, next, error),
            }
        }
        let Some((place, error)) = failed else {
            return Ok(());
        };
        let confirmed = stored.iter().take_while(|stored| **stored).count();
        let what = format!("event {}", batch[place].event.id());
        Err(AppendFailure {
            confirmed,
            poison: place == confirmed && is_poison(&error),
            error: error::unpublished(&what, error),
        })
    }

    async fn send(&self, event: &Outgoing) -> Result<PublishAckFuture, PublishError> {
        let subject = self.subjects.event(&event.event, event.partition);
        let payload = event.payload.0.clone();
        self.server
            .publish(subject, self.headers(event), payload)
            .await
    }

    fn headers(&self, event: &Outgoing) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(MESSAGE_ID, event.event.id().to_string());
        headers.insert(CONTENT_TYPE, self.content_type);
        headers
    }

    /// Stores a letter for the owner of its partition.
    pub(super) async fn send_back(
        &self,
        subject: String,
        message_id: &str,
        payload: &Payload,
    ) -> Result<()> {
        let what = "a letter on its way back";
        let unpublished = |error| error::unpublished(what, error);
        self.server.check_connected()?;
        let mut headers = HeaderMap::new();
        headers.insert(MESSAGE_ID, message_id);
        headers.insert(CONTENT_TYPE, self.content_type);
        let payload = payload.0.clone();
        let sent = self.server.publish(subject, headers, payload).await;
        sent.map_err(unpublished)?.await.map_err(unpublished)?;
        Ok(())
    }
}

/// Keeps the failure of the earliest event.
fn note(failed: &mut Option<(usize, PublishError)>, place: usize, error: PublishError) {
    if failed.as_ref().is_none_or(|(earlier, _)| place < *earlier) {
        *failed = Some((place, error));
    }
}

fn is_poison(error: &PublishError) -> bool {
    error.kind() == PublishErrorKind::MaxPayloadExceeded
}

/// Which event of a batch follows which.
#[derive(Debug, PartialEq, Eq)]
struct Order {
    /// The first events of their documents.
    first: Vec<usize>,
    /// For each event the next one of its document.
    next: Vec<Option<usize>>,
    /// The most events that one document has.
    depth: usize,
}

impl Order {
    fn of(batch: &[Outgoing]) -> Self {
        let mut latest = HashMap::with_capacity(batch.len());
        let mut order = Self {
            first: Vec::with_capacity(batch.len()),
            next: vec![None; batch.len()],
            depth: 0,
        };
        for (place, event) in batch.iter().enumerate() {
            let depth = match latest.get(event.event.document()) {
                None => {
                    order.first.push(place);
                    1
                }
                Some((before, depth)) => {
                    order.next[*before] = Some(place);
                    depth + 1
                }
            };
            order.depth = order.depth.max(depth);
            latest.insert(event.event.document(), (place, depth));
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::{DocumentKey, Version};
    use crate::event::{Event, EventId, EventParts, Metadata};

    #[test]
    fn events_of_a_document_follow_each_other() {
        let event = |id: &str, version: u64| {
            let document = DocumentKey::new("c", id);
            let version = Version::new(version);
            Outgoing {
                partition: 0,
                payload: Payload::from(Vec::new()),
                event: Event::from_parts(EventParts {
                    id: EventId::derive(Uuid::nil(), &document, version, 0),
                    event_type: "E".into(),
                    aggregate_type: "C".into(),
                    document,
                    version,
                    index: 0,
                    time: bson::DateTime::from_millis(0),
                    schema: 1,
                    data: serde_json::Value::Null,
                    metadata: Metadata::default(),
                }),
            }
        };
        let batch = [
            event("a", 1),
            event("b", 1),
            event("a", 2),
            event("a", 3),
            event("c", 1),
            event("b", 2),
        ];
        let order = Order::of(&batch);
        assert_eq!(order.first, [0, 1, 4]);
        assert_eq!(order.next, [Some(2), Some(5), Some(3), None, None, None]);
        assert_eq!(order.depth, 3);
        assert_eq!(Order::of(&[]).depth, 0);
    }
}
