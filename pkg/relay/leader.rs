use std::convert::Infallible;
use std::sync::Arc;

use futures_core::stream::BoxStream;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::lag::since;
use super::letters::{PARKED, Parked, parked_from_record};
use super::outgoing::{Outgoing, Step};
use super::run::{Inner, Request};
use super::state::RelayState;
use super::telemetry::Meter;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::backend::{Cursor, Fence, Lease, TailFrom, TailItem};

/// A relay while it holds the lease.
pub(super) struct Leader<'a> {
    pub(super) inner: &'a Inner,
    pub(super) fence: Fence,
    pub(super) requests: &'a mut mpsc::Receiver<Request>,
    /// Up to here nobody else can have been granted the lease.
    pub(super) valid_until: Instant,
    pub(super) renew_at: Instant,
    /// The place in the log up to which everything is confirmed or set aside.
    pub(super) confirmed: Option<Cursor>,
    /// Confirmed entries since the stored checkpoint, and since when.
    pub(super) unsaved: usize,
    pub(super) unsaved_since: Option<Instant>,
    /// When to measure the lag next; `None` while there is none.
    pub(super) measure_at: Option<Instant>,
    /// When what is in flight is given up, once shutting down.
    pub(super) give_up_at: Option<Instant>,
}

/// Why a leader cannot go on.
#[derive(Debug)]
pub(super) enum Interrupt {
    Shutdown,
    LeaseLost,
    Fatal(Error),
}

enum Next {
    Item(TailItem),
    Failure(Error),
    Shutdown,
}

enum Wake {
    Shutdown,
    Upkeep,
    Request(Request),
    Tail(Option<Result<TailItem>>),
}

impl<'a> Leader<'a> {
    pub(super) fn new(
        inner: &'a Inner,
        requests: &'a mut mpsc::Receiver<Request>,
        lease: Lease,
        asked_at: Instant,
    ) -> Self {
        let ttl = inner.options.lease_ttl;
        Self {
            inner,
            fence: lease.fence,
            requests,
            valid_until: asked_at + ttl,
            renew_at: asked_at + ttl / 3,
            confirmed: lease.checkpoint,
            unsaved: 0,
            unsaved_since: None,
            measure_at: None,
            give_up_at: None,
        }
    }

    /// Publishes until something interrupts it.
    pub(super) async fn lead(&mut self) -> Interrupt {
        let Err(interrupt) = self.follow().await;
        interrupt
    }

    async fn follow(&mut self) -> Result<Infallible, Interrupt> {
        let parked = self.load_parked().await?;
        self.inner.meter.parked(parked.len());
        self.inner.meter.leading(true);
        self.inner.progress.lead(parked);
        self.following();
        let mut failures = 0;
        loop {
            let mut tail = self.tail();
            let error = loop {
                match self.next(&mut tail).await? {
                    Next::Item(item) => {
                        failures = 0;
                        self.following();
                        let batch = self.gather(item, &mut tail).await?;
                        self.deliver(batch).await?;
                    }
                    Next::Failure(error) => break error,
                    Next::Shutdown => return self.catch_up().await,
                }
            };
            if !error.is_retryable() {
                return Err(Interrupt::Fatal(error.context("following the log")));
            }
            failures += 1;
            self.retrying(error);
            self.pause(self.inner.options.attempts.delay(failures))
                .await?;
        }
    }

    fn tail(&self) -> BoxStream<'static, Result<TailItem>> {
        self.inner.backend.tail(match &self.confirmed {
            Some(cursor) => TailFrom::After(cursor.clone()),
            // Never "now": what was committed before the first relay must be published as well.
            None => TailFrom::Beginning,
        })
    }

    /// Publishes what was committed before the relay was shut down, if nothing stands in the way. Reads
    /// the log anew: a reader that has just begun reports that there is no more only after having looked.
    async fn catch_up(&mut self) -> Result<Infallible, Interrupt> {
        let mut tail = self.tail();
        loop {
            match self.guarded(tail.next()).await? {
                Some(Ok(item @ TailItem::Entry { .. })) => {
                    let batch = self.gather(item, &mut tail).await?;
                    let caught_up = batch.ends_idle();
                    self.deliver(batch).await?;
                    if caught_up {
                        return Err(Interrupt::Shutdown);
                    }
                }
                _ => return Err(Interrupt::Shutdown),
            }
        }
    }

    /// Takes an item and what else is there at once, up to the first pause of the log.
    async fn gather(
        &mut self,
        first: TailItem,
        tail: &mut BoxStream<'static, Result<TailItem>>,
    ) -> Result<Outgoing, Interrupt> {
        let mut batch = Outgoing::new(self.inner.buses.len());
        self.take(first, &mut batch).await?;
        let (limit, bytes) = (self.inner.options.batch, self.inner.options.batch_bytes);
        while batch.events() < limit
            && batch.steps() < limit
            && batch.bytes() < bytes
            && !batch.ends_idle()
        {
            match tail.next().now_or_never() {
                Some(Some(Ok(item))) => self.take(item, &mut batch).await?,
                // A failure is met again when the log is read on.
                Some(Some(Err(_)) | None) | None => break,
            }
        }
        Ok(batch)
    }

    async fn next(
        &mut self,
        tail: &mut BoxStream<'static, Result<TailItem>>,
    ) -> Result<Next, Interrupt> {
        loop {
            let upkeep = self.next_upkeep();
            let wake = tokio::select! {
                biased;
                () = self.inner.shutdown.cancelled() => Wake::Shutdown,
                () = sleep_until(upkeep) => Wake::Upkeep,
                Some(request) = self.requests.recv() => Wake::Request(request),
                item = tail.next() => Wake::Tail(item),
            };
            match wake {
                Wake::Shutdown => return Ok(Next::Shutdown),
                Wake::Upkeep => self.upkeep().await?,
                Wake::Request(request) => self.serve(request).await?,
                Wake::Tail(Some(Ok(item))) => return Ok(Next::Item(item)),
                Wake::Tail(Some(Err(error))) => return Ok(Next::Failure(error)),
                Wake::Tail(None) => {
                    let error = Error::new(ErrorKind::Unavailable, "the log's end was reported");
                    return Ok(Next::Failure(error));
                }
            }
        }
    }

    async fn take(&mut self, item: TailItem, batch: &mut Outgoing) -> Result<(), Interrupt> {
        let (entry, cursor) = match item {
            TailItem::Idle { cursor } => {
                let step = Step {
                    version: None,
                    cursor: Some(cursor),
                    at: None,
                };
                batch.add(step, Vec::new());
                return Ok(());
            }
            TailItem::Entry { entry, cursor } => (entry, cursor),
        };
        let progress = &self.inner.progress;
        // The log repeats itself after interruptions, and a release runs ahead of its follower.
        let events = if progress.skips(&entry.key, entry.version) {
            Vec::new()
        } else {
            match entry.to_events() {
                Ok(events) => events,
                Err(error) => {
                    // First what is before it in its document, as for events that fail later.
                    let letter = self.unreadable(&entry, &error);
                    let before = Outgoing::new(self.inner.buses.len());
                    self.deliver(std::mem::replace(batch, before)).await?;
                    self.park(&letter).await?;
                    Vec::new()
                }
            }
        };
        let step = Step {
            version: Some((entry.key, entry.version)),
            cursor: Some(cursor),
            at: Some(entry.at),
        };
        batch.add(step, events);
        Ok(())
    }

    /// All buses have these steps behind them.
    pub(super) fn passed(&mut self, steps: Vec<Step>) {
        let in_turn = || steps.iter().filter(|step| step.cursor.is_some());
        let entries = in_turn().filter(|step| step.version.is_some()).count();
        if entries > 0 {
            self.unsaved += entries;
            self.unsaved_since.get_or_insert_with(Instant::now);
        }
        if Meter::LISTENS {
            for at in in_turn().filter_map(|step| step.at) {
                self.inner.meter.entry(since(self.inner, at));
            }
        }
        self.inner.progress.passed(in_turn());
        let cursors = steps.into_iter().filter_map(|step| step.cursor);
        self.confirmed = cursors.last().or(self.confirmed.take());
    }

    async fn load_parked(&mut self) -> Result<Parked, Interrupt> {
        /// Bounds what one answer of the store holds.
        const PAGE: usize = 1_000;
        let inner = self.inner;
        let mut parked = Parked::new();
        let mut after: Option<String> = None;
        let mut failures = 0;
        loop {
            let read = inner.backend.read_records(PARKED, after.as_deref(), PAGE);
            match self.guarded(read).await? {
                Ok(records) => {
                    for record in &records {
                        let (document, version) =
                            parked_from_record(record).map_err(Interrupt::Fatal)?;
                        parked.insert(document, version);
                    }
                    match records.into_iter().next_back() {
                        Some(last) => after = Some(last.key),
                        None => return Ok(parked),
                    }
                }
                Err(error) => self.survive(error, &mut failures).await?,
            }
        }
    }

    /// Pauses after an error of the store that may pass; gives up on others.
    pub(super) async fn survive(
        &mut self,
        error: Error,
        failures: &mut u32,
    ) -> Result<(), Interrupt> {
        if error.kind() == ErrorKind::InUse {
            return Err(Interrupt::LeaseLost);
        }
        if !error.is_retryable() {
            return Err(Interrupt::Fatal(error));
        }
        *failures += 1;
        self.retrying(error);
        self.pause(self.inner.options.attempts.delay(*failures))
            .await
    }

    pub(super) fn following(&self) {
        self.inner.state.send_if_modified(|state| {
            let changes = !matches!(state, RelayState::Following);
            if changes {
                *state = RelayState::Following;
            }
            changes
        });
    }

    pub(super) fn retrying(&self, error: Error) {
        tracing::warn!(relay = %self.inner.options.name, %error, "relay tries again");
        self.inner.meter.retry();
        let error = Arc::new(error);
        self.inner.state.send_replace(RelayState::Retrying(error));
    }
}
