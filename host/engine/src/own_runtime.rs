//! The host's own runtime. Background work must outlive the caller's thread and runtime: a program may make a host on
//! a thread that ends, or block its only runtime thread, and its workers must still be watched. Direct calls alone do
//! their I/O in the caller's task.

use crate::error::HostError;
use std::future::Future;
use tokio::runtime::{Builder, Handle, Runtime};

/// Threads of the runtime: what it does is waiting; two keep a long decision from delaying a death.
const THREADS: usize = 2;
/// Threads for what blocks: locks, opening stores.
const BLOCKING_THREADS_MAX: usize = 8;

/// A runtime that may be dropped anywhere, also inside itself.
#[derive(Debug)]
pub(crate) struct OwnRuntime(Option<Runtime>);

impl OwnRuntime {
    pub(crate) fn start() -> Result<Self, HostError> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(THREADS)
            .max_blocking_threads(BLOCKING_THREADS_MAX)
            .thread_name("cjm-host")
            .enable_all()
            .build()
            .map_err(|source| HostError::Directory {
                action: "start threads for",
                path: "the host".into(),
                source,
            })?;
        Ok(Self(Some(runtime)))
    }

    pub(crate) fn handle(&self) -> Result<&Handle, HostError> {
        self.0.as_ref().map(Runtime::handle).ok_or(HostError::ShuttingDown)
    }

    /// Runs `future` here, whatever runtime awaits it. It goes on when the caller gives up.
    pub(crate) async fn run<T, E>(
        &self,
        future: impl Future<Output = Result<T, E>> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<HostError> + Send + 'static,
    {
        match self.handle()?.spawn(future).await {
            Ok(result) => result,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Err(HostError::ShuttingDown.into()),
        }
    }
}

impl Drop for OwnRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // Dropping a runtime waits for its threads, which panics inside one of them.
            runtime.shutdown_background();
        }
    }
}
