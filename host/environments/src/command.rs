//! Runs one helper program of an installation (an interpreter, uv) and reads what it says. Not for workers: those
//! belong to the keeper. A helper leads its own process group, and the group dies with the future that runs it.

use crate::error::EnvironmentError;
use rustix::process::{Pid, Signal, kill_process_group};
use std::collections::VecDeque;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

/// Most bytes of standard output that are kept; more is an error.
const STDOUT_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Most lines of standard error that ride in an error.
pub(crate) const STDERR_LINES_MAX: usize = 25;
/// Longest of these lines, in bytes; the rest is cut off.
const STDERR_LINE_BYTES_MAX: usize = 400;
/// Variables of the caller's own Python environment, which would lead a helper astray.
const MISLEADING_VARIABLES: [&str; 10] = [
    "VIRTUAL_ENV",
    "CONDA_PREFIX",
    "CONDA_DEFAULT_ENV",
    "PYTHONPATH",
    "PYTHONHOME",
    "PYTHONSTARTUP",
    "PYTHONUSERBASE",
    "UV_PYTHON",
    "UV_PROJECT_ENVIRONMENT",
    "__PYVENV_LAUNCHER__",
];

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

/// A command for `program`, cleared of what would mislead it.
pub(crate) fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    for name in MISLEADING_VARIABLES {
        command.env_remove(name);
    }
    command.env("UV_PYTHON_DOWNLOADS", "never").env("NO_COLOR", "1").env("PYTHONUTF8", "1");
    command
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
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.process_group(0).kill_on_drop(true);
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    let failed =
        |source| EnvironmentError::HelperNotRun { what: what.to_owned(), program: program.clone(), source };
    let mut child = command.spawn().map_err(failed)?;
    // Declared after the child, so dropped before it: while the child is not reaped its group id is its own.
    let mut group = Group(child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw));
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(failed(std::io::Error::other("its output could not be opened")));
    };
    let work = async {
        let (stdout, stderr_tail) = tokio::join!(read_all(stdout), read_lines(stderr, on_line));
        let status = child.wait().await?;
        std::io::Result::Ok((stdout?, stderr_tail, status))
    };
    let ended = tokio::time::timeout(timeout, work).await;
    match ended {
        Ok(Ok((stdout, stderr_tail, status))) => {
            group.0 = None;
            let ending = describe_status(status);
            Ok(Answer { success: status.success(), ending, stdout, stderr_tail })
        }
        Ok(Err(source)) => Err(failed(source)),
        Err(_) => Err(EnvironmentError::HelperTooSlow {
            what: what.to_owned(),
            program,
            seconds: timeout.as_secs(),
        }),
    }
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
    Err(EnvironmentError::HelperFailed {
        what: what.to_owned(),
        program,
        ending: answer.ending,
        stderr_tail: answer.stderr_tail,
    })
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

fn describe_status(status: std::process::ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "an unknown status".to_owned(),
    }
}

async fn read_all(mut stream: impl AsyncRead + Unpin) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    (&mut stream).take(STDOUT_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).await?;
    if bytes.len() > STDOUT_BYTES_MAX {
        return Err(std::io::Error::other(format!("it printed more than {STDOUT_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}

/// Reads to the end; `\n` and `\r` both end a line. A read error ends it like an end of file.
async fn read_lines(
    mut stream: impl AsyncRead + Unpin,
    on_line: &(dyn Fn(&str) + Send + Sync),
) -> Vec<String> {
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
    loop {
        let count = stream.read(&mut buffer).await.unwrap_or(0);
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
    tail.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    fn shell(script: &str) -> Command {
        let mut command = command(Path::new("/bin/sh"));
        command.arg("-c").arg(script);
        command
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
}
