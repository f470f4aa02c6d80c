//! Plays host and keeper for one worker: binds its socket, holds link and lifeline, reads its pipes, reaps it.

use crate::http::{Answer, Streaming, exchange, open};
use cjm_platform::fds::{pipe_cloexec, stream_pair};
use cjm_platform::process::reap;
use cjm_platform::spawn::{SessionMode, SpawnRequest, spawn};
use cjm_platform::{Pid, PidFd, Signal, WaitStatus};
use cjm_wire::frame::{FRAME_HEADER_BYTES, FrameHeader};
use cjm_wire::link::{Launch, WorkerReady, WorkerSpec, to_host, to_shim};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// What an answer of `/health` may take. The promise is 20 ms; a test on a machine that does other things as well
/// gates at five times that.
pub(crate) const ANSWER_MAX: Duration = Duration::from_millis(100);
/// Longest wait for anything.
pub(crate) const WAIT: Duration = Duration::from_secs(30);

/// A frame as it came.
type Frame = (u8, Value);

/// A worker process and all its host holds of it.
pub(crate) struct Worker {
    pub(crate) pid: Pid,
    pub(crate) dir: TempDir,
    pub(crate) link: Option<UnixStream>,
    pub(crate) lifeline: Option<OwnedFd>,
    pidfd: PidFd,
    frames: Receiver<Frame>,
    /// Frames that were passed over while another was waited for.
    seen: Vec<Frame>,
    stdout: Arc<Mutex<Vec<u8>>>,
    stderr: Arc<Mutex<Vec<u8>>>,
    exit: Option<WaitStatus>,
}

/// A binary of this crate, above the folder of its tests. The path that cargo compiles in names the place where it was
/// built, which another user may be unable to read; `scripts/test` copies binaries and tests for him.
pub(crate) fn binary(name: &str) -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let path = own.ancestors().nth(2).unwrap().join(name);
    assert!(path.is_file(), "{} is missing", path.display());
    path
}

pub(crate) fn shim() -> (PathBuf, Vec<&'static str>) {
    (binary("cjm-worker"), vec!["shim"])
}

pub(crate) fn native() -> (PathBuf, Vec<&'static str>) {
    (binary("cjm-test-native"), Vec::new())
}

/// The Python tools of these tests; who runs tests starts them in the folder of their package.
pub(crate) fn tools() -> String {
    std::env::current_dir().unwrap().join("tests/tools").to_str().unwrap().to_owned()
}

impl Worker {
    /// Starts a process and says nothing to it.
    pub(crate) fn start(program: (PathBuf, Vec<&str>)) -> Self {
        Self::start_with(program, |_| Vec::new())
    }

    /// The same with further variables, made from the worker's directory.
    pub(crate) fn start_with(
        (program, args): (PathBuf, Vec<&str>),
        variables: impl FnOnce(&Path) -> Vec<(&'static str, String)>,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("s")).unwrap();
        let (link, link_theirs) = stream_pair().unwrap();
        let lifeline = pipe_cloexec().unwrap();
        let (out, err) = (pipe_cloexec().unwrap(), pipe_cloexec().unwrap());
        let mut request = SpawnRequest::new(&program);
        request.argv =
            std::iter::once(program.as_os_str().to_owned()).chain(args.iter().map(Into::into)).collect();
        let keep = ["PATH", "HOME", "LANG"];
        request.env = std::env::vars_os().filter(|(name, _)| keep.iter().any(|kept| name == kept)).collect();
        request.env.push(("LAB_VARIABLE".into(), "from the host".into()));
        let variables = variables(dir.path()).into_iter();
        request.env.extend(variables.map(|(name, value)| (name.into(), value.into())));
        request.fds =
            vec![(out.write, 1), (err.write, 2), (listener.into(), 3), (link_theirs, 4), (lifeline.read, 5)];
        request.session = SessionMode::NewSession;
        let spawned = spawn(request).unwrap();
        let link = UnixStream::from(link);
        let (frames_tx, frames) = channel();
        let reader = link.try_clone().unwrap();
        std::thread::spawn(move || read_frames(reader, &frames_tx));
        Self {
            pid: spawned.pid,
            pidfd: spawned.pidfd,
            dir,
            link: Some(link),
            lifeline: Some(lifeline.write),
            frames,
            seen: Vec::new(),
            stdout: collect(out.read),
            stderr: collect(err.read),
            exit: None,
        }
    }

    /// Starts a worker for `launch` and waits until it is ready.
    pub(crate) fn ready(program: (PathBuf, Vec<&str>), launch: Launch) -> (Self, WorkerReady) {
        let mut worker = Self::start(program);
        worker.send_spec(launch, Map::new());
        let ready = worker.wait_ready();
        (worker, ready)
    }

    pub(crate) fn wait_ready(&mut self) -> WorkerReady {
        let ready = self.frame(to_host::READY);
        serde_json::from_value(ready).unwrap()
    }

    pub(crate) fn send_spec(&mut self, launch: Launch, secrets: Map<String, Value>) {
        let spec = self.spec(launch, secrets);
        self.send(to_shim::SPEC, &serde_json::to_vec(&spec).unwrap());
    }

    pub(crate) fn spec(&self, launch: Launch, secrets: Map<String, Value>) -> WorkerSpec {
        WorkerSpec {
            capability_name: "lab".into(),
            capability_version: "1.2.3".into(),
            instance_id: "lab".into(),
            worker_session_id: "session".into(),
            launch,
            data_dir: self.dir.path().join("data").to_string_lossy().into_owned(),
            log_level: "INFO".into(),
            secrets,
            own_variables: BTreeSet::new(),
        }
    }

    pub(crate) fn send(&mut self, kind: u8, payload: &[u8]) {
        let header = FrameHeader { payload_bytes: payload.len(), kind, call_id: 0 };
        let link = self.link.as_mut().unwrap();
        link.write_all(&header.encode()).unwrap();
        link.write_all(payload).unwrap();
    }

    pub(crate) fn shutdown(&mut self, grace: Duration) {
        let body = json!({"grace_ms": grace.as_millis() as u64});
        self.send(to_shim::SHUTDOWN, body.to_string().as_bytes());
    }

    /// The next frame of `kind`; others are kept in `seen`.
    pub(crate) fn frame(&mut self, kind: u8) -> Value {
        if let Some(at) = self.seen.iter().position(|(seen, _)| *seen == kind) {
            return self.seen.remove(at).1;
        }
        let deadline = Instant::now() + WAIT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.frames.recv_timeout(left) {
                Ok((found, value)) if found == kind => return value,
                Ok(other) => self.seen.push(other),
                Err(error) => {
                    panic!("no frame {kind:#x} ({error}); seen {:?}; stderr: {}", self.seen, self.stderr());
                }
            }
        }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("s")
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        exchange(&self.socket(), "GET", path, b"").unwrap()
    }

    pub(crate) fn post(&self, path: &str, body: &str) -> Answer {
        exchange(&self.socket(), "POST", path, body.as_bytes()).unwrap()
    }

    /// POST /execute of an action.
    pub(crate) fn execute(&self, action: &str, kwargs: Value) -> Answer {
        self.post("/execute", &call(action, kwargs, None).to_string())
    }

    /// The same on a thread of its own; None when the connection was closed without an answer.
    pub(crate) fn execute_beside(
        &self,
        action: &str,
        kwargs: Value,
        job: &str,
    ) -> std::thread::JoinHandle<Option<Answer>> {
        self.post_beside("/execute", call(action, kwargs, Some(job)).to_string())
    }

    pub(crate) fn post_beside(
        &self,
        path: &'static str,
        body: String,
    ) -> std::thread::JoinHandle<Option<Answer>> {
        let socket = self.socket();
        std::thread::spawn(move || exchange(&socket, "POST", path, body.as_bytes()).ok())
    }

    pub(crate) fn stream(&self, action: &str, kwargs: Value) -> Streaming {
        open(
            &self.socket(),
            "POST",
            "/execute_stream",
            call(action, kwargs, Some("stream")).to_string().as_bytes(),
        )
        .unwrap()
    }

    /// The lines of a whole stream.
    pub(crate) fn stream_lines(&self, action: &str, kwargs: Value) -> Vec<String> {
        let answer = self.post("/execute_stream", &call(action, kwargs, None).to_string());
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/x-ndjson")));
        assert_eq!(answer.header("x-cjm-accounts"), None);
        assert!(answer.body.is_empty() || answer.body.ends_with(b"\n"));
        answer.text().lines().map(str::to_owned).collect()
    }

    /// Polls until `found` says something; for what no event tells.
    pub(crate) fn wait_for<T>(&self, what: &str, mut found: impl FnMut() -> Option<T>) -> T {
        wait_for(&format!("{what}; stderr: {}", self.stderr()), &mut found)
    }

    /// Waits until the progress message is `message`.
    pub(crate) fn wait_progress(&self, message: &str) {
        self.wait_for(message, || (self.get("/progress").json()["message"] == message).then_some(()));
    }

    pub(crate) fn wait_exit(&mut self) -> WaitStatus {
        if let Some(exit) = self.exit {
            return exit;
        }
        assert!(self.pidfd.wait_exit(WAIT).unwrap(), "the worker does not end; stderr: {}", self.stderr());
        let exit = reap(self.pid).unwrap().expect("it has exited");
        self.exit = Some(exit);
        exit
    }

    pub(crate) fn exit_code(&mut self) -> i32 {
        match self.wait_exit() {
            WaitStatus::Exited { code } => code,
            signaled => panic!("{signaled}; stderr: {}", self.stderr()),
        }
    }

    /// Waits until standard error holds `words`; what a dead worker wrote arrives a moment after its exit.
    pub(crate) fn wait_stderr(&self, words: &str) {
        self.wait_for(words, || self.stderr().contains(words).then_some(()));
    }

    pub(crate) fn kill(&self, signal: Signal) {
        self.pidfd.send_signal(signal).unwrap();
    }

    pub(crate) fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.stdout.lock().unwrap()).into_owned()
    }

    pub(crate) fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr.lock().unwrap()).into_owned()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if self.exit.is_some() {
            return;
        }
        // As if host and keeper were gone: it clears what it has and ends.
        self.lifeline = None;
        self.link = None;
        if !self.pidfd.wait_exit(WAIT).unwrap_or(false) {
            let _ = self.pidfd.send_signal(Signal::KILL);
            let _ = self.pidfd.wait_exit(WAIT);
        }
        let _ = reap(self.pid);
    }
}

/// Body of a call.
pub(crate) fn call(action: &str, kwargs: Value, job: Option<&str>) -> Value {
    let mut kwargs = kwargs;
    kwargs["action"] = action.into();
    let envelope = job.map_or_else(|| json!({}), |job| json!({"job_id": job}));
    json!({"args": [], "kwargs": kwargs, "envelope": envelope})
}

/// Whether the process with this number lives (a zombie does not).
pub(crate) fn lives(pid: i32) -> bool {
    let pid = Pid::from_raw(pid).expect("a pid");
    cjm_platform::tree::process_info(pid).is_some_and(|info| info.state != 'Z' && info.state != 'X')
}

/// Waits until a process is stopped.
pub(crate) fn wait_until_stopped(pid: i32) {
    let stopped = || cjm_platform::tree::process_info(Pid::from_raw(pid)?).filter(|info| info.state == 'T');
    wait_for(&format!("the stop of process {pid}"), stopped);
}

pub(crate) fn wait_until_dead(pid: i32) {
    wait_for(&format!("the death of process {pid}"), || (!lives(pid)).then_some(()));
}

/// Waits until a file holds a number, and returns it.
pub(crate) fn wait_number(path: &Path) -> i32 {
    wait_for(&path.display().to_string(), || std::fs::read_to_string(path).ok()?.trim().parse().ok())
}

/// Waits until something is found, and returns it.
pub(crate) fn wait_for<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + WAIT;
    loop {
        if let Some(value) = found() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(3));
    }
}

fn read_frames(mut link: UnixStream, frames: &Sender<Frame>) {
    loop {
        let mut head = [0; FRAME_HEADER_BYTES];
        if link.read_exact(&mut head).is_err() {
            return;
        }
        let header = FrameHeader::decode(&head).expect("a frame");
        let mut payload = vec![0; header.payload_bytes];
        if link.read_exact(&mut payload).is_err() {
            return;
        }
        let value = serde_json::from_slice(&payload).expect("JSON");
        if frames.send((header.kind, value)).is_err() {
            return;
        }
    }
}

fn collect(read: OwnedFd) -> Arc<Mutex<Vec<u8>>> {
    let collected = Arc::new(Mutex::new(Vec::new()));
    let ours = Arc::clone(&collected);
    std::thread::spawn(move || {
        let mut file = File::from(read);
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = file.read(&mut bytes) {
            ours.lock().unwrap().extend_from_slice(&bytes[..count]);
        }
    });
    collected
}
