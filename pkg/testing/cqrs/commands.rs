//! Commands and their dispatcher.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bson::DateTime;
use serde_json::json;

use super::account::{Account, AccountCommand, AccountError, deposit, opening, withdraw};
use super::aggregates::both;
use crate::aggregate::Repository;
use crate::command::{
    Authorize, Command, CommandMessage, CommandOptions, CommandResult, Dispatcher, DomainCommand,
    Middleware, Next, Timeout, Tracing, Validate,
};
use crate::document::{DocumentKey, Version};
use crate::error::{BoxError, Error, ErrorKind};
use crate::event::Metadata;
use crate::storage::{Storage, UpdateError};
use crate::testing::support::{on_backend, open};
use crate::testing::{FixedClock, TestStore};

fn dispatcher(storage: &Storage) -> Dispatcher {
    let accounts = Repository::<Account>::new(storage);
    Dispatcher::builder().aggregate(accounts).unwrap().build()
}

/// Each command has one handler: a second one is refused, whoever it is.
pub async fn a_command_has_one_handler(store: &dyn TestStore) {
    let storage = open(store).await;
    let accounts = Repository::<Account>::new(&storage);
    let none = |command: Command| async move {
        Ok::<_, Error>(CommandResult::of(
            DocumentKey::new("x", command.target()),
            Version::NONE,
        ))
    };
    let builder = || Dispatcher::builder().aggregate(accounts.clone()).unwrap();
    let refused = [
        builder().aggregate(accounts.clone()).err(),
        builder().handler("Deposit", none).err(),
        builder()
            .handler("Audit", none)
            .unwrap()
            .handler("Audit", none)
            .err(),
    ];
    for error in refused {
        assert_eq!(error.unwrap().kind(), ErrorKind::AlreadyRegistered);
    }
}

/// A command without a handler is a typed error.
pub async fn an_unknown_command_is_a_typed_error(store: &dyn TestStore) {
    let storage = open(store).await;
    let error = dispatcher(&storage)
        .dispatch(Command::new("Explode", "a", json!({})))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Some(ErrorKind::UnknownCommand));
    assert!(error.to_string().contains("Explode"), "{error}");
    let nobody = Dispatcher::builder().build();
    let error = nobody.send("a", deposit(1)).await.unwrap_err();
    assert_eq!(error.kind(), Some(ErrorKind::UnknownCommand));
    assert!(error.to_string().contains("Account"), "{error}");
}

/// Data that is not the command's is an error that names the field and shows nothing of the data.
pub async fn malformed_commands_name_the_field(store: &dyn TestStore) {
    let storage = open(store).await;
    let dispatcher = dispatcher(&storage);
    let cases = [
        ("OpenAccount", json!({"owner": "secret"}), "balance"),
        ("OpenAccount", json!({"owner": 4711, "balance": 5}), "owner"),
        (
            "OpenAccount",
            json!({"owner": "Kim", "balance": "secret"}),
            "balance",
        ),
        ("Deposit", json!("secret"), "Deposit"),
        ("Deposit", json!([]), "Deposit"),
        ("Deposit", json!(null), "Deposit"),
        ("CloseAccount", json!({"reason": "secret"}), "CloseAccount"),
    ];
    for (name, data, part) in cases {
        let error = dispatcher
            .dispatch(Command::new(name, "a", data))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), Some(ErrorKind::Serialization), "{error}");
        let text = format!("{error} {:?}", error.storage());
        assert!(text.contains(part) && text.contains(name), "{text}");
        assert!(!text.contains("secret") && !text.contains("4711"), "{text}");
    }
}

/// Typed and by name, a command does the same; a rejection is typed one way and boxed the other.
pub async fn typed_and_named_commands_do_the_same(store: &dyn TestStore) {
    let storage = open(store).await;
    let dispatchers = [
        dispatcher(&storage),
        Dispatcher::builder()
            .aggregate(Repository::<Account>::new(&storage))
            .unwrap()
            .with(Tracing::new())
            .build(),
    ];
    for (id, dispatcher) in ["a", "b"].into_iter().zip(dispatchers) {
        dispatcher.send(id, opening("Kim", 5)).await.unwrap();
        let command = Command::new("Deposit", id, json!({"amount": 5}));
        let done = dispatcher.dispatch(command).await.unwrap();
        assert_eq!((done.version().get(), done.events().len()), (2, 1));
        let error = dispatcher.send(id, withdraw(11)).await.unwrap_err();
        assert_eq!(error.rejected(), Some(&AccountError::Balance));
        let command = Command::new("Withdraw", id, json!({"amount": 11}));
        let error = dispatcher.dispatch(command).await.unwrap_err();
        let UpdateError::Rejected(reason) = error else {
            panic!("{error}");
        };
        assert_eq!(reason.downcast_ref(), Some(&AccountError::Balance));
        // What has no data may come with none of any kind.
        let closed = dispatcher
            .dispatch(Command::new("CloseAccount", id, json!({})))
            .await;
        assert_eq!(closed.unwrap().version().get(), 3);
    }
}

struct PayIn(i64);

impl From<PayIn> for AccountCommand {
    fn from(pay: PayIn) -> Self {
        deposit(pay.0)
    }
}

impl DomainCommand for PayIn {
    type Aggregate = Account;
}

/// A command sent twice under one id runs once, and the second delivery gets the first result: also from
/// many tasks at a time, and when it could not be carried out again.
pub async fn a_command_id_runs_once(store: &dyn TestStore) {
    let storage = open(store).await;
    for (name, accounts) in ["a", "b"].into_iter().zip(both(&storage)) {
        let dispatcher = Dispatcher::builder()
            .aggregate(accounts.clone())
            .unwrap()
            .build();
        let with = |id: &str| CommandOptions::new().with_command_id(format!("{name}-{id}"));
        let opened = dispatcher
            .send_with(name, opening("Kim", 5), with("open"))
            .await
            .unwrap();
        let again = dispatcher
            .send_with(name, opening("Kim", 5), with("open"))
            .await
            .unwrap();
        assert!(again.is_duplicate() && !opened.is_duplicate());
        assert_eq!(
            (again.version(), again.document()),
            (opened.version(), opened.document())
        );
        assert_eq!(again.events(), opened.events());
        let causation = opened.events()[0].metadata().causation.clone();
        assert_eq!(causation, Some(format!("{name}-open")));

        // Twice would be more than there is.
        let sent = (0..16).map(|_| {
            let (dispatcher, options) = (dispatcher.clone(), with("take"));
            tokio::spawn(async move { dispatcher.send_with(name, withdraw(5), options).await })
        });
        let done = futures_util::future::try_join_all(sent).await.unwrap();
        let done: Vec<_> = done.into_iter().collect::<Result<_, _>>().unwrap();
        assert_eq!(done.iter().filter(|done| !done.is_duplicate()).count(), 1);
        assert!(
            done.iter()
                .all(|done| done.version() == 2 && done.events().len() == 1)
        );

        dispatcher
            .send_with(name, PayIn(3), with("pay"))
            .await
            .unwrap();
        // What was rejected left no trace, and is decided anew.
        dispatcher
            .send_with(name, withdraw(4), with("later"))
            .await
            .unwrap_err();
        dispatcher.send(name, deposit(1)).await.unwrap();
        let done = dispatcher
            .send_with(name, withdraw(4), with("later"))
            .await
            .unwrap();
        assert!(!done.is_duplicate());
        assert_eq!(accounts.load(name).await.unwrap().balance, 0);

        for id in ["", &"x".repeat(513), "a\0"] {
            let options = CommandOptions::new().with_command_id(id);
            let error = dispatcher
                .send_with(name, deposit(1), options)
                .await
                .unwrap_err();
            assert_eq!(error.kind(), Some(ErrorKind::InvalidName));
        }
    }
}

/// Many commands with ids of their own on one aggregate all run, once each.
pub async fn many_command_ids_on_one_aggregate(store: &dyn TestStore) {
    let storage = open(store).await;
    for (name, accounts) in ["a", "b"].into_iter().zip(both(&storage)) {
        let dispatcher = Dispatcher::builder()
            .aggregate(accounts.clone())
            .unwrap()
            .build();
        dispatcher.send(name, opening("Kim", 0)).await.unwrap();
        let sent = (0..128).map(|number| {
            let dispatcher = dispatcher.clone();
            tokio::spawn(async move {
                // Each id twice.
                let id = format!("{name}-{}", number / 2);
                let options = CommandOptions::new().with_command_id(id);
                dispatcher.send_with(name, deposit(1), options).await
            })
        });
        let done = futures_util::future::try_join_all(sent).await.unwrap();
        let done: Vec<_> = done.into_iter().collect::<Result<_, _>>().unwrap();
        assert_eq!(done.iter().filter(|done| done.is_duplicate()).count(), 64);
        let account = accounts.load(name).await.unwrap();
        assert_eq!((account.balance, account.version().get()), (64, 65));
    }
}

/// Ids of commands that were carried out before a time are forgotten, and no others.
pub async fn old_command_ids_are_forgotten(store: &dyn TestStore) {
    let clock = Arc::new(FixedClock::at(DateTime::from_millis(1_000)));
    let backend = store.backend().await.unwrap();
    let storage = on_backend(backend, |builder| builder.clock(Arc::clone(&clock))).await;
    let dispatcher = dispatcher(&storage);
    dispatcher.send("a", opening("Kim", 0)).await.unwrap();
    let send = |id: String| {
        let options = CommandOptions::new().with_command_id(id);
        dispatcher.send_with("a", deposit(1), options)
    };
    let sent = (0..600).map(|number| send(format!("old-{number}")));
    futures_util::future::try_join_all(sent).await.unwrap();
    clock.advance(Duration::from_secs(10));
    assert!(!send("new".into()).await.unwrap().is_duplicate());
    let before = DateTime::from_millis(5_000);
    assert_eq!(storage.forget_commands(before).await.unwrap(), 600);
    assert_eq!(storage.forget_commands(before).await.unwrap(), 0);
    assert!(send("new".into()).await.unwrap().is_duplicate());
    assert!(!send("old-7".into()).await.unwrap().is_duplicate());
    assert_eq!(
        storage
            .load::<Account>("accounts", "a")
            .await
            .unwrap()
            .balance,
        602
    );
}

/// Command ids are remembered after a restart.
pub async fn a_command_id_is_remembered_after_a_restart(store: &dyn TestStore) {
    let storage = open(store).await;
    let options = || CommandOptions::new().with_command_id("open");
    let sent = dispatcher(&storage)
        .send_with("a", opening("Kim", 5), options())
        .await;
    sent.unwrap();
    storage.close().await;
    store.reopen().await.unwrap();
    let storage = open(store).await;
    let again = dispatcher(&storage)
        .send_with("a", opening("Kim", 5), options())
        .await
        .unwrap();
    assert!(again.is_duplicate());
    assert_eq!(again.events()[0].event_type(), "AccountOpened");
}

struct Note(&'static str, Arc<Mutex<Vec<String>>>);

#[async_trait]
impl Middleware<CommandMessage, CommandResult> for Note {
    async fn handle(
        &self,
        mut message: CommandMessage,
        next: Next<'_, CommandMessage, CommandResult>,
    ) -> Result<CommandResult, BoxError> {
        let line = format!("{} {} {}", self.0, message.name(), message.document());
        self.1.lock().unwrap().push(line);
        message.metadata_mut().tenant = Some("north".into());
        next.run(message).await
    }
}

/// Middleware sees every command, in the order in which it was added, and may refuse it before anything
/// is read.
pub async fn middleware_surrounds_commands(store: &dyn TestStore) {
    let storage = open(store).await;
    let lines = Arc::new(Mutex::new(Vec::new()));
    let dispatcher = Dispatcher::builder()
        .aggregate(Repository::<Account>::new(&storage))
        .unwrap()
        .with(Note("first", Arc::clone(&lines)))
        .with(Note("second", Arc::clone(&lines)))
        .with(Timeout::after(Duration::from_secs(60)))
        .with(Authorize::by(|message: &CommandMessage| {
            match message.metadata().actor {
                Some(_) => Ok(()),
                None => Err("nobody in particular"),
            }
        }))
        .with(Validate::new(|command: &AccountCommand| match command {
            AccountCommand::Deposit { amount: 0 } => Err("nothing to deposit"),
            _ => Ok(()),
        }))
        .build();
    let actor = || CommandOptions::new().with_metadata(Metadata::new().with_actor("teller-7"));
    let opened = dispatcher
        .send_with("a", opening("Kim", 5), actor())
        .await
        .unwrap();
    assert_eq!(
        opened.events()[0].metadata().tenant.as_deref(),
        Some("north")
    );
    let expected = [
        "first OpenAccount accounts/a",
        "second OpenAccount accounts/a",
    ];
    assert_eq!(*lines.lock().unwrap(), expected);

    let error = dispatcher.send("a", deposit(1)).await.unwrap_err();
    assert_eq!(error.kind(), Some(ErrorKind::Refused));
    assert!(
        error.to_string().contains("nobody in particular"),
        "{error}"
    );
    let error = dispatcher
        .send_with("a", deposit(0), actor())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Some(ErrorKind::Refused));
    let command = Command::new("Deposit", "a", json!({"amount": 0})).with_options(actor());
    let error = dispatcher.dispatch(command).await.unwrap_err();
    assert_eq!(error.kind(), Some(ErrorKind::Refused));
    assert!(error.to_string().contains("nothing to deposit"), "{error}");
    // Rejections pass through unchanged.
    let error = dispatcher
        .send_with("a", withdraw(6), actor())
        .await
        .unwrap_err();
    assert_eq!(error.rejected(), Some(&AccountError::Balance));
}

/// Handlers of the application's own get what has their name; one that panics or takes too long is an
/// error.
pub async fn handlers_of_the_applications_own(store: &dyn TestStore) {
    let storage = open(store).await;
    let theme = {
        let storage = storage.clone();
        move |command: Command| {
            let storage = storage.clone();
            async move {
                let set = |_: Option<serde_json::Value>| command.data().clone();
                let change = storage.update("themes", command.target(), set).await?;
                Ok::<_, Error>(CommandResult::from(change))
            }
        }
    };
    let panicking = |_: Command| async { panic!("as it was told") };
    let panicking = move |command: Command| {
        let handling: std::pin::Pin<Box<dyn Future<Output = Result<CommandResult, Error>> + Send>> =
            Box::pin(panicking(command));
        handling
    };
    let waiting = |_: Command| std::future::pending::<Result<CommandResult, Error>>();
    let dispatcher = Dispatcher::builder()
        .handler("SetTheme", theme)
        .unwrap()
        .handler("Panic", panicking)
        .unwrap()
        .handler("Wait", waiting)
        .unwrap()
        .with(Timeout::after(Duration::from_millis(300)))
        .build();
    let command = Command::new("SetTheme", "kim", json!({"color": "blue"}));
    let done = dispatcher.dispatch(command).await.unwrap();
    assert_eq!(done.document(), &DocumentKey::new("themes", "kim"));
    assert_eq!(done.events()[0].event_type(), "ThemesCreated");
    for (name, kind) in [("Panic", ErrorKind::Panicked), ("Wait", ErrorKind::Timeout)] {
        let command = Command::new(name, "kim", json!(null));
        let error = dispatcher.dispatch(command).await.unwrap_err();
        assert_eq!(error.kind(), Some(kind));
        assert!(error.to_string().contains(name), "{error}");
    }
}
