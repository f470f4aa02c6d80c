//! Real trees, ended from outside. A shell stands for a worker.

use super::*;
use cjm_platform::process;
use std::process::{Child, Command, Stdio};

/// Longer than anything here takes, so that nothing is given up.
const LONG: Duration = Duration::from_secs(20);

impl Held {
    /// One that no signal reaches: what it is looks like `shown`, and what it is told goes to `told`.
    pub(crate) fn beyond_signals(shown: Pid, told: Pid) -> Self {
        Self { pid: shown, pidfd: PidFd::open(told).expect("it lives") }
    }
}

/// A child that ends with this, and all below it.
pub(crate) struct Process(Child);

impl Process {
    fn start(command: &mut Command) -> Self {
        Self(command.stdout(Stdio::null()).spawn().expect("a process"))
    }

    pub(crate) fn sleeper() -> Self {
        Self::start(Command::new("sleep").arg("1000"))
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(self.0.id().cast_signed()).expect("a pid")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        for info in descendants(self.pid()).unwrap_or_default() {
            let _ = PidFd::open(info.pid).and_then(|pidfd| pidfd.send_signal(Signal::KILL));
        }
        let _ = (self.0.kill(), self.0.wait());
    }
}

/// A shell that runs this script, held once as many processes are below it.
fn shell(script: &str, below: usize) -> (Process, Arc<Held>) {
    let child = Process::start(Command::new("sh").args(["-c", script]));
    let held = Held::child_of(Pid::current(), child.pid().as_raw()).expect("ours");
    // A shell is no subreaper, as a worker is: what is started by one that is being killed would be lost.
    while descendants(held.pid).expect("readable").len() < below {
        std::thread::yield_now();
    }
    (child, Arc::new(held))
}

/// With a child that ignores what it can, and with a grandchild in a session of its own.
fn tree() -> (Process, Arc<Held>) {
    shell("trap '' TERM HUP INT; (setsid sleep 1000 & exec sleep 1000) & exec sleep 1000", 2)
}

fn lives(info: &ProcessInfo) -> bool {
    process_info(info.pid).is_some_and(|now| now.state != 'Z' && now.start_ticks == info.start_ticks)
}

#[test]
fn a_tree_is_ended_from_below_also_where_it_stands_still() {
    process::become_subreaper().expect("subreaper");
    for stopped in [false, true] {
        let (mut child, held) = tree();
        let below = descendants(held.pid).expect("readable");
        if stopped {
            held.pidfd.send_signal(Signal::STOP).expect("sent");
        }
        assert!(!held.has_ended() && held.status().is_none());
        assert_eq!(held.end_tree(LONG), Ended { all: true, descendants_killed: 2 });
        assert!(!below.iter().any(lives));
        assert_eq!(held.status(), Some(ExitStatus::Signal(9)), "a zombie tells how it ended");
        child.0.wait().expect("ours");
        assert!(held.has_ended() && held.status().is_none(), "its parent has taken that");
    }
}

#[test]
fn a_worker_that_starts_anew_what_is_killed_is_stopped_before_its_tree_is_ended() {
    let (_child, held) = shell("while :; do sleep 1000; done", 1);
    let ended = held.end_tree(Duration::from_secs(3));
    // One more if it was killed between two looks of the shell at its child, before the stop had reached it.
    assert!(ended.all && (1..=2).contains(&ended.descendants_killed), "{ended:?}");
}

#[test]
fn what_comes_while_orphans_are_killed_is_killed_too_and_all_are_counted_once() {
    let children = [(); 3].map(|()| Process::sleeper());
    let infos = [0, 1, 2].map(|at: usize| process_info(children[at].pid()).expect("it lives"));
    let mut looks = vec![vec![infos[2]], vec![infos[0], infos[1]], vec![infos[0]]];
    let mut doomed = Doomed::default();
    assert!(doomed.until_clear(Instant::now() + LONG, || Some(looks.pop().unwrap_or_default())));
    assert_eq!(doomed.count(), 3);
    while !doomed.have_ended() {
        std::thread::yield_now();
    }
    assert!(!infos.iter().any(lives));
}

#[test]
fn orphans_of_a_keeper_are_ended_and_counted_and_what_is_a_workers_is_spared() {
    let script = "sleep 1001 & sh -c 'sleep 1002 & exec sleep 1003' & exec sleep 1004";
    let (_child, keeper) = shell(script, 3);
    let below = descendants(keeper.pid).expect("readable");
    let deepest = below.iter().find(|info| info.ppid != keeper.pid.as_raw()).expect("below a worker");
    let worker = Pid::from_raw(deepest.ppid).expect("a pid");
    let ended = end_orphans_of(keeper.pid, &BTreeSet::from([worker]), LONG);
    assert_eq!(ended, Ended { all: true, descendants_killed: 1 });
    let living: BTreeSet<_> = below.iter().filter(|info| lives(info)).map(|info| info.pid).collect();
    assert_eq!(living, BTreeSet::from([worker, deepest.pid]));
    assert!(keeper.end_tree(LONG).all);
}

#[test]
fn a_tree_that_does_not_end_is_given_up_in_time() {
    let (shown, told) = (Process::sleeper(), Process::sleeper());
    let held = Arc::new(Held::beyond_signals(shown.pid(), told.pid()));
    let (begun, limit) = (Instant::now(), Duration::from_millis(50));
    assert!(!held.end_tree(limit).all);
    assert!(begun.elapsed() >= limit && begun.elapsed() < LONG / 2);
}

#[test]
fn a_process_of_somebody_else_is_not_held() {
    let (child, held) = tree();
    assert!(Held::child_of(held.pid, child.pid().as_raw()).is_none(), "another parent");
    assert!(
        Held::child_of(Pid::current(), i32::MAX).is_none() && Held::child_of(Pid::current(), 0).is_none()
    );
    assert!(held.end_tree(LONG).all);
}

/// Its first thread has ended, and it stands as a zombie, while another goes on.
#[test]
fn a_process_without_its_first_thread_is_ended_like_any_other() {
    process::become_subreaper().expect("subreaper");
    let script = "import ctypes, threading, time\n\
                  threading.Thread(target=time.sleep, args=(1000,)).start()\n\
                  ctypes.CDLL(None).pthread_exit(None)";
    let (mut child, held) = shell(&format!("/usr/bin/python3 -c '{script}' & exec sleep 1000"), 1);
    let below = loop {
        let below = descendants(held.pid).expect("readable").into_iter().find(|info| info.state == 'Z');
        if let Some(below) = below {
            break below;
        }
        std::thread::yield_now();
    };
    let pidfd = PidFd::open(below.pid).expect("it lives");
    assert!(!pidfd.has_exited().expect("asked"), "its other thread goes on");
    let ended = held.end_tree(LONG);
    assert_eq!(ended, Ended { all: true, descendants_killed: 1 });
    assert!(pidfd.has_exited().expect("asked"));
    let _ = child.0.wait();
}

#[test]
fn a_number_that_means_another_process_by_now_is_not_signalled() {
    let other = Process::sleeper();
    let mut info = process_info(other.pid()).expect("it lives");
    info.start_ticks += 1;
    let mut doomed = Doomed::default();
    assert!(!doomed.kill_living(&[info]), "what was seen is not known to have ended");
    assert_eq!(doomed.count(), 0);
    assert!(process_info(other.pid()).is_some_and(|info| info.state != 'Z'));
    assert!(!PidFd::open(other.pid()).and_then(|pidfd| pidfd.has_exited()).expect("asked"));
}

#[test]
fn what_cannot_be_looked_at_is_not_clear() {
    let mut doomed = Doomed::default();
    assert!(!doomed.until_clear(Instant::now(), || None));
    assert!(doomed.until_clear(Instant::now(), || Some(Vec::new())));
}
