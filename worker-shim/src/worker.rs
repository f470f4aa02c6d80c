//! The life of a worker process, from its descriptors to its exit code.
//!
//! ```text
//!   descriptors ──► specification ──► loading ──► serving ──► shutting down ──► exit 0
//!        │               │              │            │              │
//!        └─ USAGE        │              ├─ LOAD_FAILED, told        └─ GRACE_OVER
//!                        │              │            ├─ TOOL_DIED, told
//!                        └──────────────┴────────────┴─ HOST_GONE, KEEPER_GONE, LINK_BROKEN: at once
//! ```
//! What must hold: whatever state it is in, the end of host link or lifeline kills the whole tree and ends the
//! process; no end leaves a descendant; the surface serves before READY is sent.

use crate::calls::{CallState, Calls};
use crate::children::Children;
use crate::context::{Context, Event};
use crate::descriptors::Listening;
use crate::exit;
use crate::link::HostLink;
use crate::owner::{Ending, FLUSH_MAX, Kind, Start};
use crate::surface::{Identity, Surface, router};
use crate::tool::CancelScope;
use crate::tool::loaded::Loaded;
use cjm_platform::process::become_subreaper;
use cjm_wire::channel::LoadFailure;
use cjm_wire::link::{ToolExit, WorkerSpec, to_host};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Events that wait for the main loop at most; each source sends one or two in its life.
const EVENTS_MAX: usize = 16;
/// Threads for short blocking work: reading `/proc`, clearing.
const BLOCKING_THREADS_MAX: usize = 4;
/// How long such a thread stays without work.
const BLOCKING_IDLE_MAX: Duration = Duration::from_secs(2);

/// Makes a tool from its specification.
pub(crate) type Loader =
    Box<dyn FnOnce(WorkerSpec, Context) -> Pin<Box<dyn Future<Output = Result<Loaded, LoadFailure>>>>>;

/// Who reaps orphans that fall to this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Orphans {
    /// This process does, as they fall.
    Reap,
    /// Nobody: the tool lives in this process, and its libraries wait for children of their own.
    Leave,
}

/// Runs a worker on the calling thread, which must be the main one.
pub(crate) fn run(start: Start, loader: Loader, orphans: Orphans) -> ! {
    let kind = start.owner.kind();
    let runtime = become_subreaper().and_then(|()| {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(BLOCKING_THREADS_MAX)
            .thread_keep_alive(BLOCKING_IDLE_MAX)
            .build()
    });
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("the worker cannot start: {error}");
            kind.leave(exit::LOAD_FAILED.into())
        }
    };
    // It is never dropped: connections close with the process and not before it, or who is connected would look at a
    // worker that is still there and take its death for something else.
    let ending = runtime.block_on(live(start, &kind, loader, orphans));
    // Whatever way it ended: nothing below this process outlives it. A tool's threads may still run, so there
    // is no waiting for them.
    Children::kill_all();
    kind.leave(ending)
}

async fn live(start: Start, kind: &Kind, loader: Loader, orphans: Orphans) -> Ending {
    let (events_tx, mut events) = mpsc::channel(EVENTS_MAX);
    let link = HostLink::default();
    let context = Context {
        calls: Calls::new(link.clone()),
        link,
        children: Children::default(),
        events: events_tx.clone(),
    };
    let attached = set_up(&context, kind, orphans).and_then(|()| start.owner.attach(&context));
    let orders = match attached {
        Ok(orders) => orders,
        Err(error) => {
            eprintln!("the worker cannot start: {error}");
            return exit::LOAD_FAILED.into();
        }
    };
    let spec = tokio::select! {
        biased;
        ending = next_end(&mut events, kind, &context) => return ending,
        spec = orders.spec(events_tx) => match spec {
            Ok(spec) => spec,
            Err(code) => return code.into(),
        },
    };
    let identity = Identity::of(&spec.launch);
    let loaded = tokio::select! {
        biased;
        ending = next_end(&mut events, kind, &context) => return ending,
        loaded = loader(spec, context.clone()) => loaded,
    };
    match loaded {
        Ok(loaded) => serve(start.listening, loaded, identity, kind, context, events).await,
        Err(failure) => {
            kind.load_failed(&context, &failure);
            context.link.flush(FLUSH_MAX).await;
            exit::LOAD_FAILED.into()
        }
    }
}

/// Starts what hears signals and reaps.
fn set_up(context: &Context, kind: &Kind, orphans: Orphans) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let events = context.events.clone();
    let kind = kind.clone();
    tokio::spawn(async move {
        let signal = tokio::select! {
            _ = terminate.recv() => SignalKind::terminate(),
            _ = interrupt.recv() => SignalKind::interrupt(),
        };
        let _ = events.send(kind.signalled(signal.as_raw_value())).await;
    });
    if orphans == Orphans::Reap {
        tokio::spawn(context.children.clone().run_reaper());
    }
    Ok(())
}

/// Whatever ends the worker before it serves.
async fn next_end(events: &mut mpsc::Receiver<Event>, kind: &Kind, context: &Context) -> Ending {
    loop {
        match events.recv().await {
            Some(Event::Shutdown(_)) => return exit::OK.into(),
            Some(Event::Signalled { signal, .. }) => {
                kind.last_words(context, Some(signal)).await;
                return exit::OK.into();
            }
            // Whoever loads the tool sees it as well, and knows more; and no call has begun.
            Some(Event::ToolExited(_) | Event::Cancel(_)) => {}
            Some(event) => return ends_at_once(&event),
            None => return exit::HOST_GONE.into(),
        }
    }
}

/// The ending of an event that leaves nothing to do but to end.
fn ends_at_once(event: &Event) -> Ending {
    let code = match event {
        Event::KeeperGone => exit::KEEPER_GONE,
        Event::LinkBroken(why) => {
            eprintln!("the host link is broken: {why}");
            exit::LINK_BROKEN
        }
        Event::ToolExited(exit) => return tool_died(exit),
        Event::HostGone | Event::Shutdown(_) | Event::Cancel(_) | Event::Signalled { .. } => exit::HOST_GONE,
    };
    code.into()
}

/// What does not even wait for a worker that is ending already, as `ending`. Whoever asks it to end has the end that it is at,
/// within the grace that he gives.
async fn breaks_off(events: &mut mpsc::Receiver<Event>, ending: Ending) -> Ending {
    let mut until: Option<Instant> = None;
    loop {
        let event = tokio::select! {
            event = events.recv() => event,
            () = reached(until) => return ending,
        };
        match event {
            Some(Event::Shutdown(grace) | Event::Signalled { grace, .. }) => {
                until.get_or_insert(Instant::now() + grace);
            }
            Some(Event::ToolExited(_) | Event::Cancel(_)) => {}
            Some(event) => return ends_at_once(&event),
            None => return exit::HOST_GONE.into(),
        }
    }
}

/// Returns at an instant; where there is none, never.
async fn reached(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

fn tool_died(exit: &ToolExit) -> Ending {
    Ending { code: exit::TOOL_DIED, tool: Some(exit.status) }
}

async fn serve(
    listening: Listening,
    loaded: Loaded,
    identity: Identity,
    kind: &Kind,
    context: Context,
    mut events: mpsc::Receiver<Event>,
) -> Ending {
    let surface = Arc::new(Surface {
        name: loaded.ready.name.clone(),
        version: loaded.ready.version.clone(),
        identity,
        tool_pid: loaded.ready.tool_pid,
        tool: loaded.tool,
        calls: context.calls.clone(),
        cpu: crate::surface::CpuMeter::new(),
    });
    let stop = CancellationToken::new();
    if let Err(error) = start_serving(listening, Arc::clone(&surface), stop.clone()) {
        eprintln!("the listening socket cannot be used: {error}");
        return exit::LISTEN.into();
    }
    context.link.control(to_host::READY, &loaded.ready);
    let event = loop {
        match events.recv().await {
            Some(Event::Cancel(request)) => surface.cancel(&request),
            event => break event,
        }
    };
    match event {
        Some(Event::Shutdown(grace)) => {
            kind.close(&context.calls);
            stop.cancel();
            let calls = surface.calls.cancel(None);
            // Whoever asked waits as long as he said, and not for slow readers.
            let limits = Limits { calls: grace, all: Some(grace) };
            let ending = shut_down(&surface, &calls, &context, &mut events, limits).await;
            if ending.has_last_words() {
                kind.last_words(&context, None).await;
            }
            ending
        }
        Some(Event::Signalled { signal, grace }) => {
            kind.close(&context.calls);
            stop.cancel();
            let calls = surface.calls.interrupt();
            let limits = Limits { calls: grace, all: None };
            let ending = shut_down(&surface, &calls, &context, &mut events, limits).await;
            if ending.has_last_words() {
                kind.last_words(&context, Some(signal)).await;
            }
            ending
        }
        Some(Event::ToolExited(exit)) => {
            // Nobody answers any call now: their connections end with this process, after these words.
            context.link.control(to_host::TOOL_EXIT, &exit);
            kind.last_words(&context, None).await;
            let others_wait = || exit.calls_running > 0 || surface.calls.wait_for_end();
            // What the tool answered before counts, and may be more than a socket holds.
            tokio::select! {
                biased;
                ending = breaks_off(&mut events, tool_died(&exit)) => ending,
                () = surface.calls.unwritten().written(others_wait) => tool_died(&exit),
            }
        }
        Some(event) => ends_at_once(&event),
        None => exit::HOST_GONE.into(),
    }
}

fn start_serving(listening: Listening, surface: Arc<Surface>, stop: CancellationToken) -> io::Result<()> {
    let unwritten = surface.calls.unwritten().clone();
    let router = router(surface);
    // Serving ends with the stop only: axum retries what accept reports.
    match listening {
        Listening::Unix(listener) => {
            let stopped = async move { stop.cancelled().await };
            let listener = tokio::net::UnixListener::from_std(listener)?;
            let listener = crate::quiet_listener::QuietListener { listener, unwritten };
            tokio::spawn(async move {
                let _ = axum::serve(listener, router).with_graceful_shutdown(stopped).await;
            });
        }
        Listening::Tcp(listener) => {
            let serving = crate::tcp::serve(listener, router, stop, unwritten);
            tokio::spawn(async move {
                if let Err(error) = serving.await {
                    eprintln!("the listening socket cannot be used: {error}");
                }
            });
        }
    }
    Ok(())
}

/// How long an end may take that somebody asked for.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// Until calls have ended, and the tool.
    calls: Duration,
    /// All of it; none where nobody counts it, and the bounds of what is unwritten do.
    all: Option<Duration>,
}

/// Has the tool stop `calls`, lets it clean up once, and lets answers reach their clients.
async fn shut_down(
    surface: &Surface,
    calls: &[Arc<CallState>],
    context: &Context,
    events: &mut mpsc::Receiver<Event>,
    limits: Limits,
) -> Ending {
    let began = Instant::now();
    if !calls.is_empty() {
        surface.tool.cancel(calls, CancelScope::All);
    }
    let calls_end = async {
        surface.calls.wait_until_idle().await;
        surface.tool.finish().await;
    };
    let end = async {
        let ended = tokio::time::timeout(limits.calls, calls_end).await;
        let written = surface.calls.unwritten().written(|| surface.calls.wait_for_end());
        let told = async {
            written.await;
            context.link.flush(FLUSH_MAX).await;
        };
        match limits.all {
            // Cut where it takes longer; what was asked for has been done.
            Some(all) => drop(tokio::time::timeout_at(began + all, told).await),
            None => told.await,
        }
        if ended.is_ok() { exit::OK } else { exit::GRACE_OVER }
    };
    let interrupted = async {
        let mut until: Option<Instant> = None;
        loop {
            let event = tokio::select! {
                event = events.recv() => event,
                () = reached(until) => return exit::GRACE_OVER.into(),
            };
            match event {
                // Expected now; the host may still want to know how.
                Some(Event::ToolExited(exit)) => {
                    context.link.control(to_host::TOOL_EXIT, &exit);
                    surface.tool.forget_calls();
                }
                // Whoever orders an end that somebody else has begun waits as long as he says.
                Some(Event::Shutdown(grace)) => {
                    until.get_or_insert(Instant::now() + grace);
                }
                // All calls are cancelled.
                Some(Event::Cancel(_) | Event::Signalled { .. }) => {}
                Some(event) => return ends_at_once(&event),
                None => return exit::HOST_GONE.into(),
            }
        }
    };
    tokio::select! {
        biased;
        ending = interrupted => ending,
        code = end => code.into(),
    }
}
