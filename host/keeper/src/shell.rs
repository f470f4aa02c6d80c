//! Performs the machine's effects: one thread, one `poll`, no runtime.
//!
//! It decides nothing that the machine could decide. What must hold: the host's end is seen before what it
//! said last is obeyed; a worker's zombie is kept until its tree was cleared; the keeper waits for nobody but in
//! `poll`, neither for the host to read nor for a process to die.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use cjm_platform::fds::{self, Inherited, NofileLimit};
use cjm_platform::memory;
use cjm_platform::poll::{self, Interest, Readiness};
use cjm_platform::process::{self, Pid, PidFd, Signal, WaitStatus};
use cjm_platform::seqpacket::{Message, Received, SeqPacket, SeqPacketError};
use cjm_platform::signals::{self, SignalFd};
use cjm_platform::spawn::{self, SessionMode, SpawnError, SpawnRequest};
use cjm_platform::tree::{self, Clearing, Look};
use cjm_wire::keeper::{ExitWord, HostToKeeper, KeeperToHost, SpawnWorker, worker_fd};

use crate::machine::{Burial, DoomedProcess, Effect, Event, Keeper, exit_code};
use crate::outbox::Outbox;
use crate::timers::Timers;

/// Where the host has put its socket.
const CONTROL_FD: i32 = 0;
/// Longest time to clear everything when the keeper itself has failed.
const CLEAR_ALL_LIMIT: Duration = Duration::from_secs(60);
/// Most messages taken from the host before the workers are looked at again.
const MESSAGES_PER_TURN_MAX: usize = 32;

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
    /// When its end was noticed.
    ended: Option<Instant>,
}

struct Shell {
    control: SeqPacket,
    signals: SignalFd,
    machine: Keeper,
    workers: BTreeMap<i32, Held>,
    outbox: Outbox,
    clearing: Clearing,
    timers: Timers,
    nofile: NofileLimit,
    /// Held for its lock alone.
    tree_lock: Option<OwnedFd>,
    /// The host's end is closed, and the machine knows.
    host_gone: bool,
    end: Option<u8>,
}

/// What one wait found.
struct Turn {
    control: Readiness,
    signals: Vec<Signal>,
}

impl Shell {
    fn set_up(control: SeqPacket, inherited: Inherited) -> io::Result<Self> {
        // First of all, since a terminal's Ctrl-C reaches us until we have a session of our own.
        signals::ignore(&[Signal::INT, Signal::HUP, Signal::QUIT, Signal::PIPE, Signal::USR1, Signal::USR2])?;
        // A host that ignores SIGCHLD would have its children reaped by the kernel, statuses lost.
        signals::set_default(&[Signal::CHLD, Signal::TERM])?;
        let signals = SignalFd::block(&[Signal::CHLD, Signal::TERM])?;
        inherited.close_all_but(&[control.as_fd(), signals.as_fd()])?;
        if !process::leads_session()? {
            process::new_session()?;
        }
        std::env::set_current_dir("/")?;
        process::become_subreaper()?;
        process::set_name("cjm-keeper")?;
        // Two descriptors for each worker, and those in flight; workers get the limit as it was.
        let nofile = fds::raise_nofile_soft_limit()?;
        Ok(Self {
            control,
            signals,
            machine: Keeper::default(),
            workers: BTreeMap::new(),
            outbox: Outbox::default(),
            clearing: Clearing::new(Look::best()),
            timers: Timers::default(),
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
            let turn = self.wait()?;
            self.turn(&turn)?;
        }
    }

    fn turn(&mut self, turn: &Turn) -> io::Result<()> {
        // What it said last is not obeyed any more: nobody waits for it.
        let host_ends = turn.control.hung_up || self.outbox.is_closed();
        let mut sweeps = host_ends && !self.host_gone;
        if sweeps {
            self.host_gone = true;
            self.feed(Event::HostGone, Vec::new());
        }
        // Taken before the workers are looked at: whoever ends later sends another one.
        let child_ended = turn.signals.contains(&Signal::CHLD);
        if child_ended {
            sweeps |= self.workers_ended()?;
        }
        if turn.signals.contains(&Signal::TERM) {
            sweeps = true;
            self.feed(Event::Terminated, Vec::new());
        }
        // What is due waits a turn after a sweep: workers that had ended by then are noticed first.
        if !sweeps {
            self.feed_due(child_ended)?;
        }
        if turn.control.writable {
            self.flush();
        }
        if turn.control.readable && !self.host_gone {
            self.read_control();
        }
        Ok(())
    }

    fn wait(&self) -> io::Result<Turn> {
        let mut watched: Vec<(BorrowedFd<'_>, Interest)> = vec![(self.signals.as_fd(), Interest::Read)];
        if !self.host_gone {
            let interest = if self.outbox.is_empty() { Interest::Read } else { Interest::ReadWrite };
            watched.push((self.control.as_fd(), interest));
        }
        let is_news = self.outbox.is_closed() && !self.host_gone;
        let timeout = if is_news { Some(Duration::ZERO) } else { self.timers.wait(Instant::now()) };
        let ready = poll::wait(&watched, timeout)?;
        let signals = if ready[0].readable { self.signals.drain()? } else { Vec::new() };
        Ok(Turn { control: ready.get(1).copied().unwrap_or_default(), signals })
    }

    /// Tells the machine of all workers that have ended, at once; whether there were any.
    fn workers_ended(&mut self) -> io::Result<bool> {
        let living = || self.workers.iter().filter(|(_, held)| held.ended.is_none());
        let watched: Vec<_> = living().map(|(_, held)| (held.pidfd.as_fd(), Interest::Read)).collect();
        let ready = poll::wait(&watched, Some(Duration::ZERO))?;
        let pids: Vec<i32> =
            living().zip(ready).filter(|(_, ready)| ready.readable).map(|((pid, _), _)| *pid).collect();
        let mut ended = Vec::with_capacity(pids.len());
        for raw in pids {
            let status = Pid::from_raw(raw).map(process::peek_exit).transpose()?.flatten();
            if let (Some(status), Some(held)) = (status, self.workers.get_mut(&raw)) {
                held.ended = Some(Instant::now());
                ended.push((raw, exit_word(status)));
            }
        }
        let any = !ended.is_empty();
        if any {
            self.timers.hurry();
            self.feed(Event::WorkersEnded { ended }, Vec::new());
        }
        Ok(any)
    }

    fn feed_due(&mut self, child_ended: bool) -> io::Result<()> {
        let now = Instant::now();
        for worker in self.timers.overdue_clears(now) {
            self.feed(Event::ClearDeadline { worker }, Vec::new());
        }
        if self.timers.end_is_overdue(now) {
            self.feed(Event::EndDeadline, Vec::new());
        } else if self.timers.take_sweep(now, child_ended) {
            self.feed(Event::SweepDue, Vec::new());
        }
        if child_ended && !self.timers.sweeps_soon() {
            // Orphans of living workers, and what survived a clearing; a sweep takes them along.
            let own: Vec<Pid> = self.workers.keys().copied().filter_map(Pid::from_raw).collect();
            tree::reap_adopted(&own)?;
        }
        Ok(())
    }

    fn read_control(&mut self) {
        for _ in 0..MESSAGES_PER_TURN_MAX {
            match self.control.try_recv() {
                Ok(Received::Message(message)) => self.take(message),
                // Told by the next wait as a hang-up.
                Err(SeqPacketError::WouldBlock) => return,
                Ok(Received::Closed) | Err(SeqPacketError::Io(_)) => return self.outbox.close(),
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
        let told = |illegal: crate::machine::IllegalEvent| Event::Trouble { message: illegal.to_string() };
        let more = self.machine.step(event).or_else(|illegal| self.machine.step(told(illegal)));
        // A keeper that has ended has nobody to tell.
        effects.extend(more.unwrap_or_default());
    }

    fn perform(&mut self, effect: Effect, fds: &mut Option<Vec<OwnedFd>>) -> Option<Event> {
        match effect {
            Effect::HoldTreeLock => self.tree_lock = fds.take().and_then(|mut fds| fds.pop()),
            Effect::LimitWorkerFiles { soft } => {
                let soft = self.nofile.hard.map_or(soft, |hard| soft.min(hard));
                self.nofile.soft = Some(soft);
            }
            Effect::SendReady => {
                let sent = self.send(&KeeperToHost::Ready { pid: Pid::current().as_raw() });
                // What starting needed and waiting does not; nothing is lost if the kernel refuses.
                let _ = memory::release_clean_file_pages();
                return sent;
            }
            Effect::Send(message) => return self.send(&message),
            Effect::Start(spawn) => return Some(self.start(spawn, fds.take().unwrap_or_default())),
            Effect::Signal { pid, signal } => return self.signal(pid, signal),
            Effect::Sweep { spare, keep } => {
                self.timers.forget_sweep();
                return Some(self.sweep(&spare, &keep));
            }
            Effect::SweepSoon => self.timers.sweep_soon(Instant::now()),
            Effect::SetClearDeadline { worker } => self.timers.set_clear(worker, Instant::now()),
            Effect::SetEndDeadline => self.timers.set_end(Instant::now()),
            Effect::Bury(burial) => return self.bury(burial),
            Effect::Release { pid } => {
                self.release(pid);
            }
            Effect::End { code } => {
                self.outbox.flush_finally(&self.control);
                self.end = Some(code);
            }
        }
        None
    }

    fn sweep(&mut self, spare: &[i32], keep: &[i32]) -> Event {
        let pids = |raw: &[i32]| raw.iter().copied().filter_map(Pid::from_raw).collect::<Vec<_>>();
        match self.clearing.sweep(&pids(spare), &pids(keep)) {
            Ok(sweep) => {
                let doomed = sweep.doomed.iter().map(|doomed| DoomedProcess {
                    pid: doomed.info.pid.as_raw(),
                    start_ticks: doomed.info.start_ticks,
                    session: doomed.info.sid,
                    top: doomed.top.as_raw(),
                    was_struck: doomed.was_struck,
                    is_left: doomed.is_left,
                });
                Event::Swept { doomed: doomed.collect() }
            }
            Err(err) => Event::SweepFailed {
                message: format!("the keeper cannot look for what workers have left, and tries again: {err}"),
            },
        }
    }

    fn bury(&mut self, burial: Burial) -> Option<Event> {
        let Burial { worker, pid, status, descendants_killed, survivors } = burial;
        self.timers.forget_clear(&worker);
        // Reaped first: from the report on, the host may reuse what the worker had.
        let took = self.release(pid).map_or(Duration::ZERO, |ended| ended.elapsed());
        let clear_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        self.send(&KeeperToHost::Exited { worker, pid, status, descendants_killed, clear_ms, survivors })
    }

    /// Lets go of a dead worker; when its end was noticed.
    fn release(&mut self, pid: i32) -> Option<Instant> {
        let held = self.workers.remove(&pid);
        // An error here means that it is no child of ours any more, which is what is wanted.
        let _ = Pid::from_raw(pid).map(process::reap);
        held.and_then(|held| held.ended)
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
        let held = Held { pidfd: spawned.pidfd, _lifeline: lifeline.write, ended: None };
        self.workers.insert(spawned.pid.as_raw(), held);
        Ok(spawned.pid)
    }

    fn signal(&mut self, pid: i32, number: i32) -> Option<Event> {
        let (Some(held), Some(signal)) = (self.workers.get(&pid), Signal::from_raw(number)) else {
            return Some(Event::Trouble { message: format!("there is no signal {number}") });
        };
        let err = held.pidfd.send_signal(signal).err()?;
        let message = format!("{signal} could not be sent to worker process {pid}: {err}");
        Some(Event::Trouble { message })
    }

    fn trouble(&mut self, message: String) {
        self.feed(Event::Trouble { message }, Vec::new());
    }

    /// Queues a message, and sends what can be sent without waiting.
    fn send(&mut self, message: &KeeperToHost) -> Option<Event> {
        let fd = match message {
            KeeperToHost::Spawned { pid, .. } => {
                self.workers.get(pid).and_then(|held| held.pidfd.try_clone().ok())
            }
            _ => None,
        };
        self.outbox.push(message, fd.map(PidFd::into_owned));
        let count = self.outbox.flush(&self.control);
        (count > 0).then_some(Event::Sent { count })
    }

    fn flush(&mut self) {
        let count = self.outbox.flush(&self.control);
        self.feed(Event::Sent { count }, Vec::new());
    }
}

fn exit_word(status: WaitStatus) -> ExitWord {
    match status {
        WaitStatus::Exited { code } => ExitWord::Exited { code },
        WaitStatus::Signaled { signal, core_dumped } => ExitWord::Signaled { signal, core_dumped },
    }
}

#[cfg(test)]
mod tests;
