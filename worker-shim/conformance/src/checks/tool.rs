//! Configuration and hooks of the fixture.

use super::{Check, Outcome, asks, detail_of, json_of, judge, shown, status_of};
use crate::session::Session;
use cjm_wire::http as paths;
use serde_json::json;
use std::time::{Duration, Instant};

pub(super) const CHECKS: &[Check] = &[
    asks(
        "initialize.takes",
        "3.3",
        "a configuration is taken, and /config tells it",
        &["configurable"],
        takes,
    ),
    asks(
        "initialize.refuses",
        "3.4",
        "what the tool refuses is 400 with its words",
        &["configurable"],
        refuses,
    ),
    asks("reconfigure.takes", "3.5", "old and new configuration are taken", &[], reconfigure),
    asks("hooks.prefetch", "4.1", "/prefetch says prefetched, or that it is not supported", &[], prefetch),
    asks("hooks.disable", "4.2", "/on_disable and /on_enable say what they did", &[], disable),
    asks("hooks.failing", "4.3", "a hook that fails is a 200 that says so", &["configurable"], failing),
    asks("hooks.monitor", "4.4", "a tool that is no monitor answers monitors' paths with 404", &[], monitor),
    asks(
        "health.busy",
        "2.4",
        "/health answers while the tool is busy in initialize",
        &["configurable"],
        busy,
    ),
];

/// What ends the tool's work, and so comes after everything.
pub(super) const LAST: &[Check] = &[asks("hooks.cleanup", "4.5", "/cleanup says cleaned", &[], cleanup)];

/// How long the tool is kept busy.
const HOLD: Duration = Duration::from_millis(1500);
/// An answer that took longer waited for the tool.
const HELD_UP: Duration = Duration::from_millis(750);

fn takes(session: &Session) -> Outcome {
    let answer = session.post(paths::INITIALIZE, &json!({"level": 5}))?;
    judge(json_of(&answer)? == json!({"status": "ok"}), shown(&answer))?;
    let config = json_of(&session.get(paths::CONFIG)?)?;
    judge(config["level"] == 5, config.to_string())
}

fn refuses(session: &Session) -> Outcome {
    let detail = detail_of(&session.post(paths::INITIALIZE, &json!({"bad": true}))?, 400)?;
    judge(detail.contains("bad"), detail)
}

fn reconfigure(session: &Session) -> Outcome {
    let body = json!({"old_config": {"level": 5}, "new_config": {"level": 6}});
    status_of(&session.post(paths::RECONFIGURE, &body)?, &["reconfigured", "not_supported"])
}

fn prefetch(session: &Session) -> Outcome {
    status_of(&session.send("POST", paths::PREFETCH, b"")?, &["prefetched", "not_supported"])
}

fn disable(session: &Session) -> Outcome {
    let off = status_of(&session.send("POST", paths::ON_DISABLE, b"")?, &["disabled", "not_supported"])?;
    let on = status_of(&session.send("POST", paths::ON_ENABLE, b"")?, &["enabled", "not_supported"])?;
    Ok(format!("{off} {on}"))
}

fn failing(session: &Session) -> Outcome {
    session.post(paths::INITIALIZE, &json!({"disable_fails": true}))?;
    let body = json_of(&session.send("POST", paths::ON_DISABLE, b"")?)?;
    session.post(paths::INITIALIZE, &json!({}))?;
    let words = body["detail"].as_str().is_some_and(|detail| detail.contains("cannot be disabled"));
    judge(body["status"] == "error" && words, body.to_string())
}

fn monitor(session: &Session) -> Outcome {
    let system = detail_of(&session.send("POST", paths::GET_SYSTEM_STATUS, b"")?, 404)?;
    let list = detail_of(&session.send("POST", paths::LIST_PROCESSES, b"")?, 404)?;
    Ok(format!("{system}; {list}"))
}

fn busy(session: &Session) -> Outcome {
    let initialize = session.post_beside(paths::INITIALIZE, json!({"hold_seconds": HOLD.as_secs_f64()}));
    let mut slowest = Duration::ZERO;
    while !initialize.is_finished() {
        let began = Instant::now();
        json_of(&session.get(paths::HEALTH)?)?;
        slowest = slowest.max(began.elapsed());
    }
    let answer = initialize.join().map_err(|_| "the request's thread panicked".to_owned())??;
    judge(answer.status == 200, shown(&answer))?;
    judge(slowest < HELD_UP, format!("the slowest answer took {} ms", slowest.as_millis()))
}

fn cleanup(session: &Session) -> Outcome {
    status_of(&session.send("POST", paths::CLEANUP, b"")?, &["cleaned"])
}
