//! What stands in `tree.lock` about the keeper that holds it, for the next host, which waits for it and knows it by nothing
//! else.

use cjm_platform::Pid;
use cjm_platform::lock::{FileLock, has_open};
use cjm_platform::tree::is_stopped;
use std::io;
use std::path::Path;

/// What stands before the number of the keeper's process.
const BEFORE_ITS_PID: &str = "the keeper, process ";

/// Names the keeper that is about to hold the lock, in place of the host that took it.
pub(super) fn name_keeper(lock: &mut FileLock, keeper: Pid) -> io::Result<()> {
    lock.set_owner(&format!("{BEFORE_ITS_PID}{keeper}, of host process {}", Pid::current()))
}

/// The keeper that holds this lock, if it stands still by a signal: it does not see that its host is gone. `holder` is
/// what stands in the lock.
#[must_use]
pub fn stopped_keeper(tree_lock: &Path, holder: &str) -> Option<u32> {
    let (number, _) = holder.strip_prefix(BEFORE_ITS_PID)?.split_once(',')?;
    let keeper = Pid::from_raw(number.parse().ok()?)?;
    // Another process may have the number by now, and be stopped by its user.
    (is_stopped(keeper) && has_open(keeper, tree_lock)).then(|| keeper.as_raw().unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use cjm_platform::{PidFd, Signal};
    use std::fs::File;
    use std::process::{Command, Stdio};

    #[test]
    fn a_keeper_is_named_as_stopped_only_while_it_is_and_holds_this_lock() {
        let folder = tempfile::tempdir().expect("a folder");
        let [path, other] = ["tree.lock", "other.lock"].map(|name| folder.path().join(name));
        let mut lock = FileLock::try_acquire(&path, "a host").expect("taken");
        File::create(&other).expect("made");
        assert_eq!(stopped_keeper(&path, "a host"), None, "no keeper is named yet");
        let held = Stdio::from(lock.share().expect("shared"));
        let mut child = Command::new("sleep").arg("1000").stdin(held).spawn().expect("a process");
        let pid = Pid::from_raw(child.id().cast_signed()).expect("a pid");
        name_keeper(&mut lock, pid).expect("written");
        let said = cjm_platform::lock::holder(&path).expect("named");
        assert_eq!(stopped_keeper(&path, &said), None, "it runs");
        PidFd::open(pid).and_then(|pidfd| pidfd.send_signal(Signal::STOP)).expect("sent");
        while !is_stopped(pid) {
            std::thread::yield_now();
        }
        assert_eq!(stopped_keeper(&path, &said), Some(child.id()));
        assert_eq!(stopped_keeper(&other, &said), None, "it does not hold that one");
        child.kill().and_then(|()| child.wait()).expect("ours");
        assert_eq!(stopped_keeper(&path, &said), None, "it is gone");
    }
}
