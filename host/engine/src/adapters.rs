//! Binds task adapters: which of those found a worker is told to bind, and calls of their methods. What fits is
//! `decide`'s; that an adapter can be imported is seen by the worker, in the tool's environment.
//!
//! What must hold: without names everything that fits is bound and nobody is bothered with the rest; an adapter that was
//! asked for, or a task that was, is refused with what is missing before a worker is started or called for it.

use crate::error::{HostError, StartError};
use crate::host::Host;
use crate::plan::WorkerPlan;
use crate::submission::JobRequest;
use cjm_catalog::suggestions::{self, suggestions};
use cjm_decide::adapters::{Refusal, choose, fit, surface_of};
use cjm_decide::queue::Target;
use cjm_wire::describe::{Described, exit};
use cjm_wire::envelope::TaskRequest;
use cjm_wire::runtime::Runtime;
use cjm_wire::{AdapterManifest, InstanceId, Manifest, http};

/// An adapter of one worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BoundAdapter {
    /// `module:Class`.
    pub(crate) spec: String,
    /// The task it serves.
    pub(crate) task: String,
}

/// Why an adapter cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdapterFault {
    /// An adapter was asked for that is not installed.
    #[error("there is no adapter \"{adapter}\" for \"{capability}\"{}", suggestions::in_words(known))]
    Unknown {
        /// The capability.
        capability: String,
        /// The name asked for.
        adapter: String,
        /// Names of adapters like it.
        known: Vec<String>,
    },
    /// An adapter was asked for that does not fit.
    #[error("the adapter \"{adapter}\" does not fit \"{capability}\": {missing}")]
    Incompatible {
        /// The capability.
        capability: String,
        /// The adapter.
        adapter: String,
        /// What the capability would need.
        missing: String,
    },
    /// An adapter was asked for that fits, and could not be loaded beside the tool.
    #[error("the adapter \"{adapter}\" fits \"{capability}\", and could not be loaded in its environment")]
    NotLoaded {
        /// The capability.
        capability: String,
        /// The adapter, `module:Class`.
        adapter: String,
    },
    /// A task was asked for that no adapter of the capability serves.
    #[error("\"{capability}\" has no adapter for the task \"{task}\"{}", instead(bound, refused))]
    NotBound {
        /// The capability.
        capability: String,
        /// The task.
        task: String,
        /// Tasks that it has adapters for.
        bound: Vec<String>,
        /// Adapters of the task that do not fit, each with what is missing.
        refused: Vec<String>,
    },
}

impl Described for AdapterFault {
    fn code(&self) -> &'static str {
        match self {
            Self::Unknown { .. } => "adapter.unknown",
            Self::Incompatible { .. } => "adapter.incompatible",
            Self::NotLoaded { .. } => "adapter.not_loaded",
            Self::NotBound { .. } => "adapter.not_bound",
        }
    }

    fn next_step(&self) -> String {
        match self {
            Self::Incompatible { .. } => {
                "leave it out (all adapters that fit are bound without being named), or install the release of the \
                 capability that it was written for"
                    .to_owned()
            }
            Self::NotLoaded { .. } => {
                "name its package as `lib` beside `impl` in the capability's own entry of capabilities.yaml and run \
                 `cjm-ctl install-all`; `cjm-ctl logs --level ERROR` shows why it could not be loaded"
                    .to_owned()
            }
            Self::NotBound { bound, .. } if !bound.is_empty() => {
                "ask for one of its tasks, or name an adapter for this one under `adapters` of its entry in \
                 capabilities.yaml and run `cjm-ctl install-all`"
                    .to_owned()
            }
            Self::Unknown { .. } | Self::NotBound { .. } => {
                "name it under `adapters` of an entry in capabilities.yaml and run `cjm-ctl install-all`".to_owned()
            }
        }
    }

    fn exit_code(&self) -> u8 {
        exit::DOMAIN
    }
}

fn instead(bound: &[String], refused: &[String]) -> String {
    let mut text = match bound {
        [] => String::new(),
        bound => format!(" (it has: {})", bound.join(", ")),
    };
    for adapter in refused {
        text.push_str("; ");
        text.push_str(adapter);
    }
    text
}

/// The adapters that a worker of `manifest` binds: those named, else all that fit. Only Python tools have any.
pub(crate) fn bind(
    manifest: &Manifest,
    known: &[AdapterManifest],
    named: Option<&[String]>,
) -> Result<Vec<BoundAdapter>, StartError> {
    let capability = &manifest.code.name;
    if !matches!(manifest.runtime(), Runtime::Python { .. }) && named.is_none() {
        return Ok(Vec::new());
    }
    let chosen = choose(&manifest.code, known, named).map_err(|refusal| {
        StartError::Adapter(match refusal {
            Refusal::Unknown { name } => AdapterFault::Unknown {
                capability: capability.clone(),
                known: suggestions(&name, known.iter().map(|adapter| adapter.name.as_str())),
                adapter: name,
            },
            Refusal::Incompatible { name, fit } => AdapterFault::Incompatible {
                capability: capability.clone(),
                adapter: name,
                missing: fit.describe(),
            },
        })
    })?;
    let bound =
        |adapter: &AdapterManifest| BoundAdapter { spec: adapter.spec(), task: adapter.task_name.clone() };
    Ok(chosen.into_iter().map(bound).collect())
}

/// Refuses a worker that did not load an adapter it was to bind by name; what was only found is told in the log, and by
/// the worker. `supports` is its own word.
pub(crate) fn check_loaded(plan: &WorkerPlan, supports: &[String]) -> Result<(), AdapterFault> {
    let missing = plan.adapters.iter().find(|adapter| !supports.contains(&format!("task/{}", adapter.task)));
    let Some(missing) = missing else { return Ok(()) };
    if plan.adapters_named {
        return Err(AdapterFault::NotLoaded {
            capability: plan.capability.clone(),
            adapter: missing.spec.clone(),
        });
    }
    tracing::warn!(capability = %plan.capability, adapter = %missing.spec, "an adapter that fits could not be loaded");
    Ok(())
}

impl Host {
    /// A call of an adapter's method directly on one instance, as [`Host::call`] is one of an action.
    ///
    /// # Errors
    /// As there, and when no adapter of the task is bound.
    pub async fn call_task(
        &self,
        id: &InstanceId,
        mut request: TaskRequest,
    ) -> Result<bytes::Bytes, HostError> {
        self.check_bound(&Target::Instance(id.clone()), &request.task)?;
        let worker = self.worker(id).await?;
        request.envelope.run_id.get_or_insert_with(|| self.context().run_id.clone());
        request.envelope.actor.get_or_insert_with(|| self.context().options.actor.clone());
        // Serialising our own structs cannot fail.
        let body = serde_json::to_vec(&request).unwrap_or_default();
        Ok(self.direct(id, &worker, http::TASK, body).await?)
    }

    /// Refuses a job whose task no adapter serves, before it is one.
    pub(crate) fn check_task(&self, request: &JobRequest) -> Result<(), HostError> {
        match &request.task {
            Some((task, _)) => self.check_bound(&request.target, task),
            None => Ok(()),
        }
    }

    fn check_bound(&self, target: &Target, task: &str) -> Result<(), HostError> {
        let context = self.context();
        let plans = |wanted: &dyn Fn(&WorkerPlan) -> bool| {
            context
                .instances()
                .values()
                .find(|instance| wanted(&instance.plan))
                .map(|instance| instance.plan.clone())
        };
        let plan = match target {
            Target::Instance(id) => plans(&|plan| plan.instance == *id),
            Target::Capability(name) => plans(&|plan| plan.capability == *name),
        };
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
        let fault =
            AdapterFault::NotBound { capability: plan.capability, task: task.to_owned(), bound, refused };
        Err(HostError::NoAdapter(fault))
    }
}
