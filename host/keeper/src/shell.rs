//! Performs the machine's effects: one thread, one `poll`, no runtime.
//!
//! It decides nothing that the machine could decide. What must hold: the host's end is seen before what it
//! said last is obeyed; a worker's zombie is kept until its tree was cleared; the keeper never waits for the
//! host to read.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use cjm_platform::fds::{self, Inherited, NofileLimit};
use cjm_platform::memory;
use cjm_platform::poll::{self, Interest, Readiness};
use cjm_platform::process::{self, Pid, PidFd, Signal, WaitStatus};
use cjm_platform::seqpacket::{Message, Received, SeqPacket, SeqPacketError};
use cjm_platform::signals::{self, SignalFd};
use cjm_platform::spawn::{self, SessionMode, SpawnError, SpawnRequest};
use cjm_platform::tree::{self, ClearReport};
use cjm_wire::keeper::{ExitWord, HostToKeeper, KeeperToHost, SpawnWorker, worker_fd};

use crate::machine::{ClearOutcome, Effect, Event, IllegalEvent, Keeper, exit_code};

/// Where the host has put its socket.
const CONTROL_FD: i32 = 0;
/// Longest time to clear what one worker left; then the host is told who survived.
const CLEAR_LIMIT: Duration = Duration::from_secs(2);
/// Longest time to clear everything at the end; then the keeper goes, and `tree.lock` with it.
const CLEAR_ALL_LIMIT: Duration = Duration::from_secs(60);
/// Most messages waiting for a host that does not read; one more, and it counts as gone.
const OUTGOING_MAX: usize = 4096;
/// Most messages taken from the host before the workers are looked at again.
const MESSAGES_PER_TURN_MAX: usize = 32;
/// How long the last words wait for a host that does not read.
const FLUSH_WAIT: Duration = Duration::from_millis(500);

/// Runs a keeper whose host holds the other end of descriptor 0, until its tree is gone. An error says that there
/// is no such descriptor; nothing was done then.
///
/// To be called first thing in a process of its own: it closes every other descriptor above 2, leaves the
/// session, the working directory and the usual signals of its parent, and must be the only thread. The exit
/// codes are those of `machine::exit_code`.
pub fn run() -> io::Result<ExitCode> {
    let mut inherited = Inherited::claim().ok_or(io::ErrorKind::ResourceBusy)?;
    let control = SeqPacket::from_owned(inherited.take(CONTROL_FD)?);
    let result = Shell::set_up(control, inherited).and_then(|mut shell| shell.serve());
    Ok(match result {
        Ok(code) => ExitCode::from(code),
        // Nothing sensible is left but to clear and go; standard error is /dev/null and the host sees the end.
        Err(_) => {
            let _ = tree::kill_descendants(&[], CLEAR_ALL_LIMIT);
            ExitCode::from(exit_code::IO)
        }
    })
}

/// What the keeper holds of one worker.
struct Held {
    pidfd: PidFd,
    /// Closed with the worker, or with the keeper: then each shim reads EOF and clears its own tree.
    _lifeline: OwnedFd,
}

/// A message that the host has not taken yet.
struct Outgoing {
    bytes: Vec<u8>,
    fd: Option<OwnedFd>,
}

struct Shell {
    control: SeqPacket,
    children: SignalFd,
    machine: Keeper,
    workers: BTreeMap<i32, Held>,
    outgoing: VecDeque<Outgoing>,
    nofile: NofileLimit,
    /// Held for its lock alone.
    tree_lock: Option<OwnedFd>,
    host_gone: bool,
    end: Option<u8>,
}

impl Shell {
    fn set_up(control: SeqPacket, inherited: Inherited) -> io::Result<Self> {
        // First of all, since a terminal's Ctrl-C reaches us until we have a session of our own.
        signals::ignore(&[
            Signal::TERM,
            Signal::INT,
            Signal::HUP,
            Signal::QUIT,
            Signal::PIPE,
            Signal::USR1,
            Signal::USR2,
        ])?;
        // A host that ignores SIGCHLD would have its children reaped by the kernel, statuses lost.
        signals::set_default(&[Signal::CHLD])?;
        inherited.close_all_but(&[control.as_fd()])?;
        if !process::leads_session()? {
            process::new_session()?;
        }
        std::env::set_current_dir("/")?;
        process::become_subreaper()?;
        process::set_name("cjm-keeper")?;
        let children = SignalFd::block(&[Signal::CHLD])?;
        // Two descriptors for each worker, and those in flight; workers get the limit as it was.
        let nofile = fds::raise_nofile_soft_limit()?;
        Ok(Self {
            control,
            children,
            machine: Keeper::default(),
            workers: BTreeMap::new(),
            outgoing: VecDeque::new(),
            nofile,
            tree_lock: None,
            host_gone: false,
            end: None,
        })
    }

    /// Serves until the machine says End.
    fn serve(&mut self) -> io::Result<u8> {
        loop {
            if let Some(code) = self.end {
                return Ok(code);
            }
            if self.host_gone {
                self.feed(Event::HostGone, Vec::new());
                continue;
            }
            let Turn { control, children, ended } = self.wait()?;
            if control.hung_up {
                // What it said last is not obeyed any more: nobody waits for it.
                self.host_gone = true;
                continue;
            }
            for pid in ended {
                self.worker_ended(pid)?;
            }
            if children {
                self.children.drain()?;
                tree::reap_adopted(&self.worker_pids())?;
            }
            if control.writable {
                self.flush();
            }
            if control.readable {
                self.read_control();
            }
        }
    }

    fn wait(&self) -> io::Result<Turn> {
        let control = if self.outgoing.is_empty() { Interest::Read } else { Interest::ReadWrite };
        let mut watched: Vec<(BorrowedFd<'_>, Interest)> =
            vec![(self.control.as_fd(), control), (self.children.as_fd(), Interest::Read)];
        watched.extend(self.workers.values().map(|held| (held.pidfd.as_fd(), Interest::Read)));
        let ready = poll::wait(&watched, None)?;
        let ended = self.workers.keys().zip(&ready[2..]).filter(|(_, ready)| ready.readable);
        Ok(Turn {
            control: ready[0],
            children: ready[1].readable,
            ended: ended.map(|(pid, _)| *pid).collect(),
        })
    }

    fn worker_ended(&mut self, raw: i32) -> io::Result<()> {
        // It may have been released in this very turn.
        let (Some(pid), true) = (Pid::from_raw(raw), self.workers.contains_key(&raw)) else {
            return Ok(());
        };
        if let Some(status) = process::peek_exit(pid)? {
            self.feed(Event::WorkerEnded { pid: raw, status: exit_word(status) }, Vec::new());
        }
        Ok(())
    }

    fn read_control(&mut self) {
        for _ in 0..MESSAGES_PER_TURN_MAX {
            match self.control.try_recv() {
                Ok(Received::Message(message)) => self.take(message),
                Ok(Received::Closed) => return self.host_gone = true,
                Err(SeqPacketError::WouldBlock) => return,
                Err(SeqPacketError::Io(_)) => return self.host_gone = true,
                Err(refused) => self.trouble(format!("a message of the host was dropped: {refused}")),
            }
            if self.end.is_some() {
                return;
            }
        }
    }

    fn take(&mut self, message: Message) {
        match serde_json::from_slice::<HostToKeeper>(&message.bytes) {
            Ok(read) => {
                let event = Event::Host { message: read, fd_count: message.fds.len() };
                self.feed(event, message.fds);
            }
            Err(err) => self.trouble(format!("a message of the host cannot be read: {err}")),
        }
    }

    /// Gives the machine an event and performs what follows from it. `fds` came beside the event's message.
    fn feed(&mut self, event: Event, fds: Vec<OwnedFd>) {
        let mut fds = Some(fds);
        let mut effects = VecDeque::new();
        self.step(event, &mut effects);
        // Ends: every outcome moves a worker or the keeper on in its diagram, which have no circles.
        while let Some(effect) = effects.pop_front() {
            if let Some(outcome) = self.perform(effect, &mut fds) {
                self.step(outcome, &mut effects);
            }
        }
    }

    fn step(&mut self, event: Event, effects: &mut VecDeque<Effect>) {
        match self.machine.step(event) {
            Ok(more) => effects.extend(more),
            Err(illegal @ IllegalEvent { .. }) => self.trouble(illegal.to_string()),
        }
    }

    fn perform(&mut self, effect: Effect, fds: &mut Option<Vec<OwnedFd>>) -> Option<Event> {
        match effect {
            Effect::HoldTreeLock => self.tree_lock = fds.take().and_then(|mut fds| fds.pop()),
            Effect::LimitWorkerFiles { soft } => {
                let soft = self.nofile.hard.map_or(soft, |hard| soft.min(hard));
                self.nofile.soft = Some(soft);
            }
            Effect::SendReady => {
                self.send(&KeeperToHost::Ready { pid: Pid::current().as_raw() });
                // What starting needed and waiting does not; nothing is lost if the kernel refuses.
                let _ = memory::release_clean_file_pages();
            }
            Effect::Send(message) => self.send(&message),
            Effect::Start(spawn) => return Some(self.start(spawn, fds.take().unwrap_or_default())),
            Effect::Signal { pid, signal } => self.signal(pid, signal),
            Effect::Clear { worker, pid, spare } => {
                let outcome = clear(&spare, &[pid], CLEAR_LIMIT);
                return Some(Event::Cleared { worker, outcome });
            }
            Effect::Release { pid } => {
                self.workers.remove(&pid);
                // An error here means that it is no child of ours any more, which is what is wanted.
                let _ = Pid::from_raw(pid).map(process::reap);
            }
            Effect::ClearAll { keep } => {
                let outcome = clear(&[], &keep, CLEAR_ALL_LIMIT);
                let status = |pid: &i32| process::peek_exit(Pid::from_raw(*pid)?).ok()?;
                let ended = keep.iter().filter_map(|pid| Some((*pid, exit_word(status(pid)?)))).collect();
                return Some(Event::AllCleared { outcome, ended });
            }
            Effect::End { code } => {
                self.flush_finally();
                self.end = Some(code);
            }
        }
        None
    }

    fn start(&mut self, spawn: SpawnWorker, given: Vec<OwnedFd>) -> Event {
        let worker = spawn.worker.clone();
        match self.try_start(spawn, given) {
            Ok(pid) => Event::Started { worker, pid: pid.as_raw() },
            Err(err) => Event::StartFailed {
                worker,
                errno: err.errno(),
                message: err.to_string(),
                next_step: err.next_step().to_owned(),
            },
        }
    }

    fn try_start(&mut self, spawn: SpawnWorker, given: Vec<OwnedFd>) -> Result<Pid, SpawnError> {
        let lifeline = fds::pipe_cloexec().map_err(|source| SpawnError::Resources {
            program: spawn.program.clone(),
            step: "pipe",
            source,
        })?;
        let mut mapped: Vec<(OwnedFd, i32)> = given.into_iter().zip(spawn.fd_targets).collect();
        mapped.push((lifeline.read, worker_fd::LIFELINE));
        let spawned = spawn::spawn(SpawnRequest {
            argv: spawn.argv.into_iter().map(OsString::from).collect(),
            env: spawn.env.into_iter().map(|(key, value)| (key.into(), value.into())).collect(),
            cwd: Some(PathBuf::from(spawn.cwd)),
            fds: mapped,
            session: SessionMode::NewSession,
            nofile: Some(self.nofile),
            // Our one thread lives as long as we do.
            parent_death: spawn.dies_with_keeper.then_some(Signal::KILL),
            ..SpawnRequest::new(spawn.program)
        })?;
        let held = Held { pidfd: spawned.pidfd, _lifeline: lifeline.write };
        self.workers.insert(spawned.pid.as_raw(), held);
        Ok(spawned.pid)
    }

    fn signal(&mut self, pid: i32, number: i32) {
        let (Some(held), Some(signal)) = (self.workers.get(&pid), Signal::from_raw(number)) else {
            return self.trouble(format!("there is no signal {number}"));
        };
        if let Err(err) = held.pidfd.send_signal(signal) {
            self.trouble(format!("{signal} could not be sent to worker process {pid}: {err}"));
        }
    }

    fn trouble(&mut self, message: String) {
        self.send(&KeeperToHost::Trouble { message });
    }

    /// Queues a message, and sends what can be sent without waiting.
    fn send(&mut self, message: &KeeperToHost) {
        let Ok(bytes) = serde_json::to_vec(message) else {
            unreachable!("the messages hold only strings, numbers and lists of them");
        };
        let fd = match message {
            KeeperToHost::Spawned { pid, .. } => {
                self.workers.get(pid).and_then(|held| held.pidfd.try_clone().ok())
            }
            _ => None,
        };
        if self.outgoing.len() >= OUTGOING_MAX {
            self.host_gone = true;
            return;
        }
        self.outgoing.push_back(Outgoing { bytes, fd: fd.map(PidFd::into_owned) });
        self.flush();
    }

    fn flush(&mut self) {
        while let Some(next) = self.outgoing.front() {
            let fds: Vec<BorrowedFd<'_>> = next.fd.iter().map(AsFd::as_fd).collect();
            match self.control.try_send(&next.bytes, &fds) {
                Ok(()) => {}
                Err(SeqPacketError::WouldBlock) => return,
                Err(SeqPacketError::Empty | SeqPacketError::TooLong { .. } | SeqPacketError::TooManyFds) => {
                    // Cannot be sent at all; later messages can.
                }
                Err(SeqPacketError::PeerClosed | SeqPacketError::Io(_)) => {
                    self.host_gone = true;
                    self.outgoing.clear();
                    return;
                }
            }
            self.outgoing.pop_front();
        }
    }

    /// The last words: waits a little for a slow reader, not for one that has stopped.
    fn flush_finally(&mut self) {
        self.flush();
        while !self.outgoing.is_empty() {
            match poll::wait(&[(self.control.as_fd(), Interest::ReadWrite)], Some(FLUSH_WAIT)) {
                Ok(ready) if ready[0].writable && !ready[0].hung_up => self.flush(),
                _ => return,
            }
        }
    }

    fn worker_pids(&self) -> Vec<Pid> {
        self.workers.keys().copied().filter_map(Pid::from_raw).collect()
    }
}

/// What one wait found.
struct Turn {
    control: Readiness,
    children: bool,
    ended: Vec<i32>,
}

fn clear(spare: &[i32], keep: &[i32], limit: Duration) -> ClearOutcome {
    let pids = |raw: &[i32]| raw.iter().copied().filter_map(Pid::from_raw).collect::<Vec<_>>();
    let (spare, keep_zombies) = (pids(spare), pids(keep));
    let clear = tree::Clear { spare: &spare, keep_zombies: &keep_zombies, ..tree::Clear::own(limit) };
    // /proc cannot be listed: out of memory or of descriptors. Nothing was cleared then, and the next clearing
    // tries again.
    let report = clear.run().unwrap_or_else(|_| ClearReport::default());
    ClearOutcome {
        killed: report.killed,
        clear_ms: u64::try_from(report.elapsed.as_millis()).unwrap_or(u64::MAX),
        survivors: report.survivors.iter().map(|info| info.pid.as_raw()).collect(),
        incomplete: !report.complete,
    }
}

fn exit_word(status: WaitStatus) -> ExitWord {
    match status {
        WaitStatus::Exited { code } => ExitWord::Exited { code },
        WaitStatus::Signaled { signal, core_dumped } => ExitWord::Signaled { signal, core_dumped },
    }
}
