//! The bus on Redis: Streams, which lose nothing, or Pub/Sub, which keeps nothing.
//!
//! # Streams
//! Each partition is a stream, in which a group is a consumer group; a document's events lie in one
//! partition. Members of a group share the partitions between them, each owned by one member at a
//! time under a claim with a fence. Publishing stores a batch in one transaction. An owner wakes up
//! when something comes, without polling, and takes over what a dead one left, in order. Several
//! processes share the work of a group when they subscribe with the same name.
//!
//! How much outlives a crash of the server is the server's setting: `appendfsync always` keeps whatever
//! was confirmed, `everysec` all but the last second after a loss of power. The document `docs/redis.md`
//! says what each promise needs, and how everything lies in Redis.
//!
//! # Pub/Sub
//! [`RedisMode::PubSub`]: events reach the subscriptions that are connected at that moment. Each is a
//! broadcast, with its own retries and dead letters in memory; there are no groups. While a connection is
//! broken its events are missed.
//!
//! # Cancellation
//! A dropped [`publish`](EventBus::publish) has stored, in each of its transactions of up to 1,024 events
//! or 8 MiB, all or nothing; a later transaction never without the earlier ones.
//!
//! # Examples
//! ```no_run
//! use nodestorage::Event;
//! use nodestorage::bus::redis::{RedisBus, RedisBusOptions};
//! use nodestorage::bus::{EventBusExt, Subscription};
//!
//! # async fn example() -> nodestorage::Result<()> {
//! let options = RedisBusOptions::new().with_prefix("shop");
//! let bus = RedisBus::connect("redis://localhost/", options).await?;
//! let subscription = Subscription::to("OrderShipped").with_group("mailer");
//! bus.subscribe(subscription, |event: Event| async move {
//!     println!("{} at version {}", event.document(), event.version());
//! })
//! .await?;
//! # Ok(()) }
//! ```

mod append;
mod broker;
mod connection;
mod error;
mod keys;
mod letters;
mod options;
mod pubsub;
mod reader;
mod scripts;

use std::sync::Arc;

use async_trait::async_trait;
use redis::Client;

use self::broker::{Streams, StreamsBroker};
use self::pubsub::PubSubChannel;
use super::broker::{DurableBus, LiveBus};
use super::{
    BusCapabilities, EventBus, EventHandler, PublishError, Subscription, SubscriptionHandle,
};
use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;

pub use options::{RedisBusOptions, RedisMode, WhenFull};

/// A bus on a Redis server. See the [module](self).
///
/// Clones are handles of the same bus. When the last is dropped without [`close`](EventBus::close),
/// handlers are stopped at their next `await`, and what they had not finished goes to other members.
#[derive(Debug, Clone)]
pub struct RedisBus(Mode);

#[derive(Debug, Clone)]
enum Mode {
    Streams(Arc<DurableBus>),
    PubSub(Arc<LiveBus>),
}

impl RedisBus {
    /// Connects to the server at a `redis://` or, with TLS, `rediss://` URL.
    ///
    /// # Errors
    /// `InvalidConfig` for a wrong URL, credentials, or options, for a server whose certificate is not trusted,
    /// and for a bus that exists with another number of partitions; `Unavailable` if the server does not answer.
    pub async fn connect(url: &str, options: RedisBusOptions) -> Result<Self> {
        options.validate()?;
        let client = connection::client(url, options.root_certificates.as_ref())?;
        Self::open(client, options).await
    }

    /// Connects with a client that exists already.
    ///
    /// # Errors
    /// As [`connect`](Self::connect), and `InvalidConfig` for options with root certificates: what to trust is
    /// the client's own.
    pub async fn from_client(client: Client, options: RedisBusOptions) -> Result<Self> {
        options.validate()?;
        if options.root_certificates.is_some() {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                "redis bus has root certificates for a client that exists already",
            ));
        }
        Self::open(client, options).await
    }

    async fn open(client: Client, options: RedisBusOptions) -> Result<Self> {
        let machine = options.machine();
        Ok(Self(match options.mode {
            RedisMode::Streams => {
                let streams = Streams::open(client, options).await?;
                let broker = Arc::new(StreamsBroker(Arc::new(streams)));
                Mode::Streams(Arc::new(DurableBus::new(broker, machine)?))
            }
            RedisMode::PubSub => {
                let channel = Arc::new(PubSubChannel::open(client, options).await?);
                Mode::PubSub(Arc::new(LiveBus::new(channel, machine)?))
            }
        }))
    }

    /// Forgets a group for good: its place in the streams, what waits for it, its dead letters. A group
    /// that nobody comes back to must be removed, or its events fill the bus. Members that are there
    /// begin anew, with what is published then.
    ///
    /// # Errors
    /// `Unsupported` in the mode [`RedisMode::PubSub`], `Unavailable` if the server does not answer.
    pub async fn remove_group(&self, group: &str) -> Result<()> {
        match &self.0 {
            Mode::Streams(bus) => bus.broker().remove_group(group).await,
            Mode::PubSub(_) => Err(Error::new(
                ErrorKind::Unsupported,
                "a redis bus in this mode has no groups",
            )),
        }
    }
}

#[async_trait]
impl EventBus for RedisBus {
    fn capabilities(&self) -> BusCapabilities {
        match &self.0 {
            Mode::Streams(bus) => bus.capabilities(),
            Mode::PubSub(bus) => bus.capabilities(),
        }
    }

    async fn publish(&self, events: &[Event]) -> Result<(), PublishError> {
        match &self.0 {
            Mode::Streams(bus) => bus.publish(events).await,
            Mode::PubSub(bus) => bus.publish(events).await,
        }
    }

    async fn attach(
        &self,
        subscription: Subscription,
        handler: Arc<dyn EventHandler>,
    ) -> Result<SubscriptionHandle> {
        match &self.0 {
            Mode::Streams(bus) => bus.attach(subscription, handler).await,
            Mode::PubSub(bus) => bus.attach(subscription, handler).await,
        }
    }

    async fn close(&self) -> Result<()> {
        match &self.0 {
            Mode::Streams(bus) => bus.close().await,
            Mode::PubSub(bus) => bus.close().await,
        }
    }
}
