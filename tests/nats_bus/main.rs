//! The bus on NATS: the conformance suite in both modes, and what only a server can do.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "also outside of the test functions"
)]

#[cfg(not(all(feature = "testing", feature = "nats")))]
compile_error!("tests need every feature: run scripts/test, or cargo test --all-features");

#[path = "../support/certificates.rs"]
mod certificates;
mod cluster;
mod conformance;
mod connections;
#[path = "../support/fatal.rs"]
mod fatal;
mod fatal_events;
mod foreign;
mod full;
mod members;
#[allow(dead_code, reason = "other binaries use the rest")]
#[path = "../support/nats.rs"]
mod nats;
mod order;
#[path = "../support/proxy.rs"]
mod proxy;
mod restarts;
#[path = "../support/server_process.rs"]
mod server_process;
mod settings;
mod speed;
mod tls;
mod world;
