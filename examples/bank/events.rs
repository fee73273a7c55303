use serde::{Deserialize, Serialize};

/// What can happen to an account. Amounts are in won, which has no smaller unit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum AccountEvent {
    AccountOpened {
        owner: String,
        initial_balance: i64,
    },
    MoneyDeposited {
        amount: i64,
        source: String,
    },
    MoneyWithdrawn {
        amount: i64,
        purpose: String,
    },
    TransferInitiated {
        transfer: String,
        from: String,
        to: String,
        amount: i64,
    },
    AccountClosed,
}
