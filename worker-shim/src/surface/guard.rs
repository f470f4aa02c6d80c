//! Who may ask a worker that serves on a port. A port of 127.0.0.1 can be reached by every user of the machine, which
//! nothing here prevents, and by every page in a browser, which this does: such a page names a host of its own, says
//! where it comes from, and cannot send JSON unasked.
//!
//! Not for the socket in a private directory, which none of them can reach.

use super::answer::detail;
use axum::extract::Request;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderName, ORIGIN, TRANSFER_ENCODING};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use std::net::IpAddr;

/// Lets through what a program on this machine asks.
pub(crate) async fn only_this_machine(request: Request, next: Next) -> Response {
    match refusal(request.headers()) {
        Some((status, why)) => detail(status, &why),
        None => next.run(request).await,
    }
}

fn refusal(headers: &HeaderMap) -> Option<(StatusCode, String)> {
    let host = text(headers, &HOST).unwrap_or_default();
    if !is_loopback(host) {
        let why =
            format!("this worker answers requests to 127.0.0.1, [::1] or localhost, and not to `{host}`");
        return Some((StatusCode::FORBIDDEN, why));
    }
    if let Some(origin) = text(headers, &ORIGIN) {
        let from = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        if !from.is_some_and(is_loopback) {
            let why = format!("this worker answers no web pages, and the request comes from `{origin}`");
            return Some((StatusCode::FORBIDDEN, why));
        }
    }
    let has_body = headers.contains_key(TRANSFER_ENCODING)
        || text(headers, &CONTENT_LENGTH).is_some_and(|length| length.trim() != "0");
    let kind = text(headers, &CONTENT_TYPE).unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim();
    if has_body && !essence.eq_ignore_ascii_case("application/json") {
        let why = format!("a body must be sent as `application/json`, and not as `{kind}`");
        return Some((StatusCode::UNSUPPORTED_MEDIA_TYPE, why));
    }
    None
}

/// A header as text; what is no text is an empty one, which fits no rule.
fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().unwrap_or_default())
}

/// Whether `HOST` or `HOST:PORT` names this machine to itself.
fn is_loopback(authority: &str) -> bool {
    let (name, port) = match authority.rsplit_once(':') {
        // The colons of an address in brackets are no port.
        Some((name, port)) if !port.ends_with(']') => (name, port),
        _ => (authority, "0"),
    };
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    let is_name = bare.eq_ignore_ascii_case("localhost");
    port.parse::<u16>().is_ok()
        && (is_name || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(headers: &[(HeaderName, &str)]) -> Option<u16> {
        let headers: HeaderMap =
            headers.iter().map(|(name, value)| (name.clone(), value.parse().expect("a value"))).collect();
        refusal(&headers).map(|(status, _)| status.as_u16())
    }

    #[test]
    fn programs_of_this_machine_pass_and_pages_do_not() {
        for host in ["127.0.0.1:8080", "localhost", "LocalHost:1", "[::1]:8080", "[::1]", "127.3.2.1:9"] {
            assert_eq!(status(&[(HOST, host)]), None, "{host}");
        }
        for host in
            ["", "evil.example", "evil.example:8080", "localhost.evil.example", "10.0.0.1", "127.0.0.1:x"]
        {
            assert_eq!(status(&[(HOST, host)]), Some(403), "{host}");
        }
        let host = (HOST, "127.0.0.1:8080");
        for (origin, expected) in [
            ("http://127.0.0.1:8080", None),
            ("http://localhost:3000", None),
            ("https://evil.example", Some(403)),
            ("null", Some(403)),
            ("file://localhost", Some(403)),
        ] {
            assert_eq!(status(&[host.clone(), (ORIGIN, origin)]), expected, "{origin}");
        }
        for (kind, expected) in [
            ("application/json", None),
            ("Application/JSON; charset=utf-8", None),
            ("text/plain", Some(415)),
            ("application/x-www-form-urlencoded", Some(415)),
        ] {
            assert_eq!(
                status(&[host.clone(), (CONTENT_LENGTH, "2"), (CONTENT_TYPE, kind)]),
                expected,
                "{kind}"
            );
            assert_eq!(status(&[host.clone(), (CONTENT_LENGTH, "0"), (CONTENT_TYPE, kind)]), None, "no body");
        }
        assert_eq!(status(&[host.clone(), (TRANSFER_ENCODING, "chunked")]), Some(415));
        assert_eq!(status(&[host]), None, "a GET, or a hook without a body");
    }
}
