//! From a URL and options to a connection.

use std::error::Error as _;
use std::io;
use std::str::FromStr;

use async_nats::rustls::pki_types::CertificateDer;
use async_nats::rustls::pki_types::pem::PemObject;
use async_nats::rustls::{ClientConfig, RootCertStore};
use async_nats::{Client, ConnectError, ConnectErrorKind, ConnectOptions, ServerAddr};

use crate::bus::RootCertificates;
use crate::bus::root_certificates::unreadable;
use crate::error::{Error, ErrorKind, Result};

/// Connects; `url` may name several servers of a cluster, with commas between.
pub(super) async fn connect(
    url: &str,
    options: ConnectOptions,
    root: Option<&RootCertificates>,
) -> Result<Client> {
    let servers = servers(url)?;
    let options = match root {
        Some(root) => options.require_tls(true).tls_client_config(trusting(root)?),
        None => options,
    };
    let options = match servers.iter().find_map(credentials) {
        Some(Credentials::User(user, password)) => options.user_and_password(user, password),
        Some(Credentials::Token(token)) => options.token(token),
        None => options,
    };
    let addresses: Vec<_> = servers.iter().map(address).collect();
    let connected = options.connect(servers).await;
    connected.map_err(|error| unconnected(&addresses.join(", "), &error))
}

/// Trusts certificates of these authorities and of no others.
fn trusting(root: &RootCertificates) -> Result<ClientConfig> {
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(root.pem()) {
        let certificate = certificate.map_err(|_| unreadable("nats bus"))?;
        store.add(certificate).map_err(|_| unreadable("nats bus"))?;
    }
    Ok(ClientConfig::builder()
        .with_root_certificates(store)
        .with_no_client_auth())
}

/// Host and port, and not what stands before them.
fn address(server: &ServerAddr) -> String {
    format!("{}:{}", server.host(), server.port())
}

/// Neither the URL nor the client's message about it is shown: both may hold credentials.
fn unconnected(addresses: &str, error: &ConnectError) -> Error {
    if let Some(reason) = no_tls(error) {
        return Error::new(
            ErrorKind::InvalidConfig,
            format!("nats: no TLS with {addresses}: {reason}"),
        );
    }
    let kind = match error.kind() {
        ConnectErrorKind::Authentication
        | ConnectErrorKind::AuthorizationViolation
        | ConnectErrorKind::ServerParse => ErrorKind::InvalidConfig,
        _ => ErrorKind::Unavailable,
    };
    Error::new(
        kind,
        format!("nats: no connection to {addresses}: {}", error.kind()),
    )
}

/// Why there is no TLS, if that is why: the certificate is not trusted, or the other side speaks something
/// else. A connection that broke meanwhile is another kind of error.
fn no_tls(error: &ConnectError) -> Option<String> {
    let cause = error.source()?.downcast_ref::<io::Error>()?;
    (cause.kind() == io::ErrorKind::InvalidData).then(|| cause.to_string())
}

/// What stands before the `@` of a URL.
enum Credentials {
    User(String, String),
    Token(String),
}

/// The client does not look at them.
fn credentials(server: &ServerAddr) -> Option<Credentials> {
    let user = decoded(server.username()?);
    Some(match server.password() {
        Some(password) => Credentials::User(user, decoded(password)),
        None => Credentials::Token(user),
    })
}

/// Undoes the percent-encoding of a URL (RFC 3986, section 2.1). What is no encoding stays.
fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let encoded = bytes
            .get(at + 1..at + 3)
            .filter(|_| byte == b'%')
            .filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        out.push(encoded.unwrap_or(byte));
        at += if encoded.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&out).into_owned()
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
    fn percent_encoding() {
        for (text, expected) in [
            ("a%40b%2Fc", "a@b/c"),
            ("%C3%9F", "ß"),
            ("50%", "50%"),
            ("%zz", "%zz"),
        ] {
            assert_eq!(decoded(text), expected);
        }
    }

    #[test]
    fn urls() {
        assert_eq!(servers("nats://a:4222, tls://b:4443").unwrap().len(), 2);
        assert_eq!(servers("localhost:4222").unwrap().len(), 1);
        for wrong in [
            "",
            ",",
            "redis://user:secret@host",
            "nats://user:secret@host:port",
        ] {
            let error = servers(wrong).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
            assert!(!format!("{error:?} {error}").contains("secret"), "{wrong}");
        }
    }
}
