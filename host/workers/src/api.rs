//! What the engine needs of workers, and all of it: start one, talk to it, end it, learn how it ended. Behind it stand
//! processes; in the engine's simulator, nothing but a seed.

use crate::death::Death;
use crate::error::{CallError, StartError};
use crate::plan::WorkerPlan;
use crate::proxy::Reply;
use bytes::Bytes;
use cjm_decide::death::OwnKill;
use cjm_wire::link::WorkerReady;
use cjm_wire::{JobId, WorkerSessionId};
use futures_util::future::BoxFuture;
use serde_json::value::RawValue;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// Chunks of a streamed call, as they come.
pub type ChunkStream = Pin<Box<dyn futures_util::Stream<Item = Result<Box<RawValue>, CallError>> + Send>>;

/// Kills what is being brought up, for a reason that its death will name.
pub type StartKiller = Box<dyn Fn(OwnKill) + Send + Sync>;

/// A worker that takes calls; or why there is none, with its death.
pub type Started = Result<Arc<dyn Worker>, (StartError, NewsOfDeath)>;

/// Resolves when a worker is dead; `None`: nobody will ever know how.
pub type NewsOfDeath = BoxFuture<'static, Option<Arc<Death>>>;

/// Starts workers.
pub trait Workers: Send + Sync + 'static {
    /// Starts the process of one worker, under an id that no worker had before.
    ///
    /// # Errors
    /// When nothing was started.
    fn spawn(
        &self,
        plan: Arc<WorkerPlan>,
        session: WorkerSessionId,
    ) -> BoxFuture<'_, Result<Box<dyn StartingWorker>, StartError>>;

    /// The process whose children all workers are.
    ///
    /// # Errors
    /// When it cannot be started.
    fn root_pid(&self) -> BoxFuture<'_, Result<u32, StartError>>;

    /// Ends everything that is left. False: it could not be confirmed.
    fn shutdown(&self) -> BoxFuture<'_, bool>;
}

/// A worker whose process runs and which is not ready yet.
pub trait StartingWorker: Send {
    /// Its process.
    fn pid(&self) -> u32;

    /// Where it will answer.
    fn socket(&self) -> PathBuf;

    /// Kills it, from anywhere, while it is being brought up.
    fn killer(&self) -> StartKiller;

    /// Waits until it takes calls. When this fails, its whole tree is gone, but for what no kill has ended in a bounded time;
    /// its death tells when that is gone, too.
    ///
    /// # Errors
    /// When it could not be loaded, died, refused its configuration, or took longer than `timeout`.
    fn ready(self: Box<Self>, timeout: Duration) -> BoxFuture<'static, Started>;
}

/// What is known of a worker that is ready.
#[derive(Debug, Clone)]
pub struct WorkerFacts {
    /// Its incarnation.
    pub session: WorkerSessionId,
    /// Its process.
    pub pid: u32,
    /// What it said of itself.
    pub ready: WorkerReady,
    /// From its spawn until it was ready.
    pub wait_seconds: f64,
    /// Sections of its manifest that are not what its code says now.
    pub drifted: Vec<&'static str>,
    /// Of the ancestor's own worker.
    pub genuine: Option<GenuineFacts>,
}

/// What is known of the ancestor's own worker alone.
#[derive(Debug, Clone)]
pub struct GenuineFacts {
    /// Its version.
    pub substrate_version: Option<String>,
}

/// A worker that takes calls.
pub trait Worker: Send + Sync {
    /// What is known of it.
    fn facts(&self) -> &WorkerFacts;

    /// Whether it is known to be dead.
    fn is_dead(&self) -> bool;

    /// Resolves when it is dead; `None`: nobody will ever know how.
    fn death(&self) -> BoxFuture<'_, Option<Arc<Death>>>;

    /// One call; a broken connection becomes the worker's death, with its verdict. Ends, at the latest, when the worker
    /// is dead.
    ///
    /// # Errors
    /// When the tool failed, was cancelled, or the worker died.
    fn call<'a>(&'a self, path: &'a str, body: Bytes) -> BoxFuture<'a, Result<Reply, CallError>>;

    /// One streamed call; what breaks it is explained as [`Worker::call`] explains it. It counts as a call until the
    /// stream is dropped.
    ///
    /// # Errors
    /// When the worker refuses the call or died.
    fn stream(self: Arc<Self>, body: Bytes) -> BoxFuture<'static, Result<ChunkStream, CallError>>;

    /// Lines that it has printed on standard error so far.
    fn lines_ever(&self) -> u64 {
        0
    }

    /// Lines that it has printed there after so many, as far as they are kept.
    fn lines_since(&self, lines_before: u64) -> Vec<String> {
        let _ = lines_before;
        Vec::new()
    }

    /// Asks the tool to stop the call with this id.
    fn cancel<'a>(&'a self, job: &'a JobId) -> BoxFuture<'a, ()>;

    /// A question about state, `GET`.
    fn question<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Option<Bytes>>;

    /// Ends it well within `grace`, by force after it. Returns when its tree is gone.
    fn unload(&self, grace: Duration, reason: OwnKill) -> BoxFuture<'_, ()>;

    /// Kills it at once. Returns when its tree is gone.
    fn kill(&self, reason: OwnKill) -> BoxFuture<'_, ()>;
}
