//! Workers that are processes: children of one keeper, which is started anew when it died.

use crate::error::HostError;
use cjm_platform::lock::FileLock;
use cjm_wire::WorkerSessionId;
use cjm_wire::describe::Described;
use cjm_workers::{
    HostOptions, Keeper, NotStarted, Sinks, StartError, StartingWorker, WorkerPlan, Workers, stopped_keeper,
};
use futures_util::future::BoxFuture;
use std::path::PathBuf;
use std::sync::Arc;

pub(crate) struct ProcessWorkers {
    pub(crate) options: HostOptions,
    pub(crate) worker_binary: PathBuf,
    /// Where their sockets go.
    pub(crate) socket_dir: PathBuf,
    pub(crate) sinks: Arc<Sinks>,
    pub(crate) keeper: tokio::sync::Mutex<Option<Arc<Keeper>>>,
}

impl ProcessWorkers {
    /// The keeper; a new one when there is none, or when it died.
    async fn keeper(&self, capability: &str) -> Result<Arc<Keeper>, StartError> {
        let mut slot = self.keeper.lock().await;
        if let Some(keeper) = slot.as_ref().filter(|keeper| !keeper.is_gone()) {
            return Ok(Arc::clone(keeper));
        }
        let keeper = start_keeper(&self.options, self.worker_binary.clone()).await.map_err(|error| {
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
}

impl Workers for ProcessWorkers {
    fn spawn(
        &self,
        plan: Arc<WorkerPlan>,
        session: WorkerSessionId,
    ) -> BoxFuture<'_, Result<Box<dyn StartingWorker>, StartError>> {
        Box::pin(async move {
            let not_started = NotStarted {
                keeper: self.keeper(&plan.capability).await?,
                plan,
                session,
                sinks: Arc::clone(&self.sinks),
                runtime_dir: self.socket_dir.clone(),
                log_level: self.options.log_level.clone(),
                host_dir: self.options.data_dir.clone(),
            };
            Ok(Box::new(not_started.spawn().await?) as Box<dyn StartingWorker>)
        })
    }

    fn root_pid(&self) -> BoxFuture<'_, Result<u32, StartError>> {
        Box::pin(async move { Ok(self.keeper("the keeper").await?.pid()) })
    }

    fn shutdown(&self) -> BoxFuture<'_, bool> {
        Box::pin(async move {
            match self.keeper.lock().await.take() {
                Some(keeper) => keeper.shutdown().await,
                None => true,
            }
        })
    }
}

/// Takes `tree.lock`, waiting for what is left of a dead host, and starts a keeper that holds it from then on.
pub(crate) async fn start_keeper(options: &HostOptions, worker_binary: PathBuf) -> Result<Keeper, HostError> {
    let path = options.data_dir.join("tree.lock");
    let directory = options.data_dir.clone();
    let wait = options.lock_wait;
    let blocking = tokio::task::spawn_blocking(move || {
        // Until there is a keeper, which is then named instead.
        let owner = format!("host process {}, which is starting its keeper", std::process::id());
        let lock = FileLock::acquire(&path, &owner, wait).map_err(|error| {
            match HostError::from_lock(error, directory) {
                HostError::DirectoryInUse { path, holder } => {
                    let stopped_keeper = stopped_keeper(&path.join("tree.lock"), &holder);
                    HostError::TreeStillEnding {
                        path,
                        holder,
                        stopped_keeper,
                        waited_seconds: wait.as_secs(),
                    }
                }
                other => other,
            }
        })?;
        Keeper::start(&worker_binary, lock)
            .map_err(|refusal| HostError::Keeper { message: refusal.message, next_step: refusal.next_step })
    });
    blocking.await.unwrap_or(Err(HostError::ShuttingDown))
}
