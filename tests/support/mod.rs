//! What the test binaries share. Use it as `mod support;`.
#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a fixture that fails fails the test"
)]

pub(crate) mod mongod;
