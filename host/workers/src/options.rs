//! What a host can be told when it starts. Every default is the one `cjm-ctl` uses.

use cjm_catalog::settings::RETENTION_DAYS_DEFAULT;
use cjm_catalog::{CliOverrides, ManifestFolder, Settings, SettingsError, Standing, manifest_folders};
use cjm_platform::user::real_user_name;
use cjm_store::{JOBS_DAYS_DEFAULT, Retention};
use cjm_wire::{InstanceId, RunId};
use serde_json::Value;
use std::path::PathBuf;
use std::time::Duration;

/// Lanes: jobs that run side by side.
pub const LANES_DEFAULT: usize = 4;
/// How long a worker may take until it is ready.
pub const READY_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
/// How long a starting host waits for the processes of a dead one to be gone.
pub const LOCK_WAIT_DEFAULT: Duration = Duration::from_secs(5);
/// How long a call may take when nothing else is said: long enough for any work, so that none is without an end.
pub const CALL_TIMEOUT_DEFAULT: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a worker may take to end well.
pub const UNLOAD_GRACE_DEFAULT: Duration = Duration::from_secs(2);

/// Options of a host.
#[derive(Debug, Clone)]
pub struct HostOptions {
    /// Everything the host keeps.
    pub data_dir: PathBuf,
    /// Where manifests are found, first match first. What lies in a folder that nobody named runs only if the user
    /// allowed it (`cjm-ctl allow`).
    pub manifest_dirs: Vec<ManifestFolder>,
    /// The `cjm-worker` binary; looked for when absent: `$CJM_WORKER`, beside this program, on the PATH.
    pub worker_binary: Option<PathBuf>,
    /// Jobs that run side by side.
    pub lanes: usize,
    /// Who asks for the work; stands in every row.
    pub actor: String,
    /// Groups what this host does; a new one when absent.
    pub run_id: Option<RunId>,
    /// Where tools keep models: their `CJM_MODELS_DIR`; the host's own variable of that name when absent.
    pub models_dir: Option<PathBuf>,
    /// Names of variables that workers get beyond the fixed list.
    pub worker_env_pass: Vec<String>,
    /// Whether each new worker is asked if its code still is what its manifest says.
    pub drift_detection: bool,
    /// What is old among records and output; it is forgotten when the host starts.
    pub retention: Retention,
    /// How many days ended jobs and compositions are kept; None: for ever.
    pub jobs_retention_days: Option<f64>,
    /// How long a worker may take until it is ready.
    pub ready_timeout: Duration,
    /// How long a call or job may take, waiting included, when it does not say.
    pub call_timeout: Duration,
    /// How long to wait for the processes of a dead host on the same directory.
    pub lock_wait: Duration,
    /// How long a worker may take to end well before its tree is killed; one whose manifest asks for more
    /// (`cancel.grace_ms`) has that.
    pub unload_grace: Duration,
    /// Least level of records that tools send.
    pub log_level: String,
}

impl HostOptions {
    /// The defaults over one data directory: manifests from `./.cjm/manifests`, then `<data_dir>/manifests`.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        let data_dir = data_dir.into();
        let working_dir = std::env::current_dir().ok();
        Self {
            manifest_dirs: manifest_folders(&data_dir, Standing::Named, working_dir.as_deref()),
            data_dir,
            worker_binary: None,
            lanes: LANES_DEFAULT,
            actor: actor("host"),
            run_id: None,
            models_dir: None,
            worker_env_pass: Vec::new(),
            drift_detection: true,
            retention: Retention { age_max_days: Some(RETENTION_DAYS_DEFAULT), size_max_mb: None },
            jobs_retention_days: Some(JOBS_DAYS_DEFAULT),
            ready_timeout: READY_TIMEOUT_DEFAULT,
            call_timeout: CALL_TIMEOUT_DEFAULT,
            lock_wait: LOCK_WAIT_DEFAULT,
            unload_grace: UNLOAD_GRACE_DEFAULT,
            log_level: std::env::var("CJM_LOG_LEVEL").unwrap_or_else(|_| "INFO".to_owned()),
        }
    }

    /// The options that hold in the present folder, as `cjm-ctl` has them there: `data_dir` if it is given, else the
    /// environment, `cjm.yaml` and the defaults.
    ///
    /// # Errors
    /// When a `cjm.yaml` is found and cannot be used.
    pub fn resolve(data_dir: Option<PathBuf>) -> Result<Self, SettingsError> {
        Settings::resolve(&CliOverrides { data_dir, ..CliOverrides::default() }).map(|s| Self::from(&s))
    }
}

/// Who acts, as rows name it: the program and the real user. What the environment calls the user stands beside it
/// where it differs (after `sudo`, say), and counts for nothing.
#[must_use]
pub fn actor(program: &str) -> String {
    let said = ["USER", "LOGNAME"].into_iter().find_map(|name| std::env::var(name).ok());
    named_actor(program, &real_user_name(), said.as_deref())
}

fn named_actor(program: &str, user: &str, said: Option<&str>) -> String {
    // A label stays one: what could be read as something else is left out.
    let is_plain = |name: &str| name.chars().all(|c| c.is_alphanumeric() || "._-@+".contains(c));
    match said.filter(|said| !said.is_empty() && *said != user && is_plain(said)) {
        Some(said) => format!("{program}:{user} (as {said})"),
        None => format!("{program}:{user}"),
    }
}

impl From<&Settings> for HostOptions {
    fn from(settings: &Settings) -> Self {
        let mut options = Self::new(&settings.data_dir);
        options.manifest_dirs = settings.manifest_dirs();
        options.models_dir.clone_from(&settings.models_dir);
        options.drift_detection = settings.behaviour.drift_detection;
        options.retention = settings.behaviour.retention();
        options.jobs_retention_days = settings.behaviour.jobs_retention_days;
        options.worker_env_pass.clone_from(&settings.behaviour.worker_env_pass);
        options
    }
}

/// How one instance is loaded.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// Its id; the capability's name when absent.
    pub instance_id: Option<InstanceId>,
    /// Its configuration; the tool's defaults when absent.
    pub config: Option<Value>,
    /// Calls it may run side by side; 1 when absent.
    pub concurrency_max: Option<u32>,
    /// The task adapters to bind, by name, class or `module:Class`; one that does not fit is refused. When absent, all
    /// that were found and fit.
    pub adapters: Option<Vec<String>>,
    /// Leave out, with a warning, configuration keys that the manifest's schema does not know; they are refused
    /// otherwise.
    pub ignore_unknown_config_keys: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_actor_is_the_real_user_and_the_environment_only_a_label() {
        assert_eq!(named_actor("cjm-ctl", "bob", None), "cjm-ctl:bob");
        assert_eq!(named_actor("cjm-ctl", "bob", Some("bob")), "cjm-ctl:bob");
        assert_eq!(named_actor("cjm-ctl", "bob", Some("alice")), "cjm-ctl:bob (as alice)");
        assert_eq!(named_actor("cjm-ctl", "bob", Some("alice) or (root")), "cjm-ctl:bob");
        assert!(actor("host").starts_with(&format!("host:{}", real_user_name())));
    }
}
