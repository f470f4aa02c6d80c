//! A pipeline for programs without a runtime. Every method blocks the calling thread; none may be called inside a
//! runtime. The host's own threads do the work, so the thread that made the pipeline may end before it.

use crate::{Binding, JobHandle, Pipeline, PipelineError};
use cjm_engine::{CompositionOutcome, ShutdownReport};
use cjm_wire::composition::Composition;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::sync::Arc;

/// A [`Pipeline`] whose calls block.
#[derive(Debug)]
pub struct BlockingPipeline {
    pipeline: Pipeline,
}

impl BlockingPipeline {
    pub(crate) fn new(pipeline: Pipeline) -> Self {
        Self { pipeline }
    }

    /// The pipeline itself, for what does not block: bindings, failures, job ids.
    #[must_use]
    pub fn pipeline(&self) -> &Pipeline {
        &self.pipeline
    }

    /// See [`Binding::call`].
    ///
    /// # Errors
    /// As there; also when there is no such binding.
    pub fn call<T: DeserializeOwned>(
        &self,
        capability: &str,
        action: &str,
        args: impl Serialize,
    ) -> Result<T, PipelineError> {
        let binding = self.pipeline.binding(capability)?;
        self.pipeline.host().block_on(binding.call(action, args))?
    }

    /// See [`Binding::submit`].
    ///
    /// # Errors
    /// As there; also when there is no such binding.
    pub fn submit(
        &self,
        capability: &str,
        action: &str,
        args: impl Serialize,
    ) -> Result<JobHandle, PipelineError> {
        let binding: &Binding = self.pipeline.binding(capability)?;
        self.pipeline.host().block_on(binding.submit(action, args))?
    }

    /// See [`JobHandle::result`].
    ///
    /// # Errors
    /// As there.
    pub fn result<T: DeserializeOwned>(&self, job: &JobHandle) -> Result<T, PipelineError> {
        self.pipeline.host().block_on(job.result())?
    }

    /// See [`Pipeline::run`].
    ///
    /// # Errors
    /// As there.
    pub fn run(
        &self,
        composition: Composition,
        inputs: Map<String, Value>,
    ) -> Result<Arc<CompositionOutcome>, PipelineError> {
        self.pipeline.host().block_on(self.pipeline.run(composition, inputs))?
    }

    /// See [`Pipeline::shutdown`].
    pub fn shutdown(self) -> ShutdownReport {
        let host = self.pipeline.host().clone();
        host.block_on(self.pipeline.shutdown())
            .unwrap_or(ShutdownReport { workers_ended: 0, tree_cleared: false })
    }
}
