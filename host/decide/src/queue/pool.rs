//! The loaded instances, what runs on each, and which of a capability is best to take: the least loaded, then
//! the longest idle, then by name.

use super::ladder::BlockReason;
use super::types::Target;
use cjm_wire::{InstanceId, JobId, WorkerSessionId};
use std::collections::{BTreeMap, BTreeSet};

/// One incarnation of one instance.
#[derive(Debug, Clone)]
pub(super) struct Instance {
    pub(super) session: WorkerSessionId,
    pub(super) capability: String,
    pub(super) concurrency_max: u32,
    pub(super) cancel_grace_ms: u64,
    pub(super) running: BTreeSet<JobId>,
    /// When a call on it last ended, or when it was added.
    pub(super) idle_since_ms: u64,
    /// Set once it is to be killed; then it takes nothing more.
    pub(super) recycle: Option<Recycle>,
}

/// Who waits for a killed instance to come back.
#[derive(Debug, Default, Clone)]
pub(super) struct Recycle {
    /// Ended jobs whose cancel is complete when it is back, or gone for good.
    pub(super) for_jobs: Vec<JobId>,
}

impl Instance {
    pub(super) fn load(&self) -> u32 {
        u32::try_from(self.running.len()).unwrap_or(u32::MAX)
    }

    fn has_room(&self) -> bool {
        self.recycle.is_none() && self.load() < self.concurrency_max
    }
}

type FreeKey = (u32, u64, InstanceId);

#[derive(Debug, Default, Clone)]
struct Shelf {
    all: BTreeSet<InstanceId>,
    /// Those with room, best first.
    free: BTreeSet<FreeKey>,
}

/// See the module.
#[derive(Debug, Default, Clone)]
pub(super) struct Pool {
    instances: BTreeMap<InstanceId, Instance>,
    shelves: BTreeMap<String, Shelf>,
}

impl Pool {
    /// Puts an incarnation in, in place of an earlier one, which is returned.
    pub(super) fn put(&mut self, id: &InstanceId, instance: Instance) -> Option<Instance> {
        let earlier = self.take(id);
        let shelf = self.shelves.entry(instance.capability.clone()).or_default();
        shelf.all.insert(id.clone());
        if instance.has_room() {
            shelf.free.insert(free_key(id, &instance));
        }
        self.instances.insert(id.clone(), instance);
        earlier
    }

    /// Takes an instance out.
    pub(super) fn take(&mut self, id: &InstanceId) -> Option<Instance> {
        let instance = self.instances.remove(id)?;
        if let Some(shelf) = self.shelves.get_mut(&instance.capability) {
            shelf.all.remove(id);
            shelf.free.remove(&free_key(id, &instance));
            if shelf.all.is_empty() {
                self.shelves.remove(&instance.capability);
            }
        }
        Some(instance)
    }

    pub(super) fn get(&self, id: &InstanceId) -> Option<&Instance> {
        self.instances.get(id)
    }

    /// The instance, if this incarnation of it is the present one.
    pub(super) fn current(&self, id: &InstanceId, session: &WorkerSessionId) -> Option<&Instance> {
        self.instances.get(id).filter(|instance| instance.session == *session)
    }

    /// Changes this incarnation, if it is the present one.
    pub(super) fn update(
        &mut self,
        id: &InstanceId,
        session: &WorkerSessionId,
        change: impl FnOnce(&mut Instance),
    ) {
        let Some(instance) = self.instances.get_mut(id).filter(|found| found.session == *session) else {
            return;
        };
        let before = instance.has_room().then(|| free_key(id, instance));
        change(instance);
        let after = instance.has_room().then(|| free_key(id, instance));
        if before == after {
            return;
        }
        let Some(shelf) = self.shelves.get_mut(&instance.capability) else { return };
        if let Some(key) = before {
            shelf.free.remove(&key);
        }
        if let Some(key) = after {
            shelf.free.insert(key);
        }
    }

    /// The instance a job for `target` would get now.
    pub(super) fn free_for(&self, target: &Target) -> Option<&InstanceId> {
        match target {
            Target::Capability(name) => self.shelves.get(name)?.free.first().map(|(_, _, id)| id),
            Target::Instance(id) => {
                self.instances.get_key_value(id).filter(|(_, instance)| instance.has_room()).map(|(id, _)| id)
            }
        }
    }

    /// Why there is none, when there is none.
    pub(super) fn shortage_for(&self, target: &Target) -> BlockReason {
        let mut loaded = self.instances_for(target).peekable();
        if loaded.peek().is_none() {
            BlockReason::NoInstance
        } else if loaded.all(|(_, instance)| instance.recycle.is_some()) {
            BlockReason::InstanceReloading
        } else {
            BlockReason::InstanceBusy
        }
    }

    /// All that could run a job for `target`.
    pub(super) fn instances_for<'a>(
        &'a self,
        target: &'a Target,
    ) -> impl Iterator<Item = (&'a InstanceId, &'a Instance)> {
        let (shelf, single) = match target {
            Target::Capability(name) => (self.shelves.get(name), None),
            Target::Instance(id) => (None, Some(id)),
        };
        shelf
            .into_iter()
            .flat_map(|shelf| &shelf.all)
            .chain(single)
            .filter_map(|id| self.instances.get_key_value(id))
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&InstanceId, &Instance)> {
        self.instances.iter()
    }

    /// What the shelves say, for the invariants: every instance once, and the free ones under their keys.
    pub(super) fn shelves_agree(&self) -> bool {
        let shelved = self.shelves.values().map(|shelf| shelf.all.len()).sum::<usize>();
        let free = self.shelves.values().map(|shelf| shelf.free.len()).sum::<usize>();
        let roomy = self.instances.values().filter(|instance| instance.has_room()).count();
        shelved == self.instances.len()
            && free == roomy
            && self.instances.iter().all(|(id, instance)| {
                self.shelves.get(&instance.capability).is_some_and(|shelf| {
                    shelf.all.contains(id)
                        && shelf.free.contains(&free_key(id, instance)) == instance.has_room()
                })
            })
    }
}

fn free_key(id: &InstanceId, instance: &Instance) -> FreeKey {
    (instance.load(), instance.idle_since_ms, id.clone())
}
