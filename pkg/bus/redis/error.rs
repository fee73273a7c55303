use redis::{RedisError, ServerErrorKind};

use crate::error::{Error, ErrorKind};

/// An error of the driver in the crate's own terms.
///
/// Only its category and code go into the message, and only errors of input and output are kept as
/// source: a server's own text may quote the arguments of a command, which are payloads.
pub(super) fn translated(doing: &str, error: &RedisError) -> Error {
    let kind = kind(error);
    let what = error.code().unwrap_or_else(|| error.category()).to_owned();
    let translated = Error::new(kind, format!("redis bus cannot {doing}: {what}"));
    if error.is_io_error() {
        return translated.with_source(error.clone());
    }
    translated
}

fn kind(error: &RedisError) -> ErrorKind {
    use redis::ErrorKind as Driver;
    match error.kind() {
        Driver::AuthenticationFailed
        | Driver::InvalidClientConfig
        | Driver::RESP3NotSupported
        | Driver::Server(ServerErrorKind::NoPerm) => return ErrorKind::InvalidConfig,
        _ => {}
    }
    match error.code() {
        Some("NOGROUP") => ErrorKind::NotFound,
        Some("NOAUTH" | "WRONGPASS") => ErrorKind::InvalidConfig,
        // Something of another program lies under a key of ours.
        Some("WRONGTYPE") => ErrorKind::InvalidConfig,
        // Whatever else a server says it may not say the next time: it loads, fails over, is full.
        _ => ErrorKind::Unavailable,
    }
}
