//! What projections are tried with.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::document::{DocumentId, DocumentKey, Version};
use crate::error::BoxError;
use crate::event::Event;
use crate::projection::{Projection, ProjectionHandle, ProjectionOptions, ProjectionState};
use crate::storage::Storage;
use crate::storage::backend::{Backend, Cursor, LeaseRequest};
use crate::testing::eventually;
use crate::testing::support::Counter;

/// Long enough for a busy machine, short enough that a hanging case is noticed.
pub(super) const WITHIN: Duration = Duration::from_secs(30);

/// What a projection stumbles over until it is mended.
#[derive(Debug, Clone, Default)]
pub(super) struct Trouble(Arc<Mutex<HashSet<(String, u64)>>>);

impl Trouble {
    pub(super) fn at(&self, id: &str, version: u64) -> &Self {
        self.0.lock().unwrap().insert((id.to_owned(), version));
        self
    }

    pub(super) fn mend(&self, id: &str) {
        self.0.lock().unwrap().retain(|(it, _)| it != id);
    }

    fn is_at(&self, event: &Event) -> bool {
        let place = (event.aggregate_id().to_string(), event.version().get());
        self.0.lock().unwrap().contains(&place)
    }
}

/// The versions of one document, as its events came.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Versions {
    pub(super) seen: Vec<u64>,
    #[serde(default)]
    pub(super) made_by: u32,
}

/// Lists the versions of each document.
#[derive(Debug, Clone, Default)]
pub(super) struct Listing {
    pub(super) version: u32,
    /// Fails at odd versions, and panics at even ones.
    pub(super) trouble: Trouble,
}

impl Listing {
    pub(super) fn new() -> Self {
        Self::version(1)
    }

    pub(super) fn version(version: u32) -> Self {
        let trouble = Trouble::default();
        Self { version, trouble }
    }
}

impl Projection for Listing {
    type View = Versions;

    fn name(&self) -> &str {
        "listing"
    }

    fn version(&self) -> u32 {
        self.version
    }

    fn apply(
        &self,
        key: &DocumentId,
        view: Option<Versions>,
        event: &Event,
    ) -> Result<Option<Versions>, BoxError> {
        assert_eq!(key, event.aggregate_id());
        let mut view = view.unwrap_or_default();
        view.seen.push(event.version().get());
        view.made_by = self.version;
        if self.trouble.is_at(event) {
            match event.version().get() % 2 {
                0 => panic!("at version {}", event.version()),
                _ => return Err(format!("no version {} today", event.version()).into()),
            }
        }
        Ok(Some(view))
    }
}

/// The newest version of every document, and what does not fit.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Summary {
    pub(super) events: u64,
    pub(super) newest: BTreeMap<String, u64>,
    pub(super) out_of_order: u64,
}

/// One view of all documents.
#[derive(Debug)]
pub(super) struct Summing;

impl Projection for Summing {
    type View = Summary;

    fn name(&self) -> &str {
        "summing"
    }

    fn keys(&self, _: &Event) -> Vec<DocumentId> {
        vec!["all".into()]
    }

    fn apply(
        &self,
        _: &DocumentId,
        view: Option<Summary>,
        event: &Event,
    ) -> Result<Option<Summary>, BoxError> {
        let mut view = view.unwrap_or_default();
        let newest = view.newest.entry(event.aggregate_id().to_string());
        let newest = newest.or_default();
        view.out_of_order += u64::from(event.version().get() != *newest + 1);
        *newest = event.version().get();
        view.events += 1;
        Ok(Some(view))
    }
}

/// Options that make cases quick.
pub(super) fn quick() -> ProjectionOptions {
    ProjectionOptions::new()
        .with_lease_ttl(Duration::from_secs(1))
        .with_checkpoint_interval(Duration::from_millis(20))
        .with_retries(3, Duration::from_millis(1), Duration::from_millis(20))
}

/// Counts a document up, so many times.
pub(super) async fn count_up(storage: &Storage, id: &str, times: u64) -> u64 {
    let mut version = Version::NONE;
    for _ in 0..times {
        let change = storage.update("counters", id, Counter::incremented);
        version = change.await.unwrap().version();
    }
    version.get()
}

pub(super) fn key(id: &str) -> DocumentKey {
    DocumentKey::new("counters", id)
}

/// Checks that a document's view lists its versions from 1 to `last`, each once.
pub(super) async fn assert_lists(listing: &ProjectionHandle<Listing>, id: &str, last: u64) {
    let view = listing.views().load(id).await.unwrap();
    assert_eq!(
        view.seen,
        (1..=last).collect::<Vec<_>>(),
        "versions of {id}"
    );
}

/// Waits for a state.
pub(super) async fn until_state<P: Projection>(
    handle: &ProjectionHandle<P>,
    what: &str,
    is: impl Fn(&ProjectionState) -> bool,
) -> ProjectionState {
    eventually(what, async || is(&handle.state())).await;
    handle.state()
}

/// Sets the checkpoint of a projection that does not run to another place, as if it had crashed before it
/// could store the one it has.
pub(super) async fn rewind(backend: &dyn Backend, lease: &str, to: &Cursor) {
    let request = LeaseRequest {
        name: lease.to_owned(),
        owner: "somebody else".to_owned(),
        ttl: WITHIN,
    };
    let lease = backend.acquire_lease(&request).await.unwrap();
    backend
        .save_checkpoint(&lease.fence, to, WITHIN)
        .await
        .unwrap();
    backend.release_lease(&lease.fence).await.unwrap();
}
