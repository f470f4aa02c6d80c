//! One capability of a pipeline, ready to be called.

use crate::spec::{arguments, exact};
use crate::{CapabilitySpec, JobHandle, PipelineError, SubmitOptions};
use cjm_engine::{CatalogEntry, ChunkStream, Host, JobRequest, Target};
use cjm_wire::InstanceId;
use cjm_wire::envelope::{ACTION_KEY, CallEnvelope, ExecuteRequest, TaskRequest};
use cjm_wire::http::{self, Stats};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::time::Duration;

/// A capability and its loaded instances. Clones are the same binding.
#[derive(Clone)]
pub struct Binding {
    host: Host,
    spec: CapabilitySpec,
    instances: Vec<InstanceId>,
    strict: bool,
}

impl Binding {
    pub(crate) fn new(host: Host, spec: CapabilitySpec, instances: Vec<InstanceId>, strict: bool) -> Self {
        Self { host, spec, instances, strict }
    }

    /// The capability's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// Ids of its instances; a direct call goes to the one with the fewest direct calls.
    #[must_use]
    pub fn instances(&self) -> &[InstanceId] {
        &self.instances
    }

    /// Its manifest and where that was found.
    #[must_use]
    pub fn manifest(&self) -> Option<&CatalogEntry> {
        self.host.catalog().get(&self.spec.name)
    }

    /// The configuration it was given; `None` for the tool's defaults.
    #[must_use]
    pub fn config(&self) -> Option<&Value> {
        self.spec.config.as_ref()
    }

    /// JSON Schema of its configuration, from the manifest.
    #[must_use]
    pub fn config_schema(&self) -> Option<&Value> {
        self.manifest()?.manifest.code.config_schema.as_ref()
    }

    /// Whether at least one instance is loaded.
    #[must_use]
    pub fn is_loaded(&self) -> bool {
        self.instances.iter().any(|id| self.host.is_loaded(id))
    }

    /// Calls `action` on one instance, directly, in this task: no queue, no lane, no job, no retry. An empty action is
    /// the tool's only one. A dead worker is started again first.
    ///
    /// Dropping the future cancels the call: the tool is asked to stop, and killed when it does not. So is one that takes
    /// longer than a day; [`Self::call_within`] names another time.
    ///
    /// # Errors
    /// When arguments or result do not fit their types, the worker does not start or dies, or the tool fails.
    pub async fn call<T: DeserializeOwned>(
        &self,
        action: &str,
        args: impl Serialize,
    ) -> Result<T, PipelineError> {
        result_of(&self.host.call(self.free(), request(action, args)?, None).await?)
    }

    /// [`Self::call`] with an end: when `timeout` passes first, the start of a worker included, the call is cancelled as if it
    /// were dropped.
    ///
    /// # Errors
    /// As there, and when the timeout passes.
    pub async fn call_within<T: DeserializeOwned>(
        &self,
        timeout: Duration,
        action: &str,
        args: impl Serialize,
    ) -> Result<T, PipelineError> {
        result_of(&self.host.call(self.free(), request(action, args)?, Some(timeout)).await?)
    }

    /// Calls `action` directly and gives its results as they come. Dropping the stream cancels the call, as a dropped
    /// [`Self::call`] is cancelled: a tool that does not stop is killed. It has a day, as that.
    ///
    /// # Errors
    /// As [`Self::call`]; what fails later comes as an item.
    pub async fn stream(&self, action: &str, args: impl Serialize) -> Result<ChunkStream, PipelineError> {
        Ok(self.host.call_stream(self.free(), request(action, args)?).await?)
    }

    /// Submits a durable job for any instance of the capability: it returns once the job is committed. A future that is
    /// dropped before has either submitted nothing, or a job that runs.
    ///
    /// # Errors
    /// When arguments do not fit, too many jobs wait, or the journal refuses.
    pub async fn submit(&self, action: &str, args: impl Serialize) -> Result<JobHandle, PipelineError> {
        self.submit_with(action, args, SubmitOptions::default()).await
    }

    /// [`Self::submit`], with a priority, an end, or on behalf of somebody.
    ///
    /// # Errors
    /// As there.
    pub async fn submit_with(
        &self,
        action: &str,
        args: impl Serialize,
        options: SubmitOptions,
    ) -> Result<JobHandle, PipelineError> {
        let mut job = options.apply(JobRequest::new(Target::Capability(self.spec.name.clone())));
        job.action = (!action.is_empty()).then(|| action.to_owned());
        job.kwargs = exact(&arguments(args)?);
        Ok(JobHandle::new(self.host.clone(), self.host.submit(job).await?))
    }

    /// Calls a method of the task's adapter on one instance, directly, as [`Self::call`] calls an action.
    ///
    /// # Errors
    /// As there, and when no adapter of the task is bound.
    pub async fn call_task<T: DeserializeOwned>(
        &self,
        task: &str,
        method: &str,
        args: impl Serialize,
    ) -> Result<T, PipelineError> {
        let request = TaskRequest {
            task: task.to_owned(),
            method: method.to_owned(),
            kwargs: arguments(args)?,
            envelope: CallEnvelope::default(),
        };
        result_of(&self.host.call_task(self.free(), request, None).await?)
    }

    /// Submits a durable job that calls a method of the task's adapter, as [`Self::submit`] does for an action.
    ///
    /// # Errors
    /// As there, and when no adapter of the task is bound.
    pub async fn submit_task(
        &self,
        task: &str,
        method: &str,
        args: impl Serialize,
    ) -> Result<JobHandle, PipelineError> {
        let mut job = JobRequest::new(Target::Capability(self.spec.name.clone()));
        job.task = Some((task.to_owned(), method.to_owned()));
        job.kwargs = exact(&arguments(args)?);
        Ok(JobHandle::new(self.host.clone(), self.host.submit(job).await?))
    }

    /// What the first instance's worker and all its descendants use now; `None` when no worker lives.
    pub async fn stats(&self) -> Option<Stats> {
        let body = self.host.question(&self.instances[0], http::STATS).await?;
        serde_json::from_slice(&body).ok()
    }

    /// Ends all instances' workers and takes them out of the queue.
    ///
    /// # Errors
    /// When none is loaded.
    pub async fn unload(&self) -> Result<(), PipelineError> {
        for id in &self.instances {
            self.host.unload(id).await?;
        }
        Ok(())
    }

    /// Loads the instances again after [`Self::unload`], with another configuration when one is given.
    ///
    /// # Errors
    /// When they are loaded, or do not load.
    pub async fn load(&mut self, config: Option<Value>) -> Result<(), PipelineError> {
        if config.is_some() {
            self.spec.config = config;
        }
        for id in &self.instances {
            self.host.load(&self.spec.name, self.spec.load_options(id.clone(), self.strict)).await?;
        }
        Ok(())
    }

    /// [`Self::unload`], then [`Self::load`].
    ///
    /// # Errors
    /// As these.
    pub async fn reload(&mut self, config: Option<Value>) -> Result<(), PipelineError> {
        self.unload().await?;
        self.load(config).await
    }
}

impl Binding {
    /// Where a direct call goes.
    fn free(&self) -> &InstanceId {
        // A binding has at least one instance.
        self.host.least_busy(&self.instances).unwrap_or(&self.instances[0])
    }
}

impl std::fmt::Debug for Binding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Binding").field("name", &self.spec.name).field("instances", &self.instances).finish()
    }
}

fn result_of<T: DeserializeOwned>(body: &[u8]) -> Result<T, PipelineError> {
    serde_json::from_slice(body).map_err(|error| PipelineError::Result { message: error.to_string() })
}

fn request(action: &str, args: impl Serialize) -> Result<ExecuteRequest, PipelineError> {
    let mut kwargs = arguments(args)?;
    if !action.is_empty() {
        kwargs.insert(ACTION_KEY.to_owned(), action.into());
    }
    Ok(ExecuteRequest { kwargs, ..ExecuteRequest::default() })
}
