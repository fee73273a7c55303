//! The benchmark of the commit engine: what it does per second, beside hand-written code on the same
//! database. `docs/benchmarks.md` describes it, `scripts/bench` runs it.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

mod args;
mod broker;
mod contender;
mod cqrs;
mod diff;
mod embedded;
mod format;
mod load;
mod machine;
mod mongo;
mod ours;
mod processes;
mod publishing;
mod rebuilding;
mod report;
mod run;
mod scenario;
mod server;
mod table;
mod units;
mod user;

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::Result;
use serde_json::json;

use crate::args::{Command, Run};
use crate::report::{Entry, Line, Report};
use crate::run::{Bench, DOCUMENTS};
use crate::scenario::SCENARIOS;

#[tokio::main]
async fn main() -> ExitCode {
    match start().await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Whether all is well.
async fn start() -> Result<bool> {
    match args::parse(std::env::args().skip(1))? {
        Command::Help => print!("{}", args::HELP),
        Command::List => {
            for it in SCENARIOS {
                let bar = it.bar.map(|bar| it.measure.asks(bar));
                let bar = bar.unwrap_or("for information".to_owned());
                println!("{:24} {:26} {}", it.name, bar, it.about);
            }
        }
        Command::Table { results, document } => table::refresh(&results, &document)?,
        Command::Child(job) => processes::child(&job).await?,
        Command::Run(run) => return measure(run).await,
    }
    Ok(true)
}

async fn measure(run: Run) -> Result<bool> {
    let now = bson::DateTime::now().try_to_rfc3339_string()?;
    let mut report = Report {
        started: now,
        hardware: machine::hardware(),
        versions: machine::versions(None),
        write_concern: "majority".to_owned(),
        settings: json!({
            "rounds": run.rounds,
            "seconds": run.length.measured.as_secs_f64(),
            "warm_up_seconds": run.length.warm_up.as_secs_f64(),
            "order": "competitor, then nodestorage, in every round",
            "documents": DOCUMENTS,
            "document_bytes": user::StoredUser::new(0).to_raw()?.as_bytes().len(),
            "mongod": server::SETTINGS,
            "runtime": "tokio, multi-thread, default number of workers, on both sides",
            "profile": "release",
        }),
        scenarios: Vec::new(),
        failed: BTreeMap::new(),
    };
    let (load, cores) = (machine::load_average(), machine::cores());
    if load > cores as f64 / 2.0 {
        eprintln!("note: the machine is busy (load {load} on {cores} cores), so figures will vary");
    }
    let bench = Bench::new(run.length, run.rounds, run.quick);
    for scenario in run.scenarios {
        eprintln!("{}: {}", scenario.name, scenario.about);
        match bench.run(scenario).await {
            Ok(outcome) => {
                let line = Line::new(scenario, &outcome.rounds);
                println!("{}", serde_json::to_string(&line)?);
                report.scenarios.push(Entry {
                    line,
                    about: scenario.about.to_owned(),
                    sides: outcome.sides,
                    each_round: outcome.rounds,
                });
            }
            Err(error) => {
                let failure = json!({ "scenario": scenario.name, "error": format!("{error:#}") });
                println!("{failure}");
                eprintln!("  FAILED: {error:#}");
                let name = scenario.name.to_owned();
                report.failed.insert(name, format!("{error:#}"));
            }
        }
        report.versions = machine::versions(bench.mongod().await.as_deref());
        // After each, so that what was measured is kept however the run ends.
        report.write(&run.output)?;
    }
    eprintln!(
        "\n{}\nresults: {}",
        table::plain(&report),
        run.output.display()
    );
    let missed = report.scenarios.iter().any(|it| it.line.met == Some(false));
    Ok(report.failed.is_empty() && !(run.check && missed))
}
