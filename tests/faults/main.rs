//! Faults under load: processes are killed, servers die, connections break, and afterwards nothing that
//! was acknowledged is missing.
//!
//! Every test lets many tasks increment documents, has something go wrong, and then runs
//! `nodestorage check`, which knows what was acknowledged. `NODESTORAGE_ROUNDS` makes them longer: 50 is
//! what they do by default, with 500 each does ten times as much (`scripts/soak`).
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "also outside of the test functions"
)]

#[cfg(not(all(feature = "mongodb", feature = "cli")))]
compile_error!("tests need every feature: run scripts/test, or cargo test --all-features");

mod chance;
mod check;
mod cut_connections;
mod fail_points;
mod failover;
mod file_bus;
mod killed_projections;
mod killed_relays;
mod killed_sagas;
mod killed_workloads;
mod load;
mod lost_majority;
mod program;
mod proxy;
mod restarts;
#[path = "../support/mod.rs"]
mod support;
mod two_workloads;
mod workload;
