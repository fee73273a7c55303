//! The brokers under test, as the processes and the checker see them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use nodestorage::bus::EventBus;

use crate::ledger::Sighting;
use crate::{jetstream, redis_streams};

/// How soon others notice that a process is dead.
pub(crate) const CLAIM_TTL: Duration = Duration::from_secs(2);

/// A broker that belongs to one test, and can be killed.
#[async_trait]
pub(crate) trait Broker: Send + Sync {
    /// As in the lines that are printed.
    fn name(&self) -> &'static str;

    /// What [`connect`] needs to know in another process.
    fn address(&self) -> String;

    /// As a power cut would, except that the disk keeps what it was given.
    fn kill(&self);

    /// The same data at the same address.
    fn restart(&self);

    /// Everything that lies there, from the beginning, in order for each document; read by a plain client.
    async fn read_back(&self) -> Vec<Sighting>;

    /// Stores everything that lies there once more behind it, as a relay does that died before it could
    /// store a checkpoint.
    async fn repeat(&self);
}

/// The bus at an address of [`Broker::address`]. Waits for a broker that is down.
pub(crate) async fn connect(address: &str) -> Arc<dyn EventBus> {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let connected = match address.split_once(' ').expect("a kind and its address") {
            ("redis", address) => redis_streams::connect(address).await,
            ("nats", address) => jetstream::connect(address).await,
            (kind, _) => panic!("no broker is called {kind}"),
        };
        match connected {
            Ok(bus) => return bus,
            Err(error) => assert!(Instant::now() < deadline, "no bus: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
