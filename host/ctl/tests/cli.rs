//! The binary as a shell meets it: exit codes, what goes to which stream, documents that parse. No worker is started
//! here; that is for the journeys in `tests/`.

use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// The command line, above the folder of its tests: `scripts/test` copies both to where another user may read them.
fn program() -> PathBuf {
    let own = std::env::current_exe().expect("the test's own path");
    own.ancestors().nth(2).expect("a target folder").join("cjm-ctl")
}

/// A folder with a data directory in it, and the commands run there.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("tempdir"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("parent")).expect("mkdir");
        std::fs::write(&path, text).expect("write");
        path
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program());
        command.args(arguments).current_dir(self.0.path()).env("CJM_DATA_DIR", self.path("data"));
        command.env("XDG_STATE_HOME", self.path("state"));
        command.env_remove("CJM_LOG").stdin(Stdio::null());
        command
    }

    #[track_caller]
    fn run(&self, arguments: &[&str], code: i32) -> Answer {
        let output = self.command(arguments).output().expect("runs");
        let answer = Answer::of(&output);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {answer:?}");
        answer
    }
}

#[derive(Debug)]
struct Answer {
    stdout: String,
    stderr: String,
}

impl Answer {
    fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
        Self { stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }

    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

const EXECUTABLE: &str = r#"{"format_version": "2.0", "code": {"name": "catter", "version": "1.2", "runtime": {
    "kind": "executable", "program": "cat", "actions": {
        "show": {"description": "Shows.", "parameters": {"file": {"type": "input_file", "required": true}}, "argv": ["{file}"]},
        "number": {"argv": ["-n"]}}}}}"#;

fn python_manifest(python: &Path) -> String {
    format!(
        r#"{{"format_version": "2.0", "install": {{"python_path": "{}", "conda_env": "lab-env"}},
            "code": {{"name": "a-lab", "version": "1.0.0", "module": "lab.capability", "class": "Lab",
                      "config_schema": {{"type": "object"}}}}}}"#,
        python.display()
    )
}

#[test]
fn usage_errors_exit_2_and_help_is_a_result() {
    let place = Place::new();
    let nothing = place.run(&[], 2);
    assert!(nothing.stdout.is_empty() && nothing.stderr.contains("install-all"), "{nothing:?}");
    for wrong in [&["frobnicate"][..], &["list", "--nonsense"], &["call"], &["logs", "-n", "many"]] {
        let answer = place.run(wrong, 2);
        assert!(answer.stdout.is_empty() && !answer.stderr.is_empty(), "{answer:?}");
        let json = place.run(&[wrong, &["--json"]].concat(), 2).json();
        assert_eq!(json["error"]["code"], "ctl.usage", "{json}");
        assert_eq!(json["error"]["exit_code"], 2, "{json}");
    }
    assert!(place.run(&["--help"], 0).stdout.contains("Exit codes"));
    assert!(place.run(&["--version"], 0).stdout.starts_with("cjm-ctl "));
    let level = place.run(&["logs", "--level", "LOUD"], 2);
    assert!(level.stderr.contains("WARNING"), "{level:?}");
}

#[test]
fn a_data_directory_that_is_a_file_is_refused_by_list_as_by_status() {
    let place = Place::new();
    let file = place.write("file", "");
    let file = file.to_str().expect("UTF-8");
    for command in ["list", "status"] {
        let refused = place.run(&["--data-dir", file, command], 1);
        assert!(refused.stderr.contains(file), "{refused:?}");
    }
}

#[test]
fn list_prints_the_ancestors_text_and_a_whole_document() {
    let place = Place::new();
    let empty = place.run(&["list"], 0);
    assert_eq!(
        empty.stdout,
        format!("No capabilities found in {}\n", place.path("data/manifests").display())
    );
    place.write("data/manifests/catter.json", EXECUTABLE);
    place.write("data/manifests/broken.json", "{\n  \"format_version\": \"2.0\",\n  oops\n}");
    let missing = place.path("env/bin/python");
    place.write("data/manifests/a-lab.json", &python_manifest(&missing));
    let short = place.run(&["list"], 0);
    assert!(
        short.stdout.starts_with("=== Installed Capabilities (2) ===\n\na-lab v1.0.0\n\ncatter v1.2\n"),
        "{short:?}"
    );
    let listed = place.run(&["list", "-e"], 0);
    assert_eq!(
        listed.stdout,
        "=== Installed Capabilities (2) ===\n\na-lab v1.0.0\n  Env: lab-env (missing)\n\n\
         catter v1.2\n  Runtime: executable (actions: show, number)\n\n"
    );
    assert!(listed.stderr.contains("broken.json: line 3") && listed.stderr.contains("next:"), "{listed:?}");
    place.write("env/bin/python", "");
    let file = place.write("capabilities.yaml", "capabilities:\n- {name: catter, manifest: m.json}\n");
    let compared = place.run(&["list", "--envs", "--capabilities", "capabilities.yaml"], 0);
    assert!(
        compared.stdout.contains("  Env: lab-env (exists)\n  (not in capabilities.yaml)\n"),
        "{compared:?}"
    );

    let document = place.run(&["list", "--json", "--capabilities", &file.display().to_string()], 0).json();
    let [lab, catter] = document["capabilities"].as_array().expect("a list").as_slice() else {
        panic!("two: {document}")
    };
    assert_eq!(lab["environment"]["exists"], true, "{lab}");
    assert_eq!(lab["config_schema"]["type"], "object", "{lab}");
    assert_eq!(catter["configured"], true, "{catter}");
    assert_eq!(catter["actions"][0]["name"], "show", "{catter}");
    assert_eq!(catter["actions"][0]["arguments"]["required"][0], "file", "{catter}");
    assert_eq!(document["problems"][0]["error"]["code"], "manifest.malformed", "{document}");
}

#[test]
fn what_tools_do_is_listed_on_request_and_escapes_in_names_are_shown() {
    let place = Place::new();
    place.write("data/manifests/catter.json", EXECUTABLE);
    let odd = EXECUTABLE.replace("catter", "odd").replace("Shows.", "Sh\\u001b[2Jows.");
    place.write("data/manifests/odd.json", &odd);
    let long = place.run(&["list", "--long"], 0).stdout;
    for words in
        ["  - show file=PATH\n      Shows.\n", "  - number\n", "manifests/catter.json", "Sh\\x1b[2Jows."]
    {
        assert!(long.contains(words), "{words}: {long}");
    }
    assert!(!long.contains('\u{1b}'), "{long:?}");
}

#[test]
fn shells_and_readers_get_what_they_want_to_know() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = place.run(&["completions", shell], 0).stdout;
        assert!(script.contains("regenerate-manifest") && script.contains("capability"), "{shell}");
    }
    place.run(&["man", "pages"], 0);
    let page = std::fs::read_to_string(place.path("pages/cjm-ctl-logs.1")).expect("a page for each command");
    assert!(page.contains("since"), "{page}");
    place.write("file", "");
    assert!(place.run(&["man", "file/x"], 1).stderr.contains("next: "));
    assert!(place.run(&["logs", "-h"], 0).stdout.contains("Global options:"));
}

#[test]
fn files_that_never_end_are_refused_at_once() {
    let place = Place::new();
    place.write("data/manifests/catter.json", EXECUTABLE);
    let made = Command::new("mkfifo").arg(place.path("pipe")).status().expect("mkfifo");
    assert!(made.success());
    place.write("flow.yaml", "name: f\ninputs: {x: {}}\nnodes:\n  a: {capability: catter, action: show, args: {file: '${inputs.x}'}}\n");
    for arguments in [
        &["run", "pipe"][..],
        &["run", "flow.yaml", "--inputs", "pipe"],
        &["run", "flow.yaml", "--inputs", "/dev/zero"],
        &["call", "catter", "file=@pipe"],
        &["call", "catter", "--args", "@pipe"],
        &["validate", "pipe"],
        &["validate", "/dev/zero"],
    ] {
        let started = std::time::Instant::now();
        let answer = place.run(arguments, 1);
        assert!(answer.stderr.contains("next: "), "{arguments:?}: {answer:?}");
        assert!(started.elapsed() < std::time::Duration::from_secs(5), "{arguments:?}");
    }
}

#[test]
fn validate_tells_kind_verdict_and_place() {
    let place = Place::new();
    place.write("good.json", EXECUTABLE);
    assert_eq!(place.run(&["validate", "good.json"], 0).stdout, "✓ good.json (manifest): valid\n");
    place.write("lacking.json", &EXECUTABLE.replace("\"cat\"", "\"no-such-program-anywhere\""));
    let warned = place.run(&["validate", "lacking.json"], 0);
    assert_eq!(warned.stdout, "✓ lacking.json (manifest): valid (with warnings)\n");
    assert!(
        warned.stderr.starts_with("⚠ lacking.json (manifest): 1 warning(s)\n  - code.runtime.program"),
        "{warned:?}"
    );
    place.write("list.yaml", "capabilities:\n- {name: x, env_name: e, package: p, python_version: '3.11'}\n");
    assert_eq!(place.run(&["validate", "list.yaml"], 0).stdout, "✓ list.yaml (capabilities.yaml): valid\n");
    place.write("flow.yaml", "name: f\nnodes:\n  a: {capability: nowhere}\n");
    let flow = place.run(&["validate", "flow.yaml", "--json"], 0).json();
    assert_eq!((&flow["kind"], &flow["valid"]), (&"composition".into(), &true.into()), "{flow}");
    assert!(flow["warnings"][0].as_str().is_some_and(|text| text.contains("nowhere")), "{flow}");
}

#[test]
fn validate_refuses_what_is_wrong_with_line_and_column() {
    let place = Place::new();
    for (name, text, code, line) in [
        ("a.json", "{\n  oops\n}", "manifest.malformed", Some(2)),
        ("b.json", "{\"format_version\": \"3.0\"}", "manifest.unsupported_version", Some(1)),
        (
            "c.json",
            "{\"format_version\": \"2.0\", \"install\": {\"python_path\": \"/p\"},\n \"code\": {\"name\": \"a b\",\n  \
             \"version\": \"1\", \"module\": \"m\", \"class\": \"C\"}}",
            "manifest.invalid",
            Some(2),
        ),
        (
            "d.json",
            "{\"unit\": \"adapter\", \"name\": \"m.C\",\n \"task_name\": 1, \"module\": \"m\", \"class\": \"C\"}",
            "adapter.schema",
            Some(2),
        ),
        ("m.py", "import logging\n\nlogging.basicConfig(force=True)\n", "source.logging_forced", Some(3)),
        ("e.yaml", "capabilities:\n- {name: x}\n", "capabilities_file.invalid", None),
        ("f.yaml", "capabilities: 3\n", "capabilities_file.not_a_list", Some(1)),
        ("capabilities.yaml", "capabilites: []\n", "capabilities_file.no_list", None),
        (
            "sub/cjm.yaml",
            "later: 1\nsubstrate:\n  diagnostics_retention_days: soon\n",
            "settings_file.malformed",
            Some(3),
        ),
        (
            "g.yaml",
            "name: f\nnodes:\n  a: {capability: c, args: {x: '${b}'}}\n",
            "composition.unknown_node",
            Some(3),
        ),
        (
            "h.yaml",
            "name: f\nnodes:\n  a: {capability: c, after: [b]}\n  b: {capability: c, after: [a]}\n",
            "composition.cycle",
            None,
        ),
        ("i.yaml", "name: f\nnodes:\n  a: {capability: c, oops: 1}\n", "composition.schema", Some(3)),
    ] {
        place.write(name, text);
        let verdict = place.run(&["validate", name, "--json"], 1).json();
        let error = &verdict["errors"][0];
        assert_eq!((&verdict["valid"], &error["code"]), (&false.into(), &code.into()), "{name}: {verdict}");
        assert!(error["next_step"].as_str().is_some_and(|step| !step.is_empty()), "{name}: {verdict}");
        if let Some(line) = line {
            assert_eq!(error["line"], line, "{name}: {verdict}");
        }
        let plain = place.run(&["validate", name], 1);
        assert!(plain.stdout.is_empty() && plain.stderr.starts_with(&format!("✗ {name} (")), "{plain:?}");
        assert!(plain.stderr.contains("): 1 error(s)\n  - "), "{plain:?}");
    }
    assert!(place.run(&["validate", "missing.json"], 1).stderr.contains("next: "));
    assert!(place.run(&["validate", ".", "-f", "manifest"], 1).stderr.contains("is a directory"));
    place.write(
        "many.yaml",
        "capabilities:\n- {name: x, manifest: m}\n- {name: '?', manifest: m}\n- {name: y}\n",
    );
    let many = place.run(&["validate", "many.yaml", "--json"], 1).json();
    let lines: Vec<_> =
        many["errors"].as_array().expect("a list").iter().map(|e| e["line"].clone()).collect();
    assert!(lines.contains(&3.into()) && lines.contains(&4.into()), "all of them: {many}");
}

/// Stores as the ancestor makes them, with a few rows in them.
fn ancestors_stores(place: &Place) {
    let folder = place.path("data");
    std::fs::create_dir_all(&folder).expect("mkdir");
    let journal = rusqlite::Connection::open(folder.join("journal.db")).expect("opens");
    journal
        .execute_batch(
            "PRAGMA journal_mode=WAL;
             CREATE TABLE journal (seq INTEGER PRIMARY KEY AUTOINCREMENT, event_id TEXT NOT NULL UNIQUE, ts TEXT NOT NULL,
                event_type TEXT NOT NULL, run_id TEXT, job_id TEXT, composition_id TEXT, node_id TEXT,
                capability_instance_id TEXT, capability_name TEXT, config_hash TEXT, task_name TEXT, method TEXT,
                worker_session_id TEXT, actor TEXT, worker_reported INTEGER NOT NULL DEFAULT 0, payload TEXT NOT NULL DEFAULT '{}');
             INSERT INTO journal (event_id, ts, event_type, run_id, job_id, payload) VALUES
                ('1', '2026-11-20T20:27:05+00:00', 'run_started', 'R', NULL, '{}'),
                ('2', '2026-11-20T20:27:06.5+00:00', 'state_transition', 'R', '99999999-8888', '{\"from\": null, \"to\": \"pending\"}'),
                ('3', '2026-11-20T20:27:07+00:00', 'future_type', 'S', NULL, '{\"x\": NaN}');",
        )
        .expect("journal");
    let diagnostics = rusqlite::Connection::open(folder.join("diagnostics.db")).expect("opens");
    diagnostics
        .execute_batch(
            "PRAGMA journal_mode=WAL;
             CREATE TABLE records (seq INTEGER PRIMARY KEY AUTOINCREMENT, ts TEXT NOT NULL, worker_session_id TEXT,
                job_id TEXT, level TEXT NOT NULL DEFAULT 'INFO', logger_name TEXT NOT NULL DEFAULT '', message TEXT NOT NULL, exc_text TEXT);
             CREATE TABLE stream_chunks (seq INTEGER PRIMARY KEY AUTOINCREMENT, ts TEXT NOT NULL, worker_session_id TEXT,
                stream TEXT NOT NULL DEFAULT 'stdout', content TEXT NOT NULL);
             INSERT INTO records (ts, worker_session_id, job_id, level, logger_name, message, exc_text) VALUES
                ('2026-11-20T20:27:07+00:00', '11111111-2222', '99999999-8888', 'INFO', 'lab.x', 'hello', NULL),
                ('2026-11-20T20:27:08+00:00', NULL, NULL, 'WARNING', 'lab', 'bad', 'Traceback' || char(10) || '  E');
             INSERT INTO stream_chunks (ts, worker_session_id, content) VALUES
                ('2026-11-20T20:27:09+00:00', '11111111-2222', 'raw line');",
        )
        .expect("diagnostics");
}

#[test]
fn logs_print_the_ancestors_lines_byte_for_byte() {
    let place = Place::new();
    for (view, file) in [("--journal", "journal.db"), ("--chunks", "diagnostics.db")] {
        let nothing = place.run(&["logs", view], 0);
        let path = place.path("data").join(file);
        assert_eq!(nothing.stdout, format!("No store at {} (nothing has run here yet).\n", path.display()));
        assert_eq!(place.run(&["logs", view, "--json"], 0).stdout, "[]\n");
    }
    ancestors_stores(&place);
    let transition = "2026-11-20 20:27:06 state_transition       [job=99999999 run=R] - {\"from\": null, \"to\": \"pending\"}\n";
    for (arguments, expected) in [
        (
            &["logs"][..],
            "2026-11-20 20:27:07 INFO     [11111111|99999999] lab.x: hello\n2026-11-20 20:27:08 WARNING  [-|-] lab: bad\n    Traceback\n      E\n",
        ),
        (
            &["logs", "--level", "warning"],
            "2026-11-20 20:27:08 WARNING  [-|-] lab: bad\n    Traceback\n      E\n",
        ),
        (
            &["logs", "--job", "99999999-8888"],
            "2026-11-20 20:27:07 INFO     [11111111|99999999] lab.x: hello\n",
        ),
        (&["logs", "--chunks"], "2026-11-20 20:27:09 [11111111] raw line\n"),
        (&["logs", "--journal", "--job", "99999999-8888"], transition),
        (&["logs", "--run", "R", "-n", "1"], transition),
    ] {
        assert_eq!(place.run(arguments, 0).stdout, expected, "{arguments:?}");
    }
    let both = place.run(&["logs", "--journal", "--chunks"], 2);
    assert!(both.stderr.contains("--journal and --chunks are different views; pick one."), "{both:?}");
    assert_eq!(place.run(&["logs", "--journal", "-n", "0"], 0).stdout.lines().count(), 3);
}

#[test]
fn logs_as_json_are_one_list_of_whole_rows() {
    let place = Place::new();
    ancestors_stores(&place);
    let rows = place.run(&["logs", "--journal", "--json"], 0).json();
    let rows = rows.as_array().expect("a list");
    assert_eq!(rows.len(), 3);
    assert_eq!(rows[1]["payload"]["to"], "pending", "{}", rows[1]);
    for key in ["seq", "event_id", "ts", "event_type", "run_id", "job_id", "worker_reported"] {
        assert!(!rows[1][key].is_null(), "{key}: {}", rows[1]);
    }
    let records = place.run(&["logs", "--json", "-n", "1"], 0).json();
    assert_eq!(records[0]["exc_text"], "Traceback\n  E", "{records}");
    assert_eq!(place.run(&["logs", "--chunks", "--json"], 0).json()[0]["content"], "raw line");
    let unknown = place.run(&["logs", "--chunks", "--session", "x", "--json"], 1).json();
    assert_eq!(unknown["error"]["code"], "logs.unknown", "{unknown}");
}

/// Rows of our own, of two jobs of one second.
fn two_jobs(place: &Place) -> [&'static str; 2] {
    let ids = ["01a22132-941d-738b-b016-e73fef30c72f", "01a22132-941e-7123-8016-a73fef30c001"];
    let stamp = "2026-11-28T08:08:12.602433+00:00";
    let journal = rusqlite::Connection::open(place.path("data/journal.db")).expect("opens");
    for (id, tool, node, to) in [(ids[0], "lab", "a", "failed"), (ids[1], "other", "b", "completed")] {
        let session = id.replace("01a22132", "01a22131");
        journal
            .execute(
                "INSERT INTO journal (event_id, ts, event_type, run_id, job_id, node_id, capability_name, worker_session_id, payload)
                 VALUES (?1, ?2, 'state_transition', ?1, ?1, ?3, ?4, ?5, ?6)",
                [id, stamp, node, tool, &session, &format!("{{\"to\": \"{to}\"}}")],
            )
            .expect("inserts");
        let spawned = "INSERT INTO journal (event_id, ts, event_type, capability_name, capability_instance_id, worker_session_id)
                       VALUES (?1 || 's', ?2, 'worker_spawned', ?3, ?3, ?4)";
        journal.execute(spawned, [id, stamp, tool, &session]).expect("inserts");
        let diagnostics = rusqlite::Connection::open(place.path("data/diagnostics.db")).expect("opens");
        let line = "INSERT INTO stream_chunks (ts, worker_session_id, stream, content) VALUES (?1, ?2, 'stderr', ?3)";
        diagnostics.execute(line, [stamp, &session, &format!("{tool} speaks \u{1b}[2J")]).expect("inserts");
    }
    ids
}

#[test]
fn shortened_ids_and_other_filters_find_their_rows_and_what_names_nothing_is_refused() {
    let place = Place::new();
    ancestors_stores(&place);
    let ids = two_jobs(&place);
    let lines = |arguments: &[&str]| place.run(&[&["logs"][..], arguments].concat(), 0).stdout;
    for (arguments, has, has_not) in [
        (&["--journal", "--job", "ef30c72f"][..], "[job=ef30c72f run=ef30c72f node=a] lab", "ef30c001"),
        (&["--journal", "--job", ids[1]], "[job=ef30c001", "ef30c72f"),
        (&["--journal", "--job", "01a22132-941e"], "ef30c001", "ef30c72f"),
        (&["--run", "ef30c001"], "ef30c001", "ef30c72f"),
        (&["--journal", "--capability", "lab"], "ef30c72f", "ef30c001"),
        (&["--node", "b"], "ef30c001", "ef30c72f"),
        (&["--status", "failed"], "ef30c72f", "ef30c001"),
        (&["--type", "state_transition", "--since", "2026-11-28"], "ef30c72f", "99999999"),
        (&["--type", "future_type"], "future_type", "ef30c72f"),
        (&["--chunks", "--job", "ef30c72f"], "[ef30c72f lab stderr] lab speaks \\x1b[2J", "other"),
        (&["--chunks", "--capability", "other"], "other speaks", "lab"),
        (&["--chunks", "--since", "2026-11-27"], "other speaks", "raw line"),
        (&["--job", "99999999"], "hello", "bad"),
    ] {
        let shown = lines(arguments);
        assert!(shown.contains(has) && !shown.contains(has_not), "{arguments:?}: {shown}");
    }
    assert_eq!(lines(&["--journal", "--since", "0s"]), "", "nothing is younger than now");
    for (arguments, code, word) in [
        (&["--journal", "--job", "nobody"][..], 1, "nothing is known of it"),
        (&["--job", "nobody"], 1, "nothing is known of it"),
        (&["--chunks", "--session", "nobody"], 1, "nothing is known of it"),
        (&["--run", "nobody"], 1, "nothing is known of it"),
        (&["--capability", "nobody"], 1, "nothing is known of it"),
        (&["--node", "nobody"], 1, "nothing is known of it"),
        (&["--journal", "--job", "01a22132"], 1, ids[1]),
        (&["--type", "worker_dyed"], 2, "worker_died"),
        (&["--status", "fialed"], 2, "failed"),
        (&["--since", "yesterday"], 2, "10m"),
        (&["-n", "-3"], 2, "0 for all"),
        (&["--chunks", "--status", "failed"], 2, "--job"),
    ] {
        let answer = place.run(&[&["logs"][..], arguments].concat(), code);
        assert!(answer.stdout.is_empty() && answer.stderr.contains(word), "{arguments:?}: {answer:?}");
    }
}

#[test]
fn a_follower_sees_new_rows_and_ends_with_the_signals_code() {
    let place = Place::new();
    ancestors_stores(&place);
    let mut follower = place
        .command(&["logs", "--journal", "--follow", "--json", "-n", "1"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut lines = BufReader::new(follower.stdout.take().expect("piped")).lines();
    let mut next = || -> Value {
        let line = lines.next().expect("a line").expect("readable");
        serde_json::from_str(&line).expect("one document a line")
    };
    assert_eq!(next()["seq"], 3);
    let journal = rusqlite::Connection::open(place.path("data/journal.db")).expect("opens");
    for (id, seq) in [("4", 4), ("5", 5)] {
        let sql = "INSERT INTO journal (event_id, ts, event_type) VALUES (?1, '2026-11-20T20:27:09+00:00', 'run_finished')";
        journal.execute(sql, [id]).expect("inserts");
        assert_eq!(next()["seq"], seq, "a new row comes by itself");
    }
    let pid = follower.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill").success());
    assert_eq!(follower.wait().expect("ends").code(), Some(143));
}

#[test]
fn a_closed_output_ends_it_quietly() {
    let place = Place::new();
    ancestors_stores(&place);
    let journal = rusqlite::Connection::open(place.path("data/journal.db")).expect("opens");
    // More than a pipe holds, so that somebody must be told that nobody reads.
    journal
        .execute_batch(
            "WITH RECURSIVE n(i) AS (SELECT 10 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
             INSERT INTO journal (event_id, ts, event_type) SELECT 'e' || i, '2026-11-20T20:27:09+00:00', 'run_started' FROM n;",
        )
        .expect("rows");
    let mut reader = place
        .command(&["logs", "--journal", "-n", "0"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    drop(reader.stdout.take());
    let output = reader.wait_with_output().expect("ends");
    assert_eq!(output.status.code(), Some(141), "as if SIGPIPE had ended it: {output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
}

#[test]
fn a_key_of_the_settings_is_told_where_it_is_read() {
    let place = Place::new();
    let told = place.run(&["--conda-type", "conda", "setup-runtime"], 0);
    let line = told.stderr.split('`').nth(1).expect("what to write").to_owned();
    place.write("cjm.yaml", &line);
    let read = place.run(&["--conda-prefix", "prefix", "setup-runtime", "--dry-run"], 0);
    assert!(!read.stdout.contains("only needed for micromamba"), "{line}: {read:?}");
}
