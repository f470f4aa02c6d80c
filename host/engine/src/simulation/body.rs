//! What starting and living simulated workers are made of: how one dies, and what all of them have seen.

use super::journal::SimulatedJournal;
use super::seed::Seed;
use cjm_decide::death::{Evidence, LifePhase, OwnKill, SincePhaseBegan, verdict};
use cjm_wire::{JobId, WorkerSessionId};
use cjm_workers::Death;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::watch;

/// How long a kill waits for a keeper that stands still.
const STOPPED_KEEPER_MAX: Duration = Duration::from_millis(500);

/// What the workers of one scenario have seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) sessions: BTreeSet<WorkerSessionId>,
    pub(super) living: BTreeSet<WorkerSessionId>,
    /// Calls that run, by worker.
    pub(super) calls: BTreeMap<WorkerSessionId, BTreeSet<JobId>>,
    /// Jobs whose request has reached a worker.
    pub(super) sent: BTreeSet<JobId>,
    /// What runs, called directly, and on which worker.
    pub(super) direct: BTreeMap<JobId, WorkerSessionId>,
    /// Calls that end when they are asked to.
    pub(super) cooperative: BTreeSet<JobId>,
    /// How many calls have reached a worker.
    pub(super) entered: usize,
    /// How many accounts tools gave with their answers.
    pub(super) accounts: usize,
    /// Workers that were ready.
    pub(super) ready: BTreeSet<WorkerSessionId>,
    /// How the deaths of workers that did not start are to be told.
    pub(super) start_phases: BTreeMap<WorkerSessionId, &'static str>,
    /// Why the host killed workers.
    pub(super) kills: Vec<OwnKill>,
    pub(super) broken: Vec<String>,
}

/// The process whose children workers are.
pub(super) const KEEPER_PID: u32 = 1;

impl Seen {
    /// The process of the newest worker.
    pub(super) fn newest_pid(&self) -> u32 {
        KEEPER_PID + u32::try_from(self.sessions.len()).expect("few")
    }

    pub(super) fn running(&self) -> usize {
        self.calls.values().map(BTreeSet::len).sum::<usize>() + self.direct.len()
    }
}

/// What starting and living workers are made of.
pub(super) struct Body {
    pub(super) capability: String,
    pub(super) session: WorkerSessionId,
    /// Why it is to die.
    pub(super) dying: watch::Sender<Option<Why>>,
    pub(super) death: watch::Sender<Option<Arc<Death>>>,
    pub(super) seed: Mutex<Seed>,
    pub(super) seen: Arc<Mutex<Seen>>,
    pub(super) journal: Arc<SimulatedJournal>,
    pub(super) cap: usize,
    /// Whether the keeper stands still, so that nobody is told of a death.
    pub(super) keeper_stands: watch::Receiver<bool>,
    /// A call has arrived at it.
    pub(super) has_taken: AtomicBool,
}

#[derive(Debug, Clone)]
pub(super) enum Why {
    Killed(OwnKill),
    ByItself,
}

impl Body {
    pub(super) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("not poisoned")
    }

    pub(super) fn seed(&self) -> Seed {
        self.seed.lock().expect("not poisoned").fork()
    }

    pub(super) fn kill(&self, why: Why) {
        self.dying.send_if_modified(|known| {
            let first = known.is_none();
            known.get_or_insert(why);
            first
        });
    }

    /// Waits for a reason to die, dies, and some time later that is known.
    pub(super) async fn die(self: Arc<Self>) {
        let mut dying = self.dying.subscribe();
        let why = dying.wait_for(Option::is_some).await.expect("the sender is ours").clone();
        if let Some(Why::Killed(reason)) = &why {
            self.seen().kills.push(reason.clone());
        }
        let mut seed = self.seed();
        tokio::time::sleep(seed.millis(10)).await;
        let mut keeper_stands = self.keeper_stands.clone();
        if *keeper_stands.borrow_and_update() {
            let _ = keeper_stands.wait_for(|stands| !stands).await;
            // That its keeper is gone is noticed when it is.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        self.seen().living.remove(&self.session);
        let mut evidence = Evidence::new(LifePhase::Calling, SincePhaseBegan::default());
        match why {
            Some(Why::Killed(reason)) => evidence.own_kill = Some(reason),
            Some(Why::ByItself) | None => evidence.keeper_lost = true,
        }
        self.death.send_replace(Some(Arc::new(Death::told(verdict(&evidence), Vec::new()))));
    }

    pub(super) async fn dead(&self) -> Arc<Death> {
        let mut death = self.death.subscribe();
        let death = death.wait_for(Option::is_some).await.expect("the sender is ours").clone();
        death.expect("waited for")
    }

    pub(super) async fn killed(&self, reason: OwnKill) {
        self.kill(Why::Killed(reason));
        // As with the real one: a keeper that stands still holds nobody for ever.
        let limit = if *self.keeper_stands.borrow() { STOPPED_KEEPER_MAX } else { Duration::MAX };
        let _ = tokio::time::timeout(limit, self.dead()).await;
    }
}
