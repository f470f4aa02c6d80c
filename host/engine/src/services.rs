//! What every part of a running host shares: options, stores, keeper, and whom events are told. It knows neither
//! instances nor jobs.

use crate::error::HostError;
use cjm_platform::lock::FileLock;
use cjm_store::{Commit, InputHashes, Journal, WorkerRecord, Write};
use cjm_wire::event::JournalRow;
use cjm_wire::{InstanceId, RunId, Timestamp, WorkerSessionId};
use cjm_workers::{HostEvent, HostOptions, Keeper, Sinks, StartError};
use std::path::PathBuf;
use std::sync::Arc;

pub(crate) struct Services {
    pub(crate) options: HostOptions,
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) sinks: Arc<Sinks>,
    pub(crate) runtime_dir: PathBuf,
    pub(crate) worker_binary: PathBuf,
    pub(crate) run_id: RunId,
    pub(crate) host_session: String,
    pub(crate) keeper: tokio::sync::Mutex<Option<Arc<Keeper>>>,
    pub(crate) input_hashes: Arc<InputHashes>,
}

impl Services {
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
