//! The second year: `cjm-ctl retention` moves old rows of the journal away and forgets old jobs, and `logs` tells the same
//! story as before.

use cjm_tests::journal;
use cjm_tests::other_user::{give_away, run_without_rights, set_mode};
use cjm_tests::world::World;
use serde_json::{Value, json};

fn world() -> World {
    let world = World::new();
    let actions = json!({"echo": {
        "parameters": {"text": {"type": "string", "required": true}},
        "argv": ["{text}"], "result": "stdout_text",
    }});
    world.install_executable("echo", "echo", &actions);
    world
}

fn told(world: &World) -> Value {
    world.json(&["logs", "--journal", "--json", "-n", "0"])
}

#[test]
fn what_was_moved_into_an_archive_is_told_as_before() {
    let world = world();
    let _ = world.run(&["call", "echo", "text=first"]).expect(0);
    let before = told(&world);
    let moved = world.json(&["retention", "--archive-journal", "0s", "--json"]);
    let rows = before.as_array().expect("rows").len();
    assert_eq!(moved["journal_rows_archived"], rows, "{moved}");
    assert!(moved["records_deleted"].is_null(), "records and output are left alone: {moved}");
    assert_eq!(journal::rows(&world.journal()).len(), 0, "the journal's own file");
    let archive = moved["archive"].as_str().expect("a file").to_owned();
    assert_eq!(journal::rows(archive.as_ref()).len(), rows, "the ancestor's table, in the archive");
    assert_eq!(told(&world), before);
    let again = world.json(&["retention", "--archive-journal", "0s", "--json"]);
    assert_eq!((&again["journal_rows_archived"], &again["archive"]), (&json!(0), &Value::Null), "{again}");

    // A later call goes on from there: no place is given twice.
    let _ = world.run(&["call", "echo", "text=second"]).expect(0);
    let after = told(&world);
    let (after, before) = (after.as_array().expect("rows"), before.as_array().expect("rows"));
    assert_eq!(&after[..rows], &before[..]);
    let places: Vec<i64> = after.iter().filter_map(|row| row["seq"].as_i64()).collect();
    assert!(places.len() == after.len() && places.windows(2).all(|pair| pair[0] < pair[1]), "{places:?}");
    let job = before.iter().find_map(|row| row["job_id"].as_str()).expect("a job");
    let shown = world.run(&["logs", "--journal", "--job", job]);
    assert!(shown.expect(0).stdout.contains("completed"), "a job of the archive is found by its id");
}

#[test]
fn old_jobs_are_forgotten_on_request_and_their_rows_stay() {
    let world = world();
    let _ = world.run(&["call", "echo", "text=first"]).expect(0);
    let before = told(&world);
    let kept = world.json(&["retention", "--jobs-max-age-days", "1", "--json"]);
    assert_eq!(kept["jobs_deleted"], 0, "{kept}");
    let gone = world.json(&["retention", "--jobs-max-age-days", "0.0000001", "--json"]);
    assert_eq!(gone["jobs_deleted"], 1, "{gone}");
    assert_eq!(told(&world), before);
}

#[test]
fn what_old_directories_of_calls_cannot_be_looked_into_are_named() {
    let world = world();
    let _ = world.run(&["call", "echo", "text=first"]).expect(0);
    let kept = world.data_dir().join("data/echo");
    std::fs::create_dir_all(kept.join("work")).expect("made");
    give_away(&world, &world.data_dir().join("manifests"));
    set_mode(&kept, 0o000);
    let retention = ["retention", "--jobs-max-age-days", "0.0000001"];
    let told = run_without_rights(&world, &retention).expect(0);
    let words = format!("{} stays: it cannot be looked into: Permission denied", kept.join("work").display());
    assert!(told.stdout.contains(&words), "{}", told.describe());
    set_mode(&kept, 0o700);
    let told = run_without_rights(&world, &retention).expect(0);
    assert!(!told.stdout.contains("stays: it"), "{}", told.describe());
}

#[test]
fn a_project_says_in_cjm_yaml_how_long_jobs_are_kept() {
    let world = world();
    let settings =
        |days: &str| world.write("cjm.yaml", format!("substrate: {{jobs_retention_days: {days}}}\n"));
    let jobs = || {
        let connection = rusqlite::Connection::open(world.journal()).expect("opens");
        connection.query_row("SELECT count(*) FROM jobs", [], |row| row.get::<_, i64>(0)).expect("counts")
    };
    let path = settings("0").display().to_string();
    let _ = world.run(&["call", "echo", "text=first", "--cjm-config", &path]).expect(0);
    let _ = world.run(&["call", "echo", "text=second", "--cjm-config", &path]).expect(0);
    assert_eq!(jobs(), 2, "0 keeps them for ever");
    settings("0.0000001");
    let _ = world.run(&["call", "echo", "text=third", "--cjm-config", &path]).expect(0);
    assert!(jobs() < 3, "older than a hundredth of a second is old");
}

#[test]
fn a_time_that_is_none_is_refused_and_nothing_is_moved() {
    let world = world();
    let _ = world.run(&["call", "echo", "text=first"]).expect(0);
    let rows = journal::rows(&world.journal()).len();
    for wrong in [
        ["--archive-journal", "yesterday"],
        ["--jobs-max-age-days", "nan"],
        ["--jobs-max-age-days", "0"],
        ["--max-total-mb", "-1"],
        ["--max-total-mb", "0.05"],
    ] {
        let refused = world.run(&["retention", wrong[0], wrong[1]]).expect(2);
        assert!(
            refused.stderr.contains(wrong[0]) && refused.stderr.contains("next:"),
            "{}",
            refused.describe()
        );
    }
    assert_eq!(journal::rows(&world.journal()).len(), rows);
    // By hand as by a host: 500 MB, and 0 days are for ever.
    let kept = world.json(&["retention", "--max-age-days", "0", "--json"]);
    assert_eq!((&kept["max_age_days"], &kept["max_total_mb"]), (&Value::Null, &500.0.into()), "{kept}");
    assert!(kept["free_bytes"].as_u64() <= kept["file_bytes_before"].as_u64(), "{kept}");
    let told = world.run(&["retention"]).expect(0);
    assert!(told.stdout.contains("MB in it are free for new records"), "{}", told.describe());
}

#[test]
fn an_archive_that_cannot_be_read_is_told_and_hides_no_other_row() {
    let world = world();
    let _ = world.run(&["call", "echo", "text=first"]).expect(0);
    let rows = journal::rows(&world.journal()).len();
    let folder = world.data_dir().join("archives");
    std::fs::create_dir(&folder).expect("made");
    std::fs::write(folder.join("journal-before-20200101T000000.db"), "no database").expect("written");
    let shown = world.run(&["logs", "--journal", "--json", "-n", "0"]).expect(17);
    let told: Value = serde_json::from_str(&shown.stdout).expect("one document");
    assert_eq!(told.as_array().map(Vec::len), Some(rows), "{}", shown.describe());
    assert!(
        shown.stderr.contains("20200101T000000") && shown.stderr.contains("next:"),
        "{}",
        shown.describe()
    );
}

/// The only file below `archives/`.
fn archive_of(world: &World) -> std::path::PathBuf {
    let folder = std::fs::read_dir(world.data_dir().join("archives")).expect("archives");
    let is_archive = |path: &std::path::PathBuf| path.extension().is_some_and(|ending| ending == "db");
    folder.map(|file| file.expect("a file").path()).find(is_archive).expect("an archive")
}

#[test]
fn what_may_stand_in_an_archive_that_cannot_be_read_is_not_called_unknown() {
    let world = world();
    let _ = world.run(&["call", "echo", "text=first"]).expect(0);
    let rows = journal::rows(&world.journal());
    let job = rows.iter().find_map(|row| row.job_id.clone()).expect("a job");
    let session = rows.iter().find_map(|row| row.worker.clone()).expect("a worker");
    let _ = world.run(&["retention", "--archive-journal", "0s"]).expect(0);
    let archive = archive_of(&world);
    std::fs::write(&archive, "garbage").expect("damaged");
    let name = archive.file_name().expect("a name").to_string_lossy();
    for (option, value) in [
        ("--job", job.as_str()),
        ("--session", &session),
        ("--run", "0190aaaa"),
        ("--capability", "echo"),
        ("--node", "each"),
    ] {
        for more in [&["--journal"][..], &["--journal", "--json"]] {
            let told = world.run(&[&["logs", option, value], more].concat()).expect(17);
            let said = format!("{}{}", told.stdout, told.stderr);
            assert!(said.contains(&*name) && !said.contains("did you mean"), "{option}: {}", told.describe());
        }
    }
    for view in [&["logs", "--capability", "echo"][..], &["logs", "--chunks", "--capability", "echo"]] {
        let told = world.run(view).expect(17);
        assert!(told.stderr.contains(&*name), "{}", told.describe());
    }
}

/// Of two workers' output, the rows that say whose it is stand half in the archive.
#[test]
fn output_whose_tool_stands_in_an_archive_that_cannot_be_read_is_told_to_be_missing() {
    let world = world();
    let _ = world.run(&["call", "echo", "text=first"]).expect(0);
    let _ = world.run(&["retention", "--archive-journal", "0s"]).expect(0);
    let _ = world.run(&["call", "echo", "text=second"]).expect(0);
    let archive = archive_of(&world);
    std::fs::write(&archive, "garbage").expect("damaged");
    let told = world.run(&["logs", "--chunks", "--capability", "echo"]).expect(17);
    assert!(told.stderr.contains("whose this is"), "{}", told.describe());
    let _ = world.run(&["logs", "--chunks"]).expect(0);
}

#[test]
fn where_the_journal_is_gone_its_archives_are_read_and_it_is_named() {
    let world = world();
    let _ = world.run(&["call", "echo", "text=first"]).expect(0);
    let before = told(&world).as_array().map(Vec::len);
    let _ = world.run(&["retention", "--archive-journal", "0s"]).expect(0);
    for gone in [true, false] {
        for ending in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(world.data_dir().join(format!("journal.db{ending}")));
        }
        if !gone {
            std::fs::write(world.journal(), "").expect("written");
        }
        let shown = world.run(&["logs", "--journal", "--json", "-n", "0"]).expect(17);
        let rows: Value = serde_json::from_str(&shown.stdout).expect("one document");
        assert_eq!(rows.as_array().map(Vec::len), before, "{}", shown.describe());
        assert!(shown.stderr.contains("journal.db is missing or empty"), "{}", shown.describe());
        let refused = world.run(&["retention", "--archive-journal", "0s"]).expect(17);
        assert!(refused.stderr.contains("journal.db is missing or empty"), "{}", refused.describe());
    }
    // The next call begins another one: that rows are missing is told as before, and no archive hides it.
    let _ = world.run(&["call", "echo", "text=second"]).expect(0);
    for command in [&["logs", "--journal"][..], &["retention", "--archive-journal", "0s"]] {
        let told = world.run(command).expect(17);
        let words = "journal.db is not the one whose rows stand in `archives`";
        assert!(told.stderr.contains(words), "{}", told.describe());
    }
}

#[test]
fn a_move_that_is_killed_at_any_instant_hides_no_row() {
    let world = world();
    let _ = world.run(&["call", "echo", "text=first"]).expect(0);
    let before = told(&world);
    for round in 0..12 {
        let moving = world.start(&["retention", "--archive-journal", "0s"]);
        std::thread::sleep(std::time::Duration::from_millis(3 * round));
        moving.signal(cjm_platform::process::Signal::KILL);
        let _ = moving.wait(std::time::Duration::from_secs(20));
        assert_eq!(told(&world), before, "killed after {} ms", 3 * round);
    }
    let _ = world.run(&["retention", "--archive-journal", "0s"]).expect(0);
    assert_eq!(told(&world), before);
    assert_eq!(journal::rows(&world.journal()).len(), 0);
}

#[test]
fn an_odd_row_of_an_archive_takes_none_of_the_journal_away() {
    let world = world();
    let _ = world.run(&["call", "echo", "text=first"]).expect(0);
    let _ = world.run(&["retention", "--archive-journal", "0s"]).expect(0);
    let _ = world.run(&["call", "echo", "text=second"]).expect(0);
    let live = journal::rows(&world.journal()).len();
    let archive = archive_of(&world);
    let damaged = rusqlite::Connection::open(&archive).expect("opens");
    damaged
        .execute("UPDATE journal SET ts = x'ff' WHERE seq = (SELECT min(seq) FROM journal)", [])
        .expect("updated");
    drop(damaged);
    for emptied in [false, true] {
        if emptied {
            std::fs::write(&archive, "").expect("emptied");
        }
        let shown = world.run(&["logs", "--journal", "--json", "-n", "0"]).expect(17);
        let told: Value = serde_json::from_str(&shown.stdout).expect("one document");
        assert!(told.as_array().is_some_and(|rows| rows.len() >= live), "{}", shown.describe());
        let name = archive.file_name().expect("a name").to_string_lossy();
        assert!(shown.stderr.contains(&*name) && shown.stderr.contains("next:"), "{}", shown.describe());
    }
}

#[test]
fn a_journal_of_which_a_row_cannot_be_read_is_told_in_one_document() {
    let world = world();
    let _ = world.run(&["call", "echo", "text=first"]).expect(0);
    let filler = json!({"text": "x".repeat(300)});
    let rows = (0..4000).map(|_| {
        let payload = filler.as_object().cloned().expect("an object");
        cjm_wire::event::JournalRow::new(cjm_wire::event::EventType::SecretSet, payload)
    });
    assert!(cjm_store::note_command(&world.data_dir(), rows.collect()).expect("rows are written"));
    let journal = rusqlite::Connection::open(world.journal()).expect("opens");
    let last: i64 = journal.query_row("SELECT max(seq) FROM journal", [], |row| row.get(0)).expect("reads");
    // A row of another form, and the first page of rows is whole.
    journal.execute("UPDATE journal SET ts = x'ff' WHERE seq = ?1", [last - 10]).expect("updated");
    drop(journal);
    for wanted in ["0", "5000", "50"] {
        let shown = world.run(&["logs", "--journal", "--json", "-n", wanted]).expect(17);
        let told: Value = serde_json::from_str(&shown.stdout).expect("one document");
        let rows = told.as_array().expect("an array").len();
        assert_eq!(rows >= 3000, wanted == "0", "{wanted}: {rows}");
        assert!(shown.stderr.contains("error:") && shown.stderr.contains("next:"), "{}", shown.stderr);
    }
    // For people the error comes after the rows.
    let shown = world.run(&["logs", "--journal", "-n", "0"]).expect(17);
    assert!(shown.stdout.lines().count() >= 3000 && shown.stderr.contains("next:"), "{}", shown.stderr);
}

/// Who goes on beside archives of another journal is to know it before there is much to lose.
#[test]
fn whoever_calls_beside_archives_whose_journal_is_gone_hears_of_it() {
    let world = world();
    let _ = world.run(&["call", "echo", "text=first"]).expect(0);
    let whole = world.run(&["retention", "--archive-journal", "0s"]).expect(0);
    assert!(archive_of(&world).is_file(), "{}", whole.describe());
    let call = ["call", "echo", "text=second"];
    let warned = |missing: bool| {
        let is_told = |stderr: &str| {
            let words =
                if missing { "missing or empty, though it has archives" } else { "not the one whose rows" };
            stderr.matches("what was journaled before is not all there").count() == 1
                && stderr.contains(words)
        };
        let called = world.run(&call).expect(0);
        assert!(is_told(&called.stderr), "{}", called.describe());
    };
    let called = world.run(&call).expect(0);
    assert!(!called.stderr.contains("warning"), "{}", called.describe());
    for name in ["journal.db", "journal.db-wal", "journal.db-shm"] {
        let _ = std::fs::remove_file(world.journal().with_file_name(name));
    }
    warned(true);
    warned(false);
    let _ = world.json(&["call", "echo", "text=third", "--json"]);
}
