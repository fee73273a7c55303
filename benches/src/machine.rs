//! What the figures were measured on.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// The value behind the first `name: value` of such a list.
fn field(text: &str, name: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    })
}

fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    output.status.success().then_some(text)
}

/// The version of a crate in the lock file that this was built with.
fn locked(name: &str) -> Option<&'static str> {
    let lock = include_str!("../../Cargo.lock");
    let package = lock.split_once(&format!("name = \"{name}\"\nversion = \""))?;
    package.1.split('"').next()
}

pub(crate) fn load_average() -> f64 {
    let text = read("/proc/loadavg");
    let first = text.split(' ').next().and_then(|it| it.parse().ok());
    first.unwrap_or_default()
}

/// The most memory this process ever had, in bytes.
pub(crate) fn peak_memory_bytes() -> u64 {
    let peak = field(&read("/proc/self/status"), "VmHWM").unwrap_or_default();
    let kilobytes = peak.split(' ').next().and_then(|it| it.parse::<u64>().ok());
    kilobytes.unwrap_or_default() * 1024
}

pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(0, usize::from)
}

pub(crate) fn hardware() -> Value {
    let memory = field(&read("/proc/meminfo"), "MemTotal").unwrap_or_default();
    let kilobytes = memory
        .split(' ')
        .next()
        .and_then(|it| it.parse::<f64>().ok());
    json!({
        "cpu": field(&read("/proc/cpuinfo"), "model name"),
        "cores": cores(),
        // One digit is what a reader compares.
        "memory_gib": kilobytes.map(|it| (it / 1024.0 / 1024.0 * 10.0).round() / 10.0),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "file_system": file_system(&std::env::temp_dir()),
    })
}

/// The kind of file system that a folder lies on.
pub(crate) fn file_system(folder: &Path) -> Option<String> {
    let folder = folder.canonicalize().ok()?;
    let mounts = read("/proc/mounts");
    let on = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (point, kind) = (words.next()?, words.next()?);
        folder.starts_with(point).then_some((point.len(), kind))
    });
    on.max().map(|(_, kind)| kind.to_owned())
}

/// The version that a server tells, if the variable names its program.
fn server_version(variable: &str) -> Option<String> {
    let text = output(&std::env::var(variable).ok()?, &["--version"])?;
    let digits = |word: &str| word.starts_with(|it: char| it.is_ascii_digit());
    let words = text
        .split([' ', '='])
        .map(|word| word.trim_start_matches('v'));
    words
        .into_iter()
        .find(|word| digits(word))
        .map(str::to_owned)
}

pub(crate) fn versions(mongod: Option<&str>) -> Value {
    json!({
        "nodestorage": locked("nodestorage"),
        "commit": output("git", &["describe", "--always", "--dirty"]),
        "rustc": output("rustc", &["--version"]),
        "mongod": mongod,
        "mongodb driver": locked("mongodb"),
        "redb": locked("redb"),
        "redis-server": server_version("NODESTORAGE_REDIS_SERVER"),
        "nats-server": server_version("NODESTORAGE_NATS_SERVER"),
        "node": server_version("NODESTORAGE_NODE"),
        "emmett-mongodb": crate::cqrs::emmett::package("@event-driven-io/emmett-mongodb"),
        "redis": locked("redis"),
        "async-nats": locked("async-nats"),
        "sqlite": rusqlite::version(),
        "rusqlite": locked("rusqlite"),
        "json-patch": locked("json-patch"),
    })
}
