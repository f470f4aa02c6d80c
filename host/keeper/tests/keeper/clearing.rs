//! What the end of a worker costs, beside many others and among many strangers: it must not grow with either. And who
//! waits for a process that cannot be ended: its own worker, for a time, and nobody else.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Host, WAIT};
use cjm_platform::process::WaitStatus;
use cjm_platform::{Pid, PidFd, tree};
use cjm_wire::keeper::{HostToKeeper, KeeperToHost};

/// Processes of other programs, as a busy machine has them.
const STRANGERS: usize = 500;
/// Workers whose ends are timed, of each crowd.
const ENDS: usize = 15;

/// Ended and reaped with the test, whatever comes.
struct Strangers(Vec<Child>);

impl Strangers {
    fn start(count: usize) -> Self {
        let start = |_| Command::new("/bin/sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap();
        Self((0..count).map(start).collect())
    }
}

impl Drop for Strangers {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// What one end costs.
#[derive(Debug)]
struct Cost {
    /// How often the keeper reads, from `/proc` or its sockets: the same however busy the machine is.
    reads: u64,
    /// Its processor time.
    cpu: Duration,
    /// Median from the word to kill to the report.
    took: Duration,
}

/// How often the keeper has read, and its processor time so far.
fn so_far(host: &Host) -> (u64, Duration) {
    let proc = |name: &str| std::fs::read_to_string(format!("/proc/{}/{name}", host.keeper)).unwrap();
    let io = proc("io");
    let reads = io.lines().find_map(|line| line.strip_prefix("syscr: ")).unwrap().parse().unwrap();
    let cpu_ns = proc("schedstat").split_whitespace().next().unwrap().parse().unwrap();
    (reads, Duration::from_nanos(cpu_ns))
}

/// Kills some of `crowd` idle workers, one after the other.
fn cost_of_an_end(crowd: usize) -> Cost {
    let host = Host::start(None);
    for n in 0..crowd {
        host.spawn(&format!("w{n}"), "exec sleep 1000");
    }
    let before = so_far(&host);
    let mut times: Vec<Duration> = (0..ENDS)
        .map(|n| {
            let start = Instant::now();
            kill(&host, &format!("w{n}"));
            host.exited();
            start.elapsed()
        })
        .collect();
    let after = so_far(&host);
    times.sort_unstable();
    let ends = ENDS as u32;
    let reads = (after.0 - before.0) / u64::from(ends);
    Cost { reads, cpu: (after.1 - before.1) / ends, took: times[ENDS / 2] }
}

#[test]
fn the_end_of_a_worker_costs_the_same_among_many() {
    let strangers = Strangers::start(STRANGERS);
    let costs = [20, 160, 640].map(|crowd| {
        let cost = cost_of_an_end(crowd);
        let Cost { reads, cpu, took } = &cost;
        println!("{crowd} workers, {STRANGERS} strangers: an end is {reads} reads, {cpu:?}, after {took:?}");
        cost
    });
    drop(strangers);
    // A list of children may be read in pieces.
    let most = costs[0].reads + 4;
    assert!(costs.iter().all(|cost| cost.reads <= most), "{costs:?}");
    assert!(most < 40, "a walk over all processes reads each: {costs:?}");
}

/// Traces `pid` from outside the keeper's tree until it is told to let go: then the kernel shows the end of that
/// process to the tracer alone, and for its parent it is there, killed and not gone, like one in uninterruptible I/O.
struct Stuck {
    tracer: Child,
}

impl Stuck {
    fn make(pid: i32) -> Self {
        const TRACE: &str = "
import ctypes, os, sys
PTRACE_SEIZE = 0x4206
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
print(0 if libc.ptrace(PTRACE_SEIZE, int(sys.argv[1]), None, None) == 0 else ctypes.get_errno(), flush=True)
sys.stdin.read()
";
        let mut tracer = Command::new("python3")
            .args(["-c", TRACE, &pid.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut told = String::new();
        BufReader::new(tracer.stdout.take().unwrap()).read_line(&mut told).unwrap();
        let stuck = Self { tracer };
        assert_eq!(told.trim(), "0", "ptrace is allowed for a process of the same user");
        stuck
    }

    /// Lets it go.
    fn end(mut self) {
        drop(self.tracer.stdin.take());
        self.tracer.wait().unwrap();
    }
}

/// Starts a worker with one child that cannot be ended, in a session of its own; also the child's pid.
fn spawn_with_stuck_child(host: &Host, worker: &str) -> (Stuck, i32) {
    let mut spawned = host.spawn(worker, "setsid sh -c 'echo $$; exec sleep 1000' & exec sleep 1000");
    let pid = spawned.read_lines(1).trim().parse().unwrap();
    (Stuck::make(pid), pid)
}

fn kill(host: &Host, worker: &str) {
    host.send(&HostToKeeper::Kill { worker: worker.to_owned() });
}

#[test]
fn what_cannot_be_ended_delays_nobody_and_is_named_once() {
    let mut host = Host::start(None);
    let (stuck, pid) = spawn_with_stuck_child(&host, "a");
    host.spawn("b", "exec sleep 1000");
    let start = Instant::now();
    kill(&host, "a");
    // While the keeper waits for it: a start, a refused start, an end, each at once.
    let lives = PidFd::open(Pid::from_raw(pid).unwrap()).unwrap();
    assert!(lives.wait_exit(WAIT).unwrap(), "it is killed, for the tracer to see");
    host.spawn("c", "exec sleep 1000");
    drop(host.request("d", "/nonexistent/tool", ""));
    assert!(matches!(host.recv().0, KeeperToHost::SpawnFailed { .. }));
    kill(&host, "b");
    assert_eq!(host.exited().worker, "b");
    let took = start.elapsed();
    println!("a start, a refusal and an end beside a stuck process: {} ms", took.as_millis());
    assert!(took < Duration::from_secs(1), "{took:?}");
    match host.recv().0 {
        KeeperToHost::Exited { worker, survivors, .. } => {
            assert_eq!((worker.as_str(), survivors), ("a", vec![pid]));
        }
        other => panic!("instead of Exited came {other:?}"),
    }
    // It has had its time, and nobody waits for it again: not a later end, and not the keeper's own.
    let start = Instant::now();
    kill(&host, "c");
    assert_eq!(host.exited().worker, "c");
    host.control = None;
    assert_eq!(host.keeper_status(), WaitStatus::Exited { code: 12 }, "it says that something survives");
    let took = start.elapsed();
    println!("an end and the keeper's own beside a survivor: {} ms", took.as_millis());
    assert!(took < Duration::from_secs(1), "{took:?}");
    stuck.end();
}

#[test]
fn a_survivor_that_ends_at_last_is_reaped_and_forgotten() {
    let mut host = Host::start(None);
    let (stuck, pid) = spawn_with_stuck_child(&host, "a");
    kill(&host, "a");
    assert!(matches!(host.recv().0, KeeperToHost::Exited { survivors, .. } if survivors == [pid]));
    stuck.end();
    let start = Instant::now();
    while tree::process_info(Pid::from_raw(pid).unwrap()).is_some() {
        assert!(start.elapsed() < WAIT, "it stays a zombie");
        std::thread::yield_now();
    }
    host.control = None;
    assert_eq!(host.keeper_status(), WaitStatus::Exited { code: 0 });
}
