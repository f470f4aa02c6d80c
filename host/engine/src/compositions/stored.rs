//! How a composition ended that this host no longer has in memory, as the store tells it.

use crate::compositions::state::{CompositionOutcome, NodeOutcome};
use cjm_decide::composition::{Failures, NodeError};
use cjm_store::CompositionRecord;
use cjm_store::rows::ToldFailure;
use cjm_wire::composition::RunOutcome;
use cjm_wire::event::JobStatus;
use cjm_wire::json::Json;
use serde::Deserialize;
use serde_json::{Map, Value};

/// A composition as the store has it.
pub(crate) struct StoredComposition {
    pub(crate) record: CompositionRecord,
    pub(crate) output: Option<Vec<u8>>,
    /// What the row of its end says; None where the journal has it no more.
    pub(crate) end: Option<Map<String, Value>>,
}

/// What the row of an end says. A row that was too large has no nodes; that of a run whose host died has less.
#[derive(Debug, Default, Deserialize)]
struct Told {
    outcome: Option<RunOutcome>,
    #[serde(default)]
    nodes: Vec<NodeOutcome>,
    #[serde(default)]
    failures: Vec<ToldFailure>,
    #[serde(default)]
    failures_left_out: usize,
    monitor_fault: Option<String>,
}

impl StoredComposition {
    /// How it ended; None where it has not.
    pub(crate) fn outcome(self) -> Option<CompositionOutcome> {
        let Self { record, output, end } = self;
        if !record.status.is_terminal() {
            return None;
        }
        let told = match serde_json::from_value(Value::Object(end.unwrap_or_default())) {
            Ok(told) => told,
            Err(error) => {
                let id = record.composition_id.as_str();
                tracing::warn!(%error, id, "the row of a run's end cannot be read, and is left out");
                Told::default()
            }
        };
        let mut failures = Failures::default();
        for ToldFailure { node, element, message } in told.failures {
            failures.push(NodeError { node, element, message, next_step: None });
        }
        Some(CompositionOutcome {
            composition_id: record.composition_id,
            outcome: told.outcome.unwrap_or(match record.status {
                JobStatus::Completed => RunOutcome::Completed,
                JobStatus::Cancelled => RunOutcome::Cancelled,
                _ => RunOutcome::Failed,
            }),
            status: record.status,
            output: output.and_then(|text| Json::from_slice(&text).ok()).unwrap_or_else(Json::null),
            failure: record.failure,
            failures: failures.with_left_out(told.failures_left_out),
            nodes: told.nodes,
            still_running: 0,
            calls_running: 0,
            monitor_fault: told.monitor_fault,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cjm_wire::{CompositionId, Timestamp};
    use serde_json::json;

    fn stored(status: JobStatus, end: Option<Value>) -> StoredComposition {
        let record = CompositionRecord {
            composition_id: CompositionId::new(),
            name: "t".to_owned(),
            run_id: None,
            actor: None,
            status,
            submitted_at: Timestamp::now(),
            completed_at: None,
            failure: None,
        };
        let end = end.and_then(|end| end.as_object().cloned());
        StoredComposition { record, output: Some(b"[1]".to_vec()), end }
    }

    #[test]
    fn a_run_that_has_not_ended_has_no_outcome_in_the_store() {
        for status in [JobStatus::Pending, JobStatus::Running] {
            assert!(stored(status, None).outcome().is_none(), "{status}");
        }
    }

    /// Rows are moved away, left out where they are too large, and written by other versions.
    #[test]
    fn a_run_is_told_without_the_row_of_its_end_too() {
        let unreadable = json!({"nodes": "none", "outcome": "partial"});
        for end in [None, Some(unreadable), Some(json!({}))] {
            let told = stored(JobStatus::Completed, end).outcome().expect("it has ended");
            assert_eq!((told.outcome, told.output.text()), (RunOutcome::Completed, "[1]"));
            assert!(told.nodes.is_empty() && told.failures.is_empty());
        }
    }
}
