//! The sessions of a process: resting, in use, and to be ended.

use std::collections::{HashSet, VecDeque};
use std::time::Instant;

use ::mongodb::ClientSession;
use bson::Bson;
use tokio::task::JoinHandle;
use uuid::Uuid;

/// What a process has of sessions.
#[derive(Default)]
pub(super) struct Pool {
    /// The one that rested longest comes first: the server forgets sessions after 30 minutes.
    pub(super) idle: VecDeque<ClientSession>,
    /// All that may have a transaction open.
    pub(super) ids: HashSet<Uuid>,
    pub(super) in_use: usize,
    /// When the last registration was sent that has reached the server.
    pub(super) registered: Option<Instant>,
    pub(super) last_used: Option<Instant>,
    pub(super) ended: Vec<Ended>,
    pub(super) keeper: Option<JoinHandle<()>>,
}

/// A session that the keeper looks after.
pub(super) enum Ended {
    /// Its transaction is aborted, which the driver does not know yet.
    Aborted(ClientSession),
    /// Its transaction may be open.
    Unknown(ClientSession),
}

impl Pool {
    /// Whether a transaction may be open.
    pub(super) fn is_busy(&self) -> bool {
        self.in_use > 0 || !self.ended.is_empty()
    }

    /// Hands out all that rests, for good.
    pub(super) fn empty(&mut self) -> VecDeque<ClientSession> {
        self.registered = None;
        self.ids.clear();
        std::mem::take(&mut self.idle)
    }
}

pub(super) fn id_of(session: &ClientSession) -> Option<Uuid> {
    match session.id().get("id") {
        Some(Bson::Binary(id)) => Uuid::from_slice(&id.bytes).ok(),
        _ => None,
    }
}
