//! `/health`, `/progress`, `/stats`, `/cancel`: answered from what this process knows, never from the tool.

use super::answer;
use super::body;
use super::state::Surface;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use cjm_platform::Pid;
use cjm_platform::usage::sample_tree;
use cjm_wire::envelope::CancelRequest;
use cjm_wire::http::{Health, Stats, StatusBody};
use std::sync::Arc;

/// Bytes in a megabyte as the surface counts them.
const MB: f64 = 1_048_576.0;

pub(crate) async fn health(State(surface): State<Arc<Surface>>) -> Response {
    answer::ok(&Health {
        status: "running".to_owned(),
        pid: std::process::id(),
        name: surface.name.clone(),
        version: surface.version.clone(),
        substrate_version: surface.identity.substrate_version.clone(),
        python_executable: surface.identity.python_executable.clone(),
        tool_pid: surface.tool_pid,
        calls_running: Some(u32::try_from(surface.calls.running()).unwrap_or(u32::MAX)),
    })
}

pub(crate) async fn progress(State(surface): State<Arc<Surface>>) -> Response {
    answer::ok(&surface.calls.progress())
}

pub(crate) async fn stats(State(surface): State<Arc<Surface>>) -> Response {
    // A walk over all processes; not on the thread that answers `/health`.
    let sample = tokio::task::spawn_blocking(|| sample_tree(Pid::current()).unwrap_or_default())
        .await
        .unwrap_or_default();
    answer::ok(&Stats {
        pid: std::process::id(),
        cpu_percent: surface.cpu.percent(&sample),
        memory_rss_mb: (sample.rss_bytes as f64 / MB * 10.0).round() / 10.0,
        subtree_pids: sample.pids.iter().filter_map(|pid| u32::try_from(pid.as_raw()).ok()).collect(),
        usage: surface.calls.usage(),
    })
}

/// Without a body, as the ancestor sends it, all calls are meant.
pub(crate) async fn cancel(State(surface): State<Arc<Surface>>, body: Body) -> Response {
    let body = match body::read(body).await {
        Ok(body) => body,
        Err(response) => return response,
    };
    let request = if body.trim_ascii().is_empty() {
        CancelRequest::default()
    } else {
        match serde_json::from_slice(&body) {
            Ok(request) => request,
            Err(error) => {
                let detail = Some(format!("the cancel request cannot be read: {error}"));
                return answer::ok(&StatusBody { status: "error".to_owned(), detail });
            }
        }
    };
    surface.cancel(&request);
    answer::ok(&StatusBody { status: "cancelled".to_owned(), detail: None })
}
