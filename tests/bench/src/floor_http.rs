//! The floor of calls: hyper on both ends of a Unix socket, the server in a process of its own, the client on a
//! current-thread runtime. It parses nothing and decides nothing; whatever a host does comes on top of it.

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use std::collections::HashMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tokio::net::{UnixListener, UnixStream};

/// What the server answers where no size is asked for: the body the bench's tool answers.
pub(crate) const SMALL_ANSWER: &str = r#"{"ok":true}"#;

/// Serves until it is killed. `GET`ting is not told from `POST`ing; the path's last part is a size in bytes, if it is
/// a number.
pub(crate) fn serve(socket: &Path) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = UnixListener::bind(socket).context("bind the floor's socket")?;
        let bodies: Arc<Mutex<HashMap<usize, Bytes>>> = Arc::default();
        loop {
            let (stream, _) = listener.accept().await.context("accept")?;
            let bodies = Arc::clone(&bodies);
            let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                let bodies = Arc::clone(&bodies);
                async move { Ok::<_, Infallible>(answer(request, &bodies).await) }
            });
            tokio::spawn(async move {
                // A client that goes away ends its connection; the next one gets its own.
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    })
}

async fn answer(request: Request<Incoming>, bodies: &Mutex<HashMap<usize, Bytes>>) -> Response<Full<Bytes>> {
    let size = request.uri().path().rsplit('/').next().and_then(|part| part.parse::<usize>().ok());
    // Read to its end, as a host's worker must; what it says is not looked at.
    let _ = request.into_body().collect().await;
    let body = match size {
        None => Bytes::from_static(SMALL_ANSWER.as_bytes()),
        Some(size) => {
            let mut bodies = bodies.lock().unwrap_or_else(PoisonError::into_inner);
            bodies.entry(size).or_insert_with(|| Bytes::from(vec![b'x'; size])).clone()
        }
    };
    let mut response = Response::new(Full::new(body));
    response
        .headers_mut()
        .insert("content-type", hyper::header::HeaderValue::from_static("application/json"));
    response
}

/// The server's process; ended when dropped.
#[derive(Debug)]
pub(crate) struct FloorServer {
    child: Child,
    socket: PathBuf,
}

impl FloorServer {
    /// Starts it in `dir`.
    pub(crate) fn start(dir: &Path) -> Result<Self> {
        let socket = dir.join("floor.sock");
        let child = Command::new(std::env::current_exe()?)
            .arg("serve-floor")
            .arg(&socket)
            .stdin(Stdio::null())
            .spawn()
            .context("start the floor's server")?;
        let server = Self { child, socket };
        let start = Instant::now();
        while !server.socket.exists() {
            ensure!(start.elapsed().as_secs() < 10, "the floor's server does not come up");
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        Ok(server)
    }

    /// A client on a thread and a runtime of its own.
    pub(crate) fn client(&self) -> FloorClient {
        FloorClient::start(self.socket.clone())
    }
}

impl Drop for FloorServer {
    fn drop(&mut self) {
        // It may have died already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What to ask, and how often.
struct Asked {
    path: String,
    body: Bytes,
    times: usize,
}

/// Asks on a thread of its own, one request after the other on one connection.
pub(crate) struct FloorClient {
    asked: std::sync::mpsc::Sender<Asked>,
    answers: std::sync::mpsc::Receiver<Result<Vec<f64>>>,
}

impl FloorClient {
    fn start(socket: PathBuf) -> Self {
        let (asked, inbox) = std::sync::mpsc::channel::<Asked>();
        let (outbox, answers) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
                return;
            };
            let mut sender = None;
            while let Ok(asked) = inbox.recv() {
                if outbox.send(runtime.block_on(ask(&socket, &mut sender, &asked))).is_err() {
                    return;
                }
            }
        });
        Self { asked, answers }
    }

    /// Microseconds of each of `times` requests with the same body.
    pub(crate) fn ask(&self, path: &str, body: &[u8], times: usize) -> Result<Vec<f64>> {
        let asked = Asked { path: path.to_owned(), body: Bytes::copy_from_slice(body), times };
        self.asked.send(asked).context("the floor's client is gone")?;
        self.answers.recv().context("the floor's client is gone")?
    }
}

async fn ask(
    socket: &Path,
    sender: &mut Option<SendRequest<Full<Bytes>>>,
    asked: &Asked,
) -> Result<Vec<f64>> {
    let sender = match sender {
        Some(sender) => sender,
        none => none.insert(connect(socket).await?),
    };
    let mut taken = Vec::with_capacity(asked.times);
    for _ in 0..asked.times {
        let start = Instant::now();
        call(sender, &asked.path, asked.body.clone()).await?;
        taken.push(crate::measure::micros(start.elapsed()));
    }
    Ok(taken)
}

/// A connection whose work is a task of the calling runtime.
pub(crate) async fn connect(socket: &Path) -> Result<SendRequest<Full<Bytes>>> {
    let stream = UnixStream::connect(socket).await.context("connect to the floor's server")?;
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        // Ends with its sender.
        let _ = connection.await;
    });
    Ok(sender)
}

/// One request and its whole answer.
pub(crate) async fn call(sender: &mut SendRequest<Full<Bytes>>, path: &str, body: Bytes) -> Result<Bytes> {
    sender.ready().await?;
    let request = Request::post(path)
        .header("host", "floor")
        .header("content-type", "application/json")
        .body(Full::new(body))?;
    let response = sender.send_request(request).await?;
    Ok(response.into_body().collect().await?.to_bytes())
}
