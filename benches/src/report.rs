//! Figures: of a round, of a scenario, of a run.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::format::{number, time};
use crate::load::{Sample, median};
use crate::scenario::{Better, Measure, Scenario};

/// What one side did in one round.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Figures {
    pub(crate) per_second: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) max_us: f64,
    /// Of the process, where it had one of its own.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) peak_memory_mib: Option<f64>,
}

/// Three significant digits and a bit: what is behind them is noise, and a reader of JSON sees it too.
pub(crate) fn rounded(value: f64) -> f64 {
    let scale = if value.abs() < 100.0 { 1000.0 } else { 10.0 };
    (value * scale).round() / scale
}

impl Figures {
    pub(crate) fn of(sample: &Sample) -> Self {
        Self {
            per_second: rounded(sample.per_second()),
            p50_us: rounded(sample.percentile_us(0.5)),
            p99_us: rounded(sample.percentile_us(0.99)),
            max_us: rounded(sample.percentile_us(1.0)),
            peak_memory_mib: None,
        }
    }

    pub(crate) fn with_peak_memory(mut self, bytes: u64) -> Self {
        self.peak_memory_mib = Some((bytes as f64 / f64::from(1 << 20)).round());
        self
    }

    /// The medians of several rounds; of the longest times the longest.
    fn over(rounds: &[Self]) -> Self {
        let of = |field: fn(&Self) -> f64| rounded(median(rounds.iter().map(field)));
        let peaks = || rounds.iter().filter_map(|it| it.peak_memory_mib);
        Self {
            per_second: of(|it| it.per_second),
            p50_us: of(|it| it.p50_us),
            p99_us: of(|it| it.p99_us),
            max_us: rounds.iter().map(|it| it.max_us).fold(0.0, f64::max),
            peak_memory_mib: peaks().next().map(|_| rounded(median(peaks()))),
        }
    }
}

/// One round of a scenario.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Round {
    pub(crate) ratio: Option<f64>,
    pub(crate) theirs: Option<Figures>,
    pub(crate) ours: Figures,
    /// Groups of callers, where the scenario has several.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub(crate) groups: BTreeMap<String, Figures>,
    /// What else there is to say.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub(crate) notes: Vec<String>,
    /// How busy the machine was before the round, over a minute.
    pub(crate) load_average: f64,
}

impl Round {
    pub(crate) fn compare(measure: Measure, theirs: &Sample, ours: &Sample, load: f64) -> Self {
        let ratio = match measure {
            Measure::Latency => ours.percentile_us(0.5) / theirs.percentile_us(0.5),
            _ => ours.per_second() / theirs.per_second(),
        };
        Self {
            ratio: Some(rounded(ratio)),
            theirs: Some(Figures::of(theirs)),
            ours: Figures::of(ours),
            load_average: load,
            ..Self::default()
        }
    }

    /// Groups of callers of ours that ran at the same time.
    pub(crate) fn of_groups<const N: usize>(groups: [(&str, Sample); N], load: f64) -> Self {
        let named = groups
            .iter()
            .map(|(name, it)| ((*name).to_owned(), Figures::of(it)));
        let named = named.collect();
        let mut all = Sample::default();
        for (_, sample) in groups {
            all.merge(sample);
        }
        Self {
            ours: Figures::of(&all),
            groups: named,
            load_average: load,
            ..Self::default()
        }
    }
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let figures = |it: &Figures| {
            let per_second = number(it.per_second);
            // Where no single operation was timed there is no median.
            if it.p50_us > 0.0 {
                format!("{per_second}/s, median {}", time(it.p50_us))
            } else {
                format!("{per_second}/s")
            }
        };
        if let (Some(theirs), Some(ratio)) = (&self.theirs, self.ratio) {
            let (theirs, ours) = (figures(theirs), figures(&self.ours));
            write!(f, "theirs {theirs}; ours {ours}; ratio {ratio:.2}")?;
            return self.notes.iter().try_for_each(|it| write!(f, "; {it}"));
        }
        let group = |(name, it): (&String, &Figures)| {
            let longest = (time(it.p99_us), time(it.max_us));
            format!(
                "{name}: {}, 99% {}, longest {}",
                figures(it),
                longest.0,
                longest.1
            )
        };
        let mut parts: Vec<String> = self.groups.iter().map(group).collect();
        if parts.is_empty() {
            parts.push(figures(&self.ours));
        }
        parts.extend(self.notes.iter().cloned());
        f.write_str(&parts.join("; "))
    }
}

/// The one line per scenario.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Line {
    pub(crate) scenario: String,
    /// The median of the rounds' ratios, and the smallest and the largest of them.
    pub(crate) ratio: Option<f64>,
    pub(crate) min: Option<f64>,
    pub(crate) max: Option<f64>,
    /// In `unit`.
    pub(crate) ours: f64,
    pub(crate) theirs: Option<f64>,
    pub(crate) ours_p50_us: f64,
    pub(crate) ours_p99_us: f64,
    pub(crate) theirs_p50_us: Option<f64>,
    pub(crate) theirs_p99_us: Option<f64>,
    pub(crate) unit: String,
    pub(crate) bar: Option<f64>,
    pub(crate) better: String,
    /// The bar, for people.
    #[serde(default)]
    pub(crate) asked: Option<String>,
    /// Whether the ratio, or the figure, is as good as the bar.
    pub(crate) met: Option<bool>,
    pub(crate) rounds: usize,
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub(crate) groups: BTreeMap<String, Figures>,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub(crate) notes: Vec<String>,
}

impl Line {
    pub(crate) fn new(scenario: &Scenario, rounds: &[Round]) -> Self {
        let ours = Figures::over(&rounds.iter().map(|it| it.ours).collect::<Vec<_>>());
        let theirs: Vec<Figures> = rounds.iter().filter_map(|it| it.theirs).collect();
        let theirs = (!theirs.is_empty()).then(|| Figures::over(&theirs));
        let ratios: Vec<f64> = rounds.iter().filter_map(|it| it.ratio).collect();
        let ratio = (!ratios.is_empty()).then(|| rounded(median(ratios.iter().copied())));
        let better = scenario.measure.better();
        let met = scenario.bar.and_then(|bar| match scenario.measure {
            Measure::Rate => Some(ours.per_second >= bar),
            Measure::Rebuild { memory } => {
                Some(ours.per_second >= bar && ratio.is_some_and(|ratio| ratio <= memory))
            }
            Measure::Delivery { p99_ms } => {
                Some(ours.p50_us <= bar * 1e3 && ours.p99_us <= p99_ms * 1e3)
            }
            _ => ratio.map(|ratio| match better {
                Better::Higher => ratio >= bar,
                Better::Lower => ratio <= bar,
            }),
        });
        let value = |figures: Figures| match scenario.measure {
            Measure::Latency | Measure::Delivery { .. } => figures.p50_us,
            _ => figures.per_second,
        };
        let mut groups: BTreeMap<String, Vec<Figures>> = BTreeMap::new();
        for (name, figures) in rounds.iter().flat_map(|it| &it.groups) {
            groups.entry(name.clone()).or_default().push(*figures);
        }
        Self {
            scenario: scenario.name.to_owned(),
            ratio,
            min: ratios.iter().copied().reduce(f64::min),
            max: ratios.iter().copied().reduce(f64::max),
            ours: value(ours),
            theirs: theirs.map(value),
            ours_p50_us: ours.p50_us,
            ours_p99_us: ours.p99_us,
            theirs_p50_us: theirs.map(|it| it.p50_us),
            theirs_p99_us: theirs.map(|it| it.p99_us),
            unit: scenario.unit.to_owned(),
            bar: scenario.bar,
            better: match better {
                Better::Higher => "higher".to_owned(),
                Better::Lower => "lower".to_owned(),
            },
            asked: scenario.bar.map(|bar| scenario.measure.asks(bar)),
            met,
            rounds: rounds.len(),
            notes: rounds.iter().flat_map(|it| it.notes.clone()).collect(),
            groups: groups
                .into_iter()
                .map(|(name, figures)| (name, Figures::over(&figures)))
                .collect(),
        }
    }
}

/// A scenario in the file: its line, how the sides were set up, and every round.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Entry {
    #[serde(flatten)]
    pub(crate) line: Line,
    pub(crate) about: String,
    pub(crate) sides: Value,
    pub(crate) each_round: Vec<Round>,
}

/// What the file holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) started: String,
    pub(crate) hardware: Value,
    pub(crate) versions: Value,
    pub(crate) write_concern: String,
    pub(crate) settings: Value,
    pub(crate) scenarios: Vec<Entry>,
    /// Scenarios that did not come to an end, with the reason.
    pub(crate) failed: BTreeMap<String, String>,
}

impl Report {
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        serde_json::from_str(&text).with_context(|| path.display().to_string())
    }

    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let text = serde_json::to_string_pretty(self)? + "\n";
        fs::write(path, text).with_context(|| path.display().to_string())
    }
}
