//! A data directory whose file system takes nothing for another reason than a lack of bytes: no inode is free, or it is
//! read-only. And what stands in the place of the host's own files. Each is told as what it is.

use cjm_tests::other_user::{give_away, is_root, run_without_rights, set_mode};
use cjm_tests::package::{world_with_uv, write_package};
use cjm_tests::repo;
use cjm_tests::small_disk::SmallDisk;
use cjm_tests::world::{COMMAND_MAX, Outcome, World, eventually, manifest};
use serde_json::json;
use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::Command;

/// Could not be written.
const STORE: u8 = 17;

fn with_tool(world: &World) {
    let small = json!({"argv": ["-c", "echo small"], "result": "stdout_text"});
    world.install_executable("tool", "/bin/sh", &json!({"small": small}));
}

/// A run of that tool, which anybody may read; its path.
fn write_composition(world: &World) -> String {
    let path = world.write("one.yaml", "name: one\nnodes:\n  a: {capability: tool, action: small}\n");
    set_mode(&path, 0o644);
    path.display().to_string()
}

fn call(world: &World) -> Outcome {
    world.run(&["call", "tool", "--action", "small"])
}

#[test]
fn a_disk_without_inodes_is_told_as_that() {
    // Of these, the world's folder and manifest take four.
    for inodes in 6..=10 {
        let world = World::new();
        let _disk = match SmallDisk::of(&world, &format!("size=20m,nr_inodes={inodes}")) {
            Ok(disk) => disk,
            Err(reason) => return repo::skip("a_disk_without_inodes_is_told_as_that", &reason),
        };
        with_tool(&world);
        let refused = call(&world).expect(STORE);
        assert!(refused.stderr.contains("no inode is free"), "{inodes}: {}", refused.describe());
        assert!(refused.stderr.contains("next: remove files"), "{inodes}: {}", refused.describe());
    }
}

#[test]
fn a_read_only_disk_is_told_as_that_by_whatever_writes() {
    let world = World::new();
    let _disk = match SmallDisk::of(&world, "size=20m") {
        Ok(disk) => disk,
        Err(reason) => return repo::skip("a_read_only_disk_is_told_as_that_by_whatever_writes", &reason),
    };
    with_tool(&world);
    let flow = "name: flow\nnodes:\n  one: {capability: tool, action: small}\n";
    world.write("flow.yaml", flow);
    world.write("capabilities.yaml", "capabilities: [{name: tool, manifest: data/manifests/tool.json}]\n");
    let read_only = |option: &str, data: bool| {
        let done = Command::new("mount").args(["-o", option]).arg(world.data_dir()).status();
        assert!(done.is_ok_and(|done| done.success()), "remounted, with a database in it: {data}");
    };
    for used in [false, true] {
        if used {
            let _ = call(&world).expect(0);
        }
        read_only("remount,ro", used);
        for arguments in [
            &["call", "tool", "--action", "small"][..],
            &["run", "flow.yaml"],
            &["set-secret", "tool", "KEY", "--value", "a secret value"],
            &["install-all"],
            &["remove", "tool", "--yes"],
        ] {
            let refused = world.run(arguments).expect(STORE);
            let words = refused.stderr.to_lowercase();
            assert!(words.contains("read-only"), "{used}: {}", refused.describe());
        }
        read_only("remount,rw", used);
    }
    let _ = call(&world).expect(0);
}

#[test]
fn a_journal_that_was_taken_away_is_named_and_nobody_is_sent_to_it() {
    let world = World::new();
    let (begun, go) = (world.file("begun"), world.file("go"));
    let script = format!("touch {}; until [ -e {} ]; do sleep 0.02; done", begun.display(), go.display());
    let action = json!({"argv": ["-c", script], "result": "stdout_text"});
    world.install_executable("tool", "/bin/sh", &json!({"small": action}));
    let path = write_composition(&world);
    for arguments in [&["call", "tool", "--action", "small"][..], &["run", &path]] {
        let _ = fs::remove_file(&begun);
        let _ = fs::remove_file(&go);
        let command = world.start(arguments);
        eventually("the program runs", COMMAND_MAX, || begun.exists().then_some(()));
        fs::remove_file(world.journal()).expect("removed");
        fs::write(&go, "").expect("written");
        let told = command.wait(COMMAND_MAX);
        assert!(told.code != Some(0), "{}", told.describe());
        assert!(told.stderr.contains("journal.db was removed, replaced or emptied"), "{}", told.describe());
        assert!(!told.stderr.contains("logs --journal"), "{}", told.describe());
    }
}

#[test]
fn a_damaged_journal_is_named_whatever_comes_upon_it_and_no_room_is_asked_for() {
    const PAGE: usize = 4096;
    let world = World::new();
    with_tool(&world);
    let _ = call(&world).expect(0);
    let whole = fs::read(world.journal()).expect("a journal");
    let mut refused = 0;
    for page in 1..whole.len() / PAGE {
        let mut damaged = whole.clone();
        damaged[page * PAGE..(page + 1) * PAGE].fill(0x55);
        fs::write(world.journal(), damaged).expect("written");
        let told = call(&world);
        // Not every page is read by a call.
        if told.code == Some(0) {
            continue;
        }
        refused += 1;
        assert!(
            told.stderr.contains(&format!("{}: database disk image is malformed", world.journal().display())),
            "{}",
            told.describe()
        );
        let step = "keep the file, restore a backup or move it away";
        assert!(told.stderr.contains(step) && !told.stderr.contains("free space"), "{}", told.describe());
    }
    assert!(refused > 10, "{refused}");
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let world = World::new();
    with_tool(&world);
    let folder = world.data_dir().join("data");
    fs::write(&folder, "a file").expect("written");
    let refused = call(&world).expect(1);
    let words = format!("cannot make {}\n", folder.display());
    assert!(refused.stderr.contains(&words), "{}", refused.describe());
}

#[test]
fn a_data_directory_of_somebody_else_is_told_as_that_by_every_command() {
    let world = World::new();
    with_tool(&world);
    let _ = call(&world).expect(0);
    let composition = write_composition(&world);
    let is_refused = |path: &Path| {
        set_mode(path, 0o000);
        for arguments in [
            &["list"][..],
            &["call", "tool", "--action", "small"],
            &["run", &composition],
            &["logs"],
            &["logs", "--journal"],
            &["status"],
            &["retention"],
            &["remove", "tool", "-y"],
            &["list-secrets", "tool"],
        ] {
            let refused = run_without_rights(&world, arguments).expect(STORE);
            let words = format!("error: this user may not read {}: ", path.display());
            assert!(refused.stderr.starts_with(&words), "{arguments:?}: {}", refused.describe());
            assert!(
                refused.stderr.contains(&format!("`namei -l {}`", path.display())),
                "{}",
                refused.describe()
            );
        }
    };
    // As it lies there once its files are used, and as a whole.
    set_mode(&world.data_dir(), 0o755);
    fs::write(world.data_dir().join("install.lock"), "").expect("written");
    for lock in ["host.lock", "tree.lock", "install.lock"] {
        let lock = world.data_dir().join(lock);
        is_refused(&lock);
        set_mode(&lock, 0o644);
    }
    is_refused(&world.data_dir());
    set_mode(&world.data_dir(), 0o700);
}

/// The commands that change something there, as they are given to one that is not writable.
fn commands_that_write(composition: &str) -> [Vec<&str>; 8] {
    [
        vec!["call", "tool", "--action", "small"],
        vec!["run", composition],
        vec!["set-secret", "tool", "KEY", "--value", "a secret value"],
        vec!["remove-secret", "tool", "KEY"],
        vec!["install-all"],
        vec!["regenerate-manifest", "tool"],
        vec!["remove", "tool", "-y"],
        vec!["retention"],
    ]
}

/// Whoever only looks is served; whoever changes something is told what may not be written, and by whom.
#[test]
fn a_data_directory_that_may_only_be_read_is_told_as_that_by_whatever_writes() {
    let world = World::new();
    with_tool(&world);
    let _ = call(&world).expect(0);
    let composition = write_composition(&world);
    fs::write(world.data_dir().join("install.lock"), "").expect("written");
    set_mode(&world.data_dir(), 0o755);
    for name in ["host.lock", "tree.lock", "install.lock", "journal.db", "diagnostics.db"] {
        set_mode(&world.data_dir().join(name), 0o644);
    }
    for arguments in [&["list"][..], &["status"], &["validate", &composition]] {
        let told = run_without_rights(&world, arguments).expect(0);
        assert!(!told.stderr.contains("error"), "{}", told.describe());
    }
    let is_refused = |path: &Path| {
        for arguments in commands_that_write(&composition) {
            let refused = run_without_rights(&world, &arguments).expect(STORE);
            let words = format!("error: this user may not write {}: Permission denied", path.display());
            assert!(refused.stderr.starts_with(&words), "{arguments:?}: {}", refused.describe());
            let step = format!("`namei -l {}`", path.display());
            assert!(refused.stderr.contains(&step), "{}", refused.describe());
        }
    };
    if is_root() {
        is_refused(&world.data_dir());
        set_mode(&world.data_dir(), 0o777);
    } else {
        set_mode(&world.data_dir(), 0o555);
        is_refused(&world.data_dir());
        set_mode(&world.data_dir(), 0o700);
    }
    for lock in ["host.lock", "tree.lock", "install.lock"] {
        let lock = world.data_dir().join(lock);
        set_mode(&lock, 0o444);
        is_refused(&lock);
        set_mode(&lock, 0o666);
    }
    set_mode(&world.data_dir(), 0o700);
}

/// Nothing waits for somebody who writes into it, and it is named as what it is.
#[test]
fn what_stands_in_the_place_of_a_lock_is_told_in_the_same_words_by_every_command() {
    let world = World::new();
    with_tool(&world);
    let _ = call(&world).expect(0);
    let composition = write_composition(&world);
    let looks = [vec!["list"], vec!["status"], vec!["logs"], vec!["list-secrets", "tool"]];
    for name in ["host.lock", "tree.lock", "install.lock"] {
        let lock = world.data_dir().join(name);
        let _ = fs::remove_file(&lock);
        assert!(Command::new("mkfifo").arg(&lock).status().is_ok_and(|made| made.success()));
        for arguments in commands_that_write(&composition).iter().chain(&looks) {
            let refused = world.run(arguments).expect(1);
            let words = format!("error: {} is a FIFO, not a regular file\n  next: remove it", lock.display());
            assert!(refused.stderr.starts_with(&words), "{arguments:?}: {}", refused.describe());
        }
        fs::remove_file(&lock).expect("it was made");
    }
}

#[test]
fn a_file_in_the_place_of_the_data_directory_is_told_in_the_same_words_by_every_command() {
    let world = World::new();
    let file = world.write("file", "").display().to_string();
    write_composition(&world);
    let looks = [vec!["list"], vec!["status"], vec!["logs"], vec!["list-secrets", "tool"]];
    for arguments in commands_that_write("one.yaml").iter().chain(&looks) {
        let mut command = Command::new(repo::binary("cjm-ctl"));
        command.args(["--data-dir", &file]).args(arguments);
        let refused = world.start_command(command).wait(COMMAND_MAX).expect(1);
        let words = format!("error: {file} is no directory, and so no data directory");
        assert!(refused.stderr.starts_with(&words), "{arguments:?}: {}", refused.describe());
    }
}

#[test]
fn status_and_validate_say_what_they_could_not_read() {
    let world = World::new();
    with_tool(&world);
    let _ = call(&world).expect(0);
    let whole = fs::read(world.journal()).expect("a journal");
    fs::write(world.journal(), vec![0x55; whole.len()]).expect("written");
    let told = world.run(&["status"]).expect(STORE);
    let words = format!("{}: file is not a database", world.journal().display());
    assert!(told.stdout.contains("no host uses") && told.stderr.contains(&words), "{}", told.describe());
    let document = world.run(&["status", "--json"]).expect(STORE).json();
    assert!(document["error"]["message"].as_str().is_some_and(|text| text.contains(&words)), "{document}");
    fs::write(world.journal(), whole).expect("written");
    let _ = world.run(&["status"]).expect(0);

    let project = world.file("project");
    let kept = ".cjm/manifests";
    for folder in ["source", "compositions", kept] {
        fs::create_dir_all(project.join(folder)).expect("made");
    }
    fs::write(
        project.join("compositions/one.yaml"),
        "name: one\nnodes:\n  a: {capability: tool, action: small}\n",
    )
    .expect("written");
    let (source, list) = (project.join("source"), project.join("other.yaml"));
    fs::write(&list, "capabilities: []\n").expect("written");
    let named = project.display().to_string();
    let validate = || run_without_rights(&world, &["validate", &named]);
    set_mode(&world.data_dir(), 0o755);
    let warned = |hidden: &Path, words: &str| {
        set_mode(hidden, 0o000);
        // Of what lies elsewhere only this machine lacks something.
        let told = validate().expect(u8::from(hidden.starts_with(&project)));
        assert!(told.stderr.contains(words), "{words}: {}", told.describe());
        set_mode(hidden, if hidden.is_dir() { 0o755 } else { 0o644 });
    };
    warned(&source, "project/source: what lies in it cannot be read: Permission denied");
    warned(
        &project.join(kept),
        &format!("project/{kept}: what lies in it cannot be read: Permission denied"),
    );
    warned(&list, &format!("{} cannot be opened: Permission denied", list.display()));
    warned(&world.data_dir().join("manifests"), "what is installed is not known");
    warned(&world.data_dir(), "what is installed is not known");
    set_mode(&world.data_dir(), 0o755);
    set_mode(&project, 0o000);
    let refused = validate().expect(1);
    assert!(refused.stderr.contains(&format!("error: cannot read: {named}")), "{}", refused.describe());
    set_mode(&project, 0o755);
    set_mode(&world.data_dir(), 0o700);
}

/// A tool that is there is not called unknown.
#[test]
fn a_directory_that_may_not_be_read_is_told_as_that_by_a_call() {
    let world = World::new();
    with_tool(&world);
    let manifests = world.data_dir().join("manifests");
    let check = |refused: &Outcome, why: &str| {
        let error = &refused.json()["error"];
        assert_eq!(error["code"], "host.manifests_unreadable", "{}", refused.describe());
        let message = error["message"].as_str().unwrap_or_default();
        let words = format!("cannot read {}: {why}", manifests.display());
        assert!(message.contains(&words), "{}", refused.describe());
        let step = error["next_step"].as_str().unwrap_or_default();
        assert!(step.contains(&format!("`namei -l {}`", manifests.display())), "{}", refused.describe());
    };
    let call = ["call", "tool", "--action", "small", "--json"];
    give_away(&world, &manifests);
    set_mode(&manifests, 0o000);
    check(&run_without_rights(&world, &call).expect(1), "Permission denied");
    set_mode(&manifests, 0o755);
    fs::rename(&manifests, world.data_dir().join("elsewhere")).expect("moved");
    fs::write(&manifests, "").expect("written");
    check(&world.run(&call).expect(1), "Not a directory");
}

/// What cannot be read may be the tool: nobody says that there is none.
#[test]
fn manifests_that_may_not_be_read_are_told_by_whoever_looks_for_a_tool() {
    let world = World::new();
    with_tool(&world);
    let small = json!({"small": {"argv": ["-c", "echo small"], "result": "stdout_text"}});
    world.install_executable("other", "/bin/sh", &small);
    let composition = write_composition(&world);
    world.write("capabilities.yaml", "capabilities: [{name: tool, manifest: tool.json}]\n");
    let manifests = world.data_dir().join("manifests");
    give_away(&world, &manifests);
    set_mode(&manifests, 0o755);
    let check = |hidden: &Path| {
        let is_told = |told: Outcome, words: &str| {
            assert!(
                !told.stderr.contains("no capability") && !told.stderr.contains("not installed"),
                "{told:?}"
            );
            let words = words.replace("HIDDEN", &hidden.display().to_string());
            let step = format!("(`namei -l {}` shows whose it is)", hidden.display());
            assert!(told.stderr.contains(&words) && told.stderr.contains(&step), "{}", told.describe());
            told
        };
        set_mode(hidden, 0o000);
        let words = "\"tool\" cannot be told: cannot read HIDDEN: Permission denied";
        for arguments in [
            &["call", "tool", "--action", "small"][..],
            &["run", &composition],
            &["set-secret", "tool", "KEY", "--value", "a secret value"],
            &["list-secrets", "tool"],
            &["regenerate-manifest", "tool"],
        ] {
            is_told(run_without_rights(&world, arguments).expect(1), words);
        }
        is_told(run_without_rights(&world, &["validate", &composition]).expect(0), words);
        let list = ["list", "--capabilities", "capabilities.yaml"];
        let listed =
            is_told(run_without_rights(&world, &list).expect(0), "HIDDEN: cannot be read: Permission");
        assert!(listed.stdout.contains("Perhaps not installed, but in"), "{}", listed.describe());
        assert!(!listed.stdout.contains("No capabilities found"), "{}", listed.describe());
        assert_eq!(listed.stdout.contains("other v"), hidden != manifests, "{}", listed.describe());
        let document = run_without_rights(&world, &[&list[..], &["--json"]].concat()).expect(0).json();
        let error = &document["not_installed"][0]["error"];
        assert_eq!(error["code"], "host.manifests_unreadable", "{document:#}");
        // What is kept for a tool is shown, whether it is there or not.
        let kept = ["set-secret", "tool", "KEY", "--value", "a secret value", "--force"];
        let noted = run_without_rights(&world, &kept).expect(0);
        assert!(!noted.stderr.contains("not installed"), "{}", noted.describe());
        let shown = is_told(run_without_rights(&world, &["list-secrets", "tool"]).expect(0), words);
        assert!(shown.stdout.contains("- KEY"), "{}", shown.describe());
        let _ = run_without_rights(&world, &["remove-secret", "tool", "KEY"]).expect(0);
        let folder = world.data_dir().display().to_string();
        is_told(run_without_rights(&world, &["validate", &folder]).expect(1), "HIDDEN");
        set_mode(hidden, if hidden.is_dir() { 0o755 } else { 0o644 });
    };
    check(&manifests);
    let manifest = manifests.join("tool.json");
    if is_root() {
        chown(&manifest, Some(0), Some(0)).expect("root may");
    }
    check(&manifest);
}

/// An environment that is hidden is not gone, and making it anew would mend nothing.
#[test]
fn environments_that_may_not_be_looked_at_are_told_as_that() {
    let world = World::new();
    let environments = world.data_dir().join("envs");
    fs::create_dir_all(environments.join("tool/bin")).expect("made");
    let python = environments.join("tool/bin/python");
    fs::write(&python, "").expect("written");
    let check = |installer: &str| {
        let install = json!({"python_path": python, "conda_env": "tool", "installer_version": installer});
        world.install("tool", &manifest("tool", &json!({"module": "m", "class": "C"}), &install));
        give_away(&world, &environments);
        set_mode(&environments, 0o000);
        for arguments in [&["call", "tool", "--action", "small"][..], &["list"]] {
            let told = run_without_rights(&world, arguments);
            let words =
                format!("\"tool\" cannot be called: this user may not look at {}", environments.display());
            assert!(told.stderr.contains(&words), "{installer}: {}", told.describe());
            assert!(
                told.stderr.contains("Permission denied") && told.stderr.contains("`namei -l "),
                "{told:?}"
            );
            assert!(!told.stderr.contains("install-all"), "{}", told.describe());
        }
        set_mode(&environments, 0o755);
    };
    check("");
    check("cjm-ctl 0.1.0");
}

#[test]
fn more_days_than_there_are_are_refused() {
    let world = World::new();
    with_tool(&world);
    let _ = call(&world).expect(0);
    for option in ["--jobs-max-age-days", "--max-age-days"] {
        for days in ["1e308", "1000001"] {
            let refused = world.run(&["retention", option, days]).expect(2);
            let words = format!("{option} is more than 1000000 days");
            assert!(refused.stderr.contains(&words), "{}", refused.describe());
        }
        let _ = world.run(&["retention", option, "1000000"]).expect(0);
    }
    let refused = world.run(&["retention", "--max-total-mb", "1e308"]).expect(2);
    assert!(refused.stderr.contains("or more than 1000000000"), "{}", refused.describe());
}

/// Whatever of an installation finds none, itself or a helper, says so.
#[test]
fn an_installation_that_finds_no_inode_says_so_at_each_of_its_steps() {
    const NAME: &str = "an_installation_that_finds_no_inode_says_so_at_each_of_its_steps";
    let Some(world) = world_with_uv(NAME) else { return };
    let _disk = match SmallDisk::of(&world, "size=200m,nr_inodes=3000") {
        Ok(disk) => disk,
        Err(reason) => return repo::skip(NAME, &reason),
    };
    write_package(&world.file(""), "tool-one");
    let entry = "{name: tool-one, package: ./tool-one, env_name: tool-one, python_version: \">=3.9\"}";
    world.write("capabilities.yaml", format!("capabilities: [{entry}]\n"));
    let filler = |number: usize| world.data_dir().join(format!("filler-{number}"));
    let mut taken = 0;
    let (mut by_us, mut by_helpers) = (0, 0);
    for free in [0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 128, 256, 512] {
        while fs::write(filler(taken), "").is_ok() {
            taken += 1;
        }
        for _ in 0..free {
            taken -= 1;
            fs::remove_file(filler(taken)).expect("it was made");
        }
        let outcome = world.run(&["install-all", "--json"]);
        if outcome.code == Some(0) {
            break;
        }
        let document = outcome.json();
        let error =
            if document["error"].is_object() { &document["error"] } else { &document["entries"][0]["error"] };
        let text = |key: &str| error[key].as_str().unwrap_or_default().to_owned();
        assert!(text("message").contains("no inode is free"), "{free}: {}", outcome.describe());
        assert!(text("next_step").contains("`df -i` counts"), "{free}: {}", outcome.describe());
        assert_eq!(outcome.code, Some(STORE.into()), "{free}: {}", outcome.describe());
        *(if error["stderr_tail"].as_array().is_some_and(|tail| !tail.is_empty()) {
            &mut by_helpers
        } else {
            &mut by_us
        }) += 1;
    }
    assert!(by_us > 0 && by_helpers > 0, "{by_us} by the installation, {by_helpers} by its helpers");
    let _ = world.run(&["call", "tool-one", "--action", "who"]).expect(0);
}

/// Whatever of a call finds no inode, host or worker, says so: each number of free ones ends another step.
#[test]
fn a_call_that_finds_no_inode_for_its_directory_says_so() {
    let world = World::new();
    let _disk = match SmallDisk::of(&world, "size=20m,nr_inodes=100") {
        Ok(disk) => disk,
        Err(reason) => {
            return repo::skip("a_call_that_finds_no_inode_for_its_directory_says_so", &reason);
        }
    };
    with_tool(&world);
    let _ = call(&world).expect(0);
    let filler = |number: u32| world.data_dir().join(format!("filler-{number}"));
    let taken = (0..).take_while(|number| fs::write(filler(*number), "").is_ok()).count();
    let taken = u32::try_from(taken).expect("a hundred at most");
    let mut by_workers = 0;
    for free in 0..taken {
        let outcome = world.run(&["call", "tool", "--action", "small", "--json"]);
        if outcome.code == Some(0) {
            break;
        }
        let error = &outcome.json()["error"];
        let text = |key: &str| error[key].as_str().unwrap_or_default().to_owned();
        assert!(text("message").contains("no inode is free"), "{free}: {}", outcome.describe());
        assert!(text("next_step").contains("`df -i` counts"), "{free}: {}", outcome.describe());
        assert_eq!(outcome.code, Some(STORE.into()), "{free}: {}", outcome.describe());
        if error["code"] == "call.not_begun" {
            by_workers += 1;
            assert_eq!(error["category"], "resource", "{error}");
            assert_eq!(error["resource_shortfall"]["resource"], "disk_mb", "{error}");
        }
        fs::remove_file(filler(taken - 1 - free)).expect("it was made");
    }
    assert!(by_workers > 0, "no number of free inodes led to a worker that had none");
    let _ = call(&world).expect(0);
}
