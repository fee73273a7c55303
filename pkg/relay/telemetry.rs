//! What a relay tells programs about its work, through the `metrics` facade; the module's documentation lists it.

#[cfg(feature = "metrics")]
mod on {
    use std::sync::Arc;
    use std::time::Duration;

    use metrics::{counter, gauge, histogram};

    use crate::relay::RelayLag;

    /// The meters of one relay.
    #[derive(Debug, Clone)]
    pub(in crate::relay) struct Meter(Arc<str>);

    impl Meter {
        /// Whether anybody may be listening.
        pub(in crate::relay) const LISTENS: bool = true;

        pub(in crate::relay) fn new(relay: &str) -> Self {
            Self(relay.into())
        }

        pub(in crate::relay) fn published(&self, events: usize, took: Duration) {
            let relay = || Arc::clone(&self.0);
            counter!("nodestorage_relay_published_total", "relay" => relay())
                .increment(events as u64);
            histogram!("nodestorage_relay_publish_seconds", "relay" => relay())
                .record(took.as_secs_f64());
        }

        pub(in crate::relay) fn batch(&self, events: usize) {
            histogram!("nodestorage_relay_batch_events", "relay" => Arc::clone(&self.0))
                .record(events as f64);
        }

        pub(in crate::relay) fn entry(&self, delay: Duration) {
            let relay = || Arc::clone(&self.0);
            counter!("nodestorage_relay_entries_total", "relay" => relay()).increment(1);
            histogram!("nodestorage_relay_delay_seconds", "relay" => relay())
                .record(delay.as_secs_f64());
        }

        pub(in crate::relay) fn retry(&self) {
            counter!("nodestorage_relay_retries_total", "relay" => Arc::clone(&self.0))
                .increment(1);
        }

        pub(in crate::relay) fn dead_letter(&self) {
            counter!("nodestorage_relay_dead_letters_total", "relay" => Arc::clone(&self.0))
                .increment(1);
        }

        pub(in crate::relay) fn leading(&self, leads: bool) {
            gauge!("nodestorage_relay_leading", "relay" => Arc::clone(&self.0))
                .set(f64::from(u8::from(leads)));
        }

        pub(in crate::relay) fn parked(&self, documents: usize) {
            gauge!("nodestorage_relay_parked_documents", "relay" => Arc::clone(&self.0))
                .set(documents as f64);
        }

        pub(in crate::relay) fn lag(&self, lag: &RelayLag) {
            let relay = || Arc::clone(&self.0);
            gauge!("nodestorage_relay_backlog_entries", "relay" => relay()).set(lag.entries as f64);
            gauge!("nodestorage_relay_lag_seconds", "relay" => relay()).set(lag.age.as_secs_f64());
        }
    }
}

#[cfg(not(feature = "metrics"))]
mod off {
    use std::time::Duration;

    use crate::relay::RelayLag;

    #[derive(Debug, Clone)]
    pub(in crate::relay) struct Meter;

    impl Meter {
        pub(in crate::relay) const LISTENS: bool = false;

        pub(in crate::relay) fn new(_: &str) -> Self {
            Self
        }

        pub(in crate::relay) fn published(&self, _: usize, _: Duration) {}
        pub(in crate::relay) fn batch(&self, _: usize) {}
        pub(in crate::relay) fn entry(&self, _: Duration) {}
        pub(in crate::relay) fn retry(&self) {}
        pub(in crate::relay) fn dead_letter(&self) {}
        pub(in crate::relay) fn leading(&self, _: bool) {}
        pub(in crate::relay) fn parked(&self, _: usize) {}
        pub(in crate::relay) fn lag(&self, _: &RelayLag) {}
    }
}

#[cfg(not(feature = "metrics"))]
pub(super) use off::Meter;
#[cfg(feature = "metrics")]
pub(super) use on::Meter;
