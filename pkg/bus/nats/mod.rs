//! The bus on NATS: JetStream, which stores events, or core NATS, which hands them to whoever is there.
//!
//! # JetStream
//! Events lie in one stream with subjects `prefix.collection.type.id.partition`; a consumer in any
//! language subscribes to `events.users.>`. Every message has its event's id as `Nats-Msg-Id`, so that
//! what a relay repeats is not stored twice. Groups are durable pull consumers, one per partition, whose
//! positions the server keeps; who reads a partition is settled by claims in a second stream, which also
//! holds the dead letters. Both streams are created when the bus is connected, or checked.
//!
//! * An event is confirmed when the stream has it. With files the server forces it to the disk every two
//!   minutes, unless its `sync_interval` says otherwise: a killed server loses nothing, a power cut may
//!   lose what a single server had confirmed last. `sync_interval: always`, or three replicas, end that.
//! * When a member dies, the next owner of its partitions first gets everything that was not acknowledged,
//!   in order, and then what is new. That takes the claim's time to live.
//! * A server that is killed may forget the latest acknowledgements; members recognise what comes again.
//! * The stream refuses what is new when it is full of what somebody has not handled: publishing fails with
//!   `Unavailable` and the relay keeps the rest in the log. What every durable consumer of the stream has
//!   acknowledged is removed when room is needed, and is there for [`StartFrom::Beginning`] until then.
//!
//! A server of release 2.11 or newer is needed; from 2.12 on many events of one document are stored as
//! one atomic batch.
//!
//! # Core NATS
//! Nothing is stored. A broadcast receives what is published while it is connected; there are no groups
//! and no dead letters beyond the process. Subjects are `prefix.collection.type.id`.
//!
//! `docs/nats.md` describes subjects, headers and settings.

mod acks;
mod attempts;
mod connect;
mod core;
mod done;
mod error;
mod groups;
mod hand;
mod jetstream;
mod lease;
mod leases;
mod letters;
mod members;
mod options;
mod publish;
mod reader;
mod reply;
mod server;
mod settle;
mod setup;
mod state;
mod subject;
mod trim;

use std::sync::{Arc, Mutex};

use async_nats::{Client, ConnectOptions};
use async_trait::async_trait;

use self::core::CoreChannel;
use self::jetstream::{JetStream, Shared};
use self::leases::Leases;
use self::server::Server;
use self::state::State;
use self::subject::Subjects;
#[cfg(doc)]
use super::StartFrom;
use super::broker::{DurableBus, LiveBus, MachineOptions};
use super::{
    BusCapabilities, EventBus, EventHandler, PublishError, Subscription, SubscriptionHandle,
};
use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;

pub use options::{NatsBusOptions, NatsMode, NatsStorage};

/// A bus on a NATS server or cluster. See the [module](self).
///
/// Clones are handles of the same bus. When the last is dropped without [`close`](EventBus::close),
/// handlers are stopped at their next `await`.
///
/// # Examples
/// ```no_run
/// use nodestorage::Event;
/// use nodestorage::bus::nats::{NatsBus, NatsBusOptions};
/// use nodestorage::bus::{EventBusExt, Subscription};
///
/// # async fn example() -> nodestorage::Result<()> {
/// let bus = NatsBus::connect("nats://localhost:4222", NatsBusOptions::new()).await?;
/// bus.subscribe(
///     Subscription::to("UserCreated").with_group("mailer"),
///     |event: Event| async move { println!("{}", event.document()) },
/// )
/// .await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct NatsBus(Mode);

#[derive(Debug, Clone)]
enum Mode {
    JetStream(Arc<DurableBus>),
    Core(Arc<LiveBus>),
}

impl NatsBus {
    /// Connects to the server at a `nats://` or `tls://` URL, or to a cluster at several with commas
    /// between. The URL may hold a user and a password, or a token.
    ///
    /// # Errors
    /// `InvalidConfig` for a wrong URL, credentials or options, for a server whose certificate is not trusted,
    /// and for streams that exist with other settings, another number of partitions above all; `Unsupported` for a server that is too old;
    /// `Unavailable` if there is no server, or none with JetStream.
    pub async fn connect(url: &str, options: NatsBusOptions) -> Result<Self> {
        Self::connect_with(url, ConnectOptions::new(), options).await
    }

    /// Connects with the client's own options: credentials files, keys, tokens, TLS.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub async fn connect_with(
        url: &str,
        connection: ConnectOptions,
        options: NatsBusOptions,
    ) -> Result<Self> {
        options.validate()?;
        let root = options.root_certificates.as_ref();
        let client = connect::connect(url, connection, root).await?;
        Self::open(client, options, true).await
    }

    /// Uses a client that exists already. Closing the bus leaves it connected.
    ///
    /// # Errors
    /// As [`connect`](Self::connect), and `InvalidConfig` for options with root certificates: what to trust is
    /// the client's own.
    pub async fn from_client(client: Client, options: NatsBusOptions) -> Result<Self> {
        options.validate()?;
        if options.root_certificates.is_some() {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                "nats bus has root certificates for a client that exists already",
            ));
        }
        Self::open(client, options, false).await
    }

    async fn open(client: Client, options: NatsBusOptions, owned: bool) -> Result<Self> {
        let domain = options.domain.as_deref();
        let server = Server::new(client, domain, options.request_timeout, owned);
        let subjects = Subjects::new(&options.prefix)?;
        let machine = MachineOptions {
            serializer: Arc::clone(&options.serializer),
            claim_ttl: options.claim_ttl,
            drain_timeout: options.drain_timeout,
            broadcast_ttl: options.broadcast_ttl,
        };
        let content_type = options.serializer.content_type();
        if options.mode == NatsMode::Core {
            let channel = Arc::new(CoreChannel::new(server, subjects, content_type));
            return Ok(Self(Mode::Core(Arc::new(LiveBus::new(channel, machine)?))));
        }
        let streams = setup::open(&server, &subjects, &options).await?;
        let shared = Shared {
            state: State::new(server.clone(), streams.state),
            server,
            subjects,
            stream: streams.events,
            leases: Leases::default(),
            partitions: options.partitions,
            ack_wait: options.ack_wait,
            content_type,
            atomic: streams.atomic,
            trimming: tokio::sync::Mutex::default(),
            transient: Mutex::default(),
        };
        let broker = Arc::new(JetStream(Arc::new(shared)));
        let bus = Arc::new(DurableBus::new(broker, machine)?);
        Ok(Self(Mode::JetStream(bus)))
    }

    /// Forgets a group for good: its consumers, what waits for it, its dead letters. A group that nobody
    /// comes back to must be removed, or what it has not handled fills the stream. Members that are there
    /// begin anew, with what is published then.
    ///
    /// # Errors
    /// `Unsupported` over core NATS, `Unavailable` if the server does not answer.
    pub async fn remove_group(&self, group: &str) -> Result<()> {
        match &self.0 {
            Mode::JetStream(bus) => bus.broker().remove_group(group).await,
            Mode::Core(_) => Err(Error::new(
                ErrorKind::Unsupported,
                "a nats bus in this mode has no groups",
            )),
        }
    }
}

#[async_trait]
impl EventBus for NatsBus {
    fn capabilities(&self) -> BusCapabilities {
        match &self.0 {
            Mode::JetStream(bus) => bus.capabilities(),
            Mode::Core(bus) => bus.capabilities(),
        }
    }

    async fn publish(&self, events: &[Event]) -> Result<(), PublishError> {
        match &self.0 {
            Mode::JetStream(bus) => bus.publish(events).await,
            Mode::Core(bus) => bus.publish(events).await,
        }
    }

    async fn attach(
        &self,
        subscription: Subscription,
        handler: Arc<dyn EventHandler>,
    ) -> Result<SubscriptionHandle> {
        match &self.0 {
            Mode::JetStream(bus) => bus.attach(subscription, handler).await,
            Mode::Core(bus) => bus.attach(subscription, handler).await,
        }
    }

    async fn close(&self) -> Result<()> {
        match &self.0 {
            Mode::JetStream(bus) => bus.close().await,
            Mode::Core(bus) => bus.close().await,
        }
    }
}
