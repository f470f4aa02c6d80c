//! What the host knows of its keeper's workers, shared by whoever asks for them and whoever hears of them.

use super::held::Held;
use cjm_platform::Pid;
use cjm_wire::keeper::HostToKeeper;
use cjm_wire::link::ExitStatus;
use std::collections::{BTreeSet, HashMap};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// How a worker ended, as the keeper saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WorkerEnd {
    /// Its wait status; `None` when the keeper itself is gone and nobody could see it.
    pub(crate) status: Option<ExitStatus>,
    /// Processes it left behind that had to be killed.
    pub(crate) descendants_killed: u32,
    /// How long that took.
    pub(crate) clear_ms: u64,
}

/// A worker that runs.
pub(crate) struct SpawnedWorker {
    pub(crate) pid: u32,
    pub(crate) end: oneshot::Receiver<WorkerEnd>,
}

/// Why the keeper could not start a worker.
#[derive(Debug, Clone)]
pub struct SpawnRefusal {
    /// What was refused.
    pub message: String,
    /// What to do.
    pub next_step: String,
}

pub(super) struct PendingSpawn {
    pub(super) answer: oneshot::Sender<Result<SpawnedWorker, SpawnRefusal>>,
}

#[derive(Default)]
pub(super) struct Table {
    pub(super) spawning: HashMap<String, PendingSpawn>,
    pub(super) running: HashMap<String, Running>,
    /// It was told to end by somebody else, and kills all workers: none of them ended by itself.
    pub(super) ending: bool,
    pub(super) gone: bool,
}

pub(super) struct Running {
    pub(super) end: oneshot::Sender<WorkerEnd>,
    /// None: it was gone before it could be taken hold of.
    pub(super) held: Option<Arc<Held>>,
    /// Seen to have ended, of which the keeper has said nothing yet.
    pub(super) ended: Option<Instant>,
    /// The host ends it in its keeper's place.
    pub(super) is_being_ended: bool,
}

pub(super) struct Outgoing {
    pub(super) message: HostToKeeper,
    pub(super) fds: Vec<OwnedFd>,
}

impl Table {
    /// The process of a worker that is to be ended in its keeper's place; None where that is being done already.
    pub(super) fn begin_ending(&mut self, worker: &str) -> Option<Arc<Held>> {
        let running = self.running.get_mut(worker).filter(|running| !running.is_being_ended)?;
        let held = running.held.clone()?;
        running.is_being_ended = true;
        Some(held)
    }

    /// The workers that live, as far as is known.
    pub(super) fn living(&self) -> BTreeSet<Pid> {
        let held = self.running.values().filter_map(|running| running.held.as_ref());
        held.filter(|held| !held.has_ended()).map(|held| held.pid()).collect()
    }
}

impl Running {
    pub(super) fn new(end: oneshot::Sender<WorkerEnd>, held: Option<Arc<Held>>) -> Self {
        Self { end, held, ended: None, is_being_ended: false }
    }
}

impl WorkerEnd {
    /// Of a worker whose tree was cleared in so long a time.
    pub(super) fn cleared(status: Option<ExitStatus>, descendants_killed: u32, took: Duration) -> Self {
        let clear_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        Self { status, descendants_killed, clear_ms }
    }
}

impl SpawnRefusal {
    pub(super) fn gone() -> Self {
        Self {
            message: "the keeper is gone".to_owned(),
            next_step: "try again: the host starts a new keeper".to_owned(),
        }
    }
}

pub(super) fn lock(table: &Mutex<Table>) -> MutexGuard<'_, Table> {
    // The table is consistent between any two statements; a panicking holder changes nothing about that.
    table.lock().unwrap_or_else(PoisonError::into_inner)
}
