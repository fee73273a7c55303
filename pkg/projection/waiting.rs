//! Waiting for the views to have what was committed.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use super::build::Build;
use super::handled::Answer;
use super::shared::Shared;
use super::state::ProjectionState;
use crate::document::{DocumentKey, Version};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::backend::Position;

/// How often the checkpoint of another process is looked at: a few small reads while somebody waits.
const POLL: Duration = Duration::from_millis(50);

pub(super) async fn wait_for(
    shared: &Shared,
    document: &DocumentKey,
    version: Version,
    within: Duration,
) -> Result<()> {
    let late = || {
        let name = &shared.name;
        format!("projection {name} does not have version {version} of {document} after {within:?}")
    };
    let asked = Asked {
        document: Some((document, version)),
        // Most answers come from what was handled a moment ago; the end of the log costs a question.
        committed: None,
    };
    before(within, wait(shared, asked), late).await
}

pub(super) async fn caught_up(shared: &Shared, within: Duration) -> Result<()> {
    let late = || format!("projection {} is behind after {within:?}", shared.name);
    let asked = Asked {
        document: None,
        committed: None,
    };
    before(within, wait(shared, asked), late).await
}

async fn before(
    within: Duration,
    waiting: impl Future<Output = Result<()>>,
    late: impl Fn() -> String,
) -> Result<()> {
    // An hour is as good as any longer time, and a point that far is always to be had.
    let deadline = Instant::now() + within.min(Duration::from_secs(3_600));
    match timeout_at(deadline, waiting).await {
        Ok(result) => result,
        Err(_) => Err(Error::new(ErrorKind::Timeout, late())),
    }
}

struct Asked<'a> {
    document: Option<(&'a DocumentKey, Version)>,
    /// A position not before what is waited for.
    committed: Option<Position>,
}

impl Asked<'_> {
    fn here(&self, shared: &Shared, build: Build) -> Answer {
        match self.document {
            Some((document, version)) => {
                let handled = &shared.handled;
                handled.ask(build, document, version, self.committed)
            }
            None => match (shared.handled.position(build), self.committed) {
                (None, _) => Answer::Elsewhere,
                (Some(reached), Some(committed)) if reached >= committed => Answer::Handled,
                _ => Answer::NotYet,
            },
        }
    }

    /// Whether what is waited for is in the log, so that there is a position not before it.
    async fn is_committed(&self, shared: &Shared) -> Result<bool> {
        let Some((document, version)) = self.document else {
            return Ok(true);
        };
        let key = std::slice::from_ref(document);
        let loaded = shared.backend.load(key).await?;
        let head = loaded.first().and_then(|loaded| loaded.head);
        Ok(version == Version::NONE || head.is_some_and(|head| head.version >= version))
    }

    /// As another process left it.
    async fn elsewhere(&self, shared: &Shared, build: Build) -> Result<Answer> {
        let checkpoint = shared.checkpoint(build).await?;
        let reached = checkpoint.map_or(Position::START, |cursor| cursor.position);
        if self.committed.is_none_or(|committed| reached < committed) {
            return Ok(Answer::NotYet);
        }
        if let Some((document, version)) = self.document {
            let letter = shared.letters(build).of(document).await?;
            if letter.is_some_and(|letter| letter.version <= version) {
                return Ok(Answer::Parked);
            }
        }
        Ok(Answer::Handled)
    }
}

async fn wait(shared: &Shared, mut asked: Asked<'_>) -> Result<()> {
    let mut changes = shared.handled.changes();
    let mut states = shared.state.subscribe();
    loop {
        changes.borrow_and_update();
        let live = shared.current().await?.live;
        let mut answer = live.map_or(Answer::Elsewhere, |live| asked.here(shared, live));
        let is_open = matches!(answer, Answer::NotYet | Answer::Elsewhere);
        if is_open && asked.committed.is_none() && asked.is_committed(shared).await? {
            asked.committed = Some(shared.backend.position().await?);
            continue;
        }
        let is_elsewhere = answer == Answer::Elsewhere;
        if is_elsewhere && let Some(live) = live {
            answer = asked.elsewhere(shared, live).await?;
        }
        match answer {
            Answer::Handled => return Ok(()),
            Answer::Parked => return Err(parked(&asked)),
            Answer::NotYet | Answer::Elsewhere => {}
        }
        if let ProjectionState::Stopped(error) = &*states.borrow_and_update() {
            let what = format!("projection {} has stopped: {error}", shared.name);
            return Err(Error::new(ErrorKind::Closed, what));
        }
        tokio::select! {
            _ = changes.changed() => {}
            _ = states.changed() => {}
            // What is not committed yet may be at any time, by anybody.
            () = sleep(POLL), if is_elsewhere || asked.committed.is_none() => {}
        }
    }
}

fn parked(asked: &Asked<'_>) -> Error {
    let what = match asked.document {
        Some((document, version)) => {
            format!("version {version} of {document} waits behind a dead letter")
        }
        None => "events wait behind dead letters".to_owned(),
    };
    Error::new(ErrorKind::DeadLettered, what)
}
