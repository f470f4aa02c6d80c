//! Starts a program with exactly what its request names: arguments, environment, directory, descriptors.
//!
//! `spawn` forks; it is for the keeper and the shim, which are small. `spawn_small` goes through
//! `posix_spawn`; it is for the host, which may be embedded in a process of many gigabytes, where copying the
//! page tables alone would take tens of milliseconds.
//!
//! What must hold, but for what `spawn_small` says of itself: no descriptor, variable, ignored signal or blocked signal of ours reaches the program
//! unless requested; an exec that fails is an error of the call, not a child that exits.

#![expect(unsafe_code, reason = "what happens between fork and exec has no safe form")]

use std::ffi::{CString, OsStr, OsString, c_char};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::fds::{self, NofileLimit};
use crate::process::{self, Pid, PidFd, Signal};
use crate::signals::AllBlocked;

/// Highest descriptor number a request may map to.
pub const TARGET_FD_MAX: i32 = 1000;

/// A file just written may still be open for writing in a child that another thread has forked but that has
/// not yet executed; that passes within moments.
const TEXT_BUSY_RETRIES_MAX: u32 = 100;
const TEXT_BUSY_PAUSE_NS: i64 = 2_000_000;

/// Which session and process group the program runs in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SessionMode {
    /// Those of the spawning process.
    #[default]
    Inherit,
    /// It leads a new session, and a new group in it.
    NewSession,
    /// It leads a new group in the spawning process' session.
    NewGroup,
}

/// All that a program is given. Nothing else is inherited: 0, 1 and 2 are `/dev/null` unless mapped.
#[derive(Debug)]
pub struct SpawnRequest {
    /// A path, relative to `cwd`; a name without a slash is searched in the PATH of `env`.
    pub program: PathBuf,
    /// The whole argument vector, `argv[0]` included. Empty stands for the program alone.
    pub argv: Vec<OsString>,
    /// The complete environment.
    pub env: Vec<(OsString, OsString)>,
    /// The working directory, or None for the spawning process' own.
    pub cwd: Option<PathBuf>,
    /// Descriptors and the numbers they get, 0 to `TARGET_FD_MAX`. Dropped here when the call returns.
    pub fds: Vec<(OwnedFd, i32)>,
    /// Session and process group.
    pub session: SessionMode,
    /// Sent to the program when the *thread* that calls `spawn` ends.
    pub parent_death: Option<Signal>,
    /// Limit on open descriptors, or None for the spawning process' own.
    pub nofile: Option<NofileLimit>,
}

impl SpawnRequest {
    /// A request for `program` with an empty environment and no descriptors.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            argv: Vec::new(),
            env: Vec::new(),
            cwd: None,
            fds: Vec::new(),
            session: SessionMode::Inherit,
            parent_death: None,
            nofile: None,
        }
    }
}

/// A started program. It is our child: it stays a zombie until `process::reap`.
#[derive(Debug)]
pub struct Spawned {
    /// Its process id.
    pub pid: Pid,
    /// A handle on it.
    pub pidfd: PidFd,
}

/// Why a program was not started. No child is left behind.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The request itself cannot be carried out.
    #[error("cannot start {program}: {what}")]
    Invalid {
        /// The program of the request.
        program: String,
        /// What is wrong with the request.
        what: String,
    },
    /// No file of that name in the PATH of the request's environment.
    #[error("cannot start {program}: no such program in PATH={path}")]
    NotInPath {
        /// The program of the request.
        program: String,
        /// The PATH that was searched.
        path: String,
    },
    /// Making the pipe, the descriptor copies or the process failed.
    #[error("cannot start {program}: {step} failed: {source}")]
    Resources {
        /// The program of the request.
        program: String,
        /// The system call.
        step: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The new process could not become the program.
    #[error("cannot start {program}: {step} failed: {source}")]
    Child {
        /// The program of the request, as resolved.
        program: String,
        /// The system call.
        step: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl SpawnError {
    /// Stable code for logs and callers.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Invalid { .. } => "spawn.invalid_request",
            Self::NotInPath { .. } => "spawn.not_in_path",
            Self::Resources { .. } => "spawn.resources",
            Self::Child { .. } => "spawn.exec",
        }
    }

    /// The errno behind it.
    pub fn errno(&self) -> i32 {
        match self {
            Self::Invalid { .. } => libc::EINVAL,
            Self::NotInPath { .. } => libc::ENOENT,
            Self::Resources { source, .. } | Self::Child { source, .. } => source.raw_os_error().unwrap_or(0),
        }
    }

    /// What the reader can do about it.
    pub fn next_step(&self) -> &'static str {
        match (self, self.errno()) {
            (Self::Invalid { .. }, _) => "correct the named part of the request",
            (Self::NotInPath { .. }, _) => "install the program, or give its absolute path",
            (Self::Child { step: "chdir", .. }, _) => "create the working directory, or name another",
            (Self::Child { .. }, libc::ENOENT) => {
                "check that the program and the interpreter named in its first line exist"
            }
            (Self::Child { .. }, libc::EACCES) => "make the program executable (chmod +x)",
            (Self::Child { .. }, libc::ENOEXEC) => {
                "check that it is built for this machine or starts with a #! line"
            }
            (Self::Child { .. }, libc::E2BIG) => "shorten the arguments or the environment",
            (_, libc::EMFILE | libc::ENFILE) => "raise the limit on open files (ulimit -n)",
            (_, libc::EAGAIN) => "raise the limit on processes (ulimit -u), or stop some",
            (_, libc::ENOMEM) => "free memory",
            _ => "look up the error number; the program itself did not run",
        }
    }
}

/// Forks and executes `request`. For small processes; safe with threads, since the child only makes system
/// calls until it executes.
pub fn spawn(request: SpawnRequest) -> Result<Spawned, SpawnError> {
    let prepared = Prepared::new(&request)?;
    let name = prepared.name();
    let resources = |step| move |source| SpawnError::Resources { program: name.clone(), step, source };
    let targets = prepare_targets(&request).map_err(resources.clone()("dup"))?;
    let failure = fds::pipe_cloexec().map_err(resources.clone()("pipe"))?;
    // Above all targets, else mapping a descriptor would close it.
    let number_min = targets.iter().map(|(_, target)| target + 1).max().unwrap_or(0).max(3);
    let failure_write = fds::copy_above(&failure.write, number_min).map_err(resources.clone()("dup"))?;
    drop(failure.write);
    let plan = ChildPlan {
        program: prepared.program.as_ptr(),
        argv: &prepared.argv_pointers,
        envp: &prepared.env_pointers,
        cwd: prepared.cwd.as_deref().map(std::ffi::CStr::as_ptr),
        targets: targets.iter().map(|(source, target)| (source.as_raw_fd(), *target)).collect(),
        closed: all_but(targets.iter().map(|(_, target)| *target).chain([failure_write.as_raw_fd()])),
        session: request.session,
        parent_death: request.parent_death,
        nofile: request.nofile,
        parent: Pid::current().as_raw(),
        failure: failure_write.as_raw_fd(),
    };

    let blocked = AllBlocked::new().map_err(resources.clone()("sigprocmask"))?;
    // SAFETY: the child calls only async-signal-safe functions on memory prepared above, then executes or
    // exits; it never returns from run_child.
    let forked = unsafe { libc::fork() };
    if forked == 0 {
        // SAFETY: this is the forked child, and every pointer in the plan is alive in its copy of memory.
        unsafe { run_child(&plan) };
    }
    let fork_result = Pid::from_raw(forked).ok_or_else(io::Error::last_os_error);
    drop(blocked);
    drop((failure_write, targets, request));
    let pid = fork_result.map_err(resources.clone()("fork"))?;
    let pidfd = match PidFd::open(pid) {
        Ok(pidfd) => pidfd,
        Err(source) => {
            kill_and_reap(pid);
            return Err(resources("pidfd_open")(source));
        }
    };
    match read_failure(failure.read) {
        None => Ok(Spawned { pid, pidfd }),
        Some((step, source)) => {
            kill_and_reap(pid);
            Err(SpawnError::Child { program: prepared.name(), step, source })
        }
    }
}

/// Starts the absolute path `program` through `posix_spawn`, with `stdin` as descriptor 0, `/dev/null` as 1
/// and 2 and `env` as its whole environment. It never copies this process' page tables and runs no code of
/// ours in between; so a descriptor that the embedding program left without CLOEXEC is inherited, and the
/// program started must begin with `fds::Inherited::close_all_but`.
pub fn spawn_small(
    program: &Path,
    args: &[OsString],
    env: &[(OsString, OsString)],
    stdin: OwnedFd,
) -> Result<Spawned, SpawnError> {
    let name = program.display().to_string();
    if !program.is_absolute() {
        // A name to be searched would make the standard library fork when the environment sets PATH.
        return Err(SpawnError::Invalid { program: name, what: "its path must be absolute".to_owned() });
    }
    let child = Command::new(program)
        .args(args)
        .env_clear()
        .envs(env.iter().map(|(key, value)| (key, value)))
        .stdin(Stdio::from(stdin))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|source| SpawnError::Child { program: name.clone(), step: "posix_spawn", source })?;
    let pid = Pid::from_raw(child.id() as i32).expect("the kernel gives positive pids");
    match PidFd::open(pid) {
        Ok(pidfd) => Ok(Spawned { pid, pidfd }),
        Err(source) => {
            kill_and_reap(pid);
            Err(SpawnError::Resources { program: name, step: "pidfd_open", source })
        }
    }
}

/// The strings of a request in the form execve takes, all allocated before the fork.
struct Prepared {
    program: CString,
    cwd: Option<CString>,
    argv_pointers: Vec<*const c_char>,
    env_pointers: Vec<*const c_char>,
    // The pointers above point into these.
    _argv: Vec<CString>,
    _env: Vec<CString>,
}

impl Prepared {
    fn new(request: &SpawnRequest) -> Result<Self, SpawnError> {
        let invalid =
            |what: String| SpawnError::Invalid { program: request.program.display().to_string(), what };
        let c_string = |bytes: &OsStr, what: &str| {
            CString::new(bytes.as_bytes()).map_err(|_| invalid(format!("{what} holds a NUL byte")))
        };
        for (_, target) in &request.fds {
            if !(0..=TARGET_FD_MAX).contains(target) {
                return Err(invalid(format!("descriptor number {target} is not in 0..={TARGET_FD_MAX}")));
            }
            if request.fds.iter().filter(|(_, other)| other == target).count() > 1 {
                return Err(invalid(format!("descriptor number {target} is mapped twice")));
            }
        }
        let program = c_string(resolve(request)?.as_os_str(), "the program's path")?;
        let argv = if request.argv.is_empty() {
            vec![c_string(request.program.as_os_str(), "the program's path")?]
        } else {
            request.argv.iter().map(|arg| c_string(arg, "an argument")).collect::<Result<_, _>>()?
        };
        let mut env = Vec::with_capacity(request.env.len());
        for (key, value) in &request.env {
            if key.is_empty() || key.as_bytes().contains(&b'=') {
                return Err(invalid(format!("{key:?} is no name for an environment variable")));
            }
            let mut line = key.clone().into_vec();
            line.push(b'=');
            line.extend_from_slice(value.as_bytes());
            env.push(c_string(OsStr::from_bytes(&line), "an environment variable")?);
        }
        let cwd = request.cwd.as_ref().map(|cwd| c_string(cwd.as_os_str(), "the working directory"));
        let pointers = |strings: &[CString]| {
            strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect::<Vec<_>>()
        };
        Ok(Self {
            program,
            cwd: cwd.transpose()?,
            argv_pointers: pointers(&argv),
            env_pointers: pointers(&env),
            _argv: argv,
            _env: env,
        })
    }

    fn name(&self) -> String {
        self.program.to_string_lossy().into_owned()
    }
}

/// Finds a bare name in the PATH the program itself will see; anything with a slash is taken as it is.
fn resolve(request: &SpawnRequest) -> Result<PathBuf, SpawnError> {
    if request.program.as_os_str().as_bytes().contains(&b'/') {
        return Ok(request.program.clone());
    }
    let path = request.env.iter().rev().find(|(key, _)| key == "PATH").map(|(_, value)| value.clone());
    let path = path.unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    std::env::split_paths(&path)
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join(&request.program))
        .find(|candidate| {
            candidate.is_file() && rustix::fs::access(candidate, rustix::fs::Access::EXEC_OK).is_ok()
        })
        .ok_or_else(|| SpawnError::NotInPath {
            program: request.program.display().to_string(),
            path: path.to_string_lossy().into_owned(),
        })
}

/// Copies of all sources at numbers no target has, so that putting one in place cannot close another.
fn prepare_targets(request: &SpawnRequest) -> io::Result<Vec<(OwnedFd, i32)>> {
    let number_min = request.fds.iter().map(|(_, target)| target + 1).max().unwrap_or(0).max(3);
    let mut targets = Vec::with_capacity(request.fds.len() + 3);
    for (source, target) in &request.fds {
        targets.push((fds::copy_above(source, number_min)?, *target));
    }
    for standard in 0..3 {
        if !request.fds.iter().any(|(_, target)| *target == standard) {
            targets.push((fds::copy_above(&fds::dev_null()?, number_min)?, standard));
        }
    }
    Ok(targets)
}

/// The ranges of descriptor numbers between those of `kept`.
fn all_but(kept: impl Iterator<Item = RawFd>) -> Vec<(u32, u32)> {
    let mut kept: Vec<u32> = kept.map(|fd| fd.unsigned_abs()).collect();
    kept.sort_unstable();
    let mut ranges = Vec::with_capacity(kept.len() + 1);
    let mut first = 0;
    for fd in kept {
        if fd > first {
            ranges.push((first, fd - 1));
        }
        first = fd + 1;
    }
    ranges.push((first, u32::MAX));
    ranges
}

/// What the child needs between fork and exec, as plain numbers and pointers.
struct ChildPlan<'a> {
    program: *const c_char,
    argv: &'a [*const c_char],
    envp: &'a [*const c_char],
    cwd: Option<*const c_char>,
    targets: Vec<(RawFd, RawFd)>,
    /// Ranges of descriptors to close, both ends included.
    closed: Vec<(u32, u32)>,
    session: SessionMode,
    parent_death: Option<Signal>,
    nofile: Option<NofileLimit>,
    parent: i32,
    failure: RawFd,
}

/// What failed in the child, as one byte on the failure pipe.
const STEPS: [&str; 7] = ["setsid", "setpgid", "dup2", "close_range", "setrlimit", "chdir", "exec"];

/// The child's life until exec.
///
/// # Safety
/// Only in a forked child, with every pointer of the plan alive. Async-signal-safe calls only: no allocation,
/// no lock, no panic.
unsafe fn run_child(plan: &ChildPlan<'_>) -> ! {
    // SAFETY: see above; each call gets numbers or pointers into memory that the fork copied.
    unsafe {
        let step = become_program(plan);
        let errno = *libc::__errno_location();
        let [a, b, c, d] = errno.to_ne_bytes();
        let report = [step, a, b, c, d];
        libc::write(plan.failure, report.as_ptr().cast(), report.len());
        libc::_exit(127)
    }
}

/// Returns only on failure: the index in `STEPS` of what failed, with errno set.
///
/// # Safety
/// As for `run_child`.
unsafe fn become_program(plan: &ChildPlan<'_>) -> u8 {
    // SAFETY: see `run_child`.
    unsafe {
        match plan.session {
            SessionMode::Inherit => {}
            SessionMode::NewSession if libc::setsid() < 0 => return 0,
            SessionMode::NewGroup if libc::setpgid(0, 0) < 0 => return 1,
            SessionMode::NewSession | SessionMode::NewGroup => {}
        }
        if let Some(signal) = plan.parent_death {
            libc::prctl(libc::PR_SET_PDEATHSIG, signal.as_raw() as libc::c_ulong);
            if libc::getppid() != plan.parent {
                // The parent died before the request for its death was in force.
                libc::_exit(127);
            }
        }
        for &(source, target) in &plan.targets {
            if libc::dup2(source, target) < 0 {
                return 2;
            }
        }
        // Closed, not only marked: our own copy of a descriptor open for writing on the program would make
        // it busy until we execute, which we cannot while it is busy.
        for &(first, last) in &plan.closed {
            if libc::syscall(libc::SYS_close_range, first, last, 0) < 0 {
                return 3;
            }
        }
        if let Some(limit) = plan.nofile {
            let rlimit = libc::rlimit {
                rlim_cur: limit.soft.unwrap_or(libc::RLIM_INFINITY),
                rlim_max: limit.hard.unwrap_or(libc::RLIM_INFINITY),
            };
            if libc::setrlimit(libc::RLIMIT_NOFILE, &raw const rlimit) < 0 {
                return 4;
            }
        }
        if let Some(cwd) = plan.cwd
            && libc::chdir(cwd) < 0
        {
            return 5;
        }
        // Ignored signals survive exec, and so does the mask; both are ours, not the program's.
        // The bare system call, because the C library refuses 32 and 33, which it keeps for itself. All
        // zeroes is SIG_DFL without flags and with an empty mask on every architecture.
        let default = [0_u64; 4];
        for signal in 1..=64 {
            let unwanted = std::ptr::null_mut::<u64>();
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), unwanted, size_of::<u64>());
        }
        let none = crate::signals::empty_set();
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
        let pause = libc::timespec { tv_sec: 0, tv_nsec: TEXT_BUSY_PAUSE_NS };
        for _ in 0..TEXT_BUSY_RETRIES_MAX {
            libc::execve(plan.program, plan.argv.as_ptr(), plan.envp.as_ptr());
            if *libc::__errno_location() != libc::ETXTBSY {
                break;
            }
            libc::nanosleep(&raw const pause, std::ptr::null_mut());
            *libc::__errno_location() = libc::ETXTBSY;
        }
        6
    }
}

/// Waits until the child has executed (None) or reported why not.
fn read_failure(pipe: OwnedFd) -> Option<(&'static str, io::Error)> {
    let mut report = [0_u8; 5];
    // EOF before five bytes: the pipe was closed by a successful exec, or the child was killed from outside,
    // which its wait status will tell.
    std::fs::File::from(pipe).read_exact(&mut report).ok()?;
    let [step, errno @ ..] = report;
    let step = STEPS.get(usize::from(step)).copied().unwrap_or("exec");
    Some((step, io::Error::from_raw_os_error(i32::from_ne_bytes(errno))))
}

/// Ends a child that nobody will own. It is ours and unreaped, so its number is still its own.
fn kill_and_reap(pid: Pid) {
    const REAP_WAIT_MAX: Duration = Duration::from_secs(5);
    const REAP_PAUSE: Duration = Duration::from_millis(1);
    // Errors mean it is already gone.
    let _ = rustix::process::kill_process(pid.to_rustix(), rustix::process::Signal::KILL);
    let start = std::time::Instant::now();
    while start.elapsed() < REAP_WAIT_MAX {
        match process::reap(pid) {
            Ok(None) => std::thread::sleep(REAP_PAUSE),
            Ok(Some(_)) | Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gaps_between_kept_numbers_are_closed() {
        assert_eq!(all_but([5, 0, 2, 1].into_iter()), [(3, 4), (6, u32::MAX)]);
        assert_eq!(all_but([1].into_iter()), [(0, 0), (2, u32::MAX)]);
    }
}
