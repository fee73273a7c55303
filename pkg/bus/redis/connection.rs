use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, FromRedisValue, IntoConnectionInfo, Pipeline, RedisError,
    ScriptInvocation, TlsCertificates,
};

use super::error::{translated, unconnected};
use crate::bus::RootCertificates;
use crate::bus::root_certificates::unreadable;
use crate::error::{Error, ErrorKind, Result};

/// A client for a URL, which trusts the named authorities if there are any.
pub(super) fn client(url: &str, root: Option<&RootCertificates>) -> Result<Client> {
    let wrong = |error| translated("use the URL", &error);
    let address = url.into_connection_info().map_err(wrong)?;
    let Some(root) = root else {
        return Client::open(address).map_err(wrong);
    };
    if !matches!(address.addr(), redis::ConnectionAddr::TcpTls { .. }) {
        return Err(Error::new(
            ErrorKind::InvalidConfig,
            "redis bus has root certificates and a URL without TLS: it has to begin with rediss://",
        ));
    }
    let certificates = TlsCertificates {
        client_tls: None,
        root_cert: Some(root.pem().to_vec()),
    };
    Client::build_with_tls(address, certificates).map_err(|_| unreadable("redis bus"))
}

/// One connection that many calls share, made anew after it broke.
///
/// A call fails when its connection breaks, and so does one without an answer in time; the connection is
/// given up then, since nobody knows what it still carries. The next call connects again. No call is
/// repeated here: only callers know whether that is right.
#[derive(Clone)]
pub(super) struct Connection(Arc<Inner>);

struct Inner {
    client: Client,
    config: AsyncConnectionConfig,
    current: Mutex<Option<Numbered>>,
    /// One caller at a time connects.
    connecting: tokio::sync::Mutex<()>,
    numbers: AtomicU64,
}

#[derive(Clone)]
struct Numbered {
    number: u64,
    connection: MultiplexedConnection,
}

impl Connection {
    pub(super) fn new(client: Client, timeout: Duration) -> Self {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(timeout))
            .set_response_timeout(Some(timeout));
        Self(Arc::new(Inner {
            client,
            config,
            current: Mutex::new(None),
            connecting: tokio::sync::Mutex::new(()),
            numbers: AtomicU64::new(0),
        }))
    }

    /// Another connection to the same server, for calls that wait there: no answer is late.
    pub(super) async fn patient(&self) -> Result<MultiplexedConnection> {
        let config = self.0.config.clone().set_response_timeout(None);
        let client = &self.0.client;
        client
            .get_multiplexed_async_connection_with_config(&config)
            .await
            .map_err(|error| unconnected("connect", client, &error))
    }

    pub(super) fn client(&self) -> &Client {
        &self.0.client
    }

    pub(super) async fn script<T: FromRedisValue>(
        &self,
        doing: &str,
        script: &ScriptInvocation<'_>,
    ) -> Result<T> {
        let mut current = self.current(doing).await?;
        let result = script.invoke_async(&mut current.connection).await;
        self.checked(doing, current.number, result)
    }

    pub(super) async fn pipeline<T: FromRedisValue>(
        &self,
        doing: &str,
        pipeline: &Pipeline,
    ) -> Result<T> {
        let mut current = self.current(doing).await?;
        let result = pipeline.query_async(&mut current.connection).await;
        self.checked(doing, current.number, result)
    }

    pub(super) async fn command<T: FromRedisValue>(
        &self,
        doing: &str,
        command: &redis::Cmd,
    ) -> Result<T> {
        let mut current = self.current(doing).await?;
        let result = command.query_async(&mut current.connection).await;
        self.checked(doing, current.number, result)
    }

    /// Gives the connection up; calls under way fail.
    pub(super) fn disconnect(&self) {
        self.slot().take();
    }

    fn slot(&self) -> std::sync::MutexGuard<'_, Option<Numbered>> {
        self.0
            .current
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    async fn current(&self, doing: &str) -> Result<Numbered> {
        if let Some(current) = self.slot().clone() {
            return Ok(current);
        }
        let _turn = self.0.connecting.lock().await;
        if let Some(current) = self.slot().clone() {
            return Ok(current);
        }
        let client = &self.0.client;
        let connection = client
            .get_multiplexed_async_connection_with_config(&self.0.config)
            .await
            .map_err(|error| unconnected(doing, client, &error))?;
        let current = Numbered {
            number: self.0.numbers.fetch_add(1, Ordering::Relaxed),
            connection,
        };
        *self.slot() = Some(current.clone());
        Ok(current)
    }

    fn checked<T>(
        &self,
        doing: &str,
        number: u64,
        result: std::result::Result<T, RedisError>,
    ) -> Result<T> {
        result.map_err(|error| {
            if error.is_unrecoverable_error() || error.is_timeout() || error.is_io_error() {
                let mut slot = self.slot();
                if slot.as_ref().is_some_and(|it| it.number == number) {
                    slot.take();
                }
            }
            translated(doing, &error)
        })
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The client knows the credentials.
        f.debug_struct("Connection")
            .field("connected", &self.slot().is_some())
            .finish_non_exhaustive()
    }
}
