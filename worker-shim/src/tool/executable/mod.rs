//! A program that knows nothing of us: each call is one process, made from what its manifest says of the action.
//!
//! `arguments` checks what the caller gave, `plan` makes a command of it, `process` runs it to its end, `result`
//! reads the answer, `cache` keeps the files of it for the next call like this one. What must hold: no shell
//! anywhere; a call that ends leaves no process behind.

mod arguments;
mod before;
mod cache;
mod forward;
mod hashing;
mod lines;
mod not_made;
mod plan;
mod process;
mod progress;
mod result;

use super::native::error_line;
use super::{ChunkReader, Operation, Outcome, STREAM_CHUNKS_MAX, StreamLine};
use super::{internal_server_error, read_call, status_body};
use crate::calls::{CallState, RunningCall};
use crate::context::Context;
use crate::json_text::stream_line;
use crate::sdk::ToolError;
use crate::tool::Tool;
use crate::tool::failures::failure;
use crate::tool::loaded::Loaded;
use crate::tool::program::check_program;
use before::NotBegun;
use bytes::Bytes;
use cache::Slot;
use cjm_wire::Timestamp;
use cjm_wire::cache::KnownInputs;
use cjm_wire::channel::{CallFailure, LoadFailure, Record};
use cjm_wire::envelope::{ACTION_KEY, ExecuteRequest, TaskRequest};
use cjm_wire::link::{Launch, WorkerReady, WorkerSpec};
use cjm_wire::runtime::{Action, Executable, ResultSource};
use cjm_wire::runtime_check::no_configuration;
use forward::Forwarder;
use hashing::Hashes;
use indexmap::IndexMap;
use plan::Plan;
use regex_lite::Regex;
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};

/// How long output that was read may take to reach the host at the end, for each stream.
const FLUSH_MAX: Duration = Duration::from_millis(500);
/// How long an answer waits for what the program said on standard error before it.
const WORDS_FIRST_MAX: Duration = Duration::from_millis(250);
/// Flag of a call that must run although its files are there.
const FORCE_FLAG: &str = "force";

/// The tool of a worker whose launch is `Executable`.
#[derive(Debug)]
pub(crate) struct ExecutableTool {
    program: Arc<Program>,
}

/// How far a call has come before its program.
enum Before<'a> {
    /// It needs none: its files are there.
    Done(result::Done<'a>),
    Prepared(Box<Prepared<'a>>),
}

/// A call whose program is about to run.
struct Prepared<'a> {
    name: &'a String,
    action: &'a Action,
    hashes: Hashes,
    /// Where its files are kept, and their paths there.
    slot: Option<(Slot, IndexMap<String, PathBuf>)>,
    plan: Plan,
    permit: SemaphorePermit<'a>,
}

/// What all calls share.
#[derive(Debug)]
pub(crate) struct Program {
    capability: String,
    path: PathBuf,
    executable: Executable,
    /// Compiled progress patterns by action.
    patterns: HashMap<String, Regex>,
    data_dir: PathBuf,
    /// Holds a directory for each call of this worker.
    work_dir: PathBuf,
    environment: Vec<(OsString, OsString)>,
    /// Of what is set for it on purpose in that environment.
    settings_hash: String,
    permits: Semaphore,
    context: Context,
    stdout: Forwarder,
    stderr: Forwarder,
}

impl ExecutableTool {
    /// Checks that there is a program to run.
    pub(crate) fn load(spec: WorkerSpec, context: Context) -> Result<Loaded, LoadFailure> {
        let Launch::Executable { program, executable } = spec.launch else {
            return Err(failure("this worker was not asked to run an executable"));
        };
        check_program(Path::new(&program))?;
        let concurrency = executable.concurrency_max.unwrap_or(1).max(1);
        let is_secret = |name: &OsString| name.to_str().is_some_and(|name| spec.secrets.contains_key(name));
        let mut environment: Vec<(OsString, OsString)> =
            std::env::vars_os().filter(|(name, _)| !is_secret(name)).collect();
        let secrets = spec.secrets.iter().filter_map(|(name, value)| Some((name, value.as_str()?)));
        environment.extend(secrets.map(|(name, value)| (name.into(), value.into())));
        let own_variables = spec.own_variables.iter().chain(spec.secrets.keys());
        let program = Program {
            capability: spec.capability_name.clone(),
            path: program.into(),
            patterns: compile_patterns(&executable)?,
            executable,
            work_dir: Path::new(&spec.data_dir).join("work").join(&spec.worker_session_id),
            data_dir: spec.data_dir.into(),
            settings_hash: cache::settings_hash(&environment, &own_variables.collect()),
            environment,
            permits: Semaphore::new(concurrency as usize),
            stdout: Forwarder::start(1),
            stderr: Forwarder::start(2),
            context,
        };
        let ready = WorkerReady {
            tool_pid: None,
            name: spec.capability_name,
            version: spec.capability_version,
            supports: vec!["execute_stream".to_owned()],
            concurrency_max: concurrency,
        };
        Ok(Loaded { tool: Tool::Executable(Self { program: Arc::new(program) }), ready })
    }

    pub(crate) async fn call(&self, operation: Operation, call: RunningCall, body: Bytes) -> Outcome {
        let program = Arc::clone(&self.program);
        match operation {
            Operation::Execute => {
                // A task of its own: the call goes on when its connection is closed, and its process is seen
                // to its end.
                let task = tokio::spawn(async move { program.execute(call, &body).await });
                task.await.unwrap_or_else(|_| Err(internal_server_error()))
            }
            Operation::Task => {
                let request: TaskRequest =
                    serde_json::from_slice(&body).map_err(|_| internal_server_error())?;
                Err(CallFailure::detail(404, &format!("Unknown task: {}", request.task)))
            }
            Operation::Initialize => initialize(&body),
            Operation::Reconfigure | Operation::Prefetch | Operation::OnDisable | Operation::OnEnable => {
                Ok(status_body("not_supported"))
            }
            Operation::Cleanup => Ok(status_body("cleaned")),
            Operation::Config | Operation::ConfigSchema | Operation::ConfigOptions => Ok("{}".into()),
            Operation::StructuralSurface => Ok(self.program.surface().to_string().into()),
            Operation::GetSystemStatus | Operation::ListProcesses => {
                Err(CallFailure::detail(404, &format!("'{}' is not a monitor", self.program.capability)))
            }
        }
    }

    /// Lets what its programs have said reach the host.
    pub(crate) async fn finish(&self) {
        self.program.stdout.flush(FLUSH_MAX).await;
        self.program.stderr.flush(FLUSH_MAX).await;
    }

    pub(crate) fn stream(&self, call: RunningCall, body: Bytes) -> ChunkReader {
        let (sender, lines) = mpsc::channel(STREAM_CHUNKS_MAX);
        let program = Arc::clone(&self.program);
        tokio::spawn(async move {
            let words = match program.stream(&call, &body, sender.clone()).await {
                Ok(last) => last.map(StreamLine::Chunk).into_iter().chain([StreamLine::End]).collect(),
                Err(error) => vec![StreamLine::Failed(error_line(&error, &program.capability))],
            };
            drop(call);
            for word in words {
                // Only a reader that is gone refuses it.
                let _ = sender.send(word).await;
            }
        });
        ChunkReader { lines, credit: None, is_unchecked: false }
    }
}

impl Program {
    async fn execute(&self, call: RunningCall, body: &[u8]) -> Outcome {
        let request: ExecuteRequest =
            read_call(body).map_err(|unreadable| unreadable.failure(&self.capability))?;
        let done = self.run(&call, request, self.known_inputs(body), None).await;
        let body = done.and_then(|done| done.body());
        drop(call);
        body.map_err(|error| error.failure(&self.capability))
    }

    /// Runs a streaming call; returns the last line, if any is left to send.
    async fn stream(
        &self,
        call: &RunningCall,
        body: &[u8],
        lines: mpsc::Sender<StreamLine>,
    ) -> Result<Option<Bytes>, ToolError> {
        let request: ExecuteRequest = read_call(body)?;
        let done = self.run(call, request, self.known_inputs(body), Some(lines)).await?;
        if done.was_streamed() {
            return Ok(None);
        }
        Ok(Some(stream_line(&done.body()?)))
    }

    /// One call, from its arguments to the judgement of how its process ended.
    async fn run(
        &self,
        call: &RunningCall,
        request: ExecuteRequest,
        known: KnownInputs,
        lines: Option<mpsc::Sender<StreamLine>>,
    ) -> Result<result::Done<'_>, ToolError> {
        let state = call.state();
        let Prepared { name, action, hashes, slot, plan, permit: _permit } =
            match self.prepare(state, request, known).await? {
                Before::Prepared(prepared) => *prepared,
                Before::Done(done) => return Ok(done),
            };
        let lines = lines.filter(|_| action.result == ResultSource::StdoutLines);
        let run = process::Run {
            program: self,
            action,
            pattern: self.patterns.get(name),
            plan: &plan,
            call: state,
        };
        let ended = run.to_end(lines).await;
        // What it said reaches the host before the answer, so that the answer is told with it.
        if let Some(words) = ended.as_ref().ok().and_then(result::words_of_cancelled) {
            self.stdout.push(words.as_bytes());
            self.stdout.flush(WORDS_FIRST_MAX).await;
        }
        self.stderr.flush(WORDS_FIRST_MAX).await;
        let mut done = ended.and_then(|ended| result::judge(self, action, &plan, ended));
        if let Ok(ended) = &mut done {
            match (ended.hash_files(&hashes).await, &slot) {
                (Err(error), _) => done = Err(error),
                (Ok(()), Some((slot, outputs))) => {
                    if slot.keep(&plan, outputs, &hashes, ended.files_mut()).await {
                        slot.account(state, ended.files_mut());
                    }
                }
                (Ok(()), None) => {}
            }
        }
        if let Ok(done) = &done
            && done.is_replaced()
        {
            self.tell_replaced(name, state.job_id.clone());
        }
        self.tidy(&plan, state, if done.is_ok() { plan::Succeeded::Yes } else { plan::Succeeded::No });
        done
    }

    /// All of a call that comes before its program.
    async fn prepare(
        &self,
        state: &CallState,
        request: ExecuteRequest,
        known: KnownInputs,
    ) -> Result<Before<'_>, NotBegun> {
        let is_forced = request.envelope.control.get(FORCE_FLAG) == Some(&Value::Bool(true));
        let (name, action, kwargs) = self.choose_action(request)?;
        let values = arguments::check(name, action, &kwargs)?;
        let permit = tokio::select! {
            biased;
            () = state.cancel.cancelled() => return Err(ToolError::cancelled().into()),
            permit = self.permits.acquire() => {
                permit.map_err(|_| ToolError::transient("the worker is ending"))?
            }
        };
        let hashes = Hashes::new(known, state.cancel.clone());
        let slot = match action.uses_cache_dir() {
            true => {
                let mut slot = Slot::of(self, name, action, &values, &hashes).await?;
                let outputs = plan::outputs_in(slot.dir(), self, action, &values)?;
                if is_forced {
                    slot.replace();
                } else if let Some(files) = slot.find(&outputs, &hashes).await {
                    slot.account(state, &files);
                    return Ok(Before::Done(result::Done::before(action, files)));
                }
                Some((slot, outputs))
            }
            false => None,
        };
        let plan = plan::make(self, action, &values, state)?;
        if !state.give() {
            self.tidy(&plan, state, plan::Succeeded::No);
            return Err(ToolError::transient("the worker is ending").into());
        }
        Ok(Before::Prepared(Box::new(Prepared { name, action, hashes, slot, plan, permit })))
    }

    /// Clears what the call left, and puts into the logs what stays of it.
    fn tidy(&self, plan: &plan::Plan, state: &CallState, succeeded: plan::Succeeded) {
        if let Err(error) = plan.tidy(succeeded) {
            let message = format!("what the call left in {} stays: {error}", plan.work_dir.display());
            self.warn("cjm_worker.work_dir", message, state.job_id.clone());
        }
    }

    /// Puts into the logs that a result is not byte for byte what was written.
    fn tell_replaced(&self, action: &str, job_id: Option<String>) {
        let message =
            format!("the output of `{action}` is not UTF-8: \u{fffd} stands for each byte that is none");
        self.warn("cjm_worker.result", message, job_id);
    }

    fn warn(&self, logger_name: &str, message: String, job_id: Option<String>) {
        self.context.link.record(&Record {
            ts: Some(Timestamp::now()),
            level: "WARNING".to_owned(),
            logger_name: logger_name.to_owned(),
            message,
            exc_text: None,
            job_id,
        });
    }

    /// What the host says of the input files; only actions that keep their files want to know.
    fn known_inputs(&self, body: &[u8]) -> KnownInputs {
        if !self.executable.actions.values().any(Action::uses_cache_dir) {
            return KnownInputs::default();
        }
        serde_json::from_slice(body).unwrap_or_default()
    }

    fn choose_action(
        &self,
        request: ExecuteRequest,
    ) -> Result<(&String, &Action, Map<String, Value>), NotBegun> {
        let actions = &self.executable.actions;
        let names = || actions.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        if !request.args.is_empty() {
            let message = format!(
                "`{}` takes named arguments only, and {} positional were given",
                self.capability,
                request.args.len()
            );
            return Err(ToolError::unfit(message).fields(["args"]).into());
        }
        let mut kwargs = request.kwargs;
        let wanted = match kwargs.shift_remove(ACTION_KEY) {
            Some(Value::String(name)) => Some(name),
            Some(Value::Null) | None => None,
            Some(other) => Some(other.to_string()),
        };
        let found = match &wanted {
            Some(name) => actions.get_key_value(name),
            None if actions.len() == 1 => actions.first(),
            None => None,
        };
        let (name, action) = found.ok_or_else(|| {
            let message = match wanted {
                Some(name) => format!("there is no action `{name}`; there are: {}", names()),
                None => format!("an action is needed; there are: {}", names()),
            };
            ToolError::unfit(message).fields([ACTION_KEY])
        })?;
        Ok((name, action, kwargs))
    }

    /// The path's last part, for messages.
    fn short_name(&self) -> String {
        self.path.file_name().unwrap_or(self.path.as_os_str()).to_string_lossy().into_owned()
    }

    fn surface(&self) -> Value {
        json!({
            "methods": [{
                "name": "execute",
                "signature": "(self, action: str, **kwargs) -> Any",
                "params": ["action", "kwargs"],
            }],
            "properties": ["name", "version"],
            "attributes": [],
        })
    }
}

/// An executable has no configuration; an empty one is taken.
fn initialize(body: &[u8]) -> Outcome {
    let config: Map<String, Value> =
        serde_json::from_slice(body).map_err(|error| CallFailure::detail(400, &error.to_string()))?;
    match config.keys().next() {
        None => Ok(status_body("ok")),
        Some(key) => Err(CallFailure::detail(400, &no_configuration(key))),
    }
}

fn compile_patterns(executable: &Executable) -> Result<HashMap<String, Regex>, LoadFailure> {
    let mut patterns = HashMap::new();
    for (name, action) in &executable.actions {
        let Some(progress) = &action.progress else { continue };
        let pattern = Regex::new(&progress.pattern)
            .map_err(|error| failure(&format!("the progress pattern of action `{name}`: {error}")))?;
        patterns.insert(name.clone(), pattern);
    }
    Ok(patterns)
}

/// A failure of ours while running a program, such as no descriptors left.
fn own_trouble(what: &str, error: &std::io::Error) -> ToolError {
    ToolError::transient(format!("{what}: {error}"))
}
