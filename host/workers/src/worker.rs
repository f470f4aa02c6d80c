//! One worker, from its plan to its death.
//!
//! ```text
//!  NotStarted ──spawn──▶ Spawned ──ready──▶ Worker (Ready) ──▶ dead
//!       │                   │ load failed, died, too slow,          ▲
//!       └─ StartError       └─ bad configuration: killed, cleared ──┘
//! ```
//! Bring-up is typestate: no request can be sent to a worker that is not ready. Every way out of `Spawned` that is
//! not `Worker` kills the tree first and waits for its end. A worker dies once; whoever waits is told with a verdict.

use crate::binding::AdapterFault;
use crate::death::{Death, FirstWord, millis};
use crate::error::{CallError, StartError};
use crate::frames;
use crate::genuine::{self, RunningJobs};
use crate::keeper_client::{Keeper, SpawnedWorker};
use crate::life::Life;
use crate::plan::WorkerPlan;
use crate::proxy::{Failed, Proxy, Reply};
use crate::pump::Tail;
use crate::sinks::Sinks;
use cjm_decide::death::{LifePhase, OwnKill};
use cjm_platform::{fds, runtime_dir};
use cjm_wire::channel::LoadFailure;
use cjm_wire::envelope::CancelRequest;
use cjm_wire::error::ErrorCategory;
use cjm_wire::keeper::{SpawnWorker, worker_fd};
use cjm_wire::link::{ShutdownRequest, WorkerReady, WorkerSpec, to_shim};
use cjm_wire::{JobId, WorkerSessionId, http};
use futures_util::StreamExt;
use serde_json::value::RawValue;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::{oneshot, watch};

/// How long a failed start waits for the tree to be cleared.
const CLEAR_MAX: Duration = Duration::from_secs(10);
/// How long a broken connection waits for the news of the worker's death.
const DEATH_NEWS_MAX: Duration = Duration::from_secs(2);

const SIGTERM: i32 = 15;

/// Chunks of a streamed call, as they come.
pub type ChunkStream = Pin<Box<dyn futures_util::Stream<Item = Result<Box<RawValue>, CallError>> + Send>>;

/// What every part of a worker's life shares.
struct Common {
    session: WorkerSessionId,
    capability: String,
    keeper: Arc<Keeper>,
    death: watch::Receiver<Option<Arc<Death>>>,
    own_kill: Arc<Mutex<Option<OwnKill>>>,
    phase: Arc<Mutex<LifePhase>>,
    calls_running: Arc<AtomicUsize>,
    tail: Tail,
    socket: PathBuf,
}

/// Counts one call as running until it is dropped: a verdict asks whether a death came in the middle of one.
struct Running(Arc<AtomicUsize>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Nothing is running yet.
pub struct NotStarted<'a> {
    /// What to start.
    pub plan: &'a WorkerPlan,
    /// The id of this incarnation.
    pub session: WorkerSessionId,
    /// Who spawns it.
    pub keeper: Arc<Keeper>,
    /// Where its words go.
    pub sinks: Arc<Sinks>,
    /// Where its socket goes.
    pub runtime_dir: PathBuf,
    /// Least level of records that its tool sends.
    pub log_level: String,
    /// The host's data directory.
    pub host_dir: PathBuf,
}

/// A process runs; it has not said that it is ready.
pub struct Spawned {
    common: Common,
    /// Its process.
    pub pid: u32,
    /// None: it is the ancestor's own worker, which has none.
    link: Option<OwnedWriteHalf>,
    first_word: oneshot::Receiver<FirstWord>,
    sinks: Arc<Sinks>,
    started: Instant,
    proxy: Proxy,
}

/// A worker that takes calls.
pub struct Worker {
    common: Common,
    /// Its process.
    pub pid: u32,
    /// What it said of itself.
    pub ready: WorkerReady,
    /// How long it took to be ready.
    pub wait_seconds: f64,
    /// Of the ancestor's own worker: its version, and what differs from its manifest.
    pub genuine: Option<GenuineFacts>,
    proxy: Proxy,
    link: Option<tokio::sync::Mutex<OwnedWriteHalf>>,
    /// Of the ancestor's own worker: the jobs whose progress is asked for.
    jobs: Option<Arc<RunningJobs>>,
}

/// What is known of the ancestor's own worker alone.
pub struct GenuineFacts {
    /// The ancestor's version.
    pub substrate_version: Option<String>,
    /// Sections of the manifest that are not what the code says now.
    pub drifted: Vec<&'static str>,
}

impl NotStarted<'_> {
    /// Binds the socket, asks the keeper for the process, sends it its specification.
    ///
    /// # Errors
    /// When the system or the keeper refuses it.
    pub async fn spawn(self) -> Result<Spawned, StartError> {
        let plan = self.plan;
        let refused = |message: String, next_step: &str| StartError::Spawn {
            capability: plan.capability.clone(),
            message,
            next_step: next_step.to_owned(),
        };
        let io = |error: std::io::Error| refused(error.to_string(), "check open descriptors and permissions");
        std::fs::create_dir_all(&plan.data_dir).map_err(io)?;
        let session = self.session.clone();
        let socket = self.runtime_dir.join(format!("{session}.sock"));
        let listener = runtime_dir::bind_unix_listener(&socket)
            .map_err(|error| refused(error.to_string(), error.next_step()))?;
        let (stdout, stderr) = (fds::pipe_cloexec().map_err(io)?, fds::pipe_cloexec().map_err(io)?);
        let (link_here, link_there) =
            if plan.genuine { None } else { Some(fds::stream_pair().map_err(io)?) }.unzip();
        let started = Instant::now();
        let request = self.request(&session);
        let mut passed = vec![stdout.write, stderr.write, OwnedFd::from(listener)];
        passed.extend(link_there);
        let spawned = self
            .keeper
            .spawn(request, passed)
            .await
            .map_err(|refusal| refused(refusal.message, &refusal.next_step))?;
        let SpawnedWorker { pid, end } = spawned;
        let link = link_here.map(into_stream).transpose().map_err(io)?;
        let (link_read, mut link) = link.map(UnixStream::into_split).unzip();
        if let Some(link) = &mut link {
            let spec = worker_spec(plan, &session, &self.log_level);
            let spec = serde_json::to_vec(&spec).unwrap_or_default();
            // A worker that is dead already breaks the link; its end says more than this error would.
            let _ = frames::write(link, to_shim::SPEC, &spec).await;
        }
        let proxy = Proxy::new(&plan.capability, &socket)
            .map_err(|error| refused(error.to_string(), "this is a fault of the host; please report it"))?;

        let tail = Tail::default();
        let own_kill = Arc::new(Mutex::new(None));
        let phase = Arc::new(Mutex::new(LifePhase::Starting));
        let calls_running = Arc::new(AtomicUsize::new(0));
        let (first_sender, first_word) = oneshot::channel();
        let (death_sender, death) = watch::channel(None);
        let life = Life {
            session: session.clone(),
            instance: plan.instance.clone(),
            sinks: Arc::clone(&self.sinks),
            tail: tail.clone(),
            own_kill: Arc::clone(&own_kill),
            phase: Arc::clone(&phase),
            calls_running: Arc::clone(&calls_running),
            started,
            socket: socket.clone(),
        };
        tokio::spawn(life.watch(end, link_read, stdout.read, stderr.read, first_sender, death_sender));
        let common = Common {
            session,
            capability: plan.capability.clone(),
            keeper: self.keeper,
            death,
            own_kill,
            phase,
            calls_running,
            tail,
            socket,
        };
        Ok(Spawned { common, pid, link, first_word, sinks: self.sinks, started, proxy })
    }

    fn request(&self, session: &WorkerSessionId) -> SpawnWorker {
        let mut request = spawn_request(self.plan, session);
        if self.plan.genuine {
            request.argv.extend(["--ppid".to_owned(), self.keeper.pid().to_string()]);
            request.env.extend(genuine::variables(&self.plan.secrets, &self.host_dir));
            request.fd_targets.retain(|target| *target != worker_fd::HOST_LINK);
            request.dies_with_keeper = true;
        }
        request
    }
}

impl Spawned {
    /// Its incarnation.
    #[must_use]
    pub fn session(&self) -> &WorkerSessionId {
        &self.common.session
    }

    /// Where it will serve.
    #[must_use]
    pub fn socket(&self) -> &std::path::Path {
        &self.common.socket
    }

    /// The news of this worker's death, for whoever outlives the attempt to start it.
    #[must_use]
    pub fn death_watch(&self) -> watch::Receiver<Option<Arc<Death>>> {
        self.common.death.clone()
    }

    /// Waits for the first word, then hands the configuration over.
    ///
    /// # Errors
    /// When it could not be loaded, died, was too slow, or refused its configuration; it is gone then.
    pub async fn ready(self, plan: &WorkerPlan, timeout: Duration) -> Result<Worker, StartError> {
        let Self { common, pid, link, first_word, sinks, started, proxy } = self;
        let mut death = common.death.clone();
        let first_word = async {
            match plan.genuine {
                true => Ok(FirstWord::Serves(genuine::first_word(&proxy).await)),
                false => first_word.await,
            }
        };
        // First words come before news of death: a tool that could not be loaded says why and exits.
        let word = tokio::select! {
            biased;
            Ok(word) = first_word => word,
            () = dead(&mut death) => return Err(common.died_at_start(plan)),
            () = tokio::time::sleep(timeout) => {
                common.kill_and_wait(OwnKill::StartTimeout { limit_ms: millis(timeout) }).await;
                return Err(StartError::NeverReady {
                    capability: plan.capability.clone(),
                    seconds: timeout.as_secs_f64(),
                    stderr_tail: common.tail.lines(),
                });
            }
        };
        let (ready, genuine) = match word {
            FirstWord::Ready(ready) => {
                if let Err(fault) = check_loaded(plan, &ready.supports) {
                    common.kill_and_wait(OwnKill::Unload).await;
                    return Err(StartError::Adapter(fault));
                }
                (ready, None)
            }
            FirstWord::Serves(health) => {
                let drifted = genuine::drift(&proxy, &plan.capability, &plan.drift).await;
                let ready = genuine::ready(&health);
                (ready, Some(GenuineFacts { substrate_version: health.substrate_version, drifted }))
            }
            FirstWord::LoadFailed(failure) => {
                return Err(common.load_failed(plan, failure).await);
            }
        };
        if !plan.config.is_empty() {
            let remaining = timeout.saturating_sub(started.elapsed());
            common.initialize(plan, &proxy, remaining).await?;
        }
        common.set_phase(LifePhase::Idle);
        let wait_seconds = started.elapsed().as_secs_f64();
        let link = link.map(tokio::sync::Mutex::new);
        let jobs = genuine.is_some().then(|| genuine::follow(&proxy, plan.instance.clone(), sinks));
        Ok(Worker { common, pid, ready, wait_seconds, genuine, proxy, link, jobs })
    }
}

impl Common {
    async fn initialize(&self, plan: &WorkerPlan, proxy: &Proxy, within: Duration) -> Result<(), StartError> {
        let body = serde_json::to_vec(&plan.config).unwrap_or_default();
        let mut death = self.death.clone();
        let answer = tokio::select! {
            answer = proxy.hook(http::INITIALIZE, body) => answer,
            () = dead(&mut death) => return Err(self.died_at_start(plan)),
            () = tokio::time::sleep(within) => {
                self.kill_and_wait(OwnKill::StartTimeout { limit_ms: millis(within) }).await;
                return Err(StartError::NeverReady {
                    capability: plan.capability.clone(),
                    seconds: within.as_secs_f64(),
                    stderr_tail: self.tail.lines(),
                });
            }
        };
        let message = match answer {
            Ok(_) => return Ok(()),
            Err(Failed::Answer(CallError::BadAnswer { excerpt, .. })) => excerpt,
            Err(Failed::Answer(other)) => other.to_string(),
            Err(Failed::Connection(message)) => {
                return match self.news_of_death().await {
                    Some(_) => Err(self.died_at_start(plan)),
                    None => {
                        self.kill_and_wait(OwnKill::Unload).await;
                        Err(StartError::BadConfiguration {
                            capability: plan.capability.clone(),
                            message,
                            stderr_tail: self.tail.lines(),
                        })
                    }
                };
            }
        };
        self.kill_and_wait(OwnKill::Unload).await;
        Err(StartError::BadConfiguration {
            capability: plan.capability.clone(),
            message,
            stderr_tail: self.tail.lines(),
        })
    }

    async fn load_failed(&self, plan: &WorkerPlan, failure: LoadFailure) -> StartError {
        self.kill_and_wait(OwnKill::Unload).await;
        let mut stderr_tail = self.tail.lines();
        if let Some(traceback) = failure.traceback.filter(|_| stderr_tail.is_empty()) {
            let last = traceback.lines().rev().take(crate::pump::TAIL_LINES_MAX);
            stderr_tail = last.map(str::to_owned).collect();
            stderr_tail.reverse();
        }
        StartError::LoadFailed {
            capability: plan.capability.clone(),
            message: failure.message,
            not_passed: plan.not_passed.clone(),
            stderr_tail,
        }
    }

    fn died_at_start(&self, plan: &WorkerPlan) -> StartError {
        let death = self.death.borrow().clone();
        StartError::Died {
            capability: plan.capability.clone(),
            verdict: death
                .as_ref()
                .map_or_else(|| "for no known reason".to_owned(), |death| death.verdict.to_string()),
            not_passed: plan.not_passed.clone(),
            stderr_tail: death.map(|death| death.stderr_tail.clone()).unwrap_or_default(),
        }
    }

    /// Waits a bounded time for the worker's end to be known.
    async fn news_of_death(&self) -> Option<Arc<Death>> {
        let mut death = self.death.clone();
        let waited = tokio::time::timeout(DEATH_NEWS_MAX, death.wait_for(Option::is_some)).await;
        waited.ok()?.ok()?.clone()
    }

    /// Kills the worker for a reason that the verdict will know, and waits until its tree is gone.
    async fn kill_and_wait(&self, reason: OwnKill) {
        self.note_own_kill(reason);
        self.keeper.kill(&self.session);
        let mut death = self.death.clone();
        // Bounded: a process stuck in the kernel must not hold the host.
        let _ = tokio::time::timeout(CLEAR_MAX, death.wait_for(Option::is_some)).await;
    }

    fn note_own_kill(&self, reason: OwnKill) {
        self.own_kill.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(reason);
    }

    fn running(&self) -> Running {
        self.calls_running.fetch_add(1, Ordering::AcqRel);
        Running(Arc::clone(&self.calls_running))
    }

    fn set_phase(&self, phase: LifePhase) {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = phase;
    }
}

impl Worker {
    /// Its incarnation.
    #[must_use]
    pub fn session(&self) -> &WorkerSessionId {
        &self.common.session
    }

    /// Whether it is known to be dead.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.common.death.borrow().is_some()
    }

    /// Resolves when the worker is dead.
    pub async fn death(&self) -> Option<Arc<Death>> {
        let mut death = self.common.death.clone();
        death.wait_for(Option::is_some).await.ok()?.clone()
    }

    /// One call; a broken connection becomes the worker's death, with its verdict.
    ///
    /// # Errors
    /// When the tool failed, was cancelled, or the worker died.
    pub async fn call(&self, path: &str, body: Vec<u8>) -> Result<Reply, CallError> {
        let _running = self.common.running();
        let _job = self.jobs.as_ref().and_then(|jobs| jobs.begin(&body));
        match self.proxy.call(path, body).await {
            Ok(reply) => Ok(reply),
            Err(failed) => Err(self.explain(failed).await),
        }
    }

    /// One streamed call; what breaks it is explained as [`Worker::call`] explains it.
    ///
    /// # Errors
    /// When the worker refuses the call or died.
    pub async fn stream(self: &Arc<Self>, body: Vec<u8>) -> Result<ChunkStream, CallError> {
        let _running = self.common.running();
        let stream = match self.proxy.stream(body).await {
            Ok(stream) => stream,
            Err(failed) => return Err(self.explain(failed).await),
        };
        let worker = Arc::clone(self);
        Ok(Box::pin(stream.then(move |item| {
            let worker = Arc::clone(&worker);
            async move {
                match item {
                    Ok(chunk) => Ok(chunk),
                    Err(failed) => Err(worker.explain(failed).await),
                }
            }
        })))
    }

    /// Turns what the client saw into what happened.
    async fn explain(&self, failed: Failed) -> CallError {
        match failed {
            Failed::Answer(CallError::Tool { capability, error, accounts, .. }) => {
                let stderr_tail = if error.category == ErrorCategory::UserInput {
                    Vec::new()
                } else {
                    self.common.tail.caught_up().await;
                    self.common.tail.lines()
                };
                CallError::Tool { capability, error, accounts, stderr_tail }
            }
            Failed::Answer(CallError::BadAnswer { capability, status, excerpt, .. }) => {
                self.common.tail.caught_up().await;
                CallError::BadAnswer { capability, status, excerpt, stderr_tail: self.common.tail.lines() }
            }
            Failed::Answer(other) => other,
            Failed::Connection(message) => match self.common.news_of_death().await {
                Some(death) => CallError::Died {
                    capability: self.common.capability.clone(),
                    verdict: Box::new(death.verdict.clone()),
                    stderr_tail: death.stderr_tail.clone(),
                },
                None => CallError::Connection { capability: self.common.capability.clone(), message },
            },
        }
    }

    /// Asks the tool to stop one job's call.
    pub async fn cancel(&self, job: &JobId) {
        let body = serde_json::to_vec(&CancelRequest { job_id: Some(job.clone()) }).unwrap_or_default();
        // No answer is needed: the call itself ends, or the grace does.
        let _ = self.proxy.cancel(body).await;
    }

    /// A question about state, `GET`.
    pub async fn question(&self, path: &str) -> Option<bytes::Bytes> {
        self.proxy.get(path).await.ok()
    }

    /// Ends the worker well within `grace`, by force after it. Returns when its tree is gone.
    pub async fn unload(&self, grace: Duration) {
        self.common.set_phase(LifePhase::Stopping);
        self.common.note_own_kill(OwnKill::Unload);
        let Some(link) = &self.link else { return self.end_genuine(grace).await };
        let grace_ms = millis(grace);
        let request = serde_json::to_vec(&ShutdownRequest { grace_ms }).unwrap_or_default();
        let asked = frames::write(&mut *link.lock().await, to_shim::SHUTDOWN, &request).await.is_ok();
        let mut death = self.common.death.clone();
        // The shim enforces the grace itself; ours is longer and for a shim that does not.
        let patience = grace + Duration::from_millis(500);
        if !asked || tokio::time::timeout(patience, death.wait_for(Option::is_some)).await.is_err() {
            self.common.kill_and_wait(OwnKill::Unload).await;
        }
    }

    /// The ancestor's worker cleans up when it is asked, and ends by SIGTERM once its calls have ended.
    async fn end_genuine(&self, grace: Duration) {
        let mut death = self.common.death.clone();
        // What it answers changes nothing: it is to end.
        let _ = tokio::time::timeout(grace, self.proxy.hook(http::CLEANUP, Vec::new())).await;
        self.common.keeper.signal(&self.common.session, SIGTERM);
        if tokio::time::timeout(grace, death.wait_for(Option::is_some)).await.is_err() {
            self.common.kill_and_wait(OwnKill::Unload).await;
        }
    }

    /// Kills the worker at once.
    pub async fn kill(&self, reason: OwnKill) {
        self.common.kill_and_wait(reason).await;
    }
}

/// Resolves when the worker is dead; holds no lock over the wait's end, as `wait_for` itself would.
async fn dead(death: &mut watch::Receiver<Option<Arc<Death>>>) {
    // An error means that the accompanying task is gone, which is as dead.
    let _ = death.wait_for(Option::is_some).await;
}

/// Refuses a worker that did not load an adapter it was to bind by name; what was only found is told in the log, and by
/// the worker. `supports` is its own word.
fn check_loaded(plan: &WorkerPlan, supports: &[String]) -> Result<(), AdapterFault> {
    let missing = plan.adapters.iter().find(|adapter| !supports.contains(&format!("task/{}", adapter.task)));
    let Some(missing) = missing else { return Ok(()) };
    if plan.adapters_named {
        return Err(AdapterFault::NotLoaded {
            capability: plan.capability.clone(),
            adapter: missing.spec.clone(),
        });
    }
    tracing::warn!(capability = %plan.capability, adapter = %missing.spec, "an adapter that fits could not be loaded");
    Ok(())
}

fn into_stream(fd: OwnedFd) -> std::io::Result<UnixStream> {
    let stream = std::os::unix::net::UnixStream::from(fd);
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

fn spawn_request(plan: &WorkerPlan, session: &WorkerSessionId) -> SpawnWorker {
    let mut env: Vec<(String, String)> =
        plan.env.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    env.push(("CJM_WORKER_SESSION_ID".to_owned(), session.to_string()));
    let cwd = std::env::current_dir().map_or_else(|_| "/".to_owned(), |cwd| cwd.display().to_string());
    SpawnWorker {
        worker: session.to_string(),
        program: plan.program.display().to_string(),
        argv: plan.argv.clone(),
        env,
        cwd,
        fd_targets: vec![worker_fd::STDOUT, worker_fd::STDERR, worker_fd::LISTENER, worker_fd::HOST_LINK],
        dies_with_keeper: false,
    }
}

fn worker_spec(plan: &WorkerPlan, session: &WorkerSessionId, log_level: &str) -> WorkerSpec {
    WorkerSpec {
        capability_name: plan.capability.clone(),
        capability_version: plan.version.clone(),
        instance_id: plan.instance.to_string(),
        worker_session_id: session.to_string(),
        launch: plan.launch.clone(),
        data_dir: plan.data_dir.display().to_string(),
        log_level: log_level.to_owned(),
        secrets: plan.secrets.clone(),
    }
}
