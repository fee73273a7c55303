use serde::Serialize;
use serde::de::DeserializeOwned;

use super::DecideContext;

/// A domain object that decides on commands and changes by events.
///
/// The type is the state. Its commands and events are enums, tagged externally as serde does by default: a
/// variant's name is the command's or event's type, what is in the variant is its data.
///
/// Both functions are pure and synchronous: no clock, no random numbers, no I/O. Time and ids come from the
/// [context](DecideContext), so that a command which is decided again, because another writer was
/// faster, comes to a result that depends on the new state and on nothing else.
///
/// # Examples
/// ```
/// use nodestorage::aggregate::{Aggregate, DecideContext};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Debug, Default, Serialize, Deserialize)]
/// struct Counter {
///     value: u32,
/// }
///
/// #[derive(Serialize, Deserialize)]
/// enum CounterCommand {
///     Increase { by: u32 },
/// }
///
/// #[derive(Debug, PartialEq, Serialize, Deserialize)]
/// enum CounterEvent {
///     CounterIncreased { by: u32 },
/// }
///
/// #[derive(Debug, PartialEq, thiserror::Error)]
/// #[error("a counter is increased by at least one")]
/// struct Nothing;
///
/// impl Aggregate for Counter {
///     const TYPE: &'static str = "Counter";
///     const COLLECTION: &'static str = "counters";
///     type Command = CounterCommand;
///     type Event = CounterEvent;
///     type Error = Nothing;
///
///     fn decide(
///         &self,
///         command: &CounterCommand,
///         _: &DecideContext,
///     ) -> Result<Vec<CounterEvent>, Nothing> {
///         let CounterCommand::Increase { by } = *command;
///         match by {
///             0 => Err(Nothing),
///             by => Ok(vec![CounterEvent::CounterIncreased { by }]),
///         }
///     }
///
///     fn apply(state: Option<Self>, event: &CounterEvent) -> Self {
///         let CounterEvent::CounterIncreased { by } = event;
///         let value = state.unwrap_or_default().value + by;
///         Self { value }
///     }
/// }
/// ```
pub trait Aggregate: Default + Serialize + DeserializeOwned + Send + Sync + 'static {
    /// What the events are about, `Account` for example: the aggregate type in their envelopes, and the
    /// name under which an [`AggregateFactory`](super::AggregateFactory) knows it.
    const TYPE: &'static str;

    /// The collection that holds the state.
    const COLLECTION: &'static str;

    /// What can be asked for, in the imperative.
    type Command: Serialize + DeserializeOwned + Send + Sync + 'static;

    /// What can happen, in the past tense.
    type Event: Serialize + DeserializeOwned + Send + Sync + 'static;

    /// Why a command is rejected.
    type Error: std::error::Error + Send + Sync + 'static;

    /// What the command makes happen, in order; nothing is fine. Where there is no aggregate yet,
    /// `self` is the default one, and [`DecideContext::exists`] tells.
    ///
    /// # Errors
    /// The reason to reject the command. Nothing is written then.
    fn decide(
        &self,
        command: &Self::Command,
        ctx: &DecideContext,
    ) -> Result<Vec<Self::Event>, Self::Error>;

    /// The state after an event; `None` stands for no aggregate yet.
    #[must_use]
    fn apply(state: Option<Self>, event: &Self::Event) -> Self;

    /// Whether the command brings the aggregate into being. Such a command requires that there is none, and
    /// is never decided again: the second one gets `VersionConflict`. Default: no.
    #[must_use]
    fn creates(_command: &Self::Command) -> bool {
        false
    }

    /// Whether nothing is left after the event that led here: the stored document is deleted then, its log
    /// stays. Default: no.
    #[must_use]
    fn is_deleted(&self) -> bool {
        false
    }

    /// The current schema number of an event type's data. Default: 1.
    #[must_use]
    fn schema(_event_type: &str) -> u32 {
        1
    }
}
