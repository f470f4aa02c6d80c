//! Cancel, progress, usage: what is said about a call from beside it.

use super::{Check, Outcome, asks, detail_of, json_of, judge, shown, status_of};
use crate::client::{Answer, ClientError};
use crate::session::Session;
use cjm_wire::http as paths;
use serde_json::json;
use std::thread::JoinHandle;
use std::time::Duration;

pub(super) const CHECKS: &[Check] = &[
    asks("cancel.idle", "8.1", "/cancel says cancelled, also when nothing runs", &[], idle),
    asks("cancel.running", "8.2", "a running call that is cancelled answers 409", &["wait"], running),
    asks("cancel.afterwards", "8.3", "the call after a cancelled one runs", &["wait", "echo"], afterwards),
    asks("cancel.one_call", "8.4", "with a job's id only its call is meant", &["wait"], one_call),
    asks(
        "progress.reported",
        "8.5",
        "/progress tells what the newest call reported last",
        &["progress"],
        reported,
    ),
    asks("progress.new_call", "8.5", "progress starts anew with a new call", &["progress", "echo"], new_call),
    asks("usage.reported", "8.6", "/stats has what the newest call used", &["usage"], usage),
    asks("usage.new_call", "8.6", "usage starts anew with a new call", &["usage", "echo"], usage_anew),
];

/// How long a call that nobody meant is given to end all the same.
const SPARED_WAIT: Duration = Duration::from_millis(500);

type Waiting = JoinHandle<Result<Answer, ClientError>>;

/// Starts a call that waits, and returns when it does.
fn start_waiting(session: &Session, mark: &str) -> Result<Waiting, String> {
    let call = session.execute_beside("wait", json!({ "mark": mark }), mark);
    session.wait_progress(&format!("waiting {mark}"))?;
    Ok(call)
}

fn answer_of(call: Waiting) -> Result<Answer, String> {
    Ok(call.join().map_err(|_| "the request's thread panicked".to_owned())??)
}

fn idle(session: &Session) -> Outcome {
    status_of(&session.send("POST", paths::CANCEL, b"")?, &["cancelled"])
}

fn running(session: &Session) -> Outcome {
    let call = start_waiting(session, "a")?;
    status_of(&session.send("POST", paths::CANCEL, b"")?, &["cancelled"])?;
    detail_of(&answer_of(call)?, 409)
}

fn afterwards(session: &Session) -> Outcome {
    let call = start_waiting(session, "b")?;
    session.send("POST", paths::CANCEL, b"")?;
    answer_of(call)?;
    let answer = session.execute("echo", json!({"text": "on"}))?;
    judge(json_of(&answer)? == "on", shown(&answer))
}

fn one_call(session: &Session) -> Outcome {
    let meant = start_waiting(session, "meant")?;
    let spared = start_waiting(session, "spared")?;
    session.post(paths::CANCEL, &json!({"job_id": "meant"}))?;
    let first = detail_of(&answer_of(meant)?, 409);
    // Nothing tells that a call goes on but that it has not ended.
    std::thread::sleep(SPARED_WAIT);
    let went_on = !spared.is_finished();
    session.send("POST", paths::CANCEL, b"")?;
    let second = detail_of(&answer_of(spared)?, 409);
    let seen = format!("the named call: {}", first?);
    second?;
    judge(went_on, if went_on { seen } else { "the other call ended as well".to_owned() })
}

fn reported(session: &Session) -> Outcome {
    session.execute("progress", json!({}))?;
    let progress = json_of(&session.get(paths::PROGRESS)?)?;
    judge(progress == json!({"progress": 0.5, "message": "half"}), progress.to_string())
}

fn new_call(session: &Session) -> Outcome {
    session.execute("progress", json!({}))?;
    session.execute("echo", json!({"text": "t"}))?;
    let progress = json_of(&session.get(paths::PROGRESS)?)?;
    judge(progress == json!({"progress": 0.0, "message": ""}), progress.to_string())
}

fn usage(session: &Session) -> Outcome {
    session.execute("usage", json!({}))?;
    let usage = json_of(&session.get(paths::STATS)?)?["usage"].clone();
    judge(usage == json!({"tokens": 7}), usage.to_string())
}

fn usage_anew(session: &Session) -> Outcome {
    session.execute("usage", json!({}))?;
    session.execute("echo", json!({"text": "t"}))?;
    let usage = json_of(&session.get(paths::STATS)?)?["usage"].clone();
    judge(usage.is_null(), usage.to_string())
}
