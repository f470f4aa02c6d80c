//! What host and keeper say to each other: one JSON document in each message of their SOCK_SEQPACKET pair.
//!
//! Descriptors travel beside a message (SCM_RIGHTS), never in it; each type says which. This is no public
//! interface: host and keeper are always of one build, and `Hello` refuses any other pairing. What must hold:
//! the host learns of each worker's end exactly once, and only after its tree was cleared and it was reaped.

use serde::{Deserialize, Serialize};

/// Number that both sides must agree on; raised with every change here that is not purely additive.
pub const KEEPER_PROTOCOL: u32 = 1;

/// The descriptor numbers a worker finds its parts at.
pub mod worker_fd {
    /// `/dev/null`, given by the keeper.
    pub const STDIN: i32 = 0;
    /// Write end of the host's stdout pipe.
    pub const STDOUT: i32 = 1;
    /// Write end of the host's stderr pipe.
    pub const STDERR: i32 = 2;
    /// The listening socket the worker serves on.
    pub const LISTENER: i32 = 3;
    /// The host link.
    pub const HOST_LINK: i32 = 4;
    /// Read end of the keeper's lifeline, given by the keeper: EOF says the keeper is gone.
    pub const LIFELINE: i32 = 5;
}

/// From the host to the keeper.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum HostToKeeper {
    /// First message, answered by `Ready`.
    Hello {
        /// The host's `KEEPER_PROTOCOL`.
        protocol: u32,
        /// True if the locked descriptor of `tree.lock` comes with this message. The keeper keeps it open
        /// until its tree is gone and it ends, so that the lock lives as long as the tree.
        tree_lock: bool,
        /// Soft limit on open descriptors for workers, or None for the keeper's own. The host may have raised
        /// its own, and programs that use `select(2)` break above 1024.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        nofile_soft: Option<u64>,
    },
    /// Start a worker in a session of its own; answered by `Spawned` or `SpawnFailed`.
    Spawn(SpawnWorker),
    /// Send a signal to the worker process. Ignored, as is `Kill`, if it has ended meanwhile.
    Signal {
        /// The worker session.
        worker: String,
        /// The signal's number.
        signal: i32,
    },
    /// SIGKILL the worker process; what falls to the keeper is cleared and `Exited` follows.
    Kill {
        /// The worker session.
        worker: String,
    },
    /// Kill and clear everything, report every worker's `Exited`, then end. The keeper's end is seen as the
    /// end of the socket.
    Shutdown,
}

/// What the keeper needs to start a worker.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SpawnWorker {
    /// The worker session: a UUID never used before.
    pub worker: String,
    /// A path, or a name to be searched in the PATH of `env`.
    pub program: String,
    /// The whole argument vector, `argv[0]` included; empty stands for the program alone.
    pub argv: Vec<String>,
    /// The complete environment.
    pub env: Vec<(String, String)>,
    /// The working directory.
    pub cwd: String,
    /// The numbers that the descriptors beside this message get, in their order. 0 is `/dev/null` unless
    /// named, and 5 the keeper's lifeline always.
    pub fd_targets: Vec<i32>,
    /// The kernel kills it when the keeper dies: for workers that do not watch the lifeline.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dies_with_keeper: bool,
}

/// From the keeper to the host.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum KeeperToHost {
    /// Answer to `Hello`: the keeper has its session, is a subreaper and holds the tree lock, if given.
    Ready {
        /// The keeper's process id.
        pid: i32,
    },
    /// A worker runs. A pidfd of it comes with this message.
    Spawned {
        /// The worker session.
        worker: String,
        /// Its process id, also the id of its session and process group.
        pid: i32,
    },
    /// A worker could not be started and has left nothing behind.
    SpawnFailed {
        /// The worker session.
        worker: String,
        /// The errno behind it, or 0.
        errno: i32,
        /// What failed, with the program's name.
        message: String,
        /// What to do about it.
        next_step: String,
    },
    /// A worker has ended, what it left was cleared, and it was reaped.
    Exited {
        /// The worker session.
        worker: String,
        /// The process id it had.
        pid: i32,
        /// How it ended.
        status: ExitWord,
        /// How many processes it left behind that had to be killed.
        descendants_killed: u32,
        /// How long that took, in milliseconds.
        clear_ms: u64,
        /// Processes that outlived the clearing's time limit, as by uninterruptible I/O. They have a SIGKILL
        /// pending; the keeper reaps them when they end, and waits for them no more.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        survivors: Vec<i32>,
    },
    /// A signal has told the keeper to end: it starts nothing more, kills and clears all workers as if the host had
    /// said `Shutdown`, and ends.
    Ending {
        /// What told it, in a sentence.
        cause: String,
    },
    /// Something that answers no request and leaves the keeper serving, such as a message it cannot read.
    Trouble {
        /// What happened, in a sentence.
        message: String,
    },
}

/// How a process ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ExitWord {
    /// It returned or called `exit`.
    Exited {
        /// The exit code, 0 to 255.
        code: i32,
    },
    /// A signal ended it.
    Signaled {
        /// The signal's number.
        signal: i32,
        /// Whether the kernel wrote a core dump.
        core_dumped: bool,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<T>(value: &T, expected: &str)
    where
        T: Serialize + for<'de> Deserialize<'de> + PartialEq + std::fmt::Debug,
    {
        let text = serde_json::to_string(value).unwrap();
        assert_eq!(text, expected);
        assert_eq!(serde_json::from_str::<T>(&text).unwrap(), *value);
    }

    #[test]
    fn the_form_on_the_socket_is_fixed() {
        check(
            &HostToKeeper::Hello { protocol: 1, tree_lock: true, nofile_soft: None },
            r#"{"type":"hello","protocol":1,"tree_lock":true}"#,
        );
        check(&HostToKeeper::Shutdown, r#"{"type":"shutdown"}"#);
        let spawn = SpawnWorker {
            worker: "w".to_owned(),
            program: "/bin/true".to_owned(),
            argv: vec!["true".to_owned()],
            env: vec![("A".to_owned(), "b".to_owned())],
            cwd: "/".to_owned(),
            fd_targets: vec![1, 2],
            dies_with_keeper: false,
        };
        check(
            &HostToKeeper::Spawn(spawn),
            r#"{"type":"spawn","worker":"w","program":"/bin/true","argv":["true"],"env":[["A","b"]],"cwd":"/","fd_targets":[1,2]}"#,
        );
        let ending = KeeperToHost::Ending { cause: "told".to_owned() };
        check(&ending, r#"{"type":"ending","cause":"told"}"#);
        check(
            &KeeperToHost::Exited {
                worker: "w".to_owned(),
                pid: 7,
                status: ExitWord::Signaled { signal: 9, core_dumped: false },
                descendants_killed: 3,
                clear_ms: 4,
                survivors: Vec::new(),
            },
            r#"{"type":"exited","worker":"w","pid":7,"status":{"type":"signaled","signal":9,"core_dumped":false},"descendants_killed":3,"clear_ms":4}"#,
        );
    }
}
