//! Relays and consumers as processes to kill.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nodestorage::bus::{EventBusExt, StartFrom, Subscription, SubscriptionState};
use nodestorage::relay::{RelayOptions, RelayState};
use nodestorage::{Event, Storage};

use crate::broker::connect;
use crate::handled::Pen;

const ROLE: &str = "NODESTORAGE_TEST_CHILD_ROLE";
const STORE: &str = "NODESTORAGE_TEST_CHILD_STORE";
const BROKER: &str = "NODESTORAGE_TEST_CHILD_BROKER";
const FILE: &str = "NODESTORAGE_TEST_CHILD_FILE";

/// Events that a consumer handles at a time.
const WORKERS: usize = 8;

/// What a process does until it is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Publishes the log.
    Relay,
    /// Is a member of the group and writes down what it handles.
    Consumer,
}

/// Where everything is.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) store: String,
    pub(crate) broker: String,
    pub(crate) handled: PathBuf,
}

/// A running process. Dropping it kills it.
pub(crate) struct Process {
    child: Child,
    role: Role,
}

impl Process {
    pub(crate) fn start(role: Role, place: &Place) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "process::works_until_it_is_killed", "--ignored"])
            .env(ROLE, format!("{role:?}"))
            .env(STORE, &place.store)
            .env(BROKER, &place.broker)
            .env(FILE, &place.handled)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, role }
    }

    /// Stops it where it is, or lets it go on.
    pub(crate) fn signal(&self, name: &str) {
        // The shell's own, as a machine need not have the program.
        let kill = format!("kill -{name} {}", self.child.id());
        let sent = Command::new("sh").args(["-c", &kill]).status();
        assert!(sent.unwrap().success(), "a {:?} is gone", self.role);
    }

    pub(crate) fn is_running(&mut self) {
        let ended = self.child.try_wait().unwrap();
        assert!(ended.is_none(), "a {:?} ended with {ended:?}", self.role);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What relays, and who asks after them, have in common.
pub(crate) fn relay_options() -> RelayOptions {
    RelayOptions::new().with_lease_ttl(Duration::from_secs(1))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a process of the tests here, which kill it"]
async fn works_until_it_is_killed() {
    let variable = |name: &str| std::env::var(name).expect("run by the tests of this binary");
    let parent = std::os::unix::process::parent_id();
    let orphaned = || std::os::unix::process::parent_id() != parent;
    let broker = variable(BROKER);
    match variable(ROLE).as_str() {
        "Relay" => relay(&variable(STORE), &broker, orphaned).await,
        "Consumer" => consume(&broker, Path::new(&variable(FILE)), orphaned).await,
        role => panic!("no process is a {role}"),
    }
}

async fn relay(store: &str, broker: &str, orphaned: impl Fn() -> bool) {
    let storage = Storage::builder()
        .url(store)
        .shared_bus(connect(broker).await)
        .relay_options(relay_options())
        .open()
        .await
        .unwrap();
    while !orphaned() {
        let state = storage.relay().unwrap().state();
        assert!(!matches!(state, RelayState::Stopped(_)), "{state:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn consume(broker: &str, file: &Path, orphaned: impl Fn() -> bool) {
    let bus = connect(broker).await;
    // A broker that has just died is waited for.
    let subscription = loop {
        let pen = Pen::open(file);
        let subscription = Subscription::to_all()
            .with_group("audit")
            .with_start(StartFrom::Beginning)
            .with_workers(WORKERS);
        let handler = move |event: Event| {
            pen.write(&event);
            std::future::ready(())
        };
        match bus.subscribe(subscription, handler).await {
            Ok(handle) => break handle,
            Err(error) => assert!(error.is_retryable() && !orphaned(), "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    while !orphaned() {
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(subscription.state(), SubscriptionState::Running);
    }
}
