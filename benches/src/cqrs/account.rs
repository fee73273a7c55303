//! A bank account of about 500 bytes, on which deposits are made.

use anyhow::{Context as _, Result, ensure};
use bson::doc;
use fastrand::Rng;
use futures_util::{StreamExt as _, TryStreamExt as _};
use nodestorage::aggregate::{Aggregate, DecideContext, Repository};
use nodestorage::command::{Dispatcher, DomainCommand};
use serde::{Deserialize, Serialize};

use crate::contender::Checked;
use crate::load::Worker;
use crate::mongo::{Database, number};
use crate::user::{Address, StoredUser};

/// How many accounts are opened at a time.
const OPENED_AT_ONCE: usize = 512;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Account {
    profile: Profile,
    pub(crate) balance: i64,
    deposits: i64,
    active: bool,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Profile {
    owner: String,
    email: String,
    address: Address,
    tags: Vec<String>,
    about: String,
}

impl Profile {
    fn new(index: usize) -> Self {
        let user = StoredUser::new(index);
        Self {
            owner: user.name,
            email: user.email,
            address: user.address,
            tags: user.tags,
            about: user.about,
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum AccountCommand {
    OpenAccount { profile: Profile },
    Deposit { amount: i64 },
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum AccountEvent {
    AccountOpened { profile: Profile },
    MoneyDeposited { amount: i64 },
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum AccountError {
    #[error("the account is open already")]
    Open,
    #[error("the account is not active")]
    Inactive,
    #[error("the amount must be positive")]
    Amount,
}

impl Aggregate for Account {
    const TYPE: &'static str = "Account";
    const COLLECTION: &'static str = "accounts";
    type Command = AccountCommand;
    type Event = AccountEvent;
    type Error = AccountError;

    fn decide(
        &self,
        command: &AccountCommand,
        _: &DecideContext,
    ) -> Result<Vec<AccountEvent>, AccountError> {
        let event = match command {
            AccountCommand::OpenAccount { .. } if self.active => return Err(AccountError::Open),
            AccountCommand::OpenAccount { profile } => AccountEvent::AccountOpened {
                profile: profile.clone(),
            },
            AccountCommand::Deposit { .. } if !self.active => return Err(AccountError::Inactive),
            AccountCommand::Deposit { amount } if *amount <= 0 => return Err(AccountError::Amount),
            AccountCommand::Deposit { amount } => AccountEvent::MoneyDeposited { amount: *amount },
        };
        Ok(vec![event])
    }

    fn apply(state: Option<Self>, event: &AccountEvent) -> Self {
        let mut account = state.unwrap_or_default();
        match event {
            AccountEvent::AccountOpened { profile } => {
                account.profile = profile.clone();
                account.active = true;
            }
            AccountEvent::MoneyDeposited { amount } => {
                account.balance += amount;
                account.deposits += 1;
            }
        }
        account
    }

    fn creates(command: &AccountCommand) -> bool {
        matches!(command, AccountCommand::OpenAccount { .. })
    }
}

impl DomainCommand for AccountCommand {
    type Aggregate = Account;
}

pub(crate) fn id(index: usize) -> String {
    format!("account-{index:06}")
}

pub(crate) fn opening(index: usize) -> AccountCommand {
    AccountCommand::OpenAccount {
        profile: Profile::new(index),
    }
}

pub(crate) fn deposit() -> AccountCommand {
    AccountCommand::Deposit { amount: 1 }
}

/// One `Dispatcher::send` of a deposit per operation.
pub(crate) struct Depositing {
    pub(crate) dispatcher: Dispatcher,
    pub(crate) accounts: usize,
    pub(crate) store: Database,
}

impl Depositing {
    /// Opens all accounts, by commands.
    pub(crate) async fn open(
        repository: Repository<Account>,
        accounts: usize,
        store: Database,
    ) -> Result<Self> {
        let dispatcher = Dispatcher::builder().aggregate(repository)?.build();
        let opening = (0..accounts).map(|index| {
            let dispatcher = &dispatcher;
            async move { dispatcher.send(id(index), opening(index)).await.map(|_| ()) }
        });
        futures_util::stream::iter(opening)
            .buffer_unordered(OPENED_AT_ONCE)
            .try_collect::<()>()
            .await
            .context("opening all accounts")?;
        Ok(Self {
            dispatcher,
            accounts,
            store,
        })
    }
}

impl Worker for Depositing {
    async fn step(&self, _: usize, rng: &mut Rng) -> Result<u64> {
        let id = id(rng.usize(0..self.accounts));
        let done = self.dispatcher.send(&id, deposit()).await;
        let done = done.with_context(|| format!("a deposit on {id}"))?;
        std::hint::black_box(done.events());
        Ok(1)
    }
}

impl Checked for Depositing {
    async fn check(&self, acknowledged: u64) -> Result<()> {
        let deposited = i64::try_from(acknowledged)?;
        let accounts = i64::try_from(self.accounts)?;
        let sums = doc! { "$group": {
            "_id": null,
            "balances": { "$sum": "$balance" },
            "deposits": { "$sum": "$deposits" },
            "versions": { "$sum": { "$subtract": ["$version", 1] } },
            "accounts": { "$sum": 1 },
        } };
        let found = self.store.total(Account::COLLECTION, vec![sums]).await?;
        for (what, expected) in [
            ("balances", deposited),
            ("deposits", deposited),
            ("versions", deposited),
            ("accounts", accounts),
        ] {
            let found = number(&found, what);
            ensure!(
                found == expected,
                "{what} of the accounts come to {found}, {expected} were acknowledged"
            );
        }
        let count = vec![doc! { "$count": "entries" }];
        let entries = self.store.total("nodestorage.log", count).await?;
        let (found, expected) = (number(&entries, "entries"), deposited + accounts);
        ensure!(
            found == expected,
            "the log has {found} entries, {expected} were acknowledged"
        );
        Ok(())
    }
}
