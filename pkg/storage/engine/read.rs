//! Reading what updates start from: many documents with each round trip.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::backend::Loaded;
use super::super::base::Base;
use super::super::codec::Codec;
use super::super::wait::before;
use super::state::State;
use super::{Shared, Tick};
use crate::document::DocumentKey;
use crate::error::{Error, ErrorKind, Result};

/// Documents in one read at most: a batch, so that the first of them need not wait for many others.
const READ: usize = 256;

/// Reads at once: one on its way while the results of another are taken in.
const READS_AT_ONCE: usize = 2;

/// How long one read may take. More than the driver takes to find another server, less than the default
/// deadline of a call.
const READ_LIMIT: Duration = Duration::from_secs(15);

/// Bytes that one read is expected to bring at most, from what documents had lately.
const READ_BYTES: usize = 32 << 20;

impl Shared {
    /// Takes a seat for a reader if there is something to read and room for one. It is to be
    /// [started](Self::start_reader) once the lock is released.
    pub(super) fn pump_reads(self: &Arc<Self>, state: &mut State) -> Option<Seat> {
        // Where other processes write the same documents every update reads: one read for many is cheaper
        // than two for half of them, and its results are as fresh.
        let most = if state.is_contended() {
            1
        } else {
            READS_AT_ONCE
        };
        if state.unread.is_empty() || state.readers >= most {
            return None;
        }
        state.readers += 1;
        Some(Seat {
            shared: Some(Arc::clone(self)),
            began: None,
        })
    }

    pub(super) fn start_reader(self: &Arc<Self>, seat: Option<Seat>) {
        let Some(mut seat) = seat else {
            return;
        };
        let shared = Arc::clone(self);
        self.tasks.spawn(async move {
            while let Some((keys, began)) = shared.next_read() {
                seat.reads(began);
                shared.read(keys, began).await;
            }
            seat.given_back();
        });
    }

    fn next_read(self: &Arc<Self>) -> Option<(Vec<DocumentKey>, Tick)> {
        let began = self.tick();
        let mut state = self.lock();
        let most = (READ_BYTES / state.document_bytes.max(1)).clamp(1, READ);
        let mut keys = Vec::new();
        while keys.len() < most
            && let Some(key) = state.unread.pop_front()
        {
            if let Some(lane) = state.lanes.get_mut(&key) {
                lane.read_queued = false;
                lane.reading = Some(began);
                keys.push(key);
            }
        }
        if keys.is_empty() {
            // The seat is given back under the lock that found nothing more to do.
            state.readers -= 1;
            return None;
        }
        let seat = self.pump_reads(&mut state);
        drop(state);
        self.start_reader(seat);
        Some((keys, began))
    }

    /// Loads with a limit: a server that neither answers nor breaks the connection must not keep the
    /// seats.
    async fn load(&self, keys: &[DocumentKey]) -> Result<Vec<Loaded>> {
        let limit = Instant::now() + READ_LIMIT;
        match before(limit, self.backend.load(keys)).await {
            Some(loaded) => loaded,
            None => Err(Error::new(
                ErrorKind::Unavailable,
                "the store did not answer a read in time",
            )),
        }
    }

    async fn read(self: &Arc<Self>, keys: Vec<DocumentKey>, began: Tick) {
        match self.load(&keys).await {
            Ok(loaded) if loaded.len() == keys.len() => {
                for (key, loaded) in keys.into_iter().zip(loaded) {
                    self.deliver(&key, began, Ok(loaded));
                }
            }
            // One document may have spoilt it for the others.
            Err(error) if keys.len() > 1 && !is_outage(error.kind()) => {
                let mut outage = None;
                for key in keys {
                    if let Some(error) = &outage {
                        self.deliver(&key, began, Err(Error::clone(error)));
                        continue;
                    }
                    let loaded = self.load(std::slice::from_ref(&key)).await;
                    let loaded = loaded.and_then(|mut l| l.pop().ok_or_else(|| missing(&key)));
                    outage = loaded
                        .as_ref()
                        .err()
                        .filter(|e| is_outage(e.kind()))
                        .cloned();
                    self.deliver(&key, began, loaded);
                }
            }
            Ok(_) => {
                for key in keys {
                    self.deliver(&key, began, Err(missing(&key)));
                }
            }
            Err(error) => {
                for key in keys {
                    self.deliver(&key, began, Err(error.clone()));
                }
            }
        }
    }

    /// Hands a read to those who waited for it.
    fn deliver(self: &Arc<Self>, key: &DocumentKey, began: Tick, loaded: Result<Loaded>) {
        let mut state = self.lock();
        if let Ok(Loaded {
            document: Some(document),
            ..
        }) = &loaded
        {
            // Falls slowly, rises at once.
            let bytes = document.as_bytes().len();
            state.document_bytes = bytes.max(state.document_bytes - state.document_bytes / 64);
        }
        let Some(lane) = state.lanes.get(key) else {
            return;
        };
        let spec = Arc::clone(&lane.spec);
        let codec = Codec {
            key,
            version_field: &spec.version_field,
        };
        let base = loaded.and_then(|loaded| Base::new(codec, loaded));
        let view = match &base {
            Ok(base) => state.found(key, base, began).ok_or_else(|| missing(key)),
            Err(error) => Err(error.clone()),
        };
        let Some(lane) = state.lanes.get_mut(key) else {
            return;
        };
        if lane.reading == Some(began) {
            lane.reading = None;
        }
        let (served, waiting): (Vec<_>, Vec<_>) = std::mem::take(&mut lane.readers)
            .into_iter()
            .partition(|reader| reader.after < began);
        let again = !waiting.is_empty() && lane.reading.is_none() && !lane.read_queued;
        lane.readers = waiting;
        lane.read_queued |= again;
        if again {
            state.unread.push_back(key.clone());
        }
        let seat = self.pump_reads(&mut state);
        state.forget_unused(key);
        drop(state);
        self.start_reader(seat);
        for reader in served {
            let _ = reader.answer.send(view.clone());
        }
    }

    /// Reads beside the lanes, for documents whose commit has just failed.
    pub(super) async fn read_now(
        &self,
        keys: &[(DocumentKey, Arc<super::super::CollectionSpec>)],
    ) -> Result<(Vec<Result<Base>>, Tick)> {
        let began = self.tick();
        let names: Vec<_> = keys.iter().map(|(key, _)| key.clone()).collect();
        let loaded = self.load(&names).await?;
        let bases = keys.iter().zip(loaded).map(|((key, spec), loaded)| {
            let codec = Codec {
                key,
                version_field: &spec.version_field,
            };
            Base::new(codec, loaded)
        });
        Ok((bases.collect(), began))
    }
}

/// A reader's seat, given back if its task ends before its work.
pub(super) struct Seat {
    shared: Option<Arc<Shared>>,
    /// The read under way.
    began: Option<Tick>,
}

impl Seat {
    fn reads(&mut self, began: Tick) {
        self.began = Some(began);
    }

    fn given_back(mut self) {
        self.shared = None;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let Some(shared) = self.shared.take() else {
            return;
        };
        let mut left = Vec::new();
        let mut state = shared.lock();
        state.readers -= 1;
        // Whoever waits for a read of this task would wait for ever.
        for lane in state.lanes.values_mut() {
            if lane.reading.is_some() && lane.reading == self.began {
                lane.reading = None;
                left.append(&mut lane.readers);
            }
        }
        // As for the worker's seat.
        let seat = match std::thread::panicking() {
            true => shared.pump_reads(&mut state),
            false => None,
        };
        drop(state);
        shared.start_reader(seat);
        for reader in left {
            let broken = Error::new(ErrorKind::Unavailable, "a read was broken off");
            let _ = reader.answer.send(Err(broken));
        }
    }
}

pub(super) fn is_outage(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::Closed | ErrorKind::StorageFull
    )
}

fn missing(key: &DocumentKey) -> Error {
    Error::new(
        ErrorKind::Corrupt,
        format!("the backend answered nothing for {key}"),
    )
}
