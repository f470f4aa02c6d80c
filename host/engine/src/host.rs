//! The host: start it, load capabilities, call them, end it. One executing host per data directory; everything it
//! started is gone when it is, however it ends.

use crate::bring_up::{StartedParts, start_parts};
use crate::catalog::{Catalog, CatalogEntry};
use crate::compositions::{CompositionHandle, CompositionOutcome};
use crate::context::Context;
use crate::error::{CallError, HostError};
use crate::events::HostEvent;
use crate::instances::Instance;
use crate::jobs::JobOutcome;
use crate::near::near;
use crate::options::{HostOptions, LoadOptions};
use crate::own_runtime::OwnRuntime;
use crate::plan::plan;
use crate::proxy::Failed;
use crate::worker::Worker;
use cjm_decide::queue::{CancelReach, QueueEvent};
use cjm_platform::lock::FileLock;
use cjm_store::{Diagnostics, SqliteDiagnostics};
use cjm_wire::composition::Composition;
use cjm_wire::envelope::ExecuteRequest;
use cjm_wire::event::{EventType, JournalRow};
use cjm_wire::runtime::Runtime;
use cjm_wire::{CompositionId, InstanceId, JobId, RunId, http};
use futures_util::StreamExt;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{broadcast, watch};

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
    /// True once the host has ended, although handles of it may live on.
    ended: watch::Sender<bool>,
    runtime: OwnRuntime,
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

impl Host {
    /// Takes the directory, ends what a dead host left there, starts the keeper.
    ///
    /// # Errors
    /// When another host has the directory, it cannot be written, or the keeper does not start.
    pub async fn start(options: HostOptions) -> Result<Self, HostError> {
        let runtime = OwnRuntime::start()?;
        let handle = runtime.handle()?.clone();
        let parts = handle.spawn(start_parts(options)).await.map_err(|_| HostError::ShuttingDown)??;
        let (context, catalog, StartedParts { diagnostics, lock, socket_dir }) = parts;
        let shared = Shared {
            catalog,
            diagnostics,
            compositions: Mutex::default(),
            lock: Mutex::new(Some(lock)),
            socket_dir,
            ended: watch::Sender::new(false),
            runtime,
        };
        Ok(Self { context, shared: Arc::new(shared) })
    }

    /// [`Self::start`] for programs without a runtime.
    ///
    /// # Errors
    /// As there.
    ///
    /// # Panics
    /// Inside a runtime, whose thread it would block.
    pub fn start_blocking(options: HostOptions) -> Result<Self, HostError> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().map_err(|source| {
            HostError::Directory { action: "start threads for", path: "the host".into(), source }
        })?;
        runtime.block_on(Self::start(options))
    }

    /// Runs a future of this host to its end on the calling thread, for programs without a runtime.
    ///
    /// # Errors
    /// When the host has ended.
    ///
    /// # Panics
    /// Inside a runtime, whose thread it would block.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> Result<T, HostError> {
        Ok(self.shared.runtime.handle()?.block_on(future))
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

    /// Committed rows, and liveness events, from now on; a slow subscriber is told how many it lost.
    #[must_use]
    pub fn rows(&self) -> cjm_store::Subscription {
        self.context.journal.subscribe()
    }

    /// Live events from now on.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<HostEvent> {
        self.context.sinks.events.subscribe()
    }

    /// Turns true when the host has ended; what happened before was told before.
    #[must_use]
    pub fn ended(&self) -> watch::Receiver<bool> {
        self.shared.ended.subscribe()
    }

    /// Loads one instance and waits until its worker is ready.
    ///
    /// # Errors
    /// When there is no such capability, the id is taken, or the worker does not start; nothing is left then.
    pub async fn load(&self, capability: &str, load: LoadOptions) -> Result<InstanceId, HostError> {
        let id = self.register(capability, &load)?;
        let instance = self.context.instance(&id).ok_or_else(|| HostError::UnknownInstance(id.clone()))?;
        let context = Arc::clone(&self.context);
        self.shared
            .runtime
            .run(async move {
                if let Err(error) = instance.ensure_worker(&context).await {
                    context.instances().remove(&id);
                    instance.unload(&context).await;
                    return Err(error.into());
                }
                Ok(id)
            })
            .await
    }

    /// Makes an instance known without starting its worker; the first call does.
    pub(crate) fn register(&self, capability: &str, load: &LoadOptions) -> Result<InstanceId, HostError> {
        let entry = self.entry(capability)?;
        let id = match load.instance_id.clone() {
            Some(id) if !InstanceId::is_valid(id.as_str()) => {
                return Err(HostError::BadInstanceId(id.to_string()));
            }
            Some(id) => id,
            None => InstanceId::from_text(capability),
        };
        let context = &self.context;
        let adapters = self.shared.catalog.adapters();
        let plan = plan(entry, adapters, id.clone(), load, &context.options, &context.worker_binary)?;
        // Unset means one, as the ancestor has it; an executable may say more of itself.
        let declared = match entry.manifest.runtime() {
            Runtime::Executable(executable) => executable.concurrency_max,
            Runtime::Python { .. } | Runtime::Native { .. } | Runtime::Channel { .. } => None,
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
        let context = Arc::clone(&self.context);
        self.shared
            .runtime
            .run(async move {
                instance.unload(&context).await;
                Ok(())
            })
            .await
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
        let worker = self.worker(id).await?;
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

    /// A call directly on one instance, in the caller's own task: no queue, no lane, no job. What the tool accounts for
    /// is journaled, and nobody waits for it. The instance's cap does not bind it.
    ///
    /// # Errors
    /// When the worker does not start, dies, or the tool fails.
    pub async fn call(
        &self,
        id: &InstanceId,
        mut request: ExecuteRequest,
    ) -> Result<bytes::Bytes, CallError> {
        let worker = self.worker(id).await?;
        request.envelope.run_id.get_or_insert_with(|| self.context.run_id.clone());
        request.envelope.actor.get_or_insert_with(|| self.context.options.actor.clone());
        let body = serde_json::to_vec(&request).unwrap_or_default();
        self.direct(id, &worker, http::EXECUTE, body).await
    }

    /// A call that is no job; what it accounts for is journaled, also when it fails.
    pub(crate) async fn direct(
        &self,
        id: &InstanceId,
        worker: &Worker,
        path: &str,
        body: Vec<u8>,
    ) -> Result<bytes::Bytes, CallError> {
        let (accounts, outcome) = match worker.call(path, body).await {
            Ok(reply) => (reply.accounts, Ok(reply.body)),
            Err(error) => (error.accounts().to_vec(), Err(error)),
        };
        for account in accounts {
            let mut row = JournalRow::new(EventType::TaskAccount, account.payload);
            row.event_type = account.event_type;
            row.worker_reported = true;
            row.capability_instance_id = Some(id.to_string());
            row.worker_session_id = Some(worker.session().to_string());
            self.context.note(row);
        }
        outcome
    }

    /// The living worker of an instance; started, on the host's own runtime, when there is none.
    pub(crate) async fn worker(&self, id: &InstanceId) -> Result<Arc<Worker>, CallError> {
        let instance = self.context.instance(id).ok_or_else(|| CallError::Connection {
            capability: id.to_string(),
            message: "no such instance is loaded".to_owned(),
        })?;
        if let Some(worker) = instance.worker() {
            return Ok(worker);
        }
        let context = Arc::clone(&self.context);
        let started = self
            .shared
            .runtime
            .run(async move { instance.ensure_worker(&context).await.map_err(HostError::from) });
        started.await.map_err(|error| match error {
            HostError::Start(error) => CallError::NotStarted(Box::new(error)),
            other => CallError::Connection { capability: id.to_string(), message: other.to_string() },
        })
    }

    /// `POST` of one of the surface's paths that take no body, such as `/get_system_status`.
    ///
    /// # Errors
    /// When the worker does not start, dies, or does not support it.
    pub async fn ask(&self, id: &InstanceId, path: &str) -> Result<bytes::Bytes, CallError> {
        let worker = self.worker(id).await?;
        Ok(worker.call(path, Vec::new()).await?.body)
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
        let host = self.clone();
        let handle = self.shared.runtime.run(crate::compositions::start(host, composition, inputs)).await?;
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
        let host = self.clone();
        let report = self.shared.runtime.run(async move { Ok::<_, HostError>(host.end().await) }).await;
        report.unwrap_or(ShutdownReport { workers_ended: 0, tree_cleared: false })
    }

    async fn end(self) -> ShutdownReport {
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
        self.shared.ended.send_replace(true);
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
}
