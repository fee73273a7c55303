//! From log entries to calls of the projection, none of which may take the runner down.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::cache::Cache;
use super::definition::Projection;
use super::marks::Seen;
use crate::document::{DocumentId, DocumentKey, Version};
use crate::error::BoxError;
use crate::event::{Event, EventId, EventRegistry};
use crate::storage::backend::LogEntry;

/// One event that concerns the projection, or something that should be one.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) document: DocumentKey,
    pub(super) version: Version,
    pub(super) index: u32,
    pub(super) id: EventId,
    /// As it is logged.
    pub(super) event_type: String,
    seconds: u32,
    /// As it is logged; an error if it does not render.
    logged: Result<Event, String>,
    /// `None` if it turned out not to concern the projection.
    pub(super) prepared: Result<Option<Prepared>, BoxError>,
}

/// An event in the form that the projection knows, and the views it changes.
#[derive(Debug)]
pub(super) struct Prepared {
    event: Event,
    pub(super) keys: Vec<DocumentId>,
}

impl Work {
    pub(super) fn keys(&self) -> &[DocumentId] {
        match &self.prepared {
            Ok(Some(prepared)) => &prepared.keys,
            Ok(None) | Err(_) => &[],
        }
    }
}

/// What calls the projection.
pub(super) struct Folder<'a, P> {
    pub(super) projection: &'a P,
    pub(super) registry: Option<&'a EventRegistry>,
}

impl<P: Projection> Folder<'_, P> {
    /// The events of an entry that concern the projection, in order.
    pub(super) fn works(&self, entry: &LogEntry, works: &mut Vec<Work>) {
        let concerns = |event_type: &str| {
            self.may_concern(event_type, entry.key.collection())
                // Who panics here is found out where it counts.
                .unwrap_or(true)
        };
        if !entry.events.iter().any(|event| concerns(&event.event_type)) {
            return;
        }
        let rendered = entry.to_events();
        for (logged, index) in entry.events.iter().zip(0_u32..) {
            if !concerns(&logged.event_type) {
                continue;
            }
            let event = match &rendered {
                Ok(events) => events
                    .get(index as usize)
                    .cloned()
                    .ok_or_else(|| "the event is not there".to_owned()),
                Err(error) => Err(error.to_string()),
            };
            let prepared = self.prepare(&event);
            if matches!(&prepared, Ok(None)) {
                continue;
            }
            works.push(Work {
                document: entry.key.clone(),
                version: entry.version,
                index,
                id: logged.id,
                event_type: logged.event_type.clone(),
                seconds: entry.position.seconds(),
                logged: event,
                prepared,
            });
        }
    }

    fn may_concern(&self, event_type: &str, collection: &str) -> Result<bool, BoxError> {
        let is_old_name = self.registry.is_some_and(|it| it.converts(event_type));
        Ok(is_old_name || calling(|| Ok(self.projection.handles(event_type, collection)))?)
    }

    /// The current form of an event, and its keys; `None` if that form does not concern the projection.
    fn prepare(&self, logged: &Result<Event, String>) -> Result<Option<Prepared>, BoxError> {
        let event = logged.as_ref().map_err(Clone::clone)?;
        calling(|| {
            let event = match self.registry {
                Some(registry) => {
                    let handled = self
                        .projection
                        .handles(event.event_type(), event.collection());
                    match registry.upcast(event.clone()) {
                        Ok(event) => event,
                        // What does not concern it need not be known.
                        Err(_) if !handled => return Ok(None),
                        Err(error) => return Err(error.into()),
                    }
                }
                None => event.clone(),
            };
            if !self
                .projection
                .handles(event.event_type(), event.collection())
            {
                return Ok(None);
            }
            let keys = self.projection.keys(&event);
            for key in &keys {
                key.validate()?;
            }
            Ok(Some(Prepared { event, keys }))
        })
    }

    /// Tries again to make sense of an event.
    pub(super) fn prepare_again(&self, work: &mut Work) {
        work.prepared = self.prepare(&work.logged);
    }

    /// Folds an event into its views, all of which are in the cache, or nowhere. What was changed before a
    /// failure stays changed: told again, the event changes only the rest.
    pub(super) fn apply(&self, work: &Work, cache: &mut Cache<P::View>) -> Result<(), BoxError> {
        let prepared = match &work.prepared {
            Ok(Some(prepared)) => prepared,
            Ok(None) => return Ok(()),
            Err(error) => return Err(error.to_string().into()),
        };
        let seen = Seen::new(&prepared.event, work.seconds);
        let bytes = bytes_of(prepared.event.data());
        for key in &prepared.keys {
            let cached = cache.at(key);
            if cached.marks.has(&seen) {
                continue;
            }
            let view = &cached.view;
            let after = calling(|| self.projection.apply(key, view.clone(), &prepared.event))?;
            cache.change(key, after, &seen, bytes);
        }
        Ok(())
    }

    /// Passes over an event in all its views.
    pub(super) fn skip(work: &Work, cache: &mut Cache<P::View>) {
        if let Ok(Some(prepared)) = &work.prepared {
            let seen = Seen::new(&prepared.event, work.seconds);
            for key in &prepared.keys {
                cache.skip(key, &seen);
            }
        }
    }
}

/// Calls code of the user's, for which a panic is a failure like another.
fn calling<T>(call: impl FnOnce() -> Result<T, BoxError>) -> Result<T, BoxError> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result,
        Err(panic) => Err(format!("projection panicked: {}", text_of(panic.as_ref())).into()),
    }
}

fn text_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

/// About what an event may add to a view.
fn bytes_of(data: &serde_json::Value) -> usize {
    use serde_json::Value;
    match data {
        Value::String(text) => 24 + text.len(),
        Value::Array(items) => 24 + items.iter().map(bytes_of).sum::<usize>(),
        Value::Object(fields) => {
            let fields = fields.iter();
            24 + fields
                .map(|(key, value)| 24 + key.len() + bytes_of(value))
                .sum::<usize>()
        }
        _ => 24,
    }
}
