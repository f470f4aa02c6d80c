//! Waiting for what descriptors say beside data: the exit of a process, the end of a lifeline, a reader that has left.

use cjm_platform::PidFd;
use cjm_platform::fds::has_a_reader;
use cjm_platform::poll::{Interest, wait};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd, OwnedFd};
use std::time::Duration;
use tokio::io::Interest as Readiness;
use tokio::io::unix::AsyncFd;

/// Shortest time between two looks at whether somebody reads.
const READER_LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// A process whose exit can be awaited, more than once.
#[derive(Debug)]
pub(crate) struct ProcessWatch {
    fd: AsyncFd<PidFd>,
}

impl ProcessWatch {
    pub(crate) fn new(pidfd: PidFd) -> io::Result<Self> {
        Ok(Self { fd: register(pidfd, Readiness::READABLE)? })
    }

    /// Returns once the process has exited. It is not reaped.
    pub(crate) async fn exited(&self) {
        loop {
            match self.fd.readable().await {
                // The kernel's word, not the runtime's memory of it.
                Ok(mut guard) => match self.fd.get_ref().has_exited() {
                    Ok(false) => guard.clear_ready(),
                    Ok(true) | Err(_) => return,
                },
                // Only when the runtime is ending.
                Err(_) => return,
            }
        }
    }
}

/// Returns once the other end of `lifeline` is closed.
pub(crate) async fn lifeline_ended(lifeline: OwnedFd) -> io::Result<()> {
    let lifeline = register(lifeline, Readiness::READABLE)?;
    loop {
        let mut guard = lifeline.readable().await?;
        let ready = wait(&[(lifeline.get_ref().as_fd(), Interest::Read)], Some(Duration::ZERO))?;
        if ready.iter().any(|ready| ready.hung_up) {
            return Ok(());
        }
        // Nobody writes to a lifeline; if somebody does, it says nothing.
        guard.clear_ready();
    }
}

/// One end of a stream, of which is awaited that nobody reads what is written to it.
#[derive(Debug)]
pub(crate) struct ReaderWatch {
    fd: AsyncFd<OwnedFd>,
}

impl ReaderWatch {
    /// `copy` is a descriptor of its own: two may not wait for one.
    pub(crate) fn new(copy: OwnedFd) -> io::Result<Self> {
        Ok(Self { fd: register(copy, Readiness::WRITABLE)? })
    }

    /// Returns once nobody reads any more. Costs nothing while nothing is read, and a look now and then while much is.
    pub(crate) async fn left(&self) {
        while let Ok(mut guard) = self.fd.writable().await {
            // Before the look: what changes after it is told again.
            guard.clear_ready();
            if !has_a_reader(self.fd.get_ref().as_fd()) {
                return;
            }
            // The peer's every read makes room, which is told here, too.
            tokio::time::sleep(READER_LOOK_INTERVAL).await;
        }
    }
}

#[expect(
    deprecated,
    reason = "deprecated because a descriptor could change behind its owner's back; OwnedFd and PidFd keep theirs \
              until they are dropped, and the replacement is unsafe, which this crate must not be"
)]
fn register<T: AsRawFd>(fd: T, interest: Readiness) -> io::Result<AsyncFd<T>> {
    AsyncFd::with_interest(fd, interest)
}
