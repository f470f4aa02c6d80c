//! What every part of a running host shares: options, stores, keeper, instances, and the way to the queue's owner.

use crate::error::HostError;
use crate::instances::Instance;
use crate::queue::state::{ActiveJob, Command, Finished};
use cjm_decide::queue::QueueEvent;
use cjm_platform::lock::FileLock;
use cjm_store::{Commit, InputHashes, Journal, WorkerRecord, Write};
use cjm_wire::event::JournalRow;
use cjm_wire::{InstanceId, JobId, RunId, Timestamp, WorkerSessionId};
use cjm_workers::HostEvent;
use cjm_workers::HostOptions;
use cjm_workers::Keeper;
use cjm_workers::Sinks;
use cjm_workers::StartError;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;

pub(crate) struct Context {
    pub(crate) options: HostOptions,
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) sinks: Arc<Sinks>,
    pub(crate) runtime_dir: PathBuf,
    pub(crate) worker_binary: PathBuf,
    pub(crate) run_id: RunId,
    pub(crate) host_session: String,
    /// To the queue's owner. Unbounded as a channel, bounded by what may be in it: every job is counted against
    /// `pending_max` before it is accepted, and has a handful of events in its life.
    pub(crate) queue: mpsc::UnboundedSender<Command>,
    /// Jobs accepted and not yet running, with those being committed.
    pub(crate) waiting: AtomicUsize,
    pub(crate) keeper: tokio::sync::Mutex<Option<Arc<Keeper>>>,
    pub(crate) instances: Mutex<HashMap<InstanceId, Arc<Instance>>>,
    pub(crate) active: Mutex<HashMap<JobId, Arc<ActiveJob>>>,
    pub(crate) finished: Mutex<Finished>,
    pub(crate) input_hashes: Arc<InputHashes>,
}

impl Context {
    /// The keeper; a new one when there is none, or when it died.
    pub(crate) async fn keeper(&self, capability: &str) -> Result<Arc<Keeper>, StartError> {
        let mut slot = self.keeper.lock().await;
        if let Some(keeper) = slot.as_ref().filter(|keeper| !keeper.is_gone()) {
            return Ok(Arc::clone(keeper));
        }
        let keeper = start_keeper(&self.options, self.worker_binary.clone()).await.map_err(|error| {
            use cjm_wire::describe::Described;
            StartError::Spawn {
                capability: capability.to_owned(),
                message: error.to_string(),
                next_step: error.next_step(),
            }
        })?;
        let keeper = Arc::new(keeper);
        *slot = Some(Arc::clone(&keeper));
        Ok(keeper)
    }

    /// Writes a row that nobody waits for.
    pub(crate) fn note(&self, mut row: JournalRow) {
        row.run_id.get_or_insert_with(|| self.run_id.to_string());
        row.actor.get_or_insert_with(|| self.options.actor.clone());
        self.detach(Commit::telling().row(row));
    }

    /// Writes down that a worker was spawned, so that a later host can recognise what is left of it.
    pub(crate) fn note_worker(
        &self,
        session: &WorkerSessionId,
        instance: &InstanceId,
        capability: &str,
        pid: u32,
    ) {
        self.detach(Commit::telling().write(Write::WorkerSpawned(Box::new(WorkerRecord {
            worker_session_id: session.clone(),
            host_session_id: self.host_session.clone(),
            instance_id: instance.to_string(),
            capability_name: capability.to_owned(),
            pid,
            spawned_at: Timestamp::now(),
            ended_at: None,
        }))));
    }

    /// Writes down that a worker and its tree are gone.
    pub(crate) fn note_worker_end(&self, session: &WorkerSessionId) {
        self.detach(Commit::telling().write(Write::WorkerEnded(session.clone(), Timestamp::now())));
    }

    fn detach(&self, commit: Commit) {
        if let Err(error) = self.journal.commit_detached(commit) {
            tracing::warn!(%error, "a row of the journal was lost");
        }
    }

    /// Tells whoever listens.
    pub(crate) fn tell(&self, event: HostEvent) {
        // An error only says that nobody does.
        let _ = self.sinks.events.send(event);
    }

    /// Tells the queue's owner.
    pub(crate) fn tell_queue(&self, event: QueueEvent) {
        // The owner ends last; without it nothing is decided any more.
        let _ = self.queue.send(Command::Event(event));
    }

    pub(crate) fn instance(&self, id: &InstanceId) -> Option<Arc<Instance>> {
        self.instances().get(id).cloned()
    }

    pub(crate) fn instances(&self) -> std::sync::MutexGuard<'_, HashMap<InstanceId, Arc<Instance>>> {
        self.instances.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn active(&self) -> std::sync::MutexGuard<'_, HashMap<JobId, Arc<ActiveJob>>> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn finished(&self) -> std::sync::MutexGuard<'_, Finished> {
        self.finished.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes `tree.lock`, waiting for what is left of a dead host, and starts a keeper that holds it from then on.
pub(crate) async fn start_keeper(options: &HostOptions, worker_binary: PathBuf) -> Result<Keeper, HostError> {
    let path = options.data_dir.join("tree.lock");
    let directory = options.data_dir.clone();
    let wait = options.lock_wait;
    let blocking = tokio::task::spawn_blocking(move || {
        let owner = format!("the keeper of host process {}", std::process::id());
        let lock = FileLock::acquire(&path, &owner, wait).map_err(|error| {
            match HostError::from_lock(error, directory) {
                HostError::DirectoryInUse { path, holder } => {
                    HostError::TreeStillEnding { path, holder, waited_seconds: wait.as_secs() }
                }
                other => other,
            }
        })?;
        Keeper::start(&worker_binary, lock.into_owned()).map_err(|refusal| {
            HostError::Start(StartError::Spawn {
                capability: "the keeper".to_owned(),
                message: refusal.message,
                next_step: refusal.next_step,
            })
        })
    });
    blocking.await.unwrap_or(Err(HostError::ShuttingDown))
}
