//! Who waits for which answer of the tool. Nothing here does I/O.
//!
//! What must hold: each call gets one answer; a stream never holds more chunks than were granted.

use crate::calls::{CallState, RunningCall};
use crate::sdk::ToolError;
use crate::tool::native::error_line;
use crate::tool::{Outcome, StreamLine};
use bytes::Bytes;
use cjm_wire::channel::STREAM_CREDIT_INITIAL;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{mpsc, oneshot};

/// Chunks a reader takes before they are granted again in one frame.
pub(crate) const CREDIT_STEP: u32 = STREAM_CREDIT_INITIAL / 4;
/// Lines of a stream that may wait for their reader: all that was granted, and its last word.
pub(crate) const STREAM_LINES_MAX: usize = STREAM_CREDIT_INITIAL as usize + 1;

/// All calls the tool has not answered.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    calls: Mutex<HashMap<u64, Entry>>,
}

#[derive(Debug)]
struct Entry {
    call: RunningCall,
    answer: Answer,
}

/// Where an answer goes.
#[derive(Debug)]
pub(crate) enum Answer {
    Unary(oneshot::Sender<Outcome>),
    Stream { lines: mpsc::Sender<StreamLine>, credit: u32 },
}

/// What the tool said does not fit what it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Misfit {
    #[error("it answered a call that it was not asked, or had answered already")]
    UnknownCall,
    #[error("it sent more chunks than it was granted")]
    NoCredit,
    #[error("it sent a chunk with a line break in it")]
    BrokenLine,
    #[error("it answered a call in the form of another kind of call")]
    WrongForm,
}

impl Answer {
    pub(crate) fn stream(lines: mpsc::Sender<StreamLine>) -> Self {
        Self::Stream { lines, credit: STREAM_CREDIT_INITIAL }
    }
}

impl Waiting {
    pub(crate) fn insert(&self, id: u64, call: RunningCall, answer: Answer) {
        self.lock().insert(id, Entry { call, answer });
    }

    /// The call, for what it reports meanwhile.
    pub(crate) fn call(&self, id: u64) -> Option<Arc<CallState>> {
        self.lock().get(&id).map(|entry| Arc::clone(entry.call.state()))
    }

    /// Whether a call of this job waits.
    pub(crate) fn has_job(&self, job_id: &str) -> bool {
        self.lock().values().any(|entry| entry.call.state().job_id.as_deref() == Some(job_id))
    }

    /// A unary call succeeded.
    pub(crate) fn result(&self, id: u64, body: Bytes) -> Result<(), Misfit> {
        let mut calls = self.lock();
        let entry = calls.remove(&id).ok_or(Misfit::UnknownCall)?;
        let Entry { call, answer: Answer::Unary(waiting) } = entry else {
            // It gets no answer, as all others of a tool that broke the rules: the end of its worker says why.
            calls.insert(id, entry);
            return Err(Misfit::WrongForm);
        };
        drop(calls);
        drop(call);
        // Its connection may be closed.
        let _ = waiting.send(Ok(body));
        Ok(())
    }

    /// A call of either form failed; `line` makes a stream's last line.
    pub(crate) fn failure(
        &self,
        id: u64,
        failure: cjm_wire::channel::CallFailure,
        line: impl FnOnce(cjm_wire::channel::CallFailure) -> Bytes,
    ) -> Result<(), Misfit> {
        let Entry { call, answer } = self.lock().remove(&id).ok_or(Misfit::UnknownCall)?;
        drop(call);
        match answer {
            Answer::Unary(waiting) => {
                let _ = waiting.send(Err(failure));
            }
            Answer::Stream { lines, .. } => {
                // There is room: one line more than can be granted.
                let _ = lines.try_send(StreamLine::Failed(line(failure)));
            }
        }
        Ok(())
    }

    /// A stream sent a chunk.
    pub(crate) fn chunk(&self, id: u64, line: Bytes) -> Result<(), Misfit> {
        let mut calls = self.lock();
        let entry = calls.get_mut(&id).ok_or(Misfit::UnknownCall)?;
        let Answer::Stream { lines, credit } = &mut entry.answer else { return Err(Misfit::WrongForm) };
        *credit = credit.checked_sub(1).ok_or(Misfit::NoCredit)?;
        if line.contains(&b'\n') || line.contains(&b'\r') {
            return Err(Misfit::BrokenLine);
        }
        match lines.try_send(StreamLine::Chunk(line)) {
            Err(mpsc::error::TrySendError::Full(_)) => Err(Misfit::NoCredit),
            // A reader that is gone has cancelled the call; the tool will come to know.
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => Ok(()),
        }
    }

    /// A stream ended well.
    pub(crate) fn end(&self, id: u64) -> Result<(), Misfit> {
        let mut calls = self.lock();
        let entry = calls.remove(&id).ok_or(Misfit::UnknownCall)?;
        let Entry { call, answer: Answer::Stream { lines, .. } } = entry else {
            calls.insert(id, entry);
            return Err(Misfit::WrongForm);
        };
        drop(calls);
        drop(call);
        // There is room, as for a failure.
        let _ = lines.try_send(StreamLine::End);
        Ok(())
    }

    /// Grants a stream more chunks; false when it has ended.
    pub(crate) fn grant(&self, id: u64, chunks: u32) -> bool {
        match self.lock().get_mut(&id).map(|entry| &mut entry.answer) {
            Some(Answer::Stream { credit, .. }) => {
                *credit += chunks;
                true
            }
            _ => false,
        }
    }

    /// Answers a call that the tool never saw.
    pub(crate) fn refuse(&self, id: u64, error: &ToolError, capability: &str) {
        // Unknown: the tool answered in the same moment.
        let _ = self.failure(id, error.failure(capability), |_| error_line(error, capability));
    }

    /// Nobody answers any more: who waits for an answer gets none, and streams are cut.
    pub(crate) fn clear(&self) {
        let calls = std::mem::take(&mut *self.lock());
        drop(calls);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Entry>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calls::{CallKind, Calls};
    use crate::link::HostLink;

    #[test]
    fn a_stream_holds_no_more_than_was_granted_and_room_for_its_failure() {
        let calls = Calls::new(HostLink::default());
        let waiting = Waiting::default();
        let (lines, mut reader) = mpsc::channel(STREAM_LINES_MAX);
        waiting.insert(1, calls.begin(CallKind::Work, None).unwrap(), Answer::stream(lines));
        for _ in 0..STREAM_CREDIT_INITIAL {
            waiting.chunk(1, Bytes::from_static(b"1")).unwrap();
        }
        assert_eq!(waiting.chunk(1, Bytes::from_static(b"1")), Err(Misfit::NoCredit));
        assert!(waiting.grant(1, 1));
        assert_eq!(reader.try_recv().unwrap(), StreamLine::Chunk(Bytes::from_static(b"1")));
        waiting.chunk(1, Bytes::from_static(b"2")).unwrap();
        waiting.refuse(1, &ToolError::cancelled(), "lab");
        assert_eq!(calls.running(), 0);
        let mut rest = Vec::new();
        while let Ok(line) = reader.try_recv() {
            rest.push(line);
        }
        assert_eq!(rest.len(), STREAM_CREDIT_INITIAL as usize + 1);
        let Some(StreamLine::Failed(last)) = rest.last() else { panic!("{rest:?}") };
        assert!(last.starts_with(b"{\"_job_error\""));
        assert!(!waiting.grant(1, 1));
    }

    #[test]
    fn answers_that_fit_no_call_are_told_apart() {
        let calls = Calls::new(HostLink::default());
        let waiting = Waiting::default();
        assert_eq!(waiting.result(7, Bytes::new()), Err(Misfit::UnknownCall));
        let (answer, mut outcome) = oneshot::channel();
        waiting.insert(7, calls.begin(CallKind::Work, Some("j".into())).unwrap(), Answer::Unary(answer));
        assert!(waiting.has_job("j") && !waiting.has_job("k"));
        assert_eq!(waiting.chunk(7, Bytes::new()), Err(Misfit::WrongForm));
        waiting.result(7, Bytes::from_static(b"1")).unwrap();
        assert_eq!(outcome.try_recv().unwrap().unwrap(), "1");
        assert_eq!(waiting.result(7, Bytes::new()), Err(Misfit::UnknownCall), "one answer each");
        let (lines, mut reader) = mpsc::channel(STREAM_LINES_MAX);
        waiting.insert(8, calls.begin(CallKind::Work, None).unwrap(), Answer::stream(lines));
        assert_eq!(waiting.chunk(8, Bytes::from_static(b"a\nb")), Err(Misfit::BrokenLine));
        assert_eq!(waiting.end(8), Ok(()));
        assert_eq!(reader.try_recv(), Ok(StreamLine::End));
        // Whoever was answered in a form that is not his waits on, for the end of the worker.
        let (answer, mut outcome) = oneshot::channel();
        waiting.insert(9, calls.begin(CallKind::Work, None).unwrap(), Answer::Unary(answer));
        assert_eq!(waiting.end(9), Err(Misfit::WrongForm));
        assert!(matches!(outcome.try_recv(), Err(oneshot::error::TryRecvError::Empty)));
        let (lines, mut reader) = mpsc::channel(STREAM_LINES_MAX);
        waiting.insert(10, calls.begin(CallKind::Work, None).unwrap(), Answer::stream(lines));
        assert_eq!(waiting.result(10, Bytes::new()), Err(Misfit::WrongForm));
        assert_eq!(reader.try_recv(), Err(mpsc::error::TryRecvError::Empty));
        assert_eq!(calls.running(), 2);
    }
}
