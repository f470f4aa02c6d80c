//! The queue itself: takes one event at a time, changes the state, and says what is to be done. Jobs move by
//! the function in `job`, are admitted by the rules in `ladder`, wait in `lines` and run on the `pool`.
//!
//! One decision costs the logarithm of what waits: only the heads of lines whose target has room are looked
//! at, and only lines that an event touched are indexed again.

use super::job::{Block, Illegal, Job, Life, LifeEvent, Next, Run};
use super::ladder::{self, BlockReason, Facts, Ruling, SKIP_AHEAD_MAX};
use super::lines::{Lines, OrderKey};
use super::pool::{Instance, Pool, Recycle};
use super::types::{
    AttemptOutcome, CancelPhase, CancelReach, NOT_TAKEN_MAX, QueueEffect, QueueError, QueueEvent,
    QueueLimits, QueuedJob, Start, StopReason, Target,
};
use cjm_wire::event::JobStatus;
use cjm_wire::{InstanceId, JobId, WorkerSessionId};
use std::collections::{BTreeMap, BTreeSet};

/// State of the queue. Owned by one task.
#[derive(Debug, Clone)]
pub struct Queue {
    pub(super) limits: QueueLimits,
    pub(super) jobs: BTreeMap<JobId, Job>,
    pub(super) lines: Lines,
    pub(super) pool: Pool,
    pub(super) lanes_in_use: u32,
    /// Why nothing may start, while nothing may.
    pub(super) gate_closed: Option<String>,
    /// When the grace of each job that is being stopped is over.
    pub(super) graces: BTreeSet<(u64, JobId)>,
    /// When jobs that have a deadline and are not being stopped yet must have ended.
    pub(super) dues: BTreeSet<(u64, JobId)>,
    next_sequence: u64,
    wake_announced_ms: Option<u64>,
    /// Targets whose line or room this event changed.
    touched: BTreeSet<Target>,
}

impl Queue {
    /// An empty queue.
    #[must_use]
    pub fn new(limits: QueueLimits) -> Self {
        Self {
            limits: QueueLimits { lanes: limits.lanes.max(1), ..limits },
            jobs: BTreeMap::new(),
            lines: Lines::default(),
            pool: Pool::default(),
            lanes_in_use: 0,
            gate_closed: None,
            graces: BTreeSet::new(),
            dues: BTreeSet::new(),
            next_sequence: 0,
            wake_announced_ms: None,
            touched: BTreeSet::new(),
        }
    }

    /// Takes one event that happened at `now_ms` (any clock that does not run backwards) and says what to do.
    ///
    /// # Errors
    /// An event that cannot be; then nothing has changed.
    pub fn handle(&mut self, event: QueueEvent, now_ms: u64) -> Result<Vec<QueueEffect>, QueueError> {
        let mut effects = Vec::new();
        match event {
            QueueEvent::InstanceAdded {
                instance: id,
                session,
                capability,
                concurrency_max,
                cancel_grace_ms,
            } => {
                let instance = Instance {
                    session,
                    capability,
                    concurrency_max: concurrency_max.max(1),
                    cancel_grace_ms,
                    running: BTreeSet::new(),
                    idle_since_ms: now_ms,
                    recycle: None,
                };
                self.add_instance(&id, instance, &mut effects);
            }
            QueueEvent::InstanceRemoved { instance, session } => {
                self.remove_instance(&instance, &session, &mut effects);
            }
            QueueEvent::Submitted { job } => self.submit(job, now_ms)?,
            QueueEvent::CancelRequested { job, reach } => {
                self.request_stop(&job, reach, StopReason::Cancel, now_ms, &mut effects)?;
            }
            QueueEvent::ForceRequested { job } => {
                self.request_stop(&job, CancelReach::Any, StopReason::Cancel, now_ms, &mut effects)?;
                self.force(&job, now_ms, &mut effects)?;
            }
            QueueEvent::DeadlinePassed { job } => {
                self.request_stop(&job, CancelReach::Any, StopReason::Deadline, now_ms, &mut effects)?;
            }
            QueueEvent::AttemptEnded { job, attempt, session, outcome } => {
                self.end_attempt(&job, attempt, &session, outcome, now_ms, &mut effects)?;
            }
            QueueEvent::AdmissionClosed { reason } => self.gate_closed = Some(reason),
            QueueEvent::AdmissionOpened => self.gate_closed = None,
            QueueEvent::Tick => {}
        }
        self.stop_due(now_ms, &mut effects);
        self.force_overdue(now_ms, &mut effects);
        self.settle(now_ms, &mut effects);
        self.announce_wake(&mut effects);
        Ok(effects)
    }

    /// Status of a job that has not ended.
    #[must_use]
    pub fn status(&self, job: &JobId) -> Option<JobStatus> {
        self.jobs.get(job).map(|job| job.life.status())
    }

    /// Jobs that wait.
    #[must_use]
    pub fn pending_count(&self) -> usize {
        self.lines.len()
    }

    /// Attempts that run.
    #[must_use]
    pub fn lanes_in_use(&self) -> u32 {
        self.lanes_in_use
    }

    /// All jobs that have not ended, by id.
    pub fn jobs(&self) -> impl Iterator<Item = (&JobId, JobStatus)> {
        self.jobs.iter().map(|(id, job)| (id, job.life.status()))
    }

    fn add_instance(&mut self, id: &InstanceId, instance: Instance, effects: &mut Vec<QueueEffect>) {
        if self.pool.current(id, &instance.session).is_some() {
            return;
        }
        self.touch(id, &instance.capability);
        if let Some(earlier) = self.pool.put(id, instance) {
            self.instance_gone(id, earlier, effects);
        }
    }

    fn remove_instance(
        &mut self,
        id: &InstanceId,
        session: &WorkerSessionId,
        effects: &mut Vec<QueueEffect>,
    ) {
        if self.pool.current(id, session).is_none() {
            return;
        }
        if let Some(instance) = self.pool.take(id) {
            self.instance_gone(id, instance, effects);
        }
    }

    /// Completes the cancels that waited for a killed incarnation to be replaced or given up.
    fn instance_gone(&mut self, id: &InstanceId, instance: Instance, effects: &mut Vec<QueueEffect>) {
        self.touch(id, &instance.capability);
        for job in instance.recycle.map(|recycle| recycle.for_jobs).unwrap_or_default() {
            phase(&job, CancelPhase::Reloading, CancelPhase::Completed, effects);
        }
    }

    fn submit(&mut self, job: QueuedJob, now_ms: u64) -> Result<(), QueueError> {
        if let Some(known) = self.jobs.get(&job.id) {
            let state = known.life.name();
            return Err(QueueError::Illegal { job: job.id, state, event: "submitted" });
        }
        let key = OrderKey::new(job.priority, self.next_sequence);
        self.next_sequence += 1;
        self.lines.insert(&job.target, key, job.id.clone());
        self.touched.insert(job.target.clone());
        let due_ms = job.deadline_ms.map(|within_ms| now_ms.saturating_add(within_ms));
        self.dues.extend(due_ms.map(|due_ms| (due_ms, job.id.clone())));
        let entry = Job {
            target: job.target,
            priority: job.priority,
            composition: job.composition,
            submitted_ms: now_ms,
            due_ms,
            not_taken: 0,
            life: Life::Pending { key, attempts_done: 0, block: None },
        };
        self.jobs.insert(job.id, entry);
        Ok(())
    }

    fn request_stop(
        &mut self,
        id: &JobId,
        reach: CancelReach,
        reason: StopReason,
        now_ms: u64,
        effects: &mut Vec<QueueEffect>,
    ) -> Result<(), QueueError> {
        let run = self.jobs.get(id).and_then(|job| job.life.run());
        let tool = run.and_then(|run| self.pool.current(&run.instance, &run.session));
        let grace_ms = tool.map_or(0, |tool| tool.cancel_grace_ms).max(self.limits.cancel_grace_ms);
        let grace_ends_ms = now_ms.saturating_add(grace_ms);
        self.step(id, LifeEvent::StopAsked { reach, reason, grace_ends_ms }, now_ms, effects)
    }

    /// Stops what has run past its deadline.
    fn stop_due(&mut self, now_ms: u64, effects: &mut Vec<QueueEffect>) {
        while let Some((due_ms, _)) = self.dues.first()
            && *due_ms <= now_ms
            && let Some((_, id)) = self.dues.pop_first()
        {
            let moved = self.request_stop(&id, CancelReach::Any, StopReason::Deadline, now_ms, effects);
            debug_assert!(moved.is_ok(), "any job may be stopped");
        }
    }

    fn end_attempt(
        &mut self,
        id: &JobId,
        attempt: u32,
        session: &WorkerSessionId,
        outcome: AttemptOutcome,
        now_ms: u64,
        effects: &mut Vec<QueueEffect>,
    ) -> Result<(), QueueError> {
        let present = self.jobs.get_mut(id).filter(|job| {
            job.life.run().is_some_and(|run| run.attempt == attempt && run.session == *session)
        });
        let (mut missed, mut outcome) = (None, outcome);
        if let Some(job) = present
            && outcome.status().is_none()
        {
            missed = job.life.run().map(|run| run.instance.clone());
            if outcome == (AttemptOutcome::NotTaken { others: false }) {
                job.not_taken += 1;
                if job.not_taken >= NOT_TAKEN_MAX {
                    // A tool that takes no call at all must not be started for ever.
                    outcome = AttemptOutcome::Failed;
                }
            }
        }
        self.step(
            id,
            LifeEvent::AttemptEnded { attempt, session: session.clone(), outcome },
            now_ms,
            effects,
        )?;
        if let Some(instance) = missed {
            // Who did not find an incarnation brings the news of its end; were it kept, the job would go back to it
            // at once and for ever.
            self.remove_instance(&instance, session, effects);
        }
        Ok(())
    }

    /// Moves one job, keeps every index in step with it, and says what follows. An unknown job has ended long
    /// ago: late words about it change nothing.
    fn step(
        &mut self,
        id: &JobId,
        event: LifeEvent,
        now_ms: u64,
        effects: &mut Vec<QueueEffect>,
    ) -> Result<(), QueueError> {
        let Some(job) = self.jobs.get_mut(id) else { return Ok(()) };
        let next = job.life.next(event).map_err(|Illegal { state, event }| QueueError::Illegal {
            job: id.clone(),
            state,
            event,
        })?;
        match next {
            Next::Stay => {}
            Next::Become(life) => {
                let before = std::mem::replace(&mut job.life, life.clone());
                let target = job.target.clone();
                self.leave(id, &target, &before);
                if let (Some(run), Life::Pending { .. }) = (before.run(), &life) {
                    self.end_run(id, run, &before, now_ms, effects);
                }
                self.enter(id, &target, &before, &life, effects);
            }
            Next::End(status) => self.take_out(id, status, None, now_ms, effects),
            Next::Stopped(reason) => self.take_out(id, reason.status(), Some(reason), now_ms, effects),
        }
        Ok(())
    }

    fn take_out(
        &mut self,
        id: &JobId,
        status: JobStatus,
        stopped: Option<StopReason>,
        now_ms: u64,
        effects: &mut Vec<QueueEffect>,
    ) {
        let Some(job) = self.jobs.remove(id) else { return };
        self.leave(id, &job.target, &job.life);
        if let Some(run) = job.life.run() {
            self.end_run(id, run, &job.life, now_ms, effects);
        }
        if let Some(due_ms) = job.due_ms {
            self.dues.remove(&(due_ms, id.clone()));
        }
        effects.push(QueueEffect::Ended {
            job: id.clone(),
            from: job.life.status(),
            status,
            attempt: job.life.run().map(|run| run.attempt),
            stopped,
        });
    }

    /// Takes what a state holds: a place in a line, a grace. The lane and the slot go on in [`Self::end_run`].
    fn leave(&mut self, id: &JobId, target: &Target, life: &Life) {
        match life {
            Life::Pending { key, .. } => {
                self.lines.remove(target, *key);
                self.touched.insert(target.clone());
            }
            Life::Stopping { grace_ends_ms, .. } => {
                self.graces.remove(&(*grace_ends_ms, id.clone()));
            }
            Life::Running(_) | Life::Forcing { .. } => {}
        }
    }

    /// Gives a new state what it holds and asks for what it needs.
    fn enter(
        &mut self,
        id: &JobId,
        target: &Target,
        before: &Life,
        life: &Life,
        effects: &mut Vec<QueueEffect>,
    ) {
        let (from, to) = (before.cancel_phase(), life.cancel_phase());
        if from != to {
            phase(id, from, to, effects);
        }
        match life {
            Life::Pending { key, .. } => {
                self.lines.insert(target, *key, id.clone());
                self.touched.insert(target.clone());
            }
            Life::Running(run) => {
                self.lanes_in_use += 1;
                self.pool.update(&run.instance, &run.session, |instance| {
                    instance.running.insert(id.clone());
                });
                self.touch_run(run);
            }
            Life::Stopping { run, grace_ends_ms, .. } => {
                self.graces.insert((*grace_ends_ms, id.clone()));
                effects.push(QueueEffect::SendCancel {
                    job: id.clone(),
                    instance: run.instance.clone(),
                    session: run.session.clone(),
                    attempt: run.attempt,
                });
            }
            Life::Forcing { run, reason } => self.recycle(id, run, *reason, effects),
        }
    }

    fn recycle(&mut self, id: &JobId, run: &Run, reason: StopReason, effects: &mut Vec<QueueEffect>) {
        let first =
            self.pool.current(&run.instance, &run.session).is_some_and(|instance| instance.recycle.is_none());
        if first {
            self.pool.update(&run.instance, &run.session, |instance| {
                instance.recycle = Some(Recycle::default());
            });
            self.touch_run(run);
            effects.push(QueueEffect::ForceRecycle {
                job: id.clone(),
                instance: run.instance.clone(),
                session: run.session.clone(),
                reason,
            });
        }
    }

    /// Gives back the lane and the slot of an attempt that is over, and closes what its stop had begun.
    fn end_run(&mut self, id: &JobId, run: &Run, life: &Life, now_ms: u64, effects: &mut Vec<QueueEffect>) {
        self.lanes_in_use -= 1;
        let forced = matches!(life, Life::Forcing { .. });
        let mut reloads = false;
        self.pool.update(&run.instance, &run.session, |instance| {
            instance.running.remove(id);
            instance.idle_since_ms = now_ms;
            if let Some(recycle) = instance.recycle.as_mut().filter(|_| forced) {
                recycle.for_jobs.push(id.clone());
                reloads = true;
            }
        });
        self.touch_run(run);
        if forced {
            phase(id, CancelPhase::Force, CancelPhase::Reloading, effects);
            if !reloads {
                phase(id, CancelPhase::Reloading, CancelPhase::Completed, effects);
            }
        } else if life.cancel_phase() == CancelPhase::Cooperative {
            phase(id, CancelPhase::Cooperative, CancelPhase::Completed, effects);
        }
    }

    /// Turns to force where the grace is over. A call whose incarnation is gone already needs no killing: its
    /// end is on the way.
    fn force_overdue(&mut self, now_ms: u64, effects: &mut Vec<QueueEffect>) {
        while let Some((grace_ends_ms, _)) = self.graces.first()
            && *grace_ends_ms <= now_ms
            && let Some((_, id)) = self.graces.pop_first()
        {
            let moved = self.force(&id, now_ms, effects);
            debug_assert!(moved.is_ok(), "only a job that is being stopped has a grace");
        }
    }

    /// Turns to force what is being stopped, if its incarnation lives.
    fn force(&mut self, id: &JobId, now_ms: u64, effects: &mut Vec<QueueEffect>) -> Result<(), QueueError> {
        match self.jobs.get(id).map(|job| &job.life) {
            Some(Life::Stopping { run, .. }) if self.pool.current(&run.instance, &run.session).is_some() => {
                self.step(id, LifeEvent::GraceOver, now_ms, effects)
            }
            _ => Ok(()),
        }
    }

    /// Admits all that may go now, then notes what the others wait for.
    fn settle(&mut self, now_ms: u64, effects: &mut Vec<QueueEffect>) {
        let mut changed = BTreeSet::new();
        loop {
            while let Some(target) = self.touched.pop_first() {
                let has_room = self.pool.free_for(&target).is_some();
                self.lines.reindex(&target, has_room);
                changed.insert(target);
            }
            // Each round uses up one lane, so there are at most as many as lanes.
            let Some((job, run)) = self.choose(now_ms) else { break };
            self.admit(&job, run, now_ms, effects);
        }
        self.note_blocks(&changed, now_ms, effects);
    }

    /// The best job that the ladder lets go, and where.
    fn choose(&self, now_ms: u64) -> Option<(JobId, Run)> {
        for (_, target) in self.lines.ready().take(SKIP_AHEAD_MAX) {
            match ladder::climb(&self.facts(target)) {
                Ruling::Stop(_) => return None,
                Ruling::Skip(_) => {}
                Ruling::Admit => {
                    let job = self.lines.head(target)?;
                    let instance = self.pool.free_for(target)?;
                    let session = self.pool.get(instance)?.session.clone();
                    let Life::Pending { key, attempts_done, .. } = self.jobs.get(job)?.life else {
                        return None;
                    };
                    let (attempt, instance) = (attempts_done + 1, instance.clone());
                    return Some((job.clone(), Run { attempt, instance, session, since_ms: now_ms, key }));
                }
            }
        }
        None
    }

    fn admit(&mut self, id: &JobId, run: Run, now_ms: u64, effects: &mut Vec<QueueEffect>) {
        let submitted_ms = self.jobs.get(id).map_or(now_ms, |job| job.submitted_ms);
        let start = Start {
            job: id.clone(),
            instance: run.instance.clone(),
            session: run.session.clone(),
            attempt: run.attempt,
            waited_ms: now_ms.saturating_sub(submitted_ms),
            lanes_in_use: self.lanes_in_use + 1,
            exclusive: false,
            gpu_reserved_mb: 0.0,
            stats_available: false,
        };
        let moved = self.step(id, LifeEvent::Admitted(run), now_ms, effects);
        debug_assert!(moved.is_ok(), "only a pending job is chosen");
        effects.push(QueueEffect::Start(start));
    }

    pub(super) fn facts<'a>(&'a self, target: &Target) -> Facts<'a> {
        let free = self.pool.free_for(target);
        Facts {
            free,
            shortage: match free {
                Some(_) => BlockReason::InstanceBusy,
                None => self.pool.shortage_for(target),
            },
            admission_closed: self.gate_closed.is_some(),
            lanes_in_use: self.lanes_in_use,
            lanes_max: self.limits.lanes,
        }
    }

    /// Compares what the heads of lines wait for with what they waited for: of lines that changed, and of the
    /// first candidates, on which the rules about the whole queue bear.
    fn note_blocks(&mut self, changed: &BTreeSet<Target>, now_ms: u64, effects: &mut Vec<QueueEffect>) {
        let candidates = self.lines.ready().take(SKIP_AHEAD_MAX).map(|(_, target)| target);
        let news: Vec<(JobId, BlockReason)> = changed
            .iter()
            .chain(candidates)
            .filter_map(|target| {
                let head = self.lines.head(target)?;
                let reason = ladder::climb(&self.facts(target)).reason()?;
                let Life::Pending { block, .. } = &self.jobs.get(head)?.life else { return None };
                (block.map(|block| block.reason) != Some(reason)).then(|| (head.clone(), reason))
            })
            .collect();
        for (id, to) in news {
            let Some(Job { life: Life::Pending { block, .. }, .. }) = self.jobs.get_mut(&id) else {
                continue;
            };
            let from = block.map(|block| block.reason);
            if from != Some(to) {
                *block = Some(Block { reason: to, since_ms: now_ms });
                effects.push(QueueEffect::BlockReasonChanged { job: id, from, to });
            }
        }
    }

    fn announce_wake(&mut self, effects: &mut Vec<QueueEffect>) {
        let first = |set: &BTreeSet<(u64, JobId)>| set.first().map(|(at_ms, _)| *at_ms);
        let earliest_ms = first(&self.graces).into_iter().chain(first(&self.dues)).min();
        if earliest_ms != self.wake_announced_ms {
            self.wake_announced_ms = earliest_ms;
            effects.extend(earliest_ms.map(|at_ms| QueueEffect::WakeAt { at_ms }));
        }
    }

    fn touch_run(&mut self, run: &Run) {
        if let Some(instance) = self.pool.current(&run.instance, &run.session) {
            let capability = instance.capability.clone();
            self.touch(&run.instance, &capability);
        }
    }

    fn touch(&mut self, instance: &InstanceId, capability: &str) {
        self.touched.insert(Target::Instance(instance.clone()));
        self.touched.insert(Target::Capability(capability.to_owned()));
    }
}

fn phase(job: &JobId, from: CancelPhase, to: CancelPhase, effects: &mut Vec<QueueEffect>) {
    effects.push(QueueEffect::CancelPhaseChanged { job: job.clone(), from, to });
}
