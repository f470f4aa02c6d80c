//! The host: start it, load capabilities, call them, end it. One executing host per data directory; everything it
//! started is gone when it is, however it ends.

use crate::catalog::{Catalog, CatalogEntry};
use crate::compositions::{CompositionHandle, CompositionOutcome};
use crate::context::{Context, start_keeper};
use crate::error::{CallError, HostError};
use crate::events::{EVENTS_BEHIND_MAX, HostEvent};
use crate::instances::Instance;
use crate::jobs::{ActiveJob, Command, ElementHook, JobOutcome, own_queue};
use crate::options::{HostOptions, LoadOptions};
use crate::plan::plan;
use crate::programs::worker_binary;
use crate::proxy::Failed;
use crate::sinks::Sinks;
use cjm_decide::queue::{CancelReach, PENDING_MAX_DEFAULT, QueueEvent, QueueLimits, Target};
use cjm_platform::lock::FileLock;
use cjm_platform::runtime_dir::{private_dir, runtime_dir};
use cjm_store::{
    Body, Commit, Diagnostics, HostRecord, JobRecord, Journal, JournalOptions, JournalReader,
    SqliteDiagnostics, SqliteJournal, Write, begin_host, rows,
};
use cjm_wire::composition::Composition;
use cjm_wire::envelope::{ACTION_KEY, CallEnvelope, ExecuteRequest, TaskRequest};
use cjm_wire::runtime::Runtime;
use cjm_wire::{CompositionId, InstanceId, JobId, RunId, Timestamp, http};
use futures_util::StreamExt;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{broadcast, mpsc, watch};

/// Names offered for an unknown one.
const NEAR_NAMES_MAX: usize = 3;

/// A running host; clones are the same host.
#[derive(Clone)]
pub struct Host {
    context: Arc<Context>,
    shared: Arc<Shared>,
}

struct Shared {
    catalog: Catalog,
    diagnostics: Arc<SqliteDiagnostics>,
    compositions: Mutex<HashMap<CompositionId, CompositionHandle>>,
    /// Released when the host has ended.
    lock: Mutex<Option<FileLock>>,
    socket_dir: PathBuf,
}

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
    pub kwargs: Map<String, Value>,
    /// Higher runs first.
    pub priority: i32,
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
            kwargs: Map::new(),
            priority: 0,
            control: Map::new(),
        }
    }
}

/// What a shutdown did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShutdownReport {
    /// Workers that were ended.
    pub workers_ended: usize,
    /// Whether the keeper confirmed that nothing is left.
    pub tree_cleared: bool,
}

/// Chunks of a streamed call, as they come.
pub type ChunkStream = Pin<Box<dyn futures_util::Stream<Item = Result<Box<RawValue>, CallError>> + Send>>;

/// A composition's element on its way into the queue.
pub(crate) struct ElementJob {
    pub(crate) request: JobRequest,
    pub(crate) composition: CompositionId,
    pub(crate) hook: ElementHook,
}

impl Host {
    /// Takes the directory, ends what a dead host left there, starts the keeper.
    ///
    /// # Errors
    /// When another host has the directory, it cannot be written, or the keeper does not start.
    pub async fn start(mut options: HostOptions) -> Result<Self, HostError> {
        let worker_binary = worker_binary(options.worker_binary.as_deref())?;
        let directory = options.data_dir.clone();
        let opened = tokio::task::spawn_blocking(move || open(&directory));
        let Opened { directory, lock, journal, diagnostics, socket_dir } =
            opened.await.unwrap_or(Err(HostError::ShuttingDown))?;
        // Workers get absolute paths, whatever directory they or the host stand in.
        options.data_dir = directory;
        let keeper = start_keeper(&options, worker_binary.clone()).await?;
        let host_session = RunId::new().to_string();
        let journal = begin(journal, &options.data_dir, &host_session).await?;
        let (events, _) = broadcast::channel(EVENTS_BEHIND_MAX);
        let (queue, commands) = mpsc::unbounded_channel();
        let limits =
            QueueLimits { lanes: u32::try_from(options.lanes).unwrap_or(u32::MAX), ..QueueLimits::default() };
        let gate = journal.gate();
        let catalog = Catalog::discover(&options.manifest_dirs);
        let sinks = Arc::new(Sinks { diagnostics: Arc::clone(&diagnostics) as Arc<dyn Diagnostics>, events });
        let context = Arc::new(Context {
            run_id: options.run_id.clone().unwrap_or_default(),
            options,
            journal,
            sinks,
            runtime_dir: socket_dir.clone(),
            worker_binary,
            host_session,
            queue,
            waiting: 0.into(),
            keeper: tokio::sync::Mutex::new(Some(Arc::new(keeper))),
            instances: Mutex::default(),
            active: Mutex::default(),
            finished: Mutex::default(),
        });
        tokio::spawn(own_queue(Arc::downgrade(&context), commands, limits, gate));
        let shared = Arc::new(Shared {
            catalog,
            diagnostics,
            compositions: Mutex::default(),
            lock: Mutex::new(Some(lock)),
            socket_dir,
        });
        Ok(Self { context, shared })
    }

    /// What was found in the manifest directories when the host started.
    #[must_use]
    pub fn catalog(&self) -> &Catalog {
        &self.shared.catalog
    }

    /// The run this host's rows belong to.
    #[must_use]
    pub fn run_id(&self) -> &RunId {
        &self.context.run_id
    }

    /// Live events from now on.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<HostEvent> {
        self.context.sinks.events.subscribe()
    }

    /// Loads one instance and waits until its worker is ready.
    ///
    /// # Errors
    /// When there is no such capability, the id is taken, or the worker does not start; nothing is left then.
    pub async fn load(&self, capability: &str, load: LoadOptions) -> Result<InstanceId, HostError> {
        let id = self.register(capability, load)?;
        let instance = self.context.instance(&id).ok_or_else(|| HostError::UnknownInstance(id.clone()))?;
        if let Err(error) = instance.ensure_worker(&self.context).await {
            self.context.instances().remove(&id);
            instance.unload(&self.context).await;
            return Err(error.into());
        }
        Ok(id)
    }

    /// Makes an instance known without starting its worker; the first call does.
    pub(crate) fn register(&self, capability: &str, load: LoadOptions) -> Result<InstanceId, HostError> {
        let entry = self.entry(capability)?;
        let id = match load.instance_id {
            Some(id) if !InstanceId::is_valid(id.as_str()) => {
                return Err(HostError::BadInstanceId(id.to_string()));
            }
            Some(id) => id,
            None => InstanceId::from_text(capability),
        };
        let context = &self.context;
        let plan = plan(entry, id.clone(), load.config.as_ref(), &context.options, &context.worker_binary)?;
        // Unset means one, as the ancestor has it; an executable may say more of itself.
        let declared = match entry.manifest.runtime() {
            Runtime::Executable(executable) => executable.concurrency_max,
            Runtime::Python {} | Runtime::Native { .. } => None,
        };
        let concurrency_max = load.concurrency_max.or(declared).unwrap_or(1).max(1);
        let instance = Arc::new(Instance::new(plan, concurrency_max));
        {
            let mut instances = context.instances();
            if instances.contains_key(&id) {
                return Err(HostError::InstanceExists(id));
            }
            instances.insert(id.clone(), Arc::clone(&instance));
        }
        instance.announce(context);
        Ok(id)
    }

    /// True when an instance of this id is loaded.
    #[must_use]
    pub fn is_loaded(&self, id: &InstanceId) -> bool {
        self.context.instance(id).is_some()
    }

    /// Ends an instance's worker and forgets the instance.
    ///
    /// # Errors
    /// When there is none.
    pub async fn unload(&self, id: &InstanceId) -> Result<(), HostError> {
        let instance = self.context.instances().remove(id);
        let instance = instance.ok_or_else(|| HostError::UnknownInstance(id.clone()))?;
        instance.unload(&self.context).await;
        Ok(())
    }

    /// Accepts a job: returns once it is durable.
    ///
    /// # Errors
    /// When too many wait, or the journal refuses.
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
        let context = &self.context;
        let asked = requests.len();
        let before = context.waiting.fetch_add(asked, Ordering::AcqRel);
        // The queue itself refuses nothing that is committed, so the count is kept here.
        if before + asked > PENDING_MAX_DEFAULT {
            context.waiting.fetch_sub(asked, Ordering::AcqRel);
            return Err(HostError::Refused(format!(
                "{before} jobs wait already, and {PENDING_MAX_DEFAULT} may"
            )));
        }
        let mut commit = Commit::admitting();
        let mut jobs = Vec::with_capacity(asked);
        for (request, composition, hook) in requests {
            let (job, arguments) = self.job_of(request, composition, hook);
            let record = job.record().clone();
            commit = commit.row(rows::pending(&record)).write(Write::InsertJob(Box::new(record), arguments));
            jobs.push(job);
        }
        if let Err(error) = context.journal.commit(commit).await {
            context.waiting.fetch_sub(asked, Ordering::AcqRel);
            return Err(error.into());
        }
        let ids = jobs.iter().map(|job| job.id.clone()).collect();
        for job in jobs {
            // Known before the queue knows it, so that a waiter finds it at once.
            context.active().insert(job.id.clone(), Arc::clone(&job));
            context.queue.send(Command::Submitted(job)).map_err(|_| HostError::ShuttingDown)?;
        }
        Ok(ids)
    }

    /// Waits for the end of a job.
    ///
    /// # Errors
    /// When this host knows no such job.
    pub async fn wait(&self, job: &JobId) -> Result<Arc<JobOutcome>, HostError> {
        let active = self.context.active().get(job).cloned();
        if let Some(active) = active {
            let mut outcome = active.outcome.subscribe();
            if let Ok(outcome) = outcome.wait_for(Option::is_some).await
                && let Some(outcome) = outcome.clone()
            {
                return Ok(outcome);
            }
        }
        self.context.finished().get(job).ok_or_else(|| HostError::UnknownJob(job.clone()))
    }

    /// Asks for the end of a job; its outcome says what came of it. A job that has ended stays as it is.
    pub fn cancel(&self, job: &JobId) {
        self.context.tell_queue(QueueEvent::CancelRequested { job: job.clone(), reach: CancelReach::Any });
    }

    pub(crate) fn cancel_pending(&self, job: &JobId) {
        self.context
            .tell_queue(QueueEvent::CancelRequested { job: job.clone(), reach: CancelReach::PendingOnly });
    }

    /// A streamed call, directly on one instance: its rows are not awaited, and it takes no lane.
    ///
    /// # Errors
    /// When the worker does not start or refuses the call.
    pub async fn call_stream(
        &self,
        id: &InstanceId,
        mut request: ExecuteRequest,
    ) -> Result<ChunkStream, CallError> {
        let instance = self.context.instance(id).ok_or_else(|| CallError::Connection {
            capability: id.to_string(),
            message: "no such instance is loaded".to_owned(),
        })?;
        let worker = instance
            .ensure_worker(&self.context)
            .await
            .map_err(|error| CallError::NotStarted(Box::new(error)))?;
        request.envelope.run_id.get_or_insert_with(|| self.context.run_id.clone());
        request.envelope.actor.get_or_insert_with(|| self.context.options.actor.clone());
        let body = serde_json::to_vec(&request).unwrap_or_default();
        let stream = worker.stream(body).await?;
        Ok(Box::pin(stream.then(move |item| {
            let worker = Arc::clone(&worker);
            async move {
                match item {
                    Ok(chunk) => Ok(chunk),
                    Err(Failed::Answer(error)) => Err(worker.explain(Failed::Answer(error)).await),
                    Err(connection) => Err(worker.explain(connection).await),
                }
            }
        })))
    }

    /// A question about the state of an instance's worker: `GET` of one of the surface's paths. `None` when no worker
    /// lives or it does not answer.
    pub async fn question(&self, id: &InstanceId, path: &str) -> Option<bytes::Bytes> {
        self.context.instance(id)?.worker()?.question(path).await
    }

    /// Accepts a composition: loads what it needs, then runs it.
    ///
    /// # Errors
    /// When it is malformed, its graph is not one, or a capability does not load.
    pub async fn submit_composition(
        &self,
        composition: Composition,
        inputs: Map<String, Value>,
    ) -> Result<CompositionId, HostError> {
        let handle = crate::compositions::start(self.clone(), composition, inputs).await?;
        let id = handle.id.clone();
        self.compositions().insert(id.clone(), handle);
        Ok(id)
    }

    /// Waits for the end of a composition.
    ///
    /// # Errors
    /// When this host knows none with this id.
    pub async fn wait_composition(&self, id: &CompositionId) -> Result<Arc<CompositionOutcome>, HostError> {
        let unknown = || HostError::UnknownComposition(id.clone());
        let mut outcome =
            self.compositions().get(id).map(|handle| handle.outcome.clone()).ok_or_else(unknown)?;
        let ended = outcome.wait_for(Option::is_some).await.map_err(|_| HostError::ShuttingDown)?;
        ended.clone().ok_or(HostError::ShuttingDown)
    }

    /// Asks for the end of a composition.
    pub fn cancel_composition(&self, id: &CompositionId) {
        if let Some(handle) = self.compositions().get(id) {
            handle.cancel();
        }
    }

    /// Ends every worker, the keeper and the stores. Jobs that run are cut off; the next host marks them.
    pub async fn shutdown(self) -> ShutdownReport {
        let instances: Vec<Arc<Instance>> =
            self.context.instances().drain().map(|(_, instance)| instance).collect();
        let workers_ended = instances.iter().filter(|instance| instance.worker().is_some()).count();
        let context = &self.context;
        futures_util::future::join_all(instances.iter().map(|instance| instance.unload(context))).await;
        let keeper = context.keeper.lock().await.take();
        let tree_cleared = match keeper {
            Some(keeper) => keeper.shutdown().await,
            None => true,
        };
        let (journal, diagnostics) = (Arc::clone(&context.journal), Arc::clone(&self.shared.diagnostics));
        let socket_dir = self.shared.socket_dir.clone();
        let closing = tokio::task::spawn_blocking(move || {
            journal.close();
            diagnostics.close();
            // Sockets of workers that are gone; the directory is made anew by the next host.
            let _ = std::fs::remove_dir_all(socket_dir);
        });
        // A panic in closing was reported by its thread; the lock is released all the same.
        let _ = closing.await;
        self.shared.lock.lock().unwrap_or_else(PoisonError::into_inner).take();
        ShutdownReport { workers_ended, tree_cleared }
    }

    pub(crate) fn context(&self) -> &Arc<Context> {
        &self.context
    }

    fn compositions(&self) -> std::sync::MutexGuard<'_, HashMap<CompositionId, CompositionHandle>> {
        self.shared.compositions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is such a capability, with the error that says why not.
    pub(crate) fn check(&self, capability: &str) -> Result<(), HostError> {
        self.entry(capability).map(|_| ())
    }

    fn entry(&self, capability: &str) -> Result<&CatalogEntry, HostError> {
        if let Some(entry) = self.shared.catalog.get(capability) {
            return Ok(entry);
        }
        if let Some(problem) = self.shared.catalog.problem_of(capability) {
            return Err(HostError::BrokenManifest {
                name: capability.to_owned(),
                path: problem.path.clone(),
                message: problem.error.to_string(),
            });
        }
        let names = self.shared.catalog.entries().map(|entry| entry.manifest.code.name.as_str());
        Err(HostError::UnknownCapability { name: capability.to_owned(), near: near(capability, names) })
    }

    fn job_of(
        &self,
        request: JobRequest,
        composition: Option<CompositionId>,
        element: Option<ElementHook>,
    ) -> (Arc<ActiveJob>, Body) {
        let context = &self.context;
        let id = JobId::new();
        let capability = match &request.target {
            Target::Capability(name) => name.clone(),
            Target::Instance(instance) => {
                context.instance(instance).map_or_else(|| instance.to_string(), |i| i.plan.capability.clone())
            }
        };
        let envelope = CallEnvelope {
            job_id: Some(id.clone()),
            run_id: Some(context.run_id.clone()),
            composition_id: composition.clone(),
            node_id: element.as_ref().map(|hook| hook.node.clone()),
            actor: Some(context.options.actor.clone()),
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
        record.run_id = Some(context.run_id.clone());
        record.actor = Some(context.options.actor.clone());
        record.action.clone_from(&request.action);
        record.priority = request.priority;
        record.control.clone_from(&request.control);
        let mut kwargs = request.kwargs;
        if let Some(action) = request.action {
            kwargs.insert(ACTION_KEY.to_owned(), Value::String(action));
        }
        let (path, body) = match request.task {
            Some((task, method)) => {
                record.task_name = Some(task.clone());
                record.method = Some(method.clone());
                (http::TASK, serde_json::to_vec(&TaskRequest { task, method, kwargs, envelope }))
            }
            None => {
                (http::EXECUTE, serde_json::to_vec(&ExecuteRequest { args: request.args, kwargs, envelope }))
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
            outcome: watch::Sender::new(None),
            element,
        };
        (Arc::new(active), Body::Inline(body))
    }
}

struct Opened {
    directory: PathBuf,
    lock: FileLock,
    journal: SqliteJournal,
    diagnostics: Arc<SqliteDiagnostics>,
    socket_dir: PathBuf,
}

/// Locks the directory and opens what is in it. Blocks.
fn open(directory: &Path) -> Result<Opened, HostError> {
    let failed = |action| {
        let path = directory.to_owned();
        move |source| HostError::Directory { action, path, source }
    };
    std::fs::create_dir_all(directory).map_err(failed("make"))?;
    let directory = std::fs::canonicalize(directory).map_err(failed("find"))?;
    let xdg = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let base = runtime_dir(xdg.as_deref())?;
    // Named by the data directory, so that the next host on it can wipe what a dead one left.
    let hash = cjm_wire::canonical::canonical_hash_of(&Value::String(directory.display().to_string()));
    let socket_dir = base.join(hash.trim_start_matches("sha256:").get(..12).unwrap_or("host"));
    let owner = format!("pid {} since {}", std::process::id(), Timestamp::now());
    let lock = FileLock::try_acquire(
        &directory.join("host.lock"),
        &format!("{owner}, sockets in {}", socket_dir.display()),
    )
    .map_err(|error| HostError::from_lock(error, directory.clone()))?;
    match std::fs::remove_dir_all(&socket_dir) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            return Err(HostError::Directory { action: "clear", path: socket_dir, source });
        }
        Ok(()) | Err(_) => {}
    }
    private_dir(&socket_dir)?;
    let journal = SqliteJournal::open(&directory, JournalOptions::default())?;
    let diagnostics = Arc::new(SqliteDiagnostics::open(&directory)?);
    Ok(Opened { directory, lock, journal, diagnostics, socket_dir })
}

/// Writes down that this host began, and ends what a dead one left unfinished; it runs none of it again.
async fn begin(
    journal: SqliteJournal,
    data_dir: &Path,
    host_session: &str,
) -> Result<Arc<dyn Journal>, HostError> {
    let now = Timestamp::now();
    let host = HostRecord {
        host_session_id: host_session.to_owned(),
        pid: std::process::id(),
        started_at: now.clone(),
    };
    let data_dir = data_dir.to_owned();
    let blocking = tokio::task::spawn_blocking(move || {
        let reader = JournalReader::open(&data_dir)?;
        let recovered = begin_host(&journal, &reader, &host, &now)?;
        // The dead host's keeper has let go of the tree lock, so its workers are gone.
        for worker in recovered.workers {
            journal.commit_blocking(
                Commit::telling().write(Write::WorkerEnded(worker.worker_session_id, now.clone())),
            )?;
        }
        let (jobs, compositions) = (recovered.jobs.len(), recovered.compositions.len());
        if jobs + compositions > 0 {
            tracing::info!(jobs, compositions, "ended what a dead host left unfinished");
        }
        Ok(Arc::new(journal) as Arc<dyn Journal>)
    });
    blocking.await.unwrap_or(Err(HostError::ShuttingDown))
}

/// Names that share a beginning or most letters with `name`.
fn near<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut scored: Vec<(usize, &str)> = known
        .map(|candidate| (distance(name, candidate), candidate))
        .filter(|(d, c)| *d <= 1 + c.len().max(name.len()) / 3)
        .collect();
    scored.sort();
    scored.into_iter().take(NEAR_NAMES_MAX).map(|(_, candidate)| candidate.to_owned()).collect()
}

/// Edits that turn `a` into `b`.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_offered() {
        let known = ["ffmpeg-convert", "speech-detector", "speech-recognizer"];
        assert_eq!(near("ffmpeg-covert", known.into_iter()), ["ffmpeg-convert"]);
        assert_eq!(near("speech-detect", known.into_iter()), ["speech-detector"]);
        assert!(near("zzz", known.into_iter()).is_empty());
    }
}
