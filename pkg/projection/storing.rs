//! Storing views, and the checkpoint behind them.

use std::sync::Arc;

use tokio::time::Instant;

use super::definition::Projection;
use super::leading::{Leading, Patience, STORE_EVERY, Stop, is_passing};
use super::marks::WINDOW_SECONDS;
use super::target::ViewWrite;
use crate::document::DocumentId;
use crate::error::{Error, ErrorKind};

/// Views that are encoded and handed to the target at once.
const CHUNK: usize = 1_000;

/// Versions that are told to those who wait; the position tells about the others.
const TOLD: usize = 10_000;

impl<P: Projection> Leading<'_, P> {
    /// Stores what has changed, then moves the checkpoint.
    pub(super) async fn store(&mut self, patience: Patience) -> Result<(), Stop> {
        self.store_views(patience).await?;
        self.stored_at = Instant::now();
        self.store_every = (self.store_every * 2).min(STORE_EVERY);
        if let Some(cursor) = self.folded.take() {
            let position = cursor.position;
            self.lease.passed(cursor, std::mem::take(&mut self.entries));
            let upkeep = match self.catch_up.is_done() && self.lease.has_stored_place() {
                true => self.lease.upkeep().await,
                // So much would be repeated otherwise, and marks be kept until then.
                false => self.lease.store().await,
            };
            upkeep.map_err(super::leading::lost)?;
            let mut versions = std::mem::take(&mut self.versions);
            let old = versions.len().saturating_sub(TOLD);
            versions.drain(..old);
            let handled = &self.runner.shared.handled;
            handled.passed(self.runner.build, position, versions);
        }
        self.cache.trim();
        self.forget_if_due().await
    }

    pub(super) async fn store_views(&mut self, patience: Patience) -> Result<(), Stop> {
        loop {
            let keys = self.cache.dirty(CHUNK);
            if keys.is_empty() {
                return Ok(());
            }
            let mut writes = Vec::with_capacity(keys.len());
            for key in keys {
                match self.write_of(&key) {
                    Ok(Some(write)) => writes.push(write),
                    Ok(None) => self.cache.stored(&[]),
                    Err(error) => return Err(self.suspect(&key, &error)),
                }
            }
            self.store_writes(&writes, patience).await?;
            self.cache.stored(&writes);
        }
    }

    fn write_of(&mut self, key: &DocumentId) -> Result<Option<ViewWrite>, Error> {
        // What comes again after a crash comes from the stored checkpoint on, or some minutes before.
        let floor = self.lease.stored_position().seconds();
        let floor = floor.saturating_sub(WINDOW_SECONDS);
        let keep_until = self.seconds.saturating_add(WINDOW_SECONDS);
        self.cache.write(key, floor, keep_until)
    }

    async fn store_writes(&mut self, writes: &[ViewWrite], patience: Patience) -> Result<(), Stop> {
        loop {
            let Err(error) = self.try_store(writes, patience).await? else {
                self.recovered();
                return Ok(());
            };
            if is_passing(&error) {
                self.pause_after(error).await?;
            } else if error.kind() == ErrorKind::VersionConflict {
                tracing::debug!(%error, "views were written elsewhere");
                return Err(Stop::Over);
            } else if !is_fault_of_a_view(&error) {
                return Err(Stop::Failed(error.context("storing views")));
            } else if let [write] = writes {
                return Err(self.suspect(&write.view.key, &error));
            } else {
                return Err(self.find_suspects(writes, patience).await?);
            }
        }
    }

    async fn try_store(
        &mut self,
        writes: &[ViewWrite],
        patience: Patience,
    ) -> Result<Result<(), Error>, Stop> {
        let (target, build) = (Arc::clone(&self.runner.shared.target), self.runner.build);
        self.keep(target.store(build, writes), patience).await
    }

    /// Stores views one by one, to learn which of them cannot be.
    async fn find_suspects(
        &mut self,
        writes: &[ViewWrite],
        patience: Patience,
    ) -> Result<Stop, Stop> {
        for write in writes {
            match self
                .try_store(std::slice::from_ref(write), patience)
                .await?
            {
                Err(error) if is_fault_of_a_view(&error) => {
                    self.suspect(&write.view.key, &error);
                }
                // Whatever else it is shows again.
                Ok(()) | Err(_) => {}
            }
        }
        Ok(Stop::Over)
    }

    /// A view cannot be stored as it is. Which of the events since the checkpoint made it so is found by
    /// folding them again and storing this view after each.
    fn suspect(&mut self, key: &DocumentId, error: &Error) -> Stop {
        tracing::debug!(%error, "a view cannot be stored");
        self.careful.insert(key.clone());
        Stop::Over
    }

    /// Stores one view after one event.
    pub(super) async fn store_carefully(
        &mut self,
        key: &DocumentId,
    ) -> Result<Result<(), Error>, Stop> {
        let write = match self.write_of(key) {
            Ok(Some(write)) => write,
            Ok(None) => return Ok(Ok(())),
            Err(error) => return Ok(Err(error)),
        };
        loop {
            let writes = std::slice::from_ref(&write);
            match self.try_store(writes, Patience::Drain).await? {
                Ok(()) => {
                    self.recovered();
                    self.cache.stored(writes);
                    return Ok(Ok(()));
                }
                Err(error) if is_passing(&error) => self.pause_after(error).await?,
                Err(error) if error.kind() == ErrorKind::VersionConflict => {
                    return Err(Stop::Over);
                }
                Err(error) if is_fault_of_a_view(&error) => return Ok(Err(error)),
                Err(error) => return Err(Stop::Failed(error.context("storing a view"))),
            }
        }
    }
}

/// Whether a view is the reason: nothing that comes later makes it storable.
fn is_fault_of_a_view(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::TooLarge
            | ErrorKind::Constraint
            | ErrorKind::Serialization
            | ErrorKind::InvalidName
    )
}
