//! A request at a worker's surface and its answer, byte by byte: a client that knows nothing of either side.

use super::steps::{Request, get, post};
use cjm_tests::world::eventually;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

/// Longest wait for an answer.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// Where a worker serves.
#[derive(Debug, Clone)]
pub(crate) enum Address {
    /// Our host's workers.
    Socket(PathBuf),
    /// The ancestor's.
    Port(u16),
}

/// Status, content type, accounts and body of the answer to a request.
///
/// # Panics
/// When there is no answer.
pub(crate) fn ask(address: &Address, request: &Request) -> Value {
    let raw = exchange(address, request).unwrap_or_else(|e| panic!("{} at {address:?}: {e}", request.id));
    let split = raw.windows(4).position(|window| window == b"\r\n\r\n").expect("an answer has a head");
    let head = String::from_utf8_lossy(&raw[..split]).into_owned();
    let mut lines = head.lines();
    let status: u16 = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).expect("a status");
    let header = |name: &str| {
        let line = head
            .lines()
            .skip(1)
            .find(|line| line.split_once(':').is_some_and(|(known, _)| known.eq_ignore_ascii_case(name)));
        line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned())
    };
    let chunked = header("transfer-encoding").is_some_and(|value| value.contains("chunked"));
    let body = if chunked { unchunked(&raw[split + 4..]) } else { raw[split + 4..].to_vec() };
    let text = String::from_utf8_lossy(&body).into_owned();
    let accounts = header("x-cjm-accounts").and_then(|text| serde_json::from_str::<Value>(&text).ok());
    let content_type = header("content-type");
    let is_stream = content_type.as_deref().is_some_and(|kind| kind.contains("ndjson"));
    json!({
        "status": status,
        "content_type": content_type,
        "accounts": accounts,
        "body": serde_json::from_str::<Value>(&text).ok().filter(|_| !is_stream),
        // Bytes count where hosts split lines or compare texts.
        "text": text,
    })
}

/// [`ask`], and a cancel once the tool has said what the request waits for.
pub(crate) fn ask_and_cancel(address: &Address, request: &Request, message: &str) -> Value {
    let (there, same) = (address.clone(), request.clone());
    let asking = std::thread::spawn(move || ask(&there, &same));
    let progress = get("/progress");
    eventually("the tool's word", ANSWER_MAX, || {
        assert!(!asking.is_finished(), "{} has ended", request.id);
        (ask(address, &progress)["body"]["message"] == message).then_some(())
    });
    let cancelled = ask(address, &post("", "/cancel", &Value::Null));
    assert_eq!(cancelled["body"]["status"], "cancelled", "{cancelled}");
    asking.join().expect("an answer")
}

fn exchange(address: &Address, request: &Request) -> std::io::Result<Vec<u8>> {
    let body = request.body.clone().unwrap_or_default();
    let text = format!(
        "{} {} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        request.method,
        request.path,
        body.len()
    );
    let mut raw = Vec::new();
    match address {
        Address::Socket(path) => {
            let mut stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(ANSWER_MAX))?;
            stream.write_all(text.as_bytes())?;
            stream.read_to_end(&mut raw)?;
        }
        Address::Port(port) => {
            let mut stream = TcpStream::connect(("127.0.0.1", *port))?;
            stream.set_read_timeout(Some(ANSWER_MAX))?;
            stream.write_all(text.as_bytes())?;
            stream.read_to_end(&mut raw)?;
        }
    }
    Ok(raw)
}

fn unchunked(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = rest.windows(2).position(|window| window == b"\r\n") {
        let size = std::str::from_utf8(&rest[..end])
            .ok()
            .and_then(|text| usize::from_str_radix(text.trim(), 16).ok());
        let Some(size) = size.filter(|size| *size > 0 && end + 2 + size <= rest.len()) else { break };
        body.extend_from_slice(&rest[end + 2..end + 2 + size]);
        rest = rest.get(end + 4 + size..).unwrap_or_default();
    }
    body
}
