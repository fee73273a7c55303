//! Blocking on what the fixtures do, inside and outside of a runtime.

use std::future::Future;
use std::sync::{OnceLock, mpsc};

use tokio::runtime::Runtime;

/// The runtime for what the fixtures themselves do; those of the tests end with their tests.
pub(super) fn fixture_runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("mongod-fixture")
            .enable_all()
            .build()
            .expect("a runtime")
    })
}

/// Blocks until the future is done, also inside of another runtime, where `block_on` panics.
pub(super) fn on_fixture_runtime<T: Send + 'static>(
    future: impl Future<Output = T> + Send + 'static,
) -> T {
    let (sender, receiver) = mpsc::channel();
    fixture_runtime().spawn(async move { sender.send(future.await) });
    receiver.recv().expect("the fixture does not panic")
}
