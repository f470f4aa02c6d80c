//! Builds journal rows from records. Pure: no clock (instants are passed in) and no file. Every host process that
//! tells of a job's life does it with these, so that all rows of one kind look alike and terminal ids are derived.

use crate::records::{CompositionEnd, CompositionRecord, JobRecord};
use cjm_wire::Timestamp;
use cjm_wire::composition::RunOutcome;
use cjm_wire::error::{Failure, JobError, keep_fields};
use cjm_wire::event::{EventType, JobStatus, JournalRow};
use cjm_wire::ids::{EventId, JobId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Longest text of one field of an error kept in a row, as it stands there: in JSON, which escapes what is not ASCII. The
/// middle of a longer one is cut out.
pub const ERROR_TEXT_BYTES_MAX: usize = 64 * 1024;
/// Names of arguments that an error kept in a row may have together.
const FIELDS_BYTES_MAX: usize = 4 * 1024;
/// What JSON makes of a byte at most: a control character has one, and is written with six.
const ESCAPED_BYTES_MAX: usize = 6;
/// What a line in a list of lines takes beside its text.
const LINE_BYTES: usize = 4;

/// Null → `pending`: written in the commit that accepts the job.
#[must_use]
pub fn pending(job: &JobRecord) -> JournalRow {
    transition(job, None, JobStatus::Pending, job.submitted_at.clone())
}

/// → `running`, for `job` as it is once the attempt has begun. `from` is what it was before: `pending`, or
/// `running` when a failed attempt is followed by another.
#[must_use]
pub fn running(job: &JobRecord, from: JobStatus) -> JournalRow {
    let ts = job.started_at.clone().unwrap_or_else(|| job.submitted_at.clone());
    let mut row = transition(job, Some(from), JobStatus::Running, ts);
    row.payload.insert("attempt".into(), job.attempt.into());
    row
}

/// `running` → `pending`: the worker died before its tool took the call, `why` in words.
#[must_use]
pub fn waits_again(job: &JobRecord, why: &str, ts: Timestamp) -> JournalRow {
    let mut row = transition(job, Some(JobStatus::Running), JobStatus::Pending, ts);
    row.payload.insert("attempt".into(), job.attempt.into());
    row.payload.insert("reason".into(), why.into());
    row
}

/// → its terminal status, for `job` as it is once it has ended. The id is derived from the job alone: the journal
/// refuses a second one.
#[must_use]
pub fn terminal(job: &JobRecord, from: JobStatus) -> JournalRow {
    let ts = job.completed_at.clone().unwrap_or_else(|| job.submitted_at.clone());
    let mut row = transition(job, Some(from), job.status, ts);
    row.event_id = EventId::terminal_of(&job.job_id);
    row.payload.insert("attempt".into(), job.attempt.into());
    row.payload.insert("job_snapshot".into(), Value::Object(job_snapshot(job)));
    row
}

/// The `job_snapshot` of a terminal row, key for key as the ancestor reads it back.
#[must_use]
pub fn job_snapshot(job: &JobRecord) -> Map<String, Value> {
    let mut map = Map::new();
    let mut put = |key: &str, value: Value| {
        map.insert(key.to_owned(), value);
    };
    put("id", job.job_id.as_str().into());
    put("capability_instance_id", instance_of(job).into());
    put("status", job.status.as_str().into());
    put("priority", job.priority.into());
    put("submitted_at", job.submitted_at.as_str().into());
    put("started_at", text(job.started_at.as_ref()));
    put("completed_at", text(job.completed_at.as_ref()));
    put("retry_count", job.attempt.saturating_sub(1).into());
    put("composition_id", text(job.composition_id.as_ref()));
    put("node_id", text(job.node_id.as_ref()));
    put("task_name", text(job.task_name.as_ref()));
    put("method", text(job.method.as_ref()));
    put("run_id", text(job.run_id.as_ref()));
    put("actor", text(job.actor.as_ref()));
    put("error", job.failure.as_ref().map_or(Value::Null, |failure| snapshot_error(&failure.error)));
    map
}

/// A job's error as snapshots carry it: the wire's object, its instant written with a space instead of `T`.
#[must_use]
pub fn snapshot_error(error: &JobError) -> Value {
    let mut error = bounded_error(error);
    if let Some(at) = &error.occurred_at {
        error.occurred_at = Some(Timestamp::from_text(at.as_str().replacen('T', " ", 1)));
    }
    serde_json::to_value(&error).unwrap_or(Value::Null)
}

/// `failure` with every text cut to [`ERROR_TEXT_BYTES_MAX`], so that no tool can make a terminal row too large
/// to be written.
#[must_use]
pub fn bounded_failure(failure: &Failure) -> Failure {
    let mut failure = failure.clone();
    failure.error = bounded_error(&failure.error);
    bound(&mut failure.report.message);
    bound(&mut failure.report.next_step);
    let details = &mut *failure.report.details;
    details.exception.iter_mut().for_each(bound);
    if let Some(fields) = &mut details.fields_invalid {
        bound_fields(fields);
    }
    for lines in [&mut failure.report.causes, &mut failure.report.stderr_tail, &mut details.traceback] {
        lines.iter_mut().for_each(bound);
        // The newest lines stay.
        let mut bytes = 0;
        let fits = |line: &&String| {
            bytes += LINE_BYTES + line.chars().map(escaped_bytes).sum::<usize>();
            bytes <= ERROR_TEXT_BYTES_MAX + LINE_BYTES
        };
        let kept = lines.iter().rev().take_while(fits).count();
        lines.drain(..lines.len() - kept);
    }
    failure
}

/// `direct_call_failed`: a call that is no job, and of which only its caller would know else.
#[must_use]
pub fn direct_call_failed(call: &JobId, status: JobStatus, failure: &Failure) -> JournalRow {
    let mut row = JournalRow::new(EventType::DirectCallFailed, Map::new());
    let report = bounded_failure(failure).report;
    row.payload.insert("call".into(), call.as_str().into());
    row.payload.insert("status".into(), status.as_str().into());
    row.payload.insert("error".into(), snapshot_error(&failure.error));
    row.payload.insert("report".into(), serde_json::to_value(&report).unwrap_or_default());
    row
}

/// `run_started` of a composition: written in the commit that accepts it.
#[must_use]
pub fn composition_started(composition: &CompositionRecord) -> JournalRow {
    let mut row = composition_row(EventType::RunStarted, composition, composition.submitted_at.clone());
    row.payload.insert("name".into(), composition.name.as_str().into());
    row
}

/// `run_finished` of a composition, to which [`tell_outcome`] adds what came of it. Its id is derived, as that of a job's
/// terminal row.
#[must_use]
pub fn composition_finished(composition: &CompositionRecord, end: &CompositionEnd) -> JournalRow {
    let mut row = composition_row(EventType::RunFinished, composition, end.completed_at.clone());
    row.event_id = EventId::from_text(format!("{}:terminal", composition.composition_id));
    row.payload.insert("name".into(), composition.name.as_str().into());
    row.payload.insert("status".into(), end.status.as_str().into());
    let failure = end.failure.as_ref().map(bounded_failure);
    let error = failure.as_ref().map_or(Value::Null, |failure| snapshot_error(&failure.error));
    row.payload.insert("error".into(), error);
    if let Some(Failure { report, .. }) = &failure {
        row.payload.insert("report".into(), serde_json::to_value(report).unwrap_or_default());
    }
    row
}

/// One failure of a run, as the row of its end tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToldFailure {
    /// The node; None where it is none's: the run's output did not bind, or its host ended between two calls.
    pub node: Option<String>,
    /// The element of a mapped node.
    pub element: Option<usize>,
    /// For people.
    pub message: String,
}

/// Adds to the row of a run's end what came of it: whoever ends it tells that in the same keys.
pub fn tell_outcome(row: &mut JournalRow, outcome: RunOutcome, failures: &[ToldFailure], left_out: usize) {
    row.payload.insert("outcome".into(), outcome.as_str().into());
    row.payload.insert("partial".into(), (outcome == RunOutcome::Partial).into());
    row.payload.insert("failures".into(), serde_json::to_value(failures).unwrap_or_default());
    row.payload.insert("failures_left_out".into(), left_out.into());
}

/// Leaves out of the row of an end that is larger than a row may be what is told of each node and failure: the journal has
/// it job by job.
pub fn shorten_end(row: &mut JournalRow) {
    let listed = row.payload.get("failures").and_then(Value::as_array).map_or(0, Vec::len);
    let before = row.payload.get("failures_left_out").and_then(Value::as_u64).unwrap_or(0);
    row.payload.insert("failures".into(), Value::Array(Vec::new()));
    row.payload.insert("failures_left_out".into(), (before + listed as u64).into());
    row.payload.remove("nodes");
}

/// The id of the one `worker_died` row of a worker: whoever tells of its end second is refused, as when a directory was taken
/// away under a host and given to another one.
#[must_use]
pub fn died_id(session: &str) -> EventId {
    EventId::from_text(format!("{session}:died"))
}

/// `worker_died` for the worker of this `worker_spawned` row, whose host ended without telling of its end.
#[must_use]
pub fn died_with_its_host(spawned: &JournalRow, now: &Timestamp) -> JournalRow {
    let payload = serde_json::json!({
        "phase": "running",
        "returncode": null,
        "reason": "host_gone",
        "confidence": "certain",
        "verdict": "its host ended, and its keeper cleared it",
        "evidence": ["a new host found no end of it in the journal"],
    });
    let payload = if let Value::Object(map) = payload { map } else { Map::new() };
    let mut row = JournalRow { worker_reported: false, ..spawned.clone() };
    let session = spawned.worker_session_id.as_deref().unwrap_or_default();
    row.event_id = died_id(session);
    row.ts = now.clone();
    row.event_type = EventType::WorkerDied.as_str().to_owned();
    row.payload = payload;
    row
}

fn composition_row(kind: EventType, composition: &CompositionRecord, ts: Timestamp) -> JournalRow {
    let mut row = JournalRow::new(kind, Map::new());
    row.ts = ts;
    row.run_id = composition.run_id.as_ref().map(ToString::to_string);
    row.composition_id = Some(composition.composition_id.to_string());
    row.actor.clone_from(&composition.actor);
    row
}

fn transition(job: &JobRecord, from: Option<JobStatus>, to: JobStatus, ts: Timestamp) -> JournalRow {
    let mut payload = Map::new();
    payload.insert("from".into(), from.map_or(Value::Null, |status| status.as_str().into()));
    payload.insert("to".into(), to.as_str().into());
    let mut row = JournalRow::new(EventType::StateTransition, payload);
    row.ts = ts;
    describe_job(&mut row, job);
    row
}

/// Fills in which job a row is about. The element has no column: it stands in the payload, unless that is a tool's.
pub fn describe_job(row: &mut JournalRow, job: &JobRecord) {
    if let Some(element) = job.element_index.filter(|_| !row.worker_reported) {
        row.payload.insert("element".into(), element.into());
    }
    row.job_id = Some(job.job_id.to_string());
    row.run_id = job.run_id.as_ref().map(ToString::to_string);
    row.composition_id = job.composition_id.as_ref().map(ToString::to_string);
    row.node_id.clone_from(&job.node_id);
    row.capability_instance_id = Some(instance_of(job).to_owned());
    row.capability_name = Some(job.capability_name.clone());
    row.task_name.clone_from(&job.task_name);
    row.method.clone_from(&job.method);
    row.worker_session_id = job.worker_session_id.as_ref().map(ToString::to_string);
    row.actor.clone_from(&job.actor);
}

/// The ancestor knows no job without an instance: before it runs, what was asked for stands in its place.
fn instance_of(job: &JobRecord) -> &str {
    job.instance_id.as_deref().unwrap_or(&job.target)
}

fn text<T: ToString>(value: Option<&T>) -> Value {
    value.map_or(Value::Null, |value| Value::String(value.to_string()))
}

fn bounded_error(error: &JobError) -> JobError {
    let mut error = error.clone();
    bound(&mut error.message);
    bound(&mut error.original_exc_repr);
    if let Some(traceback) = &mut error.traceback {
        bound(traceback);
    }
    if let Some(fields) = &mut error.fields_invalid {
        bound_fields(fields);
    }
    error
}

/// Keeps the first fields that a call got wrong, and says how many more there are.
fn bound_fields(fields: &mut Vec<String>) {
    let mut bytes = 0;
    let fits = |field: &&String| {
        bytes += field.len() + 8;
        bytes <= FIELDS_BYTES_MAX
    };
    let kept = fields.iter().take_while(fits).count();
    keep_fields(fields, kept);
}

/// Keeps the first and last half of what is too long: a traceback's first lines say where, its last say what.
fn bound(text: &mut String) {
    if text.len() <= ERROR_TEXT_BYTES_MAX / ESCAPED_BYTES_MAX
        || text.chars().map(escaped_bytes).sum::<usize>() <= ERROR_TEXT_BYTES_MAX
    {
        return;
    }
    let half = ERROR_TEXT_BYTES_MAX / 2 - 64;
    let fit = |bytes: &mut usize, c: char| {
        *bytes += escaped_bytes(c);
        (*bytes <= half).then(|| c.len_utf8())
    };
    let head: usize = text.chars().scan(0, fit).sum();
    let tail = text.len() - text.chars().rev().scan(0, fit).sum::<usize>();
    *text = format!("{}\n[… {} bytes left out …]\n{}", &text[..head], tail - head, &text[tail..]);
}

/// How many bytes a character takes in a row's JSON.
fn escaped_bytes(c: char) -> usize {
    match c {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        ' '..='~' => 1,
        // `\uXXXX` for each unit.
        _ => 6 * c.len_utf16(),
    }
}

/// A failure as a column holds it.
pub(crate) fn failure_text(failure: Option<&Failure>) -> Option<String> {
    failure.and_then(|failure| serde_json::to_string(failure).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use cjm_wire::ErrorReport;
    use cjm_wire::error::ErrorCategory;
    use cjm_wire::ids::{JobId, RunId};
    use cjm_wire::python_json::{Style, to_string};

    fn failed_job() -> JobRecord {
        let at = |text: &str| Timestamp::from_text(text);
        let mut job = JobRecord::new(JobId::from_text("J"), "asr", at("2026-11-20T20:27:01+00:00"));
        job.run_id = Some(RunId::from_text("R"));
        job.instance_id = Some("asr-2".into());
        job.attempt = 2;
        job.status = JobStatus::Failed;
        job.started_at = Some(at("2026-11-20T20:27:02.5+00:00"));
        job.completed_at = Some(at("2026-11-20T20:27:03.224970+00:00"));
        let mut error = JobError::new(ErrorCategory::Resource, "h\u{e9}llo");
        error.occurred_at = Some(at("2026-11-20T20:27:03.000001+00:00"));
        job.failure = Some(Failure {
            error,
            report: ErrorReport {
                code: "tool.failed".into(),
                message: "m".into(),
                causes: vec![],
                next_step: "n".into(),
                stderr_tail: vec![],
                exit_code: 12,
                details: Box::default(),
            },
        });
        job
    }

    #[test]
    fn a_terminal_row_is_the_ancestors_byte_for_byte_but_for_the_attempt() {
        let row = terminal(&failed_job(), JobStatus::Running);
        assert_eq!(row.event_id.as_str(), "J:terminal");
        assert_eq!(row.ts.as_str(), "2026-11-20T20:27:03.224970+00:00");
        assert_eq!(
            to_string(&Value::Object(row.payload), Style::Payload),
            r#"{"attempt": 2, "from": "running", "job_snapshot": {"actor": null, "capability_instance_id": "asr-2", "completed_at": "2026-11-20T20:27:03.224970+00:00", "composition_id": null, "error": {"capability_instance_id": null, "capability_name": null, "category": "resource", "fields_invalid": null, "message": "h\u00e9llo", "occurred_at": "2026-11-20 20:27:03.000001+00:00", "original_exc_repr": "h\u00e9llo", "resource_shortfall": null, "retriable": true, "retry_after_seconds": null, "traceback": null}, "id": "J", "method": null, "node_id": null, "priority": 0, "retry_count": 1, "run_id": "R", "started_at": "2026-11-20T20:27:02.5+00:00", "status": "failed", "submitted_at": "2026-11-20T20:27:01+00:00", "task_name": null}, "to": "failed"}"#
        );
    }

    #[test]
    fn a_pending_row_names_the_target_where_no_instance_is_known() {
        let job = JobRecord::new(JobId::from_text("J"), "asr", Timestamp::from_micros(0));
        let row = pending(&job);
        assert_eq!(row.capability_instance_id.as_deref(), Some("asr"));
        assert_eq!(
            to_string(&Value::Object(row.payload), Style::Payload),
            r#"{"from": null, "to": "pending"}"#
        );
        assert_ne!(row.event_id, EventId::terminal_of(&job.job_id));
    }

    #[test]
    fn huge_errors_are_cut_in_the_middle() {
        let mut job = failed_job();
        let failure = job.failure.as_mut().expect("failed");
        failure.error.traceback = Some(format!("first{}last", "\u{fc}".repeat(1 << 20)));
        failure.report.stderr_tail = (0..1000).map(|n| format!("{n} {}", "x".repeat(1000))).collect();
        let bounded = bounded_failure(failure);
        assert_eq!(bounded.report.stderr_tail.last(), failure.report.stderr_tail.last());
        let fields: Vec<String> = (0..30_000).map(|n| format!("field-{n}")).collect();
        failure.error.fields_invalid = Some(fields.clone());
        failure.report.details.fields_invalid = Some(fields.clone());
        let bounded = bounded_failure(failure);
        let details = &bounded.report.details;
        for kept in [&bounded.error.fields_invalid, &details.fields_invalid] {
            let kept = kept.as_ref().expect("some");
            let (told, left_out) = kept.split_at(kept.len() - 1);
            assert!(told.len() > 100 && fields.starts_with(told), "{}", told.len());
            assert_eq!(left_out, [format!("… {} more", 30_000 - told.len())]);
        }
        assert!(serde_json::to_string(&bounded).expect("writes").len() < 6 * ERROR_TEXT_BYTES_MAX);
        let traceback = bounded.error.traceback.expect("kept");
        assert!(traceback.starts_with("first") && traceback.ends_with("last"));
        assert!(traceback.len() <= ERROR_TEXT_BYTES_MAX, "{}", traceback.len());
        let row = terminal(&job, JobStatus::Running);
        assert!(to_string(&Value::Object(row.payload), Style::Payload).len() < 8 * ERROR_TEXT_BYTES_MAX);
    }

    #[test]
    fn what_json_makes_longer_is_cut_by_what_it_is_there() {
        for c in ['\0', '\u{7f}', '\u{fc}', '\u{2603}', '\u{1f600}', '"', '\n', 'x', '~'] {
            let in_json = |text: &str| to_string(&Value::from(text), Style::Payload).len() - 2;
            assert_eq!(in_json(&c.to_string()), escaped_bytes(c), "{c:?}");
            assert!(escaped_bytes(c) <= ESCAPED_BYTES_MAX * c.len_utf8(), "{c:?}");
            let fits = c.to_string().repeat(ERROR_TEXT_BYTES_MAX / escaped_bytes(c));
            let mut bounded = fits.clone();
            bound(&mut bounded);
            assert!(bounded == fits, "{c:?}: what fits stays");
            let mut bounded = format!("first{fits}last");
            bound(&mut bounded);
            let bytes = in_json(&bounded);
            assert!(bytes <= ERROR_TEXT_BYTES_MAX && bytes > ERROR_TEXT_BYTES_MAX - 200, "{c:?}: {bytes}");
            assert!(bounded.starts_with("first") && bounded.ends_with("last"), "{c:?}");
        }
    }

    #[test]
    fn the_rows_of_a_failure_are_never_too_large_whatever_its_texts_are() {
        let mut job = failed_job();
        let failure = job.failure.as_mut().expect("failed");
        let long = "\0".repeat(1 << 18);
        failure.error.message.clone_from(&long);
        failure.error.original_exc_repr.clone_from(&long);
        failure.error.traceback = Some(long.clone());
        failure.report.message.clone_from(&long);
        failure.report.next_step.clone_from(&long);
        failure.report.causes = vec![long.clone(), long.clone()];
        failure.report.stderr_tail = vec![String::new(); 1 << 18];
        failure.report.details.exception = Some(long.clone());
        failure.report.details.traceback = vec![long.clone(), long];
        let end = CompositionEnd {
            composition_id: cjm_wire::ids::CompositionId::new(),
            status: JobStatus::Failed,
            completed_at: Timestamp::from_micros(0),
            failure: Some(failure.clone()),
            output: None,
        };
        let composition = CompositionRecord {
            composition_id: end.composition_id.clone(),
            name: "c".to_owned(),
            run_id: None,
            actor: None,
            status: JobStatus::Running,
            submitted_at: Timestamp::from_micros(0),
            completed_at: None,
            failure: None,
        };
        let call = direct_call_failed(&job.job_id, JobStatus::Failed, failure);
        for row in [call, composition_finished(&composition, &end), terminal(&job, JobStatus::Running)] {
            let bytes = to_string(&Value::Object(row.payload), Style::Payload).len();
            assert!(bytes < crate::commit::ROW_PAYLOAD_BYTES_MAX, "{}: {bytes}", row.event_type);
        }
    }
}
