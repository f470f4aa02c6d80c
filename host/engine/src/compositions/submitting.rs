//! How a run's elements become jobs. What is wrong with one element is that element's failure; what the queue or the store
//! refuses is nobody's in the run, and halts it.

use crate::compositions::driver::Driver;
use crate::compositions::failures::refusal;
use crate::error::HostError;
use crate::queue::state::ElementHook;
use crate::queue::submission::{ElementJob, JobRequest};
use cjm_decide::composition::{CompositionEvent, ElementOutcome, SubmitElement};
use cjm_decide::queue::Target;
use cjm_wire::InstanceId;
use cjm_workers::NodeState;
use std::collections::{BTreeSet, VecDeque};

/// Arguments of elements that are committed together: far below what one commit may hold.
pub(crate) const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Elements on their way into the queue.
#[derive(Default)]
struct Batch {
    places: Vec<(String, usize)>,
    jobs: Vec<ElementJob>,
    bytes: usize,
}

impl Driver {
    pub(super) async fn submit(
        &mut self,
        elements: Vec<SubmitElement>,
        events: &mut VecDeque<CompositionEvent>,
    ) {
        let mut batches = vec![Batch::default()];
        let mut nodes = BTreeSet::new();
        for element in elements {
            let place = (element.node.clone(), element.element);
            nodes.insert(element.node.clone());
            let bytes: usize = element.kwargs.values().map(|value| value.text().len()).sum();
            let job = match self.job_of(element) {
                Ok(job) => job,
                Err(error) => {
                    events.push_back(self.unfit(place, &error));
                    continue;
                }
            };
            if batches.last().is_none_or(|batch| batch.bytes + bytes > BATCH_BYTES_MAX) {
                batches.push(Batch::default());
            }
            if let Some(batch) = batches.last_mut() {
                batch.places.push(place);
                batch.jobs.push(job);
                batch.bytes += bytes;
            }
        }
        let mut batches = batches.into_iter().filter(|batch| !batch.jobs.is_empty());
        while let Some(Batch { mut places, jobs, .. }) = batches.next() {
            match self.host.submit_elements(jobs).await {
                Ok(ids) => self.jobs.extend(places.into_iter().zip(ids)),
                Err(error) => {
                    places.extend(batches.by_ref().flat_map(|batch| batch.places));
                    self.refuse(places, &error, events);
                }
            }
        }
        for node in nodes {
            self.tell(&node);
        }
    }

    /// The job of an element.
    fn job_of(&mut self, element: SubmitElement) -> Result<ElementJob, HostError> {
        if let Some(tally) = self.tallies.get_mut(&element.node) {
            tally.total = element.elements_total;
            tally.state = NodeState::Running;
        }
        // A name that is no capability is an instance, which was there when the run began. It may be unloaded now and then.
        let target = match self.host.catalog().get(&element.capability) {
            Some(_) => Target::Capability(element.capability),
            None => Target::Instance(InstanceId::from_text(element.capability)),
        };
        if let Some(task) = &element.task {
            self.host.check_bound(&target, task)?;
        }
        let hook = ElementHook {
            node: element.node,
            element: element.element,
            kwargs: element.kwargs,
            ends: self.ends.clone(),
        };
        let request = JobRequest {
            action: element.action,
            task: element.task.zip(element.method),
            priority: element.priority,
            ..JobRequest::new(target)
        };
        Ok(ElementJob { request, composition: self.record.composition_id.clone(), hook })
    }

    /// An element that cannot be a job fails, and no other with it.
    fn unfit(&mut self, (node, element): (String, usize), error: &HostError) -> CompositionEvent {
        if let Some(tally) = self.tallies.get_mut(&node) {
            tally.failure.get_or_insert_with(|| (element, refusal("it was refused", error)));
        }
        CompositionEvent::ElementEnded { node, element, outcome: ElementOutcome::Failed(error.to_string()) }
    }

    /// Elements were refused that have nothing wrong with them. A host that ends refuses them because of that, and the next
    /// one decides about the run.
    pub(super) fn refuse(
        &mut self,
        elements: Vec<(String, usize)>,
        error: &HostError,
        events: &mut VecDeque<CompositionEvent>,
    ) {
        if self.run.halt().is_none() {
            if self.host.services().closing.is_cancelled() {
                self.left = true;
                return;
            }
            self.refusal.get_or_insert_with(|| refusal("calls of the run were refused", error));
        }
        events.push_back(CompositionEvent::Refused { elements });
    }
}
