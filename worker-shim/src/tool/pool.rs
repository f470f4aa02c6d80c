//! Threads for a capability's code: started when work comes and nobody is idle, at most so many. After a while without
//! work all but one are gone again. Knows nothing of calls.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a thread waits for work before it ends, unless it is the only one.
const IDLE_MAX: Duration = if cfg!(test) { Duration::from_millis(1) } else { Duration::from_secs(10) };

type Job = Box<dyn FnOnce() + Send>;

/// A bounded set of threads with an unbounded queue; who queues bounds it (`calls::CALLS_MAX`).
#[derive(Debug)]
pub(crate) struct Pool {
    shared: Arc<Shared>,
    name: &'static str,
    threads_max: usize,
}

struct Shared {
    state: Mutex<State>,
    work: Condvar,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

#[derive(Default)]
struct State {
    queue: VecDeque<Job>,
    threads: usize,
    idle: usize,
}

impl Pool {
    pub(crate) fn new(name: &'static str, threads_max: usize) -> Self {
        let shared = Shared { state: Mutex::default(), work: Condvar::new() };
        Self { shared: Arc::new(shared), name, threads_max: threads_max.max(1) }
    }

    /// Queues `job`. Fails only when no thread at all could be started for it.
    pub(crate) fn run(&self, job: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let mut state = self.shared.lock();
        state.queue.push_back(Box::new(job));
        if state.idle >= state.queue.len() || state.threads >= self.threads_max {
            drop(state);
            self.shared.work.notify_one();
            return Ok(());
        }
        let shared = Arc::clone(&self.shared);
        let started = std::thread::Builder::new().name(self.name.to_owned()).spawn(move || shared.work_off());
        match started {
            Ok(_) => state.threads += 1,
            // Somebody else will come to it.
            Err(_) if state.threads > 0 => {}
            Err(error) => {
                state.queue.pop_back();
                return Err(error);
            }
        }
        Ok(())
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A thread's life. Jobs do not panic: they guard what they call.
    fn work_off(&self) {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.queue.pop_front() {
                drop(state);
                job();
                state = self.lock();
                continue;
            }
            state.idle += 1;
            // The only one stays: each call of a tool that takes one at a time would set a timer for nothing.
            let is_only = state.threads == 1;
            let timed_out = if is_only {
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                false
            } else {
                let (woken, waited) =
                    self.work.wait_timeout(state, IDLE_MAX).unwrap_or_else(PoisonError::into_inner);
                state = woken;
                waited.timed_out()
            };
            state.idle -= 1;
            if timed_out && state.threads > 1 && state.queue.is_empty() {
                state.threads -= 1;
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    #[test]
    fn work_runs_side_by_side_up_to_the_limit_and_the_rest_waits() {
        let pool = Pool::new("test", 2);
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (began_tx, began) = mpsc::channel();
        let (go_tx, go) = mpsc::channel::<()>();
        let go = Arc::new(Mutex::new(go));
        for _ in 0..5 {
            let (running, most, began, go) =
                (Arc::clone(&running), Arc::clone(&most), began_tx.clone(), Arc::clone(&go));
            pool.run(move || {
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                began.send(()).unwrap();
                go.lock().unwrap().recv().unwrap();
                running.fetch_sub(1, Ordering::SeqCst);
            })
            .unwrap();
        }
        for _ in 0..2 {
            began.recv_timeout(Duration::from_secs(10)).unwrap();
        }
        assert!(began.try_recv().is_err(), "the third waits for a thread");
        for _ in 0..5 {
            go_tx.send(()).unwrap();
        }
        for _ in 0..3 {
            began.recv_timeout(Duration::from_secs(10)).unwrap();
        }
        assert_eq!(most.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn without_work_all_threads_but_one_end() {
        let pool = Pool::new("test", 2);
        let (ids_tx, ids) = mpsc::channel();
        let both = Arc::new(std::sync::Barrier::new(2));
        for _ in 0..2 {
            let (both, ids) = (Arc::clone(&both), ids_tx.clone());
            pool.run(move || {
                both.wait();
                ids.send(std::thread::current().id()).unwrap();
            })
            .unwrap();
        }
        let first = [ids.recv().unwrap(), ids.recv().unwrap()];
        let began = std::time::Instant::now();
        while pool.shared.lock().threads > 1 {
            assert!(began.elapsed() < Duration::from_secs(10), "none ended");
            std::thread::yield_now();
        }
        std::thread::sleep(IDLE_MAX * 5);
        pool.run(move || ids_tx.send(std::thread::current().id()).unwrap()).unwrap();
        assert!(first.contains(&ids.recv().unwrap()), "the last one stays");
    }
}
