use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Payload;
use super::wire::Wire;
use crate::bus::EventBus;
use crate::bus::memory::MemoryBus;
use crate::event::Event;

/// How many messages wait for slow subscriptions, beside what their own queues hold. A channel that is
/// not read is cut off by its broker, and then everybody here loses what comes meanwhile; beyond this
/// only what does not fit is lost.
const BACKLOG: usize = 16_384;

/// How much is handed on at a time.
const BATCH: usize = 64;

/// What a message of the bus's own begins with; no serializer's form of an event does.
const MARK: &[u8] = b"\0nodestorage-mark:";

/// Takes messages in and hands them on to a bus in memory.
#[derive(Clone)]
pub(in crate::bus) struct Intake(Arc<Inner>);

struct Inner {
    label: &'static str,
    backlog: mpsc::Sender<Payload>,
    marks: Arc<Marks>,
    lost: AtomicU64,
    closed: CancellationToken,
}

#[derive(Default)]
struct Marks(Mutex<HashMap<Vec<u8>, oneshot::Sender<()>>>);

impl Intake {
    pub(super) fn new(
        label: &'static str,
        memory: MemoryBus,
        wire: Wire,
        closed: CancellationToken,
    ) -> Self {
        let (backlog, messages) = mpsc::channel(BACKLOG);
        let marks = Arc::<Marks>::default();
        let end = closed.clone();
        let feeding = feed(messages, memory, wire, Arc::clone(&marks));
        tokio::spawn(async move {
            tokio::select! {
                () = end.cancelled() => {}
                () = feeding => {}
            }
        });
        Self(Arc::new(Inner {
            label,
            backlog,
            marks,
            lost: AtomicU64::new(0),
            closed,
        }))
    }

    /// Takes a message; never waits, and drops what does not fit.
    pub(in crate::bus) fn offer(&self, message: Payload) {
        if self.0.backlog.try_send(message).is_err() && !self.0.closed.is_cancelled() {
            let lost = self.0.lost.fetch_add(1, Ordering::Relaxed) + 1;
            if lost.is_power_of_two() {
                tracing::warn!(
                    bus = self.0.label,
                    lost,
                    "subscriptions are too slow, messages are lost"
                );
            }
        }
    }

    /// Completes when nothing is wanted any more.
    pub(in crate::bus) async fn closed(&self) {
        self.0.closed.cancelled().await;
    }

    /// A message to send, and what completes when it has come back and all before it is handed on.
    pub(super) fn mark(&self) -> (Payload, oneshot::Receiver<()>) {
        let mark = [MARK, Uuid::new_v4().as_bytes()].concat();
        let (sender, receiver) = oneshot::channel();
        self.0.marks.lock().insert(mark.clone(), sender);
        (mark.into(), receiver)
    }
}

impl Marks {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Vec<u8>, oneshot::Sender<()>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Intake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Intake").finish_non_exhaustive()
    }
}

/// Hands messages on in order, waiting for subscriptions that are slow.
async fn feed(
    mut messages: mpsc::Receiver<Payload>,
    memory: MemoryBus,
    wire: Wire,
    marks: Arc<Marks>,
) {
    let mut batch = Vec::with_capacity(BATCH);
    while messages.recv_many(&mut batch, BATCH).await > 0 {
        let mut events: Vec<Event> = Vec::with_capacity(batch.len());
        for message in batch.drain(..) {
            if message.0.starts_with(MARK) {
                hand_on(&memory, &mut events).await;
                // Marks of other processes are nobody's here.
                if let Some(waiting) = marks.lock().remove(&*message.0) {
                    let _ = waiting.send(());
                }
                continue;
            }
            match wire.event(&message) {
                Ok(event) => events.push(event),
                Err(error) => memory.refuse(&message.0, &error),
            }
        }
        hand_on(&memory, &mut events).await;
    }
}

async fn hand_on(memory: &MemoryBus, events: &mut Vec<Event>) {
    let events = std::mem::take(events);
    let mut rest = events.as_slice();
    while !rest.is_empty() {
        match memory.publish(rest).await {
            Ok(()) => return,
            Err(error) => {
                // A subscription is stalled and full. The others have had their turn up to here; for
                // this one it is lost.
                tracing::warn!(%error, "a subscription takes no more events, one is lost");
                rest = rest.get(error.confirmed() + 1..).unwrap_or_default();
            }
        }
    }
}
