//! NATS with JetStream.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::{Context, Message};
use async_trait::async_trait;
use futures_util::StreamExt;
use nodestorage::Result;
use nodestorage::bus::EventBus;
use nodestorage::bus::nats::{NatsBus, NatsBusOptions};

use crate::broker::{Broker, CLAIM_TTL};
use crate::ledger::Sighting;
use crate::nats::{Nats, fresh_prefix};

/// Messages that are read at a time.
const PAGE: usize = 1_000;

pub(crate) struct JetStream {
    server: Nats,
    prefix: String,
}

impl JetStream {
    pub(crate) fn start() -> Self {
        Self {
            server: Nats::private(""),
            prefix: fresh_prefix(),
        }
    }

    async fn context(&self) -> Context {
        let client = async_nats::connect(self.server.url()).await.unwrap();
        async_nats::jetstream::new(client)
    }

    /// The messages of the stream, in order.
    async fn messages(&self, context: &Context) -> Vec<Message> {
        let mut stream = context.get_stream(stream_of(&self.prefix)).await.unwrap();
        let last = stream.info().await.unwrap().state.last_sequence;
        let reader = stream.create_consumer(pull::Config {
            deliver_policy: DeliverPolicy::All,
            ack_policy: AckPolicy::None,
            ..pull::Config::default()
        });
        let reader = reader.await.unwrap();
        let (mut messages, mut reached) = (Vec::new(), 0);
        while reached < last {
            let mut page = reader.fetch().max_messages(PAGE).messages().await.unwrap();
            while let Some(message) = page.next().await {
                let message = message.unwrap();
                let sequence = message.info().unwrap().stream_sequence;
                assert!(sequence > reached, "read in order");
                reached = sequence;
                messages.push(message);
            }
        }
        messages
    }
}

/// As the bus calls its stream.
fn stream_of(prefix: &str) -> String {
    prefix.to_uppercase()
}

pub(crate) async fn connect(address: &str) -> Result<Arc<dyn EventBus>> {
    let (url, prefix) = address.split_once(' ').expect("URL and prefix");
    let options = NatsBusOptions::new()
        .with_prefix(prefix)
        .with_request_timeout(CLAIM_TTL)
        .with_claim_ttl(CLAIM_TTL)
        // All of it is read back at the end.
        .with_max_bytes(None)
        // So short that most repetitions are stored: consumers have to recognise them.
        .with_duplicate_window(Duration::from_secs(1));
    Ok(Arc::new(NatsBus::connect(url, options).await?))
}

#[async_trait]
impl Broker for JetStream {
    fn name(&self) -> &'static str {
        "nats"
    }

    fn address(&self) -> String {
        format!("nats {} {}", self.server.url(), self.prefix)
    }

    fn kill(&self) {
        self.server.kill();
    }

    fn restart(&self) {
        self.server.restart();
    }

    async fn read_back(&self) -> Vec<Sighting> {
        let messages = self.messages(&self.context().await).await;
        let sighting = |message: &Message| {
            let sighting = Sighting::from_cloud_event(&message.payload);
            let headers = message.headers.as_ref().expect("a message has headers");
            let id = headers.get("Nats-Msg-Id").expect("every event has one");
            assert_eq!(id.as_str(), sighting.id);
            sighting
        };
        messages.iter().map(sighting).collect()
    }

    async fn repeat(&self) {
        let context = self.context().await;
        for message in self.messages(&context).await {
            // Without its id, by which the server would recognise it.
            let stored = context.publish(message.subject.clone(), message.payload.clone());
            stored.await.unwrap().await.unwrap();
        }
    }
}
