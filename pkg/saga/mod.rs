//! Process managers: work in several steps over several documents, undone where it cannot be finished.
//!
//! A [`Saga`] is a name, typed data and [steps](Step). Each step has an action and, if it has to be undone, a
//! compensation; or it waits for a [signal](Sagas::signal) or an event. [`Sagas`] starts sagas and tells how
//! they are; a [`SagaRunner`] carries them out.
//!
//! * **Durable.** A saga is a document, written with [`Storage::update`](crate::Storage), so that its history
//!   is in the log, and what happens to it are events: `SagaStarted`, `SagaStepCompleted`, `SagaCompensating`,
//!   `SagaStepCompensated`, `SagaCompleted`, `SagaCompensated`, `SagaStuck`, `SagaSignalled`. After a crash at
//!   any moment another process, or the restarted one, goes on at the step that was in work.
//! * **Each effect once, if steps keep to one rule.** A step that was broken off runs again, with the same
//!   [effect id](StepContext::effect_id). Whoever carries the effect out remembers the id, and answers the
//!   repetition as the first time.
//! * **All or nothing, in the end.** A step that is rejected, or that fails longer than its
//!   [retry policy](StepRetry) and its timeout allow, ends the saga: what was completed is compensated in
//!   reverse order. A compensation that keeps failing leaves the saga [stuck](SagaStatus::Stuck), until
//!   somebody [retries](Sagas::retry) it.
//! * **One runner at a time** per saga name, in any process, by lease. One that lost its lease drops its steps
//!   at the `await` they are in, and what it would still write is refused.
//!
//! Unlike in a [transaction](crate::Storage::transaction), others see what lies between the steps.
//!
//! # Examples
//! ```
//! # #[cfg(feature = "embedded")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> nodestorage::Result<()> {
//! use std::time::Duration;
//!
//! use nodestorage::Storage;
//! use nodestorage::saga::{Saga, SagaOptions, SagaStatus, Sagas, Step, StepContext, StepError};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Clone, Serialize, Deserialize)]
//! struct Trip { city: String, hotel: Option<String> }
//!
//! let trip = Saga::new("trip")
//!     .step(
//!         Step::new("book_hotel", async |ctx: StepContext<Trip>| {
//!             let booking = format!("hotel in {}", ctx.data().city);
//!             ctx.change(|trip| trip.hotel = Some(booking));
//!             Ok(())
//!         })
//!         .compensate_with(async |ctx: StepContext<Trip>| {
//!             ctx.change(|trip| trip.hotel = None);
//!             Ok(())
//!         }),
//!     )
//!     .step(Step::new("book_flight", async |_: StepContext<Trip>| {
//!         Err(StepError::rejected("no seat is left"))
//!     }));
//!
//! let storage = Storage::builder().url("embedded::memory:").open().await?;
//! let trips = Sagas::new(&storage, trip)?;
//! let runner = trips.run(SagaOptions::new())?;
//! trips.start("T-1", Trip { city: "Seoul".into(), hotel: None }).await?;
//! let ended = trips.wait("T-1", Duration::from_secs(10)).await?;
//! assert_eq!(ended.status(), SagaStatus::Compensated);
//! assert_eq!(ended.data()?.hotel, None);
//! runner.shutdown().await;
//! # storage.close().await;
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "embedded"))] fn main() {}
//! ```

mod claims;
mod command;
pub(crate) mod context;
pub(crate) mod data;
pub(crate) mod definition;
pub(crate) mod drive;
mod handle;
mod incoming;
mod instance;
pub(crate) mod journal;
mod lead;
mod next;
mod options;
mod outcome;
mod runner;
mod runner_handle;
mod shared;
pub(crate) mod state;
mod step;
mod step_error;
#[cfg(all(test, feature = "testing"))]
mod tests;
pub(crate) mod transition;
pub(crate) mod validity;

pub use context::StepContext;
pub use definition::Saga;
pub use handle::Sagas;
pub use instance::SagaInstance;
pub use options::SagaOptions;
pub use outcome::{SignalOutcome, StartOutcome};
pub use runner_handle::{SagaRunner, SagaRunnerState};
pub use state::{CompletedStep, FailureKind, SagaFailure, SagaStatus};
pub use step::{Step, StepRetry};
pub use step_error::StepError;
