//! What stands in the place of the journal's own files and folders, and is none of them.

use cjm_tests::world::{Outcome, World};
use serde_json::json;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

/// Could not be read or written.
const STORE: u8 = 17;

fn call(world: &World) -> Outcome {
    world.run(&["call", "tool", "--action", "small"])
}

#[test]
fn a_journal_that_is_a_link_is_neither_written_nor_read() {
    let world = World::new();
    let small = json!({"argv": ["-c", "echo small"], "result": "stdout_text"});
    world.install_executable("tool", "/bin/sh", &json!({"small": small}));
    let _ = call(&world).expect(0);
    let elsewhere = world.data_dir().parent().expect("a folder").join("elsewhere.db");
    fs::rename(world.journal(), &elsewhere).expect("moved");
    symlink(&elsewhere, world.journal()).expect("linked");
    for arguments in [
        &["call", "tool", "--action", "small"][..],
        &["logs", "--journal"],
        &["retention", "--jobs-max-age-days", "1"],
    ] {
        let refused = world.run(arguments).expect(STORE);
        let words =
            "journal.db: it is not a regular file\n  next: move it away, or put the file itself there";
        assert!(refused.stderr.contains(words), "{}", refused.describe());
    }
}

/// Before anything has run: its result could not be kept.
#[test]
fn what_stands_in_the_place_of_the_log_or_of_large_bodies_is_told_in_the_same_words_by_every_command() {
    let world = World::new();
    let ran = world.file("ran");
    let action = json!({"argv": ["-c", format!("touch {}", ran.display())], "result": "stdout_text"});
    world.install_executable("tool", "/bin/sh", &json!({"small": action}));
    let _ = call(&world).expect(0);
    world.write("one.yaml", "name: one\nnodes:\n  a: {capability: tool, action: small}\n");
    let elsewhere = world.write("elsewhere", "");
    let make = |kind: &str, path: &Path| match kind {
        "folder" => fs::create_dir(path).expect("made"),
        "link" => symlink(&elsewhere, path).expect("linked"),
        "file" => fs::write(path, "").expect("written"),
        _ => assert!(Command::new("mkfifo").arg(path).status().is_ok_and(|made| made.success())),
    };
    let log = "it is not a regular file\n  next: move it away, or put the file itself there";
    let bodies = "it is not a folder\n  next: move it away; the folder is made again";
    for (name, kind, words) in [
        ("journal.db-wal", "folder", log),
        ("journal.db-wal", "FIFO", log),
        ("journal.db-wal", "link", log),
        ("journal.db-journal", "FIFO", log),
        ("journal.db-journal", "folder", log),
        ("payloads", "file", bodies),
        ("payloads", "FIFO", bodies),
        ("payloads", "link", bodies),
    ] {
        let path = world.data_dir().join(name);
        let _ = fs::remove_dir(&path);
        make(kind, &path);
        let _ = fs::remove_file(&ran);
        for arguments in [
            &["call", "tool", "--action", "small"][..],
            &["run", "one.yaml"],
            &["status"],
            &["logs", "--capability", "tool"],
            &["logs", "--journal"],
            &["retention", "--jobs-max-age-days", "1"],
        ] {
            let refused = world.run(arguments).expect(STORE);
            let words = format!("{}: {words}", path.display());
            assert!(refused.stderr.contains(&words), "{kind}: {}", refused.describe());
        }
        assert!(!ran.exists(), "{name}: {kind}");
        let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir(&path));
    }
    let bodies = world.file("bodies");
    fs::create_dir(&bodies).expect("made");
    symlink(&bodies, world.data_dir().join("payloads")).expect("linked");
    let _ = call(&world).expect(0);
}
