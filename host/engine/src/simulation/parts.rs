//! Who is at work in a scenario: everybody sets out at once, each with numbers of its own.

use super::journal::FullDisk;
use super::scenario::{Plan, Stage};
use super::seed::Seed;
use std::sync::Arc;
use tokio::task::JoinSet;

impl Stage {
    /// Callers of all kinds, and a disk that fails for a while.
    pub(super) fn set_out(self: &Arc<Self>, plan: &Plan, seed: &mut Seed) -> JoinSet<()> {
        let mut parts = JoinSet::new();
        for _ in 0..plan.jobs {
            parts.spawn(Arc::clone(self).submit(seed.fork()));
        }
        for _ in 0..plan.direct_calls {
            parts.spawn(Arc::clone(self).call(seed.fork()));
        }
        if plan.unloads {
            parts.spawn(Arc::clone(self).unload_and_load(seed.fork(), plan.cap));
        }
        for _ in 0..plan.compositions {
            parts.spawn(Arc::clone(self).compose(seed.fork(), plan.full_disk.is_some()));
        }
        for _ in 0..plan.streams {
            parts.spawn(Arc::clone(self).stream(seed.fork()));
        }
        if let Some(FullDisk { after, lasts }) = plan.full_disk {
            let journal = Arc::clone(&self.journal);
            parts.spawn(async move {
                tokio::time::sleep(after).await;
                journal.set_failing(true);
                tokio::time::sleep(lasts).await;
                journal.set_failing(false);
            });
        }
        parts
    }
}
