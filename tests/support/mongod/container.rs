//! A server in a container, where this machine has no binary.

use std::future::Future;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::thread;

use testcontainers::core::IntoContainerPort;
use testcontainers::runners::AsyncRunner;
use testcontainers::{ContainerAsync, GenericImage, ImageExt};

use super::runtime::{fixture_runtime, on_fixture_runtime};
use super::{BINARY_VARIABLE, MongodOptions, URL_VARIABLE, arguments, free_port};

/// A server in a container.
#[derive(Debug)]
pub(super) struct Container {
    /// `None` only while it is dropped.
    container: Mutex<Option<ContainerAsync<GenericImage>>>,
    /// Removes the container of a static, or of a process that was killed.
    watchdog: Option<Child>,
    pub(super) port: u16,
}

type ContainerFuture<'a> =
    std::pin::Pin<Box<dyn Future<Output = testcontainers::core::error::Result<()>> + Send + 'a>>;

impl Container {
    pub(super) fn launch(options: &MongodOptions) -> Result<Self, String> {
        // The port is the same inside and outside, so that the address which the replica set has on
        // record for its member is right for the server itself and for its clients.
        let port = free_port();
        let command = ["mongod".to_owned(), "--bind_ip_all".to_owned()]
            .into_iter()
            .chain(arguments(port, options));
        let request = GenericImage::new("mongo", "6")
            .with_cmd(command)
            .with_mapped_port(port, port.tcp());
        let container = on_fixture_runtime(async move { request.start().await }).map_err(|_| {
            format!(
                "no mongod for the tests: run scripts/install, set {URL_VARIABLE} or {BINARY_VARIABLE}, \
                 put mongod 6.0 or newer on PATH, or start Docker"
            )
        })?;
        let watchdog = Command::new("sh")
            .args([
                "-c",
                "cat; docker rm --force --volumes \"$1\"",
                "watchdog",
                container.id(),
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .ok();
        Ok(Self {
            container: Mutex::new(Some(container)),
            watchdog,
            port,
        })
    }

    pub(super) fn run(
        &self,
        action: impl for<'a> FnOnce(&'a ContainerAsync<GenericImage>) -> ContainerFuture<'a> + Send,
    ) {
        let guard = self
            .container
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let container = guard.as_ref().expect("there until the drop");
        thread::scope(|scope| {
            scope
                .spawn(|| fixture_runtime().block_on(action(container)))
                .join()
                .expect("no panic")
        })
        .expect("the container obeys");
    }

    pub(super) fn stop(&self, timeout_seconds: Option<i32>) {
        self.run(|it| Box::pin(it.stop_with_timeout(timeout_seconds)));
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let container = self
            .container
            .get_mut()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .take();
        if let Some(container) = container {
            let _ = on_fixture_runtime(async move { container.rm().await });
        }
        if let Some(mut watchdog) = self.watchdog.take() {
            drop(watchdog.stdin.take());
            let _ = watchdog.wait();
        }
    }
}
