//! Disks that are full, fail, or forget what was not synced.

use std::io;
use std::sync::Mutex;

use redb::{Builder, StorageBackend};

use super::super::failure::translate;
use super::super::open::initialise;
use super::super::store::Store;
use super::*;
use crate::clock::SystemClock;
use crate::error::ErrorKind;

/// A disk in memory, shared by everyone who opens it, that refuses after so many operations.
#[derive(Debug, Clone, Default)]
struct Disk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    content: Vec<u8>,
    /// As of the last sync.
    synced: Vec<u8>,
    /// Writes and changes of length since then.
    pending: Vec<Change>,
    /// Operations that still succeed.
    left: Option<u64>,
    /// What the others say.
    error: Option<io::ErrorKind>,
    /// Whether `sync` counts as an operation that can fail, and nothing else.
    only_sync: bool,
}

#[derive(Debug, Clone)]
enum Change {
    Write(u64, Vec<u8>),
    Length(u64),
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write(offset, data) => {
                let begin = *offset as usize;
                if content.len() < begin + data.len() {
                    content.resize(begin + data.len(), 0);
                }
                content[begin..begin + data.len()].copy_from_slice(data);
            }
            Self::Length(length) => content.resize(*length as usize, 0),
        }
    }
}

impl State {
    fn step(&mut self, is_sync: bool) -> io::Result<()> {
        if self.only_sync && !is_sync {
            return Ok(());
        }
        match &mut self.left {
            Some(0) => Err(self.error.unwrap_or(io::ErrorKind::Other).into()),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn change(&mut self, change: Change) -> io::Result<()> {
        self.step(false)?;
        change.apply(&mut self.content);
        self.pending.push(change);
        Ok(())
    }
}

impl Disk {
    fn fail_after(&self, operations: u64, error: io::ErrorKind, only_sync: bool) {
        let mut state = self.0.lock().unwrap();
        state.left = Some(operations);
        state.error = Some(error);
        state.only_sync = only_sync;
    }

    fn mend(&self) -> bool {
        let mut state = self.0.lock().unwrap();
        state.left.take() == Some(0)
    }

    /// A copy as it may be after a loss of power: of what was not synced, some writes arrived.
    fn after_power_loss(&self, mut arrived: impl FnMut() -> bool) -> Self {
        let state = self.0.lock().unwrap();
        let mut content = state.synced.clone();
        for change in &state.pending {
            if arrived() {
                change.apply(&mut content);
            }
        }
        Self(Arc::new(Mutex::new(State {
            synced: content.clone(),
            content,
            ..State::default()
        })))
    }

    fn store(&self, create: bool) -> EmbeddedBackend {
        let disk = self.clone();
        let opener = Box::new(move || {
            Builder::new()
                .create_with_backend(disk.clone())
                .map_err(translate)
        });
        let database = opener().unwrap();
        let id = if create {
            initialise(&database).unwrap()
        } else {
            Uuid::nil()
        };
        let store = Store::new(database, id, Arc::new(SystemClock), Some(opener), true);
        EmbeddedBackend::start(store.unwrap()).unwrap()
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().content.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.0.lock().unwrap();
        let begin = offset as usize;
        let content = state.content.get(begin..begin + out.len());
        out.copy_from_slice(content.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.lock().unwrap().change(Change::Length(len))
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let change = Change::Write(offset, data.to_vec());
        self.0.lock().unwrap().change(change)
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        state.step(true)?;
        state.synced = state.content.clone();
        state.pending.clear();
        Ok(())
    }
}

async fn opened_on(disk: &Disk, create: bool) -> EmbeddedBackend {
    let backend = disk.store(create);
    backend
        .open_collection(&CollectionSpec::new("users"))
        .await
        .unwrap();
    backend
}

/// Documents a and b are at this version, with all of their log.
async fn check(backend: &EmbeddedBackend, expected: u64) {
    for id in ["a", "b"] {
        assert_eq!(version(backend, id).await.unwrap_or(0) as u64, expected);
        assert_eq!(log_of(backend, id).await, Vec::from_iter(1..=expected));
    }
}

/// Fails at each operation in turn. Whoever gets an error finds nothing written; the store goes on when
/// the disk does.
async fn fail_everywhere(error: io::ErrorKind, kind: ErrorKind, only_sync: bool) {
    let disk = Disk::default();
    let backend = opened_on(&disk, true).await;
    let mut reached = 0;
    let mut operations = 0;
    let mut unknown = 0;
    loop {
        disk.fail_after(operations, error, only_sync);
        let next = reached + 1;
        let result = commit(&backend, &[step("a", next), step("b", next)]).await;
        let failed = disk.mend();
        match result {
            Ok(_) => reached = next,
            Err(CommitFailure::Failed(error)) => assert_eq!(error.kind(), kind, "{error:?}"),
            Err(CommitFailure::Unknown(error)) => {
                assert_eq!(error.kind(), ErrorKind::CommitUnknown);
                unknown += 1;
                // One more, so that a store that could not be opened is opened again.
                let unit = Unit::default();
                commit(&backend, &[unit]).await.unwrap();
                reached = version(&backend, "a").await.unwrap_or(0) as u64;
            }
            Err(other) => panic!("{other:?}"),
        }
        eventually(|| async { backend.load(&[key("a")]).await.is_ok() }).await;
        check(&backend, reached).await;
        if !failed {
            break;
        }
        operations += 1;
    }
    assert!(operations >= if only_sync { 2 } else { 10 }, "{operations}");
    assert!(unknown <= operations);
    drop(backend);
    check(&disk.store(false), reached).await;
}

#[tokio::test]
async fn a_full_disk_is_storage_full_and_nothing_is_half_written() {
    fail_everywhere(io::ErrorKind::StorageFull, ErrorKind::StorageFull, false).await;
}

#[tokio::test]
async fn a_failing_disk_is_unavailable_and_nothing_is_half_written() {
    fail_everywhere(io::ErrorKind::Other, ErrorKind::Unavailable, false).await;
    fail_everywhere(io::ErrorKind::Other, ErrorKind::Unavailable, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn power_loss_keeps_what_was_committed() {
    let disk = Disk::default();
    let backend = Arc::new(opened_on(&disk, true).await);
    let mut random = 1_u64;
    let mut arrived = move || {
        // Marsaglia's xorshift.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random.is_multiple_of(2)
    };
    let committed = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let writer = tokio::spawn({
        let (backend, committed) = (Arc::clone(&backend), Arc::clone(&committed));
        async move {
            for version in 1..=150 {
                commit(&backend, &[step("a", version), step("b", version)])
                    .await
                    .unwrap();
                committed.store(version, Ordering::SeqCst);
            }
        }
    });
    let mut crashes = 0;
    while !writer.is_finished() {
        let at_least = committed.load(Ordering::SeqCst);
        let after = disk.after_power_loss(&mut arrived);
        let found = opened_on(&after, false).await;
        let reached = version(&found, "a").await.unwrap_or(0) as u64;
        assert!(
            reached >= at_least,
            "{reached} after {at_least} was committed"
        );
        check(&found, reached).await;
        crashes += 1;
        tokio::task::yield_now().await;
    }
    writer.await.unwrap();
    assert!(crashes > 3);
}
