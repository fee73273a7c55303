//! The relay against the embedded backend in memory, buses that fail on demand, and a store that can
//! be cut off or held.

mod delivered;
mod failing;
mod store;
mod support;
mod takeover;
