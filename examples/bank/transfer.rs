//! Money from one account to another, in two ways.

use nodestorage::aggregate::Repository;
use nodestorage::command::{CommandOptions, Dispatcher};
use nodestorage::saga::{Saga, Step, StepContext, StepRetry};
use nodestorage::{Metadata, UpdateError};
use serde::{Deserialize, Serialize};

use crate::account::Account;
use crate::commands::{AccountError, deposit, withdraw};
use crate::common::typed;
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
    from: String,
    to: String,
    amount: i64,
}

/// One account changes after the other, for accounts that no transaction spans; and where the second one
/// refuses, the first gets its money back.
///
/// Each step sends its command under the id of its effect, so that a step which is repeated after a
/// crash moves no money twice.
pub(crate) fn saga(dispatcher: &Dispatcher) -> Saga<Transfer> {
    let (depositing, refunding) = (dispatcher.clone(), dispatcher.clone());

    // Nothing to do: the money went in the commit that started the saga. But it may have to come back.
    let withdrawn = Step::new("withdrawn", async |_: StepContext<Transfer>| Ok(()))
        .compensate_with(move |ctx: StepContext<Transfer>| {
            let dispatcher = refunding.clone();
            async move {
                let Transfer { from, amount, .. } = ctx.data();
                let refund = deposit(*amount, format!("transfer {} came back", ctx.id()));
                dispatcher
                    .send_with(from.as_str(), refund, options(&ctx))
                    .await?;
                Ok(())
            }
        })
        .with_compensation_retry(until_answered());

    let deposited = Step::new("deposited", move |ctx: StepContext<Transfer>| {
        let dispatcher = depositing.clone();
        async move {
            let Transfer { to, amount, .. } = ctx.data();
            let into = deposit(*amount, format!("transfer {}", ctx.id()));
            dispatcher
                .send_with(to.as_str(), into, options(&ctx))
                .await?;
            Ok(())
        }
    })
    .with_retry(until_answered());

    Saga::new("transfer")
        .started_by("TransferInitiated", |event| match typed(event).ok()? {
            AccountEvent::TransferInitiated {
                transfer,
                from,
                to,
                amount,
            } => Some((transfer, Transfer { from, to, amount })),
            _ => None,
        })
        .step(withdrawn)
        .step(deposited)
}

fn options(ctx: &StepContext<Transfer>) -> CommandOptions {
    CommandOptions::new()
        .with_command_id(ctx.effect_id())
        .with_metadata(ctx.metadata())
}

/// While it is not known whether the money has arrived it must not be paid back: asked again, under the same
/// command id, until there is an answer.
fn until_answered() -> StepRetry {
    StepRetry::new().with_attempts(u32::MAX)
}
