//! MongoDB servers for tests.
//!
//! [`Mongod::shared`] is what nearly every test uses: one replica set per test process, with a
//! database of its own for every test ([`fresh_database_name`]). [`Mongod::standalone`] is a server
//! that the product refuses; [`Mongod::private`] belongs to one test, which may kill and restart it.
//!
//! Where a server comes from, in this order: `NODESTORAGE_TEST_MONGODB_URL` (only for `shared`),
//! the binary `NODESTORAGE_MONGOD`, `mongod` on `PATH` or in `.servers/bin` (see
//! `scripts/install`), a container where Docker answers.
//!
//! All functions block, inside and outside of a runtime, and return when the server can be used.

#[cfg(not(feature = "mongodb"))]
compile_error!("tests need every feature: run scripts/test, or cargo test --all-features");

mod container;
mod process;
mod ready;
pub(crate) mod replica_set;
mod runtime;

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::TcpListener;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use ::mongodb::Client;
use ::mongodb::options::ClientOptions;

use self::container::Container;
use self::process::Process;
use self::ready::{await_ready, hello, initiate};
use self::runtime::on_fixture_runtime;

const URL_VARIABLE: &str = "NODESTORAGE_TEST_MONGODB_URL";
const BINARY_VARIABLE: &str = "NODESTORAGE_MONGOD";

/// A start takes one or two seconds; a busy machine with a cold cache gets the rest.
const START_DEADLINE: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// A database name that no other test has, in this run or another.
pub(crate) fn fresh_database_name() -> String {
    format!("test_{}", uuid::Uuid::now_v7().simple())
}

/// How a private server is started.
#[derive(Debug, Clone)]
pub(crate) struct MongodOptions {
    /// Whether it is a replica set of one node (the default) or a standalone server.
    pub(crate) replica_set: bool,
    /// The size of its cache in gigabytes; 0.25 is the least that it takes.
    pub(crate) cache_gb: f32,
    /// Further command line arguments, for example `--setParameter` and `name=value`.
    pub(crate) arguments: Vec<String>,
}

impl Default for MongodOptions {
    fn default() -> Self {
        Self {
            replica_set: true,
            cache_gb: 0.5,
            arguments: Vec::new(),
        }
    }
}

/// A running MongoDB server.
#[derive(Debug)]
pub(crate) struct Mongod {
    host: Host,
    url: String,
    replica_set: bool,
}

#[derive(Debug)]
enum Host {
    /// Somebody else's server, found by its URL.
    External,
    Process(Box<Process>),
    Container(Box<Container>),
}

impl Mongod {
    /// The replica set that all tests of this process share.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Result<Mongod, String>> = OnceLock::new();
        or_panic(SHARED.get_or_init(|| match std::env::var(URL_VARIABLE) {
            Ok(url) if !url.is_empty() => Self::external(url),
            _ => Self::start(&MongodOptions::default()),
        }))
    }

    /// A server without a replica set that all tests of this process share.
    pub(crate) fn standalone() -> &'static Self {
        static STANDALONE: OnceLock<Result<Mongod, String>> = OnceLock::new();
        or_panic(STANDALONE.get_or_init(|| {
            Self::start(&MongodOptions {
                replica_set: false,
                ..MongodOptions::default()
            })
        }))
    }

    /// A server for one test, stopped when the value is dropped.
    pub(crate) fn private(options: &MongodOptions) -> Self {
        Self::start(options).unwrap_or_else(|reason| panic!("{reason}"))
    }

    /// The connection string.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// A client of its own for a test, so that it lives in the runtime of that test.
    pub(crate) async fn client(&self) -> Client {
        Client::with_uri_str(&self.url)
            .await
            .expect("the URL of the fixture is valid")
    }

    /// A database of its own for a test, dropped with the value where the server stays.
    pub(crate) fn fresh_database(&self) -> FreshDatabase<'_> {
        FreshDatabase {
            mongod: self,
            name: fresh_database_name(),
        }
    }

    /// The process id, where the server is a process of this machine.
    pub(crate) fn pid(&self) -> Option<u32> {
        match &self.host {
            Host::Process(process) => process.pid(),
            Host::External | Host::Container(_) => None,
        }
    }

    /// The data folder, where the server is a process of this machine.
    pub(crate) fn folder(&self) -> Option<&Path> {
        match &self.host {
            Host::Process(process) => Some(&process.folder),
            Host::External | Host::Container(_) => None,
        }
    }

    /// Kills the server as a power cut would end it, except that the disk keeps what it was given.
    pub(crate) fn kill(&self) {
        match &self.host {
            Host::External => panic!("{URL_VARIABLE} names a server that is not ours to kill"),
            Host::Process(process) => drop(process.command("kill")),
            Host::Container(container) => container.stop(Some(0)),
        }
    }

    /// Stops the server in good order.
    pub(crate) fn stop(&self) {
        match &self.host {
            Host::External => panic!("{URL_VARIABLE} names a server that is not ours to stop"),
            Host::Process(process) => drop(process.command("stop")),
            Host::Container(container) => container.stop(None),
        }
    }

    /// Freezes the server: connections stay open, nothing answers, until [`resume`](Self::resume).
    pub(crate) fn pause(&self) {
        match &self.host {
            Host::External => panic!("{URL_VARIABLE} names a server that is not ours to pause"),
            Host::Process(process) => process.pause(),
            Host::Container(container) => container.run(|it| Box::pin(it.pause())),
        }
    }

    /// Lets a paused server continue.
    pub(crate) fn resume(&self) {
        match &self.host {
            Host::External => panic!("{URL_VARIABLE} names a server that is not ours to resume"),
            Host::Process(process) => drop(process.command("resume")),
            Host::Container(container) => container.run(|it| Box::pin(it.unpause())),
        }
    }

    /// Starts the server again with the same data at the same address, after killing it if it runs.
    pub(crate) fn restart(&self) {
        let port = match &self.host {
            Host::External => panic!("{URL_VARIABLE} names a server that is not ours to restart"),
            Host::Process(process) => {
                process
                    .start()
                    .unwrap_or_else(|failure| panic!("{}", failure.reason));
                process.port
            }
            Host::Container(container) => {
                container.stop(Some(0));
                container.run(|it| Box::pin(it.start()));
                container.port
            }
        };
        on_fixture_runtime(await_ready(port, self.replica_set))
            .unwrap_or_else(|reason| panic!("mongod did not come back: {reason}"));
    }

    /// A member of a replica set that its other members are yet to be known of.
    fn start_member(options: &MongodOptions) -> Result<Self, String> {
        let Some(binary) = find_binary()? else {
            return Err(format!(
                "no mongod for the tests: a replica set of three nodes needs a binary: run \
                 scripts/install, or set {BINARY_VARIABLE}"
            ));
        };
        let process = Process::launch(&binary, options)?;
        Ok(Self {
            url: format!(
                "mongodb://127.0.0.1:{}/?directConnection=true",
                process.port
            ),
            host: Host::Process(Box::new(process)),
            replica_set: true,
        })
    }

    /// The port it listens on, where that is known.
    pub(crate) fn port(&self) -> u16 {
        match &self.host {
            Host::External => panic!("{URL_VARIABLE} names a server whose port is not ours"),
            Host::Process(process) => process.port,
            Host::Container(container) => container.port,
        }
    }

    /// Starts a process again and waits only until it listens.
    fn start_again(&self) {
        if let Host::Process(process) = &self.host
            && let Err(failure) = process.start()
        {
            panic!("{}", failure.reason);
        }
    }

    fn external(url: String) -> Result<Self, String> {
        let reached = on_fixture_runtime({
            let url = url.clone();
            async move {
                let mut options = ClientOptions::parse(&url).await?;
                options.server_selection_timeout = Some(Duration::from_secs(10));
                hello(&Client::with_options(options)?).await
            }
        });
        match reached {
            // The message of the driver may hold the URL, and the URL a password.
            Err(_) => Err(format!(
                "no mongod for the tests: the server at {URL_VARIABLE} does not answer"
            )),
            Ok(hello) if hello.get_str("setName").is_err() => Err(format!(
                "no mongod for the tests: {URL_VARIABLE} must name a replica set"
            )),
            Ok(_) => Ok(Self {
                host: Host::External,
                url,
                replica_set: true,
            }),
        }
    }

    fn start(options: &MongodOptions) -> Result<Self, String> {
        let (host, port) = match find_binary()? {
            Some(binary) => {
                let process = Process::launch(&binary, options)?;
                let port = process.port;
                (Host::Process(Box::new(process)), port)
            }
            None => {
                let container = Container::launch(options)?;
                let port = container.port;
                (Host::Container(Box::new(container)), port)
            }
        };
        let url = if options.replica_set {
            format!("mongodb://127.0.0.1:{port}/?replicaSet=rs0")
        } else {
            format!("mongodb://127.0.0.1:{port}/")
        };
        let mongod = Self {
            host,
            url,
            replica_set: options.replica_set,
        };
        on_fixture_runtime(async move {
            if mongod.replica_set {
                initiate(port).await?;
            }
            await_ready(port, mongod.replica_set).await?;
            Ok(mongod)
        })
    }
}

fn or_panic(result: &'static Result<Mongod, String>) -> &'static Mongod {
    result.as_ref().unwrap_or_else(|reason| panic!("{reason}"))
}

/// The name of a database that is dropped with this value, if the server outlives the tests.
#[derive(Debug)]
pub(crate) struct FreshDatabase<'a> {
    mongod: &'a Mongod,
    name: String,
}

impl Deref for FreshDatabase<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.name
    }
}

impl Drop for FreshDatabase<'_> {
    fn drop(&mut self) {
        if matches!(self.mongod.host, Host::External) {
            let (url, name) = (self.mongod.url.clone(), self.name.clone());
            // A failure leaves a database behind; it must not hide the result of the test.
            let _: ::mongodb::error::Result<()> = on_fixture_runtime(async move {
                Client::with_uri_str(url)
                    .await?
                    .database(&name)
                    .drop()
                    .await
            });
        }
    }
}

/// The arguments that a server of the tests is started with, wherever it runs.
fn arguments(port: u16, options: &MongodOptions) -> Vec<String> {
    let mut arguments: Vec<String> = [
        // Fail points.
        "--setParameter=enableTestCommands=1",
        // Nobody looks at the metrics of a test server; collecting them costs start-up time and disk.
        "--setParameter=diagnosticDataCollectionEnabled=false",
        // A primary waits 15 seconds for its clients before it stops.
        "--setParameter=shutdownTimeoutMillisForSignaledShutdown=0",
    ]
    .map(String::from)
    .to_vec();
    arguments.push(format!("--wiredTigerCacheSizeGB={}", options.cache_gb));
    arguments.push(format!("--port={port}"));
    if options.replica_set {
        // Room for the largest import of the tests; a change stream must not lose its place.
        arguments.extend(["--replSet=rs0", "--oplogSize=512"].map(String::from));
    }
    arguments.extend(options.arguments.iter().cloned());
    arguments
}

/// The local binary to use, or `None` if there is none.
fn find_binary() -> Result<Option<PathBuf>, String> {
    if let Some(binary) = std::env::var_os(BINARY_VARIABLE).filter(|it| !it.is_empty()) {
        let binary = PathBuf::from(binary);
        return if is_supported(&binary) {
            Ok(Some(binary))
        } else {
            Err(format!(
                "no mongod for the tests: {BINARY_VARIABLE} is set to {}, which is no mongod 6.0 or newer",
                binary.display()
            ))
        };
    }
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join(".servers/bin");
    let path = std::env::var_os("PATH").unwrap_or_default();
    Ok(std::env::split_paths(&path)
        .chain([installed])
        .map(|folder| folder.join("mongod"))
        .find(|binary| binary.is_file() && is_supported(binary)))
}

fn is_supported(binary: &Path) -> bool {
    let Ok(output) = Command::new(binary)
        .arg("--version")
        .stderr(Stdio::null())
        .output()
    else {
        return false;
    };
    // "db version v6.0.5"
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .find_map(|line| {
            line.strip_prefix("db version v")?
                .split('.')
                .next()?
                .parse::<u32>()
                .ok()
        })
        .is_some_and(|major| major >= 6)
}

/// A port that is free now and that no client socket takes meanwhile: they come from 32768 upwards.
/// A client that keeps trying to reach a stopped server on a port of that range can even be given this
/// port as its own and connect to itself.
fn free_port() -> u16 {
    loop {
        let port =
            15_000 + u16::try_from(RandomState::new().hash_one(()) % 17_000).expect("below 17,000");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
