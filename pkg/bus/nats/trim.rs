//! Making room in a stream that is full, without dropping what somebody has not read.

use async_nats::jetstream::{consumer, stream};
use serde::Deserialize;
use serde_json::json;

use super::jetstream::Shared;
use super::server::Done;
use crate::error::Result;

#[derive(Debug, Deserialize)]
struct Page {
    total: usize,
    #[serde(default)]
    consumers: Option<Vec<consumer::Info>>,
}

impl Shared {
    /// Removes the older half of the stream as far as every durable consumer has acknowledged it, those
    /// of others included. Says whether that made room.
    pub(super) async fn trim(&self) -> Result<bool> {
        // Publishers that find the stream full at the same time need one of them to do it.
        let _turn = self.trimming.lock().await;
        // Before the consumers: what comes later is not looked at.
        let info: stream::Info = self
            .server
            .call(
                "looking at the stream",
                format!("STREAM.INFO.{}", self.stream),
                &json!({}),
            )
            .await?;
        let (first, last) = (info.state.first_sequence, info.state.last_sequence);
        let mut keep = first + last.saturating_sub(first) / 2 + 1;
        let mut offset = 0;
        loop {
            let page: Page = self
                .server
                .call(
                    "listing the consumers",
                    format!("CONSUMER.LIST.{}", self.stream),
                    &json!({ "offset": offset }),
                )
                .await?;
            let consumers = page.consumers.unwrap_or_default();
            offset += consumers.len();
            let done = consumers.is_empty() || offset >= page.total;
            let durable = consumers
                .iter()
                .filter(|consumer| consumer.config.durable_name.is_some());
            for consumer in durable {
                keep = keep.min(first_unread(consumer, last));
            }
            if done {
                break;
            }
        }
        if keep <= first {
            return Ok(false);
        }
        let _: Done = self
            .server
            .call(
                "trimming the stream",
                format!("STREAM.PURGE.{}", self.stream),
                &json!({ "seq": keep }),
            )
            .await?;
        tracing::info!(
            stream = self.stream,
            up_to = keep - 1,
            "events that every group has handled were removed from the full stream"
        );
        Ok(true)
    }
}

/// The first message that a consumer may not have acknowledged, up to `last`.
fn first_unread(consumer: &consumer::Info, last: u64) -> u64 {
    let done = if consumer.num_ack_pending > 0 {
        consumer.ack_floor.stream_sequence
    } else if consumer.num_pending > 0 {
        consumer.delivered.stream_sequence
    } else {
        // Nothing is there for it: its own numbers may be as old as its last message.
        last
    };
    done + 1
}
