//! A direct call, and what becomes of it when its caller goes away: it is cancelled as a job is, first by asking, then by
//! force.

use crate::deadlines::Limit;
use crate::instances::{DirectCallCount, Instance, NoWorker};
use crate::queue::attempt::{CANCEL_REPEAT, Runner};
use bytes::Bytes;
use cjm_decide::death::OwnKill;
use cjm_decide::queue::NOT_TAKEN_MAX;
use cjm_store::rows;
use cjm_wire::describe::Described;
use cjm_wire::event::{EventType, JobStatus, JournalRow};
use cjm_wire::{JobId, RunId};
use cjm_workers::{CallError, Reply, Worker};
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use tokio::runtime::Handle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// A call that is no job, before it has a worker.
pub(crate) struct Calling {
    pub(crate) runner: Runner,
    pub(crate) instance: Arc<Instance>,
    pub(crate) caller: Caller,
    /// The host's own, where workers are started.
    pub(crate) runtime: Handle,
    /// When its time is over.
    pub(crate) limit: Limit,
    pub(crate) words: Words,
}

/// What the tool of a call says while the call runs.
#[derive(Clone)]
pub(crate) struct Words {
    instance: Arc<Instance>,
    /// The worker that there was when it began, and how much that had said.
    before: Option<(Arc<dyn Worker>, u64)>,
}

impl Words {
    /// Of a call that begins.
    pub(crate) fn from_now(instance: &Arc<Instance>) -> Self {
        let before = instance.worker().map(|worker| {
            let lines_ever = worker.lines_ever();
            (worker, lines_ever)
        });
        Self { instance: Arc::clone(instance), before }
    }

    pub(crate) fn so_far(&self) -> Vec<String> {
        match (self.instance.worker(), &self.before) {
            (Some(now), Some((before, _))) if !Arc::ptr_eq(&now, before) => now.lines_since(0),
            (_, Some((before, lines_before))) => before.lines_since(*lines_before),
            // It was started for this call.
            (Some(now), None) => now.lines_since(0),
            (None, None) => Vec::new(),
        }
    }
}

/// Which call it is, and whose.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// The id under which the worker can be asked to stop it.
    pub(crate) call: JobId,
    /// None: the host's own.
    pub(crate) run_id: Option<RunId>,
    pub(crate) actor: Option<String>,
}

impl Caller {
    /// A call of the host itself.
    pub(crate) fn host() -> Self {
        Self { call: JobId::new(), run_id: None, actor: None }
    }
}

/// A call that is no job, and whom it was sent to.
#[derive(Clone)]
pub(crate) struct Called {
    pub(crate) runner: Runner,
    pub(crate) instance: Arc<Instance>,
    pub(crate) worker: Arc<dyn Worker>,
    caller: Caller,
    limit: Limit,
    words: Words,
}

impl Calling {
    fn to(self, worker: Arc<dyn Worker>) -> Called {
        let Self { runner, instance, caller, limit, words, .. } = self;
        Called { runner, instance, worker, caller, limit, words }
    }

    /// Finds the living worker, started where there is none.
    pub(crate) async fn begin(self, abandoned: &CancellationToken) -> Result<Called, CallError> {
        match self.instance.worker() {
            Some(worker) => Ok(self.to(worker)),
            // Apart: most calls need no room for it.
            None => Box::pin(self.start(abandoned)).await,
        }
    }

    /// A start that was begun goes on when the caller goes away.
    async fn start(self, abandoned: &CancellationToken) -> Result<Called, CallError> {
        let capability = || self.instance.plan.capability.clone();
        let (starting, Runner { services, jobs, .. }) = (Arc::clone(&self.instance), self.runner.clone());
        let started = self.runtime.spawn(async move { starting.ensure_worker(&services, &jobs, None).await });
        let started = tokio::select! {
            biased;
            started = started => started,
            () = abandoned.cancelled() => return Err(CallError::cancelled(&self.instance.plan.capability)),
        };
        match started {
            Ok(Ok(worker)) => Ok(self.to(worker)),
            Ok(Err(NoWorker::Failed(error, _))) => Err(CallError::NotStarted(error)),
            Ok(Err(NoWorker::Missed | NoWorker::Retired)) => {
                Err(CallError::NotLoaded { instance: self.instance.id.clone() })
            }
            Err(_) => Err(CallError::HostEnded { capability: capability() }),
        }
    }

    /// Calls, and journals what the tool accounted for. Once `abandoned` nobody waits for the answer, and the call is
    /// brought to its end.
    pub(crate) async fn run(
        self,
        path: &str,
        body: Vec<u8>,
        abandoned: CancellationToken,
    ) -> Result<Bytes, CallError> {
        let _counted = DirectCallCount::on(&self.instance);
        let (runtime, body) = (self.runtime.clone(), Bytes::from(body));
        let mut called = self.begin(&abandoned).await?;
        let mut attempts_left = NOT_TAKEN_MAX;
        let answer = loop {
            attempts_left -= 1;
            match called.answer(path, body.clone(), &abandoned).await {
                // As with a job: nothing of it was done.
                Err(CallError::NotTaken { .. }) if attempts_left > 0 && !abandoned.is_cancelled() => {
                    called = Box::pin(called.again(&runtime).begin(&abandoned)).await?;
                }
                answer => break answer,
            }
        };
        let outcome = called.account(answer);
        match (&outcome, abandoned.is_cancelled()) {
            (Err(error), was_abandoned) => called.tell(error, was_abandoned),
            // A result that nobody got any more.
            (Ok(_), true) => called.tell(&called.cancelled(), true),
            (Ok(_), false) => {}
        }
        outcome
    }
}

/// Until it is found that nobody waits. It is not woken: what is abandoned goes on in another task, which looks anew, and a
/// call that ends in time needs no place in a list.
async fn found_abandoned(abandoned: &CancellationToken) {
    poll_fn(|_| if abandoned.is_cancelled() { Poll::Ready(()) } else { Poll::Pending }).await;
}

impl Called {
    /// The same call, to be sent to whoever lives now.
    pub(crate) fn again(self, runtime: &Handle) -> Calling {
        let Self { runner, instance, caller, limit, words, .. } = self;
        Calling { runner, instance, caller, runtime: runtime.clone(), limit, words }
    }

    /// What the worker answers. Once `abandoned`, the call is brought to its end.
    async fn answer(
        &self,
        path: &str,
        body: Bytes,
        abandoned: &CancellationToken,
    ) -> Result<Reply, CallError> {
        let mut calling = pin!(self.worker.call(path, body));
        tokio::select! {
            biased;
            answer = &mut calling => answer.map_err(|error| self.instance.told(error, false)),
            () = found_abandoned(abandoned) => tokio::select! {
                biased;
                answer = &mut calling => answer,
                // Apart, likewise.
                () = Box::pin(self.stop()) => calling.await,
            },
        }
    }

    pub(crate) fn cancelled(&self) -> CallError {
        let capability = self.instance.plan.capability.clone();
        CallError::Cancelled { capability, stderr_tail: self.words.so_far() }
    }

    /// What its reader is told whose time is over.
    pub(crate) fn late(&self) -> CallError {
        let capability = self.instance.plan.capability.clone();
        let (seconds, stderr_tail) = (self.limit.given.as_secs_f64(), self.words.so_far());
        CallError::DeadlinePassed { capability, seconds, stderr_tail }
    }

    fn is_late(&self) -> bool {
        Instant::now() >= self.limit.at
    }

    /// Asks the tool to stop until its grace is over, then kills its worker.
    pub(crate) async fn stop(&self) {
        // Whoever stops a call whose time is not over has no use for it any more.
        let (job, is_late) = (self.caller.call.clone(), self.is_late());
        let reason = if is_late { OwnKill::Deadline { job } } else { OwnKill::ForceCancel { job } };
        let ask = async {
            loop {
                self.worker.cancel(&self.caller.call).await;
                tokio::time::sleep(CANCEL_REPEAT).await;
            }
        };
        // The call itself says when it is over; nothing else ends the asking.
        let _ = tokio::time::timeout(self.instance.plan.cancel_grace, ask).await;
        let Runner { services, jobs, .. } = &self.runner;
        self.instance.recycle(services, jobs, &self.worker.facts().session, reason);
    }

    /// Writes how the call ended that brought no result. It is no job, so no other row says it.
    pub(crate) fn tell(&self, error: &CallError, was_abandoned: bool) {
        let (status, failure) = match was_abandoned {
            true if self.is_late() => {
                let capability = self.instance.plan.capability.clone();
                let (seconds, stderr_tail) = (self.limit.given.as_secs_f64(), error.stderr_tail());
                let late = CallError::DeadlinePassed { capability, seconds, stderr_tail };
                (JobStatus::Failed, late.to_failure(&self.instance.id))
            }
            true => (JobStatus::Cancelled, error.to_failure(&self.instance.id)),
            false => (JobStatus::Failed, error.to_failure(&self.instance.id)),
        };
        let mut row = rows::direct_call_failed(&self.caller.call, status, &failure);
        self.describe(&mut row);
        self.runner.services.note(row);
    }

    /// Says whose call a row is of, and who ran it.
    fn describe(&self, row: &mut JournalRow) {
        row.capability_instance_id = Some(self.instance.id.to_string());
        row.capability_name = Some(self.instance.plan.capability.clone());
        row.worker_session_id = Some(self.worker.facts().session.to_string());
        row.run_id = self.caller.run_id.as_ref().map(ToString::to_string);
        row.actor.clone_from(&self.caller.actor);
    }

    fn account(&self, answer: Result<Reply, CallError>) -> Result<Bytes, CallError> {
        let (accounts, outcome) = match answer {
            Ok(reply) => (reply.accounts, Ok(reply.body)),
            Err(error) => (error.accounts().to_vec(), Err(error)),
        };
        for account in accounts {
            let mut row = JournalRow::new(EventType::TaskAccount, account.payload);
            row.event_type = account.event_type;
            row.worker_reported = true;
            self.describe(&mut row);
            self.runner.services.note(row);
        }
        outcome
    }
}
