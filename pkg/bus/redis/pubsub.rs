use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use redis::aio::PubSub;
use redis::{Client, pipe};
use tokio::time::timeout;

use super::connection::Connection;
use super::error::unconnected;
use super::keys;
use super::options::RedisBusOptions;
use crate::bus::broker::{AppendFailure, Channel, Intake, Outgoing, Payload};
use crate::error::{Error, ErrorKind, Result};

/// Redis Pub/Sub: one channel per bus.
#[derive(Debug)]
pub(super) struct PubSubChannel {
    connection: Connection,
    channel: String,
    options: RedisBusOptions,
}

impl PubSubChannel {
    pub(super) async fn open(client: Client, options: RedisBusOptions) -> Result<Self> {
        let connection = Connection::new(client, options.timeout);
        let ping = redis::cmd("PING");
        let _pong: redis::Value = connection.command("open", &ping).await?;
        Ok(Self {
            connection,
            channel: keys::channel(&keys::base(&options.prefix)),
            options,
        })
    }
}

#[async_trait]
impl Channel for PubSubChannel {
    fn label(&self) -> &'static str {
        "redis bus"
    }

    fn max_event_bytes(&self) -> Option<usize> {
        Some(self.options.max_event_bytes)
    }

    async fn send(&self, events: &[Outgoing]) -> Result<(), AppendFailure> {
        let mut pipeline = pipe();
        for event in events {
            let payload = &*event.payload.0;
            pipeline
                .cmd("PUBLISH")
                .arg(&self.channel)
                .arg(payload)
                .ignore();
        }
        let sent = self.connection.pipeline::<()>("publish", &pipeline).await;
        sent.map_err(|error| AppendFailure {
            confirmed: 0,
            poison: false,
            error,
        })
    }

    async fn send_mark(&self, mark: Payload) -> Result<()> {
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(&self.channel).arg(&*mark.0);
        let _receivers: i64 = self.connection.command("publish", &publish).await?;
        Ok(())
    }

    async fn listen(&self, intake: Intake) -> Result<()> {
        let listener = Listener {
            client: self.connection.client().clone(),
            channel: self.channel.clone(),
            patience: self.options.timeout,
        };
        let first = listener.connect().await?;
        tokio::spawn(async move {
            tokio::select! {
                () = intake.closed() => {}
                () = listener.run(first, &intake) => {}
            }
        });
        Ok(())
    }

    async fn close(&self) {
        self.connection.disconnect();
    }
}

struct Listener {
    client: Client,
    channel: String,
    patience: Duration,
}

impl Listener {
    async fn connect(&self) -> Result<PubSub> {
        let connecting = async {
            let mut connection = self.client.get_async_pubsub().await?;
            connection.subscribe(&self.channel).await?;
            Ok::<_, redis::RedisError>(connection)
        };
        match timeout(self.patience, connecting).await {
            Ok(result) => result.map_err(|error| unconnected("listen", &self.client, &error)),
            Err(_) => Err(Error::new(
                ErrorKind::Unavailable,
                "redis bus cannot listen: no answer in time",
            )),
        }
    }

    async fn run(&self, first: PubSub, intake: &Intake) {
        let mut connection = Some(first);
        let mut failures = 0_u32;
        loop {
            if let Some(connection) = connection.take() {
                self.take_in(connection, intake).await;
                tracing::warn!("redis bus lost its connection; events are missed until it is back");
            }
            match self.connect().await {
                Ok(again) => {
                    failures = 0;
                    connection = Some(again);
                }
                Err(error) => {
                    failures += 1;
                    tracing::debug!(%error, failures, "redis bus cannot listen yet");
                    let pause = Duration::from_millis(20 << failures.min(6));
                    tokio::time::sleep(pause.min(Duration::from_secs(1))).await;
                }
            }
        }
    }

    /// Takes messages in until the connection ends, or does not answer any more.
    async fn take_in(&self, connection: PubSub, intake: &Intake) {
        let (mut sink, mut messages) = connection.split();
        loop {
            match timeout(self.patience, messages.next()).await {
                Ok(Some(message)) => {
                    intake.offer(message.get_payload_bytes().to_vec().into());
                }
                Ok(None) => return,
                Err(_) => {
                    // Silence is normal, but a server that is gone is silent too.
                    let answer = timeout(self.patience, sink.ping::<redis::Value>()).await;
                    if !matches!(answer, Ok(Ok(_))) {
                        return;
                    }
                }
            }
        }
    }
}
