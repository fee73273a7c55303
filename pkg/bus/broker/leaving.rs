use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};

use super::member::Member;
use crate::bus::SubscriptionState;
use crate::bus::work::Finish;
use crate::error::{Error, ErrorKind, Result};

/// How long to wait for a broker to hear of a departure; if it does not, the claims run out.
const FAREWELL: Duration = Duration::from_secs(5);

/// Ends a membership in good order.
pub(super) async fn leave(member: &Arc<Member>, deadline: Instant, whole: bool) -> Result<()> {
    let mut late = timeout_at(deadline, drain(member, whole)).await.is_err();
    let stalled = member.desk.stalled();
    let finish = member.crew.finish(deadline).await;
    late |= finish == Finish::Late;
    let left = member.desk.queued();
    // What was handled should not be handled again by the next owner.
    let flushed = member.desk.until(|| !member.desk.has_handled());
    let flush_by = deadline.max(Instant::now() + Duration::from_millis(100));
    late |= timeout_at(flush_by, flushed).await.is_err();
    member.upkeep.finish(Instant::now() + FAREWELL).await;
    resign(member).await;
    member.state.send_replace(SubscriptionState::Closed);

    let name = member.group();
    if finish == Finish::Blocked {
        return Err(Error::new(
            ErrorKind::Timeout,
            format!("a handler of subscription {name} blocks its thread and cannot be stopped"),
        ));
    }
    let (kind, why) = match stalled {
        Some(reason) => (ErrorKind::DeadLettered, reason.to_string()),
        None if late => (
            ErrorKind::Timeout,
            format!("not drained within {:?}", member.options.drain_timeout),
        ),
        None => return Ok(()),
    };
    Err(Error::new(
        kind,
        format!("subscription {name} ended with {left} events unhandled: {why}"),
    ))
}

/// Handles what waits, as far as it is this member's to do so.
async fn drain(member: &Arc<Member>, whole: bool) {
    let desk = &member.desk;
    // Before its first heartbeat a member does not know whether it is the last.
    let knows = || member.live.load(std::sync::atomic::Ordering::Relaxed) > 0;
    desk.until(knows).await;
    if !whole && !member.is_alone() {
        return;
    }
    desk.begin_drain();
    let all = usize::try_from(member.broker.partitions()).unwrap_or(usize::MAX);
    desk.until(|| {
        let alone = member.is_alone();
        let nothing_moves = desk.stalled().is_some();
        let taken_over = !whole && !alone;
        nothing_moves || taken_over || desk.is_drained(if alone { all } else { 0 })
    })
    .await;
}

/// Tells the broker that a member is gone.
pub(super) async fn resign(member: &Arc<Member>) {
    let group = member.group();
    let claims = member.desk.claims();
    let farewell = async {
        if member.record.transient {
            member.broker.remove_group(group).await
        } else {
            member.broker.resign(group, &member.name, &claims).await
        }
    };
    match timeout(FAREWELL, farewell).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) if error.kind() == ErrorKind::NotFound => {}
        Ok(Err(error)) => {
            tracing::warn!(subscription = group, %error, "broker not told of a member's end");
        }
        Err(_) => {
            tracing::warn!(
                subscription = group,
                "broker not told of a member's end in time"
            );
        }
    }
    member.desk.lose(|_| true);
}
