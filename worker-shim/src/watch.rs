//! Waiting for descriptors that carry no data for us: the exit of a process, the end of a lifeline.

use cjm_platform::PidFd;
use cjm_platform::poll::{Interest, wait};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd, OwnedFd};
use std::time::Duration;
use tokio::io::Interest as Readiness;
use tokio::io::unix::AsyncFd;

/// A process whose exit can be awaited, more than once.
#[derive(Debug)]
pub(crate) struct ProcessWatch {
    fd: AsyncFd<PidFd>,
}

impl ProcessWatch {
    pub(crate) fn new(pidfd: PidFd) -> io::Result<Self> {
        Ok(Self { fd: register(pidfd)? })
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
    let lifeline = register(lifeline)?;
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

#[expect(
    deprecated,
    reason = "deprecated because a descriptor could change behind its owner's back; OwnedFd and PidFd keep theirs \
              until they are dropped, and the replacement is unsafe, which this crate must not be"
)]
fn register<T: AsRawFd>(fd: T) -> io::Result<AsyncFd<T>> {
    AsyncFd::with_interest(fd, Readiness::READABLE)
}
