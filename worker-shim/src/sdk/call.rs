//! One call as a capability in Rust sees it: what was asked, on whose behalf, and what it may say meanwhile.

use super::error::ToolError;
use super::fields;
use super::setup::{Level, Logger};
use crate::calls::CallState;
use crate::tool::StreamLine;
use bytes::Bytes;
use cjm_wire::envelope::{ACTION_KEY, CallEnvelope, ExecuteRequest};
use cjm_wire::http::Account;
use cjm_wire::python_json::{Style, to_string};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

/// One call. Cheap to clone, may be handed to other threads.
#[derive(Debug, Clone)]
pub struct Call {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    action: Option<String>,
    args: Vec<Value>,
    kwargs: Map<String, Value>,
    envelope: CallEnvelope,
    state: Arc<CallState>,
    logger: Logger,
}

impl Call {
    pub(crate) fn new(mut request: ExecuteRequest, state: Arc<CallState>, logger: &Logger) -> Self {
        let action = match request.kwargs.shift_remove(ACTION_KEY) {
            Some(Value::String(action)) => Some(action),
            Some(Value::Null) | None => None,
            Some(other) => Some(other.to_string()),
        };
        let logger = logger.for_job(state.job_id.clone());
        let ExecuteRequest { args, kwargs, envelope } = request;
        Self { inner: Arc::new(Inner { action, args, kwargs, envelope, state, logger }) }
    }

    /// The action asked for, if any.
    #[must_use]
    pub fn action(&self) -> Option<&str> {
        self.inner.action.as_deref()
    }

    /// Positional arguments.
    #[must_use]
    pub fn args(&self) -> &[Value] {
        &self.inner.args
    }

    /// Named arguments, without the action.
    #[must_use]
    pub fn kwargs(&self) -> &Map<String, Value> {
        &self.inner.kwargs
    }

    /// Named arguments as a type of yours (the action is not among them).
    ///
    /// # Errors
    /// A `user_input` error that names the argument which is missing or of the wrong type; also one that is unknown,
    /// where the type carries `#[serde(deny_unknown_fields)]`.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, ToolError> {
        fields::parse(&self.inner.kwargs)
    }

    /// On whose behalf.
    #[must_use]
    pub fn envelope(&self) -> &CallEnvelope {
        &self.inner.envelope
    }

    /// Somebody asked this call to stop.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.inner.state.cancel.is_cancelled()
    }

    /// For loops: `call.check_cancel()?;`
    ///
    /// # Errors
    /// The cancelled error when somebody asked this call to stop.
    pub fn check_cancel(&self) -> Result<(), ToolError> {
        if self.is_cancelled() { Err(ToolError::cancelled()) } else { Ok(()) }
    }

    /// Says how far the call is: 0.0 to 1.0, or -1.0 when that cannot be said.
    pub fn report_progress(&self, fraction: f64, message: &str) {
        self.inner.state.report_progress(fraction, message);
    }

    /// Says what the call used: tokens, seconds, calls to others. Replaces what was said before.
    pub fn report_usage(&self, usage: Map<String, Value>) {
        self.inner.state.report_usage(usage);
    }

    /// Adds a row to the host's journal: `task_account`, `result_saved`, `cache_hit` or `graph_extended`. False
    /// when the type is another one, or the call has accounted for more than fits.
    pub fn account(&self, event_type: &str, payload: Map<String, Value>) -> bool {
        self.inner.state.account(&Account { event_type: event_type.to_owned(), payload })
    }

    /// Writes a record that carries this call's job.
    pub fn log(&self, level: Level, message: impl Into<String>) {
        self.inner.logger.log(level, message);
    }
}

/// Where a streaming call puts its chunks. Waits while the reader is behind.
#[derive(Debug)]
pub struct Sink {
    sender: mpsc::Sender<StreamLine>,
    state: Arc<CallState>,
    handle: Handle,
}

impl Sink {
    pub(crate) fn new(sender: mpsc::Sender<StreamLine>, state: Arc<CallState>, handle: Handle) -> Self {
        Self { sender, state, handle }
    }

    /// Sends one chunk.
    ///
    /// # Errors
    /// The cancelled error when the reader is gone or the call was cancelled: return it.
    pub fn send(&mut self, chunk: &impl Serialize) -> Result<(), ToolError> {
        let value = serde_json::to_value(chunk)
            .map_err(|error| ToolError::fatal(format!("a chunk cannot be written as JSON: {error}")))?;
        let line = match self.sender.try_send(StreamLine::Chunk(chunk_line(&value))) {
            Ok(()) => return Ok(()),
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(ToolError::cancelled()),
            Err(mpsc::error::TrySendError::Full(line)) => line,
        };
        self.handle.block_on(async {
            tokio::select! {
                sent = self.sender.send(line) => sent.map_err(|_| ToolError::cancelled()),
                () = self.state.cancel.cancelled() => Err(ToolError::cancelled()),
            }
        })
    }
}

/// One line of a stream as the ancestor writes it: Python's separators, ASCII.
pub(crate) fn chunk_line(value: &Value) -> Bytes {
    to_string(value, Style::Default).into()
}
