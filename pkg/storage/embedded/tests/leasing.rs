use super::*;
use crate::error::ErrorKind;
use crate::storage::backend::{Cursor, Fence, LeaseRequest};

const TTL: Duration = Duration::from_secs(10);

fn request(owner: &str) -> LeaseRequest {
    LeaseRequest {
        name: "relay".to_owned(),
        owner: owner.to_owned(),
        ttl: TTL,
    }
}

fn cursor(number: u64) -> Cursor {
    Cursor {
        position: Position::from_u64(number),
        token: rawdoc! { "t": number as i64 },
    }
}

async fn save(backend: &EmbeddedBackend, fence: &Fence, number: u64) -> Result<(), ErrorKind> {
    let saved = backend.save_checkpoint(fence, &cursor(number), TTL).await;
    saved.map_err(|error| error.kind())
}

#[tokio::test]
async fn a_takeover_raises_the_fence_and_the_old_owner_is_refused() {
    let clock = HandClock::at(1_000_000);
    let options = EmbeddedOptions::default().with_clock(clock.clone());
    let backend = EmbeddedBackend::in_memory_with(options).unwrap();

    let first = backend.acquire_lease(&request("one")).await.unwrap();
    assert_eq!((first.fence.number, &first.checkpoint), (1, &None));
    let refused = backend.acquire_lease(&request("two")).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InUse);
    save(&backend, &first.fence, 5).await.unwrap();

    // Renewing keeps the fence; saving prolongs.
    clock.set(1_009_000);
    let renewed = backend.acquire_lease(&request("one")).await.unwrap();
    assert_eq!(renewed.fence, first.fence);
    assert_eq!(renewed.checkpoint, Some(cursor(5)));
    clock.set(1_018_000);
    save(&backend, &first.fence, 6).await.unwrap();
    clock.set(1_027_000);
    assert!(backend.acquire_lease(&request("two")).await.is_err());

    clock.set(1_028_001);
    let second = backend.acquire_lease(&request("two")).await.unwrap();
    assert_eq!(second.fence.number, 2);
    assert_eq!(second.checkpoint, Some(cursor(6)));
    assert_eq!(save(&backend, &first.fence, 7).await, Err(ErrorKind::InUse));
    let unit = Unit {
        fence: Some(first.fence.clone()),
        ..Unit::default()
    };
    match commit(&backend, &[unit]).await.unwrap_err() {
        CommitFailure::Refused { unit: 0, error } => assert_eq!(error.kind(), ErrorKind::InUse),
        other => panic!("{other:?}"),
    }
    // A late release of the old owner changes nothing.
    backend.release_lease(&first.fence).await.unwrap();
    save(&backend, &second.fence, 8).await.unwrap();

    backend.release_lease(&second.fence).await.unwrap();
    assert_eq!(
        save(&backend, &second.fence, 9).await,
        Err(ErrorKind::InUse)
    );
    let third = backend.acquire_lease(&request("one")).await.unwrap();
    assert_eq!(third.fence.number, 3);
    assert_eq!(third.checkpoint, Some(cursor(8)));
}
