//! The MongoDB backend on a real server: what the contract promises, attacked.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "also outside of the test functions"
)]

#[cfg(not(feature = "mongodb"))]
compile_error!("tests need every feature: run scripts/test, or cargo test --all-features");

mod batches;
mod commits;
mod conditions;
mod dead_writers;
mod failing_commands;
mod leases;
mod opening;
mod partial_commits;
mod queries;
mod reading;
#[path = "../support/mod.rs"]
mod support;
mod tailing;
mod unknown_commits;
mod world;
