//! The other connections of one worker: for streams, and for questions, which may time out.

use crate::redaction::Said;
use bytes::{Buf as _, Bytes, BytesMut};
use cjm_wire::{http, ndjson};
use futures_util::{Stream, StreamExt as _};
use std::path::Path;
use std::time::Duration;
use tokio_util::codec::{Decoder, FramedRead};
use tokio_util::io::StreamReader;

/// Any host name does: the socket decides where it goes.
const BASE: &str = "http://worker";

/// Of one worker.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    body_bytes_max: usize,
    line_bytes_max: usize,
}

/// A whole answer.
pub(crate) struct Whole {
    pub(crate) status: u16,
    pub(crate) body: Said,
}

/// Why there is none.
pub(crate) enum Unheard {
    /// The connection broke, or it took too long.
    Connection(String),
    /// There was no connection, so nothing was sent.
    Unsent(String),
    /// It is longer than any may be: what of it, in words.
    TooLong { status: u16, what: String },
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
        let http =
            reqwest::Client::builder().unix_socket(socket).pool_idle_timeout(None).no_proxy().build()?;
        Ok(Self { http, body_bytes_max: http::BODY_BYTES_MAX, line_bytes_max: ndjson::LINE_BYTES_MAX })
    }

    pub(crate) async fn get(&self, path: &str, within: Option<Duration>) -> Result<Whole, Unheard> {
        let request = self.http.get(format!("{BASE}{path}"));
        self.whole(bounded(request, within).send().await?).await
    }

    /// What it answers is of no use to anybody.
    pub(crate) async fn post(&self, path: &str, body: Vec<u8>, within: Duration) -> Result<(), Unheard> {
        let request = self.http.post(format!("{BASE}{path}")).body(body);
        bounded(request, Some(within)).send().await?;
        Ok(())
    }

    /// A `POST` that is answered line by line.
    pub(crate) async fn stream(
        &self,
        path: &str,
        body: Bytes,
    ) -> Result<Opened<impl Stream<Item = Result<Said, Unheard>> + Send + use<>>, Unheard> {
        let request = self.http.post(format!("{BASE}{path}")).header("content-type", "application/json");
        let response = request.body(body).send().await?;
        if response.status().as_u16() != 200 {
            return Ok(Opened::Refused(self.whole(response).await?));
        }
        let bytes = response.bytes_stream().map(|item| item.map_err(std::io::Error::other));
        let bytes_max = self.line_bytes_max;
        let lines = Lines { looked_at: 0, bytes_max, skips: false };
        let lines = FramedRead::new(StreamReader::new(bytes), lines);
        let too_long = move || Unheard::TooLong {
            status: 200,
            what: format!("a stream line of more than {bytes_max} bytes"),
        };
        Ok(Opened::Lines(lines.map(move |line| line?.map(Said::new).map_err(|LineTooLong| too_long()))))
    }

    async fn whole(&self, mut response: reqwest::Response) -> Result<Whole, Unheard> {
        let status = response.status().as_u16();
        let too_long = || Unheard::TooLong {
            status,
            what: format!("an answer of more than {} bytes", self.body_bytes_max),
        };
        if response.content_length().is_some_and(|bytes| bytes > self.body_bytes_max as u64) {
            return Err(too_long());
        }
        let mut whole = BytesMut::new();
        while let Some(piece) = response.chunk().await? {
            if whole.len() + piece.len() > self.body_bytes_max {
                return Err(too_long());
            }
            whole.extend_from_slice(&piece);
        }
        Ok(Whole { status, body: Said::new(whole.freeze()) })
    }
}

/// Cuts a stream into lines, whatever their bytes are: only who knows what a line means can say what is wrong with it. Of
/// one that is too long the rest is thrown away, and what follows comes: only the stream's own end says that it is over.
struct Lines {
    looked_at: usize,
    bytes_max: usize,
    skips: bool,
}

/// It has more bytes than a line may have.
struct LineTooLong;

impl Decoder for Lines {
    type Item = Result<Bytes, LineTooLong>;
    type Error = std::io::Error;

    fn decode(&mut self, bytes: &mut BytesMut) -> std::io::Result<Option<Self::Item>> {
        loop {
            let end = bytes[self.looked_at..].iter().position(|byte| *byte == b'\n');
            let end = end.map(|at| self.looked_at + at);
            self.looked_at = 0;
            if self.skips {
                bytes.advance(end.map_or(bytes.len(), |end| end + 1));
                self.skips = end.is_none();
                if self.skips {
                    return Ok(None);
                }
            } else if end.unwrap_or(bytes.len()) > self.bytes_max {
                self.skips = true;
                return Ok(Some(Err(LineTooLong)));
            } else if let Some(end) = end {
                let line = bytes.split_to(end).freeze();
                bytes.advance(1);
                return Ok(Some(Ok(line)));
            } else {
                self.looked_at = bytes.len();
                return Ok(None);
            }
        }
    }

    fn decode_eof(&mut self, bytes: &mut BytesMut) -> std::io::Result<Option<Self::Item>> {
        let line = self.decode(bytes)?;
        self.looked_at = 0;
        Ok(line.or_else(|| (!bytes.is_empty()).then(|| Ok(bytes.split().freeze()))))
    }
}

fn bounded(request: reqwest::RequestBuilder, within: Option<Duration>) -> reqwest::RequestBuilder {
    match within {
        Some(within) => request.timeout(within),
        None => request,
    }
}

impl From<reqwest::Error> for Unheard {
    fn from(error: reqwest::Error) -> Self {
        let message = chain(&error);
        if error.is_connect() { Self::Unsent(message) } else { Self::Connection(message) }
    }
}

impl From<std::io::Error> for Unheard {
    fn from(error: std::io::Error) -> Self {
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

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{UnixListener, UnixStream};

    /// A client whose requests this end answers.
    fn client(dir: &Path) -> (Client, UnixListener) {
        let socket = dir.join("s");
        let listener = UnixListener::bind(&socket).unwrap();
        (Client::new(&socket).unwrap(), listener)
    }

    /// Takes a request and begins to answer it; the connection stays open.
    async fn answer(listener: &UnixListener, said: &[u8]) -> UnixStream {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.read(&mut [0; 4096]).await.unwrap();
        stream.write_all(said).await.unwrap();
        stream
    }

    /// What waits for more than there will be fails.
    async fn soon<T>(said: impl Future<Output = T>) -> T {
        tokio::time::timeout(Duration::from_secs(20), said).await.expect("it waits for nothing more")
    }

    #[tokio::test]
    async fn an_answer_beyond_the_maximum_is_not_read_on() {
        let dir = tempfile::tempdir().unwrap();
        let (mut client, listener) = client(dir.path());
        let announced = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", http::BODY_BYTES_MAX + 1);
        let (told, _open) =
            tokio::join!(soon(client.get("/stats", None)), answer(&listener, announced.as_bytes()));
        assert!(matches!(told, Err(Unheard::TooLong { status: 200, .. })), "nothing of it came");
        client.body_bytes_max = 4;
        // In pieces whose sum nobody has announced.
        for (pieces, fits) in [("2\r\nab\r\n3\r\ncde\r\n", false), ("2\r\nab\r\n2\r\ncd\r\n0\r\n\r\n", true)]
        {
            let said = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{pieces}");
            // Its own connection for each: the one before is still being answered.
            let (told, _open) =
                tokio::join!(soon(client.get("/stats", None)), answer(&listener, said.as_bytes()));
            assert_eq!(told.is_ok(), fits, "{pieces}");
        }
    }

    #[tokio::test]
    async fn lines_are_cut_whatever_they_hold_and_one_that_is_too_long_takes_no_other_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let (mut client, listener) = client(dir.path());
        client.line_bytes_max = 4;
        let head = "HTTP/1.1 200 OK\r\ncontent-length: 25\r\n\r\n";
        let said = [head.as_bytes(), b"abcd\n\n\xff\nabcdefghij"].concat();
        let (opened, mut stream) = tokio::join!(client.stream("/x", Bytes::new()), answer(&listener, &said));
        let Ok(Opened::Lines(lines)) = opened else { panic!("refused") };
        let mut lines = Box::pin(lines);
        for expected in [b"abcd".as_slice(), b"", b"\xff"] {
            let line = soon(lines.next()).await.unwrap().ok().expect("a line");
            assert_eq!(line.result(), expected);
        }
        assert!(
            matches!(soon(lines.next()).await, Some(Err(Unheard::TooLong { .. }))),
            "it is told before it has ended"
        );
        stream.write_all(b"kl\n12\n3").await.unwrap();
        for expected in [b"12".as_slice(), b"3"] {
            let line = soon(lines.next()).await.unwrap().ok().expect("a line");
            assert_eq!(line.result(), expected);
        }
        assert!(lines.next().await.is_none());
    }

    #[tokio::test]
    async fn the_last_line_needs_no_end_and_a_stream_that_is_cut_off_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let (client, listener) = client(dir.path());
        for (bytes, whole) in [(3, true), (9, false)] {
            let said = format!("HTTP/1.1 200 OK\r\ncontent-length: {bytes}\r\nconnection: close\r\n\r\n1\n2");
            let (opened, open) =
                tokio::join!(client.stream("/x", Bytes::new()), answer(&listener, said.as_bytes()));
            drop(open);
            let Ok(Opened::Lines(lines)) = opened else { panic!("refused") };
            let told: Vec<_> = lines.collect().await;
            let lines = told.iter().filter(|line| line.is_ok()).count();
            assert_eq!((lines, told.len()), (if whole { 2 } else { 1 }, 2));
        }
    }
}
