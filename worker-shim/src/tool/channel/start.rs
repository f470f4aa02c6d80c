//! Bringing the tool's process up, and seeing it end.

use super::outgoing::Unread;
use super::{ChannelTool, Shared, incoming, sdk_files};
use crate::context::{Context, Event};
use crate::frames::{Frame, FrameReader, ReadError, write_frame};
use crate::json_text::show_lone_surrogates;
use crate::tool::Tool;
use crate::tool::failures::failure;
use crate::tool::loaded::Loaded;
use crate::tool::program::check_program;
use crate::watch::{ProcessWatch, ReaderWatch};
use cjm_platform::child::signal_group;
use cjm_platform::fds::stream_pair;
use cjm_platform::process::peek_exit;
use cjm_platform::spawn::{SessionMode, SpawnRequest};
use cjm_platform::tree::is_exiting;
use cjm_platform::{Pid, Signal, WaitStatus};
use cjm_quiet_socket::{QuietReader, QuietWriter};
use cjm_wire::channel::{
    CHANNEL_FD, CHANNEL_FD_VARIABLE, CHANNEL_VERSION, LoadFailure, READY_BYTES_MAX, SDK_NOT_WRITTEN,
    ToolReady, ToolStart, to_shim, to_tool,
};
use cjm_wire::link::{ExitStatus, Launch, ToolExit, WorkerReady, WorkerSpec};
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Longest time from the start of the process until the class is loaded. Generous, since imports may load
/// models; a host that wants less kills the worker.
const READY_WAIT_MAX: Duration = Duration::from_secs(600);
/// How long what a dead tool has said last is read.
const LAST_WORDS_MAX: Duration = Duration::from_millis(50);
/// How long one that is on its way out is waited for; a core dump takes a while.
const EXIT_MAX: Duration = Duration::from_secs(10);
/// What is said of a tool that could hear no call.
const DEAF: &str = "closed its channel, or shut down the side that it reads, before it was ready";

pub(super) async fn load(spec: WorkerSpec, context: Context) -> Result<Loaded, LoadFailure> {
    let started = start(&spec, &context).await?;
    let Started { pid, watch, mut reader, write_half, hears } = started;
    let ready = match wait_until_ready(&mut reader, &watch, hears.as_ref(), pid, &context).await {
        Ok(ready) => ready,
        Err(failure) => {
            // The zombie, if it is one, keeps the number ours until here.
            let _ = signal_group(pid, Signal::KILL);
            return Err(failure);
        }
    };
    let writes_json = matches!(spec.launch, Launch::Python { .. });
    let shared = Arc::new(Shared::new(ready.name.clone(), writes_json, pid, context));
    let writing = Arc::clone(&shared);
    tokio::spawn(async move {
        // A call that is waited for no more was refused meanwhile, and is the tool's to answer all the same.
        let give = |id| writing.waiting.call(id).is_none_or(|call| call.give());
        if let Some(unwritten) = writing.outgoing.write_to(write_half, give).await {
            writing.context.calls.take_back(unwritten);
        }
    });
    tokio::spawn(attend(Arc::clone(&shared), reader, watch, hears));
    let ready = WorkerReady {
        tool_pid: u32::try_from(pid.as_raw()).ok(),
        name: ready.name,
        version: ready.version,
        supports: ready.supports,
        concurrency_max: ready.concurrency_max,
    };
    Ok(Loaded { tool: Tool::Channel(ChannelTool { shared }), ready })
}

/// A process that runs and has been told what to load.
struct Started {
    pid: Pid,
    watch: ProcessWatch,
    reader: FrameReader<QuietReader>,
    write_half: QuietWriter,
    /// Says when it hears nothing more. Our SDK ends then by itself, and its calls shall not pay for a watch.
    hears: Option<ReaderWatch>,
}

async fn start(spec: &WorkerSpec, context: &Context) -> Result<Started, LoadFailure> {
    let trouble = |what: &'static str| move |error: io::Error| failure(&format!("{what}: {error}"));
    let Command { argv, module, class, adapters } = command(spec)?;
    let (ours, theirs) = stream_pair().map_err(trouble("no channel to the tool"))?;
    let request = request(argv, theirs).map_err(trouble("the tool's output cannot be passed on"))?;
    let spawned = context.children.spawn(request).await;
    let spawned = spawned.map_err(|error| failure(&format!("{error}; {}", error.next_step())))?;
    let watch = ProcessWatch::new(spawned.pidfd).map_err(trouble("the tool cannot be watched"))?;
    let hears = match &spec.launch {
        Launch::Channel { .. } => Some(ours.try_clone().and_then(ReaderWatch::new)),
        _ => None,
    };
    let hears = hears.transpose().map_err(trouble("the channel cannot be watched"))?;
    let stream = cjm_quiet_socket::register(ours.into()).map_err(trouble("no channel to the tool"))?;
    let (read_half, mut write_half) = stream.into_inner();
    let words = ToolStart {
        channel_version: CHANNEL_VERSION,
        capability_name: spec.capability_name.clone(),
        capability_version: spec.capability_version.clone(),
        module,
        class,
        adapters,
        secrets: spec.secrets.clone(),
        log_level: spec.log_level.clone(),
    };
    // A tool that died already is seen by its exit.
    let _ = write_frame(&mut write_half, Frame::json(to_tool::START, 0, &words)).await;
    Ok(Started { pid: spawned.pid, watch, reader: FrameReader::new(read_half), write_half, hears })
}

/// What to start, and what to tell it.
struct Command {
    /// The whole vector, the program first.
    argv: Vec<OsString>,
    module: String,
    class: String,
    adapters: Vec<String>,
}

fn command(spec: &WorkerSpec) -> Result<Command, LoadFailure> {
    match &spec.launch {
        Launch::Python { python_path, module, class, adapters } => {
            let script = sdk_files::unpack(&Path::new(&spec.data_dir).join(".cjm-sdk")).map_err(|error| {
                failure(&format!(
                    "{SDK_NOT_WRITTEN}, neither to the user's cache nor to the data directory: {error}"
                ))
            })?;
            Ok(Command {
                argv: vec![python_path.into(), "-u".into(), script.into()],
                module: module.clone(),
                class: class.clone(),
                adapters: adapters.clone(),
            })
        }
        Launch::Channel { program, args } => {
            check_program(Path::new(program))?;
            let argv = std::iter::once(program).chain(args).map(OsString::from).collect();
            Ok(Command { argv, module: String::new(), class: String::new(), adapters: Vec::new() })
        }
        Launch::Executable { .. } | Launch::Native {} => {
            Err(failure("this worker was asked to run something that does not speak the runtime channel"))
        }
    }
}

fn request(argv: Vec<OsString>, channel: OwnedFd) -> io::Result<SpawnRequest> {
    let mut request = SpawnRequest::new(argv.first().cloned().unwrap_or_default());
    request.argv = argv;
    request.env = std::env::vars_os().collect();
    request.env.push((CHANNEL_FD_VARIABLE.into(), CHANNEL_FD.to_string().into()));
    request.fds = vec![
        (io::stdout().as_fd().try_clone_to_owned()?, 1),
        (io::stderr().as_fd().try_clone_to_owned()?, 2),
        (channel, CHANNEL_FD),
    ];
    request.session = SessionMode::NewGroup;
    // The thread that spawns is the main one, which lives as long as this process.
    request.parent_death = Some(Signal::KILL);
    Ok(request)
}

async fn wait_until_ready(
    reader: &mut FrameReader<QuietReader>,
    watch: &ProcessWatch,
    hears: Option<&ReaderWatch>,
    pid: Pid,
    context: &Context,
) -> Result<ToolReady, LoadFailure> {
    let first = tokio::select! {
        biased;
        first = first_answer(reader, context) => first,
        // Somebody else may hold the channel open.
        () = watch.exited() => {
            tokio::time::timeout(LAST_WORDS_MAX, first_answer(reader, context)).await.unwrap_or(Ok(None))
        }
        // What it has said before is still read.
        () = stops_hearing(hears) => {
            tokio::time::timeout(LAST_WORDS_MAX, first_answer(reader, context)).await.unwrap_or(Ok(None))
        }
        () = tokio::time::sleep(READY_WAIT_MAX) => {
            let seconds = READY_WAIT_MAX.as_secs();
            return Err(failure(&format!("the tool was not ready within {seconds} s; see its output")));
        }
    };
    match first? {
        // A start that failed is told to who waits; as a tool that ended later it would be started again, in vain.
        Some(_) if hears.is_some_and(ReaderWatch::has_left) && lives_on(watch, pid).await => {
            Err(failure(&format!("the tool's process {DEAF}")))
        }
        Some(ready) if ready.channel_version == CHANNEL_VERSION => Ok(ready),
        Some(ready) => Err(failure(&format!(
            "the tool speaks version {} of the channel, and {CHANNEL_VERSION} is needed",
            ready.channel_version
        ))),
        None => {
            lives_on(watch, pid).await;
            let (how, signal) = match peek_exit(pid) {
                Ok(Some(status @ WaitStatus::Signaled { signal, .. })) => {
                    (format!("was ended by {status} before it was ready"), Some(signal))
                }
                Ok(Some(status)) => (format!("ended before it was ready ({status})"), None),
                _ => (DEAF.to_owned(), None),
            };
            Err(LoadFailure { signal, ..failure(&format!("the tool's process {how}")) })
        }
    }
}

/// Whether it does not end in this moment: the channel of one that ends closes a little earlier, or much earlier where
/// processors are busy.
async fn lives_on(watch: &ProcessWatch, pid: Pid) -> bool {
    let wait = if is_exiting(pid) { EXIT_MAX } else { LAST_WORDS_MAX };
    tokio::time::timeout(wait, watch.exited()).await.is_err()
}

async fn stops_hearing(hears: Option<&ReaderWatch>) {
    match hears {
        Some(hears) => hears.left().await,
        None => std::future::pending().await,
    }
}

/// Reads until the tool says that it is ready, or that it is not. None at the end of the channel.
async fn first_answer(
    reader: &mut FrameReader<QuietReader>,
    context: &Context,
) -> Result<Option<ToolReady>, LoadFailure> {
    loop {
        let frame = match reader.next().await {
            Ok(Some(frame)) => frame,
            // A process that ends before it has read its first frame resets the channel.
            Ok(None) | Err(ReadError::Cut | ReadError::Io(_)) => return Ok(None),
            Err(error) => {
                return Err(failure(&format!("the tool does not speak the runtime channel: {error}")));
            }
        };
        match frame.kind {
            // The host takes no longer one, and whoever makes one means something else.
            to_shim::READY if frame.payload.len() > READY_BYTES_MAX => {
                let bytes = frame.payload.len();
                return Err(failure(&format!(
                    "the tool's READY has {bytes} bytes, more than the {READY_BYTES_MAX} allowed"
                )));
            }
            to_shim::READY => {
                return serde_json::from_slice(&show_lone_surrogates(&frame.payload))
                    .map(Some)
                    .map_err(|error| failure(&format!("the tool's first words cannot be read: {error}")));
            }
            to_shim::LOAD_FAILED => {
                let told = serde_json::from_slice(&show_lone_surrogates(&frame.payload))
                    .unwrap_or_else(|_| failure("the tool could not be loaded and did not say why"));
                // Who says something was ended by no signal.
                return Err(LoadFailure { signal: None, ..told });
            }
            // Loading may take long, and be reported.
            to_shim::PROGRESS => incoming::tool_progress(&context.calls, &frame.payload),
            to_shim::RECORD => incoming::tool_record(&context.link, &frame.payload),
            kind => {
                return Err(failure(&format!(
                    "the tool sent a frame of kind {kind:#04x} before it was ready"
                )));
            }
        }
    }
}

/// Attends to a tool from ready to reaped.
async fn attend(
    shared: Arc<Shared>,
    mut reader: FrameReader<QuietReader>,
    watch: ProcessWatch,
    hears: Option<ReaderWatch>,
) {
    tokio::select! {
        biased;
        () = watch.exited() => {}
        () = incoming::read_all(&shared, &mut reader) => watch.exited().await,
        () = incoming::stops_hearing(&shared, hears.as_ref()) => watch.exited().await,
    }
    // Answers given before the end still count, unless the tool broke the rules before it gave them.
    if shared.fault.get().is_none() {
        let _ = tokio::time::timeout(LAST_WORDS_MAX, incoming::read_last(&shared, &mut reader)).await;
    }
    let unread = if shared.reset.load(Ordering::Relaxed) { Unread::Newest } else { Unread::Unwritten };
    shared.outgoing.unread(unread).for_each(|call_id| shared.context.calls.take_back(call_id));
    let calls_running = u32::try_from(shared.context.calls.running()).unwrap_or(u32::MAX);
    shared.context.children.clear_after(shared.pid).await;
    // Condemning looks at this before it signals, and both run on this thread.
    shared.exited.cancel();
    let status = shared.context.children.reap(shared.pid).map(|(status, _)| status);
    let status = match status {
        Some(WaitStatus::Signaled { signal, .. }) => ExitStatus::Signal(signal),
        Some(WaitStatus::Exited { code }) => ExitStatus::Code(code),
        // Cannot be: nobody else reaps it.
        None => ExitStatus::Code(-1),
    };
    let pid = u32::try_from(shared.pid.as_raw()).unwrap_or(0);
    let protocol_fault = shared.fault.get().cloned();
    let exit = ToolExit { pid, status, calls_running, protocol_fault };
    // The main loop lives as long as this process.
    let _ = shared.context.events.send(Event::ToolExited(exit)).await;
}
