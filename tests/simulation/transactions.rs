//! The calls over several documents.

use std::time::Duration;

use nodestorage::{DocumentKey, Error, UpdateContext, UpdateError};

use crate::calls::{Account, Called, Caller, seen};
use crate::chance::pass;
use crate::ledger::{Notes, Verdict, emit};

impl Caller {
    /// Moves an amount from one account to another, having looked at a third one.
    pub(crate) fn transfer(
        &self,
        keys: &[DocumentKey],
        rejects: bool,
        time: Duration,
        patience: bool,
    ) -> Called {
        let (storage, retry) = (self.storage.clone(), self.retry(patience));
        let keys: Vec<_> = keys.to_vec();
        let written = keys[..2].to_vec();
        self.call("transfer", written.clone(), move |tag| async move {
            let notes = Notes::default();
            let transfer = storage.transaction_with(retry, |tx| {
                let (notes, keys) = (notes.clone(), keys.clone());
                notes.clear();
                async move {
                    if let Some(third) = keys.get(2) {
                        let found = tx.find::<Account>(third.collection(), third.id()).await?;
                        notes.saw(third, found.map(|it| (it.version().get(), it.tag)));
                    }
                    for (key, amount) in keys.iter().zip([-1, 1]) {
                        let noted = notes.clone();
                        let change = |found: Option<Account>, context: &mut UpdateContext| {
                            noted.saw(key, seen(context, found.as_ref()));
                            let mut account = found.expect("accounts are never deleted");
                            account.value += amount;
                            account.tag = tag;
                            emit(context, tag);
                            account
                        };
                        tx.update_with(key.collection(), key.id(), change).await?;
                        pass(time).await;
                    }
                    match rejects {
                        true => Err(Refusal::Rejected),
                        false => Ok(()),
                    }
                }
            });
            match transfer.await {
                // A transaction does not tell its versions.
                Ok(()) => Verdict::Committed(Vec::new()),
                Err(UpdateError::Rejected(Refusal::Rejected)) => Verdict::Nothing(notes.all()),
                Err(
                    UpdateError::Rejected(Refusal::Storage(error)) | UpdateError::Storage(error),
                ) => Verdict::of_error(&keys[0], &error),
            }
        })
    }

    /// Reads accounts in one transaction: they were as seen at one moment.
    pub(crate) fn sum(&self, keys: &[DocumentKey], total: Option<i64>) -> Called {
        let (storage, retry) = (self.storage.clone(), self.retry.clone());
        let keys = keys.to_vec();
        self.call("sum", Vec::new(), move |_| async move {
            let notes = Notes::default();
            let sum = storage.transaction_with(retry, |tx| {
                let (notes, keys) = (notes.clone(), keys.clone());
                notes.clear();
                async move {
                    let mut sum = 0;
                    for key in &keys {
                        let found = tx.load::<Account>(key.collection(), key.id()).await?;
                        notes.saw(key, Some((found.version().get(), found.tag)));
                        sum += found.value;
                    }
                    Ok::<_, Error>(sum)
                }
            });
            match sum.await {
                Ok(sum) => {
                    let total = total.unwrap_or(sum);
                    assert_eq!(sum, total, "what a transaction read together");
                    Verdict::Nothing(notes.all())
                }
                Err(error) => Verdict::of_error(&keys[0], &error.flatten()),
            }
        })
    }
}

/// Why a transfer's closure ends without effect.
#[derive(Debug)]
enum Refusal {
    Rejected,
    Storage(Error),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Storage(error)
    }
}
