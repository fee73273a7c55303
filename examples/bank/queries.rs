use nodestorage::error::BoxError;
use nodestorage::projection::Views;
use nodestorage::query::{Query, QueryDispatcher, QueryHandler};
use nodestorage::{Order, Result, Stored};

use crate::ledger::LedgerEntry;
use crate::summaries::AccountSummary;

/// The accounts with the largest balances.
#[derive(Debug)]
pub(crate) struct GetTopAccounts {
    pub(crate) limit: u64,
}

impl Query for GetTopAccounts {
    type Output = Vec<Stored<AccountSummary>>;
}

/// What happened to an account's money, in order.
#[derive(Debug)]
pub(crate) struct GetLedger {
    pub(crate) account: String,
}

impl Query for GetLedger {
    type Output = Vec<Stored<LedgerEntry>>;
}

struct Summaries(Views<AccountSummary>);

impl QueryHandler<GetTopAccounts> for Summaries {
    async fn handle(&self, query: GetTopAccounts) -> Result<Vec<Stored<AccountSummary>>, BoxError> {
        let largest = nodestorage::Query::new()
            .sort("balance", Order::Descending)
            .limit(query.limit);
        Ok(self.0.query(&largest).await?)
    }
}

struct Ledger(Views<LedgerEntry>);

impl QueryHandler<GetLedger> for Ledger {
    async fn handle(&self, query: GetLedger) -> Result<Vec<Stored<LedgerEntry>>, BoxError> {
        let of_account = nodestorage::Query::new()
            .equal("account", query.account)
            .sort("number", Order::Ascending);
        Ok(self.0.query(&of_account).await?)
    }
}

/// Knows who answers what.
pub(crate) fn queries(
    summaries: Views<AccountSummary>,
    ledger: Views<LedgerEntry>,
) -> Result<QueryDispatcher> {
    Ok(QueryDispatcher::builder()
        .handler(Summaries(summaries))?
        .handler(Ledger(ledger))?
        .build())
}
