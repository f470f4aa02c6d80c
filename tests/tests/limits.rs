//! Limits of the system, which a shell or a container sets: a command that runs into one says which and what to do, and
//! dies neither of a panic nor of a signal; the umask closes no data directory to its owner.

use cjm_tests::repo;
use cjm_tests::world::{COMMAND_MAX, Outcome, World};
use cjm_wire::describe::exit;
use serde_json::json;
use std::process::Command;
use std::time::{Duration, Instant};

fn world() -> World {
    let world = World::new();
    world.install_executable(
        "shell",
        "sh",
        &json!({
            "say": {"argv": ["-c", "echo hi"], "result": "stdout_text"},
            "fill": {"argv": ["-c", "head -c 1000000 /dev/zero > big; echo $?"], "result": "stdout_text"},
        }),
    );
    world
}

/// `cjm-ctl` after `set`, in words of the shell.
fn under(world: &World, set: &str, arguments: &[&str]) -> Outcome {
    let mut command = Command::new("bash");
    command.args(["-c", &format!("{set}; exec \"$@\""), "bash"]).arg(repo::binary("cjm-ctl"));
    command.arg("--data-dir").arg(world.data_dir()).args(arguments);
    world.start_command(command).wait(COMMAND_MAX)
}

const CALL: [&str; 5] = ["call", "shell", "--action", "say", "-r"];

#[test]
fn too_few_open_files_are_told_as_that_wherever_they_run_out() {
    let world = world();
    for limit in 5..32 {
        let ended = under(&world, &format!("ulimit -n {limit}"), &CALL);
        let code = ended.code.unwrap_or_else(|| panic!("a signal: {}", ended.describe()));
        assert_ne!(code, 101, "a panic: {}", ended.describe());
        assert!(!ended.stderr.contains("panicked"), "{}", ended.describe());
        if code != 0 {
            assert!(ended.stderr.contains("ulimit -n"), "{}", ended.describe());
        }
    }
    world.assert_nothing_left();
    assert_eq!(world.run(&CALL).expect(exit::OK).stdout, "hi\n");
    // Those that only read a database, which does not say what it could not open its files for.
    for limit in 5..20 {
        for reads in [&["logs", "--journal"][..], &["status"]] {
            let ended = under(&world, &format!("ulimit -n {limit}"), reads);
            let is_told =
                ended.code == Some(0) || ended.stderr.contains("next: raise the limit on open files");
            assert!(is_told, "{limit}: {}", ended.describe());
        }
    }
}

#[test]
fn a_limit_on_the_size_of_files_is_an_error_and_a_tools_own_matter() {
    let world = world();
    for limit in [8, 30, 60, 100, 200] {
        let ended = under(&world, &format!("ulimit -f {limit}"), &CALL);
        assert!(!ended.stderr.contains("no room"), "the disk has: {}", ended.describe());
        assert!(ended.code.is_some(), "by a signal: {}", ended.describe());
        if ended.code != Some(0) {
            assert_eq!(ended.code, Some(i32::from(exit::STORE)), "{}", ended.describe());
            assert!(ended.stderr.contains("ulimit -f"), "{}", ended.describe());
        }
    }
    world.assert_nothing_left();
    // 128 + SIGXFSZ: the signal kills a program of a tool as it does in a shell.
    let _ = world.run(&CALL).expect(exit::OK);
    let fill = ["call", "shell", "--action", "fill", "-r"];
    let filled = under(&world, "ulimit -f 900", &fill).expect(exit::OK);
    assert_eq!(filled.stdout, "153\n", "{}", filled.describe());
}

#[test]
fn too_little_memory_for_threads_is_told_before_they_are_started() {
    let world = world();
    // As much as the program itself needs to be loaded, and more until all of it fits.
    let mut refused = 0;
    for megabytes in (150..1_700).step_by(125) {
        let ended = under(&world, &format!("ulimit -v {}", megabytes * 1024), &CALL);
        let code = ended.code.unwrap_or_else(|| panic!("by a signal: {}", ended.describe()));
        assert!(code != 101 && ended.elapsed.as_secs() < 60, "{}", ended.describe());
        if code != 0 {
            refused += 1;
            assert!(ended.stderr.contains("ulimit -v"), "{}", ended.describe());
        }
    }
    assert!((1..11).contains(&refused), "some are too few, and some are enough: {refused}");
    world.assert_nothing_left();
    let _ = world.run(&CALL).expect(exit::OK);
}

#[test]
fn a_small_stack_is_enough() {
    let world = world();
    let ended = under(&world, "ulimit -s 256", &CALL).expect(exit::OK);
    assert_eq!(ended.stdout, "hi\n");
    world.assert_nothing_left();
}

#[test]
fn a_umask_closes_nothing_to_its_owner() {
    for umask in ["777", "700", "000"] {
        let world = World::new();
        std::fs::remove_dir_all(world.data_dir()).expect("removed");
        let list = under(&world, &format!("umask {umask}"), &["retention", "--jobs-max-age-days", "1"]);
        assert!(list.code.is_some_and(|code| code <= 1), "{}", list.describe());
        std::fs::create_dir_all(world.data_dir().join("manifests")).expect("made");
        world.install_executable(
            "shell",
            "sh",
            &json!({"say": {"argv": ["-c", "umask; echo hi > f; cat f"], "result": "stdout_text"}}),
        );
        let call = under(&world, &format!("umask {umask}"), &CALL).expect(exit::OK);
        assert!(call.stdout.ends_with("hi\n"), "{}", call.describe());
        let again = under(&world, &format!("umask {umask}"), &CALL).expect(exit::OK);
        assert!(again.stdout.ends_with("hi\n"), "{}", again.describe());
        assert_modes(&world.data_dir());
    }
}

/// Whatever lies in the data directory is open to its owner: root, who may run this test, would not notice else.
fn assert_modes(folder: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt;
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let meta = std::fs::symlink_metadata(&path).expect("there");
        let wanted = if meta.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(meta.permissions().mode() & wanted, wanted, "{}", path.display());
        if meta.is_dir() {
            assert_modes(&path);
        }
    }
}

/// Its content names what is kept of a call, so it is read before the tool is called: nobody waits for that beyond their time.
#[test]
fn a_call_whose_input_takes_long_to_read_ends_in_its_time() {
    let world = World::new();
    let input = json!({"type": "input_file", "required": true});
    let action = json!({"argv": ["-c", "true"], "parameters": {"f": input}, "outputs": {"o": "{cache_dir}/o"}, "result": "files"});
    world.install_executable("shell", "sh", &json!({"kept": action}));
    let large = world.write("large", "");
    // Without content it takes no room, and minutes to be read.
    std::fs::File::options().write(true).open(&large).expect("opened").set_len(1 << 40).expect("made large");
    let begun = Instant::now();
    let ended = world.run(&["call", "shell", "--timeout", "1", &format!("f={}", large.display())]);
    let ended = ended.expect(exit::TIMED_OUT);
    assert!(begun.elapsed() < Duration::from_secs(30), "{}", ended.describe());
    world.assert_nothing_left();
}
