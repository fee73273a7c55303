//! The calls that the simulation makes.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use nodestorage::{
    Change, DocumentKey, ErrorKind, ExpectedVersion, RetryPolicy, Storage, UpdateContext,
    UpdateError, UpdateOptions,
};
use serde::{Deserialize, Serialize};

use crate::chance::{Chance, pass};
use crate::ledger::{Ledger, Notes, Verdict, emit, tagged};
use crate::model::{INJECTED, Model};
use crate::world::Seen;

/// The document of counters and accounts.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Account {
    pub(crate) value: i64,
    /// Whose write it was.
    pub(crate) tag: i64,
    /// What the store refuses.
    pub(crate) poison: bool,
}

#[derive(Debug)]
struct Rejected;

pub(crate) type Called = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What all calls need.
#[derive(Clone)]
pub(crate) struct Caller {
    pub(crate) storage: Storage,
    pub(crate) model: Arc<Model>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) retry: RetryPolicy,
}

/// What an update of one document does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deed {
    Increment,
    /// Leaves its tag and changes nothing else.
    Touch,
    Reject,
    Unchanged,
    Delete,
    Poison,
    Emit,
    Panic,
}

impl Deed {
    fn name(self) -> &'static str {
        match self {
            Self::Increment => "increment",
            Self::Touch => "touch",
            Self::Reject => "reject",
            Self::Unchanged => "unchanged",
            Self::Delete => "delete",
            Self::Poison => "poison",
            Self::Emit => "emit",
            Self::Panic => "panic",
        }
    }

    fn run(
        self,
        found: Option<Account>,
        context: &UpdateContext,
        tag: i64,
    ) -> Result<Option<Account>, Rejected> {
        let mut account = found.clone().unwrap_or_default();
        account.tag = tag;
        match self {
            Self::Increment => account.value += 1,
            Self::Poison => account.poison = true,
            Self::Reject => return Err(Rejected),
            Self::Panic => panic!("{INJECTED}"),
            Self::Unchanged => {
                // Unchanged needs something that stays; without it there is nothing to decide.
                return found.map(Some).ok_or(Rejected);
            }
            Self::Delete if found.is_none() => return Err(Rejected),
            Self::Delete | Self::Emit | Self::Touch => {}
        }
        emit(context, tag);
        match self {
            Self::Delete => Ok(None),
            Self::Emit => Ok(found),
            _ => Ok(Some(account)),
        }
    }
}

pub(crate) fn seen(context: &UpdateContext, found: Option<&Account>) -> Seen {
    let version = context.version()?.get();
    Some((version, found?.tag))
}

fn judge(
    key: &DocumentKey,
    notes: &Notes,
    result: Result<Change<Account>, UpdateError<Rejected>>,
) -> Verdict {
    match result {
        Ok(change) if change.kind() == nodestorage::ChangeKind::Unchanged => {
            Verdict::Nothing(notes.all())
        }
        Ok(change) => Verdict::Committed(vec![(key.clone(), change.version().get())]),
        Err(UpdateError::Rejected(Rejected)) => Verdict::Nothing(notes.all()),
        Err(UpdateError::Storage(error)) => Verdict::of_error(key, &error),
    }
}

impl Caller {
    pub(crate) fn call<F>(
        &self,
        what: &'static str,
        keys: Vec<DocumentKey>,
        call: impl FnOnce(i64) -> F,
    ) -> Called
    where
        F: Future<Output = Verdict> + Send + 'static,
    {
        let tag = self.ledger.open(what, &keys);
        let (model, ledger) = (Arc::clone(&self.model), Arc::clone(&self.ledger));
        let call = call(tag);
        Box::pin(async move {
            let now = model.world().now();
            ledger.begin(tag, now);
            let verdict = call.await;
            let now = model.world().now();
            ledger.end(tag, now, verdict);
        })
    }

    /// Without patience a call gives up as soon as it is queued.
    pub(crate) fn retry(&self, patience: bool) -> RetryPolicy {
        let retry = self.retry.clone();
        if patience {
            retry
        } else {
            retry.with_deadline(Duration::ZERO)
        }
    }

    fn options(&self, expected: Option<u64>, patience: bool) -> UpdateOptions {
        let retry = self.retry(patience);
        let expected = expected.map_or(ExpectedVersion::Any, |version| match version {
            0 => ExpectedVersion::MustNotExist,
            version => version.into(),
        });
        UpdateOptions::new()
            .with_expected(expected)
            .with_retry(retry)
    }

    pub(crate) fn update(
        &self,
        deed: Deed,
        key: DocumentKey,
        expected: Option<u64>,
        patience: bool,
    ) -> Called {
        let storage = self.storage.clone();
        let options = self.options(expected, patience);
        self.call(deed.name(), vec![key.clone()], |tag| async move {
            let notes = Notes::default();
            let of = key.clone();
            let noted = notes.clone();
            let closure = move |found: Option<Account>, context: &mut UpdateContext| {
                noted.saw(&of, seen(context, found.as_ref()));
                deed.run(found, context, tag)
            };
            let id = key.id().clone();
            let update = storage.update_with(key.collection(), id, options, closure);
            judge(&key, &notes, update.await)
        })
    }

    pub(crate) fn update_async(&self, deed: Deed, key: DocumentKey, time: Duration) -> Called {
        let storage = self.storage.clone();
        let options = self.options(None, true);
        self.call(deed.name(), vec![key.clone()], |tag| async move {
            let notes = Notes::default();
            let of = key.clone();
            let noted = notes.clone();
            let closure = move |found: Option<Account>, context: UpdateContext| {
                noted.saw(&of, seen(&context, found.as_ref()));
                async move {
                    pass(time).await;
                    deed.run(found, &context, tag)
                }
            };
            let id = key.id().clone();
            let update = storage.update_async(key.collection(), id, options, closure);
            judge(&key, &notes, update.await)
        })
    }

    pub(crate) fn append(&self, key: DocumentKey, expected: Option<u64>, patience: bool) -> Called {
        let storage = self.storage.clone();
        let options = self.options(expected, patience);
        self.call("append", vec![key.clone()], |tag| async move {
            match storage
                .append(key.id().clone(), vec![tagged(tag)], options)
                .await
            {
                Ok(appended) => Verdict::Committed(vec![(key, appended.version().get())]),
                Err(error) => Verdict::of_error(&key, &error),
            }
        })
    }
}

/// An error that no call of the simulation may get: it makes no such mistakes.
pub(crate) fn is_expected(kind: ErrorKind, what: &str) -> bool {
    match kind {
        ErrorKind::Constraint => what == "poison",
        // What a backend that panics leaves behind.
        ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::Closed | ErrorKind::Corrupt => {
            true
        }
        ErrorKind::RetriesExhausted { .. } => true,
        _ => false,
    }
}

/// Which version to expect: most often the one that is there, sometimes an older one.
pub(crate) fn guess(chance: &mut Chance, model: &Model, key: &DocumentKey) -> u64 {
    model.world().highest(key).saturating_sub(chance.below(2))
}
