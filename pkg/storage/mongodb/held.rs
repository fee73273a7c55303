//! A session in the hands of one commit.

use std::sync::Arc;

use ::mongodb::ClientSession;

use super::failure::Failure;
use super::pool::Ended;
use super::sessions::Sessions;

pub(super) struct Held {
    sessions: Arc<Sessions>,
    /// `None` once it was given back.
    session: Option<ClientSession>,
}

impl Held {
    pub(super) fn new(sessions: Arc<Sessions>, session: ClientSession) -> Self {
        Self {
            sessions,
            session: Some(session),
        }
    }

    pub(super) fn session(&mut self) -> Result<&mut ClientSession, Failure> {
        let session = self.session.as_mut();
        session.ok_or_else(|| Failure::reply("the transaction is over"))
    }

    /// Its transaction is over, and the driver knows.
    pub(super) fn give_back(mut self) {
        if let Some(session) = self.session.take() {
            self.sessions.rest(session);
        }
    }

    /// Its transaction was aborted behind the driver's back.
    pub(super) fn give_back_aborted(mut self) {
        if let Some(session) = self.session.take() {
            self.sessions.leave(Ended::Aborted(session));
        }
    }

    /// Ends the session and whatever it has open. If the server does not answer, that goes on in the
    /// background as soon as this is dropped.
    pub(super) async fn kill(&mut self) -> Result<(), Failure> {
        match &self.session {
            Some(session) => self.sessions.kill(session).await,
            None => Ok(()),
        }
    }

    /// Drops a session that was killed.
    pub(super) fn forget(mut self) {
        if let Some(session) = self.session.take() {
            self.sessions.forget(&session);
        }
    }
}

impl Drop for Held {
    /// Dropped in the middle, by a deadline or a cancelled caller, a transaction may be open on the server
    /// without the driver knowing, if its first statement was under way. Killing the session frees the
    /// documents at once instead of after a minute.
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            self.sessions.leave(Ended::Unknown(session));
        }
        self.sessions.is_returned();
    }
}
