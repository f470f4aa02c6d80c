//! Locks as two owners meet at them, and what is told of who has one.

use super::*;

#[test]
fn an_error_that_others_need_not_have_is_no_word_of_them() {
    let of_nobody = |code: i32| is_for_nobody(&io::Error::from_raw_os_error(code));
    for code in [libc::ENOENT, libc::ENOTDIR, libc::ELOOP, libc::EACCES, libc::ENOSYS, libc::EOPNOTSUPP] {
        assert!(of_nobody(code), "{code}");
    }
    for code in [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::EINTR, libc::EIO] {
        assert!(!of_nobody(code), "{code}");
    }
    assert!(!is_for_nobody(&io::Error::other("of no kernel")));
}

#[test]
fn a_host_is_read_from_what_it_wrote() {
    let text = "pid 7 since 2026-11-28T20:17:35+00:00, sockets in /run/x, since 1";
    assert_eq!(since_of(text), Some("2026-11-28T20:17:35+00:00"));
    assert_eq!((since_of("pid 7"), since_of("")), (None, None));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("host.lock");
    let lock = FileLock::try_acquire(&path, "").unwrap();
    let named = |pid: i32| holding_process(&path, &format!("pid {pid} since 1"));
    let ours = Pid::current();
    assert_eq!(named(ours.as_raw()), Some(ours));
    for (other, who) in [(0, "whoever reads it"), (1, "another process"), (-1, "everybody")] {
        assert_eq!(named(other), None, "{who} would be signalled");
    }
    assert_eq!((holding_process(&path, "unnamed"), holding_process(&path, "pid x")), (None, None));
    drop(lock);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(named(ours.as_raw()), None);
}

#[test]
fn whoever_reads_while_the_owner_is_written_finds_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("host.lock");
    let lock = FileLock::try_acquire(&path, "pid 7").unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..5_000 {
                lock.set_owner("pid 7").unwrap();
                lock.set_owner("pid 7 of a longer text").unwrap();
            }
            done.store(true, std::sync::atomic::Ordering::Release);
        });
        while !done.load(std::sync::atomic::Ordering::Acquire) {
            let found = holder(&path).unwrap_or_default();
            assert!(found.starts_with("pid 7"), "{found:?}");
        }
    });
}

#[test]
fn a_second_owner_is_refused_with_the_first_ones_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("host.lock");
    let lock = FileLock::try_acquire(&path, "pid 1 a long first name").unwrap();
    lock.set_owner("pid 7").unwrap();
    let err = FileLock::try_acquire(&path, "other").unwrap_err();
    assert_eq!(err.code(), "lock.held");
    assert!(err.to_string().ends_with("is locked by pid 7"), "{err}");
    drop(lock);
    // Not at once: a child that another test is starting holds a copy until it executes.
    FileLock::acquire(&path, "other", Duration::from_secs(30)).unwrap();
    assert_eq!(holder(&path).as_deref(), Some("other"));
}

#[test]
fn a_copy_keeps_the_lock_and_a_waiter_gets_it_when_the_last_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tree.lock");
    let lock = FileLock::try_acquire(&path, "host").unwrap();
    let copy = lock.share().unwrap();
    drop(lock);
    assert_eq!(FileLock::acquire(&path, "next", Duration::from_millis(20)).unwrap_err().code(), "lock.held");
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| FileLock::acquire(&path, "next", Duration::from_secs(30)));
        drop(copy);
        waiter.join().unwrap().unwrap();
    });
}

#[test]
fn a_lock_that_was_taken_away_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let (data, moved) = (dir.path().join("data"), dir.path().join("moved"));
    std::fs::create_dir(&data).unwrap();
    let path = data.join("host.lock");
    let lock = FileLock::try_acquire(&path, "me").unwrap();
    assert!(lock.still_named().unwrap());
    std::fs::rename(&data, &moved).unwrap();
    assert!(!lock.still_named().unwrap(), "the directory is gone");
    std::fs::rename(&moved, &data).unwrap();
    assert!(lock.still_named().unwrap());
    std::fs::remove_file(&path).unwrap();
    assert!(!lock.still_named().unwrap(), "removed");
    let other = FileLock::try_acquire(&path, "somebody else").unwrap();
    assert!(!lock.still_named().unwrap() && other.still_named().unwrap(), "replaced");
}

#[test]
fn a_directory_is_locked_by_one_at_a_time_and_holds_no_file_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let lock = DirectoryLock::try_acquire(dir.path()).unwrap();
    assert!(lock.is_some() && DirectoryLock::try_acquire(dir.path()).unwrap().is_none());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    assert!(DirectoryLock::is_held(dir.path()).unwrap());
    assert_eq!(locking_process(dir.path()), Some(Pid::current()));
    // Whoever else asks at this moment holds nothing.
    let other = tempfile::tempdir().unwrap();
    let asker = open_directory(other.path()).unwrap();
    rustix::fs::flock(&asker, FlockOperation::NonBlockingLockShared).unwrap();
    assert!(!DirectoryLock::is_held(other.path()).unwrap());
    DirectoryLock::try_acquire(&dir.path().join("missing")).unwrap_err();
    DirectoryLock::is_held(&dir.path().join("missing")).unwrap_err();
}

#[test]
fn only_those_that_have_an_exclusive_lock_by_a_descriptor_were_lent_it() {
    /// Ended also where the test fails.
    struct Ended(std::process::Child);
    impl Drop for Ended {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("install.lock");
    let sleeper = |input: File| {
        let mut sleep = std::process::Command::new("sleep");
        Ended(sleep.arg("1000").stdin(input).spawn().unwrap())
    };
    // Somebody who reads the file, and somebody who holds it together with others.
    std::fs::write(&path, "").unwrap();
    let shared = File::open(&path).unwrap();
    rustix::fs::flock(&shared, FlockOperation::NonBlockingLockShared).unwrap();
    let _readers = [sleeper(File::open(&path).unwrap()), sleeper(shared.try_clone().unwrap())];
    assert_eq!((processes_lent_the_lock(&path, 9), locking_process(&path)), (vec![], None));
    assert_eq!(sharing_process(&path), Some(Pid::current()));
    rustix::fs::flock(&shared, FlockOperation::Unlock).unwrap();
    // Somebody with a lock of records, which is another one.
    let record = "import fcntl, sys; f = open(sys.argv[1], 'r+'); fcntl.lockf(f, fcntl.LOCK_EX); print(flush=True); sys.stdin.read()";
    let mut other = std::process::Command::new("python3");
    other.args(["-c", record]).arg(&path).stdin(std::process::Stdio::piped());
    let mut other = Ended(other.stdout(std::process::Stdio::piped()).spawn().unwrap());
    other.0.stdout.as_mut().unwrap().read_exact(&mut [0; 1]).unwrap();
    assert_eq!((processes_lent_the_lock(&path, 9), locking_process(&path)), (vec![], None));
    // Whoever has taken the lock is no helper, and whoever has it open beside a helper is none.
    let lock = FileLock::acquire(&path, "pid 7", Duration::from_secs(30)).unwrap();
    let helper = sleeper(lock.share().unwrap().into());
    let pid = i32::try_from(helper.0.id()).ok().and_then(Pid::from_raw).unwrap();
    assert_eq!((processes_lent_the_lock(&path, 9), sharing_process(&path)), (vec![pid], None));
}

#[test]
fn a_host_is_found_by_its_folder_where_its_file_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path();
    let take = || take_folders_of_host(data_dir, Duration::from_millis(20));
    assert!(take().unwrap().is_empty(), "there is no folder");
    assert_eq!(host_process(data_dir, "pid 1 since 1"), None);
    // Those that are folders of its own: a link may lead to what another one has, too.
    std::os::unix::fs::symlink(dir.path(), data_dir.join("payloads")).unwrap();
    for name in ["data", "manifests"] {
        std::fs::create_dir(data_dir.join(name)).unwrap();
    }
    let locks = take().unwrap();
    assert!(["data", "manifests"].iter().all(|name| DirectoryLock::is_held(&data_dir.join(name)).unwrap()));
    assert!(is_folder_of_host_held(data_dir) && !DirectoryLock::is_held(data_dir).unwrap());
    let said = format!("{NO_HOST} (pid {})", Pid::current());
    assert_eq!((holder_without_file(data_dir), host_process(data_dir, "")), (said, None));
    let path = data_dir.join("host.lock");
    let _file = FileLock::acquire(&path, "pid 1 since 1", Duration::from_secs(30)).unwrap();
    std::fs::remove_file(path).unwrap();
    let said = format!("pid {}, whose host.lock was removed", Pid::current());
    assert_eq!(holder_without_file(data_dir), said);
    // What one wrote that is gone is nobody's name.
    assert_eq!(host_process(data_dir, "pid 1 since 1"), Some(Pid::current()));
    // Also where another folder has come to be since, and one that was locked is gone.
    std::fs::remove_file(data_dir.join("payloads")).unwrap();
    std::fs::create_dir(data_dir.join("payloads")).unwrap();
    std::fs::remove_dir(data_dir.join("data")).unwrap();
    let asked_in_vain = Instant::now();
    assert_eq!(take().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    assert!(asked_in_vain.elapsed() >= Duration::from_millis(20));
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| take_folders_of_host(data_dir, Duration::from_secs(30)).unwrap());
        drop(locks);
        assert!(!waiter.join().unwrap().is_empty());
    });
}

#[test]
fn what_is_no_file_is_no_lock_and_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("host.lock");
    let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
    assert!(made.success());
    let refused = FileLock::try_acquire(&path, "me").unwrap_err().to_string();
    assert!(refused.ends_with("host.lock is a FIFO, not a regular file"), "{refused}");
    held_by(&path).expect_err("nobody can tell whether it is held");
    assert!(held_by(&dir.path().join("nothing")).unwrap().is_none());
}

#[test]
fn a_link_in_the_place_of_a_lock_is_told_as_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("host.lock");
    std::os::unix::fs::symlink(dir.path().join("elsewhere"), &path).unwrap();
    let words = FileLock::try_acquire(&path, "me").unwrap_err().to_string();
    assert!(words.starts_with("cannot lock") && words.contains("is a symbolic link"), "{words}");
    assert!(!dir.path().join("elsewhere").exists());
}
