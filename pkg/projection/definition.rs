use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::document::DocumentId;
use crate::error::BoxError;
use crate::event::Event;

/// A read model: a pure fold from events to views, each view a document found by its key.
///
/// The runner calls it with the events of the log in their order, one document's events in version order,
/// and stores what it returns. Everything here is a function of its arguments alone: no clock, no I/O,
/// because events are folded again when a view is rebuilt, or when something went wrong.
///
/// ```
/// use nodestorage::error::BoxError;
/// use nodestorage::projection::Projection;
/// use nodestorage::{DocumentId, Event};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Clone, Default, Serialize, Deserialize)]
/// struct Spent { orders: u64, cents: i64 }
///
/// /// What each customer has spent.
/// struct SpentByCustomer;
///
/// impl Projection for SpentByCustomer {
///     type View = Spent;
///
///     fn name(&self) -> &str { "spent_by_customer" }
///
///     fn handles(&self, event_type: &str, _collection: &str) -> bool { event_type == "OrderPlaced" }
///
///     fn keys(&self, event: &Event) -> Vec<DocumentId> {
///         event.data()["customer"].as_str().map(DocumentId::from).into_iter().collect()
///     }
///
///     fn apply(&self, _: &DocumentId, view: Option<Spent>, event: &Event) -> Result<Option<Spent>, BoxError> {
///         let mut view = view.unwrap_or_default();
///         view.orders += 1;
///         view.cents += event.data()["cents"].as_i64().ok_or("an order without cents")?;
///         Ok(Some(view))
///     }
/// }
/// ```
pub trait Projection: Send + Sync + 'static {
    /// The view. A document: a struct or a map, no bare number. Cloned before each event, so that an
    /// `apply` that fails or panics leaves the view as it was.
    type View: Clone + Serialize + DeserializeOwned + Send + Sync + 'static;

    /// The name, under which checkpoint, dead letters and views are stored: 1 to 128 letters, digits, `_`,
    /// `-` and `.`.
    fn name(&self) -> &str;

    /// The version of this code, from 1. Under a higher number than the stored one, the views are built
    /// anew beside the ones in use, which are replaced when the new ones have caught up.
    fn version(&self) -> u32 {
        1
    }

    /// Whether events of this type, of documents in this collection, concern it. Others cost next to
    /// nothing: their data is not even read. All do by default.
    ///
    /// With an [`EventRegistry`](crate::event::EventRegistry), the type is the current one.
    fn handles(&self, event_type: &str, collection: &str) -> bool {
        let _ = (event_type, collection);
        true
    }

    /// The keys of the views that an event changes, each once. The id of the event's document by default.
    fn keys(&self, event: &Event) -> Vec<DocumentId> {
        vec![event.aggregate_id().clone()]
    }

    /// The view of `key` after an event; `None` removes it.
    ///
    /// # Errors
    /// Anything: it is tried again, and then the event goes to the dead letters. A panic counts as an
    /// error.
    fn apply(
        &self,
        key: &DocumentId,
        view: Option<Self::View>,
        event: &Event,
    ) -> Result<Option<Self::View>, BoxError>;
}
