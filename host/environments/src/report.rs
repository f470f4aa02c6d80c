//! What an installation is asked and what it answers: options, steps, events while it goes on, and a report for each
//! entry.

use crate::conda::{CondaOptions, Estimate};
use crate::error::EnvironmentError;
use cjm_wire::ErrorReport;
use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// Who installs, as manifests name it; a new version looks at everything again.
pub const INSTALLER_VERSION: &str = concat!("cjm-ctl ", env!("CARGO_PKG_VERSION"));

/// What to install, and how.
#[derive(Debug, Clone)]
pub struct InstallOptions {
    /// The host's data directory: environments, manifests and tools go below it.
    pub data_dir: PathBuf,
    /// The list of capabilities.
    pub capabilities_file: PathBuf,
    /// The folder that holds the Python package `cjm_sdk`.
    pub python_sdk: PathBuf,
    /// A requirement of every Python environment beyond what its entry asks for: the ancestor's package, for its own
    /// workers. Folders are relative to the list.
    pub substrate_source: Option<String>,
    /// What makes the environments of entries with an `env_file`.
    pub conda: CondaOptions,
    /// Start from nothing, and resolve anew.
    pub force: bool,
    /// Use no network.
    pub offline: bool,
    /// What a running host has in use: those environments are left alone, and their entries fail.
    pub in_use: Option<AskInUse>,
}

/// Asks what a running host has in use now; none where none runs.
#[derive(Clone)]
pub struct AskInUse(Arc<dyn Fn() -> Option<InUse> + Send + Sync>);

impl AskInUse {
    /// Who answers.
    pub fn of(ask: impl Fn() -> Option<InUse> + Send + Sync + 'static) -> Self {
        Self(Arc::new(ask))
    }

    /// Refuses to touch the environment of a capability that is in use at this moment.
    ///
    /// # Errors
    /// When it is.
    pub(crate) fn check(asked: Option<&Self>, capability: &str) -> Result<(), EnvironmentError> {
        InUse::check(asked.and_then(|ask| (ask.0)()).as_ref(), capability)
    }
}

impl fmt::Debug for AskInUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AskInUse")
    }
}

/// What a running host has in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InUse {
    /// What the host wrote about itself.
    pub holder: String,
    /// Its process, where that is told, and is one here.
    pub pid: Option<i32>,
    /// Capabilities whose workers it has.
    pub capabilities: BTreeSet<String>,
}

impl InUse {
    /// Refuses to touch the environment of a capability that is in use.
    ///
    /// # Errors
    /// When it is.
    pub fn check(in_use: Option<&Self>, capability: &str) -> Result<(), EnvironmentError> {
        match in_use.filter(|in_use| in_use.capabilities.contains(capability)) {
            None => Ok(()),
            Some(in_use) => Err(EnvironmentError::HostRuns {
                capability: capability.to_owned(),
                holder: in_use.holder.clone(),
                pid: in_use.pid,
            }),
        }
    }
}

/// A step of one entry, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Interpreter and virtual environment.
    Environment,
    /// Finding the exact versions.
    Resolving,
    /// Fetching and installing them.
    Installing,
    /// Looking into the package.
    Introspecting,
    /// Manifest and stamp.
    Writing,
}

impl Step {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Environment, Self::Resolving, Self::Installing, Self::Introspecting, Self::Writing];

    /// For people.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Environment => "making the environment",
            Self::Resolving => "resolving packages",
            Self::Installing => "installing packages",
            Self::Introspecting => "introspecting",
            Self::Writing => "writing the manifest",
        }
    }
}

/// What happens while it happens; `entry` is the place in [`InstallReport::entries`].
#[derive(Debug, Clone)]
pub enum InstallEvent {
    /// Something all entries wait for.
    Preparing(String),
    /// An entry reached a step.
    Step {
        /// Which entry.
        entry: usize,
        /// Which step.
        step: Step,
    },
    /// A helper of the present step said something.
    Line {
        /// Which entry.
        entry: usize,
        /// One line.
        text: String,
    },
    /// An entry is done.
    Finished {
        /// Which entry.
        entry: usize,
        /// How it ended.
        report: Box<EntryReport>,
    },
}

/// How an entry ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Installed, or brought up to date.
    Installed,
    /// Nothing had changed.
    Unchanged,
    /// Nothing had changed, and values that the user set by hand stay where the source has others.
    Kept,
    /// See the error.
    Failed,
}

impl Outcome {
    /// `installed`, `unchanged`, `kept`, `failed`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Installed => "installed",
            Self::Unchanged => "unchanged",
            Self::Kept => "kept",
            Self::Failed => "failed",
        }
    }
}

/// One entry, after.
#[derive(Debug, Clone)]
pub struct EntryReport {
    /// Name in the list.
    pub name: String,
    /// How it ended.
    pub outcome: Outcome,
    /// The capability it gives.
    pub capability: Option<String>,
    /// The version that is installed now.
    pub version: Option<String>,
    /// The version that was installed before.
    pub version_before: Option<String>,
    /// Its manifest.
    pub manifest: Option<PathBuf>,
    /// Its environment, if it has one.
    pub environment: Option<PathBuf>,
    /// Version of its Python.
    pub python_version: Option<String>,
    /// Hash of its lock.
    pub lock_hash: Option<String>,
    /// What conda had to fetch for it.
    pub to_fetch: Option<Estimate>,
    /// The name that its capability had before, where it has another now and the manifest of the old name is gone.
    pub renamed_from: Option<String>,
    /// The tool of another package that had its environment before, and whose manifest is gone.
    pub displaced: Option<String>,
    /// What became of values that its source and the installed manifest had differently: replaced, or kept.
    pub values: Vec<String>,
    /// What is odd, and no error.
    pub warnings: Vec<String>,
    /// How long it took.
    pub seconds: f64,
    /// Why it failed.
    pub error: Option<ErrorReport>,
}

/// All entries, in the order of the list.
#[derive(Debug, Clone)]
pub struct InstallReport {
    /// One for each entry.
    pub entries: Vec<EntryReport>,
    /// How long all took.
    pub seconds: f64,
}

impl InstallReport {
    /// Whether no entry failed.
    #[must_use]
    pub fn all_well(&self) -> bool {
        self.entries.iter().all(|entry| entry.outcome != Outcome::Failed)
    }
}
