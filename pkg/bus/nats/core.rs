//! Core NATS as a channel that keeps nothing.

use async_nats::{HeaderMap, Subscriber};
use async_trait::async_trait;
use futures_util::StreamExt;

use super::error;
use super::jetstream::ENVELOPE;
use super::publish::{CONTENT_TYPE, MESSAGE_ID};
use super::server::Server;
use super::subject::Subjects;
use crate::bus::broker::{AppendFailure, Channel, Intake, Outgoing, Payload};
use crate::error::{Error, ErrorKind, Result};

/// Events on subjects of their own; the client connects and subscribes again by itself.
#[derive(Debug)]
pub(super) struct CoreChannel {
    server: Server,
    subjects: Subjects,
    content_type: &'static str,
}

impl CoreChannel {
    pub(super) fn new(server: Server, subjects: Subjects, content_type: &'static str) -> Self {
        Self {
            server,
            subjects,
            content_type,
        }
    }

    async fn send_all(&self, events: &[Outgoing]) -> Result<()> {
        self.server.check_connected()?;
        let connects = self.server.connects();
        for event in events {
            let mut headers = HeaderMap::new();
            headers.insert(MESSAGE_ID, event.event.id().to_string());
            headers.insert(CONTENT_TYPE, self.content_type);
            let subject = self.subjects.live_event(&event.event);
            let payload = event.payload.0.clone();
            self.server
                .client()
                .publish_with_headers(subject, headers, payload)
                .await
                .map_err(|error| error::unsent("an event", error))?;
        }
        self.server.round_trip().await?;
        if self.server.connects() == connects {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Unavailable,
            "nats: the connection changed while events were sent",
        ))
    }
}

#[async_trait]
impl Channel for CoreChannel {
    fn label(&self) -> &'static str {
        "nats bus"
    }

    fn max_event_bytes(&self) -> Option<usize> {
        let largest = self.server.client().max_payload();
        Some(largest.saturating_sub(ENVELOPE))
    }

    async fn send(&self, events: &[Outgoing]) -> Result<(), AppendFailure> {
        let sent = self.send_all(events).await;
        sent.map_err(|error| AppendFailure {
            confirmed: 0,
            poison: false,
            error,
        })
    }

    async fn send_mark(&self, mark: Payload) -> Result<()> {
        self.server.check_connected()?;
        let payload = mark.0.clone();
        let sent = self.server.client().publish(self.subjects.mark(), payload);
        sent.await.map_err(|error| error::unsent("a mark", error))
    }

    async fn listen(&self, intake: Intake) -> Result<()> {
        self.server.check_connected()?;
        let messages = self.server.subscribe(self.subjects.live()).await?;
        // What others publish after this comes here.
        self.server.round_trip().await?;
        tokio::spawn(async move {
            tokio::select! {
                () = intake.closed() => {}
                () = take_in(messages, &intake) => {}
            }
        });
        Ok(())
    }

    async fn close(&self) {
        self.server.close().await;
    }
}

/// Takes messages in until the client is closed.
async fn take_in(mut messages: Subscriber, intake: &Intake) {
    while let Some(message) = messages.next().await {
        intake.offer(Vec::from(message.payload).into());
    }
}
