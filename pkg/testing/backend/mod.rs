//! Cases of the backend contract itself: commits, records, leases, the log and its tail.

pub mod commits;
pub mod leases;
pub mod log;
pub mod records;
mod support;
pub mod tail;
