//! The queue against a small model that looks at everything all the time: random events, late and repeated
//! ones among them, must give the same starts, recycles and ends, and leave nothing behind.

use cjm_decide::queue::{
    AttemptOutcome, BlockReason, CancelPhase, CancelReach, Queue, QueueEffect, QueueEvent, QueueLimits,
    QueuedJob, Target,
};
use cjm_wire::event::JobStatus;
use cjm_wire::{InstanceId, JobId, WorkerSessionId};
use proptest::prelude::*;
use std::collections::BTreeMap;

const INSTANCES: usize = 4;
const CAPABILITIES: usize = 2;
const GRACE_MS: u64 = 100;

/// What may happen; numbers pick among what exists.
#[derive(Debug, Clone, Copy)]
enum Op {
    Add { instance: usize, capability: usize, cap: u32, again: bool },
    Remove { instance: usize, stale: bool },
    Submit { instance: Option<usize>, capability: usize, priority: i32 },
    Cancel { job: usize, reach: CancelReach },
    Force { job: usize },
    End { pick: usize, outcome: AttemptOutcome },
    EndLate { job: usize, attempt: u32 },
    EndImpossible { job: usize },
    SubmitAgain { job: usize },
    Gate { open: bool },
    Pass { ms: u64 },
}

fn op() -> impl Strategy<Value = Op> {
    let outcome = prop_oneof![
        Just(AttemptOutcome::Completed),
        Just(AttemptOutcome::Failed),
        Just(AttemptOutcome::Cancelled),
        Just(AttemptOutcome::NotRun),
        any::<bool>().prop_map(|others| AttemptOutcome::NotTaken { others })
    ];
    let reach = prop_oneof![3 => Just(CancelReach::Any), 1 => Just(CancelReach::PendingOnly)];
    prop_oneof![
        3 => (0..INSTANCES, 0..CAPABILITIES, 0..4_u32, prop::bool::weighted(0.2))
            .prop_map(|(instance, capability, cap, again)| Op::Add { instance, capability, cap, again }),
        1 => (0..INSTANCES, any::<bool>()).prop_map(|(instance, stale)| Op::Remove { instance, stale }),
        8 => (prop::option::weighted(0.3, 0..INSTANCES), 0..CAPABILITIES, -2..3)
            .prop_map(|(instance, capability, priority)| Op::Submit { instance, capability, priority }),
        5 => (any::<usize>(), reach).prop_map(|(job, reach)| Op::Cancel { job, reach }),
        2 => any::<usize>().prop_map(|job| Op::Force { job }),
        4 => (any::<usize>(), outcome).prop_map(|(pick, outcome)| Op::End { pick, outcome }),
        1 => (any::<usize>(), 0..2_u32).prop_map(|(job, attempt)| Op::EndLate { job, attempt }),
        1 => any::<usize>().prop_map(|job| Op::EndImpossible { job }),
        1 => any::<usize>().prop_map(|job| Op::SubmitAgain { job }),
        1 => any::<bool>().prop_map(|open| Op::Gate { open }),
        4 => (0..4_u64).prop_map(|halves| Op::Pass { ms: halves * GRACE_MS / 2 }),
    ]
}

#[derive(Debug, Clone, PartialEq)]
enum Stage {
    Pending,
    Running { instance: usize, session: u64, cancel_due: Option<u64>, forced: bool },
    Ended(JobStatus),
}

#[derive(Debug, Clone)]
struct ModelJob {
    target: Target,
    priority: i32,
    stage: Stage,
    attempts_done: u32,
    not_taken: u32,
}

#[derive(Debug, Clone)]
struct ModelInstance {
    session: u64,
    capability: usize,
    cap: usize,
    idle_since: u64,
    recycling: bool,
}

/// The model: plain lists, full scans, nothing kept in step with anything.
struct Model {
    lanes: usize,
    jobs: Vec<ModelJob>,
    instances: BTreeMap<usize, ModelInstance>,
    gate_open: bool,
    now: u64,
    sessions: u64,
}

/// What both must agree on.
#[derive(Debug, Clone, PartialEq)]
enum Seen {
    Start { job: usize, instance: usize, session: u64 },
    Recycle { instance: usize, session: u64 },
    SendCancel { job: usize },
    Ended { job: usize, status: JobStatus },
}

impl Model {
    fn load(&self, instance: usize) -> usize {
        let session = self.instances[&instance].session;
        let on = |job: &&ModelJob| matches!(job.stage, Stage::Running { instance: i, session: s, .. } if (i, s) == (instance, session));
        self.jobs.iter().filter(on).count()
    }

    fn running(&self) -> Vec<usize> {
        (0..self.jobs.len()).filter(|job| matches!(self.jobs[*job].stage, Stage::Running { .. })).collect()
    }

    fn end(&mut self, job: usize, mut outcome: AttemptOutcome, seen: &mut Vec<Seen>) {
        let incarnation_is_gone = outcome.status().is_none();
        if let AttemptOutcome::NotTaken { others } = outcome {
            self.jobs[job].attempts_done += 1;
            self.jobs[job].not_taken += u32::from(!others);
            if !others && self.jobs[job].not_taken >= 4 {
                outcome = AttemptOutcome::Failed;
            }
        }
        let status = match self.jobs[job].stage {
            Stage::Running { cancel_due: Some(_), .. } => Some(JobStatus::Cancelled),
            _ => outcome.status(),
        };
        if let Stage::Running { instance, session, .. } = self.jobs[job].stage
            && let Some(on) = self.instances.get_mut(&instance).filter(|on| on.session == session)
        {
            on.idle_since = self.now;
        }
        if incarnation_is_gone
            && let Stage::Running { instance, session, .. } = self.jobs[job].stage
            && self.instances.get(&instance).is_some_and(|on| on.session == session)
        {
            self.instances.remove(&instance);
        }
        let Some(status) = status else {
            self.jobs[job].stage = Stage::Pending;
            return;
        };
        self.jobs[job].stage = Stage::Ended(status);
        seen.push(Seen::Ended { job, status });
    }

    fn cancel(&mut self, job: usize, reach: CancelReach, seen: &mut Vec<Seen>) {
        let due = self.now + GRACE_MS;
        match &mut self.jobs[job].stage {
            Stage::Pending => {
                self.jobs[job].stage = Stage::Ended(JobStatus::Cancelled);
                seen.push(Seen::Ended { job, status: JobStatus::Cancelled });
            }
            Stage::Running { cancel_due, .. } if cancel_due.is_none() && reach == CancelReach::Any => {
                *cancel_due = Some(due);
                seen.push(Seen::SendCancel { job });
            }
            Stage::Running { .. } | Stage::Ended(_) => {}
        }
    }

    /// What follows from any event: overdue cancels turn to force, then all that may start starts.
    fn settle(&mut self, seen: &mut Vec<Seen>) {
        let mut overdue: Vec<(u64, usize)> = Vec::new();
        for (id, job) in self.jobs.iter().enumerate() {
            if let Stage::Running { cancel_due: Some(due), forced: false, .. } = job.stage
                && due <= self.now
            {
                overdue.push((due, id));
            }
        }
        overdue.sort_unstable();
        for (_, id) in overdue {
            let Stage::Running { instance, session, forced, .. } = &mut self.jobs[id].stage else { continue };
            *forced = true;
            if let Some(on) = self.instances.get_mut(instance).filter(|on| on.session == *session)
                && !on.recycling
            {
                on.recycling = true;
                seen.push(Seen::Recycle { instance: *instance, session: *session });
            }
        }
        while self.gate_open && self.running().len() < self.lanes {
            let Some((job, instance)) = self.best() else { break };
            let session = self.instances[&instance].session;
            self.jobs[job].stage = Stage::Running { instance, session, cancel_due: None, forced: false };
            seen.push(Seen::Start { job, instance, session });
        }
    }

    fn best(&self) -> Option<(usize, usize)> {
        let mut pending: Vec<usize> =
            (0..self.jobs.len()).filter(|job| self.jobs[*job].stage == Stage::Pending).collect();
        pending.sort_by_key(|job| (-self.jobs[*job].priority, *job));
        pending.into_iter().find_map(|job| {
            let suits = |(id, instance): &(&usize, &ModelInstance)| match &self.jobs[job].target {
                Target::Instance(wanted) => *wanted == instance_id(**id),
                Target::Capability(wanted) => *wanted == capability(instance.capability),
            };
            self.instances
                .iter()
                .filter(suits)
                .filter(|(id, instance)| !instance.recycling && self.load(**id) < instance.cap)
                .min_by_key(|(id, instance)| (self.load(**id), instance.idle_since, **id))
                .map(|(id, _)| (job, *id))
        })
    }
}

fn instance_id(instance: usize) -> InstanceId {
    InstanceId::from_text(format!("i{instance}"))
}

fn capability(capability: usize) -> String {
    format!("c{capability}")
}

fn job_id(job: usize) -> JobId {
    JobId::from_text(format!("j{job:05}"))
}

fn session_id(session: u64) -> WorkerSessionId {
    WorkerSessionId::from_text(format!("s{session}"))
}

fn number(text: &str) -> usize {
    text[1..].parse().expect("a letter and a number")
}

/// Both, side by side, and what the effects have said of each job so far.
struct Pair {
    queue: Queue,
    model: Model,
    phases: BTreeMap<usize, CancelPhase>,
    blocks: BTreeMap<usize, BlockReason>,
}

impl Pair {
    fn new(lanes: u32) -> Self {
        let limits = QueueLimits { lanes, pending_max: 1_000, cancel_grace_ms: GRACE_MS };
        let model = Model {
            lanes: lanes as usize,
            jobs: Vec::new(),
            instances: BTreeMap::new(),
            gate_open: true,
            now: 0,
            sessions: 0,
        };
        Self { queue: Queue::new(limits), model, phases: BTreeMap::new(), blocks: BTreeMap::new() }
    }

    fn event(&mut self, event: QueueEvent, mut expected: Vec<Seen>) {
        let described = format!("{event:?}");
        let effects = self.queue.handle(event, self.model.now).expect("a possible event");
        self.model.settle(&mut expected);
        let seen: Vec<Seen> = effects.iter().filter_map(|effect| self.note(effect)).collect();
        assert_eq!(seen, expected, "{described}");
        self.queue.check_invariants().expect(&described);
        for (id, job) in self.model.jobs.iter().enumerate() {
            let status = match job.stage {
                Stage::Pending => Some(JobStatus::Pending),
                Stage::Running { .. } => Some(JobStatus::Running),
                Stage::Ended(_) => None,
            };
            assert_eq!(self.queue.status(&job_id(id)), status, "{id} after {described}");
            assert_eq!(self.queue.explain(&job_id(id), self.model.now).map(|why| why.status), status);
        }
    }

    fn refused(&mut self, event: &QueueEvent) {
        let before: Vec<(JobId, JobStatus)> =
            self.queue.jobs().map(|(job, status)| (job.clone(), status)).collect();
        assert!(self.queue.handle(event.clone(), self.model.now).is_err(), "{event:?}");
        assert!(self.queue.jobs().eq(before.iter().map(|(job, status)| (job, *status))), "{event:?}");
        self.queue.check_invariants().expect("unchanged");
    }

    /// Follows phases and reasons, which must be told without gaps, and picks what the model knows too.
    fn note(&mut self, effect: &QueueEffect) -> Option<Seen> {
        match effect {
            QueueEffect::Start(start) => {
                let done = self.model.jobs[number(start.job.as_str())].attempts_done;
                assert_eq!(start.attempt, 1 + done);
                assert!(start.lanes_in_use as usize <= self.model.lanes);
                Some(Seen::Start {
                    job: number(start.job.as_str()),
                    instance: number(start.instance.as_str()),
                    session: number(start.session.as_str()) as u64,
                })
            }
            QueueEffect::SendCancel { job, .. } => Some(Seen::SendCancel { job: number(job.as_str()) }),
            QueueEffect::ForceRecycle { instance, session, .. } => Some(Seen::Recycle {
                instance: number(instance.as_str()),
                session: number(session.as_str()) as u64,
            }),
            QueueEffect::Ended { job, status, .. } => {
                Some(Seen::Ended { job: number(job.as_str()), status: *status })
            }
            QueueEffect::CancelPhaseChanged { job, from, to } => {
                let phase = self.phases.entry(number(job.as_str())).or_insert(CancelPhase::None);
                assert!(*phase == *from && from < to, "{job}: {phase:?} is not {from:?} before {to:?}");
                *phase = *to;
                None
            }
            QueueEffect::BlockReasonChanged { job, from, to } => {
                // A job that was sent back has not come to the head of its line again.
                let known = self.blocks.insert(number(job.as_str()), *to);
                assert!(from.is_none() || known == *from, "{job}: {known:?}, {from:?}, {to:?}");
                assert_ne!(*from, Some(*to), "{job}");
                None
            }
            QueueEffect::WakeAt { at_ms } => {
                assert!(*at_ms > self.model.now, "a wake in the past");
                None
            }
        }
    }

    fn add(&mut self, instance: usize, capability_number: usize, cap: u32) {
        self.model.sessions += 1;
        let session = self.model.sessions;
        self.model.instances.insert(
            instance,
            ModelInstance {
                session,
                capability: capability_number,
                cap: cap.max(1) as usize,
                idle_since: self.model.now,
                recycling: false,
            },
        );
        self.event(added(instance, session, capability_number, cap), Vec::new());
    }

    fn end(&mut self, job: usize, outcome: AttemptOutcome) {
        let Stage::Running { session, .. } = self.model.jobs[job].stage else { return };
        let session = session_id(session);
        let attempt = 1 + self.model.jobs[job].attempts_done;
        let mut expected = Vec::new();
        self.model.end(job, outcome, &mut expected);
        self.event(QueueEvent::AttemptEnded { job: job_id(job), attempt, session, outcome }, expected);
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Add { instance, capability, cap, again } => match self.model.instances.get(&instance) {
                Some(known) if again => {
                    let (session, capability) = (known.session, known.capability);
                    self.event(added(instance, session, capability, cap), Vec::new());
                }
                _ => self.add(instance, capability, cap),
            },
            Op::Remove { instance, stale } => {
                let Some(known) = self.model.instances.get(&instance) else { return };
                let session = if stale { session_id(0) } else { session_id(known.session) };
                if !stale {
                    self.model.instances.remove(&instance);
                }
                let instance = instance_id(instance);
                self.event(QueueEvent::InstanceRemoved { instance, session }, Vec::new());
            }
            Op::Submit { instance, capability: number, priority } => {
                let target = match instance {
                    Some(instance) => Target::Instance(instance_id(instance)),
                    None => Target::Capability(capability(number)),
                };
                let id = self.model.jobs.len();
                self.model.jobs.push(ModelJob {
                    target: target.clone(),
                    priority,
                    stage: Stage::Pending,
                    attempts_done: 0,
                    not_taken: 0,
                });
                self.event(submitted(id, target, priority), Vec::new());
            }
            Op::Gate { open } => {
                self.model.gate_open = open;
                let reason = "the disk is full".to_owned();
                let event =
                    if open { QueueEvent::AdmissionOpened } else { QueueEvent::AdmissionClosed { reason } };
                self.event(event, Vec::new());
            }
            Op::Pass { ms } => {
                self.model.now += ms;
                self.event(QueueEvent::Tick, Vec::new());
            }
            Op::End { pick, outcome } => {
                let running = self.model.running();
                if !running.is_empty() {
                    self.end(running[pick % running.len()], outcome);
                }
            }
            Op::Cancel { job, .. }
            | Op::Force { job }
            | Op::EndLate { job, .. }
            | Op::EndImpossible { job }
            | Op::SubmitAgain { job } => {
                if !self.model.jobs.is_empty() {
                    self.apply_to(job % self.model.jobs.len(), &op);
                }
            }
        }
    }

    fn apply_to(&mut self, job: usize, op: &Op) {
        let outcome = AttemptOutcome::Completed;
        let ended = matches!(self.model.jobs[job].stage, Stage::Ended(_));
        match *op {
            Op::Cancel { reach, .. } => {
                let mut expected = Vec::new();
                self.model.cancel(job, reach, &mut expected);
                self.event(QueueEvent::CancelRequested { job: job_id(job), reach }, expected);
            }
            Op::Force { .. } => {
                let mut expected = Vec::new();
                self.model.cancel(job, CancelReach::Any, &mut expected);
                if let Stage::Running { cancel_due, .. } = &mut self.model.jobs[job].stage {
                    *cancel_due = Some(self.model.now);
                }
                self.event(QueueEvent::ForceRequested { job: job_id(job) }, expected);
            }
            // Of an ended job every attempt is late; of one that runs, what another incarnation says of it; of another
            // one, attempt 0.
            Op::EndLate { attempt, .. } => {
                let running = matches!(self.model.jobs[job].stage, Stage::Running { .. });
                let attempt = if ended || running { attempt } else { 0 };
                let session = session_id(0);
                let event = QueueEvent::AttemptEnded { job: job_id(job), attempt, session, outcome };
                self.event(event, Vec::new());
            }
            Op::EndImpossible { .. } if !ended => {
                let session = session_id(self.model.sessions);
                let attempt = 2 + self.model.jobs[job].attempts_done;
                self.refused(&QueueEvent::AttemptEnded { job: job_id(job), attempt, session, outcome });
            }
            Op::SubmitAgain { .. } if !ended => {
                let target = self.model.jobs[job].target.clone();
                self.refused(&submitted(job, target, 0));
            }
            _ => {}
        }
    }

    /// Opens the gate, loads everything anew, and ends every attempt until nothing is left.
    fn drain(&mut self) {
        self.apply(Op::Gate { open: true });
        for instance in 0..INSTANCES {
            self.add(instance, instance % CAPABILITIES, 2);
        }
        while let Some(job) = self.model.running().first() {
            self.end(*job, AttemptOutcome::Completed);
        }
        assert!(self.model.jobs.iter().all(|job| matches!(job.stage, Stage::Ended(_))), "all have ended");
        assert_eq!(
            (self.queue.jobs().count(), self.queue.pending_count(), self.queue.lanes_in_use()),
            (0, 0, 0)
        );
        for instance in 0..INSTANCES {
            self.apply(Op::Remove { instance, stale: false });
        }
        let unfinished = self.phases.values().filter(|phase| **phase != CancelPhase::Completed).count();
        assert_eq!(unfinished, 0, "every cancel is complete: {:?}", self.phases);
    }
}

fn added(instance: usize, session: u64, capability_number: usize, cap: u32) -> QueueEvent {
    QueueEvent::InstanceAdded {
        instance: instance_id(instance),
        session: session_id(session),
        capability: capability(capability_number),
        concurrency_max: cap,
        cancel_grace_ms: 0,
    }
}

fn submitted(id: usize, target: Target, priority: i32) -> QueueEvent {
    QueueEvent::Submitted {
        job: QueuedJob { id: job_id(id), target, priority, composition: None, deadline_ms: None },
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn random_events_do_what_the_model_says(
        lanes in 1..6_u32,
        ops in prop::collection::vec(op(), 1..120),
    ) {
        let mut pair = Pair::new(lanes);
        for op in ops {
            pair.apply(op);
        }
        pair.drain();
    }
}
