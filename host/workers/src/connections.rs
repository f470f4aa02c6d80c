//! The connections of one worker that carry its calls: HTTP/1.1 over its socket, driven by the task of whoever calls.
//!
//! A client that drives its connections in tasks of their own wakes another thread for each request and again for each
//! answer, which costs more than all the rest of a small call. Here the caller's own task writes and reads. What must
//! hold: a connection is used by one call at a time, goes back only after a whole answer, and is used again only on the
//! runtime it was made on, since no other would wake its caller.

use crate::redaction::Said;
use bytes::{Bytes, BytesMut};
use cjm_quiet_socket::QuietSocket;
use cjm_wire::http::BODY_BYTES_MAX;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1::{Connection, SendRequest, handshake};
use hyper::header::{CONTENT_TYPE, HOST, HeaderMap};
use hyper::http::response;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use std::collections::VecDeque;
use std::future::{Future as _, poll_fn};
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use tokio::runtime::{Handle, Id};

/// Connections kept for later calls; the one unused longest goes first. More calls than this may run at once.
const IDLE_MAX: usize = 32;
/// Most that is set aside for an answer because its head says so; the rest as it comes.
const SET_ASIDE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// An answer up to this size leaves its memory for the next one: touching new memory costs more than copying into old.
const SPARE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The connections of one worker.
#[derive(Debug)]
pub(crate) struct Connections {
    socket: PathBuf,
    idle: Mutex<VecDeque<Idle>>,
    spare: Mutex<BytesMut>,
    body_bytes_max: usize,
}

/// A whole answer.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Said,
    headers: HeaderMap,
}

impl Answer {
    /// A header that is no longer than that.
    pub(crate) fn header(&self, name: &str, bytes_max: usize) -> Option<Said> {
        let value = self.headers.get(name).filter(|value| value.len() <= bytes_max)?;
        Some(Said::new(value.as_bytes().to_vec()))
    }
}

/// What became of a connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    /// Nobody listens, or no more descriptors are to be had.
    #[error("the worker's socket cannot be connected to")]
    Connect(#[source] std::io::Error),
    /// It ended in the middle of a call, or what came is not HTTP.
    #[error("the connection to the worker broke")]
    Http(#[from] hyper::Error),
    /// Not read to its end.
    #[error("its answer has more than the {BODY_BYTES_MAX} bytes that are allowed")]
    TooLong {
        /// Of the answer.
        status: StatusCode,
    },
    /// The request cannot be written down.
    #[error("the request cannot be made")]
    Request(#[from] hyper::http::Error),
}

#[derive(Debug)]
struct Idle {
    runtime: Id,
    line: Line,
}

/// One connection: what requests are handed to, and what writes and reads.
#[derive(Debug)]
struct Line {
    sender: SendRequest<Full<Bytes>>,
    /// None: the connection has ended. Boxed, since it is large and changes hands at every call.
    driver: Option<Box<Connection<TokioIo<QuietSocket>, Full<Bytes>>>>,
}

impl Connections {
    /// Connects to nothing yet.
    pub(crate) fn new(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
            idle: Mutex::default(),
            spare: Mutex::default(),
            body_bytes_max: BODY_BYTES_MAX,
        }
    }

    /// `POST` of JSON, and the whole answer.
    pub(crate) async fn post(&self, path: &str, body: impl Into<Bytes>) -> Result<Answer, Broken> {
        let body = body.into();
        let runtime = Handle::current().id();
        let mut spare = std::mem::take(&mut *self.spare());
        let ((head, body), line) = loop {
            let request = Request::post(path)
                .header(HOST, "worker")
                .header(CONTENT_TYPE, "application/json")
                .body(Full::new(body.clone()))?;
            let idle = self.take(runtime);
            let was_idle = idle.is_some();
            let mut line = match idle {
                Some(line) => line,
                None => Line::connect(&self.socket).await?,
            };
            match line.exchange(request, &mut spare, self.body_bytes_max).await {
                // The worker closed it while nobody used it, and has seen nothing of the request.
                Err(Broken::Http(error)) if was_idle && (error.is_closed() || error.is_canceled()) => {}
                exchanged => break (exchanged?, line),
            }
        };
        if body.len() <= SPARE_BYTES_MAX {
            *self.spare() = spare;
        }
        if line.driver.is_some() {
            self.put_back(Idle { runtime, line });
        }
        Ok(Answer { status: head.status, headers: head.headers, body: Said::new(body) })
    }

    fn take(&self, runtime: Id) -> Option<Line> {
        let mut idle = self.idle();
        let newest = idle.iter().rposition(|one| one.runtime == runtime)?;
        idle.remove(newest).map(|one| one.line)
    }

    fn put_back(&self, one: Idle) {
        let mut idle = self.idle();
        if idle.len() == IDLE_MAX {
            idle.pop_front();
        }
        idle.push_back(one);
    }

    fn spare(&self) -> MutexGuard<'_, BytesMut> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn idle(&self) -> MutexGuard<'_, VecDeque<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    async fn connect(socket: &Path) -> Result<Self, Broken> {
        let stream = cjm_quiet_socket::connect(socket).await.map_err(Broken::Connect)?;
        let (sender, driver) = handshake(TokioIo::new(stream)).await?;
        Ok(Self { sender, driver: Some(Box::new(driver)) })
    }

    async fn exchange(
        &mut self,
        request: Request<Full<Bytes>>,
        spare: &mut BytesMut,
        bytes_max: usize,
    ) -> Result<(response::Parts, Bytes), Broken> {
        let Self { sender, driver } = self;
        let mut answered = pin!(async move {
            sender.ready().await?;
            let (head, body) = sender.send_request(request).await?.into_parts();
            let body = whole(body, spare, bytes_max).await?.ok_or(Broken::TooLong { status: head.status })?;
            Ok::<_, Broken>((head, body))
        });
        let answer = poll_fn(move |context| {
            // What is handed over is written, what is read is taken, each by the next look of the other; whatever is
            // still to be done then wakes this task.
            loop {
                if let Poll::Ready(answer) = answered.as_mut().poll(context) {
                    return Poll::Ready(answer);
                }
                let Some(connection) = driver else { return Poll::Pending };
                match Pin::new(connection).poll(context) {
                    Poll::Pending => return answered.as_mut().poll(context),
                    // It ended, well or not: an answer that came before is still on its way from here to there, and
                    // whoever waits for another is told why there is none once this is gone.
                    Poll::Ready(_) => *driver = None,
                }
            }
        });
        answer.await
    }
}

/// Reads a body to its end; nothing if it is too long. One that comes in one piece is not copied.
async fn whole(
    mut body: Incoming,
    spare: &mut BytesMut,
    bytes_max: usize,
) -> Result<Option<Bytes>, hyper::Error> {
    let expected = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if expected > bytes_max {
        return Ok(None);
    }
    let mut first = Bytes::new();
    let mut rest = std::mem::take(spare);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        if first.len() + rest.len() + data.len() > bytes_max {
            return Ok(None);
        }
        if first.is_empty() && rest.is_empty() {
            first = data;
            continue;
        }
        if rest.is_empty() {
            rest.reserve(expected.min(SET_ASIDE_BYTES_MAX).max(first.len() + data.len()));
            rest.extend_from_slice(&std::mem::take(&mut first));
        }
        rest.extend_from_slice(&data);
    }
    if rest.is_empty() {
        *spare = rest;
        return Ok(Some(first));
    }
    let whole = rest.split().freeze();
    *spare = rest;
    Ok(Some(whole))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixListener;

    /// A worker that answers each request of each connection with these pieces, and counts connections.
    async fn answering(
        dir: &Path,
        pieces: Vec<Vec<u8>>,
    ) -> (Connections, tokio::sync::watch::Receiver<usize>) {
        let socket = dir.join("s");
        let listener = UnixListener::bind(&socket).unwrap();
        let (count, connections) = tokio::sync::watch::channel(0);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                count.send_modify(|count| *count += 1);
                let pieces = pieces.clone();
                tokio::spawn(async move {
                    let mut buffer = [0; 4096];
                    while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {
                        for piece in &pieces {
                            stream.write_all(piece).await.unwrap();
                            tokio::task::yield_now().await;
                        }
                        if pieces.len() == 1 {
                            return;
                        }
                    }
                });
            }
        });
        (Connections::new(&socket), connections)
    }

    #[tokio::test]
    async fn one_connection_carries_call_after_call_and_an_answer_may_come_in_pieces() {
        let dir = tempfile::tempdir().unwrap();
        let half = vec![b'x'; 600_000];
        let head = b"HTTP/1.1 200 OK\r\nx-cjm-accounts: []\r\ncontent-length: 1200000\r\n\r\n".to_vec();
        let (connections, count) = answering(dir.path(), vec![head, half.clone(), half]).await;
        for _ in 0..5 {
            let answer = connections.post("/execute", b"{}".to_vec()).await.unwrap();
            assert_eq!(answer.header("x-cjm-accounts", 2).unwrap().result(), "[]");
            assert!(answer.header("x-cjm-accounts", 1).is_none(), "one that is longer is not read");
            assert_eq!((answer.status.as_u16(), answer.body.result().len()), (200, 1_200_000));
        }
        assert_eq!(*count.borrow(), 1);
    }

    #[tokio::test]
    async fn an_answer_cut_short_is_an_error_and_its_connection_is_not_used_again() {
        let dir = tempfile::tempdir().unwrap();
        let cut = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly this".to_vec();
        let (connections, count) = answering(dir.path(), vec![cut]).await;
        for calls in 1..=3 {
            let broken = connections.post("/execute", b"{}".to_vec()).await.err().unwrap();
            assert!(matches!(broken, Broken::Http(_)), "{broken}");
            assert_eq!(*count.borrow(), calls);
        }
        let nobody = Connections::new(&dir.path().join("nobody"));
        assert!(matches!(nobody.post("/execute", Vec::new()).await.err().unwrap(), Broken::Connect(_)));
    }

    #[tokio::test]
    async fn an_answer_beyond_the_maximum_is_not_read_on() {
        let dir = tempfile::tempdir().unwrap();
        let announced = format!("HTTP/1.1 500 It\r\ncontent-length: {}\r\n\r\n", BODY_BYTES_MAX + 1);
        let chunked = "HTTP/1.1 500 It\r\ntransfer-encoding: chunked\r\n\r\n";
        for (n, (said, fits)) in [
            (announced.into_bytes(), false),
            (format!("{chunked}2\r\nab\r\n3\r\ncde\r\n").into_bytes(), false),
            (format!("{chunked}5\r\nabcde\r\n").into_bytes(), false),
            (format!("{chunked}2\r\nab\r\n2\r\ncd\r\n0\r\n\r\n").into_bytes(), true),
        ]
        .into_iter()
        .enumerate()
        {
            let folder = dir.path().join(n.to_string());
            std::fs::create_dir(&folder).unwrap();
            // The empty piece: the connection stays open, and nothing more comes.
            let (mut connections, _) = answering(&folder, vec![said, Vec::new()]).await;
            if n > 0 {
                connections.body_bytes_max = 4;
            }
            let post = connections.post("/execute", b"{}".to_vec());
            let answer = tokio::time::timeout(std::time::Duration::from_secs(20), post).await.unwrap();
            let status = match &answer {
                Ok(answer) => answer.status,
                Err(Broken::TooLong { status }) => *status,
                Err(other) => panic!("{other}"),
            };
            assert_eq!((answer.is_ok(), status.as_u16()), (fits, 500), "{n}");
        }
    }

    #[tokio::test]
    async fn of_many_connections_a_bounded_number_waits_for_later_calls() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s");
        let listener = UnixListener::bind(&socket).unwrap();
        let connections = Connections::new(&socket);
        let serve = async {
            let mut open = Vec::new();
            for _ in 0..2 * IDLE_MAX {
                let (mut stream, _) = listener.accept().await.unwrap();
                let _ = stream.read(&mut [0; 4096]).await.unwrap();
                open.push(stream);
            }
            for stream in &mut open {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n1").await.unwrap();
            }
            open
        };
        let calls = (0..2 * IDLE_MAX).map(|_| connections.post("/execute", b"{}".to_vec()));
        let (_open, answers) = tokio::join!(serve, futures_util::future::join_all(calls));
        assert!(answers.iter().all(Result::is_ok));
        assert_eq!(connections.idle().len(), IDLE_MAX);
    }

    #[tokio::test]
    async fn a_connection_that_its_worker_closed_is_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        // Closed after its answer, announced or not.
        for (n, words) in ["connection: close\r\n", ""].into_iter().enumerate() {
            let socket = dir.path().join(n.to_string());
            let listener = UnixListener::bind(&socket).unwrap();
            let (count, mut closed) = tokio::sync::watch::channel(0);
            let (close, mut closing) = tokio::sync::mpsc::channel(1);
            tokio::spawn(async move {
                while let Ok((mut stream, _)) = listener.accept().await {
                    let _ = stream.read(&mut [0; 4096]).await;
                    let answer = format!("HTTP/1.1 200 OK\r\n{words}content-length: 1\r\n\r\n1");
                    stream.write_all(answer.as_bytes()).await.unwrap();
                    // Once the answer has been taken and the connection put back.
                    let _: Option<()> = closing.recv().await;
                    // Not only dropped: a process that another test is just starting may hold a copy of it until its
                    // program runs, and would take the next request unread.
                    stream.into_std().unwrap().shutdown(std::net::Shutdown::Both).unwrap();
                    count.send_modify(|count| *count += 1);
                }
            });
            let connections = Connections::new(&socket);
            for calls in 1..=5 {
                let post = connections.post("/execute", b"{}".to_vec());
                let answer = tokio::time::timeout(std::time::Duration::from_secs(20), post).await;
                assert_eq!(answer.unwrap().unwrap().status.as_u16(), 200);
                close.send(()).await.unwrap();
                closed.wait_for(|count| *count == calls).await.unwrap();
            }
        }
    }

    #[test]
    fn a_connection_outlives_its_runtime_without_harm_and_serves_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let worker = runtime();
        let answer = vec![b"HTTP/1.1 204 No Content\r\n".to_vec(), b"\r\n".to_vec()];
        let (connections, count) = worker.block_on(answering(dir.path(), answer));
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let serving = std::thread::spawn(move || worker.block_on(stopped));
        // They live on, and nobody drives them.
        let mut callers = Vec::new();
        for calls in 1..=3 {
            let caller = runtime();
            for _ in 0..2 {
                let post = connections.post("/execute", b"{}".to_vec());
                let limit = std::time::Duration::from_secs(20);
                let answer = caller.block_on(async { tokio::time::timeout(limit, post).await });
                assert_eq!(answer.unwrap().unwrap().status.as_u16(), 204);
            }
            assert_eq!(*count.borrow(), calls, "one for each runtime");
            callers.push(caller);
        }
        drop(callers);
        drop(connections);
        stop.send(()).unwrap();
        serving.join().unwrap().unwrap();
    }
}
