//! The workers of a keeper that serves or ends, and what dead ones have left.
//!
//! What must hold: a worker is buried when a sweep that began after its end finds nothing that it has to wait for, or
//! at its deadline. It waits for what it certainly left, and for what was first seen after its end and may be
//! anybody's; what was seen before it ended is not its own, and what has outlived a deadline is waited for no more.

use std::collections::{BTreeMap, BTreeSet};

use cjm_wire::keeper::{ExitWord, HostToKeeper, KeeperToHost, SpawnWorker};

use super::{
    Burial, DoomedProcess, EAGAIN, EINVAL, ESHUTDOWN, Effect, Event, SIGKILL, event_name, exit_code,
    message_name,
};

/// One worker, as far as the keeper knows it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Worker {
    Starting,
    Running {
        pid: i32,
        /// What of it was killed while it still lived, as an end does.
        killed: u32,
    },
    Clearing {
        pid: i32,
        status: ExitWord,
        killed: u32,
    },
}

impl Worker {
    fn pid(&self) -> Option<i32> {
        match self {
            Self::Starting => None,
            Self::Running { pid, .. } | Self::Clearing { pid, .. } => Some(*pid),
        }
    }
}

/// Who waits for a doomed process to be gone.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
struct Waiters {
    workers: BTreeSet<String>,
    /// The keeper's own end does.
    end: bool,
    /// The last sweep saw it first, and it may be anybody's: also of a worker that had ended by then and has not been
    /// noticed yet.
    is_fresh: bool,
}

/// Whether somebody sweeps.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
enum Sweeping {
    #[default]
    Idle,
    /// `Effect::Sweep` has not been answered yet.
    UnderWay,
    /// `Effect::SweepSoon` has not been answered yet.
    Soon,
}

/// The workers, and what is left of dead ones.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct House {
    workers: BTreeMap<String, Worker>,
    /// What the last sweep left, by pid and start. What nobody waits for has outlived its deadline.
    left: BTreeMap<(i32, u64), Waiters>,
    sweeping: Sweeping,
    /// The last sweep failed, which was told.
    is_blind: bool,
    is_ending: bool,
    /// The time for the end has passed.
    is_overdue: bool,
}

impl House {
    pub(super) fn worker_count(&self) -> usize {
        self.workers.len()
    }

    /// A message while serving; an Err names the illegal one.
    pub(super) fn host(
        &mut self,
        message: HostToKeeper,
        fd_count: usize,
        workers_max: usize,
    ) -> Result<Vec<Effect>, String> {
        match message {
            HostToKeeper::Spawn(spawn) => Ok(self.spawn(spawn, fd_count, workers_max)),
            HostToKeeper::Signal { worker, signal } => Ok(self.signal(&worker, signal)),
            HostToKeeper::Kill { worker } => Ok(self.signal(&worker, SIGKILL)),
            other @ (HostToKeeper::Hello { .. } | HostToKeeper::Shutdown) => Err(message_name(&other)),
        }
    }

    /// A message while ending: all are killed anyway, and whoever asks for a new one is not left waiting.
    pub(super) fn host_while_ending(&self, message: HostToKeeper) -> Result<Vec<Effect>, String> {
        match message {
            HostToKeeper::Spawn(spawn) => Ok(vec![refusal(
                spawn.worker,
                ESHUTDOWN,
                "the keeper is ending and starts nothing more".to_owned(),
                "try again: the host starts a new keeper",
            )]),
            HostToKeeper::Signal { .. } | HostToKeeper::Kill { .. } | HostToKeeper::Shutdown => {
                Ok(Vec::new())
            }
            other @ HostToKeeper::Hello { .. } => Err(message_name(&other)),
        }
    }

    /// Any other event while serving; an Err names the illegal one.
    pub(super) fn step(&mut self, event: Event) -> Result<Vec<Effect>, String> {
        match event {
            Event::Started { worker, pid } => {
                self.expect(&worker, "Started", |state| matches!(state, Worker::Starting))?;
                self.workers.insert(worker.clone(), Worker::Running { pid, killed: 0 });
                Ok(vec![Effect::Send(KeeperToHost::Spawned { worker, pid })])
            }
            Event::StartFailed { worker, errno, message, next_step } => {
                self.expect(&worker, "StartFailed", |state| matches!(state, Worker::Starting))?;
                self.workers.remove(&worker);
                Ok(vec![refusal(worker, errno, message, &next_step)])
            }
            other => self.clearing(other),
        }
    }

    /// As `step`, while ending.
    pub(super) fn step_while_ending(&mut self, event: Event) -> Result<Vec<Effect>, String> {
        match event {
            Event::EndDeadline => {
                self.is_overdue = true;
                let clearing: Vec<String> = self.clearing_names();
                Ok(clearing.iter().filter_map(|worker| self.bury_at_deadline(worker)).collect())
            }
            other => self.clearing(other),
        }
    }

    /// Everything is to go from now on.
    pub(super) fn begin_end(&mut self) -> Effect {
        self.is_ending = true;
        // What has outlived a deadline already is not waited for again.
        for waiters in self.left.values_mut() {
            waiters.end = !waiters.workers.is_empty();
        }
        self.sweep()
    }

    /// The exit code, once an end has nothing more to wait for.
    pub(super) fn end_code(&self) -> Option<u8> {
        let waits =
            self.is_blind || !self.workers.is_empty() || self.left.values().any(|waiters| waiters.end);
        if waits && !self.is_overdue || self.sweeping == Sweeping::UnderWay {
            return None;
        }
        let is_clean = !self.is_blind && self.left.is_empty() && self.workers.is_empty();
        Some(if is_clean { exit_code::DONE } else { exit_code::SURVIVORS })
    }

    fn clearing(&mut self, event: Event) -> Result<Vec<Effect>, String> {
        match event {
            Event::WorkersEnded { ended } => self.workers_ended(ended),
            Event::Swept { doomed } if self.sweeping == Sweeping::UnderWay => Ok(self.swept(&doomed)),
            Event::SweepFailed { message } if self.sweeping == Sweeping::UnderWay => {
                self.sweeping = Sweeping::Soon;
                let told = (!std::mem::replace(&mut self.is_blind, true))
                    .then_some(Effect::Send(KeeperToHost::Trouble { message }));
                Ok(told.into_iter().chain([Effect::SweepSoon]).collect())
            }
            Event::SweepDue if self.sweeping == Sweeping::Soon => {
                self.forget_freshness();
                if self.is_ending || !self.clearing_names().is_empty() {
                    return Ok(vec![self.sweep()]);
                }
                self.sweeping = Sweeping::Idle;
                Ok(Vec::new())
            }
            Event::ClearDeadline { worker } => {
                self.expect(&worker, "ClearDeadline", |state| matches!(state, Worker::Clearing { .. }))?;
                self.forget_freshness();
                Ok(self.bury_at_deadline(&worker).into_iter().collect())
            }
            other => Err(event_name(&other)),
        }
    }

    fn spawn(&mut self, spawn: SpawnWorker, fd_count: usize, workers_max: usize) -> Vec<Effect> {
        let refuse =
            |errno, message, next_step| vec![refusal(spawn.worker.clone(), errno, message, next_step)];
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
        if self.workers.len() >= workers_max {
            return refuse(
                EAGAIN,
                format!("{workers_max} workers are running already"),
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
            Some(Worker::Running { pid, .. }) => vec![Effect::Signal { pid: *pid, signal }],
            _ => Vec::new(),
        }
    }

    fn workers_ended(&mut self, ended: Vec<(i32, ExitWord)>) -> Result<Vec<Effect>, String> {
        let mut changed = Vec::with_capacity(ended.len());
        for (pid, status) in ended {
            let found = self.workers.iter().find_map(|(worker, state)| match state {
                Worker::Running { pid: own, killed } if *own == pid => Some((worker.clone(), *killed)),
                _ => None,
            });
            let Some((worker, killed)) = found else {
                return Err(format!("WorkersEnded for process {pid}, which is no running worker"));
            };
            if changed.iter().any(|(other, _)| *other == worker) {
                return Err(format!("WorkersEnded for process {pid} twice"));
            }
            changed.push((worker, Worker::Clearing { pid, status, killed }));
        }
        let mut effects = Vec::with_capacity(changed.len() + 1);
        for (worker, state) in changed {
            for waiters in self.left.values_mut().filter(|waiters| waiters.is_fresh) {
                waiters.workers.insert(worker.clone());
            }
            self.workers.insert(worker.clone(), state);
            effects.push(Effect::SetClearDeadline { worker });
        }
        self.forget_freshness();
        // One sweep for all of them.
        effects.push(self.sweep());
        Ok(effects)
    }

    fn sweep(&mut self) -> Effect {
        self.sweeping = Sweeping::UnderWay;
        let (mut spare, mut keep) = (Vec::new(), Vec::new());
        for worker in self.workers.values() {
            match worker {
                Worker::Running { pid, .. } if !self.is_ending => spare.push(*pid),
                Worker::Running { pid, .. } | Worker::Clearing { pid, .. } => keep.push(*pid),
                Worker::Starting => {}
            }
        }
        Effect::Sweep { spare, keep }
    }

    fn swept(&mut self, doomed: &[DoomedProcess]) -> Vec<Effect> {
        self.is_blind = false;
        self.note(doomed);
        let mut effects: Vec<Effect> = Vec::new();
        let awaiting: BTreeSet<String> =
            self.left.values().flat_map(|waiters| &waiters.workers).cloned().collect();
        let (waiting, done): (Vec<String>, Vec<String>) =
            self.clearing_names().into_iter().partition(|worker| awaiting.contains(worker));
        effects.extend(done.iter().filter_map(|worker| self.bury(worker, Vec::new())));
        self.sweeping = Sweeping::Idle;
        let goes_on = !waiting.is_empty() || self.is_ending && self.end_code().is_none();
        if goes_on {
            self.sweeping = Sweeping::Soon;
            effects.push(Effect::SweepSoon);
        }
        effects
    }

    /// Takes over what a sweep found: who waits for it, and for whom it was killed.
    fn note(&mut self, doomed: &[DoomedProcess]) {
        let mut left = BTreeMap::new();
        if !doomed.is_empty() {
            let by_pid: BTreeMap<i32, String> = self
                .workers
                .iter()
                .filter_map(|(worker, state)| Some((state.pid()?, worker.clone())))
                .collect();
            // The workers themselves are no descendants, and are followed by their own states.
            for process in doomed.iter().filter(|process| !by_pid.contains_key(&process.pid)) {
                let known = self.left.get(&(process.pid, process.start_ticks));
                let waiters = known.cloned().unwrap_or_else(|| self.waiters(process, &by_pid));
                if process.was_struck {
                    self.count_killed(&waiters);
                }
                if process.is_left {
                    left.insert((process.pid, process.start_ticks), waiters);
                }
            }
        }
        self.left = left;
    }

    /// Who waits for a process that was not seen before.
    fn waiters(&self, process: &DoomedProcess, by_pid: &BTreeMap<i32, String>) -> Waiters {
        let owner = by_pid.get(&process.top).or_else(|| by_pid.get(&process.session));
        let workers = match owner {
            Some(owner) => BTreeSet::from([owner.clone()]),
            None if self.is_ending => by_pid.values().cloned().collect(),
            None => self.clearing_names().into_iter().collect(),
        };
        Waiters { workers, end: self.is_ending, is_fresh: owner.is_none() }
    }

    /// What may be of several workers is counted once, for the first of them.
    fn count_killed(&mut self, waiters: &Waiters) {
        let first = waiters.workers.first().and_then(|worker| self.workers.get_mut(worker));
        if let Some(Worker::Running { killed, .. } | Worker::Clearing { killed, .. }) = first {
            *killed = killed.saturating_add(1);
        }
    }

    /// All workers that had ended by the last sweep have been noticed.
    fn forget_freshness(&mut self) {
        self.left.values_mut().for_each(|waiters| waiters.is_fresh = false);
    }

    fn bury_at_deadline(&mut self, worker: &str) -> Option<Effect> {
        let mut survivors = Vec::new();
        let waits = |other: &String| matches!(self.workers.get(other), Some(Worker::Clearing { .. }));
        for ((pid, _), waiters) in &mut self.left {
            if waiters.workers.remove(worker) {
                survivors.push(*pid);
                // Who ends later does not wait for what has had its time.
                waiters.workers.retain(waits);
            }
        }
        self.bury(worker, survivors)
    }

    fn bury(&mut self, worker: &str, survivors: Vec<i32>) -> Option<Effect> {
        match self.workers.remove(worker) {
            Some(Worker::Clearing { pid, status, killed }) => Some(Effect::Bury(Burial {
                worker: worker.to_owned(),
                pid,
                status,
                descendants_killed: killed,
                survivors,
            })),
            _ => None,
        }
    }

    fn clearing_names(&self) -> Vec<String> {
        let clearing = |(worker, state): (&String, &Worker)| {
            matches!(state, Worker::Clearing { .. }).then(|| worker.clone())
        };
        self.workers.iter().filter_map(clearing).collect()
    }

    fn expect(&self, worker: &str, event: &str, fits: impl Fn(&Worker) -> bool) -> Result<(), String> {
        match self.workers.get(worker) {
            Some(state) if fits(state) => Ok(()),
            Some(state) => Err(format!("{event} for worker {worker}, which is {state:?}")),
            None => Err(format!("{event} for worker {worker}, which is unknown")),
        }
    }
}

fn refusal(worker: String, errno: i32, message: String, next_step: &str) -> Effect {
    Effect::Send(KeeperToHost::SpawnFailed { worker, errno, message, next_step: next_step.to_owned() })
}
