//! The uniform HTTP surface of a worker: paths, headers and bodies, as the ancestor's worker serves them
//! (`facts` §2). To change it: add optional keys only; status codes and key names are a contract with hosts and
//! workers we do not ship.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// `GET`: is it alive. Answers while the tool is busy.
pub const HEALTH: &str = "/health";
/// `GET`: what it uses.
pub const STATS: &str = "/stats";
/// `GET`: how far the newest call is.
pub const PROGRESS: &str = "/progress";
/// `GET`: the present configuration.
pub const CONFIG: &str = "/config";
/// `GET`: its JSON Schema.
pub const CONFIG_SCHEMA: &str = "/config_schema";
/// `GET`: live choices for its fields.
pub const CONFIG_OPTIONS: &str = "/config_options";
/// `GET`: the tool's public methods.
pub const STRUCTURAL_SURFACE: &str = "/structural_surface";
/// `POST` a configuration.
pub const INITIALIZE: &str = "/initialize";
/// `POST` old and new configuration.
pub const RECONFIGURE: &str = "/reconfigure";
/// `POST`: load what is slow to load.
pub const PREFETCH: &str = "/prefetch";
/// `POST` hook.
pub const ON_DISABLE: &str = "/on_disable";
/// `POST` hook.
pub const ON_ENABLE: &str = "/on_enable";
/// `POST`: stop one call, or all.
pub const CANCEL: &str = "/cancel";
/// `POST`: release everything.
pub const CLEANUP: &str = "/cleanup";
/// `POST` a call.
pub const EXECUTE: &str = "/execute";
/// `POST` a call of a task adapter.
pub const TASK: &str = "/task";
/// `POST` a call whose results come line by line.
pub const EXECUTE_STREAM: &str = "/execute_stream";
/// `POST`, monitors only.
pub const GET_SYSTEM_STATUS: &str = "/get_system_status";
/// `POST`, monitors only.
pub const LIST_PROCESSES: &str = "/list_processes";
/// `GET`: a description of this surface for programs.
pub const OPENAPI: &str = "/openapi.json";
/// `GET`: the same for people.
pub const DOCS: &str = "/docs";

/// Response header with what the call accounted for: a JSON list of [`Account`], ASCII.
pub const ACCOUNTS_HEADER: &str = "x-cjm-accounts";
/// Largest accounts header sent, in bytes; further accounts are dropped and counted (the ancestor's client fails
/// at 500 kB, after the work was done).
pub const ACCOUNTS_BYTES_MAX: usize = 64 * 1024;
/// Content type of streams.
pub const NDJSON: &str = "application/x-ndjson";
/// Largest body, request or response, that travels as JSON, in bytes. Larger things are files.
pub const BODY_BYTES_MAX: usize = 256 * 1024 * 1024;

/// `GET /health`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Always `running`: a worker that cannot say so does not answer.
    pub status: String,
    /// The worker's process (for our shim, the shim).
    pub pid: u32,
    /// Capability name.
    pub name: String,
    /// Capability version.
    pub version: String,
    /// Version of the contract the worker speaks, where it says so (ancestor ≥ 0.0.59).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub substrate_version: Option<String>,
    /// The interpreter of a Python tool, where the worker says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub python_executable: Option<String>,
    /// The tool's own process, where it has one (our shim).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_pid: Option<u32>,
    /// Calls in flight (our shim).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calls_running: Option<u32>,
}

/// `GET /stats`: sums over the worker and all its descendants.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    /// The worker.
    pub pid: u32,
    /// Percent of one core since the previous question.
    pub cpu_percent: f64,
    /// Resident memory, MB (2^20 bytes).
    pub memory_rss_mb: f64,
    /// All processes counted.
    pub subtree_pids: Vec<u32>,
    /// The newest `report_usage` of the tool.
    pub usage: Option<Map<String, Value>>,
}

/// `GET /progress`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// 0.0 to 1.0; -1.0 when the tool cannot say.
    pub progress: f64,
    /// What it is doing.
    pub message: String,
}

/// Answers of hooks: `{"status": …}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusBody {
    /// `ok`, `reconfigured`, `prefetched`, `disabled`, `enabled`, `cancelled`, `cleaned`, `not_supported`, `error`.
    pub status: String,
    /// Only with `error`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// Errors the framework makes: `{"detail": …}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DetailBody {
    /// What is wrong.
    pub detail: String,
    /// Where a task has no method of the name that was asked for: those that it has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
}

/// One entry of the accounts header.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Account {
    /// Only worker-account event types are accepted (see [`crate::event::EventType::is_worker_account`]).
    pub event_type: String,
    /// Free form.
    pub payload: Map<String, Value>,
}
