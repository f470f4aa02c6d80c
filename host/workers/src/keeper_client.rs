//! The host's side of the keeper: starts it, asks it for workers, learns how they ended.
//!
//! Two threads, not tasks, own the control socket, so that no runtime has to be alive for a death to be noticed and
//! no caller is blocked by a keeper that is busy. What must hold: each worker's end is told exactly once, a keeper
//! that is gone means that all its workers are, and a keeper that is stopped or hangs holds nobody beyond a named
//! time.

use cjm_platform::lock::FileLock;
use cjm_platform::seqpacket::{MESSAGE_BYTES_MAX, Received, SeqPacket};
use cjm_platform::spawn::{Spawned, spawn_small};
use cjm_platform::tree::is_stopped;
use cjm_platform::{Pid, PidFd, Signal, WaitStatus, process};
use cjm_wire::WorkerSessionId;
use cjm_wire::keeper::{HostToKeeper, KEEPER_PROTOCOL, KeeperToHost, SpawnWorker};
use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::mpsc::{self, TrySendError};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::{oneshot, watch};

mod held;
mod reading;
pub(crate) mod table;
mod tree_lock;

pub use table::SpawnRefusal;
pub use tree_lock::stopped_keeper;

use held::end_orphans_of;
use reading::{END_TREE_MAX, declare_all_dead, read_until_gone};
use table::{Outgoing, PendingSpawn, SpawnedWorker, Table, WorkerEnd, lock};

/// How long a keeper may take to say that it is ready.
const KEEPER_READY_MAX: Duration = Duration::from_secs(10);
/// How long one that has closed its socket may take to end.
const KEEPER_CLOSED_MAX: Duration = Duration::from_millis(500);
/// How long a keeper may take to answer. It needs milliseconds; a busy machine gets more.
const KEEPER_ANSWER_MAX: Duration = Duration::from_secs(10);
/// How long a shutdown waits for the keeper to clear its tree and end. Then it is killed, and each worker that still
/// lives clears its own, or is cleared.
const KEEPER_END_MAX: Duration = Duration::from_secs(10);
/// How long a stopped keeper may stay stopped while something waits for it: somebody may be looking at it.
const KEEPER_STOPPED_MAX: Duration = Duration::from_secs(1);
/// How often a keeper that does not answer is looked at.
const KEEPER_LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// How long a killed keeper may take to end, and its workers to clear their trees.
const KEEPER_KILLED_MAX: Duration = Duration::from_secs(5);
/// Requests that may wait for the keeper. More mean that it has stopped reading.
const REQUESTS_MAX: usize = 1024;

/// A running keeper.
pub struct Keeper {
    pid: Pid,
    pidfd: PidFd,
    requests: mpsc::SyncSender<Outgoing>,
    table: Arc<Mutex<Table>>,
    gone: watch::Receiver<bool>,
}

impl Keeper {
    /// Starts `worker_binary keeper` and waits until it is ready. Blocks; call it off the runtime. `tree_lock` is
    /// kept by the keeper until its tree is gone, and names it.
    ///
    /// # Errors
    /// When it does not start, or is another program.
    pub fn start(worker_binary: &Path, mut tree_lock: FileLock) -> Result<Self, SpawnRefusal> {
        // Whoever tells it says before it that there is no keeper.
        let refuse = |what: &str, error: &dyn std::fmt::Display| SpawnRefusal {
            message: format!("{what}: {error}"),
            next_step:
                "try again; if it stays so, see what this machine has run short of (`ulimit -a`, `free -m`)"
                    .to_owned(),
        };
        let another = |message: String| SpawnRefusal {
            message,
            next_step: format!("check that {} is the `cjm-worker` of this version", worker_binary.display()),
        };
        let (ours, theirs) =
            SeqPacket::pair().map_err(|error| refuse("there is no socket for it", &error))?;
        let env: Vec<(OsString, OsString)> = ["PATH", "HOME", "XDG_RUNTIME_DIR"]
            .iter()
            .filter_map(|name| Some(((*name).into(), std::env::var_os(name)?)))
            .collect();
        let child = spawn_small(worker_binary, &["keeper".into()], &env, theirs.into_owned())
            .map_err(|error| another(error.to_string()))?;
        let pid = child.pid;
        let mut child = Unready(Some(child));
        tree_lock::name_keeper(&mut tree_lock, pid)
            .map_err(|error| refuse("its lock cannot be written", &error))?;
        let nofile_soft = cjm_platform::fds::nofile_limit().soft;
        let hello = HostToKeeper::Hello { protocol: KEEPER_PROTOCOL, tree_lock: true, nofile_soft };
        // Where it has ended already, its end says more than that it cannot be told anything.
        let greeted = send(&ours, &Outgoing { message: hello, fds: vec![tree_lock.into_owned()] });
        let answer = greeted.is_ok().then(|| ours.recv_timeout(KEEPER_READY_MAX));
        match answer {
            Some(Ok(Some(Received::Message(message)))) => match serde_json::from_slice(&message.bytes) {
                Ok(KeeperToHost::Ready { .. }) => {}
                Ok(_) | Err(_) => {
                    return Err(another("its first word is not that of a keeper".to_owned()));
                }
            },
            Some(Ok(None)) => return Err(another(no_word(pid))),
            Some(Ok(Some(Received::Closed)) | Err(_)) | None => {
                return Err(ended_early(child.end(), another));
            }
        }
        let writer = ours.try_clone().map_err(|error| refuse("its socket cannot be shared", &error))?;
        Self::serve(child, ours, writer).map_err(|error| refuse("there are no threads for it", &error))
    }

    /// Starts the two threads.
    fn serve(mut child: Unready, ours: SeqPacket, writer: SeqPacket) -> std::io::Result<Self> {
        let Some(Spawned { pid, pidfd }) = &child.0 else { return Err(std::io::ErrorKind::NotFound.into()) };
        let (pid, handle) = (*pid, pidfd.try_clone()?);
        let reaped = pidfd.try_clone()?;
        let table = Arc::new(Mutex::new(Table::default()));
        let (gone_sender, gone) = watch::channel(false);
        let (requests, outgoing) = mpsc::sync_channel::<Outgoing>(REQUESTS_MAX);
        let thread = |name: &str| std::thread::Builder::new().name(name.to_owned());
        let writer_table = Arc::clone(&table);
        thread("cjm-keeper-out").spawn(move || {
            // Ends when every sender is gone or the keeper is.
            while let Ok(request) = outgoing.recv() {
                if !is_given_up(&writer_table, &request) && send(&writer, &request).is_err() {
                    break;
                }
            }
        })?;
        let (reader_table, replies) = (Arc::clone(&table), requests.clone());
        thread("cjm-keeper-in").spawn(move || {
            read_until_gone(pid, &ours, &reader_table, &replies);
            declare_all_dead(&reader_table);
            reap(&reaped, pid);
            // Nobody may be listening any more.
            let _ = gone_sender.send(true);
        })?;
        child.0 = None;
        Ok(Self { pid, pidfd: handle, requests, table, gone })
    }

    /// The keeper's process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid.as_raw().unsigned_abs()
    }

    /// True once its socket has closed, when all workers are dead, or when it has said that it ends.
    pub fn is_gone(&self) -> bool {
        let table = lock(&self.table);
        *self.gone.borrow() || table.gone || table.ending
    }

    /// Starts a worker. Takes at most `KEEPER_ANSWER_MAX`, and little more than `KEEPER_STOPPED_MAX` where the keeper stands still.
    pub(crate) async fn spawn(
        &self,
        request: SpawnWorker,
        fds: Vec<OwnedFd>,
    ) -> Result<SpawnedWorker, SpawnRefusal> {
        let (answer, receiver) = oneshot::channel();
        let worker = request.worker.clone();
        let request = HostToKeeper::Spawn(request);
        check_size(&request)?;
        {
            let mut table = lock(&self.table);
            if table.gone || table.ending {
                return Err(SpawnRefusal::gone());
            }
            table.spawning.insert(worker.clone(), PendingSpawn { answer });
        }
        // Also when the caller drops this future: what comes of the request then is nobody's, and is killed.
        let _given_up = GiveUp { table: &self.table, worker: &worker };
        self.request(request, fds)?;
        tokio::select! {
            biased;
            answer = receiver => answer.unwrap_or_else(|_| Err(SpawnRefusal::gone())),
            () = self.stands_still() => Err(self.silence("does not answer")),
            () = tokio::time::sleep(KEEPER_ANSWER_MAX) => {
                Err(self.silence(&format!("has not answered for {} s", KEEPER_ANSWER_MAX.as_secs())))
            }
        }
    }

    /// Resolves once the keeper has been stopped for longer than it may be.
    async fn stands_still(&self) {
        let mut stopped_since: Option<Instant> = None;
        while stopped_since.is_none_or(|since| since.elapsed() < KEEPER_STOPPED_MAX) {
            tokio::time::sleep(KEEPER_LOOK_INTERVAL).await;
            stopped_since = self.is_stopped().then(|| stopped_since.unwrap_or_else(Instant::now));
        }
    }

    /// SIGKILL for a worker; its tree is cleared, and its end told. Where the keeper stands still, the host does it. A keeper
    /// that takes no more requests is told of in the log.
    pub(crate) fn kill(&self, worker: &WorkerSessionId) {
        self.request_or_log(HostToKeeper::Kill { worker: worker.to_string() });
        if self.is_stopped() {
            self.end_in_its_place(worker.as_str());
        }
    }

    /// Ends a worker's tree, beside whoever asks, and tells its end. However often that is asked, it is done once.
    fn end_in_its_place(&self, worker: &str) {
        let Some(held) = lock(&self.table).begin_ending(worker) else { return };
        let (table, session) = (Arc::clone(&self.table), worker.to_owned());
        let thread = std::thread::Builder::new().name("cjm-end".to_owned()).spawn(move || {
            let begun = Instant::now();
            let ended = held.end_tree(END_TREE_MAX);
            if !ended.all {
                tracing::warn!(
                    worker = session,
                    "processes of a killed worker may live on: its keeper stands still"
                );
            }
            if let Some(running) = lock(&table).running.remove(&session) {
                let end = WorkerEnd::cleared(held.status(), ended.descendants_killed, begun.elapsed());
                let _ = running.end.send(end);
            }
        });
        if let Err(error) = thread {
            if let Some(running) = lock(&self.table).running.get_mut(worker) {
                running.is_being_ended = false;
            }
            tracing::warn!(%error, "a worker could not be ended beside its keeper, which stands still");
        }
    }

    /// A signal for the worker process alone.
    pub(crate) fn signal(&self, worker: &WorkerSessionId, signal: i32) {
        self.request_or_log(HostToKeeper::Signal { worker: worker.to_string(), signal });
    }

    /// Clears everything and waits until the keeper has ended. False when it did not in time, or stood still, and had
    /// to be killed: then each worker that still lives clears its own tree, and the host the tree of one that does not.
    pub async fn shutdown(&self) -> bool {
        self.request_or_log(HostToKeeper::Shutdown);
        let mut gone = self.gone.clone();
        tokio::select! {
            biased;
            _ = gone.wait_for(|gone| *gone) => return true,
            () = self.stands_still() => {}
            () = tokio::time::sleep(KEEPER_END_MAX) => {}
        }
        let refusal = self.silence("does not end");
        tracing::warn!(message = refusal.message, "the keeper is killed; its workers end themselves");
        if self.is_stopped() {
            // What fell to it would fall to nobody who clears. An error says that nothing can be done.
            let (keeper, living) = (self.pid, lock(&self.table).living());
            let cleared = move || end_orphans_of(keeper, &living, END_TREE_MAX, || is_stopped(keeper));
            let _ = tokio::task::spawn_blocking(cleared).await;
        }
        // An error says that it has just ended.
        let _ = self.pidfd.send_signal(Signal::KILL);
        // Its end, seen by the reader, is that of all it had; more cannot be done.
        let _ = tokio::time::timeout(KEEPER_KILLED_MAX, gone.wait_for(|gone| *gone)).await;
        false
    }

    fn request(&self, message: HostToKeeper, fds: Vec<OwnedFd>) -> Result<(), SpawnRefusal> {
        self.requests.try_send(Outgoing { message, fds }).map_err(|error| match error {
            TrySendError::Full(_) => self.silence(&format!("has left {REQUESTS_MAX} requests unread")),
            TrySendError::Disconnected(_) => SpawnRefusal::gone(),
        })
    }

    fn request_or_log(&self, message: HostToKeeper) {
        if let Err(SpawnRefusal { message, next_step }) = self.request(message, Vec::new())
            && !self.is_gone()
        {
            tracing::warn!(message, next_step, "a request did not reach the keeper");
        }
    }

    /// Whether it stands still by SIGSTOP, or under a debugger.
    pub fn is_stopped(&self) -> bool {
        is_stopped(self.pid)
    }

    fn silence(&self, what: &str) -> SpawnRefusal {
        let pid = self.pid;
        if self.is_stopped() {
            return SpawnRefusal {
                message: format!("the keeper, process {pid}, {what}: it is stopped"),
                next_step: format!(
                    "let it go on with `kill -CONT {pid}`, or end it with `kill -KILL {pid}`: the host starts another"
                ),
            };
        }
        SpawnRefusal {
            message: format!("the keeper, process {pid}, {what}"),
            next_step: format!(
                "look at it (`cat /proc/{pid}/status`); `kill -KILL {pid}` ends it and its workers, and the host starts another"
            ),
        }
    }
}

/// A start travels in one message. What takes most room in it are variables.
fn check_size(request: &HostToKeeper) -> Result<(), SpawnRefusal> {
    // Serialising our own structs cannot fail.
    let bytes = serde_json::to_vec(request).map_or(0, |text| text.len());
    let HostToKeeper::Spawn(SpawnWorker { env, .. }) = request else { return Ok(()) };
    if bytes <= MESSAGE_BYTES_MAX {
        return Ok(());
    }
    let largest = env.iter().max_by_key(|(_, value)| value.len());
    let largest = largest.map_or_else(String::new, |(name, value)| {
        format!("; the largest of its variables is {name} with {} bytes", value.len())
    });
    Err(SpawnRefusal {
        message: format!("its start takes {bytes} bytes, and {MESSAGE_BYTES_MAX} may be sent{largest}"),
        next_step:
            "give what is bulky in a file, and its path in the variable: `install.env_vars` of the manifest, \
                    or the environment that the host was started in"
                .to_owned(),
    })
}

/// A keeper that has not shown that it is one. If it never does, it is killed and reaped.
struct Unready(Option<Spawned>);

impl Unready {
    /// How one ended that has closed its socket: it has ended, or does so now.
    fn end(&mut self) -> Option<WaitStatus> {
        let Spawned { pid, pidfd } = self.0.as_ref()?;
        let has_ended = pidfd.wait_exit(KEEPER_CLOSED_MAX).unwrap_or(false);
        let status = has_ended.then(|| process::reap(*pid).ok().flatten()).flatten();
        if has_ended {
            self.0 = None;
        }
        status
    }
}

/// One that neither speaks nor ends.
fn no_word(pid: Pid) -> String {
    format!("process {pid} has said nothing for {} s", KEEPER_READY_MAX.as_secs())
}

/// One that ended, or left its socket, before it was ready. A keeper is killed by somebody; another program ends by itself.
fn ended_early(end: Option<WaitStatus>, another: impl Fn(String) -> SpawnRefusal) -> SpawnRefusal {
    match end {
        Some(status @ WaitStatus::Signaled { .. }) => SpawnRefusal {
            message: format!("its process was ended by {status} before it was ready"),
            next_step:
                "try again; if it stays so, find out who ends it: somebody, a limit (`ulimit -a`), or the \
                        kernel for lack of memory (`dmesg`)"
                    .to_owned(),
        },
        Some(status) => another(format!("its process ended with {status} before it was ready")),
        None => another("its process closed its socket before it was ready".to_owned()),
    }
}

impl Drop for Unready {
    fn drop(&mut self) {
        if let Some(Spawned { pid, pidfd }) = self.0.take() {
            // An error says that it has ended already.
            let _ = pidfd.send_signal(Signal::KILL);
            reap(&pidfd, pid);
        }
    }
}

/// Takes a start out of the table when nobody waits for it any more.
struct GiveUp<'a> {
    table: &'a Mutex<Table>,
    worker: &'a str,
}

impl Drop for GiveUp<'_> {
    fn drop(&mut self) {
        lock(self.table).spawning.remove(self.worker);
    }
}

/// A start that its caller gave up while it waited to be sent.
fn is_given_up(table: &Mutex<Table>, request: &Outgoing) -> bool {
    matches!(&request.message, HostToKeeper::Spawn(spawn) if !lock(table).spawning.contains_key(&spawn.worker))
}

impl Drop for Keeper {
    /// A host that was dropped without a shutdown leaves nothing behind either.
    fn drop(&mut self) {
        // A keeper that does not read sees its socket close with this process.
        let _ = self.request(HostToKeeper::Shutdown, Vec::new());
    }
}

fn send(socket: &SeqPacket, outgoing: &Outgoing) -> Result<(), String> {
    let bytes = serde_json::to_vec(&outgoing.message).map_err(|error| error.to_string())?;
    let fds: Vec<_> = outgoing.fds.iter().map(AsFd::as_fd).collect();
    socket.send(&bytes, &fds).map_err(|error| error.to_string())
}

/// The keeper is our child: leave no zombie in the embedding process.
fn reap(pidfd: &PidFd, pid: Pid) {
    if pidfd.wait_exit(KEEPER_END_MAX).unwrap_or(false) {
        // Fails only when the embedding program reaped it itself.
        let _ = process::reap(pid);
    }
}

#[cfg(test)]
pub(crate) mod tests;
