//! The ways a worker process begins: as the shim of a tool, or as a capability in Rust, each for a host of ours or for
//! the ancestor's.

use crate::ancestor::{self, Program};
use crate::context::Context;
use crate::exit;
use crate::owner::{Owner, Start};
use crate::sdk::{Capability, Setup};
use crate::tool::Tool;
use crate::tool::channel::ChannelTool;
use crate::tool::executable::ExecutableTool;
use crate::tool::failures::failure;
use crate::tool::loaded::Loaded;
use crate::tool::native::NativeTool;
use crate::worker::{self, Orphans};
use cjm_platform::memory;
use cjm_wire::channel::LoadFailure;
use cjm_wire::link::{Launch, WorkerReady, WorkerSpec};
use std::ffi::OsString;
use std::process::ExitCode;

/// Serves `T` until the host says otherwise. The whole `main` of a capability in Rust. The ancestor's host may start it
/// as well, with the command line of its own worker.
///
/// Ends the process itself; the returned code is only for starts that fail early (see [`crate::exit`]).
pub fn serve<T: Capability>() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    if arguments.first().is_some_and(|argument| argument == "--help" || argument == "-h") {
        eprintln!(
            "A capability of cjm-substrate. Its host starts it, without arguments. To call it: cjm-ctl call NAME"
        );
        return ExitCode::from(exit::OK);
    }
    let start = if ancestor::is_its_command_line(&arguments) {
        for_the_ancestor(Program::Capability, &arguments)
    } else {
        for_a_host_of_ours()
    };
    match start {
        Ok(start) => worker::run(
            start,
            Box::new(|spec, context| Box::pin(load_native::<T>(spec, context))),
            Orphans::Leave,
        ),
        Err(code) => code,
    }
}

/// Serves the tool the host's specification names, as the process that owns it.
pub fn run_shim() -> ExitCode {
    for_a_host_of_ours().map_or_else(|code| code, |start| serve_tool(start))
}

/// Serves the tool that the ancestor's host means by its command line (all of it, without the program).
pub fn run_for_ancestor(arguments: &[OsString]) -> ExitCode {
    for_the_ancestor(Program::Shim, arguments).map_or_else(|code| code, |start| serve_tool(start))
}

fn serve_tool(start: Start) -> ! {
    worker::run(start, Box::new(|spec, context| Box::pin(load_tool(spec, context))), Orphans::Reap)
}

fn for_a_host_of_ours() -> Result<Start, ExitCode> {
    Start::inherited().map_err(|error| {
        eprintln!("{error}");
        ExitCode::from(exit::USAGE)
    })
}

fn for_the_ancestor(program: Program, arguments: &[OsString]) -> Result<Start, ExitCode> {
    let (listening, host) = ancestor::start(program, arguments)?;
    Ok(Start { listening, owner: Owner::Ancestor(Box::new(host)) })
}

async fn load_native<T: Capability>(spec: WorkerSpec, context: Context) -> Result<Loaded, LoadFailure> {
    if !matches!(spec.launch, Launch::Native {}) {
        return Err(failure(
            "this program is a capability in Rust, and the host wanted to start something else",
        ));
    }
    make_data_dir(&spec)?;
    let (tool, facts) = NativeTool::load::<T>(Setup::new(spec, context.link))
        .await
        .map_err(|error| failure(&error.to_string()))?;
    let ready = WorkerReady {
        tool_pid: None,
        name: facts.name,
        version: facts.version,
        supports: facts.supports,
        concurrency_max: facts.concurrency_max,
    };
    Ok(Loaded { tool: Tool::Native(tool), ready })
}

async fn load_tool(spec: WorkerSpec, context: Context) -> Result<Loaded, LoadFailure> {
    make_data_dir(&spec)?;
    let loaded = match spec.launch {
        Launch::Executable { .. } => ExecutableTool::load(spec, context),
        Launch::Python { .. } | Launch::Channel { .. } => ChannelTool::load(spec, context).await,
        Launch::Native {} => {
            Err(failure("a capability in Rust serves itself; the host should start its own program"))
        }
    }?;
    tokio::spawn(async {
        // After the host has heard that the tool is ready: from now on this process mostly waits.
        tokio::task::yield_now().await;
        // What starting needed and waiting does not; nothing is lost if the kernel refuses.
        let _ = memory::release_clean_file_pages();
    });
    Ok(loaded)
}

fn make_data_dir(spec: &WorkerSpec) -> Result<(), LoadFailure> {
    std::fs::create_dir_all(&spec.data_dir)
        .map_err(|error| failure(&format!("the directory {} cannot be made: {error}", spec.data_dir)))
}
