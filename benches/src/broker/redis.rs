//! The raw client of Redis.

use anyhow::{Context as _, Result};
use redis::aio::MultiplexedConnection;
use redis::{Client, Value, cmd, pipe};

use crate::publishing::{Batch, Publisher};

/// As the bus has by default.
const PARTITIONS: usize = 8;
/// As the bus keeps by default, in each partition.
const LENGTH: usize = 50_000;

fn key(prefix: &str, partition: usize) -> String {
    format!("{{{prefix}}}:events:{partition}")
}

pub(crate) async fn stored(url: &str, prefix: &str) -> Result<u64> {
    let mut connection = Client::open(url)?
        .get_multiplexed_async_connection()
        .await?;
    let mut sum = 0;
    for partition in 0..PARTITIONS {
        let key = key(prefix, partition);
        let exists: bool = cmd("EXISTS").arg(&key).query_async(&mut connection).await?;
        if !exists {
            continue;
        }
        let info: Vec<(String, Value)> = cmd("XINFO")
            .arg("STREAM")
            .arg(&key)
            .query_async(&mut connection)
            .await?;
        let added = info.iter().find(|(name, _)| name == "entries-added");
        match added.context("the server does not count entries")? {
            (_, Value::Int(added)) => sum += u64::try_from(*added)?,
            (_, other) => anyhow::bail!("entries-added is {other:?}"),
        }
    }
    Ok(sum)
}

/// One transaction per batch: `MULTI`, an `XADD` with a bounded length per event, `EXEC`, in one pipeline.
pub(crate) struct RawStreams {
    connection: MultiplexedConnection,
    prefix: String,
}

impl RawStreams {
    pub(crate) async fn connect(url: &str, prefix: &str) -> Result<Self> {
        Ok(Self {
            connection: Client::open(url)?
                .get_multiplexed_async_connection()
                .await?,
            prefix: prefix.to_owned(),
        })
    }
}

impl Publisher for RawStreams {
    async fn publish(&self, batch: &Batch) -> Result<()> {
        let mut transaction = pipe();
        transaction.atomic();
        for (event, payload) in batch.events.iter().zip(&batch.payloads) {
            let id = event.id().to_string();
            // Any division that keeps a document in one place costs the same.
            let partition = event
                .aggregate_id()
                .to_string()
                .bytes()
                .map(usize::from)
                .sum::<usize>();
            transaction
                .cmd("XADD")
                .arg(key(&self.prefix, partition % PARTITIONS))
                .arg("MAXLEN")
                .arg("~")
                .arg(LENGTH)
                .arg("*")
                .arg("id")
                .arg(id)
                .arg("event")
                .arg(&payload[..])
                .ignore();
        }
        let mut connection = self.connection.clone();
        transaction.query_async::<()>(&mut connection).await?;
        Ok(())
    }
}
