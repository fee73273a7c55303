//! What one owner of a partition has in hand, from the first request to the acknowledgement.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use async_nats::{Message, Subject, Subscriber};
use futures_util::StreamExt;
use tokio::time::Instant;

use super::reply::Place;
use crate::bus::broker::{Claim, Delivery, Payload, Position};

/// How many acknowledged deliveries an owner recognises when a server that was killed has forgotten the
/// acknowledgement and delivers them again.
const REMEMBERED: usize = 8_192;

/// A partition that is owned, and everything that was delivered for it and is not acknowledged.
///
/// The server counts what it delivers for a consumer. As long as those numbers follow each other here,
/// everything that it delivered came here, and in order. A number that is missing went to somebody whose
/// claim has run out, or down with a connection: from then on nothing is handed out until everything
/// that is unacknowledged is in hand again, see [`settle`](super::settle).
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) claim: Claim,
    /// What the claim's entry in the state says: whose it is.
    pub(super) title: String,
    /// The revision of that entry.
    revision: AtomicU64,
    pub(super) consumer: String,
    hand: Mutex<Hand>,
}

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
    /// The number of the next delivery; `None` while something is missing.
    pub(super) next: Option<u64>,
    /// A request that waits for nothing was answered to its end: nothing was there.
    pub(super) empty: bool,
    /// Received and not handed out, by place in the stream.
    ready: BTreeMap<u64, Waiting>,
    /// Handed out and not acknowledged.
    held: BTreeMap<u64, Held>,
    done: Done,
    deleted: bool,
}

#[derive(Debug)]
struct Waiting {
    message: Message,
    reply: Subject,
    since: Instant,
}

#[derive(Debug)]
struct Held {
    reply: Subject,
    since: Instant,
}

/// The latest deliveries that were acknowledged.
#[derive(Debug, Default)]
struct Done {
    places: HashSet<u64>,
    order: VecDeque<u64>,
}

impl Done {
    fn remember(&mut self, place: u64) {
        if self.places.insert(place) {
            self.order.push_back(place);
        }
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.places.remove(&oldest);
        }
    }
}

impl Lease {
    pub(super) fn new(claim: Claim, title: String, consumer: String) -> Self {
        Self {
            revision: AtomicU64::new(claim.fence),
            claim,
            title,
            consumer,
            hand: Mutex::new(Hand {
                messages: None,
                inbox: String::new(),
                given_back: false,
                outstanding: 0,
                heard: Instant::now(),
                connects: 0,
                next: None,
                empty: false,
                ready: BTreeMap::new(),
                held: BTreeMap::new(),
                done: Done::default(),
                deleted: false,
            }),
        }
    }

    /// No code of others runs under this lock, so a poisoned one means nothing.
    pub(super) fn hand(&self) -> MutexGuard<'_, Hand> {
        self.hand.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn revision(&self) -> u64 {
        self.revision.load(Ordering::Relaxed)
    }

    pub(super) fn set_revision(&self, revision: u64) {
        self.revision.store(revision, Ordering::Relaxed);
    }

    /// Reads no more: what is in hand is the next owner's.
    pub(super) fn give_back(&self) {
        let mut hand = self.hand();
        hand.given_back = true;
        hand.next = None;
        hand.messages = None;
        hand.ready.clear();
    }
}

impl Hand {
    /// Whether it listens for deliveries; one that was given back never does again.
    pub(super) fn listens(&self) -> bool {
        self.messages.is_some() || self.given_back
    }

    pub(super) fn listen(&mut self, messages: Subscriber, inbox: String) {
        if !self.given_back {
            self.messages = Some(messages);
            self.inbox = inbox;
        }
    }

    pub(super) fn is_given_back(&self) -> bool {
        self.given_back
    }

    pub(super) fn is_deleted(&self) -> bool {
        self.deleted
    }

    /// How many deliveries are in hand.
    pub(super) fn len(&self) -> usize {
        self.ready.len() + self.held.len()
    }

    pub(super) fn has(&self, place: u64) -> bool {
        self.held.contains_key(&place) || self.ready.contains_key(&place)
    }

    /// How many were received and not handed out.
    pub(super) fn waiting(&self) -> usize {
        self.ready.len()
    }

    /// Takes in everything that has arrived. Returns whom to acknowledge again, and whether anything
    /// came.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, again: &mut Vec<Subject>) -> Poll<()> {
        let mut came = false;
        while let Some(messages) = &mut self.messages {
            match messages.poll_next_unpin(cx) {
                Poll::Pending => break,
                Poll::Ready(Some(message)) => {
                    came = true;
                    again.extend(self.take_in(message));
                }
                // The connection was closed for good.
                Poll::Ready(None) => {
                    self.messages = None;
                    self.next = None;
                    came = true;
                }
            }
        }
        if came { Poll::Ready(()) } else { Poll::Pending }
    }

    fn take_in(&mut self, mut message: Message) -> Option<Subject> {
        self.heard = Instant::now();
        if let Some(status) = message.status {
            self.status(status.as_u16(), &message);
            return None;
        }
        let reply = message.reply.take()?;
        let place = Place::of(&reply)?;
        self.outstanding = self.outstanding.saturating_sub(1);
        self.empty = false;
        match self.next {
            Some(next) if place.delivery == next => self.next = Some(next + 1),
            // Sent before everything was counted, and counted.
            Some(next) if place.delivery < next && self.knows(place.stream) => {}
            _ => self.next = None,
        }
        if self.done.places.contains(&place.stream) {
            return Some(reply);
        }
        let since = Instant::now();
        if let Some(held) = self.held.get_mut(&place.stream) {
            *held = Held { reply, since };
        } else {
            let waiting = Waiting {
                message,
                reply,
                since,
            };
            self.ready.insert(place.stream, waiting);
        }
        None
    }

    fn knows(&self, place: u64) -> bool {
        self.has(place) || self.done.places.contains(&place)
    }

    fn status(&mut self, status: u16, message: &Message) {
        let header = |name: &str| -> Option<u64> {
            message.headers.as_ref()?.get(name)?.as_str().parse().ok()
        };
        if status == 100 {
            let last = header("Nats-Last-Consumer");
            if last.is_some() && last.map(|last| last + 1) != self.next {
                self.next = None;
            }
            return;
        }
        if status == 409 && message.description.as_deref() == Some("Consumer Deleted") {
            self.deleted = true;
        }
        if message.subject.ends_with(BRIEFLY) {
            self.empty = true;
        } else {
            let unsent = header("Nats-Pending-Messages").map(usize::try_from);
            self.outstanding = match unsent {
                Some(Ok(unsent)) => self.outstanding.saturating_sub(unsent),
                _ => 0,
            };
        }
    }

    /// Hands out the next delivery.
    pub(super) fn next(
        &mut self,
        claim: Claim,
        is_redriven: impl Fn(&str) -> bool,
    ) -> Option<Delivery> {
        if self.next.is_none() || self.given_back {
            return None;
        }
        let (place, waiting) = self.ready.pop_first()?;
        let held = Held {
            reply: waiting.reply,
            since: waiting.since,
        };
        self.held.insert(place, held);
        Some(Delivery {
            claim,
            position: Position {
                source: 0,
                major: place,
                minor: 0,
            },
            redriven: is_redriven(&waiting.message.subject),
            payload: Payload(Arc::from(&waiting.message.payload[..])),
        })
    }

    /// Where to acknowledge what was handed out; `None` if that was done.
    pub(super) fn reply(&self, position: Position) -> Option<Subject> {
        self.held
            .get(&position.major)
            .map(|held| held.reply.clone())
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

/// The last token of the inbox for requests that wait until something comes.
pub(super) const PATIENTLY: &str = "wait";
/// The same for requests that take only what is there.
pub(super) const BRIEFLY: &str = "now";
