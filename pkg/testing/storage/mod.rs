//! Cases of [`Storage`](crate::Storage) on a backend.

pub mod basics;
pub mod concurrency;
pub mod transactions;
pub mod versions;
