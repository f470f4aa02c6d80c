//! What must hold once a scenario is over: everything is accounted for.

use super::body::Seen;
use super::kept::Kept;
use super::scenario::{Plan, Stage};
use crate::queue::state::JobOutcome;
use cjm_decide::death::OwnKill;
use cjm_decide::queue::{CANCEL_GRACE_MS, NOT_TAKEN_MAX};
use cjm_store::JobRecord;
use cjm_wire::event::JobStatus;
use cjm_wire::{JobId, WorkerSessionId};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;

/// How often it is looked whether what runs is counted.
const COUNTS_INTERVAL: Duration = Duration::from_millis(10);
/// What the host may take, beyond the grace, from a cancel to the end of a job.
const CANCEL_SLACK: Duration = Duration::from_millis(500);
/// What it may take where there is nobody to ask: the request is not out yet.
const CANCEL_UNSENT_MAX: Duration = Duration::from_millis(100);

impl Stage {
    pub(super) fn check(&self, plan: &Plan, disk_may_fail: bool) -> Result<(), String> {
        let seen = self.seen.lock().expect("not poisoned");
        ensure(seen.broken.is_empty(), || format!("{:?}, {plan:?}", seen.broken))?;
        ensure(seen.running() == 0, || "a call runs on after the host has ended".to_owned())?;
        for reason in &seen.kills {
            self.check_kill(reason, &seen)?;
        }
        ensure(seen.living.is_empty(), || format!("workers outlive the host: {:?}", seen.living))?;
        let callers = self.callers();
        self.journal.kept(|kept| -> Result<(), String> {
            ensure(kept.broken.is_empty(), || format!("{:?}, {plan:?}", kept.broken))?;
            for (job, rows) in &kept.terminal_rows {
                ensure(*rows == 1, || format!("{job} has {rows} terminal rows"))?;
            }
            for id in &callers.accepted {
                ensure(kept.jobs.contains_key(id), || format!("{id} was accepted and is not kept"))?;
            }
            for job in kept.jobs.values() {
                check_job(job, kept, plan, disk_may_fail)?;
            }
            for outcome in &callers.told {
                check_told(outcome, kept, plan)?;
            }
            if disk_may_fail {
                return Ok(());
            }
            ensure(kept.spawned == kept.died, || {
                let undead: Vec<_> = kept.spawned.symmetric_difference(&kept.died).collect();
                format!("spawned and died are not the same: {undead:?}, {plan:?}")
            })?;
            for (id, status) in &kept.compositions {
                // A host that ends leaves those to the next one that go on; not what it has answered.
                let left = plan.ends_early.is_some() && !callers.answered.contains(id);
                ensure(status.is_some() || left, || format!("{id} has no end, {plan:?}"))?;
            }
            ensure(kept.accounts.len() == seen.accounts, || {
                format!("{} accounts of {} are kept, {plan:?}", kept.accounts.len(), seen.accounts)
            })?;
            ensure(kept.workers_open.is_empty(), || format!("open workers: {:?}", kept.workers_open))?;
            check_phases(kept, &seen)?;
            ensure(kept.ready == seen.ready, || {
                "a worker that was ready has no row that says so".to_owned()
            })?;
            ensure(kept.spawned.len() == seen.sessions.len(), || "a spawned worker has no row".to_owned())?;
            if plan.full_disk.is_some() || plan.keeper_stands {
                return Ok(());
            }
            callers.cancelled.iter().try_for_each(|(id, at)| {
                check_cancel(id, *at, kept, &seen).map_err(|broken| format!("{broken}, {plan:?}"))
            })
        })?;
        let runner = self.host.runner();
        ensure(runner.services.tasks.is_empty() || disk_may_fail, || {
            format!("{} tasks are left, {plan:?}", runner.services.tasks.len())
        })?;
        ensure(runner.jobs.places_taken() == 0, || "places are leaked".to_owned())
    }

    /// A direct call is counted for as long as a tool is at it, so that others go elsewhere.
    pub(super) async fn watch_counts(self: Arc<Self>) {
        loop {
            tokio::time::sleep(COUNTS_INTERVAL).await;
            for instance in self.host.instances().all(|_| true) {
                let session = instance.session();
                let running = |seen: &Seen| seen.direct.values().filter(|worker| **worker == session).count();
                let running = running(&self.seen.lock().expect("not poisoned"));
                let counted = instance.direct_calls.load(Ordering::Acquire);
                if running > counted {
                    return self.complain(format!("{running} calls run on {}: {counted}", instance.id));
                }
            }
        }
    }

    /// A run's monitor goes with the run, also with one that is refused.
    pub(super) fn check_monitors(&self) -> Result<(), String> {
        let left = self.host.instances().all(|instance| instance.plan.capability == "monitor");
        ensure(left.is_empty(), || format!("{} monitors are left", left.len()))
    }

    /// Whoever is killed for a job is told the reason for which the job ends, and was asked before.
    fn check_kill(&self, reason: &OwnKill, seen: &Seen) -> Result<(), String> {
        let (job, for_deadline) = match reason {
            OwnKill::ForceCancel { job } => (job, false),
            OwnKill::Deadline { job } => (job, true),
            _ => return Ok(()),
        };
        let run = self.journal.kept(|kept| kept.jobs.get(job).and_then(|job| job.composition_id.clone()));
        let run_was = run.is_some_and(|run| self.callers().hurried_runs.contains(&run));
        let was_in_haste = run_was || self.callers().hurried.contains(job);
        ensure(was_in_haste || !seen.cooperative.contains(job), || {
            format!("{reason:?}, and it would have ended when asked")
        })?;
        let ended = |kept: &Kept| {
            kept.jobs.get(job).filter(|job| job.status.is_terminal()).map(|job| job.failure.clone())
        };
        let failure = self.journal.kept(ended);
        // A direct call is no job, and a host may end before its jobs do.
        let Some(failure) = failure else { return Ok(()) };
        let Some(failure) = failure else {
            return ensure(!for_deadline, || format!("{reason:?}, and the job did not fail"));
        };
        // An end that could not be written has failed for that reason.
        let refused = failure.report.code.starts_with("store.");
        let at_deadline = matches!(failure.report.code.as_str(), "call.deadline" | "composition.deadline");
        ensure(refused || at_deadline == for_deadline, || format!("{reason:?}, and {failure:?}"))
    }
}

/// How a worker died is told as it was: while it started, while it ran, while it was unloaded.
fn check_phases(kept: &Kept, seen: &Seen) -> Result<(), String> {
    kept.phases.iter().try_for_each(|(session, phase)| {
        let holds = match seen.start_phases.get(session) {
            Some(expected) => phase == expected,
            None => matches!(phase.as_str(), "running" | "cleanup"),
        };
        ensure(holds, || format!("{session} died in `{phase}`: {:?}", seen.start_phases.get(session)))
    })
}

/// A job has ended, once, or has not begun when its host ended, and says why it failed.
fn check_job(job: &JobRecord, kept: &Kept, plan: &Plan, disk_may_fail: bool) -> Result<(), String> {
    let (id, ended) = (&job.job_id, job.status.is_terminal());
    ensure(ended == kept.terminal_rows.contains_key(id.as_str()), || {
        format!("{id} is {} and its rows say otherwise", job.status)
    })?;
    let why = job.failure.is_some();
    ensure(why == (job.status == JobStatus::Failed), || {
        format!("{id} is {}, and why is {:?}", job.status, job.failure)
    })?;
    check_not_taken(job)?;
    // What the disk refuses is told in the store's own words.
    let named = job.failure.as_ref().is_none_or(|why| {
        why.report.code.starts_with("store.") || why.report.details.job_id.as_ref() == Some(id)
    });
    ensure(named, || format!("the failure of {id} does not name it: {:?}", job.failure))?;
    let signed = job.run_id.is_some() && job.actor.as_deref() == Some("simulator");
    let placed = job.composition_id.is_some() == (job.node_id.is_some() && job.element_index.is_some());
    ensure(signed && placed, || format!("nobody can tell whose {id} is: {job:?}"))?;
    let never_ran = plan.ends_early.is_some() && job.status == JobStatus::Pending;
    ensure(ended || never_ran || disk_may_fail, || {
        format!("{id} is {} when the host has ended, {plan:?}", job.status)
    })
}

/// Who was cancelled ends within the grace.
fn check_cancel(id: &JobId, at: Instant, kept: &Kept, seen: &Seen) -> Result<(), String> {
    let Some(ended) = kept.ended_at.get(id) else { return Ok(()) };
    let took = ended.saturating_duration_since(at);
    let sent = seen.sent.contains(id);
    let may = if sent { Duration::from_millis(CANCEL_GRACE_MS) + CANCEL_SLACK } else { CANCEL_UNSENT_MAX };
    ensure(took <= may, || format!("{id} ended {took:?} after its cancel"))
}

/// A waiter is told what the store says, and in which process the job ran.
fn check_told(outcome: &JobOutcome, kept: &Kept, plan: &Plan) -> Result<(), String> {
    let JobOutcome { job_id: id, status, .. } = outcome;
    // Also where its instance was unloaded meanwhile, or its worker has died.
    let ran = outcome.started_at.is_some();
    ensure(!ran || outcome.worker_pid.is_some(), || format!("{id} ran in no process, {plan:?}"))?;
    // Of every worker that was spawned, one that did not start too.
    let session = outcome.worker_session_id.as_deref().map(WorkerSessionId::from_text);
    let pid = session.as_ref().and_then(|session| kept.pid_of(session));
    ensure(pid.is_none() || outcome.worker_pid == pid, || {
        format!("{id} ran in {pid:?}, and is told to have run in {:?}", outcome.worker_pid)
    })?;
    let not_started = outcome.failure.as_ref().is_some_and(|why| why.report.code.starts_with("start."));
    ensure(!not_started || session.is_some(), || format!("{id} did not start on any worker"))?;
    let kept_status = kept.jobs.get(id).map(|job| job.status);
    // An end that waits for the disk is told as a failure, and written later.
    let unwritten = plan.full_disk.is_some() && *status == JobStatus::Failed;
    ensure(kept_status == Some(*status) || unwritten, || {
        format!("a waiter was told that {id} is {status}, and the store says {kept_status:?}")
    })
}

/// What no tool took fails only after so many attempts.
fn check_not_taken(job: &JobRecord) -> Result<(), String> {
    let untaken = job.failure.as_ref().is_some_and(|why| why.report.message.contains("before its tool"));
    ensure(!untaken || job.attempt >= NOT_TAKEN_MAX, || {
        format!("{} failed in attempt {} for a call that was not taken", job.job_id, job.attempt)
    })
}

fn ensure(holds: bool, complaint: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(complaint()) }
}
