//! The command line of nodestorage.

mod acks;
mod args;
mod check;
mod events;
mod get;
mod import;
mod input;
mod inspect;
mod output;
mod plain_json;
mod verify;
mod workload;

use std::fmt;
use std::process::ExitCode;

use clap::Parser;

use self::args::{Arguments, Command};

/// A failure as shown to the user: what went wrong, and what below it.
#[derive(Debug)]
pub(crate) struct Failure(String);

impl Failure {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }

    pub(crate) fn after(self, done: impl fmt::Display) -> Self {
        Self(format!("{} ({done})", self.0))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<nodestorage::Error> for Failure {
    fn from(error: nodestorage::Error) -> Self {
        let mut message = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(below) = source {
            let text = below.to_string();
            // Errors often repeat what is below them.
            if !message.contains(&text) {
                message.push_str(": ");
                message.push_str(&text);
            }
            source = below.source();
        }
        Self(message)
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(run(arguments)),
        Err(error) => Err(Failure::new(format!("cannot start: {error}"))),
    };
    match result {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("nodestorage: {failure}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let json = arguments.json;
    match arguments.command {
        Command::Import(import) => import::run(import, json).await,
        Command::Get(get) => get::run(get, json).await,
        Command::History(history) => inspect::history(history, json).await,
        Command::Events(events) => events::run(events, json).await,
        Command::Doctor(doctor) => inspect::doctor(doctor, json).await,
        Command::Workload(workload) => workload::run(workload, json).await,
        Command::Check(check) => check::run(check, json).await,
    }
}
