//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use crate::load::Length;
use crate::scenario::{SCENARIOS, Scenario, named};

pub(crate) const HELP: &str = "\
Runs the benchmark: each scenario lets a hand-written competitor and nodestorage run in turn.

usage: scripts/bench [OPTION…] [SCENARIO…]      without scenarios: all of them

  --rounds N          rounds per scenario, default 5
  --seconds S         measured seconds per side and round, default 4
  --warm-up S         seconds before that, default 1
  --quick             one round of one second and less work, to try it
  --output FILE       where the results go, from the project's folder;
                      default target/bench/TIME.json
  --check             fail if a bar is missed, not only if a scenario fails
  --table FILE        run nothing: write the table of a result file into docs/benchmarks.md
  --document FILE     the document for --table
  --list              run nothing: list the scenarios
  --help              this text

Standard output gets one line of JSON per scenario; progress and the table at the end go to standard error.
";

/// What is asked for.
#[derive(Debug)]
pub(crate) enum Command {
    Help,
    List,
    Table { results: PathBuf, document: PathBuf },
    Child(String),
    Run(Run),
}

#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) length: Length,
    pub(crate) rounds: usize,
    pub(crate) output: PathBuf,
    pub(crate) check: bool,
    pub(crate) quick: bool,
    pub(crate) scenarios: Vec<&'static Scenario>,
}

fn seconds(text: &str) -> Result<Duration> {
    let seconds = text.parse::<f64>().context("a number of seconds")?;
    let time = Duration::try_from_secs_f64(seconds)?;
    ensure!(
        time >= Duration::from_millis(100),
        "less than 0.1 seconds say nothing"
    );
    Ok(time)
}

pub(crate) fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Command> {
    let mut run = Run {
        length: Length {
            warm_up: Duration::from_secs(1),
            measured: Duration::from_secs(4),
            to_the_last: false,
        },
        rounds: 5,
        output: PathBuf::from("target/bench/results.json"),
        check: false,
        quick: false,
        scenarios: Vec::new(),
    };
    let (mut table, mut document) = (None, PathBuf::from("docs/benchmarks.md"));
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        let mut value = || {
            arguments
                .next()
                .with_context(|| format!("{argument} needs a value"))
        };
        match argument.as_str() {
            "child" => return Ok(Command::Child(value()?)),
            "--help" | "-h" => return Ok(Command::Help),
            "--list" => return Ok(Command::List),
            "--rounds" => run.rounds = value()?.parse().context("a number of rounds")?,
            "--seconds" => run.length.measured = seconds(&value()?)?,
            "--warm-up" => run.length.warm_up = seconds(&value()?)?,
            "--quick" => {
                run.quick = true;
                run.rounds = 1;
                run.length.measured = Duration::from_secs(1);
                run.length.warm_up = Duration::from_millis(500);
            }
            "--output" => run.output = value()?.into(),
            "--check" => run.check = true,
            "--table" => table = Some(value()?.into()),
            "--document" => document = value()?.into(),
            option if option.starts_with('-') => bail!("there is no option {option}"),
            name => {
                let scenario = named(name);
                run.scenarios
                    .push(scenario.with_context(|| format!("there is no scenario {name}"))?);
            }
        }
    }
    if let Some(results) = table {
        return Ok(Command::Table { results, document });
    }
    ensure!(run.rounds > 0, "at least one round");
    if run.scenarios.is_empty() {
        run.scenarios = SCENARIOS.iter().collect();
    }
    Ok(Command::Run(run))
}
