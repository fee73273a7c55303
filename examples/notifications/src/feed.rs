//! From the bus to the browsers, and from the log to those that were away.

use std::collections::HashSet;
use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, OnceLock};

use axum::response::sse;
use bson::RawDocumentBuf;
use futures_util::{Stream, StreamExt, stream};
use nodestorage::storage::backend::{Cursor, LogRange, Position, TailFrom, TailItem};
use nodestorage::{Error, ErrorKind, Event, EventId, Storage};
use serde_json::json;
use tokio::sync::{broadcast, mpsc};

/// How many events a browser may be behind before it has to come again and read them from the log.
const BUFFER: usize = 1_024;

/// How far behind the last event a browser had, its missed events may lie. Several processes commit, and a
/// broker delivers, in another order than the log has; half of this is how long a transaction of MongoDB may
/// take. The page drops what it had already.
const OVERLAP_SECONDS: u32 = 120;

/// Where an event stands in the log: what browsers get as the id of an event, and send when they come back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    position: Position,
    index: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.position.to_u64(), self.index)
    }
}

impl FromStr for Place {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (position, index) = text.split_once('-').ok_or(())?;
        Ok(Self {
            position: Position::from_u64(position.parse().map_err(drop)?),
            index: index.parse().map_err(drop)?,
        })
    }
}

/// An event with its place.
#[derive(Clone)]
struct Notice {
    place: Place,
    event: Event,
}

/// Hands every event of the bus to all browsers that are connected to this process.
pub(crate) struct Feed {
    storage: OnceLock<Storage>,
    /// `None` once it is closed.
    live: Mutex<Option<broadcast::Sender<Notice>>>,
}

impl Feed {
    pub(crate) fn new() -> Self {
        Self {
            storage: OnceLock::new(),
            live: Mutex::new(Some(broadcast::Sender::new(BUFFER))),
        }
    }

    pub(crate) fn connect(&self, storage: Storage) {
        // There is one.
        let _ = self.storage.set(storage);
    }

    /// Ends all streams.
    pub(crate) fn close(&self) {
        self.live().take();
    }

    fn live(&self) -> std::sync::MutexGuard<'_, Option<broadcast::Sender<Notice>>> {
        self.live
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Handles an event of the bus. The log knows its place.
    pub(crate) async fn push(&self, event: Event) -> Result<(), Error> {
        let Some(storage) = self.storage.get() else {
            // Nobody is connected before the storage is open.
            return Ok(());
        };
        let range = LogRange {
            key: event.document().clone(),
            from: event.version(),
            to: event.version(),
            until: None,
            newest_first: false,
            limit: 1,
        };
        let entries = storage.backend().read_log(&range).await?;
        let entry = entries.first().ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                format!(
                    "the log has no version {} of {}",
                    event.version(),
                    event.document()
                ),
            )
        })?;
        let place = Place {
            position: entry.position,
            index: event.index(),
        };
        if let Some(live) = &*self.live() {
            // An error says that nobody is connected.
            let _ = live.send(Notice { place, event });
        }
        Ok(())
    }

    /// The events after a place, as far as the log has them, and then those that come.
    pub(crate) fn follow(
        self: &Arc<Self>,
        last: Option<Place>,
    ) -> impl Stream<Item = Result<sse::Event, Infallible>> + use<> {
        // First of all, so that nothing falls between log and bus.
        let live = self.live().as_ref().map(broadcast::Sender::subscribe);
        let (sender, receiver) = mpsc::channel(16);
        if let (Some(live), Some(storage)) = (live, self.storage.get().cloned()) {
            // Ends when the browser is gone: then the channel is closed.
            tokio::spawn(async move { run(&storage, last, live, &sender).await });
        }
        stream::unfold(receiver, |mut receiver| async move {
            let notice = receiver.recv().await?;
            Some((Ok(rendered(&notice)), receiver))
        })
    }
}

/// Sends until the browser is gone, or so slow that it has to come again.
async fn run(
    storage: &Storage,
    last: Option<Place>,
    mut live: broadcast::Receiver<Notice>,
    browser: &mpsc::Sender<Notice>,
) {
    let mut sent = HashSet::new();
    if let Some(last) = last
        && replay(storage, last, browser, &mut sent).await.is_none()
    {
        return;
    }
    loop {
        let notice = tokio::select! {
            () = browser.closed() => return,
            notice = live.recv() => notice,
        };
        // Too slow, or the end of the process: the browser connects again and says what it has.
        let Ok(notice) = notice else { return };
        // What the log had may come from the bus as well.
        if sent.remove(&notice.event.id()) {
            continue;
        }
        if browser.send(notice).await.is_err() {
            return;
        }
    }
}

/// Sends what the log has after a place; `None` if it cannot be sent or read, and the browser should come
/// again.
async fn replay(
    storage: &Storage,
    last: Place,
    browser: &mpsc::Sender<Notice>,
    sent: &mut HashSet<EventId>,
) -> Option<()> {
    let backend = storage.backend();
    let bus = storage.bus()?;
    let in_order = !backend.capabilities().multi_process && !bus.capabilities().across_processes;
    let after = if in_order {
        // The entry itself once more: it may have had more events.
        Position::from_u64(last.position.to_u64().saturating_sub(1))
    } else {
        Position::new(last.position.seconds().saturating_sub(OVERLAP_SECONDS), 0)
    };
    let cursor = Cursor {
        position: after,
        token: RawDocumentBuf::new(),
    };
    let mut log = backend.tail(TailFrom::After(cursor));
    loop {
        let entry = match log.next().await?.ok()? {
            TailItem::Idle { .. } => return Some(()),
            TailItem::Entry { entry, .. } => entry,
        };
        for event in entry.to_events().ok()? {
            let place = Place {
                position: entry.position,
                index: event.index(),
            };
            if in_order && place <= last {
                continue;
            }
            sent.insert(event.id());
            browser.send(Notice { place, event }).await.ok()?;
        }
    }
}

fn rendered(notice: &Notice) -> sse::Event {
    let event = &notice.event;
    let data = json!({
        "id": event.id().to_string(),
        "type": event.event_type(),
        "order": event.aggregate_id().to_string(),
        "version": event.version().get(),
        "data": event.data(),
    });
    sse::Event::default()
        .id(notice.place.to_string())
        .event("change")
        .data(data.to_string())
}
