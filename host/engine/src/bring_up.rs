//! Brings a host up: locks its directory, opens the stores, ends what a dead host left, starts the keeper. All of it
//! happens before anything can be asked of the host, in this order, and leaves nothing behind when it fails.

use crate::compositions::stored::StoredComposition;
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
use cjm_platform::lock::{FileLock, FoldersOfHost, held_by, holder_without_file, take_folders_of_host};
use cjm_platform::mounts::remove_tree;
use cjm_platform::runtime_dir::{folder_in_tmp, name_for, private_dir, runtime_dir};
use cjm_store::{
    CompositionBody, Diagnostics, HostRecord, InputHashes, Journal, JournalFilter, JournalOptions,
    JournalReader, SqliteDiagnostics, SqliteJournal, StoreError, begin_host, end_dead_workers,
};
use cjm_wire::event::EventType;
use cjm_wire::{CompositionId, JobId, RunId, Timestamp};
use cjm_workers::{HostOptions, Sinks, StartError, events::EVENTS_BEHIND_MAX};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{broadcast, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Whoever asks whether a host runs holds its lock for an instant; a host holds it for longer than this.
const ASKED_MAX: Duration = Duration::from_millis(100);
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
        grace_waived: CancellationToken::new(),
    };
    let runner = start_runner(services, limits);
    let Services { journal, closing, .. } = &*runner.services;
    tokio::spawn(watch_files(Arc::clone(journal), closing.clone()));
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

/// Jobs and compositions of any age, read from the journal's file.
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

    fn composition(&self, id: &CompositionId) -> Result<Option<StoredComposition>, StoreError> {
        let reader = JournalReader::open(&self.data_dir)?;
        let Some(record) = reader.composition(id)? else { return Ok(None) };
        let output = reader.composition_body(id, CompositionBody::Output)?;
        let output = output.map(|body| reader.load(&body)).transpose()?;
        let filter = JournalFilter {
            composition: Some(id.to_string()),
            event_types: vec![EventType::RunFinished.as_str().to_owned()],
            ..JournalFilter::default()
        };
        let end = reader.last(&filter, 1)?.pop().map(|found| found.row.payload);
        Ok(Some(StoredComposition { record, output, end }))
    }
}

/// Looks now and then whether locks and journal still have their names, also while nothing is written: a host whose
/// directory was taken away must not go on as if its rows were kept.
async fn watch_files(journal: Arc<dyn Journal>, closing: CancellationToken) {
    loop {
        tokio::select! {
            () = closing.cancelled() => return,
            () = tokio::time::sleep(FILES_INTERVAL) => {}
        }
        let journal = Arc::clone(&journal);
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
    pub(crate) lock: HostLocks,
    pub(crate) socket_dir: PathBuf,
    pub(crate) worker_binary: PathBuf,
}

/// What keeps other hosts out. Who finds the folder held and the file free waits for as long as a beginning or an end may
/// take before that is a file that was removed.
#[derive(Debug)]
pub(crate) struct HostLocks {
    /// The folders', which stay where the file is removed.
    _folders: FoldersOfHost,
    /// It names the host.
    _file: FileLock,
}

impl HostLocks {
    /// All, or who has one. The folders first: who is refused has not written into the file that it is the host.
    fn take(directory: &Path, owner: &str) -> Result<Self, HostError> {
        // Where it cannot be made the others are locked.
        let _ = std::fs::DirBuilder::new().mode(0o700).create(directory.join("payloads"));
        let path = directory.join("host.lock");
        let folders = take_folders_of_host(directory, ASKED_MAX).map_err(|_| {
            let named = held_by(&path).ok().flatten().filter(|said| !said.is_empty());
            let holder = named.unwrap_or_else(|| holder_without_file(directory));
            HostError::DirectoryInUse { path: directory.to_owned(), holder }
        })?;
        let file = FileLock::acquire(&path, owner, ASKED_MAX)
            .map_err(|error| HostError::from_lock(error, directory.to_owned()))?;
        Ok(Self { _folders: folders, _file: file })
    }
}

struct Opened {
    directory: PathBuf,
    lock: HostLocks,
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
    data_folder::keep_private(&directory)
        .map_err(|(action, path, source)| HostError::writing(action, path, source))?;
    let xdg = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let base = runtime_dir(xdg.as_deref())?;
    // Named by the data directory, so that the next host on it can wipe what a dead one left.
    let socket_dir = base.join(name_for(&directory));
    let owner = format!("pid {} since {}", std::process::id(), Timestamp::now());
    let lock = HostLocks::take(&directory, &format!("{owner}, sockets in {}", socket_dir.display()))?;
    clear_sockets(&socket_dir)?;
    private_dir(&socket_dir)?;
    // Without the names of its locks this host would not keep another one out.
    let guarded = ["host.lock", "tree.lock"].map(|name| directory.join(name)).to_vec();
    let jobs_days = options.jobs_retention_days;
    let journal =
        SqliteJournal::open(&directory, JournalOptions { guarded, jobs_days, ..JournalOptions::default() })?;
    let diagnostics = Arc::new(SqliteDiagnostics::open_keeping(&directory, options.retention)?);
    Ok(Opened { directory, lock, journal, diagnostics, socket_dir })
}

/// Removes the sockets that a dead host left, wherever they stand.
fn clear_sockets(socket_dir: &Path) -> Result<(), HostError> {
    match remove_tree(socket_dir) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            return Err(HostError::writing("clear", socket_dir.to_owned(), source));
        }
        Ok(()) | Err(_) => {}
    }
    if let Some(left) = folder_in_tmp(socket_dir) {
        let _ = remove_tree(&left);
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;
    use cjm_store::{Body, Commit, JobEnd, JobRecord, JobStart, JournalFilter, WorkerRecord, Write, rows};
    use cjm_wire::WorkerSessionId;
    use cjm_wire::event::{EventType, JobStatus, JournalRow};

    /// A data directory, and what is opened of it once.
    fn opened() -> (tempfile::TempDir, HostOptions, Opened) {
        let folder = tempfile::tempdir().expect("a folder");
        let options = HostOptions::new(folder.path().join("data"));
        let opened = open(&options).expect("it opens");
        (folder, options, opened)
    }

    #[test]
    fn a_directory_has_one_host_and_the_next_wipes_what_a_dead_one_left() {
        let (_folder, options, first) = opened();
        let held = open(&options).map(drop);
        let Err(HostError::DirectoryInUse { holder, .. }) = held else { panic!("{held:?}") };
        let (socket_dir, text) = (first.socket_dir.clone(), format!("{holder:?}"));
        assert!(text.contains(&std::process::id().to_string()), "{text}");
        assert!(text.contains(&socket_dir.display().to_string()), "{text}");
        let left = socket_dir.join("left.sock");
        std::fs::write(&left, "").expect("written");
        // And where those stand that are made after a logout.
        let in_tmp = runtime_dir(None).expect("made").join(socket_dir.file_name().expect("a name"));
        std::fs::create_dir_all(in_tmp.join("deep")).expect("made");
        first.journal.close();
        drop(first);
        let second = open(&options).expect("it is free again");
        assert!(second.socket_dir == socket_dir && socket_dir.is_dir() && !left.exists());
        assert!(!in_tmp.join("deep").exists());
        std::fs::remove_dir_all(&socket_dir).expect("removed");
    }

    #[test]
    fn sockets_of_a_dead_host_go_from_the_folder_of_a_login_and_from_that_below_tmp() {
        let login = tempfile::tempdir().expect("a folder");
        let socket_dir = login.path().join("cjm").join(name_for(login.path()));
        let in_tmp = runtime_dir(None).expect("made").join(socket_dir.file_name().expect("a name"));
        clear_sockets(&socket_dir).expect("where nothing is, nothing is left");
        for folder in [&socket_dir, &in_tmp] {
            std::fs::create_dir_all(folder).expect("made");
            std::fs::write(folder.join("left.sock"), "").expect("written");
        }
        clear_sockets(&socket_dir).expect("cleared");
        assert!(!socket_dir.exists() && !in_tmp.exists());
        std::fs::create_dir_all(login.path().join("cjm")).expect("made");
        std::fs::write(&socket_dir, "").expect("written");
        clear_sockets(&socket_dir).expect_err("what is no folder of sockets is not ours");
    }

    #[test]
    fn whoever_only_asks_who_runs_keeps_no_host_out() {
        let (folder, options) =
            (tempfile::tempdir().expect("a folder"), |path: &Path| HostOptions::new(path));
        let directory = folder.path().join("data");
        std::fs::create_dir_all(&directory).expect("made");
        let asking = std::fs::File::create(directory.join("host.lock")).expect("a lock");
        asking.lock_shared().expect("locked");
        std::thread::scope(|scope| {
            let starting = scope.spawn(|| open(&options(&directory)).map(|opened| opened.journal.close()));
            std::thread::sleep(Duration::from_millis(20));
            drop(asking);
            starting.join().expect("no panic").expect("it starts");
        });
    }

    #[tokio::test(start_paused = true)]
    async fn a_lock_that_is_taken_away_closes_the_journal_of_an_idle_host() {
        for name in ["host.lock", "tree.lock"] {
            let folder = tempfile::tempdir().expect("a folder");
            let options = HostOptions::new(folder.path().join("data"));
            std::fs::create_dir_all(&options.data_dir).expect("made");
            // The keeper's.
            std::fs::write(options.data_dir.join("tree.lock"), "").expect("written");
            let Opened { journal, socket_dir, lock: _lock, .. } = open(&options).expect("it opens");
            let (journal, closing) = (Arc::new(journal) as Arc<dyn Journal>, CancellationToken::new());
            let gate = journal.gate();
            let watching = tokio::spawn(watch_files(Arc::clone(&journal), closing.clone()));
            tokio::time::sleep(2 * FILES_INTERVAL).await;
            assert!(gate.borrow().is_open() && !watching.is_finished());
            std::fs::remove_file(options.data_dir.join(name)).expect("removed");
            tokio::time::timeout(2 * FILES_INTERVAL, watching)
                .await
                .expect("it is noticed")
                .expect("no panic");
            assert!(!gate.borrow().is_open(), "{name}");
            journal.close();
            std::fs::remove_dir_all(&socket_dir).expect("removed");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_looks_at_the_files_of_a_host_that_ends() {
        let (_folder, _, Opened { journal, socket_dir, .. }) = opened();
        let closing = CancellationToken::new();
        let watching = tokio::spawn(watch_files(Arc::new(journal), closing.clone()));
        closing.cancel();
        tokio::time::timeout(FILES_INTERVAL / 2, watching).await.expect("at once").expect("no panic");
        std::fs::remove_dir_all(&socket_dir).expect("removed");
    }

    #[tokio::test]
    async fn a_new_host_ends_what_a_dead_one_left_and_knows_what_it_had_made() {
        let (_folder, options, Opened { directory, lock, journal, socket_dir, .. }) = opened();
        let journal = begin(journal, &directory, "first").await.expect("it begins");
        let now = Timestamp::now();
        let worker = WorkerRecord {
            worker_session_id: WorkerSessionId::from_text("w"),
            host_session_id: "first".to_owned(),
            instance_id: "tool".to_owned(),
            capability_name: "tool".to_owned(),
            pid: 7,
            spawned_at: now.clone(),
            ended_at: None,
        };
        let session = worker.worker_session_id.clone();
        let mut spawned = JournalRow::new(EventType::WorkerSpawned, serde_json::Map::new());
        spawned.worker_session_id = Some(session.to_string());
        let commit = Commit::telling().row(spawned).write(Write::WorkerSpawned(Box::new(worker)));
        journal.commit(commit).await.expect("written");
        let jobs = [JobId::new(), JobId::new()];
        for job in &jobs {
            let record = JobRecord::new(job.clone(), "tool", now.clone());
            let commit = Commit::admitting().row(rows::pending(&record));
            let commit = commit.write(Write::InsertJob(Box::new(record), Body::Inline(b"{}".to_vec())));
            journal.commit(commit).await.expect("written");
            let start = JobStart {
                job_id: job.clone(),
                attempt: 1,
                instance_id: "tool".to_owned(),
                worker_session_id: Some(session.clone()),
                started_at: now.clone(),
            };
            journal.commit(Commit::telling().write(Write::StartJob(start))).await.expect("written");
        }
        let end = JobEnd {
            job_id: jobs[0].clone(),
            status: JobStatus::Completed,
            completed_at: now.clone(),
            failure: None,
            result: Some(Body::Inline(b"[1]".to_vec())),
        };
        journal.commit(Commit::telling().write(Write::EndJob(Box::new(end)))).await.expect("written");
        // It dies here.
        journal.close();
        drop((journal, lock));
        let Opened { directory, journal, lock: _lock, .. } = open(&options).expect("it opens");
        let journal = begin(journal, &directory, "second").await.expect("it begins");
        let history = StoredHistory { data_dir: directory.clone() };
        let [ended, unfinished] = jobs.map(|job| history.job(&job).expect("read").expect("known"));
        assert_eq!((ended.result.as_deref(), ended.worker_pid), (Some(&b"[1]"[..]), Some(7)));
        assert_eq!(
            (ended.record.status, unfinished.record.status),
            (JobStatus::Completed, JobStatus::Failed)
        );
        assert!(history.job(&JobId::new()).expect("read").is_none());
        let rows =
            JournalReader::open(&directory).and_then(|reader| reader.last(&JournalFilter::default(), 100));
        let died = rows.expect("read").into_iter().filter(|row| row.row.event_type == "worker_died").count();
        assert_eq!(died, 1);
        journal.close();
        std::fs::remove_dir_all(&socket_dir).expect("removed");
    }
}
