//! A proxy in front of a server, whose connections break when a test says so.

use std::sync::Arc;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// Listens on a port of its own. Dropping it ends it and cuts what goes through it.
pub(crate) struct Proxy {
    cut: Arc<Notify>,
    port: u16,
    task: JoinHandle<()>,
}

impl Proxy {
    /// A proxy in front of the server on that port of this machine.
    pub(crate) async fn start(server: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let cut = Arc::new(Notify::new());
        let cutting = Arc::clone(&cut);
        let task = tokio::spawn(async move {
            loop {
                let Ok((mut client, _)) = listener.accept().await else {
                    continue;
                };
                let cut = Arc::clone(&cutting);
                tokio::spawn(async move {
                    let Ok(mut server) = TcpStream::connect(("127.0.0.1", server)).await else {
                        return;
                    };
                    let _ = (client.set_nodelay(true), server.set_nodelay(true));
                    // Whatever is on its way in either direction ends in the middle.
                    tokio::select! {
                        () = cut.notified() => {}
                        _ = copy_bidirectional(&mut client, &mut server) => {}
                    }
                });
            }
        });
        Self { cut, port, task }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Breaks every connection that is open, with what is under way on it.
    pub(crate) fn cut_all(&self) {
        self.cut.notify_waiters();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
        self.cut_all();
    }
}
