//! Instances: what a user loads and calls. An instance outlives its workers: each worker is one incarnation of it, and
//! after a death the next call starts the next one. Nothing is restarted for nobody, so nothing can loop.
//!
//! The incarnation's id is chosen before the worker is started, so that queue, journal and worker speak of the same.

use crate::queue::state::Jobs;
use crate::services::Services;
use cjm_decide::queue::QueueEvent;
use cjm_wire::event::{EventType, JournalRow};
use cjm_wire::{InstanceId, WorkerSessionId};
use cjm_workers::{Death, HostEvent, NotStarted, StartError, Worker, WorkerPlan, WorkerState};
use serde_json::{Map, Value, json};
use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// One loaded instance.
pub(crate) struct Instance {
    pub(crate) id: InstanceId,
    pub(crate) plan: WorkerPlan,
    pub(crate) concurrency_max: u32,
    /// Single flight: whoever holds it starts or ends the worker.
    starting: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

struct State {
    incarnation: WorkerSessionId,
    worker: Option<Arc<Worker>>,
    unloaded: bool,
    /// Incarnations and their processes, the newest last; a job that has just ended still asks.
    pids: VecDeque<(WorkerSessionId, u32)>,
}

/// Dead incarnations whose process is remembered.
const PIDS_KEPT_MAX: usize = 8;

impl Instance {
    pub(crate) fn new(plan: WorkerPlan, concurrency_max: u32) -> Self {
        Self {
            id: plan.instance.clone(),
            plan,
            concurrency_max,
            starting: tokio::sync::Mutex::new(()),
            state: Mutex::new(State {
                incarnation: WorkerSessionId::new(),
                worker: None,
                unloaded: false,
                pids: VecDeque::new(),
            }),
        }
    }

    /// Tells the queue that the present incarnation takes calls.
    pub(crate) fn announce(&self, jobs: &Jobs) {
        jobs.tell_queue(QueueEvent::InstanceAdded {
            instance: self.id.clone(),
            session: self.incarnation(),
            capability: self.plan.capability.clone(),
            concurrency_max: self.concurrency_max,
        });
    }

    /// The id of the worker that runs, or of the one that would be started now.
    pub(crate) fn incarnation(&self) -> WorkerSessionId {
        self.state().incarnation.clone()
    }

    /// The worker, if one lives.
    pub(crate) fn worker(&self) -> Option<Arc<Worker>> {
        self.state().worker.clone().filter(|worker| !worker.is_dead())
    }

    /// The process of the worker that is or was this incarnation.
    pub(crate) fn last_pid(&self, session: Option<&WorkerSessionId>) -> Option<u32> {
        let state = self.state();
        state.pids.iter().rev().find(|(known, _)| Some(known) == session).map(|(_, pid)| *pid)
    }

    /// The living worker; started when there is none.
    pub(crate) async fn ensure_worker(
        self: &Arc<Self>,
        services: &Arc<Services>,
        jobs: &Arc<Jobs>,
    ) -> Result<Arc<Worker>, StartError> {
        if let Some(worker) = self.worker() {
            return Ok(worker);
        }
        let _single_flight = self.starting.lock().await;
        if let Some(worker) = self.worker() {
            return Ok(worker);
        }
        if self.state().unloaded {
            return Err(StartError::Spawn {
                capability: self.plan.capability.clone(),
                message: "the instance is being unloaded".to_owned(),
                next_step: "load it again".to_owned(),
            });
        }
        match self.start(services).await {
            Ok(worker) => {
                self.state().worker = Some(Arc::clone(&worker));
                tokio::spawn(accompany(
                    Arc::clone(self),
                    Arc::clone(services),
                    Arc::clone(jobs),
                    Arc::clone(&worker),
                ));
                Ok(worker)
            }
            Err(error) => {
                // The next attempt is another incarnation, and its id must be another one in the journal.
                self.renew(jobs);
                Err(error)
            }
        }
    }

    async fn start(&self, services: &Services) -> Result<Arc<Worker>, StartError> {
        let plan = &self.plan;
        let keeper = services.keeper(&plan.capability).await?;
        let not_started = NotStarted {
            plan,
            session: self.incarnation(),
            keeper,
            sinks: Arc::clone(&services.sinks),
            runtime_dir: services.runtime_dir.clone(),
            log_level: services.options.log_level.clone(),
            host_dir: services.options.data_dir.clone(),
        };
        self.tell(services, WorkerState::Starting, None);
        let spawned = not_started.spawn().await?;
        let pid = spawned.pid;
        services.note(self.row(
            EventType::WorkerSpawned,
            spawned.session(),
            json!({
                "pid": pid,
                "port": Value::Null,
                "socket": spawned.socket().display().to_string(),
                "module": plan.module(),
                "runtime": plan.runtime_kind(),
                "version": plan.version,
                "env_overlay_keys": plan.overlay_keys,
            }),
        ));
        if !plan.adapters.is_empty() {
            let specs: Vec<&str> = plan.adapters.iter().map(|adapter| adapter.spec.as_str()).collect();
            services.note(self.row(EventType::AdapterBound, spawned.session(), json!({ "specs": specs })));
        }
        services.note_worker(spawned.session(), &self.id, &plan.capability, pid);
        {
            let mut state = self.state();
            if state.pids.len() == PIDS_KEPT_MAX {
                state.pids.pop_front();
            }
            state.pids.push_back((spawned.session().clone(), pid));
        }
        let session = spawned.session().clone();
        let mut death = spawned.death_watch();
        match spawned.ready(plan, services.options.ready_timeout).await {
            Ok(worker) => {
                self.journal_ready(services, &worker);
                self.tell(services, WorkerState::Ready, Some(pid));
                Ok(Arc::new(worker))
            }
            Err(error) => {
                let phase = if matches!(error, StartError::NeverReady { .. }) {
                    "startup_timeout"
                } else {
                    "startup"
                };
                let known = death.borrow_and_update().clone();
                if let Some(death) = known {
                    services.note(self.died_row(&session, &death, phase));
                }
                // Only what died by itself is news; the rest was ended by us, and the error says why.
                let died = matches!(error, StartError::Died { .. });
                let state = if died { WorkerState::Dead } else { WorkerState::Unloaded };
                self.tell(services, state, Some(pid));
                Err(error)
            }
        }
    }

    fn journal_ready(&self, services: &Services, worker: &Worker) {
        let session = worker.session();
        let mut payload = json!({
            "wait_seconds": round_ms(worker.wait_seconds),
            "pid": worker.pid,
            "tool_pid": worker.ready.tool_pid,
            "tool_name": worker.ready.name,
            "tool_version": worker.ready.version,
        });
        if let Some(genuine) = &worker.genuine {
            payload["substrate_version"] = json!(genuine.substrate_version);
            if !genuine.drifted.is_empty() {
                payload["drifted"] = json!(genuine.drifted);
            }
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
                }),
            ));
        }
    }

    /// Ends the worker, if there is one, and takes the instance out of the queue.
    pub(crate) async fn unload(&self, services: &Services, jobs: &Jobs) {
        let _single_flight = self.starting.lock().await;
        let (worker, session) = {
            let mut state = self.state();
            state.unloaded = true;
            (state.worker.clone(), state.incarnation.clone())
        };
        jobs.tell_queue(QueueEvent::InstanceRemoved { instance: self.id.clone(), session });
        if let Some(worker) = worker.filter(|worker| !worker.is_dead()) {
            worker.unload(services.options.unload_grace).await;
        }
    }

    fn renew(&self, jobs: &Jobs) {
        let (old, unloaded) = {
            let mut state = self.state();
            let old = std::mem::take(&mut state.incarnation);
            state.worker = None;
            (old, state.unloaded)
        };
        jobs.tell_queue(QueueEvent::InstanceRemoved { instance: self.id.clone(), session: old });
        if !unloaded {
            self.announce(jobs);
        }
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

    fn died_row(&self, session: &WorkerSessionId, death: &Death, phase: &str) -> JournalRow {
        self.row(EventType::WorkerDied, session, Value::Object(death.payload(phase)))
    }

    fn tell(&self, services: &Services, state: WorkerState, pid: Option<u32>) {
        services.tell(HostEvent::Worker { instance_id: self.id.clone(), state, pid });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The instances of one host.
#[derive(Default)]
pub(crate) struct Instances(Mutex<HashMap<InstanceId, Arc<Instance>>>);

impl Instances {
    pub(crate) fn get(&self, id: &InstanceId) -> Option<Arc<Instance>> {
        self.map().get(id).cloned()
    }

    /// Adds one; false when its id is taken.
    pub(crate) fn add(&self, instance: &Arc<Instance>) -> bool {
        match self.map().entry(instance.id.clone()) {
            Entry::Occupied(_) => false,
            Entry::Vacant(place) => {
                place.insert(Arc::clone(instance));
                true
            }
        }
    }

    pub(crate) fn remove(&self, id: &InstanceId) -> Option<Arc<Instance>> {
        self.map().remove(id)
    }

    /// Takes them all.
    pub(crate) fn take_all(&self) -> Vec<Arc<Instance>> {
        self.map().drain().map(|(_, instance)| instance).collect()
    }

    /// Any that is wanted.
    pub(crate) fn find(&self, wanted: impl Fn(&Instance) -> bool) -> Option<Arc<Instance>> {
        self.map().values().find(|instance| wanted(instance)).cloned()
    }

    fn map(&self) -> MutexGuard<'_, HashMap<InstanceId, Arc<Instance>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Follows a worker to its death, and writes it down.
async fn accompany(instance: Arc<Instance>, services: Arc<Services>, jobs: Arc<Jobs>, worker: Arc<Worker>) {
    let Some(death) = worker.death().await else { return };
    let unloaded = instance.state().unloaded;
    let phase = if unloaded { "cleanup" } else { "running" };
    services.note(instance.died_row(worker.session(), &death, phase));
    services.note_worker_end(worker.session());
    instance.tell(
        &services,
        if unloaded { WorkerState::Unloaded } else { WorkerState::Dead },
        Some(worker.pid),
    );
    instance.renew(&jobs);
}

fn round_ms(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}
