//! A running host with its capabilities bound.

use crate::spec::exact;
use crate::{Binding, Events, PipelineError};
use cjm_engine::{CompositionOutcome, Host, HostError, ShutdownReport};
use cjm_wire::composition::Composition;
use cjm_wire::{InstanceId, http};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// A host, its queue, and a binding per capability. Dropping it ends every process it started, without grace;
/// [`Self::shutdown`] lets tools clean up first.
pub struct Pipeline {
    host: Host,
    bindings: BTreeMap<String, Binding>,
    failures: BTreeMap<String, HostError>,
    system_monitor: Option<String>,
}

impl Pipeline {
    pub(crate) fn new(
        host: Host,
        bindings: BTreeMap<String, Binding>,
        failures: BTreeMap<String, HostError>,
        system_monitor: Option<String>,
    ) -> Self {
        Self { host, bindings, failures, system_monitor }
    }

    /// The host beneath, for what this face leaves out.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// All bindings, by capability name.
    #[must_use]
    pub fn bindings(&self) -> &BTreeMap<String, Binding> {
        &self.bindings
    }

    /// One binding.
    ///
    /// # Errors
    /// When there is none; with the reason when it was asked for and did not load.
    pub fn binding(&self, name: &str) -> Result<&Binding, PipelineError> {
        self.bindings.get(name).ok_or_else(|| PipelineError::NoBinding {
            name: name.to_owned(),
            reason: self.failures.get(name).map(ToString::to_string),
        })
    }

    /// Capabilities that did not load, with the reason; empty unless
    /// [`require_all(false)`](crate::PipelineBuilder::require_all).
    #[must_use]
    pub fn failures(&self) -> &BTreeMap<String, HostError> {
        &self.failures
    }

    /// Everything that happens from now on.
    #[must_use]
    pub fn events(&self) -> Events {
        Events::new(self.host.rows(), self.host.events(), self.host.ended())
    }

    /// Runs a composition; capabilities it names are loaded when they are not yet. Inputs are taken as they are: a list of
    /// files is a JSON array of paths.
    ///
    /// It is answered when it has ended; one that fails fast at its first failure, while others of its calls are being
    /// cancelled ([`CompositionOutcome::still_running`]). [`Host::wait_composition_end`] waits for those, and
    /// [`Self::shutdown`] does.
    ///
    /// # Errors
    /// When it cannot start, or names another configuration than a loaded instance has. A run that fails is an outcome
    /// with a failure.
    pub async fn run(
        &self,
        composition: Composition,
        inputs: Map<String, Value>,
    ) -> Result<Arc<CompositionOutcome>, PipelineError> {
        let id = self.host.submit_composition(composition, exact(&inputs)).await?;
        Ok(self.host.wait_composition(&id).await?)
    }

    /// [`Self::run`] with an end: a run that is not done within `timeout`, loading included, fails with
    /// `composition.deadline`, and what it has begun is stopped.
    ///
    /// # Errors
    /// As there.
    pub async fn run_within(
        &self,
        timeout: Duration,
        composition: Composition,
        inputs: Map<String, Value>,
    ) -> Result<Arc<CompositionOutcome>, PipelineError> {
        let inputs = exact(&inputs);
        let id = self.host.submit_composition_within(composition, inputs, Some(timeout.into())).await?;
        Ok(self.host.wait_composition(&id).await?)
    }

    /// What the system monitor says of the machine: memory and GPU in MB, load in percent.
    ///
    /// # Errors
    /// When no monitor was named, or it does not answer.
    pub async fn system_status(&self) -> Result<Map<String, Value>, PipelineError> {
        let name = self.system_monitor.clone().unwrap_or_else(|| "system monitor".to_owned());
        let Some(_) = &self.system_monitor else {
            return Err(PipelineError::NoBinding {
                name,
                reason: Some("no `system_monitor` was named".to_owned()),
            });
        };
        let body = self.host.ask(&InstanceId::from_text(name), http::GET_SYSTEM_STATUS).await?;
        serde_json::from_slice(&body).map_err(|error| PipelineError::Result { message: error.to_string() })
    }

    /// Ends every worker (each may clean up for a moment), the keeper and the stores.
    pub async fn shutdown(self) -> ShutdownReport {
        self.host.shutdown().await
    }
}

impl std::fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pipeline")
            .field("bindings", &self.bindings.keys())
            .field("failures", &self.failures)
            .finish()
    }
}
