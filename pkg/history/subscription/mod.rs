//! Durable subscriptions straight from the log, without a bus.

mod handle;
mod handler;
mod options;
mod run;

use std::future::Future;
use std::sync::Arc;

use tokio_util::task::TaskTracker;
use uuid::Uuid;

use self::handle::Signals;
use self::handler::{EachEntry, EachEvent, EntryHandler};
use self::run::Runner;
use super::lease::LeaseTerms;
use crate::error::{BoxError, Error, ErrorKind, Result};
use crate::event::Event;
use crate::storage::Storage;
use crate::storage::backend::LogEntry;

pub use handle::{LogSubscriptionHandle, LogSubscriptionState};
pub use options::LogSubscription;

/// The longest name, in bytes; stores keep it in an index.
const MAX_NAME_BYTES: usize = 512;

impl Storage {
    /// Calls a handler for every event in the log, from the place that is stored under `name`.
    ///
    /// * **At least once, in order.** Events of a document come in version order, one at a time; none is
    ///   left out. Events that were handled after the last stored checkpoint come again after a crash,
    ///   with the same ids.
    /// * **Never skipped.** A handler that fails or panics is called again with the same event, with
    ///   growing pauses, until it succeeds; [the state](LogSubscriptionHandle::state) says so.
    /// * **One at a time.** Of the subscriptions with one name, in any process, one handles events; when
    ///   it ends or dies another goes on. One that was paused past its lease is refused its checkpoint
    ///   and lines up again; its handler is dropped at the `await` it is in.
    ///
    /// Runs in a task of the current tokio runtime until it is shut down or the handle is dropped.
    ///
    /// # Errors
    /// `InvalidName` for an empty or long name, `InvalidConfig` for options that make no sense or
    /// without a runtime, `Closed`. What happens later is in the state.
    ///
    /// # Examples
    /// ```
    /// # use nodestorage::{Event, Result, Storage};
    /// use nodestorage::history::LogSubscription;
    ///
    /// # async fn example(storage: Storage) -> Result<()> {
    /// let mailer = storage.subscribe("mailer", LogSubscription::new(), |event: Event| async move {
    ///     println!("{} {}", event.event_type(), event.document());
    ///     Ok::<_, nodestorage::Error>(())
    /// })?;
    /// mailer.started().await?;
    /// // …
    /// mailer.shutdown().await;
    /// # Ok(())
    /// # }
    /// ```
    pub fn subscribe<F, Fut, E>(
        &self,
        name: &str,
        options: LogSubscription,
        handler: F,
    ) -> Result<LogSubscriptionHandle>
    where
        F: Fn(Event) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError> + 'static,
    {
        self.start(name, options, EachEvent(handler))
    }

    /// As [`subscribe`](Self::subscribe), with whole log entries, those without events included.
    ///
    /// # Errors
    /// As for [`subscribe`](Self::subscribe).
    pub fn subscribe_entries<F, Fut, E>(
        &self,
        name: &str,
        options: LogSubscription,
        handler: F,
    ) -> Result<LogSubscriptionHandle>
    where
        F: Fn(LogEntry) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError> + 'static,
    {
        self.start(name, options, EachEntry(handler))
    }

    fn start(
        &self,
        name: &str,
        options: LogSubscription,
        handler: impl EntryHandler,
    ) -> Result<LogSubscriptionHandle> {
        self.check_open()?;
        validate_name(name)?;
        options.validate()?;
        let runtime = tokio::runtime::Handle::try_current().map_err(|e| {
            let what = "a subscription needs a tokio runtime, and there is none here";
            Error::new(ErrorKind::InvalidConfig, what).with_source(e)
        })?;
        let signals = Arc::new(Signals::new());
        let runner = Runner {
            backend: Arc::clone(self.backend()),
            terms: LeaseTerms {
                name: format!("subscription/{name}"),
                owner: Uuid::now_v7().to_string(),
                ttl: options.lease_ttl,
                checkpoint_entries: options.checkpoint_entries,
                checkpoint_interval: options.checkpoint_interval,
            },
            options,
            signals: Arc::clone(&signals),
            handler,
        };
        let task = TaskTracker::new();
        task.spawn_on(runner.run(), &runtime);
        task.close();
        Ok(LogSubscriptionHandle::new(name.to_owned(), signals, task))
    }
}

fn validate_name(name: &str) -> Result<()> {
    let reason = if name.is_empty() {
        "is empty".to_owned()
    } else if name.len() > MAX_NAME_BYTES {
        format!(
            "has {} bytes, at most {MAX_NAME_BYTES} are allowed",
            name.len()
        )
    } else if name.chars().any(char::is_control) {
        "contains a control character".to_owned()
    } else {
        return Ok(());
    };
    Err(Error::new(
        ErrorKind::InvalidName,
        format!("subscription name {reason}"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_names_are_refused() {
        for name in ["", "a\0", "a\nb", &"x".repeat(513)] {
            let error = validate_name(name).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidName);
        }
        validate_name("mailer/사용자").unwrap();
    }
}
