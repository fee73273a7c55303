//! Cases of [`Storage`](crate::Storage) on a backend.

pub mod basics;
pub mod batches;
pub mod bytes;
pub mod concurrency;
pub mod deadlines;
pub mod foreign;
pub mod limits;
pub mod names;
pub mod queries;
mod reference;
pub mod retries;
pub mod streams;
pub mod transactions;
pub mod typed;
pub mod versions;
