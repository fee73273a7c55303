use nodestorage::error::BoxError;
use nodestorage::projection::Projection;
use nodestorage::{DocumentId, Event};
use serde::{Deserialize, Serialize};

use crate::events::AccountEvent;

/// One line of the ledger: money that came or went.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct LedgerEntry {
    pub(crate) account: String,
    /// The account's version, in whose order the lines stand.
    pub(crate) number: i64,
    pub(crate) kind: String,
    pub(crate) amount: i64,
    pub(crate) note: String,
}

/// Keeps one entry per transaction.
pub(crate) struct Ledger;

impl Projection for Ledger {
    type View = LedgerEntry;

    fn name(&self) -> &str {
        "ledger"
    }

    fn handles(&self, event_type: &str, _collection: &str) -> bool {
        ["MoneyDeposited", "MoneyWithdrawn"].contains(&event_type)
    }

    /// A view of its own for each event, rather than one per account.
    fn keys(&self, event: &Event) -> Vec<DocumentId> {
        let key = format!("{}/{}", event.aggregate_id(), event.version());
        vec![key.into()]
    }

    fn apply(
        &self,
        _: &DocumentId,
        _: Option<LedgerEntry>,
        event: &Event,
    ) -> Result<Option<LedgerEntry>, BoxError> {
        let (kind, amount, note) = match event.typed()? {
            AccountEvent::MoneyDeposited { amount, source } => ("DEPOSIT", amount, source),
            AccountEvent::MoneyWithdrawn { amount, purpose } => ("WITHDRAWAL", amount, purpose),
            _ => return Ok(None),
        };
        Ok(Some(LedgerEntry {
            account: event.aggregate_id().to_string(),
            number: i64::try_from(event.version().get())?,
            kind: kind.to_owned(),
            amount,
            note,
        }))
    }
}
