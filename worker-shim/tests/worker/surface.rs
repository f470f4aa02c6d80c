//! Statuses, content types and bodies of the surface, as the ancestor's worker answers.

use crate::harness::{Worker, native};
use crate::http::exchange;
use cjm_wire::link::Launch;
use serde_json::json;

/// Method, path, body; status, content type and body of the answer. In this order, since some depend on others.
const ANSWERS: &[(&str, &str, &str, u16, &str, &str)] = &[
    ("GET", "/nowhere", "", 404, "application/json", r#"{"detail":"Not Found"}"#),
    ("POST", "/nowhere", "", 404, "application/json", r#"{"detail":"Not Found"}"#),
    ("POST", "/health", "", 405, "application/json", r#"{"detail":"Method Not Allowed"}"#),
    ("GET", "/execute", "", 405, "application/json", r#"{"detail":"Method Not Allowed"}"#),
    ("POST", "/execute", "{not json", 500, "text/plain; charset=utf-8", "Internal Server Error"),
    ("POST", "/execute", "", 500, "text/plain; charset=utf-8", "Internal Server Error"),
    ("POST", "/execute", "[]", 500, "text/plain; charset=utf-8", "Internal Server Error"),
    ("POST", "/execute", r#"{"kwargs":[]}"#, 500, "text/plain; charset=utf-8", "Internal Server Error"),
    ("POST", "/task", "{not json", 500, "text/plain; charset=utf-8", "Internal Server Error"),
    ("POST", "/execute_stream", "{not json", 500, "text/plain; charset=utf-8", "Internal Server Error"),
    (
        "POST",
        "/task",
        r#"{"task":"t","method":"m"}"#,
        404,
        "application/json",
        r#"{"detail":"Unknown task: t"}"#,
    ),
    ("GET", "/config", "", 200, "application/json", "{}"),
    ("GET", "/config_options", "", 200, "application/json", "{}"),
    ("POST", "/initialize", r#"{"model":"base"}"#, 200, "application/json", r#"{"status":"ok"}"#),
    ("GET", "/config", "", 200, "application/json", r#"{"model":"base"}"#),
    ("POST", "/initialize", r#"{"bad":1}"#, 400, "application/json", r#"{"detail":"`bad` is bad"}"#),
    ("POST", "/reconfigure", "{}", 200, "application/json", r#"{"status":"not_supported"}"#),
    ("POST", "/prefetch", "", 200, "application/json", r#"{"status":"prefetched"}"#),
    ("GET", "/progress", "", 200, "application/json", r#"{"progress":0.75,"message":"prefetching"}"#),
    (
        "POST",
        "/on_disable",
        "",
        200,
        "application/json",
        r#"{"status":"error","detail":"cannot be disabled"}"#,
    ),
    ("POST", "/on_enable", "", 200, "application/json", r#"{"status":"enabled"}"#),
    ("POST", "/cancel", "", 200, "application/json", r#"{"status":"cancelled"}"#),
    ("POST", "/cancel", r#"{"job_id":"nobody"}"#, 200, "application/json", r#"{"status":"cancelled"}"#),
    ("POST", "/get_system_status", "", 200, "application/json", r#"{"memory_available_mb":1.5}"#),
    ("POST", "/list_processes", "", 404, "application/json", r#"{"detail":"'lab' is not a monitor"}"#),
    ("POST", "/execute", "{}", 200, "application/json", r#"{"args":[],"kwargs":{},"job":null}"#),
    ("POST", "/cleanup", "", 200, "application/json", r#"{"status":"cleaned"}"#),
    ("POST", "/cleanup", "", 200, "application/json", r#"{"status":"cleaned"}"#),
];

#[test]
fn every_path_answers_as_the_ancestors_worker_does() {
    let (worker, ready) = Worker::ready(native(), Launch::Native {});
    assert_eq!((ready.name.as_str(), ready.version.as_str(), ready.tool_pid), ("lab", "9.9.9", None));
    assert_eq!(ready.concurrency_max, 3);

    let health = worker.get("/health");
    let pid = worker.pid.as_raw();
    assert_eq!(health.header("content-type"), Some("application/json"));
    let expected =
        format!(r#"{{"status":"running","pid":{pid},"name":"lab","version":"9.9.9","calls_running":0}}"#);
    assert_eq!(health.text(), expected);
    assert_eq!(worker.get("/progress").text(), r#"{"progress":0.0,"message":""}"#);
    let stats = worker.get("/stats").json();
    assert_eq!(
        (&stats["pid"], &stats["subtree_pids"], &stats["usage"]),
        (&json!(pid), &json!([pid]), &json!(null))
    );
    assert!(stats["memory_rss_mb"].as_f64().unwrap() > 1.0 && stats["cpu_percent"].is_f64(), "{stats}");

    for &(method, path, body, status, content_type, expected) in ANSWERS {
        let answer = crate::http::exchange(&worker.socket(), method, path, body.as_bytes()).unwrap();
        let found = (answer.status, answer.header("content-type"), answer.text());
        assert_eq!(found, (status, Some(content_type), expected), "{method} {path} {body}");
    }
    let head = crate::http::open(&worker.socket(), "HEAD", "/health", b"").unwrap();
    assert_eq!(head.status, 405);
    let bad = worker.post("/initialize", "{not json");
    assert_eq!(bad.status, 400);
    assert!(bad.json()["detail"].is_string());
    let broken = worker.post("/initialize", r#"{"broken":1}"#);
    let told = broken.json();
    assert_eq!((broken.status, &told["detail"]), (400, &"no engine".into()), "{told}");
    assert_eq!(told["_job_error"]["category"], "fatal", "not about the configuration: {told}");
    let surface = worker.get("/structural_surface").json();
    assert_eq!(surface["methods"][0]["name"], "execute");
    assert_eq!(worker.get("/config_schema").json()["properties"]["model"]["type"], "string");
    assert_eq!(
        std::fs::read_to_string(worker.data_dir().join("cleanups")).unwrap(),
        "x",
        "cleanup runs once"
    );
}

#[test]
fn results_are_compact_utf8_and_accounts_are_ascii_with_pythons_separators() {
    let (mut worker, _) = Worker::ready(native(), Launch::Native {});
    let body = r#"{"args":[1,"é"],"kwargs":{"x":"/p"},"envelope":{"job_id":"J","unknown":1}}"#;
    let answer = worker.post("/execute", body);
    assert_eq!(answer.text(), r#"{"args":[1,"é"],"kwargs":{"x":"/p"},"job":"J"}"#);
    assert_eq!(answer.header("x-cjm-accounts"), None);

    let answer = worker.execute("account", json!({}));
    assert_eq!(answer.text(), "[true,false]", "a worker cannot write another job's history");
    let expected = r#"[{"event_type": "cache_hit", "payload": {"key": "\u00e9"}}]"#;
    assert_eq!(answer.header("x-cjm-accounts"), Some(expected));
    assert_eq!(worker.get("/stats").json()["usage"], json!({"tokens": 7}));
    let record = worker.frame(cjm_wire::link::to_host::RECORD);
    assert_eq!(record["message"], "lab loaded");
    let record = worker.frame(cjm_wire::link::to_host::RECORD);
    assert_eq!((&record["message"], &record["level"]), (&json!("accounted"), &json!("WARNING")));

    worker.execute("echo", json!({}));
    assert_eq!(worker.get("/stats").json()["usage"], json!(null), "usage is reset by the next call");
    assert_eq!(worker.execute("nan", json!({})).text(), r#"{"x":null}"#);
}

#[test]
fn streams_are_lines_in_pythons_form_and_errors_come_in_band() {
    let (worker, _) = Worker::ready(native(), Launch::Native {});
    let lines = worker.stream_lines("count", json!({"to": 2}));
    assert_eq!(lines, [r#"{"n": 0, "\u00e9": [1.0, null]}"#, r#"{"n": 1, "\u00e9": [1.0, null]}"#]);
    assert!(worker.stream_lines("count", json!({"to": 0})).is_empty(), "no chunks are an empty body");
    assert_eq!(worker.stream_lines("add", json!({"left": 1, "right": 2})), ["3"]);

    let lines = worker.stream_lines("count", json!({"to": 200, "then_fail": true}));
    assert_eq!(lines.len(), 201);
    let last: serde_json::Value = serde_json::from_str(&lines[200]).unwrap();
    assert_eq!(last["_job_error"]["category"], "transient");
    assert!(lines[200].starts_with(r#"{"_job_error": {"category": "transient", "message": "broke off""#));
    let lines = worker.stream_lines("unknown", json!({}));
    assert!(lines[0].contains("there is no action `unknown`; there are: echo, add"), "{lines:?}");
}

#[test]
fn the_surface_describes_itself_as_it_is() {
    let (worker, _) = Worker::ready(native(), Launch::Native {});
    let document = worker.get("/openapi.json").json();
    assert_eq!(document["info"]["title"], "cjm-substrate worker: lab");
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.len() > 15, "{document}");
    for (path, operations) in paths {
        let (other, named) = if operations.get("get").is_some() { ("POST", "GET") } else { ("GET", "POST") };
        assert!(operations.get(named.to_lowercase()).is_some(), "{path}");
        assert_eq!(exchange(&worker.socket(), other, path, b"").unwrap().status, 405, "{other} {path}");
        // What ends the tool's work is not tried here; that it is there is said by the 405.
        if !matches!(path.as_str(), "/cleanup") {
            // A GET has no body: nobody would read it, and writing it meets a connection that may be closed by then.
            let body: &[u8] = if named == "POST" { b"{}" } else { b"" };
            assert_ne!(exchange(&worker.socket(), named, path, body).unwrap().status, 405, "{named} {path}");
        }
    }
    let page = worker.get("/docs");
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    assert!(paths.keys().all(|path| page.text().contains(path.as_str())), "{}", page.text());
}
