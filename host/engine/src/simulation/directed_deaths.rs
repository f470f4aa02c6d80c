//! A death that is known and of which nobody was told yet: whoever comes next finds out by itself.

use super::directed::sound_stage;
use super::journal::SimulatedJournal;
use super::making::host;
use super::scenario::load;
use super::seed::Seed;
use crate::instances::Instance;
use bytes::Bytes;
use cjm_decide::death::OwnKill;
use cjm_decide::queue::QueueLimits;
use cjm_wire::link::WorkerReady;
use cjm_wire::{InstanceId, JobId, WorkerSessionId};
use cjm_workers::{
    CallError, ChunkStream, Death, Reply, StartError, StartKiller, Started, StartingWorker, Worker,
    WorkerFacts, WorkerPlan, Workers,
};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Workers that are ready at once, and whose deaths are told to nobody.
#[derive(Clone, Default)]
struct Silent {
    is_dead: Arc<AtomicBool>,
}

struct SilentWorker {
    facts: WorkerFacts,
    is_dead: Arc<AtomicBool>,
}

impl Workers for Silent {
    fn spawn(
        &self,
        _: Arc<WorkerPlan>,
        session: WorkerSessionId,
    ) -> BoxFuture<'_, Result<Box<dyn StartingWorker>, StartError>> {
        // The next one lives.
        let is_dead = Arc::clone(&self.is_dead);
        is_dead.store(false, Ordering::Relaxed);
        let ready = WorkerReady {
            tool_pid: None,
            name: "tool".to_owned(),
            version: "1".to_owned(),
            supports: Vec::new(),
            concurrency_max: 1,
        };
        let facts =
            WorkerFacts { session, pid: 7, ready, wait_seconds: 0.0, drifted: Vec::new(), genuine: None };
        Box::pin(async move { Ok(Box::new(SilentWorker { facts, is_dead }) as Box<dyn StartingWorker>) })
    }

    fn root_pid(&self) -> BoxFuture<'_, Result<u32, StartError>> {
        Box::pin(async { Ok(1) })
    }

    fn shutdown(&self) -> BoxFuture<'_, bool> {
        Box::pin(async { true })
    }
}

impl StartingWorker for SilentWorker {
    fn pid(&self) -> u32 {
        self.facts.pid
    }

    fn socket(&self) -> PathBuf {
        PathBuf::from("/simulated")
    }

    fn killer(&self) -> StartKiller {
        Box::new(|_| {})
    }

    fn ready(self: Box<Self>, _: Duration) -> BoxFuture<'static, Started> {
        Box::pin(async move { Ok(Arc::new(*self) as Arc<dyn Worker>) })
    }
}

impl Worker for SilentWorker {
    fn facts(&self) -> &WorkerFacts {
        &self.facts
    }

    fn is_dead(&self) -> bool {
        self.is_dead.load(Ordering::Relaxed)
    }

    fn death(&self) -> BoxFuture<'_, Option<Arc<Death>>> {
        std::future::pending().boxed()
    }

    fn call<'a>(&'a self, _: &'a str, _: Bytes) -> BoxFuture<'a, Result<Reply, CallError>> {
        std::future::pending().boxed()
    }

    fn stream(self: Arc<Self>, _: Bytes) -> BoxFuture<'static, Result<ChunkStream, CallError>> {
        std::future::pending().boxed()
    }

    fn cancel<'a>(&'a self, _: &'a JobId) -> BoxFuture<'a, ()> {
        std::future::ready(()).boxed()
    }

    fn question<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Option<Bytes>> {
        std::future::ready(None).boxed()
    }

    fn unload(&self, _: Duration, _: OwnKill) -> BoxFuture<'_, ()> {
        std::future::ready(()).boxed()
    }

    fn kill(&self, _: OwnKill) -> BoxFuture<'_, ()> {
        std::future::ready(()).boxed()
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_is_known_to_be_dead_is_used_no_more() {
    let workers = Silent::default();
    let journal = SimulatedJournal::new(Seed::new(1));
    tokio::spawn(Arc::clone(&journal).write_on());
    let host = host(QueueLimits::default(), &journal, Arc::new(workers.clone()));
    let id = InstanceId::from_text("tool-1");
    host.register("tool", &load(&id, 1)).expect("registered");
    let instance: Arc<Instance> = host.instances().get(&id).expect("registered");
    let runner = host.runner();
    let enter = || instance.ensure_worker(&runner.services, &runner.jobs, None);
    let first = enter().await.ok().expect("it starts").facts().session.clone();
    assert!(instance.worker().is_some() && instance.worker_of(&first).is_some());
    workers.is_dead.store(true, Ordering::Relaxed);
    assert!(instance.worker().is_none() && instance.worker_of(&first).is_none());
    let second = enter().await.ok().expect("it starts again").facts().session.clone();
    assert_ne!(first, second);
    assert!(instance.worker_of(&first).is_none(), "it is another one's");
}

/// Its death was noted by whoever came first, and is not noted again by whoever was told of it.
#[tokio::test(start_paused = true)]
async fn an_end_that_is_told_twice_renews_an_instance_once() {
    let set = sound_stage();
    set.host.call(&set.instance.id, super::directed_calls::direct("ok"), None).await.expect("it lives");
    let (runner, first) = (set.host.runner(), set.instance.session());
    set.instance.recycle(&runner.services, &runner.jobs, &first, OwnKill::Evicted);
    while set.instance.session() == first {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let second = set.instance.session();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(set.instance.session(), second);
    set.host.shutdown().await;
}
