//! What the test binaries share. Use it as `mod support;`.
#![allow(dead_code, reason = "each test binary uses its own part")]

pub(crate) mod mongod;
