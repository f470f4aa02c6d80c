//! What is locked while files are copied, and how much of it at once.

use super::*;

fn is_locked(call: &Path) -> bool {
    DirectoryLock::try_acquire(call).expect("asked").is_none()
}

#[test]
fn the_directory_of_a_call_is_locked_while_its_files_are_copied() {
    let lab = Lab::new();
    let session = "kept/sh/01a22857-1886-7071-832b-000000000001";
    let made = ["1", "2"].map(|call| lab.file(&format!("{session}/{call}/deep/a.txt"), "abc"));
    let calls = made.each_ref().map(|made| made.ancestors().nth(2).expect("a folder").to_owned());
    let files = made.map(|path| json!({"path": path, "bytes": 3}));
    let result = to_raw_value(&files).expect("raw");
    let _claimed = make(&lab.out(), &lab.data_dir(), &|| Ok(())).expect("a folder");
    // Of somebody else, who copies the same.
    let _beside = DirectoryLock::try_share(&calls[0]).expect("asked").expect("locked");
    let seen = std::cell::Cell::new(false);
    let go_on = || {
        // Those of all, while the first is copied.
        seen.set(seen.get() || is_locked(&calls[1]) && !lab.out().join("a.txt").exists());
        assert!(DirectoryLock::try_share(&calls[1]).expect("asked").is_some(), "others copy beside");
        Ok(())
    };
    write(&lab.out(), &lab.folder.path().join("kept"), &result, &Arguments::new(), &go_on).expect("written");
    assert!(seen.get() && !is_locked(&calls[1]));
}

#[test]
fn of_very_many_directories_of_calls_few_are_open_at_once_and_each_is_locked_in_its_turn() {
    let lab = Lab::new();
    let session = "kept/sh/01a22857-1886-7071-832b-000000000001";
    let number = LOCKED_AHEAD_MAX + 20;
    let made: Vec<PathBuf> =
        (0..number).map(|call| lab.file(&format!("{session}/{call}/{call}.txt"), "abc")).collect();
    let files: Vec<_> = made.iter().map(|path| json!({"path": path, "bytes": 3})).collect();
    let result = to_raw_value(&files).expect("raw");
    let _claimed = make(&lab.out(), &lab.data_dir(), &|| Ok(())).expect("a folder");
    let calls: Vec<&Path> = made.iter().filter_map(|path| path.parent()).collect();
    let (seen, most) = (std::cell::RefCell::new(BTreeSet::new()), std::cell::Cell::new(0));
    let go_on = || {
        let held: Vec<&Path> = calls.iter().copied().filter(|call| is_locked(call)).collect();
        most.set(most.get().max(held.len()));
        seen.borrow_mut().extend(held);
        Ok(())
    };
    write(&lab.out(), &lab.folder.path().join("kept"), &result, &Arguments::new(), &go_on).expect("written");
    assert_eq!(seen.borrow().len(), number);
    // What another test starts has one that was let go until it becomes its own program.
    assert!((LOCKED_AHEAD_MAX + 1..number).contains(&most.get()), "{} at once", most.get());
}

#[test]
fn nothing_is_copied_from_what_is_being_forgotten_and_what_nobody_can_lock_is_copied() {
    let lab = Lab::new();
    let session = "kept/sh/01a22857-1886-7071-832b-000000000001";
    let made = ["1", "2"].map(|call| lab.file(&format!("{session}/{call}/{call}.txt"), "abc"));
    let result = json!(made.each_ref().map(|path| json!({"path": path, "bytes": 3})));
    let going = made[1].parent().expect("a folder");
    let alone = DirectoryLock::try_acquire(going).expect("asked").expect("locked");
    let refused = lab.write(&result, &json!({})).expect_err("one is going");
    assert!(refused.contains("2 are being forgotten"), "{refused}");
    assert!(!lab.out().join("1.txt").exists(), "it is told before anything is copied");
    // Nor where it is too late to be told before.
    let held = locked(going).expect_err("it is going");
    assert!(matches!(held, Fault::Shown(report) if report.message.contains("being forgotten")));
    drop(alone);
    drop(lab.write(&result, &json!({})).expect("copied"));
    // Retention follows no link.
    let linked = lab.folder.path().join(session).join("3");
    std::os::unix::fs::symlink(going, &linked).expect("linked");
    let result = json!({"path": linked.join("2.txt"), "bytes": 3});
    drop(lab.write(&result, &json!({})).expect("copied"));
}
