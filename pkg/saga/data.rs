//! A saga's data between the user's type and the stored form, which is that of documents.

use bson::{Bson, Document};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{BoxError, Error, ErrorKind, Result};

/// Data need not be a document, a field of one can be anything.
#[derive(Serialize, Deserialize)]
struct Wrapped<T> {
    data: T,
}

pub(crate) fn encode<D: Serialize>(data: &D) -> Result<Bson> {
    let unfit = |e: BoxError| {
        let given = std::any::type_name::<D>();
        let what = format!("the saga's data, a {given}, have no stored form");
        Error::new(ErrorKind::Serialization, what).with_source(e)
    };
    let raw = bson::serialize_to_raw_document_buf(&Wrapped { data });
    let document = Document::try_from(raw.map_err(|e| unfit(e.into()))?);
    let mut document = document.map_err(|e| unfit(e.into()))?;
    Ok(document.remove("data").unwrap_or(Bson::Null))
}

pub(crate) fn decode<D: DeserializeOwned>(data: &Bson) -> Result<D> {
    let unfit = |e: BoxError| {
        let wanted = std::any::type_name::<D>();
        let what = format!("the saga's stored data are no {wanted}");
        Error::new(ErrorKind::Serialization, what).with_source(e)
    };
    let raw = bson::serialize_to_raw_document_buf(&Wrapped { data });
    let raw = raw.map_err(|e| unfit(e.into()))?;
    let wrapped = bson::deserialize_from_slice::<Wrapped<D>>(raw.as_bytes());
    wrapped
        .map(|wrapped| wrapped.data)
        .map_err(|e| unfit(e.into()))
}
