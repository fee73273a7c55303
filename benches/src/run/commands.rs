//! Commands: beside the update that does the same, and beside a peer.

use anyhow::Result;
use nodestorage::Storage;
use nodestorage::aggregate::Repository;
use nodestorage::command::Dispatcher;
use serde_json::json;

use super::{Bench, DOCUMENTS, Outcome};
use crate::contender::{Counted, Tasks, alternate};
use crate::cqrs::account::Depositing;
use crate::cqrs::emmett::{self, Emmett};
use crate::cqrs::user::{Sending, Updating, nothing_mapped};
use crate::mongo::{Cache, Database};
use crate::ours::Choice;
use crate::scenario::Plan;
use crate::user::User;

const OURS: &str = "ours";
const THEIRS: &str = "theirs";
/// Enough to see that it works; the peer takes a millisecond for each account that it opens.
const QUICK_ACCOUNTS: usize = 1_000;

impl Bench {
    pub(super) async fn dispatcher_send(&self, plan: &Plan, tasks: usize) -> Result<Outcome> {
        let server = self.server().await?;
        let opening =
            Database::ours_mapped(server, THEIRS, DOCUMENTS, Cache::Warm, Some(nothing_mapped));
        let (their_store, their_storage) = opening.await?;
        let (our_store, our_storage) = Database::ours(server, OURS, DOCUMENTS, Cache::Warm).await?;
        let choice = Choice::any_of(DOCUMENTS);
        let updating = Updating {
            storage: their_storage.clone(),
            choice,
            store: their_store.clone(),
        };
        let users = Repository::<User>::new(&our_storage);
        let sending = Sending {
            dispatcher: Dispatcher::builder().aggregate(users)?.build(),
            choice,
            store: our_store.clone(),
        };
        let theirs = Counted::theirs(Tasks::new(updating, tasks));
        let rounds = alternate(theirs, Counted::ours(Tasks::new(sending, tasks)), plan).await?;
        our_storage.close().await;
        their_storage.close().await;
        our_store.drop().await?;
        their_store.drop().await?;
        Ok(Outcome {
            rounds,
            sides: json!({
                "documents": DOCUMENTS,
                "tasks": tasks,
                "ours": "Dispatcher::send of a typed command, no middleware, no command id, default options",
                "theirs": "Storage::update_with that emits the same event and changes the same fields, \
                           with a mapper that makes no events",
            }),
        })
    }

    pub(super) async fn against_emmett(&self, plan: &Plan, tasks: usize) -> Result<Outcome> {
        let server = self.server().await?;
        let accounts = if plan.quick {
            QUICK_ACCOUNTS
        } else {
            DOCUMENTS
        };
        let their_store = Database::empty(server, THEIRS, tasks).await?;
        let emmett = Emmett::start(their_store.clone(), accounts, tasks).await?;
        let our_store = Database::empty(server, OURS, tasks).await?;
        let storage = Storage::builder().url(&our_store.url).open().await?;
        let repository = Repository::new(&storage);
        let depositing = Depositing::open(repository, accounts, our_store.clone()).await?;
        let theirs = Counted::theirs(emmett);
        let rounds = alternate(theirs, Counted::ours(Tasks::new(depositing, tasks)), plan).await?;
        storage.close().await;
        our_store.drop().await?;
        their_store.drop().await?;
        Ok(Outcome {
            rounds,
            sides: json!({
                "accounts": accounts,
                "command": "a deposit on a random account; each was opened by a command before the first round",
                "ours": "Dispatcher::send, default options",
                "tasks": tasks,
                "theirs": emmett::settings(tasks),
            }),
        })
    }
}
