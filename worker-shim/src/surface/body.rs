//! Request bodies: read whole up to the maximum, and looked into only as far as the worker must.

use super::answer::{detail, internal_server_error};
use crate::tool::INLINE_BYTES_MAX;
use axum::body::{Body, HttpBody as _};
use axum::http::StatusCode;
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use cjm_wire::http::BODY_BYTES_MAX;
use http_body_util::BodyExt as _;
use serde::Deserialize;
use serde_json::Value;

/// Bytes for which room is made on a client's word alone; from there on room doubles as they come.
const ANNOUNCED_BYTES_MAX: usize = 1024 * 1024;

/// Reads the whole body. One that comes in one piece is not copied, and memory follows what has come.
pub(crate) async fn read(mut body: Body) -> Result<Bytes, Response> {
    let expected = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if expected > BODY_BYTES_MAX {
        return Err(too_large());
    }
    let mut first = Bytes::new();
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        // The client went away; nobody reads the answer.
        let Ok(frame) = frame else { return Err(internal_server_error()) };
        let Ok(data) = frame.into_data() else { continue };
        if first.is_empty() && whole.is_empty() {
            first = data;
            continue;
        }
        if whole.is_empty() {
            whole.reserve(room(expected, first.len() + data.len()));
            whole.extend_from_slice(&std::mem::take(&mut first));
        }
        if whole.len() + data.len() > BODY_BYTES_MAX {
            return Err(too_large());
        }
        whole.extend_from_slice(&data);
    }
    Ok(if whole.is_empty() { first } else { whole.freeze() })
}

/// Bytes to make room for when `here` have come of `expected` that were announced.
fn room(expected: usize, here: usize) -> usize {
    expected.min(ANNOUNCED_BYTES_MAX).max(here)
}

/// The job a call is made for. An error when the body is not a JSON object.
pub(crate) async fn job_of(body: &Bytes) -> Result<Option<String>, Response> {
    let looked = if body.len() <= INLINE_BYTES_MAX {
        look(body)
    } else {
        let body = body.clone();
        tokio::task::spawn_blocking(move || look(&body)).await.unwrap_or(Err(Malformed))
    };
    looked.map_err(|Malformed| internal_server_error())
}

struct Malformed;

/// What the worker reads of a call; all else is skipped, not built.
#[derive(Deserialize)]
struct CallHead {
    #[serde(default)]
    envelope: Option<EnvelopeHead>,
}

#[derive(Deserialize)]
struct EnvelopeHead {
    #[serde(default)]
    job_id: Option<Value>,
}

fn look(body: &[u8]) -> Result<Option<String>, Malformed> {
    let head: CallHead = serde_json::from_slice(body).map_err(|_| Malformed)?;
    // A struct also reads from an array; a call does not.
    if !body.trim_ascii_start().starts_with(b"{") {
        return Err(Malformed);
    }
    Ok(head.envelope.and_then(|envelope| envelope.job_id).and_then(|job_id| match job_id {
        Value::String(text) => Some(text),
        _ => None,
    }))
}

fn too_large() -> Response {
    let message = format!("the body is larger than {BODY_BYTES_MAX} bytes; pass a file instead");
    detail(StatusCode::PAYLOAD_TOO_LARGE, &message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_made_for_what_came_and_little_more() {
        assert_eq!(room(BODY_BYTES_MAX, 10), ANNOUNCED_BYTES_MAX);
        assert_eq!(room(BODY_BYTES_MAX, 2 * ANNOUNCED_BYTES_MAX), 2 * ANNOUNCED_BYTES_MAX);
        assert_eq!((room(100, 10), room(0, 10)), (100, 10));
    }

    #[test]
    fn only_the_job_is_read_and_only_objects_are_calls() {
        for (body, expected) in [
            ("{}", Some(None)),
            (r#"{"kwargs":{"x":[1,2]},"envelope":{"job_id":"j","control":{}}}"#, Some(Some("j"))),
            (r#" {"envelope":{"job_id":null}}"#, Some(None)),
            (r#"{"envelope":null}"#, Some(None)),
            ("", None),
            ("[]", None),
            ("[null]", None),
            ("not json", None),
            (r#"{"kwargs":{"x":NaN}}"#, None),
            (r#"{"a":1} trailing"#, None),
        ] {
            let found = look(body.as_bytes()).ok();
            assert_eq!(found.as_ref().map(Option::as_deref), expected, "{body}");
        }
    }
}
