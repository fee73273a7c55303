//! Deliveries of one partition: which came, which were handed out, and which may be missing.

use std::collections::BTreeMap;
use std::task::{Context, Poll};
use std::time::Duration;

use async_nats::{Message, Subject, Subscriber};
use futures_util::StreamExt;
use tokio::time::Instant;

use super::done::Done;
use super::reply::Place;
use crate::bus::broker::{Claim, Delivery, Payload, Position};

/// How letters on their way back are told from events.
#[derive(Debug)]
pub(super) struct Redriven {
    /// The subject of those of this group.
    pub(super) own: String,
    /// What the subjects of all groups begin with.
    pub(super) all: String,
}

/// What an owner has in hand.
#[derive(Debug)]
pub(super) struct Hand {
    messages: Option<Subscriber>,
    pub(super) inbox: String,
    given_back: bool,
    /// How many messages the server may still send for what was requested.
    pub(super) outstanding: usize,
    /// When the server was last heard, or asked.
    pub(super) heard: Instant,
    /// The connection in which the requests were made.
    pub(super) connects: u64,
    /// In which connection it was looked up what the server knows, and the last message of the stream
    /// that it knows to be delivered.
    pub(super) known: Option<Known>,
    /// The number of the next delivery; `None` when one was missing, until all were counted again.
    pub(super) next: Option<u64>,
    /// Whether everything that is unacknowledged is in hand. If not, nothing is handed out.
    pub(super) settled: bool,
    /// Not before this is it tried again to settle.
    pub(super) retry_at: Instant,
    /// Which request was the last that takes only what is there, and how it was answered.
    probe: u64,
    pub(super) probed: Option<Probed>,
    /// Something was delivered for the first time since the last such request.
    pub(super) fresh: bool,
    /// Received and not handed out, by place in the stream.
    ready: BTreeMap<u64, Waiting>,
    /// Handed out and not acknowledged.
    held: BTreeMap<u64, Held>,
    done: Done,
    deleted: bool,
}

/// What a server knows: one that was killed has forgotten the latest deliveries and acknowledgements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) connects: u64,
    pub(super) delivered: u64,
}

/// The end of a request that takes only what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Probed {
    /// Nothing more was there.
    Empty,
    /// It cannot be said.
    Unclear,
}

#[derive(Debug)]
struct Waiting {
    message: Message,
    reply: Subject,
    since: Instant,
    /// How often it was delivered.
    times: u64,
}

#[derive(Debug)]
struct Held {
    reply: Subject,
    since: Instant,
    /// The connection in which it came.
    connects: u64,
    /// An acknowledgement was sent, and the server may have it.
    acknowledging: bool,
}

impl Hand {
    pub(super) fn new() -> Self {
        Self {
            messages: None,
            inbox: String::new(),
            given_back: false,
            outstanding: 0,
            heard: Instant::now(),
            connects: 0,
            known: None,
            next: None,
            settled: false,
            retry_at: Instant::now(),
            probe: 0,
            probed: None,
            fresh: false,
            ready: BTreeMap::new(),
            held: BTreeMap::new(),
            done: Done::default(),
            deleted: false,
        }
    }

    pub(super) fn give_back(&mut self) {
        self.given_back = true;
        self.settled = false;
        self.messages = None;
        self.ready.clear();
    }

    /// Whether it listens for deliveries; one that was given back never does again.
    pub(super) fn listens(&self) -> bool {
        self.messages.is_some() || self.given_back
    }

    pub(super) fn listen(&mut self, messages: Subscriber, inbox: String, connects: u64) {
        if !self.given_back {
            self.messages = Some(messages);
            self.inbox = inbox;
            self.connects = connects;
            self.outstanding = 0;
        }
    }

    /// Where the answers to the next request come that takes only what is there.
    pub(super) fn probe(&mut self) -> String {
        self.probe += 1;
        self.probed = None;
        self.fresh = false;
        format!("{}.{}", self.inbox, self.probe)
    }

    pub(super) fn is_given_back(&self) -> bool {
        self.given_back
    }

    pub(super) fn is_deleted(&self) -> bool {
        self.deleted
    }

    pub(super) fn has(&self, place: u64) -> bool {
        self.held.contains_key(&place) || self.ready.contains_key(&place)
    }

    /// How many are in hand that the server cannot know to be acknowledged.
    pub(super) fn unacknowledged(&self) -> usize {
        let held = self.held.values().filter(|held| !held.acknowledging);
        self.ready.len() + held.count()
    }

    /// How many were received and not handed out.
    pub(super) fn waiting(&self) -> usize {
        self.ready.len()
    }

    /// See [`Lease::poll`](super::lease::Lease::poll).
    pub(super) fn poll(
        &mut self,
        redriven: &Redriven,
        cx: &mut Context<'_>,
        again: &mut Vec<Subject>,
    ) -> Poll<()> {
        let mut came = false;
        while let Some(messages) = &mut self.messages {
            match messages.poll_next_unpin(cx) {
                Poll::Pending => break,
                Poll::Ready(Some(message)) => {
                    came = true;
                    again.extend(self.take_in(redriven, message));
                }
                // The connection was closed for good.
                Poll::Ready(None) => {
                    self.messages = None;
                    self.settled = false;
                    came = true;
                }
            }
        }
        if came { Poll::Ready(()) } else { Poll::Pending }
    }

    fn take_in(&mut self, redriven: &Redriven, mut message: Message) -> Option<Subject> {
        self.heard = Instant::now();
        if let Some(status) = message.status {
            self.status(status.as_u16(), &message);
            return None;
        }
        let reply = message.reply.take()?;
        let place = Place::of(&reply)?;
        self.outstanding = self.outstanding.saturating_sub(1);
        match self.next {
            Some(next) if place.delivery == next => {
                self.next = Some(next + 1);
                self.fresh |= place.times == 1;
            }
            // On its way when everything was counted, and counted.
            Some(next) if place.delivery < next => {}
            _ => {
                self.next = None;
                self.settled = false;
            }
        }
        let others =
            message.subject.starts_with(&redriven.all) && *message.subject != *redriven.own;
        if others || self.done.contains(place.stream) {
            return Some(reply);
        }
        let since = Instant::now();
        if let Some(held) = self.held.get_mut(&place.stream) {
            held.reply = reply;
            held.connects = self.connects;
            held.since = since;
        } else {
            let waiting = Waiting {
                message,
                reply,
                since,
                times: place.times,
            };
            self.ready.insert(place.stream, waiting);
        }
        None
    }

    fn status(&mut self, status: u16, message: &Message) {
        let header = |name: &str| -> Option<u64> {
            message.headers.as_ref()?.get(name)?.as_str().parse().ok()
        };
        if status == 100 {
            let last = header("Nats-Last-Consumer");
            if last.is_some() && last.map(|last| last + 1) != self.next {
                self.next = None;
                self.settled = false;
            }
            return;
        }
        if status == 409 && message.description.as_deref() == Some("Consumer Deleted") {
            self.deleted = true;
        }
        let request = message.subject.rsplit('.').next().unwrap_or_default();
        if let Ok(probe) = request.parse::<u64>() {
            if probe == self.probe {
                // "408 Requests Pending": something is there, for requests that were first.
                self.probed = Some(if status == 404 {
                    Probed::Empty
                } else {
                    Probed::Unclear
                });
            }
        } else {
            let unsent = header("Nats-Pending-Messages").map(usize::try_from);
            self.outstanding = match unsent {
                Some(Ok(unsent)) => self.outstanding.saturating_sub(unsent),
                _ => 0,
            };
        }
    }

    /// Hands out the next delivery.
    pub(super) fn next(&mut self, claim: Claim, redriven: &Redriven) -> Option<Delivery> {
        if !self.settled || self.given_back {
            return None;
        }
        let (place, waiting) = self.ready.pop_first()?;
        let held = Held {
            reply: waiting.reply,
            since: waiting.since,
            connects: self.connects,
            acknowledging: false,
        };
        self.held.insert(place, held);
        Some(Delivery {
            claim,
            position: Position {
                source: 0,
                major: place,
                minor: 0,
            },
            redriven: *waiting.message.subject == *redriven.own,
            times: u32::try_from(waiting.times).unwrap_or(u32::MAX),
            payload: Payload(waiting.message.payload),
        })
    }

    /// Whether a delivery was handed out and is not acknowledged.
    pub(super) fn holds(&self, position: Position) -> bool {
        self.held.contains_key(&position.major)
    }

    /// Where to acknowledge what was handed out; `None` if that was done, or the server does not know of
    /// the delivery any more. It ignores such acknowledgements, and delivers the message again: then it
    /// is acknowledged.
    pub(super) fn acknowledge(&mut self, position: Position) -> Option<Subject> {
        let known = self.known?;
        let held = self.held.get_mut(&position.major)?;
        if held.connects != known.connects && position.major > known.delivered {
            self.acknowledged(position);
            return None;
        }
        held.acknowledging = true;
        Some(held.reply.clone())
    }

    /// An acknowledgement got no answer: nothing is taken for known that was not looked up.
    pub(super) fn doubt(&mut self) {
        self.known = None;
        for held in self.held.values_mut() {
            held.connects = 0;
        }
    }

    /// The server has confirmed an acknowledgement.
    pub(super) fn acknowledged(&mut self, position: Position) {
        if self.held.remove(&position.major).is_some() {
            self.done.remember(position.major);
        }
    }

    /// Where to tell the server that deliveries are still in work, for those that it has not heard of for
    /// `silence`.
    pub(super) fn keep_alive(&mut self, silence: Duration) -> Vec<Subject> {
        let now = Instant::now();
        let mut replies = Vec::new();
        let held = self.held.values_mut().map(|it| (&it.reply, &mut it.since));
        let ready = self.ready.values_mut().map(|it| (&it.reply, &mut it.since));
        for (reply, since) in held.chain(ready) {
            if now.duration_since(*since) >= silence {
                *since = now;
                replies.push(reply.clone());
            }
        }
        replies
    }
}

/// The last token of the inbox for requests that wait until something comes; for those that take only
/// what is there it is their number.
pub(super) const PATIENTLY: &str = "wait";
