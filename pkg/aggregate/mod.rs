//! Aggregates: domain objects that decide on commands and change by events.
//!
//! An [`Aggregate`] is a serde type with two pure functions. A [`Repository`] runs its commands: it reads the
//! newest state, has the command decided, applies the events, and stores state and events in one
//! atomic step of [`Storage`](crate::Storage).
//!
//! The stored document is the state at its version, so loading is one read and replays nothing, while
//! the log holds the events; [`Repository::verify`] shows that both agree. Where events alone are to
//! be kept, [`Repository::event_sourced`] stores no document and replays from snapshots.

mod context;
mod contract;
mod duplicate;
mod events;
mod execute;
mod factory;
mod fold;
mod inline;
mod options;
mod repository;
mod result;
mod shape;
mod sourced;
mod verify;

pub use context::DecideContext;
pub use contract::Aggregate;
#[cfg(feature = "testing")]
pub(crate) use events::read_back;
pub use factory::{AggregateFactory, AnyRepository};
pub use inline::InlineProjection;
pub use options::CommandOptions;
pub use repository::Repository;
pub use result::CommandResult;
pub(crate) use shape::{variant_of, variants_of};
pub use verify::Verification;
