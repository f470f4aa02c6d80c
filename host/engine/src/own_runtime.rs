//! The host's own runtime. Background work must outlive the caller's thread and runtime: a program may make a host on
//! a thread that ends, or block its only runtime thread, and its workers must still be watched. Direct calls alone do
//! their I/O in the caller's task, and move here when the caller goes away.

use crate::deadlines::Late;
use crate::error::HostError;
use futures_util::future::BoxFuture;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Threads of the runtime: what it does is waiting; two keep a long decision from delaying a death.
const THREADS: usize = 2;
/// Threads for what blocks: locks, opening stores.
const BLOCKING_THREADS_MAX: usize = 8;

/// Threads that a host has at least: its runtime's, one for what blocks, two writers, the keeper's two.
const THREADS_NEEDED: usize = THREADS + 5;
/// Descriptors that a host opens at least: its runtime's, two databases with their logs, two locks, the keeper's socket. A
/// database does not say that they have run out.
const DESCRIPTORS_NEEDED: usize = 18;
/// Stack of a thread that only shows that it can be.
const TRIAL_STACK_BYTES: usize = 16 * 1024;

/// Whether so many threads and descriptors are to be had now: a runtime panics where they are not.
///
/// # Errors
/// What the system said, or would say too late.
pub fn check_room(threads: usize, descriptors: usize) -> std::io::Result<()> {
    let pairs = (0..descriptors.div_ceil(2)).map(|_| std::os::unix::net::UnixStream::pair());
    drop(pairs.collect::<std::io::Result<Vec<_>>>()?);
    cjm_platform::limits::check_addresses(threads as u64)?;
    let gate = Mutex::new(());
    std::thread::scope(|scope| {
        // All live until the last one does.
        let _closed = gate.lock().unwrap_or_else(PoisonError::into_inner);
        let trial = |_| {
            let thread = std::thread::Builder::new().stack_size(TRIAL_STACK_BYTES);
            thread.spawn_scoped(scope, || drop(gate.lock())).map(drop)
        };
        (0..threads).try_for_each(trial)
    })
}

/// A runtime that may be dropped anywhere, also inside itself.
#[derive(Debug)]
pub(crate) enum OwnRuntime {
    Own(Option<Runtime>),
    /// Somebody else's, with its clock: the simulator's.
    #[cfg(test)]
    Of(Handle),
}

impl OwnRuntime {
    pub(crate) fn start() -> Result<Self, HostError> {
        check_room(THREADS_NEEDED, DESCRIPTORS_NEEDED).map_err(|source| HostError::Threads { source })?;
        let runtime = Builder::new_multi_thread()
            .worker_threads(THREADS)
            .max_blocking_threads(BLOCKING_THREADS_MAX)
            .thread_name("cjm-host")
            .enable_all()
            .build()
            .map_err(|source| HostError::Threads { source })?;
        Ok(Self::Own(Some(runtime)))
    }

    pub(crate) fn handle(&self) -> Result<&Handle, HostError> {
        match self {
            Self::Own(runtime) => runtime.as_ref().map(Runtime::handle).ok_or(HostError::ShuttingDown),
            #[cfg(test)]
            Self::Of(handle) => Ok(handle),
        }
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
        match self {
            // Dropping a runtime waits for its threads, which panics inside one of them.
            Self::Own(runtime) => runtime.take().into_iter().for_each(Runtime::shutdown_background),
            #[cfg(test)]
            Self::Of(_) => {}
        }
    }
}

/// A future that is polled in the caller's task, and goes on in the host's runtime when the caller drops it unfinished, or
/// when it is taken away ([`Late`]), which the caller is told by `None`. `abandoned` tells it that nobody waits any more. One
/// that was never polled has not begun, and does not.
pub(crate) struct Enduring<T: Send + 'static>(Arc<Endured<T>>);

struct Endured<T: Send + 'static> {
    place: Mutex<Place<T>>,
    abandoned: CancellationToken,
    runtime: Handle,
    /// Whoever waits for these waits for what was abandoned.
    tasks: TaskTracker,
}

struct Place<T> {
    /// None: it has ended, or was taken.
    future: Option<BoxFuture<'static, T>>,
    /// Who waits for it; none before it has begun.
    caller: Option<Waker>,
}

impl<T: Send + 'static> Enduring<T> {
    pub(crate) fn new(
        runtime: &Handle,
        tasks: &TaskTracker,
        abandoned: CancellationToken,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Self {
        let place = Mutex::new(Place { future: Some(Box::pin(future)), caller: None });
        Self(Arc::new(Endured { place, abandoned, runtime: runtime.clone(), tasks: tasks.clone() }))
    }

    /// For somebody else who may take it away.
    pub(crate) fn taken_away(&self) -> Arc<dyn Late> {
        Arc::<Endured<T>>::clone(&self.0)
    }
}

impl<T: Send + 'static> Endured<T> {
    fn place(&self) -> MutexGuard<'_, Place<T>> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Send + 'static> Late for Endured<T> {
    /// It goes on in the host's runtime, and is told that nobody waits; what had not begun is forgotten.
    fn stop(&self) {
        let taken = {
            let mut place = self.place();
            (place.future.take(), place.caller.take())
        };
        let (Some(future), Some(caller)) = taken else { return };
        self.abandoned.cancel();
        self.tasks.spawn_on(async move { drop(future.await) }, &self.runtime);
        caller.wake();
    }
}

impl<T: Send + 'static> Future for Enduring<T> {
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        let Place { future, caller } = &mut *self.0.place();
        let Some(running) = future else { return Poll::Ready(None) };
        match caller {
            Some(caller) => caller.clone_from(context.waker()),
            None => *caller = Some(context.waker().clone()),
        }
        let polled = running.as_mut().poll(context);
        if polled.is_ready() {
            *future = None;
        }
        polled.map(Some)
    }
}

impl<T: Send + 'static> Drop for Enduring<T> {
    fn drop(&mut self) {
        self.0.stop();
    }
}
