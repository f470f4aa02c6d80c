//! `/execute`, `/task`, `/execute_stream`.

use super::state::Surface;
use super::{answer, body, stream};
use crate::calls::{CALLS_MAX, CallKind, NotBegun, RunningCall};
use crate::tool::{Operation, worker_failure};
use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use bytes::Bytes;
use cjm_wire::error::ErrorCategory;
use std::sync::Arc;

pub(crate) async fn execute(State(surface): State<Arc<Surface>>, body: Body) -> Response {
    unary(&surface, Operation::Execute, body).await.unwrap_or_else(|response| response)
}

pub(crate) async fn task(State(surface): State<Arc<Surface>>, body: Body) -> Response {
    unary(&surface, Operation::Task, body).await.unwrap_or_else(|response| response)
}

pub(crate) async fn execute_stream(State(surface): State<Arc<Surface>>, body: Body) -> Response {
    let (call, body) = match begin(&surface, body).await {
        Ok(begun) => begun,
        Err(response) => return response,
    };
    let state = Arc::clone(call.state());
    let chunks = surface.tool.stream(call, body);
    answer::ndjson(stream::body(surface, state, chunks))
}

async fn unary(surface: &Surface, operation: Operation, body: Body) -> Result<Response, Response> {
    let (call, body) = begin(surface, body).await?;
    let state = Arc::clone(call.state());
    let outcome = surface.tool.call(operation, call, body).await;
    if outcome.is_err() && surface.calls.withholds_failure(&state) {
        return withheld().await;
    }
    let response = match outcome {
        Ok(body) => answer::json(StatusCode::OK, body),
        // A cancelled or refused call accounts for nothing.
        Err(failure) if failure.status != 500 => return Ok(answer::failure(failure)),
        Err(failure) => answer::failure(failure),
    };
    Ok(answer::with_accounts(response, state.accounts_header()))
}

async fn begin(surface: &Surface, body: Body) -> Result<(RunningCall, Bytes), Response> {
    let body = body::read(body).await?;
    let job_id = body::job_of(&body).await?;
    match surface.calls.begin(CallKind::Work, job_id) {
        Ok(call) => Ok((call, body)),
        Err(NotBegun::Ending) => withheld().await,
        Err(NotBegun::TooMany) => {
            let message = format!("{CALLS_MAX} calls are running or waiting already");
            Err(answer::failure(worker_failure(ErrorCategory::Transient, message)))
        }
    }
}

/// No answer: the connection ends with the process, after its last words.
pub(super) async fn withheld<T>() -> T {
    std::future::pending().await
}
