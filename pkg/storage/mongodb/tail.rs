//! Following the log: a scan of the past, then the change stream from there on.
//!
//! The scan reads the state at one cluster time T0, the change stream begins at T0 + 1, so the two
//! neither leave out nor repeat. Whatever goes wrong, the way back is the last place: the change stream
//! resumes behind its token; if that is lost, or a scan has outlived its snapshot, a new scan begins far
//! enough before the place to meet every transaction that was open then, and entries repeat.

use std::sync::Arc;
use std::time::Duration;

use bson::raw::cstr;
use bson::{RawDocument, RawDocumentBuf};
use futures_core::stream::BoxStream;
use futures_util::stream;
use tokio::time::{Instant, sleep};

use super::failure::Failure;
use super::follow::{Follow, Step, now};
use super::place::Place;
use super::scan::Scan;
use super::store::{Store, count};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::backend::{LogEntry, Position, TailFrom, TailItem};

/// How long a tail tries to recover by itself before it ends with `Unavailable`: long enough for an
/// election (about twelve seconds), short enough that its owner notices an outage.
const PATIENCE: Duration = Duration::from_secs(30);

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// The server's default `transactionLifetimeLimitSeconds`, for logins that may not ask.
const USUAL_LIFETIME: u32 = 60;

pub(super) fn tail(store: Arc<Store>, from: TailFrom) -> BoxStream<'static, Result<TailItem>> {
    let (place, mode, reached) = match from {
        TailFrom::Beginning => (
            Place::BEGINNING,
            Mode::Scan(Scan::new(Position::START)),
            Position::START,
        ),
        TailFrom::Now => (
            Place::after(Position::START),
            Mode::FindNow,
            Position::START,
        ),
        TailFrom::After(cursor) => (Place::from_cursor(&cursor), Mode::Return, cursor.position),
    };
    let tail = Tail {
        store,
        place,
        reached,
        mode,
        margin: None,
        trouble: None,
    };
    Box::pin(stream::unfold(Some(tail), |tail| async {
        let mut tail = tail?;
        let closed = tail.store.closed.clone();
        let item = tokio::select! {
            biased;
            () = closed.cancelled() => Err(Error::new(ErrorKind::Closed, "the store was closed")),
            item = tail.next() => item,
        };
        // An error is the last item.
        let tail = item.is_ok().then_some(tail);
        Some((item, tail))
    }))
}

struct Tail {
    store: Arc<Store>,
    place: Place,
    /// Everything up to here has been passed.
    reached: Position,
    mode: Mode,
    /// Twice the longest life of a transaction, in seconds; asked for when first needed.
    margin: Option<u32>,
    /// Since when nothing works, and how long to pause next.
    trouble: Option<(Instant, Duration)>,
}

enum Mode {
    /// The place is yet to be found: the present.
    FindNow,
    /// Continue from the place.
    Return,
    /// A new scan is needed to come back to the place.
    Rescan,
    Scan(Scan),
    Follow(Box<Follow>),
}

impl Tail {
    async fn next(&mut self) -> Result<TailItem> {
        loop {
            match self.advance().await {
                Ok(None) => {}
                Ok(Some(item)) => {
                    self.trouble = None;
                    return Ok(item);
                }
                Err(Stop::Final(error)) => return Err(error),
                Err(Stop::Failed(failure)) => self.recover(failure).await?,
            }
        }
    }

    /// One step; `None` if it brought nothing to hand out.
    async fn advance(&mut self) -> Result<Option<TailItem>, Stop> {
        match &mut self.mode {
            Mode::FindNow => {
                self.reached = now(&self.store).await?;
                self.place = Place::after(self.reached);
                self.mode = Mode::Return;
                Ok(None)
            }
            Mode::Return if self.place.scanned.is_some() => {
                // The same state again, as long as the server still has it: then nothing repeats.
                let mut scan = Scan::resume(&self.place);
                scan.read(&self.store).await?;
                self.mode = Mode::Scan(scan);
                Ok(None)
            }
            Mode::Return => {
                let follow = Follow::open(&self.store, &self.place, self.reached).await?;
                self.mode = Mode::Follow(Box::new(follow));
                Ok(None)
            }
            Mode::Rescan => {
                let margin = self.margin().await?;
                let start = self.place.scan_start(margin);
                self.reached = self.reached.min(start);
                self.mode = Mode::Scan(Scan::new(start));
                Ok(None)
            }
            Mode::Scan(scan) => {
                if let Some(raw) = scan.page.pop_front() {
                    let time = scan.time.unwrap_or(Position::START);
                    let entry = read_entry(&raw)?;
                    scan.after = entry.position;
                    // What was committed up to here lies before here, and the scan has passed it.
                    self.reached = entry.position;
                    self.place = Place {
                        scanned: Some(entry.position),
                        ..Place::after(time)
                    };
                    return Ok(Some(self.entry(entry)));
                }
                scan.read(&self.store).await?;
                self.trouble = None;
                if let (true, Some(time)) = (scan.page.is_empty(), scan.time) {
                    self.reached = time;
                    self.place = Place::after(time);
                    self.mode = Mode::Return;
                }
                Ok(None)
            }
            Mode::Follow(follow) => {
                let Some(step) = follow.next().await? else {
                    return Ok(None);
                };
                match step {
                    Step::Entry {
                        entry,
                        position,
                        place,
                    } => {
                        let entry = read_entry(&entry)?;
                        self.reached = position;
                        self.place = place;
                        Ok(Some(self.entry(entry)))
                    }
                    Step::Idle { position, place } => {
                        self.reached = position;
                        self.place = place;
                        let cursor = self.place.to_cursor(self.reached);
                        Ok(Some(TailItem::Idle { cursor }))
                    }
                    Step::Gone => Err(Stop::Final(Error::new(
                        ErrorKind::NotFound,
                        "the log was dropped or renamed",
                    ))),
                }
            }
        }
    }

    fn entry(&self, entry: LogEntry) -> TailItem {
        TailItem::Entry {
            entry: Box::new(entry),
            cursor: self.place.to_cursor(self.reached),
        }
    }

    /// Decides how to go on after a failure, and waits a little.
    async fn recover(&mut self, failure: Failure) -> Result<()> {
        let is_retryable =
            failure.kind() == ErrorKind::Unavailable || failure.kind() == ErrorKind::Timeout;
        match &self.mode {
            Mode::Scan(_) | Mode::Rescan | Mode::Return if failure.is_snapshot_lost() => {
                self.mode = Mode::Rescan;
            }
            Mode::Return | Mode::Follow(_) if failure.is_history_lost() => self.mode = Mode::Rescan,
            // The server does not understand token or time: they are not from this log's history.
            Mode::Return if failure.is_refusal() => self.mode = Mode::Rescan,
            Mode::Follow(_) if is_retryable || failure.is_cursor_lost() => self.mode = Mode::Return,
            // A scan goes on in its snapshot as long as that lives.
            _ if is_retryable => {}
            _ => return Err(failure.into_error("following the log")),
        }
        let (since, pause) = *self.trouble.get_or_insert((Instant::now(), FIRST_PAUSE));
        if since.elapsed() > PATIENCE {
            return Err(failure.into_error("following the log"));
        }
        self.trouble = Some((since, (pause * 2).min(LONGEST_PAUSE)));
        sleep(pause).await;
        Ok(())
    }

    async fn margin(&mut self) -> Result<u32, Failure> {
        if let Some(margin) = self.margin {
            return Ok(margin);
        }
        let mut command = RawDocumentBuf::new();
        command.append(cstr!("getParameter"), 1);
        command.append(cstr!("transactionLifetimeLimitSeconds"), 1);
        let lifetime = match self.store.run_admin(command).await {
            Ok(reply) => u32::try_from(count(&reply, "transactionLifetimeLimitSeconds"))
                .unwrap_or(USUAL_LIFETIME),
            Err(failure) if failure.is_refusal() || failure.kind() == ErrorKind::InvalidConfig => {
                USUAL_LIFETIME
            }
            Err(failure) => return Err(failure),
        };
        let margin = lifetime.max(1).saturating_mul(2);
        self.margin = Some(margin);
        Ok(margin)
    }
}

/// Why a step brought nothing.
enum Stop {
    Failed(Failure),
    Final(Error),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

fn read_entry(raw: &RawDocument) -> Result<LogEntry, Stop> {
    LogEntry::from_raw(raw).map_err(Stop::Final)
}
