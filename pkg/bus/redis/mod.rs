//! The bus on Redis. (text follows)

mod append;
mod broker;
mod connection;
mod error;
mod keys;
mod options;
mod reader;
mod scripts;

use std::sync::Arc;

use async_trait::async_trait;
use redis::Client;

use self::broker::{Streams, StreamsBroker};
use self::error::translated;
use super::broker::DurableBus;
use super::{
    BusCapabilities, EventBus, EventHandler, PublishError, Subscription, SubscriptionHandle,
};
use crate::error::Result;
use crate::event::Event;

pub use options::{RedisBusOptions, RedisMode, WhenFull};

/// A bus on a Redis server. See the [module](self).
#[derive(Debug, Clone)]
pub struct RedisBus(Arc<DurableBus>);

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
        let streams = Streams::open(client, options).await?;
        let broker = Arc::new(StreamsBroker(Arc::new(streams)));
        Ok(Self(Arc::new(DurableBus::new(broker, machine)?)))
    }
}

#[async_trait]
impl EventBus for RedisBus {
    fn capabilities(&self) -> BusCapabilities {
        BusCapabilities {
            groups: true,
            total_order: false,
            durable: true,
            across_processes: true,
            durable_groups: true,
            from_beginning: true,
            deduplicates: true,
            max_event_bytes: self.0.broker().max_event_bytes(),
        }
    }

    async fn publish(&self, events: &[Event]) -> Result<(), PublishError> {
        self.0.publish(events).await
    }

    async fn attach(
        &self,
        subscription: Subscription,
        handler: Arc<dyn EventHandler>,
    ) -> Result<SubscriptionHandle> {
        self.0.attach(subscription, handler).await
    }

    async fn close(&self) -> Result<()> {
        self.0.close().await
    }
}
