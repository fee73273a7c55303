use std::error::Error as _;
use std::io;
use std::sync::Arc;

use redis::{Client, RedisError, ServerErrorKind};

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

/// A connection that did not come about. The message says to where, without user and password.
pub(super) fn unconnected(doing: &str, client: &Client, error: &RedisError) -> Error {
    let address = client.get_connection_info().addr();
    if let Some(reason) = no_tls(error) {
        let message = format!("redis bus cannot {doing}: no TLS with {address}: {reason}");
        return Error::new(ErrorKind::InvalidConfig, message).with_source(error.clone());
    }
    translated(&format!("{doing} at {address}"), error)
}

/// Why there is no TLS, if that is why: the certificate is not trusted, or the other side speaks something
/// else. A connection that broke meanwhile is another kind of error.
fn no_tls(error: &RedisError) -> Option<String> {
    // The driver shares what it got from below.
    type Shared = Arc<dyn std::error::Error + Send + Sync>;
    let cause = error.source()?.downcast_ref::<Shared>()?;
    let cause = cause.downcast_ref::<io::Error>()?;
    (cause.kind() == io::ErrorKind::InvalidData).then(|| cause.to_string())
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
