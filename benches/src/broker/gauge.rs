//! A bus around another one that counts what was confirmed, and one that never answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use async_trait::async_trait;
use nodestorage::Event;
use nodestorage::bus::{
    BusCapabilities, EventBus, EventHandler, PublishError, Subscription, SubscriptionHandle,
};
use tokio::time::{Instant, sleep};

/// Counts the events that the bus inside has confirmed.
#[derive(Debug, Clone)]
pub(crate) struct Gauge {
    bus: Arc<dyn EventBus>,
    confirmed: Arc<AtomicU64>,
}

/// Often enough not to count in seconds, rarely enough not to count as load.
const POLL: Duration = Duration::from_millis(2);

impl Gauge {
    pub(crate) fn around(bus: Arc<dyn EventBus>) -> Self {
        Self {
            bus,
            confirmed: Arc::default(),
        }
    }

    pub(crate) fn confirmed(&self) -> u64 {
        self.confirmed.load(Ordering::Relaxed)
    }

    /// Waits until so many are confirmed.
    pub(crate) async fn reaches(&self, events: u64, within: Duration) -> Result<()> {
        let deadline = Instant::now() + within;
        while self.confirmed() < events {
            ensure!(
                Instant::now() < deadline,
                "{} of {events} events were published in {within:?}",
                self.confirmed()
            );
            sleep(POLL).await;
        }
        Ok(())
    }
}

#[async_trait]
impl EventBus for Gauge {
    fn capabilities(&self) -> BusCapabilities {
        self.bus.capabilities()
    }

    async fn publish(&self, events: &[Event]) -> Result<(), PublishError> {
        let result = self.bus.publish(events).await;
        let confirmed = match &result {
            Ok(()) => events.len(),
            Err(error) => error.confirmed(),
        };
        self.confirmed
            .fetch_add(confirmed as u64, Ordering::Relaxed);
        result
    }

    async fn attach(
        &self,
        subscription: Subscription,
        handler: Arc<dyn EventHandler>,
    ) -> nodestorage::Result<SubscriptionHandle> {
        self.bus.attach(subscription, handler).await
    }

    async fn close(&self) -> nodestorage::Result<()> {
        self.bus.close().await
    }
}

/// A bus that takes a batch and never answers.
#[derive(Debug)]
pub(crate) struct Stalled;

#[async_trait]
impl EventBus for Stalled {
    fn capabilities(&self) -> BusCapabilities {
        BusCapabilities::default()
    }

    async fn publish(&self, _: &[Event]) -> Result<(), PublishError> {
        std::future::pending().await
    }

    async fn attach(
        &self,
        _: Subscription,
        _: Arc<dyn EventHandler>,
    ) -> nodestorage::Result<SubscriptionHandle> {
        std::future::pending().await
    }

    async fn close(&self) -> nodestorage::Result<()> {
        Ok(())
    }
}
