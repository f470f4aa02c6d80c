//! The host's side of the keeper: starts it, asks it for workers, learns how they ended.
//!
//! Two threads, not tasks, own the control socket, so that no runtime has to be alive for a death to be noticed and
//! no caller is blocked by a keeper that is busy clearing. What must hold: each worker's end is told exactly once,
//! and a keeper that is gone means that all its workers are.

use cjm_platform::seqpacket::{Received, SeqPacket};
use cjm_platform::spawn::spawn_small;
use cjm_platform::{Pid, PidFd, process};
use cjm_wire::WorkerSessionId;
use cjm_wire::keeper::{ExitWord, HostToKeeper, KEEPER_PROTOCOL, KeeperToHost, SpawnWorker};
use cjm_wire::link::ExitStatus;
use std::collections::HashMap;
use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;
use tokio::sync::{oneshot, watch};

/// How long a keeper may take to say that it is ready.
const KEEPER_READY_MAX: Duration = Duration::from_secs(10);
/// How long a shutdown waits for the keeper to clear its tree and end.
const KEEPER_END_MAX: Duration = Duration::from_secs(10);
/// Requests that may wait for the keeper.
const REQUESTS_MAX: usize = 1024;

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

struct PendingSpawn {
    answer: oneshot::Sender<Result<SpawnedWorker, SpawnRefusal>>,
}

#[derive(Default)]
struct Table {
    spawning: HashMap<String, PendingSpawn>,
    running: HashMap<String, oneshot::Sender<WorkerEnd>>,
    gone: bool,
}

struct Outgoing {
    message: HostToKeeper,
    fds: Vec<OwnedFd>,
}

/// A running keeper.
pub struct Keeper {
    pid: u32,
    requests: mpsc::SyncSender<Outgoing>,
    table: Arc<Mutex<Table>>,
    gone: watch::Receiver<bool>,
}

impl Keeper {
    /// Starts `worker_binary keeper` and waits until it is ready. Blocks; call it off the runtime. `tree_lock` is
    /// kept by the keeper until its tree is gone.
    ///
    /// # Errors
    /// When it does not start, or is another program.
    pub fn start(worker_binary: &Path, tree_lock: OwnedFd) -> Result<Self, SpawnRefusal> {
        let refuse = |what: &str, error: &dyn std::fmt::Display| SpawnRefusal {
            message: format!("the keeper could not be started: {what}: {error}"),
            next_step: format!("check that {} is the `cjm-worker` of this version", worker_binary.display()),
        };
        let (ours, theirs) = SeqPacket::pair().map_err(|error| refuse("socketpair", &error))?;
        let env: Vec<(OsString, OsString)> = ["PATH", "HOME", "XDG_RUNTIME_DIR"]
            .iter()
            .filter_map(|name| Some(((*name).into(), std::env::var_os(name)?)))
            .collect();
        let child = spawn_small(worker_binary, &["keeper".into()], &env, theirs.into_owned())
            .map_err(|error| refuse("spawn", &error))?;
        let nofile_soft = cjm_platform::fds::nofile_limit().soft;
        let hello = HostToKeeper::Hello { protocol: KEEPER_PROTOCOL, tree_lock: true, nofile_soft };
        send(&ours, &Outgoing { message: hello, fds: vec![tree_lock] })
            .map_err(|error| refuse("hello", &error))?;
        match ours.recv_timeout(KEEPER_READY_MAX) {
            Ok(Some(Received::Message(message))) => match serde_json::from_slice(&message.bytes) {
                Ok(KeeperToHost::Ready { .. }) => {}
                other => return Err(refuse("its first word", &format!("{other:?}"))),
            },
            other => return Err(refuse("its first word", &format!("{other:?}"))),
        }
        let table = Arc::new(Mutex::new(Table::default()));
        let (gone_sender, gone) = watch::channel(false);
        let (requests, outgoing) = mpsc::sync_channel::<Outgoing>(REQUESTS_MAX);
        let writer = ours.try_clone().map_err(|error| refuse("dup", &error))?;
        let spawn_thread = |name: &str, body: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new()
                .name(name.to_owned())
                .spawn(body)
                .map_err(|error| refuse("thread", &error))
        };
        spawn_thread(
            "cjm-keeper-out",
            Box::new(move || {
                // Ends when every sender is gone or the keeper is.
                while let Ok(request) = outgoing.recv() {
                    if send(&writer, &request).is_err() {
                        break;
                    }
                }
            }),
        )?;
        let reader_table = Arc::clone(&table);
        spawn_thread(
            "cjm-keeper-in",
            Box::new(move || {
                read_until_gone(&ours, &reader_table);
                declare_all_dead(&reader_table);
                reap(&child.pidfd, child.pid);
                // Nobody may be listening any more.
                let _ = gone_sender.send(true);
            }),
        )?;
        let pid = u32::try_from(child.pid.as_raw()).unwrap_or_default();
        Ok(Self { pid, requests, table, gone })
    }

    /// The keeper's process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// True once its socket has closed: all workers are dead then.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        *self.gone.borrow() || lock(&self.table).gone
    }

    /// Starts a worker.
    pub(crate) async fn spawn(
        &self,
        request: SpawnWorker,
        fds: Vec<OwnedFd>,
    ) -> Result<SpawnedWorker, SpawnRefusal> {
        let gone = || SpawnRefusal {
            message: "the keeper is gone".to_owned(),
            next_step: "try again: the host starts a new keeper".to_owned(),
        };
        let (answer, receiver) = oneshot::channel();
        {
            let mut table = lock(&self.table);
            if table.gone {
                return Err(gone());
            }
            table.spawning.insert(request.worker.clone(), PendingSpawn { answer });
        }
        self.request(HostToKeeper::Spawn(request), fds);
        receiver.await.unwrap_or_else(|_| Err(gone()))
    }

    /// SIGKILL for a worker; its tree is cleared, and its end told.
    pub(crate) fn kill(&self, worker: &WorkerSessionId) {
        self.request(HostToKeeper::Kill { worker: worker.to_string() }, Vec::new());
    }

    /// A signal for the worker process alone.
    pub(crate) fn signal(&self, worker: &WorkerSessionId, signal: i32) {
        self.request(HostToKeeper::Signal { worker: worker.to_string(), signal }, Vec::new());
    }

    /// Clears everything and waits until the keeper has ended. False when it did not in time.
    pub async fn shutdown(&self) -> bool {
        self.request(HostToKeeper::Shutdown, Vec::new());
        let mut gone = self.gone.clone();
        tokio::time::timeout(KEEPER_END_MAX, gone.wait_for(|gone| *gone)).await.is_ok()
    }

    fn request(&self, message: HostToKeeper, fds: Vec<OwnedFd>) {
        // A full queue means that the keeper has stopped reading; its end is then told by the reader.
        let _ = self.requests.try_send(Outgoing { message, fds });
    }
}

impl Drop for Keeper {
    /// A host that was dropped without a shutdown leaves nothing behind either.
    fn drop(&mut self) {
        self.request(HostToKeeper::Shutdown, Vec::new());
    }
}

fn send(socket: &SeqPacket, outgoing: &Outgoing) -> Result<(), String> {
    let bytes = serde_json::to_vec(&outgoing.message).map_err(|error| error.to_string())?;
    let fds: Vec<_> = outgoing.fds.iter().map(AsFd::as_fd).collect();
    socket.send(&bytes, &fds).map_err(|error| error.to_string())
}

fn read_until_gone(socket: &SeqPacket, table: &Mutex<Table>) {
    while let Ok(Received::Message(message)) = socket.recv() {
        match serde_json::from_slice::<KeeperToHost>(&message.bytes) {
            Ok(event) => note(table, event),
            Err(error) => tracing::warn!(%error, "a message of the keeper cannot be read"),
        }
    }
}

fn note(table: &Mutex<Table>, event: KeeperToHost) {
    match event {
        KeeperToHost::Ready { .. } => {}
        KeeperToHost::Spawned { worker, pid } => {
            let (end_sender, end) = oneshot::channel();
            let pending = {
                let mut table = lock(table);
                table.running.insert(worker.clone(), end_sender);
                table.spawning.remove(&worker)
            };
            if let Some(pending) = pending {
                let spawned = SpawnedWorker { pid: u32::try_from(pid).unwrap_or_default(), end };
                // A caller that has given up drops the receiver; it kills by session id.
                let _ = pending.answer.send(Ok(spawned));
            }
        }
        KeeperToHost::SpawnFailed { worker, message, next_step, .. } => {
            if let Some(pending) = lock(table).spawning.remove(&worker) {
                let _ = pending.answer.send(Err(SpawnRefusal { message, next_step }));
            }
        }
        KeeperToHost::Exited { worker, status, descendants_killed, clear_ms, survivors, .. } => {
            if !survivors.is_empty() {
                tracing::warn!(?survivors, %worker, "processes of a dead worker outlive SIGKILL");
            }
            if let Some(sender) = lock(table).running.remove(&worker) {
                let _ = sender.send(WorkerEnd {
                    status: Some(exit_status(status)),
                    descendants_killed,
                    clear_ms,
                });
            }
        }
        KeeperToHost::Trouble { message } => tracing::warn!(%message, "the keeper reports trouble"),
    }
}

fn declare_all_dead(table: &Mutex<Table>) {
    let (spawning, running) = {
        let mut table = lock(table);
        table.gone = true;
        (std::mem::take(&mut table.spawning), std::mem::take(&mut table.running))
    };
    for (_, pending) in spawning {
        let _ = pending.answer.send(Err(SpawnRefusal {
            message: "the keeper died".to_owned(),
            next_step: "try again: the host starts a new keeper".to_owned(),
        }));
    }
    for (_, sender) in running {
        let _ = sender.send(WorkerEnd { status: None, descendants_killed: 0, clear_ms: 0 });
    }
}

/// The keeper is our child: leave no zombie in the embedding process.
fn reap(pidfd: &PidFd, pid: Pid) {
    if pidfd.wait_exit(KEEPER_END_MAX).unwrap_or(false) {
        // Fails only when the embedding program reaped it itself.
        let _ = process::reap(pid);
    }
}

fn exit_status(word: ExitWord) -> ExitStatus {
    match word {
        ExitWord::Exited { code } => ExitStatus::Code(code),
        ExitWord::Signaled { signal, .. } => ExitStatus::Signal(signal),
    }
}

fn lock(table: &Mutex<Table>) -> std::sync::MutexGuard<'_, Table> {
    // The table is consistent between any two statements; a panicking holder changes nothing about that.
    table.lock().unwrap_or_else(PoisonError::into_inner)
}
