//! The thread on which everything runs that talks to the server.
//!
//! A commit is three messages and three answers. The driver hands each through several tasks of its own
//! (choosing a server, lending a connection, writing, reading), and where these are spread over threads
//! each step wakes one up, which costs more than the step. On one thread they follow each other. Commands
//! are put together here as well; decoding and encoding documents stays with the callers.

use std::io;

use tokio::runtime::{Builder, Handle, Runtime};

use crate::error::{Error, ErrorKind, Result};

/// Ends with its owner; what still runs on it is dropped then.
#[derive(Debug)]
pub(super) struct IoThread(Option<Runtime>);

impl IoThread {
    pub(super) fn start() -> Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("nodestorage-io")
            .enable_all()
            .build()
            .map_err(|e: io::Error| {
                Error::new(
                    ErrorKind::Unavailable,
                    "the thread for the server did not start",
                )
                .with_source(e)
            })?;
        Ok(Self(Some(runtime)))
    }

    pub(super) fn handle(&self) -> Option<&Handle> {
        self.0.as_ref().map(Runtime::handle)
    }
}

impl Drop for IoThread {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // Not waiting, which is forbidden in asynchronous code, where backends end.
            runtime.shutdown_background();
        }
    }
}
