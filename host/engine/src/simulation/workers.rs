//! Workers without processes. They start slowly or not at all, die when the seed says so, answer as their arguments ask
//! them to, and hold the engine to what it promised them: no session twice, no call before its row, no call beyond the cap.

use super::journal::SimulatedJournal;
use super::seed::Seed;
use bytes::Bytes;
use cjm_decide::death::{Evidence, LifePhase, OwnKill, SincePhaseBegan, verdict};
use cjm_wire::envelope::ExecuteRequest;
use cjm_wire::error::{ErrorCategory, JobError};
use cjm_wire::link::WorkerReady;
use cjm_wire::{JobId, WorkerSessionId};
use cjm_workers::{
    CallError, ChunkStream, Death, Reply, StartError, StartKiller, Started, StartingWorker, Worker,
    WorkerFacts, WorkerPlan, Workers,
};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::value::RawValue;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// What the workers of one scenario have seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) sessions: BTreeSet<WorkerSessionId>,
    pub(super) living: BTreeSet<WorkerSessionId>,
    /// Calls that run, by worker.
    calls: BTreeMap<WorkerSessionId, BTreeSet<JobId>>,
    /// Jobs whose request has reached a worker.
    pub(super) sent: BTreeSet<JobId>,
    /// What runs, called directly.
    direct: BTreeSet<JobId>,
    /// Calls that end when they are asked to.
    pub(super) cooperative: BTreeSet<JobId>,
    /// Why the host killed workers.
    pub(super) kills: Vec<OwnKill>,
    pub(super) broken: Vec<String>,
    pid: u32,
}

impl Seen {
    pub(super) fn running(&self) -> usize {
        self.calls.values().map(BTreeSet::len).sum::<usize>() + self.direct.len()
    }
}

pub(super) struct SimulatedWorkers {
    pub(super) seen: Arc<Mutex<Seen>>,
    pub(super) journal: Arc<SimulatedJournal>,
    seed: Mutex<Seed>,
    /// Calls of jobs that one worker may have at once.
    cap: usize,
    /// Of a hundred starts, how many fail.
    start_failures: u64,
}

impl SimulatedWorkers {
    pub(super) fn new(journal: Arc<SimulatedJournal>, seed: Seed, cap: usize, start_failures: u64) -> Self {
        Self { seen: Arc::default(), journal, seed: Mutex::new(seed), cap, start_failures }
    }
}

/// What becomes of a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Ready,
    LoadFailed,
    Dies,
    Hangs,
}

impl Workers for SimulatedWorkers {
    fn spawn(
        &self,
        plan: Arc<WorkerPlan>,
        session: WorkerSessionId,
    ) -> BoxFuture<'_, Result<Box<dyn StartingWorker>, StartError>> {
        let mut seed = self.seed.lock().expect("not poisoned").fork();
        let refused = seed.percent(self.start_failures / 4);
        let pause = seed.millis(4);
        let fate = match seed.below(100) {
            n if n < self.start_failures / 3 => Fate::LoadFailed,
            n if n < 2 * self.start_failures / 3 => Fate::Dies,
            n if n < self.start_failures => Fate::Hangs,
            _ => Fate::Ready,
        };
        let (seen, journal, cap) = (Arc::clone(&self.seen), Arc::clone(&self.journal), self.cap);
        Box::pin(async move {
            tokio::time::sleep(pause).await;
            if refused {
                return Err(StartError::Spawn {
                    capability: plan.capability.clone(),
                    message: "no descriptors".to_owned(),
                    next_step: "close some".to_owned(),
                });
            }
            let pid = {
                let mut seen = seen.lock().expect("not poisoned");
                if !seen.sessions.insert(session.clone()) {
                    let complaint = format!("{session} is started a second time");
                    seen.broken.push(complaint);
                }
                seen.living.insert(session.clone());
                seen.pid += 1;
                seen.pid
            };
            let body = Arc::new(Body {
                capability: plan.capability.clone(),
                death: watch::Sender::new(None),
                dying: watch::Sender::new(None),
                seed: Mutex::new(seed),
                seen,
                journal,
                cap,
                has_taken: AtomicBool::new(false),
                session,
            });
            tokio::spawn(Arc::clone(&body).die());
            Ok(Box::new(Starting { body, pid, fate }) as Box<dyn StartingWorker>)
        })
    }

    fn root_pid(&self) -> BoxFuture<'_, Result<u32, StartError>> {
        Box::pin(async { Ok(1) })
    }

    fn shutdown(&self) -> BoxFuture<'_, bool> {
        Box::pin(async { true })
    }
}

/// What starting and living workers are made of.
struct Body {
    capability: String,
    session: WorkerSessionId,
    /// Why it is to die.
    dying: watch::Sender<Option<Why>>,
    death: watch::Sender<Option<Arc<Death>>>,
    seed: Mutex<Seed>,
    seen: Arc<Mutex<Seen>>,
    journal: Arc<SimulatedJournal>,
    cap: usize,
    /// A call has arrived at it.
    has_taken: AtomicBool,
}

#[derive(Debug, Clone)]
enum Why {
    Killed(OwnKill),
    ByItself,
}

impl Body {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("not poisoned")
    }

    fn seed(&self) -> Seed {
        self.seed.lock().expect("not poisoned").fork()
    }

    fn kill(&self, why: Why) {
        self.dying.send_if_modified(|known| {
            let first = known.is_none();
            known.get_or_insert(why);
            first
        });
    }

    /// Waits for a reason to die, dies, and some time later that is known.
    async fn die(self: Arc<Self>) {
        let mut dying = self.dying.subscribe();
        let why = dying.wait_for(Option::is_some).await.expect("the sender is ours").clone();
        if let Some(Why::Killed(reason)) = &why {
            self.seen().kills.push(reason.clone());
        }
        let mut seed = self.seed();
        tokio::time::sleep(seed.millis(10)).await;
        self.seen().living.remove(&self.session);
        let mut evidence = Evidence::new(LifePhase::Calling, SincePhaseBegan::default());
        match why {
            Some(Why::Killed(reason)) => evidence.own_kill = Some(reason),
            Some(Why::ByItself) | None => evidence.keeper_lost = true,
        }
        self.death.send_replace(Some(Arc::new(Death::told(verdict(&evidence), Vec::new()))));
    }

    async fn dead(&self) -> Arc<Death> {
        let mut death = self.death.subscribe();
        let death = death.wait_for(Option::is_some).await.expect("the sender is ours").clone();
        death.expect("waited for")
    }

    async fn killed(&self, reason: OwnKill) {
        self.kill(Why::Killed(reason));
        self.dead().await;
    }
}

struct Starting {
    body: Arc<Body>,
    pid: u32,
    fate: Fate,
}

impl StartingWorker for Starting {
    fn pid(&self) -> u32 {
        self.pid
    }

    fn socket(&self) -> PathBuf {
        PathBuf::from("/simulated")
    }

    fn killer(&self) -> StartKiller {
        let body = Arc::clone(&self.body);
        Box::new(move |reason| body.kill(Why::Killed(reason)))
    }

    fn ready(self: Box<Self>, timeout: Duration) -> BoxFuture<'static, Started> {
        Box::pin(async move {
            let Self { body, pid, fate } = *self;
            let capability = body.capability.clone();
            let pause = body.seed().millis(60);
            let fate = tokio::select! {
                biased;
                _ = body.dead() => Fate::Dies,
                () = tokio::time::sleep(pause) => fate,
            };
            let error = match fate {
                Fate::Ready => {
                    let mut seed = body.seed();
                    if seed.percent(10) {
                        let (body, pause) = (Arc::clone(&body), seed.millis(400));
                        tokio::spawn(async move {
                            tokio::time::sleep(pause).await;
                            body.kill(Why::ByItself);
                        });
                    }
                    let ready = WorkerReady {
                        tool_pid: None,
                        name: capability,
                        version: "1".to_owned(),
                        supports: Vec::new(),
                        concurrency_max: 1,
                    };
                    let facts = WorkerFacts {
                        session: body.session.clone(),
                        pid,
                        ready,
                        wait_seconds: 0.0,
                        genuine: None,
                        drifted: Vec::new(),
                    };
                    return Ok(Arc::new(SimulatedWorker { body, facts }) as Arc<dyn Worker>);
                }
                Fate::LoadFailed => {
                    body.killed(OwnKill::Unload).await;
                    StartError::LoadFailed {
                        capability,
                        message: "no module".to_owned(),
                        not_passed: Vec::new(),
                        stderr_tail: Vec::new(),
                    }
                }
                Fate::Dies => {
                    body.kill(Why::ByItself);
                    let death = body.dead().await;
                    StartError::Died {
                        capability,
                        verdict: death.verdict().to_string(),
                        next_step: None,
                        not_passed: Vec::new(),
                        stderr_tail: Vec::new(),
                    }
                }
                Fate::Hangs => {
                    tokio::select! {
                        _ = body.dead() => {}
                        () = tokio::time::sleep(timeout) => {}
                    }
                    body.killed(OwnKill::StartTimeout { limit_ms: 0 }).await;
                    StartError::NeverReady { capability, seconds: 0.0, stderr_tail: Vec::new() }
                }
            };
            let death = body.death.borrow().clone();
            Err((error, death))
        })
    }
}

struct SimulatedWorker {
    body: Arc<Body>,
    facts: WorkerFacts,
}

/// Counts a call for as long as it lives.
struct Counted<'a>(&'a Body, JobId);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        let mut seen = self.0.seen();
        seen.direct.remove(&self.1);
        if let Some(calls) = seen.calls.get_mut(&self.0.session) {
            calls.remove(&self.1);
        }
    }
}

impl SimulatedWorker {
    /// Enters a call, and checks what the engine promises of it.
    fn enter(&self, request: &ExecuteRequest) -> Counted<'_> {
        let body = &*self.body;
        let job = request.envelope.job_id.clone().expect("every call has an id");
        let is_job = request.kwargs.contains_key("job");
        let runs_on = body.journal.kept(|kept| kept.runs_on(&job).cloned());
        let mut seen = body.seen();
        let mut complain = Vec::new();
        if is_job {
            if runs_on.as_ref() != Some(&body.session) {
                complain.push(format!("{job} is sent to {}, and its row says {runs_on:?}", body.session));
            }
            if !seen.sent.insert(job.clone()) {
                complain.push(format!("{job} is sent twice"));
            }
        }
        if request.kwargs.get("do").is_some_and(|act| act == "hang") {
            seen.cooperative.insert(job.clone());
        }
        if !is_job {
            seen.direct.insert(job.clone());
        }
        let calls = seen.calls.entry(body.session.clone()).or_default();
        if is_job {
            calls.insert(job.clone());
            if calls.len() > body.cap {
                complain.push(format!("{} calls at once on {}", calls.len(), body.session));
            }
        }
        seen.broken.extend(complain);
        drop(seen);
        Counted(body, job)
    }

    async fn answer(
        &self,
        request: &ExecuteRequest,
        cancelled: &mut watch::Receiver<bool>,
    ) -> Result<Reply, CallError> {
        let capability = self.body.capability.clone();
        let text = |key: &str| request.kwargs.get(key).and_then(|value| value.as_str()).unwrap_or_default();
        let number = |key: &str| request.kwargs.get(key).and_then(serde_json::Value::as_u64).unwrap_or(0);
        let pause = Duration::from_millis(number("ms"));
        let reply = |bytes: u64| {
            let text = "r".repeat(usize::try_from(bytes).expect("small"));
            Ok(Reply { body: Bytes::from(format!("{text:?}")), accounts: Vec::new() })
        };
        match text("do") {
            "deaf" => std::future::pending().await,
            "stubborn" => {
                let _ = cancelled.wait_for(|cancelled| *cancelled).await;
                tokio::time::sleep(pause).await;
                return reply(1);
            }
            "hang" => {
                let _ = cancelled.wait_for(|cancelled| *cancelled).await;
                tokio::time::sleep(pause).await;
                return Err(CallError::Cancelled { capability });
            }
            _ => tokio::time::sleep(pause).await,
        }
        match text("do") {
            "fail" => Err(CallError::Tool {
                capability,
                error: Box::new(JobError::new(ErrorCategory::Fatal, "it fails")),
                accounts: Vec::new(),
                stderr_tail: Vec::new(),
            }),
            "die" => {
                self.body.kill(Why::ByItself);
                std::future::pending().await
            }
            "answer-and-die" => {
                self.body.kill(Why::ByItself);
                reply(1)
            }
            "claims" => Err(CallError::Cancelled { capability }),
            "large" => reply(super::journal::RESULT_BYTES_MAX as u64 + 1),
            _ => reply(1),
        }
    }
}

type Chunk = Result<Box<RawValue>, CallError>;

impl SimulatedWorker {
    fn died(&self, death: &Death) -> CallError {
        CallError::Died {
            capability: self.body.capability.clone(),
            verdict: Box::new(death.verdict().clone()),
            stderr_tail: Vec::new(),
        }
    }

    /// The tool's side of a stream: it goes on whether or not anybody reads, and hears of a connection that was closed as of
    /// a cancel.
    async fn stream_to(self: Arc<Self>, request: ExecuteRequest, chunks: mpsc::Sender<Chunk>) {
        let counted = self.enter(&request);
        let (cancel, mut cancelled) = watch::channel(false);
        CANCELS.with_borrow_mut(|cancels| cancels.insert(counted.1.clone(), cancel.clone()));
        let count = request.kwargs.get("chunks").and_then(serde_json::Value::as_u64).unwrap_or(0);
        let pause = self.body.seed().millis(20);
        let work = async {
            for number in 0..count {
                tokio::time::sleep(pause).await;
                let chunk = RawValue::from_string(number.to_string()).expect("a number");
                let _ = chunks.send(Ok(chunk)).await;
            }
            self.answer(&request, &mut cancelled).await
        };
        let closed = async {
            chunks.closed().await;
            cancel.send_replace(true);
            std::future::pending::<()>().await;
        };
        let last = tokio::select! {
            biased;
            death = self.body.dead() => Err(self.died(&death)),
            answer = work => answer.map(drop),
            () = closed => Ok(()),
        };
        if let Err(error) = last {
            let _ = chunks.send(Err(error)).await;
        }
    }
}

thread_local! {
    /// Who is to hear of the cancel of a call.
    static CANCELS: std::cell::RefCell<BTreeMap<JobId, watch::Sender<bool>>> = const { std::cell::RefCell::new(BTreeMap::new()) };
}

impl Worker for SimulatedWorker {
    fn facts(&self) -> &WorkerFacts {
        &self.facts
    }

    fn is_dead(&self) -> bool {
        self.body.death.borrow().is_some()
    }

    fn death(&self) -> BoxFuture<'_, Option<Arc<Death>>> {
        Box::pin(self.body.dead().map(Some))
    }

    fn call<'a>(&'a self, _: &'a str, body: Vec<u8>) -> BoxFuture<'a, Result<Reply, CallError>> {
        Box::pin(async move {
            let request: ExecuteRequest = serde_json::from_slice(&body).expect("a request");
            let counted = self.enter(&request);
            let on_its_way = self.body.seed().millis(8);
            let has_arrived = AtomicBool::new(false);
            let answer = async {
                // What asks for its end before it has arrived finds nothing to stop.
                tokio::time::sleep(on_its_way).await;
                if request.kwargs.get("do").is_some_and(|act| act == "untaken") {
                    self.body.kill(Why::ByItself);
                    std::future::pending::<()>().await;
                }
                has_arrived.store(true, Ordering::Relaxed);
                self.body.has_taken.store(true, Ordering::Relaxed);
                let (sender, mut cancelled) = watch::channel(false);
                CANCELS.with_borrow_mut(|cancels| cancels.insert(counted.1.clone(), sender));
                self.answer(&request, &mut cancelled).await
            };
            let death = tokio::select! {
                biased;
                death = self.body.dead() => death,
                answer = answer => return answer,
            };
            let job = counted.1.clone();
            drop(counted);
            // That the connection is broken is noticed when it is: others may know of the death before.
            tokio::time::sleep(on_its_way).await;
            if has_arrived.load(Ordering::Relaxed) {
                return Err(self.died(&death));
            }
            // Nothing of it was done: it may be sent again.
            self.body.seen().sent.remove(&job);
            Err(CallError::NotTaken {
                capability: self.body.capability.clone(),
                others: self.body.has_taken.load(Ordering::Relaxed),
                verdict: Box::new(death.verdict().clone()),
                stderr_tail: Vec::new(),
            })
        })
    }

    fn stream(self: Arc<Self>, body: Vec<u8>) -> BoxFuture<'static, Result<ChunkStream, CallError>> {
        Box::pin(async move {
            let request: ExecuteRequest = serde_json::from_slice(&body).expect("a request");
            let on_its_way = self.body.seed().millis(8);
            tokio::select! {
                biased;
                death = self.body.dead() => return Err(self.died(&death)),
                () = tokio::time::sleep(on_its_way) => {}
            }
            // What is sent before it is read, as a socket holds it.
            let (sender, chunks) = mpsc::channel(2);
            tokio::spawn(self.stream_to(request, sender));
            let chunks =
                futures_util::stream::unfold(chunks, async |mut chunks| Some((chunks.recv().await?, chunks)));
            Ok(Box::pin(chunks) as ChunkStream)
        })
    }

    fn cancel<'a>(&'a self, job: &'a JobId) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let pause = self.body.seed().millis(5);
            tokio::time::sleep(pause).await;
            CANCELS.with_borrow(|cancels| {
                if let Some(cancel) = cancels.get(job) {
                    cancel.send_replace(true);
                }
            });
        })
    }

    fn question<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Option<Bytes>> {
        Box::pin(async { None })
    }

    fn unload(&self, grace: Duration, reason: OwnKill) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let pause = self.body.seed().millis(u64::try_from(grace.as_millis()).unwrap_or(0) / 10 + 1);
            tokio::time::sleep(pause).await;
            self.body.killed(reason).await;
        })
    }

    fn kill(&self, reason: OwnKill) -> BoxFuture<'_, ()> {
        Box::pin(self.body.killed(reason))
    }
}
