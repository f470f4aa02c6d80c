//! A plain HTTP/1.1 client: one connection for each exchange unless it is asked for more, nothing followed, nothing decoded, so that a check sees
//! what is on the wire.

use cjm_wire::describe::{Described, exit};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

/// Longest wait for the next byte of an answer.
pub const ANSWER_WAIT_MAX: Duration = Duration::from_secs(30);
/// Longest head of an answer, in bytes.
const HEAD_BYTES_MAX: u64 = 1024 * 1024;
/// Longest body read, in bytes.
const BODY_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Where a worker serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// `http://HOST:PORT`, as `HOST:PORT`.
    Tcp(String),
    /// `unix:PATH`.
    Unix(PathBuf),
}

/// Nobody answers, or what answers does not speak HTTP.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address makes no sense.
    #[error("`{0}` is no address of a worker")]
    Address(String),
    /// No connection, or it broke.
    #[error("{doing}: {source}")]
    Io {
        /// Method and path.
        doing: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// An answer that is none.
    #[error("{doing}: {problem}")]
    NotHttp {
        /// Method and path.
        doing: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl Described for ClientError {
    fn code(&self) -> &'static str {
        match self {
            Self::Address(_) => "conformance.bad_address",
            Self::Io { .. } => "conformance.no_answer",
            Self::NotHttp { .. } => "conformance.not_http",
        }
    }

    fn next_step(&self) -> String {
        match self {
            Self::Address(_) => "give http://127.0.0.1:PORT or unix:PATH".to_owned(),
            Self::Io { .. } => "start the worker, and look at what it printed".to_owned(),
            Self::NotHttp { .. } => "make the worker answer HTTP/1.1 at this address".to_owned(),
        }
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::Address(_) => exit::USAGE,
            Self::Io { .. } | Self::NotHttp { .. } => exit::WORKER_START,
        }
    }
}

/// For checks, which say what they saw.
impl From<ClientError> for String {
    fn from(error: ClientError) -> Self {
        error.to_string()
    }
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// Without its transfer coding.
    pub body: Vec<u8>,
}

/// An answer whose body comes bit by bit.
pub struct Streaming {
    /// Status code.
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    reader: BufReader<Box<dyn Wire>>,
    doing: String,
}

/// A connected socket.
trait Wire: Read + Write + Send {}

impl Wire for TcpStream {}

impl Wire for UnixStream {}

impl std::str::FromStr for Endpoint {
    type Err = ClientError;

    fn from_str(text: &str) -> Result<Self, ClientError> {
        let unknown = || ClientError::Address(text.to_owned());
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.is_empty() { Err(unknown()) } else { Ok(Self::Unix(path.into())) };
        }
        let rest = text.strip_prefix("http://").ok_or_else(unknown)?;
        let address = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = address.rsplit_once(':').ok_or_else(unknown)?;
        let good = !host.is_empty() && !host.contains('/') && port.parse::<u16>().is_ok();
        if good { Ok(Self::Tcp(address.to_owned())) } else { Err(unknown()) }
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "http://{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Endpoint {
    /// Sends a request and reads the whole answer.
    ///
    /// # Errors
    /// When no answer comes, or it is not HTTP.
    pub fn exchange(
        &self,
        method: &str,
        path: &str,
        content_type: &str,
        body: &[u8],
    ) -> Result<Answer, ClientError> {
        self.open(method, path, content_type, body)?.whole(method == "HEAD")
    }

    /// Asks for these paths one after the other over one connection.
    ///
    /// # Errors
    /// As [`Self::exchange`]; also when the connection is closed between two of them.
    pub fn converse(&self, paths: &[&str]) -> Result<Vec<Answer>, ClientError> {
        let doing = |path: &str| format!("GET {path} on a connection kept open");
        let broken = |path: &str, source| ClientError::Io { doing: doing(path), source };
        let stream = self.connect().map_err(|source| broken(paths.first().unwrap_or(&""), source))?;
        let mut reader = BufReader::new(stream);
        let mut answers = Vec::new();
        for path in paths {
            let head = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.host());
            reader.get_mut().write_all(head.as_bytes()).map_err(|source| broken(path, source))?;
            let mut streaming = Streaming::begin(reader, doing(path))?;
            answers.push(streaming.whole(false)?);
            reader = streaming.reader;
        }
        Ok(answers)
    }

    /// Sends a request and reads the head of its answer.
    ///
    /// # Errors
    /// As [`Self::exchange`].
    pub fn open(
        &self,
        method: &str,
        path: &str,
        content_type: &str,
        body: &[u8],
    ) -> Result<Streaming, ClientError> {
        let doing = format!("{method} {path}");
        let broken = |source| ClientError::Io { doing: doing.clone(), source };
        let mut stream = self.connect().map_err(broken)?;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Type: {content_type}\r\n\
             Content-Length: {}\r\n\r\n",
            self.host(),
            body.len()
        );
        // In one piece: a worker that does not look at the body may have closed the connection before a second one.
        stream.write_all(&[head.as_bytes(), body].concat()).map_err(broken)?;
        Streaming::begin(BufReader::new(stream), doing)
    }

    fn host(&self) -> &str {
        match self {
            Self::Tcp(address) => address,
            Self::Unix(_) => "worker",
        }
    }

    fn connect(&self) -> std::io::Result<Box<dyn Wire>> {
        match self {
            Self::Tcp(address) => {
                let stream = TcpStream::connect(address)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(ANSWER_WAIT_MAX))?;
                Ok(Box::new(stream))
            }
            Self::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(ANSWER_WAIT_MAX))?;
                Ok(Box::new(stream))
            }
        }
    }
}

impl Answer {
    /// A header, by its name in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }

    /// The body as text, whatever it is.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Streaming {
    /// A header, by its name in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }

    /// The next piece of the body; None after the last.
    ///
    /// # Errors
    /// When the connection breaks, or the body is not what its head announced.
    pub fn chunk(&mut self) -> Result<Option<Vec<u8>>, ClientError> {
        let broken = |source| ClientError::Io { doing: self.doing.clone(), source };
        let mut line = String::new();
        self.reader.read_line(&mut line).map_err(broken)?;
        let bytes =
            usize::from_str_radix(line.trim_end(), 16).ok().filter(|bytes| *bytes as u64 <= BODY_BYTES_MAX);
        let bytes =
            bytes.ok_or_else(|| not_http(&self.doing, &format!("{line:?} is no length of a chunk")))?;
        let mut chunk = vec![0; bytes + 2];
        self.reader.read_exact(&mut chunk).map_err(broken)?;
        chunk.truncate(bytes);
        Ok((bytes > 0).then_some(chunk))
    }

    /// Reads the head of an answer.
    fn begin(mut reader: BufReader<Box<dyn Wire>>, doing: String) -> Result<Self, ClientError> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let before = head.len();
            let read = (&mut reader).take(HEAD_BYTES_MAX).read_until(b'\n', &mut head);
            read.map_err(|source| ClientError::Io { doing: doing.clone(), source })?;
            if head.len() == before || head.len() as u64 > HEAD_BYTES_MAX {
                return Err(not_http(
                    &doing,
                    "the connection was closed before the head of an answer was whole",
                ));
            }
        }
        let (status, headers) = read_head(&String::from_utf8_lossy(&head))
            .ok_or_else(|| not_http(&doing, "the answer does not begin as HTTP/1.1"))?;
        Ok(Self { status, headers, reader, doing })
    }

    fn whole(&mut self, is_head: bool) -> Result<Answer, ClientError> {
        let mut body = Vec::new();
        if self.header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
            while let Some(chunk) = self.chunk()? {
                body.extend_from_slice(&chunk);
            }
        } else if !is_head {
            let length = self.header("content-length").and_then(|length| length.parse::<u64>().ok());
            let wanted = length.unwrap_or(BODY_BYTES_MAX).min(BODY_BYTES_MAX);
            let read = (&mut self.reader).take(wanted).read_to_end(&mut body);
            read.map_err(|source| ClientError::Io { doing: self.doing.clone(), source })?;
            if length.is_some_and(|length| length != body.len() as u64) {
                return Err(not_http(&self.doing, "the body is shorter than announced"));
            }
        }
        Ok(Answer { status: self.status, headers: self.headers.clone(), body })
    }
}

fn not_http(doing: &str, problem: &str) -> ClientError {
    ClientError::NotHttp { doing: doing.to_owned(), problem: problem.to_owned() }
}

fn header<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

fn read_head(text: &str) -> Option<(u16, Vec<(String, String)>)> {
    let mut lines = text.lines();
    let status = lines.next()?.strip_prefix("HTTP/1.1 ")?.split(' ').next()?.parse().ok()?;
    let headers = lines.take_while(|line| !line.is_empty()).map(|line| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_ascii_lowercase(), value.trim().to_owned()))
    });
    Some((status, headers.collect::<Option<_>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_or_named() {
        for (text, expected) in [
            ("http://127.0.0.1:80", Some(Endpoint::Tcp("127.0.0.1:80".into()))),
            ("http://localhost:1/", Some(Endpoint::Tcp("localhost:1".into()))),
            ("unix:/a/b", Some(Endpoint::Unix("/a/b".into()))),
            ("unix:///a/b", Some(Endpoint::Unix("/a/b".into()))),
            ("unix:", None),
            ("http://localhost", None),
            ("http://:80", None),
            ("http://a/b:80", None),
            ("127.0.0.1:80", None),
        ] {
            assert_eq!(text.parse::<Endpoint>().ok(), expected, "{text}");
        }
    }

    #[test]
    fn a_head_is_read_or_refused() {
        let head = "HTTP/1.1 409 Conflict\r\nContent-Type:  text/plain \r\nX-A: b:c\r\n\r\n";
        let (status, headers) = read_head(head).unwrap();
        assert_eq!(status, 409);
        assert_eq!(header(&headers, "content-type"), Some("text/plain"));
        assert_eq!(header(&headers, "x-a"), Some("b:c"));
        assert_eq!(read_head("HTTP/1.0 200 OK\r\n\r\n"), None);
        assert_eq!(read_head("HTTP/1.1 200 OK\r\nno colon\r\n\r\n"), None);
    }
}
