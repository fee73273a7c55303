//! What subscriptions are tried with.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::error::BoxError;
use crate::event::Event;
use crate::history::{LogSubscription, LogSubscriptionHandle};
use crate::storage::Storage;
use crate::storage::backend::Backend;
use crate::testing::support::{Counter, on_backend};
use crate::testing::{FaultyBackend, TestStore, eventually};

/// The versions that a handler saw.
#[derive(Clone, Default)]
pub(super) struct Seen(Arc<Mutex<Vec<u64>>>);

impl Seen {
    pub(super) fn push(&self, event: &Event) {
        self.0.lock().unwrap().push(event.version().get());
    }

    pub(super) fn versions(&self) -> Vec<u64> {
        self.0.lock().unwrap().clone()
    }

    /// The first deliveries, which a consumer gets who drops what is not above the last version it saw.
    pub(super) fn first_deliveries(&self, last: u64) -> Vec<u64> {
        let mut newest = last;
        let mut versions = self.versions();
        versions.retain(|version| {
            let is_new = *version > newest;
            newest = newest.max(*version);
            is_new
        });
        versions
    }

    /// Waits until these were handled, each once: nothing has gone wrong that would repeat them.
    pub(super) async fn until(&self, versions: &[u64]) {
        eventually("the versions are handled", || async {
            self.versions().len() >= versions.len()
        })
        .await;
        assert_eq!(self.versions(), versions);
    }

    /// Waits until these were handled, in this order, by a subscription that has begun at a checkpoint
    /// or met an outage: what lies before may come again.
    pub(super) async fn until_at_least(&self, versions: &[u64]) {
        let last = versions[0] - 1;
        eventually("the versions are handled", || async {
            self.first_deliveries(last).len() >= versions.len()
        })
        .await;
        assert_eq!(self.first_deliveries(last), versions);
    }
}

pub(super) fn subscribe(
    storage: &Storage,
    name: &str,
    options: LogSubscription,
) -> (LogSubscriptionHandle, Seen) {
    let seen = Seen::default();
    let handler = {
        let seen = seen.clone();
        move |event: Event| {
            seen.push(&event);
            async { Ok::<_, BoxError>(()) }
        }
    };
    let subscription = storage.subscribe(name, options, handler).unwrap();
    (subscription, seen)
}

pub(super) async fn increment(storage: &Storage, times: u64) {
    for _ in 0..times {
        storage
            .update("counters", "c", Counter::incremented)
            .await
            .unwrap();
    }
}

/// A checkpoint that is stored by shutting down alone.
pub(super) fn rarely_saved() -> LogSubscription {
    LogSubscription::new().with_checkpoints(usize::MAX, Duration::from_secs(3_600))
}

/// A storage whose backend fails when told to.
pub(super) async fn open_faulty(store: &dyn TestStore) -> (Storage, Arc<FaultyBackend>) {
    let faulty = FaultyBackend::new(store.backend().await.unwrap());
    let backend: Arc<dyn Backend> = Arc::<FaultyBackend>::clone(&faulty);
    (on_backend(backend, |builder| builder).await, faulty)
}
