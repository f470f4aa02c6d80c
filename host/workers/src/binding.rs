//! Binds task adapters: which of those found a worker is told to bind. What fits is `decide`'s; that an adapter can be
//! imported is seen by the worker, in the tool's environment.
//!
//! What must hold: without names everything that fits is bound and nobody is bothered with the rest; an adapter that was
//! asked for is refused with what is missing before a worker is started for it.

use cjm_catalog::suggestions::{self, suggestions};
use cjm_decide::adapters::{Refusal, choose};
use cjm_wire::describe::{Described, exit};
use cjm_wire::runtime::Runtime;
use cjm_wire::{AdapterManifest, Manifest};

/// An adapter of one worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoundAdapter {
    /// `module:Class`.
    pub spec: String,
    /// The task it serves.
    pub task: String,
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
) -> Result<Vec<BoundAdapter>, AdapterFault> {
    let capability = &manifest.code.name;
    if !matches!(manifest.runtime(), Runtime::Python { .. }) && named.is_none() {
        return Ok(Vec::new());
    }
    let chosen = choose(&manifest.code, known, named).map_err(|refusal| match refusal {
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
    })?;
    let bound =
        |adapter: &AdapterManifest| BoundAdapter { spec: adapter.spec(), task: adapter.task_name.clone() };
    Ok(chosen.into_iter().map(bound).collect())
}
