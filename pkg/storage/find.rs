//! Reading documents.

use bson::RawDocument;
use serde::de::DeserializeOwned;

use super::codec::Codec;
use super::{CollectionSpec, Query, Storage, Stored};
use crate::document::{DocumentId, DocumentKey};
use crate::error::{Error, ErrorKind, Result};

impl Storage {
    /// Reads a document; `None` if there is none. What is returned was committed by a majority and is
    /// no older than the call.
    ///
    /// # Errors
    /// `InvalidName`, `Serialization` if the document is not a `T`, `Unavailable`.
    pub async fn find<T: DeserializeOwned>(
        &self,
        collection: &str,
        id: impl Into<DocumentId>,
    ) -> Result<Option<Stored<T>>> {
        let key = DocumentKey::new(collection, id);
        self.inner.check_open()?;
        key.id().validate()?;
        let spec = self.inner.open_collection(collection).await?;
        match self.inner.load(&key).await?.document {
            Some(document) => decode(&spec, key, &document).map(Some),
            None => Ok(None),
        }
    }

    /// Reads a document that must be there.
    ///
    /// # Errors
    /// `NotFound`, and those of [`find`](Self::find).
    pub async fn load<T: DeserializeOwned>(
        &self,
        collection: &str,
        id: impl Into<DocumentId>,
    ) -> Result<Stored<T>> {
        let key = DocumentKey::new(collection, id);
        let found = self.find(collection, key.id()).await?;
        found.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("{key} not found")))
    }

    /// Reads the documents that match a query, in the query's order.
    ///
    /// # Errors
    /// `InvalidConfig` for a query that no declared index serves and that does not allow a scan, and
    /// for paths that are none; `Serialization` if a document is not a `T`; `Unavailable`.
    pub async fn find_many<T: DeserializeOwned>(
        &self,
        collection: &str,
        query: &Query,
    ) -> Result<Vec<Stored<T>>> {
        self.inner.check_open()?;
        let spec = self.inner.open_collection(collection).await?;
        query.check(&spec)?;
        let found = self.backend().query(collection, query).await?;
        found
            .iter()
            .map(|document| {
                let id = document.get("_id").ok().flatten().ok_or_else(|| {
                    Error::new(
                        ErrorKind::Corrupt,
                        format!("a document of {collection} has no _id"),
                    )
                })?;
                let id = DocumentId::from_bson(id).map_err(|e| e.context(collection))?;
                decode(&spec, DocumentKey::new(collection, id), document)
            })
            .collect()
    }

    /// Counts the documents that match a query's filters, whatever its order, limit and page; for totals
    /// beside a page.
    ///
    /// ```
    /// # use nodestorage::{Query, Result, Storage};
    /// # async fn example(storage: Storage) -> Result<()> {
    /// let paid = Query::new().equal("status", "paid").limit(20);
    /// println!("20 of {}", storage.count("orders", &paid).await?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// `InvalidConfig` for filters that no declared index serves where the query does not allow a scan, and
    /// for paths that are none; `Unavailable`. A query without filters counts all documents.
    pub async fn count(&self, collection: &str, query: &Query) -> Result<u64> {
        self.inner.check_open()?;
        let spec = self.inner.open_collection(collection).await?;
        query.check_count(&spec)?;
        self.backend().count(collection, query).await
    }
}

fn decode<T: DeserializeOwned>(
    spec: &CollectionSpec,
    key: DocumentKey,
    document: &RawDocument,
) -> Result<Stored<T>> {
    let codec = Codec {
        key: &key,
        version_field: &spec.version_field,
    };
    let value = codec.decode(document)?;
    let version = codec.version(document)?.unwrap_or_default();
    Ok(Stored::new(key.id().clone(), version, value))
}
