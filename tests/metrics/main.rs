//! The numbers that the library gives to the `metrics` facade, as a recorder gets them.
//!
//! A recorder is for a whole process, so this binary has one for all its tests. Those of the relay tell
//! theirs from others by the label; the engine's have none, so one test alone commits through it.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

#[cfg(not(all(feature = "metrics", feature = "testing")))]
compile_error!("tests need every feature: run scripts/test, or cargo test --all-features");

mod engine;
mod recorder;
mod relay;
