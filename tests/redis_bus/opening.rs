//! What a bus refuses to open, and what it says then.

use std::time::Duration;

use nodestorage::ErrorKind;
use nodestorage::bus::redis::{RedisBus, RedisBusOptions};

use crate::redis::{Redis, fresh_prefix};
use crate::world::options;

async fn refused(url: &str, options: RedisBusOptions) -> nodestorage::Error {
    RedisBus::connect(url, options).await.unwrap_err()
}

#[tokio::test]
async fn another_number_of_partitions_is_refused() {
    let (url, prefix) = (Redis::shared().url(), fresh_prefix());
    RedisBus::connect(url, options(&prefix)).await.unwrap();
    let error = refused(url, options(&prefix).with_partitions(9)).await;
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    assert!(error.to_string().contains("8 partitions"), "{error}");
}

#[tokio::test]
async fn options_that_make_no_sense_are_refused() {
    let url = Redis::shared().url();
    let fine = || options(&fresh_prefix());
    for options in [
        fine().with_prefix(""),
        fine().with_prefix("a{b}"),
        fine().with_partitions(0),
        fine().with_partitions(1_000),
        fine().with_max_length(1),
        fine().with_claim_ttl(Duration::from_millis(1)),
        fine().with_timeout(Duration::ZERO),
        fine().with_max_event_bytes(0),
    ] {
        assert_eq!(refused(url, options).await.kind(), ErrorKind::InvalidConfig);
    }
}

/// Neither errors nor debug texts show credentials, right or wrong.
#[tokio::test]
async fn credentials_are_never_shown() {
    let server = Redis::private(&["--requirepass", "t0psecret"]);
    let port = server.port();
    let secret = |text: &str| text.contains("t0psecret") || text.contains("wr0ng");
    for url in [
        format!("redis://:wr0ng@127.0.0.1:{port}/"),
        format!("redis://127.0.0.1:{port}/"),
        format!("tcp://user:t0psecret@127.0.0.1:{port}/"),
        "redis://user:t0psecret@[broken/".to_owned(),
    ] {
        let error = refused(&url, options("p")).await;
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error:?}");
        assert!(!secret(&format!("{error} {error:?}")), "{error:?}");
    }
    let url = format!("redis://:t0psecret@127.0.0.1:{port}/");
    let bus = RedisBus::connect(&url, options("p")).await.unwrap();
    assert!(!secret(&format!("{bus:?}")), "{bus:?}");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unavailable() {
    let error = refused("redis://127.0.0.1:1/", options("p")).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}
