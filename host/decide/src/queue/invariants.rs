//! The whole-state check: what must hold after every event, whatever happened. Linear in the state, so it is
//! for tests and for asking a suspect host, not for every decision.

use super::job::Life;
use super::owner::Queue;
use std::collections::BTreeMap;

impl Queue {
    /// Checks everything.
    ///
    /// # Errors
    /// The first violation found, in words.
    pub fn check_invariants(&self) -> Result<(), String> {
        self.check_lanes()?;
        self.check_lines()?;
        self.check_instances()?;
        self.check_deadlines()
    }

    fn check_lanes(&self) -> Result<(), String> {
        let running = self.jobs.values().filter(|job| job.life.run().is_some()).count();
        ensure(running == self.lanes_in_use as usize, || {
            format!("{running} attempts run and {} lanes are in use", self.lanes_in_use)
        })?;
        ensure(self.lanes_in_use <= self.limits.lanes, || {
            format!("{} lanes in use of {}", self.lanes_in_use, self.limits.lanes)
        })
    }

    fn check_lines(&self) -> Result<(), String> {
        let mut waiting = BTreeMap::new();
        for (target, key, job) in self.lines.iter() {
            ensure(waiting.insert(job, (target, key)).is_none(), || format!("{job} waits twice"))?;
        }
        ensure(waiting.len() == self.lines.len(), || "the count of waiting jobs is wrong".to_owned())?;
        let pending = self.jobs.values().filter(|job| job.life.run().is_none()).count();
        ensure(pending == waiting.len(), || format!("{pending} are pending and {} wait", waiting.len()))?;
        for (job, (target, key)) in waiting {
            let stands = self.jobs.get(job).is_some_and(|entry| {
                entry.target == *target && matches!(entry.life, Life::Pending { key: own, .. } if own == key)
            });
            ensure(stands, || format!("{job} waits in a place that is not its own"))?;
        }
        let open = self.lines.targets().filter(|target| self.pool.free_for(target).is_some()).count();
        ensure(open == self.lines.ready().count(), || "a line with room is not among the ready".to_owned())?;
        for (key, target) in self.lines.ready() {
            let first = self.lines.head(target).and_then(|job| self.jobs.get(job));
            let heads =
                first.is_some_and(|job| matches!(job.life, Life::Pending { key: own, .. } if own == key));
            ensure(heads, || format!("the ready entry of {target} is not the head of its line"))?;
        }
        let idle = self.gate_closed.is_none() && self.lanes_in_use < self.limits.lanes && open > 0;
        ensure(!idle, || "a job waits though it could run".to_owned())
    }

    fn check_instances(&self) -> Result<(), String> {
        ensure(self.pool.shelves_agree(), || "the shelves do not match the instances".to_owned())?;
        for (id, instance) in self.pool.iter() {
            ensure(instance.load() <= instance.concurrency_max, || {
                format!("{id} runs {} of {}", instance.load(), instance.concurrency_max)
            })?;
            let on_it = self
                .jobs
                .iter()
                .filter(|(_, job)| {
                    job.life.run().is_some_and(|run| run.instance == *id && run.session == instance.session)
                })
                .map(|(job, _)| job);
            ensure(on_it.eq(&instance.running), || format!("{id} does not know what runs on it"))?;
        }
        Ok(())
    }

    fn check_deadlines(&self) -> Result<(), String> {
        for (grace_ends_ms, job) in &self.graces {
            let own = self.jobs.get(job).is_some_and(
                |entry| matches!(entry.life, Life::Stopping { grace_ends_ms: ends, .. } if ends == *grace_ends_ms),
            );
            ensure(own, || format!("{job} has a grace and is not being stopped"))?;
        }
        for (due_ms, job) in &self.dues {
            let own = self.jobs.get(job).is_some_and(|entry| entry.due_ms == Some(*due_ms));
            ensure(own, || format!("{job} is due at a time that is not its own"))?;
        }
        for (id, job) in &self.jobs {
            let waits_for_due = !matches!(job.life, Life::Stopping { .. } | Life::Forcing { .. });
            let listed = job.due_ms.is_none_or(|due_ms| self.dues.contains(&(due_ms, id.clone())));
            ensure(listed || !waits_for_due, || format!("the deadline of {id} is forgotten"))?;
        }
        Ok(())
    }
}

fn ensure(holds: bool, complaint: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(complaint()) }
}
