//! What is stored of a saga.

use std::fmt;
use std::sync::Arc;

use bson::{Bson, DateTime};
use serde::{Deserialize, Serialize};

/// How a saga is.
///
/// # Examples
/// ```
/// use nodestorage::saga::SagaStatus;
///
/// assert_eq!(SagaStatus::Stuck.to_string(), "stuck");
/// assert!(SagaStatus::Compensated.is_ended() && !SagaStatus::Stuck.is_ended());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SagaStatus {
    /// A step is due, in work, or waiting for its next attempt.
    Running,
    /// It waits for a signal.
    Waiting,
    /// A step failed; those that were completed are being compensated.
    Compensating,
    /// Every step was completed.
    Completed,
    /// A step failed, and everything that was completed has been compensated.
    Compensated,
    /// It cannot go on: a compensation kept failing, or the saga does not fit the program's definition.
    /// Nothing happens until [`Sagas::retry`](super::Sagas::retry).
    Stuck,
}

impl SagaStatus {
    /// Whether nothing more will happen.
    #[must_use]
    pub fn is_ended(self) -> bool {
        matches!(self, Self::Completed | Self::Compensated)
    }

    /// As it is stored.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Compensating => "compensating",
            Self::Completed => "completed",
            Self::Compensated => "compensated",
            Self::Stuck => "stuck",
        }
    }
}

impl fmt::Display for SagaStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a saga is being compensated.
///
/// # Examples
/// ```
/// # use nodestorage::saga::{FailureKind, SagaInstance};
/// # fn example(order: SagaInstance<String>) {
/// let is_refused = order.failure().is_some_and(|failure| failure.kind == FailureKind::Rejected);
/// # let _ = is_refused;
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FailureKind {
    /// The step was rejected.
    Rejected,
    /// Every attempt that its policy allows failed.
    Exhausted,
    /// It was not completed in time.
    TimedOut,
}

impl FailureKind {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::Exhausted => "exhausted",
            Self::TimedOut => "timed_out",
        }
    }
}

/// The failure that ended a saga's way forward.
///
/// # Examples
/// ```
/// # use nodestorage::saga::SagaInstance;
/// # fn example(order: SagaInstance<String>) {
/// if let Some(failure) = order.failure() {
///     println!("{} failed at {}: {}", order.id(), failure.step, failure.reason);
/// }
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SagaFailure {
    /// The step.
    pub step: String,
    /// How it failed.
    pub kind: FailureKind,
    /// The step's own words.
    pub reason: String,
}

/// A step that is behind.
///
/// # Examples
/// ```
/// # use nodestorage::saga::SagaInstance;
/// # fn example(order: SagaInstance<String>) {
/// for done in order.completed() {
///     println!("{} at {}, compensated: {}", done.step, done.at, done.compensated_at.is_some());
/// }
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CompletedStep {
    /// The step.
    pub step: String,
    /// When it was completed.
    pub at: DateTime,
    /// Whether it failed without its being known whether it had its effect; it is compensated like a
    /// completed one.
    #[serde(default)]
    pub in_doubt: bool,
    /// When it was compensated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compensated_at: Option<DateTime>,
}

/// A signal that came.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Signal {
    /// One with the same id is a repetition.
    pub(super) id: String,
    pub(super) name: String,
    /// Null once a step has taken it.
    pub(super) payload: Bson,
    /// Whether a step has taken it. Not told by the payload, which may be null from the start.
    pub(super) taken: bool,
}

/// What the waiting step has waited for. A type of its own, because a null by itself would read back as
/// nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Received {
    pub(super) payload: Bson,
}

/// A saga as it is stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct SagaState {
    pub(crate) saga: String,
    pub(crate) id: String,
    pub(crate) status: SagaStatus,
    /// The step that is in work, or being compensated.
    pub(crate) step: Option<String>,
    /// Whether it compensates; also known while it is stuck.
    pub(super) backward: bool,
    /// Failed attempts of the step.
    pub(crate) attempts: u32,
    /// When the step is given up.
    pub(crate) deadline: Option<DateTime>,
    /// When the runner has something to do; `None` while only a signal or a person can set it going.
    pub(crate) due: Option<DateTime>,
    pub(crate) completed: Vec<CompletedStep>,
    pub(crate) failure: Option<SagaFailure>,
    /// The last failed attempt's own words.
    pub(crate) last_error: Option<String>,
    /// What the waiting step has waited for.
    pub(super) received: Option<Received>,
    pub(super) signals: Vec<Signal>,
    /// What it was started with: a second start must be with the same.
    pub(super) input: Bson,
    pub(crate) data: Bson,
    pub(crate) started_at: DateTime,
    pub(crate) ended_at: Option<DateTime>,
    /// Counts the changes of the saga's course; what was decided on an older one is refused.
    pub(crate) turn: i64,
    /// The highest fence of a runner that wrote; one with a lower one lost its lease.
    pub(super) fence: i64,
}

impl SagaState {
    /// The document's id.
    pub(super) fn document_id(saga: &str, id: &str) -> String {
        format!("{saga}/{id}")
    }

    /// Whether it is not known if the step that is being compensated had its effect.
    pub(super) fn is_in_doubt(&self) -> bool {
        let is_current = |done: &&CompletedStep| {
            done.compensated_at.is_none() && Some(&done.step) == self.step.as_ref()
        };
        let current = self.completed.iter().rev().find(is_current);
        current.is_some_and(|done| done.in_doubt)
    }

    /// The completed step that is to be compensated next, given which steps can be.
    pub(super) fn to_compensate(&self, has: impl Fn(&str) -> bool) -> Option<&CompletedStep> {
        let open = |done: &&CompletedStep| done.compensated_at.is_none() && has(&done.step);
        self.completed.iter().rev().find(open)
    }
}

/// What a step's error may say in the stored saga.
const MAX_REASON_BYTES: usize = 1_000;

/// A reason as it is stored: not longer than is of use.
pub(super) fn reason(error: &dyn fmt::Display) -> String {
    let mut text = error.to_string();
    if text.len() > MAX_REASON_BYTES {
        let end = (0..=MAX_REASON_BYTES)
            .rev()
            .find(|at| text.is_char_boundary(*at));
        text.truncate(end.unwrap_or_default());
        text.push('…');
    }
    text
}

/// The collection that sagas are stored in by default.
pub(super) const COLLECTION: &str = "sagas";

/// Names are shared.
pub(super) type Name = Arc<str>;
