//! Getting everything that is unacknowledged in hand, in front of what is new.
//!
//! A server delivers again what was not acknowledged once its time is up, in between new deliveries and
//! thus after later events of the same document. An owner does not wait for that: it gives back, in the
//! name of whoever had them, all deliveries that it does not have itself. The server then delivers them
//! at once, in the order of the stream and before everything new. When it says that it has nothing more,
//! or delivers something for the first time, and no number was missing in between, they are all in hand.
//! Until then nothing is handed out; it does not matter for the order how long that takes.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use async_nats::jetstream::consumer;
use serde_json::json;
use tokio::time::{Instant, timeout_at};

use super::error;
use super::hand::{Known, Probed};
use super::lease::Lease;
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

/// How often it is looked whether they have come.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(1);

/// How many messages one request asks for.
const REQUEST: usize = 256;

/// Tries to get everything that is unacknowledged in hand. Says whether it is.
pub(super) async fn settle(server: &Server, stream: &str, lease: &Lease) -> Result<bool> {
    for _ in 0..ROUNDS {
        listen(server, lease).await?;
        let info = info(server, stream, lease).await?;
        {
            let mut hand = lease.hand();
            if hand.is_given_back() {
                return Ok(false);
            }
            hand.known = Some(Known {
                connects: hand.connects,
                delivered: info.delivered.stream_sequence,
            });
            hand.next = Some(info.delivered.consumer_sequence + 1);
            hand.heard = Instant::now();
            if info.num_ack_pending == 0 {
                hand.settled = true;
                return Ok(true);
            }
        }
        let first = info.ack_floor.stream_sequence + 1;
        if info.delivered.stream_sequence.saturating_sub(first) > WALK {
            return wait_for_expiry(server, stream, lease, &info).await;
        }
        give_back(server, stream, lease, &info).await?;
        // What was delivered before is no answer to what is requested now.
        let mut again = Vec::new();
        take_in(lease, &mut again).await;
        acknowledge_again(server, again).await?;
        probe(server, stream, lease, REQUEST).await?;
        if arrived(server, lease, &info).await? {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn info(server: &Server, stream: &str, lease: &Lease) -> Result<consumer::Info> {
    let subject = format!("CONSUMER.INFO.{stream}.{}", lease.consumer);
    let what = "looking at a consumer";
    server.call(what, subject, &json!({})).await
}

/// Looks up what the server knows to be delivered, once for every connection.
pub(super) async fn look_up(server: &Server, stream: &str, lease: &Lease) -> Result<()> {
    let connects = server.connects();
    let known = lease.hand().known;
    if known.is_some_and(|known| known.connects == connects) {
        return Ok(());
    }
    let info = info(server, stream, lease).await?;
    lease.hand().known = Some(Known {
        connects,
        delivered: info.delivered.stream_sequence,
    });
    Ok(())
}

/// Requests what is there.
async fn probe(server: &Server, stream: &str, lease: &Lease, batch: usize) -> Result<()> {
    let inbox = lease.hand().probe();
    let request = json!({ "batch": batch, "no_wait": true });
    server.pull(stream, &lease.consumer, inbox, &request).await
}

/// Takes what the server delivers again by itself, now and then, until there is as much in hand as it
/// counts.
async fn wait_for_expiry(
    server: &Server,
    stream: &str,
    lease: &Lease,
    info: &consumer::Info,
) -> Result<bool> {
    let mut again = Vec::new();
    take_in(lease, &mut again).await;
    acknowledge_again(server, again).await?;
    let missing = {
        let mut hand = lease.hand();
        let missing = info.num_ack_pending.saturating_sub(hand.unacknowledged());
        hand.settled = missing == 0 && hand.next.is_some();
        if hand.settled {
            return Ok(true);
        }
        hand.retry_at = Instant::now() + EXPIRY_INTERVAL;
        missing
    };
    tracing::debug!(
        consumer = lease.consumer,
        missing,
        "unacknowledged events are too far apart to fetch: they come when their time is up"
    );
    probe(server, stream, lease, missing.clamp(1, REQUEST)).await?;
    Ok(false)
}

/// Listens for what is delivered, at an address of its own for every connection: what was requested
/// through an earlier one goes nowhere.
async fn listen(server: &Server, lease: &Lease) -> Result<()> {
    server.check_connected()?;
    // Before the subscription: a connection that breaks after it shows in another number.
    let connects = server.connects();
    let listens = {
        let hand = lease.hand();
        hand.listens() && hand.connects == connects
    };
    if !listens {
        let inbox = server.client().new_inbox();
        let messages = server.subscribe(format!("{inbox}.*")).await?;
        lease.hand().listen(messages, inbox, connects);
    }
    Ok(())
}

/// Gives back what is pending and not in hand here, and waits until the server has done it.
async fn give_back(
    server: &Server,
    stream: &str,
    lease: &Lease,
    info: &consumer::Info,
) -> Result<()> {
    let what = "a delivery to give back";
    let first = info.ack_floor.stream_sequence + 1;
    let last = info.delivered.stream_sequence;
    let subject = |number: u64| {
        let place = Place {
            stream: number,
            delivery: info.delivered.consumer_sequence,
            times: 1,
        };
        reply::of_another(stream, &lease.consumer, place)
    };
    let mut latest = None;
    for number in first..=last {
        if lease.hand().has(number) {
            continue;
        }
        if let Some(before) = latest.replace(number) {
            server
                .client()
                .publish(subject(before), NAK.into())
                .await
                .map_err(|error| error::unsent(what, error))?;
        }
    }
    if let Some(latest) = latest {
        // It takes them in order: this one's answer stands for all.
        let request = async_nats::Request::new()
            .payload(NAK.into())
            .timeout(Some(server.timeout()));
        let answer = server.client().send_request(subject(latest), request).await;
        answer.map_err(|error| error::no_reply(what, error))?;
    }
    Ok(())
}

const NAK: &str = "-NAK";

/// Waits until everything is in hand. Says whether it is.
async fn arrived(server: &Server, lease: &Lease, info: &consumer::Info) -> Result<bool> {
    let deadline = Instant::now() + ROUND;
    loop {
        let mut again = Vec::new();
        let came = poll_fn(|cx| lease.poll(cx, &mut again));
        let late = timeout_at(deadline, came).await.is_err();
        acknowledge_again(server, again).await?;
        let mut hand = lease.hand();
        if hand.is_deleted() {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("nats: consumer {} is gone", lease.consumer),
            ));
        }
        if hand.next.is_none() || hand.is_given_back() {
            // One went to somebody else. It is counted the next time.
            return Ok(false);
        }
        if hand.fresh || hand.probed == Some(Probed::Empty) {
            hand.settled = true;
            return Ok(true);
        }
        let more = hand.next.is_some_and(|next| {
            // A full answer has no end of its own.
            let delivered = next.saturating_sub(info.delivered.consumer_sequence + 1);
            usize::try_from(delivered).is_ok_and(|delivered| delivered >= REQUEST)
        });
        if late || more || hand.probed == Some(Probed::Unclear) {
            return Ok(false);
        }
    }
}

/// Takes in what has arrived, without waiting.
pub(super) async fn take_in(lease: &Lease, again: &mut Vec<async_nats::Subject>) {
    poll_fn(|cx| {
        let _: Poll<()> = lease.poll(cx, again);
        Poll::Ready(())
    })
    .await;
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
            .map_err(|error| error::unsent("an acknowledgement", error))?;
    }
    Ok(())
}
