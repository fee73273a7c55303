//! Documents and their log: the storage API and the contract that backends fulfil.

pub mod backend;
#[cfg(feature = "embedded")]
pub mod embedded;
#[cfg(feature = "mongodb")]
pub mod mongodb;
mod query;

pub use query::{CollectionSpec, Index, Order, Page, Query};
