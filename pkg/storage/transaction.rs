//! Several documents, all or nothing.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bson::RawDocumentBuf;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::backend::{CommitFailure, Unit};
use super::base::Base;
use super::codec::Codec;
use super::engine::closed;
use super::plan::{Decision, Planned, Stamp};
use super::retry::Attempts;
use super::update::decide;
use super::{
    CollectionSpec, Inner, Outcome, RetryPolicy, Storage, Stored, UpdateContext, UpdateError,
};
use crate::document::{DocumentId, DocumentKey, Version};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Metadata, NewEvent};

impl Storage {
    /// Changes several documents all together or not at all.
    ///
    /// The closure gets a handle through which it reads and changes documents; nothing is written until
    /// it has returned `Ok`. Then everything it changed is committed in one step, provided that every
    /// document it read or changed is still as it was; else the closure runs again from the start. Each
    /// changed document gets one version and one log entry. An `Err` writes nothing.
    ///
    /// ```
    /// # use nodestorage::{Storage, Error, UpdateError};
    /// # use serde::{Serialize, Deserialize};
    /// #[derive(Serialize, Deserialize)]
    /// struct Account { balance: i64 }
    ///
    /// # async fn example(storage: Storage) -> Result<(), UpdateError<Error>> {
    /// storage
    ///     .transaction(|tx| async move {
    ///         tx.modify("accounts", "alice", |account: &mut Account| account.balance -= 10).await?;
    ///         tx.modify("accounts", "bob", |account: &mut Account| account.balance += 10).await?;
    ///         Ok::<_, Error>(())
    ///     })
    ///     .await
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`UpdateError::Rejected`] with the closure's own error, else those of
    /// [`update`](Self::update).
    pub async fn transaction<R, E, Fut>(
        &self,
        f: impl FnMut(Transaction) -> Fut,
    ) -> Result<R, UpdateError<E>>
    where
        Fut: Future<Output = Result<R, E>>,
    {
        let retry = self.inner.options.retry.clone();
        self.transaction_with(retry, f).await
    }

    /// As [`transaction`](Self::transaction), with a retry policy of its own.
    ///
    /// # Errors
    /// Those of [`transaction`](Self::transaction).
    pub async fn transaction_with<R, E, Fut>(
        &self,
        retry: RetryPolicy,
        mut f: impl FnMut(Transaction) -> Fut,
    ) -> Result<R, UpdateError<E>>
    where
        Fut: Future<Output = Result<R, E>>,
    {
        self.inner.check_open()?;
        let mut attempts = Attempts::new(&retry);
        loop {
            let handle = Transaction::new(self.clone());
            let result = f(handle.clone()).await;
            let touched = handle.end();
            let result = result.map_err(UpdateError::Rejected)?;
            match self.inner.commit_transaction(touched, &attempts).await? {
                Ok(()) => return Ok(result),
                Err(CommitFailure::Conflict { source, .. }) => {
                    attempts.after_conflict(source).await?;
                }
                Err(failure @ CommitFailure::Failed(_)) => {
                    attempts.after_failure(failure.into_error()).await?;
                }
                Err(failure) => return Err(failure.into_error().into()),
            }
        }
    }
}

/// The documents of a running [`Storage::transaction`]. A clone is the same transaction; after its
/// closure has returned every call fails with `Closed`.
#[derive(Debug, Clone)]
pub struct Transaction {
    storage: Storage,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    ended: bool,
    metadata: Metadata,
    /// In key order, so that two transactions write their documents in the same order.
    touched: BTreeMap<DocumentKey, Touched>,
}

#[derive(Debug)]
struct Touched {
    spec: Arc<CollectionSpec>,
    base: Base,
    /// As the transaction has left it so far.
    current: Option<Arc<RawDocumentBuf>>,
    changed: bool,
    emitted: Vec<NewEvent>,
    metadata: Metadata,
}

impl Transaction {
    fn new(storage: Storage) -> Self {
        Self {
            storage,
            state: Arc::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while holding the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(self) -> (Metadata, BTreeMap<DocumentKey, Touched>) {
        let mut state = self.lock();
        state.ended = true;
        let metadata = std::mem::take(&mut state.metadata);
        (metadata, std::mem::take(&mut state.touched))
    }

    /// Says where the changes of this transaction come from.
    pub fn set_metadata(&self, metadata: Metadata) {
        self.lock().metadata = metadata;
    }

    /// Reads a document as the transaction has left it so far; `None` if there is none.
    ///
    /// # Errors
    /// Those of [`Storage::find`], and `Closed` after the closure has returned.
    pub async fn find<T: DeserializeOwned>(
        &self,
        collection: &str,
        id: impl Into<DocumentId>,
    ) -> Result<Option<Stored<T>>> {
        let key = DocumentKey::new(collection, id);
        self.touch(&key).await?;
        let (current, spec, version) = self.with(&key, |touched| {
            let version = touched.base.version.unwrap_or(Version::NONE);
            (touched.current.clone(), Arc::clone(&touched.spec), version)
        })?;
        let Some(current) = current else {
            return Ok(None);
        };
        let codec = Codec {
            key: &key,
            version_field: &spec.version_field,
        };
        Ok(Some(Stored {
            id: key.id().clone(),
            version,
            value: codec.decode(&current)?,
        }))
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

    /// Changes a document within the transaction.
    ///
    /// # Errors
    /// As for [`Storage::update`], except that conflicts show only when the transaction commits.
    pub async fn update<T, R>(
        &self,
        collection: &str,
        id: impl Into<DocumentId>,
        mut f: impl FnMut(Option<T>) -> R,
    ) -> Result<(), R::Error>
    where
        T: Serialize + DeserializeOwned,
        R: Outcome<T>,
    {
        self.update_with(collection, id, move |document, _: &mut UpdateContext| {
            f(document)
        })
        .await
    }

    /// As [`update`](Self::update), with a context that emits events.
    ///
    /// # Errors
    /// As for [`update`](Self::update).
    pub async fn update_with<T, R>(
        &self,
        collection: &str,
        id: impl Into<DocumentId>,
        mut f: impl FnMut(Option<T>, &mut UpdateContext) -> R,
    ) -> Result<(), R::Error>
    where
        T: Serialize + DeserializeOwned,
        R: Outcome<T>,
    {
        let key = DocumentKey::new(collection, id);
        self.touch(&key).await?;
        let (spec, base, metadata) = self.with(&key, |touched| {
            let base = Base {
                document: touched.current.clone(),
                ..touched.base.clone()
            };
            let metadata = touched.metadata.clone();
            (Arc::clone(&touched.spec), base, metadata)
        })?;
        let codec = Codec {
            key: &key,
            version_field: &spec.version_field,
        };
        let document = base.document.as_ref();
        let value: Option<T> = document.map(|raw| codec.decode(raw)).transpose()?;
        let before = value
            .as_ref()
            .map(|value| codec.encode(value))
            .transpose()?;
        let mut context = UpdateContext::new(key.clone(), base.version, 1, metadata);
        let after = f(value, &mut context).into_result()?;
        let (after, changed) = decide(codec, &base, before.as_ref(), after)?;
        let (emitted, metadata) = context.take();
        self.with(&key, move |touched| {
            if changed {
                touched.current = after.map(Arc::new);
                touched.changed = true;
            }
            touched.emitted.extend(emitted);
            touched.metadata = metadata;
        })?;
        Ok(())
    }

    /// Changes a document that exists, in place.
    ///
    /// # Errors
    /// `NotFound` if there is no document, and those of [`update`](Self::update).
    pub async fn modify<T, V>(
        &self,
        collection: &str,
        id: impl Into<DocumentId>,
        mut f: impl FnMut(&mut T) -> V,
    ) -> Result<(), V::Error>
    where
        T: Serialize + DeserializeOwned,
        V: super::Verdict,
    {
        let key = DocumentKey::new(collection, id);
        let id = key.id().clone();
        let update = self.update(collection, id, |document: Option<T>| match document {
            Some(mut document) => f(&mut document).into_verdict().map(|()| document),
            None => Err(Error::new(ErrorKind::NotFound, format!("{key} not found")).into()),
        });
        update.await.map_err(UpdateError::flatten)
    }

    /// Deletes a document within the transaction; without one, nothing happens.
    ///
    /// # Errors
    /// As for [`update`](Self::update).
    pub async fn delete(&self, collection: &str, id: impl Into<DocumentId>) -> Result<()> {
        let gone = |_: Option<RawDocumentBuf>| {
            Ok::<Option<RawDocumentBuf>, std::convert::Infallible>(None)
        };
        Ok(self.update(collection, id, gone).await?)
    }

    /// Reads a document on its first use in the transaction.
    async fn touch(&self, key: &DocumentKey) -> Result<()> {
        {
            let state = self.lock();
            if state.ended {
                return Err(over());
            }
            if state.touched.contains_key(key) {
                return Ok(());
            }
        }
        key.id().validate()?;
        let inner = &self.storage.inner;
        inner.check_open()?;
        let spec = inner.open_collection(key.collection()).await?;
        let codec = Codec {
            key,
            version_field: &spec.version_field,
        };
        let base = Base::new(codec, inner.load(key).await?)?;
        let touched = Touched {
            spec: Arc::clone(&spec),
            current: base.document.clone(),
            base,
            changed: false,
            emitted: Vec::new(),
            metadata: Metadata::default(),
        };
        // Two reads of one document at a time: the first one counts for both.
        self.lock().touched.entry(key.clone()).or_insert(touched);
        Ok(())
    }

    fn with<R>(&self, key: &DocumentKey, f: impl FnOnce(&mut Touched) -> R) -> Result<R> {
        let mut state = self.lock();
        match state.touched.get_mut(key) {
            Some(touched) => Ok(f(touched)),
            None => Err(over()),
        }
    }
}

fn over() -> Error {
    closed().context("the transaction is over")
}

impl Inner {
    async fn commit_transaction(
        &self,
        (metadata, touched): (Metadata, BTreeMap<DocumentKey, Touched>),
        attempts: &Attempts,
    ) -> Result<Result<(), CommitFailure>> {
        let mut unit = Unit::default();
        let mut has_events = false;
        let stamp = Stamp::new(self);
        for (key, touched) in touched {
            let codec = Codec {
                key: &key,
                version_field: &touched.spec.version_field,
            };
            let own = touched.metadata;
            let decision = Decision {
                after: touched.current.as_deref().cloned(),
                changed: touched.changed
                    && touched.current.as_deref() != touched.base.document.as_deref(),
                emitted: touched.emitted,
                metadata: if own.is_empty() {
                    metadata.clone()
                } else {
                    own
                },
            };
            match Planned::new(self, codec, &touched.base, decision, stamp)? {
                Some(mut planned) => {
                    has_events |= !planned.entry.events.is_empty();
                    planned.add_to(&mut unit);
                }
                None => unit.checks.push((key, touched.base.condition)),
            }
        }
        if unit.entries.is_empty() && unit.checks.is_empty() {
            return Ok(Ok(()));
        }
        // Only reads: what they saw together still has to be confirmed as one state.
        let committed = self
            .engine
            .commit(unit, Vec::new(), attempts.deadline())
            .await?;
        if let Ok(receipt) = &committed.result {
            self.note_commit(receipt.position, has_events);
        }
        Ok(committed.result.map(|_| ()))
    }
}
