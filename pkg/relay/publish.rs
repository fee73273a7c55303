use std::sync::Arc;
use std::time::Instant;

use futures_util::future::join_all;

use super::leader::{Interrupt, Leader};
use super::letters::{DEAD_LETTER, DeadLetter};
use super::outgoing::{Outgoing, Step};
use super::run::Request;
use super::state::RelayState;
use crate::document::{DocumentKey, Version};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, EventId};
use crate::storage::backend::{CommitFailure, LogEntry, LogRange, RecordWrite, Unit};

/// Publishing, and setting aside what cannot be published.
impl Leader<'_> {
    /// Brings a batch to all buses, parking the documents of events that cannot be published.
    pub(super) async fn deliver(&mut self, mut batch: Outgoing) -> Result<(), Interrupt> {
        let caught_up = batch.ends_idle();
        self.note_lag(!caught_up || batch.events() > 0);
        while let Err(letter) = self.push(&mut batch).await? {
            // Recorded before the batch counts as passed, and thus before any checkpoint behind it.
            self.park(&letter).await?;
            batch.hold_back(&letter.document, letter.version);
        }
        self.note_lag(!caught_up);
        self.upkeep().await
    }

    /// Publishes a batch to its end, however long the buses are away, or to the first event that failed
    /// in all its attempts.
    async fn push(&mut self, batch: &mut Outgoing) -> Result<Result<(), DeadLetter>, Interrupt> {
        let inner = self.inner;
        let mut outages = 0;
        if batch.events() > 0 {
            inner.meter.batch(batch.events());
        }
        let mut suspect: Option<(EventId, u32)> = None;
        loop {
            let publishing = inner.buses.iter().enumerate().filter_map(|(bus, handle)| {
                let rest = batch.rest(bus);
                (!rest.is_empty()).then_some(async move { (bus, handle.publish(rest).await) })
            });
            let begin = Instant::now();
            let confirmed = batch.confirmed();
            let results = self.guarded(join_all(publishing)).await?;
            let mut outage = None;
            let mut poison: Option<(usize, Error)> = None;
            let mut moved = false;
            for (bus, result) in results {
                let Err(error) = result else {
                    moved |= batch.advance(bus, usize::MAX);
                    continue;
                };
                moved |= batch.advance(bus, error.confirmed());
                let place = batch.confirmed_by(bus);
                if !error.is_poison() {
                    outage = Some(Error::from(error));
                } else if poison.as_ref().is_none_or(|(first, _)| place < *first) {
                    poison = Some((place, error.into()));
                }
            }
            if batch.events() > 0 {
                let events = batch.confirmed() - confirmed;
                inner.meter.published(events, begin.elapsed());
            }
            let finished = batch.take_finished();
            self.passed(finished);
            if outage.is_none() && poison.is_none() {
                self.following();
                return Ok(Ok(()));
            }
            if moved {
                outages = 0;
            }
            let mut delay = std::time::Duration::ZERO;
            if let Some((place, error)) = poison
                && let Some(event) = batch.event(place)
            {
                let attempts = match suspect {
                    Some((id, attempts)) if id == event.id() => attempts + 1,
                    _ => 1,
                };
                suspect = Some((event.id(), attempts));
                match inner.options.attempts.delay_after(attempts) {
                    Some(pause) => delay = pause,
                    // Only when all buses have everything before it: what is before it in its own
                    // document must not come after it when it is released.
                    None if batch.confirmed() == place => {
                        return Ok(Err(self.letter(event, &error, attempts)));
                    }
                    None => {}
                }
            }
            if let Some(error) = outage {
                if error.kind() == ErrorKind::Closed {
                    return Err(Interrupt::Fatal(error));
                }
                outages += 1;
                delay = delay.max(inner.options.attempts.delay(outages));
                self.retrying(error);
            }
            self.pause(delay).await?;
        }
    }

    pub(super) fn unreadable(&self, entry: &LogEntry, error: &Error) -> DeadLetter {
        let first = entry.events.first();
        let store = self.inner.backend.store_id();
        DeadLetter {
            document: entry.key.clone(),
            version: entry.version,
            index: 0,
            event: first.map_or_else(
                || EventId::derive(store, &entry.key, entry.version, 0),
                |event| event.id,
            ),
            event_type: first
                .map(|event| event.event_type.clone())
                .unwrap_or_default(),
            error: with_causes(error),
            attempts: 1,
            at: self.inner.options.clock.now(),
        }
    }

    fn letter(&self, event: &Event, error: &Error, attempts: u32) -> DeadLetter {
        DeadLetter {
            document: event.document().clone(),
            version: event.version(),
            index: event.index(),
            event: event.id(),
            event_type: event.event_type().to_owned(),
            error: with_causes(error),
            attempts,
            at: self.inner.options.clock.now(),
        }
    }

    /// Records a dead letter and holds its document back. Waits for room while too many are.
    pub(super) async fn park(&mut self, letter: &DeadLetter) -> Result<(), Interrupt> {
        let inner = self.inner;
        let max = inner.options.max_parked;
        while inner.progress.parked_documents() >= max
            && inner.progress.parked_from(&letter.document).is_none()
        {
            let error = Arc::new(Error::new(
                ErrorKind::DeadLettered,
                format!("{max} documents are parked behind dead letters: release or discard some"),
            ));
            tracing::error!(relay = %inner.options.name, %error, "relay stopped");
            inner.progress.stop(&error);
            inner.state.send_replace(RelayState::Stopped(error));
            let request = self.next_request().await?;
            self.serve(request).await?;
            inner.progress.resume();
        }
        self.record(letter).await?;
        self.following();
        Ok(())
    }

    async fn next_request(&mut self) -> Result<Request, Interrupt> {
        loop {
            let shutdown = &self.inner.shutdown;
            let upkeep = self.next_upkeep();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Err(Interrupt::Shutdown),
                () = tokio::time::sleep_until(upkeep) => {}
                Some(request) = self.requests.recv() => return Ok(request),
            }
            self.upkeep().await?;
        }
    }

    async fn record(&mut self, letter: &DeadLetter) -> Result<(), Interrupt> {
        tracing::error!(
            relay = %self.inner.options.name, document = %letter.document,
            version = %letter.version, event_type = %letter.event_type, attempts = letter.attempts,
            "event given up, document parked"
        );
        let records = letter.to_records(self.inner.backend.store_id());
        self.write(records).await?;
        self.inner.progress.park(&letter.document, letter.version);
        self.inner.meter.dead_letter();
        self.inner
            .meter
            .parked(self.inner.progress.parked_documents());
        Ok(())
    }

    /// Writes records under the fence. Writing the same ones again does no harm, so an unknown outcome is
    /// simply repeated.
    async fn write(&mut self, records: Vec<RecordWrite>) -> Result<(), Interrupt> {
        let inner = self.inner;
        let units = [Unit {
            records,
            fence: Some(self.fence.clone()),
            ..Unit::default()
        }];
        let mut failures = 0;
        loop {
            let deadline = std::time::Instant::now() + inner.options.lease_ttl;
            let error = match self.guarded(inner.backend.commit(&units, deadline)).await? {
                Ok(_) => return Ok(()),
                Err(CommitFailure::Refused { error, .. } | CommitFailure::Failed(error)) => error,
                Err(failure) => {
                    let error = failure.into_error();
                    Error::new(ErrorKind::Unavailable, error.to_string()).with_source(error)
                }
            };
            self.survive(error, &mut failures).await?;
        }
    }

    pub(super) async fn serve(&mut self, request: Request) -> Result<(), Interrupt> {
        let result = self.release(&request.document, request.discard).await;
        let (answer, result) = match result {
            Ok(answer) => (answer, Ok(())),
            Err(interrupt) => {
                let kind = match interrupt {
                    Interrupt::LeaseLost => ErrorKind::InUse,
                    Interrupt::Shutdown | Interrupt::Fatal(_) => ErrorKind::Closed,
                };
                let error = Error::new(kind, "relay was interrupted while releasing");
                (Err(error), Err(interrupt))
            }
        };
        // Whoever asked may be gone by now.
        let _ = request.answer.send(answer);
        result
    }

    /// Publishes what was held back of a document. Everything that the log's follower has passed is
    /// readable in the log by then, and it passes nothing meanwhile, so no entry is left out.
    async fn release(
        &mut self,
        document: &DocumentKey,
        discard: bool,
    ) -> Result<Result<()>, Interrupt> {
        let inner = self.inner;
        let Some(mut from) = inner.progress.parked_from(document) else {
            let message = format!("{document} is not parked");
            return Ok(Err(Error::new(ErrorKind::NotFound, message)));
        };
        let given_up = if discard {
            let key = inner.record_key(document);
            let read = inner.backend.read_record(DEAD_LETTER, &key);
            match self.guarded(read).await? {
                Ok(record) => match record.as_ref().map(DeadLetter::from_record).transpose() {
                    Ok(letter) => letter.map(|letter| (letter.version, letter.event)),
                    Err(error) => return Ok(Err(error)),
                },
                Err(error) => return Ok(Err(error)),
            }
        } else {
            None
        };
        let mut last = None;
        loop {
            let range = LogRange {
                key: document.clone(),
                from,
                to: Version::MAX,
                until: None,
                newest_first: false,
                // Bounds memory; entries may be large.
                limit: 32,
            };
            let entries = match self.guarded(inner.backend.read_log(&range)).await? {
                Ok(entries) => entries,
                Err(error) => return Ok(Err(error)),
            };
            let Some(end) = entries.last() else {
                break;
            };
            from = end.version.next();
            for entry in &entries {
                let given_up = given_up.filter(|(version, _)| *version == entry.version);
                if let Err(letter) = self.republish(entry, given_up.map(|(_, id)| id)).await? {
                    let message = format!("event {} of {document} failed again", letter.event_type);
                    self.record(&letter).await?;
                    if let Some(last) = last {
                        inner.progress.confirmed(document, last);
                    }
                    return Ok(Err(Error::new(ErrorKind::DeadLettered, message)));
                }
                last = Some(entry.version);
            }
        }
        self.write(DeadLetter::forget(inner.backend.store_id(), document))
            .await?;
        inner.progress.unpark(document);
        inner.meter.parked(inner.progress.parked_documents());
        if let Some(last) = last {
            inner.progress.confirmed(document, last);
        }
        Ok(Ok(()))
    }

    async fn republish(
        &mut self,
        entry: &LogEntry,
        without: Option<EventId>,
    ) -> Result<Result<(), DeadLetter>, Interrupt> {
        let mut events = match entry.to_events() {
            Ok(events) => events,
            // None of its events can be had, so giving up the one gives up all.
            Err(_) if without.is_some() => return Ok(Ok(())),
            Err(error) => return Ok(Err(self.unreadable(entry, &error))),
        };
        events.retain(|event| Some(event.id()) != without);
        let mut batch = Outgoing::new(self.inner.buses.len());
        let step = Step {
            version: Some((entry.key.clone(), entry.version)),
            cursor: None,
            at: None,
        };
        batch.add(step, events);
        self.push(&mut batch).await
    }
}

fn with_causes(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
