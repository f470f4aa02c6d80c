//! What any worker serves, whatever its tool is. Nothing here makes the tool work.

use super::{Check, Outcome, detail_of, json_of, judge, reads, shown};
use crate::session::Session;
use cjm_wire::http as paths;
use serde_json::{Value, json};

pub(super) const CHECKS: &[Check] = &[
    reads("serve.unknown_path", "1.1", "an unknown path is 404 with a detail", unknown_path),
    reads("serve.wrong_method", "1.2", "a wrong method is 405 with a detail, HEAD too", wrong_method),
    reads("serve.described", "1.3", "/openapi.json names every path, /docs is a page", described),
    reads("serve.keep_alive", "1.4", "a connection serves one request after the other", keep_alive),
    reads("health.shape", "2.1", "/health says running, pid, name and version", health),
    reads("stats.shape", "2.2", "/stats says what the worker and all below it use", stats),
    reads("progress.shape", "2.3", "/progress says a number from 0 to 1, or -1, and a message", progress),
    reads("config.objects", "3.1", "/config, /config_schema and /config_options answer objects", config),
    reads(
        "surface.shape",
        "3.2",
        "/structural_surface lists methods, properties, attributes by name",
        structure,
    ),
    reads("initialize.bad_json", "3.4", "a configuration that is no JSON is 400 with a detail", bad_config),
    reads("call.malformed", "5.4", "a call that is no JSON is 500 Internal Server Error, as text", malformed),
    reads("task.unknown", "10.1", "a task that nobody serves is 404 with a detail", unknown_task),
];

/// Every path of the surface with its method.
const PATHS: [(&str, &str); 19] = [
    ("get", paths::HEALTH),
    ("get", paths::STATS),
    ("get", paths::PROGRESS),
    ("get", paths::CONFIG),
    ("get", paths::CONFIG_SCHEMA),
    ("get", paths::CONFIG_OPTIONS),
    ("get", paths::STRUCTURAL_SURFACE),
    ("post", paths::INITIALIZE),
    ("post", paths::RECONFIGURE),
    ("post", paths::PREFETCH),
    ("post", paths::ON_DISABLE),
    ("post", paths::ON_ENABLE),
    ("post", paths::CANCEL),
    ("post", paths::CLEANUP),
    ("post", paths::EXECUTE),
    ("post", paths::TASK),
    ("post", paths::EXECUTE_STREAM),
    ("post", paths::GET_SYSTEM_STATUS),
    ("post", paths::LIST_PROCESSES),
];

fn unknown_path(session: &Session) -> Outcome {
    for method in ["GET", "POST"] {
        let answer = session.send(method, "/no/such/path", b"")?;
        let detail = detail_of(&answer, 404)?;
        judge(detail == "Not Found", format!("{method}: {}", shown(&answer)))?;
    }
    Ok("404 Not Found".to_owned())
}

fn wrong_method(session: &Session) -> Outcome {
    for (method, path) in [("POST", paths::HEALTH), ("GET", paths::EXECUTE)] {
        let answer = session.send(method, path, b"")?;
        let detail = detail_of(&answer, 405).map_err(|seen| format!("{method} {path}: {seen}"))?;
        judge(detail == "Method Not Allowed", format!("{method} {path}: {}", shown(&answer)))?;
    }
    let head = session.send("HEAD", paths::HEALTH, b"")?;
    judge(head.status == 405 && head.body.is_empty(), format!("HEAD {}: {}", paths::HEALTH, head.status))
}

fn described(session: &Session) -> Outcome {
    let document = json_of(&session.get(paths::OPENAPI)?)?;
    judge(document["openapi"].is_string(), "the document does not say `openapi`")?;
    let missing: Vec<String> = PATHS
        .iter()
        .filter(|(method, path)| document["paths"][path][method].is_null())
        .map(|(method, path)| format!("{method} {path}"))
        .collect();
    judge(missing.is_empty(), format!("missing in the document: {}", missing.join(", ")))?;
    let page = session.get(paths::DOCS)?;
    let is_page = page.header("content-type").is_some_and(|kind| kind.starts_with("text/html"));
    judge(page.status == 200 && is_page, format!("{} paths; the page is {}", PATHS.len(), page.status))
}

fn keep_alive(session: &Session) -> Outcome {
    let answers = session.converse(&[paths::HEALTH, paths::STATS, paths::PROGRESS])?;
    let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    judge(statuses == [200, 200, 200], format!("{statuses:?}"))
}

fn health(session: &Session) -> Outcome {
    let body = json_of(&session.get(paths::HEALTH)?)?;
    let text = |key: &str| body[key].is_string();
    let optional = |key: &str| body.get(key).is_none_or(Value::is_string);
    let good = body["status"] == "running" && body["pid"].as_u64().is_some_and(|pid| pid > 0);
    let good = good && text("name") && text("version");
    judge(good && optional("substrate_version") && optional("python_executable"), body.to_string())
}

fn stats(session: &Session) -> Outcome {
    let pid = json_of(&session.get(paths::HEALTH)?)?["pid"].clone();
    let body = json_of(&session.get(paths::STATS)?)?;
    let positive = |key: &str| body[key].as_f64().is_some_and(|number| number >= 0.0);
    let has_usage = body.get("usage").is_some_and(|usage| usage.is_null() || usage.is_object());
    let counts_itself = body["subtree_pids"].as_array().is_some_and(|pids| pids.contains(&pid));
    let weighs = body["memory_rss_mb"].as_f64().is_some_and(|mb| mb > 0.0);
    judge(
        body["pid"] == pid && positive("cpu_percent") && weighs && has_usage && counts_itself,
        body.to_string(),
    )
}

fn progress(session: &Session) -> Outcome {
    let body = json_of(&session.get(paths::PROGRESS)?)?;
    let number = body["progress"].as_f64();
    let within = number
        .is_some_and(|number| (0.0..=1.0).contains(&number) || number.to_bits() == (-1.0_f64).to_bits());
    judge(within && body["message"].is_string(), body.to_string())
}

fn config(session: &Session) -> Outcome {
    for path in [paths::CONFIG, paths::CONFIG_SCHEMA, paths::CONFIG_OPTIONS] {
        let body = json_of(&session.get(path)?)?;
        judge(body.is_object(), format!("{path}: {body}"))?;
    }
    Ok("three objects".to_owned())
}

fn structure(session: &Session) -> Outcome {
    let body = json_of(&session.get(paths::STRUCTURAL_SURFACE)?)?;
    let list = |key: &str| body[key].as_array().cloned().ok_or(format!("`{key}` is no list: {body}"));
    let methods = list("methods")?;
    for method in &methods {
        let params = method["params"].as_array().ok_or(format!("no params: {method}"))?;
        let good = method["name"].is_string() && method["signature"].is_string();
        judge(good && !params.contains(&json!("self")), method.to_string())?;
    }
    let properties = list("properties")?;
    judge(properties.iter().all(Value::is_string), format!("properties: {properties:?}"))?;
    let attributes = list("attributes")?;
    judge(attributes.iter().all(|a| a["name"].is_string()), format!("attributes: {attributes:?}"))?;
    let names = |items: &[Value]| {
        items.iter().map(|item| item["name"].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    judge(names(&methods).is_sorted() && names(&attributes).is_sorted(), format!("{} methods", methods.len()))
}

fn bad_config(session: &Session) -> Outcome {
    detail_of(&session.send("POST", paths::INITIALIZE, b"{not json")?, 400)
}

fn malformed(session: &Session) -> Outcome {
    for path in [paths::EXECUTE, paths::TASK, paths::EXECUTE_STREAM] {
        let answer = session.send("POST", path, b"{not json")?;
        let is_text = answer.header("content-type").is_some_and(|kind| kind.starts_with("text/plain"));
        let good = answer.status == 500 && is_text && answer.text() == "Internal Server Error";
        judge(good, format!("{path}: {}", shown(&answer)))?;
    }
    Ok("500 text/plain".to_owned())
}

fn unknown_task(session: &Session) -> Outcome {
    let body = json!({"task": "no-such-task", "method": "run", "kwargs": {}, "envelope": {}});
    detail_of(&session.post(paths::TASK, &body)?, 404)
}
