//! What the parts of one worker share: the way to the host, the running calls, the processes it started, and the events
//! that its main loop hears.

use crate::calls::Calls;
use crate::children::Children;
use crate::link::HostLink;
use cjm_wire::envelope::CancelRequest;
use cjm_wire::link::ToolExit;
use std::time::Duration;
use tokio::sync::mpsc;

/// What can happen to a worker from outside its surface.
#[derive(Debug)]
pub(crate) enum Event {
    HostGone,
    KeeperGone,
    LinkBroken(String),
    /// The host's order.
    Shutdown(Duration),
    /// The host's as well.
    Cancel(CancelRequest),
    /// Somebody else's.
    Signalled {
        signal: i32,
        grace: Duration,
    },
    /// The tool's process exited; it is still a zombie.
    ToolExited(ToolExit),
}

/// What a tool needs to live in a worker.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub(crate) link: HostLink,
    pub(crate) calls: Calls,
    pub(crate) children: Children,
    pub(crate) events: mpsc::Sender<Event>,
}
