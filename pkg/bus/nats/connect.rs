//! From a URL and options to a connection.

use std::str::FromStr;

use async_nats::{Client, ConnectOptions, ServerAddr};

use crate::error::{Error, ErrorKind, Result};

/// Connects; `url` may name several servers of a cluster, with commas between.
pub(super) async fn connect(url: &str, options: ConnectOptions) -> Result<Client> {
    let servers = servers(url)?;
    options.connect(servers).await.map_err(|error| {
        let kind = match error.kind() {
            async_nats::ConnectErrorKind::Authentication
            | async_nats::ConnectErrorKind::AuthorizationViolation
            | async_nats::ConnectErrorKind::ServerParse => ErrorKind::InvalidConfig,
            _ => ErrorKind::Unavailable,
        };
        // Neither the URL nor the client's message about it: both may hold credentials.
        Error::new(kind, format!("nats: no connection: {}", error.kind()))
    })
}

fn servers(url: &str) -> Result<Vec<ServerAddr>> {
    let parsed: std::result::Result<Vec<_>, _> = url
        .split(',')
        .map(str::trim)
        .filter(|server| !server.is_empty())
        .map(ServerAddr::from_str)
        .collect();
    match parsed {
        Ok(servers) if !servers.is_empty() => Ok(servers),
        // Without the reason, which may quote what is in the URL.
        _ => Err(Error::new(
            ErrorKind::InvalidConfig,
            "nats: the URL is not of the form nats://host:port or tls://host:port",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        assert_eq!(servers("nats://a:4222, tls://b:4443").unwrap().len(), 2);
        assert_eq!(servers("localhost:4222").unwrap().len(), 1);
        for wrong in ["", ",", "redis://user:secret@host", "nats://user:secret@host:port"] {
            let error = servers(wrong).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
            assert!(!format!("{error:?} {error}").contains("secret"), "{wrong}");
        }
    }
}
