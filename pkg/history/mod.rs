//! Reading the log: versions, past states, replay.
//!
//! The log holds every version of every document as a patch or as the whole document. [`History`] reads
//! one document's part of it: its versions page by page, its events, and the document itself as it was
//! at a version or at a time, rebuilt byte for byte.

mod doctor;
pub(crate) mod follow;
mod handle;
pub(crate) mod lease;
mod pages;
mod range;
mod rebuild;
mod replay;
#[cfg(test)]
mod samples;
mod state;
mod subscription;

pub use doctor::{DoctorReport, Finding, Problem};
pub use follow::Logged;
pub use handle::History;
pub use range::{HistoryPage, VersionRange};
pub use replay::Revision;
pub use state::DocumentState;
pub use subscription::{LogSubscription, LogSubscriptionHandle, LogSubscriptionState};
