//! `install-all`: brings everything `capabilities.yaml` names onto this machine, side by side, and leaves alone what
//! is there already. An entry that fails harms no other. One installation at a time works on a data directory.

use crate::conda::{CondaOptions, Estimate};
use crate::constraint::Constraint;
use crate::error::EnvironmentError;
use crate::files::hash_folder;
use crate::interpreters;
use crate::python_entry::{Common, Done, PythonEntry, Teller, Tools};
use crate::tool_entry;
use crate::uv::Uv;
use cjm_platform::lock::{FileLock, LockError};
use cjm_wire::ErrorReport;
use cjm_wire::capabilities_file::{CapabilitiesFile, Entry};
use futures_util::{StreamExt, stream};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Environments made side by side: enough to hide waiting for the network, few enough for two cores.
pub const ENTRIES_AT_ONCE: usize = 3;
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
    /// See the error.
    Failed,
}

impl Outcome {
    /// `installed`, `unchanged`, `failed`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Installed => "installed",
            Self::Unchanged => "unchanged",
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

/// Reads the list of capabilities.
///
/// # Errors
/// When it cannot be read or is not one.
pub fn read_capabilities(path: &Path) -> Result<CapabilitiesFile, EnvironmentError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| EnvironmentError::CapabilitiesUnreadable { path: path.to_owned(), source })?;
    CapabilitiesFile::parse(&text)
        .map_err(|source| EnvironmentError::CapabilitiesInvalid { path: path.to_owned(), source })
}

/// Installs every entry of the list; `tell` hears what happens, from this task. Dropping the future stops the
/// helpers that run; the next call goes on from there.
///
/// # Errors
/// Only what concerns all entries: the list, or the data directory.
pub async fn install_all(
    options: &InstallOptions,
    file: &CapabilitiesFile,
    tell: &(dyn Fn(InstallEvent) + Send + Sync),
) -> Result<InstallReport, EnvironmentError> {
    let started = Instant::now();
    let data_dir = absolute(&options.data_dir);
    std::fs::create_dir_all(&data_dir).map_err(|source| EnvironmentError::File {
        action: "create",
        path: data_dir.clone(),
        source,
    })?;
    let _lock = lock(&data_dir)?;
    let list = absolute(&options.capabilities_file);
    let installation = Installation {
        common: Common {
            base: list.parent().unwrap_or(Path::new("/")).to_owned(),
            sdk_hash: hash_folder(&options.python_sdk)?,
            sdk: absolute(&options.python_sdk),
            substrate_source: options.substrate_source.clone(),
            conda: options.conda.clone(),
            data_dir,
        },
        claims: Mutex::default(),
        force: options.force,
        offline: options.offline,
        tell,
    };
    let entries = installation.install(&file.capabilities).await;
    Ok(InstallReport { entries, seconds: started.elapsed().as_secs_f64() })
}

struct Installation<'a> {
    common: Common,
    force: bool,
    offline: bool,
    /// Capability → entry that gives it.
    claims: Mutex<HashMap<String, String>>,
    tell: &'a (dyn Fn(InstallEvent) + Send + Sync),
}

/// An entry after the quick look that needs neither network nor processes.
enum Looked<'a> {
    Ended(EntryReport),
    Open(PythonEntry<'a>),
}

impl Looked<'_> {
    fn constraint(&self) -> Option<Constraint> {
        match self {
            Self::Open(entry) => Constraint::parse(entry.entry.python_version.as_deref()?),
            Self::Ended(_) => None,
        }
    }
}

impl Installation<'_> {
    async fn install(&self, entries: &[Entry]) -> Vec<EntryReport> {
        let looked: Vec<Looked<'_>> =
            entries.iter().enumerate().map(|(index, entry)| self.look(entries, index, entry)).collect();
        let wanted: Vec<Constraint> = looked.iter().filter_map(Looked::constraint).collect();
        let tools = if looked.iter().any(|entry| matches!(entry, Looked::Open(_))) {
            Some(self.prepare(&wanted).await.map_err(|error| ErrorReport::of(&error)))
        } else {
            None
        };
        let tools = &tools;
        let mut reports: Vec<(usize, EntryReport)> = stream::iter(looked.into_iter().enumerate())
            .map(|(index, looked)| async move {
                let report = match looked {
                    Looked::Ended(report) => report,
                    Looked::Open(entry) => self.install_python(index, &entry, tools.as_ref()).await,
                };
                (self.tell)(InstallEvent::Finished { entry: index, report: Box::new(report.clone()) });
                (index, report)
            })
            .buffer_unordered(ENTRIES_AT_ONCE)
            .collect()
            .await;
        reports.sort_by_key(|(index, _)| *index);
        reports.into_iter().map(|(_, report)| report).collect()
    }

    /// Ends every entry that needs no interpreter: tools without an environment, unchanged ones, hopeless ones.
    fn look<'e>(&'e self, entries: &[Entry], index: usize, entry: &'e Entry) -> Looked<'e> {
        let started = Instant::now();
        let ended = |result: Result<EntryReport, EnvironmentError>| {
            let mut report = result.unwrap_or_else(|error| failed(entry, &ErrorReport::of(&error)));
            report.seconds = started.elapsed().as_secs_f64();
            Looked::Ended(report)
        };
        if let Some(manifest) = &entry.manifest {
            return ended(self.install_tool(entry, manifest));
        }
        let shared = entries[..index]
            .iter()
            .find(|other| other.env_name == entry.env_name && other.manifest.is_none());
        if let Some(other) = shared {
            return ended(Err(EnvironmentError::SharedEnvironment {
                env_name: entry.env_name.clone(),
                other: other.name.clone(),
            }));
        }
        match PythonEntry::read(entry, &self.common) {
            Err(error) => ended(Err(error)),
            Ok(python) => match (!self.force).then(|| python.current()).flatten() {
                Some(done) => ended(self.claim(entry, &done.capability).map(|()| report(&python, done))),
                None => Looked::Open(python),
            },
        }
    }

    fn install_tool(&self, entry: &Entry, manifest: &str) -> Result<EntryReport, EnvironmentError> {
        let manifests = self.common.data_dir.join("manifests");
        let (manifest, outcome) =
            tool_entry::install(&self.common.base.join(manifest), &manifests, self.force)?;
        self.claim(entry, &manifest.code.name)?;
        Ok(EntryReport {
            outcome,
            manifest: Some(manifests.join(manifest.file_name())),
            capability: Some(manifest.code.name),
            ..blank(entry)
        })
    }

    async fn install_python(
        &self,
        index: usize,
        entry: &PythonEntry<'_>,
        tools: Option<&Result<Tools, ErrorReport>>,
    ) -> EntryReport {
        let started = Instant::now();
        let step = |step| (self.tell)(InstallEvent::Step { entry: index, step });
        let line = |text: &str| (self.tell)(InstallEvent::Line { entry: index, text: text.to_owned() });
        let mut ended = match tools {
            Some(Ok(tools)) => {
                let teller = Teller { step: &step, line: &line };
                let done = entry.install(tools, self.force, self.offline, &teller).await;
                match done.and_then(|done| self.claim(entry.entry, &done.capability).map(|()| done)) {
                    Ok(done) => report(entry, done),
                    Err(error) => failed(entry.entry, &ErrorReport::of(&error)),
                }
            }
            Some(Err(error)) => failed(entry.entry, error),
            None => blank(entry.entry),
        };
        ended.seconds = started.elapsed().as_secs_f64();
        ended
    }

    async fn prepare(&self, wanted: &[Constraint]) -> Result<Tools, EnvironmentError> {
        (self.tell)(InstallEvent::Preparing("looking for Python and uv".to_owned()));
        let (mut interpreters, uv) =
            tokio::join!(interpreters::discover_for(wanted), Uv::find(&self.common.data_dir));
        let uv = match uv {
            Some(uv) => uv,
            None if self.offline => {
                return Err(EnvironmentError::NoUv {
                    reason: "installing it needs the network".to_owned(),
                    next_step: "run install-all once without --offline, or install uv yourself".to_owned(),
                    stderr_tail: Vec::new(),
                });
            }
            None => {
                (self.tell)(InstallEvent::Preparing("installing uv".to_owned()));
                // The plain one may lack venv and pip where another has them.
                interpreters = interpreters::discover().await;
                Uv::bootstrap(&self.common.data_dir, &interpreters, &|_| {}).await?
            }
        };
        Ok(Tools {
            uv: uv.with_usable_cache(&self.common.data_dir),
            interpreters,
            conda_turn: tokio::sync::Mutex::default(),
        })
    }

    /// The first entry that gives a capability has it.
    fn claim(&self, entry: &Entry, capability: &str) -> Result<(), EnvironmentError> {
        let mut claims = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
        match claims.insert(capability.to_owned(), entry.name.clone()) {
            None => Ok(()),
            Some(other) => {
                Err(EnvironmentError::CapabilityTwice { capability: capability.to_owned(), other })
            }
        }
    }
}

pub(crate) fn lock(data_dir: &Path) -> Result<FileLock, EnvironmentError> {
    let path = data_dir.join("install.lock");
    FileLock::try_acquire(&path, &format!("pid {}", std::process::id())).map_err(|error| match error {
        LockError::Held { holder, .. } => EnvironmentError::InUse {
            path: data_dir.to_owned(),
            holder: holder.unwrap_or_else(|| "unnamed".to_owned()),
        },
        LockError::Io { path, source } => EnvironmentError::File { action: "lock", path, source },
    })
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn blank(entry: &Entry) -> EntryReport {
    EntryReport {
        name: entry.name.clone(),
        outcome: Outcome::Unchanged,
        capability: None,
        manifest: None,
        environment: None,
        python_version: None,
        lock_hash: None,
        to_fetch: None,
        warnings: Vec::new(),
        seconds: 0.0,
        error: None,
    }
}

fn failed(entry: &Entry, error: &ErrorReport) -> EntryReport {
    EntryReport { outcome: Outcome::Failed, error: Some(error.clone()), ..blank(entry) }
}

fn report(entry: &PythonEntry<'_>, done: Done) -> EntryReport {
    EntryReport {
        outcome: done.outcome,
        capability: Some(done.capability),
        manifest: Some(done.manifest),
        environment: Some(entry.environment.clone()),
        python_version: Some(done.python_version),
        lock_hash: Some(done.lock_hash),
        to_fetch: done.estimate,
        warnings: done.warnings,
        ..blank(entry.entry)
    }
}
