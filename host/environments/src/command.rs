//! Runs one helper program of an installation (an interpreter, uv) and reads what it says. Not for workers: those
//! belong to the keeper. A helper leads its own process group, and the group dies with the future that runs it.

use crate::error::{EnvironmentError, speaks_of_room};
use crate::files::{data_dir_of_work, input_of_helper};
use crate::system_answers::lacks_inodes;
use rustix::process::{Pid, Signal, kill_process_group};
use std::collections::VecDeque;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::sync::watch;

/// Most bytes of standard output that are kept; more is an error.
const STDOUT_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Most bytes of standard error that are heard; more is an error. Progress of a long installation is far from it, and one that
/// prints without end is soon there.
const STDERR_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Most lines of standard error that ride in an error.
pub(crate) const STDERR_LINES_MAX: usize = 25;
/// Longest of these lines, in bytes; the rest is cut off.
const STDERR_LINE_BYTES_MAX: usize = 400;
/// How long the output of a helper is read on once it has ended: what it has started may hold the other end.
const READ_ON_MAX: Duration = Duration::from_secs(2);
/// Where helpers run: nothing of a caller's project lies there, so no `json.py` is imported and no `pyproject.toml` obeyed.
const NEUTRAL_FOLDER: &str = "/";
/// Variables of the caller's own Python environments, which would lead a helper astray.
const MISLEADING_EXACT: [&str; 9] = [
    "VIRTUAL_ENV",
    "VIRTUAL_ENV_PROMPT",
    "CONDA_PREFIX",
    "CONDA_DEFAULT_ENV",
    "CONDA_SHLVL",
    "CONDA_PROMPT_MODIFIER",
    "CONDA_PYTHON_EXE",
    "PIPENV_ACTIVE",
    "__PYVENV_LAUNCHER__",
];
/// Programs whose settings are the caller's, and not of an installation that is to come out alike everywhere.
const MISLEADING_PREFIX: [&str; 4] = ["PYTHON", "PIP_", "UV_", "CONDA_PREFIX_"];
/// Of these settings: what reaches the registry, and what it costs; not what is installed, nor where.
const KEPT_SETTINGS: [&str; 30] = [
    "INDEX_URL",
    "EXTRA_INDEX_URL",
    "DEFAULT_INDEX",
    "INDEX",
    "INDEX_STRATEGY",
    "FIND_LINKS",
    "NO_INDEX",
    "TRUSTED_HOST",
    "INSECURE_HOST",
    "ALLOW_INSECURE_HOST",
    "CERT",
    "CLIENT_CERT",
    "SSL_CLIENT_CERT",
    "SYSTEM_CERTS",
    "NATIVE_TLS",
    "PROXY",
    "KEYRING_PROVIDER",
    "OFFLINE",
    "CACHE_DIR",
    "TIMEOUT",
    "DEFAULT_TIMEOUT",
    "RETRIES",
    "HTTP_TIMEOUT",
    "HTTP_CONNECT_TIMEOUT",
    "HTTP_RETRIES",
    "REQUEST_TIMEOUT",
    "CONCURRENT_DOWNLOADS",
    "LINK_MODE",
    "CONFIG_FILE",
    "BREAK_SYSTEM_PACKAGES",
];
/// Ends of names of those that hold a path, which the caller means from where the command is run.
const PATH_SETTINGS: [&str; 6] = ["FIND_LINKS", "CERT", "CERT_FILE", "CACHE_DIR", "CONFIG_FILE", "CA_BUNDLE"];

/// What a helper answered.
#[derive(Debug)]
pub(crate) struct Answer {
    /// It exited with 0.
    pub(crate) success: bool,
    /// `exit code 1`, `signal 9`.
    pub(crate) ending: String,
    /// Standard output.
    pub(crate) stdout: Vec<u8>,
    /// Last lines of standard error, newest last.
    pub(crate) stderr_tail: Vec<String>,
}

/// A command for `program`, cleared of what would mislead it, in a folder that holds nothing of the caller's.
pub(crate) fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, value) in std::env::vars_os() {
        let Some(text) = name.to_str() else { continue };
        if is_misleading(text) {
            command.env_remove(name);
        } else if is_setting(text) && PATH_SETTINGS.iter().any(|end| text.ends_with(end)) {
            let path = Path::new(&value);
            if path.is_relative() && path.exists() {
                command.env(&name, std::path::absolute(path).unwrap_or_else(|_| path.to_owned()));
            }
        }
    }
    command.current_dir(NEUTRAL_FOLDER);
    command.env("UV_PYTHON_DOWNLOADS", "never").env("NO_COLOR", "1").env("PYTHONUTF8", "1");
    command
}

fn is_setting(name: &str) -> bool {
    ["PIP_", "UV_", "SSL_", "REQUESTS_", "CURL_"].iter().any(|prefix| name.starts_with(prefix))
}

fn is_misleading(name: &str) -> bool {
    let setting = ["PIP_", "UV_"].iter().find_map(|prefix| name.strip_prefix(prefix));
    let reaches_registry = setting.is_some_and(|setting| {
        // uv names indexes: UV_INDEX_NAME_USERNAME, UV_INDEX_NAME_PASSWORD.
        KEPT_SETTINGS.contains(&setting) || (name.starts_with("UV_INDEX_") && !setting.is_empty())
    });
    let is_of_caller =
        MISLEADING_EXACT.contains(&name) || MISLEADING_PREFIX.iter().any(|prefix| name.starts_with(prefix));
    is_of_caller && !reaches_registry
}

/// Runs it to its end; `on_line` sees each line of its standard error as it comes.
///
/// # Errors
/// When it cannot be started, says too much, or takes longer than `timeout` (it is then killed).
pub(crate) async fn run(
    mut command: Command,
    what: &str,
    timeout: Duration,
    on_line: &(dyn Fn(&str) + Send + Sync),
) -> Result<Answer, EnvironmentError> {
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    let failed =
        |source| EnvironmentError::HelperNotRun { what: what.to_owned(), program: program.clone(), source };
    command.stdin(input_of_helper().map_err(failed)?).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.process_group(0).kill_on_drop(true);
    let mut child = command.spawn().map_err(failed)?;
    // Declared after the child, so dropped before it: while the child is not reaped its group id is its own.
    let mut group = Group(child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw));
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(failed(std::io::Error::other("its output could not be opened")));
    };
    let work = hear(&mut child, stdout, stderr, on_line);
    let ended = tokio::time::timeout(timeout, work).await;
    match ended {
        Ok(Ok((stdout, stderr_tail, status))) => {
            group.0 = None;
            let ending = describe_status(status);
            Ok(Answer { success: status.success(), ending, stdout, stderr_tail })
        }
        Ok(Err(Unheard::TooMuch { bytes_max })) => {
            Err(EnvironmentError::HelperTooLoud { what: what.to_owned(), program, bytes_max })
        }
        Ok(Err(Unheard::Failed(source))) => Err(failed(source)),
        Err(_) => Err(EnvironmentError::HelperTooSlow {
            what: what.to_owned(),
            program,
            seconds: timeout.as_secs(),
        }),
    }
}

/// Why a helper was not heard to its end.
#[derive(Debug)]
enum Unheard {
    /// It prints too much, on one of its outputs.
    TooMuch { bytes_max: usize },
    /// It could not be read, or waited for.
    Failed(std::io::Error),
}

/// What it writes, and how it ends.
async fn hear(
    child: &mut Child,
    stdout: impl AsyncRead + Unpin,
    stderr: impl AsyncRead + Unpin,
    on_line: &(dyn Fn(&str) + Send + Sync),
) -> Result<(Vec<u8>, Vec<String>, ExitStatus), Unheard> {
    let (cut, is_cut) = watch::channel(());
    let mut stdout = Output { stream: stdout, is_cut: is_cut.clone() };
    let mut stderr = Output { stream: stderr, is_cut };
    // It fails at once: whose output nobody reads on does not end.
    let reading = async { tokio::try_join!(read_all(&mut stdout), read_lines(&mut stderr, on_line)) };
    tokio::pin!(reading);
    let read = tokio::select! {
        biased;
        read = &mut reading => Some(read),
        _ = child.wait() => None,
    };
    // What it has left behind may hold its output for ever, and says nothing that is its own.
    let (stdout, stderr_tail) = match read {
        Some(read) => read?,
        None => tokio::select! {
            read = &mut reading => read?,
            () = tokio::time::sleep(READ_ON_MAX) => {
                drop(cut);
                reading.await?
            }
        },
    };
    let status = child.wait().await.map_err(Unheard::Failed)?;
    Ok((stdout, stderr_tail, status))
}

/// [`run`], and an exit code other than 0 is an error too.
pub(crate) async fn run_well(
    command: Command,
    what: &str,
    timeout: Duration,
    on_line: &(dyn Fn(&str) + Send + Sync),
) -> Result<Answer, EnvironmentError> {
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    let answer = run(command, what, timeout, on_line).await?;
    if answer.success {
        return Ok(answer);
    }
    // At once: what has failed makes room when it is cleared away.
    Err(ended_badly(what, program, answer))
}

fn ended_badly(what: &str, program: String, answer: Answer) -> EnvironmentError {
    let Answer { ending, stderr_tail, .. } = answer;
    let data_dir =
        data_dir_of_work().filter(|data_dir| speaks_of_room(&stderr_tail) && lacks_inodes(data_dir));
    match data_dir {
        Some(path) => EnvironmentError::NoInode { action: "write into", path, stderr_tail },
        None => EnvironmentError::HelperFailed { what: what.to_owned(), program, ending, stderr_tail },
    }
}

/// Kills its process group when it is dropped armed.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            // It may have ended by itself in this instant; then there is nothing to do.
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

fn describe_status(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "an unknown status".to_owned(),
    }
}

/// What a helper writes, until nobody holds the other end or it is cut off.
struct Output<S> {
    stream: S,
    /// Its sender is gone when it is cut off.
    is_cut: watch::Receiver<()>,
}

impl<S: AsyncRead + Unpin> Output<S> {
    async fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        tokio::select! {
            biased;
            _ = self.is_cut.changed() => Ok(0),
            count = self.stream.read(buffer) => count,
        }
    }
}

async fn read_all(output: &mut Output<impl AsyncRead + Unpin>) -> Result<Vec<u8>, Unheard> {
    let (mut bytes, mut buffer) = (Vec::new(), vec![0; 4096]);
    loop {
        let count = output.read(&mut buffer).await.map_err(Unheard::Failed)?;
        if count == 0 {
            return Ok(bytes);
        }
        bytes.extend_from_slice(&buffer[..count]);
        if bytes.len() > STDOUT_BYTES_MAX {
            return Err(Unheard::TooMuch { bytes_max: STDOUT_BYTES_MAX });
        }
    }
}

/// Reads to the end; `\n` and `\r` both end a line. A read error ends it like an end of file; too much is an error, for nobody
/// would stop a helper that prints on.
async fn read_lines(
    output: &mut Output<impl AsyncRead + Unpin>,
    on_line: &(dyn Fn(&str) + Send + Sync),
) -> Result<Vec<String>, Unheard> {
    let mut tail = VecDeque::with_capacity(STDERR_LINES_MAX);
    let mut line = Vec::new();
    let mut buffer = vec![0; 4096];
    let mut finish = |line: &mut Vec<u8>| {
        let text = String::from_utf8_lossy(line).trim_end().to_owned();
        line.clear();
        if !text.trim().is_empty() {
            on_line(&text);
            if tail.len() == STDERR_LINES_MAX {
                tail.pop_front();
            }
            tail.push_back(text);
        }
    };
    let mut heard = 0;
    loop {
        let count = output.read(&mut buffer).await.unwrap_or(0);
        heard += count;
        if heard > STDERR_BYTES_MAX {
            return Err(Unheard::TooMuch { bytes_max: STDERR_BYTES_MAX });
        }
        for byte in &buffer[..count] {
            match byte {
                b'\n' | b'\r' => finish(&mut line),
                _ if line.len() < STDERR_LINE_BYTES_MAX => line.push(*byte),
                _ => {}
            }
        }
        if count == 0 {
            finish(&mut line);
            break;
        }
    }
    Ok(tail.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::lock;
    use cjm_wire::describe::Described as _;
    use std::sync::Mutex;

    fn shell(script: &str) -> Command {
        let mut command = command(Path::new("/bin/sh"));
        command.arg("-c").arg(script);
        command
    }

    #[test]
    fn the_callers_settings_stay_behind_but_for_what_reaches_the_registry() {
        for name in [
            "PYTHONPATH",
            "PYTHONHOME",
            "PYTHONSTARTUP",
            "PYTHONSAFEPATH",
            "VIRTUAL_ENV",
            "CONDA_PREFIX",
            "CONDA_PREFIX_1",
            "PIP_TARGET",
            "PIP_USER",
            "PIP_REQUIRE_VIRTUALENV",
            "PIP_NO_BINARY",
            "PIP_CONSTRAINT",
            "UV_PYTHON",
            "UV_SYSTEM_PYTHON",
            "UV_PROJECT_ENVIRONMENT",
            "UV_NO_BINARY",
            "UV_CONSTRAINT",
            "UV_PRERELEASE",
            "UV_EXCLUDE_NEWER",
            "UV_TARGET",
        ] {
            assert!(is_misleading(name), "{name}");
        }
        for name in [
            "PATH",
            "HOME",
            "https_proxy",
            "SSL_CERT_FILE",
            "PIP_INDEX_URL",
            "PIP_CERT",
            "PIP_FIND_LINKS",
            "UV_DEFAULT_INDEX",
            "UV_INDEX",
            "UV_INDEX_OURS_PASSWORD",
            "UV_SYSTEM_CERTS",
            "UV_CACHE_DIR",
            "CONDARC",
            "CONDA_PKGS_DIRS",
            "CONDA_CHANNELS",
        ] {
            assert!(!is_misleading(name), "{name}");
        }
    }

    #[tokio::test]
    async fn a_helper_runs_where_nothing_of_the_caller_lies() {
        let answer = run(shell("pwd"), "ask", Duration::from_secs(20), &|_| {}).await.expect("ran");
        assert_eq!(answer.stdout, b"/\n");
    }

    #[tokio::test]
    async fn a_helper_is_heard_and_its_failure_told() {
        let lines = Mutex::new(Vec::new());
        let heard = |line: &str| lines.lock().expect("lock").push(line.to_owned());
        let answer =
            run(shell("printf 'a\\rb\\n\\nc' >&2; echo out; exit 3"), "try", Duration::from_secs(20), &heard)
                .await
                .expect("ran");
        assert!(!answer.success);
        assert_eq!((answer.ending.as_str(), answer.stdout.as_slice()), ("exit code 3", b"out\n".as_slice()));
        assert_eq!(answer.stderr_tail, ["a", "b", "c"]);
        assert_eq!(*lines.lock().expect("lock"), ["a", "b", "c"]);
        let error = run_well(shell("echo why >&2; exit 1"), "try", Duration::from_secs(20), &|_| {}).await;
        assert!(
            matches!(error, Err(EnvironmentError::HelperFailed { stderr_tail, .. }) if stderr_tail == ["why"])
        );
        let missing = run(command(Path::new("/nowhere/uv")), "try", Duration::from_secs(20), &|_| {}).await;
        assert!(matches!(missing, Err(EnvironmentError::HelperNotRun { .. })));
    }

    #[tokio::test]
    async fn a_helper_has_ended_when_it_has_whatever_it_leaves_behind() {
        let script = "sleep 600 & echo $!; echo why >&2; exit 3";
        let answer = run(shell(script), "try", Duration::from_secs(60), &|_| {}).await.expect("ran");
        assert_eq!(
            (answer.ending.as_str(), answer.stderr_tail.as_slice()),
            ("exit code 3", &["why".to_owned()][..])
        );
        let left =
            String::from_utf8(answer.stdout).expect("text").trim().parse().ok().and_then(Pid::from_raw);
        let left = left.expect("a number");
        rustix::process::test_kill_process(left).expect("it lives");
        rustix::process::kill_process(left, Signal::KILL).expect("killed");
    }

    #[tokio::test]
    async fn a_helper_that_prints_without_end_is_stopped_at_once_with_all_that_it_started() {
        let limit = Duration::from_secs(60);
        // The one that prints may be one that it started, and it may have ended itself. The first ones stop by themselves, so that
        // a fault fills no memory.
        for (script, bytes_max) in [
            ("head -c 40000000 /dev/zero; sleep 600", STDOUT_BYTES_MAX),
            ("yes", STDOUT_BYTES_MAX),
            ("yes & echo $! >&2; wait", STDOUT_BYTES_MAX),
            ("yes & echo $! >&2", STDOUT_BYTES_MAX),
            ("head -c 80000000 /dev/zero >&2; sleep 600", STDERR_BYTES_MAX),
            ("sleep 600 & echo $! >&2; while :; do head -c 1000000 /dev/zero >&2; done", STDERR_BYTES_MAX),
            ("(exec tr '\\0' x < /dev/zero >&2) & echo $! >&2", STDERR_BYTES_MAX),
        ] {
            let (since, lines) = (std::time::Instant::now(), Mutex::new(Vec::new()));
            let heard = |line: &str| lines.lock().expect("lock").push(line.to_owned());
            let refused = run(shell(script), "ask", limit, &heard).await.expect_err("nobody hears so much");
            assert!(since.elapsed() < limit / 2, "{script}: {:?}", since.elapsed());
            let why = refused.to_string();
            assert_eq!(refused.code(), "install.helper_too_loud", "{script}: {why}");
            assert!(why.ends_with(&format!("it printed more than {bytes_max} bytes")), "{script}: {why}");
            assert!(!refused.next_step().contains("network"), "{}", refused.next_step());
            // Others of its words are no numbers.
            let lines = lines.into_inner().expect("lock");
            for pid in lines.iter().filter_map(|line| line.parse::<i32>().ok()) {
                let gone = || {
                    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
                    stat.is_empty() || stat.contains(") Z ")
                };
                while !gone() {
                    assert!(since.elapsed() < limit / 2, "{script}: {pid} goes on");
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
        }
        // Progress that is not kept may be much.
        let answer = run(shell("head -c 60000000 /dev/zero >&2"), "ask", limit, &|_| {}).await.expect("ran");
        assert!(answer.success);
    }

    #[tokio::test]
    async fn a_dropped_helper_takes_its_group_with_it() {
        let folder = tempfile::tempdir().expect("tempdir");
        let fifo = folder.path().join("held");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &fifo,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )
        .expect("fifo");
        // The grandchild holds the FIFO open for writing: its end of file is the proof of its death.
        let script = format!("sleep 1000 3>{} & echo started >&2; wait", fifo.display());
        let (told, mut hear) = tokio::sync::mpsc::unbounded_channel();
        let task = tokio::spawn(async move {
            let on_line = move |_: &str| {
                let _ = told.send(());
            };
            run(shell(&script), "hold", Duration::from_secs(1000), &on_line).await.map(|_| ())
        });
        let opened = tokio::task::spawn_blocking(move || std::fs::File::open(fifo).expect("fifo"));
        hear.recv().await.expect("it started");
        let mut reader = opened.await.expect("opened");
        task.abort();
        let _ = task.await;
        let read = tokio::task::spawn_blocking(move || std::io::Read::read(&mut reader, &mut [0; 1]));
        let end = tokio::time::timeout(Duration::from_secs(20), read).await.expect("the writer is dead");
        assert_eq!(end.expect("joined").expect("read"), 0);
    }

    #[tokio::test]
    async fn a_helper_holds_the_lock_of_its_work_alone() {
        let folder = tempfile::tempdir().expect("tempdir");
        let held = lock(folder.path(), "install-all", []).expect("free");
        let path = folder.path().join("install.lock");
        let question = || {
            let mut command = command(Path::new("/usr/bin/readlink"));
            command.arg("/proc/self/fd/0");
            run(command, "ask", Duration::from_secs(20), &|_| {})
        };
        let input = |answer: Answer| String::from_utf8(answer.stdout).expect("text").trim().to_owned();
        let inside = held.during(question()).await.expect("ran");
        assert_eq!(Path::new(&input(inside)), path.canonicalize().expect("there"));
        assert_eq!(input(question().await.expect("ran")), "/dev/null");
    }
}
