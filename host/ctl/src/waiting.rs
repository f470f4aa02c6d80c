//! What pending jobs wait for, in the words of the host that holds them: its journal has the last reason of each job that is
//! the first of its line, and those behind it wait for the same.

use cjm_store::{JobRecord, JournalFilter, JournalReader, StoreError};
use cjm_wire::JobId;
use cjm_wire::event::EventType;
use std::collections::HashMap;

/// The last reason of each job that has one, as its host wrote it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reasons(HashMap<JobId, String>);

impl Reasons {
    /// Of these jobs.
    pub(crate) fn read(reader: &JournalReader, pending: &[JobRecord]) -> Result<Self, StoreError> {
        let mut reasons = HashMap::new();
        for job in pending {
            let filter = JournalFilter {
                job: Some(job.job_id.to_string()),
                event_types: vec![EventType::BlockReasonChanged.as_str().to_owned()],
                ..JournalFilter::default()
            };
            let last = reader.last(&filter, 1)?.pop();
            let reason = last.as_ref().and_then(|found| found.row.payload.get("to")?.as_str());
            reasons.extend(reason.map(|reason| (job.job_id.clone(), reason.to_owned())));
        }
        Ok(Self(reasons))
    }

    /// Of this one among all that are pending: its own, else that of another one of its tool.
    pub(crate) fn of<'a>(&'a self, job: &JobRecord, pending: &[JobRecord]) -> Option<&'a str> {
        let of_its_tool = pending.iter().filter(|other| other.capability_name == job.capability_name);
        let reason = self
            .0
            .get(&job.job_id)
            .or_else(|| of_its_tool.filter_map(|other| self.0.get(&other.job_id)).next());
        reason.map(String::as_str)
    }
}

/// For people; `running`: how many other jobs of its tool run.
pub(crate) fn in_words(reason: Option<&str>, running: usize) -> String {
    let text = match (reason, running) {
        (Some("lanes_full"), _) => "its host runs as many calls at once as it may",
        (Some("admission_closed"), _) => "its host begins nothing while its journal cannot be written",
        (Some("instance_reloading"), _) => "its worker is started anew",
        (_, 0) => return String::new(),
        (_, 1) => "another job of its tool runs",
        (_, others) => return format!(": {others} other jobs of its tool run"),
    };
    format!(": {text}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use cjm_wire::Timestamp;

    #[test]
    fn a_job_behind_another_one_waits_for_the_same() {
        let job = |capability: &str| JobRecord::new(JobId::new(), capability, Timestamp::now());
        let pending = [job("a"), job("a"), job("b")];
        let reasons = Reasons(HashMap::from([(pending[0].job_id.clone(), "lanes_full".to_owned())]));
        let told: Vec<Option<&str>> = pending.iter().map(|job| reasons.of(job, &pending)).collect();
        assert_eq!(told, [Some("lanes_full"), Some("lanes_full"), None]);
    }

    #[test]
    fn a_bound_of_the_host_is_no_bound_of_the_tool() {
        assert_eq!(in_words(Some("lanes_full"), 4), ": its host runs as many calls at once as it may");
        assert_eq!(in_words(Some("instance_busy"), 4), ": 4 other jobs of its tool run");
        assert_eq!(in_words(Some("instance_busy"), 1), ": another job of its tool runs");
        assert_eq!(in_words(None, 0), "");
        let closed = ": its host begins nothing while its journal cannot be written";
        assert_eq!(in_words(Some("admission_closed"), 1), closed);
        assert_eq!(in_words(Some("instance_reloading"), 1), ": its worker is started anew");
    }
}
