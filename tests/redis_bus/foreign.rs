//! Bytes that are not ours lie in the streams.

use ::redis::AsyncCommands;
use nodestorage::bus::{LetterContent, Subscription};
use nodestorage::testing::bus::{Recorder, eventually};

use crate::redis::{Redis, fresh_prefix};
use crate::world::{all_arrive_in_order, connect, events, publish, record};

/// They go to the dead letters as they are; events before and behind them are handled.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_bytes_go_to_the_dead_letters_as_they_are() {
    let (server, prefix) = (Redis::shared(), fresh_prefix());
    let bus = connect(server.url(), &prefix).await;
    let seen = Recorder::new();
    let handle = record(&bus, Subscription::to_all().with_group("g"), &seen).await;
    let all = events(10, 1..=4);
    publish(&bus, &all[..20]).await;
    let client = ::redis::Client::open(server.url()).unwrap();
    let mut raw = client.get_multiplexed_async_connection().await.unwrap();
    let huge = vec![b'x'; 5 << 20];
    let foreign: [&[u8]; 8] = [
        b"",
        b"\xff\xfe\x00",
        b"{\"specversion\":\"1.0\",\"id\":",
        b"[]",
        b"{\"specversion\":\"0.3\",\"type\":\"x\"}",
        b"{\"id\":\"not a uuid\"}",
        b"null",
        &huge,
    ];
    for (n, payload) in foreign.iter().enumerate() {
        let key = format!("{{{prefix}}}:events:{}", n % 3);
        let _id: String = raw.xadd(&key, "*", &[("event", *payload)]).await.unwrap();
    }
    let key = format!("{{{prefix}}}:events:5");
    let _id: String = raw.xadd(&key, "*", &[("other", "field")]).await.unwrap();
    let _id: String = raw
        .xadd(&key, "*", &[("a", "1"), ("b", "2")])
        .await
        .unwrap();
    publish(&bus, &all[20..]).await;
    all_arrive_in_order(&seen, &all).await;

    eventually("all of them lie there", || async {
        handle.dead_letters(100).await.unwrap().len() == 10
    })
    .await;
    let letters = handle.dead_letters(100).await.unwrap();
    let mut found: Vec<Vec<u8>> = letters
        .iter()
        .map(|letter| match &letter.content {
            LetterContent::Foreign(payload) => payload.to_vec(),
            other => panic!("{other:?}"),
        })
        .collect();
    let mut expected: Vec<Vec<u8>> = foreign.iter().map(|it| it.to_vec()).collect();
    expected.push(b"field".to_vec());
    expected.push(br#"[["a","1"],["b","2"]]"#.to_vec());
    found.sort_unstable();
    expected.sort_unstable();
    assert!(found == expected);
    for letter in &letters {
        assert_eq!(letter.attempts, 0);
        assert!(!letter.error.is_empty());
        assert!(!format!("{letter:?}").contains("not a uuid\""));
    }
    // Redriven, it comes back; discarded, it is gone.
    assert_eq!(handle.redrive(&[letters[0].id]).await.unwrap(), 1);
    eventually("it is given up again", || async {
        handle.dead_letters(100).await.unwrap().len() == 10
    })
    .await;
    let ids: Vec<_> = handle
        .dead_letters(100)
        .await
        .unwrap()
        .iter()
        .map(|letter| letter.id)
        .collect();
    assert_eq!(handle.discard(&ids).await.unwrap(), 10);
    assert!(handle.dead_letters(100).await.unwrap().is_empty());
}
