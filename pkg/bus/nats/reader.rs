//! Reading the partitions that a member owns.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use serde_json::json;
use tokio::time::{Instant, timeout_at};

use super::hand::{PATIENTLY, Probed};
use super::jetstream::Shared;
use super::lease::Lease;
use super::settle::{acknowledge_again, settle};
use crate::bus::broker::{Claim, Delivery, Reader};
use crate::error::{Error, ErrorKind, Result};

/// How many messages of a partition are requested or wait here at most: enough that a reader does not
/// wait for the server, and few, since they are what the next owner has to fetch.
const AHEAD: usize = 64;

/// How long a request stays with the server. Somebody who was cut off without noticing has taken
/// deliveries from the next owner for so long at most.
const REQUEST: Duration = Duration::from_secs(5);

/// How often the server says that it has nothing; twice as long without a word, and the request is lost.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// Reads that wait no longer than this ask the server whether something is there.
const BRIEF: Duration = Duration::from_millis(100);

/// The pause before a partition is looked at again whose unacknowledged deliveries have not all come.
const UNSETTLED: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub(super) struct MemberReader {
    shared: Arc<Shared>,
    group: Arc<str>,
    member: Arc<str>,
    /// Whose turn it is first, so that a busy partition does not starve the others.
    turn: usize,
}

impl MemberReader {
    pub(super) fn new(shared: Arc<Shared>, group: &str, member: &str) -> Self {
        Self {
            shared,
            group: group.into(),
            member: member.into(),
            turn: 0,
        }
    }

    /// Settles what is not. Says whether all are.
    async fn settle(&self, leases: &[Arc<Lease>]) -> Result<bool> {
        let connects = self.shared.server.connects();
        let mut all = true;
        let mut due = Vec::new();
        for lease in leases {
            let mut hand = lease.hand();
            let silent = hand.outstanding > 0 && hand.heard.elapsed() > HEARTBEAT * 2;
            if hand.connects != connects || silent {
                hand.settled = false;
                hand.outstanding = 0;
            }
            if hand.settled || hand.is_given_back() {
                continue;
            }
            if hand.retry_at <= Instant::now() {
                due.push(lease);
            } else {
                all = false;
            }
        }
        let settling = due
            .iter()
            .map(|lease| settle(&self.shared.server, &self.shared.stream, lease));
        for settled in join_all(settling).await {
            all &= settled?;
        }
        Ok(all)
    }

    /// Requests more where little is on its way.
    async fn request(&self, leases: &[Arc<Lease>]) -> Result<()> {
        for lease in leases {
            let (wanted, inbox) = {
                let mut hand = lease.hand();
                let ahead = hand.outstanding + hand.waiting();
                if !hand.settled || ahead > AHEAD / 2 {
                    continue;
                }
                let wanted = AHEAD - ahead;
                hand.outstanding += wanted;
                hand.heard = Instant::now();
                (wanted, format!("{}.{PATIENTLY}", hand.inbox))
            };
            let request = json!({
                "batch": wanted,
                "max_bytes": self.shared.request_bytes(),
                "expires": nanoseconds(REQUEST),
                "idle_heartbeat": nanoseconds(HEARTBEAT),
            });
            let (server, stream) = (&self.shared.server, &self.shared.stream);
            let sent = server.pull(stream, &lease.consumer, inbox, &request).await;
            if let Err(error) = sent {
                lease.hand().outstanding = 0;
                return Err(error);
            }
        }
        Ok(())
    }

    /// Asks whether anything is there.
    async fn probe(&self, leases: &[Arc<Lease>]) -> Result<()> {
        for lease in leases {
            let inbox = lease.hand().probe();
            let request = json!({ "batch": AHEAD, "no_wait": true });
            let (server, stream) = (&self.shared.server, &self.shared.stream);
            server
                .pull(stream, &lease.consumer, inbox, &request)
                .await?;
        }
        Ok(())
    }

    /// Waits until something has arrived for one of them.
    async fn arrive(&self, leases: &[Arc<Lease>], until: Instant) -> Result<()> {
        let mut again = Vec::new();
        let came = poll_fn(|cx| {
            let mut came = Poll::Pending;
            for lease in leases {
                if lease.poll(cx, &mut again).is_ready() {
                    came = Poll::Ready(());
                }
            }
            came
        });
        // Without anything the caller looks at its deadlines.
        let _ = timeout_at(until, came).await;
        acknowledge_again(&self.shared.server, again).await?;
        match leases.iter().find(|lease| lease.hand().is_deleted()) {
            Some(_) => Err(Error::new(
                ErrorKind::NotFound,
                format!("nats: group {} is gone", self.group),
            )),
            None => Ok(()),
        }
    }

    fn hand_out(&mut self, leases: &[Arc<Lease>], at_most: usize) -> Vec<Delivery> {
        let mut deliveries = Vec::new();
        self.turn = self.turn.wrapping_add(1);
        let count = leases.len().max(1);
        let turns = (0..count).filter_map(|n| leases.get((self.turn + n) % count));
        for lease in turns {
            while deliveries.len() < at_most {
                match lease.next() {
                    Some(delivery) => deliveries.push(delivery),
                    None => break,
                }
            }
        }
        deliveries
    }
}

#[async_trait]
impl Reader for MemberReader {
    async fn read(
        &mut self,
        claims: &[Claim],
        at_most: usize,
        wait: Duration,
    ) -> Result<Vec<Delivery>> {
        let begin = Instant::now();
        let leases = self
            .shared
            .leases
            .current(&self.group, &self.member, claims);
        let brief = wait <= BRIEF;
        let deadline = begin
            + if brief {
                self.shared.server.timeout()
            } else {
                wait
            };
        let mut probed = false;
        loop {
            // What has arrived meanwhile, without waiting; signs of life among it.
            self.arrive(&leases, begin).await?;
            let settled = self.settle(&leases).await?;
            self.request(&leases).await?;
            let deliveries = self.hand_out(&leases, at_most);
            if !deliveries.is_empty() {
                self.request(&leases).await?;
                return Ok(deliveries);
            }
            if brief && settled {
                let answers = |answer: Option<Probed>| {
                    let probed = leases.iter().map(|lease| lease.hand().probed);
                    probed.filter(|probed| *probed == answer).count()
                };
                if probed && answers(Some(Probed::Empty)) == leases.len() {
                    return Ok(deliveries);
                }
                if !probed || answers(Some(Probed::Unclear)) > 0 {
                    probed = true;
                    self.probe(&leases).await?;
                }
            }
            let now = Instant::now();
            if now >= deadline {
                return if brief && !leases.is_empty() {
                    Err(Error::new(
                        ErrorKind::Timeout,
                        format!(
                            "nats: the server does not say whether group {} has more",
                            self.group
                        ),
                    ))
                } else {
                    Ok(deliveries)
                };
            }
            let pause = if settled { HEARTBEAT * 2 } else { UNSETTLED };
            self.arrive(&leases, deadline.min(now + pause)).await?;
        }
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
