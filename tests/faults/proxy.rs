//! A proxy between driver and server that breaks connections, and above all commits: at every point
//! where a commit can lose its answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::chance::below;

/// Where a commit loses its connection.
#[derive(Debug, Clone, Copy)]
enum Cut {
    /// The server has not heard of it.
    Before,
    /// The server has got it, and is about to carry it out.
    Under,
    /// The server has carried it out, and nobody hears of it.
    Answer,
}

/// Listens on a port of its own. Dropping it ends it and cuts what goes through it.
pub(crate) struct Proxy {
    shared: Arc<Shared>,
    port: u16,
    task: JoinHandle<()>,
}

struct Shared {
    server: AtomicU16,
    /// Commits that are yet to be cut.
    budget: AtomicU64,
    cut: [AtomicU64; 3],
    all: Notify,
}

impl Proxy {
    /// A proxy in front of the server on that port of this machine.
    pub(crate) async fn start(server: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            server: AtomicU16::new(server),
            budget: AtomicU64::new(0),
            cut: Default::default(),
            all: Notify::new(),
        });
        let accepting = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            loop {
                let Ok((client, _)) = listener.accept().await else {
                    continue;
                };
                let shared = Arc::clone(&accepting);
                tokio::spawn(async move { shared.carry(client).await });
            }
        });
        Self { shared, port, task }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Breaks every connection that is open.
    pub(crate) fn cut_all(&self) {
        self.shared.all.notify_waiters();
    }

    /// Breaks the connections of that many commits to come, about one in four.
    pub(crate) fn cut_commits(&self, times: u64) {
        self.shared.budget.fetch_add(times, Ordering::Relaxed);
    }

    /// Commits that are yet to be cut.
    pub(crate) fn left(&self) -> u64 {
        self.shared.budget.load(Ordering::Relaxed)
    }

    /// How many commits were cut before, under way, and after.
    pub(crate) fn cut(&self) -> [u64; 3] {
        [0, 1, 2].map(|at| self.shared.cut[at].load(Ordering::Relaxed))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
        self.cut_all();
    }
}

impl Shared {
    /// Carries one connection's bytes until either side ends it or it is cut.
    async fn carry(&self, mut client: TcpStream) {
        let port = self.server.load(Ordering::Relaxed);
        let Ok(mut server) = TcpStream::connect(("127.0.0.1", port)).await else {
            return;
        };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let (mut request, mut reply) = (vec![0; 1 << 16], vec![0; 1 << 16]);
        loop {
            tokio::select! {
                () = self.all.notified() => return,
                read = client.read(&mut request) => {
                    let Ok(n @ 1..) = read else { return };
                    let Some(cut) = self.decide(&request[..n]) else {
                        if server.write_all(&request[..n]).await.is_err() { return }
                        continue;
                    };
                    if !matches!(cut, Cut::Before) {
                        let _ = server.write_all(&request[..n]).await;
                    }
                    if matches!(cut, Cut::Answer) {
                        let _ = timeout(Duration::from_secs(10), server.read(&mut reply)).await;
                    }
                    self.cut[cut as usize].fetch_add(1, Ordering::Relaxed);
                    return;
                }
                read = server.read(&mut reply) => {
                    let Ok(n @ 1..) = read else { return };
                    if client.write_all(&reply[..n]).await.is_err() { return }
                }
            }
        }
    }

    fn decide(&self, request: &[u8]) -> Option<Cut> {
        let name = b"commitTransaction";
        // The command's name stands at the beginning of the message.
        let head = &request[..request.len().min(64)];
        if !head.windows(name.len()).any(|it| it == name) || below(4) != 0 {
            return None;
        }
        let take = |left: u64| left.checked_sub(1);
        let (set, get) = (Ordering::Relaxed, Ordering::Relaxed);
        self.budget.fetch_update(set, get, take).ok()?;
        Some([Cut::Before, Cut::Under, Cut::Answer][usize::try_from(below(3)).unwrap()])
    }
}
