//! The bus on Redis. (text follows)

mod append;
mod broker;
mod connection;
mod error;
mod keys;
mod options;
mod pubsub;
mod reader;
mod scripts;

use std::sync::Arc;

use async_trait::async_trait;
use redis::Client;

use self::broker::{Streams, StreamsBroker};
use self::error::translated;
use self::pubsub::PubSubChannel;
use super::broker::{DurableBus, LiveBus};
use super::{
    BusCapabilities, EventBus, EventHandler, PublishError, Subscription, SubscriptionHandle,
};
use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;

pub use options::{RedisBusOptions, RedisMode, WhenFull};

/// A bus on a Redis server. See the [module](self).
#[derive(Debug, Clone)]
pub struct RedisBus(Mode);

#[derive(Debug, Clone)]
enum Mode {
    Streams(Arc<DurableBus>),
    PubSub(Arc<LiveBus>),
}

impl RedisBus {
    /// Connects to the server at a `redis://` or `rediss://` URL.
    ///
    /// # Errors
    /// `InvalidConfig` for a wrong URL, credentials, or options, and for a bus that exists with another
    /// number of partitions; `Unavailable` if the server does not answer.
    pub async fn connect(url: &str, options: RedisBusOptions) -> Result<Self> {
        let client = Client::open(url).map_err(|error| translated("use the URL", &error))?;
        Self::from_client(client, options).await
    }

    /// Connects with a client that exists already.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub async fn from_client(client: Client, options: RedisBusOptions) -> Result<Self> {
        options.validate()?;
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
