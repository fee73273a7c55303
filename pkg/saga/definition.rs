use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::context::COMPENSATE;
use super::data;
use super::state::{COLLECTION, Name};
use super::step::{Step, StepDefinition};
use crate::document::validate_collection_name;
use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;

/// The saga that an event starts: its id and its encoded data.
pub(super) type StartRule =
    Arc<dyn Fn(&Event) -> Option<(String, Result<bson::Bson>)> + Send + Sync>;
/// The saga that an event is a signal for.
pub(super) type SignalRule = Arc<dyn Fn(&Event) -> Option<String> + Send + Sync>;

/// The longest name of a saga or step, in bytes: effect ids, of which they are parts, must be command ids,
/// which have at most 512.
const MAX_NAME_BYTES: usize = 100;

/// A saga's definition: its name, the type of its data, and its steps in order.
///
/// Nothing runs by itself: [`Sagas`](super::Sagas) carries it out.
///
/// # Examples
/// ```
/// use nodestorage::saga::{Saga, Step, StepContext};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Clone, Serialize, Deserialize)]
/// struct Order { total: i64, paid: bool }
///
/// let fulfilment = Saga::new("fulfilment")
///     .step(Step::new("reserve", async |_: StepContext<Order>| Ok(())))
///     .step(Step::wait_for("payment", "OrderPaid", |order: &mut Order, _: serde_json::Value| {
///         order.paid = true;
///         Ok(())
///     }))
///     .started_by("OrderPlaced", |event| {
///         let order = event.data_as::<Order>().ok()?;
///         Some((event.aggregate_id().to_string(), order))
///     })
///     .signalled_by("OrderPaid", |event| Some(event.aggregate_id().to_string()));
/// assert_eq!(fulfilment.name(), "fulfilment");
/// ```
pub struct Saga<D> {
    definition: Definition,
    data: PhantomData<fn() -> D>,
}

/// A saga's definition without its types.
#[derive(Clone)]
pub(crate) struct Definition {
    pub(crate) name: Name,
    pub(super) collection: Name,
    pub(super) steps: Vec<StepDefinition>,
    /// How long one attempt at a compensation may take.
    pub(super) compensation_timeout: Duration,
    pub(super) starts: Vec<(Name, StartRule)>,
    pub(super) signals: Vec<(Name, SignalRule)>,
}

impl<D: Serialize + DeserializeOwned + Clone + Send + Sync + 'static> Saga<D> {
    /// A saga of this name, still without steps. The name is part of the stored sagas' ids, of the effect
    /// ids, and of the lease; it may not contain `/`.
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self {
            definition: Definition {
                name: name.into(),
                collection: COLLECTION.into(),
                steps: Vec::new(),
                compensation_timeout: Duration::from_secs(60),
                starts: Vec::new(),
                signals: Vec::new(),
            },
            data: PhantomData,
        }
    }

    /// Adds the next step.
    ///
    /// Steps may be added behind those there are while sagas are under way. A saga whose current or completed
    /// step has gone is stuck.
    #[must_use]
    pub fn step(mut self, step: Step<D>) -> Self {
        self.definition.steps.push(step.definition);
        self
    }

    /// Starts a saga for each event of a type, with the id and data that `start` makes of it, unless it
    /// returns `None`. An event whose saga exists already changes nothing.
    ///
    /// The events come from the log, from its beginning on, through a durable subscription that runs beside
    /// the runner. `start` must be pure.
    #[must_use]
    pub fn started_by<F>(mut self, event_type: impl Into<Arc<str>>, start: F) -> Self
    where
        F: Fn(&Event) -> Option<(String, D)> + Send + Sync + 'static,
    {
        let rule = move |event: &Event| {
            let (id, data) = start(event)?;
            Some((id, data::encode(&data)))
        };
        let starts = &mut self.definition.starts;
        starts.push((event_type.into(), Arc::new(rule)));
        self
    }

    /// Hands each event of a type to the saga with the id that `saga` makes of it, as a signal named like the
    /// event's type with the event's data as payload. Delivered once, by the event's id. Events for which there
    /// is no saga are left out.
    #[must_use]
    pub fn signalled_by<F>(mut self, event_type: impl Into<Arc<str>>, saga: F) -> Self
    where
        F: Fn(&Event) -> Option<String> + Send + Sync + 'static,
    {
        let signals = &mut self.definition.signals;
        signals.push((event_type.into(), Arc::new(saga)));
        self
    }

    /// Sets the collection that the sagas are stored in. Default: `sagas`, which all sagas may share.
    #[must_use]
    pub fn with_collection(mut self, collection: impl Into<Arc<str>>) -> Self {
        self.definition.collection = collection.into();
        self
    }

    /// Sets how long one attempt at a compensation may take. Default 60 s.
    #[must_use]
    pub fn with_compensation_timeout(mut self, timeout: Duration) -> Self {
        self.definition.compensation_timeout = timeout;
        self
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.definition.name
    }

    /// The definition, checked.
    pub(crate) fn into_definition(self) -> Result<Definition> {
        let definition = self.definition;
        validate_name("saga", &definition.name)?;
        validate_collection_name(&definition.collection)?;
        let invalid = |what: String| {
            let what = format!("saga {}: {what}", definition.name);
            Err(Error::new(ErrorKind::InvalidConfig, what))
        };
        if definition.steps.is_empty() {
            return invalid("it has no steps".to_owned());
        }
        for (index, step) in definition.steps.iter().enumerate() {
            validate_name("step", &step.name).map_err(|e| e.context(&definition.name))?;
            if &*step.name == COMPENSATE {
                return invalid(format!("no step may be named {COMPENSATE}"));
            }
            let mut before = definition.steps[..index].iter();
            if before.any(|other| other.name == step.name) {
                return invalid(format!("two steps are named {}", step.name));
            }
        }
        Ok(definition)
    }
}

impl Definition {
    /// The step of that name and its place.
    pub(super) fn find(&self, name: &str) -> Option<(usize, &StepDefinition)> {
        let mut steps = self.steps.iter().enumerate();
        steps.find(|(_, step)| &*step.name == name)
    }

    /// Whether a step can be compensated. One that is not known any more must not be passed over in silence.
    pub(super) fn must_compensate(&self, name: &str) -> bool {
        self.find(name)
            .is_none_or(|(_, step)| step.compensation.is_some())
    }

    pub(super) fn has_events(&self) -> bool {
        !self.starts.is_empty() || !self.signals.is_empty()
    }
}

fn validate_name(what: &str, name: &str) -> Result<()> {
    let reason = if name.is_empty() {
        "is empty".to_owned()
    } else if name.len() > MAX_NAME_BYTES {
        let bytes = name.len();
        format!("has {bytes} bytes, at most {MAX_NAME_BYTES} are allowed")
    } else if name.contains('/') || name.chars().any(char::is_control) {
        "contains a slash or a control character".to_owned()
    } else {
        return Ok(());
    };
    let what = format!("{what} name {name:?} {reason}");
    Err(Error::new(ErrorKind::InvalidName, what))
}

/// The longest id of a saga, in bytes; see [`MAX_NAME_BYTES`].
const MAX_ID_BYTES: usize = 256;

pub(super) fn validate_id(saga: &str, id: &str) -> Result<()> {
    if !id.is_empty() && id.len() <= MAX_ID_BYTES && !id.chars().any(char::is_control) {
        return Ok(());
    }
    let what = format!("saga {saga}: ids have 1 to {MAX_ID_BYTES} bytes and no control characters");
    Err(Error::new(ErrorKind::InvalidName, what))
}

impl<D> fmt::Debug for Saga<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Saga")
            .field("definition", &self.definition)
            .finish()
    }
}

impl fmt::Debug for Definition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Definition")
            .field("name", &self.name)
            .field("collection", &self.collection)
            .field("steps", &self.steps)
            .finish_non_exhaustive()
    }
}
