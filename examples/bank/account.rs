use nodestorage::aggregate::{Aggregate, DecideContext};
use serde::{Deserialize, Serialize};

use crate::commands::{AccountCommand, AccountError};
use crate::events::AccountEvent;

/// A bank account.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Account {
    pub(crate) owner: String,
    pub(crate) balance: i64,
    pub(crate) status: Status,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Status {
    /// Never opened.
    #[default]
    Inactive,
    Active,
    Closed,
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
        match command {
            AccountCommand::OpenAccount {
                owner,
                initial_balance,
            } => {
                if *initial_balance < 0 {
                    return Err(AccountError::Amount);
                }
                Ok(vec![AccountEvent::AccountOpened {
                    owner: owner.clone(),
                    initial_balance: *initial_balance,
                }])
            }
            _ if self.status != Status::Active => Err(AccountError::Inactive),
            AccountCommand::DepositMoney { amount, source } => {
                self.check_deposit(*amount)?;
                Ok(vec![AccountEvent::MoneyDeposited {
                    amount: *amount,
                    source: source.clone(),
                }])
            }
            AccountCommand::WithdrawMoney { amount, purpose } => {
                self.check_withdrawal(*amount)?;
                Ok(vec![AccountEvent::MoneyWithdrawn {
                    amount: *amount,
                    purpose: purpose.clone(),
                }])
            }
            AccountCommand::TransferMoney {
                transfer,
                to,
                amount,
            } => {
                // Refused early where it can be seen already. What counts is the withdrawal itself.
                self.check_withdrawal(*amount)?;
                Ok(vec![AccountEvent::TransferInitiated {
                    transfer: transfer.clone(),
                    from: ctx.id().to_string(),
                    to: to.clone(),
                    amount: *amount,
                }])
            }
            AccountCommand::CloseAccount => Ok(vec![AccountEvent::AccountClosed]),
        }
    }

    fn apply(state: Option<Self>, event: &AccountEvent) -> Self {
        let mut account = state.unwrap_or_default();
        match event {
            AccountEvent::AccountOpened {
                owner,
                initial_balance,
            } => {
                account.owner.clone_from(owner);
                account.balance = *initial_balance;
                account.status = Status::Active;
            }
            AccountEvent::MoneyDeposited { amount, .. } => account.balance += amount,
            AccountEvent::MoneyWithdrawn { amount, .. } => account.balance -= amount,
            // Nothing has moved yet.
            AccountEvent::TransferInitiated { .. } => {}
            AccountEvent::AccountClosed => account.status = Status::Closed,
        }
        account
    }

    fn creates(command: &AccountCommand) -> bool {
        matches!(command, AccountCommand::OpenAccount { .. })
    }
}

impl Account {
    fn check_deposit(&self, amount: i64) -> Result<(), AccountError> {
        if amount <= 0 {
            return Err(AccountError::Amount);
        }
        match self.balance.checked_add(amount) {
            Some(_) => Ok(()),
            None => Err(AccountError::TooMuch),
        }
    }

    fn check_withdrawal(&self, amount: i64) -> Result<(), AccountError> {
        if amount <= 0 {
            return Err(AccountError::Amount);
        }
        if amount > self.balance {
            return Err(AccountError::Balance);
        }
        Ok(())
    }
}
