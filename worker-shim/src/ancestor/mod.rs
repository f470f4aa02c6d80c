//! A worker that the ancestor's host starts: `install.python_path` of its manifest names `cjm-worker`, or a capability
//! in Rust, and what comes is the command line of the ancestor's own worker.
//!
//! There is no link, no lifeline and no keeper then. `arguments` reads the command line, `manifest` finds out what to
//! run, `diagnostics` writes the records that no host of ours takes. What must hold: whatever ends the host ends this
//! worker and everything below it, although a host that is killed says nothing; what the host sees of the end is what
//! it would see of its own worker.

mod arguments;
mod diagnostics;
mod error;
mod manifest;

use crate::descriptors::Listening;
use crate::exit;
use arguments::{Arguments, Endpoint};
use cjm_platform::process::Pid;
use cjm_platform::{PidFd, Signal, signals};
use cjm_wire::channel::LoadFailure;
use cjm_wire::describe::Described as _;
use cjm_wire::link::{ExitStatus, Launch, WorkerSpec};
use diagnostics::Recorder;
use error::AncestorStartError;
use manifest::Found;
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Names a manifest where the data directory of the host does not: a path, or a capability's name.
pub(crate) const MANIFEST_VARIABLE: &str = "CJM_WORKER_MANIFEST";
/// Names the interpreter of a Python tool, since `install.python_path` names this program.
pub(crate) const PYTHON_VARIABLE: &str = cjm_wire::manifest::WORKER_PYTHON_VARIABLE;
/// Grace after a SIGTERM of this host, which kills two seconds after it; time for clearing the tree is left.
pub(crate) const TERM_GRACE: Duration = Duration::from_millis(1500);

const DATA_DIR_VARIABLE: &str = "CAPABILITY_DATA_DIR";
const SHARED_DATA_DIR_VARIABLE: &str = "CJM_CAPABILITY_DATA_DIR";
const DIAGNOSTICS_VARIABLE: &str = "CJM_DIAGNOSTICS_DB";
const SESSION_VARIABLE: &str = "CJM_WORKER_SESSION_ID";
const LOG_LEVEL_VARIABLE: &str = "CJM_LOG_LEVEL";

/// What the ancestor's host is on this side, once the worker runs.
#[derive(Debug)]
pub(crate) struct AncestorHost {
    /// None when nobody was named whose end would be ours.
    pub(crate) process: Option<PidFd>,
    pub(crate) spec: WorkerSpec,
    pub(crate) recorder: Recorder,
    /// `MODULE:CLASS`, as its host calls the tool.
    pub(crate) tool: String,
}

/// Which program this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Program {
    /// The shim, for any tool.
    Shim,
    /// A capability in Rust.
    Capability,
}

/// Whether these arguments are the ancestor's.
#[must_use]
pub fn is_its_command_line(arguments: &[OsString]) -> bool {
    Arguments::position(arguments).is_some()
}

/// Gets ready to serve, or says why not with the exit code of the ancestor's worker. Replaces this process where the
/// manifest names a capability in Rust and this is the shim. First thing in a process.
pub(crate) fn start(program: Program, arguments: &[OsString]) -> Result<(Listening, AncestorHost), ExitCode> {
    let arguments = Arguments::parse(arguments).map_err(|message| {
        eprintln!("cjm-worker: {message}");
        ExitCode::from(exit::USAGE)
    })?;
    let fatal = |error: &AncestorStartError| {
        let mut causes = String::new();
        let mut next = std::error::Error::source(error);
        while let Some(cause) = next {
            causes = format!("{causes}: {cause}");
            next = cause.source();
        }
        eprintln!("FATAL: Failed to load {} - {error}{causes}; {}", arguments.tool(), error.next_step());
        ExitCode::from(exit::LOAD_FAILED)
    };
    let found = manifest::find(program, &arguments).map_err(|error| fatal(&error))?;
    let found = match found {
        Found::Tool(tool) => tool,
        Found::Program { program, args } => {
            return Err(fatal(&manifest::replace_with(&program, &args)));
        }
    };
    // Descriptors first: nothing has been opened yet that could have the number.
    let listening = listen(&arguments.endpoint).map_err(|message| {
        eprintln!("cjm-worker: {message}");
        ExitCode::from(exit::LISTEN)
    })?;
    let process = match arguments.ppid.map(PidFd::open).transpose() {
        Ok(process) => process,
        Err(error) => {
            eprintln!("cjm-worker: the host that --ppid names cannot be watched: {error}");
            return Err(ExitCode::from(exit::HOST_GONE));
        }
    };
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let session = variable(SESSION_VARIABLE);
    let recorder = Recorder::start(variable(DIAGNOSTICS_VARIABLE).map(PathBuf::from), session.clone());
    let spec = WorkerSpec {
        instance_id: found.name.clone(),
        capability_name: found.name,
        capability_version: found.version,
        worker_session_id: session.unwrap_or_else(|| format!("pid-{}", Pid::current())),
        launch: found.launch,
        data_dir: found.data_dir.display().to_string(),
        log_level: variable(LOG_LEVEL_VARIABLE).unwrap_or_else(|| "INFO".to_owned()).to_uppercase(),
        secrets: found.secrets,
        own_variables: found.own_variables,
    };
    let tool = arguments.tool();
    Ok((listening, AncestorHost { process, spec, recorder, tool }))
}

/// Says of a tool that could not be loaded what the ancestor's worker says.
pub(crate) fn tell_load_failure(tool: &str, failure: &LoadFailure) {
    if let Some(traceback) = &failure.traceback {
        eprintln!("{}", traceback.trim_end());
    }
    eprintln!("FATAL: Failed to load {tool} - {}", failure.message);
}

/// Ends this process so that the host sees what it would see of its own worker: the signal it sent, or the end of the
/// tool, which is what it takes for the worker. Everything below was cleared before.
pub(crate) fn leave(code: u8, tool: Option<ExitStatus>) -> ! {
    let signal = match (code, tool) {
        (exit::OK | exit::GRACE_OVER, _) => Some(Signal::TERM),
        (exit::TOOL_DIED, Some(ExitStatus::Signal(signal))) => Signal::from_raw(signal),
        (exit::TOOL_DIED, Some(ExitStatus::Code(code))) => std::process::exit(code),
        _ => None,
    };
    if let Some(signal) = signal {
        // SIGKILL has no disposition to set; of the others, Rust and tokio may have taken this one.
        let _ = signals::set_default(&[signal]);
        // Cannot fail for this process; if it does, the code below is what is left to say.
        let _ = PidFd::open(Pid::current()).and_then(|own| own.send_signal(signal));
        // Only a signal that does not end a process lets it come here.
        std::process::exit(128 + signal.as_raw());
    }
    std::process::exit(code.into())
}

fn listen(endpoint: &Endpoint) -> Result<Listening, String> {
    match *endpoint {
        Endpoint::Descriptor(number) => Listening::inherited(number)
            .map_err(|error| format!("descriptor {number} is no listening socket: {}", error.cause())),
        Endpoint::Port(port) => {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port));
            let listener = listener.and_then(|listener| listener.set_nonblocking(true).map(|()| listener));
            listener
                .map(Listening::Tcp)
                .map_err(|error| format!("port {port} of 127.0.0.1 cannot be used: {error}"))
        }
    }
}

/// What a specification needs of a tool that was found.
#[derive(Debug)]
struct FoundTool {
    name: String,
    version: String,
    launch: Launch,
    data_dir: PathBuf,
    /// This host sets declared secrets as variables; a tool asks for them as it does under a host of ours.
    secrets: Map<String, Value>,
    own_variables: BTreeSet<String>,
}
