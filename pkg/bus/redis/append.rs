use std::sync::atomic::{AtomicU64, Ordering};

use redis::pipe;

use super::broker::Streams;
use super::options::WhenFull;
use crate::bus::broker::{AppendFailure, Outgoing};
use crate::error::{Error, ErrorKind, Result};

/// How much goes into one transaction. The server holds a transaction in memory until it is complete,
/// and nobody else has a turn while it runs.
const LARGEST_BYTES: usize = 8 << 20;
const MOST_EVENTS: usize = 1_024;

/// How long the streams are, as far as this process knows: as of its last transaction.
#[derive(Debug)]
pub(super) struct Lengths(Vec<AtomicU64>);

impl Lengths {
    pub(super) fn new(partitions: u32) -> Self {
        Self((0..partitions).map(|_| AtomicU64::new(0)).collect())
    }

    fn of(&self, partition: u32) -> u64 {
        self.cell(partition)
            .map_or(0, |it| it.load(Ordering::Relaxed))
    }

    fn set(&self, partition: u32, length: u64) {
        if let Some(cell) = self.cell(partition) {
            cell.store(length, Ordering::Relaxed);
        }
    }

    fn cell(&self, partition: u32) -> Option<&AtomicU64> {
        self.0.get(usize::try_from(partition).ok()?)
    }
}

/// Appends in transactions, one after the other: all of one or nothing, so no event of a document
/// overtakes another, whatever happens to server and connection.
pub(super) async fn append(streams: &Streams, events: &[Outgoing]) -> Result<(), AppendFailure> {
    let mut confirmed = 0;
    while confirmed < events.len() {
        let rest = &events[confirmed..];
        let mut bytes = 0;
        let fits = rest.iter().take(MOST_EVENTS).take_while(|event| {
            bytes += event.payload.0.len();
            bytes <= LARGEST_BYTES
        });
        // One that is larger goes alone.
        let count = fits.count().max(1);
        append_at_once(streams, &rest[..count])
            .await
            .map_err(|error| AppendFailure {
                confirmed,
                poison: false,
                error,
            })?;
        confirmed += count;
    }
    Ok(())
}

async fn append_at_once(streams: &Streams, events: &[Outgoing]) -> Result<()> {
    let mut touched: Vec<u32> = events.iter().map(|event| event.partition).collect();
    touched.sort_unstable();
    touched.dedup();
    make_room(streams, &touched).await?;

    let mut transaction = pipe();
    transaction.atomic();
    let mut id = uuid::Uuid::encode_buffer();
    for event in events {
        transaction
            .cmd("XADD")
            .arg(streams.events_key(event.partition))
            .arg("*")
            .arg("id")
            .arg(
                &*event
                    .event
                    .id()
                    .as_uuid()
                    .hyphenated()
                    .encode_lower(&mut id),
            )
            .arg("event")
            .arg(&*event.payload.0)
            .ignore();
    }
    for partition in &touched {
        transaction.cmd("XLEN").arg(streams.events_key(*partition));
    }
    let lengths: Vec<u64> = streams.connection.pipeline("publish", &transaction).await?;
    for (partition, length) in touched.iter().zip(lengths) {
        streams.lengths.set(*partition, length);
    }
    Ok(())
}

/// Shortens partitions that have grown too long.
async fn make_room(streams: &Streams, touched: &[u32]) -> Result<()> {
    let options = &streams.options;
    let long: Vec<u32> = touched
        .iter()
        .copied()
        .filter(|it| streams.lengths.of(*it) > options.max_length)
        .collect();
    if long.is_empty() {
        return Ok(());
    }
    // Some more than needed, so that it is not needed again at once.
    let below = (options.max_length / 20).max(100);
    let mut script = streams.scripts.trim.prepare_invoke();
    script
        .key(&streams.base)
        .arg(options.max_length)
        .arg(below)
        .arg(u8::from(options.when_full == WhenFull::DropOldest));
    for partition in &long {
        script.arg(*partition);
    }
    let lengths: Vec<u64> = streams.connection.script("make room", &script).await?;
    let mut full = None;
    for (partition, length) in long.iter().zip(lengths) {
        streams.lengths.set(*partition, length);
        // Whole nodes stay as long as one of their events is needed.
        if length > options.max_length + 100 {
            full = Some((*partition, length));
        }
    }
    match full {
        None => Ok(()),
        Some((partition, length)) => Err(Error::new(
            ErrorKind::Unavailable,
            format!(
                "partition {partition} of the redis bus is full: a group has not acknowledged \
                 the oldest of its {length} events"
            ),
        )),
    }
}
