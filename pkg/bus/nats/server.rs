//! The connection, with what the client does not say in one call.

use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::connection::State as ConnectionState;
use async_nats::jetstream::context::{PublishAckFuture, PublishError};
use async_nats::jetstream::response::Response;
use async_nats::jetstream::{Context, ContextBuilder};
use async_nats::{Client, HeaderMap, Message, RequestErrorKind, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout_at};

use super::error;
use crate::error::{Error, ErrorKind, Result};

/// How many publishes may wait for their acknowledgement at a time, over all callers.
const IN_FLIGHT: usize = 8_192;

#[derive(Debug, Clone)]
pub(super) struct Server {
    client: Client,
    context: Context,
    timeout: Duration,
    /// Whether the connection is the bus's own and ends with it.
    owned: bool,
}

impl Server {
    pub(super) fn new(
        client: Client,
        domain: Option<&str>,
        timeout: Duration,
        owned: bool,
    ) -> Self {
        let context = ContextBuilder::new()
            .timeout(timeout)
            .ack_timeout(timeout)
            .max_ack_inflight(IN_FLIGHT);
        let context = match domain {
            Some(domain) => context.domain(domain).build(client.clone()),
            None => context.build(client.clone()),
        };
        Self {
            client,
            context,
            timeout,
            owned,
        }
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Ends the connection if it is the bus's own, after what was sent has left.
    pub(super) async fn close(&self) {
        if self.owned {
            // It fails if the connection has ended already.
            let _ = self.client.drain().await;
        }
    }

    /// How often it was connected: another number says that what was under way may be lost.
    pub(super) fn connects(&self) -> u64 {
        let statistics = self.client.statistics();
        statistics.connects.load(Ordering::Relaxed)
    }

    /// Fails while there is no connection, instead of filling the client's buffer with what it would
    /// send after the next one.
    pub(super) fn check_connected(&self) -> Result<()> {
        if self.client.connection_state() == ConnectionState::Connected {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Unavailable,
            "nats: there is no connection to the server at the moment",
        ))
    }

    /// One call of the JetStream API.
    pub(super) async fn call<T: DeserializeOwned>(
        &self,
        what: &str,
        subject: String,
        request: &(impl Serialize + ?Sized + Sync),
    ) -> Result<T> {
        self.check_connected()?;
        let answer = self.context.request(subject, request).await;
        match answer.map_err(|error| error::unanswered(what, error))? {
            Response::Ok(answer) => Ok(answer),
            Response::Err { error } => Err(error::refused(what, error)),
        }
    }

    /// Sends a message into a stream; the future that is returned waits for the acknowledgement.
    pub(super) async fn publish(
        &self,
        subject: String,
        headers: HeaderMap,
        payload: Bytes,
    ) -> std::result::Result<PublishAckFuture, PublishError> {
        self.context
            .publish_with_headers(subject, headers, payload)
            .await
    }

    /// Asks for the next messages of a consumer; they come to the inbox.
    pub(super) async fn pull(
        &self,
        stream: &str,
        consumer: &str,
        inbox: String,
        request: &(impl Serialize + Sync),
    ) -> Result<()> {
        let what = "a pull request";
        let payload = serde_json::to_vec(request).map_err(|error| error::unsent(what, error))?;
        let request = async_nats::Request::new()
            .inbox(inbox)
            .payload(payload.into());
        self.context
            .send_request(format!("CONSUMER.MSG.NEXT.{stream}.{consumer}"), request)
            .await
            .map_err(|error| error::unsent(what, error))
    }

    /// The messages of a stream that a batched direct get finds (server 2.11).
    pub(super) async fn get(
        &self,
        stream: &str,
        request: &(impl Serialize + Sync),
    ) -> Result<Vec<Message>> {
        let what = "reading the state";
        self.check_connected()?;
        let inbox = self.client.new_inbox();
        let mut answers = self.subscribe(inbox.clone()).await?;
        let payload = serde_json::to_vec(request).map_err(|error| error::unsent(what, error))?;
        let request = async_nats::Request::new()
            .inbox(inbox)
            .payload(payload.into());
        self.context
            .send_request(format!("DIRECT.GET.{stream}"), request)
            .await
            .map_err(|error| error::unsent(what, error))?;
        let deadline = Instant::now() + self.timeout;
        let mut found = Vec::new();
        loop {
            let answer = timeout_at(deadline, answers.next()).await.map_err(|late| {
                Error::new(ErrorKind::Timeout, format!("nats: {what} got no answer"))
                    .with_source(late)
            })?;
            let Some(answer) = answer else {
                return Err(error::unsent(what, "the connection was closed"));
            };
            match answer.status.map(|status| status.as_u16()) {
                None => found.push(answer),
                // The end of what was asked for; nothing of the kind.
                Some(204 | 404) => return Ok(found),
                Some(503) => return Err(error::unsent(what, "nobody answers for the stream")),
                Some(status) => {
                    return Err(Error::new(
                        ErrorKind::Unsupported,
                        format!("nats: {what} was answered with status {status}"),
                    ));
                }
            }
        }
    }

    /// Returns when the server has taken everything that was sent before.
    pub(super) async fn round_trip(&self) -> Result<()> {
        // Nobody listens at a new inbox, which the server says at once; it takes messages in order.
        let request = async_nats::Request::new().timeout(Some(self.timeout));
        let nobody = self.client.new_inbox();
        match self.client.send_request(nobody, request).await {
            Err(error) if error.kind() != RequestErrorKind::NoResponders => {
                Err(error::no_reply("a round trip", error))
            }
            _ => Ok(()),
        }
    }

    pub(super) async fn subscribe(&self, subject: String) -> Result<Subscriber> {
        let subscribed = self.client.subscribe(subject).await;
        subscribed.map_err(|error| error::unsent("a subscription", error))
    }
}

/// What every answer of a stream's own API has in common with the others: nothing that is needed.
#[derive(Debug, serde::Deserialize)]
pub(super) struct Done {}
