use std::fmt;

use bson::Document;

use crate::document::{DocumentKey, Version};
use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;
use crate::storage::Change;

/// What a command did: the aggregate's version afterwards, and the events.
///
/// # Examples
/// ```
/// # use nodestorage::command::{CommandError, Command, Dispatcher};
/// # async fn example(dispatcher: Dispatcher, command: Command) -> Result<(), CommandError> {
/// let result = dispatcher.dispatch(command).await?;
/// for event in result.events() {
///     println!("{} made version {}", event.event_type(), result.version());
/// }
/// # Ok(())
/// # }
/// ```
pub struct CommandResult {
    done: Done,
}

enum Done {
    Now(Change<Document>),
    /// By the first delivery of the same command.
    Before {
        document: DocumentKey,
        version: Version,
        events: Vec<Event>,
    },
    /// Nothing, to an aggregate at this version.
    Unchanged {
        document: DocumentKey,
        version: Version,
    },
    /// By a handler of the application's own.
    Elsewhere {
        document: DocumentKey,
        version: Version,
    },
}

impl CommandResult {
    pub(super) fn now<T>(change: Change<T>) -> Self {
        let done = Done::Now(change.retyped());
        Self { done }
    }

    pub(super) fn unchanged(document: DocumentKey, version: Version) -> Self {
        let done = Done::Unchanged { document, version };
        Self { done }
    }

    pub(super) fn before(document: DocumentKey, version: Version, events: Vec<Event>) -> Self {
        let done = Done::Before {
            document,
            version,
            events,
        };
        Self { done }
    }

    /// What a handler of the application's own did, where no change is at hand: a document and its version.
    #[must_use]
    pub fn of(document: DocumentKey, version: Version) -> Self {
        let done = Done::Elsewhere { document, version };
        Self { done }
    }

    /// Collection and id of the aggregate.
    #[must_use]
    pub fn document(&self) -> &DocumentKey {
        match &self.done {
            Done::Now(change) => change.document(),
            Done::Before { document, .. }
            | Done::Unchanged { document, .. }
            | Done::Elsewhere { document, .. } => document,
        }
    }

    /// The aggregate's version after the command; the current one if nothing happened.
    #[must_use]
    pub fn version(&self) -> Version {
        match &self.done {
            Done::Now(change) => change.version(),
            Done::Before { version, .. }
            | Done::Unchanged { version, .. }
            | Done::Elsewhere { version, .. } => *version,
        }
    }

    /// What happened, in order.
    #[must_use]
    pub fn events(&self) -> &[Event] {
        match &self.done {
            Done::Now(change) => change.events(),
            Done::Before { events, .. } => events,
            Done::Unchanged { .. } | Done::Elsewhere { .. } => &[],
        }
    }

    /// Whether this is the result of an earlier delivery of the same command: it ran once.
    #[must_use]
    pub fn is_duplicate(&self) -> bool {
        matches!(self.done, Done::Before { .. })
    }

    /// Waits until the bus has confirmed the events; see [`Change::delivered`].
    ///
    /// # Errors
    /// Those of [`Change::delivered`], and `Unsupported` for the result of an earlier delivery.
    pub async fn delivered(&self) -> Result<()> {
        match &self.done {
            Done::Now(change) => change.delivered().await,
            Done::Unchanged { .. } => Ok(()),
            Done::Before { .. } | Done::Elsewhere { .. } => Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "{} was changed by another call, which can wait for its events",
                    self.document()
                ),
            )),
        }
    }
}

impl<T> From<Change<T>> for CommandResult {
    /// The result of a handler that changed a document.
    fn from(change: Change<T>) -> Self {
        Self::now(change)
    }
}

impl fmt::Debug for CommandResult {
    /// Shows no contents of events.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommandResult")
            .field("document", &self.document().to_string())
            .field("version", &self.version().get())
            .field("duplicate", &self.is_duplicate())
            .finish_non_exhaustive()
    }
}
