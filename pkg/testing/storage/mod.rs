//! Cases of [`Storage`](crate::Storage) on a backend.

pub mod basics;
