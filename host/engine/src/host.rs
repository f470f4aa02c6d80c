//! The host: start it, load capabilities, call them, end it. One executing host per data directory; everything it
//! started is gone when it is, however it ends.

use crate::bring_up::{HostLocks, StartedParts, start_parts};
use crate::compositions::state::CompositionHandle;
use crate::deadlines::{Limit, Timeout};
use crate::direct_call::{Caller, Calling, Words};
use crate::error::HostError;
use crate::instances::{Instance, Instances, NoWorker, NotAdded};
use crate::lookup::find;
use crate::own_runtime::{Enduring, OwnRuntime};
use crate::queue::attempt::Runner;
use crate::queue::state::{JobOutcome, Jobs};
use crate::services::Services;
use crate::streamed_call::StreamedCall;
use cjm_catalog::{Catalog, CatalogEntry};
use cjm_decide::death::OwnKill;
use cjm_decide::queue::{CancelReach, QueueEvent};
use cjm_platform::mounts::remove_tree;
use cjm_platform::runtime_dir::folder_in_tmp;
use cjm_store::Diagnostics;
use cjm_wire::envelope::{CallEnvelope, ExecuteRequest};
use cjm_wire::error::Failure;
use cjm_wire::event::JobStatus;
use cjm_wire::runtime::Runtime;
use cjm_wire::{CompositionId, InstanceId, JobId, RunId, http};
use cjm_workers::{CallError, ChunkStream, HostEvent, HostOptions, LoadOptions, plan};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;

/// How long an ending host waits for jobs that were cut off and for rows of deaths.
const TASKS_END_MAX: Duration = Duration::from_secs(3);
/// How long it waits for direct calls that their callers do not look at.
const CALLERS_END_MAX: Duration = Duration::from_millis(500);

/// A running host; clones are the same host.
#[derive(Clone)]
pub struct Host {
    runner: Runner,
    shared: Arc<Shared>,
}

struct Shared {
    catalog: Catalog,
    diagnostics: Arc<dyn Diagnostics>,
    compositions: Mutex<HashMap<CompositionId, CompositionHandle>>,
    /// Released when the host has ended.
    lock: Mutex<Option<HostLocks>>,
    socket_dir: PathBuf,
    /// What plans of workers start.
    worker_binary: PathBuf,
    /// True once the host has ended, although handles of it may live on.
    ended: watch::Sender<bool>,
    runtime: OwnRuntime,
}

/// What the simulator makes a host of.
#[cfg(test)]
pub(crate) struct SimulatedParts {
    pub(crate) runner: Runner,
    pub(crate) catalog: Catalog,
    pub(crate) diagnostics: Arc<dyn Diagnostics>,
    pub(crate) directory: PathBuf,
}

/// What a shutdown did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShutdownReport {
    /// Workers that were ended.
    pub workers_ended: usize,
    /// Whether the keeper confirmed that nothing is left.
    pub tree_cleared: bool,
}

impl Host {
    /// Takes the directory, ends what a dead host left there, starts the keeper.
    ///
    /// # Errors
    /// When another host has the directory, it cannot be written, or the keeper does not start.
    pub async fn start(options: HostOptions) -> Result<Self, HostError> {
        let runtime = OwnRuntime::start()?;
        let handle = runtime.handle()?.clone();
        let parts = handle.spawn(start_parts(options)).await.map_err(|_| HostError::ShuttingDown)??;
        let (runner, catalog, StartedParts { diagnostics, lock, socket_dir, worker_binary }) = parts;
        let shared = Shared {
            catalog,
            diagnostics,
            compositions: Mutex::default(),
            lock: Mutex::new(Some(lock)),
            socket_dir,
            worker_binary,
            ended: watch::Sender::new(false),
            runtime,
        };
        Ok(Self { runner, shared: Arc::new(shared) })
    }

    /// A host over workers and stores that are simulated, on the runtime this is called in.
    #[cfg(test)]
    pub(crate) fn simulated(parts: SimulatedParts) -> Self {
        let SimulatedParts { runner, catalog, diagnostics, directory } = parts;
        let shared = Shared {
            catalog,
            diagnostics,
            compositions: Mutex::default(),
            lock: Mutex::new(None),
            socket_dir: directory.join("sockets"),
            worker_binary: "/bin/true".into(),
            ended: watch::Sender::new(false),
            runtime: OwnRuntime::Of(tokio::runtime::Handle::current()),
        };
        Self { runner, shared: Arc::new(shared) }
    }

    /// [`Self::start`] for programs without a runtime.
    ///
    /// # Errors
    /// As there.
    ///
    /// # Panics
    /// Inside a runtime, whose thread it would block.
    pub fn start_blocking(options: HostOptions) -> Result<Self, HostError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .map_err(|source| HostError::Threads { source })?;
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
        &self.runner.services.run_id
    }

    /// Committed rows, and liveness events, from now on; a slow subscriber is told how many it lost.
    #[must_use]
    pub fn rows(&self) -> cjm_store::Subscription {
        self.runner.services.journal.subscribe()
    }

    /// Live events from now on.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<HostEvent> {
        self.runner.services.sinks.events.subscribe()
    }

    /// Turns true when the host has ended; what happened before was told before.
    #[must_use]
    pub fn ended(&self) -> watch::Receiver<bool> {
        self.shared.ended.subscribe()
    }

    /// Loads one instance and waits until its worker is ready. It goes on when the caller goes away.
    ///
    /// # Errors
    /// When there is no such capability, the id is taken, or the worker does not start; nothing is left then.
    pub async fn load(&self, capability: &str, load: LoadOptions) -> Result<InstanceId, HostError> {
        let id = self.register(capability, &load)?;
        let instance = self.instances().get(&id).ok_or_else(|| HostError::UnknownInstance(id.clone()))?;
        let Runner { services, instances, jobs } = self.runner.clone();
        self.shared
            .runtime
            .run(async move {
                let error = match instance.ensure_worker(&services, &jobs, None).await {
                    Ok(_) => return Ok(id),
                    Err(NoWorker::Failed(error, _)) => HostError::Start(*error),
                    Err(NoWorker::Missed | NoWorker::Retired) => HostError::UnknownInstance(id.clone()),
                };
                instances.remove_this(&instance);
                instance.unload(&services, &jobs, OwnKill::Unload).await;
                Err(error)
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
        let services = &self.runner.services;
        let adapters = self.shared.catalog.adapters();
        let plan = plan(entry, adapters, id.clone(), load, &services.options, &self.shared.worker_binary)?;
        // Unset means one, as the ancestor has it; an executable may say more of itself.
        let declared = match entry.manifest.runtime() {
            Runtime::Executable(executable) => executable.concurrency_max,
            Runtime::Python { .. } | Runtime::Native { .. } | Runtime::Channel { .. } => None,
        };
        let concurrency_max = load.concurrency_max.or(declared).unwrap_or(1).max(1);
        let instance = Arc::new(Instance::new(plan, concurrency_max));
        match self.runner.instances.add(&instance) {
            Ok(()) => {}
            Err(NotAdded::Taken) => return Err(HostError::InstanceExists(id)),
            Err(NotAdded::HostEnds) => return Err(HostError::ShuttingDown),
        }
        instance.announce(&self.runner.jobs);
        Ok(id)
    }

    /// True when an instance of this id is loaded.
    #[must_use]
    pub fn is_loaded(&self, id: &InstanceId) -> bool {
        self.runner.instances.get(id).is_some()
    }

    /// Gives up the start of an instance whose time, which was `given`, is over; what waits for it fails. The journal
    /// tells it as that. One that has started is unloaded.
    ///
    /// # Errors
    /// When there is none.
    pub async fn give_up_start(&self, id: &InstanceId, given: Duration) -> Result<(), HostError> {
        let limit_ms = u64::try_from(given.as_millis()).unwrap_or(u64::MAX);
        self.end_instance(id, OwnKill::StartTimeout { limit_ms }).await
    }

    /// Ends an instance's worker and forgets the instance.
    ///
    /// # Errors
    /// When there is none.
    pub async fn unload(&self, id: &InstanceId) -> Result<(), HostError> {
        self.end_instance(id, OwnKill::Unload).await
    }

    async fn end_instance(&self, id: &InstanceId, reason: OwnKill) -> Result<(), HostError> {
        let instance = self.runner.instances.remove(id);
        let instance = instance.ok_or_else(|| HostError::UnknownInstance(id.clone()))?;
        let Runner { services, jobs, .. } = self.runner.clone();
        self.shared
            .runtime
            .run(async move {
                instance.unload(&services, &jobs, reason).await;
                Ok(())
            })
            .await
    }

    /// Waits for the end of a job, of this host or an earlier one.
    ///
    /// # Errors
    /// When there is no such job, the host ends before it does, or the store cannot be read.
    pub async fn wait(&self, job: &JobId) -> Result<Arc<JobOutcome>, HostError> {
        match self.jobs().wait(job).await {
            Some(outcome) => return outcome.map_err(|_| HostError::ShuttingDown),
            None if self.jobs().is_closed() => return Err(HostError::ShuttingDown),
            None => {}
        }
        let (history, id) = (Arc::clone(&self.services().history), job.clone());
        let read = move || history.job(&id);
        let stored = self.shared.runtime.handle()?.spawn_blocking(read).await;
        let stored = stored
            .map_err(|_| HostError::ShuttingDown)??
            .filter(|stored| stored.record.status.is_terminal())
            .ok_or_else(|| HostError::UnknownJob(job.clone()))?;
        let result = stored.result.map(bytes::Bytes::from);
        Ok(Arc::new(JobOutcome::of(&stored.record, result, stored.worker_pid)))
    }

    /// Where a job stands now: `pending`, `running`, or how it ended.
    ///
    /// # Errors
    /// When there is no such job, or the store cannot be read.
    pub async fn job_status(&self, job: &JobId) -> Result<JobStatus, HostError> {
        // Of one whose end is being written nobody knows yet whether it will be.
        let status = self.jobs().get(job).map(|active| active.record().status);
        match status.filter(|status| !status.is_terminal()) {
            Some(status) => Ok(status),
            None => Ok(self.wait(job).await?.status),
        }
    }

    /// Resolves once a job is no longer this host's to run: it has ended, or the host has. It keeps the host alive no longer
    /// than others do.
    pub fn job_over(&self, job: &JobId) -> impl Future<Output = ()> + Send + use<> {
        self.jobs().over(job)
    }

    /// Asks for the end of a job; its outcome says what came of it. A job that has ended stays as it is.
    pub fn cancel(&self, job: &JobId) {
        self.runner
            .jobs
            .tell_queue(QueueEvent::CancelRequested { job: job.clone(), reach: CancelReach::Any });
    }

    /// As [`Self::cancel`], without waiting for the tool to obey: a worker that runs the job is killed with it. Of one that
    /// was cancelled before, what is left of its grace is waived.
    pub fn cancel_at_once(&self, job: &JobId) {
        self.jobs().tell_queue(QueueEvent::ForceRequested { job: job.clone() });
    }

    /// Stops a job as its own deadline would: it ends `failed`, and this says why.
    pub(crate) fn stop_for(&self, job: &JobId, failure: Failure) {
        if let Some(active) = self.jobs().get(job) {
            // The first reason stays.
            let _ = active.stopped_for.set(failure);
        }
        self.jobs().tell_queue(QueueEvent::DeadlinePassed { job: job.clone() });
    }

    pub(crate) fn cancel_pending(&self, job: &JobId) {
        self.runner
            .jobs
            .tell_queue(QueueEvent::CancelRequested { job: job.clone(), reach: CancelReach::PendingOnly });
    }

    /// A streamed call, directly on one instance: its rows are not awaited, and it takes no lane. Dropping the stream, or
    /// this future, cancels the call as a dropped [`Self::call`] is cancelled. It is stopped after
    /// [`HostOptions::call_timeout`].
    ///
    /// # Errors
    /// When the worker does not start or refuses the call.
    pub async fn call_stream(
        &self,
        id: &InstanceId,
        request: ExecuteRequest,
    ) -> Result<ChunkStream, CallError> {
        self.call_stream_within(id, request, self.services().options.call_timeout.into()).await
    }

    /// [`Self::call_stream`] with an end: how long all of it may take, the start of the worker and the reading included. When
    /// the time is over the call is stopped, and that is its reader's last item.
    ///
    /// # Errors
    /// As there, and when the time is over before it has begun.
    pub async fn call_stream_within(
        &self,
        id: &InstanceId,
        mut request: ExecuteRequest,
        timeout: Timeout,
    ) -> Result<ChunkStream, CallError> {
        let caller = self.sign(&mut request.envelope);
        let body = serde_json::to_vec(&request).unwrap_or_default();
        let calling = self.calling(id, caller, timeout)?;
        let (capability, runtime) = (calling.instance.plan.capability.clone(), calling.runtime.clone());
        let words = calling.words.clone();
        let abandoned = CancellationToken::new();
        let (late, _gone) = (abandoned.clone(), abandoned.clone().drop_guard());
        let _due = self.services().deadlines.enter(calling.limit.at, Arc::new(late.clone()));
        // Its connection must outlive the caller's runtime, too.
        let opening = async move { StreamedCall::open(calling, body, abandoned).await };
        let opening = self.services().tasks.spawn_on(opening, &runtime);
        tokio::select! {
            biased;
            // First: a late opening says that it was cancelled.
            () = late.cancelled() => {
                let seconds = timeout.given.as_secs_f64();
                Err(CallError::DeadlinePassed { capability, seconds, stderr_tail: words.so_far() })
            }
            opened = opening => match opened {
                Ok(stream) => Ok(Box::pin(stream?)),
                Err(_) => Err(CallError::HostEnded { capability }),
            },
        }
    }

    /// A call directly on one instance, in the caller's own task: no queue, no lane, no job. What the tool accounts for
    /// is journaled, and nobody waits for it. The instance's cap does not bind it.
    ///
    /// A caller who goes away, or whose `timeout` passes, cancels the call: the tool is asked, and its worker killed when
    /// it does not answer within the grace of a job's cancel. The time begins now, so that it covers the start of a worker;
    /// without one [`HostOptions::call_timeout`] holds.
    ///
    /// # Errors
    /// When the worker does not start, dies, the tool fails, or the timeout passes.
    pub async fn call(
        &self,
        id: &InstanceId,
        mut request: ExecuteRequest,
        timeout: Option<Duration>,
    ) -> Result<bytes::Bytes, CallError> {
        let caller = self.sign(&mut request.envelope);
        let body = serde_json::to_vec(&request).unwrap_or_default();
        self.direct(id, http::EXECUTE, body, caller, timeout).await
    }

    /// Fills in what a direct call's envelope leaves open; tells what it said.
    pub(crate) fn sign(&self, envelope: &mut CallEnvelope) -> Caller {
        let (run_id, actor) = (envelope.run_id.clone(), envelope.actor.clone());
        envelope.run_id.get_or_insert_with(|| self.services().run_id.clone());
        envelope.actor.get_or_insert_with(|| self.services().options.actor.clone());
        Caller { call: envelope.job_id.get_or_insert_with(JobId::new).clone(), run_id, actor }
    }

    /// A call that is no job; what it accounts for is journaled, also when it fails.
    pub(crate) async fn direct(
        &self,
        id: &InstanceId,
        path: &str,
        body: Vec<u8>,
        caller: Caller,
        timeout: Option<Duration>,
    ) -> Result<bytes::Bytes, CallError> {
        let timeout = timeout.unwrap_or(self.services().options.call_timeout);
        let calling = self.calling(id, caller, timeout.into())?;
        let (capability, due) = (calling.instance.plan.capability.clone(), calling.limit.at);
        let (runtime, words) = (calling.runtime.clone(), calling.words.clone());
        let Services { tasks, calls, deadlines, .. } = &**self.services();
        let abandoned = CancellationToken::new();
        let path = path.to_owned();
        let running = {
            let (open, abandoned) = (calls.token(), abandoned.clone());
            async move {
                let _open = open;
                calling.run(&path, body, abandoned).await
            }
        };
        let running = Enduring::new(&runtime, tasks, abandoned, running);
        let _due = deadlines.enter(due, running.taken_away());
        let seconds = timeout.as_secs_f64();
        let late = || Err(CallError::DeadlinePassed { capability, seconds, stderr_tail: words.so_far() });
        running.await.unwrap_or_else(late)
    }

    fn calling(&self, id: &InstanceId, caller: Caller, timeout: Timeout) -> Result<Calling, CallError> {
        let instance = self.instances().get(id);
        let instance = instance.ok_or_else(|| CallError::NotLoaded { instance: id.clone() })?;
        let Ok(runtime) = self.shared.runtime.handle() else {
            return Err(CallError::HostEnded { capability: instance.plan.capability.clone() });
        };
        let limit = {
            let _its_clock = runtime.enter();
            Limit::of(timeout)
        };
        let (runner, runtime, words) = (self.runner.clone(), runtime.clone(), Words::from_now(&instance));
        Ok(Calling { runner, instance, caller, runtime, limit, words })
    }

    /// Of these instances, the one with the fewest direct calls; the first among equals.
    #[must_use]
    pub fn least_busy<'a>(&self, ids: &'a [InstanceId]) -> Option<&'a InstanceId> {
        ids.iter().min_by_key(|id| {
            self.instances().get(id).map_or(usize::MAX, |instance| {
                instance.direct_calls.load(std::sync::atomic::Ordering::Acquire)
            })
        })
    }

    /// `POST` of one of the surface's paths that take no body, such as `/get_system_status`; a call as [`Self::call`] is one.
    ///
    /// # Errors
    /// When the worker does not start, dies, or does not support it.
    pub async fn ask(&self, id: &InstanceId, path: &str) -> Result<bytes::Bytes, CallError> {
        self.direct(id, path, Vec::new(), Caller::host(), None).await
    }

    /// A question about the state of an instance's worker: `GET` of one of the surface's paths. `None` when no worker
    /// lives or it does not answer.
    pub async fn question(&self, id: &InstanceId, path: &str) -> Option<bytes::Bytes> {
        let worker = self.runner.instances.get(id)?.worker()?;
        let path = path.to_owned();
        // On the host's own runtime: a connection that lived on the caller's would end with it, under whoever uses it next.
        self.shared.runtime.handle().ok()?.spawn(async move { worker.question(&path).await }).await.ok()?
    }

    /// Ends every worker, the keeper and the stores. What runs is cut off and ends `failed`, transient; what waits stays
    /// pending, and the next host decides about it.
    pub async fn shutdown(self) -> ShutdownReport {
        let host = self.clone();
        let report = self.shared.runtime.run(async move { Ok::<_, HostError>(host.end().await) }).await;
        report.unwrap_or(ShutdownReport { workers_ended: 0, tree_cleared: false })
    }

    /// Waits no longer until workers that are being ended, or will be, end well: they are killed.
    pub fn waive_unload_grace(&self) {
        self.services().grace_waived.cancel();
    }

    async fn end(self) -> ShutdownReport {
        let Runner { services, instances, jobs } = &self.runner;
        services.closing.cancel();
        let instances = instances.close();
        let workers_ended = instances.iter().filter(|instance| instance.worker().is_some()).count();
        let unloads = instances.iter().map(|instance| instance.unload(services, jobs, OwnKill::HostShutdown));
        futures_util::future::join_all(unloads).await;
        // Jobs and calls that ran have been cut off and deaths are being written: their rows come before the store closes.
        services.tasks.close();
        services.calls.close();
        let _ = tokio::time::timeout(CALLERS_END_MAX, services.calls.wait()).await;
        let told = tokio::time::timeout(TASKS_END_MAX, services.tasks.wait()).await;
        let tree_cleared = services.workers.shutdown().await;
        // A keeper that stood still told no death. Once it is gone, its workers' ends are known to be.
        if told.is_err() && tokio::time::timeout(TASKS_END_MAX, services.tasks.wait()).await.is_err() {
            tracing::warn!(tasks = services.tasks.len(), "the host ends before all it had begun has ended");
        }
        let (journal, diagnostics) = (Arc::clone(&services.journal), Arc::clone(&self.shared.diagnostics));
        let socket_dir = self.shared.socket_dir.clone();
        let closing = tokio::task::spawn_blocking(move || {
            journal.close();
            diagnostics.close();
            // Sockets of workers that are gone; the directory is made anew by the next host.
            for folder in folder_in_tmp(&socket_dir).into_iter().chain([socket_dir]) {
                let _ = remove_tree(&folder);
            }
        });
        // A panic in closing was reported by its thread; the lock is released all the same.
        let _ = closing.await;
        jobs.close();
        self.shared.lock.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.shared.ended.send_replace(true);
        ShutdownReport { workers_ended, tree_cleared }
    }

    pub(crate) fn runner(&self) -> &Runner {
        &self.runner
    }

    pub(crate) fn runtime(&self) -> &OwnRuntime {
        &self.shared.runtime
    }

    pub(crate) fn services(&self) -> &Arc<Services> {
        &self.runner.services
    }

    pub(crate) fn instances(&self) -> &Instances {
        &self.runner.instances
    }

    pub(crate) fn jobs(&self) -> &Jobs {
        &self.runner.jobs
    }

    /// The compositions of this host, those that have ended too.
    pub(crate) fn compositions(
        &self,
    ) -> std::sync::MutexGuard<'_, HashMap<CompositionId, CompositionHandle>> {
        self.shared.compositions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is such a capability, with the error that says why not.
    pub(crate) fn check(&self, capability: &str) -> Result<(), HostError> {
        self.entry(capability).map(|_| ())
    }

    fn entry(&self, capability: &str) -> Result<&CatalogEntry, HostError> {
        find(&self.shared.catalog, capability)
    }
}
