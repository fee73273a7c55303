//! The commit engine on a store in memory that fails as it likes, with callers who do as they like.
//!
//! Hundreds of small worlds, each made from a seed: what fails, who comes when, how long everything
//! takes in simulated time. At the end of each the log has to hold what the callers were told.
//! `NODESTORAGE_SEEDS` says how many worlds, `NODESTORAGE_SEED` which one alone.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod calls;
mod chance;
mod coverage;
mod crowds;
mod ledger;
mod model;
mod run;
mod setting;
mod transactions;
mod verify;
mod world;

use std::any::Any;
use std::sync::mpsc;
use std::time::Duration;

/// As many as take a few seconds in a debug build.
const SEEDS: u64 = 120;

/// A world takes milliseconds; one that is not done after this much real time spins.
const REAL_LIMIT: Duration = Duration::from_secs(60);

fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok().filter(|it| !it.is_empty())?;
    Some(value.parse().expect("a number"))
}

/// Panics that are part of a simulation.
fn is_injected(panic: &(dyn Any + Send)) -> bool {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.is_some_and(|text| text == model::INJECTED)
}

/// Names the seed of a simulation that fails.
struct Named(u64);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("simulation failed: NODESTORAGE_SEED={}", self.0);
        }
    }
}

fn simulate(seed: u64) {
    let _named = Named(seed);
    let (done, waiting) = mpsc::channel::<()>();
    std::thread::spawn(move || {
        if waiting.recv_timeout(REAL_LIMIT) == Err(mpsc::RecvTimeoutError::Timeout) {
            eprintln!("simulation spins: NODESTORAGE_SEED={seed}");
            std::process::abort();
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(run::run(seed));
    drop(done);
}

#[test]
fn every_world_keeps_what_its_callers_were_told() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !is_injected(info.payload()) {
            usual(info);
        }
    }));
    if let Some(seed) = number("NODESTORAGE_SEED") {
        return simulate(seed);
    }
    let seeds = number("NODESTORAGE_SEEDS").unwrap_or(SEEDS);
    for seed in 0..seeds {
        simulate(seed);
    }
    let counts = coverage::counts();
    println!("{counts:#?}");
    for what in [
        "acknowledged",
        "wrote nothing",
        "version conflict",
        "constraint",
        "unknown",
        "timeout",
        "panic in a commit",
        "panic in a load",
        "refused",
        "conflict with suspects",
        "conflict without suspects",
        "committed in part",
        "foreign write",
        "held unpolled",
    ] {
        assert!(
            seeds < SEEDS || counts.contains_key(what),
            "never happened: {what}"
        );
    }
}
