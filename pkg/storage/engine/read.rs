//! Reading what updates start from: many documents with each round trip.

use std::sync::Arc;

use super::super::backend::Loaded;
use super::super::base::Base;
use super::super::codec::Codec;
use super::{Shared, Tick};
use crate::document::DocumentKey;
use crate::error::{Error, ErrorKind, Result};

/// Documents in one read at most: a batch, so that the first of them need not wait for many others.
const READ: usize = 256;

/// Reads at once: one on its way while the results of another are taken in.
const READS_AT_ONCE: usize = 2;

/// Bytes that one read is expected to bring at most, from what documents had lately.
const READ_BYTES: usize = 32 << 20;

impl Shared {
    /// Starts a reader if there is something to read and room for one.
    pub(super) fn pump_reads(self: &Arc<Self>, state: &mut super::state::State) {
        if state.unread.is_empty() || state.readers >= READS_AT_ONCE {
            return;
        }
        state.readers += 1;
        let shared = Arc::clone(self);
        self.spawn(async move {
            let seat = Seat(&shared);
            while let Some((keys, began)) = shared.next_read() {
                shared.read(keys, began).await;
            }
            // It has given the seat back already, under the lock that found nothing more to do.
            std::mem::forget(seat);
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
            state.readers -= 1;
            return None;
        }
        self.pump_reads(&mut state);
        Some((keys, began))
    }

    async fn read(self: &Arc<Self>, keys: Vec<DocumentKey>, began: Tick) {
        match self.backend.load(&keys).await {
            Ok(loaded) if loaded.len() == keys.len() => {
                for (key, loaded) in keys.into_iter().zip(loaded) {
                    self.deliver(&key, began, Ok(loaded));
                }
            }
            // One document may have spoilt it for the others.
            Err(error) if keys.len() > 1 && !is_outage(error.kind()) => {
                for key in keys {
                    let loaded = self.backend.load(std::slice::from_ref(&key)).await;
                    let loaded = loaded.and_then(|mut l| l.pop().ok_or_else(|| missing(&key)));
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
            self.pump_reads(&mut state);
        }
        state.forget_unused(key);
        drop(state);
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
        let loaded = self.backend.load(&names).await?;
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

/// Gives a reader's seat back if its task ends before its work.
struct Seat<'a>(&'a Shared);

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.readers -= 1;
        // Whoever waits for a read of this task would wait for ever; their answers are dropped.
        for lane in state.lanes.values_mut() {
            if lane.reading.take().is_some() {
                lane.readers.clear();
            }
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
