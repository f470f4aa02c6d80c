//! Speaks the uniform HTTP surface of one worker: requests out, answers mapped to results or typed errors. Knows
//! nothing of jobs or journals.

use crate::connections::{Broken, Connections};
use crate::error::CallError;
use crate::redaction::Redaction;
use bytes::{Bytes, BytesMut};
use cjm_wire::error::JobErrorBody;
use cjm_wire::event::EventType;
use cjm_wire::http::{self, Account, DetailBody};
use cjm_wire::ndjson::{self, Line};
use futures_util::StreamExt;
use hyper::header::HeaderMap;
use serde_json::value::RawValue;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How long questions about state may take (health, stats, progress, cancel).
const QUESTION_MAX: Duration = Duration::from_secs(2);
const EXCERPT_CHARS_MAX: usize = 200;
/// Any host name does: the socket decides where it goes.
const BASE: &str = "http://worker";

/// A client of one worker.
#[derive(Debug, Clone)]
pub(crate) struct Proxy {
    /// For calls: one answer each, as fast as can be.
    connections: Arc<Connections>,
    /// For streams, and for questions, which may time out.
    client: reqwest::Client,
    capability: String,
    /// Of what the tool says, what nobody is to see.
    redaction: Arc<Redaction>,
}

/// The answer of a call.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The result, JSON.
    pub body: Bytes,
    /// What the call accounted for.
    pub accounts: Vec<Account>,
}

/// What became of a request before its meaning is known: an answer of the contract, or a broken connection, whose
/// cause the worker's owner knows better.
pub(crate) enum Failed {
    /// The worker answered.
    Answer(CallError),
    /// It did not.
    Connection(String),
    /// It was not reached.
    Unsent(String),
}

impl Proxy {
    pub(crate) fn new(
        capability: &str,
        socket: &Path,
        redaction: Arc<Redaction>,
    ) -> Result<Self, reqwest::Error> {
        // One idle connection per lane stays open; a worker's socket does not time out.
        let client =
            reqwest::Client::builder().unix_socket(socket).pool_idle_timeout(None).no_proxy().build()?;
        let connections = Arc::new(Connections::new(socket));
        Ok(Self { connections, client, capability: capability.to_owned(), redaction })
    }

    /// `POST` of a call: `/execute` or `/task`.
    pub(crate) async fn call(&self, path: &str, body: Bytes) -> Result<Reply, Failed> {
        let answer = self.connections.post(path, body).await;
        let answer = answer.map_err(|error| match error {
            Broken::TooLong { status } => Failed::Answer(self.bad_answer(status.as_u16(), error.to_string())),
            error @ Broken::Connect(_) => Failed::Unsent(chain(&error)),
            error => Failed::Connection(chain(&error)),
        })?;
        if answer.status.as_u16() == 200 {
            // A result is its caller's, also where the tool gives a secret back on purpose.
            return Ok(Reply { accounts: self.accounts_of(&answer.headers), body: answer.body });
        }
        let body = self.redaction.bytes(answer.body);
        let mut error = self.error_of(answer.status.as_u16(), &body);
        if let CallError::Tool { accounts, .. } = &mut error {
            *accounts = self.accounts_of(&answer.headers);
        }
        Err(Failed::Answer(error))
    }

    /// `POST /execute_stream`; yields lines.
    pub(crate) async fn stream(
        &self,
        body: Vec<u8>,
    ) -> Result<impl futures_util::Stream<Item = Result<Box<RawValue>, Failed>> + Send + use<>, Failed> {
        let response = self.post(http::EXECUTE_STREAM, body).await?;
        let status = response.status().as_u16();
        if status != 200 {
            let body = self.bounded(response).await?;
            return Err(Failed::Answer(self.error_of(status, &body)));
        }
        let reader = tokio_util::io::StreamReader::new(
            response.bytes_stream().map(|item| item.map_err(std::io::Error::other)),
        );
        let lines = tokio_util::codec::FramedRead::new(
            reader,
            tokio_util::codec::LinesCodec::new_with_max_length(ndjson::LINE_BYTES_MAX),
        );
        let proxy = self.clone();
        Ok(lines.map(move |line| match line {
            Ok(line) => proxy.line(line),
            Err(error) => Err(Failed::Connection(error.to_string())),
        }))
    }

    /// `POST` of a hook; `Err` holds the detail of a refusal.
    pub(crate) async fn hook(&self, path: &str, body: Vec<u8>) -> Result<Bytes, Failed> {
        self.call(path, body.into()).await.map(|reply| reply.body)
    }

    /// `GET` of something small.
    pub(crate) async fn get(&self, path: &str) -> Result<Bytes, Failed> {
        self.answer_of(self.client.get(format!("{BASE}{path}")).timeout(QUESTION_MAX)).await
    }

    /// `GET` for who bounds the wait otherwise.
    pub(crate) async fn get_unbounded(&self, path: &str) -> Result<Bytes, Failed> {
        self.answer_of(self.client.get(format!("{BASE}{path}"))).await
    }

    async fn answer_of(&self, request: reqwest::RequestBuilder) -> Result<Bytes, Failed> {
        let connection = |error: reqwest::Error| Failed::Connection(chain(&error));
        let response = request.send().await.map_err(connection)?;
        let status = response.status().as_u16();
        let body = self.bounded(response).await?;
        if status == 200 { Ok(body) } else { Err(Failed::Answer(self.error_of(status, &body))) }
    }

    /// `POST /cancel` for one job's call.
    pub(crate) async fn cancel(&self, body: Vec<u8>) -> Result<(), Failed> {
        let request = self.client.post(format!("{BASE}{}", http::CANCEL)).timeout(QUESTION_MAX).body(body);
        request.send().await.map(|_| ()).map_err(|error| Failed::Connection(chain(&error)))
    }

    /// A whole answer, if it is no longer than any may be.
    async fn bounded(&self, mut response: reqwest::Response) -> Result<Bytes, Failed> {
        let mut whole = BytesMut::new();
        while let Some(piece) = response.chunk().await.map_err(|error| Failed::Connection(chain(&error)))? {
            if whole.len() + piece.len() > http::BODY_BYTES_MAX {
                let status = response.status().as_u16();
                let words = format!("an answer of more than {} bytes", http::BODY_BYTES_MAX);
                return Err(Failed::Answer(self.bad_answer(status, words)));
            }
            whole.extend_from_slice(&piece);
        }
        Ok(whole.freeze())
    }

    async fn post(&self, path: &str, body: Vec<u8>) -> Result<reqwest::Response, Failed> {
        self.client
            .post(format!("{BASE}{path}"))
            .header("content-type", "application/json")
            .body(body)
            .send()
            .await
            .map_err(|error| Failed::Connection(chain(&error)))
    }

    fn line(&self, line: String) -> Result<Box<RawValue>, Failed> {
        let excerpt = excerpt(line.as_bytes());
        Err(Failed::Answer(match Line::read(line) {
            Ok(Line::Chunk(chunk)) => return Ok(chunk),
            Ok(Line::Cancelled) => self.cancelled(),
            Ok(Line::Failed(body)) => self.tool(self.struck(*body)),
            Err(fault) => {
                self.bad_answer(200, format!("a stream line that is not JSON ({fault}): {excerpt}"))
            }
        }))
    }

    /// A failure without the secrets that stand in it.
    fn struck(&self, body: JobErrorBody) -> JobErrorBody {
        let Ok(text) = serde_json::to_string(&body) else { return body };
        serde_json::from_str(&self.redaction.text(&text)).unwrap_or(body)
    }

    fn error_of(&self, status: u16, body: &[u8]) -> CallError {
        if status == 409 {
            return self.cancelled();
        }
        if let Ok(body) = serde_json::from_slice::<JobErrorBody>(body) {
            return self.tool(body);
        }
        let excerpt =
            serde_json::from_slice::<DetailBody>(body).map_or_else(|_| excerpt(body), |body| body.detail);
        self.bad_answer(status, excerpt)
    }

    /// Only the worker's own kinds of rows: it must not be able to forge another job's history.
    fn accounts_of(&self, headers: &HeaderMap) -> Vec<Account> {
        let Some(header) = headers.get(http::ACCOUNTS_HEADER).and_then(|value| value.to_str().ok()) else {
            return Vec::new();
        };
        if header.len() > http::ACCOUNTS_BYTES_MAX {
            return Vec::new();
        }
        let accounts: Vec<Account> = serde_json::from_str(&self.redaction.text(header)).unwrap_or_default();
        accounts
            .into_iter()
            .filter(|account| EventType::parse(&account.event_type).is_some_and(EventType::is_worker_account))
            .collect()
    }

    fn cancelled(&self) -> CallError {
        CallError::Cancelled { capability: self.capability.clone() }
    }

    fn tool(&self, body: JobErrorBody) -> CallError {
        CallError::Tool {
            capability: self.capability.clone(),
            error: Box::new(body.job_error),
            accounts: Vec::new(),
            stderr_tail: Vec::new(),
        }
    }

    fn bad_answer(&self, status: u16, excerpt: String) -> CallError {
        CallError::BadAnswer { capability: self.capability.clone(), status, excerpt, stderr_tail: Vec::new() }
    }
}

fn excerpt(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(EXCERPT_CHARS_MAX * 4)]);
    let mut excerpt: String = text.chars().take(EXCERPT_CHARS_MAX).collect();
    if excerpt.len() < body.len() {
        excerpt.push('…');
    }
    excerpt
}

/// reqwest hides the cause one level down.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
