//! What simulated workers do with calls: they answer as the calls' arguments ask them to, and hold the engine to what it promised
//! them: no call before its row, no call beyond the cap.

use super::body::{Body, KEEPER_PID, Why};
use crate::compositions::monitor::SAMPLE_INTERVAL_MS;
use bytes::Bytes;
use cjm_decide::death::OwnKill;
use cjm_wire::JobId;
use cjm_wire::envelope::ExecuteRequest;
use cjm_wire::error::{ErrorCategory, JobError};
use cjm_wire::http::Account;
use cjm_workers::{CallError, ChunkStream, Death, Reply, Worker, WorkerFacts};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::value::RawValue;
use serde_json::{Map, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

pub(super) struct SimulatedWorker {
    pub(super) body: Arc<Body>,
    pub(super) facts: WorkerFacts,
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
        seen.entered += 1;
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
            seen.direct.insert(job.clone(), body.session.clone());
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
        let act = text("do");
        let account = || {
            self.body.seen().accounts += 1;
            vec![Account { event_type: "task_account".to_owned(), payload: Map::new() }]
        };
        match act {
            "deaf" => std::future::pending().await,
            "stubborn" => {
                let _ = cancelled.wait_for(|cancelled| *cancelled).await;
                tokio::time::sleep(pause).await;
                return reply(1);
            }
            "hang" => {
                let _ = cancelled.wait_for(|cancelled| *cancelled).await;
                tokio::time::sleep(pause).await;
                return Err(CallError::cancelled(&capability));
            }
            _ => tokio::time::sleep(pause).await,
        }
        match act {
            "fail" | "account-and-fail" => Err(CallError::Tool {
                capability,
                error: Box::new(JobError::new(ErrorCategory::Fatal, "it fails")),
                accounts: if act == "fail" { Vec::new() } else { account() },
                unset: Box::default(),
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
            "account" => reply(1).map(|reply| Reply { accounts: account(), ..reply }),
            "claims" => Err(CallError::cancelled(&capability)),
            "large" => reply(super::kept::RESULT_BYTES_MAX as u64 + 1),
            _ => reply(1),
        }
    }
}

type Chunk = Result<Box<RawValue>, CallError>;

/// Memory of a simulated worker, for each number of its process.
pub(super) const RSS_MB_PER_PID: f64 = 10.0;

impl SimulatedWorker {
    fn died(&self, death: &Death) -> CallError {
        CallError::Died {
            capability: self.body.capability.clone(),
            verdict: Box::new(death.verdict().clone()),
            stderr_tail: Vec::new(),
        }
    }

    fn not_taken(&self, death: &Death) -> CallError {
        CallError::NotTaken {
            capability: self.body.capability.clone(),
            others: self.body.has_taken.load(Ordering::Relaxed),
            verdict: Box::new(death.verdict().clone()),
            stderr_tail: Vec::new(),
        }
    }

    /// A monitor's samples, of every worker there was: each holds [`RSS_MB_PER_PID`] for each number of its process. They end
    /// when their reader goes away.
    async fn watch(&self, chunks: &mpsc::Sender<Chunk>) {
        loop {
            let newest = self.body.seen().newest_pid();
            let processes = (KEEPER_PID + 1..=newest).map(|pid| {
                json!({
                    "pid": pid, "ppid": KEEPER_PID, "cpu_seconds": 1.0,
                    "memory_rss_mb": f64::from(pid) * RSS_MB_PER_PID,
                })
            });
            let sample = json!({ "processes": processes.collect::<Vec<_>>() }).to_string();
            if chunks.send(Ok(RawValue::from_string(sample).expect("JSON"))).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(SAMPLE_INTERVAL_MS)).await;
        }
    }

    /// A stream whose tool does not begin to answer: it is cancelled, or its worker dies.
    async fn never_open(&self, request: &ExecuteRequest) -> CallError {
        let counted = self.enter(request);
        let (cancel, mut cancelled) = watch::channel(false);
        CANCELS.with_borrow_mut(|cancels| cancels.insert(counted.1.clone(), cancel));
        tokio::select! {
            biased;
            death = self.body.dead() => self.died(&death),
            answer = self.answer(request, &mut cancelled) => {
                let capability = self.body.capability.clone();
                answer.err().unwrap_or(CallError::cancelled(&capability))
            }
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
        let is_cut = request.kwargs.contains_key("cut");
        let is_watch = request.kwargs.get("action").is_some_and(|action| action == "watch");
        let work = async {
            for number in 0..count {
                tokio::time::sleep(pause).await;
                let chunk = RawValue::from_string(number.to_string()).expect("a number");
                let _ = chunks.send(Ok(chunk)).await;
            }
            if is_cut {
                // The connection breaks, and the tool does not notice.
                let capability = self.body.capability.clone();
                let message = "broken pipe".to_owned();
                let _ = chunks.send(Err(CallError::Connection { capability, message })).await;
            }
            if is_watch {
                self.watch(&chunks).await;
            }
            self.answer(&request, &mut cancelled).await
        };
        let closed = async {
            if is_cut {
                std::future::pending::<()>().await;
            }
            chunks.closed().await;
            cancel.send_replace(true);
            std::future::pending::<()>().await;
        };
        let last = tokio::select! {
            biased;
            death = self.body.dead() => {
                if request.kwargs.contains_key("held") {
                    // Somebody else has the connection open, and says nothing.
                    drop(counted);
                    return std::future::pending().await;
                }
                Err(self.died(&death))
            }
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

    fn call<'a>(&'a self, _: &'a str, body: Bytes) -> BoxFuture<'a, Result<Reply, CallError>> {
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
                // What was said before a death is read, as with the real one.
                answer = answer => return answer,
                death = self.body.dead() => death,
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
            Err(self.not_taken(&death))
        })
    }

    fn stream(self: Arc<Self>, body: Bytes) -> BoxFuture<'static, Result<ChunkStream, CallError>> {
        Box::pin(async move {
            let request: ExecuteRequest = serde_json::from_slice(&body).expect("a request");
            let on_its_way = self.body.seed().millis(8);
            let is_taken = request.kwargs.get("do").is_none_or(|act| act != "untaken");
            let arrives = async {
                tokio::time::sleep(on_its_way).await;
                if !is_taken {
                    self.body.kill(Why::ByItself);
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                biased;
                death = self.body.dead() => return Err(self.not_taken(&death)),
                () = arrives => {}
            }
            if request.kwargs.contains_key("unopened") {
                return Err(self.never_open(&request).await);
            }
            // What is sent before it is read, as a socket holds it.
            let (sender, chunks) = mpsc::channel(2);
            tokio::spawn(self.stream_to(request, sender));
            let read = async |(mut chunks, is_broken): (mpsc::Receiver<Chunk>, bool)| {
                let item = if is_broken { None } else { chunks.recv().await }?;
                let is_broken = matches!(item, Err(CallError::Connection { .. }));
                Some((item, (chunks, is_broken)))
            };
            Ok(Box::pin(futures_util::stream::unfold((chunks, false), read)) as ChunkStream)
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
