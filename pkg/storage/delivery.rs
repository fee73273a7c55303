use std::any::Any;
use std::fmt::Debug;

use async_trait::async_trait;

use super::backend::Position;
use crate::document::{DocumentKey, Version};
use crate::error::Result;

/// How the storage reaches whoever publishes its log: the relay. Owned by the storage, which knows no
/// bus.
#[async_trait]
pub trait Delivery: Any + Debug + Send + Sync {
    /// Called by the engine after a commit with events: a wake-up, never waits.
    fn committed(&self);

    /// Waits until the bus has confirmed the events of this version, which was committed at or before
    /// the position. Cancel-safe.
    ///
    /// # Errors
    /// `DeadLettered` when the events were given up or their document is parked, `Closed` when the relay
    /// stopped.
    async fn delivered(
        &self,
        document: &DocumentKey,
        version: Version,
        committed: Position,
    ) -> Result<()>;

    /// Waits until everything committed up to this position has been confirmed. Cancel-safe.
    ///
    /// # Errors
    /// `Closed` when the relay stopped.
    async fn flush(&self, up_to: Position) -> Result<()>;

    /// Publishes what can be published at once, stores the checkpoint and ends.
    async fn shutdown(&self);
}
