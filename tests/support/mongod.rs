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

use std::collections::hash_map::RandomState;
use std::fs;
use std::future::Future;
use std::hash::BuildHasher;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use ::mongodb::Client;
use ::mongodb::options::ClientOptions;
use bson::{Document, doc};
use testcontainers::core::IntoContainerPort;
use testcontainers::runners::AsyncRunner;
use testcontainers::{ContainerAsync, GenericImage, ImageExt};
use tokio::runtime::Runtime;

const URL_VARIABLE: &str = "NODESTORAGE_TEST_MONGODB_URL";
const BINARY_VARIABLE: &str = "NODESTORAGE_MONGOD";

/// A start takes one or two seconds; a busy machine with a cold cache gets the rest.
const START_DEADLINE: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(10);

const WATCHDOG: &str = include_str!("watchdog.sh");

/// A database name that no other test has, in this run or another.
pub(crate) fn fresh_database_name() -> String {
    format!("test_{}", uuid::Uuid::now_v7().simple())
}

/// How a private server is started.
#[derive(Debug, Clone)]
pub(crate) struct MongodOptions {
    /// Whether it is a replica set of one node (the default) or a standalone server.
    pub(crate) replica_set: bool,
    /// Further command line arguments, for example `--setParameter` and `name=value`.
    pub(crate) arguments: Vec<String>,
}

impl Default for MongodOptions {
    fn default() -> Self {
        Self {
            replica_set: true,
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
        "--wiredTigerCacheSizeGB=0.5",
        // Fail points.
        "--setParameter=enableTestCommands=1",
        // Nobody looks at the metrics of a test server; collecting them costs start-up time and disk.
        "--setParameter=diagnosticDataCollectionEnabled=false",
        // A primary waits 15 seconds for its clients before it stops.
        "--setParameter=shutdownTimeoutMillisForSignaledShutdown=0",
    ]
    .map(String::from)
    .to_vec();
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

/// A server process with the watchdog that owns it.
#[derive(Debug)]
struct Process {
    watchdog: Mutex<Watchdog>,
    folder: PathBuf,
    port: u16,
}

#[derive(Debug)]
struct Watchdog {
    child: Child,
    /// `None` once the watchdog was told to finish.
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    server: Option<u32>,
}

struct StartFailure {
    reason: String,
    port_taken: bool,
}

impl Process {
    fn launch(binary: &Path, options: &MongodOptions) -> Result<Self, String> {
        // Another process may take the port between our look and the start of the server.
        for _ in 0..5 {
            let process = Self::spawn(binary, free_port(), options).map_err(|error| {
                format!(
                    "no mongod for the tests: cannot run {}: {error}",
                    binary.display()
                )
            })?;
            match process.start() {
                Ok(()) => return Ok(process),
                Err(failure) if failure.port_taken => {}
                Err(failure) => return Err(format!("no mongod for the tests: {}", failure.reason)),
            }
        }
        Err("no mongod for the tests: every port it was given was taken by another process".into())
    }

    fn spawn(binary: &Path, port: u16, options: &MongodOptions) -> std::io::Result<Self> {
        use std::os::unix::process::CommandExt as _;

        let folder = tempfile::Builder::new()
            .prefix("nodestorage-mongod-")
            .tempdir()?;
        let mut child = Command::new("sh")
            .args(["-c", WATCHDOG, "watchdog"])
            .arg(folder.path())
            .arg(binary)
            .arg("--dbpath")
            .arg(folder.path())
            .args(["--bind_ip=127.0.0.1", "--nounixsocket"])
            .args(arguments(port, options))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // Ctrl-C and a kill of the test's process group must leave the watchdog to do its work.
            .process_group(0)
            .spawn()?;
        let commands = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().expect("its output is a pipe"));
        // From here on the watchdog removes the folder: it is still there when we were killed.
        let folder = folder.keep();
        Ok(Self {
            watchdog: Mutex::new(Watchdog {
                child,
                commands,
                answers,
                server: None,
            }),
            folder,
            port,
        })
    }

    fn pid(&self) -> Option<u32> {
        self.lock().server
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Watchdog> {
        // A test that panicked while it held the lock has left nothing half-done here.
        self.watchdog
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn command(&self, verb: &str) -> Option<u32> {
        let mut watchdog = self.lock();
        let mut answer = String::new();
        let commands = watchdog.commands.as_mut().expect("open until the drop");
        writeln!(commands, "{verb}").expect("the watchdog reads its commands");
        watchdog
            .answers
            .read_line(&mut answer)
            .expect("the watchdog answers its commands");
        watchdog.server = answer.trim().parse().ok();
        watchdog.server
    }

    /// Stops the server's threads and waits until the last of them stands still: the signal is sent
    /// to the process and reaches them one after the other, and one of them may be answering.
    fn pause(&self) {
        let Some(pid) = self.command("pause") else {
            return;
        };
        let deadline = Instant::now() + START_DEADLINE;
        // Systems without this folder have no simple way to ask.
        while let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) {
            // "23 (name of the thread) T …"
            let runs = |stat: String| {
                !stat
                    .rsplit(')')
                    .next()
                    .unwrap_or_default()
                    .starts_with(" T")
            };
            let mut stats = threads
                .flatten()
                .flat_map(|it| fs::read_to_string(it.path().join("stat")));
            if !stats.any(runs) {
                return;
            }
            assert!(Instant::now() < deadline, "mongod does not stand still");
            thread::sleep(POLL_INTERVAL);
        }
    }

    /// Starts the server and waits until it listens.
    fn start(&self) -> Result<(), StartFailure> {
        let log = self.folder.join("log");
        let seen = fs::metadata(&log).map_or(0, |it| it.len());
        self.command("start");
        let deadline = Instant::now() + START_DEADLINE;
        // The log tells what a connection cannot: that it is this server which has the port.
        loop {
            let text = fs::read(&log).unwrap_or_default();
            let text = String::from_utf8_lossy(
                text.get(usize::try_from(seen).expect("a short log")..)
                    .unwrap_or_default(),
            );
            // Numbers of log messages stay the same between releases: "Waiting for connections",
            // "Shutting down".
            if text.contains("\"id\":23016,") {
                return Ok(());
            }
            let exited = text.contains("\"id\":23138,");
            if exited || Instant::now() > deadline {
                let last = text
                    .lines()
                    .rev()
                    .find(|line| line.contains("\"s\":\"E\"") || line.contains("\"s\":\"F\""));
                return Err(StartFailure {
                    reason: format!(
                        "mongod {}: {}",
                        if exited {
                            "ended at once"
                        } else {
                            "did not start in time"
                        },
                        last.or_else(|| text.lines().next_back())
                            .unwrap_or("its log is empty")
                    ),
                    port_taken: text.contains("Address already in use"),
                });
            }
            thread::sleep(POLL_INTERVAL);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let mut watchdog = self.lock();
        // The end of its input is what the watchdog waits for; when it has ended, all is gone.
        drop(watchdog.commands.take());
        let _ = watchdog.child.wait();
    }
}

/// A server in a container.
#[derive(Debug)]
struct Container {
    /// `None` only while it is dropped.
    container: Mutex<Option<ContainerAsync<GenericImage>>>,
    /// Removes the container of a static, or of a process that was killed.
    watchdog: Option<Child>,
    port: u16,
}

type ContainerFuture<'a> =
    std::pin::Pin<Box<dyn Future<Output = testcontainers::core::error::Result<()>> + Send + 'a>>;

impl Container {
    fn launch(options: &MongodOptions) -> Result<Self, String> {
        use std::os::unix::process::CommandExt as _;

        // The port is the same inside and outside, so that the address which the replica set has on
        // record for its member is right for the server itself and for its clients.
        let port = free_port();
        let command = ["mongod".to_owned(), "--bind_ip_all".to_owned()]
            .into_iter()
            .chain(arguments(port, options));
        let request = GenericImage::new("mongo", "6")
            .with_cmd(command)
            .with_mapped_port(port, port.tcp());
        let container = on_fixture_runtime(async move { request.start().await }).map_err(|_| {
            format!(
                "no mongod for the tests: run scripts/install, set {URL_VARIABLE} or {BINARY_VARIABLE}, \
                 put mongod 6.0 or newer on PATH, or start Docker"
            )
        })?;
        let watchdog = Command::new("sh")
            .args([
                "-c",
                "cat; docker rm --force --volumes \"$1\"",
                "watchdog",
                container.id(),
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .ok();
        Ok(Self {
            container: Mutex::new(Some(container)),
            watchdog,
            port,
        })
    }

    fn run(
        &self,
        action: impl for<'a> FnOnce(&'a ContainerAsync<GenericImage>) -> ContainerFuture<'a> + Send,
    ) {
        let guard = self
            .container
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let container = guard.as_ref().expect("there until the drop");
        thread::scope(|scope| {
            scope
                .spawn(|| fixture_runtime().block_on(action(container)))
                .join()
                .expect("no panic")
        })
        .expect("the container obeys");
    }

    fn stop(&self, timeout_seconds: Option<i32>) {
        self.run(|it| Box::pin(it.stop_with_timeout(timeout_seconds)));
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let container = self
            .container
            .get_mut()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .take();
        if let Some(container) = container {
            let _ = on_fixture_runtime(async move { container.rm().await });
        }
        if let Some(mut watchdog) = self.watchdog.take() {
            drop(watchdog.stdin.take());
            let _ = watchdog.wait();
        }
    }
}

/// The runtime for what the fixtures themselves do; those of the tests end with their tests.
fn fixture_runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("mongod-fixture")
            .enable_all()
            .build()
            .expect("a runtime")
    })
}

/// Blocks until the future is done, also inside of another runtime, where `block_on` panics.
fn on_fixture_runtime<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> T {
    let (sender, receiver) = mpsc::channel();
    fixture_runtime().spawn(async move { sender.send(future.await) });
    receiver.recv().expect("the fixture does not panic")
}

async fn hello(client: &Client) -> ::mongodb::error::Result<Document> {
    client
        .database("admin")
        .run_command(doc! { "hello": 1 })
        .await
}

/// A client that talks to this one server, whatever state it is in.
async fn direct_client(port: u16) -> ::mongodb::error::Result<Client> {
    let mut options =
        ClientOptions::parse(format!("mongodb://127.0.0.1:{port}/?directConnection=true")).await?;
    // Short, because the callers try again until their own deadline.
    options.server_selection_timeout = Some(Duration::from_millis(500));
    options.connect_timeout = Some(Duration::from_millis(500));
    Client::with_options(options)
}

async fn initiate(port: u16) -> Result<(), String> {
    let members = vec![doc! { "_id": 0, "host": format!("127.0.0.1:{port}") }];
    let command = doc! { "replSetInitiate": { "_id": "rs0", "members": members } };
    let deadline = Instant::now() + START_DEADLINE;
    loop {
        let attempt = async {
            direct_client(port)
                .await?
                .database("admin")
                .run_command(command.clone())
                .await
        };
        let error = match attempt.await {
            Ok(_) => return Ok(()),
            // 23 is AlreadyInitialized: the answer to an earlier attempt was lost.
            Err(error) if matches!(&*error.kind, ::mongodb::error::ErrorKind::Command(it) if it.code == 23) =>
            {
                return Ok(());
            }
            Err(error) => error,
        };
        if Instant::now() > deadline {
            return Err(format!(
                "no mongod for the tests: the replica set cannot be initiated: {error}"
            ));
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// Waits until the server takes writes.
async fn await_ready(port: u16, replica_set: bool) -> Result<(), String> {
    let deadline = Instant::now() + START_DEADLINE;
    let mut client = None;
    loop {
        if client.is_none() {
            client = direct_client(port).await.ok();
        }
        let state = match &client {
            Some(client) => hello(client).await,
            None => return Err("the driver takes no client".into()),
        };
        match &state {
            Ok(hello)
                if hello.get_bool("isWritablePrimary").unwrap_or(false)
                    && hello.contains_key("setName") == replica_set =>
            {
                return Ok(());
            }
            _ if Instant::now() > deadline => {
                return Err(format!(
                    "no mongod for the tests: it does not become primary: {state:?}"
                ));
            }
            _ => tokio::time::sleep(POLL_INTERVAL).await,
        }
    }
}
