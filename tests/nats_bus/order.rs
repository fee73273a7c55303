//! Many events of one document in one call.

use nodestorage::bus::{EventBus, NatsBus, Subscription};

use crate::nats::{Nats, fresh_prefix};
use crate::world::{Seen, events, options};

/// One document's events go as one atomic batch; a repetition of some of them does not store any twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hot_document_is_published_in_order_and_once() {
    let bus = NatsBus::connect(Nats::shared().url(), options(&fresh_prefix()))
        .await
        .unwrap();
    let seen = Seen::default();
    seen.subscribe(&bus, Subscription::to_all().with_group("g"))
        .await;
    // More than one batch of the server, and other documents between.
    let all = events(3, 1..=500);
    bus.publish(&all[..900]).await.unwrap();
    bus.publish(&all[300..]).await.unwrap();
    bus.publish(&all).await.unwrap();
    assert_eq!(seen.check(&all).await, 0);
    bus.close().await.unwrap();
}
