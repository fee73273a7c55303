//! An event on which every member dies.

use std::time::Duration;

use nodestorage::bus::redis::{RedisBus, RedisBusOptions};

use crate::fatal::{VARIABLE, an_event_that_kills_is_given_up, member};
use crate::redis::{Redis, fresh_prefix};
use crate::world::options;

fn mortal(prefix: &str) -> RedisBusOptions {
    options(prefix).with_claim_ttl(Duration::from_millis(500))
}

/// Not a test of its own: what the other process runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn member_that_dies() {
    let Ok(place) = std::env::var(VARIABLE) else {
        return;
    };
    let (url, prefix) = place.split_once(' ').unwrap();
    let bus = RedisBus::connect(url, mortal(prefix)).await.unwrap();
    member(&bus).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_kills_every_member_goes_to_the_dead_letters() {
    let (url, prefix) = (Redis::shared().url(), fresh_prefix());
    let bus = RedisBus::connect(url, mortal(&prefix)).await.unwrap();
    let test = "fatal_events::member_that_dies";
    an_event_that_kills_is_given_up(&bus, test, &format!("{url} {prefix}")).await;
}
