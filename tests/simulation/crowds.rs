//! Many callers at once: nobody waits for long, and what waits is bounded.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::future::join_all;
use nodestorage::{CommitOptions, Storage};

use crate::calls::Account;
use crate::chance::Chance;
use crate::model::{Model, Rates};

fn simulated(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(test);
}

async fn open(options: CommitOptions) -> Storage {
    let rates = Rates {
        longest_ms: 4,
        ..Rates::default()
    };
    let model = Model::new(Chance::new(1), rates, options.commits_in_flight + 1);
    let builder = Storage::builder().shared_backend(model).commits(options);
    builder.open().await.unwrap()
}

async fn increment(storage: &Storage, id: &str) {
    let update = storage.update("counters", id, |found: Option<Account>| {
        let mut account = found.unwrap_or_default();
        account.value += 1;
        account
    });
    update.await.unwrap();
}

/// 64 callers of one document and a thousand of others, each coming back as soon as it is answered: no
/// update waits for more than a few batches.
#[test]
fn nobody_waits_for_many_batches() {
    simulated(async {
        let storage = open(CommitOptions::default()).await;
        let hot = (0..64).map(|_| "hot".to_owned());
        let others = (0..1_000).map(|n| format!("other{n}"));
        let callers = hot.chain(others).map(|id| {
            let storage = storage.clone();
            tokio::spawn(async move {
                for _ in 0..5 {
                    increment(&storage, &id).await;
                }
            })
        });
        for caller in callers.collect::<Vec<_>>() {
            caller.await.unwrap();
        }
        let done = storage.commit_statistics();
        assert!(done.updates >= 5 * 1_064, "{done:?}");
        assert!(done.longest_wait <= 5, "{done:?}");
    });
}

/// Ten thousand callers where 64 are worked on at once: they are served in about the order in which
/// they came, and no commit has more than those.
#[test]
fn callers_that_wait_are_served_in_their_order() {
    const CALLERS: u64 = 10_000;
    const AT_ONCE: u64 = 64;
    simulated(async {
        let options = CommitOptions::default().with_bounds(AT_ONCE as usize, 128 << 10);
        let storage = open(options).await;
        let served = Arc::new(AtomicU64::new(0));
        let callers = (0..CALLERS).map(|n| {
            let (storage, served) = (storage.clone(), Arc::clone(&served));
            async move {
                increment(&storage, &format!("counter{}", n % 100)).await;
                let place = served.fetch_add(1, Ordering::SeqCst);
                assert!(
                    place.abs_diff(n) <= 2 * AT_ONCE,
                    "{n} was served as {place}"
                );
            }
        });
        join_all(callers).await;
        let done = storage.commit_statistics();
        assert_eq!(done.updates, CALLERS);
        assert!(done.batches >= CALLERS / AT_ONCE, "{done:?}");
    });
}
