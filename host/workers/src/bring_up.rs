//! Bringing a worker up: from its plan to a process that takes calls.
//!
//! ```text
//!  NotStarted ──spawn──▶ Spawned ──ready──▶ ProcessWorker
//!       │                   │ load failed, died, too slow,
//!       └─ StartError       └─ bad configuration: killed and cleared, then StartError
//! ```
//! It is typestate: no request can be sent to a worker that is not ready. Every way out of `Spawned` that is not a worker
//! kills the tree first and waits for its end.

use crate::api::{GenuineFacts, NewsOfDeath, StartKiller, Started, StartingWorker, Worker, WorkerFacts};
use crate::binding::AdapterFault;
use crate::death::{FirstWord, dead, millis};
use crate::drift::drift;
use crate::error::StartError;
use crate::frames;
use crate::genuine;
use crate::keeper_client::Keeper;
use crate::keeper_client::table::SpawnedWorker;
use crate::life::{Life, LinkEnd};
use crate::no_folder::NoFolder;
use crate::phase::Phases;
use crate::plan::{WorkerPlan, refuse_changed, refuse_unfinished};
use crate::proxy::Proxy;
use crate::pump::Tail;
use crate::redaction::Redaction;
use crate::sinks::Sinks;
use crate::unsent::UnsentCalls;
use crate::worker::{Common, ProcessWorker};
use cjm_decide::death::{LifePhase, OwnKill};
use cjm_platform::{fds, runtime_dir};
use cjm_wire::WorkerSessionId;
use cjm_wire::keeper::{SpawnWorker, worker_fd};
use cjm_wire::link::{WorkerSpec, to_shim};
use futures_util::future::BoxFuture;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::{oneshot, watch};

/// Nothing is running yet.
pub struct NotStarted {
    /// What to start.
    pub plan: Arc<WorkerPlan>,
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
    plan: Arc<WorkerPlan>,
    pid: u32,
    /// None: it is the ancestor's own worker, which has none.
    link: Option<OwnedWriteHalf>,
    first_word: oneshot::Receiver<FirstWord>,
    sinks: Arc<Sinks>,
    started: Instant,
    proxy: Proxy,
}

impl NotStarted {
    /// Binds the socket, asks the keeper for the process, sends it its specification. Whether its tool is whole is asked
    /// each time: the plan may be old.
    ///
    /// # Errors
    /// When the system or the keeper refuses it, or the tool is being installed.
    pub async fn spawn(self) -> Result<Spawned, StartError> {
        let plan = Arc::clone(&self.plan);
        refuse_unfinished(plan.installation.as_ref())?;
        let refused = |message: String, next_step: &str| StartError::Spawn {
            capability: plan.capability.clone(),
            message,
            next_step: next_step.to_owned(),
        };
        let io = |error: std::io::Error| refused(error.to_string(), "check open descriptors and permissions");
        NoFolder::make(&plan.capability, &plan.data_dir)?;
        let session = self.session.clone();
        let bound = runtime_dir::bind_unix_listener(&self.runtime_dir, &format!("{session}.sock"));
        let (socket, listener) = bound.map_err(|error| refused(error.to_string(), error.next_step()))?;
        let (stdout, stderr) = (fds::pipe_cloexec().map_err(io)?, fds::pipe_cloexec().map_err(io)?);
        let (link_here, link_there) =
            if plan.genuine { None } else { Some(fds::stream_pair().map_err(io)?) }.unzip();
        let closing = link_here.as_ref().map(OwnedFd::try_clone).transpose().map_err(io)?;
        let started = Instant::now();
        let mut passed = vec![stdout.write, stderr.write, OwnedFd::from(listener)];
        passed.extend(link_there);
        let spawned = self
            .keeper
            .spawn(self.request(&session), passed)
            .await
            .map_err(|refusal| refused(refusal.message, &refusal.next_step))?;
        let SpawnedWorker { pid, end } = spawned;
        let link = link_here.map(into_stream).transpose().map_err(io)?;
        let (link_read, mut link) = link.map(UnixStream::into_split).unzip();
        if let Some(link) = &mut link {
            let spec = worker_spec(&plan, &session, &self.log_level);
            let spec = serde_json::to_vec(&spec).unwrap_or_default();
            // A worker that is dead already breaks the link; its end says more than this error would.
            let _ = frames::write(link, to_shim::SPEC, &spec).await;
        }
        let redaction = Arc::new(Redaction::of(&plan.secrets));
        let proxy = Proxy::new(&plan.capability, &socket, Arc::clone(&redaction))
            .map_err(|error| refused(error.to_string(), "this is a fault of the host; please report it"))?;

        let tail = Tail::default();
        let own_kill = Arc::new(Mutex::new(None));
        let phases = Phases::starting(tail.clone());
        let (first_sender, first_word) = oneshot::channel();
        let (death_sender, death) = watch::channel(None);
        let life = Life {
            session: session.clone(),
            instance: plan.instance.clone(),
            sinks: Arc::clone(&self.sinks),
            tail: tail.clone(),
            redaction,
            own_kill: Arc::clone(&own_kill),
            phases: phases.clone(),
            socket: socket.clone(),
        };
        let link_end = link_read.zip(closing).map(|(read, closing)| LinkEnd { read, closing });
        tokio::spawn(life.watch(end, link_end, stdout.read, stderr.read, first_sender, death_sender));
        let common = Common {
            session,
            capability: plan.capability.clone(),
            keeper: self.keeper,
            death,
            own_kill,
            phases,
            tail,
            calls_have_tails: self.plan.runtime_kind() == "executable",
            unset: self.plan.unset.clone(),
            socket,
        };
        Ok(Spawned { common, plan: self.plan, pid, link, first_word, sinks: self.sinks, started, proxy })
    }

    fn request(&self, session: &WorkerSessionId) -> SpawnWorker {
        let mut request = spawn_request(&self.plan, session);
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
    /// Waits for the first word, then hands the configuration over.
    async fn first_word(self, timeout: Duration) -> Result<ProcessWorker, StartError> {
        let Self { common, plan, pid, link, first_word, sinks, started, proxy } = self;
        let plan = &*plan;
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
            () = dead(&mut death) => {
                return Err(refuse_changed(plan).err().unwrap_or_else(|| common.died_at_start(plan)));
            }
            () = tokio::time::sleep(timeout) => {
                common.kill_and_wait(OwnKill::StartTimeout { limit_ms: millis(timeout) }).await;
                return Err(StartError::NeverReady {
                    capability: plan.capability.clone(),
                    seconds: timeout.as_secs_f64(),
                    stderr_tail: common.tail.lines(),
                });
            }
        };
        // An installation or a removal that began meanwhile has taken its files from under it, and may have seen no worker.
        if let Err(changed) = refuse_changed(plan) {
            common.kill_and_wait(OwnKill::StartFailed { why: changed.to_string() }).await;
            return Err(changed);
        }
        let (ready, genuine) = match word {
            FirstWord::Ready(ready) => {
                if let Err(fault) = check_loaded(plan, &ready.supports) {
                    common.kill_and_wait(OwnKill::StartFailed { why: fault.to_string() }).await;
                    return Err(StartError::Adapter(fault));
                }
                (ready, None)
            }
            FirstWord::Serves(health) => {
                let ready = genuine::ready(&health);
                (ready, Some(GenuineFacts { substrate_version: health.substrate_version }))
            }
            FirstWord::LoadFailed(failure) => {
                return Err(common.load_failed(plan, failure).await);
            }
        };
        let drifted = drift(&proxy, &plan.capability, &plan.drift).await;
        // A tool that requires a key refuses to be without it here, and not in its first call, as a fault of that.
        if !plan.config.is_empty() || !plan.keys_missing.is_empty() {
            let remaining = timeout.saturating_sub(started.elapsed());
            common.initialize(plan, &proxy, remaining).await?;
        }
        common.phases.set(LifePhase::Idle);
        let wait_seconds = started.elapsed().as_secs_f64();
        let link = link.map(tokio::sync::Mutex::new);
        let jobs = genuine.is_some().then(|| genuine::follow(&proxy, plan.instance.clone(), sinks));
        let facts =
            WorkerFacts { session: common.session.clone(), pid, ready, wait_seconds, drifted, genuine };
        Ok(ProcessWorker { common, facts, proxy, link, jobs, unsent: UnsentCalls::default() })
    }
}

impl StartingWorker for Spawned {
    fn pid(&self) -> u32 {
        self.pid
    }

    fn socket(&self) -> PathBuf {
        self.common.socket.clone()
    }

    fn killer(&self) -> StartKiller {
        let (keeper, session) = (Arc::clone(&self.common.keeper), self.common.session.clone());
        let own_kill = Arc::clone(&self.common.own_kill);
        Box::new(move |reason| {
            own_kill.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(reason);
            keeper.kill(&session);
        })
    }

    fn ready(self: Box<Self>, timeout: Duration) -> BoxFuture<'static, Started> {
        let mut death = self.common.death.clone();
        Box::pin(async move {
            match self.first_word(timeout).await {
                Ok(worker) => Ok(Arc::new(worker) as Arc<dyn Worker>),
                Err(error) => {
                    let death = async move { death.wait_for(Option::is_some).await.ok()?.clone() };
                    Err((error, Box::pin(death) as NewsOfDeath))
                }
            }
        })
    }
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
        own_variables: plan.own_variables.clone(),
    }
}

#[cfg(test)]
mod tests;
