//! A capability in Rust inside this process: its methods run on pool threads, their answers come back to the
//! thread that serves the surface.
//!
//! What must hold: no code of the capability runs on the surface's thread; a panic is a failed call; cleanup
//! runs once, whoever asks for it first.

use super::panics::{guard, install_hook};
use super::pool::Pool;
use super::{CancelScope, ChunkReader, Operation, Outcome, STREAM_CHUNKS_MAX, StreamLine};
use super::{internal_server_error, read_call, status_body, worker_failure};
use crate::calls::{CallState, RunningCall};
use crate::sdk::{Call, Capability, Kind, Logger, Setup, Sink, ToolError, chunk_line};
use bytes::{Bytes, BytesMut};
use cjm_wire::channel::CallFailure;
use cjm_wire::envelope::{ExecuteRequest, TaskRequest};
use cjm_wire::error::ErrorCategory;
use cjm_wire::error::JobErrorBody;
use cjm_wire::python_json::{self, Style};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

/// Hooks (prefetch, configuration, monitoring) that may run side by side, beside the calls.
const HOOK_THREADS_MAX: usize = 4;
/// Runs of the cancel hook that wait for one that hangs.
const CANCEL_HOOKS_MAX: usize = 16;
/// Calls that a capability may ask to run side by side.
const CALL_THREADS_MAX: usize = 64;
/// Room for a result beside its longest texts.
const RESULT_BYTES_USUAL: usize = 256;
/// A result up to this size leaves its memory for the next one of its thread.
const SPARE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A loaded capability.
#[derive(Debug)]
pub(crate) struct NativeTool {
    capability: Arc<dyn Erased>,
    calls: Pool,
    hooks: Pool,
    cancel_hooks: Arc<AtomicUsize>,
    cleaned: Arc<AtomicBool>,
    name: String,
}

/// What a loaded capability says of itself.
pub(crate) struct NativeFacts {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) supports: Vec<String>,
    pub(crate) concurrency_max: u32,
}

impl NativeTool {
    /// Loads `T` on a thread of its own, so that the surface's thread can still end the process meanwhile.
    pub(crate) async fn load<T: Capability>(setup: Setup) -> Result<(Self, NativeFacts), ToolError> {
        install_hook();
        let hooks = Pool::new("cjm-hook", HOOK_THREADS_MAX);
        let (answer, loaded) = oneshot::channel();
        let job = move || {
            let _ = answer.send(guard(|| load_erased::<T>(setup)));
        };
        hooks.run(job).map_err(|error| ToolError::fatal(format!("no thread to load the tool: {error}")))?;
        let loaded =
            loaded.await.unwrap_or_else(|_| Err(ToolError::fatal("loading ended without an answer")));
        let (capability, facts) = loaded?;
        let tool = Self {
            capability,
            calls: Pool::new("cjm-call", facts.concurrency_max as usize),
            hooks,
            cancel_hooks: Arc::default(),
            cleaned: Arc::default(),
            name: facts.name.clone(),
        };
        Ok((tool, facts))
    }

    pub(crate) async fn call(&self, operation: Operation, call: RunningCall, body: Bytes) -> Outcome {
        if operation == Operation::Cleanup && self.cleaned.swap(true, Ordering::SeqCst) {
            return Ok(status_body("cleaned"));
        }
        let pool = match operation {
            Operation::Execute | Operation::Task => &self.calls,
            _ => &self.hooks,
        };
        let (answer, outcome) = oneshot::channel();
        let capability = Arc::clone(&self.capability);
        let job = move || {
            if !call.state().give() {
                return;
            }
            let result = capability.run(operation, &call, &body);
            drop(call);
            // Nobody waits any more when the connection was closed.
            let _ = answer.send(result);
        };
        if let Err(error) = pool.run(job) {
            return Err(worker_failure(ErrorCategory::Transient, format!("no thread for the call: {error}")));
        }
        outcome.await.unwrap_or_else(|_| Err(internal_server_error()))
    }

    pub(crate) fn stream(&self, call: RunningCall, body: Bytes) -> ChunkReader {
        let (sender, lines) = mpsc::channel(STREAM_CHUNKS_MAX + 1);
        let capability = Arc::clone(&self.capability);
        let name = self.name.clone();
        let handle = Handle::current();
        // Room for the last line is kept from the start: a call that ended never waits for its reader.
        let last = sender.clone().try_reserve_owned();
        let failed = sender.clone();
        let job = move || {
            if !call.state().give() {
                return;
            }
            let sink = Sink::new(sender, Arc::clone(call.state()), handle);
            let word = match capability.run_stream(&call, &body, sink) {
                Ok(()) => StreamLine::End,
                Err(error) => StreamLine::Failed(error_line(&error, &name)),
            };
            if let Ok(last) = last {
                last.send(word);
            }
        };
        if let Err(error) = self.calls.run(job) {
            let error = ToolError::transient(format!("no thread for the call: {error}"));
            let _ = failed.try_send(StreamLine::Failed(error_line(&error, &self.name)));
        }
        ChunkReader { lines, credit: None, is_unchecked: false }
    }

    pub(crate) fn cancel(&self, calls: &[Arc<CallState>], scope: CancelScope) {
        let waiting = Arc::clone(&self.cancel_hooks);
        if waiting.fetch_add(1, Ordering::SeqCst) >= CANCEL_HOOKS_MAX {
            // The hook hangs; the flags that are raised must do.
            waiting.fetch_sub(1, Ordering::SeqCst);
            return;
        }
        let capability = Arc::clone(&self.capability);
        let job_ids: Vec<String> = calls.iter().filter_map(|call| call.job_id.clone()).collect();
        // The same without a thread for it.
        let _ = self.hooks.run(move || {
            match scope {
                CancelScope::All => capability.cancel(None),
                CancelScope::These => job_ids.iter().for_each(|job_id| capability.cancel(Some(job_id))),
            }
            waiting.fetch_sub(1, Ordering::SeqCst);
        });
    }

    pub(crate) async fn finish(&self) {
        if self.cleaned.swap(true, Ordering::SeqCst) {
            return;
        }
        let capability = Arc::clone(&self.capability);
        let (done, ended) = oneshot::channel();
        let job = move || {
            if let Err(error) = capability.cleanup() {
                eprintln!("cleanup failed: {error}");
            }
            let _ = done.send(());
        };
        if self.hooks.run(job).is_ok() {
            let _ = ended.await;
        }
    }
}

thread_local! {
    /// Memory of results that were sent, for the next one: touching new memory costs more than writing into old.
    static SPARE: RefCell<BytesMut> = RefCell::default();
}

/// A result as JSON.
fn json_of(value: &Value) -> Bytes {
    let text_bytes = |value: &Value| value.as_str().map_or(0, str::len);
    let texts: usize = match value {
        Value::Array(items) => items.iter().map(text_bytes).sum(),
        Value::Object(members) => members.values().map(text_bytes).sum(),
        other => text_bytes(other),
    };
    SPARE.with_borrow_mut(|spare| {
        // Room for long texts at once, instead of copying them as it grows.
        spare.reserve(texts + texts / 16 + RESULT_BYTES_USUAL);
        python_json::write(spare, value, Style::Compact);
        let json = spare.split().freeze();
        if json.len() > SPARE_BYTES_MAX {
            *spare = BytesMut::new();
        }
        json
    })
}

/// The last line of a stream that failed.
pub(crate) fn error_line(error: &ToolError, capability: &str) -> Bytes {
    let body = JobErrorBody { job_error: error.job_error(capability) };
    chunk_line(&serde_json::to_value(body).unwrap_or(Value::Null))
}

/// A capability without its type. All methods run on pool threads.
trait Erased: Send + Sync {
    fn run(&self, operation: Operation, call: &RunningCall, body: &[u8]) -> Outcome;
    fn run_stream(&self, call: &RunningCall, body: &[u8], sink: Sink) -> Result<(), ToolError>;
    fn cancel(&self, job_id: Option<&str>);
    fn cleanup(&self) -> Result<(), ToolError>;
}

impl std::fmt::Debug for dyn Erased {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a capability")
    }
}

struct Hosted<T> {
    capability: T,
    name: String,
    logger: Logger,
}

fn load_erased<T: Capability>(setup: Setup) -> Result<(Arc<dyn Erased>, NativeFacts), ToolError> {
    let (name, version, logger) =
        (setup.capability_name().to_owned(), setup.capability_version().to_owned(), setup.logger());
    let capability = T::load(setup)?;
    let concurrency = capability.concurrency_max().clamp(1, CALL_THREADS_MAX);
    let facts = NativeFacts {
        name: capability.name().unwrap_or_else(|| name.clone()),
        version: capability.version().unwrap_or(version),
        supports: vec!["execute_stream".to_owned()],
        concurrency_max: u32::try_from(concurrency).unwrap_or(1),
    };
    let name = facts.name.clone();
    Ok((Arc::new(Hosted { capability, name, logger }), facts))
}

/// Body of `POST /reconfigure`.
#[derive(Deserialize)]
struct ReconfigureRequest {
    #[serde(default)]
    old_config: Map<String, Value>,
    #[serde(default)]
    new_config: Map<String, Value>,
}

impl<T: Capability> Hosted<T> {
    fn execute_call(&self, call: &RunningCall, body: &[u8]) -> Result<Call, CallFailure> {
        let request: ExecuteRequest = read_call(body).map_err(|unreadable| unreadable.failure(&self.name))?;
        let call = self.call_of(request, call.state());
        self.check_action(&call).map_err(|error| error.failure(&self.name))?;
        Ok(call)
    }

    fn call_of(&self, request: ExecuteRequest, state: &Arc<CallState>) -> Call {
        Call::new(request, Arc::clone(state), &self.logger)
    }

    fn check_action(&self, call: &Call) -> Result<(), ToolError> {
        let actions = self.capability.actions();
        let Some(wanted) = call.action().filter(|_| !actions.is_empty()) else { return Ok(()) };
        if actions.iter().any(|action| action.name == wanted) {
            return Ok(());
        }
        let names: Vec<&str> = actions.iter().map(|action| action.name).collect();
        Err(ToolError::unfit(format!("there is no action `{wanted}`; there are: {}", names.join(", ")))
            .fields(["action"]))
    }

    fn answer(&self, result: Result<Value, ToolError>) -> Outcome {
        match result {
            Ok(value) => Ok(json_of(&value)),
            Err(error) => Err(error.failure(&self.name)),
        }
    }

    fn surface(&self) -> Value {
        let method = |name: &str, signature: &str, params: &[&str]| json!({"name": name, "signature": signature, "params": params});
        json!({
            "methods": [
                method("execute", "(self, action: str, **kwargs) -> Any", &["action", "kwargs"]),
                method("execute_stream", "(self, action: str, **kwargs) -> Iterator[Any]", &["action", "kwargs"]),
            ],
            "properties": ["name", "version"],
            "attributes": [],
        })
    }

    fn hook(&self, operation: Operation, call: &RunningCall, body: &[u8]) -> Outcome {
        let tool = &self.capability;
        match operation {
            Operation::Initialize => {
                let config = read_call(body);
                let config = config.map_err(|error| CallFailure::detail(400, &error.to_string()))?;
                let done = guard(|| tool.initialize(config));
                done.map(|()| status_body("ok")).map_err(|error| not_initialized(&error, &self.name))
            }
            Operation::Reconfigure => {
                let request: ReconfigureRequest =
                    read_call(body).map_err(|error| CallFailure::detail(500, &error.to_string()))?;
                detailed("reconfigured", guard(|| tool.reconfigure(request.old_config, request.new_config)))
            }
            Operation::Prefetch => {
                let call = self.call_of(ExecuteRequest::default(), call.state());
                detailed("prefetched", guard(|| tool.prefetch(call)))
            }
            Operation::OnDisable => lenient("disabled", guard(|| tool.on_disable())),
            Operation::OnEnable => lenient("enabled", guard(|| tool.on_enable())),
            Operation::Cleanup => {
                guard(|| tool.cleanup()).map(|()| status_body("cleaned")).map_err(|_| internal_server_error())
            }
            Operation::Config => Ok(guard(|| Ok(tool.config())).map_err(plain)?.to_string().into()),
            Operation::ConfigSchema => {
                Ok(guard(|| Ok(tool.config_schema())).map_err(plain)?.to_string().into())
            }
            Operation::ConfigOptions => {
                Ok(guard(|| tool.config_options()).map_err(plain)?.to_string().into())
            }
            Operation::StructuralSurface => Ok(self.surface().to_string().into()),
            Operation::GetSystemStatus => self.monitor(guard(|| tool.get_system_status())),
            Operation::ListProcesses => self.monitor(guard(|| tool.list_processes())),
            Operation::Execute | Operation::Task => Err(internal_server_error()),
        }
    }

    fn monitor(&self, result: Result<Value, ToolError>) -> Outcome {
        result.map(|value| value.to_string().into()).map_err(|error| match error.kind() {
            Kind::NotSupported => CallFailure::detail(404, &format!("'{}' is not a monitor", self.name)),
            Kind::Category(_)
            | Kind::Unfit
            | Kind::NotBegun(_)
            | Kind::Killed
            | Kind::ExitCode
            | Kind::TooSlow
            | Kind::Cancelled => plain(error),
        })
    }
}

/// A failure that the ancestor leaves to its framework; what happened goes to standard error, as there.
#[expect(clippy::needless_pass_by_value, reason = "it stands in map_err")]
fn plain(error: ToolError) -> CallFailure {
    eprintln!("{error}");
    internal_server_error()
}

/// Hooks whose failure is a 500 with its text.
fn detailed(status: &str, result: Result<(), ToolError>) -> Outcome {
    match result {
        Ok(()) => Ok(status_body(status)),
        Err(error) if error.kind() == Kind::NotSupported => Ok(status_body("not_supported")),
        Err(error) => Err(CallFailure::detail(500, &error.to_string())),
    }
}

/// What is not about the configuration says so beside its words: the status is one for all, as the ancestor has it.
fn not_initialized(error: &ToolError, capability: &str) -> CallFailure {
    let (words, told) = (error.to_string(), error.job_error(capability));
    match told.category {
        ErrorCategory::UserInput => CallFailure::detail(400, &words),
        _ => CallFailure::detail_of(400, &words, &told),
    }
}

/// Hooks whose failure is a 200 that says so.
fn lenient(status: &str, result: Result<(), ToolError>) -> Outcome {
    match result {
        Ok(()) => Ok(status_body(status)),
        Err(error) if error.kind() == Kind::NotSupported => Ok(status_body("not_supported")),
        Err(error) => Ok(json!({"status": "error", "detail": error.to_string()}).to_string().into()),
    }
}

impl<T: Capability> Erased for Hosted<T> {
    fn run(&self, operation: Operation, call: &RunningCall, body: &[u8]) -> Outcome {
        match operation {
            Operation::Execute => {
                let call = self.execute_call(call, body)?;
                // A call cancelled while it waited for a thread never begins.
                self.answer(call.check_cancel().and_then(|()| guard(|| self.capability.execute(call))))
            }
            Operation::Task => {
                let request: TaskRequest =
                    serde_json::from_slice(body).map_err(|_| internal_server_error())?;
                Err(CallFailure::detail(404, &format!("Unknown task: {}", request.task)))
            }
            hook => self.hook(hook, call, body),
        }
    }

    fn run_stream(&self, call: &RunningCall, body: &[u8], mut sink: Sink) -> Result<(), ToolError> {
        let request: ExecuteRequest = read_call(body)?;
        let call = self.call_of(request, call.state());
        self.check_action(&call)?;
        call.check_cancel()?;
        guard(|| self.capability.execute_stream(call, &mut sink))
    }

    fn cancel(&self, job_id: Option<&str>) {
        if let Err(error) = guard(|| {
            self.capability.cancel(job_id);
            Ok(())
        }) {
            eprintln!("cancel failed: {error}");
        }
    }

    fn cleanup(&self) -> Result<(), ToolError> {
        guard(|| self.capability.cleanup())
    }
}
