//! The queue and the life of one instance together, explored: every order in which starts, calls, deaths, cancels,
//! renewals, the passing of a grace and an unload can follow each other, over three incarnations. The shell is played
//! here by a few lines that do what the engine does; between it and the queue stands a channel, so that news travels as
//! slowly as it can. `CJM_EXPLORE_ALL` adds the bounds that take minutes.

use cjm_decide::instance::{Entry, Lifecycle, Recycling, Renewal};
use cjm_decide::queue::{
    AttemptOutcome, CancelReach, Queue, QueueEffect, QueueEvent, QueueLimits, QueuedJob, Target,
};
use cjm_wire::{InstanceId, JobId, WorkerSessionId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

const GRACE_MS: u64 = 10;
const INCARNATIONS_MAX: u64 = 3;

/// How far an exploration goes.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    /// Jobs that were submitted, and taken by the queue, before anything else happens.
    early: usize,
    /// Jobs that come at any time.
    late: usize,
    cap: u32,
    cancels: usize,
    /// Cancels that waive the grace, of what was cancelled before or not.
    forces: usize,
    ticks: usize,
    unload: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Stage {
    /// The queue said start; nobody has looked at the instance yet.
    Admitted,
    /// It starts the worker itself.
    Starting,
    /// Another one does.
    Waiting,
    /// `running` is committed and the request is out.
    Sent,
}

#[derive(Debug, Clone)]
struct Attempt {
    number: u32,
    session: WorkerSessionId,
    stage: Stage,
}

/// Everything that can differ.
#[derive(Debug, Clone)]
struct World {
    bounds: Bounds,
    queue: Queue,
    life: Lifecycle<WorkerSessionId>,
    /// News on its way to the queue's owner.
    inbox: VecDeque<QueueEvent>,
    attempts: BTreeMap<JobId, Attempt>,
    /// Workers that were spawned, and whether their death is still to be found out.
    spawned: BTreeSet<WorkerSessionId>,
    dead: BTreeSet<WorkerSessionId>,
    buried: BTreeSet<WorkerSessionId>,
    killed_starts: BTreeSet<WorkerSessionId>,
    submitted: usize,
    cancelled: BTreeSet<JobId>,
    forced: BTreeSet<JobId>,
    ended: BTreeSet<JobId>,
    incarnations: u64,
    ticks: usize,
    now_ms: u64,
}

/// One step that something could take.
#[derive(Debug, Clone)]
enum Step {
    Submit,
    Cancel(JobId),
    Force(JobId),
    Deliver,
    Look(JobId),
    StartSucceeds(JobId),
    StartFails(JobId),
    Die(WorkerSessionId),
    FindDead(WorkerSessionId),
    CallEnds(JobId, AttemptOutcome),
    Tick,
    Unload,
}

fn job(number: usize) -> JobId {
    JobId::from_text(format!("j{number}"))
}

fn instance() -> InstanceId {
    InstanceId::from_text("i")
}

impl World {
    fn new(bounds: Bounds) -> Self {
        let limits = QueueLimits { lanes: 2, pending_max: 10, cancel_grace_ms: GRACE_MS };
        let mut world = Self {
            bounds,
            queue: Queue::new(limits),
            life: Lifecycle::Announced(WorkerSessionId::from_text("s1")),
            inbox: VecDeque::new(),
            attempts: BTreeMap::new(),
            spawned: BTreeSet::new(),
            dead: BTreeSet::new(),
            buried: BTreeSet::new(),
            killed_starts: BTreeSet::new(),
            submitted: 0,
            cancelled: BTreeSet::new(),
            forced: BTreeSet::new(),
            ended: BTreeSet::new(),
            incarnations: 1,
            ticks: 0,
            now_ms: 0,
        };
        world.announce(WorkerSessionId::from_text("s1"));
        for _ in 0..bounds.early {
            world.take(&Step::Submit);
        }
        while !world.inbox.is_empty() {
            world.take(&Step::Deliver);
        }
        world
    }

    fn announce(&mut self, session: WorkerSessionId) {
        self.inbox.push_back(QueueEvent::InstanceAdded {
            instance: instance(),
            session,
            capability: "c".to_owned(),
            concurrency_max: self.bounds.cap,
            cancel_grace_ms: 0,
        });
    }

    fn remove(&mut self, session: WorkerSessionId) {
        self.inbox.push_back(QueueEvent::InstanceRemoved { instance: instance(), session });
    }

    /// An incarnation has ended, as somebody finds out.
    fn end(&mut self, session: &WorkerSessionId) {
        if let Some(renewal) = self.life.ended(session, self.next_session()) {
            self.renew(renewal);
        }
    }

    fn next_session(&self) -> WorkerSessionId {
        WorkerSessionId::from_text(format!("s{}", self.incarnations + 1))
    }

    fn renew(&mut self, Renewal { removed, announced }: Renewal) {
        self.incarnations += 1;
        self.remove(removed);
        self.announce(announced);
    }

    fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        if self.submitted < self.bounds.early + self.bounds.late {
            steps.push(Step::Submit);
        }
        if self.cancelled.len() < self.bounds.cancels {
            let submitted = (0..self.submitted).map(job);
            steps.extend(submitted.filter(|job| !self.cancelled.contains(job)).map(Step::Cancel));
        }
        if self.forced.len() < self.bounds.forces {
            let submitted = (0..self.submitted).map(job);
            steps.extend(submitted.filter(|job| !self.forced.contains(job)).map(Step::Force));
        }
        if !self.inbox.is_empty() {
            steps.push(Step::Deliver);
        }
        let may_end_another = self.incarnations < INCARNATIONS_MAX;
        for (id, attempt) in &self.attempts {
            match attempt.stage {
                Stage::Admitted => steps.push(Step::Look(id.clone())),
                Stage::Waiting if !matches!(self.life, Lifecycle::Starting(_)) => {
                    steps.push(Step::Look(id.clone()));
                }
                Stage::Waiting => {}
                Stage::Starting => {
                    let killed = self.killed_starts.contains(&attempt.session);
                    if !killed {
                        steps.push(Step::StartSucceeds(id.clone()));
                    }
                    if killed || may_end_another {
                        steps.push(Step::StartFails(id.clone()));
                    }
                }
                Stage::Sent if self.dead.contains(&attempt.session) => {
                    steps.push(Step::CallEnds(id.clone(), AttemptOutcome::Failed));
                    // Once for each job and without a cancel beside it: the states double with each further one.
                    if attempt.number == 1 && self.bounds.cancels == 0 {
                        steps.push(Step::CallEnds(id.clone(), AttemptOutcome::NotTaken { others: true }));
                    }
                }
                Stage::Sent => {
                    steps.push(Step::CallEnds(id.clone(), AttemptOutcome::Completed));
                    if self.cancelled.contains(id) {
                        steps.push(Step::CallEnds(id.clone(), AttemptOutcome::Cancelled));
                    }
                }
            }
        }
        for session in &self.spawned {
            if !self.dead.contains(session) && may_end_another {
                steps.push(Step::Die(session.clone()));
            }
            if self.dead.contains(session) && !self.buried.contains(session) {
                steps.push(Step::FindDead(session.clone()));
            }
        }
        if self.ticks < self.bounds.ticks {
            steps.push(Step::Tick);
        }
        if self.bounds.unload && !self.life.is_retired() {
            steps.push(Step::Unload);
        }
        steps
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Submit => {
                let queued = QueuedJob {
                    id: job(self.submitted),
                    target: Target::Capability("c".to_owned()),
                    priority: 0,
                    composition: None,
                    deadline_ms: None,
                };
                self.submitted += 1;
                self.inbox.push_back(QueueEvent::Submitted { job: queued });
            }
            Step::Cancel(job) => {
                self.cancelled.insert(job.clone());
                self.inbox
                    .push_back(QueueEvent::CancelRequested { job: job.clone(), reach: CancelReach::Any });
            }
            Step::Force(job) => {
                self.cancelled.insert(job.clone());
                self.forced.insert(job.clone());
                self.inbox.push_back(QueueEvent::ForceRequested { job: job.clone() });
            }
            Step::Deliver => {
                let event = self.inbox.pop_front().expect("there is one");
                self.handle(event);
            }
            Step::Look(job) => self.look(job),
            Step::StartSucceeds(job) => {
                let session = self.attempts[job].session.clone();
                if self.life.started(&session, session.clone()) {
                    self.stage(job, Stage::Sent);
                } else {
                    // Unloaded meanwhile: what was started is ended.
                    self.dead.insert(session);
                    self.over(job, AttemptOutcome::NotRun);
                }
            }
            Step::StartFails(job) => {
                let session = self.attempts[job].session.clone();
                self.dead.insert(session.clone());
                self.buried.insert(session.clone());
                self.end(&session);
                self.over(job, AttemptOutcome::Failed);
            }
            Step::Die(session) => {
                self.dead.insert(session.clone());
            }
            Step::FindDead(session) => {
                self.buried.insert(session.clone());
                self.end(session);
            }
            Step::CallEnds(job, outcome) => self.over(job, *outcome),
            Step::Tick => {
                self.ticks += 1;
                self.now_ms += GRACE_MS;
                self.inbox.push_back(QueueEvent::Tick);
            }
            Step::Unload => {
                let retirement = self.life.retire().expect("not unloaded yet");
                self.remove(retirement.removed);
                self.dead.extend(retirement.worker);
            }
        }
    }

    /// What an attempt does first: is the worker there that it was admitted to?
    fn look(&mut self, job: &JobId) {
        let asked = self.attempts[job].session.clone();
        if let Some(worker) = self.life.worker().filter(|worker| self.dead.contains(*worker)).cloned() {
            self.end(&worker);
        }
        match self.life.enter(Some(&asked)) {
            Entry::Use(worker) => {
                assert_eq!(worker, asked, "another worker than the one admitted to");
                self.stage(job, Stage::Sent);
            }
            Entry::Start(session) => {
                assert_eq!(session, asked);
                assert!(self.spawned.insert(session.clone()), "{session} is spawned a second time");
                self.stage(job, Stage::Starting);
            }
            Entry::Wait(_) => self.stage(job, Stage::Waiting),
            Entry::Gone | Entry::Retired => self.over(job, AttemptOutcome::NotRun),
        }
    }

    fn stage(&mut self, job: &JobId, stage: Stage) {
        self.attempts.get_mut(job).expect("an attempt").stage = stage;
    }

    fn over(&mut self, job: &JobId, outcome: AttemptOutcome) {
        let attempt = self.attempts.remove(job).expect("an attempt");
        self.inbox.push_back(QueueEvent::AttemptEnded {
            job: job.clone(),
            attempt: attempt.number,
            session: attempt.session,
            outcome,
        });
    }

    fn handle(&mut self, event: QueueEvent) {
        for effect in self.queue.handle(event, self.now_ms).expect("a possible event") {
            match effect {
                QueueEffect::Start(start) => {
                    let attempt =
                        Attempt { number: start.attempt, session: start.session, stage: Stage::Admitted };
                    assert!(self.attempts.insert(start.job, attempt).is_none(), "it runs already");
                }
                QueueEffect::ForceRecycle { session, .. } => self.recycle(&session),
                QueueEffect::Ended { job, .. } => assert!(self.ended.insert(job), "it ends twice"),
                QueueEffect::SendCancel { .. }
                | QueueEffect::CancelPhaseChanged { .. }
                | QueueEffect::BlockReasonChanged { .. }
                | QueueEffect::WakeAt { .. } => {}
            }
        }
    }

    fn recycle(&mut self, session: &WorkerSessionId) {
        match self.life.recycle(session, self.next_session()) {
            Recycling::Kill(worker) => {
                self.dead.insert(worker);
            }
            Recycling::KillStart => {
                self.killed_starts.insert(session.clone());
            }
            Recycling::Renewed(renewal) => self.renew(renewal),
            Recycling::Gone => {}
        }
    }

    fn check(&self) {
        self.queue.check_invariants().expect("the queue is whole");
        let mut on_worker: BTreeMap<&WorkerSessionId, u32> = BTreeMap::new();
        for attempt in self.attempts.values().filter(|attempt| attempt.stage == Stage::Sent) {
            *on_worker.entry(&attempt.session).or_default() += 1;
        }
        for (session, calls) in on_worker {
            assert!(calls <= self.bounds.cap, "{calls} calls at once on {session}");
        }
    }

    /// Nothing is on its way and nothing can happen by itself.
    fn check_rest(&self) {
        assert!(self.attempts.is_empty(), "an attempt hangs: {:?}", self.attempts);
        for number in 0..self.submitted {
            let ended = self.ended.contains(&job(number));
            assert!(ended || self.life.is_retired(), "{} waits for ever", job(number));
        }
        assert_eq!(self.queue.lanes_in_use(), 0);
    }

    /// The state without what only counts.
    fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        format!("{self:?}").hash(&mut hasher);
        hasher.finish()
    }
}

/// Walks every reachable state once; returns how many there are, and how many steps lead between them.
fn explore(bounds: Bounds) -> (usize, usize) {
    let mut seen = BTreeSet::new();
    let mut transitions = 0;
    let start = World::new(bounds);
    seen.insert(start.fingerprint());
    let mut open = vec![start];
    while let Some(world) = open.pop() {
        let steps = world.steps();
        // What may or may not happen does not count as a way on.
        let by_choice = |step: &Step| {
            matches!(
                step,
                Step::Submit | Step::Cancel(_) | Step::Force(_) | Step::Die(_) | Step::Tick | Step::Unload
            )
        };
        if steps.iter().all(by_choice) {
            world.check_rest();
        }
        for step in steps {
            let mut next = world.clone();
            next.take(&step);
            next.check();
            transitions += 1;
            if seen.insert(next.fingerprint()) {
                open.push(next);
            }
        }
    }
    (seen.len(), transitions)
}

#[test]
#[expect(clippy::print_stdout, reason = "how much was explored is the result")]
#[expect(clippy::disallowed_methods, reason = "a test may be told to take longer")]
fn every_order_of_deaths_cancels_and_renewals_keeps_the_invariants() {
    let plain = Bounds { early: 0, late: 0, cap: 1, cancels: 0, forces: 0, ticks: 0, unload: false };
    let mut sum = (0, 0);
    let mut all = vec![
        Bounds { late: 4, ..plain },
        Bounds { late: 3, cap: 2, ..plain },
        Bounds { early: 4, cancels: 1, ticks: 1, ..plain },
        Bounds { early: 1, late: 1, cap: 2, cancels: 1, ticks: 1, ..plain },
        Bounds { early: 2, cancels: 2, ticks: 1, ..plain },
        Bounds { early: 1, cap: 2, cancels: 1, ticks: 1, unload: true, ..plain },
        Bounds { early: 2, forces: 1, ..plain },
        Bounds { early: 1, late: 1, cap: 2, cancels: 1, forces: 1, ..plain },
        Bounds { early: 1, cancels: 1, forces: 1, ticks: 1, unload: true, ..plain },
    ];
    if std::env::var_os("CJM_EXPLORE_ALL").is_some() {
        all.push(Bounds { early: 4, cap: 2, cancels: 1, ticks: 1, ..plain });
        all.push(Bounds { early: 2, cap: 2, cancels: 1, ticks: 1, unload: true, ..plain });
    }
    for bounds in all {
        let (states, transitions) = explore(bounds);
        println!("EXPLORED {bounds:?}: {states} states, {transitions} transitions");
        sum = (sum.0 + states, sum.1 + transitions);
    }
    println!("EXPLORED queue and lifecycle: {} states, {} transitions", sum.0, sum.1);
    assert!(sum.0 > 400_000, "the exploration shrank to {} states", sum.0);
}
