//! Aggregates whose state is a document.

use std::sync::Arc;

use bson::DateTime;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::account::{Account, AccountCommand, AccountError, deposit, opening, withdraw};
use crate::aggregate::{
    Aggregate, AggregateFactory, CommandOptions, DecideContext, InlineProjection, Repository,
};
use crate::document::{DocumentId, DocumentKey};
use crate::error::{Error, ErrorKind};
use crate::event::{EventRegistry, UnknownEvents, Upcaster};
use crate::history::VersionRange;
use crate::storage::{RetryPolicy, Storage, UpdateError};
use crate::testing::support::{on_backend, open};
use crate::testing::{Fault, FaultyBackend, TestStore, check_log};

/// Both ways to keep aggregates, on stores of their own names.
pub(super) fn both(storage: &Storage) -> [Repository<Account>; 2] {
    let documents = Repository::new(storage);
    let events = Repository::new(storage)
        .event_sourced()
        .with_snapshot_every(4);
    [documents, events]
}

async fn run(
    accounts: &Repository<Account>,
    id: &str,
    command: AccountCommand,
) -> Result<u64, UpdateError<AccountError>> {
    let done = accounts
        .execute(id, &command, CommandOptions::new())
        .await?;
    Ok(done.version().get())
}

/// A command changes the state, and its events are logged with the aggregate's type; nothing is mapped.
pub async fn a_command_changes_the_state_and_logs_its_events(store: &dyn TestStore) {
    let storage = open(store).await;
    let accounts = Repository::<Account>::new(&storage);
    let options = CommandOptions::new();
    let opened = accounts
        .execute("a", &opening("Kim", 100), options)
        .await
        .unwrap();
    assert_eq!(opened.version(), 1);
    assert!(!opened.is_duplicate());
    let event = &opened.events()[0];
    assert_eq!(
        (event.event_type(), event.aggregate_type()),
        ("AccountOpened", "Account")
    );
    assert_eq!(event.data(), &json!({"owner": "Kim", "balance": 100}));
    assert_eq!(opened.events().len(), 1);

    assert_eq!(run(&accounts, "a", deposit(50)).await.unwrap(), 2);
    let account = accounts.load("a").await.unwrap();
    assert_eq!((account.balance, account.version().get()), (150, 2));
    let log = check_log(storage.backend().as_ref(), opened.document()).await;
    assert_eq!(log.versions(), [1, 2]);

    // One without events changes nothing.
    let looked = accounts
        .execute("a", &AccountCommand::Look, CommandOptions::new())
        .await
        .unwrap();
    assert_eq!(looked.version(), 2);
    assert!(looked.events().is_empty());
}

/// A rejected command writes nothing, and its error arrives typed.
pub async fn a_rejected_command_writes_nothing(store: &dyn TestStore) {
    let storage = open(store).await;
    for (name, accounts) in ["a", "b"].into_iter().zip(both(&storage)) {
        let error = run(&accounts, name, deposit(5)).await.unwrap_err();
        assert_eq!(error.rejected(), Some(&AccountError::Inactive));
        assert!(accounts.find(name).await.unwrap().is_none());
        run(&accounts, name, opening("Kim", 10)).await.unwrap();
        let error = run(&accounts, name, withdraw(11)).await.unwrap_err();
        assert_eq!(error.rejected(), Some(&AccountError::Balance));
        let account = accounts.load(name).await.unwrap();
        assert_eq!((account.balance, account.version().get()), (10, 1));
    }
    let key = DocumentKey::new("accounts", "a");
    let log = check_log(storage.backend().as_ref(), &key).await;
    assert_eq!(log.versions(), [1]);
}

/// What is loaded is what the events lead to, at every version.
pub async fn the_document_is_what_the_events_lead_to(store: &dyn TestStore) {
    let storage = open(store).await;
    let accounts = Repository::<Account>::new(&storage).with_snapshot_every(3);
    run(&accounts, "a", opening("Kim", 0)).await.unwrap();
    for amount in 1..=10 {
        run(&accounts, "a", deposit(amount)).await.unwrap();
    }
    let loaded = accounts.load("a").await.unwrap();
    assert_eq!(accounts.rebuild("a").await.unwrap().unwrap(), loaded);
    assert!(accounts.verify("a").await.unwrap().agrees());
    for version in 1..=11_u64 {
        let state = accounts.load_at("a", version).await.unwrap().unwrap();
        let sum: i64 = (1..i64::try_from(version).unwrap()).sum();
        assert_eq!((state.balance, state.version().get()), (sum, version));
    }
    let error = accounts.load_at("a", 12).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let before = DateTime::from_millis(0);
    assert!(accounts.load_at_time("a", before).await.unwrap().is_none());
    let later = DateTime::from_millis(DateTime::now().timestamp_millis() + 60_000);
    let at = accounts.load_at_time("a", later).await.unwrap().unwrap();
    assert_eq!(at, loaded);
    // Every third version holds the whole state.
    let log = check_log(
        storage.backend().as_ref(),
        &DocumentKey::new("accounts", "a"),
    )
    .await;
    let whole = log.entries.iter().filter(|entry| entry.after.is_some());
    let whole: Vec<_> = whole.map(|entry| entry.version.get()).collect();
    assert_eq!(whole, [1, 3, 6, 9]);
}

/// A state that was changed past its events is told by the field.
pub async fn a_state_that_parts_from_its_events_is_found(store: &dyn TestStore) {
    let storage = open(store).await;
    let accounts = Repository::<Account>::new(&storage);
    run(&accounts, "a", opening("Kim", 7)).await.unwrap();
    storage
        .collection::<Account>("accounts")
        .modify("a", |account| account.balance = 8)
        .await
        .unwrap();
    // The mapper's event is none of the aggregate's.
    let error = accounts.verify("a").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Serialization);
    assert!(error.to_string().contains("AccountsUpdated"), "{error}");

    let silent = |_: &crate::event::ChangeView<'_>| Ok(Vec::new());
    let storage = on_backend(store.backend().await.unwrap(), |builder| {
        builder.mapper("accounts", silent)
    })
    .await;
    let accounts = Repository::<Account>::new(&storage);
    run(&accounts, "b", opening("Kim", 7)).await.unwrap();
    storage
        .collection::<Account>("accounts")
        .modify("b", |account| account.balance = 8)
        .await
        .unwrap();
    let verified = accounts.verify("b").await.unwrap();
    assert_eq!(verified.difference.as_deref(), Some("/balance"));
    assert_eq!(verified.version, 2);
}

/// Commands on one aggregate from many tasks are all carried out, each on the state it was decided on.
pub async fn conflicting_commands_are_decided_again(store: &dyn TestStore) {
    let storage = open(store).await;
    for (name, tasks, accounts) in [("a", 64, 0), ("b", 64, 1)]
        .map(|(name, tasks, index)| (name, tasks, both(&storage)[index].clone()))
    {
        run(&accounts, name, opening("Kim", 10)).await.unwrap();
        let mut running = tokio::task::JoinSet::new();
        for _ in 0..tasks {
            let accounts = accounts.clone();
            running.spawn(async move { run(&accounts, name, withdraw(1)).await });
        }
        let done = running.join_all().await;
        let (taken, refused): (Vec<_>, Vec<_>) = done.into_iter().partition(Result::is_ok);
        let most = 10.min(tasks);
        assert_eq!((taken.len(), refused.len()), (most, tasks - most));
        for refusal in refused {
            let error = refusal.unwrap_err();
            assert_eq!(error.rejected(), Some(&AccountError::Balance), "{error}");
        }
        let account = accounts.load(name).await.unwrap();
        assert_eq!(account.version().get(), 1 + most as u64);
        assert_eq!(account.balance, 10 - most as i64);
    }
}

/// Deciding again ends where the retry policy says.
pub async fn deciding_again_is_bounded(store: &dyn TestStore) {
    let faulty = FaultyBackend::new(store.backend().await.unwrap());
    let storage = on_backend(Arc::clone(&faulty) as _, |builder| builder).await;
    let accounts = Repository::<Account>::new(&storage);
    run(&accounts, "a", opening("Kim", 10)).await.unwrap();
    faulty.fail_with([Fault::Conflict; 3]);
    let retry = RetryPolicy::default().with_conflict_attempts(3);
    let options = CommandOptions::new().with_retry(retry);
    let error = accounts
        .execute("a", &deposit(1), options)
        .await
        .unwrap_err();
    assert_eq!(
        error.kind(),
        Some(ErrorKind::RetriesExhausted { attempts: 3 })
    );
    assert_eq!(faulty.faults_left(), 0);
    assert_eq!(accounts.load("a").await.unwrap().balance, 10);
}

/// Of many creating commands one wins; the others are never decided again.
pub async fn of_many_creating_commands_one_wins(store: &dyn TestStore) {
    let storage = open(store).await;
    for (name, accounts) in ["a", "b"].into_iter().zip(both(&storage)) {
        let mut running = tokio::task::JoinSet::new();
        for number in 0..32 {
            let accounts = accounts.clone();
            running.spawn(async move { run(&accounts, name, opening("Kim", number)).await });
        }
        let done = running.join_all().await;
        assert_eq!(done.iter().filter(|done| done.is_ok()).count(), 1);
        for error in done.into_iter().filter_map(Result::err) {
            assert_eq!(error.kind(), Some(ErrorKind::VersionConflict), "{error}");
        }
        assert_eq!(accounts.load(name).await.unwrap().version().get(), 1);
    }
}

/// An aggregate that is gone leaves its log, and can be created again under the next version.
pub async fn a_deleted_aggregate_leaves_its_log(store: &dyn TestStore) {
    let storage = open(store).await;
    for (name, accounts) in ["a", "b"].into_iter().zip(both(&storage)) {
        run(&accounts, name, opening("Kim", 5)).await.unwrap();
        run(&accounts, name, AccountCommand::EraseAccount)
            .await
            .unwrap();
        assert!(accounts.find(name).await.unwrap().is_none());
        assert!(accounts.rebuild(name).await.unwrap().is_none());
        assert!(accounts.verify(name).await.unwrap().agrees());
        assert_eq!(run(&accounts, name, opening("Lee", 6)).await.unwrap(), 3);
        let account = accounts.load(name).await.unwrap();
        assert_eq!((account.owner.as_str(), account.balance), ("Lee", 6));
        assert_eq!(accounts.rebuild(name).await.unwrap().unwrap(), account);
        let first = accounts.load_at(name, 1).await.unwrap().unwrap();
        assert_eq!(first.owner, "Kim");
        assert!(accounts.load_at(name, 2).await.unwrap().is_none());
        let page = accounts.events(name, VersionRange::new()).await.unwrap();
        let types: Vec<_> = page.items.iter().map(|event| event.event_type()).collect();
        assert_eq!(types, ["AccountOpened", "AccountErased", "AccountOpened"]);
    }
}

/// A `decide` or `apply` that panics is an error, writes nothing, and leaves everything usable.
pub async fn a_panicking_aggregate_is_an_error(store: &dyn TestStore) {
    let storage = open(store).await;
    for (name, accounts) in ["a", "b"].into_iter().zip(both(&storage)) {
        run(&accounts, name, opening("Kim", 5)).await.unwrap();
        for command in [AccountCommand::PanicDeciding, AccountCommand::PanicApplying] {
            let error = run(&accounts, name, command).await.unwrap_err();
            assert_eq!(error.kind(), Some(ErrorKind::Panicked));
            assert!(
                error.to_string().contains(&format!("accounts/{name}")),
                "{error}"
            );
        }
        assert_eq!(run(&accounts, name, deposit(1)).await.unwrap(), 2);
    }
}

/// Older events are brought up to the current schema when a state is rebuilt; an event that is newer
/// than the code is a typed error.
pub async fn events_of_other_schemas_are_upcast_or_refused(store: &dyn TestStore) {
    let storage = open(store).await;
    let emit = |event: &'static str, schema: u32, data: serde_json::Value| {
        let storage = storage.clone();
        async move {
            let options = crate::storage::UpdateOptions::new();
            let update = |_: Option<Account>, ctx: &mut crate::storage::UpdateContext| {
                let event = crate::event::NewEvent::new(event, data.clone())?;
                ctx.emit(event.with_schema(schema));
                Ok::<Option<Account>, Error>(None)
            };
            storage
                .update_with("accounts", "a", options, update)
                .await
                .unwrap();
        }
    };
    emit("AccountOpenedV0", 1, json!({"name": "Kim"})).await;
    emit("MoneyDeposited", 1, json!({"amount": 3})).await;
    let registry = EventRegistry::new(UnknownEvents::Pass)
        .with_upcaster(Upcaster::renaming(
            "AccountOpenedV0",
            1,
            "AccountOpened",
            1,
            |data| Ok(json!({"owner": data["name"], "balance": 1})),
        ))
        .unwrap();
    let accounts = Repository::<Account>::new(&storage).event_sourced();
    let error = accounts.rebuild("a").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Serialization);
    assert!(error.to_string().contains("AccountOpenedV0"), "{error}");
    let accounts = accounts.with_registry(Arc::new(registry));
    let account = accounts.load("a").await.unwrap();
    assert_eq!((account.owner.as_str(), account.balance), ("Kim", 4));

    emit(
        "MoneyDeposited",
        2,
        json!({"amount": {"value": 3, "currency": "KRW"}}),
    )
    .await;
    let error = accounts.load("a").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Serialization);
    assert!(
        error.to_string().contains("schema 2, newer than 1"),
        "{error}"
    );
    let error = run(&accounts, "a", deposit(1)).await.unwrap_err();
    assert_eq!(error.kind(), Some(ErrorKind::Serialization));
}

#[derive(Debug)]
struct Statements;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Statement {
    line: String,
}

impl InlineProjection<Account> for Statements {
    type View = Statement;

    fn name(&self) -> &str {
        "statements"
    }

    fn project(&self, id: &DocumentId, state: &Account) -> Option<Statement> {
        let line = format!("{id}: {} has {}", state.owner, state.balance);
        state.active.then_some(Statement { line })
    }
}

/// Inline views are written with the commit and deleted when there is nothing to show.
pub async fn inline_views_are_never_behind(store: &dyn TestStore) {
    let storage = open(store).await;
    for (name, accounts) in ["a", "b"].into_iter().zip(both(&storage)) {
        let error = accounts.inline_view(&Statements, name).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        let accounts = accounts.with_inline(Statements);
        assert_eq!(accounts.inline_view(&Statements, name).await.unwrap(), None);
        run(&accounts, name, opening("Kim", 1)).await.unwrap();
        let tasks = (0..8).map(|_| run(&accounts, name, deposit(1)));
        futures_util::future::try_join_all(tasks).await.unwrap();
        let view = accounts
            .inline_view(&Statements, name)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(view.line, format!("{name}: Kim has 9"));
        run(&accounts, name, AccountCommand::CloseAccount)
            .await
            .unwrap();
        assert_eq!(accounts.inline_view(&Statements, name).await.unwrap(), None);
    }
}

/// Commands on several aggregates take effect together or not at all.
pub async fn commands_take_part_in_transactions(store: &dyn TestStore) {
    let storage = open(store).await;
    let accounts = Repository::<Account>::new(&storage);
    run(&accounts, "a", opening("Kim", 10)).await.unwrap();
    run(&accounts, "b", opening("Lee", 0)).await.unwrap();
    let transfer = |amount: i64| {
        let accounts = accounts.clone();
        storage.transaction(move |tx| {
            let accounts = accounts.clone();
            async move {
                let metadata = crate::event::Metadata::new().with_correlation("transfer");
                accounts
                    .execute_in(&tx, "b", &deposit(amount), metadata.clone())
                    .await?;
                accounts
                    .execute_in(&tx, "a", &withdraw(amount), metadata)
                    .await
            }
        })
    };
    transfer(4).await.unwrap();
    let error = transfer(7).await.unwrap_err();
    let reason = error.rejected().and_then(UpdateError::rejected);
    assert_eq!(reason, Some(&AccountError::Balance));
    assert_eq!(accounts.load("a").await.unwrap().balance, 6);
    assert_eq!(accounts.load("b").await.unwrap().balance, 4);
    let page = accounts.events("b", VersionRange::new()).await.unwrap();
    let last = page.items.last().unwrap();
    assert_eq!(
        (last.event_type(), last.version().get()),
        ("MoneyDeposited", 2)
    );
    assert_eq!(last.metadata().correlation.as_deref(), Some("transfer"));

    let sourced = Repository::<Account>::new(&storage).event_sourced();
    let refused = storage.transaction(|tx| {
        let sourced = sourced.clone();
        async move {
            let metadata = crate::event::Metadata::new();
            sourced
                .execute_in(&tx, "c", &opening("Kim", 1), metadata)
                .await
        }
    });
    let error = refused.await.unwrap_err();
    let kind = error.rejected().and_then(UpdateError::kind);
    assert_eq!(kind, Some(ErrorKind::Unsupported));
}

/// Aggregates are found by the names of their types, once each.
pub async fn aggregates_are_found_by_name(store: &dyn TestStore) {
    let storage = open(store).await;
    let accounts = Repository::<Account>::new(&storage);
    run(&accounts, "a", opening("Kim", 10)).await.unwrap();
    run(&accounts, "a", deposit(1)).await.unwrap();
    let aggregates = AggregateFactory::new().with(accounts.clone()).unwrap();
    let error = aggregates.clone().with(accounts).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyRegistered);
    let error = aggregates.get("Order").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let found = aggregates.get("Account").unwrap();
    assert_eq!(found.collection(), "accounts");
    assert!(found.commands().contains(&"Deposit"));
    let id = DocumentId::from("a");
    let state = found.find(&id).await.unwrap().unwrap();
    assert_eq!(
        *state,
        json!({"owner": "Kim", "balance": 11, "active": true})
    );
    let first = found.load_at(&id, 1.into()).await.unwrap().unwrap();
    assert_eq!(first["balance"], 10);
    assert_eq!(found.rebuild(&id).await.unwrap().unwrap(), state);
    assert!(found.verify(&id).await.unwrap().agrees());
}

#[derive(Default, Serialize, Deserialize)]
struct Misshapen;

#[derive(Serialize, Deserialize)]
#[serde(tag = "type")]
enum Tagged {
    Done,
}

impl Aggregate for Misshapen {
    const TYPE: &'static str = "Misshapen";
    const COLLECTION: &'static str = "misshapen";
    type Command = AccountCommand;
    type Event = Tagged;
    type Error = AccountError;

    fn decide(&self, _: &AccountCommand, _: &DecideContext) -> Result<Vec<Tagged>, AccountError> {
        Ok(vec![Tagged::Done])
    }

    fn apply(_: Option<Self>, _: &Tagged) -> Self {
        Self
    }
}

/// Events that are tagged in a way the log cannot tell apart are refused before anything is written.
pub async fn events_of_another_form_are_refused(store: &dyn TestStore) {
    let storage = open(store).await;
    let misshapen = Repository::<Misshapen>::new(&storage);
    let command = AccountCommand::Look;
    let error = misshapen
        .execute("a", &command, CommandOptions::new())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Some(ErrorKind::InvalidConfig));
    assert!(error.to_string().contains("Misshapen"), "{error}");
    assert!(misshapen.find("a").await.unwrap().is_none());
}
