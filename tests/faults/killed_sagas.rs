//! kill -9 of what carries sagas out: before and after every step's effect, and at any moment. Every
//! transfer is made once or not at all, and the sum of the balances stays.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use nodestorage::Storage;
use nodestorage::saga::{SagaOptions, SagaStatus, Sagas};
use nodestorage::testing::cqrs::transfer::{ACCOUNTS, Account, Transfer, open_account, transfer};

use crate::chance::{below, moment, rounds, server, with_database};
use crate::load::patient;

const CHILD_URL: &str = "NODESTORAGE_TEST_CHILD_URL";
const CHILD_TRANSFERS: &str = "NODESTORAGE_TEST_CHILD_TRANSFERS";
/// Where the process stops until it is killed: `before` or `after` an effect.
const CHILD_STOPS: &str = "NODESTORAGE_TEST_CHILD_STOPS";

const IDS: [&str; 3] = ["a", "b", "c"];
const OPENING_BALANCE: i64 = 500;

/// Longer than a run takes on a machine that is very busy.
const LONGEST: Duration = Duration::from_secs(240);

/// Every fifth transfer goes to nobody; now and then an account has too little money.
fn nth(n: usize) -> Transfer {
    Transfer {
        from: IDS[n % 3].to_owned(),
        to: match n % 5 {
            4 => "nobody".to_owned(),
            _ => IDS[(n + 1 + n / 3 % 2) % 3].to_owned(),
        },
        amount: 40 + (n as i64 * 37) % 150,
    }
}

async fn open(url: &str) -> Storage {
    let storage = Storage::builder().url(url).retry(patient());
    storage.open().await.unwrap()
}

/// A process that makes transfers. Dropping it kills it.
struct Bank {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Bank {
    fn start(url: &str, transfers: usize, stops: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "killed_sagas::transfers_until_it_is_killed"])
            .args(["--ignored", "--nocapture"])
            .env(CHILD_URL, url)
            .env(CHILD_TRANSFERS, transfers.to_string())
            .env(CHILD_STOPS, stops)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// Reads what it prints up to this line.
    #[track_caller]
    fn until(&mut self, wanted: &str) {
        for line in self.lines.by_ref() {
            // The test runner's own words may stand before it.
            if line.unwrap().ends_with(wanted) {
                return;
            }
        }
        panic!("it ended without {wanted:?}: {:?}", self.child.wait());
    }

    /// As a power cut would.
    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Bank {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Stops this thread for good where the parent wants to kill it.
fn stop_at(point: &str, effect: &str) {
    let stops = std::env::var(CHILD_STOPS).unwrap_or_default();
    if stops != format!("{point} {effect}") {
        return;
    }
    say(&format!("stopped {stops}"));
    loop {
        std::thread::park();
    }
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").unwrap();
    out.flush().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "a process of the tests here, which kill it"]
async fn transfers_until_it_is_killed() {
    let url = std::env::var(CHILD_URL).expect("run by the tests here");
    let transfers: usize = std::env::var(CHILD_TRANSFERS).unwrap().parse().unwrap();
    let storage = open(&url).await;
    for id in IDS {
        open_account(&storage, id, OPENING_BALANCE).await.unwrap();
    }
    let saga = transfer(
        &storage,
        |effect| stop_at("before", effect),
        |effect| stop_at("after", effect),
    );
    let sagas = Sagas::new(&storage, saga).unwrap();
    let options = SagaOptions::new()
        .with_concurrency(4)
        .with_lease_ttl(Duration::from_millis(500));
    let runner = sagas.run(options).unwrap();
    say("running");
    for n in 0..transfers {
        sagas.start(&format!("T-{n}"), nth(n)).await.unwrap();
    }
    for n in 0..transfers {
        let ended = sagas.wait(&format!("T-{n}"), LONGEST).await.unwrap();
        assert!(ended.status().is_ended(), "{ended:?}");
    }
    say("done");
    runner.shutdown().await;
    storage.close().await;
}

/// Compares accounts and sagas.
async fn check(what: &str, url: &str, transfers: usize) {
    let storage = open(url).await;
    let sagas = Sagas::new(&storage, transfer(&storage, |_| {}, |_| {})).unwrap();
    let mut accounts: BTreeMap<&str, Account> = BTreeMap::new();
    for id in IDS {
        let account = storage.load::<Account>(ACCOUNTS, id).await.unwrap();
        accounts.insert(id, account.into_inner());
    }
    let sum: i64 = accounts.values().map(|account| account.balance).sum();
    assert_eq!(sum, OPENING_BALANCE * 3, "{what}: sum of the balances");
    for (id, account) in &accounts {
        let effects: i64 = account.effects.values().sum();
        assert_eq!(account.balance, OPENING_BALANCE + effects, "{what}: {id}");
    }
    let (mut completed, mut compensated) = (0, 0);
    for n in 0..transfers {
        let saga = sagas.status(&format!("T-{n}")).await.unwrap().unwrap();
        let transfer = saga.data().unwrap();
        let effect = |account: &str, step: &str| {
            let account = accounts.get(account)?;
            account
                .effects
                .get(&format!("transfer/T-{n}/{step}"))
                .copied()
        };
        let found = (
            effect(&transfer.from, "debit").unwrap_or_default(),
            effect(&transfer.from, "debit/compensate").unwrap_or_default(),
            effect(&transfer.to, "credit").unwrap_or_default(),
        );
        match saga.status() {
            SagaStatus::Completed => {
                completed += 1;
                let expected = (-transfer.amount, 0, transfer.amount);
                assert_eq!(found, expected, "{what}: T-{n}");
            }
            SagaStatus::Compensated => {
                compensated += 1;
                assert_eq!(found.0 + found.1, 0, "{what}: T-{n}");
                assert_eq!(found.2, 0, "{what}: T-{n}");
            }
            other => panic!("{what}: T-{n} is {other}"),
        }
    }
    storage.close().await;
    eprintln!("faults: {what}: {transfers} transfers, {completed} made, {compensated} compensated");
    assert!(completed > 0 && compensated > 0, "{what}");
}

/// Kills a process at each boundary of a transfer that is made, and of one that is compensated.
fn kill_at_boundaries(what: &str, url: &str) {
    const TRANSFERS: usize = 10;
    const POINTS: [(usize, &str); 5] = [
        (0, "debit"),
        (0, "credit"),
        (4, "debit"),
        // It is rejected there, so that only "before" comes.
        (4, "credit"),
        (4, "debit/compensate"),
    ];
    for (n, step) in POINTS {
        for point in ["before", "after"] {
            if (n, step, point) == (4, "credit", "after") {
                continue;
            }
            let stops = format!("{point} transfer/T-{n}/{step}");
            // No later ones, which would go on meanwhile.
            let mut bank = Bank::start(url, n + 1, &stops);
            bank.until(&format!("stopped {stops}"));
            bank.kill();
        }
    }
    Bank::start(url, TRANSFERS, "").until("done");
    runtime().block_on(check(what, url, TRANSFERS));
}

/// Kills processes at any moment, of which `beside` more stand by; each round adds transfers.
fn kill_at_any_moment(what: &str, url: &str, beside: usize) {
    const MORE: usize = 12;
    let mut transfers = 0;
    let mut others: Vec<Bank> = Vec::new();
    for _ in 0..rounds(15) {
        transfers += MORE;
        while others.len() < beside {
            others.push(Bank::start(url, transfers, ""));
        }
        let mut bank = Bank::start(url, transfers, "");
        // Now and then while it opens the store.
        if below(5) > 0 {
            bank.until("running");
        }
        // Up to the end of its predecessor's lease and somewhat longer.
        std::thread::sleep(moment(1_000));
        others.push(bank);
        let victim = usize::try_from(below(others.len() as u64)).unwrap();
        others.swap_remove(victim).kill();
    }
    drop(others);
    Bank::start(url, transfers, "").until("done");
    runtime().block_on(check(what, url, transfers));
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Runtime::new().unwrap()
}

fn in_a_file(test: impl FnOnce(&str)) {
    let folder = tempfile::tempdir().unwrap();
    test(&format!(
        "embedded:{}",
        folder.path().join("store.redb").display()
    ));
}

#[test]
fn sagas_killed_at_every_boundary_end_in_a_file() {
    in_a_file(|url| kill_at_boundaries("sagas_killed_at_every_boundary_end_in_a_file", url));
}

#[test]
fn sagas_killed_at_every_boundary_end_in_mongodb() {
    let mongod = server();
    let url = with_database(mongod.url(), "sagas", "");
    kill_at_boundaries("sagas_killed_at_every_boundary_end_in_mongodb", &url);
}

#[test]
fn sagas_killed_at_any_moment_end_in_a_file() {
    in_a_file(|url| kill_at_any_moment("sagas_killed_at_any_moment_end_in_a_file", url, 0));
}

#[test]
fn sagas_killed_at_any_moment_end_in_mongodb() {
    let mongod = server();
    let url = with_database(mongod.url(), "sagas", "");
    kill_at_any_moment("sagas_killed_at_any_moment_end_in_mongodb", &url, 1);
}
