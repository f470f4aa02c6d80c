//! The table of paths. To change the surface: paths and bodies are `wire::http`'s
//! and a contract with hosts we do not ship; add, never alter.

use super::answer::detail;
use super::state::Surface;
use super::{calls, document, hooks, status};
use crate::tool::Operation;
use axum::Router;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{MethodRouter, get, post};
use cjm_wire::http;
use std::sync::Arc;

/// All paths.
pub(crate) fn router(surface: Arc<Surface>) -> Router {
    use Operation as Op;
    Router::new()
        .route(http::HEALTH, only_get(get(status::health)))
        .route(http::STATS, only_get(get(status::stats)))
        .route(http::PROGRESS, only_get(get(status::progress)))
        .route(http::CONFIG, only_get(hooks::read(Op::Config)))
        .route(http::CONFIG_SCHEMA, only_get(hooks::read(Op::ConfigSchema)))
        .route(http::CONFIG_OPTIONS, only_get(hooks::read(Op::ConfigOptions)))
        .route(http::STRUCTURAL_SURFACE, only_get(hooks::read(Op::StructuralSurface)))
        .route(http::INITIALIZE, hooks::with_body(Op::Initialize))
        .route(http::RECONFIGURE, hooks::with_body(Op::Reconfigure))
        .route(http::PREFETCH, hooks::with_body(Op::Prefetch))
        .route(http::ON_DISABLE, hooks::with_body(Op::OnDisable))
        .route(http::ON_ENABLE, hooks::with_body(Op::OnEnable))
        .route(http::CANCEL, post(status::cancel))
        .route(http::CLEANUP, hooks::with_body(Op::Cleanup))
        .route(http::EXECUTE, post(calls::execute))
        .route(http::TASK, post(calls::task))
        .route(http::EXECUTE_STREAM, post(calls::execute_stream))
        .route(http::GET_SYSTEM_STATUS, hooks::with_body(Op::GetSystemStatus))
        .route(http::LIST_PROCESSES, hooks::with_body(Op::ListProcesses))
        .route(http::OPENAPI, get(document::openapi))
        .route(http::DOCS, get(document::docs))
        .method_not_allowed_fallback(method_not_allowed)
        .fallback(not_found)
        .with_state(surface)
}

/// A GET route that answers HEAD as the ancestor does, with 405.
fn only_get(route: MethodRouter<Arc<Surface>>) -> MethodRouter<Arc<Surface>> {
    route.head(method_not_allowed)
}

async fn not_found() -> Response {
    detail(StatusCode::NOT_FOUND, "Not Found")
}

async fn method_not_allowed() -> Response {
    detail(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed")
}
