//! Into the queue: a request becomes a job that is durable before its id is given out.

use crate::deadlines::Timeout;
use crate::error::HostError;
use crate::host::Host;
use crate::own_runtime::Enduring;
use crate::queue::state::{ActiveJob, ElementHook};
use cjm_decide::queue::Target;
use cjm_store::{Body, Commit, JobRecord, Write, rows};
use cjm_wire::envelope::{ACTION_KEY, CallEnvelope};
use cjm_wire::json::{Arguments, Json};
use cjm_wire::{CompositionId, JobId, RunId, Timestamp, http};
use serde_json::{Map, Value};
use std::sync::{Arc, Mutex, OnceLock};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What to run.
#[derive(Debug, Clone)]
pub struct JobRequest {
    /// Whom it is for.
    pub target: Target,
    /// The tool's action.
    pub action: Option<String>,
    /// A method of a task adapter instead: task and method.
    pub task: Option<(String, String)>,
    /// Positional arguments.
    pub args: Vec<Value>,
    /// Named arguments.
    pub kwargs: Arguments,
    /// Higher runs first.
    pub priority: i32,
    /// How long it may take from its submission, waiting included; [`HostOptions::call_timeout`] when absent.
    ///
    /// [`HostOptions::call_timeout`]: cjm_workers::HostOptions::call_timeout
    pub timeout: Option<Timeout>,
    /// Who asks for it; the host's own actor when absent.
    pub actor: Option<String>,
    /// The run its rows belong to; the host's own when absent.
    pub run_id: Option<RunId>,
    /// Flags of this call.
    pub control: Map<String, Value>,
}

impl JobRequest {
    /// A call of `target` with nothing said.
    #[must_use]
    pub fn new(target: Target) -> Self {
        Self {
            target,
            action: None,
            task: None,
            args: Vec::new(),
            kwargs: Arguments::new(),
            priority: 0,
            timeout: None,
            actor: None,
            run_id: None,
            control: Map::new(),
        }
    }
}

/// [`cjm_wire::envelope::ExecuteRequest`] with its named arguments as text.
#[derive(serde::Serialize)]
struct ExecuteBody<'a> {
    args: &'a [Value],
    kwargs: Arguments,
    envelope: CallEnvelope,
}

/// [`cjm_wire::envelope::TaskRequest`] with its named arguments as text.
#[derive(serde::Serialize)]
struct TaskBody<'a> {
    task: &'a str,
    method: &'a str,
    kwargs: Arguments,
    envelope: CallEnvelope,
}

/// A composition's element on its way into the queue.
pub(crate) struct ElementJob {
    pub(crate) request: JobRequest,
    pub(crate) composition: CompositionId,
    pub(crate) hook: ElementHook,
}

impl Host {
    /// Accepts a job: returns once it is durable. A caller who goes away before has either submitted nothing, or a job
    /// that runs.
    ///
    /// # Errors
    /// When too many wait, the host is ending, or the journal refuses.
    pub async fn submit(&self, request: JobRequest) -> Result<JobId, HostError> {
        let mut ids = self.submit_all(vec![(request, None, None)]).await?;
        ids.pop().ok_or(HostError::ShuttingDown)
    }

    /// Accepts the elements of a composition in one commit.
    pub(crate) async fn submit_elements(&self, elements: Vec<ElementJob>) -> Result<Vec<JobId>, HostError> {
        let jobs = elements.into_iter().map(|e| (e.request, Some(e.composition), Some(e.hook))).collect();
        self.submit_all(jobs).await
    }

    async fn submit_all(
        &self,
        requests: Vec<(JobRequest, Option<CompositionId>, Option<ElementHook>)>,
    ) -> Result<Vec<JobId>, HostError> {
        if self.services().closing.is_cancelled() {
            return Err(HostError::ShuttingDown);
        }
        for (request, _, _) in &requests {
            if let Some((task, _)) = &request.task {
                self.check_bound(&request.target, task)?;
            }
        }
        let place = self.jobs().take_places(requests.len())?;
        let mut commit = Commit::admitting();
        let mut jobs = Vec::with_capacity(requests.len());
        for (request, composition, hook) in requests {
            let (job, arguments) = self.job_of(request, composition, hook);
            let record = job.record().clone();
            commit = commit.row(rows::pending(&record)).write(Write::InsertJob(Box::new(record), arguments));
            jobs.push(job);
        }
        let runner = self.runner().clone();
        // Once the commit is queued nothing takes it back, so what follows it must follow, whoever waits.
        let (runtime, tasks) = (self.runtime().handle()?, &self.services().tasks);
        Enduring::new(runtime, tasks, CancellationToken::new(), async move {
            runner.services.journal.commit(commit).await?;
            let ids = jobs.iter().map(|job| job.id.clone()).collect();
            runner.jobs.submitted(jobs, place);
            Ok(ids)
        })
        .await
        // Nobody takes it away.
        .unwrap_or(Err(HostError::ShuttingDown))
    }

    /// The capability of a target, as far as it is known.
    fn capability_of(&self, target: &Target) -> String {
        match target {
            Target::Capability(name) => name.clone(),
            Target::Instance(id) => {
                self.instances().get(id).map_or_else(|| id.to_string(), |found| found.plan.capability.clone())
            }
        }
    }

    fn job_of(
        &self,
        request: JobRequest,
        composition: Option<CompositionId>,
        mut element: Option<ElementHook>,
    ) -> (Arc<ActiveJob>, Body) {
        let services = self.services();
        let id = JobId::new();
        let run_id = request.run_id.unwrap_or_else(|| services.run_id.clone());
        let actor = request.actor.unwrap_or_else(|| services.options.actor.clone());
        let capability = self.capability_of(&request.target);
        let envelope = CallEnvelope {
            job_id: Some(id.clone()),
            run_id: Some(run_id.clone()),
            composition_id: composition.clone(),
            node_id: element.as_ref().map(|hook| hook.node.clone()),
            actor: Some(actor.clone()),
            control: request.control.clone(),
        };
        let mut record = JobRecord::new(id.clone(), capability, Timestamp::now());
        record.target = match &request.target {
            Target::Capability(name) => name.clone(),
            Target::Instance(instance) => instance.to_string(),
        };
        record.composition_id = composition;
        record.node_id.clone_from(&envelope.node_id);
        record.element_index = element.as_ref().and_then(|hook| u32::try_from(hook.element).ok());
        record.run_id = Some(run_id);
        record.actor = Some(actor);
        record.action.clone_from(&request.action);
        record.priority = request.priority;
        record.control.clone_from(&request.control);
        // An element's arguments were bound as text.
        let mut kwargs = element.as_mut().map(|hook| std::mem::take(&mut hook.kwargs)).unwrap_or_default();
        kwargs.extend(request.kwargs);
        if let Some(action) = request.action {
            kwargs.insert(ACTION_KEY.to_owned(), Json::of(action));
        }
        let (path, body) = match request.task {
            Some((task, method)) => {
                record.task_name = Some(task.clone());
                record.method = Some(method.clone());
                (http::TASK, serde_json::to_vec(&TaskBody { task: &task, method: &method, kwargs, envelope }))
            }
            None => {
                (http::EXECUTE, serde_json::to_vec(&ExecuteBody { args: &request.args, kwargs, envelope }))
            }
        };
        // Serialising our own structs cannot fail.
        let body = body.unwrap_or_default();
        let active = ActiveJob {
            id,
            target: request.target,
            path,
            body: body.clone(),
            record: Mutex::new(record),
            worker_pid: Mutex::default(),
            timeout: request.timeout.unwrap_or_else(|| services.options.call_timeout.into()),
            outcome: watch::Sender::new(None),
            stopped_for: OnceLock::new(),
            stopping: CancellationToken::new(),
            keeps_open: Mutex::default(),
            element,
        };
        (Arc::new(active), Body::Inline(body))
    }
}
