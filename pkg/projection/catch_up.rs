//! Whether the log has been caught up with.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::definition::Projection;
use super::leading::{Leading, Patience, Stop};
use crate::storage::backend::Position;

/// Whoever reaches what was the end of the log so long ago has caught up with it. While somebody writes
/// without a pause, the very end is never reached.
const RECENT: Duration = Duration::from_secs(2);

/// So many full batches in a row, and the log is ahead again.
const BEHIND: u32 = 32;

#[derive(Debug, Default)]
pub(super) struct CatchUp {
    done: bool,
    /// Whether it ever was.
    was_done: bool,
    /// An end of the log, and when it was that.
    goal: Option<(Position, Instant)>,
    full: u32,
}

impl CatchUp {
    pub(super) fn is_done(&self) -> bool {
        self.done
    }

    pub(super) fn was_done(&self) -> bool {
        self.was_done
    }

    /// A batch is folded, up to this position.
    pub(super) async fn passed<P: Projection>(
        &mut self,
        leading: &mut Leading<'_, P>,
        position: Position,
        idle: bool,
        is_full: bool,
    ) -> Result<(), Stop> {
        self.full = if is_full { self.full + 1 } else { 0 };
        if idle {
            self.finish();
            return Ok(());
        }
        if self.done && self.full >= BEHIND {
            self.done = false;
            self.goal = None;
        }
        if self.done {
            return Ok(());
        }
        match self.goal {
            Some((goal, _)) if position < goal => {}
            Some((_, at)) if at.elapsed() <= RECENT => self.finish(),
            _ => self.aim(leading).await?,
        }
        Ok(())
    }

    /// Asks where the log ends now.
    async fn aim<P: Projection>(&mut self, leading: &mut Leading<'_, P>) -> Result<(), Stop> {
        let backend = Arc::clone(&leading.runner.shared.backend);
        let asked_at = Instant::now();
        let end = leading.keep(backend.position(), Patience::None).await?;
        // A store that cannot tell says at least when there is nothing more.
        self.goal = end.ok().map(|end| (end, asked_at));
        Ok(())
    }

    /// The log is read anew.
    pub(super) fn restart(&mut self) {
        self.done = false;
        self.goal = None;
        self.full = 0;
    }

    fn finish(&mut self) {
        self.done = true;
        self.was_done = true;
    }
}
