//! Money from one account to another, in two ways.

use nodestorage::aggregate::Repository;
use nodestorage::command::Dispatcher;
use nodestorage::saga::{Saga, Step, StepRetry};
use nodestorage::{Metadata, UpdateError};
use serde::{Deserialize, Serialize};

use crate::account::Account;
use crate::commands::{AccountError, deposit, withdraw};
use crate::events::AccountEvent;

/// Both accounts change in one commit or neither does. For accounts in one database, the simplest that is right.
pub(crate) async fn by_transaction(
    accounts: &Repository<Account>,
    from: &str,
    to: &str,
    amount: i64,
) -> Result<(), UpdateError<AccountError>> {
    let transferred = accounts.storage().transaction(|tx| async move {
        let out = withdraw(amount, format!("transfer to {to}"));
        accounts
            .execute_in(&tx, from, &out, Metadata::new())
            .await?;
        let into = deposit(amount, format!("transfer from {from}"));
        accounts.execute_in(&tx, to, &into, Metadata::new()).await
    });
    transferred.await.map_err(UpdateError::flatten)
}

/// What the saga knows of a transfer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Transfer {
    id: String,
    from: String,
    to: String,
    amount: i64,
}

/// One account changes after the other, for accounts that no transaction spans; and where the second one
/// refuses, the first gets its money back.
///
/// Each step sends its command under an id that is the same whenever the step is repeated, so that no money moves
/// twice, whatever crashes.
pub(crate) fn saga(dispatcher: &Dispatcher) -> Saga<Transfer> {
    let withdrawal = Step::sending("withdraw", dispatcher, |it: &Transfer| {
        (
            it.from.clone(),
            withdraw(it.amount, format!("transfer {}", it.id)),
        )
    })
    .compensate_sending(dispatcher, |it: &Transfer| {
        let source = format!("transfer {} came back", it.id);
        (it.from.clone(), deposit(it.amount, source))
    });
    let deposit = Step::sending("deposit", dispatcher, |it: &Transfer| {
        (
            it.to.clone(),
            deposit(it.amount, format!("transfer {}", it.id)),
        )
    })
    // While nobody knows whether the money has arrived it must not be given back: asked until there is an
    // answer.
    .with_retry(StepRetry::new().with_attempts(u32::MAX));

    Saga::new("transfer")
        .started_by("TransferInitiated", |event| match event.typed().ok()? {
            AccountEvent::TransferInitiated {
                transfer: id,
                from,
                to,
                amount,
            } => {
                let transfer = Transfer {
                    id: id.clone(),
                    from,
                    to,
                    amount,
                };
                Some((id, transfer))
            }
            _ => None,
        })
        .step(withdrawal)
        .step(deposit)
}
