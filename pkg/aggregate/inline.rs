//! Read models that are stored in the commit of the aggregate itself.

use std::fmt::Debug;

use bson::RawDocumentBuf;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Aggregate;
use crate::document::{DocumentId, DocumentKey};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::backend::{Record, RecordWrite};

/// A read model of one aggregate that is never behind: written in the commit of the events it shows, and
/// read by the aggregate's id.
///
/// A pure function of the state, so that it can be worked out again at any time. A read model over several
/// aggregates, or one that is to be searched, is a [projection](crate::projection) of the log.
///
/// # Examples
/// ```
/// use nodestorage::DocumentId;
/// use nodestorage::aggregate::{Aggregate, InlineProjection};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Summary {
///     title: String,
/// }
///
/// #[derive(Debug)]
/// struct Summaries;
///
/// impl<A: Aggregate> InlineProjection<A> for Summaries {
///     type View = Summary;
///
///     fn name(&self) -> &str {
///         "summaries"
///     }
///
///     fn project(&self, id: &DocumentId, _: &A) -> Option<Summary> {
///         Some(Summary { title: format!("{} {id}", A::TYPE) })
///     }
/// }
/// ```
pub trait InlineProjection<A: Aggregate>: Debug + Send + Sync + 'static {
    /// What is read.
    type View: Serialize + DeserializeOwned + Send + 'static;

    /// The name under which the views are stored, 1 to 200 bytes.
    fn name(&self) -> &str;

    /// The view of a state; `None` for no view. Of an aggregate that was deleted there is none.
    fn project(&self, id: &DocumentId, state: &A) -> Option<Self::View>;
}

/// The kind of the records that hold the views of a projection.
pub(super) fn kind_of(name: &str) -> String {
    format!("projection/{name}")
}

/// An inline projection, its view's type forgotten.
pub(super) trait Inline<A>: Debug + Send + Sync {
    fn name(&self) -> &str;
    fn write(&self, key: &DocumentKey, state: Option<&A>) -> Result<RecordWrite>;
}

#[derive(Debug)]
pub(super) struct Typed<P>(pub(super) P);

impl<A: Aggregate, P: InlineProjection<A>> Inline<A> for Typed<P> {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn write(&self, key: &DocumentKey, state: Option<&A>) -> Result<RecordWrite> {
        let kind = kind_of(self.0.name());
        let view = state.and_then(|state| self.0.project(key.id(), state));
        let Some(view) = view else {
            let key = key.to_string();
            return Ok(RecordWrite::Delete { kind, key });
        };
        Ok(RecordWrite::Put(Record {
            kind,
            key: key.to_string(),
            value: to_raw(&view, key)?,
        }))
    }
}

fn to_raw(view: &impl Serialize, key: &DocumentKey) -> Result<RawDocumentBuf> {
    bson::serialize_to_raw_document_buf(view).map_err(|e| {
        let what = format!("the view of {key} has no form as a document");
        Error::new(ErrorKind::Serialization, what).with_source(e)
    })
}
