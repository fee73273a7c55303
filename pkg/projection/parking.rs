//! Events that fail: tried again, then put aside with their document, and replayed when somebody asks.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::time::sleep;

use super::definition::Projection;
use super::fold::{Folder, Work};
use super::leading::{Leading, Patience, Stop};
use super::letters::ProjectionDeadLetter;
use super::shared::Request;
use crate::document::{DocumentId, DocumentKey, Version};
use crate::error::{BoxError, Error, ErrorKind, Result};
use crate::history::follow::Backoff;
use crate::storage::backend::LogRange;

/// Versions that are replayed at once.
const PAGE: usize = 128;

/// Keys that are stored after each event; those beyond begin anew.
const MOST_CAREFUL: usize = 10_000;

impl<P: Projection> Leading<'_, P> {
    /// Folds one event, however often it takes; false if it was given up.
    pub(super) async fn fold_one(&mut self, mut work: Work) -> Result<bool, Stop> {
        let options = &self.runner.shared.options;
        let mut pauses = Backoff::new(options.retry_base, options.retry_max);
        let most = options.attempts;
        let mut attempts = 0;
        loop {
            let folded = self.runner.folder().apply(&work, &mut self.cache);
            let folded = match folded {
                Ok(()) if self.careful.is_empty() => return Ok(true),
                Ok(()) => self.store_careful_views(&work).await?,
                Err(error) => Err(error),
            };
            let Err(error) = folded else {
                return Ok(true);
            };
            attempts += 1;
            if attempts >= most {
                self.give_up(&work, &error, attempts).await?;
                return Ok(false);
            }
            tracing::debug!(document = %work.document, version = %work.version, attempts, "event fails");
            let pause = sleep(pauses.next_delay());
            self.keep(pause, Patience::None).await?;
            self.runner.folder().prepare_again(&mut work);
            self.load(work.keys().iter()).await?;
        }
    }

    async fn store_careful_views(&mut self, work: &Work) -> Result<Result<(), BoxError>, Stop> {
        let careful: Vec<DocumentId> = work
            .keys()
            .iter()
            .filter(|key| self.careful.contains(*key))
            .cloned()
            .collect();
        for key in careful {
            if let Err(error) = self.store_carefully(&key).await? {
                // As it was before the event: everything before was stored.
                self.cache.drop_view(&key);
                return Ok(Err(error.into()));
            }
        }
        if self.careful.len() > MOST_CAREFUL {
            self.careful.clear();
        }
        Ok(Ok(()))
    }

    /// Puts an event into the dead letters and its document aside.
    async fn give_up(&mut self, work: &Work, error: &BoxError, attempts: u32) -> Result<(), Stop> {
        // The later events of a replayed document lie before the checkpoint: what was folded of them must
        // not be lost with the old letter.
        if self.parked.contains_key(&work.document) {
            self.store_views(Patience::Drain).await?;
        }
        let letter = ProjectionDeadLetter {
            build: self.runner.build,
            document: work.document.clone(),
            version: work.version,
            index: work.index,
            event: work.id,
            event_type: work.event_type.clone(),
            error: error.to_string(),
            attempts,
            at: self.runner.shared.options.clock.now(),
        };
        tracing::warn!(
            projection = %self.runner.shared.name,
            document = %letter.document,
            version = %letter.version,
            event_type = %letter.event_type,
            "event goes to the dead letters"
        );
        let letters = self.letters.clone();
        self.persist(|| letters.write(&letter)).await?;
        let (document, from) = (work.document.clone(), work.version);
        self.parked.insert(document.clone(), from);
        let handled = &self.runner.shared.handled;
        handled.park(self.runner.build, document, from);
        Ok(())
    }

    /// Replays a parked document, if it is parked.
    pub(super) async fn answer(&mut self, request: Request) -> Result<(), Stop> {
        let result = match self.replay(&request).await {
            Ok(result) => result,
            Err(Stop::Over) => {
                self.redo = Some(request);
                return Err(Stop::Over);
            }
            Err(stop) => {
                let what = "the projection was stopped; the document is parked still";
                let _ = request
                    .answer
                    .send(Err(Error::new(ErrorKind::Closed, what)));
                return Err(stop);
            }
        };
        self.at_work();
        // Whoever asked may be gone by now.
        let _ = request.answer.send(result);
        Ok(())
    }

    async fn replay(&mut self, request: &Request) -> Result<Result<()>, Stop> {
        let document = &request.document;
        let Some(from) = self.parked.get(document).copied() else {
            let what = format!("{document} is not parked");
            return Ok(Err(Error::new(ErrorKind::NotFound, what)));
        };
        let letters = self.letters.clone();
        let letter = self.persist(|| letters.of(document)).await?;
        let given_up = letter
            .filter(|_| request.discard)
            .map(|letter| (letter.version, letter.index));
        let mut from = from;
        loop {
            let works = match self.page(document, from).await? {
                Ok((works, Some(last))) => {
                    from = last.next();
                    works
                }
                Ok((_, None)) => break,
                Err(error) => return Ok(Err(error)),
            };
            for work in works {
                self.load(work.keys().iter()).await?;
                if given_up == Some((work.version, work.index)) {
                    Folder::<P>::skip(&work, &mut self.cache);
                    continue;
                }
                let (version, index) = (work.version, work.index);
                if self.fold_one(work).await? {
                    continue;
                }
                let what = format!("event {index} of {document} at version {version} failed again");
                return Ok(Err(Error::new(ErrorKind::DeadLettered, what)));
            }
        }
        self.store_views(Patience::Drain).await?;
        let letters = self.letters.clone();
        self.persist(|| letters.remove(document)).await?;
        self.parked.remove(document);
        let handled = &self.runner.shared.handled;
        handled.unpark(self.runner.build, document);
        Ok(Ok(()))
    }

    /// The events of a page of a document's log, and its last version.
    #[allow(clippy::type_complexity, reason = "an answer within an answer")]
    async fn page(
        &mut self,
        document: &DocumentKey,
        from: Version,
    ) -> Result<Result<(VecDeque<Work>, Option<Version>)>, Stop> {
        let backend = Arc::clone(&self.runner.shared.backend);
        let range = LogRange {
            key: document.clone(),
            from,
            to: Version::MAX,
            until: None,
            newest_first: false,
            limit: PAGE,
        };
        let entries = match self.keep(backend.read_log(&range), Patience::None).await? {
            Ok(entries) => entries,
            Err(error) => return Ok(Err(error)),
        };
        let mut works = Vec::new();
        for entry in &entries {
            self.runner.folder().works(entry, &mut works);
        }
        let last = entries.last().map(|entry| entry.version);
        Ok(Ok((works.into(), last)))
    }
}
