//! What the client and the server report, in the terms of the crate.

use async_nats::RequestErrorKind;
use async_nats::jetstream::context::{PublishError, PublishErrorKind, RequestError};
use async_nats::jetstream::{self, ErrorCode};

use crate::error::{Error, ErrorKind};

/// The store did not take a message: above all "maximum bytes exceeded".
pub(super) const STREAM_FULL: ErrorCode = ErrorCode::STREAM_STORE_FAILED;

/// An answer of the server that refuses something.
pub(super) fn refused(what: &str, error: jetstream::Error) -> Error {
    let kind = match error.error_code() {
        ErrorCode::STREAM_NOT_FOUND
        | ErrorCode::CONSUMER_NOT_FOUND
        | ErrorCode::NO_MESSAGE_FOUND => ErrorKind::NotFound,
        // Everything that has to do with resources, leaders and replicas; also a server that has not
        // got its streams up after a start.
        _ if error.code() >= 500 => ErrorKind::Unavailable,
        _ => ErrorKind::InvalidConfig,
    };
    Error::new(kind, format!("nats: {what} was refused")).with_source(error)
}

/// A request that got no answer to speak of.
pub(super) fn unanswered(what: &str, error: RequestError) -> Error {
    let kind = match error.kind() {
        async_nats::jetstream::context::RequestErrorKind::TimedOut => ErrorKind::Timeout,
        _ => ErrorKind::Unavailable,
    };
    Error::new(kind, format!("nats: {what} got no answer")).with_source(error)
}

/// The same for a plain request.
pub(super) fn no_reply(what: &str, error: async_nats::RequestError) -> Error {
    let kind = match error.kind() {
        RequestErrorKind::TimedOut => ErrorKind::Timeout,
        _ => ErrorKind::Unavailable,
    };
    Error::new(kind, format!("nats: {what} got no answer")).with_source(error)
}

/// A connection that takes nothing.
pub(super) fn unsent(what: &str, error: impl Into<crate::error::BoxError>) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        format!("nats: {what} could not be sent"),
    )
    .with_source(error)
}

/// The server's own code, if the error comes from there.
pub(super) fn code(error: &Error) -> Option<ErrorCode> {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if let Some(refusal) = error.downcast_ref::<jetstream::Error>() {
            return Some(refusal.error_code());
        }
        cause = error.source();
    }
    None
}

/// Whether a message found no room.
pub(super) fn is_full(error: &Error) -> bool {
    code(error) == Some(STREAM_FULL)
}

/// A message that was not stored, or of which nobody knows.
pub(super) fn unpublished(what: &str, error: PublishError) -> Error {
    let kind = match error.kind() {
        PublishErrorKind::TimedOut => ErrorKind::Timeout,
        PublishErrorKind::MaxPayloadExceeded => ErrorKind::TooLarge,
        _ => ErrorKind::Unavailable,
    };
    Error::new(kind, format!("nats: {what} was not stored")).with_source(error)
}
