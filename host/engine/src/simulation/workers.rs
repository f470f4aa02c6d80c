//! Workers without processes: started under ids that no other had, by a keeper that may stand still.

use super::body::{Body, KEEPER_PID, Seen};
use super::journal::SimulatedJournal;
use super::seed::Seed;
use super::starting::{Fate, Starting};
use cjm_wire::WorkerSessionId;
use cjm_workers::{StartError, StartingWorker, WorkerPlan, Workers};
use futures_util::future::BoxFuture;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use tokio::sync::watch;

pub(super) struct SimulatedWorkers {
    pub(super) seen: Arc<Mutex<Seen>>,
    pub(super) journal: Arc<SimulatedJournal>,
    seed: Mutex<Seed>,
    /// Calls of jobs that one worker may have at once.
    cap: usize,
    /// Of a hundred starts, how many fail.
    start_failures: u64,
    /// The keeper stands still: it tells of no death before it is gone itself.
    pub(super) keeper_stands: watch::Sender<bool>,
}

impl SimulatedWorkers {
    pub(super) fn new(journal: Arc<SimulatedJournal>, seed: Seed, cap: usize, start_failures: u64) -> Self {
        let (seed, keeper_stands) = (Mutex::new(seed), watch::Sender::new(false));
        Self { seen: Arc::default(), journal, seed, cap, start_failures, keeper_stands }
    }
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
        let keeper_stands = self.keeper_stands.subscribe();
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
                seen.newest_pid()
            };
            let body = Arc::new(Body {
                capability: plan.capability.clone(),
                death: watch::Sender::new(None),
                dying: watch::Sender::new(None),
                seed: Mutex::new(seed),
                seen,
                journal,
                cap,
                keeper_stands,
                has_taken: AtomicBool::new(false),
                session,
            });
            tokio::spawn(Arc::clone(&body).die());
            Ok(Box::new(Starting { body, pid, fate }) as Box<dyn StartingWorker>)
        })
    }

    fn root_pid(&self) -> BoxFuture<'_, Result<u32, StartError>> {
        Box::pin(async { Ok(KEEPER_PID) })
    }

    fn shutdown(&self) -> BoxFuture<'_, bool> {
        Box::pin(async {
            // Once it is gone, the ends of its workers will be known.
            self.keeper_stands.send_replace(false);
            true
        })
    }
}
