//! Results that come line by line: how a line is written, and the ways in which a stream ends. Lines are compared as
//! bytes, since that is what hosts read.

use super::failures::job_error;
use super::{Check, Outcome, asks, json_of, judge, shown};
use crate::client::Answer;
use crate::session::Session;
use cjm_wire::http as paths;
use serde_json::{Value, json};

pub(super) const CHECKS: &[Check] = &[
    asks(
        "stream.lines",
        "7.1",
        "one line for each chunk, and the end of the body as the only end",
        &["stream"],
        lines,
    ),
    asks("stream.form", "7.2", "a line is written as Python writes JSON", &["stream_objects"], form),
    asks("stream.empty", "7.3", "no chunk at all is an empty body", &["stream_nothing"], nothing),
    asks(
        "stream.failure",
        "7.4",
        "a failure is the last line, after the chunks before it",
        &["stream_fail"],
        fails,
    ),
    asks(
        "stream.cancelled",
        "7.5",
        "so is a cancellation: transient, not retriable",
        &["stream_wait"],
        cancelled,
    ),
    asks(
        "stream.abandoned",
        "7.6",
        "a client that goes away ends the call",
        &["stream_wait", "abandoned"],
        abandoned,
    ),
];

/// The lines of a whole stream.
fn lines_of(answer: &Answer) -> Result<Vec<String>, String> {
    let is_ndjson = answer.header("content-type") == Some(paths::NDJSON);
    judge(answer.status == 200 && is_ndjson, shown(answer))?;
    let text = answer.text();
    judge(text.is_empty() || text.ends_with('\n'), format!("the last line has no end: {}", shown(answer)))?;
    Ok(text.lines().map(str::to_owned).collect())
}

fn lines(session: &Session) -> Outcome {
    let found = lines_of(&session.stream("stream", json!({"count": 3}))?)?;
    judge(found == ["\"\\u00e9 0\"", "\"\\u00e9 1\"", "\"\\u00e9 2\""], found.join(" | "))
}

fn form(session: &Session) -> Outcome {
    let found = lines_of(&session.stream("stream_objects", json!({}))?)?;
    judge(found == ["{\"n\": 0, \"t\": \"\\u00e9\"}"], found.join(" | "))
}

fn nothing(session: &Session) -> Outcome {
    let answer = session.stream("stream_nothing", json!({}))?;
    lines_of(&answer)?;
    judge(answer.body.is_empty(), shown(&answer))
}

fn fails(session: &Session) -> Outcome {
    let found = lines_of(&session.stream("stream_fail", json!({}))?)?;
    judge(found.len() == 3, format!("{} lines, and 3 are expected: {}", found.len(), found.join(" | ")))?;
    let last: Value = serde_json::from_str(&found[2]).map_err(|error| format!("{error}: {}", found[2]))?;
    let error = job_error(session, &last)?;
    judge(found[2].starts_with("{\"_job_error\": {\"category\": \""), found[2].clone())?;
    Ok(format!("two chunks, then {}: {}", error["category"], error["message"]))
}

fn cancelled(session: &Session) -> Outcome {
    let mut stream = session.open_stream("stream_wait")?;
    judge(stream.status == 200, format!("status {}", stream.status))?;
    let mut body = stream.chunk()?.ok_or("the stream ended before its first chunk")?;
    json_of(&session.send("POST", paths::CANCEL, b"")?)?;
    while let Some(more) = stream.chunk()? {
        body.extend_from_slice(&more);
    }
    let text = String::from_utf8_lossy(&body).into_owned();
    let last = text.lines().last().unwrap_or_default();
    let error: Value = serde_json::from_str(last).map_err(|_| text.clone())?;
    let error = job_error(session, &error)?;
    let good = error["category"] == "transient" && error["retriable"] == false;
    judge(good, format!("{}, retriable {}: {}", error["category"], error["retriable"], error["message"]))
}

fn abandoned(session: &Session) -> Outcome {
    let ended = || -> Result<u64, String> {
        let count = json_of(&session.execute("abandoned", json!({}))?)?;
        count.as_u64().ok_or_else(|| format!("`abandoned` is no count: {count}"))
    };
    let before = ended()?;
    let mut stream = session.open_stream("stream_wait")?;
    stream.chunk()?.ok_or("the stream ended before its first chunk")?;
    drop(stream);
    let gone = session
        .wait_for("the end of a call whose client went away", || Ok((ended()? > before).then_some(())));
    // Whatever is left of it must not meet the checks that follow.
    session.send("POST", paths::CANCEL, b"")?;
    gone.map(|()| "the call ended".to_owned())
}
