//! What a capability is given when it is loaded: who it is, where its files belong, its secrets, and a logger.

use crate::link::HostLink;
use cjm_wire::Timestamp;
use cjm_wire::channel::Record;
use cjm_wire::link::WorkerSpec;
use std::path::{Path, PathBuf};

/// Given to [`Capability::load`](super::Capability::load).
#[derive(Debug, Clone)]
pub struct Setup {
    spec: WorkerSpec,
    data_dir: PathBuf,
    logger: Logger,
}

impl Setup {
    pub(crate) fn new(spec: WorkerSpec, link: HostLink) -> Self {
        let level_min = Level::parse(&spec.log_level).unwrap_or(Level::Info);
        let logger = Logger { link, level_min, name: spec.capability_name.clone(), job_id: None };
        Self { data_dir: PathBuf::from(&spec.data_dir), spec, logger }
    }

    /// The name in the manifest.
    #[must_use]
    pub fn capability_name(&self) -> &str {
        &self.spec.capability_name
    }

    /// The version in the manifest.
    #[must_use]
    pub fn capability_version(&self) -> &str {
        &self.spec.capability_version
    }

    /// The instance this worker is; there may be several of one capability.
    #[must_use]
    pub fn instance_id(&self) -> &str {
        &self.spec.instance_id
    }

    /// Directory that belongs to the capability (all its instances); exists.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// A secret the manifest declares, if the host has it. Secrets stand in no environment.
    #[must_use]
    pub fn secret(&self, name: &str) -> Option<&str> {
        self.spec.secrets.get(name)?.as_str()
    }

    /// For words that belong to no call.
    #[must_use]
    pub fn logger(&self) -> Logger {
        self.logger.clone()
    }
}

/// How important a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// For the author.
    Debug,
    /// What happens.
    Info,
    /// Worth a look.
    Warning,
    /// Something failed.
    Error,
    /// The tool cannot go on.
    Critical,
}

impl Level {
    /// The text on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "DEBUG",
            Self::Info => "INFO",
            Self::Warning => "WARNING",
            Self::Error => "ERROR",
            Self::Critical => "CRITICAL",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Debug, Self::Info, Self::Warning, Self::Error, Self::Critical]
            .into_iter()
            .find(|level| level.as_str().eq_ignore_ascii_case(text))
    }
}

/// Writes structured records to the host's diagnostics. Never waits; under a flood records are dropped and
/// counted.
#[derive(Debug, Clone)]
pub struct Logger {
    link: HostLink,
    level_min: Level,
    name: String,
    job_id: Option<String>,
}

impl Logger {
    /// Writes a record, unless it is below the level the host asked for.
    pub fn log(&self, level: Level, message: impl Into<String>) {
        if level < self.level_min {
            return;
        }
        self.link.record(&Record {
            ts: Some(Timestamp::now()),
            level: level.as_str().to_owned(),
            logger_name: self.name.clone(),
            message: message.into(),
            exc_text: None,
            job_id: self.job_id.clone(),
        });
    }

    pub(crate) fn for_job(&self, job_id: Option<String>) -> Self {
        Self { job_id, ..self.clone() }
    }
}
