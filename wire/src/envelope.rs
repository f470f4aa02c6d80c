//! The body of a call: positional and named arguments, and the envelope that says on whose behalf. Identity
//! never travels inside the arguments.

use crate::ids::{CompositionId, JobId, RunId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Who calls, and how. Empty fields stay off the wire; unknown ones are ignored.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CallEnvelope {
    /// The job this call executes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_id: Option<JobId>,
    /// The run it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<RunId>,
    /// The composition it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub composition_id: Option<CompositionId>,
    /// The node of that composition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_id: Option<String>,
    /// Who or what asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// Flags of this one call, such as `{"force": true}`.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub control: Map<String, Value>,
}

/// Body of `POST /execute` and `POST /execute_stream`; every key is optional.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ExecuteRequest {
    /// Positional arguments.
    #[serde(default)]
    pub args: Vec<Value>,
    /// Named arguments; `action` among them names the tool's action.
    #[serde(default)]
    pub kwargs: Map<String, Value>,
    /// Who calls.
    #[serde(default)]
    pub envelope: CallEnvelope,
}

/// Body of `POST /task`: one method of one task adapter.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TaskRequest {
    /// Name of the task.
    pub task: String,
    /// Public method of its adapter.
    pub method: String,
    /// Named arguments.
    #[serde(default)]
    pub kwargs: Map<String, Value>,
    /// Who calls.
    #[serde(default)]
    pub envelope: CallEnvelope,
}

/// Body of `POST /cancel`. The ancestor sends none: then every running call of the worker is cancelled.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CancelRequest {
    /// Cancel this job's call only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_id: Option<JobId>,
}

/// Name of the argument that carries the action.
pub const ACTION_KEY: &str = "action";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_fields_stay_off_the_wire_and_unknown_ones_are_ignored() {
        let request = ExecuteRequest {
            args: vec![Value::from(1), Value::from("é")],
            envelope: CallEnvelope { run_id: Some(RunId::from_text("R")), ..CallEnvelope::default() },
            ..ExecuteRequest::default()
        };
        let text = serde_json::to_string(&request).expect("writes");
        assert_eq!(text, r#"{"args":[1,"é"],"kwargs":{},"envelope":{"run_id":"R"}}"#);
        let read: ExecuteRequest =
            serde_json::from_str(r#"{"envelope":{"run_id":"R","later":1}}"#).expect("tolerant");
        assert_eq!(read.envelope, request.envelope);
        assert_eq!(
            serde_json::from_str::<ExecuteRequest>("{}").expect("all optional"),
            ExecuteRequest::default()
        );
    }
}
