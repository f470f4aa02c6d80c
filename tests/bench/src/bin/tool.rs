//! The capability in Rust that the bench calls: it answers, and does nothing that would be measured beside the host.
//!
//! It is no example of a useful tool. What must hold: its answers are made before they are asked for, as far as the
//! SDK lets it.

use cjm_worker::{Action, Call, Capability, Setup, ToolError};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

/// Calls that run side by side: the lanes of the bench.
const CALLS_MAX: usize = 4;
/// Largest result it makes.
const RESULT_BYTES_MAX: usize = 128 * 1024 * 1024;

struct BenchTool {
    texts: Mutex<HashMap<usize, String>>,
}

impl Capability for BenchTool {
    fn load(_: Setup) -> Result<Self, ToolError> {
        Ok(Self { texts: Mutex::default() })
    }

    fn actions(&self) -> Vec<Action> {
        ["echo", "size", "bytes"].map(|name| Action { name, description: "" }).to_vec()
    }

    fn concurrency_max(&self) -> usize {
        CALLS_MAX
    }

    fn execute(&self, call: Call) -> Result<Value, ToolError> {
        match call.action() {
            // The same body as the floor's server answers.
            Some("echo") | None => Ok(json!({"ok": true})),
            // The result is a file: its path comes in and goes out.
            Some("size") => {
                let path = call.kwargs().get("path").and_then(Value::as_str).unwrap_or_default();
                let bytes = std::fs::metadata(path).map_err(ToolError::from)?.len();
                Ok(json!({"path": path, "bytes": bytes}))
            }
            _ => {
                let bytes = call.kwargs().get("bytes").and_then(Value::as_u64).unwrap_or(0);
                let bytes = usize::try_from(bytes).unwrap_or(usize::MAX).min(RESULT_BYTES_MAX);
                let mut texts = self.texts.lock().unwrap_or_else(PoisonError::into_inner);
                Ok(Value::String(texts.entry(bytes).or_insert_with(|| "x".repeat(bytes)).clone()))
            }
        }
    }
}

fn main() -> ExitCode {
    cjm_worker::serve::<BenchTool>()
}
