//! Everything dies at random, and afterwards the broker and what a group handled are compared with the log.
//!
//! Processes of their own write, publish and consume. They are killed with -9 and started again, or stand still for
//! a while; the broker is killed and started again as well. `NODESTORAGE_BUSES_UPDATES` says how many updates that goes
//! on for: 4,000 by default, `scripts/soak --buses` makes 100,000.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "also outside of the test functions"
)]

#[cfg(not(all(
    feature = "mongodb",
    feature = "cli",
    feature = "redis",
    feature = "nats"
)))]
compile_error!("tests need every feature: run scripts/test, or cargo test --all-features");

mod broker;
#[allow(dead_code, reason = "the fault tests use the rest")]
#[path = "../faults/chance.rs"]
mod chance;
#[allow(dead_code, reason = "the fault tests use the rest")]
#[path = "../faults/check.rs"]
mod check;
mod handled;
mod jetstream;
mod ledger;
#[allow(dead_code, reason = "other binaries use the rest")]
#[path = "../support/nats.rs"]
mod nats;
mod process;
mod python;
#[allow(dead_code, reason = "other binaries use the rest")]
#[path = "../support/redis.rs"]
mod redis;
mod redis_streams;
mod run;
#[path = "../support/server_process.rs"]
mod server_process;
#[path = "../support/mod.rs"]
mod support;
mod writer;
