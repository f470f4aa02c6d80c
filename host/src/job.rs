//! A job that was accepted: its id, its end, its result. A handle only: the job runs whether or not one exists.

use crate::PipelineError;
use cjm_engine::{Host, JobOutcome};
use cjm_wire::JobId;
use cjm_wire::describe::{ErrorReport, exit};
use cjm_wire::error::{ErrorCategory, Failure, JobError};
use cjm_wire::event::JobStatus;
use serde::de::DeserializeOwned;
use std::sync::Arc;

/// Handle of one accepted job. Dropping it changes nothing: the job runs on.
#[derive(Clone)]
pub struct JobHandle {
    host: Host,
    id: JobId,
}

impl JobHandle {
    pub(crate) fn new(host: Host, id: JobId) -> Self {
        Self { host, id }
    }

    /// Its id, the same in journal, logs and events.
    #[must_use]
    pub fn id(&self) -> &JobId {
        &self.id
    }

    /// Asks for its end; what came of it is told by [`Self::outcome`]. A tool that cooperates ends `cancelled`.
    pub fn cancel(&self) {
        self.host.cancel(&self.id);
    }

    /// Waits until it has ended, in whatever way.
    ///
    /// # Errors
    /// When the host has ended.
    pub async fn outcome(&self) -> Result<Arc<JobOutcome>, PipelineError> {
        Ok(self.host.wait(&self.id).await?)
    }

    /// Waits for its result.
    ///
    /// # Errors
    /// When it ended otherwise than completed, or the result is not a `T`.
    pub async fn result<T: DeserializeOwned>(&self) -> Result<T, PipelineError> {
        let outcome = self.outcome().await?;
        match (outcome.status, &outcome.result) {
            (JobStatus::Completed, Some(body)) => serde_json::from_slice(body)
                .map_err(|error| PipelineError::Result { message: error.to_string() }),
            _ => {
                let failure = outcome.failure.clone().unwrap_or_else(|| cancelled(&self.id));
                Err(PipelineError::Job { failure: Box::new(failure) })
            }
        }
    }
}

impl std::fmt::Debug for JobHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("JobHandle").field(&self.id).finish()
    }
}

fn cancelled(id: &JobId) -> Failure {
    let message = format!("job {id} was cancelled");
    let error = JobError { retriable: false, ..JobError::new(ErrorCategory::Transient, message.clone()) };
    let report = ErrorReport {
        code: "job.cancelled".to_owned(),
        message,
        causes: Vec::new(),
        next_step: "submit it again when it is wanted".to_owned(),
        stderr_tail: Vec::new(),
        exit_code: exit::CANCELLED,
        details: Box::default(),
    }
    .with_job_error(&error)
    .of_job(id.clone(), None);
    Failure { error, report }
}
