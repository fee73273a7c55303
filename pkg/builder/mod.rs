//! The composition root: puts backend, mappers, bus and relay together.

mod connection;
mod url;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use self::connection::Connection;
use crate::bus::{EventBus, EventHandler, Subscription};
use crate::clock::{Clock, SystemClock};
use crate::document::validate_collection_name;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{DefaultEventMapper, EventMapper};
use crate::relay::{Relay, RelayElsewhere, RelayOptions};
use crate::storage::backend::Backend;
use crate::storage::{CollectionSpec, CommitOptions, Delivery, Parts, RetryPolicy, Storage};

/// Puts a [`Storage`] together; made by [`Storage::builder`].
///
/// ```
/// # #[cfg(feature = "embedded")]
/// # async fn example() -> nodestorage::Result<()> {
/// use nodestorage::{CollectionSpec, DefaultEventMapper, EventNames, Index, Storage};
///
/// let names = DefaultEventMapper::new().with_names("users", EventNames::of("User"));
/// let storage = Storage::builder()
///     .url("embedded::memory:")
///     .collection(CollectionSpec::new("users").with_index(Index::on("email").unique()))
///     .default_mapper(names)
///     .open()
///     .await?;
/// # storage.close().await;
/// # Ok(())
/// # }
/// ```
#[must_use = "a builder does nothing until it is opened"]
pub struct StorageBuilder {
    source: Option<Source>,
    mappers: HashMap<String, Arc<dyn EventMapper>>,
    default_mapper: Arc<dyn EventMapper>,
    specs: Vec<CollectionSpec>,
    version_field: String,
    retry: RetryPolicy,
    commits: CommitOptions,
    clock: Arc<dyn Clock>,
    buses: Vec<BusSource>,
    subscriptions: Vec<(Subscription, Arc<dyn EventHandler>)>,
    relay: RelayOptions,
}

enum BusSource {
    /// Opened with the storage, and closed with it.
    Url(String),
    Bus(Arc<dyn EventBus>),
}

enum Source {
    Url(String),
    Backend(Arc<dyn Backend>),
}

impl Storage {
    /// Begins to put a storage together.
    pub fn builder() -> StorageBuilder {
        StorageBuilder {
            source: None,
            mappers: HashMap::new(),
            default_mapper: Arc::new(DefaultEventMapper::new()),
            specs: Vec::new(),
            version_field: "version".to_owned(),
            retry: RetryPolicy::default(),
            commits: CommitOptions::default(),
            clock: Arc::new(SystemClock),
            buses: Vec::new(),
            subscriptions: Vec::new(),
            relay: RelayOptions::default(),
        }
    }
}

impl StorageBuilder {
    /// Where the documents are: `embedded:PATH` (one file), `embedded::memory:`, or
    /// `mongodb://host/database`.
    pub fn url(mut self, url: impl Into<String>) -> Self {
        self.source = Some(Source::Url(url.into()));
        self
    }

    /// Uses a backend that was made before, from an existing client for example.
    pub fn backend(mut self, backend: impl Backend) -> Self {
        self.source = Some(Source::Backend(Arc::new(backend)));
        self
    }

    /// As [`backend`](Self::backend), shared.
    pub fn shared_backend(mut self, backend: Arc<dyn Backend>) -> Self {
        self.source = Some(Source::Backend(backend));
        self
    }

    /// Declares a collection with its indexes. Collections that need none need not be declared.
    pub fn collection(mut self, spec: CollectionSpec) -> Self {
        self.specs.push(spec);
        self
    }

    /// Maps the changes of one collection with a mapper of its own.
    pub fn mapper(mut self, collection: impl Into<String>, mapper: impl EventMapper) -> Self {
        self.mappers.insert(collection.into(), Arc::new(mapper));
        self
    }

    /// Maps the changes of all other collections. Default: [`DefaultEventMapper::new`].
    pub fn default_mapper(mut self, mapper: impl EventMapper) -> Self {
        self.default_mapper = Arc::new(mapper);
        self
    }

    /// Sets the name of the integer field that holds a document's version, for collections that are not
    /// declared with another one. Default: `version`.
    pub fn version_field(mut self, name: impl Into<String>) -> Self {
        self.version_field = name.into();
        self
    }

    /// Sets how often and how fast calls are tried again.
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = policy;
        self
    }

    /// Sets how updates are put together into commits, and what is kept in memory.
    pub fn commits(mut self, options: CommitOptions) -> Self {
        self.commits = options;
        self
    }

    /// Sets the clock for the times that events carry.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Publishes the log to a bus that is opened by URL: `memory:`, `redis://…` or `rediss://…` (feature
    /// `redis`), `nats://…` or `tls://…` (feature `nats`), with the default options of each. The storage owns
    /// it: [`Storage::bus`] shows it, and [`Storage::close`] closes it after its relay.
    ///
    /// A bus in memory keeps nothing for later, and the relay begins with whatever earlier runs have left
    /// unpublished. So subscribe with [`subscribe`](Self::subscribe), which misses nothing;
    /// what subscribes to [`Storage::bus`] gets what is published from then on.
    ///
    /// ```
    /// # #[cfg(feature = "embedded")]
    /// # async fn example() -> nodestorage::Result<()> {
    /// use nodestorage::bus::Subscription;
    /// use nodestorage::{Event, Storage};
    ///
    /// let storage = Storage::builder()
    ///     .url("embedded:users.redb")
    ///     .bus_url("memory:")
    ///     .subscribe(Subscription::to("UsersCreated"), |event: Event| async move {
    ///         println!("welcome, {}", event.aggregate_id());
    ///     })
    ///     .open()
    ///     .await?;
    /// # storage.close().await;
    /// # Ok(())
    /// # }
    /// ```
    pub fn bus_url(mut self, url: impl Into<String>) -> Self {
        self.buses.push(BusSource::Url(url.into()));
        self
    }

    /// Adds a subscription to the bus, the first one if several are connected, before the relay publishes
    /// anything. It ends with the bus; [`Storage::subscriptions`] has its handle.
    pub fn subscribe(mut self, subscription: Subscription, handler: impl EventHandler) -> Self {
        self.subscriptions.push((subscription, Arc::new(handler)));
        self
    }

    /// Publishes the log to a bus, through a relay that ends with [`Storage::close`]. Several buses may be
    /// connected. The bus itself stays the caller's to close.
    ///
    /// Subscribe before opening, or with [`subscribe`](Self::subscribe): a bus in memory keeps nothing for
    /// later.
    pub fn bus(self, bus: impl EventBus) -> Self {
        self.shared_bus(Arc::new(bus))
    }

    /// As [`bus`](Self::bus), shared.
    pub fn shared_bus(mut self, bus: Arc<dyn EventBus>) -> Self {
        self.buses.push(BusSource::Bus(bus));
        self
    }

    /// Sets the options of the relay.
    pub fn relay_options(mut self, options: RelayOptions) -> Self {
        self.relay = options;
        self
    }

    /// Opens the storage, and the declared collections with their indexes.
    ///
    /// # Errors
    /// `InvalidConfig` for an URL that is none, a missing feature, an index that is not as declared, or a
    /// subscription without a bus; `Unavailable` if the database or the bus does not answer within its
    /// connect timeout; `Unsupported` for a deployment that cannot serve, and for what a subscription asks
    /// for and the bus cannot do; `InUse` if another process holds an embedded store.
    pub async fn open(self) -> Result<Storage> {
        validate_version_field(&self.version_field)?;
        for spec in &self.specs {
            validate_collection_name(&spec.name)?;
            validate_version_field(&spec.version_field)?;
        }
        let backend = match self.source {
            Some(Source::Backend(backend)) => backend,
            Some(Source::Url(url)) => url::open_backend(&url).await?,
            None => {
                return Err(Error::new(
                    ErrorKind::InvalidConfig,
                    "neither an URL nor a backend was given to the builder",
                ));
            }
        };
        for spec in &self.specs {
            backend.open_collection(spec).await?;
        }
        let delivery: Arc<dyn Delivery> = if self.buses.is_empty() {
            if !self.subscriptions.is_empty() {
                return Err(Error::new(
                    ErrorKind::InvalidConfig,
                    "a subscription needs a bus, and none was given to the builder",
                ));
            }
            Arc::new(RelayElsewhere::new(Arc::clone(&backend), self.relay))
        } else {
            let relay = Relay::new(Arc::clone(&backend)).with_options(self.relay);
            Arc::new(Connection::open(relay, self.buses, self.subscriptions).await?)
        };
        let specs = self.specs.into_iter();
        let storage = Storage::from_parts(Parts {
            backend,
            mappers: self.mappers,
            default_mapper: self.default_mapper,
            specs: specs.map(|spec| (spec.name.clone(), spec)).collect(),
            version_field: self.version_field,
            retry: self.retry,
            commits: self.commits,
            clock: self.clock,
        });
        storage.set_delivery(delivery);
        Ok(storage)
    }
}

impl fmt::Debug for StorageBuilder {
    /// Shows no URL: it may hold credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StorageBuilder")
            .field("collections", &self.specs)
            .field("version_field", &self.version_field)
            .field("retry", &self.retry)
            .finish_non_exhaustive()
    }
}

fn validate_version_field(name: &str) -> Result<()> {
    if name.is_empty() || name == "_id" || name.starts_with('$') || name.contains(['.', '\0']) {
        return Err(Error::new(
            ErrorKind::InvalidConfig,
            format!("{name:?} cannot be the name of the version field"),
        ));
    }
    Ok(())
}
