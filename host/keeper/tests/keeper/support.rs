//! A stand-in for the host: starts a keeper process and speaks its protocol.

use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use cjm_platform::process::{self, Signal, WaitStatus};
use cjm_platform::seqpacket::{Received, SeqPacket};
use cjm_platform::spawn::spawn_small;
use cjm_platform::{Pid, PidFd, fds};
use cjm_wire::keeper::{ExitWord, HostToKeeper, KEEPER_PROTOCOL, KeeperToHost, SpawnWorker};

/// Longest wait for anything that is to happen.
pub(crate) const WAIT: Duration = Duration::from_secs(20);
/// The goal for clearing a tree is 100 ms; a loaded machine gets five times that.
pub(crate) const CLEAR_GATE: Duration = Duration::from_millis(500);

/// Each line starts one descendant that writes its pid and then does what it can to be forgotten.
pub(crate) const HOSTILE: &str = r#"
sh -c 'echo $$; exec sleep 1000' &
setsid sh -c 'echo $$; exec sleep 1000' &
env -i /usr/bin/setsid /bin/sh -c 'echo $$; exec /bin/sleep 1000' &
(setsid sh -c 'echo $$; exec sleep 1000' &)
(setsid sh -c '(env -i /usr/bin/setsid /bin/sh -c "echo \$\$; exec /bin/sleep 1000" &) ' &)
setsid sh -c 'trap "" TERM HUP INT QUIT; echo $$; while :; do sleep 1000; done' &
sh -c 'echo $$; kill -STOP $$' &
exec sleep 1000
"#;
/// How many pids `HOSTILE` writes.
pub(crate) const HOSTILE_COUNT: usize = 7;

/// A keeper and the host's end of its socket.
pub(crate) struct Host {
    /// The host's end; None once the host is "dead".
    pub(crate) control: Option<SeqPacket>,
    /// The keeper's process.
    pub(crate) keeper: Pid,
    /// A handle on it.
    pub(crate) keeper_fd: PidFd,
    is_reaped: bool,
}

/// A started worker.
pub(crate) struct Worker {
    /// Its process.
    pub(crate) pid: i32,
    /// The handle that came with `Spawned`.
    pub(crate) pidfd: PidFd,
    stdout: OwnedFd,
}

impl Host {
    /// Starts a keeper and greets it, handing over `tree_lock` if given.
    pub(crate) fn start(tree_lock: Option<&OwnedFd>) -> Self {
        let host = Self::start_ungreeted();
        let lock: Vec<_> = tree_lock.into_iter().map(AsFd::as_fd).collect();
        let hello = HostToKeeper::Hello {
            protocol: KEEPER_PROTOCOL,
            tree_lock: !lock.is_empty(),
            nofile_soft: Some(512),
        };
        let bytes = serde_json::to_vec(&hello).unwrap();
        host.control().send(&bytes, &lock).unwrap();
        assert_eq!(host.recv().0, KeeperToHost::Ready { pid: host.keeper.as_raw() });
        host
    }

    /// Starts a keeper that has not been greeted.
    pub(crate) fn start_ungreeted() -> Self {
        let (ours, theirs) = SeqPacket::pair().unwrap();
        let spawned = spawn_small(&keeper_program(), &[], &[], theirs.into_owned()).unwrap();
        Self { control: Some(ours), keeper: spawned.pid, keeper_fd: spawned.pidfd, is_reaped: false }
    }

    /// The host's end of the socket.
    pub(crate) fn control(&self) -> &SeqPacket {
        self.control.as_ref().expect("the host lives")
    }

    /// Says something to the keeper.
    pub(crate) fn send(&self, message: &HostToKeeper) {
        self.control().send(&serde_json::to_vec(message).unwrap(), &[]).unwrap();
    }

    /// What the keeper says next.
    pub(crate) fn recv(&self) -> (KeeperToHost, Vec<OwnedFd>) {
        match self.control().recv_timeout(WAIT).unwrap() {
            Some(Received::Message(message)) => {
                (serde_json::from_slice(&message.bytes).unwrap(), message.fds)
            }
            other => panic!("instead of a message came {other:?}"),
        }
    }

    /// Asks for a worker that is the shell `script` with its output on a pipe.
    pub(crate) fn request(&self, worker: &str, program: &str, script: &str) -> OwnedFd {
        let pipe = fds::pipe_cloexec().unwrap();
        let spawn = HostToKeeper::Spawn(SpawnWorker {
            worker: worker.to_owned(),
            program: program.to_owned(),
            argv: ["sh", "-c", script].map(str::to_owned).to_vec(),
            env: vec![("PATH".to_owned(), "/usr/local/bin:/usr/bin:/bin".to_owned())],
            cwd: "/".to_owned(),
            fd_targets: vec![1],
            dies_with_keeper: false,
        });
        let bytes = serde_json::to_vec(&spawn).unwrap();
        self.control().send(&bytes, &[pipe.write.as_fd()]).unwrap();
        pipe.read
    }

    /// Starts a worker.
    pub(crate) fn spawn(&self, worker: &str, script: &str) -> Worker {
        let stdout = self.request(worker, "/bin/sh", script);
        match self.recv() {
            (KeeperToHost::Spawned { worker: told, pid }, mut fds) => {
                assert_eq!((told.as_str(), fds.len()), (worker, 1));
                Worker { pid, pidfd: PidFd::from_owned(fds.pop().unwrap()), stdout }
            }
            other => panic!("instead of Spawned came {other:?}"),
        }
    }

    /// The report on a worker's end.
    pub(crate) fn exited(&self) -> Exit {
        match self.recv().0 {
            KeeperToHost::Exited { worker, pid, status, descendants_killed, survivors, .. } => {
                assert!(survivors.is_empty(), "{survivors:?}");
                Exit { worker, pid, status, descendants_killed }
            }
            other => panic!("instead of Exited came {other:?}"),
        }
    }

    /// Waits for the keeper's end.
    pub(crate) fn keeper_status(&mut self) -> WaitStatus {
        assert!(self.keeper_fd.wait_exit(WAIT).unwrap(), "the keeper has not ended");
        self.is_reaped = true;
        process::reap(self.keeper).unwrap().unwrap()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.control = None;
        if !self.is_reaped {
            // Its host's end makes it clear its tree; only a keeper that hangs needs more.
            if !self.keeper_fd.wait_exit(WAIT).unwrap_or(false) {
                let _ = self.keeper_fd.send_signal(Signal::KILL);
                let _ = self.keeper_fd.wait_exit(WAIT);
            }
            let _ = process::reap(self.keeper);
        }
    }
}

/// What `Exited` said.
#[derive(Debug)]
pub(crate) struct Exit {
    /// The worker session.
    pub(crate) worker: String,
    /// Its process.
    pub(crate) pid: i32,
    /// How it ended.
    pub(crate) status: ExitWord,
    /// What it had left behind.
    pub(crate) descendants_killed: u32,
}

impl Worker {
    /// Reads `count` pids from the worker's output and opens handles on them.
    pub(crate) fn descendants(&mut self, count: usize) -> Vec<PidFd> {
        let text = self.read_lines(count);
        text.lines().map(|line| PidFd::open(Pid::from_raw(line.parse().unwrap()).unwrap()).unwrap()).collect()
    }

    /// Reads until `count` lines have come.
    pub(crate) fn read_lines(&mut self, count: usize) -> String {
        let mut text = String::new();
        let mut file = std::fs::File::from(self.stdout.try_clone().unwrap());
        while text.matches('\n').count() < count {
            assert!(process::poll_readable(file.as_fd(), WAIT).unwrap(), "only {text:?} came");
            let mut bytes = [0; 512];
            let read = file.read(&mut bytes).unwrap();
            assert!(read > 0, "the worker ended after {text:?}");
            text.push_str(std::str::from_utf8(&bytes[..read]).unwrap());
        }
        text
    }
}

/// Waits until all have ended and returns how long that took.
pub(crate) fn all_gone(handles: &[PidFd]) -> Duration {
    let start = Instant::now();
    for handle in handles {
        assert!(handle.wait_exit(WAIT).unwrap(), "a descendant lives on");
    }
    start.elapsed()
}

/// The example beside the test binary: `target/PROFILE/examples/keeper`.
fn keeper_program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let program = test.parent().unwrap().parent().unwrap().join("examples/keeper");
    assert!(program.is_file(), "{} is not built; run `cargo test -p cjm-keeper`", program.display());
    program
}
