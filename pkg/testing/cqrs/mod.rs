//! Cases of aggregates, commands, queries, projections and sagas on a backend.

pub mod account;
pub mod aggregates;
pub mod commands;
pub mod sourced;
