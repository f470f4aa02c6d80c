//! `/openapi.json` and `/docs`: what this surface is, for programs and for people. Small on purpose: what a tool takes
//! and answers is the tool's, and stands in its manifest; bodies of ours are named, not invented.

use super::answer;
use super::state::Surface;
use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::response::Response;
use cjm_wire::http as paths;
use serde_json::{Map, json};
use std::sync::Arc;

/// One path, as it is described.
struct Described {
    path: &'static str,
    method: &'static str,
    summary: &'static str,
    /// What is sent; None: no body.
    body: Option<&'static str>,
    /// Statuses beside 200.
    others: &'static [(&'static str, &'static str)],
}

const GET: &str = "get";
const POST: &str = "post";
const CALL: Option<&str> = Some("{\"args\": [], \"kwargs\": {}, \"envelope\": {}}, all optional");
const CALL_ERRORS: &[(&str, &str)] =
    &[("409", "the call was cancelled"), ("500", "{\"_job_error\": …}, or text where nothing could be read")];
const TASK_ERRORS: &[(&str, &str)] = &[("404", "no such task or method"), CALL_ERRORS[0], CALL_ERRORS[1]];
const MONITOR_ERRORS: &[(&str, &str)] = &[("404", "the tool is not a monitor"), ("501", "not implemented")];
const TEXT_ERROR: &[(&str, &str)] = &[("500", "the tool failed")];
const DETAIL_400: &[(&str, &str)] = &[("400", "{\"detail\": …}: the configuration is refused")];
const DETAIL_500: &[(&str, &str)] = &[("500", "{\"detail\": …}: the tool failed")];

const fn read(path: &'static str, summary: &'static str) -> Described {
    Described { path, method: GET, summary, body: None, others: &[] }
}

const fn post(
    path: &'static str,
    summary: &'static str,
    others: &'static [(&'static str, &'static str)],
) -> Described {
    Described { path, method: POST, summary, body: None, others }
}

/// In the order in which a host uses them.
const PATHS: [Described; 19] = [
    read(paths::HEALTH, "Whether the worker lives: answers while the tool is busy"),
    read(paths::STATS, "Processor, memory and processes of the worker and all below it"),
    read(paths::PROGRESS, "How far the newest call is: 0 to 1, or -1 when it cannot say"),
    read(paths::STRUCTURAL_SURFACE, "Public methods, properties and attributes of the tool"),
    read(paths::CONFIG_SCHEMA, "JSON Schema of the configuration"),
    read(paths::CONFIG, "The present configuration"),
    Described { others: TEXT_ERROR, ..read(paths::CONFIG_OPTIONS, "Live choices for configuration fields") },
    Described { body: Some("the configuration"), ..post(paths::INITIALIZE, "Configure", DETAIL_400) },
    Described {
        body: Some("{\"old_config\": {}, \"new_config\": {}}"),
        ..post(paths::RECONFIGURE, "Change the configuration", DETAIL_500)
    },
    post(paths::PREFETCH, "Load what is slow to load", DETAIL_500),
    post(paths::ON_DISABLE, "Release what is dear", &[]),
    post(paths::ON_ENABLE, "Take it again", &[]),
    Described { body: CALL, ..post(paths::EXECUTE, "Call the tool", CALL_ERRORS) },
    Described {
        body: CALL,
        ..post(paths::EXECUTE_STREAM, "Call the tool and read its results line by line (NDJSON)", &[])
    },
    Described {
        body: Some("{\"task\": …, \"method\": …, \"kwargs\": {}, \"envelope\": {}}"),
        ..post(paths::TASK, "Call a method of a task adapter", TASK_ERRORS)
    },
    Described {
        body: Some("nothing for all calls, or {\"job_id\": …} for one"),
        ..post(paths::CANCEL, "Ask running calls to stop", &[])
    },
    post(paths::CLEANUP, "Release everything; the worker ends soon", TEXT_ERROR),
    post(paths::GET_SYSTEM_STATUS, "Figures of the machine, from a monitor", MONITOR_ERRORS),
    post(paths::LIST_PROCESSES, "Processes on the machine, from a monitor", MONITOR_ERRORS),
];

pub(super) async fn openapi(State(surface): State<Arc<Surface>>) -> Response {
    let mut described = Map::new();
    for path in &PATHS {
        let mut responses = Map::new();
        responses.insert("200".to_owned(), json!({"description": "done"}));
        for (status, meaning) in path.others {
            responses.insert((*status).to_owned(), json!({ "description": meaning }));
        }
        let mut operation = json!({"summary": path.summary, "responses": responses});
        if let Some(body) = path.body {
            let content = json!({"application/json": {"schema": {}}});
            operation["requestBody"] = json!({"description": body, "content": content});
        }
        described.insert(path.path.to_owned(), json!({ path.method: operation }));
    }
    answer::ok(&json!({
        "openapi": "3.1.0",
        "info": {
            "title": format!("cjm-substrate worker: {}", surface.name),
            "version": surface.version,
            "description": "The uniform surface of a worker. What the tool itself takes stands in its manifest.",
        },
        "paths": described,
    }))
}

pub(super) async fn docs(State(surface): State<Arc<Surface>>) -> Response {
    let mut rows = String::new();
    for path in &PATHS {
        let body = path.body.map(|body| format!(" Body: {body}.")).unwrap_or_default();
        let others: String =
            path.others.iter().map(|(status, meaning)| format!(" {status}: {meaning}.")).collect();
        rows.push_str(&format!(
            "<tr><td><code>{} {}</code></td><td>{}.{}{}</td></tr>\n",
            path.method.to_uppercase(),
            path.path,
            path.summary,
            escaped(&body),
            escaped(&others)
        ));
    }
    let page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{name}</title></head><body>\n\
         <h1>{name} {version}</h1>\n<p>A worker of cjm-substrate. For programs: \
         <a href=\"openapi.json\">openapi.json</a>.</p>\n<table>\n{rows}</table>\n</body></html>\n",
        name = escaped(&surface.name),
        version = escaped(&surface.version),
    );
    let mut response = Response::new(Body::from(page));
    *response.status_mut() = StatusCode::OK;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    response
}

/// For a page: a tool chooses its name.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_path_of_the_surface_is_described_once() {
        let described: BTreeSet<&str> = PATHS.iter().map(|path| path.path).collect();
        assert_eq!(described.len(), PATHS.len());
        // What the table of routes names, read from its text: a path that is added there is missed here.
        let routes = include_str!("routes.rs");
        let named: BTreeSet<&str> = routes.split("http::").skip(1).filter_map(constant).collect();
        let of_documents = [paths::OPENAPI, paths::DOCS].into_iter().collect();
        assert_eq!(named, &described | &of_documents);
    }

    fn constant(text: &str) -> Option<&'static str> {
        let name: String = text.chars().take_while(|c| c.is_ascii_uppercase() || *c == '_').collect();
        let wire = include_str!("../../../wire/src/http.rs");
        let line = wire.lines().find(|line| line.starts_with(&format!("pub const {name}: &str")))?;
        line.split('"').nth(1)
    }

    #[test]
    fn a_name_cannot_leave_its_place_in_the_page() {
        assert_eq!(escaped("<a href=\"x\">&"), "&lt;a href=&quot;x&quot;&gt;&amp;");
    }
}
