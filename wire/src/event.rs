//! The vocabulary of the journal: event types, and one row as every reader and writer sees it. The names are
//! versioned by being never reused: a new meaning is a new name.

use crate::{Timestamp, ids::EventId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::fmt;

macro_rules! event_types {
    ($($(#[$meta:meta])* $variant:ident = $text:literal),+ $(,)?) => {
        /// What a journal row tells. Rows of later versions may hold other texts; readers keep them as text.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum EventType {
            $($(#[$meta])* $variant),+
        }

        impl EventType {
            /// All of them, in the order of the vocabulary.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The text in the `event_type` column.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text),+
                }
            }
        }
    };
}

event_types! {
    /// A worker process was started. Payload: pid, socket, module or runtime, version, env_overlay_keys.
    WorkerSpawned = "worker_spawned",
    /// Adapters were bound to it. Payload: specs.
    AdapterBound = "adapter_bound",
    /// It answered. Payload: wait_seconds.
    WorkerReady = "worker_ready",
    /// It is gone. Payload: phase, returncode, and our verdict with its evidence.
    WorkerDied = "worker_died",
    /// A configuration took effect. Payload: phase, config_keys, enabled, and our config: the values that are no
    /// secret and not long.
    ConfigApplied = "config_applied",
    /// A pending job may run. Payload: exclusive, gpu_reserved_mb, lanes_in_use, stats_available.
    AdmissionDecided = "admission_decided",
    /// A job changed status. Payload: from, to; a terminal one adds job_snapshot.
    StateTransition = "state_transition",
    /// A node of a composition ended. Payload: completed_node, enqueued_nodes.
    CompositionAdvanced = "composition_advanced",
    /// A cancel moved on. Payload: from, to.
    CancelPhaseChanged = "cancel_phase_changed",
    /// The reason why a job waits changed. Payload: from, to.
    BlockReasonChanged = "block_reason_changed",
    /// A failed attempt is tried again. Payload: attempt, exception_repr, exception_category.
    RetryStarted = "retry_started",
    /// Reported by a worker: one task call. Payload: task, method, ok, duration_s.
    TaskAccount = "task_account",
    /// Reported by a worker.
    ResultSaved = "result_saved",
    /// Reported by a worker.
    CacheHit = "cache_hit",
    /// Reported by a worker.
    GraphExtended = "graph_extended",
    /// A run began (written by the program that embeds the host).
    RunStarted = "run_started",
    /// A run ended.
    RunFinished = "run_finished",
    /// A check of a result.
    VerifyOutcome = "verify_outcome",
    /// A call that is no job ended without its result: a direct call or a stream. Payload: call, status (`failed` or
    /// `cancelled`), error, report.
    DirectCallFailed = "direct_call_failed",
    /// A command installed a capability, or made it anew. Payload: entry, result, forced, version, manifest, lock_hash.
    CapabilityInstalled = "capability_installed",
    /// A command tried to install a capability, and could not. Payload: as above, `status`: `failed`, error.
    CapabilityInstallFailed = "capability_install_failed",
    /// A command took a capability away. Payload: manifest, environment, environment_removed.
    CapabilityRemoved = "capability_removed",
    /// A command wrote a manifest anew. Payload: manifest, changed.
    ManifestRegenerated = "manifest_regenerated",
    /// A command kept a secret. Payload: key, scope, manifest; never the value.
    SecretSet = "secret_set",
    /// A command forgot a secret. Payload: key, scope.
    SecretRemoved = "secret_removed",
    /// The user allowed manifests to run. Payload: manifests.
    ManifestsAllowed = "manifests_allowed",
    /// The user took that back. Payload: manifests.
    ManifestsRevoked = "manifests_revoked",
    /// Fan-out only, never a row. Payload: progress, status_message.
    ProgressChanged = "progress_changed",
    /// Fan-out only, never a row. Payload: snapshot.
    ResourceSnapshot = "resource_snapshot",
}

impl EventType {
    /// Only fanned out to subscribers; never written.
    #[must_use]
    pub fn is_liveness(self) -> bool {
        matches!(self, Self::ProgressChanged | Self::ResourceSnapshot)
    }

    /// May be reported by a worker. Every other type in an accounts header is refused: a worker must not be
    /// able to write another job's history.
    #[must_use]
    pub fn is_worker_account(self) -> bool {
        matches!(self, Self::TaskAccount | Self::ResultSaved | Self::CacheHit | Self::GraphExtended)
    }

    /// The type with this text, if it is one of ours.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.as_str() == text)
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One row of the journal, column for column; `seq` is the store's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JournalRow {
    /// Unique over the journal.
    pub event_id: EventId,
    /// When.
    pub ts: Timestamp,
    /// Text of an [`EventType`], or of a later version's.
    pub event_type: String,
    /// The run it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<String>,
    /// The job it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_id: Option<String>,
    /// The composition the job belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub composition_id: Option<String>,
    /// The node of that composition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_id: Option<String>,
    /// The instance it ran, or was to run, on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capability_instance_id: Option<String>,
    /// The capability.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capability_name: Option<String>,
    /// Canonical hash of its configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_hash: Option<String>,
    /// Task of an adapter call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_name: Option<String>,
    /// Method of an adapter call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// The incarnation of the worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker_session_id: Option<String>,
    /// Who or what asked for the work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// Said by a worker, not seen by the host.
    #[serde(default)]
    pub worker_reported: bool,
    /// Per event type.
    #[serde(default)]
    pub payload: Map<String, Value>,
}

impl JournalRow {
    /// A row of `event_type`, now, with a new id and nothing else filled in.
    #[must_use]
    pub fn new(event_type: EventType, payload: Map<String, Value>) -> Self {
        Self {
            event_id: EventId::new(),
            ts: Timestamp::now(),
            event_type: event_type.as_str().to_owned(),
            run_id: None,
            job_id: None,
            composition_id: None,
            node_id: None,
            capability_instance_id: None,
            capability_name: None,
            config_hash: None,
            task_name: None,
            method: None,
            worker_session_id: None,
            actor: None,
            worker_reported: false,
            payload,
        }
    }
}

/// Status of a job, as rows and snapshots spell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobStatus {
    /// Accepted, not yet admitted.
    Pending,
    /// With a worker.
    Running,
    /// Ended with a result.
    Completed,
    /// Ended with an error.
    Failed,
    /// Ended because somebody asked.
    Cancelled,
}

impl JobStatus {
    /// Nothing follows.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }

    /// The text in rows.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// The status with this text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Pending, Self::Running, Self::Completed, Self::Failed, Self::Cancelled]
            .into_iter()
            .find(|status| status.as_str() == text)
    }
}

impl fmt::Display for JobStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vocabulary_does_not_drift() {
        let names: Vec<&str> = EventType::ALL.iter().map(|kind| kind.as_str()).collect();
        assert_eq!(
            names.join(" "),
            "worker_spawned adapter_bound worker_ready worker_died config_applied admission_decided \
             state_transition composition_advanced cancel_phase_changed block_reason_changed retry_started \
             task_account result_saved cache_hit graph_extended run_started run_finished verify_outcome \
             direct_call_failed capability_installed capability_install_failed capability_removed manifest_regenerated secret_set \
             secret_removed manifests_allowed manifests_revoked progress_changed resource_snapshot"
        );
        for kind in EventType::ALL {
            assert_eq!(EventType::parse(kind.as_str()), Some(*kind));
        }
        assert_eq!(EventType::parse("sequence_advanced"), None);
        assert!(!EventType::StateTransition.is_worker_account());
        assert_eq!(JobStatus::parse("cancelled"), Some(JobStatus::Cancelled));
        assert!(JobStatus::Failed.is_terminal() && !JobStatus::Running.is_terminal());
    }
}
