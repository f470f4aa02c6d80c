//! Results, what reaches the tool with a call, accounts, tasks.

use super::{Check, Outcome, asks, detail_of, json_of, judge, shown};
use crate::session::Session;
use cjm_wire::http as paths;
use serde_json::{Value, json};

pub(super) const CHECKS: &[Check] = &[
    asks("result.text", "5.1", "a text comes back as JSON in UTF-8, unescaped", &["echo"], text),
    asks(
        "result.compact",
        "5.1",
        "a result is compact JSON with the tool's order of keys",
        &["value"],
        compact,
    ),
    asks("call.envelope_apart", "5.2", "the envelope is not among the arguments", &["received"], envelope),
    asks("call.job", "5.2", "the job's id reaches the tool", &["job"], job),
    asks(
        "call.content_type",
        "5.3",
        "the content type of a request is not looked at, or what is not JSON is refused with 415",
        &["echo"],
        content_type,
    ),
    asks("result.typed", "5.5", "a registered type is tagged", &["typed"], typed),
    asks("accounts.header", "9.1", "accounts stand in X-CJM-Accounts", &["account"], accounts),
    asks("accounts.absent", "9.1", "without accounts there is no such header", &["echo"], no_accounts),
    asks("accounts.forged", "9.2", "only a worker's event types are accounted for", &["forge"], forged),
    asks("task.runs", "10.2", "a task's method answers, and is accounted for", &["task"], task_runs),
    asks("task.method", "10.1", "a method that is missing or private is 404", &["task"], task_method),
];

fn text(session: &Session) -> Outcome {
    let answer = session.execute("echo", json!({"text": "é ☃ 😀 \"q\" /"}))?;
    json_of(&answer)?;
    judge(answer.body == "\"é ☃ 😀 \\\"q\\\" /\"".as_bytes(), shown(&answer))
}

fn compact(session: &Session) -> Outcome {
    let answer = session.execute("value", json!({}))?;
    json_of(&answer)?;
    judge(answer.body == "{\"b\":[1,2.5,null,true],\"é\":{\"x\":\"☃\"}}".as_bytes(), shown(&answer))
}

fn envelope(session: &Session) -> Outcome {
    let body = json!({
        "args": [1], "kwargs": {"action": "received", "x": "é", "n": null},
        "envelope": {"job_id": "j", "control": {"force": true}, "a_later_key": {"deep": [1]}},
    });
    let received = json_of(&session.post(paths::EXECUTE, &body)?)?;
    judge(received == json!({"args": [1], "kwargs": {"x": "é", "n": null}}), received.to_string())
}

fn job(session: &Session) -> Outcome {
    let body = json!({"kwargs": {"action": "job"}, "envelope": {"job_id": "a-job"}});
    let named = json_of(&session.post(paths::EXECUTE, &body)?)?;
    judge(named == "a-job", format!("the tool saw {named}"))?;
    let without = json_of(&session.execute("job", json!({}))?)?;
    judge(without.is_null(), format!("without a job the tool saw {without}"))
}

fn content_type(session: &Session) -> Outcome {
    let body = json!({"kwargs": {"action": "echo", "text": "t"}});
    for kind in ["text/plain", "application/x-www-form-urlencoded"] {
        let answer = session.send_typed(paths::EXECUTE, kind, &body)?;
        if answer.status == 415 {
            continue;
        }
        judge(json_of(&answer)? == "t", format!("{kind}: {}", shown(&answer)))?;
    }
    Ok("answered as always, or refused".to_owned())
}

fn typed(session: &Session) -> Outcome {
    let result = json_of(&session.execute("typed", json!({}))?)?;
    judge(result == json!({"__wire__": "conformance.result", "data": {"text": "typed"}}), result.to_string())
}

fn accounts(session: &Session) -> Outcome {
    let answer = session.execute("account", json!({}))?;
    json_of(&answer)?;
    let header = answer.header(paths::ACCOUNTS_HEADER).unwrap_or("no such header");
    judge(header == "[{\"event_type\": \"cache_hit\", \"payload\": {\"key\": \"\\u00e9\"}}]", header)
}

fn no_accounts(session: &Session) -> Outcome {
    let answer = session.execute("echo", json!({"text": "t"}))?;
    match answer.header(paths::ACCOUNTS_HEADER) {
        None => Ok("no such header".to_owned()),
        Some(header) => Err(header.to_owned()),
    }
}

fn forged(session: &Session) -> Outcome {
    let answer = session.execute("forge", json!({}))?;
    let header = answer.header(paths::ACCOUNTS_HEADER).unwrap_or("no such header");
    judge(!header.contains("state_transition"), header)
}

fn task(method: &str, kwargs: &Value) -> Value {
    json!({"task": "conformance", "method": method, "kwargs": kwargs, "envelope": {}})
}

fn task_runs(session: &Session) -> Outcome {
    let answer = session.post(paths::TASK, &task("run", &json!({"text": "é"})))?;
    judge(json_of(&answer)? == "é", shown(&answer))?;
    let header = answer.header(paths::ACCOUNTS_HEADER).unwrap_or("no accounts").to_owned();
    let accounts: Value = serde_json::from_str(&header).map_err(|_| header.clone())?;
    let account = &accounts[0];
    let payload = &account["payload"];
    let named = payload["task"] == "conformance" && payload["method"] == "run" && payload["ok"] == true;
    let timed = payload["duration_s"].as_f64().is_some_and(|seconds| seconds >= 0.0);
    judge(account["event_type"] == "task_account" && named && timed, header)
}

fn task_method(session: &Session) -> Outcome {
    let mut seen = Vec::new();
    for method in ["no_such_method", "_hidden", ""] {
        let answer = session.post(paths::TASK, &task(method, &json!({})))?;
        seen.push(detail_of(&answer, 404).map_err(|wrong| format!("`{method}`: {wrong}"))?);
    }
    Ok(seen.join("; "))
}
