//! Speaks the uniform HTTP surface of one worker: requests out, answers mapped to results or typed errors. Knows
//! nothing of jobs or journals.

use crate::client::{Client, Opened, Unheard, Whole, chain};
use crate::connections::{Answer, Broken, Connections};
use crate::error::CallError;
use crate::redaction::{LastLine, Redaction, Said};
use bytes::Bytes;
use cjm_wire::error::JobErrorBody;
use cjm_wire::event::EventType;
use cjm_wire::http::{self, Account};
use futures_util::StreamExt;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How long questions about state may take (health, stats, progress, cancel).
const QUESTION_MAX: Duration = Duration::from_secs(2);
const EXCERPT_CHARS_MAX: usize = 200;
/// How much of an answer that nobody understands is looked at.
const LOOKED_AT_BYTES_MAX: usize = 4 * 1024;

/// A client of one worker.
#[derive(Debug, Clone)]
pub(crate) struct Proxy {
    /// For calls: one answer each, as fast as can be.
    connections: Arc<Connections>,
    /// For streams, and for questions, which may time out.
    client: Client,
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
        let client = Client::new(socket)?;
        let connections = Arc::new(Connections::new(socket));
        Ok(Self { connections, client, capability: capability.to_owned(), redaction })
    }

    /// `POST` of a call, `/execute` or `/task`; or of one of the surface's other paths.
    pub(crate) async fn call(&self, path: &str, body: Bytes) -> Result<Reply, Failed> {
        self.check_size(body.len())?;
        let answer = self.connections.post(path, body).await;
        let answer = answer.map_err(|error| match error {
            Broken::TooLong { status } => Failed::Answer(self.bad_answer(status.as_u16(), error.to_string())),
            error @ Broken::Connect(_) => Failed::Unsent(chain(&error)),
            error => Failed::Connection(chain(&error)),
        })?;
        let accounts = self.accounts_of(&answer);
        if answer.status.as_u16() == 200 {
            // What a call brings is its caller's as it is; what a worker says of itself is shown to anybody.
            let is_result = matches!(path, http::EXECUTE | http::TASK);
            let body = if is_result { answer.body.result() } else { self.shown(&answer.body) };
            return Ok(Reply { accounts, body });
        }
        let mut error = self.error_of(answer.status.as_u16(), &answer.body);
        if let CallError::Tool { accounts: told, .. } = &mut error {
            *told = accounts;
        }
        Err(Failed::Answer(error))
    }

    /// `POST /execute_stream`; yields lines.
    pub(crate) async fn stream(
        &self,
        body: Bytes,
    ) -> Result<impl futures_util::Stream<Item = Result<Box<RawValue>, Failed>> + Send + use<>, Failed> {
        self.check_size(body.len())?;
        let opened = self.client.stream(http::EXECUTE_STREAM, body).await;
        let lines = match opened.map_err(|unheard| self.unheard(unheard))? {
            Opened::Lines(lines) => lines,
            Opened::Refused(Whole { status, body }) => {
                return Err(Failed::Answer(self.error_of(status, &body)));
            }
        };
        let proxy = self.clone();
        Ok(lines.map(move |line| match line {
            Ok(line) => line.chunk().map_err(|line| Failed::Answer(proxy.last_line(&line))),
            Err(unheard) => Err(proxy.unheard(unheard)),
        }))
    }

    /// `POST` of a hook; `Err` holds the detail of a refusal.
    pub(crate) async fn hook(&self, path: &str, body: Vec<u8>) -> Result<(), Failed> {
        self.call(path, body.into()).await.map(drop)
    }

    /// `GET` of something small.
    pub(crate) async fn get(&self, path: &str) -> Result<Said, Failed> {
        self.ask(path, Some(QUESTION_MAX)).await
    }

    /// `GET` for who bounds the wait otherwise.
    pub(crate) async fn get_unbounded(&self, path: &str) -> Result<Said, Failed> {
        self.ask(path, None).await
    }

    async fn ask(&self, path: &str, within: Option<Duration>) -> Result<Said, Failed> {
        let answer = self.client.get(path, within).await;
        let Whole { status, body } = answer.map_err(|unheard| self.unheard(unheard))?;
        if status == 200 { Ok(body) } else { Err(Failed::Answer(self.error_of(status, &body))) }
    }

    /// An answer that is no result, as it may be shown.
    pub(crate) fn shown(&self, said: &Said) -> Bytes {
        self.redaction.answer(said)
    }

    /// What an answer to a `GET` says; none where it says something else.
    pub(crate) fn read<T: DeserializeOwned>(&self, said: &Said) -> Option<T> {
        self.redaction.read(said).ok()
    }

    /// `POST /cancel` for one job's call.
    pub(crate) async fn cancel(&self, body: Vec<u8>) -> Result<(), Failed> {
        let sent = self.client.post(http::CANCEL, body, QUESTION_MAX).await;
        sent.map_err(|unheard| self.unheard(unheard))
    }

    /// Refuses what the worker would refuse, before it is sent.
    fn check_size(&self, body_bytes: usize) -> Result<(), Failed> {
        if body_bytes > http::BODY_BYTES_MAX { Err(Failed::Answer(self.too_large())) } else { Ok(()) }
    }

    fn unheard(&self, unheard: Unheard) -> Failed {
        match unheard {
            Unheard::Connection(message) => Failed::Connection(message),
            Unheard::Unsent(message) => Failed::Unsent(message),
            Unheard::TooLong { status, what } => Failed::Answer(self.bad_answer(status, what)),
        }
    }

    /// What ended a stream: a line that is no chunk.
    fn last_line(&self, line: &Said) -> CallError {
        let excerpt = || excerpt(&self.redaction.first_words(line, LOOKED_AT_BYTES_MAX));
        if !line.is_text() {
            return self.bad_answer(200, format!("a stream line that is not UTF-8 text: {}", excerpt()));
        }
        match self.redaction.last_line(line) {
            Ok(LastLine::Cancelled) => self.cancelled(),
            Ok(LastLine::Failed(body)) => self.tool(*body),
            Err(None) => self.bad_answer(200, format!("a stream line that cannot be read: {}", excerpt())),
            Err(Some(fault)) => {
                self.bad_answer(200, format!("a stream line that is not JSON ({fault}): {}", excerpt()))
            }
        }
    }

    fn error_of(&self, status: u16, body: &Said) -> CallError {
        match status {
            409 => return self.cancelled(),
            413 => return self.too_large(),
            _ => {}
        }
        if let Some(body) = self.redaction.failure(body) {
            return self.tool(body);
        }
        let Some(told) = self.redaction.detail(body) else {
            return self.bad_answer(status, excerpt(&self.redaction.first_words(body, LOOKED_AT_BYTES_MAX)));
        };
        self.answer_without(status, told.detail, told.methods)
    }

    /// Only the worker's own kinds of rows: it must not be able to forge another job's history.
    fn accounts_of(&self, answer: &Answer) -> Vec<Account> {
        let Some(header) = answer.header(http::ACCOUNTS_HEADER, http::ACCOUNTS_BYTES_MAX) else {
            return Vec::new();
        };
        let accounts: Vec<Account> = self.read(&header).unwrap_or_default();
        accounts
            .into_iter()
            .filter(|account| EventType::parse(&account.event_type).is_some_and(EventType::is_worker_account))
            .collect()
    }

    fn cancelled(&self) -> CallError {
        CallError::cancelled(&self.capability)
    }

    fn too_large(&self) -> CallError {
        CallError::TooLarge { capability: self.capability.clone() }
    }

    fn tool(&self, body: JobErrorBody) -> CallError {
        CallError::Tool {
            capability: self.capability.clone(),
            error: Box::new(body.job_error),
            accounts: Vec::new(),
            unset: Box::default(),
            stderr_tail: Vec::new(),
        }
    }

    fn bad_answer(&self, status: u16, excerpt: String) -> CallError {
        self.answer_without(status, excerpt, Vec::new())
    }

    fn answer_without(&self, status: u16, excerpt: String, methods: Vec<String>) -> CallError {
        let (capability, stderr_tail) = (self.capability.clone(), Vec::new());
        CallError::BadAnswer { capability, status, excerpt, methods, stderr_tail }
    }
}

/// The beginning. Of text that was struck out already: a value that is cut would be found no more.
fn excerpt(text: &str) -> String {
    let mut excerpt: String = text.chars().take(EXCERPT_CHARS_MAX).collect();
    if excerpt.len() < text.len() {
        excerpt.push('…');
    }
    excerpt
}

#[cfg(test)]
mod tests {
    use super::*;
    use cjm_wire::describe::{Described as _, exit};
    use cjm_wire::http::DetailBody;
    use serde_json::json;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixListener;

    const SECRET: &str = "tok-12345678";

    /// The client of a worker that answers every request with this, and keeps a secret.
    fn proxy_of(dir: &Path, status: u16, headers: &str, body: impl AsRef<[u8]>) -> Proxy {
        let body = body.as_ref();
        let socket = dir.join(format!("{status}-{}.sock", body.len()));
        let listener = UnixListener::bind(&socket).expect("bound");
        let length = body.len();
        let head =
            format!("HTTP/1.1 {status} It\r\ncontent-length: {length}\r\nconnection: close\r\n{headers}\r\n");
        let answer = [head.as_bytes(), body].concat();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                // One small request comes in one piece.
                let _ = stream.read(&mut [0; 4096]).await;
                stream.write_all(&answer).await.expect("written");
            }
        });
        let secrets = json!({"TOKEN": SECRET});
        let redaction = Redaction::of(secrets.as_object().expect("an object"));
        Proxy::new("t", &socket, Arc::new(redaction)).expect("made")
    }

    /// All that a failure says, to whomever.
    fn told(failed: &Failed) -> String {
        match failed {
            Failed::Answer(error) => format!("{error} {error:?}"),
            Failed::Connection(message) | Failed::Unsent(message) => message.clone(),
        }
    }

    async fn end_of_stream(proxy: &Proxy) -> Failed {
        let mut lines = match proxy.stream(Bytes::from_static(b"{}")).await {
            Ok(lines) => Box::pin(lines),
            Err(failed) => return failed,
        };
        loop {
            match lines.next().await.expect("it has a last word") {
                Ok(chunk) => assert!(chunk.get().contains(SECRET), "a chunk is its caller's as it is"),
                Err(failed) => return failed,
            }
        }
    }

    #[tokio::test]
    async fn no_answer_that_fails_shows_a_secret() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let failure = json!({"_job_error": {
            "category": "fatal", "message": format!("401 for {SECRET}"), "retriable": false,
            "original_exc_repr": format!("E({SECRET})"), "traceback": SECRET,
        }});
        let cut = format!("{}{SECRET}", "x".repeat(EXCERPT_CHARS_MAX - SECRET.len() / 2));
        for body in [
            failure.to_string(),
            json!({"detail": format!("401 for {SECRET}")}).to_string(),
            format!("401 for {SECRET}"),
            cut,
        ] {
            let proxy = proxy_of(dir.path(), 500, "", &body);
            let failed = [
                proxy.call("/execute", Bytes::from_static(b"{}")).await.expect_err("refused"),
                proxy.hook("/initialize", b"{}".to_vec()).await.expect_err("refused"),
                proxy.get("/health").await.err().expect("refused"),
                proxy.get_unbounded("/health").await.err().expect("refused"),
                end_of_stream(&proxy).await,
            ];
            for failed in failed.iter().map(told) {
                assert!(!failed.contains("tok-") && failed.contains("[secre"), "{failed}");
            }
        }
    }

    #[tokio::test]
    async fn no_last_line_of_a_stream_shows_a_secret() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let failure = json!({"_job_error": {
            "category": "fatal", "message": SECRET, "retriable": false, "original_exc_repr": "E()",
        }});
        for last in [failure.to_string(), format!("{SECRET} is no JSON")] {
            let proxy = proxy_of(dir.path(), 200, "", format!("\"{SECRET}\"\n{last}\n"));
            let failed = told(&end_of_stream(&proxy).await);
            assert!(!failed.contains("tok-") && failed.contains("[secret]"), "{failed}");
        }
    }

    #[tokio::test]
    async fn a_failure_of_any_length_is_told_within_its_maximum() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let long = format!("{}{SECRET}", "\\".repeat(1_000_000));
        let failure = json!({"_job_error": {
            "category": "fatal", "message": format!("begin {long}"), "retriable": false, "original_exc_repr": long,
            "traceback": long, "fields_invalid": vec!["field"; 10_000],
        }});
        for body in [failure.to_string(), json!({"detail": long}).to_string(), long] {
            let proxy = proxy_of(dir.path(), 500, "", &body);
            let streamed = proxy_of(dir.path(), 200, "", format!("{body}\n"));
            let mut failed = vec![
                proxy.call("/execute", Bytes::from_static(b"{}")).await.expect_err("refused"),
                end_of_stream(&proxy).await,
            ];
            // As a line of a stream a detail is a chunk as any other.
            if !body.starts_with("{\"detail") {
                failed.push(end_of_stream(&streamed).await);
            }
            for failed in failed {
                let told = told(&failed);
                assert!(told.len() < 400_000 && !told.contains("tok-"), "{} bytes", told.len());
            }
        }
    }

    #[tokio::test]
    async fn a_call_and_a_stream_that_were_cancelled_say_so() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let answered = proxy_of(dir.path(), 409, "", r#"{"detail": "cancelled"}"#);
        let line = r#"{"_job_error": {"category": "transient", "message": "m", "retriable": false,
            "original_exc_repr": "CapabilityCancelledError('stop')"}}"#;
        let streamed = proxy_of(dir.path(), 200, "", line.replace('\n', " "));
        for failed in [
            answered.call("/execute", Bytes::from_static(b"{}")).await.expect_err("cancelled"),
            end_of_stream(&answered).await,
            end_of_stream(&streamed).await,
        ] {
            assert!(matches!(failed, Failed::Answer(CallError::Cancelled { .. })), "{}", told(&failed));
        }
    }

    #[tokio::test]
    async fn a_chunk_that_is_no_text_is_a_bad_answer_and_no_broken_connection() {
        let dir = tempfile::tempdir().expect("temporary directory");
        // The line is JSON but for its bytes.
        let body = [b"\"".as_slice(), SECRET.as_bytes(), b"\"\n\"n\xff\"\n"].concat();
        let proxy = proxy_of(dir.path(), 200, "", &body);
        let Failed::Answer(error) = end_of_stream(&proxy).await else { panic!("no answer") };
        assert_eq!((error.code(), error.exit_code()), ("call.bad_answer", exit::TOOL_FAILED));
        assert!(error.to_string().contains("not UTF-8"), "{error}");
    }

    #[tokio::test]
    async fn arguments_beyond_the_maximum_are_refused_before_they_are_sent_as_their_worker_refuses_them() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let large = || vec![0; http::BODY_BYTES_MAX + 1];
        // Nobody listens.
        let nobody = Proxy::new("t", &dir.path().join("s"), Arc::default()).expect("made");
        let proxy = proxy_of(dir.path(), 413, "", r#"{"detail": "too large"}"#);
        for failed in [
            nobody.call("/execute", large().into()).await.expect_err("refused"),
            nobody.stream(large().into()).await.err().expect("refused"),
            proxy.call("/execute", Bytes::from_static(b"{}")).await.expect_err("refused"),
            end_of_stream(&proxy).await,
        ] {
            let Failed::Answer(error) = failed else { panic!("{}", told(&failed)) };
            assert_eq!((error.code(), error.exit_code()), ("call.arguments_too_large", exit::DOMAIN));
            assert!(error.next_step().contains("file"), "{}", error.next_step());
        }
        let fits = nobody.call("/execute", vec![0; http::BODY_BYTES_MAX].into()).await;
        assert!(matches!(fits, Err(Failed::Unsent(_))), "the maximum itself is sent");
    }

    #[tokio::test]
    async fn what_a_worker_says_of_itself_shows_no_secret_and_a_result_is_as_it_came() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let proxy = proxy_of(dir.path(), 200, "", json!({"detail": SECRET}).to_string());
        let said = proxy.get("/stats").await.ok().expect("answered");
        assert_eq!(proxy.shown(&said), r#"{"detail":"[secret]"}"#);
        assert_eq!(proxy.read::<DetailBody>(&said).expect("reads").detail, "[secret]");
        let reply = proxy.call("/execute", Bytes::from_static(b"{}")).await.ok().expect("a result");
        assert_eq!(reply.body, json!({"detail": SECRET}).to_string());
        let reply = proxy.call(http::GET_SYSTEM_STATUS, Bytes::new()).await.ok().expect("an answer");
        assert_eq!(reply.body, r#"{"detail":"[secret]"}"#, "this is no result");
    }

    #[tokio::test]
    async fn a_worker_accounts_for_what_is_its_own_and_without_secrets() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let header = concat!(
            r#"x-cjm-accounts: [{"event_type": "cache_hit", "#,
            r#""payload": {"key": "of tok-12345678", "bytes": 1180591620717411303424}}, "#,
            r#"{"event_type": "state_transition", "payload": {"to": "completed"}}, "#,
            r#"{"event_type": "made_up", "payload": {}}]"#,
            "\r\n",
        );
        let failure = json!({"_job_error": {
            "category": "fatal", "message": "m", "retriable": false, "original_exc_repr": "E()",
        }});
        for (status, body) in [(200, "1".to_owned()), (500, failure.to_string())] {
            let proxy = proxy_of(dir.path(), status, header, &body);
            let accounts = match proxy.call("/execute", Bytes::from_static(b"{}")).await {
                Ok(reply) => reply.accounts,
                Err(Failed::Answer(error)) => error.accounts().to_vec(),
                Err(failed) => panic!("{}", told(&failed)),
            };
            assert_eq!(accounts.len(), 1, "no other row may be a worker's: {accounts:?}");
            assert_eq!(accounts[0].event_type, "cache_hit");
            assert_eq!(accounts[0].payload["key"], "of [secret]");
            assert_eq!(accounts[0].payload["bytes"], "1180591620717411303424", "never rounded");
        }
    }
}
