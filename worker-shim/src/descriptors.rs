//! The descriptors a host gives to a worker, taken over with a look at what they are, so that starting a worker
//! by hand ends with a sentence and not with a riddle.

use cjm_platform::fds::Inherited;
use cjm_wire::keeper::worker_fd::{HOST_LINK, LIFELINE};
use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{LazyLock, Mutex, PoisonError};

/// The listening socket the host bound.
#[derive(Debug)]
pub(crate) enum Listening {
    Unix(UnixListener),
    Tcp(TcpListener),
}

/// A descriptor is not there, or is something else.
#[derive(Debug, thiserror::Error)]
#[error(
    "descriptor {number} should be {expected} and is not ({source}).\nA worker is started by its host, which opens \
     its descriptors. To run a capability, use: cjm-ctl call NAME"
)]
pub(crate) struct NotStartedByHost {
    number: i32,
    expected: &'static str,
    source: io::Error,
}

/// Takes the host link over. Once in a process, first thing, as the others.
pub(crate) fn take_link() -> Result<UnixStream, NotStartedByHost> {
    let link: UnixStream = take(HOST_LINK, "the host link, a socket")?.into();
    link.peer_addr().map_err(not(HOST_LINK, "the host link, a socket"))?;
    Ok(link)
}

/// Takes the lifeline over.
pub(crate) fn take_lifeline() -> Result<OwnedFd, NotStartedByHost> {
    take(LIFELINE, "the lifeline to the keeper")
}

impl NotStartedByHost {
    /// What the system said.
    pub(crate) fn cause(&self) -> &io::Error {
        &self.source
    }
}

impl Listening {
    /// Takes a listening socket over, of either family.
    pub(crate) fn inherited(number: i32) -> Result<Self, NotStartedByHost> {
        const EXPECTED: &str = "a listening socket";
        let fd = take(number, EXPECTED)?;
        let unix = UnixListener::from(fd);
        if unix.local_addr().is_ok() {
            unix.set_nonblocking(true).map_err(not(number, EXPECTED))?;
            return Ok(Self::Unix(unix));
        }
        let tcp = TcpListener::from(OwnedFd::from(unix));
        tcp.local_addr().map_err(not(number, EXPECTED))?;
        tcp.set_nonblocking(true).map_err(not(number, EXPECTED))?;
        Ok(Self::Tcp(tcp))
    }
}

fn take(number: i32, expected: &'static str) -> Result<OwnedFd, NotStartedByHost> {
    // Whoever embeds this crate may have claimed it; then nothing here is ours to take.
    static INHERITED: LazyLock<Mutex<Option<Inherited>>> = LazyLock::new(|| Mutex::new(Inherited::claim()));
    let mut inherited = INHERITED.lock().unwrap_or_else(PoisonError::into_inner);
    let taken = inherited.as_mut().map(|inherited| inherited.take(number));
    taken.unwrap_or_else(|| Err(io::ErrorKind::ResourceBusy.into())).map_err(not(number, expected))
}

fn not(number: i32, expected: &'static str) -> impl FnOnce(io::Error) -> NotStartedByHost {
    move |source| NotStartedByHost { number, expected, source }
}
