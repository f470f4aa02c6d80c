//! Tests of what a sweep does at single moments, and how much of it in one turn.

use super::*;
use crate::payload::PendingPayload;
use crate::schema::Durability;
use std::fs::{self, File};

/// A body that nobody has used for a long time, out of sight as before its removal; its path, and who removes it.
fn hidden(data_dir: &Path) -> (Keeping, Connection, Hidden, PathBuf) {
    let connection = open_journal(data_dir, Durability::Process).expect("opens");
    let keeping = Keeping::new(data_dir, 30.0);
    let body = PendingPayload { hash: "a".repeat(64), content: b"body".to_vec() };
    keeping.payloads.ensure(&body).expect("written");
    let path = keeping.payloads.path(&body.hash);
    set_used(&path, SystemTime::now() - 2 * PAYLOAD_REST);
    let hidden = keeping.payloads.hide(&body.hash).expect("there");
    assert!(!path.exists());
    (keeping, connection, hidden, path)
}

fn set_used(path: &Path, at: SystemTime) {
    File::options().write(true).open(path).and_then(|file| file.set_modified(at)).expect("set");
}

fn is_back(keeping: &Keeping, path: &Path) -> bool {
    fs::read(path).is_ok_and(|content| content == b"body") && keeping.forgotten.files == 0
}

#[test]
fn a_hidden_body_that_nobody_uses_goes() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (mut keeping, connection, hidden, path) = hidden(dir.path());
    keeping.remove_hidden(&connection, &"a".repeat(64), &hidden).expect("removed");
    assert!(!path.exists() && !hidden.hidden.exists());
    assert_eq!((keeping.forgotten.files, keeping.forgotten.file_bytes), (1, 4));
}

#[test]
fn a_body_that_was_used_just_before_it_was_hidden_comes_back() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (mut keeping, connection, hidden, path) = hidden(dir.path());
    set_used(&hidden.hidden, SystemTime::now());
    keeping.remove_hidden(&connection, &"a".repeat(64), &hidden).expect("looked at");
    assert!(is_back(&keeping, &path));
}

/// Its commit waited for the disk for longer than a body is left alone.
#[test]
fn a_body_that_was_named_just_before_it_was_hidden_comes_back() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (mut keeping, connection, hidden, path) = hidden(dir.path());
    connection.pragma_update(None, "foreign_keys", false).expect("set");
    let name = "INSERT INTO results (job_id, payload_hash, bytes) VALUES ('j', ?1, 4)";
    connection.execute(name, ["a".repeat(64)]).expect("named");
    keeping.remove_hidden(&connection, &"a".repeat(64), &hidden).expect("looked at");
    assert!(is_back(&keeping, &path));
}

#[test]
fn a_hidden_body_comes_back_where_nobody_can_say_whether_it_is_named() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (mut keeping, connection, hidden, path) = hidden(dir.path());
    connection.execute_batch("DROP TABLE results").expect("dropped");
    keeping.remove_hidden(&connection, &"a".repeat(64), &hidden).expect_err("it cannot be read");
    assert!(is_back(&keeping, &path));
}

#[test]
fn a_sweep_that_fails_is_tried_again_after_a_pause() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let empty = Connection::open_in_memory().expect("opens");
    let mut keeping = Keeping::new(dir.path(), 30.0);
    let begun = Instant::now();
    keeping.turn_if_due(&empty);
    assert!(
        keeping.due >= begun + LOOK_INTERVAL,
        "it fails again and again, and each time a warning says so"
    );
    // One that goes on has its next turn soon.
    let connection = open_journal(dir.path(), Durability::Process).expect("opens");
    let mut keeping = Keeping::new(dir.path(), 30.0);
    keeping.turn_if_due(&connection);
    assert!(keeping.due < begun + LOOK_INTERVAL);
}

fn turns(keeping: &mut Keeping, connection: &Connection, mut after_each: impl FnMut(&Keeping)) {
    while !keeping.turn(connection).expect("works") {
        after_each(keeping);
    }
}

#[test]
fn a_sweep_looks_at_all_bodies_a_few_in_each_turn() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let connection = open_journal(dir.path(), Durability::Process).expect("opens");
    let mut keeping = Keeping::new(dir.path(), 30.0);
    let folder = dir.path().join("payloads");
    fs::create_dir_all(&folder).expect("made");
    let count = 2 * TURN_FILES + 1;
    for n in 0..count {
        let path = folder.join(format!("{n:064x}"));
        fs::write(&path, "body").expect("written");
        set_used(&path, SystemTime::now() - 2 * PAYLOAD_REST);
    }
    let mut before = 0;
    turns(&mut keeping, &connection, |keeping| {
        let gone = keeping.forgotten.files - before;
        assert!(gone <= TURN_FILES as u64, "{gone} in one turn");
        before = keeping.forgotten.files;
    });
    assert_eq!(keeping.forgotten.files, count as u64);
}

#[test]
fn hosts_and_workers_that_ended_go_a_few_in_each_turn() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let connection = open_journal(dir.path(), Durability::Process).expect("opens");
    let insert = "INSERT INTO workers (worker_session_id, host_session_id, instance_id, capability_name, pid, \
                  spawned_at, ended_at) VALUES (?1, 'h', 'i', 'c', 1, '2020', '2020')";
    let count = 2 * TURN_ROWS + 1;
    for n in 0..count {
        connection.execute(insert, [n]).expect("written");
    }
    let left = || -> i64 {
        connection.query_row("SELECT COUNT(*) FROM workers", [], |row| row.get(0)).expect("reads")
    };
    let mut before = count;
    turns(&mut Keeping::new(dir.path(), 30.0), &connection, |_| {
        assert!(before - left() <= TURN_ROWS, "{} in one turn", before - left());
        before = left();
    });
    assert_eq!(left(), 0);
}
