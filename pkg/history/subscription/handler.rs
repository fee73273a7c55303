use std::future::Future;

use async_trait::async_trait;

use crate::error::BoxError;
use crate::event::Event;
use crate::storage::backend::LogEntry;

/// What a subscription does with a log entry.
#[async_trait]
pub(super) trait EntryHandler: Send + Sync + 'static {
    /// Handles an entry, or after a failure the rest of it: `done` counts what of it is behind.
    async fn handle(&self, entry: &LogEntry, done: &mut usize) -> Result<(), BoxError>;
}

/// Hands out events one by one; a failure repeats none that went well.
pub(super) struct EachEvent<F>(pub(super) F);

#[async_trait]
impl<F, Fut, E> EntryHandler for EachEvent<F>
where
    F: Fn(Event) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), E>> + Send + 'static,
    E: Into<BoxError>,
{
    async fn handle(&self, entry: &LogEntry, done: &mut usize) -> Result<(), BoxError> {
        for event in entry.to_events()?.into_iter().skip(*done) {
            self.0(event).await.map_err(Into::into)?;
            *done += 1;
        }
        Ok(())
    }
}

/// Hands out whole entries.
pub(super) struct EachEntry<F>(pub(super) F);

#[async_trait]
impl<F, Fut, E> EntryHandler for EachEntry<F>
where
    F: Fn(LogEntry) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), E>> + Send + 'static,
    E: Into<BoxError>,
{
    async fn handle(&self, entry: &LogEntry, _done: &mut usize) -> Result<(), BoxError> {
        self.0(entry.clone()).await.map_err(Into::into)
    }
}
