//! States from events.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::Aggregate;
use super::events::EventCodec;
use crate::document::{DocumentKey, Version};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::backend::LogEntry;

/// The state that a log leads to, so far.
#[derive(Debug)]
pub(super) struct Fold<A> {
    /// The version of the last entry; 0 before the first.
    pub(super) version: Version,
    pub(super) state: Option<A>,
}

impl<A: Aggregate> Fold<A> {
    pub(super) fn new() -> Self {
        Self {
            version: Version::NONE,
            state: None,
        }
    }

    pub(super) fn entry(&mut self, codec: &EventCodec<A>, entry: &LogEntry) -> Result<()> {
        for event in entry.to_events()? {
            let event = codec.decode(event)?;
            self.state = applied(&entry.key, self.state.take(), std::slice::from_ref(&event))?;
        }
        self.version = entry.version;
        Ok(())
    }
}

/// The state after some events; `None` once nothing is left of it.
pub(super) fn applied<A: Aggregate>(
    key: &DocumentKey,
    state: Option<A>,
    events: &[A::Event],
) -> Result<Option<A>> {
    guarded(key, "apply", || {
        events.iter().fold(state, |state, event| {
            let state = A::apply(state, event);
            (!state.is_deleted()).then_some(state)
        })
    })
}

/// Runs code of the application's own; a panic becomes an error.
pub(super) fn guarded<R>(key: &DocumentKey, what: &str, f: impl FnOnce() -> R) -> Result<R> {
    // What the code worked on is given up with the panic.
    catch_unwind(AssertUnwindSafe(f)).map_err(|_| {
        Error::new(
            ErrorKind::Panicked,
            format!("{what} of {key} panicked; nothing was written"),
        )
    })
}
