//! A tool in a process of its own that is spoken to over the runtime channel: a Python class in the SDK, or any program
//! that speaks it.
//!
//! `start` brings the process up, `outgoing` queues what is said to it, `incoming` reads what it says, `calls`
//! keeps who waits for what. What must hold: nothing here waits for the tool but those who asked it something;
//! what breaks the channel's rules ends the tool, with the reason said.

mod incoming;
mod outgoing;
pub(crate) mod sdk_files;
mod start;
mod waiting;

use super::{CancelScope, ChunkReader, Operation, Outcome};
use super::{INLINE_BYTES_MAX, internal_server_error, not_json};
use crate::calls::{CallState, RunningCall};
use crate::context::Context;
use crate::frames::Frame;
use crate::json_text::json_fault;
use crate::sdk::ToolError;
use crate::tool::loaded::Loaded;
use bytes::Bytes;
use cjm_platform::child::signal_group;
use cjm_platform::{Pid, Signal};
use cjm_wire::Timestamp;
use cjm_wire::channel::{CallFailure, LoadFailure, Record, to_tool};
use cjm_wire::error::{ErrorCategory, JobError, JobErrorBody};
use cjm_wire::http::DetailBody;
use cjm_wire::link::WorkerSpec;
use cjm_wire::ndjson::Line;
use outgoing::Outgoing;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use waiting::{Answer, Waiting};

pub(crate) use waiting::CREDIT_STEP;

/// The tool of a worker whose launch is `Python` or `Channel`.
#[derive(Debug)]
pub(crate) struct ChannelTool {
    shared: Arc<Shared>,
}

/// What the tasks of one tool share.
#[derive(Debug)]
struct Shared {
    name: String,
    /// It is written with our SDK, whose results are JSON; anybody else's are looked at.
    writes_json: bool,
    pid: Pid,
    outgoing: Outgoing,
    waiting: Waiting,
    context: Context,
    /// The process has exited and is reaped; its number is nobody's any more.
    exited: CancellationToken,
    /// It went without reading all that was written to it.
    reset: AtomicBool,
    /// Which rule of the channel the tool broke; it is killed for the first one.
    fault: OnceLock<String>,
}

impl ChannelTool {
    /// Starts the process and waits until the tool is loaded.
    pub(crate) async fn load(spec: WorkerSpec, context: Context) -> Result<Loaded, LoadFailure> {
        start::load(spec, context).await
    }

    pub(crate) async fn call(&self, operation: Operation, call: RunningCall, body: Bytes) -> Outcome {
        let (answer, outcome) = oneshot::channel();
        let frame = Frame { kind: frame_kind(operation), call_id: call.state().id, payload: body };
        self.shared.send_call(frame, call, Answer::Unary(answer));
        match outcome.await {
            Ok(Ok(result)) if !self.shared.writes_json => {
                let _looked = self.shared.context.calls.unwritten().looked_at();
                checked("its result", result).await
            }
            Ok(outcome) => outcome,
            // The worker is ending.
            Err(_) => Err(internal_server_error()),
        }
    }

    pub(crate) fn stream(&self, call: RunningCall, body: Bytes) -> ChunkReader {
        let (sender, lines) = mpsc::channel(waiting::STREAM_LINES_MAX);
        let call_id = call.state().id;
        let frame = Frame { kind: to_tool::EXECUTE_STREAM, call_id, payload: body };
        self.shared.send_call(frame, call, Answer::stream(sender));
        let credit = Credit { shared: Arc::clone(&self.shared), call_id, taken: 0 };
        ChunkReader { lines, credit: Some(credit), is_unchecked: !self.shared.writes_json }
    }

    pub(crate) fn cancel(&self, calls: &[Arc<CallState>], scope: CancelScope) {
        let ids = calls.iter().map(|call| call.id);
        let reached: Vec<u64> = ids.filter(|id| !self.shared.take_back(*id)).collect();
        match scope {
            CancelScope::All => self.shared.outgoing.cancel(0),
            CancelScope::These => reached.into_iter().for_each(|id| self.shared.outgoing.cancel(id)),
        }
    }

    pub(crate) async fn finish(&self) {
        self.shared.outgoing.control(Frame::empty(to_tool::SHUTDOWN, 0));
        self.shared.exited.cancelled().await;
    }

    /// The tool is gone and the worker is ending well: nobody waits for its answers any more.
    pub(crate) fn forget_calls(&self) {
        self.shared.waiting.clear();
    }
}

/// A result of a tool that may have written anything: JSON, or the failure of its call. Looked at here, before anybody is
/// told that the call succeeded.
async fn checked(what: &'static str, result: Bytes) -> Outcome {
    let look = move |result: &Bytes| json_fault(result).map(|fault| not_json(what, &fault, result));
    let failure = if result.len() <= INLINE_BYTES_MAX {
        look(&result)
    } else {
        let result = result.clone();
        // A thread that panicked has not found it to be JSON.
        let looked = tokio::task::spawn_blocking(move || look(&result)).await;
        looked.unwrap_or_else(|_| Some(internal_server_error()))
    };
    failure.map_or(Ok(result), Err)
}

/// The same of a chunk; where it is no JSON, the line that ends the stream.
pub(crate) async fn checked_chunk(chunk: Bytes) -> Result<Bytes, Bytes> {
    checked("a chunk of its stream", chunk).await.map_err(stream_line_of)
}

impl Shared {
    fn new(name: String, writes_json: bool, pid: Pid, context: Context) -> Self {
        Self {
            name,
            writes_json,
            pid,
            outgoing: Outgoing::default(),
            waiting: Waiting::default(),
            context,
            exited: CancellationToken::new(),
            reset: AtomicBool::new(false),
            fault: OnceLock::new(),
        }
    }

    fn send_call(&self, frame: Frame, call: RunningCall, answer: Answer) {
        let id = frame.call_id;
        let state = Arc::clone(call.state());
        self.waiting.insert(id, call, answer);
        if !self.outgoing.call(frame) {
            let error = ToolError::transient(
                "the tool does not read its calls, and no more can wait for it; cancel some, or reload it",
            );
            self.waiting.refuse(id, &error, &self.name);
        }
        // A cancel that came between the beginning of the call and this found nothing to take back.
        if state.cancel.is_cancelled() && !self.take_back(id) {
            self.outgoing.cancel(id);
        }
    }

    /// Answers a cancelled call that has not left, of which the tool knows nothing; false where it has left.
    fn take_back(&self, id: u64) -> bool {
        let is_taken = self.outgoing.withdraw(id);
        if is_taken {
            self.waiting.refuse(id, &ToolError::cancelled(), &self.name);
        }
        is_taken
    }

    /// Kills a tool that broke the rules of the channel.
    fn condemn(&self, why: &str) {
        if self.exited.is_cancelled() || self.fault.set(why.to_owned()).is_err() {
            return;
        }
        let message = format!("the tool was killed: {why}");
        eprintln!("{message}");
        self.context.link.record(&Record {
            ts: Some(Timestamp::now()),
            level: "ERROR".to_owned(),
            logger_name: "cjm_worker.channel".to_owned(),
            message,
            exc_text: None,
            job_id: None,
        });
        // It is not reaped while `exited` is not set. ESRCH cannot be.
        let _ = signal_group(self.pid, Signal::KILL);
    }
}

/// Grants the tool more chunks as a stream's reader takes them.
#[derive(Debug)]
pub(crate) struct Credit {
    shared: Arc<Shared>,
    call_id: u64,
    taken: u32,
}

impl Credit {
    pub(crate) fn chunk_taken(&mut self) {
        self.taken += 1;
        if self.taken >= CREDIT_STEP && self.shared.waiting.grant(self.call_id, self.taken) {
            let payload = Bytes::copy_from_slice(&self.taken.to_be_bytes());
            self.shared.outgoing.control(Frame { kind: to_tool::CREDIT, call_id: self.call_id, payload });
            self.taken = 0;
        }
    }
}

fn frame_kind(operation: Operation) -> u8 {
    match operation {
        Operation::Execute => to_tool::EXECUTE,
        Operation::Task => to_tool::TASK,
        Operation::Initialize => to_tool::INITIALIZE,
        Operation::Reconfigure => to_tool::RECONFIGURE,
        Operation::Prefetch => to_tool::PREFETCH,
        Operation::OnDisable => to_tool::ON_DISABLE,
        Operation::OnEnable => to_tool::ON_ENABLE,
        Operation::Cleanup => to_tool::CLEANUP,
        Operation::Config => to_tool::CONFIG,
        Operation::ConfigSchema => to_tool::CONFIG_SCHEMA,
        Operation::ConfigOptions => to_tool::CONFIG_OPTIONS,
        Operation::StructuralSurface => to_tool::STRUCTURAL_SURFACE,
        Operation::GetSystemStatus => to_tool::GET_SYSTEM_STATUS,
        Operation::ListProcesses => to_tool::LIST_PROCESSES,
    }
}

/// What a failure of a unary call says in a stream, where it is the last line. A stream has no status any more, so that only
/// the form of the line tells it from a chunk: whatever the tool said, it gets that form.
fn stream_line_of(failure: CallFailure) -> Bytes {
    let CallFailure { status, body } = failure;
    let text = body.map(|body| String::from(Box::<str>::from(body))).unwrap_or_default();
    // A newline inside would make two lines of one.
    let line = text.replace(['\n', '\r'], " ");
    if matches!(Line::read(line.clone()), Ok(Line::Failed(_) | Line::Cancelled)) {
        return line.into();
    }
    let error = match serde_json::from_str::<JobErrorBody>(&line) {
        Ok(said) => said.job_error,
        Err(_) => {
            let detail = serde_json::from_str::<DetailBody>(&line).map(|body| body.detail);
            let message = match detail {
                Ok(detail) => detail,
                Err(_) if line.is_empty() => "the tool failed without saying how".to_owned(),
                Err(_) => format!("the tool failed with status {status}: {line}"),
            };
            match status {
                CANCELLED => JobError { message, ..ToolError::cancelled().job_error("") },
                _ => JobError::new(ErrorCategory::Fatal, message),
            }
        }
    };
    serde_json::to_string(&JobErrorBody { job_error: error }).unwrap_or_default().into()
}

/// Status of a call that was cancelled.
const CANCELLED: u16 = 409;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calls::{CallKind, Calls};
    use crate::children::Children;
    use crate::link::HostLink;
    use std::time::Duration;

    /// A tool to which nothing is written yet.
    fn unread_tool() -> ChannelTool {
        let link = HostLink::default();
        let context = Context {
            calls: Calls::new(link.clone()),
            link,
            children: Children::default(),
            events: mpsc::channel(1).0,
        };
        let pid = Pid::from_raw(1).expect("a process");
        ChannelTool { shared: Arc::new(Shared::new("lab".to_owned(), true, pid, context)) }
    }

    #[tokio::test]
    async fn a_call_whose_cancel_came_before_it_was_queued_is_answered_and_never_sent() {
        let tool = unread_tool();
        let calls = tool.shared.context.calls.clone();
        let call = calls.begin(CallKind::Work, Some("job".to_owned())).expect("begins");
        tool.cancel(&calls.cancel(Some("job")), CancelScope::These);
        let answered = tool.call(Operation::Execute, call, Bytes::new());
        let answered = tokio::time::timeout(Duration::ZERO, answered).await.expect("it waits for nobody");
        let failure = answered.expect_err("cancelled");
        assert_eq!(failure.status, CANCELLED);
        assert_eq!(calls.running(), 0);
    }

    #[test]
    fn whatever_a_failure_says_it_is_no_chunk() {
        let said = |status, body: &str| {
            let body = serde_json::value::RawValue::from_string(body.to_owned()).ok();
            let line = stream_line_of(CallFailure { status, body });
            Line::read(String::from_utf8(line.to_vec()).expect("text")).expect("a line")
        };
        for (status, body, words) in [
            (501, r#"{"detail": "streams are not implemented"}"#, "streams are not implemented"),
            (500, r#"{"detail": {"a": 1}}"#, r#"with status 500: {"detail": {"a": 1}}"#),
            (500, "[1]", "with status 500: [1]"),
            (500, "", "without saying how"),
            (
                500,
                "{\n \"_job_error\": {\"category\": \"fatal\", \"message\": \"m\", \"retriable\": false, \"original_exc_repr\": \"E()\"}}",
                "m",
            ),
        ] {
            match said(status, body) {
                Line::Failed(failed) => assert!(failed.job_error.message.contains(words), "{failed:?}"),
                other => panic!("{body}: {other:?}"),
            }
        }
        assert!(matches!(said(409, r#"{"detail": "cancelled by operator"}"#), Line::Cancelled));
    }
}
