//! Instances: what a user loads and calls. An instance outlives its workers: each worker is one incarnation of it, and
//! after a death the next call starts the next one. A dead worker is never started again on its own, so nothing can loop.
//!
//! Which incarnation is the present one is `decide`'s word ([`Lifecycle`]). Whatever changes it is told to the queue while
//! the lock is held, so that nobody learns of an end before the queue is told of it.

use crate::queue::state::Jobs;
use crate::services::Services;
use cjm_decide::death::OwnKill;
use cjm_decide::instance::{Entry, Lifecycle, Recycling, Renewal};
use cjm_decide::queue::{QueueEvent, end_grace};
use cjm_store::rows::died_id;
use cjm_store::{Commit, WorkerRecord, Write};
use cjm_wire::event::{EventType, JournalRow};
use cjm_wire::{InstanceId, Timestamp, WorkerSessionId};
use cjm_workers::{
    CallError, Death, HostEvent, NewsOfDeath, StartError, StartKiller, StartingWorker, Worker, WorkerPlan,
    WorkerState,
};
use futures_util::FutureExt;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, btree_map};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{oneshot, watch};

/// One loaded instance.
pub(crate) struct Instance {
    pub(crate) id: InstanceId,
    pub(crate) plan: Arc<WorkerPlan>,
    pub(crate) concurrency_max: u32,
    /// Direct calls on it.
    pub(crate) direct_calls: AtomicUsize,
    state: Mutex<State>,
    /// Wakes those who wait for a start.
    changed: watch::Sender<()>,
}

struct State {
    life: Lifecycle<Arc<dyn Worker>>,
    start: Start,
}

/// What is known of the start under way, or of the last one.
#[derive(Default)]
struct Start {
    /// Why it is to be given up.
    kill: Option<OwnKill>,
    /// Kills its process, once there is one.
    killer: Option<StartKiller>,
    /// Why it failed, for those who waited for it.
    failed: Option<(WorkerSessionId, StartError)>,
}

/// Why there is no worker.
pub(crate) enum NoWorker {
    /// The incarnation that was asked for is not the present one.
    Missed,
    /// The instance was unloaded.
    Retired,
    /// It could not be started; whoever started it is told in which process.
    Failed(Box<StartError>, Option<u32>),
}

impl Instance {
    pub(crate) fn new(plan: WorkerPlan, concurrency_max: u32) -> Self {
        Self {
            id: plan.instance.clone(),
            plan: Arc::new(plan),
            concurrency_max,
            direct_calls: AtomicUsize::new(0),
            state: Mutex::new(State {
                life: Lifecycle::Announced(WorkerSessionId::new()),
                start: Start::default(),
            }),
            changed: watch::Sender::new(()),
        }
    }

    /// Tells the queue that the present incarnation takes calls, unless somebody has unloaded the instance already.
    pub(crate) fn announce(&self, jobs: &Jobs) {
        let state = self.state();
        if !state.life.is_retired() {
            self.tell_added(jobs, state.life.session());
        }
    }

    /// The worker, if one lives.
    pub(crate) fn worker(&self) -> Option<Arc<dyn Worker>> {
        self.state().life.worker().filter(|worker| !worker.is_dead()).cloned()
    }

    /// The worker of this incarnation, if it lives.
    pub(crate) fn worker_of(&self, session: &WorkerSessionId) -> Option<Arc<dyn Worker>> {
        self.worker().filter(|worker| worker.facts().session == *session)
    }

    /// An error of a call on it, as it is told. `asked`: somebody wanted the end of the call. Whoever unloads the instance wants
    /// that of all its calls; where nobody does, a cancel is a failure of the tool that tells of it.
    pub(crate) fn told(&self, error: CallError, asked: bool) -> CallError {
        if asked || self.is_retired() { error } else { error.where_nobody_asked() }
    }

    /// Whether it was unloaded.
    pub(crate) fn is_retired(&self) -> bool {
        self.state().life.is_retired()
    }

    /// The present incarnation.
    #[cfg(test)]
    pub(crate) fn session(&self) -> WorkerSessionId {
        self.state().life.session().clone()
    }

    /// The living worker, of the incarnation `asked` for where one is named; started when there is none. A start that was
    /// begun goes on when the caller goes away.
    pub(crate) async fn ensure_worker(
        self: &Arc<Self>,
        services: &Arc<Services>,
        jobs: &Arc<Jobs>,
        asked: Option<&WorkerSessionId>,
    ) -> Result<Arc<dyn Worker>, NoWorker> {
        loop {
            let mut changed = self.changed.subscribe();
            match self.enter(jobs, asked) {
                Entry::Use(worker) => return Ok(worker),
                Entry::Gone => return Err(NoWorker::Missed),
                Entry::Retired => return Err(NoWorker::Retired),
                Entry::Start(session) => {
                    let (told, outcome) = oneshot::channel();
                    let instance = Arc::clone(self);
                    let starting = instance.bring_up(Arc::clone(services), Arc::clone(jobs), session, told);
                    services.tasks.spawn(starting);
                    // Without a word the host has ended.
                    return outcome.await.unwrap_or(Err(NoWorker::Retired));
                }
                Entry::Wait(session) => {
                    // The sender lives as long as this instance does.
                    let _ = changed.changed().await;
                    let failed = self.state().start.failed.clone().filter(|(of, _)| *of == session);
                    if let (None, Some((_, error))) = (asked, failed) {
                        return Err(NoWorker::Failed(Box::new(error), None));
                    }
                }
            }
        }
    }

    /// What is to be done for whoever needs the worker. A death that nobody has noted yet is noted first.
    fn enter(&self, jobs: &Jobs, asked: Option<&WorkerSessionId>) -> Entry<Arc<dyn Worker>> {
        let mut state = self.state();
        if let Some(worker) = state.life.worker().filter(|worker| worker.is_dead()).cloned() {
            self.end_incarnation(&mut state, jobs, &worker.facts().session);
        }
        let entry = state.life.enter(asked);
        if let Entry::Start(_) = entry {
            state.start = Start::default();
        }
        entry
    }

    /// Renews the instance after the end of `session`, if that is not done yet.
    fn end_incarnation(&self, state: &mut State, jobs: &Jobs, session: &WorkerSessionId) {
        if let Some(renewal) = state.life.ended(session, WorkerSessionId::new()) {
            self.tell_renewed(jobs, &renewal);
        }
    }

    fn tell_renewed(&self, jobs: &Jobs, renewal: &Renewal) {
        self.tell_removed(jobs, renewal.removed.clone());
        self.tell_added(jobs, &renewal.announced);
        self.changed.send_replace(());
    }

    fn tell_removed(&self, jobs: &Jobs, session: WorkerSessionId) {
        jobs.tell_queue(QueueEvent::InstanceRemoved { instance: self.id.clone(), session });
    }

    fn tell_added(&self, jobs: &Jobs, session: &WorkerSessionId) {
        jobs.tell_queue(QueueEvent::InstanceAdded {
            instance: self.id.clone(),
            session: session.clone(),
            capability: self.plan.capability.clone(),
            concurrency_max: self.concurrency_max,
            cancel_grace_ms: u64::try_from(self.plan.cancel_grace.as_millis()).unwrap_or(u64::MAX),
        });
    }

    /// Starts the worker of `session`, and tells how that went.
    async fn bring_up(
        self: Arc<Self>,
        services: Arc<Services>,
        jobs: Arc<Jobs>,
        session: WorkerSessionId,
        told: oneshot::Sender<Result<Arc<dyn Worker>, NoWorker>>,
    ) {
        self.tell(&services, WorkerState::Starting, None);
        let outcome = match services.workers.spawn(Arc::clone(&self.plan), session.clone()).await {
            Ok(spawned) => {
                let pid = spawned.pid();
                let ready = self.await_ready(&services, &jobs, &session, spawned).await;
                ready.map_err(|error| (error, Some(pid)))
            }
            Err(error) => Err((error, None)),
        };
        let outcome = match outcome {
            Ok(worker) => self.take_over(&services, &jobs, worker).await,
            Err((error, pid)) => {
                let mut state = self.state();
                state.start.failed = Some((session.clone(), error.clone()));
                // The next attempt is another incarnation, and its id must be another one in the journal.
                self.end_incarnation(&mut state, &jobs, &session);
                Err(NoWorker::Failed(Box::new(error), pid))
            }
        };
        self.changed.send_replace(());
        // Whoever asked may have gone.
        let _ = told.send(outcome);
    }

    /// Writes down what was spawned, and waits until it is ready, is dead, or is to be killed.
    async fn await_ready(
        self: &Arc<Self>,
        services: &Arc<Services>,
        jobs: &Jobs,
        session: &WorkerSessionId,
        spawned: Box<dyn StartingWorker>,
    ) -> Result<Arc<dyn Worker>, StartError> {
        let pid = spawned.pid();
        services.write(self.spawned_commit(services, session, pid, &spawned.socket()));
        let killer = spawned.killer();
        {
            let mut state = self.state();
            if let Some(reason) = &state.start.kill {
                killer(reason.clone());
            }
            state.start.killer = Some(killer);
        }
        match spawned.ready(services.options.ready_timeout).await {
            Ok(worker) => {
                self.journal_ready(services, &*worker);
                Ok(worker)
            }
            Err((error, death)) => {
                let late = matches!(error, StartError::NeverReady { .. });
                let phase = if late { "startup_timeout" } else { "startup" };
                self.note_death_at_start(services, session, death, phase);
                // Only what died by itself is news; the rest was ended by us, and the error says why.
                let died = matches!(error, StartError::Died { .. }) && !jobs.is_closed();
                let state = if died { WorkerState::Dead } else { WorkerState::Unloaded };
                self.tell(services, state, Some(pid));
                Err(error)
            }
        }
    }

    /// Writes down the death of a worker that did not start: now, or, where a kill has not ended it in its time, later.
    fn note_death_at_start(
        self: &Arc<Self>,
        services: &Arc<Services>,
        session: &WorkerSessionId,
        mut death: NewsOfDeath,
        phase: &'static str,
    ) {
        let (instance, of, session) = (Arc::clone(self), Arc::clone(services), session.clone());
        let note = move |death: Option<Arc<Death>>| {
            if let Some(death) = death {
                of.write(instance.died_commit(&session, &death, phase));
            }
        };
        match (&mut death).now_or_never() {
            Some(death) => note(death),
            None => {
                services.tasks.spawn(async move { note(death.await) });
            }
        }
    }

    /// Makes a worker that is ready the present one; ends it when the start was given up meanwhile.
    async fn take_over(
        self: &Arc<Self>,
        services: &Arc<Services>,
        jobs: &Arc<Jobs>,
        worker: Arc<dyn Worker>,
    ) -> Result<Arc<dyn Worker>, NoWorker> {
        let session = worker.facts().session.clone();
        let (taken, kill) = {
            let mut state = self.state();
            (state.life.started(&session, Arc::clone(&worker)), state.start.kill.take())
        };
        let following =
            Arc::clone(self).accompany(Arc::clone(services), Arc::clone(jobs), Arc::clone(&worker));
        services.tasks.spawn(following);
        // Whoever unloads it during a start gives up the start: there is a reason whenever it is not taken.
        if let Some(reason) = kill {
            worker.kill(reason).await;
        }
        if !taken {
            return Err(NoWorker::Retired);
        }
        self.tell(services, WorkerState::Ready, Some(worker.facts().pid));
        Ok(worker)
    }

    /// Follows a worker to its death, writes it down, and renews the instance.
    async fn accompany(self: Arc<Self>, services: Arc<Services>, jobs: Arc<Jobs>, worker: Arc<dyn Worker>) {
        let death = worker.death().await;
        let facts = worker.facts();
        let unloaded = self.state().life.is_retired();
        if let Some(death) = &death {
            let phase = if unloaded { "cleanup" } else { "running" };
            services.write(self.died_commit(&facts.session, death, phase));
        }
        let was_told_to = unloaded || death.as_ref().is_some_and(|death| death.is_by_host());
        let state = if was_told_to { WorkerState::Unloaded } else { WorkerState::Dead };
        self.tell(&services, state, Some(facts.pid));
        self.end_incarnation(&mut self.state(), &jobs, &facts.session);
    }

    /// Kills the incarnation `session`, however far it has come; its end is told to the queue in any case.
    pub(crate) fn recycle(
        &self,
        services: &Services,
        jobs: &Jobs,
        session: &WorkerSessionId,
        reason: OwnKill,
    ) {
        let mut state = self.state();
        match state.life.recycle(session, WorkerSessionId::new()) {
            Recycling::Kill(worker) => {
                services.tasks.spawn(async move { worker.kill(reason).await });
            }
            Recycling::KillStart => state.start.give_up(reason),
            Recycling::Renewed(renewal) => self.tell_renewed(jobs, &renewal),
            Recycling::Gone => {}
        }
    }

    /// Takes the instance out of the queue and ends its worker, if there is one. What is being started is killed; whoever
    /// starts it waits for its end.
    pub(crate) async fn unload(&self, services: &Services, jobs: &Jobs, reason: OwnKill) {
        let retirement = {
            let mut state = self.state();
            let Some(retirement) = state.life.retire() else { return };
            self.tell_removed(jobs, retirement.removed.clone());
            self.changed.send_replace(());
            if retirement.starting {
                state.start.give_up(reason.clone());
            }
            retirement
        };
        if let Some(worker) = retirement.worker.filter(|worker| !worker.is_dead()) {
            tokio::select! {
                biased;
                () = services.grace_waived.cancelled() => worker.kill(reason).await,
                () = worker.unload(end_grace(services.options.unload_grace, self.plan.cancel_grace), reason.clone()) => {}
            }
        }
    }

    fn spawned_commit(
        &self,
        services: &Services,
        session: &WorkerSessionId,
        pid: u32,
        socket: &std::path::Path,
    ) -> Commit {
        let plan = &self.plan;
        tracing::info!(instance = %self.id, pid, "a worker is started");
        let mut commit = Commit::telling()
            .row(self.row(
                EventType::WorkerSpawned,
                session,
                json!({
                    "pid": pid,
                    "port": Value::Null,
                    "socket": socket.display().to_string(),
                    "module": plan.module(),
                    "runtime": plan.runtime_kind(),
                    "version": plan.version,
                    "env_overlay_keys": plan.overlay_keys,
                }),
            ))
            .write(Write::WorkerSpawned(Box::new(WorkerRecord {
                worker_session_id: session.clone(),
                host_session_id: services.host_session.clone(),
                instance_id: self.id.to_string(),
                capability_name: plan.capability.clone(),
                pid,
                spawned_at: Timestamp::now(),
                ended_at: None,
            })));
        if !plan.adapters.is_empty() {
            let specs: Vec<&str> = plan.adapters.iter().map(|adapter| adapter.spec.as_str()).collect();
            commit = commit.row(self.row(EventType::AdapterBound, session, json!({ "specs": specs })));
        }
        commit
    }

    fn journal_ready(&self, services: &Services, worker: &dyn Worker) {
        let facts = worker.facts();
        let session = &facts.session;
        tracing::info!(instance = %self.id, pid = facts.pid, seconds = facts.wait_seconds, "a worker is ready");
        let mut payload = json!({
            "wait_seconds": round_ms(facts.wait_seconds),
            "pid": facts.pid,
            "tool_pid": facts.ready.tool_pid,
            "tool_name": facts.ready.name,
            "tool_version": facts.ready.version,
        });
        if let Some(genuine) = &facts.genuine {
            payload["substrate_version"] = json!(genuine.substrate_version);
        }
        if !facts.drifted.is_empty() {
            payload["drifted"] = json!(facts.drifted);
        }
        services.note(self.row(EventType::WorkerReady, session, payload));
        if !self.plan.config.is_empty() {
            let mut keys: Vec<&String> = self.plan.config.keys().collect();
            keys.sort();
            services.note(self.row(
                EventType::ConfigApplied,
                session,
                json!({
                    "phase": "load", "config_keys": keys, "enabled": true,
                    "config": self.plan.config_to_show(),
                }),
            ));
        }
    }

    fn died_commit(&self, session: &WorkerSessionId, death: &Death, phase: &str) -> Commit {
        let mut row = self.row(EventType::WorkerDied, session, Value::Object(death.payload(phase)));
        row.event_id = died_id(session.as_str());
        tracing::info!(instance = %self.id, phase, "a worker has ended");
        Commit::telling().row(row).write(Write::WorkerEnded(session.clone(), Timestamp::now()))
    }

    fn row(&self, kind: EventType, session: &WorkerSessionId, payload: Value) -> JournalRow {
        let payload = match payload {
            Value::Object(map) => map,
            _ => Map::new(),
        };
        JournalRow {
            capability_instance_id: Some(self.id.to_string()),
            capability_name: Some(self.plan.capability.clone()),
            config_hash: Some(self.plan.config_hash.clone()),
            worker_session_id: Some(session.to_string()),
            ..JournalRow::new(kind, payload)
        }
    }

    fn tell(&self, services: &Services, state: WorkerState, pid: Option<u32>) {
        services.tell(HostEvent::Worker { instance_id: self.id.clone(), state, pid });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Start {
    /// Kills what is being brought up: now, or as soon as it has a process.
    fn give_up(&mut self, reason: OwnKill) {
        if let Some(killer) = &self.killer {
            killer(reason.clone());
        }
        self.kill.get_or_insert(reason);
    }
}

/// Counts a direct call for as long as it lives.
pub(crate) struct DirectCallCount(Arc<Instance>);

impl DirectCallCount {
    pub(crate) fn on(instance: &Arc<Instance>) -> Self {
        instance.direct_calls.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(instance))
    }
}

impl Drop for DirectCallCount {
    fn drop(&mut self) {
        self.0.direct_calls.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The instances of one host.
#[derive(Default)]
pub(crate) struct Instances(Mutex<Loaded>);

#[derive(Default)]
struct Loaded {
    by_id: BTreeMap<InstanceId, Arc<Instance>>,
    /// The host is ending: none is added any more.
    closed: bool,
}

/// Why an instance cannot be added.
pub(crate) enum NotAdded {
    Taken,
    HostEnds,
}

impl Instances {
    pub(crate) fn get(&self, id: &InstanceId) -> Option<Arc<Instance>> {
        self.loaded().by_id.get(id).cloned()
    }

    /// Adds one.
    pub(crate) fn add(&self, instance: &Arc<Instance>) -> Result<(), NotAdded> {
        let mut loaded = self.loaded();
        if loaded.closed {
            return Err(NotAdded::HostEnds);
        }
        match loaded.by_id.entry(instance.id.clone()) {
            btree_map::Entry::Occupied(_) => Err(NotAdded::Taken),
            btree_map::Entry::Vacant(place) => {
                place.insert(Arc::clone(instance));
                Ok(())
            }
        }
    }

    pub(crate) fn remove(&self, id: &InstanceId) -> Option<Arc<Instance>> {
        self.loaded().by_id.remove(id)
    }

    /// Removes this one; another of the same id, which was added since, stays.
    pub(crate) fn remove_this(&self, instance: &Arc<Instance>) {
        let mut loaded = self.loaded();
        if loaded.by_id.get(&instance.id).is_some_and(|known| Arc::ptr_eq(known, instance)) {
            loaded.by_id.remove(&instance.id);
        }
    }

    /// Takes them all, and lets none be added any more.
    pub(crate) fn close(&self) -> Vec<Arc<Instance>> {
        let mut loaded = self.loaded();
        loaded.closed = true;
        std::mem::take(&mut loaded.by_id).into_values().collect()
    }

    /// All that are wanted, by id.
    pub(crate) fn all(&self, wanted: impl Fn(&Instance) -> bool) -> Vec<Arc<Instance>> {
        self.loaded().by_id.values().filter(|instance| wanted(instance)).cloned().collect()
    }

    /// Any that is wanted.
    pub(crate) fn find(&self, wanted: impl Fn(&Instance) -> bool) -> Option<Arc<Instance>> {
        self.loaded().by_id.values().find(|instance| wanted(instance)).cloned()
    }

    fn loaded(&self) -> MutexGuard<'_, Loaded> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn round_ms(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_given_up_for_what_was_said_first() {
        let mut start = Start::default();
        start.give_up(OwnKill::StartTimeout { limit_ms: 5 });
        start.give_up(OwnKill::Unload);
        assert_eq!(start.kill, Some(OwnKill::StartTimeout { limit_ms: 5 }));
    }
}
