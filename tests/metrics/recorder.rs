use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock};

use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    SharedString, Unit,
};

/// What was recorded under one name and label.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Series {
    /// The sum of a counter, the last value of a gauge.
    pub(crate) value: f64,
    /// The values of a histogram, or all that a gauge had.
    pub(crate) values: Vec<f64>,
}

/// Keeps everything.
#[derive(Clone, Default)]
pub(crate) struct Kept(Arc<Mutex<BTreeMap<String, Series>>>);

/// The recorder of this process.
pub(crate) fn kept() -> &'static Kept {
    static KEPT: OnceLock<Kept> = OnceLock::new();
    KEPT.get_or_init(|| {
        let kept = Kept::default();
        metrics::set_global_recorder(kept.clone()).expect("the only recorder");
        kept
    })
}

impl Kept {
    /// What is known under a name, which ends with the value of its label, if it has one.
    pub(crate) fn get(&self, name: &str) -> Series {
        let series = self.0.lock().unwrap();
        series.get(name).cloned().unwrap_or_default()
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.0.lock().unwrap().keys().cloned().collect()
    }

    fn series(&self, key: &Key) -> Arc<One> {
        let mut name = key.name().to_owned();
        for label in key.labels() {
            name = format!("{name} {}={}", label.key(), label.value());
        }
        Arc::new(One {
            kept: self.clone(),
            name,
        })
    }
}

struct One {
    kept: Kept,
    name: String,
}

impl One {
    fn change(&self, change: impl FnOnce(&mut Series)) {
        let mut series = self.kept.0.lock().unwrap();
        change(series.entry(self.name.clone()).or_default());
    }
}

impl CounterFn for One {
    fn increment(&self, value: u64) {
        self.change(|series| series.value += value as f64);
    }

    fn absolute(&self, value: u64) {
        self.change(|series| series.value = value as f64);
    }
}

impl GaugeFn for One {
    fn increment(&self, _: f64) {
        panic!("{} is set, not moved", self.name);
    }

    fn decrement(&self, _: f64) {
        panic!("{} is set, not moved", self.name);
    }

    fn set(&self, value: f64) {
        self.change(|series| {
            series.value = value;
            series.values.push(value);
        });
    }
}

impl HistogramFn for One {
    fn record(&self, value: f64) {
        self.change(|series| series.values.push(value));
    }
}

impl Recorder for Kept {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.series(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.series(key))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.series(key))
    }
}
