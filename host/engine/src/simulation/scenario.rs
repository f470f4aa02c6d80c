//! One scenario: a host over simulated workers, callers who submit, cancel, call, go away, unload and load again, a disk
//! that fails for a while, sometimes an end in the middle. Then everything is accounted for.

use super::journal::{FullDisk, Kept, SimulatedJournal};
use super::seed::Seed;
use super::workers::{Seen, SimulatedWorkers};
use crate::host::{Host, SimulatedParts};
use crate::queue::attempt::Runner;
use crate::queue::owner::own_queue;
use crate::queue::state::{JobOutcome, Jobs};
use crate::queue::submission::JobRequest;
use crate::services::{History, Services};
use cjm_catalog::{Catalog, ManifestFolder};
use cjm_decide::death::OwnKill;
use cjm_decide::queue::{CANCEL_GRACE_MS, NOT_TAKEN_MAX, QueueLimits, Target};
use cjm_store::{DiagnosticRecord, Diagnostics, DroppedCounts, InputHashes, JobRecord, Journal, StreamChunk};
use cjm_wire::envelope::ExecuteRequest;
use cjm_wire::event::JobStatus;
use cjm_wire::{CompositionId, InstanceId, JobId, RunId};
use cjm_workers::{HostOptions, LoadOptions, Sinks, Workers};
use serde_json::{Map, Value, json};
use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};
use std::task::Poll;
use std::time::Duration;
use tokio::sync::{broadcast, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What the host may take, beyond the grace, from a cancel to the end of a job.
const CANCEL_SLACK: Duration = Duration::from_millis(500);
/// What it may take where there is nobody to ask: the request is not out yet.
const CANCEL_UNSENT_MAX: Duration = Duration::from_millis(100);
/// Nothing may take longer, however it goes.
const PATIENCE: Duration = Duration::from_secs(20 * 60);

/// What a scenario was made of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Told {
    pub(super) jobs: u64,
}

/// What is decided at the beginning.
#[derive(Debug, Clone)]
struct Plan {
    lanes: u32,
    cap: u32,
    instances: usize,
    jobs: usize,
    start_failures: u64,
    full_disk: Option<FullDisk>,
    ends_early: Option<Duration>,
    unloads: bool,
    compositions: usize,
    direct_calls: usize,
    streams: usize,
}

impl Plan {
    fn of(seed: &mut Seed) -> Self {
        let ends_early = seed.percent(35).then(|| seed.millis(1_500));
        Self {
            lanes: u32::try_from(1 + seed.below(4)).expect("small"),
            cap: u32::try_from(1 + seed.below(3)).expect("small"),
            instances: usize::try_from(1 + seed.below(2)).expect("small"),
            jobs: usize::try_from(3 + seed.below(25)).expect("small"),
            start_failures: *seed.pick(&[0, 0, 10, 40]),
            full_disk: seed
                .percent(25)
                .then(|| FullDisk { after: seed.millis(800), lasts: seed.millis(3_000) }),
            ends_early,
            unloads: seed.percent(20),
            compositions: if seed.percent(40) {
                usize::try_from(1 + seed.below(2)).expect("small")
            } else {
                0
            },
            direct_calls: usize::try_from(seed.below(6)).expect("small"),
            streams: usize::try_from(seed.below(5)).expect("small"),
        }
    }
}

/// Runs the scenario of a seed.
///
/// # Errors
/// What was broken.
pub(super) fn run(seed: u64) -> Result<Told, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .map_err(|error| error.to_string())?;
    runtime.block_on(play(Seed::new(seed)))
}

/// What the callers know.
#[derive(Debug, Default)]
pub(super) struct Callers {
    /// Jobs whose submission was answered.
    accepted: Vec<JobId>,
    /// When somebody asked for the end of a job.
    cancelled: Vec<(JobId, Instant)>,
    /// What callers wait for.
    waits: std::collections::BTreeMap<u64, String>,
    /// What waiters were told.
    told: Vec<Arc<JobOutcome>>,
    /// Compositions whose callers were told.
    pub(super) answered: Vec<CompositionId>,
}

pub(super) struct Stage {
    pub(super) host: Host,
    pub(super) journal: Arc<SimulatedJournal>,
    pub(super) seen: Arc<Mutex<Seen>>,
    callers: Mutex<Callers>,
    pub(super) instances: Vec<InstanceId>,
}

async fn play(mut seed: Seed) -> Result<Told, String> {
    let plan = Plan::of(&mut seed);
    let journal = SimulatedJournal::new(seed.fork());
    let workers = SimulatedWorkers::new(
        Arc::clone(&journal),
        seed.fork(),
        usize::try_from(plan.cap).unwrap_or(1),
        plan.start_failures,
    );
    let seen = Arc::clone(&workers.seen);
    tokio::spawn(Arc::clone(&journal).write_on());
    let limits = QueueLimits { lanes: plan.lanes, ..QueueLimits::default() };
    let host = host(limits, &journal, Arc::new(workers));
    let instances: Vec<InstanceId> =
        (1..=plan.instances).map(|number| InstanceId::from_text(format!("tool-{number}"))).collect();
    for id in &instances {
        host.register("tool", &load(id, plan.cap)).map_err(|error| error.to_string())?;
    }
    let stage = Arc::new(Stage { host, journal, seen, callers: Mutex::default(), instances });
    let mut parts = tokio::task::JoinSet::new();
    for _ in 0..plan.jobs {
        parts.spawn(Arc::clone(&stage).submit(seed.fork()));
    }
    for _ in 0..plan.direct_calls {
        parts.spawn(Arc::clone(&stage).call(seed.fork()));
    }
    if plan.unloads {
        parts.spawn(Arc::clone(&stage).unload_and_load(seed.fork(), plan.cap));
    }
    for _ in 0..plan.compositions {
        parts.spawn(Arc::clone(&stage).compose(seed.fork(), plan.full_disk.is_some()));
    }
    for _ in 0..plan.streams {
        parts.spawn(Arc::clone(&stage).stream(seed.fork()));
    }
    if let Some(FullDisk { after, lasts }) = plan.full_disk {
        let journal = Arc::clone(&stage.journal);
        parts.spawn(async move {
            tokio::time::sleep(after).await;
            journal.set_failing(true);
            tokio::time::sleep(lasts).await;
            journal.set_failing(false);
        });
    }
    let all = async { while parts.join_next().await.is_some_and(|part| part.is_ok()) {} };
    match plan.ends_early {
        Some(after) => {
            let _ = tokio::time::timeout(after, all).await;
        }
        None => tokio::time::timeout(PATIENCE, all).await.map_err(|_| stage.hangs(&plan))?,
    }
    if plan.ends_early.is_none() {
        tokio::time::timeout(PATIENCE, stage.all_end()).await.map_err(|_| stage.hangs(&plan))?;
    }
    let failing = plan.ends_early.is_some() && plan.full_disk.is_some();
    let report = tokio::time::timeout(PATIENCE, stage.host.clone().shutdown());
    report.await.map_err(|_| format!("the host does not end: {plan:?}"))?;
    parts.abort_all();
    stage.check(&plan, failing)?;
    let jobs = stage.journal.kept(|kept| kept.jobs.len() as u64);
    Ok(Told { jobs })
}

pub(super) fn load(id: &InstanceId, cap: u32) -> LoadOptions {
    LoadOptions { instance_id: Some(id.clone()), concurrency_max: Some(cap), ..LoadOptions::default() }
}

impl Stage {
    pub(super) fn callers(&self) -> std::sync::MutexGuard<'_, Callers> {
        self.callers.lock().expect("not poisoned")
    }

    /// What must not be.
    pub(super) fn complain(&self, complaint: String) {
        self.seen.lock().expect("not poisoned").broken.push(complaint);
    }

    /// Submits one job, waits for it or not, cancels it or not, goes away or not.
    async fn submit(self: Arc<Self>, mut seed: Seed) {
        tokio::time::sleep(seed.millis(900)).await;
        let target = if seed.percent(80) {
            Target::Capability("tool".to_owned())
        } else {
            Target::Instance(seed.pick(&self.instances).clone())
        };
        let mut request = JobRequest::new(target);
        let acts = [
            "ok",
            "ok",
            "ok",
            "fail",
            "die",
            "answer-and-die",
            "hang",
            "deaf",
            "stubborn",
            "large",
            "claims",
            "untaken",
        ];
        let act = *seed.pick(&acts);
        let endless = matches!(act, "hang" | "deaf" | "stubborn");
        request.kwargs = arguments(act, seed.below(60), true)
            .into_iter()
            .map(|(name, value)| (name, value.into()))
            .collect();
        request.priority = i32::try_from(seed.below(3)).expect("small");
        let cancels = endless || seed.percent(15);
        if !cancels || seed.percent(20) {
            request.timeout = seed.percent(30).then(|| Duration::from_millis(1 + seed.below(500)));
        }
        if endless && seed.percent(30) {
            request.timeout = Some(seed.millis(300));
        }
        let cancels = cancels && !(endless && request.timeout.is_some());
        if seed.percent(20) {
            // Nobody will ask for its end.
            request.timeout = endless.then(|| seed.millis(500));
            return abandon(self.host.submit(request), &mut seed).await;
        }
        let caller = seed.next();
        self.waits(caller, format!("to submit {act}"));
        let submitted = self.host.submit(request).await;
        self.waits(caller, format!("for {submitted:?}, which is to {act}"));
        let Ok(id) = submitted else { return self.waits_no_more(caller) };
        self.callers().accepted.push(id.clone());
        if cancels {
            // Some cancels come while the request is on its way.
            let within_ms = *seed.pick(&[400, 400, 8]);
            let (stage, id, after) = (Arc::clone(&self), id.clone(), seed.millis(within_ms));
            tokio::spawn(async move {
                tokio::time::sleep(after).await;
                stage.host.cancel(&id);
                stage.callers().cancelled.push((id, Instant::now()));
            });
        }
        if let Ok(outcome) = self.host.wait(&id).await {
            self.callers().told.push(outcome);
        }
        self.waits_no_more(caller);
    }

    pub(super) fn waits(&self, caller: u64, what: String) {
        self.callers().waits.insert(caller, what);
    }

    pub(super) fn waits_no_more(&self, caller: u64) {
        self.callers().waits.remove(&caller);
    }

    /// A direct call, which is waited for, given a time, or dropped.
    async fn call(self: Arc<Self>, mut seed: Seed) {
        tokio::time::sleep(seed.millis(900)).await;
        let act = *seed.pick(&["ok", "fail", "die", "hang", "deaf", "stubborn"]);
        let request =
            ExecuteRequest { kwargs: arguments(act, seed.below(60), false), ..ExecuteRequest::default() };
        let id = seed.pick(&self.instances).clone();
        let endless = matches!(act, "hang" | "deaf" | "stubborn");
        if seed.percent(30) {
            return abandon(self.host.call(&id, request, None), &mut seed).await;
        }
        let timeout = (endless || seed.percent(20)).then(|| seed.millis(300));
        let caller = seed.next();
        self.waits(caller, format!("for a call of {id} to {act}, at most {timeout:?}"));
        let _ = self.host.call(&id, request, timeout).await;
        self.waits_no_more(caller);
    }

    async fn unload_and_load(self: Arc<Self>, mut seed: Seed, cap: u32) {
        tokio::time::sleep(seed.millis(800)).await;
        let id = seed.pick(&self.instances).clone();
        if seed.percent(30) {
            abandon(self.host.unload(&id), &mut seed).await;
        } else {
            let _ = self.host.unload(&id).await;
        }
        tokio::time::sleep(seed.millis(200)).await;
        // Its load may fail, which unloads it again; who waits for it must be served all the same.
        while !self.host.is_loaded(&id) {
            if self.host.load("tool", load(&id, cap)).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }

    /// Waits until every accepted job has ended, those of callers who went away too, and nothing is being called.
    async fn all_end(&self) {
        let mut quiet = 0;
        while quiet < 3 {
            let open =
                self.journal.kept(|kept| kept.jobs.values().filter(|job| !job.status.is_terminal()).count());
            let running = self.seen.lock().expect("not poisoned").running();
            // What a caller who went away has begun may still be on its way into the store.
            quiet = if open == 0 && running == 0 { quiet + 1 } else { 0 };
            // A clock that is moved costs nothing to look at.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn hangs(&self, plan: &Plan) -> String {
        let open = self.journal.kept(|kept| {
            kept.jobs
                .values()
                .filter(|job| !job.status.is_terminal())
                .map(|job| format!("{} {} {:?}", job.job_id, job.status, job.worker_session_id))
                .collect::<Vec<_>>()
        });
        let waits = &self.callers().waits;
        let broken = self.journal.kept(|kept| kept.broken.clone());
        format!("something does not end: {open:#?}, {waits:#?}, {broken:#?}, {plan:?}")
    }

    fn check(&self, plan: &Plan, disk_may_fail: bool) -> Result<(), String> {
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
            for (id, job) in &kept.jobs {
                let ended = job.status.is_terminal();
                ensure(ended == kept.terminal_rows.contains_key(id.as_str()), || {
                    format!("{id} is {} and its rows say otherwise", job.status)
                })?;
                let why = job.failure.is_some();
                ensure(why == (job.status == JobStatus::Failed), || {
                    format!("{id} is {}, and why is {:?}", job.status, job.failure)
                })?;
                check_not_taken(job)?;
                if disk_may_fail {
                    continue;
                }
                let never_ran = plan.ends_early.is_some() && job.status == JobStatus::Pending;
                ensure(ended || never_ran, || {
                    format!("{id} is {} when the host has ended, {plan:?}", job.status)
                })?;
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
            ensure(kept.workers_open.is_empty(), || format!("open workers: {:?}", kept.workers_open))?;
            ensure(kept.spawned.len() == seen.sessions.len(), || "a spawned worker has no row".to_owned())?;
            if plan.full_disk.is_some() {
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
}

impl Stage {
    /// Whoever is killed for a job is told the reason for which the job ends, and was asked before.
    fn check_kill(&self, reason: &OwnKill, seen: &Seen) -> Result<(), String> {
        let (job, for_deadline) = match reason {
            OwnKill::ForceCancel { job } => (job, false),
            OwnKill::Deadline { job } => (job, true),
            _ => return Ok(()),
        };
        ensure(!seen.cooperative.contains(job), || {
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

pub(super) fn arguments(act: &str, ms: u64, job: bool) -> Map<String, Value> {
    let mut arguments = Map::from_iter([("do".to_owned(), act.into()), ("ms".to_owned(), ms.into())]);
    if job {
        arguments.insert("job".to_owned(), true.into());
    }
    arguments
}

/// Polls a future a few times, or for a while, and drops it.
pub(super) async fn abandon<T>(future: impl Future<Output = T>, seed: &mut Seed) {
    if seed.percent(50) {
        let mut polls = seed.below(4);
        let mut future = std::pin::pin!(future);
        std::future::poll_fn(|context| {
            if polls == 0 || future.as_mut().poll(context).is_ready() {
                return Poll::Ready(());
            }
            polls -= 1;
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    } else {
        let _ = tokio::time::timeout(seed.millis(200), future).await;
    }
}

/// A host as `bring_up` makes one, over what is simulated.
pub(super) fn host(limits: QueueLimits, journal: &Arc<SimulatedJournal>, workers: Arc<dyn Workers>) -> Host {
    let directory = manifests();
    let mut options = HostOptions::new(directory.join("data"));
    options.actor = "simulator".to_owned();
    options.ready_timeout = Duration::from_secs(5);
    let (events, _) = broadcast::channel(64);
    let (queue, commands) = mpsc::unbounded_channel();
    let services = Services {
        run_id: RunId::new(),
        input_hashes: Arc::new(InputHashes::of(&options.data_dir)),
        history: Arc::clone(journal) as Arc<dyn History>,
        options,
        journal: Arc::clone(journal) as Arc<dyn Journal>,
        sinks: Arc::new(Sinks { diagnostics: Arc::new(Deaf), events }),
        workers,
        host_session: "simulated".to_owned(),
        tasks: TaskTracker::new(),
        closing: CancellationToken::new(),
    };
    let runner = Runner {
        services: Arc::new(services),
        instances: Arc::default(),
        jobs: Arc::new(Jobs::new(queue, limits)),
    };
    tokio::spawn(own_queue(runner.downgrade(), commands, limits, journal.gate()));
    let catalog = Catalog::discover(&[ManifestFolder::named(&directory)]);
    Host::simulated(SimulatedParts { runner, catalog, diagnostics: Arc::new(Deaf), directory })
}

/// A folder with the manifest of the one capability, made once.
fn manifests() -> PathBuf {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a folder");
        let manifest = json!({
            "format_version": "2.0",
            "code": {
                "name": "tool", "version": "1", "description": "simulated",
                "runtime": {"kind": "native", "program": "/bin/true"},
            },
        });
        std::fs::write(folder.path().join("tool.json"), manifest.to_string()).expect("written");
        folder
    });
    folder.path().to_owned()
}

/// Diagnostics that nobody keeps.
#[derive(Debug)]
struct Deaf;

impl Diagnostics for Deaf {
    fn record(&self, _: DiagnosticRecord) -> bool {
        true
    }
    fn chunk(&self, _: StreamChunk) -> bool {
        true
    }
    fn dropped(&self) -> DroppedCounts {
        DroppedCounts::default()
    }
    fn flush(&self) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send + 'static>> {
        Box::pin(async {})
    }
    fn close(&self) {}
}
