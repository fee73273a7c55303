use std::fmt;

use super::{ChangeView, NewEvent};
use crate::error::{BoxError, Error, ErrorKind};

/// Turns a change of a document into domain events.
///
/// Pure and synchronous: the same change must give the same events, because a change is mapped again
/// when its commit loses a race. Time and ids come from the engine.
///
/// Closures are mappers too:
///
/// ```
/// use nodestorage::{ChangeView, MapError, NewEvent};
///
/// let mapper = |change: &ChangeView<'_>| -> Result<Vec<NewEvent>, MapError> {
///     let mut events = vec![NewEvent::of_change("UserUpdated")?];
///     if change.diff().changed("email") {
///         let email = change.diff().after("email");
///         events.push(NewEvent::new("UserEmailChanged", email)?);
///     }
///     Ok(events)
/// };
/// # fn check(_: impl nodestorage::EventMapper) {}
/// # check(mapper);
/// ```
pub trait EventMapper: Send + Sync + 'static {
    /// The events of a change, in the order in which they are to be published; none is fine.
    ///
    /// # Errors
    /// A [`MapError`] fails the update with `Mapping`; nothing is written.
    fn map(&self, change: &ChangeView<'_>) -> Result<Vec<NewEvent>, MapError>;

    /// What kind of thing the documents of a collection are, for the envelope: `User`. By default the
    /// collection's name in Pascal case: `OrderItems` for `order_items`.
    fn aggregate_type(&self, collection: &str) -> String {
        super::default_mapper::pascal_case(collection)
    }
}

impl<F> EventMapper for F
where
    F: Fn(&ChangeView<'_>) -> Result<Vec<NewEvent>, MapError> + Send + Sync + 'static,
{
    fn map(&self, change: &ChangeView<'_>) -> Result<Vec<NewEvent>, MapError> {
        self(change)
    }
}

/// Why a mapper refused a change. Made from text or from any of the crate's errors.
#[derive(Debug)]
pub struct MapError {
    message: String,
    source: Option<BoxError>,
}

impl MapError {
    /// A refusal with its reason.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            source: None,
        }
    }

    /// Sets the error that caused this one.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(source.into());
        self
    }

    pub(crate) fn into_error(self, document: impl fmt::Display) -> Error {
        Error::new(
            ErrorKind::Mapping,
            format!("mapping the change of {document} failed: {self}"),
        )
        .with_source(self)
    }
}

impl fmt::Display for MapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for MapError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source
            .as_deref()
            .map(|source| source as &(dyn std::error::Error + 'static))
    }
}

impl From<Error> for MapError {
    fn from(error: Error) -> Self {
        Self::new(error.to_string()).with_source(error)
    }
}

impl From<&str> for MapError {
    fn from(message: &str) -> Self {
        Self::new(message)
    }
}

impl From<String> for MapError {
    fn from(message: String) -> Self {
        Self::new(message)
    }
}
