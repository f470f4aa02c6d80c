//! The processes this worker started, apart from those that fell to it as a subreaper: which statuses are ours
//! to keep, and clearing what a tool has left.
//!
//! What must hold: a process of ours stays a zombie until its owner reaps it here, so its number cannot be
//! reused while signals may still be sent; orphans are reaped as they fall to us; nothing is started while all
//! descendants are being cleared.

use cjm_platform::child::{LifetimeUsage, own_children, reap_with_usage, signal_group};
use cjm_platform::spawn::{SpawnError, SpawnRequest, Spawned, spawn};
use cjm_platform::tree::{Clear, kill_descendants, process_info, reap_adopted};
use cjm_platform::{Pid, Signal, WaitStatus};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// How long clearing may take before what is left is given up (processes in uninterruptible sleep).
pub(crate) const CLEAR_MAX: Duration = Duration::from_secs(5);

/// The registry. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Children {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    own: Mutex<BTreeSet<Pid>>,
    /// Held while a process is started, and while all descendants are cleared.
    tree: tokio::sync::Mutex<()>,
}

impl Children {
    /// Starts a program. To be called on the main thread: the parent-death signal follows the thread.
    pub(crate) async fn spawn(&self, request: SpawnRequest) -> Result<Spawned, SpawnError> {
        let _tree = self.shared.tree.lock().await;
        let spawned = spawn(request)?;
        self.lock().insert(spawned.pid);
        Ok(spawned)
    }

    /// Takes the status of a process of ours that has exited. The last thing done with its number.
    pub(crate) fn reap(&self, pid: Pid) -> Option<(WaitStatus, LifetimeUsage)> {
        let ended = reap_with_usage(pid).ok().flatten();
        self.lock().remove(&pid);
        ended
    }

    /// Kills what the exited `leader` has left: its group, and, when nothing else of ours runs, every other
    /// descendant. The leader stays a zombie.
    pub(crate) async fn clear_after(&self, leader: Pid) {
        // ESRCH: nobody but the zombie.
        let _ = signal_group(leader, Signal::KILL);
        if self.is_alone(leader) {
            return;
        }
        let _tree = self.shared.tree.lock().await;
        if self.lock().len() > 1 {
            return;
        }
        let clearing = tokio::task::spawn_blocking(move || {
            let keep = [leader];
            Clear { keep_zombies: &keep, ..Clear::own(CLEAR_MAX) }.run()
        });
        if let Ok(Err(error)) = clearing.await {
            eprintln!("clearing what process {leader} left failed: {error}");
        }
    }

    /// Whether a process of the exited `leader`'s group lives that has fallen to this process, as its children do.
    pub(crate) fn has_group(&self, leader: Pid) -> bool {
        let is_of_it = |pid: &Pid| {
            *pid != leader
                && process_info(*pid)
                    .is_some_and(|found| found.pgid == leader.as_raw() && !matches!(found.state, 'Z' | 'X'))
        };
        own_children().is_some_and(|children| children.iter().any(is_of_it))
    }

    /// Kills and reaps everything below this process. Blocks; for the end of the process.
    pub(crate) fn kill_all() {
        if let Err(error) = kill_descendants(&[], CLEAR_MAX) {
            eprintln!("clearing the tree failed: {error}");
        }
    }

    /// Reaps orphans as they fall to this process, for ever.
    pub(crate) async fn run_reaper(self) {
        let Ok(mut child_signals) = signal(SignalKind::child()) else { return };
        while child_signals.recv().await.is_some() {
            let own: Vec<Pid> = self.lock().iter().copied().collect();
            // What cannot be reaped now is met again by the next signal.
            let _ = reap_adopted(&own);
        }
    }

    /// Whether this process has no child but `leader` and its other own ones.
    fn is_alone(&self, leader: Pid) -> bool {
        let own = self.lock();
        own_children().is_some_and(|children| children.iter().all(|pid| *pid == leader || own.contains(pid)))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<Pid>> {
        self.shared.own.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
