use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};

use super::member::Member;
use super::{Claim, Pulse};
use crate::error::ErrorKind;

/// How often a member looks for partitions that it should have and nobody gives it yet: as long as
/// somebody else finishes what is in work, or the claims of a dead member run out.
const LOOKING_AROUND: Duration = Duration::from_millis(100);

/// Keeps a member live and its share of the partitions in its hands.
///
/// Every member computes the same shares from the same list of live members. Who has more than its
/// share gives back the rest, each partition as soon as nothing of it is in work; who has less takes
/// what is free. Nobody takes anything from a live member.
pub(super) async fn keep_claims(member: Arc<Member>) {
    let ttl = member.options.claim_ttl;
    // Clocks and schedulers are not exact: handlers are dropped this long before a claim runs out.
    let margin = ttl / 5;
    let mut valid_until = Instant::now();
    loop {
        let begin = Instant::now();
        let held = member.desk.claims();
        let limit = if held.is_empty() {
            begin + ttl
        } else {
            valid_until - margin
        };
        let mut next = begin + ttl / 4;
        match timeout_at(limit, pulse_and_acquire(&member, &held)).await {
            Ok(Ok(satisfied)) => {
                valid_until = begin + ttl;
                if !satisfied {
                    next = next.min(Instant::now() + LOOKING_AROUND.min(ttl / 20));
                }
            }
            Ok(Err(error)) => {
                next = Instant::now() + LOOKING_AROUND;
                if error.kind() == ErrorKind::NotFound {
                    reopen(&member).await;
                    member.desk.lose(|_| true);
                } else {
                    tracing::warn!(
                        subscription = member.group(), %error, "heartbeat failed"
                    );
                }
            }
            Err(_) => tracing::warn!(subscription = member.group(), "heartbeat got no answer"),
        }
        if Instant::now() + LOOKING_AROUND >= valid_until - margin {
            let lost = member.desk.lose(|_| true);
            if lost > 0 {
                tracing::warn!(
                    subscription = member.group(),
                    partitions = lost,
                    "claims could not be renewed, their events are left to others"
                );
            }
        }
        loop {
            tokio::select! {
                biased;
                () = member.upkeep.stop().cancelled() => return,
                () = member.desk.until(|| member.desk.has_given_back()) => {}
                () = sleep_until(next) => break,
            }
            let idle = member.desk.take_given_back();
            let release = member.broker.release(member.group(), &member.name, &idle);
            // If it does not succeed, the claims run out.
            if !matches!(timeout_at(next, release).await, Ok(Ok(()))) {
                tracing::debug!(
                    subscription = member.group(),
                    "claims not given back in time"
                );
            }
        }
    }
}

/// One heartbeat, and what follows from it. Says whether the member has its share.
async fn pulse_and_acquire(member: &Member, held: &[Claim]) -> crate::error::Result<bool> {
    let (group, name, ttl) = (member.group(), &member.name, member.options.claim_ttl);
    let pulse = member.broker.pulse(group, name, held, ttl).await?;
    let desk = &member.desk;
    desk.lose(|claim| !pulse.held.contains(&claim));
    let live = pulse.members.len().max(1);
    if member.live.swap(live, Ordering::Relaxed) != live {
        desk.nudge();
    }
    let share = share(&pulse, name, member.broker.partitions());
    let kept = desk.kept();
    if kept > share {
        desk.give_back(kept - share);
    }
    if kept >= share {
        return Ok(true);
    }
    let claims = member
        .broker
        .acquire(group, name, share - kept, ttl)
        .await?;
    desk.add(&claims);
    Ok(kept + claims.len() >= share)
}

/// How many partitions are a member's: as many as everybody's, the first ones have one more.
fn share(pulse: &Pulse, name: &str, partitions: u32) -> usize {
    let Some(rank) = pulse.members.iter().position(|it| it == name) else {
        return 0;
    };
    let partitions = usize::try_from(partitions).unwrap_or(usize::MAX);
    let live = pulse.members.len();
    partitions / live + usize::from(rank < partitions % live)
}

/// Somebody removed the group: a broadcast whose process stood still for very long, or by hand.
async fn reopen(member: &Member) {
    tracing::warn!(
        subscription = member.group(),
        "the broker has forgotten the subscription; it begins anew"
    );
    if let Err(error) = member.broker.open_group(&member.record).await {
        tracing::warn!(subscription = member.group(), %error, "subscription cannot begin anew yet");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_even_and_cover_everything() {
        for partitions in 1..20_u32 {
            for live in 1..10_usize {
                let members: Vec<String> = (0..live).map(|n| n.to_string()).collect();
                let pulse = Pulse {
                    members: members.clone(),
                    held: Vec::new(),
                };
                let shares: Vec<usize> = members
                    .iter()
                    .map(|name| share(&pulse, name, partitions))
                    .collect();
                assert_eq!(shares.iter().sum::<usize>(), partitions as usize);
                let (min, max) = (shares.iter().min(), shares.iter().max());
                assert!(max.unwrap() - min.unwrap() <= 1);
            }
        }
        assert_eq!(share(&Pulse::default(), "unknown", 8), 0);
    }
}
