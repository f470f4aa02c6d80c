//! Runs one process of a call: starts it, reads it, stops it when asked, and sees it and all it left to the end.
//!
//! ```text
//!   running ──cancel, deadline or too much output──► stopping ──grace over──► killed
//!      │                                                │ exit                   │
//!      │                                                ▼                        │
//!      │                          what it started in its group ends, or grace over
//!      └──────────────────── exit ──────────────────────┴────────────────────────┘
//!                              └──► leftovers cleared ──► output drained ──► reaped
//! ```
//! What must hold: signals go to the group only while its leader is unreaped; after the exit output is read
//! until it is empty or silent for a moment, never to its end, because somebody may hold the pipe.

use super::before::NotBegun;
use super::lines::{LINE_BYTES_MAX, LineCutter, LineEnd, Tail};
use super::plan::Plan;
use super::{Program, own_trouble, progress};
use crate::calls::CallState;
use crate::sdk::{ToolError, chunk_line};
use crate::tool::StreamLine;
use crate::watch::ProcessWatch;
use bytes::Bytes;
use cjm_platform::child::{LifetimeUsage, signal_group};
use cjm_platform::fds::{Pipe, pipe_cloexec};
use cjm_platform::spawn::{SessionMode, SpawnRequest};
use cjm_platform::usage::oom_kills;
use cjm_platform::{Pid, Signal, WaitStatus};
use cjm_wire::runtime::{Action, OutputStream, ResultSource};
use regex_lite::Regex;
use serde_json::{Value, json};
use std::borrow::Cow;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

/// Standard output kept for a result, in bytes; also the longest line of a stream.
pub(crate) const STDOUT_BYTES_MAX: usize = 64 * 1024 * 1024;
/// The system's number for it (E2BIG).
const ARGUMENTS_TOO_LONG: i32 = 7;
/// The system's number for it.
pub(crate) const SIGKILL: i32 = 9;
/// Silence after the exit that ends the reading of output.
const DRAIN_SILENCE: Duration = Duration::from_millis(50);
/// How often is looked whether what was asked to stop has ended.
const GROUP_LOOK: Duration = Duration::from_millis(20);
/// Bytes read at once.
const READ_BYTES: usize = 64 * 1024;

/// A process about to run.
pub(crate) struct Run<'a> {
    pub(crate) program: &'a Program,
    pub(crate) action: &'a Action,
    pub(crate) pattern: Option<&'a Regex>,
    pub(crate) plan: &'a Plan,
    pub(crate) call: &'a Arc<CallState>,
}

/// Why a process was stopped by us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    Cancelled,
    TimedOut(Duration),
    TooMuchOutput(usize),
}

/// A process that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: WaitStatus,
    pub(crate) stdout: Vec<u8>,
    pub(crate) tail: Tail,
    pub(crate) stop: Option<Stop>,
    /// Standard output went out line by line.
    pub(crate) streamed: bool,
    /// What is no UTF-8 was replaced in those lines.
    pub(crate) replaced: bool,
    /// How many processes the kernel has killed for lack of memory meanwhile, where it says so.
    pub(crate) oom_kills: Option<u64>,
}

impl Ended {
    /// A process that need not run.
    pub(crate) fn well() -> Self {
        let status = WaitStatus::Exited { code: 0 };
        Self {
            status,
            stdout: Vec::new(),
            tail: Tail::default(),
            stop: None,
            streamed: false,
            replaced: false,
            oom_kills: None,
        }
    }
}

impl Run<'_> {
    /// Runs it. `lines` takes standard output line by line.
    pub(crate) async fn to_end(&self, lines: Option<mpsc::Sender<StreamLine>>) -> Result<Ended, ToolError> {
        let began = Instant::now();
        let oom_kills_before = oom_kills();
        let captures = matches!(
            self.action.result,
            ResultSource::StdoutJson | ResultSource::StdoutText | ResultSource::StdoutLines
        );
        let streamed = lines.is_some();
        let use_of_stdout = match lines {
            Some(lines) => StdoutUse::Stream(lines),
            None if captures => StdoutUse::Keep(Vec::new()),
            None => StdoutUse::Forward,
        };
        let mut started = self.start(&use_of_stdout).await?;
        let mut output = Output::new(self, use_of_stdout);
        let stop = self.attend(&mut started, &mut output).await;
        output.finish().await;
        let (status, usage) = self.program.context.children.reap(started.pid).ok_or_else(|| {
            ToolError::fatal("the program's exit status is lost: something else in this worker reaped it")
        })?;
        self.report_usage(began.elapsed(), usage);
        let Output { stdout, tail, replaced, .. } = output;
        let stdout = match stdout {
            StdoutUse::Keep(bytes) => bytes,
            StdoutUse::Stream(_) | StdoutUse::Forward => Vec::new(),
        };
        // Asked for where it matters alone.
        let was_killed = matches!(status, WaitStatus::Signaled { signal: SIGKILL, .. });
        let after = oom_kills_before.filter(|_| was_killed).and_then(|_| oom_kills());
        let oom_kills = oom_kills_before.zip(after).map(|(before, after)| after.saturating_sub(before));
        Ok(Ended { status, stdout, tail, stop, streamed, replaced, oom_kills })
    }

    /// Starts the program.
    async fn start(&self, stdout: &StdoutUse) -> Result<Started, ToolError> {
        let Spawned { process, stdin, out, err } = self.spawn(stdout).await?;
        let trouble = |what: &'static str| move |error: io::Error| own_trouble(what, &error);
        if let Some((write, text)) = stdin {
            feed(write, text).map_err(trouble("standard input cannot be written"))?;
        }
        let watch = ProcessWatch::new(process.pidfd).map_err(trouble("the program cannot be watched"))?;
        Ok(Started { pid: process.pid, watch, out, err: Some(err) })
    }

    /// The last steps before the program runs.
    async fn spawn(&self, stdout: &StdoutUse) -> Result<Spawned, NotBegun> {
        let trouble = |what: &'static str| move |error: io::Error| own_trouble(what, &error);
        let mut fds = Vec::new();
        let reads_stdout = !matches!(stdout, StdoutUse::Forward) || self.reads_progress(OutputStream::Stdout);
        let out = if reads_stdout {
            let Pipe { read, write } = pipe_cloexec().map_err(trouble("no pipe for standard output"))?;
            fds.push((write, 1));
            Some(pipe::Receiver::from_owned_fd(read).map_err(trouble("no pipe for standard output"))?)
        } else {
            // Nobody here has to look at it: straight to the host.
            let inherited = io::stdout().as_fd().try_clone_to_owned();
            fds.push((inherited.map_err(trouble("standard output cannot be passed on"))?, 1));
            None
        };
        let Pipe { read, write } = pipe_cloexec().map_err(trouble("no pipe for standard error"))?;
        fds.push((write, 2));
        let err = pipe::Receiver::from_owned_fd(read).map_err(trouble("no pipe for standard error"))?;
        let stdin = match &self.plan.stdin {
            Some(text) => {
                let Pipe { read, write } = pipe_cloexec().map_err(trouble("no pipe for standard input"))?;
                fds.push((read, 0));
                Some((write, text.clone()))
            }
            None => None,
        };
        let mut request = SpawnRequest::new(&self.program.path);
        request.argv = self.plan.argv.iter().map(Into::into).collect();
        request.env.clone_from(&self.program.environment);
        request.cwd = Some(self.plan.work_dir.clone());
        request.fds = fds;
        request.session = SessionMode::NewGroup;
        request.parent_death = Some(Signal::KILL);
        let process = self.program.context.children.spawn(request).await.map_err(|error| {
            // A program that cannot be executed stays so; a machine without processes may recover.
            let message = format!("{error}; {}", error.next_step());
            match error {
                cjm_platform::spawn::SpawnError::Resources { .. } => ToolError::transient(message),
                // Nothing of it has run, and other arguments can be passed.
                _ if error.errno() == ARGUMENTS_TOO_LONG => ToolError::unfit(format!(
                    "the arguments are longer than the system lets a program have (128 KiB each, 2 MiB together): \
                     pass them as a file, or through standard input: {message}"
                )),
                _ => ToolError::fatal(message),
            }
        })?;
        Ok(Spawned { process, stdin, out, err })
    }

    /// Attends to the process until it has exited, its leftovers are cleared and its output is read.
    async fn attend(&self, started: &mut Started, output: &mut Output<'_>) -> Option<Stop> {
        let (mut stop, mut exited, mut cleared) = (None, false, false);
        let children = &self.program.context.children;
        let timeout =
            self.action.timeout_seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let far = Instant::now() + Duration::from_secs(86_400 * 365);
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout)).unwrap_or(far);
        let (mut kill_at, mut silent_at, mut look_at) = (far, far, far);
        let (mut out_bytes, mut err_bytes) = (vec![0; READ_BYTES], vec![0; READ_BYTES]);
        loop {
            if cleared && started.out.is_none() && started.err.is_none() && !output.is_behind() {
                return stop;
            }
            let running = !exited && stop.is_none();
            tokio::select! {
                biased;
                () = self.call.cancel.cancelled(), if running => {
                    // A reader that stopped reading must not hold up the end.
                    output.discard();
                    stop = Some(Stop::Cancelled);
                    kill_at = self.ask_to_stop(started.pid);
                }
                () = sleep_until(deadline), if running && timeout.is_some() => {
                    stop = Some(Stop::TimedOut(timeout.unwrap_or_default()));
                    kill_at = self.ask_to_stop(started.pid);
                }
                () = sleep_until(kill_at), if !exited && kill_at != far => {
                    // ESRCH cannot be: the leader is not reaped.
                    let _ = signal_group(started.pid, Signal::KILL);
                    kill_at = far;
                }
                () = started.watch.exited(), if !exited => {
                    exited = true;
                    look_at = Instant::now();
                }
                () = sleep_until(look_at), if exited && !cleared => {
                    // Whoever was asked to stop has the grace, also where the first process did not wait for the others.
                    if stop.is_some() && kill_at != far && Instant::now() < kill_at && children.has_group(started.pid) {
                        look_at = Instant::now() + GROUP_LOOK;
                    } else {
                        cleared = true;
                        children.clear_after(started.pid).await;
                        silent_at = Instant::now() + DRAIN_SILENCE;
                    }
                }
                () = output.send_pending(), if output.is_behind() => {}
                read = read_some(&mut started.out, &mut out_bytes), if started.out.is_some() && !output.is_behind() => {
                    match read {
                        0 => started.out = None,
                        count => {
                            output.take_stdout(&out_bytes[..count]);
                            silent_at = later(cleared, silent_at);
                            if let Some(refused) = output.refused().filter(|_| stop.is_none()) {
                                stop = Some(refused);
                                kill_at = Instant::now();
                            }
                        }
                    }
                }
                read = read_some(&mut started.err, &mut err_bytes), if started.err.is_some() => match read {
                    0 => started.err = None,
                    count => {
                        output.take_stderr(&err_bytes[..count]);
                        silent_at = later(cleared, silent_at);
                    }
                },
                () = sleep_until(silent_at), if cleared && !output.is_behind() => return stop,
            }
        }
    }

    /// Sends the signal of the action's cancel rule; returns when to kill.
    fn ask_to_stop(&self, leader: Pid) -> Instant {
        let rule = self.action.cancel.clone().unwrap_or_default();
        let signal = match rule.signal.as_str() {
            "SIGINT" => Signal::INT,
            "SIGQUIT" => Signal::QUIT,
            "SIGHUP" => Signal::HUP,
            _ => Signal::TERM,
        };
        // ESRCH cannot be: the leader is not reaped.
        let _ = signal_group(leader, signal);
        Instant::now() + Duration::from_millis(rule.grace_ms)
    }

    fn reads_progress(&self, stream: OutputStream) -> bool {
        self.action.progress.as_ref().is_some_and(|progress| progress.stream == stream)
    }

    fn report_usage(&self, wall: Duration, usage: LifetimeUsage) {
        let seconds = |time: Duration| (time.as_secs_f64() * 1e6).round() / 1e6;
        let usage = json!({
            "wall_seconds": seconds(wall),
            "cpu_user_seconds": seconds(usage.cpu_user),
            "cpu_system_seconds": seconds(usage.cpu_system),
            "cpu_seconds": seconds(usage.cpu_user + usage.cpu_system),
            "memory_peak_mb": (usage.rss_bytes_max as f64 / 1_048_576.0 * 10.0).round() / 10.0,
        });
        if let Value::Object(usage) = usage {
            self.call.report_usage(usage);
        }
    }
}

/// A started process and its streams; a stream at its end is None.
struct Started {
    pid: Pid,
    watch: ProcessWatch,
    out: Option<pipe::Receiver>,
    err: Option<pipe::Receiver>,
}

/// A program that runs from now on, and the ends of its streams.
struct Spawned {
    process: cjm_platform::spawn::Spawned,
    stdin: Option<(OwnedFd, String)>,
    out: Option<pipe::Receiver>,
    err: pipe::Receiver,
}

/// What becomes of standard output.
enum StdoutUse {
    /// It is the result.
    Keep(Vec<u8>),
    /// Its lines are the result, as they come.
    Stream(mpsc::Sender<StreamLine>),
    /// It is the host's.
    Forward,
}

/// Everything a process wrote, and what is made of it.
struct Output<'a> {
    run: &'a Run<'a>,
    stdout: StdoutUse,
    stream_lines: LineCutter,
    /// Lines the stream's reader has not taken yet; no more output is read while there are any.
    pending: VecDeque<Bytes>,
    out_lines: LineCutter,
    err_lines: LineCutter,
    tail: Tail,
    too_much: bool,
    /// What is no UTF-8 was replaced.
    replaced: bool,
}

impl<'a> Output<'a> {
    fn new(run: &'a Run<'a>, stdout: StdoutUse) -> Self {
        let small = || LineCutter::new(LineEnd::NewlineOrReturn, LINE_BYTES_MAX);
        Self {
            run,
            stdout,
            stream_lines: LineCutter::new(LineEnd::Newline, STDOUT_BYTES_MAX),
            pending: VecDeque::new(),
            out_lines: small(),
            err_lines: small(),
            tail: Tail::default(),
            too_much: false,
            replaced: false,
        }
    }

    fn take_stdout(&mut self, bytes: &[u8]) {
        match &mut self.stdout {
            StdoutUse::Forward => self.run.program.stdout.push(bytes),
            StdoutUse::Keep(kept) => {
                let room = STDOUT_BYTES_MAX.saturating_sub(kept.len());
                kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
                self.too_much |= bytes.len() > room;
            }
            StdoutUse::Stream(_) => {
                let (pending, replaced) = (&mut self.pending, &mut self.replaced);
                self.stream_lines.push(bytes, |line, _| pending.push_back(stream_line(line, replaced)));
                self.too_much |= self.stream_lines.overflowed();
            }
        }
        if self.run.reads_progress(OutputStream::Stdout) {
            let run = self.run;
            self.out_lines.push(bytes, |line, _| run.read_progress(line));
        }
    }

    fn take_stderr(&mut self, bytes: &[u8]) {
        self.run.program.stderr.push(bytes);
        let (run, tail) = (self.run, &mut self.tail);
        self.err_lines.push(bytes, |line, ended| {
            tail.push(line, ended);
            if run.reads_progress(OutputStream::Stderr) {
                run.read_progress(line);
            }
        });
    }

    /// The last lines may have no end.
    async fn finish(&mut self) {
        let tail = &mut self.tail;
        self.err_lines.finish(|line, ended| tail.push(line, ended));
        let (pending, replaced) = (&mut self.pending, &mut self.replaced);
        self.stream_lines.finish(|line, _| pending.push_back(stream_line(line, replaced)));
        while self.is_behind() {
            self.send_pending().await;
        }
    }

    /// What the program writes to standard output from now on is nobody's.
    fn discard(&mut self) {
        self.pending.clear();
        if let StdoutUse::Stream(_) = self.stdout {
            self.stdout = StdoutUse::Keep(Vec::new());
        }
    }

    fn is_behind(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Why the program is not let go on, for what it wrote.
    fn refused(&self) -> Option<Stop> {
        self.too_much.then_some(Stop::TooMuchOutput(STDOUT_BYTES_MAX))
    }

    /// Sends one line when the reader has room. Dropped early, it has sent nothing.
    async fn send_pending(&mut self) {
        let StdoutUse::Stream(lines) = &self.stdout else {
            self.pending.clear();
            return;
        };
        match lines.reserve().await {
            Ok(permit) => {
                if let Some(line) = self.pending.pop_front() {
                    permit.send(StreamLine::Chunk(line));
                }
            }
            // The reader is gone, and with it the call was cancelled.
            Err(_) => self.pending.clear(),
        }
    }
}

impl Run<'_> {
    fn read_progress(&self, line: &[u8]) {
        let Some(pattern) = self.pattern else { return };
        if let Some(reading) = progress::read(pattern, &String::from_utf8_lossy(line)) {
            self.call.report_progress(reading.fraction, &reading.message);
        }
    }
}

/// A line as a result. Where it is no UTF-8 the rest of it is still worth having.
fn stream_line(line: &[u8], replaced: &mut bool) -> Bytes {
    let text = String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line));
    *replaced |= matches!(text, Cow::Owned(_));
    chunk_line(&Value::from(text))
}

/// Bytes read, 0 at the end; an error is an end.
async fn read_some(stream: &mut Option<pipe::Receiver>, bytes: &mut [u8]) -> usize {
    match stream {
        Some(stream) => stream.read(bytes).await.unwrap_or(0),
        None => 0,
    }
}

fn later(exited: bool, silent_at: Instant) -> Instant {
    if exited { Instant::now() + DRAIN_SILENCE } else { silent_at }
}

/// Writes standard input beside everything else; a program that does not read it is not our trouble.
fn feed(write: OwnedFd, text: String) -> io::Result<()> {
    let mut pipe = pipe::Sender::from_owned_fd(write)?;
    tokio::spawn(async move {
        let _ = pipe.write_all(text.as_bytes()).await;
    });
    Ok(())
}
