//! The figures for people: on the terminal, and in `docs/benchmarks.md`.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::format::{number, time};
use crate::report::{Entry, Line, Report};

const BEGIN: &str = "<!-- results: written by scripts/bench --table -->";
const END: &str = "<!-- end of results -->";

const HEAD: [&str; 7] = [
    "scenario",
    "ours",
    "theirs",
    "ratio (min–max)",
    "bar",
    "ours p50, p99",
    "theirs p50, p99",
];

fn row(line: &Line) -> [String; 7] {
    let optional = |value: Option<f64>, show: fn(f64) -> String| value.map_or("–".to_owned(), show);
    let ratio = match (line.ratio, line.min, line.max) {
        (Some(ratio), Some(min), Some(max)) => format!("{ratio:.2} ({min:.2}–{max:.2})"),
        _ => "–".to_owned(),
    };
    let met = line.met.map(|met| if met { "met" } else { "missed" });
    let bar = match (&line.asked, line.bar, met) {
        (Some(asked), _, Some(met)) => format!("{asked} {met}"),
        // A file of an earlier version.
        (None, Some(bar), Some(met)) if line.better == "lower" => format!("≤ {bar} {met}"),
        (None, Some(bar), Some(met)) => format!("≥ {bar} {met}"),
        _ => "–".to_owned(),
    };
    let with_unit = |value: f64| format!("{} {}", number(value), line.unit);
    let latencies = |p50: Option<f64>, p99: Option<f64>| match (p50, p99) {
        // Where no single operation was timed there is none.
        (Some(p50), Some(p99)) if p99 > 0.0 => format!("{}, {}", time(p50), time(p99)),
        _ => "–".to_owned(),
    };
    [
        line.scenario.clone(),
        with_unit(line.ours),
        optional(line.theirs, number),
        ratio,
        bar,
        latencies(Some(line.ours_p50_us), Some(line.ours_p99_us)),
        latencies(line.theirs_p50_us, line.theirs_p99_us),
    ]
}

/// One sentence per group of callers.
fn groups(line: &Line) -> Vec<String> {
    let sentence = |(name, it): (&String, &crate::report::Figures)| {
        let memory = it.peak_memory_mib.map_or(String::new(), |memory| {
            format!(", peak memory of the process {memory:.0} MiB")
        });
        format!(
            "{} / {name}: {}/s, p50 {}, p99 {}, longest {}{memory}",
            line.scenario,
            number(it.per_second),
            time(it.p50_us),
            time(it.p99_us),
            time(it.max_us)
        )
    };
    let notes = line.notes.iter();
    let notes = notes.map(|note| format!("{}: {note}", line.scenario));
    line.groups.iter().map(sentence).chain(notes).collect()
}

/// The table for a terminal.
pub(crate) fn plain(report: &Report) -> String {
    let rows: Vec<[String; 7]> = std::iter::once(HEAD.map(String::from))
        .chain(report.scenarios.iter().map(|entry| row(&entry.line)))
        .collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..HEAD.len()).filter_map(width).collect();
    let mut text = String::new();
    for row in &rows {
        for (cell, width) in row.iter().zip(&widths) {
            text.push_str(&format!("{cell:<width$}  "));
        }
        text = text.trim_end().to_owned() + "\n";
    }
    for line in report
        .scenarios
        .iter()
        .flat_map(|entry| groups(&entry.line))
    {
        text = text + &line + "\n";
    }
    for (name, reason) in &report.failed {
        text = text + "FAILED: " + name + ": " + reason + "\n";
    }
    text
}

/// The brokers that were there, and the peer, with a comma in front.
fn others(versions: &Value) -> String {
    [
        "redis-server",
        "nats-server",
        "redis",
        "async-nats",
        "node",
        "emmett-mongodb",
    ]
    .iter()
    .filter_map(|name| Some(format!(", {name} {}", versions[*name].as_str()?)))
    .collect()
}

fn markdown(report: &Report) -> String {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let (hardware, versions) = (&report.hardware, &report.versions);
    let settings = &report.settings;
    let mut lines = vec![
        format!(
            "Measured {} on {} with {} cores, {} GiB of memory, Linux {}, {}; mongod {} (`w: {}`), {}, \
             nodestorage {} at {}, driver {}, SQLite {}{}. Rounds: {}; measured per side and round: {} s, after {} s of warm-up.",
            report.started.split('T').next().unwrap_or_default(),
            text(&hardware["cpu"]),
            hardware["cores"],
            hardware["memory_gib"],
            text(&hardware["kernel"]),
            text(&hardware["file_system"]),
            text(&versions["mongod"]),
            report.write_concern,
            text(&versions["rustc"])
                .split(" (")
                .next()
                .unwrap_or_default(),
            text(&versions["nodestorage"]),
            text(&versions["commit"]),
            text(&versions["mongodb driver"]),
            text(&versions["sqlite"]),
            others(versions),
            settings["rounds"],
            settings["seconds"],
            settings["warm_up_seconds"],
        ),
        String::new(),
        format!("| {} |", HEAD.join(" | ")),
        format!("|{}", "---|".repeat(HEAD.len())),
    ];
    let cells = |entry: &Entry| {
        let mut cells = row(&entry.line);
        cells[0] = format!("`{}`", cells[0]);
        format!("| {} |", cells.join(" | "))
    };
    lines.extend(report.scenarios.iter().map(cells));
    let sentences = report
        .scenarios
        .iter()
        .flat_map(|entry| groups(&entry.line));
    let sentences: Vec<String> = sentences.map(|it| format!("- {it}")).collect();
    if !sentences.is_empty() {
        lines.push(String::new());
        lines.extend(sentences);
    }
    lines.join("\n")
}

/// Writes the table of a result file between the markers of a document.
pub(crate) fn refresh(results: &Path, document: &Path) -> Result<()> {
    let report = Report::read(results)?;
    let text = fs::read_to_string(document)?;
    let (before, rest) = text
        .split_once(BEGIN)
        .context("the document has no marker")?;
    let (_, after) = rest
        .split_once(END)
        .context("the document has no end marker")?;
    let table = markdown(&report);
    fs::write(
        document,
        format!("{before}{BEGIN}\n\n{table}\n\n{END}{after}"),
    )?;
    Ok(())
}
