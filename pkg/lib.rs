//! Documents whose every change becomes domain events.
//!
//! [`Storage::update`] reads the newest document, runs a closure on it, compares and swaps on a version
//! field, works out what changed, maps it to domain events, and stores document and events in one atomic
//! step. A [`relay`] publishes the events to a [`bus`], in order and at least once.
//!
//! ```
//! # #[cfg(feature = "embedded")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> nodestorage::Result<()> {
//! use nodestorage::Storage;
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize)]
//! struct User { name: String, email: String }
//!
//! let storage = Storage::builder().url("embedded::memory:").open().await?;
//! let change = storage
//!     .update("users", "user123", |user: Option<User>| {
//!         let mut user = user.unwrap_or(User { name: "John Doe".into(), email: String::new() });
//!         user.email = "john.doe@example.com".into();
//!         user
//!     })
//!     .await?;
//! assert_eq!(change.version(), 1);
//! assert_eq!(change.events()[0].event_type(), "UsersCreated");
//! # storage.close().await;
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "embedded"))] fn main() {}
//! ```
//!
//! # Where to look
//!
//! | to | see |
//! |---|---|
//! | change and read documents | [`Storage`], [`Collection`], [`Outcome`] |
//! | change several at once | [`Storage::transaction`] |
//! | decide which events a change becomes | [`EventMapper`], [`DefaultEventMapper`] |
//! | react to events | [`bus`], and [`bus::middleware`] around handlers |
//! | see the past | [`history`] |
//! | decide by rules, on commands | [`aggregate`], [`command`] |
//! | do work in several steps, and undo it | [`saga`] |
//! | read in another form than one writes | [`projection`] |
//! | answer questions, page by page | [`query`] |
//! | handle failures | [`ErrorKind`], [`UpdateError`], [`RetryPolicy`] |
//! | write a backend or a bus | [`storage::backend`], [`bus::EventBus`], and the feature `testing` |
//!
//! # Features
//!
//! `embedded` (default): the store that needs no server. `mongodb`: MongoDB replica sets. `redis` and
//! `nats`: the buses on those brokers. `cli`: the command line. `metrics`: numbers of the commit engine and
//! the [`relay`], through the facade of that name. `testing`: the conformance suites.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod aggregate;
mod builder;
pub mod bus;
pub mod clock;
pub mod command;
pub mod document;
pub mod error;
pub mod event;
pub mod history;
pub mod middleware;
pub mod projection;
pub mod query;
pub mod relay;
pub mod saga;
pub mod storage;
#[cfg(feature = "testing")]
pub mod testing;

pub use bson;
pub use builder::StorageBuilder;
pub use document::{
    Diff, DocumentId, DocumentKey, ExpectedVersion, MergePatch, Patch, PatchOp, PatchValue, Path,
    PathSegment, Version, VersionConflict,
};
pub use error::{Error, ErrorKind, Result};
pub use event::{
    ChangeKind, ChangeView, DefaultEventMapper, Event, EventId, EventMapper, EventNames, MapError,
    Metadata, NewEvent,
};
pub use history::{
    DoctorReport, DocumentState, History, HistoryPage, LogSubscription, LogSubscriptionHandle,
    Revision, VersionRange,
};
pub use storage::{
    Change, Collection, CollectionSpec, CommitOptions, CommitStatistics, Index, Order, Outcome,
    Page, Query, RetryPolicy, Storage, Stored, Transaction, UpdateContext, UpdateError,
    UpdateOptions,
};

/// The code in README and docs compiles.
#[cfg(all(doctest, feature = "embedded"))]
mod documents {
    #[doc = include_str!("../README.md")]
    struct Readme;
    #[doc = include_str!("../docs/guarantees.md")]
    struct Guarantees;
    #[doc = include_str!("../docs/architecture.md")]
    struct Architecture;
    #[doc = include_str!("../docs/patterns/notification_pattern.md")]
    struct Notifications;
    #[doc = include_str!("../docs/patterns/optimistic_concurrency.md")]
    struct OptimisticConcurrency;
    #[doc = include_str!("../docs/patterns/schema_evolution.md")]
    struct SchemaEvolution;
    #[doc = include_str!("../docs/patterns/saga.md")]
    struct SagaPattern;
    #[doc = include_str!("../docs/projections.md")]
    struct Projections;
}
