//! Bringing events to subscribers: what is particular to the bus in memory, and the relay.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail by panicking"
)]

#[cfg(not(feature = "testing"))]
compile_error!("run the tests with --all-features: the conformance suites are behind `testing`");

mod by_url;
mod memory_bus;
mod relay;
#[path = "../support/mod.rs"]
mod support;
