use std::any::Any;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::join_all;

use super::{BusSource, url};
use crate::bus::{EventBus, EventHandler, Subscription, SubscriptionHandle};
use crate::document::{DocumentKey, Version};
use crate::error::Result;
use crate::relay::{Relay, RelayHandle};
use crate::storage::backend::Position;
use crate::storage::{Delivery, Storage};

/// What connects a storage with its buses.
#[derive(Debug)]
pub(super) struct Connection {
    buses: Buses,
    relay: RelayHandle,
    subscriptions: Vec<SubscriptionHandle>,
}

#[derive(Debug, Default)]
struct Buses {
    all: Vec<Arc<dyn EventBus>>,
    /// Those that were opened here, and so end here.
    owned: Vec<Arc<dyn EventBus>>,
}

impl Connection {
    /// Opens what is to be opened, subscribes, and only then lets the relay begin. What was opened is closed
    /// again if anything fails.
    pub(super) async fn open(
        relay: Relay,
        sources: Vec<BusSource>,
        subscriptions: Vec<(Subscription, Arc<dyn EventHandler>)>,
    ) -> Result<Self> {
        let mut buses = Buses::default();
        let mut handles = Vec::new();
        match Self::start(relay, sources, subscriptions, &mut buses, &mut handles).await {
            Ok(relay) => Ok(Self {
                buses,
                relay,
                subscriptions: handles,
            }),
            Err(error) => {
                // On a bus of the caller's they would go on.
                handles.iter().for_each(SubscriptionHandle::abort);
                buses.close().await;
                Err(error)
            }
        }
    }

    async fn start(
        mut relay: Relay,
        sources: Vec<BusSource>,
        subscriptions: Vec<(Subscription, Arc<dyn EventHandler>)>,
        buses: &mut Buses,
        handles: &mut Vec<SubscriptionHandle>,
    ) -> Result<RelayHandle> {
        for source in sources {
            let bus = match source {
                BusSource::Bus(bus) => bus,
                BusSource::Url(url) => {
                    let bus = url::open_bus(&url).await?;
                    buses.owned.push(Arc::clone(&bus));
                    bus
                }
            };
            buses.all.push(Arc::clone(&bus));
            relay = relay.with_bus(bus);
        }
        if let Some(bus) = buses.all.first() {
            for (subscription, handler) in subscriptions {
                handles.push(bus.attach(subscription, handler).await?);
            }
        }
        relay.start()
    }
}

impl Buses {
    async fn close(&self) {
        let closing = join_all(self.owned.iter().map(|bus| bus.close())).await;
        for error in closing.into_iter().filter_map(Result::err) {
            // What was not handled is in the log, and on a durable bus comes again.
            tracing::warn!(%error, "bus was not closed in good order");
        }
    }
}

#[async_trait]
impl Delivery for Connection {
    fn committed(&self) {
        self.relay.committed();
    }

    async fn delivered(
        &self,
        document: &DocumentKey,
        version: Version,
        committed: Position,
    ) -> Result<()> {
        self.relay.delivered(document, version, committed).await
    }

    async fn flush(&self, up_to: Position) -> Result<()> {
        Delivery::flush(&self.relay, up_to).await
    }

    async fn shutdown(&self) {
        self.relay.shutdown().await;
        self.buses.close().await;
    }
}

impl Storage {
    fn connection(&self) -> Option<&Connection> {
        let delivery: &dyn Any = self.delivery()?.as_ref();
        delivery.downcast_ref()
    }

    /// The relay that publishes to the bus, if the builder connected one: its state, its dead letters.
    #[must_use]
    pub fn relay(&self) -> Option<&RelayHandle> {
        Some(&self.connection()?.relay)
    }

    /// The bus that the builder connected, the first one if there are several.
    #[must_use]
    pub fn bus(&self) -> Option<&Arc<dyn EventBus>> {
        self.connection()?.buses.all.first()
    }

    /// The subscriptions that the builder was told of, in that order: their state, their dead letters.
    #[must_use]
    pub fn subscriptions(&self) -> &[SubscriptionHandle] {
        self.connection()
            .map_or(&[], |connection| &connection.subscriptions)
    }
}
