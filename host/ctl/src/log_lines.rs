//! How rows of the stores look to people: the ancestor's lines, byte for byte, so that what reads its output reads
//! ours. Where a row of our own knows why something ended, that stands first.

use crate::fault::shortened;
use crate::visible::one_line;
use cjm_store::{DiagnosticRecord, ENDED_BY_HOST, StreamChunk};
use cjm_wire::error::JobError;
use cjm_wire::event::{EventType, JournalRow};
use cjm_wire::ids::{self, is_uuid_v7};
use cjm_wire::python_json::{Style, to_string};
use serde_json::Value;
use std::borrow::Cow;

/// Most characters of a payload on its line.
const PAYLOAD_CHARS_MAX: usize = 160;
/// Most characters of a failure's message on its line.
const MESSAGE_CHARS_MAX: usize = 300;
/// How a row of type `worker_died` is labelled that tells of such an end.
const WORKER_ENDED: &str = "worker ended";
/// The same as one word, as the types of rows are.
const WORKER_ENDED_TYPE: &str = "worker_ended";
/// How a row of type `direct_call_failed` is labelled; and one that tells of a cancel, in words and as one word.
const DIRECT_CALL_FAILED: &str = "direct call failed";
pub(crate) const DIRECT_CALL_CANCELLED: &str = "direct call cancelled";
pub(crate) const DIRECT_CALL_CANCELLED_TYPE: &str = "direct_call_cancelled";
/// Words for types of which the journal keeps another one.
pub(crate) const TYPES_AS_SHOWN: [&str; 2] = [WORKER_ENDED_TYPE, DIRECT_CALL_CANCELLED_TYPE];
/// Payload key whose value is too long for a line.
const SNAPSHOT_KEY: &str = "job_snapshot";

/// `2026-11-20 20:27:07 INFO     [11111111|99999999] lab.x: hello`, and further lines of the message and an exception's text
/// indented below: at the edge they would pass for records of their own. Where the tool of that session is known,
/// `[11111111|99999999 tool]`.
pub(crate) fn record(record: &DiagnosticRecord, tool: Option<&str>) -> String {
    let tool = tool.map(|tool| format!(" {}", one_line(tool))).unwrap_or_default();
    let mut line = format!(
        "{} {:8} [{}|{}{tool}] {}: {}",
        record.ts.for_people(),
        one_line(&record.level),
        short(record.worker_session_id.as_deref()),
        short(record.job_id.as_deref()),
        one_line(&record.logger_name),
        indented(&record.message)
    );
    for extra in record.exc_text.iter().flat_map(|text| text.lines()) {
        line.push_str("\n    ");
        line.push_str(extra);
    }
    line
}

/// The text with every line but its first one indented.
fn indented(text: &str) -> Cow<'_, str> {
    if text.contains('\n') { Cow::Owned(text.replace('\n', "\n    ")) } else { Cow::Borrowed(text) }
}

/// `2026-11-20 20:27:09 [11111111] raw line`; where the tool of that session is known, `[… tool stdout]`.
pub(crate) fn chunk(chunk: &StreamChunk, tool: Option<&str>) -> String {
    let session = short(chunk.worker_session_id.as_deref());
    let source =
        tool.map(|tool| format!(" {} {}", one_line(tool), one_line(&chunk.stream))).unwrap_or_default();
    format!("{} [{session}{source}] {}", chunk.ts.for_people(), indented(&chunk.content))
}

/// `2026-11-20 20:27:05 run_started            [job=- run=R] - {}`; a row that tells of an end has the reason before its
/// payload. `whole` shows all of a failure's traceback below it.
pub(crate) fn journal(row: &JournalRow, whole: bool) -> String {
    let told = Told::of(row, whole);
    let mut payload = row.payload.clone();
    for key in told.keys {
        payload.shift_remove(*key);
    }
    if let Some(snapshot) = payload.get_mut(SNAPSHOT_KEY) {
        let status = snapshot.get("status").and_then(Value::as_str).unwrap_or("?");
        *snapshot = Value::from(format!("<snapshot:{status}>"));
    }
    let subject = row.capability_instance_id.as_deref().or(row.capability_name.as_deref());
    let run = row.run_id.as_deref().filter(|run| !run.is_empty());
    let element = payload.shift_remove("element").as_ref().and_then(Value::as_u64);
    let mut line = format!(
        "{} {:22} [job={} run={}{}] {}{} ",
        row.ts.for_people(),
        one_line(told.label.unwrap_or(&row.event_type)),
        short(row.job_id.as_deref()),
        // The ancestor shows a run as it is; of our own the end is enough, and is taken as a filter.
        run.map_or("-", |run| if is_uuid_v7(run) { ids::short(run) } else { run }),
        place(row.node_id.as_deref(), element),
        subject.filter(|name| !name.is_empty()).unwrap_or("-"),
        if row.worker_reported { " (worker)" } else { "" },
    );
    let text = to_string(&Value::Object(payload), Style::Payload);
    match &told.reason {
        Some(reason) => line.push_str(&format!("{} {}", one_line(reason), cut(&text))),
        None => line.push_str(&cut(&text)),
    }
    for node in told.nodes {
        line.push_str("\n    ");
        line.push_str(&one_line(&node));
    }
    for below in told.below.lines() {
        line.push_str("\n    ");
        line.push_str(below);
    }
    line
}

/// The type that the journal keeps for a word that rows are shown by, and whether it is one of the two words of a type for
/// which rows of it are shown that tell of something else than its name.
pub(crate) fn type_of(shown: &str) -> (&str, Option<bool>) {
    let (died, failed) = (EventType::WorkerDied.as_str(), EventType::DirectCallFailed.as_str());
    match shown {
        WORKER_ENDED | WORKER_ENDED_TYPE => (died, Some(true)),
        DIRECT_CALL_CANCELLED | DIRECT_CALL_CANCELLED_TYPE => (failed, Some(true)),
        DIRECT_CALL_FAILED => (failed, Some(false)),
        name if name == died || name == failed => (name, Some(false)),
        name => (name, None),
    }
}

/// What a row of our own tells before its payload.
#[derive(Default)]
struct Told<'a> {
    /// In place of the type's name.
    label: Option<&'a str>,
    /// Why something ended.
    reason: Option<String>,
    /// Keys of the payload that say no more than that.
    keys: &'static [&'static str],
    /// Lines below.
    below: &'a str,
    /// Of a run: its nodes that did not complete, and why.
    nodes: Vec<String>,
}

impl<'a> Told<'a> {
    fn of(row: &'a JournalRow, whole: bool) -> Self {
        match EventType::parse(&row.event_type) {
            Some(EventType::WorkerDied) => Self::end_of_worker(row),
            Some(EventType::StateTransition) => {
                let error = row.payload.get(SNAPSHOT_KEY).and_then(|snapshot| snapshot.get("error"));
                let failure = Self::failure(row, error, whole);
                // The ancestor's rows count no attempts, and look as it prints them.
                match row.payload.get("to").and_then(Value::as_str) {
                    Some(to) if row.payload.contains_key("attempt") => {
                        let reason = with_outcome(to, failure.reason);
                        let keys = &["report", "error", SNAPSHOT_KEY, "from", "to"];
                        Self { reason: Some(reason), keys, ..failure }
                    }
                    _ => failure,
                }
            }
            Some(EventType::DirectCallFailed) => {
                let failure = Self::failure(row, row.payload.get("error"), whole);
                let label = match row.payload.get("status").and_then(Value::as_str) {
                    Some("cancelled") => DIRECT_CALL_CANCELLED,
                    _ => DIRECT_CALL_FAILED,
                };
                Self { label: Some(label), keys: &["report", "error", "status"], ..failure }
            }
            Some(EventType::RunFinished) => Self::end_of_run(row, whole),
            Some(
                EventType::CapabilityInstalled
                | EventType::CapabilityInstallFailed
                | EventType::CapabilityRemoved
                | EventType::ManifestRegenerated
                | EventType::SecretSet
                | EventType::SecretRemoved
                | EventType::ManifestsAllowed
                | EventType::ManifestsRevoked,
            ) => Self::command(row),
            _ => Self::default(),
        }
    }

    /// What the host did itself is no death: an unload, its own end, a worker it had to replace.
    fn end_of_worker(row: &JournalRow) -> Self {
        let Some(verdict) = row.payload.get("verdict").and_then(Value::as_str) else {
            return Self::default();
        };
        match verdict.strip_prefix(ENDED_BY_HOST) {
            Some(why) => Self {
                label: Some(WORKER_ENDED),
                reason: Some(format!("({why})")),
                keys: &["verdict", "reason", "confidence", "evidence"],
                ..Self::default()
            },
            None => Self { reason: Some(verdict.to_owned()), keys: &["verdict"], ..Self::default() },
        }
    }

    /// Who did it, and what kept it from being done.
    fn command(row: &JournalRow) -> Self {
        let by = row.actor.as_deref().unwrap_or("somebody");
        let error = row.payload.get("error");
        let said = |key| error.and_then(|error| error.get(key)).and_then(Value::as_str);
        let reason = match (said("code"), said("message")) {
            (Some(code), Some(message)) => format!("by {by}: {code}: {message}"),
            _ => format!("by {by}"),
        };
        Self { reason: Some(reason), keys: &["error", "status"], ..Self::default() }
    }

    /// The verdict, and the first failure behind it. The ancestor's rows have no verdict.
    fn end_of_run(row: &'a JournalRow, whole: bool) -> Self {
        let told = Self::failure(row, row.payload.get("error"), whole);
        let Some(outcome) = row.payload.get("outcome").and_then(Value::as_str) else { return told };
        let reason = with_outcome(outcome, told.reason);
        let listed = |key| row.payload.get(key).and_then(Value::as_array).map(Vec::as_slice);
        let nodes: Vec<String> = match listed("nodes") {
            Some(nodes) => nodes.iter().filter_map(node_that_did_not_complete).collect(),
            // Whoever ended the run of a dead host knew no more than its jobs.
            None => {
                let left_out =
                    row.payload.get("failures_left_out").and_then(Value::as_u64).filter(|n| *n > 0);
                let failed = listed("failures").unwrap_or_default().iter().filter_map(node_that_failed);
                failed
                    .chain(left_out.map(|n| format!("{n} more failed: each has a row of its own")))
                    .collect()
            }
        };
        // Nodes stand below, and each failure has a row of its own.
        let keys =
            &["outcome", "status", "partial", "report", "error", "nodes", "failures", "failures_left_out"];
        Self { reason: Some(reason), keys, nodes, ..told }
    }

    fn failure(row: &JournalRow, error: Option<&'a Value>, whole: bool) -> Self {
        let Some(object) = error.filter(|error| error.is_object()) else { return Self::default() };
        let Ok(error) = serde_json::from_value::<JobError>(object.clone()) else { return Self::default() };
        let report = row.payload.get("report");
        let code = report.and_then(|report| report.get("code")).and_then(Value::as_str);
        let mut reason = code.unwrap_or(error.category.as_str()).to_owned();
        let message = shortened(&error.message, MESSAGE_CHARS_MAX);
        for part in
            [error.exception_class().filter(|class| !class.contains("::")).unwrap_or_default(), &message]
        {
            if !part.is_empty() && !reason.ends_with(part) {
                reason.push_str(": ");
                reason.push_str(part);
            }
        }
        let traceback = object.get("traceback").and_then(Value::as_str).unwrap_or_default();
        // Those of a group of exceptions stand behind a frame of lines.
        let bare = |line: &'a str| line.trim_start_matches([' ', '|', '+', '-']).trim_end();
        let frame = traceback.lines().rev().map(bare).find(|line| line.starts_with("File \""));
        if let Some(frame) = frame {
            reason.push_str(&format!(" ({frame})"));
        }
        Self {
            label: None,
            reason: Some(reason),
            keys: &["report", "error"],
            below: if whole { traceback } else { "" },
            nodes: Vec::new(),
        }
    }
}

/// `failed: why`, or the outcome alone.
fn with_outcome(outcome: &str, reason: Option<String>) -> String {
    reason.map_or_else(|| outcome.to_owned(), |reason| format!("{outcome}: {reason}"))
}

/// `node each: skipped: why`; nothing for one that completed.
fn node_that_did_not_complete(node: &Value) -> Option<String> {
    let name = node.get("name")?.as_str()?;
    Some(format!("node {name}: {}", end_of_node(node)?))
}

/// `node each[3]: failed: why`, of an entry of `failures` that names its node.
fn node_that_failed(failure: &Value) -> Option<String> {
    let name = failure.get("node")?.as_str()?;
    let element = failure.get("element").and_then(Value::as_u64);
    let element = element.map_or_else(String::new, |element| format!("[{element}]"));
    Some(format!("node {name}{element}: failed: {}", failure.get("message")?.as_str()?))
}

/// How a node of a `run_finished` row ended, and why, where the row says why.
pub(crate) fn end_of_node(node: &Value) -> Option<String> {
    let text = |key| node.get(key).and_then(Value::as_str);
    Some(format!("{}: {}", text("status")?, text("reason")?))
}

/// ` node=each[3]`; nothing for a row of no node.
fn place(node: Option<&str>, element: Option<u64>) -> String {
    let Some(node) = node.filter(|node| !node.is_empty()) else { return String::new() };
    let element = element.map_or_else(String::new, |element| format!("[{element}]"));
    format!(" node={}{element}", one_line(node))
}

/// As [`ids::short`], or `-`.
fn short(id: Option<&str>) -> &str {
    id.filter(|id| !id.is_empty()).map_or("-", ids::short)
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(PAYLOAD_CHARS_MAX) {
        None => text.to_owned(),
        Some(_) => {
            let end = text.char_indices().nth(PAYLOAD_CHARS_MAX - 1).map_or(text.len(), |(at, _)| at);
            format!("{}…", &text[..end])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cjm_wire::Timestamp;
    use cjm_wire::event::EventType;
    use serde_json::json;

    fn row(event_type: &str, payload: Value) -> JournalRow {
        let Value::Object(payload) = payload else { panic!("an object") };
        let mut row = JournalRow::new(EventType::RunStarted, payload);
        row.event_type = event_type.to_owned();
        row.ts = Timestamp::from_text("2026-11-20T20:27:03.5+00:00");
        row
    }

    /// As the next host writes it, which knows of no nodes.
    #[test]
    fn the_end_of_a_run_whose_host_died_has_a_line_for_what_was_cut_off() {
        let failure = |node: Value, element: Value| json!({"node": node, "element": element, "message": "the host ended"});
        let ended = |failures: Value, left_out: u32| {
            let payload = json!({"outcome": "failed", "failures": failures, "failures_left_out": left_out});
            journal(&row("run_finished", payload), false)
        };
        let told = ended(json!([failure(json!("s"), json!(0)), failure(json!("t"), Value::Null)]), 7);
        let below: Vec<&str> = told.lines().skip(1).map(str::trim).collect();
        let left_out = "7 more failed: each has a row of its own";
        assert_eq!(
            below,
            ["node s[0]: failed: the host ended", "node t: failed: the host ended", left_out],
            "{told}"
        );
        let nowhere = ended(json!([failure(Value::Null, Value::Null)]), 0);
        assert_eq!(nowhere.lines().count(), 1, "{nowhere}");
    }

    /// The lines are captured from the ancestor's `cjm-ctl logs`, 0.0.51.
    #[test]
    fn rows_look_as_the_ancestor_prints_them() {
        let mut ended = row(
            "state_transition",
            json!({"to": "failed", "from": "running", "job_snapshot": {"status": "failed", "id": "x"}}),
        );
        ended.job_id = Some("99999999-8888-7777-6666-555555555555".into());
        ended.run_id = Some("R".into());
        ended.capability_instance_id = Some("lab-1".into());
        assert_eq!(
            journal(&ended, false),
            r#"2026-11-20 20:27:03 state_transition       [job=99999999 run=R] lab-1 {"from": "running", "job_snapshot": "<snapshot:failed>", "to": "failed"}"#
        );
        let mut account = row("task_account", json!({"ok": true, "task": "t", "duration_s": 0.001}));
        account.capability_name = Some("lab".into());
        account.worker_reported = true;
        assert_eq!(
            journal(&account, false),
            r#"2026-11-20 20:27:03 task_account           [job=- run=-] lab (worker) {"duration_s": 0.001, "ok": true, "task": "t"}"#
        );
        assert_eq!(
            journal(&row("run_started", json!({})), false),
            "2026-11-20 20:27:03 run_started            [job=- run=-] - {}"
        );
        let long = journal(&row("future_type", json!({"x": "y".repeat(400)})), false);
        let payload = long.split(" - ").nth(1).expect("payload");
        assert_eq!(payload, format!("{{\"x\": \"{}…", "y".repeat(152)));
        let odd = journal(&row("x", json!({"a": "h\u{e9}llo", "job_snapshot": {"x": 1}})), false);
        assert!(odd.ends_with(r#"{"a": "h\u00e9llo", "job_snapshot": "<snapshot:?>"}"#), "{odd}");
    }

    #[test]
    fn rows_of_our_own_tell_why_something_ended_before_all_else() {
        let death = json!({"clear_ms": 2, "confidence": "certain", "evidence": ["x".repeat(300)],
            "reason": "crash", "verdict": "crashed in the middle of a call (SIGSEGV)"});
        let died = journal(&row("worker_died", death), false);
        assert!(
            died.contains(r#"worker_died            [job=- run=-] - crashed in the middle of a call (SIGSEGV) {"clear_ms""#),
            "{died}"
        );
        let unload = json!({"reason": "host_kill", "verdict": "ended by the host: unloaded", "evidence": [], "returncode": 0});
        assert_eq!(
            journal(&row("worker_died", unload), false),
            r#"2026-11-20 20:27:03 worker ended           [job=- run=-] - (unloaded) {"returncode": 0}"#
        );
        assert!(
            journal(&row("worker_died", json!({"returncode": -9})), false)
                .contains(r#"- {"returncode": -9}"#)
        );

        let traceback =
            "Traceback (most recent call last):\n  File \"kit.py\", line 7, in go\nKeyError: 'nokey'\n";
        let error = json!({"category": "user_input", "message": "'nokey'\u{1b}[2J", "retriable": true,
            "original_exc_repr": "KeyError('nokey')", "traceback": traceback});
        let failed = json!({"from": "running", "to": "failed", "report": {"code": "call.tool_failed"},
            "job_snapshot": {"status": "failed", "error": error}});
        let mut failed = row("state_transition", failed);
        failed.job_id = Some("01a22132-941d-738b-b016-e73fef30c72f".into());
        failed.run_id = Some("01a22132-93f5-765b-89a3-6c2755c90f0d".into());
        let line = journal(&failed, false);
        assert_eq!(
            line,
            "2026-11-20 20:27:03 state_transition       [job=ef30c72f run=55c90f0d] - call.tool_failed: KeyError: \
             'nokey'\\x1b[2J (File \"kit.py\", line 7, in go) {\"from\": \"running\", \"job_snapshot\": \
             \"<snapshot:failed>\", \"to\": \"failed\"}"
        );
        let mut ours = failed.clone();
        ours.payload.insert("attempt".into(), json!(2));
        let ours = journal(&ours, false);
        assert!(ours.contains("- failed: call.tool_failed: KeyError: 'nokey'"), "{ours}");
        assert!(ours.ends_with(r#"in go) {"attempt": 2}"#), "{ours}");
        let completed = json!({"from": "running", "to": "completed", "attempt": 1, "job_snapshot": {"status": "completed"}});
        let completed = journal(&row("state_transition", completed), false);
        assert!(completed.ends_with(r#"- completed {"attempt": 1}"#), "{completed}");
        failed.node_id = Some("each".into());
        failed.payload.insert("element".into(), json!(3));
        let placed = journal(&failed, false);
        assert!(placed.contains("[job=ef30c72f run=55c90f0d node=each[3]] - call.tool_failed"), "{placed}");
        failed.node_id = None;
        let whole = journal(&failed, true);
        assert!(whole.starts_with(&line) && whole.ends_with("\n    KeyError: 'nokey'"), "{whole}");
    }

    #[test]
    fn of_a_long_message_a_row_has_both_ends_and_says_what_is_missing() {
        let error = json!({"category": "user_input", "message": format!("{}END", "x".repeat(400)), "retriable": true,
            "original_exc_repr": "ValueError('x')", "traceback": null});
        let line = journal(&row("direct_call_failed", json!({"status": "failed", "error": error})), false);
        let (begin, end) = ("x".repeat(150), "x".repeat(147));
        assert!(line.contains(&format!("ValueError: {begin} … (103 bytes left out) … {end}END")), "{line}");
    }

    #[test]
    fn the_end_of_a_run_tells_its_verdict_before_all_else() {
        let long = json!([{"name": "n", "status": "cancelled", "pids": "x".repeat(400)}]);
        for (outcome, error, told) in [
            ("cancelled", Value::Null, "- cancelled {"),
            ("completed", Value::Null, "- completed {"),
            (
                "failed",
                json!({"category": "transient", "message": "too late", "retriable": true, "original_exc_repr": "",
                    "traceback": null}),
                "- failed: transient: too late {",
            ),
        ] {
            let payload = json!({"name": "c", "status": "failed", "error": error, "nodes": long, "outcome": outcome,
                "failures": [], "failures_left_out": 0, "partial": false});
            let line = journal(&row("run_finished", payload), false);
            assert!(line.contains(told), "{line}");
        }
        let nodes = json!([{"name": "good", "status": "completed"},
            {"name": "all", "status": "skipped", "reason": "it needs `each`"}]);
        let payload = json!({"name": "c", "outcome": "partial", "error": null, "nodes": nodes});
        let line = journal(&row("run_finished", payload), false);
        assert!(line.ends_with("\n    node all: skipped: it needs `each`"), "{line}");
        let ancestors = journal(&row("run_finished", json!({"name": "c", "status": "failed"})), false);
        assert!(ancestors.ends_with(r#"- {"name": "c", "status": "failed"}"#), "{ancestors}");
    }

    #[test]
    fn records_and_chunks_look_as_the_ancestor_prints_them() {
        let mut said = DiagnosticRecord {
            ts: Timestamp::from_text("2026-11-20T20:27:08+00:00"),
            worker_session_id: Some("11111111-2222-3333-4444-555555555555".into()),
            job_id: None,
            level: "WARNING".into(),
            logger_name: "lab".into(),
            message: "bad".into(),
            exc_text: Some("Traceback\n  E".into()),
        };
        assert_eq!(
            record(&said, None),
            "2026-11-20 20:27:08 WARNING  [11111111|-] lab: bad\n    Traceback\n      E"
        );
        said.logger_name = "lab\nforged".into();
        said.message = "first\n2026-11-20 20:27:08 ERROR    [-|-] bank: forged".into();
        said.exc_text = None;
        assert_eq!(
            record(&said, None),
            "2026-11-20 20:27:08 WARNING  [11111111|-] lab\\nforged: first\n    \
            2026-11-20 20:27:08 ERROR    [-|-] bank: forged"
        );
        said.exc_text = Some(String::new());
        said.logger_name = String::new();
        said.message = String::new();
        assert_eq!(record(&said, None), "2026-11-20 20:27:08 WARNING  [11111111|-] : ");
        assert_eq!(record(&said, Some("lab\n-1")), "2026-11-20 20:27:08 WARNING  [11111111|- lab\\n-1] : ");
        let line = StreamChunk {
            ts: Timestamp::from_text("2026-11-20T20:27:09+00:00"),
            worker_session_id: None,
            stream: "stdout".into(),
            content: "raw line".into(),
        };
        assert_eq!(chunk(&line, None), "2026-11-20 20:27:09 [-] raw line");
        let two = StreamChunk { content: "raw\nline".into(), ..line };
        assert_eq!(chunk(&two, None), "2026-11-20 20:27:09 [-] raw\n    line");
    }
}
