//! How rows of the stores look to people: the ancestor's lines, byte for byte, so that what reads its output reads
//! ours.

use cjm_store::{DiagnosticRecord, StreamChunk};
use cjm_wire::event::JournalRow;
use cjm_wire::python_json::{Style, to_string};
use serde_json::Value;

/// Most characters of a payload on its line.
const PAYLOAD_CHARS_MAX: usize = 160;
/// Payload key whose value is too long for a line.
const SNAPSHOT_KEY: &str = "job_snapshot";

/// `2026-11-20 20:27:07 INFO     [11111111|99999999] lab.x: hello`, and an exception's text indented below.
pub(crate) fn record(record: &DiagnosticRecord) -> String {
    let mut line = format!(
        "{} {:8} [{}|{}] {}: {}",
        record.ts.for_people(),
        record.level,
        short(record.worker_session_id.as_deref()),
        short(record.job_id.as_deref()),
        record.logger_name,
        record.message
    );
    for extra in record.exc_text.iter().flat_map(|text| text.lines()) {
        line.push_str("\n    ");
        line.push_str(extra);
    }
    line
}

/// `2026-11-20 20:27:09 [11111111] raw line`
pub(crate) fn chunk(chunk: &StreamChunk) -> String {
    format!("{} [{}] {}", chunk.ts.for_people(), short(chunk.worker_session_id.as_deref()), chunk.content)
}

/// `2026-11-20 20:27:05 run_started            [job=- run=R] - {}`
pub(crate) fn journal(row: &JournalRow) -> String {
    let mut payload = row.payload.clone();
    if let Some(snapshot) = payload.get_mut(SNAPSHOT_KEY) {
        let status = snapshot.get("status").and_then(Value::as_str).unwrap_or("?");
        *snapshot = Value::from(format!("<snapshot:{status}>"));
    }
    let text = to_string(&Value::Object(payload), Style::Payload);
    let subject = row.capability_instance_id.as_deref().or(row.capability_name.as_deref());
    format!(
        "{} {:22} [job={} run={}] {}{} {}",
        row.ts.for_people(),
        row.event_type,
        short(row.job_id.as_deref()),
        row.run_id.as_deref().filter(|run| !run.is_empty()).unwrap_or("-"),
        subject.filter(|name| !name.is_empty()).unwrap_or("-"),
        if row.worker_reported { " (worker)" } else { "" },
        cut(&text)
    )
}

/// The first eight characters, or `-`.
fn short(id: Option<&str>) -> &str {
    match id.filter(|id| !id.is_empty()) {
        None => "-",
        Some(id) => id.char_indices().nth(8).map_or(id, |(at, _)| &id[..at]),
    }
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
            journal(&ended),
            r#"2026-11-20 20:27:03 state_transition       [job=99999999 run=R] lab-1 {"from": "running", "job_snapshot": "<snapshot:failed>", "to": "failed"}"#
        );
        let mut account = row("task_account", json!({"ok": true, "task": "t", "duration_s": 0.001}));
        account.capability_name = Some("lab".into());
        account.worker_reported = true;
        assert_eq!(
            journal(&account),
            r#"2026-11-20 20:27:03 task_account           [job=- run=-] lab (worker) {"duration_s": 0.001, "ok": true, "task": "t"}"#
        );
        assert_eq!(
            journal(&row("run_started", json!({}))),
            "2026-11-20 20:27:03 run_started            [job=- run=-] - {}"
        );
        let long = journal(&row("future_type", json!({"x": "y".repeat(400)})));
        let payload = long.split(" - ").nth(1).expect("payload");
        assert_eq!(payload, format!("{{\"x\": \"{}…", "y".repeat(152)));
        let odd = journal(&row("x", json!({"a": "h\u{e9}llo", "job_snapshot": {"x": 1}})));
        assert!(odd.ends_with(r#"{"a": "h\u00e9llo", "job_snapshot": "<snapshot:?>"}"#), "{odd}");
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
            record(&said),
            "2026-11-20 20:27:08 WARNING  [11111111|-] lab: bad\n    Traceback\n      E"
        );
        said.exc_text = Some(String::new());
        said.logger_name = String::new();
        said.message = String::new();
        assert_eq!(record(&said), "2026-11-20 20:27:08 WARNING  [11111111|-] : ");
        let line = StreamChunk {
            ts: Timestamp::from_text("2026-11-20T20:27:09+00:00"),
            worker_session_id: None,
            stream: "stdout".into(),
            content: "raw line".into(),
        };
        assert_eq!(chunk(&line), "2026-11-20 20:27:09 [-] raw line");
    }
}
