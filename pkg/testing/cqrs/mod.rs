//! Cases of aggregates, commands, queries, projections and sagas.

pub mod saga_runners;
pub mod sagas;
pub mod transfer;
