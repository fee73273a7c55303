use nodestorage::error::BoxError;
use nodestorage::projection::Projection;
use nodestorage::{DocumentId, Event};
use serde::{Deserialize, Serialize};

use crate::account::Status;
use crate::events::AccountEvent;

/// An account as lists show it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct AccountSummary {
    pub(crate) owner: String,
    pub(crate) balance: i64,
    pub(crate) status: Status,
    /// How many times money came or went.
    pub(crate) transaction_count: u64,
}

/// Keeps one summary per account.
pub(crate) struct Summaries;

impl Projection for Summaries {
    type View = AccountSummary;

    fn name(&self) -> &str {
        "account_summaries"
    }

    fn handles(&self, _event_type: &str, collection: &str) -> bool {
        collection == "accounts"
    }

    fn apply(
        &self,
        _: &DocumentId,
        view: Option<AccountSummary>,
        event: &Event,
    ) -> Result<Option<AccountSummary>, BoxError> {
        let mut view = view.unwrap_or_default();
        match event.typed()? {
            AccountEvent::AccountOpened {
                owner,
                initial_balance,
            } => {
                view.owner = owner;
                view.balance = initial_balance;
                view.status = Status::Active;
            }
            AccountEvent::MoneyDeposited { amount, .. } => {
                view.balance += amount;
                view.transaction_count += 1;
            }
            AccountEvent::MoneyWithdrawn { amount, .. } => {
                view.balance -= amount;
                view.transaction_count += 1;
            }
            AccountEvent::TransferInitiated { .. } => {}
            AccountEvent::AccountClosed => view.status = Status::Closed,
        }
        Ok(Some(view))
    }
}
