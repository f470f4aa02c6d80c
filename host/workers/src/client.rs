//! The other connections of one worker: for streams, and for questions, which may time out.

use crate::redaction::Said;
use bytes::BytesMut;
use cjm_wire::{http, ndjson};
use futures_util::{Stream, StreamExt as _};
use std::path::Path;
use std::time::Duration;
use tokio_util::codec::{FramedRead, LinesCodec};
use tokio_util::io::StreamReader;

/// Any host name does: the socket decides where it goes.
const BASE: &str = "http://worker";

/// Of one worker.
#[derive(Debug, Clone)]
pub(crate) struct Client(reqwest::Client);

/// A whole answer.
pub(crate) struct Whole {
    pub(crate) status: u16,
    pub(crate) body: Said,
}

/// Why there is none.
pub(crate) enum Unheard {
    /// The connection broke, or it took too long.
    Connection(String),
    /// It is longer than any may be.
    TooLong { status: u16 },
}

/// What the head of a stream says.
pub(crate) enum Opened<S> {
    /// Lines follow.
    Lines(S),
    /// It was refused.
    Refused(Whole),
}

impl Client {
    pub(crate) fn new(socket: &Path) -> Result<Self, reqwest::Error> {
        // One idle connection per lane stays open; a worker's socket does not time out.
        reqwest::Client::builder().unix_socket(socket).pool_idle_timeout(None).no_proxy().build().map(Self)
    }

    pub(crate) async fn get(&self, path: &str, within: Option<Duration>) -> Result<Whole, Unheard> {
        let request = self.0.get(format!("{BASE}{path}"));
        whole(bounded(request, within).send().await?).await
    }

    /// What it answers is of no use to anybody.
    pub(crate) async fn post(&self, path: &str, body: Vec<u8>, within: Duration) -> Result<(), Unheard> {
        let request = self.0.post(format!("{BASE}{path}")).body(body);
        bounded(request, Some(within)).send().await?;
        Ok(())
    }

    /// A `POST` that is answered line by line.
    pub(crate) async fn stream(
        &self,
        path: &str,
        body: Vec<u8>,
    ) -> Result<Opened<impl Stream<Item = Result<Said, Unheard>> + Send + use<>>, Unheard> {
        let request = self.0.post(format!("{BASE}{path}")).header("content-type", "application/json");
        let response = request.body(body).send().await?;
        if response.status().as_u16() != 200 {
            return Ok(Opened::Refused(whole(response).await?));
        }
        let bytes = response.bytes_stream().map(|item| item.map_err(std::io::Error::other));
        let codec = LinesCodec::new_with_max_length(ndjson::LINE_BYTES_MAX);
        let lines = FramedRead::new(StreamReader::new(bytes), codec);
        Ok(Opened::Lines(lines.map(|line| match line {
            Ok(line) => Ok(Said::new(line)),
            Err(error) => Err(Unheard::Connection(error.to_string())),
        })))
    }
}

fn bounded(request: reqwest::RequestBuilder, within: Option<Duration>) -> reqwest::RequestBuilder {
    match within {
        Some(within) => request.timeout(within),
        None => request,
    }
}

async fn whole(mut response: reqwest::Response) -> Result<Whole, Unheard> {
    let status = response.status().as_u16();
    let mut whole = BytesMut::new();
    while let Some(piece) = response.chunk().await? {
        if whole.len() + piece.len() > http::BODY_BYTES_MAX {
            return Err(Unheard::TooLong { status });
        }
        whole.extend_from_slice(&piece);
    }
    Ok(Whole { status, body: Said::new(whole.freeze()) })
}

impl From<reqwest::Error> for Unheard {
    fn from(error: reqwest::Error) -> Self {
        Self::Connection(chain(&error))
    }
}

/// An error with its causes, which HTTP libraries hide one level down.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
