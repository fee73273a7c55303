use std::sync::Arc;

use async_trait::async_trait;

use super::{Middleware, Next};
use crate::error::BoxError;
use crate::event::{Event, EventRegistry};

/// Brings events up to the current schemas of their types before they are handled.
///
/// An event that the registry does not know, or that is newer than the code, is passed on or fails, as the
/// registry [says](crate::event::UnknownEvents); one that fails is redelivered and ends in the dead letters, from where
/// newer code can have it again.
///
/// # Examples
/// ```
/// use std::sync::Arc;
///
/// use nodestorage::Event;
/// use nodestorage::bus::EventHandlerExt;
/// use nodestorage::bus::middleware::Upcast;
/// use nodestorage::event::{EventRegistry, UnknownEvents, Upcaster};
/// use serde_json::json;
///
/// # fn main() -> nodestorage::Result<()> {
/// let registry = EventRegistry::new(UnknownEvents::Pass)
///     .with_type("OrderPlaced", 2)?
///     .with_upcaster(Upcaster::renaming("OrderPlacedV1", 1, "OrderPlaced", 2, |mut data| {
///         data["currency"] = json!("EUR");
///         Ok(data)
///     }))?;
/// let handler = |event: Event| async move {
///     println!("{} {}", event.event_type(), event.data()["currency"]);
/// };
/// let handler = handler.with(Upcast::by(Arc::new(registry)));
/// # let _ = handler;
/// # Ok(())
/// # }
/// ```
///
/// A subscription that filters by type must let the old names pass as well.
#[derive(Debug, Clone)]
pub struct Upcast {
    registry: Arc<EventRegistry>,
}

impl Upcast {
    /// Upcasts by this registry.
    #[must_use]
    pub fn by(registry: Arc<EventRegistry>) -> Self {
        Self { registry }
    }
}

#[async_trait]
impl Middleware for Upcast {
    async fn handle(&self, event: Event, next: Next<'_>) -> Result<(), BoxError> {
        next.run(self.registry.upcast(event)?).await
    }
}
