//! Workers started as the ancestor's host starts its own: its command line and its variables, a socket of the network
//! family, no link and no keeper. `tests/tests/under_its_host.rs` has the genuine host do it.

use crate::harness::{WAIT, binary, lives, tools, wait_for, wait_number, wait_until_dead};
use crate::http::{Answer, exchange_tcp};
use cjm_platform::fds::pipe_cloexec;
use cjm_platform::process::reap;
use cjm_platform::spawn::{SessionMode, SpawnRequest, spawn};
use cjm_platform::{Pid, PidFd, Signal, WaitStatus};
use rusqlite::Connection;
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// An odd number, as a host that has many files open passes it.
const DESCRIPTOR: i32 = 17;

/// A data directory of the ancestor with one capability `lab`, and a process that stands for its host.
struct Host {
    dir: TempDir,
    process: Child,
    program: PathBuf,
    variables: Vec<(&'static str, String)>,
}

struct Worker {
    pid: Pid,
    pidfd: PidFd,
    port: u16,
    output: Option<JoinHandle<String>>,
}

impl Host {
    fn with(code: &Value) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("manifests")).unwrap();
        std::fs::create_dir_all(dir.path().join("data/lab")).unwrap();
        let mut section = json!({"name": "lab", "version": "1.2.3", "module": "lab", "class": "Lab"});
        section.as_object_mut().unwrap().extend(code.as_object().unwrap().clone());
        let install = json!({"python_path": binary("cjm-worker")});
        let manifest = json!({"format_version": "2.0", "install": install, "code": section});
        std::fs::write(dir.path().join("manifests/lab.json"), manifest.to_string()).unwrap();
        let process = Command::new("sleep").arg("1000").spawn().unwrap();
        let text = |path: &str| dir.path().join(path).display().to_string();
        let variables = vec![
            ("CJM_CAPABILITY_DATA_DIR", text("data")),
            ("CAPABILITY_DATA_DIR", text("data/lab")),
            ("CJM_DIAGNOSTICS_DB", text("diagnostics.db")),
            ("CJM_WORKER_SESSION_ID", "its-session".to_owned()),
            ("PYTHONPATH", tools()),
            ("PYTHONDONTWRITEBYTECODE", "1".to_owned()),
            ("LAB_DIR", text("data/lab")),
        ];
        Self { dir, process, program: binary("cjm-worker"), variables }
    }

    fn python() -> Self {
        let mut host = Self::with(&json!({}));
        host.variables.push(("CJM_WORKER_PYTHON", "/usr/bin/python3".to_owned()));
        host
    }

    /// One action `run` that runs `text` with sh.
    fn script(text: &str) -> Self {
        let action = json!({"argv": ["-c", text, "sh"], "result": "stdout_text"});
        Self::with(&json!({"module": "", "class": "",
            "runtime": {"kind": "executable", "program": "/bin/sh", "actions": {"run": action}}}))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join("data/lab").join(name)
    }

    /// Starts it with these arguments after the ancestor's first, and with a listening socket.
    fn start(&self, more: &[&str]) -> Worker {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let ppid = self.process.id().to_string();
        let number = DESCRIPTOR.to_string();
        let usual = ["--module", "lab", "--class", "Lab", "--fd", &number, "--ppid", &ppid];
        let output = pipe_cloexec().unwrap();
        let mut request = self.request(&[&usual, more].concat());
        let (out, err) = (output.write.try_clone().unwrap(), output.write);
        request.fds = vec![(out, 1), (err, 2), (listener.into(), DESCRIPTOR)];
        let spawned = spawn(request).unwrap();
        let output = std::thread::spawn(move || {
            let mut text = String::new();
            let _ = std::fs::File::from(output.read).read_to_string(&mut text);
            text
        });
        Worker { pid: spawned.pid, pidfd: spawned.pidfd, port, output: Some(output) }
    }

    fn request(&self, more: &[&str]) -> SpawnRequest {
        let mut request = SpawnRequest::new(&self.program);
        let first = [self.program.to_str().unwrap(), "-m", "cjm_substrate.core.worker"];
        request.argv = first.iter().chain(more).map(Into::into).collect();
        request.env = std::env::vars_os().filter(|(name, _)| name == "PATH" || name == "HOME").collect();
        request.env.extend(self.variables.iter().map(|(name, value)| ((*name).into(), value.into())));
        request.session = SessionMode::NewSession;
        request
    }

    /// Starts one that cannot begin; its exit code and what it said.
    fn fails(&self, more: &[&str]) -> (i32, String) {
        let mut worker = self.start(more);
        match worker.wait_exit() {
            WaitStatus::Exited { code } => (code, worker.output()),
            signaled => panic!("{signaled}: {}", worker.output()),
        }
    }

    fn records(&self) -> Vec<(String, Option<String>, String)> {
        let database = Connection::open(self.dir.path().join("diagnostics.db")).unwrap();
        let mut rows =
            database.prepare("SELECT message, job_id, worker_session_id FROM records ORDER BY seq").unwrap();
        let rows = rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
        rows.collect::<Result<_, _>>().unwrap()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Worker {
    fn get(&self, path: &str) -> Answer {
        exchange_tcp(self.port, "GET", path, b"").unwrap()
    }

    fn execute(&self, kwargs: &Value) -> Answer {
        let body = json!({"kwargs": kwargs, "envelope": {"job_id": "its-job"}}).to_string();
        exchange_tcp(self.port, "POST", "/execute", body.as_bytes()).unwrap()
    }

    /// The same without anybody to read the answer.
    fn execute_beside(&self, kwargs: &Value) -> JoinHandle<()> {
        let (port, body) = (self.port, json!({ "kwargs": kwargs }).to_string());
        std::thread::spawn(move || drop(exchange_tcp(port, "POST", "/execute", body.as_bytes())))
    }

    fn wait_exit(&mut self) -> WaitStatus {
        assert!(self.pidfd.wait_exit(WAIT).unwrap(), "the worker does not end");
        reap(self.pid).unwrap().expect("it has exited")
    }

    /// All it has written; it has ended.
    fn output(&mut self) -> String {
        self.output.take().unwrap().join().unwrap()
    }

    fn terminate(&mut self) -> (WaitStatus, Duration) {
        let began = Instant::now();
        self.pidfd.send_signal(Signal::TERM).unwrap();
        (self.wait_exit(), began.elapsed())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = self.pidfd.send_signal(Signal::KILL);
            let _ = self.pidfd.wait_exit(WAIT);
        }
    }
}

fn signaled(status: WaitStatus) -> Option<i32> {
    match status {
        WaitStatus::Signaled { signal, .. } => Some(signal),
        WaitStatus::Exited { .. } => None,
    }
}

#[test]
fn a_python_tool_serves_writes_its_records_and_ends_with_the_signal() {
    let mut host = Host::python();
    host.variables.push(("CJM_SUBSTRATE_VERSION", "0.0.74".to_owned()));
    let mut worker = host.start(&[]);
    let health = worker.get("/health").json();
    assert_eq!(health["pid"], worker.pid.as_raw());
    assert_eq!(health["name"], "python-lab");
    assert_eq!(health["substrate_version"], "0.0.74");
    assert_eq!(health["python_executable"], "/usr/bin/python3");
    let answer = worker.execute(&json!({"action": "flood", "records": 3}));
    assert_eq!(answer.json(), json!(3));
    let tool = i32::try_from(health["tool_pid"].as_u64().unwrap()).unwrap();
    let (status, elapsed) = worker.terminate();
    assert_eq!(signaled(status), Some(Signal::TERM.as_raw()), "{}", worker.output());
    assert!(elapsed < Duration::from_secs(2), "{elapsed:?}");
    assert!(!lives(tool));
    assert_eq!(std::fs::read_to_string(host.file("cleanups")).unwrap(), "x");
    let records = host.records();
    let said: Vec<&str> = records.iter().map(|(message, ..)| message.as_str()).collect();
    assert_eq!(said, ["record 0", "record 1", "record 2"]);
    for (_, job, session) in &records {
        assert_eq!((job.as_deref(), session.as_str()), (Some("its-job"), "its-session"));
    }
}

#[test]
fn an_executable_and_a_capability_in_rust_are_found_by_their_manifests() {
    let host = Host::script("echo here");
    let mut worker = host.start(&[]);
    assert_eq!(worker.get("/health").json()["version"], "1.2.3");
    assert_eq!(worker.get("/health").json()["substrate_version"], Value::Null);
    assert_eq!(worker.execute(&json!({})).json(), json!("here"));
    worker.terminate();

    for name in ["cjm-worker", "cjm-test-native"] {
        let declared = json!([{"name": "LAB_KEY", "secret": true}, {"name": "LAB_OTHER", "secret": true}]);
        let mut host = Host::with(&json!({
            "runtime": {"kind": "native", "program": binary("cjm-test-native")}, "worker_env": declared,
        }));
        host.program = binary(name);
        host.variables.push(("LAB_KEY", "s3cret".to_owned()));
        let mut worker = host.start(&[]);
        let health = worker.get("/health").json();
        assert_eq!(health["pid"], worker.pid.as_raw(), "in the place of the shim: {name}");
        let answer = worker.execute(&json!({"action": "echo", "x": 1})).json();
        assert!(answer.to_string().contains("\"x\":1"), "{name}: {answer}");
        let secret = worker.execute(&json!({"action": "secret"})).json();
        assert_eq!(secret["secret"], "s3cret", "{name}: as under a host of ours");
        assert_eq!(signaled(worker.terminate().0), Some(Signal::TERM.as_raw()), "{name}");
    }
}

#[test]
fn the_end_of_the_host_ends_everything_below_the_worker() {
    for mut host in [Host::python(), Host::script(ESCAPES)] {
        let mut worker = host.start(&[]);
        assert_eq!(worker.get("/health").status, 200);
        let file = host.file("escaped");
        let is_python = worker.get("/health").json()["python_executable"].is_string();
        let kwargs = if is_python { json!({"action": "children", "file": file}) } else { json!({}) };
        let call = worker.execute_beside(&kwargs);
        let escaped = wait_number(&file);
        assert!(lives(escaped));
        host.process.kill().unwrap();
        host.process.wait().unwrap();
        let began = Instant::now();
        assert_eq!(worker.wait_exit(), WaitStatus::Exited { code: 21 }, "{}", worker.output());
        wait_until_dead(escaped);
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
        call.join().unwrap();
    }
}

/// Starts a process of a session of its own that ignores what it can, and waits.
const ESCAPES: &str = concat!(
    "setsid sh -c 'echo $$ > {data_dir}/escaped.new; mv {data_dir}/escaped.new {data_dir}/escaped; ",
    "trap \"\" TERM; exec sleep 1000' & sleep 1000"
);

#[test]
fn a_hung_tool_is_ended_within_the_time_of_its_host() {
    let host = Host::script(ESCAPES);
    let mut worker = host.start(&[]);
    let call = worker.execute_beside(&json!({}));
    let escaped = wait_number(&host.file("escaped"));
    let (status, elapsed) = worker.terminate();
    assert_eq!(signaled(status), Some(Signal::TERM.as_raw()));
    assert!(elapsed < Duration::from_secs(2), "its host kills after two seconds: {elapsed:?}");
    assert!(!lives(escaped));
    call.join().unwrap();
}

#[test]
fn the_end_of_the_tool_is_the_end_of_the_worker_as_the_host_would_see_it() {
    for (how, expected) in
        [("exit", WaitStatus::Exited { code: 7 }), ("9", killed(9)), ("11", killed(11)), ("15", killed(15))]
    {
        let host = Host::python();
        let mut worker = host.start(&[]);
        let call = worker.execute_beside(&json!({"action": "die", "how": how}));
        let status = worker.wait_exit();
        let plain = match status {
            WaitStatus::Signaled { signal, .. } => killed(signal),
            exited => exited,
        };
        assert_eq!(plain, expected, "{how}");
        assert!(worker.output().contains("last words"));
        call.join().unwrap();
    }
}

fn killed(signal: i32) -> WaitStatus {
    WaitStatus::Signaled { signal, core_dumped: false }
}

#[test]
fn what_cannot_begin_says_why_with_the_ancestors_codes() {
    let mut host = Host::python();
    let (code, said) = host.fails(&["--class", "Broken"]);
    assert!(code == 1 && said.contains("FATAL: Failed to load lab:Broken - "), "{code} {said}");
    assert!(said.contains("cannot be made") && said.contains("Traceback"), "{said}");
    let (code, said) = host.fails(&["--odd", "1"]);
    assert!(code == 2 && said.contains("--odd"), "{code} {said}");
    let (code, said) = host.fails(&["--fd", "99"]);
    assert!(code == 3 && said.contains("descriptor 99"), "{code} {said}");
    let (code, said) = host.fails(&["--ppid", &dead_pid().to_string()]);
    assert!(code == 21 && said.contains("--ppid"), "{code} {said}");

    host.variables.retain(|(name, _)| *name != "CJM_WORKER_PYTHON");
    let (code, said) = host.fails(&[]);
    assert!(code == 1 && said.contains("CJM_WORKER_PYTHON"), "{code} {said}");
    std::fs::remove_file(host.dir.path().join("manifests/lab.json")).unwrap();
    let (code, said) = host.fails(&[]);
    assert!(
        code == 1 && said.contains("no manifest of `lab`") && said.contains("CJM_WORKER_MANIFEST"),
        "{said}"
    );
    std::fs::write(host.dir.path().join("manifests/lab.json"), "{\"format_version\": \"9\"}").unwrap();
    let (code, said) = host.fails(&[]);
    assert!(code == 1 && said.contains("format_version"), "{code} {said}");
}

#[test]
fn a_port_serves_as_well_and_one_that_is_taken_is_refused() {
    let host = Host::script("echo by port");
    let probe = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = probe.local_addr().unwrap().port();
    let ended = |request| {
        let spawned = spawn(request).unwrap();
        assert!(spawned.pidfd.wait_exit(WAIT).unwrap());
        reap(spawned.pid).unwrap().unwrap()
    };
    let number = port.to_string();
    let words = ["--module", "", "--class", "", "--port", &number];
    assert_eq!(ended(host.request(&words)), WaitStatus::Exited { code: 3 });
    drop(probe);
    let spawned = spawn(host.request(&words)).unwrap();
    let mut worker = Worker { pid: spawned.pid, pidfd: spawned.pidfd, port, output: None };
    wait_for("a listener", || exchange_tcp(port, "GET", "/health", b"").ok());
    assert_eq!(worker.execute(&json!({})).json(), json!("by port"));
    worker.terminate();
}

#[test]
fn a_port_answers_programs_of_this_machine_and_no_page_in_a_browser() {
    let host = Host::script("echo ran > ran; echo done");
    let mut worker = host.start(&[]);
    let port = worker.port;
    let ask = |head: &str, body: &str| {
        let mut stream = std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        let head = format!(
            "POST /execute HTTP/1.1\r\nConnection: close\r\n{head}Content-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let json = "Content-Type: application/json\r\n";
    for (head, status, words) in [
        ("Host: evil.example\r\nContent-Type: application/json\r\n", 403, "evil.example"),
        (
            "Host: 127.0.0.1\r\nOrigin: https://evil.example\r\nContent-Type: application/json\r\n",
            403,
            "web pages",
        ),
        ("Host: 127.0.0.1\r\nContent-Type: text/plain\r\n", 415, "application/json"),
    ] {
        let answer = ask(head, "{}");
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.contains(words), "{answer}");
    }
    assert!(ask(&format!("Host: 127.0.0.1:{port}\r\n{json}"), "{}").starts_with("HTTP/1.1 200 OK"));

    // Heads that never end hold no connection for ever; others are served meanwhile.
    let mut half = std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    half.write_all(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Long: ").unwrap();
    assert_eq!(worker.execute(&json!({})).status, 200);
    half.set_read_timeout(Some(WAIT)).unwrap();
    let mut rest = Vec::new();
    half.read_to_end(&mut rest).expect("closed by the worker");
    assert!(!rest.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&rest));
    worker.terminate();
}

#[test]
fn the_manifest_may_be_named_and_is_never_guessed() {
    let host = Host::script("echo by module");
    let bare = |more: &[(&'static str, String)]| {
        let mut host = Host::script("echo by module");
        std::fs::write(host.dir.path().join("manifests/lab.json"), manifest(&host)).unwrap();
        host.variables.retain(|(name, _)| *name != "CAPABILITY_DATA_DIR");
        host.variables.extend_from_slice(more);
        host
    };
    let by_class = bare(&[]);
    let mut worker = by_class.start(&[]);
    assert_eq!(worker.execute(&json!({})).json(), json!("by module"));
    worker.terminate();
    let copy = by_class.dir.path().join("manifests/other.json");
    std::fs::write(&copy, manifest(&by_class).replace("\"lab\",\"version", "\"other\",\"version")).unwrap();
    let (code, said) = by_class.fails(&[]);
    assert!(code == 1 && said.contains("several manifests"), "{said}");
    for named in ["other".to_owned(), copy.display().to_string()] {
        let host = bare(&[("CJM_WORKER_MANIFEST", named.clone())]);
        std::fs::copy(&copy, host.dir.path().join("manifests/any-name.json")).unwrap();
        let mut worker = host.start(&[]);
        assert_eq!(worker.get("/health").json()["name"], "other", "{named}");
        worker.terminate();
    }
    drop(host);
}

/// The manifest of a host, with the module and class that its command line names.
fn manifest(host: &Host) -> String {
    let path: &Path = &host.dir.path().join("manifests/lab.json");
    let mut manifest: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    manifest["code"]["module"] = "lab".into();
    manifest["code"]["class"] = "Lab".into();
    manifest.to_string()
}

/// The number of a process that is no more.
fn dead_pid() -> u32 {
    let mut child = Command::new("true").spawn().unwrap();
    child.wait().unwrap();
    child.id()
}
