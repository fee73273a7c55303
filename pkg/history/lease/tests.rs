#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::future::pending;

use bson::rawdoc;

use super::*;
use crate::storage::backend::Position;
use crate::storage::embedded::EmbeddedBackend;
use crate::testing::{Fault, FaultyBackend, eventually};

/// Short enough to wait for its end.
const TTL: Duration = Duration::from_millis(60);

fn store() -> (Arc<dyn Backend>, Arc<FaultyBackend>) {
    let faulty = FaultyBackend::new(Arc::new(EmbeddedBackend::in_memory().unwrap()));
    let backend: Arc<dyn Backend> = Arc::<FaultyBackend>::clone(&faulty);
    (backend, faulty)
}

fn terms(owner: &str, ttl: Duration) -> LeaseTerms {
    LeaseTerms {
        name: "s".into(),
        owner: owner.into(),
        ttl,
        checkpoint_entries: 10,
        checkpoint_interval: Duration::from_secs(3_600),
    }
}

fn cursor(ordinal: u32) -> Cursor {
    Cursor {
        position: Position::new(1, ordinal),
        token: rawdoc! {},
    }
}

async fn stored(backend: &Arc<dyn Backend>) -> Option<Cursor> {
    let lease = HeldLease::acquire(backend, &terms("b", TTL)).await.unwrap();
    let checkpoint = lease.checkpoint().cloned();
    lease.release().await;
    checkpoint
}

#[tokio::test]
async fn work_outlives_the_lease_many_times_while_it_is_kept() {
    let (backend, _) = store();
    let mut lease = HeldLease::acquire(&backend, &terms("a", TTL))
        .await
        .unwrap();
    let begin = Instant::now();
    let other = terms("b", TTL);
    let work = eventually("five lifetimes pass", || async {
        // Nobody else gets it in between.
        assert!(HeldLease::acquire(&backend, &other).await.is_err());
        begin.elapsed() > TTL * 5
    });
    lease.keep_during(work).await.unwrap();
    lease.store().await.unwrap();
}

#[tokio::test]
async fn a_lease_that_was_taken_over_ends_the_work() {
    let (backend, _) = store();
    let mut stale = HeldLease::acquire(&backend, &terms("a", TTL))
        .await
        .unwrap();
    stale.passed(cursor(1), 1);
    let other = terms("b", Duration::from_secs(60));
    // The owner does nothing meanwhile, as if its process stood still.
    eventually("the lease ends", || async {
        HeldLease::acquire(&backend, &other).await.is_ok()
    })
    .await;
    let lost = stale.keep_during(pending::<()>()).await.unwrap_err();
    assert_eq!(lost.kind(), ErrorKind::InUse);
    stale.release().await;
    let held = HeldLease::acquire(&backend, &other).await.unwrap();
    assert_eq!(held.checkpoint(), None);
}

#[tokio::test]
async fn a_lease_that_cannot_be_renewed_ends_the_work_in_time() {
    let (backend, faulty) = store();
    let begin = Instant::now();
    let mut lease = HeldLease::acquire(&backend, &terms("a", TTL))
        .await
        .unwrap();
    faulty.fail_with([Fault::Lease(ErrorKind::Unavailable); 100]);
    let lost = lease.keep_during(pending::<()>()).await.unwrap_err();
    assert_eq!(lost.kind(), ErrorKind::InUse);
    assert!(begin.elapsed() >= TTL);
    assert!(faulty.faults_left() < 99, "it was tried more than once");
}

#[tokio::test]
async fn an_outage_shorter_than_the_lease_changes_nothing() {
    let (backend, faulty) = store();
    let mut lease = HeldLease::acquire(&backend, &terms("a", TTL))
        .await
        .unwrap();
    faulty.fail_with([Fault::Lease(ErrorKind::Unavailable); 2]);
    lease.passed(cursor(7), 1);
    let begin = Instant::now();
    let work = eventually("two lifetimes pass", || async { begin.elapsed() > TTL * 2 });
    lease.keep_during(work).await.unwrap();
    assert!(lease.has_stored_place());
    lease.release().await;
    assert_eq!(stored(&backend).await, Some(cursor(7)));
}

#[tokio::test]
async fn the_checkpoint_is_stored_after_enough_entries_and_at_the_end() {
    let (backend, faulty) = store();
    let long = terms("a", Duration::from_secs(60));
    let mut lease = HeldLease::acquire(&backend, &long).await.unwrap();
    assert!(!lease.has_stored_place());
    let calls = faulty.calls();
    for ordinal in 1..=9 {
        lease.passed(cursor(ordinal), 1);
        lease.upkeep().await.unwrap();
    }
    assert_eq!(faulty.calls(), calls);
    lease.passed(cursor(10), 1);
    lease.upkeep().await.unwrap();
    assert_eq!(faulty.calls(), calls + 1);
    lease.passed(cursor(11), 1);
    lease.upkeep().await.unwrap();
    assert_eq!(faulty.calls(), calls + 1);
    lease.release().await;
    assert_eq!(stored(&backend).await, Some(cursor(11)));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_checkpoint_is_stored_when_its_time_has_come() {
    let (backend, _) = store();
    let mut often = terms("a", Duration::from_secs(60));
    often.checkpoint_interval = Duration::from_millis(5);
    let mut lease = HeldLease::acquire(&backend, &often).await.unwrap();
    lease.passed(cursor(3), 1);
    let renewal = terms("a", Duration::from_secs(60));
    let work = eventually("the checkpoint is stored", || async {
        let seen = HeldLease::acquire(&backend, &renewal).await.unwrap();
        seen.checkpoint() == Some(&cursor(3))
    });
    lease.keep_during(work).await.unwrap();
}
