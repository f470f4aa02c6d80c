//! How calls fail: every key of a failure, its order and type, is read by each of these checks, so that none can be
//! right in one category and wrong in another.

use super::{Check, Outcome, asks, judge, shown};
use crate::client::Answer;
use crate::session::Session;
use serde_json::{Value, json};

pub(super) const CHECKS: &[Check] = &[
    asks("failure.input", "6.2", "a fault of the caller's names the fields", &["fail_input"], input),
    asks(
        "failure.transient",
        "6.2",
        "a passing failure says when to try again",
        &["fail_transient"],
        transient,
    ),
    asks("failure.resource", "6.2", "a lack says of what, and how much", &["fail_resource"], resource),
    asks("failure.fatal", "6.2", "any other failure is fatal, and not retriable", &["fail_fatal"], fatal),
    asks(
        "failure.not_json",
        "6.3",
        "a result that JSON cannot hold is a failure, the tool's own or an input error",
        &["not_json"],
        not_json,
    ),
];

/// Keys of `_job_error`, all of them, in this order.
const KEYS: [&str; 11] = [
    "category",
    "message",
    "retriable",
    "original_exc_repr",
    "traceback",
    "retry_after_seconds",
    "fields_invalid",
    "resource_shortfall",
    "capability_name",
    "capability_instance_id",
    "occurred_at",
];

/// The `_job_error` of a 500, whole and with a category.
fn failure(session: &Session, answer: &Answer, category: &str) -> Result<Value, String> {
    let is_json = answer.header("content-type") == Some("application/json");
    judge(answer.status == 500 && is_json, shown(answer))?;
    let body: Value = serde_json::from_slice(&answer.body).map_err(|_| shown(answer))?;
    let error = job_error(session, &body)?;
    judge(error["category"] == category, format!("category {}: {}", error["category"], shown(answer)))?;
    judge(error["retriable"] == (category != "fatal"), format!("retriable {}", error["retriable"]))?;
    Ok(error)
}

/// `{"_job_error": {…}}` and nothing else, with all keys and their types.
pub(super) fn job_error(session: &Session, body: &Value) -> Result<Value, String> {
    let only = body.as_object().is_some_and(|body| body.len() == 1);
    let error = body.get("_job_error").filter(|_| only).and_then(Value::as_object);
    let error = error.ok_or_else(|| format!("no `_job_error` alone: {body}"))?;
    let keys: Vec<&str> = error.keys().map(String::as_str).collect();
    judge(keys == KEYS, format!("its keys are {}", keys.join(", ")))?;
    for key in ["message", "original_exc_repr", "occurred_at"] {
        judge(error[key].is_string(), format!("`{key}` is {}", error[key]))?;
    }
    judge(
        error["traceback"].is_string() || error["traceback"].is_null(),
        format!("`traceback` is {}", error["traceback"]),
    )?;
    let name = &error["capability_name"];
    judge(name == &session.health()["name"], format!("`capability_name` is {name}"))?;
    judge(error["capability_instance_id"].is_null(), "`capability_instance_id` is the host's to say")?;
    let at = error["occurred_at"].as_str().unwrap_or_default();
    let is_instant = cjm_wire::Timestamp::from_text(at).as_micros().is_some();
    judge(is_instant && at.contains('T') && at.ends_with("+00:00"), format!("`occurred_at` is {at}"))?;
    Ok(Value::Object(error.clone()))
}

fn input(session: &Session) -> Outcome {
    let error = failure(session, &session.execute("fail_input", json!({}))?, "user_input")?;
    let good = error["message"] == "bad input" && error["fields_invalid"] == json!(["text"]);
    judge(good, format!("{}, fields {}", error["message"], error["fields_invalid"]))?;
    judge(error["retry_after_seconds"].is_null() && error["resource_shortfall"].is_null(), error.to_string())
}

fn transient(session: &Session) -> Outcome {
    let error = failure(session, &session.execute("fail_transient", json!({}))?, "transient")?;
    let seen = format!("{}, again after {}", error["message"], error["retry_after_seconds"]);
    judge(error["message"] == "later" && error["retry_after_seconds"] == 1.5, seen)
}

fn resource(session: &Session) -> Outcome {
    let error = failure(session, &session.execute("fail_resource", json!({}))?, "resource")?;
    let shortfall = &error["resource_shortfall"];
    let amount = |key: &str, expected: f64| shortfall[key].as_f64() == Some(expected);
    let good =
        shortfall["resource"] == "gpu_vram_mb" && amount("needed", 9000.0) && amount("available", 100.5);
    judge(error["message"] == "no memory" && good, format!("{}, {shortfall}", error["message"]))
}

fn fatal(session: &Session) -> Outcome {
    let error = failure(session, &session.execute("fail_fatal", json!({}))?, "fatal")?;
    let plain = error["retry_after_seconds"].is_null() && error["resource_shortfall"].is_null();
    judge(plain && error["fields_invalid"].is_null(), error["message"].to_string())
}

fn not_json(session: &Session) -> Outcome {
    let answer = session.execute("not_json", json!({}))?;
    let told: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let category = if told["_job_error"]["category"] == "user_input" { "user_input" } else { "fatal" };
    let error = failure(session, &answer, category)?;
    Ok(error["message"].to_string())
}
