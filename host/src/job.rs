//! A job that was accepted: its id, its end, its result. A handle only: the job runs whether or not one exists.

use crate::PipelineError;
use cjm_engine::{Host, HostEvent, JobOutcome, JobRequest, Timeout};
use cjm_wire::describe::{ErrorReport, exit};
use cjm_wire::error::{ErrorCategory, Failure, JobError};
use cjm_wire::event::JobStatus;
use cjm_wire::{JobId, RunId};
use futures_util::Stream;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

/// What may be said of a job beside its arguments.
#[derive(Debug, Clone, Default)]
#[must_use = "options do nothing until a job is submitted with them"]
pub struct SubmitOptions {
    priority: i32,
    timeout: Option<Duration>,
    actor: Option<String>,
    run_id: Option<RunId>,
}

impl SubmitOptions {
    /// Nothing in particular.
    pub fn new() -> Self {
        Self::default()
    }

    /// Higher runs first; 0 when nothing is said.
    pub fn priority(mut self, priority: i32) -> Self {
        self.priority = priority;
        self
    }

    /// How long the job may take from its submission, waiting included; then it is stopped and ends `failed`.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Who asks for it, in its rows; the pipeline's actor when nothing is said.
    pub fn actor(mut self, actor: impl Into<String>) -> Self {
        self.actor = Some(actor.into());
        self
    }

    /// The run its rows belong to; the pipeline's when nothing is said.
    pub fn run_id(mut self, run_id: impl Into<String>) -> Self {
        self.run_id = Some(RunId::from_text(run_id));
        self
    }

    pub(crate) fn apply(self, job: JobRequest) -> JobRequest {
        let Self { priority, timeout, actor, run_id } = self;
        JobRequest { priority, timeout: timeout.map(Timeout::from), actor, run_id, ..job }
    }
}

/// How far a running job says it is.
#[derive(Debug, Clone, PartialEq)]
pub struct JobProgress {
    /// 0.0 to 1.0, or -1.0 where the tool does not know.
    pub progress: f64,
    /// What it is doing.
    pub message: String,
}

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

    /// Where it stands now: `pending`, `running`, or how it ended.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn status(&self) -> Result<JobStatus, PipelineError> {
        Ok(self.host.job_status(&self.id).await?)
    }

    /// What its tool says of its progress, from now on; the stream ends with the job, after the last of it, or with the host.
    /// A slow reader loses the oldest.
    pub fn progress(&self) -> impl Stream<Item = JobProgress> + Send + use<> {
        let over = Some(Box::pin(self.host.job_over(&self.id)));
        let id = self.id.clone();
        futures_util::stream::unfold((self.host.events(), over, id), async |(mut events, mut over, id)| {
            loop {
                let event = match &mut over {
                    Some(ends) => tokio::select! {
                        biased;
                        event = events.recv() => event,
                        () = ends => {
                            over = None;
                            continue;
                        }
                    },
                    // What was said before its end is told before it.
                    None => match events.try_recv() {
                        Ok(event) => Ok(event),
                        Err(TryRecvError::Lagged(count)) => Err(RecvError::Lagged(count)),
                        Err(TryRecvError::Empty | TryRecvError::Closed) => return None,
                    },
                };
                match event {
                    Ok(HostEvent::Progress { job_id: Some(of), progress, message, .. }) if of == id => {
                        return Some((JobProgress { progress, message }, (events, over, id)));
                    }
                    Ok(_) | Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return None,
                }
            }
        })
    }

    /// Waits until it has ended, in whatever way and however long ago.
    ///
    /// # Errors
    /// When the host ends before it does.
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
