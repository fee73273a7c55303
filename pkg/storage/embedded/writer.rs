//! The writer: one thread that carries out everything that is written.
//!
//! What waits in the queue when a transaction begins shares it, and with it the wait for the disk, which
//! costs far more than the writing. Each call is still decided on its own, in order, and sees the ones
//! before it. Answers go out after the transaction is durable, also those of calls that failed: they may
//! have been decided on writes of the same transaction.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, mpsc, oneshot};

use super::failure::closed;
use super::store::Store;
use super::transaction::{Lost, transact};
use super::work::{Answer, Done, Job, Work};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::backend::CommitFailure;

/// Calls that may wait: more than the engine ever has in flight.
const QUEUE: usize = 256;

/// Memory that waiting calls may take, in kibibytes: 64 MiB, one call of the largest size included.
const QUEUE_KIB: u32 = 64 << 10;

/// Calls in one transaction at most: above it the wait for the disk is small beside the writing, and
/// the first one would wait for the last.
const GROUP: usize = 128;

/// Bytes in one transaction at most, beyond the first call.
const GROUP_BYTES: usize = 8 << 20;

/// How long after its deadline a commit is still waited for whose outcome is not known.
const GRACE: Duration = Duration::from_secs(10);

/// The way to the writer.
#[derive(Debug, Clone)]
pub(super) struct Writer {
    queue: Arc<Mutex<Option<mpsc::Sender<Job>>>>,
    memory: Arc<Semaphore>,
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl Writer {
    pub(super) fn start(store: Arc<Store>) -> Result<Self> {
        let (queue, jobs) = mpsc::channel(QUEUE);
        let thread = std::thread::Builder::new()
            .name("nodestorage-writer".to_owned())
            .spawn(move || run(&store, jobs))
            .map_err(|e| {
                Error::new(ErrorKind::Unavailable, "the writer thread did not start").with_source(e)
            })?;
        Ok(Self {
            queue: Arc::new(Mutex::new(Some(queue))),
            memory: Arc::new(Semaphore::new(QUEUE_KIB as usize)),
            thread: Arc::new(Mutex::new(Some(thread))),
        })
    }

    /// Hands over a piece of work and waits for its answer. When the future is dropped before the
    /// work is in the queue, nothing happens; after that the work is done whoever waits.
    pub(super) async fn ask(&self, work: Work) -> Answer {
        let failed = |error| Err(CommitFailure::Failed(error));
        let deadline = match &work {
            Work::Commit { deadline, .. } => Some(*deadline),
            _ => None,
        };
        let Some(queue) = self.queue() else {
            return failed(closed());
        };
        let kib = u32::try_from(work.bytes() / 1_024 + 1).map_or(QUEUE_KIB, |n| n.min(QUEUE_KIB));
        let place = async {
            let share = Arc::clone(&self.memory).acquire_many_owned(kib).await;
            Some((queue.reserve().await.ok()?, share.ok()?))
        };
        let place = before(deadline, place).await;
        let (place, share) = match place {
            Some(Some(place)) => place,
            Some(None) => return failed(closed()),
            None => {
                return failed(Error::new(
                    ErrorKind::Timeout,
                    "the deadline passed before the commit found a place in the queue",
                ));
            }
        };
        let (answer, answered) = oneshot::channel();
        place.send(Job {
            work,
            answer,
            _share: share,
        });
        // The writer itself turns away what it reaches too late; this bounds only a disk that does
        // not answer.
        let limit = deadline.and_then(|deadline| deadline.checked_add(GRACE));
        match before(limit, answered).await {
            Some(Ok(answer)) => answer,
            _ => Err(CommitFailure::Unknown(Error::new(
                ErrorKind::CommitUnknown,
                "the disk did not confirm the commit in time",
            ))),
        }
    }

    fn queue(&self) -> Option<mpsc::Sender<Job>> {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.clone()
    }

    /// Takes no more work, and waits until what is in the queue is done.
    pub(super) fn close(&self) {
        let queue = self
            .queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        drop(queue);
        // Held while waiting, so that whoever closes second waits as well.
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = thread.take() {
            // A panic there has been reported by its hook; there is nothing left to clean up.
            let _ = thread.join();
        }
    }
}

/// Waits for a future, at most until the limit if there is one.
async fn before<F: Future>(limit: Option<Instant>, future: F) -> Option<F::Output> {
    match limit {
        Some(limit) => crate::storage::wait::before(limit, future).await,
        None => Some(future.await),
    }
}

fn run(store: &Store, mut jobs: mpsc::Receiver<Job>) {
    let mut waiting = VecDeque::new();
    loop {
        if waiting.is_empty() {
            match jobs.blocking_recv() {
                Some(job) => waiting.push_back(job),
                None => return,
            }
        }
        while waiting.len() < GROUP
            && let Ok(job) = jobs.try_recv()
        {
            waiting.push_back(job);
        }
        let group = next_group(&mut waiting);
        carry_out(store, group);
    }
}

/// Takes from the front what shares the next transaction.
fn next_group(waiting: &mut VecDeque<Job>) -> Vec<Job> {
    let mut group: Vec<Job> = Vec::new();
    let mut bytes = 0;
    while let Some(job) = waiting.front() {
        bytes += job.work.bytes();
        let fits = group.len() < GROUP && bytes <= GROUP_BYTES && !job.work.is_alone();
        if !group.is_empty() && !fits {
            break;
        }
        let alone = job.work.is_alone();
        group.extend(waiting.pop_front());
        if alone {
            break;
        }
    }
    group
}

fn carry_out(store: &Store, group: Vec<Job>) {
    match transact(store, &group) {
        Ok((answers, last)) => {
            store.tip.send_if_modified(|tip| {
                let moved = *tip < last;
                *tip = last.max(*tip);
                moved
            });
            for (job, answer) in group.into_iter().zip(answers) {
                if let Ok(Done::Opened(collection)) = &answer {
                    store.add_collection(Arc::clone(collection));
                }
                let _ = job.answer.send(answer);
            }
        }
        // One by one: what the disk or a damaged page refuses to one must not fail the others.
        Err(Lost::Nothing(_)) if group.len() > 1 => {
            for job in group {
                carry_out(store, vec![job]);
            }
        }
        Err(lost) => {
            for job in group {
                let _ = job.answer.send(Err(lost.to_failure()));
            }
        }
    }
}
