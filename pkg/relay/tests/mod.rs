//! The relay against the embedded backend in memory, buses that fail on demand, and a store that can
//! be cut off or held.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail by panicking"
)]

mod delivered;
mod failing;
mod store;
mod support;
mod takeover;
