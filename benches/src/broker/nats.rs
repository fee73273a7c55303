//! The raw client of NATS.

use anyhow::{Context as _, Result};
use async_nats::HeaderMap;
use async_nats::jetstream::context::ContextBuilder;
use async_nats::jetstream::stream::{Config, DiscardPolicy, StorageType};
use async_nats::jetstream::{self, Context};

use crate::publishing::{Batch, Publisher};

fn stream_name(prefix: &str) -> String {
    prefix.to_ascii_uppercase().replace('.', "_")
}

pub(crate) async fn stored(url: &str, prefix: &str) -> Result<u64> {
    let context = jetstream::new(async_nats::connect(url).await?);
    let stream = context.get_stream(stream_name(prefix)).await;
    let mut stream = stream.context("the stream of the bus")?;
    Ok(stream.info().await?.state.last_sequence)
}

/// All messages of a batch sent one behind the other on one connection, then all acknowledgements awaited. With
/// the message ids that the bus sends. The connection keeps a document's order for as long as it holds.
pub(crate) struct RawJetStream {
    context: Context,
    prefix: String,
}

impl RawJetStream {
    pub(crate) async fn connect(url: &str, prefix: &str) -> Result<Self> {
        let client = async_nats::connect(url).await?;
        let context = ContextBuilder::new().max_ack_inflight(8_192).build(client);
        let config = Config {
            name: stream_name(prefix),
            subjects: vec![format!("{prefix}.>")],
            discard: DiscardPolicy::New,
            storage: StorageType::File,
            ..Config::default()
        };
        context.create_stream(config).await?;
        Ok(Self {
            context,
            prefix: prefix.to_owned(),
        })
    }
}

impl Publisher for RawJetStream {
    async fn publish(&self, batch: &Batch) -> Result<()> {
        let mut sent = Vec::with_capacity(batch.events.len());
        for (event, payload) in batch.events.iter().zip(&batch.payloads) {
            let mut headers = HeaderMap::new();
            headers.insert("Nats-Msg-Id", event.id().to_string());
            headers.insert("content-type", "application/cloudevents+json");
            let subject = format!(
                "{}.{}.{}.{}.0",
                self.prefix,
                event.collection(),
                event.event_type(),
                event.aggregate_id()
            );
            let publishing =
                self.context
                    .publish_with_headers(subject, headers, payload.clone().into());
            sent.push(publishing.await?);
        }
        for acknowledgement in sent {
            acknowledgement.await?;
        }
        Ok(())
    }
}
