use nodestorage::command::DomainCommand;
use serde::{Deserialize, Serialize};

use crate::account::Account;

/// What can be asked of an account.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum AccountCommand {
    OpenAccount {
        owner: String,
        initial_balance: i64,
    },
    DepositMoney {
        amount: i64,
        source: String,
    },
    WithdrawMoney {
        amount: i64,
        purpose: String,
    },
    /// Begins a transfer, which a saga carries out.
    TransferMoney {
        transfer: String,
        to: String,
        amount: i64,
    },
    CloseAccount,
}

impl DomainCommand for AccountCommand {
    type Aggregate = Account;
}

/// Why an account refuses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AccountError {
    #[error("account is not active")]
    Inactive,
    #[error("amount must be positive")]
    Amount,
    #[error("insufficient balance")]
    Balance,
    #[error("no account can hold that much")]
    TooMuch,
}

pub(crate) fn open(owner: &str, initial_balance: i64) -> AccountCommand {
    AccountCommand::OpenAccount {
        owner: owner.to_owned(),
        initial_balance,
    }
}

pub(crate) fn deposit(amount: i64, source: impl Into<String>) -> AccountCommand {
    AccountCommand::DepositMoney {
        amount,
        source: source.into(),
    }
}

pub(crate) fn withdraw(amount: i64, purpose: impl Into<String>) -> AccountCommand {
    AccountCommand::WithdrawMoney {
        amount,
        purpose: purpose.into(),
    }
}
