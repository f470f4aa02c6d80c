//! Writing without waiting: what is to be written is queued, and a thread of its own writes it.
//!
//! What must hold: nobody who queues waits for a reader, so that signals and deadlines are heard however long a pipe stays
//! full; what is queued keeps its order; memory is bounded, since who makes much waits for room as a task waits, and
//! remarks are dropped and counted beyond their maximum.

use cjm_platform::stdio::{WriteTo, write_part};
use std::collections::VecDeque;
use std::io::ErrorKind;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Bytes that may be queued before who makes more should wait for room.
const QUEUED_BYTES_MAX: usize = 256 * 1024;
/// Bytes of remarks that may be queued; more are dropped and counted.
const REMARKS_BYTES_MAX: usize = 256 * 1024;

/// What waits for one file, and the thread that writes it. Two streams that lead to the same file share one, so that
/// their words stay in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lane(Arc<Shared>);

/// Why a lane writes no more.
#[derive(Debug, Clone)]
pub(crate) struct Failed {
    /// What kind of failure it was.
    pub(crate) kind: ErrorKind,
    /// In the system's words.
    pub(crate) cause: String,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Something was queued, or all is written.
    changed: Condvar,
    /// Something was written, or nothing more will be.
    moved: Notify,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<(WriteTo, Vec<u8>)>,
    queued_bytes: usize,
    remarks_bytes: usize,
    remarks_dropped: usize,
    failed: Option<Failed>,
    has_thread: bool,
}

impl Lane {
    /// Queues bytes of a result or an error.
    ///
    /// # Errors
    /// When an earlier write has failed; then nothing is queued.
    pub(crate) fn push(&self, to: WriteTo, bytes: Vec<u8>) -> Result<(), Failed> {
        let mut state = self.0.state();
        if let Some(failed) = &state.failed {
            return Err(failed.clone());
        }
        state.add(to, bytes);
        self.begin(state);
        Ok(())
    }

    /// Queues a remark, or drops and counts it: of what nobody reads, little is kept.
    pub(crate) fn remark(&self, to: WriteTo, bytes: Vec<u8>) {
        let mut state = self.0.state();
        if state.failed.is_some() {
            return;
        }
        if state.remarks_bytes.saturating_add(bytes.len()) > REMARKS_BYTES_MAX {
            state.remarks_dropped += 1;
            return;
        }
        state.remarks_bytes += bytes.len();
        state.add_after_dropped(to, bytes);
        self.begin(state);
    }

    /// Returns when more may be queued.
    ///
    /// # Errors
    /// When a write has failed.
    pub(crate) async fn room(&self) -> Result<(), Failed> {
        self.until(|state| state.queued_bytes < QUEUED_BYTES_MAX).await
    }

    /// Returns when all is written.
    ///
    /// # Errors
    /// When a write has failed.
    pub(crate) async fn drained(&self) -> Result<(), Failed> {
        self.until(|state| state.queue.is_empty()).await
    }

    /// [`Self::drained`] for where there is no runtime; blocks.
    ///
    /// # Errors
    /// When a write has failed.
    pub(crate) fn drain_blocking(&self) -> Result<(), Failed> {
        let mut state = self.0.state();
        while !state.queue.is_empty() && state.failed.is_none() {
            state = self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.failed.clone().map_or(Ok(()), Err)
    }

    /// Bytes that are queued and not written.
    pub(crate) fn queued_bytes(&self) -> usize {
        self.0.state().queued_bytes
    }

    async fn until(&self, reached: impl Fn(&State) -> bool) -> Result<(), Failed> {
        loop {
            let moved = self.0.moved.notified();
            tokio::pin!(moved);
            // Before the state is looked at, so that a write in between is not missed.
            moved.as_mut().enable();
            {
                let state = self.0.state();
                if let Some(failed) = &state.failed {
                    return Err(failed.clone());
                }
                if reached(&state) {
                    return Ok(());
                }
            }
            moved.await;
        }
    }

    /// Sees to it that what was queued is written.
    fn begin(&self, mut state: MutexGuard<'_, State>) {
        if !state.has_thread {
            let shared = Arc::clone(&self.0);
            let spawned = std::thread::Builder::new()
                .name("cjm-output".to_owned())
                .spawn(move || while shared.write_some(true) {});
            state.has_thread = spawned.is_ok();
        }
        if state.has_thread {
            self.0.changed.notify_all();
            return;
        }
        drop(state);
        // No thread is to be had: the words come all the same, at the price of waiting for their reader.
        while self.0.write_some(false) {}
    }
}

impl State {
    fn add(&mut self, to: WriteTo, bytes: Vec<u8>) {
        self.queued_bytes += bytes.len();
        match self.queue.back_mut() {
            // Small writes become one, but not with what is being written.
            Some((last, waiting)) if *last == to && waiting.len() < QUEUED_BYTES_MAX => {
                waiting.extend_from_slice(&bytes);
            }
            _ => self.queue.push_back((to, bytes)),
        }
    }

    fn add_after_dropped(&mut self, to: WriteTo, bytes: Vec<u8>) {
        let dropped = std::mem::take(&mut self.remarks_dropped);
        if dropped > 0 {
            self.add(to, format!("({dropped} remarks left out here: nothing read them)\n").into_bytes());
        }
        self.add(to, bytes);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the first part of what is queued, and waits for something if `wait`. False when there is no more to do.
    fn write_some(&self, wait: bool) -> bool {
        let mut state = self.state();
        while state.queue.is_empty() {
            if !wait {
                return false;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let Some((to, bytes)) = state.queue.front_mut().map(|(to, bytes)| (*to, std::mem::take(bytes)))
        else {
            return false;
        };
        drop(state);
        let mut written = 0;
        while written < bytes.len() {
            match write_part(to, &bytes[written..]) {
                Ok(count) => {
                    written += count;
                    let mut state = self.state();
                    state.queued_bytes = state.queued_bytes.saturating_sub(count);
                    drop(state);
                    self.moved.notify_waiters();
                }
                Err(error) => {
                    let mut state = self.state();
                    state.failed = Some(Failed { kind: error.kind(), cause: error.to_string() });
                    state.queue.clear();
                    drop(state);
                    self.changed.notify_all();
                    self.moved.notify_waiters();
                    return false;
                }
            }
        }
        let mut state = self.state();
        // What came for the same file meanwhile stands in the place of what was taken.
        if state.queue.front().is_some_and(|(_, waiting)| waiting.is_empty()) {
            state.queue.pop_front();
        }
        state.remarks_bytes =
            state.queue.iter().map(|(_, waiting)| waiting.len()).sum::<usize>().min(state.remarks_bytes);
        drop(state);
        self.changed.notify_all();
        self.moved.notify_waiters();
        true
    }
}
