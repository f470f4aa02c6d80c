//! From specifications to a running pipeline.

use crate::binding::Binding;
use crate::{BlockingPipeline, CapabilitySpec, Pipeline, PipelineError};
use cjm_engine::{Host, HostOptions};
use cjm_wire::RunId;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Begins a pipeline over the given capabilities; [`PipelineBuilder::start`] makes it. An item is a name, a name with a
/// configuration, or a [`CapabilitySpec`]; items of different kinds are added with [`PipelineBuilder::capability`].
///
/// ```
/// use cjm_host::create_pipeline;
/// use serde_json::json;
///
/// let builder = create_pipeline(["speech-detector", "transcript-store"])
///     .capability(("speech-recognizer", json!({"sample_rate": 16000})))
///     .lanes(2);
/// # drop(builder);
/// ```
pub fn create_pipeline<S: Into<CapabilitySpec>>(
    capabilities: impl IntoIterator<Item = S>,
) -> PipelineBuilder {
    PipelineBuilder {
        specs: capabilities.into_iter().map(Into::into).collect(),
        options: HostOptions::new(default_data_dir()),
        search_paths: Vec::new(),
        system_monitor: None,
        strict: true,
        require_all: true,
    }
}

/// How jobs are admitted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Scheduler {
    /// Lanes, priorities and each instance's cap decide; nothing is measured.
    #[default]
    Permissive,
    /// One job at a time, in order of priority.
    OneAtATime,
}

/// Options of a pipeline; every one has a default.
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until it is started"]
pub struct PipelineBuilder {
    specs: Vec<CapabilitySpec>,
    options: HostOptions,
    search_paths: Vec<PathBuf>,
    system_monitor: Option<String>,
    strict: bool,
    require_all: bool,
}

impl PipelineBuilder {
    /// Adds one capability.
    pub fn capability(mut self, spec: impl Into<CapabilitySpec>) -> Self {
        self.specs.push(spec.into());
        self
    }

    /// Where the host keeps everything, and one of the places where manifests are found (`manifests` in it). Default:
    /// `$CJM_DATA_DIR`, else `~/.cjm`. One executing host per directory.
    pub fn data_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        let fresh = HostOptions::new(directory);
        self.options.data_dir = fresh.data_dir;
        self.options.manifest_dirs = fresh.manifest_dirs;
        self
    }

    /// Looks for manifests here and nowhere else; may be repeated, the first match wins.
    pub fn search_path(mut self, directory: impl Into<PathBuf>) -> Self {
        self.search_paths.push(directory.into());
        self
    }

    /// How jobs are admitted.
    pub fn scheduler(mut self, scheduler: Scheduler) -> Self {
        if scheduler == Scheduler::OneAtATime {
            self.options.lanes = 1;
        }
        self
    }

    /// Jobs that run side by side; 4 by default.
    pub fn lanes(mut self, lanes: usize) -> Self {
        self.options.lanes = lanes.max(1);
        self
    }

    /// A monitor capability to load as well; [`Pipeline::system_status`] asks it.
    pub fn system_monitor(mut self, capability: impl Into<String>) -> Self {
        self.system_monitor = Some(capability.into());
        self
    }

    /// Whether a configuration key that the manifest's schema does not know is refused (the default) or left out with
    /// a warning.
    pub fn strict(mut self, strict: bool) -> Self {
        self.strict = strict;
        self
    }

    /// Whether a capability that does not load fails the start (the default). Otherwise it is left out, as the Python
    /// ancestor does, and [`Pipeline::failures`] names it.
    pub fn require_all(mut self, require_all: bool) -> Self {
        self.require_all = require_all;
        self
    }

    /// Who asks for the work; stands in every row of the journal.
    pub fn actor(mut self, actor: impl Into<String>) -> Self {
        self.options.actor = actor.into();
        self
    }

    /// Groups this pipeline's rows in the journal; a new id by default.
    pub fn run_id(mut self, run_id: impl Into<String>) -> Self {
        self.options.run_id = Some(RunId::from_text(run_id));
        self
    }

    /// The `cjm-worker` binary. Default: `$CJM_WORKER`, beside this program, on the PATH.
    pub fn worker_binary(mut self, path: impl Into<PathBuf>) -> Self {
        self.options.worker_binary = Some(path.into());
        self
    }

    /// Starts the host and loads everything, side by side.
    ///
    /// # Errors
    /// When the host does not start, or (see [`Self::require_all`]) a capability does not load; no process is left
    /// then.
    pub async fn start(mut self) -> Result<Pipeline, PipelineError> {
        if !self.search_paths.is_empty() {
            self.options.manifest_dirs = std::mem::take(&mut self.search_paths);
        }
        let host = Host::start(self.options.clone()).await?;
        self.load(host).await
    }

    /// [`Self::start`] for programs without a runtime. The pipeline may be made on a thread that ends before it does.
    ///
    /// # Errors
    /// As there.
    ///
    /// # Panics
    /// Inside a runtime, whose thread it would block.
    pub fn start_blocking(mut self) -> Result<BlockingPipeline, PipelineError> {
        if !self.search_paths.is_empty() {
            self.options.manifest_dirs = std::mem::take(&mut self.search_paths);
        }
        let host = Host::start_blocking(self.options.clone())?;
        let pipeline = host.clone().block_on(self.load(host))??;
        Ok(BlockingPipeline::new(pipeline))
    }

    async fn load(self, host: Host) -> Result<Pipeline, PipelineError> {
        let mut specs = self.specs;
        if let Some(monitor) = &self.system_monitor
            && !specs.iter().any(|spec| spec.name == *monitor)
        {
            specs.push(CapabilitySpec::new(monitor.clone()));
        }
        let strict = self.strict;
        let loads = specs.iter().flat_map(|spec| {
            let host = &host;
            spec.instance_ids().into_iter().map(move |id| {
                let options = spec.load_options(id, strict);
                let host = host.clone();
                async move { host.load(&spec.name, options).await }
            })
        });
        let mut loaded = futures_util::future::join_all(loads).await.into_iter();
        let mut bindings = BTreeMap::new();
        let mut failures = BTreeMap::new();
        for spec in specs {
            let mut ids = Vec::new();
            for result in loaded.by_ref().take(spec.instances as usize) {
                match result {
                    Ok(id) => ids.push(id),
                    Err(error) if self.require_all => {
                        host.shutdown().await;
                        return Err(error.into());
                    }
                    Err(error) => {
                        failures.entry(spec.name.clone()).or_insert(error);
                    }
                }
            }
            if !ids.is_empty() {
                bindings.insert(spec.name.clone(), Binding::new(host.clone(), spec, ids, strict));
            }
        }
        Ok(Pipeline::new(host, bindings, failures, self.system_monitor))
    }
}

fn default_data_dir() -> PathBuf {
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/".into())).join(".cjm");
    std::env::var_os("CJM_DATA_DIR").map_or_else(home, PathBuf::from)
}
