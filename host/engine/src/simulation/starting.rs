//! How simulated workers start: slowly, or not at all, when the seed says so.

use super::answering::SimulatedWorker;
use super::body::{Body, Why};
use cjm_decide::death::OwnKill;
use cjm_wire::link::WorkerReady;
use cjm_workers::{NewsOfDeath, StartError, StartKiller, Started, StartingWorker, Worker, WorkerFacts};
use futures_util::future::BoxFuture;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// What becomes of a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Ready,
    LoadFailed,
    Dies,
    Hangs,
}

pub(super) struct Starting {
    pub(super) body: Arc<Body>,
    pub(super) pid: u32,
    pub(super) fate: Fate,
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
                    body.seen().ready.insert(body.session.clone());
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
                    body.killed(OwnKill::StartFailed { why: "no module".to_owned() }).await;
                    load_failed(capability)
                }
                Fate::Dies => {
                    body.kill(Why::ByItself);
                    let death = body.dead().await;
                    StartError::Died {
                        capability,
                        verdict: death.verdict().to_string().into(),
                        next_step: None,
                        hints: Box::default(),
                        unset: Box::default(),
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
            Err(not_started(body, error))
        })
    }
}

/// What is told of it; how the journal is to tell its death is remembered.
fn not_started(body: Arc<Body>, error: StartError) -> (StartError, NewsOfDeath) {
    let phase = match error {
        StartError::NeverReady { .. } => "startup_timeout",
        _ => "startup",
    };
    body.seen().start_phases.insert(body.session.clone(), phase);
    (error, Box::pin(async move { Some(body.dead().await) }))
}

fn load_failed(capability: String) -> StartError {
    StartError::LoadFailed {
        capability,
        message: "no module".into(),
        hints: Box::default(),
        unset: Box::default(),
        signal: None,
        traceback: None,
        stderr_tail: Vec::new(),
    }
}
