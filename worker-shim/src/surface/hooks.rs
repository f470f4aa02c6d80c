//! The paths that ask the tool something without being a job: configuration, hooks, monitoring.

use super::calls::withheld;
use super::state::Surface;
use super::{answer, body};
use crate::calls::{CallKind, NotBegun};
use crate::tool::{Operation, worker_failure};
use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{MethodRouter, get, post};
use bytes::Bytes;
use cjm_wire::error::ErrorCategory;
use std::sync::Arc;

/// A GET that asks for `operation`.
pub(crate) fn read(operation: Operation) -> MethodRouter<Arc<Surface>> {
    get(async move |State(surface): State<Arc<Surface>>| ask(&surface, operation, Bytes::new()).await)
}

/// A POST that asks for `operation`; the body goes to the tool as it is.
pub(crate) fn with_body(operation: Operation) -> MethodRouter<Arc<Surface>> {
    post(async move |State(surface): State<Arc<Surface>>, body: Body| match body::read(body).await {
        Ok(body) => ask(&surface, operation, body).await,
        Err(response) => response,
    })
}

async fn ask(surface: &Surface, operation: Operation, body: Bytes) -> Response {
    // Progress on the surface belongs to what a host waits for; questions in between leave it alone.
    let kind = match operation {
        Operation::Initialize | Operation::Reconfigure | Operation::Prefetch => CallKind::Hook,
        _ => CallKind::Question,
    };
    let call = match surface.calls.begin(kind, None) {
        Ok(call) => call,
        Err(NotBegun::Ending) => return withheld().await,
        Err(NotBegun::TooMany) => {
            let message = "too many calls are waiting already";
            return answer::failure(worker_failure(ErrorCategory::Transient, message));
        }
    };
    match surface.tool.call(operation, call, body).await {
        Ok(body) => answer::json(StatusCode::OK, body),
        Err(failure) => answer::failure(failure),
    }
}
