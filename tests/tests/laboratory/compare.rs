//! What one pair said beside what another said: times, processes and paths taken out, everything else equal, but for a
//! list of differences that `docs/COMPATIBILITY.md` gives reasons for.

use super::pair::Told;
use cjm_tests::repo;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// The section of the document that gives the reasons.
const SECTION: &str = "## Capabilities and adapters";

/// A difference that is allowed.
pub(crate) struct Difference {
    /// Where: the name of a request, call or row and a path in its answer; `*` stands for anything.
    pub(crate) at: &'static str,
    /// First cell of the row that gives the reason.
    pub(crate) because: &'static str,
}

impl Difference {
    fn covers(&self, line: &str) -> bool {
        let place = line.split_once(": ").map_or(line, |(place, _)| place);
        let mut parts = self.at.split('*');
        let Some(mut rest) = place.strip_prefix(parts.next().unwrap_or_default()) else { return false };
        let mut last = "";
        for part in parts {
            let Some(at) = rest.rfind(part).filter(|_| part.is_empty()).or_else(|| rest.find(part)) else {
                return false;
            };
            rest = &rest[at + part.len()..];
            last = part;
        }
        rest.is_empty() || (self.at.ends_with('*') && last.is_empty())
    }
}

/// Leaves of two values that differ, `PLACE: OURS | THEIRS`.
pub(crate) fn differences(at: &str, ours: &Value, theirs: &Value, out: &mut Vec<String>) {
    match (ours, theirs) {
        (Value::Object(one), Value::Object(other)) => {
            let keys: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
            for key in keys {
                let (a, b) = (one.get(key), other.get(key));
                match (a, b) {
                    (Some(a), Some(b)) => differences(&format!("{at}/{key}"), a, b, out),
                    _ => out.push(format!("{at}/{key}: {} | {}", shown(a), shown(b))),
                }
            }
        }
        (Value::Array(one), Value::Array(other)) if one.len() == other.len() => {
            for (index, (a, b)) in one.iter().zip(other).enumerate() {
                differences(&format!("{at}/{index}"), a, b, out);
            }
        }
        (Value::Number(one), Value::Number(other)) if one.as_f64() == other.as_f64() => {}
        _ if ours == theirs => {}
        _ => out.push(format!("{at}: {} | {}", shown(Some(ours)), shown(Some(theirs)))),
    }
}

fn shown(value: Option<&Value>) -> String {
    let text = value.map_or_else(|| "absent".to_owned(), ToString::to_string);
    text.chars().take(300).collect()
}

/// Those that are not allowed; notes which allowances were needed.
pub(crate) fn unexpected(
    what: &str,
    found: Vec<String>,
    allowed: &[Difference],
    needed: &mut BTreeSet<&'static str>,
) -> Vec<String> {
    let mut is_allowed = |line: &String| {
        let covering: Vec<&'static str> =
            allowed.iter().filter(|one| one.covers(line)).map(|one| one.at).collect();
        needed.extend(covering.iter().copied());
        !covering.is_empty()
    };
    found.into_iter().filter(|line| !is_allowed(line)).map(|line| format!("{what}: {line}")).collect()
}

/// Fails unless the document gives a reason for each.
#[track_caller]
pub(crate) fn assert_reasons(allowed: &[Difference]) {
    let document = std::fs::read_to_string(repo::root().join("docs/COMPATIBILITY.md")).expect("the document");
    let section =
        document.split(SECTION).nth(1).and_then(|rest| rest.split("\n## ").next()).unwrap_or_default();
    for difference in allowed {
        let row = format!("| {} |", difference.because);
        assert!(
            section.contains(&row),
            "docs/COMPATIBILITY.md has no row \"{}\" in {SECTION}",
            difference.because
        );
    }
}

/// Answers of the surface.
pub(crate) fn surface(ours: &Told, theirs: &Told) -> Vec<String> {
    let mut found = Vec::new();
    assert_eq!(ours.surface.len(), theirs.surface.len());
    for ((id, one), (other_id, other)) in ours.surface.iter().zip(&theirs.surface) {
        assert_eq!(id, other_id);
        differences(id, &plain(one, ours), &plain(other, theirs), &mut found);
    }
    found
}

/// Outcomes of calls through the host.
pub(crate) fn calls(ours: &Told, theirs: &Told) -> Vec<String> {
    let mut found = Vec::new();
    let of = |told: &Told| {
        let calls: Map<String, Value> =
            told.calls.iter().map(|(id, call)| (id.clone(), plain(call, told))).collect();
        Value::Object(calls)
    };
    differences("call", &of(ours), &of(theirs), &mut found);
    found
}

/// Rows of each call's job, and those of the worker, in order.
pub(crate) fn rows(ours: &Told, theirs: &Told) -> Vec<String> {
    let mut found = Vec::new();
    for call in ours.calls.keys() {
        let of = |told: &Told| told.job(call).map(|job| of_job(told, job)).unwrap_or_default();
        compare_rows(&format!("rows of {call}"), &of(ours), &of(theirs), &mut found);
    }
    let of_worker = |told: &Told| {
        told.rows
            .iter()
            // Of calls that are no jobs theirs says nothing (COMPATIBILITY, "Rows of direct calls and streams").
            .filter(|row| row["job_id"].is_null() && row["event_type"] != "direct_call_failed")
            .map(|row| plain_row(row, told))
            .collect::<Vec<_>>()
    };
    compare_rows("rows of the worker", &of_worker(ours), &of_worker(theirs), &mut found);
    found
}

/// Records of the job that wrote some.
pub(crate) fn records(ours: &Told, theirs: &Told) -> Vec<String> {
    let of = |told: &Told| -> Vec<Value> {
        let job = told.job("log").expect("the job that logs");
        let records = told.records.iter().filter(|record| record["job_id"] == job);
        records
            .map(|record| {
                json!({
                    "level": record["level"], "logger": record["logger_name"], "message": record["message"],
                    "exc_text": plain(&json!({"traceback": record["exc_text"]}), told),
                    "has_session": record["worker_session_id"].is_string(),
                })
            })
            .collect()
    };
    let mut found = Vec::new();
    let (one, other) = (of(ours), of(theirs));
    assert_eq!(one.len(), 3, "{one:#?}");
    differences("records", &Value::from(one), &Value::from(other), &mut found);
    found
}

fn of_job(told: &Told, job: &str) -> Vec<Value> {
    let rows = told.rows.iter().filter(|row| row["job_id"] == job).map(|row| plain_row(row, told));
    // Only our host writes down that it has accepted a job (ACCEPTED gives the reason).
    rows.filter(|row| !(row["payload"]["to"] == "pending" && row["payload"]["from"].is_null())).collect()
}

/// Rows of one kind each: what the ancestor says must be said here as well, and may be said with more.
fn compare_rows(at: &str, ours: &[Value], theirs: &[Value], out: &mut Vec<String>) {
    let kinds = |rows: &[Value]| {
        let kind = |row: &Value| {
            let to = row["payload"]["to"].as_str().unwrap_or_default();
            format!("{} {to}", row["event_type"].as_str().unwrap_or_default()).trim_end().to_owned()
        };
        rows.iter().map(kind).collect::<Vec<_>>()
    };
    let (one, other) = (kinds(ours), kinds(theirs));
    if one != other {
        out.push(format!("{at}: {} | {}", one.join(", "), other.join(", ")));
        return;
    }
    for ((ours, theirs), kind) in ours.iter().zip(theirs).zip(one) {
        let mut ours = ours.clone();
        // Columns that theirs leaves empty may be filled here (FULLER gives the reason).
        if let (Some(columns), Some(known)) = (ours.as_object_mut(), theirs.as_object()) {
            columns.retain(|column, _| {
                column == "payload" || !matches!(known[column], Value::Null | Value::Bool(false))
            });
            for (column, value) in
                known.iter().filter(|(_, value)| matches!(value, Value::Null | Value::Bool(false)))
            {
                columns.entry(column.clone()).or_insert(value.clone());
            }
        }
        if let (Some(payload), Some(known)) = (ours["payload"].as_object_mut(), theirs["payload"].as_object())
        {
            payload.retain(|key, _| known.contains_key(key));
        }
        differences(&format!("{at}/{kind}"), &ours, theirs, out);
    }
}

fn plain_row(row: &Map<String, Value>, told: &Told) -> Value {
    let mut row = row.clone();
    for key in ["seq", "event_id", "ts"] {
        row.remove(key);
    }
    for key in ["job_id", "worker_session_id", "run_id"] {
        let has = row.get(key).is_some_and(Value::is_string);
        row.insert(key.to_owned(), has.into());
    }
    if let Some(payload) = row.get("payload").and_then(Value::as_str) {
        let payload: Value = serde_json::from_str(payload).expect("a payload is JSON");
        row.insert("payload".to_owned(), payload);
    }
    plain(&Value::Object(row), told)
}

/// Without what differs from one minute or directory to the next.
fn plain(value: &Value, told: &Told) -> Value {
    match value {
        Value::Object(map) => {
            let entries = map.iter().map(|(key, value)| (key.clone(), plain_entry(key, value, told)));
            Value::Object(entries.collect())
        }
        Value::Array(items) => items.iter().map(|item| plain(item, told)).collect(),
        Value::String(text) => text.replace(&told.data_dir.display().to_string(), "DATA").into(),
        other => other.clone(),
    }
}

fn plain_entry(key: &str, value: &Value, told: &Told) -> Value {
    match key {
        // Present or not is what counts.
        "pid" | "cpu_percent" | "memory_rss_mb" | "duration_s" | "wait_seconds" | "occurred_at"
        | "submitted_at" | "started_at" | "completed_at" | "job" | "id" | "subtree_pids" | "port" | "io"
            if !value.is_null() =>
        {
            json!("present")
        }
        "traceback" => last_line(value),
        // What the values are is seen in the body; here, in which order and how they are written.
        "text" if object(value).is_some() => {
            let object = object(value).unwrap_or_default();
            let text = Value::Object(object.clone()).to_string();
            json!({"keys": object.keys().collect::<Vec<_>>(), "compact": value.as_str() == Some(&text)})
        }
        "text" => plain(&Value::String(lines_without_times(value.as_str().unwrap_or_default(), told)), told),
        _ => plain(value, told),
    }
}

fn object(text: &Value) -> Option<Map<String, Value>> {
    serde_json::from_str(text.as_str()?).ok()
}

/// A stream's lines, those with an error as plain as other objects.
fn lines_without_times(text: &str, told: &Told) -> String {
    let lines = text.split('\n').map(|line| match serde_json::from_str::<Value>(line) {
        Ok(value) if value.get("_job_error").is_some() => plain(&value, told).to_string(),
        _ => line.to_owned(),
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The exception itself; the frames above it are those of whoever called the tool.
fn last_line(value: &Value) -> Value {
    let text = value.as_str().unwrap_or_default();
    text.lines().rfind(|line| !line.trim().is_empty()).map_or(Value::Null, Value::from)
}
