//! One worker that takes calls, until its death. A worker dies once; whoever waits is told with a verdict.

use crate::api::{ChunkStream, Worker, WorkerFacts};
use crate::death::{Death, Watched, dead, millis};
use crate::error::{CallError, NOT_FOUND, StartError, spoken_of};
use crate::frames;
use crate::genuine::RunningJobs;
use crate::in_life::{in_life, its_worker_is_dead, said_in_life};
use crate::keeper_client::Keeper;
use crate::phase::{LastCall, Phases};
use crate::plan::WorkerPlan;
use crate::proxy::{Failed, Proxy, Reply};
use crate::pump::Tail;
use crate::required::{self, Missing};
use crate::start_advice::Hints;
use crate::tool_failure;
use crate::unsent::UnsentCalls;
use bytes::Bytes;
use cjm_decide::death::{Cause, LifePhase, OwnKill};
use cjm_wire::channel::LoadFailure;
use cjm_wire::describe::Described as _;
use cjm_wire::envelope::CancelRequest;
use cjm_wire::error::{ErrorCategory, JobError};
use cjm_wire::link::{ShutdownRequest, to_shim};
use cjm_wire::{JobId, WorkerSessionId, http};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use serde::Deserialize;
use std::os::unix::fs::FileTypeExt as _;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tokio::net::unix::OwnedWriteHalf;

/// How long a failed start waits for the tree to be cleared.
const CLEAR_MAX: Duration = Duration::from_secs(10);
/// How long a kill waits for a keeper that is stopped.
const STOPPED_KEEPER_MAX: Duration = Duration::from_millis(500);
/// How long a broken connection waits for the news of the worker's death.
const DEATH_NEWS_MAX: Duration = Duration::from_secs(2);

/// How long one that cannot be called any more may clean up.
const NO_SOCKET_GRACE: Duration = Duration::from_secs(2);
/// How long a call that did not reach it waits for those that did. A stream may never end, or wait for that very call.
const LAST_CALL_MAX: Duration = Duration::from_secs(600);
/// What a call is told that was on its way to such a one.
const NO_SOCKET: &str =
    "somebody removed its socket, and once its calls have ended another worker takes its place";

const SIGTERM: i32 = 15;
/// How a worker says in HTTP that a configuration is not one.
const REFUSALS: [u16; 2] = [400, 422];

/// What every part of a worker's life shares.
pub(crate) struct Common {
    pub(crate) session: WorkerSessionId,
    pub(crate) capability: String,
    pub(crate) keeper: Arc<Keeper>,
    pub(crate) death: Watched,
    pub(crate) own_kill: Arc<Mutex<Option<OwnKill>>>,
    pub(crate) phases: Phases,
    pub(crate) tail: Tail,
    /// Each call is a program of its own, whose last lines come with its failure.
    pub(crate) calls_have_tails: bool,
    /// What its manifest declares and has no value.
    pub(crate) unset: Vec<Missing>,
    pub(crate) socket: PathBuf,
}

/// A worker that takes calls; its process is the keeper's child.
pub(crate) struct ProcessWorker {
    pub(crate) common: Common,
    pub(crate) facts: WorkerFacts,
    pub(crate) proxy: Proxy,
    /// None: it is the ancestor's own worker, which has none.
    pub(crate) link: Option<tokio::sync::Mutex<OwnedWriteHalf>>,
    /// Of the ancestor's own worker: the jobs whose progress is asked for.
    pub(crate) jobs: Option<Arc<RunningJobs>>,
    pub(crate) unsent: UnsentCalls,
}

/// What becomes of a worker that gave no answer.
enum Fate {
    IsDead(Arc<Death>),
    IsToEnd,
    Stays,
}

impl Common {
    pub(crate) async fn initialize(
        &self,
        plan: &WorkerPlan,
        proxy: &Proxy,
        within: Duration,
    ) -> Result<(), StartError> {
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
        let error = match answer {
            Ok(_) => return Ok(()),
            Err(Failed::Answer(error)) => error.where_nobody_asked(),
            Err(Failed::Connection(message) | Failed::Unsent(message)) => match self.news_of_death().await {
                Some(_) => return Err(self.died_at_start(plan)),
                None => CallError::Connection { capability: plan.capability.clone(), message },
            },
        };
        Err(self.not_initialized(plan, error).await)
    }

    /// Whose it is that `initialize` failed: a configuration that is refused is the caller's to correct, anything else is not.
    async fn not_initialized(&self, plan: &WorkerPlan, error: CallError) -> StartError {
        let failure = match error {
            CallError::Tool { error, .. } if tool_failure::is_of_input(&error) => {
                Err((tool_failure::words(&error), error.fields_invalid.unwrap_or_default()))
            }
            CallError::Tool { error, .. } => Ok(error),
            // The ancestor's worker answers 400 and words to whatever its tool raised.
            CallError::BadAnswer { status, excerpt, .. } if REFUSALS.contains(&status) => {
                Err((excerpt, Vec::new()))
            }
            CallError::BadAnswer { excerpt, .. } => {
                Ok(Box::new(JobError::new(ErrorCategory::Fatal, excerpt)))
            }
            error @ CallError::TooLarge { .. } => Err((error.to_string(), Vec::new())),
            other => Ok(Box::new(JobError::new(ErrorCategory::Transient, other.to_string()))),
        };
        let why = match &failure {
            Ok(error) => format!("it failed in initialize: {}", tool_failure::words(error)),
            Err((message, _)) => format!("it refused its configuration: {message}"),
        };
        self.kill_and_wait(OwnKill::StartFailed { why }).await;
        let (capability, stderr_tail) = (plan.capability.clone(), self.tail.lines());
        match failure {
            Ok(error) => {
                let unset = spoken_in(&self.unset, &error);
                StartError::InitializeFailed { capability, error, unset, stderr_tail }
            }
            Err((message, fields)) => StartError::BadConfiguration {
                capability,
                message,
                has_schema: plan.has_config_schema,
                keys_missing: plan.keys_missing.clone(),
                fields: fields.into(),
                stderr_tail,
            },
        }
    }

    pub(crate) async fn load_failed(&self, plan: &WorkerPlan, failure: LoadFailure) -> StartError {
        self.kill_and_wait(OwnKill::StartFailed { why: failure.message.clone() }).await;
        let stderr_tail = self.tail.lines();
        let words = [failure.message.as_str(), failure.traceback.as_deref().unwrap_or_default()];
        let words = words.into_iter().chain(stderr_tail.iter().map(String::as_str));
        StartError::LoadFailed {
            capability: plan.capability.clone(),
            hints: Box::new(Hints {
                by_hand: plan.cure_by_hand(&failure.message),
                list: plan.list.clone(),
                not_passed: spoken_of(&plan.not_passed, words.clone()),
            }),
            unset: required::spoken_of(&plan.unset, words),
            message: failure.message.into(),
            signal: failure.signal,
            traceback: failure.traceback.map(Box::from),
            stderr_tail,
        }
    }

    pub(crate) fn died_at_start(&self, plan: &WorkerPlan) -> StartError {
        let death = self.death.borrow().clone();
        let from_outside = |cause: &Cause| {
            matches!(
                cause,
                Cause::HostKill { .. }
                    | Cause::KeeperLost
                    | Cause::SuspectedOom
                    | Cause::Killed { .. }
                    | Cause::Signalled { .. }
            )
        };
        let outside = death.as_ref().filter(|death| from_outside(&death.verdict.cause));
        let by_itself = death.iter().filter(|_| outside.is_none());
        let words = by_itself.flat_map(|death| death.stderr_tail.iter().map(String::as_str));
        StartError::Died {
            hints: Box::new(Hints {
                by_hand: plan.cure_by_hand(&words.clone().collect::<Vec<_>>().join("\n")),
                list: plan.list.clone(),
                not_passed: spoken_of(&plan.not_passed, words.clone()),
            }),
            unset: required::spoken_of(&plan.unset, words),
            capability: plan.capability.clone(),
            next_step: outside.map(|death| death.verdict.next_step().into()),
            verdict: death
                .as_ref()
                .map_or_else(|| "for no known reason".into(), |death| death.verdict.to_string().into()),
            stderr_tail: death.as_ref().map(|death| death.stderr_tail.clone()).unwrap_or_default(),
        }
    }

    /// Waits a bounded time for the worker's end to be known.
    pub(crate) async fn news_of_death(&self) -> Option<Arc<Death>> {
        let mut death = self.death.clone();
        let waited = tokio::time::timeout(DEATH_NEWS_MAX, death.wait_for(Option::is_some)).await;
        waited.ok()?.ok()?.clone()
    }

    /// Kills the worker for a reason that the verdict will know, and waits until its tree is gone.
    pub(crate) async fn kill_and_wait(&self, reason: OwnKill) {
        self.note_own_kill(reason);
        self.keeper.kill(&self.session);
        let mut death = self.death.clone();
        // Bounded: a process stuck in the kernel must not hold the host. A keeper that stands still clears nothing before it
        // goes on or is killed, which is its owner's to do.
        let limit = if self.keeper.is_stopped() { STOPPED_KEEPER_MAX } else { CLEAR_MAX };
        let _ = tokio::time::timeout(limit, death.wait_for(Option::is_some)).await;
    }

    pub(crate) fn note_own_kill(&self, reason: OwnKill) {
        self.own_kill.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(reason);
    }
}

impl Worker for ProcessWorker {
    fn facts(&self) -> &WorkerFacts {
        &self.facts
    }

    fn is_dead(&self) -> bool {
        self.common.death.borrow().is_some()
    }

    fn death(&self) -> BoxFuture<'_, Option<Arc<Death>>> {
        let mut death = self.common.death.clone();
        Box::pin(async move { death.wait_for(Option::is_some).await.ok()?.clone() })
    }

    fn call<'a>(&'a self, path: &'a str, body: Bytes) -> BoxFuture<'a, Result<Reply, CallError>> {
        Box::pin(async move {
            let lines_before = self.common.tail.lines_ever();
            let (_running, is_taken) = self.common.phases.call_begins();
            let _job = self.jobs.as_ref().and_then(|jobs| jobs.begin(&body));
            let said = match is_taken {
                true => said_in_life(&self.common.death, pin!(self.proxy.call(path, body.clone()))).await,
                false => Some(Err(it_leaves())),
            };
            match said.unwrap_or_else(|| Err(its_worker_is_dead())) {
                Ok(reply) => Ok(reply),
                // Apart: a call that fails needs much more room than one that does not.
                Err(failed) => Err(Box::pin(self.explain(failed, &body, lines_before)).await),
            }
        })
    }

    fn stream(self: Arc<Self>, body: Bytes) -> BoxFuture<'static, Result<ChunkStream, CallError>> {
        Box::pin(async move {
            let lines_before = self.common.tail.lines_ever();
            let (running, is_taken) = self.common.phases.call_begins();
            let opened = match is_taken {
                true => said_in_life(&self.common.death, pin!(self.proxy.stream(body.clone()))).await,
                false => Some(Err(it_leaves())),
            };
            let lines = match opened.unwrap_or_else(|| Err(its_worker_is_dead())) {
                Ok(lines) => lines,
                Err(failed) => return Err(self.explain(failed, &body, lines_before).await),
            };
            let lines = in_life(self.common.death.clone(), lines);
            // Until it is dropped, it counts as a call; once it has failed, as none that may end well.
            let counted = Arc::new((running, OnceLock::new()));
            let stream: ChunkStream = Box::pin(lines.then(move |item| {
                let (worker, counted) = (Arc::clone(&self), Arc::clone(&counted));
                async move {
                    match item {
                        Ok(chunk) => Ok(chunk),
                        Err(failed) => {
                            let error = worker.explain(failed, &[], lines_before).await;
                            counted.1.get_or_init(|| worker.common.phases.call_is_lost(true));
                            Err(error)
                        }
                    }
                }
            }));
            Ok(stream)
        })
    }

    fn lines_ever(&self) -> u64 {
        self.common.tail.lines_ever()
    }

    fn lines_since(&self, lines_before: u64) -> Vec<String> {
        self.common.tail.lines_since(lines_before)
    }

    fn cancel<'a>(&'a self, job: &'a JobId) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            self.unsent.cancel(job);
            let body = serde_json::to_vec(&CancelRequest { job_id: Some(job.clone()) }).unwrap_or_default();
            // No answer is needed: the call itself ends, or the grace does.
            if let (Err(Failed::Unsent(_)), Some(link)) = (self.proxy.cancel(body.clone()).await, &self.link)
            {
                // Its socket was removed, say; a broken link says that it is dying.
                let _ = frames::write(&mut *link.lock().await, to_shim::CANCEL, &body).await;
            }
        })
    }

    fn question<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Option<bytes::Bytes>> {
        Box::pin(async move { self.proxy.get(path).await.ok().map(|said| self.proxy.shown(&said)) })
    }

    fn unload(&self, grace: Duration, reason: OwnKill) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.common.phases.set(LifePhase::Stopping);
            self.common.note_own_kill(reason.clone());
            let Some(link) = &self.link else { return self.end_genuine(grace, reason).await };
            let grace_ms = millis(grace);
            let request = serde_json::to_vec(&ShutdownRequest { grace_ms }).unwrap_or_default();
            let mut death = self.common.death.clone();
            // The shim enforces the grace itself; ours is longer and for a shim that does not, or does not even read.
            let patience = grace + Duration::from_millis(500);
            let asked = async {
                let asked = frames::write(&mut *link.lock().await, to_shim::SHUTDOWN, &request).await;
                // A broken link says that it is dying already.
                asked.is_ok() && death.wait_for(Option::is_some).await.is_ok()
            };
            if !matches!(tokio::time::timeout(patience, asked).await, Ok(true)) {
                self.common.kill_and_wait(reason).await;
            }
        })
    }

    fn kill(&self, reason: OwnKill) -> BoxFuture<'_, ()> {
        Box::pin(self.common.kill_and_wait(reason))
    }
}

impl ProcessWorker {
    /// Turns what the client saw of this request into what happened; so many lines were there when it began.
    async fn explain(&self, failed: Failed, request: &[u8], lines_before: u64) -> CallError {
        match failed {
            Failed::Answer(CallError::Tool { capability, error, accounts, .. }) => {
                let stderr_tail = match &error.traceback {
                    // Nothing that it said is about a call that it never saw.
                    _ if !tool_failure::has_run(&error) => Vec::new(),
                    // The worker's own tail may be another call's, or late behind a flood.
                    Some(lines) if self.common.calls_have_tails => lines.lines().map(str::to_owned).collect(),
                    _ => {
                        self.common.tail.caught_up().await;
                        self.common.tail.lines()
                    }
                };
                let unset = spoken_in(&self.common.unset, &error);
                CallError::Tool { capability, error, accounts, unset, stderr_tail }
            }
            Failed::Answer(CallError::BadAnswer { capability, status, excerpt, methods, .. }) => {
                // As above: no method of the tool's has run that it does not have.
                let stderr_tail = match status {
                    NOT_FOUND => Vec::new(),
                    _ => {
                        self.common.tail.caught_up().await;
                        self.common.tail.lines()
                    }
                };
                CallError::BadAnswer { capability, status, excerpt, methods, stderr_tail }
            }
            Failed::Answer(CallError::Cancelled { capability, .. }) => {
                self.common.tail.caught_up().await;
                // Which call of a tool prints what is not known; what was there before is of none that ran beside it.
                let stderr_tail = self.common.tail.lines_since(lines_before);
                CallError::Cancelled { capability, stderr_tail }
            }
            Failed::Answer(other) => other,
            Failed::Connection(message) => self.unanswered(message, true, request, lines_before).await,
            Failed::Unsent(message) => self.unanswered(message, false, request, lines_before).await,
        }
    }

    /// What became of a call without an answer. A job that was not sent waits for a worker in place of one without a socket.
    async fn unanswered(&self, message: String, sent: bool, request: &[u8], lines_before: u64) -> CallError {
        let (capability, job) = (&self.common.capability, job_of(request));
        let _lost = self.common.phases.call_is_lost(sent);
        // What nobody can cancel does not wait.
        let waits = !sent && job.is_some();
        let fate = tokio::select! {
            biased;
            () = self.unsent.cancelled(job.as_deref()), if waits => {
                return CallError::cancelled(capability);
            }
            fate = self.fate(waits) => fate,
        };
        let death = match fate {
            Fate::IsDead(death) => Some(death),
            Fate::IsToEnd => {
                self.unload(NO_SOCKET_GRACE, OwnKill::SocketGone).await;
                self.common.death.borrow().clone()
            }
            Fate::Stays => None,
        };
        match death {
            Some(death) => {
                let said_meanwhile = self.common.tail.lines_since(lines_before);
                death.of_call(capability, sent, job.as_deref(), said_meanwhile)
            }
            None if self.has_lost_its_socket() => {
                let message = format!("{message}; {NO_SOCKET}");
                CallError::Connection { capability: capability.clone(), message }
            }
            None => CallError::Connection { capability: capability.clone(), message },
        }
    }

    /// What becomes of a worker that a call did not reach, or that broke its connection. One that lost its socket can be called
    /// by few, and from now on by nobody: it ends as when it is unloaded, and the next call has another one in its place.
    /// While a connection still carries a call it stays, since that may end well; only who `waits` waits for that.
    async fn fate(&self, waits: bool) -> Fate {
        match self.common.news_of_death().await {
            Some(death) => return Fate::IsDead(death),
            None if !self.has_lost_its_socket() => return Fate::Stays,
            None => {}
        }
        if self.common.phases.leaves() {
            return Fate::IsToEnd;
        }
        if !waits {
            return Fate::Stays;
        }
        match tokio::time::timeout(LAST_CALL_MAX, self.common.phases.last_call_ended()).await {
            Ok(LastCall::Broke) => self.common.news_of_death().await.map_or(Fate::IsToEnd, Fate::IsDead),
            Ok(LastCall::Ended) => Fate::IsToEnd,
            Err(_) => Fate::Stays,
        }
    }

    /// Whether somebody has removed it, as the end of a login or a cleaner of `/tmp` does.
    fn has_lost_its_socket(&self) -> bool {
        !std::fs::symlink_metadata(&self.common.socket).is_ok_and(|found| found.file_type().is_socket())
    }

    /// The ancestor's worker cleans up when it is asked, and ends by SIGTERM once its calls have ended.
    async fn end_genuine(&self, grace: Duration, reason: OwnKill) {
        let mut death = self.common.death.clone();
        // What it answers changes nothing: it is to end.
        let _ = tokio::time::timeout(grace, self.proxy.hook(http::CLEANUP, Vec::new())).await;
        self.common.keeper.signal(&self.common.session, SIGTERM);
        if tokio::time::timeout(grace, death.wait_for(Option::is_some)).await.is_err() {
            self.common.kill_and_wait(reason).await;
        }
    }
}

fn it_leaves() -> Failed {
    Failed::Unsent(String::from("it takes no more calls"))
}

/// What a tool's failure speaks of. Its traceback quotes lines of source, which name more than failed.
fn spoken_in(unset: &[Missing], error: &JobError) -> Box<[Missing]> {
    required::spoken_of(unset, [error.message.as_str(), error.original_exc_repr.as_str()])
}

/// The job that a request is made for.
fn job_of(request: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Head {
        envelope: Envelope,
    }
    #[derive(Deserialize)]
    struct Envelope {
        job_id: String,
    }
    serde_json::from_slice(request).ok().map(|Head { envelope: Envelope { job_id } }| job_id)
}

#[cfg(test)]
pub(crate) mod tests;
