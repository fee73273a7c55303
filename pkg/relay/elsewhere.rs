use std::fmt;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::run::{ELSEWHERE_POLL, Inner, Request};
use super::{Relay, RelayHandle, RelayOptions, RelayState};
use crate::document::{DocumentKey, Version};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::Delivery;
use crate::storage::backend::{Backend, Position};

/// Answers for a storage that has no bus, when a relay elsewhere publishes its log: in another process, or
/// one that was started on the same backend by hand.
pub(crate) struct RelayElsewhere {
    backend: Arc<dyn Backend>,
    options: RelayOptions,
    /// Begun by the first question.
    watching: OnceLock<RelayHandle>,
}

impl RelayElsewhere {
    pub(crate) fn new(backend: Arc<dyn Backend>, options: RelayOptions) -> Self {
        Self {
            backend,
            options,
            watching: OnceLock::new(),
        }
    }

    /// The handle of the task that asks the store, if there is a relay to ask about.
    async fn watching(&self) -> Result<&RelayHandle> {
        let name = &self.options.name;
        // One that has published before may be on its way back; the task waits for it for a while.
        let exists = self.backend.read_checkpoint(name).await?.is_some()
            || self.backend.is_leased(name).await?;
        if !exists {
            return Err(nobody(name));
        }
        if let Some(handle) = self.watching.get() {
            return Ok(handle);
        }
        let watch = Relay::new(Arc::clone(&self.backend)).with_options(self.options.clone());
        let handle = watch.spawn()?;
        // Of two first questions at once, one's task ends with its handle.
        Ok(self.watching.get_or_init(|| handle))
    }
}

#[async_trait]
impl Delivery for RelayElsewhere {
    fn committed(&self) {}

    async fn delivered(
        &self,
        document: &DocumentKey,
        version: Version,
        committed: Position,
    ) -> Result<()> {
        let watching = self.watching().await?;
        watching.delivered(document, version, committed).await
    }

    async fn flush(&self, up_to: Position) -> Result<()> {
        self.watching().await?.flush(up_to).await
    }

    async fn shutdown(&self) {
        if let Some(handle) = self.watching.get() {
            handle.shutdown().await;
        }
    }
}

impl fmt::Debug for RelayElsewhere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RelayElsewhere")
            .field("name", &self.options.name)
            .finish_non_exhaustive()
    }
}

impl Inner {
    /// Never asks for the lease; answers waiters from what its holder does. Returns when it is shut down.
    pub(super) async fn watch(&self, requests: &mut mpsc::Receiver<Request>) -> Error {
        self.state.send_replace(RelayState::WaitingForLease);
        let mut missing_since = None;
        loop {
            if self.progress.has_waiters() {
                match self.backend.is_leased(&self.options.name).await {
                    Ok(true) => missing_since = None,
                    Ok(false) => {
                        let since = *missing_since.get_or_insert_with(Instant::now);
                        // As long as another one may take over, with one more look at what the last
                        // one has left.
                        if since.elapsed() > self.options.lease_ttl {
                            self.look_elsewhere().await;
                            self.progress.refuse(|| nobody(&self.options.name));
                            missing_since = None;
                        }
                    }
                    // Waiting goes on until the store answers again.
                    Err(error) if error.is_retryable() => {}
                    Err(error) => {
                        let (kind, message) = (error.kind(), error.to_string());
                        self.progress.refuse(|| Error::new(kind, message.as_str()));
                    }
                }
            } else {
                missing_since = None;
            }
            // Ten looks at the lease in the time it lives; waiters are answered in between.
            let next = Instant::now() + (self.options.lease_ttl / 10).max(ELSEWHERE_POLL);
            if let Err(end) = self.stand_by(next, requests).await {
                return end;
            }
        }
    }
}

fn nobody(name: &str) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        format!(
            "no bus is connected to this storage, and no relay {name} publishes its log, so nothing \
             confirms a delivery"
        ),
    )
}
