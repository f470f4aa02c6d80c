//! The keeper's state machine: events in, effects out.
//!
//! ```text
//!             Hello                 Shutdown, HostGone              AllCleared
//!  Waiting ───────────▶ Serving ────────────────────────▶ Ending ──────────────▶ Ended
//!     └── HostGone, Hello of another protocol ───────────────────────────────────▶ ┘
//!
//!  a worker while Serving:
//!             Started             WorkerEnded               Cleared
//!  Starting ───────────▶ Running ─────────────▶ Clearing ───────────▶ (reported, forgotten)
//!     └── StartFailed ──▶ (reported, forgotten)
//! ```
//!
//! No descriptors, no clock, no system calls here; descriptors beside a message stay with the shell, which
//! says only how many came. What must hold: each worker's end is reported exactly once, after its tree was
//! cleared and before its number can be reused; an event that does not fit the state changes nothing and is
//! an error naming both.

use std::collections::BTreeMap;

use cjm_wire::keeper::{ExitWord, HostToKeeper, KEEPER_PROTOCOL, KeeperToHost, SpawnWorker};

/// Most workers at a time. Each costs the keeper two descriptors.
pub const WORKERS_MAX: usize = 4096;

/// The errno that stands for "the request makes no sense".
const EINVAL: i32 = 22;
const EAGAIN: i32 = 11;
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
    /// A worker process is a zombie.
    WorkerEnded {
        /// Its process.
        pid: i32,
        /// How it ended.
        status: ExitWord,
    },
    /// Outcome of `Effect::Clear`.
    Cleared {
        /// The worker session.
        worker: String,
        /// What it took.
        outcome: ClearOutcome,
    },
    /// Outcome of `Effect::ClearAll`.
    AllCleared {
        /// What it took.
        outcome: ClearOutcome,
        /// How each kept worker process ended.
        ended: Vec<(i32, ExitWord)>,
    },
}

/// What a clearing did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ClearOutcome {
    /// How many living processes were killed.
    pub killed: u32,
    /// How long it took, in milliseconds.
    pub clear_ms: u64,
    /// What outlived the time limit.
    pub survivors: Vec<i32>,
    /// Whether something is left, named among the survivors or hidden from us.
    pub incomplete: bool,
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
    /// Kill all descendants but `spare` and theirs, leaving the zombie `pid`; answer `Cleared`.
    Clear {
        /// The worker session this is for.
        worker: String,
        /// Its zombie.
        pid: i32,
        /// The other workers' processes.
        spare: Vec<i32>,
    },
    /// Reap the worker process, close its lifeline, forget it.
    Release {
        /// The process.
        pid: i32,
    },
    /// Kill all descendants, leaving the zombies of `keep`; answer `AllCleared`.
    ClearAll {
        /// Worker processes whose status is still to be reported.
        keep: Vec<i32>,
    },
    /// Flush what is to be sent, then end the process with this exit code.
    End {
        /// The exit code.
        code: u8,
    },
}

/// One worker, as far as the keeper knows it.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Worker {
    Starting,
    Running { pid: i32 },
    Clearing { pid: i32, status: ExitWord },
}

impl Worker {
    fn pid(&self) -> Option<i32> {
        match self {
            Self::Starting => None,
            Self::Running { pid } | Self::Clearing { pid, .. } => Some(*pid),
        }
    }
}

type Workers = BTreeMap<String, Worker>;

/// The keeper's life.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Keeper {
    /// Not greeted yet.
    #[default]
    Waiting,
    /// Starting and burying workers.
    Serving(Serving),
    /// Killing everything; what is left of the workers is to be reported if the host still listens.
    Ending(Serving),
    /// Nothing more to do.
    Ended,
}

/// The workers of a keeper that serves or ends.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Serving {
    workers: Workers,
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
    /// Its time to clear the tree ran out with processes still there.
    pub const SURVIVORS: u8 = 12;
}

impl Keeper {
    /// Takes one event. The effects are to be performed in order, and outcomes fed back as events, before
    /// any other event.
    pub fn step(&mut self, event: Event) -> Result<Vec<Effect>, IllegalEvent> {
        match (&mut *self, event) {
            (Self::Waiting, Event::Host { message: HostToKeeper::Hello { .. }, fd_count })
                if fd_count > 1 =>
            {
                Err(self.illegal(&format!("Hello with {fd_count} descriptors")))
            }
            (
                Self::Waiting,
                Event::Host { message: HostToKeeper::Hello { protocol, tree_lock, nofile_soft }, fd_count },
            ) => self.hello(protocol, tree_lock, nofile_soft, fd_count),
            (Self::Waiting, Event::HostGone) => {
                *self = Self::Ended;
                Ok(vec![Effect::End { code: exit_code::DONE }])
            }
            (Self::Serving(_), Event::HostGone) => Ok(self.end(Vec::new())),
            (Self::Serving(serving), Event::Host { message: HostToKeeper::Shutdown, .. }) => {
                let keep = serving.pids();
                Ok(self.end(keep))
            }
            (Self::Serving(serving), event) => serving.step(event).map_err(|event| self.illegal(&event)),
            // The end is already under way; it needs no second cause.
            (Self::Ending(_) | Self::Ended, Event::HostGone)
            | (Self::Ending(_), Event::Host { message: HostToKeeper::Shutdown, .. }) => Ok(Vec::new()),
            (Self::Ending(serving), Event::AllCleared { outcome, ended }) => {
                let effects = serving.bury_all(&outcome, &ended);
                *self = Self::Ended;
                Ok(effects)
            }
            (_, event) => Err(self.illegal(&event_name(&event))),
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
            *self = Self::Ended;
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
        *self = Self::Serving(Serving::default());
        let mut effects = Vec::new();
        if tree_lock {
            effects.push(Effect::HoldTreeLock);
        }
        effects.extend(nofile_soft.map(|soft| Effect::LimitWorkerFiles { soft }));
        effects.push(Effect::SendReady);
        Ok(effects)
    }

    fn end(&mut self, keep: Vec<i32>) -> Vec<Effect> {
        if let Self::Serving(serving) = std::mem::take(self) {
            // Without `keep` nobody is left to be told, and the zombies are reaped with all others.
            *self = Self::Ending(if keep.is_empty() { Serving::default() } else { serving });
        }
        vec![Effect::ClearAll { keep }]
    }

    fn illegal(&self, event: &str) -> IllegalEvent {
        let state = match self {
            Self::Waiting => "waiting for Hello".to_owned(),
            Self::Serving(serving) => format!("serving {} workers", serving.workers.len()),
            Self::Ending(_) => "ending".to_owned(),
            Self::Ended => "ended".to_owned(),
        };
        IllegalEvent { state, event: event.to_owned() }
    }
}

impl Serving {
    /// An event while serving; an Err names the illegal one.
    fn step(&mut self, event: Event) -> Result<Vec<Effect>, String> {
        match event {
            Event::Host { message: HostToKeeper::Spawn(spawn), fd_count } => Ok(self.spawn(spawn, fd_count)),
            Event::Host { message: HostToKeeper::Signal { worker, signal }, .. } => {
                Ok(self.signal(&worker, signal))
            }
            Event::Host { message: HostToKeeper::Kill { worker }, .. } => Ok(self.signal(&worker, SIGKILL)),
            Event::Started { worker, pid } => {
                self.change(&worker, "Started", |state| matches!(state, Worker::Starting))?;
                self.workers.insert(worker.clone(), Worker::Running { pid });
                Ok(vec![Effect::Send(KeeperToHost::Spawned { worker, pid })])
            }
            Event::StartFailed { worker, errno, message, next_step } => {
                self.change(&worker, "StartFailed", |state| matches!(state, Worker::Starting))?;
                self.workers.remove(&worker);
                Ok(vec![Effect::Send(KeeperToHost::SpawnFailed { worker, errno, message, next_step })])
            }
            Event::WorkerEnded { pid, status } => self.worker_ended(pid, status),
            Event::Cleared { worker, outcome } => {
                self.change(&worker, "Cleared", |state| matches!(state, Worker::Clearing { .. }))?;
                let Some(Worker::Clearing { pid, status }) = self.workers.remove(&worker) else {
                    return Err(format!("Cleared for {worker}"));
                };
                Ok(bury(worker, pid, status, outcome))
            }
            other => Err(event_name(&other)),
        }
    }

    fn spawn(&mut self, spawn: SpawnWorker, fd_count: usize) -> Vec<Effect> {
        let refuse = |errno, message: String, next_step: &str| {
            vec![Effect::Send(KeeperToHost::SpawnFailed {
                worker: spawn.worker.clone(),
                errno,
                message,
                next_step: next_step.to_owned(),
            })]
        };
        if self.workers.contains_key(&spawn.worker) {
            return refuse(
                EINVAL,
                format!("worker session {} already exists", spawn.worker),
                "give every start a new worker session id",
            );
        }
        if spawn.fd_targets.len() != fd_count {
            return refuse(
                EINVAL,
                format!("{fd_count} descriptors came for {} numbers", spawn.fd_targets.len()),
                "send one descriptor for each entry of fd_targets",
            );
        }
        if self.workers.len() >= WORKERS_MAX {
            return refuse(
                EAGAIN,
                format!("{WORKERS_MAX} workers are running already"),
                "unload some workers first",
            );
        }
        self.workers.insert(spawn.worker.clone(), Worker::Starting);
        vec![Effect::Start(spawn)]
    }

    /// A signal for a worker that is not (any more) running is no error: its end may be on its way to the
    /// host.
    fn signal(&self, worker: &str, signal: i32) -> Vec<Effect> {
        match self.workers.get(worker) {
            Some(Worker::Running { pid }) => vec![Effect::Signal { pid: *pid, signal }],
            _ => Vec::new(),
        }
    }

    fn worker_ended(&mut self, pid: i32, status: ExitWord) -> Result<Vec<Effect>, String> {
        let worker = self
            .workers
            .iter()
            .find_map(|(worker, state)| (*state == Worker::Running { pid }).then(|| worker.clone()))
            .ok_or_else(|| format!("WorkerEnded for process {pid}, which is no running worker"))?;
        let spare = self.pids().into_iter().filter(|other| *other != pid).collect();
        self.workers.insert(worker.clone(), Worker::Clearing { pid, status });
        Ok(vec![Effect::Clear { worker, pid, spare }])
    }

    fn bury_all(&self, outcome: &ClearOutcome, ended: &[(i32, ExitWord)]) -> Vec<Effect> {
        let mut effects = Vec::new();
        // One clearing served all, so what it killed is told once, with the first.
        let mut shared = Some(ClearOutcome {
            killed: outcome.killed.saturating_sub(u32::try_from(self.workers.len()).unwrap_or(u32::MAX)),
            ..outcome.clone()
        });
        for (worker, state) in &self.workers {
            let told = ended.iter().find(|(pid, _)| Some(*pid) == state.pid());
            if let Some((pid, status)) = told {
                effects.extend(bury(worker.clone(), *pid, *status, shared.take().unwrap_or_default()));
            }
        }
        let code = if outcome.incomplete { exit_code::SURVIVORS } else { exit_code::DONE };
        effects.push(Effect::End { code });
        effects
    }

    fn change(&self, worker: &str, event: &str, fits: impl Fn(&Worker) -> bool) -> Result<(), String> {
        match self.workers.get(worker) {
            Some(state) if fits(state) => Ok(()),
            Some(state) => Err(format!("{event} for worker {worker}, which is {state:?}")),
            None => Err(format!("{event} for worker {worker}, which is unknown")),
        }
    }

    fn pids(&self) -> Vec<i32> {
        self.workers.values().filter_map(Worker::pid).collect()
    }
}

/// The last words on a worker. Reaped first: from the report on, the host may reuse what the worker had.
fn bury(worker: String, pid: i32, status: ExitWord, outcome: ClearOutcome) -> Vec<Effect> {
    vec![
        Effect::Release { pid },
        Effect::Send(KeeperToHost::Exited {
            worker,
            pid,
            status,
            descendants_killed: outcome.killed,
            clear_ms: outcome.clear_ms,
            survivors: outcome.survivors,
        }),
    ]
}

fn event_name(event: &Event) -> String {
    match event {
        Event::Host { message, .. } => match message {
            HostToKeeper::Hello { .. } => "Hello".to_owned(),
            HostToKeeper::Spawn(spawn) => format!("Spawn of {}", spawn.worker),
            HostToKeeper::Signal { worker, .. } => format!("Signal for {worker}"),
            HostToKeeper::Kill { worker } => format!("Kill for {worker}"),
            HostToKeeper::Shutdown => "Shutdown".to_owned(),
        },
        Event::HostGone => "HostGone".to_owned(),
        Event::Started { worker, .. } => format!("Started for {worker}"),
        Event::StartFailed { worker, .. } => format!("StartFailed for {worker}"),
        Event::WorkerEnded { pid, .. } => format!("WorkerEnded for process {pid}"),
        Event::Cleared { worker, .. } => format!("Cleared for {worker}"),
        Event::AllCleared { .. } => "AllCleared".to_owned(),
    }
}

#[cfg(test)]
mod tests;
