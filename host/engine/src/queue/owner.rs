//! The queue's shell: one task owns `decide`'s queue, feeds it what happens and performs what it decides. Each attempt
//! is a task of its own that commits, calls, and reports back; the owner never waits for I/O.
//!
//! What must hold: `running` is committed before a request leaves the host; a waiter is told after the terminal row is
//! committed; a job ends exactly once (the queue says so, and the journal's unique id enforces it).

use crate::queue::attempt::{WeakRunner, ask_to_cancel, finish, note_about_job, run_attempt};
use crate::queue::state::Command;
use cjm_decide::death::OwnKill;
use cjm_decide::queue::{
    AttemptOutcome, CancelPhase, Queue, QueueEffect, QueueEvent, QueueLimits, QueuedJob,
};
use cjm_store::Gate;
use cjm_wire::JobId;
use cjm_wire::event::{EventType, JobStatus};
use cjm_workers::{CallError, Reply};
use serde_json::json;
use std::collections::HashMap;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

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
            count = commands.recv_many(&mut batch, COMMANDS_AT_ONCE_MAX) => {
                if count == 0 {
                    return;
                }
                for command in batch.drain(..) {
                    owner.take(command);
                }
            }
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
            Command::Submitted(active) => {
                let (priority, composition) = {
                    let record = active.record();
                    (record.priority, record.composition_id.clone())
                };
                let job =
                    QueuedJob { id: active.id.clone(), target: active.target.clone(), priority, composition };
                self.feed(QueueEvent::Submitted { job });
            }
            Command::AttemptOver { job, attempt, result } => {
                let outcome = match &result {
                    Ok(_) => AttemptOutcome::Completed,
                    Err(CallError::Cancelled { .. }) => AttemptOutcome::Cancelled,
                    Err(_) => AttemptOutcome::Failed,
                };
                self.results.insert(job.clone(), result);
                self.feed(QueueEvent::AttemptEnded { job, attempt, outcome });
            }
        }
    }

    fn feed(&mut self, event: QueueEvent) {
        let now_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        match self.queue.handle(event, now_ms) {
            Ok(effects) => effects.into_iter().for_each(|effect| self.perform(effect)),
            Err(error) => tracing::error!(%error, "the queue refused an event; this is a defect"),
        }
    }

    fn perform(&mut self, effect: QueueEffect) {
        let Some(runner) = self.runner.upgrade() else { return };
        match effect {
            QueueEffect::Start(start) => {
                let Some(active) = runner.jobs.get(&start.job) else { return };
                runner.jobs.give_places_back(1);
                tokio::spawn(run_attempt(runner, active, start));
            }
            QueueEffect::SendCancel { job, instance, .. } => {
                let active = runner.jobs.get(&job);
                let worker = runner.instances.get(&instance).and_then(|instance| instance.worker());
                if let (Some(active), Some(worker)) = (active, worker) {
                    tokio::spawn(ask_to_cancel(active, worker));
                }
            }
            QueueEffect::ForceRecycle { job, instance, session } => {
                let worker = runner.instances.get(&instance).and_then(|instance| instance.worker());
                if let Some(worker) = worker.filter(|worker| *worker.session() == session) {
                    tokio::spawn(async move { worker.kill(OwnKill::ForceCancel { job }).await });
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
            QueueEffect::Ended { job, from, status, .. } => {
                if from == JobStatus::Pending {
                    runner.jobs.give_places_back(1);
                }
                let result = self.results.remove(&job);
                let active = runner.jobs.get(&job);
                if let Some(active) = active {
                    tokio::spawn(finish(runner, active, status, result));
                }
            }
            QueueEffect::WakeAt { at_ms } => self.wake_at = Some(self.started + Duration::from_millis(at_ms)),
        }
    }
}

async fn sleep_until(at: Option<Instant>) {
    if let Some(at) = at {
        tokio::time::sleep_until(at.into()).await;
    }
}
