//! What waits to be written to the tool: cancels and credit first, then calls in their order.
//!
//! What must hold: queueing never waits; a tool that does not read costs a named maximum of memory.

use crate::frames::{Frame, write_frame};
use cjm_quiet_socket::QuietWriter;
use cjm_wire::channel::to_tool;
use cjm_wire::frame::FRAME_PAYLOAD_BYTES_MAX;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Bytes of calls that wait for the tool to read at most: the largest call, and as much again.
pub(crate) const QUEUE_BYTES_MAX: usize = 2 * FRAME_PAYLOAD_BYTES_MAX;

#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    queue: Mutex<Queue>,
    filled: Notify,
    /// A frame could not be written.
    broken: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    control: VecDeque<Frame>,
    calls: VecDeque<Frame>,
    bytes: usize,
    /// The call whose frame is being written: nobody can read the whole of it yet.
    writing: Option<u64>,
    /// The call whose frame was the last one written, unless another frame followed it.
    newest: Option<u64>,
}

/// Calls that a tool which is gone has not read to their end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unread {
    /// What was not written whole.
    Unwritten,
    /// That, and at least the end of what was written last: the kernel says so by a reset.
    Newest,
}

impl Outgoing {
    /// Queues a call; false when too much waits already.
    pub(crate) fn call(&self, frame: Frame) -> bool {
        let mut queue = self.lock();
        if queue.bytes + frame.payload.len() > QUEUE_BYTES_MAX {
            return false;
        }
        queue.bytes += frame.payload.len();
        queue.calls.push_back(frame);
        drop(queue);
        self.filled.notify_one();
        true
    }

    /// Queues a frame that overtakes calls. Few by nature: credit is bounded by chunks taken.
    pub(crate) fn control(&self, frame: Frame) {
        self.lock().control.push_back(frame);
        self.filled.notify_one();
    }

    /// Queues a cancel of one call, or of all for 0, unless one waits already.
    pub(crate) fn cancel(&self, call_id: u64) {
        let mut queue = self.lock();
        if queue.control.iter().any(|frame| frame.kind == to_tool::CANCEL && frame.call_id == call_id) {
            return;
        }
        queue.control.push_back(Frame::empty(to_tool::CANCEL, call_id));
        drop(queue);
        self.filled.notify_one();
    }

    /// Takes a call back that has not been written; false when it has.
    pub(crate) fn withdraw(&self, call_id: u64) -> bool {
        let mut queue = self.lock();
        let Some(at) = queue.calls.iter().position(|frame| frame.call_id == call_id) else { return false };
        if let Some(frame) = queue.calls.remove(at) {
            queue.bytes -= frame.payload.len();
        }
        true
    }

    /// Which calls those are.
    pub(crate) fn unread(&self, unread: Unread) -> impl Iterator<Item = u64> {
        let queue = self.lock();
        let newest = queue.newest.filter(|_| unread == Unread::Newest);
        queue.writing.into_iter().chain(newest)
    }

    /// Writes what is queued until the channel breaks. `give` is asked before a call is written; returns the call that
    /// could not be written whole, if it was one.
    pub(crate) async fn write_to(&self, mut stream: QuietWriter, give: impl Fn(u64) -> bool) -> Option<u64> {
        loop {
            let filled = self.filled.notified();
            let Some(frame) = self.next() else {
                filled.await;
                continue;
            };
            let call = self.lock().writing;
            if call.is_some_and(|id| !give(id)) {
                return call;
            }
            if write_frame(&mut stream, frame).await.is_err() {
                self.broken.notify_one();
                return call;
            }
            let mut queue = self.lock();
            (queue.writing, queue.newest) = (None, call);
        }
    }

    /// Returns once a frame could not be written. For one who waits.
    pub(crate) async fn breaks(&self) {
        self.broken.notified().await;
    }

    fn next(&self) -> Option<Frame> {
        let mut queue = self.lock();
        if let Some(frame) = queue.control.pop_front() {
            return Some(frame);
        }
        let frame = queue.calls.pop_front()?;
        queue.bytes -= frame.payload.len();
        queue.writing = Some(frame.call_id);
        Some(frame)
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
