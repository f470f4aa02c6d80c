//! How a worker begins to speak and how it ended: the first word and the last, between the task that accompanies it and
//! whoever owns it.

use crate::keeper_client::WorkerEnd;
use cjm_decide::death::Verdict;
use cjm_wire::channel::LoadFailure;
use cjm_wire::http::Health;
use cjm_wire::link::{ToolExit, WorkerReady};
use std::time::Duration;

/// How a worker died, with what the host makes of it.
#[derive(Debug, Clone)]
pub struct Death {
    pub(crate) end: WorkerEnd,
    pub(crate) tool_exit: Option<ToolExit>,
    /// The jobs whose calls its tool was given, where the worker could say so.
    pub(crate) given: Option<Vec<String>>,
    pub(crate) verdict: Verdict,
    pub(crate) stderr_tail: Vec<String>,
}

impl Death {
    /// The death of a worker of which nothing is known but this.
    #[must_use]
    pub fn told(verdict: Verdict, stderr_tail: Vec<String>) -> Self {
        let end = WorkerEnd { status: None, descendants_killed: 0, clear_ms: 0 };
        Self { end, tool_exit: None, given: None, verdict, stderr_tail }
    }

    /// Whether it says that its tool was given calls.
    pub(crate) fn has_given(&self) -> bool {
        self.given.as_ref().is_some_and(|given| !given.is_empty())
    }

    /// Whether its tool may have been given the call of this job. Only a worker that says that it was not is believed.
    pub(crate) fn may_have_given(&self, job: Option<&str>) -> bool {
        match (&self.given, job) {
            (Some(given), Some(job)) => given.iter().any(|given| given == job),
            _ => true,
        }
    }

    /// Why, with evidence.
    #[must_use]
    pub fn verdict(&self) -> &Verdict {
        &self.verdict
    }

    /// Its last lines.
    #[must_use]
    pub fn stderr_tail(&self) -> &[String] {
        &self.stderr_tail
    }

    /// What the journal's `worker_died` row says of a self.
    #[must_use]
    pub fn payload(&self, phase: &str) -> serde_json::Map<String, serde_json::Value> {
        let status = self.tool_exit.as_ref().map(|exit| exit.status).or(self.end.status);
        let payload = serde_json::json!({
            "phase": phase,
            "returncode": status.map(cjm_wire::link::ExitStatus::returncode),
            "reason": self.verdict.cause.as_str(),
            "confidence": self.verdict.confidence.as_str(),
            "verdict": self.verdict.to_string(),
            "evidence": self.verdict.evidence,
            "descendants_killed": self.end.descendants_killed,
            "clear_ms": self.end.clear_ms,
        });
        match payload {
            serde_json::Value::Object(map) => map,
            _ => serde_json::Map::new(),
        }
    }
}

/// What a worker says first.
pub(crate) enum FirstWord {
    Ready(WorkerReady),
    /// The ancestor's own worker answers.
    Serves(Health),
    LoadFailed(LoadFailure),
}

/// Whole milliseconds.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
