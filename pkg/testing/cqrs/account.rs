//! The bank account of the cases.

use serde::{Deserialize, Serialize};

use crate::aggregate::{Aggregate, DecideContext};
use crate::command::DomainCommand;

/// A bank account.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Account {
    /// Whose it is.
    pub owner: String,
    /// In the smallest unit of the currency.
    pub balance: i64,
    /// Whether it may be used.
    pub active: bool,
    /// Whether nothing is to be kept of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub erased: bool,
}

/// What can be asked of an account.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum AccountCommand {
    OpenAccount {
        owner: String,
        balance: i64,
    },
    Deposit {
        amount: i64,
    },
    Withdraw {
        amount: i64,
    },
    CloseAccount,
    EraseAccount,
    /// Makes `decide` panic.
    PanicDeciding,
    /// Makes `apply` panic.
    PanicApplying,
    /// Does nothing.
    Look,
}

/// What can happen to an account.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum AccountEvent {
    AccountOpened {
        owner: String,
        balance: i64,
    },
    MoneyDeposited {
        amount: i64,
    },
    MoneyWithdrawn {
        amount: i64,
    },
    AccountClosed,
    AccountErased,
    /// Makes `apply` panic.
    Unfit,
}

/// Why a command is rejected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum AccountError {
    #[error("account is open already")]
    Open,
    #[error("account is not active")]
    Inactive,
    #[error("amount must be positive")]
    Amount,
    #[error("insufficient balance")]
    Balance,
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
        ctx: &DecideContext,
    ) -> Result<Vec<AccountEvent>, AccountError> {
        use AccountCommand as C;
        use AccountEvent as E;
        let event = match command {
            C::PanicDeciding => panic!("as it was told"),
            C::Look => return Ok(Vec::new()),
            C::OpenAccount { .. } if ctx.exists() => return Err(AccountError::Open),
            C::OpenAccount { owner, balance } => E::AccountOpened {
                owner: owner.clone(),
                balance: *balance,
            },
            _ if !self.active => return Err(AccountError::Inactive),
            C::Deposit { amount } | C::Withdraw { amount } if *amount <= 0 => {
                return Err(AccountError::Amount);
            }
            C::Deposit { amount } => E::MoneyDeposited { amount: *amount },
            C::Withdraw { amount } if *amount > self.balance => return Err(AccountError::Balance),
            C::Withdraw { amount } => E::MoneyWithdrawn { amount: *amount },
            C::CloseAccount => E::AccountClosed,
            C::EraseAccount => E::AccountErased,
            C::PanicApplying => E::Unfit,
        };
        Ok(vec![event])
    }

    fn apply(state: Option<Self>, event: &AccountEvent) -> Self {
        let mut account = state.unwrap_or_default();
        match event {
            AccountEvent::AccountOpened { owner, balance } => {
                account.owner.clone_from(owner);
                account.balance = *balance;
                account.active = true;
            }
            AccountEvent::MoneyDeposited { amount } => account.balance += amount,
            AccountEvent::MoneyWithdrawn { amount } => account.balance -= amount,
            AccountEvent::AccountClosed => account.active = false,
            AccountEvent::AccountErased => account.erased = true,
            AccountEvent::Unfit => panic!("as it was told"),
        }
        account
    }

    fn creates(command: &AccountCommand) -> bool {
        matches!(command, AccountCommand::OpenAccount { .. })
    }

    fn is_deleted(&self) -> bool {
        self.erased
    }
}

impl DomainCommand for AccountCommand {
    type Aggregate = Account;
}

/// Opens an account.
#[must_use]
pub fn opening(owner: &str, balance: i64) -> AccountCommand {
    AccountCommand::OpenAccount {
        owner: owner.to_owned(),
        balance,
    }
}

/// Pays in.
#[must_use]
pub fn deposit(amount: i64) -> AccountCommand {
    AccountCommand::Deposit { amount }
}

/// Takes out.
#[must_use]
pub fn withdraw(amount: i64) -> AccountCommand {
    AccountCommand::Withdraw { amount }
}
