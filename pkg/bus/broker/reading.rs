use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::desk::Incoming;
use super::member::Member;
use super::{Delivery, Payload, Reader};
use crate::bus::work::with_causes;
use crate::error::{Error, ErrorKind};

/// How long one read waits for something to come. Nothing depends on it: a waiting read is given up
/// when the claims change.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// How much one read takes. More brings nothing, and an answer must not get too large.
const LARGEST_READ: usize = 256;

/// Brings what is in the broker onto the desk, as long as there is room.
pub(super) async fn read(member: Arc<Member>) {
    let mut reader = member.broker.reader(member.group(), &member.name);
    let stop = member.crew.stop();
    let mut failures = 0_u32;
    loop {
        let result = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            result = read_once(&member, &mut *reader) => result,
        };
        let Err(error) = result else {
            failures = 0;
            continue;
        };
        failures = failures.saturating_add(1);
        if error.kind() == ErrorKind::NotFound {
            // The group or a stream is gone: whatever is held there is void. Who keeps the claims sees
            // to it.
            member.desk.lose(|_| true);
        } else if failures == 1 {
            tracing::warn!(subscription = member.group(), %error, "reading failed, trying again");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause(failures)) => {}
        }
    }
}

/// Between attempts at a broker that does not answer.
pub(super) fn pause(failures: u32) -> Duration {
    Duration::from_millis(20 << failures.min(6)).min(Duration::from_secs(1))
}

async fn read_once(member: &Member, reader: &mut dyn Reader) -> Result<(), Error> {
    let desk = &member.desk;
    let wanted = loop {
        if let Some(wanted) = desk.wanted() {
            break wanted;
        }
        desk.intake.notified().await;
    };
    // Who drains wants to know at once that there is nothing.
    let wait = if wanted.draining {
        Duration::ZERO
    } else {
        LONGEST_WAIT
    };
    let at_most = wanted.room.min(LARGEST_READ);
    let deliveries = tokio::select! {
        biased;
        () = desk.changed(wanted.revision) => return Ok(()),
        result = reader.read(&wanted.claims, at_most, wait) => result?,
    };
    if deliveries.is_empty() && wanted.draining {
        desk.exhausted(&wanted.claims);
    }
    for delivery in deliveries {
        let (claim, position) = (delivery.claim, delivery.position);
        desk.accept(claim, position, incoming(member, delivery));
    }
    Ok(())
}

fn incoming(member: &Member, delivery: Delivery) -> Incoming {
    match member.wire.event(&delivery.payload) {
        Ok(event) if member.spec.filter.matches(&event) => Incoming::Event {
            event,
            redriven: delivery.redriven,
            times: delivery.times,
        },
        Ok(_) => Incoming::Unwanted,
        Err(error) => Incoming::Foreign {
            // By itself: it may be part of what came over the connection at a time.
            payload: Payload(Bytes::copy_from_slice(&delivery.payload.0)),
            error: with_causes(&error),
        },
    }
}
