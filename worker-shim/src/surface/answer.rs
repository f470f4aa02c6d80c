//! Responses: the few forms the surface answers in.

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use axum::http::{Response as HttpResponse, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use cjm_wire::channel::CallFailure;
use cjm_wire::http::ACCOUNTS_HEADER;

/// JSON with a status.
pub(crate) fn json(status: StatusCode, body: impl Into<Bytes>) -> Response {
    with_type(status, "application/json", Body::from(body.into()))
}

/// A 200 of anything serialisable.
pub(crate) fn ok(value: &impl serde::Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => json(StatusCode::OK, body),
        Err(_) => internal_server_error(),
    }
}

/// `{"detail": …}`.
pub(crate) fn detail(status: StatusCode, text: &str) -> Response {
    json(status, serde_json::json!({ "detail": text }).to_string())
}

/// What the ancestor's framework answers to an error nobody caught.
pub(crate) fn internal_server_error() -> Response {
    let body = Body::from("Internal Server Error");
    with_type(StatusCode::INTERNAL_SERVER_ERROR, "text/plain; charset=utf-8", body)
}

/// A failed call.
pub(crate) fn failure(failure: CallFailure) -> Response {
    let status = StatusCode::from_u16(failure.status).ok().filter(|status| status.as_u16() >= 400);
    match (failure.body, status) {
        (Some(body), Some(status)) => json(status, String::from(Box::<str>::from(body))),
        _ => internal_server_error(),
    }
}

/// A stream.
pub(crate) fn ndjson(body: Body) -> Response {
    with_type(StatusCode::OK, cjm_wire::http::NDJSON, body)
}

/// Adds the accounts header.
pub(crate) fn with_accounts(mut response: Response, accounts: Option<String>) -> Response {
    if let Some(value) = accounts.and_then(|text| HeaderValue::from_str(&text).ok()) {
        response.headers_mut().insert(HeaderName::from_static(ACCOUNTS_HEADER), value);
    }
    response
}

fn with_type(status: StatusCode, content_type: &'static str, body: Body) -> Response {
    let mut response = HttpResponse::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
