//! The keeper's state machine: events in, effects out.
//!
//! ```text
//!             Hello              Shutdown, HostGone, Terminated       all are cleared, EndDeadline
//!  Waiting ───────────▶ Serving ────────────────────────▶ Ending ─────────────────────────▶ Ended
//!     └── HostGone, Terminated, Hello of another protocol ─────────────────────────────────▶ ┘
//!
//!  a worker:
//!             Started             WorkersEnded             a sweep finds nothing of it, ClearDeadline
//!  Starting ───────────▶ Running ──────────────▶ Clearing ──────────────────▶ (buried and told, forgotten)
//!     └── StartFailed ──▶ (told, forgotten)
//! ```
//!
//! No descriptors, no clock, no system calls here; descriptors beside a message stay with the shell, which
//! says only how many came, and deadlines are events that the shell is asked for. What must hold: each worker's end
//! is told exactly once, after its tree was cleared and before its number can be reused; nobody waits for what
//! cannot be killed longer than one deadline, and never a second time; an event that does not fit the state changes
//! nothing and is an error naming both.

mod house;

use cjm_wire::keeper::{ExitWord, HostToKeeper, KEEPER_PROTOCOL, KeeperToHost, SpawnWorker};

use house::House;

/// Most workers at a time. Each costs the keeper two descriptors.
pub const WORKERS_MAX: usize = 4096;
/// Most messages waiting for a host that does not read; one more, and it counts as gone.
pub const OUTGOING_MAX: usize = 4096;

/// The errno that stands for "the request makes no sense".
const EINVAL: i32 = 22;
const EAGAIN: i32 = 11;
const ESHUTDOWN: i32 = 108;
const SIGKILL: i32 = 9;

/// What can happen to the keeper.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// The host said something, with this many descriptors beside it.
    Host {
        /// What it said.
        message: HostToKeeper,
        /// How many descriptors came with it.
        fd_count: usize,
    },
    /// The host's end of the socket is closed: it has died, or reads no more.
    HostGone,
    /// Somebody asked this process to end.
    Terminated,
    /// Outcome of `Effect::Start`.
    Started {
        /// The worker session.
        worker: String,
        /// The new process.
        pid: i32,
    },
    /// Outcome of `Effect::Start`.
    StartFailed {
        /// The worker session.
        worker: String,
        /// The errno behind it, or 0.
        errno: i32,
        /// What failed.
        message: String,
        /// What to do about it.
        next_step: String,
    },
    /// These worker processes are zombies now; all that one turn found together.
    WorkersEnded {
        /// Their processes, and how each ended.
        ended: Vec<(i32, ExitWord)>,
    },
    /// Outcome of `Effect::Sweep`.
    Swept {
        /// Everything below the keeper that belongs to no running worker.
        doomed: Vec<DoomedProcess>,
    },
    /// Outcome of `Effect::Sweep`: it could not look.
    SweepFailed {
        /// Why not.
        message: String,
    },
    /// What `Effect::SweepSoon` asked for.
    SweepDue,
    /// What `Effect::SetClearDeadline` asked for.
    ClearDeadline {
        /// The worker session.
        worker: String,
    },
    /// What `Effect::SetEndDeadline` asked for.
    EndDeadline,
    /// This many messages have left, or cannot be sent at all.
    Sent {
        /// How many.
        count: usize,
    },
    /// Something failed that the host should know of.
    Trouble {
        /// What, in a sentence.
        message: String,
    },
}

/// A process that a sweep found and that is to end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DoomedProcess {
    /// Its id.
    pub pid: i32,
    /// When it started; with the pid it names one process for good.
    pub start_ticks: u64,
    /// Its session.
    pub session: i32,
    /// The child of the keeper that it hangs below, or itself.
    pub top: i32,
    /// It lived, and got its SIGKILL in this sweep.
    pub was_struck: bool,
    /// It was still there when the sweep ended.
    pub is_left: bool,
}

/// What the shell has to do, in order.
#[must_use]
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Keep the descriptor beside the present message open for as long as this process lives.
    HoldTreeLock,
    /// Workers get this soft limit on open descriptors.
    LimitWorkerFiles {
        /// The soft limit.
        soft: u64,
    },
    /// Tell the host `Ready` with this process' id.
    SendReady,
    /// Tell the host; a pidfd goes with `Spawned`.
    Send(KeeperToHost),
    /// Start a worker with the descriptors beside the present message; answer `Started` or `StartFailed`.
    Start(SpawnWorker),
    /// Send a signal to an unreaped worker process.
    Signal {
        /// The process.
        pid: i32,
        /// The signal.
        signal: i32,
    },
    /// Kill all descendants but `spare` and theirs, without waiting; answer `Swept` or `SweepFailed`.
    Sweep {
        /// Running workers.
        spare: Vec<i32>,
        /// Workers whose zombies are still needed.
        keep: Vec<i32>,
    },
    /// Say `SweepDue` when a descendant has ended, or after a moment, unless there is a `Sweep` before.
    SweepSoon,
    /// Say `ClearDeadline` when the time for clearing what this worker left has passed, unless it is buried before.
    SetClearDeadline {
        /// The worker session.
        worker: String,
    },
    /// Say `EndDeadline` when the time for clearing everything has passed.
    SetEndDeadline,
    /// Reap the worker process, close its lifeline, forget it; then tell the host `Exited`.
    Bury(Burial),
    /// As `Bury`, with nobody to be told.
    Release {
        /// The process.
        pid: i32,
    },
    /// Flush what is to be sent, then end the process with this exit code.
    End {
        /// The exit code.
        code: u8,
    },
}

/// The last words on a worker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Burial {
    /// The worker session.
    pub worker: String,
    /// Its zombie.
    pub pid: i32,
    /// How it ended.
    pub status: ExitWord,
    /// How many living processes it had left behind.
    pub descendants_killed: u32,
    /// What outlived the deadline.
    pub survivors: Vec<i32>,
}

impl Effect {
    /// Whether a message to the host comes of it.
    fn tells(&self) -> bool {
        matches!(self, Self::SendReady | Self::Send(_) | Self::Bury(_))
    }
}

/// What the keeper allows.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Limits {
    /// Most workers at a time.
    pub workers_max: usize,
    /// Most messages that wait for the host.
    pub outgoing_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { workers_max: WORKERS_MAX, outgoing_max: OUTGOING_MAX }
    }
}

/// The keeper.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Keeper {
    limits: Limits,
    life: Life,
    /// Messages that the host has not taken yet.
    unsent: usize,
    /// Nobody is left to be told anything.
    host_gone: bool,
}

/// Where it is in its life.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
enum Life {
    /// Not greeted yet.
    #[default]
    Waiting,
    /// Starting and burying workers.
    Serving(House),
    /// Killing everything.
    Ending(House),
    /// Nothing more to do.
    Ended,
}

/// An event that does not fit the state. Nothing was changed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the keeper, {state}, cannot take {event}")]
pub struct IllegalEvent {
    /// The state it was in.
    pub state: String,
    /// What it was given.
    pub event: String,
}

/// The keeper's exit codes.
pub mod exit_code {
    /// Its tree is gone.
    pub const DONE: u8 = 0;
    /// It could not set itself up, or its socket failed.
    pub const IO: u8 = 10;
    /// The host speaks another protocol.
    pub const PROTOCOL: u8 = 11;
    /// It ended with processes still there that no SIGKILL ends.
    pub const SURVIVORS: u8 = 12;
}

impl Keeper {
    /// A keeper that has not been greeted yet.
    pub fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Takes one event. The effects are to be performed in order, and outcomes fed back as events, before
    /// any other event. What is due (`SweepDue`, `ClearDeadline`, `EndDeadline`) is said after `WorkersEnded` for all
    /// workers that had ended when the last sweep was made.
    pub fn step(&mut self, event: Event) -> Result<Vec<Effect>, IllegalEvent> {
        let effects = self.react(event)?;
        Ok(self.bounded(effects))
    }

    fn react(&mut self, event: Event) -> Result<Vec<Effect>, IllegalEvent> {
        match (&mut self.life, event) {
            (_, Event::HostGone) => {
                self.host_gone = true;
                Ok(self.begin_end())
            }
            (Life::Serving(_), Event::Terminated) => {
                let cause = "a signal (SIGTERM) told the keeper to end".to_owned();
                let mut effects = vec![Effect::Send(KeeperToHost::Ending { cause })];
                effects.extend(self.begin_end());
                Ok(effects)
            }
            (_, Event::Terminated) => Ok(self.begin_end()),
            (_, Event::Sent { .. }) if self.host_gone => Ok(Vec::new()),
            (_, Event::Sent { count }) => match self.unsent.checked_sub(count) {
                Some(left) => {
                    self.unsent = left;
                    Ok(Vec::new())
                }
                None => Err(self.illegal(&format!("Sent of {count} with {} unsent", self.unsent))),
            },
            (Life::Waiting | Life::Serving(_) | Life::Ending(_), Event::Trouble { message }) => {
                Ok(vec![Effect::Send(KeeperToHost::Trouble { message })])
            }
            (Life::Waiting, Event::Host { message: HostToKeeper::Hello { .. }, fd_count })
                if fd_count > 1 =>
            {
                Err(self.illegal(&format!("Hello with {fd_count} descriptors")))
            }
            (
                Life::Waiting,
                Event::Host { message: HostToKeeper::Hello { protocol, tree_lock, nofile_soft }, fd_count },
            ) => self.hello(protocol, tree_lock, nofile_soft, fd_count),
            // An end that is under way needs no second cause.
            (Life::Serving(_) | Life::Ending(_), Event::Host { message: HostToKeeper::Shutdown, .. }) => {
                Ok(self.begin_end())
            }
            (Life::Serving(house), Event::Host { message, fd_count }) => {
                house.host(message, fd_count, self.limits.workers_max).map_err(|event| self.illegal(&event))
            }
            (Life::Ending(house), Event::Host { message, .. }) => {
                house.host_while_ending(message).map_err(|event| self.illegal(&event))
            }
            (Life::Serving(house), event) => house.step(event).map_err(|event| self.illegal(&event)),
            (Life::Ending(house), event) => {
                let mut effects = house.step_while_ending(event).map_err(|event| self.illegal(&event))?;
                if let Life::Ending(house) = &self.life
                    && let Some(code) = house.end_code()
                {
                    self.life = Life::Ended;
                    effects.push(Effect::End { code });
                }
                Ok(effects)
            }
            (Life::Waiting | Life::Ended, event) => Err(self.illegal(&event_name(&event))),
        }
    }

    fn hello(
        &mut self,
        protocol: u32,
        tree_lock: bool,
        nofile_soft: Option<u64>,
        fd_count: usize,
    ) -> Result<Vec<Effect>, IllegalEvent> {
        if protocol != KEEPER_PROTOCOL {
            self.life = Life::Ended;
            let message = format!(
                "the host speaks keeper protocol {protocol}, this keeper {KEEPER_PROTOCOL}: \
                 install cjm-worker and the host from one build"
            );
            return Ok(vec![
                Effect::Send(KeeperToHost::Trouble { message }),
                Effect::End { code: exit_code::PROTOCOL },
            ]);
        }
        if usize::from(tree_lock) != fd_count {
            return Err(self.illegal("Hello whose tree_lock does not match its descriptors"));
        }
        self.life = Life::Serving(House::default());
        let mut effects = Vec::new();
        if tree_lock {
            effects.push(Effect::HoldTreeLock);
        }
        effects.extend(nofile_soft.map(|soft| Effect::LimitWorkerFiles { soft }));
        effects.push(Effect::SendReady);
        Ok(effects)
    }

    fn begin_end(&mut self) -> Vec<Effect> {
        match std::mem::take(&mut self.life) {
            Life::Waiting => {
                self.life = Life::Ended;
                vec![Effect::End { code: exit_code::DONE }]
            }
            Life::Serving(mut house) => {
                let sweep = house.begin_end();
                self.life = Life::Ending(house);
                vec![Effect::SetEndDeadline, sweep]
            }
            life @ (Life::Ending(_) | Life::Ended) => {
                self.life = life;
                Vec::new()
            }
        }
    }

    /// Counts what is to be sent. One message too many, and the host counts as gone; whoever is gone is told nothing.
    fn bounded(&mut self, effects: Vec<Effect>) -> Vec<Effect> {
        let was_gone = self.host_gone;
        let mut bounded = Vec::with_capacity(effects.len());
        for effect in effects {
            if effect.tells() && !self.host_gone {
                self.host_gone = self.unsent >= self.limits.outgoing_max;
                self.unsent += usize::from(!self.host_gone);
            }
            match effect {
                Effect::Bury(Burial { pid, .. }) if self.host_gone => bounded.push(Effect::Release { pid }),
                told if told.tells() && self.host_gone => {}
                other => bounded.push(other),
            }
        }
        if self.host_gone && !was_gone {
            bounded.extend(self.begin_end());
        }
        bounded
    }

    fn illegal(&self, event: &str) -> IllegalEvent {
        let state = match &self.life {
            Life::Waiting => "waiting for Hello".to_owned(),
            Life::Serving(house) => format!("serving {} workers", house.worker_count()),
            Life::Ending(_) => "ending".to_owned(),
            Life::Ended => "ended".to_owned(),
        };
        IllegalEvent { state, event: event.to_owned() }
    }
}

fn event_name(event: &Event) -> String {
    match event {
        Event::Host { message, .. } => message_name(message),
        Event::HostGone => "HostGone".to_owned(),
        Event::Terminated => "Terminated".to_owned(),
        Event::Started { worker, .. } => format!("Started for {worker}"),
        Event::StartFailed { worker, .. } => format!("StartFailed for {worker}"),
        Event::WorkersEnded { .. } => "WorkersEnded".to_owned(),
        Event::Swept { .. } => "Swept".to_owned(),
        Event::SweepFailed { .. } => "SweepFailed".to_owned(),
        Event::SweepDue => "SweepDue".to_owned(),
        Event::ClearDeadline { worker } => format!("ClearDeadline for {worker}"),
        Event::EndDeadline => "EndDeadline".to_owned(),
        Event::Sent { .. } => "Sent".to_owned(),
        Event::Trouble { .. } => "Trouble".to_owned(),
    }
}

fn message_name(message: &HostToKeeper) -> String {
    match message {
        HostToKeeper::Hello { .. } => "Hello".to_owned(),
        HostToKeeper::Spawn(spawn) => format!("Spawn of {}", spawn.worker),
        HostToKeeper::Signal { worker, .. } => format!("Signal for {worker}"),
        HostToKeeper::Kill { worker } => format!("Kill for {worker}"),
        HostToKeeper::Shutdown => "Shutdown".to_owned(),
    }
}

#[cfg(test)]
mod exploration;
#[cfg(test)]
mod tests;
