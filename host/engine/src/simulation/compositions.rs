//! Compositions in a scenario: one that fails is answered at once, and ends once nothing of it runs any more.

use super::answering::RSS_MB_PER_PID;
use super::scenario::Stage;
use super::seed::Seed;
use crate::CompositionOutcome;
use cjm_decide::queue::CANCEL_GRACE_MS;
use cjm_wire::CompositionId;
use cjm_wire::composition::{Composition, RunOutcome};
use cjm_wire::event::JobStatus;
use cjm_wire::json::Arguments;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// What may pass between the end of the element that failed first and the answer: rows that were to be written before.
const ANSWER_MAX: Duration = Duration::from_millis(500);
/// What may pass beyond the grace until all has ended that a failure or a deadline stops.
const END_SLACK: Duration = Duration::from_millis(1_000);

impl Stage {
    /// A mapped node, one beside it, and one that needs both.
    pub(super) async fn compose(self: Arc<Self>, mut seed: Seed, disk_may_fail: bool) {
        tokio::time::sleep(seed.millis(600)).await;
        let stubborn = seed.percent(40);
        let acts: &[&str] = if stubborn {
            &["ok", "fail", "hang", "deaf", "stubborn"]
        } else {
            &["ok", "ok", "ok", "fail", "die"]
        };
        let mut item = || json!({"do": *seed.pick(acts), "ms": seed.below(40)});
        let items: Vec<Value> = (0..6).map(|_| item()).collect();
        let beside = item();
        let items = &items[..1 + usize::try_from(seed.below(6)).expect("small")];
        let fails_fast = seed.percent(65);
        let call = |item: &Value| json!({"do": item["do"], "ms": item["ms"], "job": true});
        let document = json!({
            "name": "simulated",
            "failure": if fails_fast { "fail_fast" } else { "best_effort" },
            "nodes": {
                "many": {
                    "capability": self.instances[0].as_str(), "map": items,
                    "args": call(&json!({"do": "${item.do}", "ms": "${item.ms}"})),
                },
                "beside": { "capability": "tool", "args": call(&beside) },
                "one": {
                    "capability": self.instances[0].as_str(), "after": ["many", "beside"],
                    "args": call(&json!({"do": "ok", "ms": 3})),
                },
            },
        });
        let mut document = document;
        if seed.percent(25) {
            document["monitor"] = "monitor".into();
        }
        let composition: Composition = serde_json::from_value(document).expect("a composition");
        // What may never end by itself is given an end.
        let timeout = (seed.percent(20) || (stubborn && seed.percent(50))).then(|| seed.millis(400));
        let cancels = seed.percent(25) || (stubborn && timeout.is_none());
        let begun = Instant::now();
        let submitted =
            self.host.submit_composition_within(composition, Arguments::new(), timeout.map(Into::into)).await;
        let Ok(id) = submitted else { return };
        if cancels {
            Arc::clone(&self).cancel_run(id.clone(), &mut seed);
        }
        let caller = seed.next();
        self.waits(caller, format!("for composition {id}"));
        if let Ok(told) = self.host.wait_composition(&id).await {
            self.callers().answered.push(id.clone());
            self.check_answer(&id, &told, fails_fast, disk_may_fail);
            let since = Instant::now();
            if let Ok(end) = self.host.wait_composition_end(&id).await {
                self.check_end(&id, &told, &end, disk_may_fail);
                let within = since.elapsed() <= Duration::from_millis(CANCEL_GRACE_MS) + END_SLACK;
                if !within && !disk_may_fail {
                    self.complain(format!("{id} ends {:?} after its answer", since.elapsed()));
                }
            }
            let late = timeout.is_some_and(|timeout| {
                begun.elapsed() > timeout + Duration::from_millis(CANCEL_GRACE_MS) + END_SLACK
            });
            if late && !disk_may_fail {
                self.complain(format!("{id} took {:?}, and was given {timeout:?}", begun.elapsed()));
            }
        }
        self.waits_no_more(caller);
    }

    /// Cancels a run after a while, and some of them again in haste.
    fn cancel_run(self: Arc<Self>, id: CompositionId, seed: &mut Seed) {
        let (after, again, at_once) = (seed.millis(300), seed.millis(300), seed.percent(40));
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            self.host.cancel_composition(&id);
            tokio::time::sleep(again).await;
            if at_once {
                self.callers().hurried_runs.push(id.clone());
                self.host.cancel_composition_at_once(&id);
            }
        });
    }

    /// A failure is told at once, while others still run; all else once nothing runs.
    fn check_answer(
        &self,
        id: &CompositionId,
        told: &CompositionOutcome,
        fails_fast: bool,
        disk_may_fail: bool,
    ) {
        let (running, first_failed) = self.journal.kept(|kept| {
            let jobs = || kept.jobs.values().filter(|job| job.composition_id.as_ref() == Some(id));
            let failed = jobs().filter(|job| job.status == JobStatus::Failed);
            (
                jobs().filter(|job| !job.status.is_terminal()).count(),
                failed.filter_map(|job| kept.ended_at.get(&job.job_id)).min().copied(),
            )
        });
        if told.still_running == 0 && running > 0 && !disk_may_fail {
            self.complain(format!("{id} is told to have ended, and {running} of its jobs run"));
        }
        let code = told.failure.as_ref().map_or("", |failure| failure.report.code.as_str());
        if code == "composition.node_failed" {
            self.complain(format!("{id} blames a node that has done nothing wrong: {:?}", told.failure));
        }
        let refused = code.starts_with("queue.") || code.starts_with("store.");
        let hasty = told.outcome == RunOutcome::Failed && !refused && code != "composition.deadline";
        if !(fails_fast && hasty) && told.still_running == 0 {
            return;
        }
        if told.outcome != RunOutcome::Failed || told.failure.is_none() || told.failures.is_empty() {
            self.complain(format!("{id} is told early as {:?}", told.outcome));
        }
        let is_kept = self.journal.kept(|kept| kept.failing.contains_key(id));
        if told.still_running > 0 && !is_kept && !disk_may_fail {
            self.complain(format!("the failure of {id} is told before it is kept"));
        }
        // Without one its calls were refused, since the host ends.
        let late = first_failed.is_some_and(|at| at.elapsed() > ANSWER_MAX);
        if late && !disk_may_fail {
            self.complain(format!(
                "{id} is answered {:?} after its failure",
                first_failed.map(|at| at.elapsed())
            ));
        }
    }

    /// The row of its end says what is told.
    fn check_row(&self, id: &CompositionId, end: &CompositionOutcome) {
        let Some(row) = self.journal.kept(|kept| kept.finished.get(id).cloned()) else { return };
        let told = json!({
            "outcome": end.outcome.as_str(),
            "partial": end.outcome == RunOutcome::Partial,
            "failures": end.failures.listed().len(),
            "failures_left_out": end.failures.left_out(),
            "nodes": end.nodes,
        });
        let mut says = Value::Object(row);
        says["failures"] = says["failures"].as_array().map_or(0, Vec::len).into();
        for (key, told) in told.as_object().expect("an object") {
            let unwritten = end.failure.as_ref().is_some_and(|why| why.report.code.starts_with("store."));
            if says[key] != *told && !unwritten {
                self.complain(format!("{id} is told with {key} {told}, and its row says {}", says[key]));
            }
        }
        for node in &end.nodes {
            let most = node.pids.iter().max().map_or(0.0, |pid| f64::from(*pid) * RSS_MB_PER_PID);
            if node.usage.is_some_and(|usage| usage.peak_rss_mb > most + 0.001) {
                self.complain(format!("{} of {id} used {:?}, at most {most}", node.name, node.usage));
            }
            if node.elements_completed > node.elements_total {
                self.complain(format!("{} of {id} completed more than it had: {node:?}", node.name));
            }
        }
    }

    /// What was told first stays true, and nothing is left.
    fn check_end(
        &self,
        id: &CompositionId,
        told: &CompositionOutcome,
        end: &CompositionOutcome,
        disk_may_fail: bool,
    ) {
        let why = |outcome: &CompositionOutcome| {
            outcome.failure.as_ref().map(|failure| failure.report.message.clone())
        };
        if end.outcome != told.outcome || why(end) != why(told) {
            self.complain(format!("{id} was told as {:?}, and ends as {:?}", why(told), why(end)));
        }
        self.check_row(id, end);
        let status = self.journal.kept(|kept| kept.compositions.get(id).copied().flatten());
        let unwritten = end.failure.as_ref().is_some_and(|failure| failure.report.code.starts_with("store."));
        // The next host ends it as failed, too.
        let stays_true = disk_may_fail && end.status == JobStatus::Failed;
        if status.is_none() && !unwritten && !stays_true {
            self.complain(format!("{id} is told to be {}, and no end of it is kept", end.status));
        }
        if status.is_some_and(|status| status != end.status) {
            self.complain(format!("{id} is told to be {}, and kept as {status:?}", end.status));
        }
    }
}
