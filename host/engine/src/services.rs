//! What every part of a running host shares: options, stores, workers, whom events are told, and the tasks that must have
//! ended before the stores close. It knows neither instances nor jobs.

use crate::compositions::stored::StoredComposition;
use crate::deadlines::Deadlines;
use cjm_store::{Commit, InputHashes, JobRecord, Journal, StoreError};
use cjm_wire::describe::Described;
use cjm_wire::event::JournalRow;
use cjm_wire::{CompositionId, JobId, RunId};
use cjm_workers::{HostEvent, HostOptions, Sinks, Workers};
use futures_util::FutureExt;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) struct Services {
    pub(crate) options: HostOptions,
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) history: Arc<dyn History>,
    pub(crate) sinks: Arc<Sinks>,
    pub(crate) workers: Arc<dyn Workers>,
    pub(crate) run_id: RunId,
    pub(crate) host_session: String,
    pub(crate) input_hashes: Arc<InputHashes>,
    /// Tasks that hold a job or a row; they are joined before the stores close.
    pub(crate) tasks: TaskTracker,
    /// Direct calls in their callers' hands: what they account for is written when their callers look at them, so they are
    /// waited for as well, but not for long.
    pub(crate) calls: TaskTracker,
    pub(crate) deadlines: Arc<Deadlines>,
    /// The host is ending: nothing new begins.
    pub(crate) closing: CancellationToken,
    /// Nobody waits any more until workers have ended well.
    pub(crate) grace_waived: CancellationToken,
}

/// A job as the store has it.
pub(crate) struct StoredJob {
    pub(crate) record: JobRecord,
    pub(crate) result: Option<Vec<u8>>,
    /// The process of the worker of its last attempt.
    pub(crate) worker_pid: Option<u32>,
}

/// What is known of jobs and compositions that this host no longer has in memory.
pub(crate) trait History: Send + Sync {
    /// A job as the store has it, with its result. Blocks.
    fn job(&self, job: &JobId) -> Result<Option<StoredJob>, StoreError>;
    /// A composition as the store has it, with its output and the row of its end. Blocks.
    fn composition(&self, id: &CompositionId) -> Result<Option<StoredComposition>, StoreError>;
}

impl Services {
    /// Writes a row that nobody waits for. Where too much waits for the disk already it is dropped, with a warning.
    pub(crate) fn note(&self, row: JournalRow) {
        let lost = self.journal.commit_detached(Commit::telling().row(self.signed(row))).err();
        if let Some(error) = lost.filter(|error| !error.is_said_by_writer()) {
            tracing::warn!(%error, "a row of the journal was lost");
        }
    }

    /// Writes what must not be lost. It is queued at once, so that rows keep their order; what is left of it goes on
    /// without the caller and is joined before the journal closes.
    pub(crate) fn write(&self, mut commit: Commit) {
        commit.rows = commit.rows.into_iter().map(|row| self.signed(row)).collect();
        let mut writing = self.journal.commit(commit);
        let told = |outcome: Result<_, StoreError>| {
            if let Err(error) = outcome
                && !error.is_said_by_writer()
            {
                let next_step = error.next_step();
                tracing::error!(%error, next_step, "a row of the journal was lost");
            }
        };
        match (&mut writing).now_or_never() {
            Some(outcome) => told(outcome),
            None => {
                self.tasks.spawn(async move { told(writing.await) });
            }
        }
    }

    fn signed(&self, mut row: JournalRow) -> JournalRow {
        row.run_id.get_or_insert_with(|| self.run_id.to_string());
        row.actor.get_or_insert_with(|| self.options.actor.clone());
        row
    }

    /// Tells whoever listens.
    pub(crate) fn tell(&self, event: HostEvent) {
        // An error only says that nobody does.
        let _ = self.sinks.events.send(event);
    }
}
