//! From specifications to a running pipeline.

use crate::binding::Binding;
use crate::{BlockingPipeline, CapabilitySpec, Pipeline, PipelineError};
use cjm_engine::{Host, HostOptions, ManifestFolder, check_known};
use cjm_wire::RunId;
use cjm_wire::composition::INSTANCES_MAX;
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
        data_dir: None,
        search_paths: Vec::new(),
        lanes: None,
        actor: None,
        run_id: None,
        worker_binary: None,
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
    data_dir: Option<PathBuf>,
    search_paths: Vec<PathBuf>,
    lanes: Option<usize>,
    actor: Option<String>,
    run_id: Option<RunId>,
    worker_binary: Option<PathBuf>,
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
    /// as for `cjm-ctl` in the present folder, so that program and command line agree: `$CJM_DATA_DIR`, else what
    /// `cjm.yaml` there or above says, else `~/.cjm`. One executing host per directory.
    ///
    /// What this names runs without being asked for; what merely lies in the present folder (`.cjm/manifests`) runs only
    /// if the user allowed it (`cjm-ctl allow`).
    pub fn data_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.data_dir = Some(directory.into());
        self
    }

    /// Looks for manifests here and nowhere else; may be repeated, the first match wins. What lies here runs: it is
    /// this program's word.
    pub fn search_path(mut self, directory: impl Into<PathBuf>) -> Self {
        self.search_paths.push(directory.into());
        self
    }

    /// How jobs are admitted.
    pub fn scheduler(mut self, scheduler: Scheduler) -> Self {
        if scheduler == Scheduler::OneAtATime {
            self.lanes = Some(1);
        }
        self
    }

    /// Jobs that run side by side; 4 by default.
    pub fn lanes(mut self, lanes: usize) -> Self {
        self.lanes = Some(lanes.max(1));
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
        self.actor = Some(actor.into());
        self
    }

    /// Groups this pipeline's rows in the journal; a new id by default.
    pub fn run_id(mut self, run_id: impl Into<String>) -> Self {
        self.run_id = Some(RunId::from_text(run_id));
        self
    }

    /// The `cjm-worker` binary. Default: `$CJM_WORKER`, beside this program, on the PATH.
    pub fn worker_binary(mut self, path: impl Into<PathBuf>) -> Self {
        self.worker_binary = Some(path.into());
        self
    }

    /// Starts the host and loads everything, side by side. A name that nothing was found for fails it before anything
    /// is made.
    ///
    /// # Errors
    /// When the settings cannot be read, the host does not start, or (see [`Self::require_all`]) a capability does not
    /// load; no process is left then.
    pub async fn start(self) -> Result<Pipeline, PipelineError> {
        let host = Host::start(self.options()?).await?;
        self.load(host).await
    }

    /// [`Self::start`] for programs without a runtime. The pipeline may be made on a thread that ends before it does.
    ///
    /// # Errors
    /// As there.
    ///
    /// # Panics
    /// Inside a runtime, whose thread it would block.
    pub fn start_blocking(self) -> Result<BlockingPipeline, PipelineError> {
        let host = Host::start_blocking(self.options()?)?;
        let pipeline = host.clone().block_on(self.load(host))??;
        Ok(BlockingPipeline::new(pipeline))
    }

    /// What holds in the present folder, under what this builder was told.
    fn options(&self) -> Result<HostOptions, PipelineError> {
        if let Some(spec) = self.specs.iter().find(|spec| spec.instances > INSTANCES_MAX) {
            let (name, instances) = (&spec.name, spec.instances);
            let message =
                format!("{instances} instances of \"{name}\", more than the {INSTANCES_MAX} allowed");
            return Err(PipelineError::Spec { message });
        }
        let mut options = HostOptions::resolve(self.data_dir.clone())?;
        if !self.search_paths.is_empty() {
            options.manifest_dirs = self.search_paths.iter().map(ManifestFolder::named).collect();
        }
        options.lanes = self.lanes.unwrap_or(options.lanes);
        options.run_id.clone_from(&self.run_id);
        options.worker_binary.clone_from(&self.worker_binary);
        if let Some(actor) = &self.actor {
            options.actor.clone_from(actor);
        }
        if self.require_all {
            let monitor = self.system_monitor.as_deref();
            check_known(&options, self.specs.iter().map(|spec| spec.name.as_str()).chain(monitor))?;
        }
        Ok(options)
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
