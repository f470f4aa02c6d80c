//! One scenario: a host over simulated workers, callers who submit, cancel, call, go away, unload and load again, a disk
//! that fails for a while, sometimes an end in the middle. Then everything is accounted for.

use super::body::Seen;
use super::journal::{FullDisk, SimulatedJournal};
use super::making::host;
use super::seed::Seed;
use super::workers::SimulatedWorkers;
use crate::error::HostError;
use crate::host::Host;
use crate::queue::state::JobOutcome;
use crate::queue::submission::JobRequest;
use cjm_decide::queue::{QueueLimits, Target};
use cjm_wire::envelope::ExecuteRequest;
use cjm_wire::{CompositionId, InstanceId, JobId};
use cjm_workers::{CallError, LoadOptions};
use serde_json::{Map, Value};
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;
use tokio::time::Instant;

/// Nothing may take longer, however it goes.
const PATIENCE: Duration = Duration::from_secs(20 * 60);

/// How long a host may take to end that nothing holds; workers may take 200 ms of it.
const END_MAX: Duration = Duration::from_secs(1);

/// How long callers may still be at something once their host has ended: what they do between two calls.
const TOLD_MAX: Duration = Duration::from_secs(10);

/// What a scenario was made of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Told {
    pub(super) jobs: u64,
}

/// What is decided at the beginning.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    lanes: u32,
    pub(super) cap: u32,
    instances: usize,
    pub(super) jobs: usize,
    pub(super) start_failures: u64,
    pub(super) full_disk: Option<FullDisk>,
    pub(super) ends_early: Option<Duration>,
    pub(super) unloads: bool,
    pub(super) compositions: usize,
    pub(super) direct_calls: usize,
    pub(super) streams: usize,
    /// How many jobs may wait.
    pending_max: usize,
    /// The keeper stands still when the host ends.
    pub(super) keeper_stands: bool,
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
            pending_max: *seed.pick(&[QueueLimits::default().pending_max, 100, 100, 8]),
            keeper_stands: seed.percent(4),
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
    pub(super) accepted: Vec<JobId>,
    /// When somebody asked for the end of a job.
    pub(super) cancelled: Vec<(JobId, Instant)>,
    /// Cancelled by whoever would not wait for their tools to obey.
    pub(super) hurried: Vec<JobId>,
    pub(super) hurried_runs: Vec<CompositionId>,
    /// What callers wait for.
    waits: std::collections::BTreeMap<u64, String>,
    /// What waiters were told.
    pub(super) told: Vec<Arc<JobOutcome>>,
    /// Compositions whose callers were told.
    pub(super) answered: Vec<CompositionId>,
}

pub(super) struct Stage {
    pub(super) host: Host,
    pub(super) journal: Arc<SimulatedJournal>,
    pub(super) seen: Arc<Mutex<Seen>>,
    callers: Mutex<Callers>,
    pub(super) instances: Vec<InstanceId>,
    /// Nobody unloads an instance while calls run.
    pub(super) is_steady: bool,
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
    let (seen, keeper_stands) = (Arc::clone(&workers.seen), workers.keeper_stands.clone());
    tokio::spawn(Arc::clone(&journal).write_on());
    let limits = QueueLimits { lanes: plan.lanes, pending_max: plan.pending_max, ..QueueLimits::default() };
    let host = host(limits, &journal, Arc::new(workers));
    let instances: Vec<InstanceId> =
        (1..=plan.instances).map(|number| InstanceId::from_text(format!("tool-{number}"))).collect();
    for id in &instances {
        host.register("tool", &load(id, plan.cap)).map_err(|error| error.to_string())?;
    }
    let is_steady = plan.ends_early.is_none() && !plan.unloads;
    let stage = Stage { host, journal, seen, callers: Mutex::default(), instances, is_steady };
    let stage = Arc::new(stage);
    let mut parts = stage.set_out(&plan, &mut seed);
    let watching = tokio::spawn(Arc::clone(&stage).watch_counts());
    let all = async { while parts.join_next().await.is_some_and(|part| part.is_ok()) {} };
    match plan.ends_early {
        Some(after) => {
            let _ = tokio::time::timeout(after, all).await;
        }
        None => tokio::time::timeout(PATIENCE, all).await.map_err(|_| stage.hangs(&plan))?,
    }
    if plan.ends_early.is_none() {
        tokio::time::timeout(PATIENCE, stage.all_end()).await.map_err(|_| stage.hangs(&plan))?;
        stage.check_monitors()?;
    }
    let failing = plan.ends_early.is_some() && plan.full_disk.is_some();
    keeper_stands.send_replace(plan.keeper_stands);
    let ending = Instant::now();
    let report = tokio::time::timeout(PATIENCE, stage.host.clone().shutdown());
    report.await.map_err(|_| format!("the host does not end: {plan:?}"))?;
    if !plan.keeper_stands && !failing && ending.elapsed() > END_MAX {
        return Err(format!("the host took {:?} to end: {plan:?}", ending.elapsed()));
    }
    // Whoever waits is told now.
    let rest = async {
        while let Some(part) = parts.join_next().await {
            part.map_err(|error| error.to_string())?;
        }
        Ok::<_, String>(())
    };
    tokio::time::timeout(TOLD_MAX, rest).await.map_err(|_| stage.hangs(&plan))??;
    watching.abort();
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
    pub(super) async fn submit(self: Arc<Self>, mut seed: Seed) {
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
            "account",
            "claims",
            "untaken",
            "account-and-fail",
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
            request.timeout = seed.percent(30).then(|| Duration::from_millis(1 + seed.below(500)).into());
        }
        if endless && seed.percent(30) {
            request.timeout = Some(seed.millis(300).into());
        }
        let cancels = cancels && !(endless && request.timeout.is_some());
        if seed.percent(20) {
            // Nobody will ask for its end.
            request.timeout = endless.then(|| seed.millis(500).into());
            return abandon(self.host.submit(request), &mut seed).await;
        }
        let caller = seed.next();
        self.waits(caller, format!("to submit {act}"));
        let submitted = self.host.submit(request).await;
        self.waits(caller, format!("for {submitted:?}, which is to {act}"));
        let Ok(id) = submitted else { return self.waits_no_more(caller) };
        self.callers().accepted.push(id.clone());
        if cancels {
            // Some cancels come while the request is on its way, and some callers will not wait for a tool to obey.
            let within_ms = *seed.pick(&[400, 400, 8]);
            let (after, patience) = (seed.millis(within_ms), seed.percent(20).then(|| seed.millis(100)));
            tokio::spawn(Arc::clone(&self).cancel(id.clone(), after, patience));
        }
        if let Ok(outcome) = self.host.wait(&id).await {
            self.callers().told.push(outcome);
        }
        self.waits_no_more(caller);
    }

    async fn cancel(self: Arc<Self>, id: JobId, after: Duration, patience: Option<Duration>) {
        tokio::time::sleep(after).await;
        self.host.cancel(&id);
        self.callers().cancelled.push((id.clone(), Instant::now()));
        if let Some(patience) = patience {
            tokio::time::sleep(patience).await;
            self.callers().hurried.push(id.clone());
            self.host.cancel_at_once(&id);
        }
    }

    pub(super) fn waits(&self, caller: u64, what: String) {
        self.callers().waits.insert(caller, what);
    }

    pub(super) fn waits_no_more(&self, caller: u64) {
        self.callers().waits.remove(&caller);
    }

    /// A direct call, which is waited for, given a time, or dropped.
    pub(super) async fn call(self: Arc<Self>, mut seed: Seed) {
        tokio::time::sleep(seed.millis(900)).await;
        let act = *seed.pick(&[
            "ok",
            "account",
            "account-and-fail",
            "fail",
            "die",
            "hang",
            "deaf",
            "stubborn",
            "claims",
        ]);
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
        let begun = Instant::now();
        let answer = self.host.call(&id, request, timeout).await;
        self.check_direct(begun, timeout, answer.as_ref().err());
        self.waits_no_more(caller);
    }

    /// Whoever is given a time is told by then, and of no cancel that nobody asked for.
    pub(super) fn check_direct(&self, begun: Instant, timeout: Option<Duration>, error: Option<&CallError>) {
        let (took, max) = (begun.elapsed(), timeout.unwrap_or(Duration::MAX));
        if took > max.saturating_add(Duration::from_millis(1)) {
            self.complain(format!("a call takes {took:?}, and was given {timeout:?}"));
        }
        if self.is_steady && matches!(error, Some(CallError::Cancelled { .. })) {
            self.complain("a call is told as cancelled, and nobody had asked".to_owned());
        }
    }

    pub(super) async fn unload_and_load(self: Arc<Self>, mut seed: Seed, cap: u32) {
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
            match self.host.load("tool", load(&id, cap)).await {
                Err(HostError::ShuttingDown) => return,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                Ok(_) => {}
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
