//! A raw HTTP/1.1 client over a socket: what is on the wire is what is asserted.

use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// Longest wait for a byte of an answer.
const READ_WAIT: Duration = Duration::from_secs(30);

/// An answer, whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("UTF-8")
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.text()))
    }

    /// The `_job_error` of a 500.
    pub(crate) fn job_error(&self) -> Value {
        assert_eq!(self.status, 500, "{}", self.text());
        self.json()["_job_error"].clone()
    }
}

/// An answer whose body is read bit by bit.
pub(crate) struct Streaming {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    reader: BufReader<Box<dyn Wire>>,
}

/// A connected socket of either family.
trait Wire: Read + Write + Send {}

impl Wire for UnixStream {}

impl Wire for TcpStream {}

/// Sends a request and reads the head of its answer.
pub(crate) fn open(socket: &Path, method: &str, path: &str, body: &[u8]) -> std::io::Result<Streaming> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(READ_WAIT))?;
    open_on(Box::new(stream), method, path, body)
}

fn open_on(mut stream: Box<dyn Wire>, method: &str, path: &str, body: &[u8]) -> std::io::Result<Streaming> {
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| std::io::Error::from(std::io::ErrorKind::UnexpectedEof))?;
    let mut headers = Vec::new();
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        match line.trim_end().split_once(':') {
            Some((name, value)) => headers.push((name.to_ascii_lowercase(), value.trim().to_owned())),
            None => break,
        }
    }
    Ok(Streaming { status, headers, reader })
}

/// A whole exchange.
pub(crate) fn exchange(socket: &Path, method: &str, path: &str, body: &[u8]) -> std::io::Result<Answer> {
    whole(open(socket, method, path, body)?)
}

/// A whole exchange with a port of 127.0.0.1.
pub(crate) fn exchange_tcp(port: u16, method: &str, path: &str, body: &[u8]) -> std::io::Result<Answer> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(READ_WAIT))?;
    whole(open_on(Box::new(stream), method, path, body)?)
}

fn whole(mut open: Streaming) -> std::io::Result<Answer> {
    let mut body = Vec::new();
    if open.is_chunked() {
        while let Some(chunk) = open.chunk()? {
            body.extend_from_slice(&chunk);
        }
    } else {
        open.reader.read_to_end(&mut body)?;
    }
    Ok(Answer { status: open.status, headers: open.headers, body })
}

impl Streaming {
    fn is_chunked(&self) -> bool {
        self.headers.iter().any(|(name, value)| name == "transfer-encoding" && value == "chunked")
    }

    /// How many bytes of a body that is not chunked there are until its end, read in pieces.
    pub(crate) fn read_slowly(mut self, piece_bytes: u64, pause: Duration) -> u64 {
        let mut sum = 0;
        loop {
            // One that is broken off is over as well.
            match std::io::copy(&mut self.reader.by_ref().take(piece_bytes), &mut std::io::sink()) {
                Ok(0) | Err(_) => return sum,
                Ok(bytes) => sum += bytes,
            }
            std::thread::sleep(pause);
        }
    }

    /// The next chunk of a chunked body; None after the last.
    pub(crate) fn chunk(&mut self) -> std::io::Result<Option<Vec<u8>>> {
        let mut line = String::new();
        self.reader.read_line(&mut line)?;
        let length = usize::from_str_radix(line.trim_end(), 16)
            .map_err(|_| std::io::Error::other(format!("not the length of a chunk: {line:?}")))?;
        let mut chunk = vec![0; length + 2];
        self.reader.read_exact(&mut chunk)?;
        chunk.truncate(length);
        Ok((length > 0).then_some(chunk))
    }
}
