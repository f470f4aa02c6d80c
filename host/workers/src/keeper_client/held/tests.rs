//! Real trees, ended from outside. A shell stands for a worker.

use super::*;
use cjm_platform::fds::{NofileLimit, nofile_limit, restore_nofile};
use cjm_platform::process;
use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::process::{Child, Command, Stdio};

/// Ends its first thread and sleeps in another one: it looks like a zombie, and lives.
const WITHOUT_ITS_FIRST_THREAD: &str = "import ctypes, threading, time
threading.Thread(target=time.sleep, args=(1000,)).start()
ctypes.CDLL(None).pthread_exit(None)";

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

    pub(crate) fn stop(&self) {
        PidFd::open(self.pid()).and_then(|pidfd| pidfd.send_signal(Signal::STOP)).expect("sent");
        let begun = Instant::now();
        while !tree::is_stopped(self.pid()) {
            assert!(begun.elapsed() < LONG, "it does not stand still");
            std::thread::yield_now();
        }
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
    // Not by its state: a zombie may have threads that run.
    PidFd::open(info.pid).is_ok_and(|pidfd| {
        let is_it = process_info(info.pid).is_some_and(|now| now.start_ticks == info.start_ticks);
        is_it && !pidfd.has_exited().expect("asked")
    })
}

/// A process that ends with this, wherever it hangs by then.
struct Killed(PidFd);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.send_signal(Signal::KILL);
    }
}

/// The one among these that looks like a zombie and lives; waits for it.
fn without_its_first_thread(look: impl Fn() -> Vec<ProcessInfo>) -> ProcessInfo {
    let begun = Instant::now();
    loop {
        if let Some(info) = look().into_iter().find(|info| info.state == 'Z' && lives(info)) {
            return info;
        }
        assert!(begun.elapsed() < LONG, "python3 with ctypes is needed");
        std::thread::yield_now();
    }
}

#[test]
fn a_process_whose_first_thread_has_ended_is_ended_too() {
    let script = format!("python3 -c '{WITHOUT_ITS_FIRST_THREAD}' & exec sleep 1000");
    let (_child, held) = shell(&script, 1);
    let info = without_its_first_thread(|| descendants(held.pid).expect("readable"));
    let _killed = Killed(PidFd::open(info.pid).expect("it lives"));
    assert_eq!(held.end_tree(LONG), Ended { all: true, descendants_killed: 1 });
    assert!(!lives(&info));
}

#[test]
fn a_worker_whose_first_thread_has_ended_has_not_and_can_stand_still() {
    let child = Process::start(Command::new("python3").args(["-c", WITHOUT_ITS_FIRST_THREAD]));
    let held = Arc::new(Held::child_of(Pid::current(), child.pid().as_raw()).expect("ours"));
    without_its_first_thread(|| process_info(child.pid()).into_iter().collect());
    assert!(!held.has_ended() && !held.is_stopped());
    assert_eq!(held.status(), None, "what its first thread left is not its status");
    child.stop();
    assert!(held.is_stopped());
    assert_eq!(held.end_tree(LONG), Ended { all: true, descendants_killed: 0 });
    assert_eq!(held.status(), Some(ExitStatus::Signal(9)));
    assert!(!held.is_stopped(), "a zombie stands still no more");
}

#[test]
fn a_number_that_means_another_process_by_now_is_not_signalled() {
    let child = Process::sleeper();
    let info = process_info(child.pid()).expect("it lives");
    let before = ProcessInfo { start_ticks: info.start_ticks - 1, ..info };
    let mut doomed = Doomed::default();
    assert!(!doomed.kill_living(Some(&[before])), "something is there");
    assert_eq!(doomed.count(), 0);
    assert!(lives(&info));
}

#[test]
fn a_worker_that_ended_by_itself_while_its_tree_was_ended_is_not_told_as_cleared() {
    let child = Process::sleeper();
    let held = Arc::new(Held::child_of(Pid::current(), child.pid().as_raw()).expect("ours"));
    let mut ending = Ending::begin(Arc::clone(&held), LONG);
    child.stop();
    assert_eq!(ending.look(&LazyCell::new(look_at_all)), None, "nothing is known of it yet");
    // Whatever was below it hangs elsewhere from now on.
    held.pidfd.send_signal(Signal::KILL).expect("sent");
    assert!(held.pidfd.wait_exit(LONG).expect("asked"));
    assert_eq!(ending.look(&LazyCell::new(look_at_all)), None);
    let ended = ending.look(&LazyCell::new(look_at_all));
    assert_eq!(ended, Some(Ended { all: false, descendants_killed: 0 }));
}

#[test]
fn what_was_killed_is_waited_for_as_long_as_there_is_time() {
    let child = Process::sleeper();
    let pidfd = PidFd::open(child.pid()).expect("it lives");
    // As if it had been killed: nothing says when a process that was ends.
    let doomed = Doomed(BTreeMap::from([((child.pid(), 0), pidfd)]));
    let (begun, limit) = (Instant::now(), Duration::from_millis(50));
    assert!(!doomed.ended(true, begun + limit).all, "it lives");
    assert!(begun.elapsed() >= limit);
    PidFd::open(child.pid()).and_then(|pidfd| pidfd.send_signal(Signal::KILL)).expect("sent");
    assert_eq!(doomed.ended(true, Instant::now() + LONG), Ended { all: true, descendants_killed: 1 });
    assert!(!doomed.ended(false, Instant::now() + LONG).all, "others may live");
}

/// Runs in a process of its own: the limit holds for all threads.
#[test]
fn processes_that_cannot_be_read_are_not_taken_for_none() {
    const ALONE: &str = "CJM_TEST_ALONE";
    const NAME: &str = "keeper_client::held::tests::processes_that_cannot_be_read_are_not_taken_for_none";
    if std::env::var_os(ALONE).is_none() {
        let mut again = Command::new(std::env::current_exe().expect("this test"));
        let output = again.args([NAME, "--exact"]).env(ALONE, "1").output().expect("started");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
        return;
    }
    let (orphan, own) = (Process::sleeper(), Pid::current());
    let info = process_info(orphan.pid()).expect("it lives");
    let before = nofile_limit();
    let next = File::open("/dev/null").expect("opened").as_raw_fd();
    // With one descriptor the list of all processes can be read, and none of them.
    for left in [0, 1] {
        let soft = u64::try_from(next + left).expect("positive");
        restore_nofile(NofileLimit { soft: Some(soft), ..before }).expect("lowered");
        let ended = end_orphans_of(own, &BTreeSet::new(), Duration::from_millis(50), || true);
        restore_nofile(before).expect("set back");
        assert_eq!(ended, Ended { all: false, descendants_killed: 0 }, "{left} descriptors left");
        assert!(lives(&info));
    }
    let ended = end_orphans_of(own, &BTreeSet::new(), LONG, || true);
    assert_eq!(ended, Ended { all: true, descendants_killed: 1 });
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
    assert!(doomed.until_clear(Instant::now() + LONG, || looks.pop().or(Some(Vec::new()))));
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
    let goes_on = end_orphans_of(keeper.pid, &BTreeSet::new(), LONG, || false);
    assert_eq!(
        goes_on,
        Ended { all: true, descendants_killed: 0 },
        "it may have started one of them just now"
    );
    let ended = end_orphans_of(keeper.pid, &BTreeSet::from([worker]), LONG, || true);
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
