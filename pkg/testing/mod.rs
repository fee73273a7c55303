//! Conformance suites: the behaviours that every implementation of a contract must show.
//!
//! A behaviour is a *case*: a public async function that takes a [`TestStore`] and panics where the
//! store behaves otherwise. [`conformance!`](crate::conformance) makes one test of each case for one
//! backend:
//!
//! ```ignore
//! mod embedded {
//!     nodestorage::conformance! {
//!         name: "embedded",
//!         store: super::EmbeddedStore::new(),
//!         foreign_writers: not_applicable,
//!         multi_process: not_applicable,
//!         durable: run,
//!     }
//! }
//! ```
//!
//! Every case gets a store of its own. What a backend cannot do is declared, checked against its
//! [`capabilities`](Backend::capabilities), and reported as an ignored test, never as a passed one.
//!
//! A new case is a function with a doc comment that tells the behaviour, and one line in the list in
//! `pkg/testing/cases.rs`.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a case fails by panicking"
)]

mod aggregate;
pub mod backend;
pub mod bus;
mod cases;
mod check;
mod clock;
pub mod cqrs;
mod faults;
pub mod history;
pub mod log;
pub mod mapping;
mod projection;
mod random;
mod saga;
pub mod storage;
mod support;

use async_trait::async_trait;
use bson::RawDocumentBuf;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use crate::document::DocumentKey;
use crate::error::Result;
use crate::storage::backend::Backend;

pub use aggregate::{AggregateTest, Checked, Decided};
pub use cases::CASES;
pub use check::{CheckedLog, check_log};
pub use clock::FixedClock;
pub use faults::{Fault, FaultyBackend};
pub use projection::{ProjectionTest, SampleEvent};
pub use saga::SagaTest;
pub use support::{contract_writer, eventually, foreign, load_raw, open, open_with};

/// One fresh, empty store for one case.
#[async_trait]
pub trait TestStore: Send + Sync {
    /// Opens the store: the first call creates it. Later calls open it again: with a client of their
    /// own where the backend allows it, else they return the same handle.
    ///
    /// # Errors
    /// Those of opening.
    async fn backend(&self) -> Result<Arc<dyn Backend>>;

    /// Closes what [`backend`](Self::backend) returned so far and opens the store again, as after a
    /// restart of the process.
    ///
    /// # Errors
    /// Those of opening.
    async fn reopen(&self) -> Result<Arc<dyn Backend>>;

    /// How other programs write documents behind the storage's back; `None` if they cannot.
    fn foreign(&self) -> Option<&dyn ForeignWriter> {
        None
    }
}

/// Another program that writes to the same database and knows nothing of the log.
#[async_trait]
pub trait ForeignWriter: Send + Sync {
    /// Writes a document as it is, `_id` included, in place of the one with that key if there is one.
    ///
    /// # Errors
    /// Those of the store.
    async fn put(&self, key: &DocumentKey, document: RawDocumentBuf) -> Result<()>;

    /// Deletes a document.
    ///
    /// # Errors
    /// Those of the store.
    async fn delete(&self, key: &DocumentKey) -> Result<()>;

    /// Creates a unique index over one path, under a name that is not the storage's.
    ///
    /// # Errors
    /// `Unsupported` where nobody else can, and those of the store.
    async fn create_unique_index(&self, collection: &str, path: &str) -> Result<()>;

    /// Makes the store refuse documents of the collection that lack a field.
    ///
    /// # Errors
    /// `Unsupported` where nobody else can, and those of the store.
    async fn require_field(&self, collection: &str, field: &str) -> Result<()>;
}

/// What a case needs beyond the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ability {
    /// Nothing: every backend shows it.
    Core,
    /// Other programs that write the same documents.
    ForeignWriters,
    /// Several processes on one store.
    MultiProcess,
    /// A store that survives the end of the process.
    Durable,
}

/// What the tests of a backend declare: whether the cases that need an ability run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct Declared {
    /// See [`Ability::ForeignWriters`].
    pub foreign_writers: bool,
    /// See [`Ability::MultiProcess`].
    pub multi_process: bool,
    /// See [`Ability::Durable`].
    pub durable: bool,
}

impl Declared {
    /// Whether a case that needs this ability runs.
    #[must_use]
    pub fn runs(&self, ability: Ability) -> bool {
        match ability {
            Ability::Core => true,
            Ability::ForeignWriters => self.foreign_writers,
            Ability::MultiProcess => self.multi_process,
            Ability::Durable => self.durable,
        }
    }

    /// Checks that what is declared is what the backend says of itself, so that nothing is left out
    /// that could run.
    ///
    /// # Panics
    /// When it is not.
    pub async fn check(&self, store: &dyn TestStore) {
        let backend = store.backend().await.expect("the store opens");
        let can = backend.capabilities();
        let found = Self {
            foreign_writers: can.foreign_writers,
            multi_process: can.multi_process,
            durable: can.durable,
        };
        assert_eq!(*self, found, "declared abilities against capabilities()");
        assert_eq!(
            store.foreign().is_some(),
            self.foreign_writers,
            "whether the test store offers a foreign writer"
        );
    }

    /// Prints how many cases there are, and how many of them apply to the backend called `name`.
    pub fn report(&self, name: &str) {
        let applicable = CASES.iter().filter(|(_, ability)| self.runs(*ability));
        let applicable = applicable.count();
        support::print_line(&format!(
            "conformance cases: {}\nconformance cases on {name}: {applicable} apply, {} not applicable",
            CASES.len(),
            CASES.len() - applicable
        ));
    }
}

/// A case takes milliseconds, the busiest ones seconds; what is not done after this hangs.
const DEADLINE: Duration = Duration::from_secs(120);

/// Runs a case, and fails it if it hangs.
///
/// # Panics
/// When the case does, or is not done within two minutes.
pub async fn run_case(name: &str, case: impl Future<Output = ()>) {
    let done = tokio::time::timeout(DEADLINE, Box::pin(case)).await;
    assert!(done.is_ok(), "case {name} is not done after {DEADLINE:?}");
}
