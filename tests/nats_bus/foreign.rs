//! Messages that are no events of ours, on subjects that are.

use nodestorage::bus::{EventBus, NatsBus, Subscription};

use crate::nats::{Nats, fresh_prefix};
use crate::world::{Seen, events, eventually, options, publish};

/// They go to the dead letters as they are, and what is an event is handled.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_bytes_go_to_the_dead_letters() {
    let server = Nats::shared();
    let prefix = fresh_prefix();
    let bus = NatsBus::connect(server.url(), options(&prefix))
        .await
        .unwrap();
    let seen = Seen::default();
    let handle = seen
        .subscribe(&bus, Subscription::to_all().with_group("g"))
        .await;
    let all = events(8, 1..=10);
    let (before, after) = all.split_at(40);
    publish(&bus, before).await;
    let client = async_nats::connect(server.url()).await.unwrap();
    let context = async_nats::jetstream::new(client);
    let foreign: [Vec<u8>; 7] = [
        b"no json".to_vec(),
        b"{\"specversion\":\"1.0\",\"id\":\"".to_vec(),
        Vec::new(),
        b"[1,2,3]".to_vec(),
        b"{\"specversion\":\"9.9\",\"id\":\"x\"}".to_vec(),
        vec![0xff; 3],
        // As large as a message may be.
        vec![b'x'; 1_048_576],
    ];
    for (place, bytes) in foreign.iter().enumerate() {
        let subject = format!("{prefix}.strange.things.x{place}.{}", place % 8);
        let sent = context.publish(subject, bytes.clone().into()).await;
        sent.unwrap().await.unwrap();
    }
    publish(&bus, after).await;
    assert_eq!(seen.check(&all).await, 0);
    let mut letters = Vec::new();
    let begin = std::time::Instant::now();
    while letters.len() < foreign.len() {
        letters = handle.dead_letters(100).await.unwrap();
        assert!(begin.elapsed() < crate::world::DEADLINE, "{letters:?}");
    }
    assert_eq!(letters.len(), foreign.len());
    let ids: Vec<_> = letters.iter().map(|letter| letter.id).collect();
    assert_eq!(handle.discard(&ids).await.unwrap(), foreign.len());
    eventually("the subscription runs", || {
        handle.state() == nodestorage::bus::SubscriptionState::Running
    })
    .await;
    bus.close().await.unwrap();
}

/// Subjects that no partition reads are not stored at all: their publisher is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subjects_that_nobody_reads_are_not_taken() {
    let server = Nats::shared();
    let prefix = fresh_prefix();
    let bus = NatsBus::connect(server.url(), options(&prefix))
        .await
        .unwrap();
    let client = async_nats::connect(server.url()).await.unwrap();
    let context = async_nats::jetstream::new(client);
    for subject in [
        "users",
        "users.T.id",
        "users.T.id.8",
        "users.T.id.x",
        "a.b.c.d.0",
    ] {
        let subject = format!("{prefix}.{subject}");
        let sent = context.publish(subject.clone(), "x".into()).await.unwrap();
        assert!(sent.await.is_err(), "{subject}");
    }
    bus.close().await.unwrap();
}
