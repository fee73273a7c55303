//! Getting everything that is unacknowledged in hand, in front of what is new.
//!
//! A server delivers again what was not acknowledged once its time is up, in between new deliveries and
//! thus after later events of the same document. An owner does not wait for that: it gives back, in the
//! name of whoever had them, all deliveries that it does not have itself. The server then delivers them
//! at once, in the order of the stream and before everything new. Until as many are in hand as the server
//! counts as pending, nothing is handed out; it does not matter for the order how long that takes.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use async_nats::jetstream::consumer;
use serde_json::json;
use tokio::time::{Instant, timeout_at};

use super::lease::{BRIEFLY, Lease};
use super::reply::{self, Place};
use super::server::Server;
use crate::error::{Error, ErrorKind, Result};

/// How many rounds one call makes; the reader goes on with other partitions in between.
const ROUNDS: usize = 3;

/// How long a round waits for what was given back. It takes about a millisecond.
const ROUND: Duration = Duration::from_millis(200);

/// A wider stretch of the stream than this is not walked through to give deliveries back: they come by
/// themselves when their time is up. It takes an event that failed for so long that this many came after
/// it.
const WALK: u64 = 100_000;

/// How many messages one request asks for.
const REQUEST: usize = 256;

/// Tries to get everything that is unacknowledged in hand. Says whether it is.
pub(super) async fn settle(server: &Server, stream: &str, lease: &Lease) -> Result<bool> {
    server.check_connected()?;
    if !lease.hand().listens() {
        let inbox = server.client().new_inbox();
        let messages = server.subscribe(format!("{inbox}.*")).await?;
        lease.hand().listen(messages, inbox);
    }
    for _ in 0..ROUNDS {
        // Before the count: a connection that breaks after it shows in another number.
        let connects = server.connects();
        let info: consumer::Info = server
            .call(
                "looking at a consumer",
                format!("CONSUMER.INFO.{stream}.{}", lease.consumer),
                &json!({}),
            )
            .await?;
        let mut again = Vec::new();
        poll_fn(|cx| {
            let _: Poll<()> = lease.hand().poll(cx, &mut again);
            Poll::Ready(())
        })
        .await;
        acknowledge_again(server, again).await?;
        let (missing, inbox) = {
            let mut hand = lease.hand();
            if hand.is_given_back() {
                return Ok(false);
            }
            let missing = info.num_ack_pending.saturating_sub(hand.len());
            if missing == 0 {
                hand.next = Some(info.delivered.consumer_sequence + 1);
                if hand.connects != connects {
                    hand.connects = connects;
                    hand.outstanding = 0;
                }
                hand.heard = Instant::now();
                return Ok(true);
            }
            hand.empty = false;
            (missing, format!("{}.{BRIEFLY}", hand.inbox))
        };
        give_back(server, stream, lease, &info).await?;
        let request = json!({ "batch": missing.min(REQUEST), "no_wait": true });
        server
            .pull(stream, &lease.consumer, inbox, &request)
            .await?;
        arrive(server, lease, info.num_ack_pending).await?;
    }
    Ok(false)
}

/// Gives back what is pending and not in hand here.
async fn give_back(
    server: &Server,
    stream: &str,
    lease: &Lease,
    info: &consumer::Info,
) -> Result<()> {
    let (first, last) = (
        info.ack_floor.stream_sequence + 1,
        info.delivered.stream_sequence,
    );
    if last.saturating_sub(first) > WALK {
        tracing::warn!(
            consumer = lease.consumer,
            "unacknowledged events are too far apart to fetch: they come when their time is up"
        );
        return Ok(());
    }
    for number in first..=last {
        if lease.hand().has(number) {
            continue;
        }
        let place = Place {
            stream: number,
            delivery: info.delivered.consumer_sequence,
        };
        server
            .client()
            .publish(
                reply::of_another(stream, &lease.consumer, place),
                "-NAK".into(),
            )
            .await
            .map_err(|error| super::error::unsent("a delivery to give back", error))?;
    }
    Ok(())
}

/// Waits until that many are in hand, or the server has no more, or the round is over.
async fn arrive(server: &Server, lease: &Lease, pending: usize) -> Result<()> {
    let deadline = Instant::now() + ROUND;
    loop {
        let mut again = Vec::new();
        let came = poll_fn(|cx| lease.hand().poll(cx, &mut again));
        let late = timeout_at(deadline, came).await.is_err();
        acknowledge_again(server, again).await?;
        let hand = lease.hand();
        if hand.is_deleted() {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("nats: consumer {} is gone", lease.consumer),
            ));
        }
        if late || hand.empty || hand.len() >= pending {
            return Ok(());
        }
    }
}

/// Repeats acknowledgements that a killed server has forgotten.
pub(super) async fn acknowledge_again(
    server: &Server,
    replies: Vec<async_nats::Subject>,
) -> Result<()> {
    for reply in replies {
        server
            .client()
            .publish(reply, "+ACK".into())
            .await
            .map_err(|error| super::error::unsent("an acknowledgement", error))?;
    }
    Ok(())
}
