//! Calls of task adapters' methods. A task that no adapter of a capability serves is refused, with what is missing,
//! before a worker is called for it.

use crate::error::HostError;
use crate::host::Host;
use cjm_decide::adapters::{fit, surface_of};
use cjm_decide::queue::Target;
use cjm_wire::envelope::TaskRequest;
use cjm_wire::{InstanceId, http};
use cjm_workers::AdapterFault;
use std::time::Duration;

impl Host {
    /// A call of an adapter's method directly on one instance, as [`Host::call`] is one of an action.
    ///
    /// # Errors
    /// As there, and when no adapter of the task is bound.
    pub async fn call_task(
        &self,
        id: &InstanceId,
        mut request: TaskRequest,
        timeout: Option<Duration>,
    ) -> Result<bytes::Bytes, HostError> {
        self.check_bound(&Target::Instance(id.clone()), &request.task)?;
        let caller = self.sign(&mut request.envelope);
        // Serialising our own structs cannot fail.
        let body = serde_json::to_vec(&request).unwrap_or_default();
        Ok(self.direct(id, http::TASK, body, caller, timeout).await?)
    }

    /// Refuses a task that no adapter of the target serves.
    pub(crate) fn check_bound(&self, target: &Target, task: &str) -> Result<(), HostError> {
        let instance = self.instances().find(|instance| match target {
            Target::Instance(id) => instance.id == *id,
            Target::Capability(name) => instance.plan.capability == *name,
        });
        let plan = instance.as_ref().map(|instance| &instance.plan);
        // What is not loaded is refused by whoever looks for its worker; other runtimes may serve tasks themselves.
        let Some(plan) = plan.filter(|plan| plan.runtime_kind() == "python") else { return Ok(()) };
        if plan.adapters.iter().any(|adapter| adapter.task == task) {
            return Ok(());
        }
        let surface = self.catalog().get(&plan.capability).and_then(|entry| surface_of(&entry.manifest.code));
        let mut bound: Vec<String> = plan.adapters.iter().map(|adapter| adapter.task.clone()).collect();
        bound.sort();
        bound.dedup();
        let of_the_task = self.catalog().adapters().iter().filter(|adapter| adapter.task_name == task);
        let refused = of_the_task
            .map(|adapter| (adapter, fit(&adapter.protocol_members, surface.as_ref())))
            .filter(|(_, fit)| !fit.is_compatible())
            .map(|(adapter, fit)| format!("{} does not fit: {}", adapter.name, fit.describe()))
            .collect();
        let fault = AdapterFault::NotBound {
            capability: plan.capability.clone(),
            task: task.to_owned(),
            bound,
            refused,
        };
        Err(HostError::NoAdapter(fault))
    }
}
