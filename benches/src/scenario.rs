//! The scenarios: names, bars, and what is compared.

use serde::Serialize;

use crate::format::number;
use crate::load::Length;

/// What the two sides are compared by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Measure {
    /// Operations per second, ours ÷ theirs: higher is better.
    Throughput,
    /// Median latency, ours ÷ theirs: lower is better.
    Latency,
    /// Operations per second by themselves.
    Rate,
    /// The median latency by itself, in milliseconds, and the 99th percentile beside it.
    Delivery { p99_ms: f64 },
    /// Peak memory at the end ÷ at a tenth of the work: lower is better.
    Memory,
    /// Operations per second by themselves, and the peak memory at the end ÷ at a tenth of them beside it.
    Rebuild { memory: f64 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Better {
    Higher,
    Lower,
}

impl Measure {
    pub(crate) fn better(self) -> Better {
        match self {
            Self::Throughput | Self::Rate | Self::Rebuild { .. } => Better::Higher,
            Self::Latency | Self::Delivery { .. } | Self::Memory => Better::Lower,
        }
    }

    /// A bar, for people.
    pub(crate) fn asks(self, bar: f64) -> String {
        match self {
            Self::Throughput => format!("≥ {bar}"),
            Self::Latency | Self::Memory => format!("≤ {bar}"),
            Self::Rate => format!("≥ {}/s", number(bar)),
            Self::Rebuild { memory } => {
                format!("≥ {}/s, memory ≤ {memory}", number(bar))
            }
            Self::Delivery { p99_ms } => format!("p50 ≤ {bar} ms, p99 ≤ {p99_ms} ms"),
        }
    }
}

/// How a scenario is run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) length: Length,
    pub(crate) rounds: usize,
    pub(crate) measure: Measure,
    /// Only to see that it works: scenarios with a fixed amount of work do less of it.
    pub(crate) quick: bool,
}

#[derive(Debug)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// In a few words.
    pub(crate) about: &'static str,
    pub(crate) measure: Measure,
    pub(crate) unit: &'static str,
    /// What the ratio, or the figure itself, is to reach; `None` where the figures are for information.
    pub(crate) bar: Option<f64>,
}

const UPDATES: &str = "updates/s";

const fn throughput(name: &'static str, about: &'static str, bar: f64) -> Scenario {
    Scenario {
        name,
        about,
        measure: Measure::Throughput,
        unit: UPDATES,
        bar: Some(bar),
    }
}

const fn informational(name: &'static str, about: &'static str) -> Scenario {
    Scenario {
        name,
        about,
        measure: Measure::Throughput,
        unit: UPDATES,
        bar: None,
    }
}

const fn on_bus(
    name: &'static str,
    about: &'static str,
    measure: Measure,
    unit: &'static str,
    bar: f64,
) -> Scenario {
    Scenario {
        name,
        about,
        measure,
        unit,
        bar: Some(bar),
    }
}

const EVENTS: &str = "events/s";
const KEEPS_UP: &str = "events published while 64 tasks update, against the updates";
const DRAINS: &str = "events published of a log that grew while the relay was away";
const WITH_RELAY: &str = "64 tasks with relay and bus, against the same without";
const PUBLISH: &str =
    "EventBus::publish of 256 events, against the raw client sending the same bytes";
const DELIVERY: &str = "1,000 updates/s, from the commit to the handler";

const COMMANDS: &str = "commands/s";
const EMMETT: &str = "deposits by Dispatcher::send, against emmett's command handler on MongoDB";
const NEWEST: &str = "load of an aggregate with 10,000 versions, against one with 10";
const PAST: &str = "its state at version 5,000, against version 5 of one with 10";

const fn on_aggregates(
    name: &'static str,
    about: &'static str,
    measure: Measure,
    bar: Option<f64>,
) -> Scenario {
    Scenario {
        name,
        about,
        measure,
        unit: match measure {
            Measure::Latency => "µs, median",
            _ => COMMANDS,
        },
        bar,
    }
}

const LOOP: &str = "against a hand-written find and compare-and-swap, no events";

pub(crate) const SCENARIOS: &[Scenario] = &[
    throughput("random_64", LOOP, 4.0),
    throughput("random_256", LOOP, 5.0),
    throughput("random_1024", LOOP, 6.0),
    throughput(
        "random_64_events",
        "against a hand-written transaction per update: find, compare-and-swap, event",
        6.0,
    ),
    throughput(
        "full_batches_1024",
        "against always-full batches of 128 compare-and-swaps, no events",
        0.75,
    ),
    Scenario {
        name: "single_task",
        about: LOOP,
        measure: Measure::Latency,
        unit: "µs, median",
        bar: Some(1.15),
    },
    throughput(
        "hot_document_64",
        "one document, against a hand-written compare-and-swap with backoff",
        30.0,
    ),
    throughput(
        "two_processes_1000",
        "against the hand-written loop, also in two processes",
        2.0,
    ),
    throughput(
        "embedded_64_batches",
        "against always-full batches of 64 on the same layout",
        0.7,
    ),
    throughput(
        "embedded_64_sqlite",
        "against SQLite, a durable transaction per update",
        1.5,
    ),
    Scenario {
        name: "diff_merge_patch",
        about: "against json_patch::diff of the same as JSON",
        measure: Measure::Throughput,
        unit: "diffs/s",
        bar: Some(3.0),
    },
    informational(
        "random_64_uncached",
        "as random_64, every update reading its document",
    ),
    Scenario {
        name: "single_task_uncached",
        about: "as single_task, every update reading its document",
        measure: Measure::Latency,
        unit: "µs, median",
        bar: None,
    },
    informational(
        "hot_among_others",
        "64 callers on one document beside 1,000 on others",
    ),
    informational("waiting_10000", "10,000 callers, beside 1,000"),
    on_bus(
        "relay_keeps_up_redis",
        KEEPS_UP,
        Measure::Throughput,
        EVENTS,
        0.98,
    ),
    on_bus(
        "relay_keeps_up_nats",
        KEEPS_UP,
        Measure::Throughput,
        EVENTS,
        0.98,
    ),
    on_bus(
        "relay_drains_redis",
        DRAINS,
        Measure::Rate,
        EVENTS,
        10_000.0,
    ),
    on_bus("relay_drains_nats", DRAINS, Measure::Rate, EVENTS, 10_000.0),
    on_bus(
        "commit_to_handler_nats",
        DELIVERY,
        Measure::Delivery { p99_ms: 30.0 },
        "µs, median",
        5.0,
    ),
    Scenario {
        name: "commit_to_handler_redis",
        about: DELIVERY,
        measure: Measure::Delivery { p99_ms: 30.0 },
        unit: "µs, median",
        bar: None,
    },
    on_bus(
        "updates_with_relay_redis",
        WITH_RELAY,
        Measure::Throughput,
        UPDATES,
        0.8,
    ),
    on_bus(
        "updates_with_relay_nats",
        WITH_RELAY,
        Measure::Throughput,
        UPDATES,
        0.8,
    ),
    on_bus(
        "publish_path_redis",
        PUBLISH,
        Measure::Throughput,
        EVENTS,
        0.8,
    ),
    on_bus(
        "publish_path_nats",
        PUBLISH,
        Measure::Throughput,
        EVENTS,
        0.8,
    ),
    on_bus(
        "stalled_bus_memory",
        "1,000,000 updates with a bus that never answers; peak memory against that after a tenth",
        Measure::Memory,
        UPDATES,
        1.1,
    ),
    rebuild("projection_rebuild_embedded"),
    rebuild("projection_rebuild_mongodb"),
    on_aggregates(
        "dispatcher_send_64",
        "Dispatcher::send of 64 tasks, against the Storage::update_with that does the same",
        Measure::Throughput,
        Some(0.9),
    ),
    on_aggregates(
        "commands_emmett_64",
        EMMETT,
        Measure::Throughput,
        Some(10.0),
    ),
    on_aggregates("commands_emmett_16", EMMETT, Measure::Throughput, None),
    on_aggregates("commands_emmett_1", EMMETT, Measure::Throughput, None),
    on_aggregates("aggregate_load_10000", NEWEST, Measure::Latency, Some(1.5)),
    on_aggregates(
        "aggregate_load_10000_embedded",
        NEWEST,
        Measure::Latency,
        Some(1.5),
    ),
    on_aggregates("aggregate_at_5000", PAST, Measure::Latency, Some(1.5)),
    on_aggregates(
        "aggregate_at_5000_embedded",
        PAST,
        Measure::Latency,
        Some(1.5),
    ),
];

const fn rebuild(name: &'static str) -> Scenario {
    Scenario {
        name,
        about: "views folded from 1,000,000 log entries, and the peak memory",
        measure: Measure::Rebuild { memory: 1.1 },
        unit: EVENTS,
        bar: Some(50_000.0),
    }
}

/// The scenario of a name.
pub(crate) fn named(name: &str) -> Option<&'static Scenario> {
    SCENARIOS.iter().find(|scenario| scenario.name == name)
}
