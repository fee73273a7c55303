//! What a bus is connected with.

use std::time::Duration;

use nodestorage::bus::nats::NatsStorage;
use nodestorage::bus::{EventBus, NatsBus, Subscription};
use nodestorage::error::ErrorKind;

use crate::nats::{Nats, fresh_prefix};
use crate::world::{Seen, events, options, publish};

/// A stream on which the bus would not keep its promises is refused, and the error says why.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_settings_than_the_streams_are_refused() {
    let url = Nats::shared().url();
    let own = options(&fresh_prefix());
    let bus = NatsBus::connect(url, own.clone()).await.unwrap();
    NatsBus::connect(url, own.clone().with_max_bytes(None))
        .await
        .unwrap();
    for (other, names) in [
        (own.clone().with_partitions(4), "8 partitions"),
        (own.clone().with_storage(NatsStorage::Memory), "storage"),
        (
            own.clone().with_duplicate_window(Duration::from_secs(999)),
            "duplicate window",
        ),
        (own.with_prefix(fresh_prefix()).with_stream("x y"), "name"),
    ] {
        let error = NatsBus::connect(url, other).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error:?}");
        assert!(error.to_string().contains(names), "{error}");
    }
    bus.close().await.unwrap();
}

/// Neither errors nor debug output show a password.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_are_used_and_not_shown() {
    let secret = "pa55w0rd";
    let server = Nats::private(&format!(
        "authorization {{ user: alice, password: {secret} }}"
    ));
    let address = server.url().strip_prefix("nats://").unwrap();
    let options = options(&fresh_prefix());
    let url = |user: &str| format!("nats://{user}:{secret}@{address}");
    let bus = NatsBus::connect(&url("alice"), options.clone())
        .await
        .unwrap();
    assert!(!format!("{bus:?}").contains(secret));
    for url in [url("bob"), format!("nats://alice:{secret}@{address}x")] {
        let error = NatsBus::connect(&url, options.clone()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert!(!format!("{error:?} {error}").contains(secret));
    }
    let connection =
        async_nats::ConnectOptions::new().user_and_password("alice".to_owned(), secret.to_owned());
    let other = NatsBus::connect_with(server.url(), connection, options)
        .await
        .unwrap();
    other.close().await.unwrap();
    bus.close().await.unwrap();
}

/// A client of the program's own stays connected when the bus is closed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_exists_is_used_and_kept() {
    let client = async_nats::connect(Nats::shared().url()).await.unwrap();
    let options = options(&fresh_prefix()).with_storage(NatsStorage::Memory);
    let bus = NatsBus::from_client(client.clone(), options).await.unwrap();
    let seen = Seen::default();
    seen.subscribe(&bus, Subscription::to_all()).await;
    let all = events(3, 1..=3);
    publish(&bus, &all).await;
    assert_eq!(seen.check(&all).await, 0);
    bus.close().await.unwrap();
    client.flush().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_cannot_carry_a_bus_are_named() {
    let error = NatsBus::connect("nats://127.0.0.1:1", options(&fresh_prefix()))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let error = NatsBus::connect("redis://127.0.0.1:1", options(&fresh_prefix()))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
}
