//! Who started this worker and may end it: a host of ours, over link and lifeline, or the ancestor's host, which has
//! neither: its process is watched, and its word is a signal.

use crate::ancestor::{self, AncestorHost};
use crate::calls::Calls;
use crate::context::{Context, Event};
use crate::descriptors::{Listening, NotStartedByHost};
use crate::descriptors::{take_lifeline, take_link};
use crate::exit;
use crate::frames::FrameReader;
use crate::link::LinkWriter;
use crate::watch::{ProcessWatch, lifeline_ended};
use cjm_wire::channel::LoadFailure;
use cjm_wire::envelope::CancelRequest;
use cjm_wire::keeper::worker_fd::LISTENER;
use cjm_wire::link::{ExitStatus, LastWords, ShutdownRequest, WorkerSpec, to_host, to_shim};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;
use tokio::net::unix::OwnedReadHalf;
use tokio::sync::mpsc;

/// How long the last words to the host may take when it does not read.
pub(crate) const FLUSH_MAX: Duration = Duration::from_secs(1);
/// Grace after a SIGTERM from anybody, under a host of ours.
const SIGTERM_GRACE: Duration = Duration::from_secs(2);

/// What a worker begins with.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) listening: Listening,
    pub(crate) owner: Owner,
}

/// Who owns the worker.
#[derive(Debug)]
pub(crate) enum Owner {
    /// A host of ours, and its keeper.
    Host { link: UnixStream, lifeline: OwnedFd },
    /// The ancestor's host.
    Ancestor(Box<AncestorHost>),
}

/// Which of them, for the end: `MODULE:CLASS` under the ancestor's host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    Host,
    Ancestor { tool: String },
}

/// Where the specification comes from.
#[derive(Debug)]
pub(crate) enum Orders {
    /// The first frame of the link.
    Link(FrameReader<OwnedReadHalf>),
    /// The manifest, which was read.
    Known(Box<WorkerSpec>),
}

/// How a worker ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ending {
    /// One of [`exit`].
    pub(crate) code: u8,
    /// How the tool's process ended, with [`exit::TOOL_DIED`].
    pub(crate) tool: Option<ExitStatus>,
}

impl Ending {
    /// Whether there is somebody to hear them, and time.
    pub(crate) fn has_last_words(&self) -> bool {
        matches!(self.code, exit::OK | exit::GRACE_OVER)
    }
}

impl From<u8> for Ending {
    fn from(code: u8) -> Self {
        Self { code, tool: None }
    }
}

impl Start {
    /// Takes over what a host of ours gives. Once in a process, first thing.
    pub(crate) fn inherited() -> Result<Self, NotStartedByHost> {
        let link = take_link()?;
        let lifeline = take_lifeline()?;
        Ok(Self { listening: Listening::inherited(LISTENER)?, owner: Owner::Host { link, lifeline } })
    }
}

impl Owner {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Host { .. } => Kind::Host,
            Self::Ancestor(host) => Kind::Ancestor { tool: host.tool.clone() },
        }
    }

    /// Starts what watches the owner and what writes to it.
    pub(crate) fn attach(self, context: &Context) -> io::Result<Orders> {
        let events = context.events.clone();
        match self {
            Self::Host { link, lifeline } => {
                link.set_nonblocking(true)?;
                let (read_half, write_half) = tokio::net::UnixStream::from_std(link)?.into_split();
                tokio::spawn(context.link.clone().run_writer(LinkWriter::Host(write_half)));
                tokio::spawn(async move {
                    // An error means that the lifeline cannot be watched, which is as bad as its end.
                    let _ = lifeline_ended(lifeline).await;
                    let _ = events.send(Event::KeeperGone).await;
                });
                Ok(Orders::Link(FrameReader::new(read_half)))
            }
            Self::Ancestor(host) => {
                let AncestorHost { process, spec, recorder, tool: _ } = *host;
                tokio::spawn(context.link.clone().run_writer(LinkWriter::Records(Box::new(recorder))));
                if let Some(process) = process {
                    let watch = ProcessWatch::new(process)?;
                    tokio::spawn(async move {
                        watch.exited().await;
                        let _ = events.send(Event::HostGone).await;
                    });
                }
                Ok(Orders::Known(Box::new(spec)))
            }
        }
    }
}

impl Kind {
    /// What a signal means: to a host of ours a worker that ends without its order, to the ancestor's its order.
    pub(crate) fn signalled(&self, signal: i32) -> Event {
        match self {
            Self::Host => Event::Signalled { signal, grace: SIGTERM_GRACE },
            Self::Ancestor { .. } => Event::Shutdown(ancestor::TERM_GRACE),
        }
    }

    /// No call begins any more, where the owner hears which have: the others may begin elsewhere.
    pub(crate) fn close(&self, calls: &Calls) {
        match self {
            Self::Host => calls.close(),
            Self::Ancestor { .. } => {}
        }
    }

    /// Says what the owner is to know of the end, and that it is one.
    pub(crate) async fn last_words(&self, context: &Context, signal: Option<i32>) {
        if *self == Self::Host {
            let given = context.calls.seal();
            context.link.control(to_host::LAST_WORDS, &LastWords { signal, given });
        }
        context.link.flush(FLUSH_MAX).await;
    }

    /// Tells the owner why there is no tool.
    pub(crate) fn load_failed(&self, context: &Context, failure: &LoadFailure) {
        match self {
            // Not on standard error as well: there stand the tool's own last words, with which the host tells it.
            Self::Host => context.link.control(to_host::LOAD_FAILED, &failure.shortened()),
            Self::Ancestor { tool } => ancestor::tell_load_failure(tool, failure),
        }
    }

    /// Ends this process, the way its owner expects.
    pub(crate) fn leave(&self, ending: Ending) -> ! {
        match self {
            Self::Host => std::process::exit(ending.code.into()),
            Self::Ancestor { .. } => ancestor::leave(ending.code, ending.tool),
        }
    }
}

impl Orders {
    /// The specification, or the exit code of a worker that gets none. Leaves a task behind that reads the link.
    pub(crate) async fn spec(self, events: mpsc::Sender<Event>) -> Result<WorkerSpec, u8> {
        match self {
            Self::Link(reader) => read_spec(reader, events).await,
            Self::Known(spec) => Ok(*spec),
        }
    }
}

async fn read_spec(
    mut reader: FrameReader<OwnedReadHalf>,
    events: mpsc::Sender<Event>,
) -> Result<WorkerSpec, u8> {
    let frame = match reader.next().await {
        Ok(Some(frame)) => frame,
        Ok(None) => return Err(exit::HOST_GONE),
        Err(error) => {
            eprintln!("the host link is broken: {error}");
            return Err(exit::LINK_BROKEN);
        }
    };
    let spec = if frame.kind == to_shim::SPEC {
        serde_json::from_slice(&frame.payload).map_err(|error| error.to_string())
    } else {
        Err(format!("the first frame is of kind {:#04x}", frame.kind))
    };
    let spec = spec.map_err(|error| {
        eprintln!("the host sent no specification of this worker: {error}");
        exit::LINK_BROKEN
    })?;
    tokio::spawn(read_link(reader, events));
    Ok(spec)
}

async fn read_link(mut reader: FrameReader<OwnedReadHalf>, events: mpsc::Sender<Event>) {
    loop {
        let event = match reader.next().await {
            Ok(Some(frame)) if frame.kind == to_shim::SHUTDOWN => {
                match serde_json::from_slice::<ShutdownRequest>(&frame.payload) {
                    Ok(request) => Event::Shutdown(Duration::from_millis(request.grace_ms)),
                    Err(error) => Event::LinkBroken(error.to_string()),
                }
            }
            Ok(Some(frame)) if frame.kind == to_shim::CANCEL => {
                match serde_json::from_slice::<CancelRequest>(&frame.payload) {
                    Ok(request) => Event::Cancel(request),
                    Err(error) => Event::LinkBroken(error.to_string()),
                }
            }
            // A kind of a later version; it has to be one that may be ignored.
            Ok(Some(_)) => continue,
            Ok(None) => Event::HostGone,
            Err(error) => Event::LinkBroken(error.to_string()),
        };
        let last = !matches!(event, Event::Shutdown(_) | Event::Cancel(_));
        if events.send(event).await.is_err() || last {
            return;
        }
    }
}
