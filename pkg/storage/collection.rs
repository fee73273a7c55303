use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use bson::Document;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::outcome::{Outcome, Verdict};
use super::update::{Ran, Update};
use super::{Change, Query, Storage, Stored, UpdateContext, UpdateOptions};
use crate::document::{DocumentId, DocumentKey};
use crate::error::{Error, ErrorKind, Result};

/// A collection whose documents are read as `T`. Cheap to clone.
pub struct Collection<T> {
    storage: Storage,
    name: Arc<str>,
    document: PhantomData<fn() -> T>,
}

impl<T> Collection<T> {
    pub(super) fn new(storage: Storage, name: Arc<str>) -> Self {
        Self {
            storage,
            name,
            document: PhantomData,
        }
    }

    /// The collection's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The storage it belongs to.
    #[must_use]
    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    /// Counts the documents that match a query's filters; see [`Storage::count`].
    ///
    /// # Errors
    /// Those of [`Storage::count`].
    pub async fn count(&self, query: &Query) -> Result<u64> {
        self.storage.count(&self.name, query).await
    }

    /// Deletes a document; see [`Storage::delete`].
    ///
    /// # Errors
    /// Those of [`Storage::delete`].
    pub async fn delete(&self, id: impl Into<DocumentId>) -> Result<Change<Document>> {
        self.storage.delete(&self.name, id).await
    }
}

impl<T: DeserializeOwned> Collection<T> {
    /// Reads a document; see [`Storage::find`].
    ///
    /// # Errors
    /// Those of [`Storage::find`].
    pub async fn find(&self, id: impl Into<DocumentId>) -> Result<Option<Stored<T>>> {
        self.storage.find(&self.name, id).await
    }

    /// Reads a document that must be there; see [`Storage::load`].
    ///
    /// # Errors
    /// Those of [`Storage::load`].
    pub async fn load(&self, id: impl Into<DocumentId>) -> Result<Stored<T>> {
        self.storage.load(&self.name, id).await
    }

    /// Reads the documents that match a query; see [`Storage::find_many`].
    ///
    /// # Errors
    /// Those of [`Storage::find_many`].
    pub async fn find_many(&self, query: &Query) -> Result<Vec<Stored<T>>> {
        self.storage.find_many(&self.name, query).await
    }
}

impl<T: Serialize + DeserializeOwned> Collection<T> {
    /// Changes a document; see [`Storage::update`].
    ///
    /// # Errors
    /// Those of [`Storage::update`].
    pub async fn update<R: Outcome<T>>(
        &self,
        id: impl Into<DocumentId>,
        f: impl FnMut(Option<T>) -> R,
    ) -> Result<Change<T>, R::Error> {
        self.storage.update(&self.name, id, f).await
    }

    /// Changes a document, with options; see [`Storage::update_with`].
    ///
    /// # Errors
    /// Those of [`Storage::update_with`].
    pub async fn update_with<R: Outcome<T>>(
        &self,
        id: impl Into<DocumentId>,
        options: UpdateOptions,
        f: impl FnMut(Option<T>, &mut UpdateContext) -> R,
    ) -> Result<Change<T>, R::Error> {
        self.storage.update_with(&self.name, id, options, f).await
    }

    /// Creates a document that must not exist yet.
    ///
    /// # Errors
    /// `VersionConflict` if it does, and those of [`Storage::update`].
    pub async fn create(&self, id: impl Into<DocumentId>, document: T) -> Result<Change<T>>
    where
        T: Clone,
    {
        let options =
            UpdateOptions::new().with_expected(crate::document::ExpectedVersion::MustNotExist);
        self.update_with(id, options, |_, _| document.clone()).await
    }

    /// Changes a document that exists, in place.
    ///
    /// ```
    /// # use nodestorage::{Collection, Result};
    /// # use serde::{Serialize, Deserialize};
    /// # #[derive(Serialize, Deserialize)]
    /// # struct User { email: String }
    /// # async fn example(users: Collection<User>) -> Result<()> {
    /// users.modify("user123", |user| user.email = "new@example.com".into()).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// `NotFound` if there is no document, and those of [`Storage::update`].
    pub async fn modify<V: Verdict>(
        &self,
        id: impl Into<DocumentId>,
        mut f: impl FnMut(&mut T) -> V,
    ) -> Result<Change<T>, V::Error> {
        let key = DocumentKey::new(Arc::clone(&self.name), id);
        let options = UpdateOptions::default();
        let mut update = Update::new(&self.storage.inner, key.clone(), options, false).await?;
        loop {
            let (document, run) = update.start::<T>().await?;
            let outcome = match document {
                Some(mut document) => f(&mut document).into_verdict().map(|()| document),
                None => Err(Error::new(ErrorKind::NotFound, format!("{key} not found")).into()),
            };
            let document = match outcome {
                Ok(document) => document,
                Err(error) if update.stands(run).await? => return Err(error),
                Err(_) => continue,
            };
            match update.finish(run, Some(document)).await? {
                Ran::Done(change) => return Ok(change),
                Ran::Again => {}
            }
        }
    }
}

impl<T> Clone for Collection<T> {
    fn clone(&self) -> Self {
        Self::new(self.storage.clone(), Arc::clone(&self.name))
    }
}

impl<T> fmt::Debug for Collection<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Collection")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
