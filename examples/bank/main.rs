//! Bank accounts: rules, a ledger and other read models, transfers by transaction and by saga, and the past.
//! Needs no server:
//!
//! ```text
//! cargo run --example bank
//! ```
//!
//! With a database and a broker, each of them empty:
//!
//! ```text
//! cargo run --example bank --features mongodb,nats -- \
//!     --url mongodb://127.0.0.1:27017/bank --bus nats://127.0.0.1:4222
//! ```

mod account;
mod commands;
#[path = "../common/mod.rs"]
mod common;
mod events;
mod ledger;
mod queries;
mod summaries;
mod transfer;

use std::time::Duration;

use nodestorage::aggregate::Repository;
use nodestorage::bus::Subscription;
use nodestorage::command::{CommandOptions, Dispatcher};
use nodestorage::error::BoxError;
use nodestorage::projection::ProjectionOptions;
use nodestorage::saga::{SagaOptions, Sagas};
use nodestorage::{Event, Index, VersionRange};
use tokio::sync::mpsc;

use account::Account;
use commands::{AccountCommand, deposit, open, withdraw};
use common::{builder, heading, summary};
use ledger::Ledger;
use queries::{GetLedger, GetTopAccounts, queries};
use summaries::Summaries;

/// How long to wait for what happens beside: a busy machine takes its time.
const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // Whoever closes an account gets a letter.
    let (outbox, mut letters) = mpsc::channel(16);
    let write_letter = move |event: Event| {
        let outbox = outbox.clone();
        async move {
            let letter = format!("a letter: {} is closed", event.aggregate_id());
            outbox.send(letter).await
        }
    };
    let storage = builder()
        .subscribe(Subscription::to("AccountClosed"), write_letter)
        .open()
        .await?;

    // Accounts are loaded from the stored document. For the past, the whole state is kept every 10 versions,
    // so that no more than 10 log entries are read for any version.
    let accounts = Repository::<Account>::new(&storage).with_snapshot_every(10);
    let dispatcher = Dispatcher::builder().aggregate(accounts.clone())?.build();

    // Read models, which follow the log.
    let options = ProjectionOptions::new().with_index(Index::on("balance"));
    let summaries = storage.project(Summaries, options)?;
    let options = ProjectionOptions::new().with_index(Index::on("account").then("number"));
    let ledger = storage.project(Ledger, options)?;
    let queries = queries(summaries.views(), ledger.views())?;

    heading("Open accounts");
    for (id, owner, balance) in [
        ("ACC-001", "Kim", 1_000),
        ("ACC-002", "Lee", 500),
        ("ACC-003", "Park", 0),
    ] {
        println!(
            "{}",
            summary(&dispatcher.send(id, open(owner, balance)).await?)
        );
    }

    heading("Deposit and withdraw");
    for command in [deposit(500, "ATM"), withdraw(200, "rent")] {
        println!("{}", summary(&dispatcher.send("ACC-001", command).await?));
    }
    let account = accounts.load("ACC-001").await?;
    println!("{} has {} won", account.owner, account.balance);

    heading("Close an account");
    let closed = dispatcher.send("ACC-003", AccountCommand::CloseAccount);
    println!("{}", summary(&closed.await?));
    println!("{}", letters.recv().await.ok_or("no letter")?);

    heading("What an account refuses");
    for (what, id, command) in [
        (
            "deposit on one that was closed",
            "ACC-003",
            deposit(1, "ATM"),
        ),
        ("deposit on one never opened", "ACC-404", deposit(1, "ATM")),
        ("deposit of nothing", "ACC-001", deposit(0, "ATM")),
        ("withdraw too much", "ACC-001", withdraw(9_999, "car")),
        ("open it again", "ACC-001", open("Choi", 1)),
    ] {
        match dispatcher.send(id, command).await {
            Ok(done) => println!("{what}: {}", summary(&done)),
            Err(error) => println!("{what}: {error}"),
        }
    }

    heading("Sent twice, done once");
    let payroll = || CommandOptions::new().with_command_id("payroll-2024-05-kim");
    for _ in 0..2 {
        let salary = deposit(2_000, "payroll");
        let done = dispatcher.send_with("ACC-001", salary, payroll()).await?;
        println!("{}, repeated: {}", summary(&done), done.is_duplicate());
    }

    heading("Transfer in a transaction");
    for amount in [300, 9_999] {
        match transfer::by_transaction(&accounts, "ACC-001", "ACC-002", amount).await {
            Ok(()) => println!("{amount} from ACC-001 to ACC-002: done"),
            Err(error) => println!("{amount} from ACC-001 to ACC-002: {error}"),
        }
    }
    print_balances(&accounts).await?;

    heading("Transfer by a saga");
    let transfers = Sagas::new(&storage, transfer::saga(&dispatcher))?;
    let runner = transfers.run(SagaOptions::new())?;
    for (transfer, to) in [("T-1", "ACC-002"), ("T-2", "ACC-003")] {
        let command = AccountCommand::TransferMoney {
            transfer: transfer.into(),
            to: to.into(),
            amount: 100,
        };
        println!("{}", summary(&dispatcher.send("ACC-001", command).await?));
        let ended = wait(&transfers, transfer).await?;
        println!("{ended}");
    }
    print_balances(&accounts).await?;
    runner.shutdown().await;

    heading("Read models");
    // What was committed before is in the views after this: one reads one's own writes.
    summaries.caught_up(PATIENCE).await?;
    ledger.caught_up(PATIENCE).await?;
    for account in queries.ask(GetTopAccounts { limit: 2 }).await? {
        println!(
            "{}: {} has {} won, {} transactions",
            account.id(),
            account.owner,
            account.balance,
            account.transaction_count
        );
    }
    let account = "ACC-001".to_owned();
    for entry in queries.ask(GetLedger { account }).await? {
        println!(
            "{:>3} {:<10} {:>5}  {}",
            entry.number, entry.kind, entry.amount, entry.note
        );
    }

    heading("Travel back in time");
    for _ in 0..12 {
        dispatcher.send("ACC-002", deposit(10, "interest")).await?;
    }
    let newest = accounts.load("ACC-002").await?;
    for version in [1, 3, 10, newest.version().get()] {
        if let Some(then) = accounts.load_at("ACC-002", version).await? {
            println!("version {version:>2}: {} won", then.balance);
        }
    }
    let first = VersionRange::new().with_to(3);
    for event in accounts.events("ACC-001", first).await?.items {
        println!(
            "ACC-001 version {}: {} {}",
            event.version(),
            event.event_type(),
            event.data()
        );
    }
    if let Some(then) = accounts.load_at("ACC-001", 3).await? {
        println!("ACC-001 at version 3: {} won", then.balance);
    }

    heading("Do the events lead to what is stored?");
    for id in ["ACC-001", "ACC-002", "ACC-003"] {
        let verification = accounts.verify(id).await?;
        println!(
            "{id} at version {}: {}",
            verification.version,
            verification.agrees()
        );
    }

    summaries.shutdown().await;
    ledger.shutdown().await;
    storage.close().await;
    Ok(())
}

async fn print_balances(accounts: &Repository<Account>) -> Result<(), BoxError> {
    let (kim, lee) = (
        accounts.load("ACC-001").await?,
        accounts.load("ACC-002").await?,
    );
    println!(
        "{} has {}, {} has {}",
        kim.owner, kim.balance, lee.owner, lee.balance
    );
    Ok(())
}

/// Waits for the end of a transfer. The event that starts it may still be on its way.
async fn wait(transfers: &Sagas<transfer::Transfer>, id: &str) -> Result<String, BoxError> {
    let started = async {
        while transfers.status(id).await?.is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok::<_, nodestorage::Error>(())
    };
    tokio::time::timeout(PATIENCE, started).await??;
    let ended = transfers.wait(id, PATIENCE).await?;
    Ok(match ended.failure() {
        None => format!("transfer {id} is {}", ended.status()),
        Some(failure) => format!("transfer {id} is {}: {}", ended.status(), failure.reason),
    })
}
