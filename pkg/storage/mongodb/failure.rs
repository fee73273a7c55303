//! Driver errors, translated at the edge.
//!
//! The server's own messages quote keys and documents (`dup key: { email: "…" }`), so they stop here:
//! what survives is the code, its name and the labels, or the text of a connection error.

use std::fmt;

use bson::RawDocument;

use crate::error::{Error, ErrorKind};

pub(super) const NO_SUCH_TRANSACTION: i32 = 251;
pub(super) const WRITE_CONFLICT: i32 = 112;
pub(super) const DUPLICATE_KEY: i32 = 11000;
pub(super) const VALIDATION: i32 = 121;
pub(super) const NAMESPACE_EXISTS: i32 = 48;
const LOCK_TIMEOUT: i32 = 24;
const SNAPSHOT_UNAVAILABLE: i32 = 246;
const SNAPSHOT_TOO_OLD: i32 = 239;

/// What went wrong below, without anything that belongs to a document or a login.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    cause: Cause,
    labels: Vec<String>,
    /// The reply said as well that the write concern was not reached.
    unconfirmed: bool,
}

#[derive(Debug, Clone)]
enum Cause {
    /// The server refused the command.
    Server { code: i32, name: String },
    /// The server did what was asked, but could not confirm it as asked.
    WriteConcern { code: i32, name: String },
    /// No connection, or it broke.
    Network(String),
    /// No server to be had within the time allowed; the text names the addresses.
    Selection(String),
    /// The login was refused.
    Login,
    /// The server and this driver have no protocol in common.
    Incompatible(String),
    /// The client was shut down.
    Closed,
    /// The driver did not accept what it was given.
    Argument(String),
    /// A reply that does not read.
    Reply(String),
}

impl Failure {
    pub(super) fn server(code: i32, name: &str) -> Self {
        Self::new(Cause::Server {
            code,
            name: name.to_owned(),
        })
    }

    pub(super) fn write_concern(code: i32, name: &str) -> Self {
        Self::new(Cause::WriteConcern {
            code,
            name: name.to_owned(),
        })
    }

    pub(super) fn reply(what: impl fmt::Display) -> Self {
        Self::new(Cause::Reply(what.to_string()))
    }

    /// The server did not answer in the time that it was given.
    pub(super) fn silence(what: &str) -> Self {
        Self::new(Cause::Network(what.to_owned()))
    }

    fn new(cause: Cause) -> Self {
        Self {
            cause,
            labels: Vec::new(),
            unconfirmed: false,
        }
    }

    /// The code of a command that the server refused.
    pub(super) fn code(&self) -> Option<i32> {
        match &self.cause {
            Cause::Server { code, .. } => Some(*code),
            _ => None,
        }
    }

    pub(super) fn has_label(&self, label: &str) -> bool {
        self.labels.iter().any(|l| l == label)
    }

    /// Whether a `NoSuchTransaction` is final: a primary that cannot confirm it with its majority may
    /// be one whose successor has committed the transaction.
    pub(super) fn is_confirmed(&self) -> bool {
        !self.unconfirmed
    }

    /// Whether the server says that somebody else was in the way.
    pub(super) fn is_conflict(&self) -> bool {
        matches!(
            self.code(),
            Some(WRITE_CONFLICT | LOCK_TIMEOUT | SNAPSHOT_UNAVAILABLE | NO_SUCH_TRANSACTION)
        )
    }

    /// Whether somebody holds what was to be written, in a transaction that is still open perhaps.
    pub(super) fn is_blocked(&self) -> bool {
        matches!(self.code(), Some(WRITE_CONFLICT | LOCK_TIMEOUT))
    }

    /// Whether a snapshot read has outlived its snapshot.
    pub(super) fn is_snapshot_lost(&self) -> bool {
        matches!(self.code(), Some(SNAPSHOT_TOO_OLD | SNAPSHOT_UNAVAILABLE))
    }

    /// Whether what a change stream was to continue from is no longer in the oplog, or never was.
    pub(super) fn is_history_lost(&self) -> bool {
        // CappedPositionLost, InvalidResumeToken, ChangeStreamFatalError, ChangeStreamHistoryLost.
        matches!(self.code(), Some(136 | 260 | 280 | 286))
    }

    /// Whether the server has closed a cursor that can be opened again.
    pub(super) fn is_cursor_lost(&self) -> bool {
        // CursorNotFound, CursorKilled.
        matches!(self.code(), Some(43 | 237)) || self.has_label("ResumableChangeStreamError")
    }

    /// Whether the server refused the command for what it says.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self.cause, Cause::Server { .. }) && self.kind() == ErrorKind::Unsupported
    }

    /// Whether a command that changes nothing when repeated is worth repeating at once.
    pub(super) fn is_worth_repeating(&self) -> bool {
        matches!(self.cause, Cause::Network(_))
            || self.code().is_some_and(is_state_change)
            || self.has_label("RetryableWriteError")
    }

    pub(super) fn kind(&self) -> ErrorKind {
        match &self.cause {
            Cause::Network(_) | Cause::Selection(_) | Cause::WriteConcern { .. } => {
                ErrorKind::Unavailable
            }
            Cause::Login | Cause::Argument(_) => ErrorKind::InvalidConfig,
            Cause::Incompatible(_) => ErrorKind::Unsupported,
            Cause::Closed => ErrorKind::Closed,
            Cause::Reply(_) => ErrorKind::Corrupt,
            Cause::Server { code, .. } => kind_of(*code, || {
                self.has_label("TransientTransactionError")
                    || self.has_label("RetryableWriteError")
                    || self.has_label("ResumableChangeStreamError")
            }),
        }
    }

    /// The error for callers; `what` says what was being done to what.
    pub(super) fn into_error(self, what: impl fmt::Display) -> Error {
        Error::new(self.kind(), format!("{what}: {self}")).with_source(self)
    }
}

/// Codes of a server that is not, or no longer, the primary, or is going down.
fn is_state_change(code: i32) -> bool {
    matches!(
        code,
        6 | 7 | 89 | 91 | 189 | 9001 | 10058 | 10107 | 11600 | 11602 | 13435 | 13436
    )
}

/// What a caller can do about a server error. Source: MongoDB's `error_codes.yml`.
fn kind_of(code: i32, is_transient: impl FnOnce() -> bool) -> ErrorKind {
    match code {
        WRITE_CONFLICT | LOCK_TIMEOUT | SNAPSHOT_UNAVAILABLE | NO_SUCH_TRANSACTION
        | SNAPSHOT_TOO_OLD => ErrorKind::Unavailable,
        // Majority reads not available yet, time limits inside the server, interruption, overload.
        134 | 202 | 262 | 290 | 11601 | 462 => ErrorKind::Unavailable,
        50 => ErrorKind::Timeout,
        8 | 13 | 18 | 8000 => ErrorKind::InvalidConfig,
        26 => ErrorKind::NotFound,
        DUPLICATE_KEY | 11001 | 12582 | VALIDATION => ErrorKind::Constraint,
        10334 | 17419 | 17420 => ErrorKind::TooLarge,
        14031 => ErrorKind::StorageFull,
        code if is_state_change(code) => ErrorKind::Unavailable,
        _ if is_transient() => ErrorKind::Unavailable,
        _ => ErrorKind::Unsupported,
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cause {
            Cause::Server { code, name } if name.is_empty() => write!(f, "server error {code}"),
            Cause::Server { code, name } => write!(f, "server error {code} ({name})"),
            Cause::WriteConcern { code, name } => {
                write!(
                    f,
                    "write not confirmed by a majority, server error {code} ({name})"
                )
            }
            Cause::Network(text) => write!(f, "connection failed: {text}"),
            Cause::Selection(text) => write!(f, "no primary found: {text}"),
            Cause::Login => f.write_str("authentication failed"),
            Cause::Incompatible(text) => write!(f, "incompatible server: {text}"),
            Cause::Closed => f.write_str("closed"),
            Cause::Argument(text) | Cause::Reply(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for Failure {}

impl From<::mongodb::error::Error> for Failure {
    fn from(error: ::mongodb::error::Error) -> Self {
        use ::mongodb::error::{ErrorKind as Driver, WriteFailure};

        let unconfirmed = error
            .server_response()
            .is_some_and(|reply| has_field(reply, "writeConcernError"));
        let labels = error.labels().iter().cloned().collect();
        let cause = match *error.kind {
            Driver::Command(e) => Cause::Server {
                code: e.code,
                name: e.code_name,
            },
            Driver::Write(WriteFailure::WriteConcernError(e)) => Cause::WriteConcern {
                code: e.code,
                name: e.code_name,
            },
            Driver::Write(WriteFailure::WriteError(e)) => Cause::Server {
                code: e.code,
                name: e.code_name.unwrap_or_default(),
            },
            Driver::Io(e) => Cause::Network(e.to_string()),
            Driver::ConnectionPoolCleared { .. } => {
                Cause::Network("the connection pool was cleared after a failure".to_owned())
            }
            Driver::ServerSelection { message, .. } => Cause::Selection(message),
            Driver::DnsResolve { message, .. } => Cause::Selection(message),
            Driver::Authentication { .. } => Cause::Login,
            Driver::IncompatibleServer { message, .. } => Cause::Incompatible(message),
            Driver::SessionsNotSupported => {
                Cause::Incompatible("the server has no sessions".to_owned())
            }
            Driver::Shutdown => Cause::Closed,
            Driver::InvalidTlsConfig { message, .. }
            | Driver::InvalidArgument { message, .. }
            | Driver::Transaction { message, .. } => Cause::Argument(message),
            _ => Cause::Reply("the reply does not read".to_owned()),
        };
        Self {
            cause,
            labels,
            unconfirmed,
        }
    }
}

fn has_field(document: &RawDocument, field: &str) -> bool {
    document.get(field).is_ok_and(|value| value.is_some())
}
