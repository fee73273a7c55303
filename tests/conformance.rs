//! Every storage, log and mapping behaviour on every backend.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

#[cfg(not(all(feature = "testing", feature = "embedded", feature = "mongodb")))]
compile_error!("tests need every feature: run scripts/test, or cargo test --all-features");

mod conformance_stores;
mod support;

mod embedded {
    nodestorage::conformance! {
        name: "embedded",
        store: crate::conformance_stores::FileStore::new(),
        foreign_writers: not_applicable,
        multi_process: not_applicable,
        durable: run,
    }
}

mod embedded_in_memory {
    nodestorage::conformance! {
        name: "embedded_in_memory",
        store: crate::conformance_stores::MemoryStore::new(),
        foreign_writers: not_applicable,
        multi_process: not_applicable,
        durable: not_applicable,
    }
}

mod mongodb {
    nodestorage::conformance! {
        name: "mongodb",
        store: crate::conformance_stores::MongoStore::new(),
        foreign_writers: run,
        multi_process: run,
        durable: run,
    }
}
