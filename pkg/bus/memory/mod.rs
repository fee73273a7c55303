//! The bus within one process.
//!
//! A group has one queue, bounded by [`Subscription::queue`], with a lane per document; the workers of
//! all its members take the next lane that is not in work. A document's events are thus handled in
//! order with any number of workers, and a failing one holds up only its own lane. The events of
//! all groups share their payload.
//!
//! What is particular to memory: nothing survives the process. A group exists from its first member on.
//! If its last member [unsubscribes](super::SubscriptionHandle::unsubscribe), the group is drained and
//! ends; if the last one is [aborted](super::SubscriptionHandle::abort), the group goes on collecting
//! for the next member until its queue is full, and then publishing fails with `Unavailable`, as it
//! does when a full queue belongs to a stalled group. An event id that a group accepted among its last
//! 4,096 is not accepted again.

mod group;
mod member;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::group::{Group, closed};
use self::member::Member;
use super::{
    BusCapabilities, EventBus, EventHandler, PublishError, StartFrom, Subscription,
    SubscriptionHandle,
};
use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;

/// Options of a [`MemoryBus`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct MemoryBusOptions {
    /// How long closing and unsubscribing wait for handlers. Default 30 s.
    pub drain_timeout: Duration,
}

impl Default for MemoryBusOptions {
    fn default() -> Self {
        Self {
            drain_timeout: Duration::from_secs(30),
        }
    }
}

impl MemoryBusOptions {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how long closing and unsubscribing wait for handlers.
    #[must_use]
    pub fn with_drain_timeout(mut self, timeout: Duration) -> Self {
        self.drain_timeout = timeout;
        self
    }
}

/// A bus within one process: for tests, for programs that need no broker, and as the reference for the
/// others.
///
/// Clones are handles of the same bus. When the last is dropped without [`close`](EventBus::close),
/// handlers are stopped at their next `await`; a handler that owns a clone keeps the bus alive until it
/// is closed or unsubscribed. Subscribing needs a tokio runtime.
#[derive(Debug, Clone, Default)]
pub struct MemoryBus(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    options: MemoryBusOptions,
    registry: Mutex<Registry>,
    kill: CancellationToken,
}

#[derive(Debug, Default)]
struct Registry {
    groups: Vec<Arc<Group>>,
    members: Vec<Arc<Member>>,
    closed: bool,
}

impl MemoryBus {
    /// A bus with default options.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A bus with options.
    #[must_use]
    pub fn with_options(options: MemoryBusOptions) -> Self {
        Self(Arc::new(Shared {
            options,
            registry: Mutex::default(),
            kill: CancellationToken::new(),
        }))
    }
}

#[cfg(any(feature = "redis", feature = "nats"))]
impl MemoryBus {
    /// Puts bytes that are no event into the dead letters of every subscription that has room for them.
    pub(in crate::bus) fn refuse(&self, payload: &[u8], error: &Error) {
        let groups = self.0.registry().groups.clone();
        let letter = super::DeadLetter::foreign(
            Uuid::new_v4().into(),
            payload,
            super::work::with_causes(error),
        );
        for group in groups {
            group.refuse(letter.clone());
        }
    }
}

impl Shared {
    /// No code of others runs under this lock, so a poisoned one means nothing.
    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registry {
    /// Forgets subscriptions that have ended.
    fn prune(&mut self) {
        self.groups.retain(|group| !group.has_ended());
        self.members.retain(|member| !member.has_closed());
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        for member in &self.registry().members {
            member.die();
        }
    }
}

#[async_trait]
impl EventBus for MemoryBus {
    fn capabilities(&self) -> BusCapabilities {
        BusCapabilities {
            total_order: true,
            deduplicates: true,
            ..BusCapabilities::default()
        }
    }

    async fn publish(&self, events: &[Event]) -> Result<(), PublishError> {
        let groups = {
            let mut registry = self.0.registry();
            if registry.closed {
                return Err(PublishError::unavailable(0, closed()));
            }
            if registry.groups.iter().any(|group| group.has_ended()) {
                registry.prune();
            }
            registry.groups.clone()
        };
        // All at once: whoever has room gets the whole batch before anyone is waited for.
        let results = join_all(groups.iter().map(|group| group.accept(events))).await;
        let refusal = results
            .into_iter()
            .filter_map(Result::err)
            .min_by_key(|refusal| refusal.accepted);
        match refusal {
            Some(refusal) => Err(PublishError::unavailable(refusal.accepted, refusal.error)),
            None => Ok(()),
        }
    }

    async fn attach(
        &self,
        subscription: Subscription,
        handler: Arc<dyn EventHandler>,
    ) -> Result<SubscriptionHandle> {
        subscription.validate()?;
        if subscription.start != StartFrom::Now {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "a memory bus keeps no past events to start from",
            ));
        }
        if tokio::runtime::Handle::try_current().is_err() {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                "a memory bus runs its handlers on a tokio runtime, and there is none here",
            ));
        }
        let mut registry = self.0.registry();
        if registry.closed {
            return Err(closed());
        }
        registry.prune();
        let existing = subscription.group.as_ref().and_then(|name| {
            registry
                .groups
                .iter()
                .find(|group| group.name == *name && group.spec.group.is_some())
                .cloned()
        });
        if let Some(group) = &existing
            && !group.spec.fits(&subscription)
        {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                format!(
                    "group {} exists with another filter, start, retry policy or bound",
                    group.name
                ),
            ));
        }
        let workers = subscription.workers;
        let start = |group: Arc<Group>| {
            let handler = Arc::clone(&handler);
            let (kill, drain_timeout) = (&self.0.kill, self.0.options.drain_timeout);
            Member::start(group, handler, workers, kill, drain_timeout)
        };
        let member = if let Some(member) = existing.and_then(start) {
            member
        } else {
            let name = subscription
                .group
                .clone()
                .unwrap_or_else(|| format!("broadcast-{}", Uuid::new_v4()).into());
            let group = Arc::new(Group::new(name, subscription.clone()));
            let member = start(Arc::clone(&group)).ok_or_else(closed)?;
            registry.groups.push(group);
            member
        };
        registry.members.push(Arc::clone(&member));
        Ok(SubscriptionHandle::new(member))
    }

    async fn close(&self) -> Result<()> {
        let (groups, members) = {
            let mut registry = self.0.registry();
            registry.closed = true;
            (registry.groups.clone(), registry.members.clone())
        };
        for group in &groups {
            group.close_intake();
        }
        let deadline = Instant::now() + self.0.options.drain_timeout;
        let results = join_all(members.iter().map(|member| member.leave(deadline))).await;
        results.into_iter().collect::<Result<()>>()?;
        let kept: usize = groups.iter().map(|group| group.queued()).sum();
        if kept > 0 {
            return Err(Error::new(
                ErrorKind::Timeout,
                format!("memory bus closed with {kept} events in groups without a member"),
            ));
        }
        self.0.registry().groups.clear();
        self.0.registry().members.clear();
        Ok(())
    }
}
