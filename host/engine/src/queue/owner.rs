//! The queue's shell: one task owns `decide`'s queue, feeds it what happens and performs what it decides. Each attempt
//! is a task of its own that commits, calls, and reports back; the owner never waits for I/O.
//!
//! What must hold: `running` is committed before a request leaves the host; a waiter is told after the terminal row is
//! committed; a job ends exactly once (the queue says so, and the journal's unique id enforces it).

use crate::queue::attempt::{
    End, WeakRunner, ask_to_cancel, finish, note_about_job, run_attempt, wait_again,
};
use crate::queue::state::{AttemptEnd, Command};
use cjm_decide::death::OwnKill;
use cjm_decide::queue::{
    AttemptOutcome, CancelPhase, Queue, QueueEffect, QueueEvent, QueueLimits, QueuedJob, StopReason,
};
use cjm_store::Gate;
use cjm_wire::JobId;
use cjm_wire::event::{EventType, JobStatus};
use cjm_workers::{CallError, Reply};
use serde_json::json;
use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// Commands taken at once.
const COMMANDS_AT_ONCE_MAX: usize = 256;

/// The owner's task; ends when every sender is gone.
pub(crate) async fn own_queue(
    runner: WeakRunner,
    mut commands: mpsc::UnboundedReceiver<Command>,
    limits: QueueLimits,
    mut gate: watch::Receiver<Gate>,
) {
    let mut owner = Owner {
        queue: Queue::new(limits),
        runner,
        started: Instant::now(),
        results: HashMap::new(),
        wake_at: None,
    };
    let mut batch = Vec::new();
    loop {
        let wake_at = owner.wake_at;
        tokio::select! {
            // In a fixed order, so that a simulated run can be repeated; a grace that is over comes before further news.
            biased;
            () = sleep_until(wake_at), if wake_at.is_some() => {
                owner.wake_at = None;
                owner.feed(QueueEvent::Tick);
            }
            Ok(()) = gate.changed() => {
                let event = match &*gate.borrow_and_update() {
                    Gate::Open => QueueEvent::AdmissionOpened,
                    Gate::Closed { reason, .. } => QueueEvent::AdmissionClosed { reason: reason.clone() },
                };
                owner.feed(event);
            }
            count = commands.recv_many(&mut batch, COMMANDS_AT_ONCE_MAX) => {
                if count == 0 {
                    return;
                }
                for command in batch.drain(..) {
                    owner.take(command);
                }
            }
        }
    }
}

struct Owner {
    queue: Queue,
    runner: WeakRunner,
    started: Instant,
    /// Results of attempts that are over, until the queue says what the job becomes.
    results: HashMap<JobId, Result<Reply, CallError>>,
    wake_at: Option<Instant>,
}

impl Owner {
    fn take(&mut self, command: Command) {
        match command {
            Command::Event(event) => self.feed(event),
            Command::Submitted(active, _place) => {
                let job = {
                    let record = active.record();
                    QueuedJob {
                        id: active.id.clone(),
                        target: active.target.clone(),
                        priority: record.priority,
                        composition: record.composition_id.clone(),
                        deadline_ms: u64::try_from(active.timeout.left.as_millis()).ok(),
                    }
                };
                // The place is given back once the queue counts the job.
                self.feed(QueueEvent::Submitted { job });
            }
            Command::AttemptOver { job, attempt, session, end } => {
                let outcome = match &end {
                    AttemptEnd::NotRun => AttemptOutcome::NotRun,
                    AttemptEnd::NotTaken { others, .. } => AttemptOutcome::NotTaken { others: *others },
                    AttemptEnd::Over(Ok(_)) => AttemptOutcome::Completed,
                    AttemptEnd::Over(Err(CallError::Cancelled { .. })) => AttemptOutcome::Cancelled,
                    AttemptEnd::Over(Err(_)) => AttemptOutcome::Failed,
                };
                let is_untaken = matches!(end, AttemptEnd::NotTaken { .. });
                match end {
                    // That its call was not taken counts where it was the last attempt it had; otherwise the next one's result
                    // takes its place.
                    AttemptEnd::Over(result) => drop(self.results.insert(job.clone(), result)),
                    AttemptEnd::NotTaken { error, .. } => drop(self.results.insert(job.clone(), Err(error))),
                    AttemptEnd::NotRun => {}
                }
                let ended = QueueEvent::AttemptEnded { job: job.clone(), attempt, session, outcome };
                let effects = self.decide(ended);
                if is_untaken && self.queue.status(&job).is_some() {
                    self.wait_again(&job);
                }
                self.perform_all(effects);
                // Only now is it known to wait again: it may have ended, or run on the next incarnation, and then the stores
                // must not close for a moment.
                if self.queue.status(&job) == Some(JobStatus::Pending) {
                    self.let_close(&job);
                }
            }
        }
    }

    /// A job whose call was not taken, and which was not at its last attempt.
    fn wait_again(&self, job: &JobId) {
        let Some(runner) = self.runner.upgrade() else { return };
        if let (Some(active), Some(Err(error))) = (runner.jobs.get(job), self.results.get(job)) {
            wait_again(&runner, &active, error);
        }
    }

    /// A job that waits again; what waits keeps nothing open.
    fn let_close(&self, job: &JobId) {
        let active = self.runner.upgrade().and_then(|runner| runner.jobs.get(job));
        active.iter().for_each(|active| active.let_close());
    }

    fn feed(&mut self, event: QueueEvent) {
        let effects = self.decide(event);
        self.perform_all(effects);
    }

    fn decide(&mut self, event: QueueEvent) -> Vec<QueueEffect> {
        let now_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.queue.handle(event, now_ms).unwrap_or_else(|error| {
            tracing::error!(%error, "the queue refused an event; this is a defect");
            Vec::new()
        })
    }

    fn perform_all(&mut self, effects: Vec<QueueEffect>) {
        effects.into_iter().for_each(|effect| self.perform(effect));
        #[cfg(test)]
        self.queue.check_invariants().expect("the queue is whole");
        if let Some(runner) = self.runner.upgrade() {
            runner.jobs.pending.store(self.queue.pending_count(), Ordering::Release);
        }
    }

    fn perform(&mut self, effect: QueueEffect) {
        let Some(runner) = self.runner.upgrade() else { return };
        match effect {
            QueueEffect::Start(start) => {
                // The owner hears of a job after it is known, and of its end before it is forgotten.
                let Some(active) = runner.jobs.get(&start.job) else { return };
                active.keep_open(&runner.services.tasks);
                tokio::spawn(run_attempt(runner, active, start));
            }
            QueueEffect::SendCancel { job, instance, session, .. } => {
                let Some(active) = runner.jobs.get(&job) else { return };
                active.stopping.cancel();
                let instance = runner.instances.get(&instance);
                if let Some(worker) = instance.and_then(|instance| instance.worker_of(&session)) {
                    tokio::spawn(ask_to_cancel(active, worker));
                }
            }
            QueueEffect::ForceRecycle { job, instance, session, reason } => {
                let reason = match reason {
                    StopReason::Cancel => OwnKill::ForceCancel { job },
                    StopReason::Deadline => OwnKill::Deadline { job },
                };
                if let Some(instance) = runner.instances.get(&instance) {
                    instance.recycle(&runner.services, &runner.jobs, &session, reason);
                }
            }
            QueueEffect::CancelPhaseChanged { job, from, to } => {
                // Where nobody has asked yet, the ancestor's rows say null.
                let from = (from != CancelPhase::None).then(|| from.as_str());
                let payload = json!({ "from": from, "to": to.as_str() });
                note_about_job(&runner, &job, EventType::CancelPhaseChanged, payload);
            }
            QueueEffect::BlockReasonChanged { job, from, to } => {
                let payload = json!({ "from": from.map(|reason| reason.as_str()), "to": to.as_str() });
                note_about_job(&runner, &job, EventType::BlockReasonChanged, payload);
            }
            QueueEffect::Ended { job, status, stopped, .. } => {
                let result = self.results.remove(&job);
                if let Some(active) = runner.jobs.get(&job) {
                    active.keep_open(&runner.services.tasks);
                    tokio::spawn(finish(runner, active, End { status, stopped, result }));
                }
            }
            QueueEffect::WakeAt { at_ms } => self.wake_at = Some(self.started + Duration::from_millis(at_ms)),
        }
    }
}

async fn sleep_until(at: Option<Instant>) {
    if let Some(at) = at {
        tokio::time::sleep_until(at).await;
    }
}
