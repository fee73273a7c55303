//! The comparisons on brokers: the relay, and publishing.

mod delivery;
mod relay;
mod stalled;

use std::sync::Arc;

use anyhow::Result;
use nodestorage::Storage;
use nodestorage::relay::{Relay, RelayHandle};
use serde_json::json;

use super::Outcome;
use crate::broker::gauge::Gauge;
use crate::broker::nats::RawJetStream;
use crate::broker::redis::RawStreams;
use crate::broker::{Broker, Kind};
use crate::contender::{Contender, Counted, alternate};
use crate::publishing::{BATCH, OnBus, Publishing};
use crate::scenario::Plan;

const OURS: &str = "bench-ours";
const THEIRS: &str = "bench-theirs";

/// A relay of a storage's log, as the builder would start it.
fn start_relay(storage: &Storage, gauge: &Gauge) -> Result<RelayHandle> {
    let relay = Relay::new(Arc::clone(storage.backend())).with_bus(Arc::new(gauge.clone()));
    Ok(relay.start()?)
}

pub(super) async fn publish_path_redis(plan: &Plan) -> Result<Outcome> {
    let broker = Broker::start(Kind::Redis).await?;
    let raw = RawStreams::connect(&broker.url(), THEIRS).await?;
    let call = "pipelined MULTI, XADD with MAXLEN ~ per event, EXEC; one connection";
    publish_path(plan, &broker, Publishing::new(raw, &broker, THEIRS), call).await
}

pub(super) async fn publish_path_nats(plan: &Plan) -> Result<Outcome> {
    let broker = Broker::start(Kind::Nats).await?;
    let raw = RawJetStream::connect(&broker.url(), THEIRS).await?;
    let call = "Context::publish_with_headers of all events in order, then all acknowledgements";
    publish_path(plan, &broker, Publishing::new(raw, &broker, THEIRS), call).await
}

async fn publish_path<T: Contender>(
    plan: &Plan,
    broker: &Broker,
    theirs: T,
    call: &str,
) -> Result<Outcome> {
    let bus = broker.bus(OURS).await?;
    let ours = Publishing::new(OnBus(Arc::clone(&bus)), broker, OURS);
    let rounds = alternate(Counted::theirs(theirs), Counted::ours(ours), plan).await?;
    bus.close().await?;
    Ok(Outcome {
        rounds,
        sides: json!({
            "broker": broker.settings(),
            "batch": BATCH,
            "measured": "the calls alone, one after the other",
            "ours": "EventBus::publish, which also makes the bytes",
            "theirs": call,
        }),
    })
}
