//! How a worker begins to speak and how it ended: the first word and the last, between the task that accompanies it and
//! whoever owns it.

use crate::error::CallError;
use crate::keeper_client::table::WorkerEnd;
use cjm_decide::death::{Cause, Verdict};
use cjm_wire::channel::LoadFailure;
use cjm_wire::http::Health;
use cjm_wire::link::{ToolExit, WorkerReady};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Says how a worker ended, once it has.
pub(crate) type Watched = watch::Receiver<Option<Arc<Death>>>;

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

    /// What a call that got no answer is told: the death, or that its tool was not given it, which only a request that
    /// was never sent and the last words of the worker show. `said_meanwhile` is what the worker said since the call began.
    pub(crate) fn of_call(
        &self,
        capability: &str,
        sent: bool,
        job: Option<&str>,
        said_meanwhile: Vec<String>,
    ) -> CallError {
        let (capability, verdict) = (capability.to_owned(), Box::new(self.verdict.clone()));
        // Why a worker died by itself may have been said long before; why the host ended it, no call has said.
        let stderr_tail = if self.is_by_host() { said_meanwhile } else { self.stderr_tail.clone() };
        if sent && self.may_have_given(job) {
            return CallError::Died { capability, verdict, stderr_tail };
        }
        let others = self.given.as_ref().is_some_and(|given| !given.is_empty());
        CallError::NotTaken { others, capability, verdict, stderr_tail }
    }

    fn may_have_given(&self, job: Option<&str>) -> bool {
        match (&self.given, job) {
            (Some(given), Some(job)) => given.iter().any(|given| given == job),
            _ => true,
        }
    }

    /// Whether the host has ended it.
    #[must_use]
    pub fn is_by_host(&self) -> bool {
        matches!(self.verdict.cause, Cause::HostKill { .. })
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

/// Resolves when the worker is dead; holds no lock over the wait's end, as `wait_for` itself would.
pub(crate) async fn dead(death: &mut Watched) {
    // An error means that the accompanying task is gone, which is as dead.
    let _ = death.wait_for(Option::is_some).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use cjm_decide::death::{Evidence, LifePhase, SincePhaseBegan, verdict};
    use cjm_wire::link::ExitStatus;

    #[test]
    fn a_call_was_not_taken_only_where_that_is_sure() {
        let since = SincePhaseBegan { output: Vec::new(), elapsed_ms: 0 };
        let death = |given: Option<&[&str]>| Death {
            given: given.map(|given| given.iter().map(|job| (*job).to_owned()).collect()),
            ..Death::told(verdict(&Evidence::new(LifePhase::Idle, since.clone())), vec!["last".to_owned()])
        };
        for (given, sent, job, others) in [
            // Nobody says what was given: all may have been, but what was never sent.
            (None, true, Some("j"), None),
            (None, false, Some("j"), Some(false)),
            (Some(["j"].as_slice()), true, Some("j"), None),
            (Some(&["j"]), true, Some("k"), Some(true)),
            (Some(&[]), true, Some("k"), Some(false)),
            // A call of no job stands in no list.
            (Some(&[]), true, None, None),
            (Some(&["j"]), false, None, Some(true)),
        ] {
            let told = match death(given).of_call("t", sent, job, Vec::new()) {
                CallError::NotTaken { others, stderr_tail, .. } if stderr_tail == ["last"] => Some(others),
                CallError::Died { stderr_tail, .. } if stderr_tail == ["last"] => None,
                other => panic!("{other}"),
            };
            assert_eq!(told, others, "{given:?} {sent} {job:?}");
        }
    }

    #[test]
    fn a_row_says_how_the_tool_ended_and_of_its_worker_where_it_had_none() {
        let since = SincePhaseBegan { output: Vec::new(), elapsed_ms: 0 };
        let told = Death::told(verdict(&Evidence::new(LifePhase::Idle, since)), Vec::new());
        let exit =
            ToolExit { pid: 1, status: ExitStatus::Signal(11), calls_running: 0, protocol_fault: None };
        let end = WorkerEnd { status: Some(ExitStatus::Code(3)), descendants_killed: 4, clear_ms: 5 };
        let of_worker = Death { end, ..told.clone() };
        let of_tool = Death { tool_exit: Some(exit), ..of_worker.clone() };
        for (death, code) in [(&told, None), (&of_worker, Some(3)), (&of_tool, Some(-11))] {
            let row = death.payload("idle");
            assert_eq!(row["returncode"].as_i64(), code);
            assert_eq!((&row["phase"], row["reason"].is_string()), (&"idle".into(), true));
        }
        let row = of_tool.payload("idle");
        assert_eq!((row["descendants_killed"].as_u64(), row["clear_ms"].as_u64()), (Some(4), Some(5)));
    }
}
