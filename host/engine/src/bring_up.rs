//! Brings a host up: locks its directory, opens the stores, ends what a dead host left, starts the keeper. All of it
//! happens before anything can be asked of the host, in this order, and leaves nothing behind when it fails.

use crate::data_folder;
use crate::error::HostError;
use crate::process_workers::{ProcessWorkers, start_keeper};
use crate::queue::attempt::Runner;
use crate::queue::owner::own_queue;
use crate::queue::state::Jobs;
use crate::services::{History, Services, StoredJob};
use cjm_catalog::Catalog;
use cjm_catalog::programs::{as_text, worker_binary};
use cjm_decide::queue::QueueLimits;
use cjm_platform::lock::FileLock;
use cjm_platform::runtime_dir::{name_for, private_dir, runtime_dir};
use cjm_store::{
    Diagnostics, HostRecord, InputHashes, Journal, JournalOptions, JournalReader, SqliteDiagnostics,
    SqliteJournal, StoreError, begin_host, end_dead_workers,
};
use cjm_wire::{JobId, RunId, Timestamp};
use cjm_workers::{HostOptions, Sinks, StartError, events::EVENTS_BEHIND_MAX};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{broadcast, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How often an idle host looks whether its files still have their names.
const FILES_INTERVAL: Duration = Duration::from_secs(2);

pub(crate) async fn start_parts(
    mut options: HostOptions,
) -> Result<(Runner, Catalog, StartedParts), HostError> {
    let worker_binary = worker_binary(options.worker_binary.as_deref()).map_err(StartError::from)?;
    let asked = options.clone();
    let opened = tokio::task::spawn_blocking(move || open(&asked));
    let Opened { directory, lock, journal, diagnostics, socket_dir } =
        opened.await.unwrap_or(Err(HostError::ShuttingDown))?;
    // Workers get absolute paths, whatever directory they or the host stand in.
    options.data_dir = directory;
    let keeper = start_keeper(&options, worker_binary.clone()).await?;
    let host_session = RunId::new().to_string();
    let journal = begin(journal, &options.data_dir, &host_session).await?;
    let (events, _) = broadcast::channel(EVENTS_BEHIND_MAX);
    let limits =
        QueueLimits { lanes: u32::try_from(options.lanes).unwrap_or(u32::MAX), ..QueueLimits::default() };
    let catalog = Catalog::discover(&options.manifest_dirs);
    let sinks = Arc::new(Sinks { diagnostics: Arc::clone(&diagnostics) as Arc<dyn Diagnostics>, events });
    let workers = ProcessWorkers {
        options: options.clone(),
        worker_binary: worker_binary.clone(),
        socket_dir: socket_dir.clone(),
        sinks: Arc::clone(&sinks),
        keeper: tokio::sync::Mutex::new(Some(Arc::new(keeper))),
    };
    let services = Services {
        run_id: options.run_id.clone().unwrap_or_default(),
        input_hashes: Arc::new(InputHashes::of(&options.data_dir)),
        history: Arc::new(StoredHistory { data_dir: options.data_dir.clone() }),
        options,
        journal,
        sinks,
        workers: Arc::new(workers),
        host_session,
        tasks: TaskTracker::new(),
        calls: TaskTracker::new(),
        deadlines: Arc::default(),
        closing: CancellationToken::new(),
    };
    let runner = start_runner(services, limits);
    tokio::spawn(watch_files(Arc::clone(&runner.services)));
    Ok((runner, catalog, StartedParts { diagnostics, lock, socket_dir, worker_binary }))
}

/// What runs jobs and calls, with the tasks that own its queue and its deadlines.
pub(crate) fn start_runner(services: Services, limits: QueueLimits) -> Runner {
    let (queue, commands) = mpsc::unbounded_channel();
    let gate = services.journal.gate();
    let runner = Runner {
        services: Arc::new(services),
        instances: Arc::default(),
        jobs: Arc::new(Jobs::new(queue, limits)),
    };
    tokio::spawn(own_queue(runner.downgrade(), commands, limits, gate));
    tokio::spawn(Arc::clone(&runner.services.deadlines).keep());
    runner
}

/// Jobs of any age, read from the journal's file.
struct StoredHistory {
    data_dir: PathBuf,
}

impl History for StoredHistory {
    fn job(&self, job: &JobId) -> Result<Option<StoredJob>, StoreError> {
        let reader = JournalReader::open(&self.data_dir)?;
        let Some(record) = reader.job(job)? else { return Ok(None) };
        let result = reader.result(job)?.map(|body| reader.load(&body)).transpose()?;
        let session = record.worker_session_id.as_ref();
        let worker = session.map(|session| reader.worker(session)).transpose()?.flatten();
        let worker_pid = worker.map(|worker| worker.pid);
        Ok(Some(StoredJob { record, result, worker_pid }))
    }
}

/// Looks now and then whether locks and journal still have their names, also while nothing is written: a host whose
/// directory was taken away must not go on as if its rows were kept.
async fn watch_files(services: Arc<Services>) {
    loop {
        tokio::select! {
            () = services.closing.cancelled() => return,
            () = tokio::time::sleep(FILES_INTERVAL) => {}
        }
        let journal = Arc::clone(&services.journal);
        // What is wrong closes the journal's gate, which is told where it is seen.
        let looked = tokio::task::spawn_blocking(move || journal.check_files()).await;
        if matches!(looked, Ok(Err(StoreError::Moved { .. }))) {
            return;
        }
    }
}

/// What a start hands over beside what runs jobs.
pub(crate) struct StartedParts {
    pub(crate) diagnostics: Arc<SqliteDiagnostics>,
    pub(crate) lock: FileLock,
    pub(crate) socket_dir: PathBuf,
    pub(crate) worker_binary: PathBuf,
}

struct Opened {
    directory: PathBuf,
    lock: FileLock,
    journal: SqliteJournal,
    diagnostics: Arc<SqliteDiagnostics>,
    socket_dir: PathBuf,
}

/// Locks the directory and opens what is in it. Blocks.
fn open(options: &HostOptions) -> Result<Opened, HostError> {
    let directory = options.data_dir.as_path();
    let failed = |action| {
        let path = directory.to_owned();
        move |source| HostError::writing(action, path, source)
    };
    // Before anything is made: workers are told of it as text.
    as_text(&std::path::absolute(directory).map_err(failed("find"))?).map_err(StartError::from)?;
    data_folder::make(directory).map_err(failed("make"))?;
    let directory = std::fs::canonicalize(directory).map_err(failed("find"))?;
    as_text(&directory).map_err(StartError::from)?;
    data_folder::keep_private(&directory).map_err(failed("close to others"))?;
    let xdg = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let base = runtime_dir(xdg.as_deref())?;
    // Named by the data directory, so that the next host on it can wipe what a dead one left.
    let socket_dir = base.join(name_for(&directory));
    let owner = format!("pid {} since {}", std::process::id(), Timestamp::now());
    let lock = FileLock::try_acquire(
        &directory.join("host.lock"),
        &format!("{owner}, sockets in {}", socket_dir.display()),
    )
    .map_err(|error| HostError::from_lock(error, directory.clone()))?;
    match std::fs::remove_dir_all(&socket_dir) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            return Err(HostError::writing("clear", socket_dir, source));
        }
        Ok(()) | Err(_) => {}
    }
    private_dir(&socket_dir)?;
    // Without the names of its locks this host would not keep another one out.
    let guarded = ["host.lock", "tree.lock"].map(|name| directory.join(name)).to_vec();
    let jobs_days = options.jobs_retention_days;
    let journal =
        SqliteJournal::open(&directory, JournalOptions { guarded, jobs_days, ..JournalOptions::default() })?;
    let diagnostics = Arc::new(SqliteDiagnostics::open_keeping(&directory, options.retention)?);
    Ok(Opened { directory, lock, journal, diagnostics, socket_dir })
}

/// Writes down that this host began, and ends what a dead one left unfinished; it runs none of it again.
async fn begin(
    journal: SqliteJournal,
    data_dir: &Path,
    host_session: &str,
) -> Result<Arc<dyn Journal>, HostError> {
    let now = Timestamp::now();
    let host = HostRecord {
        host_session_id: host_session.to_owned(),
        pid: std::process::id(),
        started_at: now.clone(),
    };
    let data_dir = data_dir.to_owned();
    let blocking = tokio::task::spawn_blocking(move || {
        let reader = JournalReader::open(&data_dir)?;
        let recovered = begin_host(&journal, &reader, &host, &now)?;
        // The dead host's keeper has let go of the tree lock, so its workers are gone.
        end_dead_workers(&journal, &reader, &host.host_session_id, &now)?;
        let calls = data_folder::clear_killed_calls(&data_dir);
        if calls > 0 {
            tracing::info!(calls, "removed what killed calls had left");
        }
        let (jobs, compositions) = (recovered.jobs.len(), recovered.compositions.len());
        if jobs + compositions > 0 {
            tracing::info!(jobs, compositions, "ended what a dead host left unfinished");
        }
        Ok(Arc::new(journal) as Arc<dyn Journal>)
    });
    blocking.await.unwrap_or(Err(HostError::ShuttingDown))
}
