//! From an URL to a client, and whether the deployment behind it can be served.

use std::fmt::Write as _;
use std::time::Duration;

use ::mongodb::Client;
use ::mongodb::options::ClientOptions;
use bson::rawdoc;

use super::failure::Failure;
use super::options::MongoOptions;
use super::store::{Store, count};
use crate::error::{Error, ErrorKind, Result};

/// MongoDB 5.0: the first with snapshot reads outside transactions.
const OLDEST_WIRE_VERSION: i64 = 13;

/// The driver takes no shorter one.
const SHORTEST_HEARTBEAT: Duration = Duration::from_millis(500);

/// Makes a client for an URL; returns it with the database that the URL names.
pub(super) async fn client(url: &str, options: &MongoOptions) -> Result<(Client, String, String)> {
    if !url.starts_with("mongodb://") && !url.starts_with("mongodb+srv://") {
        return Err(invalid(
            "a MongoDB URL starts with mongodb:// or mongodb+srv://",
        ));
    }
    let mut settings = ClientOptions::parse(url)
        .await
        .map_err(|e| unparsable(url, e.into()))?;
    let Some(database) = settings.default_database.clone() else {
        return Err(invalid(
            "the MongoDB URL names no database; write it as mongodb://host/DATABASE",
        ));
    };
    settings
        .server_selection_timeout
        .get_or_insert(options.server_selection_timeout);
    settings
        .connect_timeout
        .get_or_insert(options.connect_timeout);
    settings
        .heartbeat_freq
        .get_or_insert(options.heartbeat_frequency.max(SHORTEST_HEARTBEAT));
    settings
        .max_pool_size
        .get_or_insert(options.max_connections);
    settings
        .app_name
        .get_or_insert_with(|| "nodestorage".to_owned());
    let mut hosts = String::new();
    for host in &settings.hosts {
        let comma = if hosts.is_empty() { "" } else { "," };
        // Writing to a string does not fail.
        let _ = write!(hosts, "{comma}{host}");
    }
    let client = Client::with_options(settings).map_err(|e| unparsable(url, e.into()))?;
    Ok((client, database, hosts))
}

/// Refuses a deployment without transactions and change streams.
pub(super) async fn check_deployment(store: &Store, hosts: &str) -> Result<()> {
    let hello = store
        .run_admin(rawdoc! { "hello": 1 })
        .await
        .map_err(|failure| match failure.kind() {
            ErrorKind::Unavailable => unreachable(hosts, failure),
            _ => failure.into_error("opening MongoDB"),
        })?;
    if hello.get_str("msg").is_ok_and(|text| text == "isdbgrid") {
        return Err(unsupported(
            "this is a mongos of a sharded cluster; connect to a replica set",
        ));
    }
    if count(&hello, "maxWireVersion") < OLDEST_WIRE_VERSION {
        return Err(unsupported("MongoDB 5.0 or later is needed"));
    }
    if hello.get_str("setName").is_err() {
        return Err(unsupported(
            "this mongod is a standalone, which has no transactions; start it with --replSet rs0 and \
             run rs.initiate() once: a replica set may have a single node",
        ));
    }
    if !hello.get_bool("isWritablePrimary").unwrap_or(false) {
        return Err(Error::new(
            ErrorKind::Unavailable,
            "the server is not the primary of its replica set; leave out directConnection=true or \
             connect to the primary",
        ));
    }
    Ok(())
}

fn unreachable(hosts: &str, failure: Failure) -> Error {
    let at = if hosts.is_empty() {
        String::new()
    } else {
        format!(" at {hosts}")
    };
    Error::new(
        ErrorKind::Unavailable,
        format!("cannot reach a primary of MongoDB{at}"),
    )
    .with_source(failure)
}

/// The driver quotes parts of the URL it does not like, which may be the password or a token in an
/// option; only an URL without either may be quoted.
fn unparsable(url: &str, failure: Failure) -> Error {
    if failure.kind() == ErrorKind::Unavailable {
        return Error::new(
            ErrorKind::Unavailable,
            "the host names of the MongoDB URL do not resolve",
        );
    }
    let has_secrets = url.contains('@') || url.contains("assword") || url.contains("authMechanism");
    if has_secrets {
        return invalid(
            "malformed MongoDB URL; special characters in a password are percent-encoded",
        );
    }
    invalid("malformed MongoDB URL").with_source(failure)
}

fn invalid(message: &str) -> Error {
    Error::new(ErrorKind::InvalidConfig, message)
}

fn unsupported(message: &str) -> Error {
    Error::new(ErrorKind::Unsupported, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bad_urls_are_refused_without_their_secrets() {
        for url in [
            "mongodb://user:s3cret@host:notaport/db",
            "mongodb://user:s3cr@et@host/db",
            "mongodb://user:s3cret@host/db?tls=maybe",
            "mongodb://user:s3cret@host",
            "postgres://user:s3cret@host/db",
            "s3cret",
            "",
        ] {
            let error = client(url, &MongoOptions::default()).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{url}");
            assert!(!format!("{error:?} {error}").contains("s3cr"), "{error:?}");
        }
    }

    #[tokio::test]
    async fn the_database_comes_from_the_path() {
        let (_, database, hosts) = client(
            "mongodb://a:1,b/shop?replicaSet=rs",
            &MongoOptions::default(),
        )
        .await
        .unwrap();
        assert_eq!((database.as_str(), hosts.as_str()), ("shop", "a:1,b:27017"));
    }
}
