//! Cases of aggregates, commands, queries, projections and sagas on a backend.

pub mod account;
pub mod aggregates;
pub mod commands;
pub mod letters;
pub mod projections;
pub mod queries;
pub mod rebuilds;
pub mod saga_commands;
pub mod saga_inputs;
pub mod saga_runners;
pub mod sagas;
pub mod sourced;
mod support;
pub mod targets;
pub mod transfer;
