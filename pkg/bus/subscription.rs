use std::sync::Arc;

use super::filter::{EventTypes, Filter};
use super::redelivery::RedeliveryPolicy;
use crate::document::DocumentKey;
use crate::error::{Error, ErrorKind, Result};

/// Where a subscription begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum StartFrom {
    /// With events published after the subscription, or where its group has got to.
    #[default]
    Now,
    /// With the oldest event the bus still has, or where its group has got to.
    Beginning,
}

/// What to receive and how.
///
/// Without a group a subscription is a broadcast: it receives every event that passes its filter,
/// beside all others, for as long as it lives. Subscriptions with the same group share its events
/// between them. A durable subscription of one consumer is a group with one member.
///
/// # Examples
/// ```
/// use nodestorage::DocumentKey;
/// use nodestorage::bus::{RedeliveryPolicy, Subscription};
///
/// Subscription::to("UserCreated");
/// Subscription::to(["UserCreated", "UserDeleted"]).with_group("mailer");
/// Subscription::matching("User*").with_workers(8);
/// Subscription::to_all()
///     .with_document(DocumentKey::new("users", "user123"))
///     .with_retry(RedeliveryPolicy::new().with_attempts(3));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[must_use = "a subscription does nothing until it is passed to a bus"]
pub struct Subscription {
    /// Which events.
    pub filter: Filter,
    /// The group to share them with; `None` for a broadcast. Default none.
    pub group: Option<Arc<str>>,
    /// How many events this member handles at a time, each about another document. Default 1.
    pub workers: usize,
    /// How failures are retried. The same for all members of a group.
    pub retry: RedeliveryPolicy,
    /// How many events may wait or be in work, in the group on a bus in memory, in this member on a
    /// broker; beyond it intake waits. Default 1,024: with events of a few kilobytes a few megabytes.
    pub queue: usize,
    /// How many dead letters are kept; when they are all used the subscription stalls. Default 1,000.
    pub max_dead_letters: usize,
    /// How many attempts at an event may have no end, because the process died in them or its claim ran out,
    /// before the event goes to the dead letters, on a bus that outlives its processes. The first two times
    /// that an event is handed out are not counted, and after two counted attempts it is handled alone in its
    /// member. The same for all members of a group. Default 16: over some minutes with the default claims.
    pub max_unfinished: u32,
    /// Where to begin. The same for all members of a group. Default [`StartFrom::Now`].
    pub start: StartFrom,
}

impl Subscription {
    /// Subscribes to what passes a filter.
    pub fn new(filter: Filter) -> Self {
        Self {
            filter,
            group: None,
            workers: 1,
            retry: RedeliveryPolicy::default(),
            queue: 1_024,
            max_dead_letters: 1_000,
            max_unfinished: 16,
            start: StartFrom::default(),
        }
    }

    /// Subscribes to one event type or several.
    pub fn to(types: impl Into<EventTypes>) -> Self {
        Self::new(Filter::types(types))
    }

    /// Subscribes to the event types that match a pattern, or one of several. See [`Filter`] for the
    /// syntax.
    pub fn matching(patterns: impl Into<EventTypes>) -> Self {
        Self::new(Filter::patterns(patterns))
    }

    /// Subscribes to everything.
    pub fn to_all() -> Self {
        Self::new(Filter::all())
    }

    /// Narrows it to one collection. Replaces an earlier collection or document.
    pub fn with_collection(mut self, collection: impl Into<Arc<str>>) -> Self {
        self.filter = self.filter.with_collection(collection);
        self
    }

    /// Narrows it to one document. Replaces an earlier collection or document.
    pub fn with_document(mut self, document: DocumentKey) -> Self {
        self.filter = self.filter.with_document(document);
        self
    }

    /// Shares the events with the other members of a group.
    pub fn with_group(mut self, name: impl Into<Arc<str>>) -> Self {
        self.group = Some(name.into());
        self
    }

    /// Sets how many events this member handles at a time.
    pub fn with_workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// Sets the retry policy.
    pub fn with_retry(mut self, retry: RedeliveryPolicy) -> Self {
        self.retry = retry;
        self
    }

    /// Sets how many events may wait or be in work.
    pub fn with_queue(mut self, events: usize) -> Self {
        self.queue = events;
        self
    }

    /// Sets how many dead letters are kept.
    pub fn with_max_dead_letters(mut self, letters: usize) -> Self {
        self.max_dead_letters = letters;
        self
    }

    /// Sets how many attempts at an event may have no end.
    pub fn with_max_unfinished(mut self, attempts: u32) -> Self {
        self.max_unfinished = attempts;
        self
    }

    /// Sets where to begin.
    pub fn with_start(mut self, start: StartFrom) -> Self {
        self.start = start;
        self
    }

    /// Refuses what no bus can do; for bus implementations.
    ///
    /// # Errors
    /// `InvalidConfig`, naming the option.
    pub fn validate(&self) -> Result<()> {
        self.filter.validate()?;
        let group_is_empty = self.group.as_deref().is_some_and(str::is_empty);
        for (wrong, what) in [
            (group_is_empty, "an empty group name"),
            (self.workers == 0, "no workers"),
            (self.queue == 0, "a queue for no events"),
            (self.retry.attempts == 0, "no attempts"),
            (self.max_unfinished == 0, "no attempts that may have no end"),
        ] {
            if wrong {
                return Err(Error::new(
                    ErrorKind::InvalidConfig,
                    format!("subscription has {what}"),
                ));
            }
        }
        Ok(())
    }

    /// What is the group's own, as text that is equal for equal wishes, also in other processes.
    #[cfg(any(feature = "redis", feature = "nats"))]
    pub(super) fn asks(&self) -> String {
        let start = match self.start {
            StartFrom::Now => "now",
            StartFrom::Beginning => "beginning",
        };
        serde_json::json!({
            "filter": self.filter.describe(),
            "start": start,
            "retry": {
                "attempts": self.retry.attempts,
                "base_delay_ns": self.retry.base_delay.as_nanos(),
                "max_delay_ns": self.retry.max_delay.as_nanos(),
                "jitter": self.retry.jitter,
            },
            "queue": self.queue,
            "max_dead_letters": self.max_dead_letters,
            "max_unfinished": self.max_unfinished,
        })
        .to_string()
    }

    /// Whether both may be members of one group: what is the group's own is the same.
    pub(crate) fn fits(&self, other: &Self) -> bool {
        self.filter == other.filter
            && self.start == other.start
            && self.retry == other.retry
            && self.queue == other.queue
            && self.max_dead_letters == other.max_dead_letters
            && self.max_unfinished == other.max_unfinished
    }
}
