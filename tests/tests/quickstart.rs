//! `scripts/quickstart` from a folder that holds nothing but the repository's files: twice, the second time without
//! a network. The binaries are those of this build; `scripts/test` plays it once more with the script's own build.

use cjm_platform::runtime_dir::effective_uid;
use cjm_tests::repo;
use cjm_tests::world::{COMMAND_MAX, Outcome, World, write_script};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// The second run has to be this quick.
const SECOND_RUN_MAX: Duration = Duration::from_secs(15);
const RIGHT: &str = "8 of 8 voices right, the noise recognised as no speech.";

#[test]
fn the_quickstart_ends_well_and_a_second_time_fast_without_a_network() {
    let mut world = World::new();
    // Spares each run a download; without it the script makes its own.
    let _ = world.offer_uv();
    let clone = world.file("clone");
    copy_repository(&clone);
    let binaries = repo::binary("cjm-ctl").parent().expect("a folder").display().to_string();
    world.set("CJM_BIN_DIR", binaries);
    let script = clone.join("scripts/quickstart").display().to_string();

    let first = world.start_command(Command::new(&script)).wait(COMMAND_MAX).expect(0);
    check(&first);

    let mut again = Command::new(&script);
    if effective_uid() == 0 {
        again = Command::new("unshare");
        again.args(["--net", "sh", "-c", "ip link set lo up && exec \"$0\"", &script]);
    } else {
        repo::skip("the second quickstart without a network", "only root can take the network away");
    }
    let second = world.start_command(again).wait(COMMAND_MAX).expect(0);
    check(&second);
    repo::measured(&format!(
        "second quickstart without a network: {:?}, goal {SECOND_RUN_MAX:?}",
        second.elapsed
    ));
    assert!(second.elapsed < SECOND_RUN_MAX, "{}", second.describe());
    world.assert_nothing_left();
}

/// Stands for cargo: three crates, of which the second has a build script and the third does not compile.
const CARGO: &str = r#"#!/bin/sh
case $1 in
    tree) printf 'one v1.0.0\ntwo v2.0.0\nthree v3.0.0\n\none v1.0.0 (*)\n' ;;
    build)
        echo '{"reason":"compiler-artifact","package_id":"registry#one@1.0.0","target":{"kind":["lib"]}}'
        echo '{"reason":"compiler-artifact","package_id":"registry#two@2.0.0","target":{"kind":["custom-build"]}}'
        echo '{"reason":"build-script-executed","package_id":"registry#two@2.0.0"}'
        echo '{"reason":"compiler-artifact","package_id":"registry#two@2.0.0","target":{"kind":["lib"]}}'
        echo 'error[E0308]: mismatched types' >&2
        echo '  --> three/src/lib.rs:7:9' >&2
        echo 'error: could not compile `three` (lib) due to 1 previous error' >&2
        exit 101 ;;
esac
"#;
const ERROR: [&str; 3] = [
    "error[E0308]: mismatched types",
    "  --> three/src/lib.rs:7:9",
    "error: could not compile `three` (lib) due to 1 previous error",
];

#[test]
fn a_build_is_one_line_that_moves_and_a_failing_one_shows_all_that_cargo_said() {
    let mut world = World::new();
    let bin = world.file("bin");
    std::fs::create_dir_all(&bin).expect("a folder");
    write_script(&bin.join("cargo"), CARGO);
    world.set("PATH", format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default()));
    world.set("CJM_DATA_DIR", world.file("data").display().to_string());
    world.set("CARGO_TARGET_DIR", world.file("target").display().to_string());
    let script = repo::root().join("scripts/quickstart").display().to_string();

    let plain = world.start_command(Command::new(&script)).wait(COMMAND_MAX).expect(1);
    let lines: Vec<&str> = plain.stderr.lines().filter(|line| !line.is_empty()).collect();
    let build = lines.iter().position(|line| line.contains("[2/4]")).expect("the phase's title");
    let said = ["fetching crates", "building 3 crates"].iter().chain(&ERROR).copied();
    assert!(lines[build..].join("\n").contains(&said.collect::<Vec<_>>().join("\n")), "{}", plain.describe());
    assert!(!plain.stderr.contains('\r') && !plain.stderr.contains('\u{1b}'), "{}", plain.describe());

    let mut on_terminal = Command::new("script");
    on_terminal.args(["--quiet", "--return", "--command", &script, "/dev/null"]);
    let shown = world.start_command(on_terminal).wait(COMMAND_MAX).expect(1);
    let moving = "\r\u{1b}[Kbuilding: 2 of 3 crates, ";
    assert!(shown.stdout.contains(moving), "{}", shown.describe());
    for line in ERROR {
        assert!(shown.stdout.contains(&format!("{line}\r\n")), "{line}\n{}", shown.describe());
    }
    world.assert_nothing_left();
}

#[track_caller]
fn check(outcome: &Outcome) {
    assert!(outcome.stdout.contains(RIGHT), "{}", outcome.describe());
    for part in
        ["16 of 16 sentences right, ", "sentence-splitter used numpy 2.", "speech-detector used numpy "]
    {
        assert!(outcome.stdout.contains(part), "{part}\n{}", outcome.describe());
    }
    for part in [
        "What was recognised",
        "What was read on page.png",
        "A search over it",
        "What each step took",
        "Try next",
    ] {
        assert!(outcome.stdout.contains(part), "{part}\n{}", outcome.describe());
    }
    let last = outcome.stderr.lines().last().unwrap_or_default();
    let phases: Vec<&str> = last.split(", ").filter_map(|part| part.split(' ').next()).collect();
    assert_eq!(phases[..4], ["packages", "build", "tools", "run"], "{}", outcome.describe());
    assert!(last.ends_with(" s in all."), "{}", outcome.describe());
}

/// What a clone would hold: files under version control, and new ones that are not ignored.
fn copy_repository(target: &Path) {
    std::fs::create_dir_all(target).expect("a folder");
    let listed = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(repo::root())
        .output()
        .expect("git runs");
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    for name in String::from_utf8_lossy(&listed.stdout).split('\0').filter(|name| !name.is_empty()) {
        let (from, to) = (repo::root().join(name), target.join(name));
        // A file that was deleted and not yet committed is still listed.
        if from.is_file() {
            std::fs::create_dir_all(to.parent().expect("a folder")).expect("a folder");
            std::fs::copy(&from, &to).unwrap_or_else(|e| panic!("{name}: {e}"));
        }
    }
}
