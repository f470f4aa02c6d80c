//! Waiting for what descriptors say beside data: the exit of a process, the end of a lifeline, a reader that has left.

use cjm_platform::PidFd;
use cjm_platform::fds::has_a_reader;
use cjm_platform::poll::{Interest, wait};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd, BorrowedFd, OwnedFd};
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

    /// Whether nobody reads any more.
    pub(crate) fn has_left(&self) -> bool {
        !has_a_reader(self.fd.get_ref().as_fd())
    }

    /// Returns once nobody reads any more. Costs nothing while nothing is read, and a look now and then while much is.
    pub(crate) async fn left(&self) {
        self.left_by(has_a_reader).await;
    }

    /// The same by this look.
    async fn left_by(&self, mut has_a_reader: impl FnMut(BorrowedFd<'_>) -> bool) {
        while let Ok(mut guard) = self.fd.writable().await {
            if !has_a_reader(self.fd.get_ref().as_fd()) {
                return;
            }
            // Of what the runtime told: news since then keep it ready, so that none is lost between look and wait.
            guard.clear_ready();
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Shutdown;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixStream;
    use tokio::time::Instant;

    /// Longest wait for what is to happen.
    const WAIT: Duration = Duration::from_secs(20);

    /// A watch of one end of a stream, and both ends.
    fn watched() -> (ReaderWatch, std::os::unix::net::UnixStream, std::os::unix::net::UnixStream) {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().expect("a pair");
        let copy = ours.try_clone().expect("a copy");
        for end in [&copy, &ours, &theirs] {
            end.set_nonblocking(true).expect("set");
        }
        (ReaderWatch::new(copy.into()).expect("watched"), ours, theirs)
    }

    #[tokio::test]
    async fn an_idle_reader_is_looked_at_once() {
        let (watch, _ours, _theirs) = watched();
        let mut looks = 0;
        let look = |fd: BorrowedFd<'_>| {
            looks += 1;
            has_a_reader(fd)
        };
        // Time for two more looks. That nothing happens is told by no event.
        let left = tokio::time::timeout(READER_LOOK_INTERVAL * 5 / 2, watch.left_by(look)).await;
        assert!(left.is_err(), "it reads");
        assert_eq!(looks, 1);
    }

    #[tokio::test]
    async fn a_busy_reader_is_looked_at_now_and_then() {
        let (watch, ours, theirs) = watched();
        let mut ours = UnixStream::from_std(ours).expect("registered");
        let mut theirs = UnixStream::from_std(theirs).expect("registered");
        let mut looks = 0;
        let look = |fd: BorrowedFd<'_>| {
            looks += 1;
            has_a_reader(fd)
        };
        let begun = Instant::now();
        let busy = async {
            while begun.elapsed() < READER_LOOK_INTERVAL * 3 / 2 {
                ours.write_all(b"x").await.expect("written");
                assert_eq!(theirs.read_u8().await.expect("read"), b'x');
            }
        };
        tokio::select! {
            () = watch.left_by(look) => panic!("it reads"),
            () = busy => {}
        }
        let most = begun.elapsed().as_millis() / READER_LOOK_INTERVAL.as_millis() + 1;
        assert!((1..=most).contains(&looks), "{looks} looks in {:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn who_leaves_just_after_the_look_is_noticed() {
        let (watch, _ours, theirs) = watched();
        let mut looks = 0;
        let look = |fd: BorrowedFd<'_>| {
            looks += 1;
            let reads = has_a_reader(fd);
            theirs.shutdown(Shutdown::Read).expect("shut");
            reads
        };
        tokio::time::timeout(WAIT, watch.left_by(look)).await.expect("it has left");
        assert_eq!(looks, 2);
    }
}
