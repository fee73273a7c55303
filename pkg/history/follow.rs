//! Following the log across outages, without a bus and without a checkpoint.

use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use futures_core::stream::BoxStream;
use futures_util::{StreamExt, stream};
use tokio::time::sleep;

use crate::error::{Error, ErrorKind, Result};
use crate::storage::Storage;
use crate::storage::backend::{Backend, Cursor, LogEntry, TailFrom, TailItem};

/// A log entry as it was followed, and the place to continue from after it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Logged {
    /// The entry.
    pub entry: LogEntry,
    /// The place after the entry, for [`TailFrom::After`].
    pub cursor: Cursor,
}

impl Storage {
    /// Follows the whole log: every entry of every document and stream in commit order, per document in
    /// version order, without a gap. Ends only with an error.
    ///
    /// Outages are waited out: the log is opened again behind the last entry, which may repeat entries
    /// and leaves none out. Nothing is stored, so whoever wants to continue later keeps the
    /// [cursor](Logged::cursor); [`subscribe`](Self::subscribe) does that by itself.
    ///
    /// # Errors
    /// The stream ends with `Corrupt`, `Closed`, `Unsupported`; with `Unavailable` if it was to begin
    /// [now](TailFrom::Now) and "now" could not be established.
    ///
    /// # Examples
    /// ```
    /// # use futures_util::TryStreamExt;
    /// # use nodestorage::{Result, Storage};
    /// # use nodestorage::storage::backend::TailFrom;
    /// # async fn example(storage: Storage) -> Result<()> {
    /// let mut log = storage.log(TailFrom::Beginning);
    /// while let Some(logged) = log.try_next().await? {
    ///     println!("{} {}", logged.entry.key, logged.entry.version);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn log(&self, from: TailFrom) -> BoxStream<'static, Result<Logged>> {
        if let Err(error) = self.check_open() {
            return stream::iter([Err(error)]).boxed();
        }
        let follower = Follower::new(Arc::clone(self.backend()), from);
        let state = Some((follower, Backoff::default()));
        stream::unfold(state, |state| async move {
            let (mut follower, mut backoff) = state?;
            loop {
                match follower.next().await {
                    Ok(TailItem::Entry { entry, cursor }) => {
                        backoff.reset();
                        let entry = *entry;
                        return Some((Ok(Logged { entry, cursor }), Some((follower, backoff))));
                    }
                    Ok(TailItem::Idle { .. }) => backoff.reset(),
                    Err(error) if error.is_retryable() && follower.has_place() => {
                        tracing::warn!(%error, "the log is opened again");
                        sleep(backoff.next_delay()).await;
                    }
                    Err(error) => return Some((Err(error), None)),
                }
            }
        })
        .boxed()
    }
}

/// A reader of the log that can be asked again after an error: it then continues behind what it
/// returned last.
pub(crate) struct Follower {
    backend: Arc<dyn Backend>,
    from: TailFrom,
    tail: Option<BoxStream<'static, Result<TailItem>>>,
}

impl Follower {
    /// Opens the log at once, so that "now" is the time of this call.
    pub(crate) fn new(backend: Arc<dyn Backend>, from: TailFrom) -> Self {
        let tail = Some(backend.tail(from.clone()));
        Self {
            backend,
            from,
            tail,
        }
    }

    /// Whether it knows where to continue after an error. Opening "now" anew would leave out what was
    /// committed in between.
    pub(crate) fn has_place(&self) -> bool {
        self.from != TailFrom::Now
    }

    /// The next entry, or that there is none at the moment. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<TailItem> {
        let tail = self
            .tail
            .get_or_insert_with(|| self.backend.tail(self.from.clone()));
        let item = tail.next().await.unwrap_or_else(|| {
            Err(Error::new(
                ErrorKind::Unavailable,
                "the log ended, which it never does",
            ))
        });
        match &item {
            Ok(TailItem::Entry { cursor, .. } | TailItem::Idle { cursor }) => {
                self.from = TailFrom::After(cursor.clone());
            }
            Err(_) => self.tail = None,
        }
        item
    }
}

/// Growing pauses without an end.
#[derive(Debug)]
pub(crate) struct Backoff {
    builder: ExponentialBuilder,
    delays: ExponentialBackoff,
    max: Duration,
}

impl Default for Backoff {
    /// From a tenth of a second, in which an election has at most begun, to ten seconds.
    fn default() -> Self {
        Self::new(Duration::from_millis(100), Duration::from_secs(10))
    }
}

impl Backoff {
    pub(crate) fn new(base: Duration, max: Duration) -> Self {
        let builder = ExponentialBuilder::new()
            .with_min_delay(base)
            .with_max_delay(max)
            .with_factor(2.0)
            .with_jitter()
            .without_max_times();
        Self {
            builder,
            delays: builder.build(),
            max,
        }
    }

    pub(crate) fn next_delay(&mut self) -> Duration {
        self.delays.next().unwrap_or(self.max)
    }

    pub(crate) fn reset(&mut self) {
        self.delays = self.builder.build();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_limit_and_start_again() {
        let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(80));
        let delays: Vec<_> = (0..50).map(|_| backoff.next_delay()).collect();
        assert!(delays[0] < Duration::from_millis(21), "{delays:?}");
        // Jitter lengthens a pause by less than its base.
        assert!(delays[10..].iter().all(
            |delay| *delay >= Duration::from_millis(80) && *delay < Duration::from_millis(160)
        ));
        backoff.reset();
        assert!(backoff.next_delay() < Duration::from_millis(21));
    }
}
