//! The end of a job whose own end could not be kept: its result did not fit on the disk. It ends `failed`, for want of a
//! resource, in a second commit that is small enough to be written in the room of the reserve.

use crate::commit::{Commit, Write};
use crate::error::StoreError;
use crate::records::{JobEnd, JobRecord};
use crate::rows;
use cjm_wire::Timestamp;
use cjm_wire::describe::ErrorReport;
use cjm_wire::error::{Failure, JobError, Resource, ResourceShortfall};
use cjm_wire::event::JobStatus;

const MB_BYTES: f64 = 1024.0 * 1024.0;

/// True when a commit that was refused with `error` may succeed once it is small: the job should then be ended with
/// [`end_without_result`].
#[must_use]
pub fn is_too_large_to_keep(error: &StoreError) -> bool {
    matches!(error, StoreError::NoRoom { .. } | StoreError::TooLarge { .. } | StoreError::File { .. })
}

/// `job` as it fails because its end could not be kept, and the commit that says so. `job` is as it was while it ran, or
/// as it would have ended; `from` is what it was before. The failure's exit code is that of the store.
#[must_use]
pub fn end_without_result(
    job: &JobRecord,
    from: JobStatus,
    error: &StoreError,
    now: &Timestamp,
) -> (JobRecord, Commit) {
    let mut job = job.clone();
    job.status = JobStatus::Failed;
    job.completed_at = Some(now.clone());
    let failure = not_kept(&job, error, now);
    job.failure = Some(failure.clone());
    let mut terminal = rows::terminal(&job, from);
    terminal.payload.insert("report".into(), serde_json::to_value(&failure.report).unwrap_or_default());
    let end = JobEnd {
        job_id: job.job_id.clone(),
        status: job.status,
        completed_at: now.clone(),
        failure: Some(failure),
        result: None,
    };
    (job, Commit::telling().write(Write::EndJob(Box::new(end))).row(terminal))
}

fn not_kept(job: &JobRecord, error: &StoreError, now: &Timestamp) -> Failure {
    let mut report = ErrorReport::of(error);
    report.message = format!("what the job gave back could not be kept: {error}");
    let mut failure = JobError::new(error.category(), &report.message);
    failure.capability_name = Some(job.capability_name.clone());
    failure.capability_instance_id.clone_from(&job.instance_id);
    failure.occurred_at = Some(now.clone());
    if let StoreError::NoRoom { bytes, .. } = error {
        #[expect(clippy::cast_precision_loss, reason = "no body has so many bytes")]
        let needed = *bytes as f64 / MB_BYTES;
        let needed = Some(needed);
        failure.resource_shortfall =
            Some(ResourceShortfall { resource: Resource::Disk, needed, available: None });
    }
    Failure { error: failure, report }
}
