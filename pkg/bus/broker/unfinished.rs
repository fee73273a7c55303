//! Events whose handling does not come to an end, because the process dies over them.
//!
//! What a handler makes of an event is counted in the process; a process that dies takes the count along, and
//! the next one would die in its turn, for ever. So attempts at events that were handed out often are noted in
//! the broker before they begin. An event that has been handed out often need not be to blame: it may only have
//! waited behind one that is. Therefore what counts are attempts and not deliveries, and what is under suspicion
//! is handled alone, so that nobody else's attempt is in progress when the process dies.

use std::future::Future;

use tokio::sync::{RwLockReadGuard, RwLockWriteGuard};

use super::desk::Job;
use super::member::Member;
use super::reading::pause;
use crate::error::Result;

/// So many deliveries say nothing: what a member takes over from another was mostly not begun. Noting attempts
/// costs two round trips, which the events of one dead member should not.
const UNSUSPICIOUS: u32 = 2;

/// From so many attempts without an end on, an event is handled alone; its last one is in any case.
const ALONE: u32 = 2;

/// How to go about an attempt.
pub(super) enum Prepared<'a> {
    /// Go on, and keep this until the attempt is over.
    Begin(Turn<'a>),
    /// So many attempts have had no end; there is no other.
    GiveUp(u32),
    /// The claim was lost, or the member is ending.
    BrokenOff,
}

/// The right to have a handler at work: beside others, or alone.
#[derive(Debug)]
pub(super) enum Turn<'a> {
    Beside(#[expect(dead_code, reason = "held")] RwLockReadGuard<'a, ()>),
    Alone(#[expect(dead_code, reason = "held")] RwLockWriteGuard<'a, ()>),
}

/// Makes ready for an attempt at an event.
pub(super) async fn prepare<'a>(member: &'a Member, job: &Job) -> Prepared<'a> {
    let prepared = async {
        if job.deliveries() <= UNSUSPICIOUS {
            return Prepared::Begin(Turn::Beside(member.turns.read().await));
        }
        let (group, name, done) = (member.group(), &member.name, job.done());
        let broker = &member.broker;
        let Some(begun) = asked(member, || broker.begun(group, name, done)).await else {
            return lost(member, job);
        };
        // Tried again after a failure, so the earlier attempts of this process came to an end.
        let again = job.attempts() > 1;
        if !again && begun >= member.spec.max_unfinished {
            return Prepared::GiveUp(begun);
        }
        let turn = if begun >= ALONE.min(member.spec.max_unfinished.saturating_sub(1)) {
            let alone = Turn::Alone(member.turns.write().await);
            // What others have handled must be known to the broker, or it counts as not come to an end.
            member.desk.until(|| !member.desk.has_handled()).await;
            alone
        } else {
            Turn::Beside(member.turns.read().await)
        };
        // Only now: who is still waiting for a turn has begun nothing.
        if !again
            && asked(member, || broker.begin(group, name, done))
                .await
                .is_none()
        {
            return lost(member, job);
        }
        Prepared::Begin(turn)
    };
    tokio::select! {
        biased;
        () = broken_off(member, job) => Prepared::BrokenOff,
        prepared = prepared => prepared,
    }
}

/// Completes when handlers of this job have to stop at their next `await`.
pub(super) async fn broken_off(member: &Member, job: &Job) {
    tokio::select! {
        () = member.crew.kill().cancelled() => {}
        () = job.lost.cancelled() => {}
    }
}

fn lost<'a>(member: &Member, job: &Job) -> Prepared<'a> {
    let claim = job.done().claim;
    member.desk.lose(|it| it == claim);
    Prepared::BrokenOff
}

/// Asks until the broker answers.
async fn asked<F>(member: &Member, call: impl Fn() -> F) -> Option<u32>
where
    F: Future<Output = Result<Option<u32>>>,
{
    let mut failures = 0;
    loop {
        match call().await {
            Ok(answer) => return answer,
            Err(error) => {
                failures += 1;
                if failures == 1 {
                    tracing::warn!(
                        subscription = member.group(), %error,
                        "an attempt at an event that was handed out often is not noted yet"
                    );
                }
                tokio::time::sleep(pause(failures)).await;
            }
        }
    }
}

/// What a dead letter says of an event that was given up so.
pub(super) fn cause(attempts: u32) -> String {
    format!(
        "none of {attempts} attempts came to an end: each time the process died in it, stood still, or was stopped"
    )
}
