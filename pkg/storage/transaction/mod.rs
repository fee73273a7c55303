//! Several documents, all or nothing.

mod commit;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bson::RawDocumentBuf;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::base::Base;
use super::codec::Codec;
use super::context::Collected;
use super::engine::{Answer, LaneUse, Tick, Want, closed};
use super::retry::Attempts;
use super::turns::Turn;
use super::update::decide;
use super::{CollectionSpec, Outcome, RetryPolicy, Storage, Stored, UpdateContext, UpdateError};
use crate::document::{DocumentId, DocumentKey, Version};
use crate::error::{Error, ErrorKind, Result};
use crate::event::Metadata;

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
    #[tracing::instrument(level = "debug", name = "transaction", skip_all)]
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
        let since = self.inner.engine.tick();
        // Whoever has lost lines up for the documents it lost on, in one order everywhere.
        let mut contested: Vec<DocumentKey> = Vec::new();
        loop {
            let mut turns = BTreeMap::new();
            for key in &contested {
                turns.insert(key.clone(), Arc::new(self.inner.turns.take(key).await));
            }
            let handle = Transaction::new(self.clone(), since, attempts.deadline(), turns);
            let result = f(handle.clone()).await;
            let ended = handle.end();
            let result = match result {
                Ok(result) => result,
                Err(rejected) if self.inner.was_one_state(&ended, &attempts).await? => {
                    return Err(UpdateError::Rejected(rejected));
                }
                Err(_) => {
                    contested = ended.touched.into_keys().collect();
                    attempts.after_conflict(faster()).await?;
                    continue;
                }
            };
            contested = ended.touched.keys().cloned().collect();
            match self.inner.commit_transaction(ended, &attempts).await? {
                Some(Answer::Committed { .. }) => return Ok(result),
                // Its closure may take long, and lose again and again: that has to end some time.
                None => attempts.after_conflict(faster()).await?,
                Some(Answer::Again { own: false, source }) => attempts.again(source).await?,
                Some(Answer::Again { own: true, source }) => {
                    attempts.after_conflict(source).await?;
                }
                Some(Answer::Failed(error)) => attempts.after_failure(error).await?,
                Some(Answer::Unknown(error)) => return Err(error.into()),
            }
        }
    }
}

/// The documents of a running [`Storage::transaction`]. A clone is the same transaction; after its
/// closure has returned every call fails with `Closed`.
#[derive(Debug, Clone)]
pub struct Transaction {
    storage: Storage,
    /// When the call began.
    since: Tick,
    deadline: Instant,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    ended: bool,
    metadata: Metadata,
    /// The turns on documents that an earlier run lost on.
    turns: BTreeMap<DocumentKey, Arc<Turn>>,
    /// In key order, so that two transactions write their documents in the same order.
    touched: BTreeMap<DocumentKey, Touched>,
}

#[derive(Debug)]
struct Touched {
    spec: Arc<CollectionSpec>,
    base: Base,
    generation: Option<u64>,
    seen: Option<Tick>,
    lane: LaneUse,
    /// As the transaction has left it so far.
    current: Option<Arc<RawDocumentBuf>>,
    changed: bool,
    /// How often the transaction has updated it.
    updates: u64,
    collected: Collected,
}

impl Transaction {
    fn new(
        storage: Storage,
        since: Tick,
        deadline: Instant,
        turns: BTreeMap<DocumentKey, Arc<Turn>>,
    ) -> Self {
        let state = State {
            turns,
            ..State::default()
        };
        Self {
            storage,
            since,
            deadline,
            state: Arc::new(Mutex::new(state)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while holding the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes out what the closure did; from here on the handle is of no use.
    fn end(self) -> State {
        let ended = State {
            ended: true,
            ..State::default()
        };
        std::mem::replace(&mut *self.lock(), ended)
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
        let mut run = 0;
        loop {
            run += 1;
            let (spec, base, metadata, number) = self.with(&key, |touched| {
                let base = Base {
                    document: touched.current.clone(),
                    ..touched.base.clone()
                };
                let metadata = touched.collected.metadata.clone();
                (Arc::clone(&touched.spec), base, metadata, touched.updates)
            })?;
            let codec = Codec {
                key: &key,
                version_field: &spec.version_field,
            };
            let document = base.document.as_ref();
            let value: Option<T> = document.map(|raw| codec.decode(raw)).transpose()?;
            let before = value.as_ref().map(|value| codec.encode(value));
            let before = before.transpose()?;
            let mut context =
                UpdateContext::new(key.clone(), (base.version, base.next), (run, 0), metadata);
            let after = f(value, &mut context).into_result()?;
            let (after, changed) = decide(codec, &base, before.as_ref(), after)?;
            let collected = context.take();
            let is_kept = self.with(&key, move |touched| {
                if touched.updates != number {
                    // Another task with a clone of this handle was faster.
                    return false;
                }
                touched.updates += 1;
                if changed {
                    touched.current = after.map(Arc::new);
                    touched.changed = true;
                }
                touched.collected.join(collected);
                true
            })?;
            if is_kept {
                return Ok(());
            }
        }
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
        let turn = {
            let state = self.lock();
            if state.ended {
                return Err(over());
            }
            if state.touched.contains_key(key) {
                return Ok(());
            }
            state.turns.get(key).cloned()
        };
        key.id().validate()?;
        let inner = &self.storage.inner;
        inner.check_open()?;
        let spec = inner.open_collection(key.collection()).await?;
        // Read since the call began, so that a closure that rejects has rejected what was there.
        let want = Want::Since(self.since);
        let (lane, view) = match turn {
            Some(turn) => {
                let entering = inner.enter_at_rest(key, &spec, want, &turn, self.deadline);
                entering.await?
            }
            None => inner.engine.begin(key, &spec, want, self.deadline).await?,
        };
        let touched = Touched {
            spec,
            current: view.base.document.clone(),
            base: view.base,
            generation: view.generation,
            seen: view.seen,
            lane,
            changed: false,
            updates: 0,
            collected: Collected::default(),
        };
        // Two reads of one document at a time: the first one counts for both.
        let mut state = self.lock();
        let ended = state.ended;
        let second = match state.touched.entry(key.clone()) {
            Entry::Vacant(place) if !ended => {
                place.insert(touched);
                None
            }
            _ => Some(touched),
        };
        // Its lane is left once the lock is released.
        drop(state);
        drop(second);
        match ended {
            true => Err(over()),
            false => Ok(()),
        }
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

fn faster() -> Error {
    Error::new(
        ErrorKind::Unavailable,
        "other updates of its documents kept being faster",
    )
}
