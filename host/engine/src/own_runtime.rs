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
/// Descriptors that a host opens at least: its runtime's, two databases with their logs, the locks of two files and three
/// folders, the keeper's socket. A database does not say that they have run out.
const DESCRIPTORS_NEEDED: usize = 20;
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

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use std::sync::atomic::{AtomicBool, Ordering};

    /// One that says when it has run to its end, after a while, and whether it was told that nobody waits.
    fn enduring(tasks: &TaskTracker) -> (Enduring<()>, Arc<AtomicBool>, CancellationToken) {
        let (has_ended, abandoned) = (Arc::new(AtomicBool::new(false)), CancellationToken::new());
        let ended = Arc::clone(&has_ended);
        let future = async move {
            tokio::task::yield_now().await;
            ended.store(true, Ordering::Relaxed);
        };
        (Enduring::new(&Handle::current(), tasks, abandoned.clone(), future), has_ended, abandoned)
    }

    #[tokio::test]
    async fn what_was_never_polled_does_not_begin_and_what_has_begun_is_joined() {
        let tasks = TaskTracker::new();
        tasks.close();
        let (unpolled, has_ended, abandoned) = enduring(&tasks);
        drop(unpolled);
        assert!(tasks.is_empty() && !abandoned.is_cancelled());
        let (mut polled, polled_has_ended, abandoned) = enduring(&tasks);
        assert!((&mut polled).now_or_never().is_none() && !abandoned.is_cancelled());
        drop(polled);
        assert!(abandoned.is_cancelled());
        tasks.wait().await;
        assert!(polled_has_ended.load(Ordering::Relaxed) && !has_ended.load(Ordering::Relaxed));
    }

    #[tokio::test]
    async fn what_is_taken_away_from_its_caller_goes_on_without_it() {
        let tasks = TaskTracker::new();
        tasks.close();
        let (mut taken, has_ended, _) = enduring(&tasks);
        let late = taken.taken_away();
        assert!((&mut taken).now_or_never().is_none());
        late.stop();
        late.stop();
        assert_eq!(tasks.len(), 1, "once");
        tasks.wait().await;
        assert!(has_ended.load(Ordering::Relaxed));
        assert_eq!(taken.await, None, "its caller is told");
        // Nor is one that has ended taken away.
        let (mut ended, _, abandoned) = enduring(&tasks);
        assert_eq!((&mut ended).await, Some(()));
        drop(ended);
        assert!(tasks.is_empty() && !abandoned.is_cancelled());
    }

    #[test]
    fn a_runtime_may_be_dropped_inside_itself() {
        let runtime = OwnRuntime::start().expect("a runtime");
        let handle = runtime.handle().expect("it runs").clone();
        let (told, dropped) = std::sync::mpsc::channel();
        handle.spawn(async move {
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(runtime)));
            told.send(outcome.is_ok()).expect("it is waited for");
        });
        assert!(dropped.recv().expect("told"));
    }

    #[tokio::test]
    async fn what_a_runtime_runs_goes_on_when_its_caller_gives_up() {
        let runtime = OwnRuntime::start().expect("a runtime");
        let (told, ended) = tokio::sync::oneshot::channel();
        let (go_on, mut may_go_on) = tokio::sync::watch::channel(false);
        let gone = CancellationToken::new();
        let guard = gone.clone().drop_guard();
        let mut running = Box::pin(runtime.run(async move {
            let _guard = guard;
            let _ = may_go_on.wait_for(|may| *may).await;
            told.send(()).map_err(|()| HostError::ShuttingDown)
        }));
        assert!((&mut running).now_or_never().is_none());
        drop(running);
        // Would it end with its caller, it would be gone soon.
        let is_gone = tokio::time::timeout(std::time::Duration::from_millis(100), gone.cancelled()).await;
        assert!(is_gone.is_err(), "it ended with its caller");
        go_on.send_replace(true);
        ended.await.expect("it went on");
    }
}
