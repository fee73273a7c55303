//! Sides that run in processes of their own: this program, started again as `child`.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use nodestorage::Storage;
use serde::{Deserialize, Serialize};

use crate::broker::gauge::Stalled;
use crate::contender::{Checked, Contender};
use crate::load::{Length, Sample, closed_loop, repeat};
use crate::machine::peak_memory_bytes;
use crate::mongo::Database;
use crate::mongo::cas_loop::CasLoop;
use crate::ours::{Choice, Ours};
use crate::rebuilding;

/// What a child is to do, handed over as its argument.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) side: Side,
    pub(crate) url: String,
    pub(crate) database: String,
    pub(crate) tasks: usize,
    pub(crate) choice: Choice,
    pub(crate) length: Length,
    pub(crate) seed: u64,
    /// How many updates a side makes that is not bound by time.
    #[serde(default)]
    pub(crate) updates: u64,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) enum Side {
    Ours,
    Theirs,
    /// Ours, with a bus that never answers.
    Stalled,
    /// A projection that folds the whole log.
    Rebuild,
}

/// What a child did.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Done {
    pub(crate) sample: Sample,
    pub(crate) peak_memory_bytes: u64,
    /// The same when a tenth of the updates was done.
    #[serde(default)]
    pub(crate) early_peak_bytes: u64,
}

/// Started children that end with this value, however that comes.
struct Children(Vec<Running>);

struct Running {
    child: Child,
    answers: BufReader<ChildStdout>,
}

impl Drop for Children {
    fn drop(&mut self) {
        for running in &mut self.0 {
            // One that has ended already is none the worse for it.
            let _ = running.child.kill();
            let _ = running.child.wait();
        }
    }
}

/// Runs a process per job; all begin when the last one is ready.
pub(crate) async fn run_all(jobs: Vec<Job>) -> Result<Vec<Done>> {
    tokio::task::spawn_blocking(move || {
        let mut children = Children(Vec::new());
        for job in &jobs {
            let mut child = Command::new(std::env::current_exe()?)
                .arg("child")
                .arg(serde_json::to_string(job)?)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .context("a child process")?;
            let output = child.stdout.take().context("its output is a pipe")?;
            let answers = BufReader::new(output);
            children.0.push(Running { child, answers });
        }
        for running in &mut children.0 {
            let ready = running.line()?;
            ensure!(ready == "ready", "a child process did not become ready");
        }
        for running in &mut children.0 {
            // Its input stays open: the end of it tells the child that this process is gone.
            let input = running
                .child
                .stdin
                .as_mut()
                .context("its input is a pipe")?;
            writeln!(input, "go")?;
        }
        let answers = children.0.iter_mut().map(|running| {
            let line = running.line()?;
            serde_json::from_str(&line).context("a child process failed")
        });
        answers.collect()
    })
    .await?
}

impl Running {
    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }
}

/// The whole life of a child.
pub(crate) async fn child(job: &str) -> Result<()> {
    let job: Job = serde_json::from_str(job)?;
    let mut early_peak_bytes = 0;
    let done = match job.side {
        Side::Ours => {
            let storage = Storage::builder().url(&job.url).open().await?;
            let worker = Arc::new(Ours {
                storage: storage.clone(),
                choice: job.choice,
                store: (),
            });
            wait_for_the_others()?;
            let sample = closed_loop(&worker, job.tasks, job.length, job.seed).await;
            storage.close().await;
            sample?
        }
        Side::Theirs => {
            let database = Database::existing(&job.url, &job.database, job.tasks).await?;
            let worker = Arc::new(CasLoop::new(database, job.choice));
            wait_for_the_others()?;
            closed_loop(&worker, job.tasks, job.length, job.seed).await?
        }
        Side::Stalled => {
            let (sample, peak) = stalled(&job).await?;
            early_peak_bytes = peak;
            sample
        }
        Side::Rebuild => {
            let (sample, peak) = rebuilding::rebuild(&job, wait_for_the_others).await?;
            early_peak_bytes = peak;
            sample
        }
    };
    let done = Done {
        sample: done,
        peak_memory_bytes: peak_memory_bytes(),
        early_peak_bytes,
    };
    println!("{}", serde_json::to_string(&done)?);
    Ok(())
}

/// Updates under a relay whose bus never answers; what it did, and the peak memory after a tenth of it.
async fn stalled(job: &Job) -> Result<(Sample, u64)> {
    let opening = Storage::builder().url(&job.url).bus(Stalled).open();
    let storage = opening.await?;
    let worker = Arc::new(Ours {
        storage: storage.clone(),
        choice: job.choice,
        store: (),
    });
    wait_for_the_others()?;
    let mut sample = repeat(&worker, job.tasks, job.updates / 10, job.seed).await?;
    let early = peak_memory_bytes();
    let rest = repeat(
        &worker,
        job.tasks,
        job.updates - sample.acknowledged,
        job.seed + 1,
    )
    .await?;
    let seconds = sample.seconds + rest.seconds;
    sample.merge(rest);
    sample.seconds = seconds;
    // The storage is not closed: its relay would wait for the bus until its drain timeout.
    Ok((sample, early))
}

fn wait_for_the_others() -> Result<()> {
    println!("ready");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    ensure!(line.trim_end() == "go", "the parent process has ended");
    std::thread::spawn(|| {
        // Nothing more comes but the end, when the parent process is gone.
        let _ = std::io::stdin().read_line(&mut String::new());
        std::process::exit(1);
    });
    Ok(())
}

/// A side in several processes.
pub(crate) struct Processes {
    /// Without length and seed, which a round brings.
    pub(crate) job: Job,
    pub(crate) processes: usize,
    pub(crate) store: Database,
}

impl Contender for Processes {
    async fn run(&self, length: Length, round: usize) -> Result<Sample> {
        let jobs = (0..self.processes).map(|process| Job {
            length,
            seed: (round * self.processes + process) as u64,
            ..self.job.clone()
        });
        let mut total = Sample::default();
        for done in run_all(jobs.collect()).await? {
            total.merge(done.sample);
        }
        Ok(total)
    }

    async fn check(&self, acknowledged: u64) -> Result<()> {
        self.store.check(acknowledged).await
    }
}
