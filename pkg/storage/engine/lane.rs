//! One document's updates within this process, in the order in which they build on each other.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::super::CollectionSpec;
use super::super::base::Base;
use super::Tick;
use crate::error::Result;

/// The newest state of a document that this process knows.
#[derive(Debug, Clone)]
pub(super) struct Tip {
    pub(super) base: Base,
    /// When the read or the commit began that showed this state as committed; `None` while it is the
    /// result of updates whose commit is still to come.
    pub(super) seen: Option<Tick>,
    /// Whether it came out of the cache and no commit has confirmed it since.
    pub(super) cached: bool,
}

/// A state as a call gets it.
#[derive(Debug, Clone)]
pub(crate) struct View {
    pub(crate) base: Base,
    /// As in [`Tip`].
    pub(crate) seen: Option<Tick>,
    /// The lane's generation that shows this state; `None` for a state that was read while the lane has
    /// moved on: what is decided on it can be confirmed, but not committed.
    pub(crate) generation: Option<u64>,
}

/// A call that waits for a read.
pub(super) struct Reader {
    /// The read must have begun after this.
    pub(super) after: Tick,
    pub(super) answer: oneshot::Sender<Result<View>>,
}

pub(super) struct Lane {
    pub(super) spec: Arc<CollectionSpec>,
    /// Another one with every state that a call may have run on; never used twice.
    pub(super) generation: u64,
    pub(super) tip: Option<Tip>,
    /// What waits for a batch, each built on the one before.
    pub(super) queue: VecDeque<u64>,
    /// What the batch under way makes of the document.
    pub(super) flying: Option<Base>,
    /// When the last proposal was queued or settled: a read that began before may be behind.
    pub(super) moved: Tick,
    /// Whether it stands in the line of lanes for the next batches.
    pub(super) ready: bool,
    /// Calls that may still come back to it.
    pub(super) users: usize,
    /// How many of its updates may share one write. Goes down when such a write was refused, so that
    /// the one to blame is found.
    pub(super) joined: usize,
    pub(super) readers: Vec<Reader>,
    /// Whether it stands in the line of reads.
    pub(super) read_queued: bool,
    /// When the read under way began.
    pub(super) reading: Option<Tick>,
    /// Calls that wait until nothing is queued or under way.
    pub(super) idlers: Vec<oneshot::Sender<()>>,
}

impl Lane {
    pub(super) fn new(spec: Arc<CollectionSpec>, generation: u64, joined: usize) -> Self {
        Self {
            spec,
            generation,
            tip: None,
            queue: VecDeque::new(),
            flying: None,
            moved: Tick::default(),
            ready: false,
            users: 0,
            joined,
            readers: Vec::new(),
            read_queued: false,
            reading: None,
            idlers: Vec::new(),
        }
    }

    pub(super) fn is_busy(&self) -> bool {
        self.flying.is_some()
    }

    pub(super) fn is_idle(&self) -> bool {
        self.queue.is_empty() && !self.is_busy()
    }

    /// Nobody would miss it.
    pub(super) fn is_unused(&self) -> bool {
        self.users == 0 && self.is_idle() && self.readers.is_empty()
    }

    /// What the lane shows of its newest state.
    pub(super) fn view(&self) -> Option<View> {
        self.tip.as_ref().map(|tip| View {
            base: tip.base.clone(),
            seen: tip.seen,
            generation: Some(self.generation),
        })
    }
}
