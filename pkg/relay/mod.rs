//! The relay: brings every event of the log to the buses.
//!
//! It follows the log of a [`Backend`], publishes the events in batches, in order, to every connected
//! bus, and moves its checkpoint once all buses have confirmed. A crash between the two repeats
//! events, with the same event ids; it never loses one.
//!
//! * **One at a time.** Relays of the same name share a lease on the store's clock. One publishes, the
//!   others wait; when it dies another continues from its checkpoint within the lease's time. A relay
//!   that was paused past its lease repeats at most what it had in flight: its checkpoint is refused,
//!   and it lines up again.
//! * **Buses go in step.** There is one checkpoint, so a bus that is down holds up the others after the
//!   batch in flight. The log is the buffer; updates go on.
//! * **Outages wait, poison is set aside.** While a bus is unavailable the relay tries again, with
//!   growing pauses, for as long as it takes. An event that a bus says it can never take is tried
//!   [a few times](RelayOptions::attempts), then recorded as a [dead letter](DeadLetter) with its error
//!   and attempts, and its document is parked: later events of the document are held back, those of
//!   other documents go on. Records of both are written under the lease's fence before the checkpoint
//!   passes. [`release`](RelayHandle::release) publishes what was held back, from the log;
//!   [`discard`](RelayHandle::discard) does so without the event that failed.
//! * **Observable.** [`state`](RelayHandle::state) says what it does, [`lag`](RelayHandle::lag) how far it is
//!   behind, and with the feature `metrics` counters, gauges and histograms named `nodestorage_relay_…` say
//!   both to whatever collects them.
//! * **Bounded.** Memory holds a batch, bounded in [events](RelayOptions::batch) and
//!   [bytes](RelayOptions::batch_bytes), the parked documents (at most
//!   [`max_parked`](RelayOptions::max_parked), beyond which the relay stops and says so), and whoever
//!   waits in [`Delivery::delivered`].
//!
//! Subscribe to a bus in memory before its relay is started: such a bus keeps nothing for later.
//!
//! # Metrics
//! With the feature `metrics`, through the facade of that name:
//!
//! | name | kind | what |
//! |---|---|---|
//! | `nodestorage_relay_published_total` | counter | events that all buses confirmed |
//! | `nodestorage_relay_entries_total` | counter | log entries confirmed or set aside |
//! | `nodestorage_relay_retries_total` | counter | calls that a bus or the store failed and that are made again |
//! | `nodestorage_relay_dead_letters_total` | counter | events given up |
//! | `nodestorage_relay_publish_seconds` | histogram | how long a batch took, all buses together |
//! | `nodestorage_relay_batch_events` | histogram | events in a batch |
//! | `nodestorage_relay_delay_seconds` | histogram | from an entry's commit to its confirmation |
//! | `nodestorage_relay_leading` | gauge | 1 while this relay holds the lease, else 0 |
//! | `nodestorage_relay_parked_documents` | gauge | documents held back behind dead letters |
//! | `nodestorage_relay_backlog_entries` | gauge | see [`RelayLag::entries`] |
//! | `nodestorage_relay_lag_seconds` | gauge | see [`RelayLag::age`] |
//!
//! Each has the label `relay`, the name of its lease. Backlog and lag are measured by whoever holds the lease,
//! and by everyone who asks [`RelayHandle::lag`].

mod elsewhere;
mod handle;
mod keeping;
mod lag;
mod leader;
mod letters;
mod options;
mod outgoing;
mod progress;
mod publish;
mod run;
mod state;
mod telemetry;

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use self::progress::Progress;
use self::run::{Inner, run};
use self::telemetry::Meter;
use crate::bus::EventBus;
use crate::error::{Error, ErrorKind, Result};
#[cfg(doc)]
use crate::storage::Delivery;
use crate::storage::backend::Backend;

pub(crate) use elsewhere::RelayElsewhere;
pub use handle::RelayHandle;
pub use lag::RelayLag;
pub use letters::DeadLetter;
pub use options::RelayOptions;
pub use state::RelayState;

/// Puts a relay together.
///
/// # Examples
/// ```
/// # use std::sync::Arc;
/// # use nodestorage::bus::MemoryBus;
/// # use nodestorage::relay::{Relay, RelayHandle};
/// # use nodestorage::storage::backend::Backend;
/// # async fn example(backend: Arc<dyn Backend>, bus: MemoryBus) -> nodestorage::Result<()> {
/// let relay: RelayHandle = Relay::new(backend).with_bus(Arc::new(bus)).start()?;
/// // …
/// relay.shutdown().await;
/// # Ok(()) }
/// ```
#[derive(Debug)]
#[must_use = "a relay does nothing until it is started"]
pub struct Relay {
    backend: Arc<dyn Backend>,
    buses: Vec<Arc<dyn EventBus>>,
    options: RelayOptions,
}

impl Relay {
    /// A relay for the log of this store.
    pub fn new(backend: Arc<dyn Backend>) -> Self {
        Self {
            backend,
            buses: Vec::new(),
            options: RelayOptions::default(),
        }
    }

    /// Connects a bus; several may be. The relay does not close them.
    pub fn with_bus(mut self, bus: Arc<dyn EventBus>) -> Self {
        self.buses.push(bus);
        self
    }

    /// Sets the options.
    pub fn with_options(mut self, options: RelayOptions) -> Self {
        self.options = options;
        self
    }

    /// Starts the relay on the current tokio runtime. It runs until it is shut down or the last handle
    /// is dropped.
    ///
    /// # Errors
    /// `InvalidConfig` without a bus, without a runtime, and for options that make no sense.
    pub fn start(self) -> Result<RelayHandle> {
        self.options.validate()?;
        if self.buses.is_empty() {
            return Err(invalid("a relay needs a bus to publish to"));
        }
        self.spawn()
    }

    /// Without a bus it only answers for the relay that holds the lease.
    fn spawn(self) -> Result<RelayHandle> {
        if tokio::runtime::Handle::try_current().is_err() {
            return Err(invalid(
                "a relay needs a tokio runtime, and there is none here",
            ));
        }
        // Enough that senders rarely wait; each command takes its sender waiting for the answer.
        let (commands, requests) = mpsc::channel(16);
        let shutdown = CancellationToken::new();
        let inner = Arc::new(Inner {
            meter: Meter::new(&self.options.name),
            backend: self.backend,
            buses: self.buses,
            options: self.options,
            owner: Uuid::now_v7().to_string(),
            progress: Progress::new(),
            state: watch::Sender::new(RelayState::Starting),
            shutdown: shutdown.clone(),
        });
        let task = TaskTracker::new();
        task.spawn(run(Arc::clone(&inner), requests));
        task.close();
        Ok(RelayHandle::new(inner, commands, shutdown, task))
    }
}

fn invalid(message: &str) -> Error {
    Error::new(ErrorKind::InvalidConfig, message)
}
