//! The trait a capability in Rust implements.

use super::call::{Call, Sink};
use super::error::ToolError;
use super::setup::Setup;
use serde_json::{Map, Value, json};

/// Calls that run side by side unless the capability says otherwise.
const CONCURRENCY_DEFAULT: usize = 4;

/// One thing a capability can do, chosen by `kwargs.action`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Action {
    /// Its name.
    pub name: &'static str,
    /// For people.
    pub description: &'static str,
}

/// A tool. Its methods run on threads of their own, never on the one that serves the surface, and several at a
/// time; what changes lives behind a lock. A panic fails the call and leaves the worker alive.
///
/// ```no_run
/// use cjm_worker::{Call, Capability, Setup, ToolError};
/// use serde_json::{Value, json};
///
/// struct Echo;
///
/// impl Capability for Echo {
///     fn load(_: Setup) -> Result<Self, ToolError> {
///         Ok(Self)
///     }
///     fn execute(&self, call: Call) -> Result<Value, ToolError> {
///         Ok(json!({"you_said": call.kwargs()}))
///     }
/// }
///
/// fn main() -> std::process::ExitCode {
///     cjm_worker::serve::<Echo>()
/// }
/// ```
pub trait Capability: Sized + Send + Sync + 'static {
    /// Makes the tool, once for each worker. Slow things (models) belong into [`prefetch`](Self::prefetch) or
    /// the first call.
    ///
    /// # Errors
    /// Why it cannot work at all; the worker then ends.
    fn load(setup: Setup) -> Result<Self, ToolError>;

    /// What the tool calls itself; the manifest's name when None.
    fn name(&self) -> Option<String> {
        None
    }

    /// Its own version; the manifest's when None.
    fn version(&self) -> Option<String> {
        None
    }

    /// What it can do. When there are any, a call that names another action is refused before it begins.
    fn actions(&self) -> Vec<Action> {
        Vec::new()
    }

    /// Calls that may run side by side; further ones wait.
    fn concurrency_max(&self) -> usize {
        CONCURRENCY_DEFAULT
    }

    /// JSON Schema of the configuration.
    fn config_schema(&self) -> Value {
        json!({})
    }

    /// The present configuration.
    fn config(&self) -> Value {
        json!({})
    }

    /// Live choices for its fields: `{field: {"options": [{"value", "label", "metadata"}], "constraints": {}}}`.
    ///
    /// # Errors
    /// When they cannot be found out.
    fn config_options(&self) -> Result<Value, ToolError> {
        Ok(json!({}))
    }

    /// Takes a configuration, before the first call.
    ///
    /// # Errors
    /// What is wrong with it. By default, any key at all.
    fn initialize(&self, config: Map<String, Value>) -> Result<(), ToolError> {
        match config.keys().next() {
            None => Ok(()),
            Some(key) => {
                Err(ToolError::user_input(format!("there is no configuration, and `{key}` was given"))
                    .fields(config.keys()))
            }
        }
    }

    /// Takes a new configuration in place of an old one.
    ///
    /// # Errors
    /// What is wrong with it.
    fn reconfigure(&self, _old: Map<String, Value>, _new: Map<String, Value>) -> Result<(), ToolError> {
        Err(ToolError::not_supported("reconfigure"))
    }

    /// Loads what is slow to load; `call` takes progress.
    ///
    /// # Errors
    /// Why it cannot be loaded.
    fn prefetch(&self, _call: Call) -> Result<(), ToolError> {
        Err(ToolError::not_supported("prefetch"))
    }

    /// The host will not call for a while.
    ///
    /// # Errors
    /// What failed.
    fn on_disable(&self) -> Result<(), ToolError> {
        Err(ToolError::not_supported("on_disable"))
    }

    /// The host will call again.
    ///
    /// # Errors
    /// What failed.
    fn on_enable(&self) -> Result<(), ToolError> {
        Err(ToolError::not_supported("on_enable"))
    }

    /// Does the work and returns the result.
    ///
    /// # Errors
    /// What failed, by whose fault.
    fn execute(&self, call: Call) -> Result<Value, ToolError>;

    /// Does the work and sends results as they come. By default one chunk, the whole result.
    ///
    /// # Errors
    /// What failed; chunks already sent stay sent.
    fn execute_stream(&self, call: Call, sink: &mut Sink) -> Result<(), ToolError> {
        let result = self.execute(call)?;
        sink.send(&result)
    }

    /// Somebody asked the call of this job (None: all calls) to stop. Their flags are raised already, so this is
    /// only for what a flag cannot reach.
    fn cancel(&self, _job_id: Option<&str>) {}

    /// Releases everything. Called exactly once, at the end.
    ///
    /// # Errors
    /// What failed; the worker ends all the same.
    fn cleanup(&self) -> Result<(), ToolError> {
        Ok(())
    }

    /// For monitors: what the machine has and uses.
    ///
    /// # Errors
    /// What failed; `not_supported` for those that are no monitors.
    fn get_system_status(&self) -> Result<Value, ToolError> {
        Err(ToolError::not_supported("get_system_status"))
    }

    /// For monitors: what each process uses.
    ///
    /// # Errors
    /// As for [`get_system_status`](Self::get_system_status).
    fn list_processes(&self) -> Result<Value, ToolError> {
        Err(ToolError::not_supported("list_processes"))
    }
}
