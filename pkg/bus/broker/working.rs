use std::sync::Arc;
use std::time::Duration;

use super::desk::{Content, Job};
use super::member::Member;
use super::reading::pause;
use super::unfinished::{Prepared, broken_off, cause, prepare};
use super::wire::foreign_id;
use super::{Burial, Letter};
use crate::bus::SubscriptionState;
use crate::bus::work::attempt;
use crate::error::ErrorKind;

/// How often a stalled subscription looks whether another process has made room.
const LOOKING_FOR_ROOM: Duration = Duration::from_millis(250);

/// Handles one event after the other.
pub(super) async fn work(member: Arc<Member>) {
    loop {
        let mut job = tokio::select! {
            biased;
            () = member.crew.stop().cancelled() => return,
            job = member.desk.next() => job,
        };
        let event = match &job.content {
            Content::Event(event) => event.clone(),
            Content::Foreign { .. } => {
                bury(&member, job, None).await;
                continue;
            }
        };
        let turn = match prepare(&member, &job).await {
            Prepared::Begin(turn) => turn,
            Prepared::GiveUp(attempts) => {
                bury(&member, job, Some((cause(attempts), attempts))).await;
                continue;
            }
            Prepared::BrokenOff => continue,
        };
        let outcome = attempt(&member.handler, event, broken_off(&member, &job)).await;
        drop(turn);
        match outcome {
            None => drop(job),
            Some(Ok(())) => job.handled(),
            Some(Err(error)) => {
                if !job.retried(member.spec.retry) {
                    let attempts = job.attempts();
                    bury(&member, job, Some((error, attempts))).await;
                }
            }
        }
    }
}

/// Puts what cannot be handled into the dead letters. While they are full the subscription stalls, and
/// the job keeps its place.
async fn bury(member: &Arc<Member>, job: Job, failure: Option<(String, u32)>) {
    let letter = match letter(member, &job, failure) {
        Ok(letter) => letter,
        Err(error) => {
            // It was read through the same serializer, so this one is at odds with itself; the event
            // stays unacknowledged, and its document waits for a better one.
            tracing::error!(subscription = member.group(), %error, "dead letter has no form");
            member.crew.stop().cancelled().await;
            return;
        }
    };
    let lost = job.lost.clone();
    tokio::select! {
        biased;
        () = member.crew.kill().cancelled() => {}
        // Whoever else is stalled notices again by itself.
        () = lost.cancelled() => go_on(member),
        burial = store(member, &job, &letter) => match burial {
            Some(Burial::Stored) => {
                tracing::warn!(
                    subscription = member.group(), letter = %letter.id,
                    attempts = letter.attempts, "given up and put into the dead letters"
                );
                job.buried();
            }
            Some(Burial::NotOwner) => {
                let claim = job.done().claim;
                member.desk.lose(|it| it == claim);
            }
            // Ends without: dropping the job puts it back.
            Some(Burial::Full) | None => {}
        },
    }
}

fn letter(
    member: &Member,
    job: &Job,
    failure: Option<(String, u32)>,
) -> crate::error::Result<Letter> {
    let done = job.done();
    let partition = done.claim.partition;
    Ok(match &job.content {
        Content::Event(event) => {
            let (error, attempts) = failure.unwrap_or_default();
            Letter {
                id: event.id(),
                partition,
                payload: member.wire.payload(event)?,
                error,
                attempts,
            }
        }
        Content::Foreign { payload, error } => Letter {
            id: foreign_id(member.broker.label(), partition, done.position),
            partition,
            payload: payload.clone(),
            error: error.clone(),
            attempts: 0,
        },
    })
}

/// Tries until the letter lies there; `None` if the member ends before.
async fn store(member: &Member, job: &Job, letter: &Letter) -> Option<Burial> {
    let (group, max) = (member.group(), member.spec.max_dead_letters);
    let mut failures = 0;
    loop {
        let taken = member.letters_taken.notified();
        tokio::pin!(taken);
        // Registered before the attempt, so that room made right after it is not missed.
        taken.as_mut().enable();
        let burial = member
            .broker
            .bury(group, &member.name, job.done(), letter, max)
            .await;
        let wait = match burial {
            Ok(Burial::Full) => {
                stall(member);
                failures = 0;
                LOOKING_FOR_ROOM
            }
            Ok(burial) => {
                go_on(member);
                return Some(burial);
            }
            Err(error) => {
                failures += 1;
                if failures == 1 {
                    tracing::warn!(subscription = group, %error, "dead letter not stored yet");
                }
                pause(failures)
            }
        };
        tokio::select! {
            biased;
            () = member.crew.stop().cancelled() => return None,
            () = taken => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

fn stall(member: &Member) {
    if member.desk.stalled().is_some() {
        return;
    }
    let reason: Arc<str> = format!(
        "there is no room for more than {} dead letters; redrive or discard some",
        member.spec.max_dead_letters
    )
    .into();
    tracing::error!(subscription = member.group(), %reason, "subscription stalled");
    member.desk.stall(Some(Arc::clone(&reason)));
    member.state.send_if_modified(|state| {
        let stalls = *state == SubscriptionState::Running;
        if stalls {
            *state = SubscriptionState::Stalled { reason };
        }
        stalls
    });
}

fn go_on(member: &Member) {
    if member.desk.stalled().is_none() {
        return;
    }
    member.desk.stall(None);
    member.state.send_if_modified(|state| {
        let stalled = matches!(state, SubscriptionState::Stalled { .. });
        if stalled {
            *state = SubscriptionState::Running;
        }
        stalled
    });
}

/// Tells the broker what was handled, as much at a time as came together meanwhile.
pub(super) async fn acknowledge(member: Arc<Member>) {
    let desk = &member.desk;
    let stop = member.upkeep.stop();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = desk.handled.notified() => {}
        }
        let mut failures = 0;
        loop {
            let done = if failures == 0 {
                desk.take_handled()
            } else {
                desk.acknowledging()
            };
            if done.is_empty() {
                break;
            }
            let call = member
                .broker
                .acknowledge(member.group(), &member.name, &done);
            let result = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                result = call => result,
            };
            match result {
                Ok(()) => {
                    failures = 0;
                    desk.acknowledged();
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    failures = 0;
                    desk.acknowledged();
                }
                Err(error) => {
                    failures += 1;
                    if failures == 1 {
                        tracing::warn!(
                            subscription = member.group(), %error,
                            "acknowledging failed, trying again"
                        );
                    }
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = tokio::time::sleep(pause(failures)) => {}
                    }
                }
            }
        }
    }
}
