//! Money transferred between two accounts by a saga: what the cases and the fault tests run.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::saga::{Saga, Step, StepContext, StepError};
use crate::storage::Storage;

/// Where the accounts are.
pub const ACCOUNTS: &str = "accounts";

/// An account that knows what has been done to it, so that nothing is done twice.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(clippy::exhaustive_structs, reason = "a document of the tests")]
pub struct Account {
    /// Cents.
    pub balance: i64,
    /// By effect id, what it changed: 0 if it was compensated before it came.
    pub effects: BTreeMap<String, i64>,
}

impl Account {
    /// Adds an amount, which may be negative, unless that was done before.
    fn apply(mut self, effect: &str, amount: i64) -> Result<Self, StepError> {
        if self.effects.contains_key(effect) {
            return Ok(self);
        }
        if self.balance + amount < 0 {
            return Err(StepError::rejected("too little money"));
        }
        self.balance += amount;
        self.effects.insert(effect.to_owned(), amount);
        Ok(self)
    }

    /// Takes back what an effect did, or keeps it from happening, unless that was done before.
    fn undo(mut self, action: &str, effect: &str) -> Self {
        if !self.effects.contains_key(effect) {
            let amount = *self.effects.entry(action.to_owned()).or_default();
            self.balance -= amount;
            self.effects.insert(effect.to_owned(), -amount);
        }
        self
    }
}

/// A transfer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(clippy::exhaustive_structs, reason = "a document of the tests")]
pub struct Transfer {
    /// The paying account.
    pub from: String,
    /// The account that is paid.
    pub to: String,
    /// Cents.
    pub amount: i64,
}

/// Debits the one account, credits the other one, which must exist. `before` and `after` are called
/// around what each step does, with its effect id: for tests that have something go wrong there.
pub fn transfer(
    storage: &Storage,
    before: impl Fn(&str) + Clone + Send + Sync + 'static,
    after: impl Fn(&str) + Clone + Send + Sync + 'static,
) -> Saga<Transfer> {
    let act = |name: &'static str, work: fn(&Transfer) -> (String, i64)| {
        let around = (before.clone(), after.clone());
        let (storage, undoing) = (storage.clone(), (storage.clone(), around.clone()));
        let step = Step::new(name, move |ctx: StepContext<Transfer>| {
            let (storage, (before, after)) = (storage.clone(), around.clone());
            async move {
                before(ctx.effect_id());
                let (account, amount) = work(ctx.data());
                storage
                    .update_with(ACCOUNTS, account.as_str(), options(&ctx), |found, _| {
                        let account: Option<Account> = found;
                        let account = account.ok_or(StepError::rejected("no such account"))?;
                        account.apply(ctx.effect_id(), amount)
                    })
                    .await
                    .map_err(flatten)?;
                after(ctx.effect_id());
                Ok(())
            }
        });
        step.compensate_with(move |ctx: StepContext<Transfer>| {
            let (storage, (before, after)) = undoing.clone();
            async move {
                before(ctx.effect_id());
                let (account, _) = work(ctx.data());
                storage
                    .update_with(ACCOUNTS, account.as_str(), options(&ctx), |found, _| {
                        let account: Option<Account> = found;
                        let account = account.ok_or(StepError::rejected("no such account"))?;
                        Ok(account.undo(ctx.action_id(), ctx.effect_id()))
                    })
                    .await
                    .map_err(flatten)?;
                after(ctx.effect_id());
                Ok(())
            }
        })
    };
    Saga::new("transfer")
        .step(act("debit", |transfer| {
            (transfer.from.clone(), -transfer.amount)
        }))
        .step(act("credit", |transfer| {
            (transfer.to.clone(), transfer.amount)
        }))
}

fn options(ctx: &StepContext<Transfer>) -> crate::UpdateOptions {
    crate::UpdateOptions::new().with_metadata(ctx.metadata())
}

/// The closure's own error is one already.
fn flatten(error: crate::UpdateError<StepError>) -> StepError {
    error.flatten()
}

/// A transfer without anything around its steps.
#[must_use]
pub fn plain_transfer(storage: &Storage) -> Saga<Transfer> {
    transfer(storage, |_| {}, |_| {})
}

/// Opens an account.
///
/// # Errors
/// Those of the storage.
pub async fn open_account(storage: &Storage, id: &str, balance: i64) -> Result<()> {
    let opened = storage.update(ACCOUNTS, id, |found: Option<Account>| {
        found.unwrap_or(Account {
            balance,
            effects: BTreeMap::new(),
        })
    });
    opened.await.map(|_| ())
}

/// An account that exists.
///
/// # Errors
/// Those of the storage.
pub async fn account(storage: &Storage, id: &str) -> Result<Account> {
    Ok(storage.load::<Account>(ACCOUNTS, id).await?.into_inner())
}
