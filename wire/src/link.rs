//! The host link: frames between the host and one shim (one stream socketpair, `frame` layout). End of file is a
//! lifeline: without a host the shim ends its tool and itself. Its descriptor is `keeper::worker_fd::HOST_LINK`.

use crate::runtime::Executable;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// Kinds of frames, host → shim.
pub mod to_shim {
    /// First frame: [`super::WorkerSpec`].
    pub const SPEC: u8 = 0x01;
    /// End well within the given time: [`super::ShutdownRequest`].
    pub const SHUTDOWN: u8 = 0x02;
    /// What `POST /cancel` asks, for one whose socket was removed: [`CancelRequest`](crate::envelope::CancelRequest).
    pub const CANCEL: u8 = 0x03;
}

/// Kinds of frames, shim → host.
pub mod to_host {
    /// The tool is loaded and the surface serves: [`super::WorkerReady`].
    pub const READY: u8 = 0x81;
    /// [`crate::channel::Record`].
    pub const RECORD: u8 = 0x82;
    /// [`super::ProgressReport`].
    pub const PROGRESS: u8 = 0x83;
    /// The tool's process ended: [`super::ToolExit`].
    pub const TOOL_EXIT: u8 = 0x84;
    /// The tool could not be loaded: [`LoadFailure`](crate::channel::LoadFailure).
    pub const LOAD_FAILED: u8 = 0x85;
    /// Records were dropped: [`super::Dropped`].
    pub const DROPPED: u8 = 0x86;
    /// The worker ends, and nothing follows: [`super::LastWords`].
    pub const LAST_WORDS: u8 = 0x87;
}

/// All a shim needs to start its tool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkerSpec {
    /// Capability name.
    pub capability_name: String,
    /// Capability version, from the manifest.
    pub capability_version: String,
    /// The instance this worker is.
    pub instance_id: String,
    /// This incarnation.
    pub worker_session_id: String,
    /// What to start.
    pub launch: Launch,
    /// Directory that belongs to the capability.
    pub data_dir: String,
    /// Least level of records.
    pub log_level: String,
    /// Variables for the tool alone.
    #[serde(default)]
    pub secrets: Map<String, Value>,
    /// Names of the other variables that are set for this tool on purpose, and not only passed on to it.
    #[serde(default)]
    pub own_variables: BTreeSet<String>,
}

/// What to start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Launch {
    /// A Python class in an interpreter of its own.
    Python {
        /// Absolute path of the interpreter.
        python_path: String,
        /// Module to import.
        module: String,
        /// Class in it.
        class: String,
        /// Adapters to bind, `module:Class`.
        adapters: Vec<String>,
    },
    /// One process per call.
    Executable {
        /// Absolute path of the program.
        program: String,
        /// Its actions.
        executable: Executable,
    },
    /// The worker process is the tool.
    Native {},
    /// A program that speaks the runtime channel.
    Channel {
        /// Absolute path of the program.
        program: String,
        /// Its arguments.
        args: Vec<String>,
    },
}

/// The worker serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerReady {
    /// The tool's process, where it is not the worker itself.
    pub tool_pid: Option<u32>,
    /// What the tool calls itself.
    pub name: String,
    /// Its own version.
    pub version: String,
    /// See [`crate::channel::ToolReady::supports`].
    pub supports: Vec<String>,
    /// See [`crate::channel::ToolReady::concurrency_max`].
    pub concurrency_max: u32,
}

/// Progress of one call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProgressReport {
    /// The job, when the call has one.
    pub job_id: Option<String>,
    /// See [`crate::http::Progress`].
    pub progress: f64,
    /// See [`crate::http::Progress`].
    pub message: String,
}

/// The tool's process ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolExit {
    /// Which process.
    pub pid: u32,
    /// Its true wait status.
    pub status: ExitStatus,
    /// Calls that were in flight.
    pub calls_running: u32,
    /// Which rule of the runtime channel the tool broke, where that is why the shim killed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol_fault: Option<String>,
}

/// What a worker that ends knows of its end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastWords {
    /// The signal that told it to end, where it was no order of its host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// The jobs whose calls its tool was given, answered ones among them: no other call has begun. None: it cannot tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub given: Option<Vec<String>>,
}

/// A wait status that can travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitStatus {
    /// Exited by itself.
    Code(i32),
    /// Ended by a signal.
    Signal(i32),
}

impl ExitStatus {
    /// The ancestor's `returncode`: the code, or minus the signal.
    #[must_use]
    pub fn returncode(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => -signal,
        }
    }
}

/// How to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShutdownRequest {
    /// Milliseconds for `cleanup` and a voluntary exit; then SIGKILL for the whole tree.
    pub grace_ms: u64,
}

/// Records were dropped between this frame and the one before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// How many.
    pub records: u64,
    /// The job in whose calls they were said, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_id: Option<String>,
}
