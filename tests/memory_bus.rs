//! The bus conformance suite on the bus in memory.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

#[cfg(not(feature = "testing"))]
compile_error!("run the tests with --all-features: the conformance suites are behind `testing`");

use std::sync::Arc;

use nodestorage::bus::{EventBus, MemoryBus};

async fn memory() -> Arc<dyn EventBus> {
    Arc::new(MemoryBus::new())
}

nodestorage::bus_conformance!(memory);
