//! The commands of the ancestor's `cjm-ctl`, given to it and to ours over the same data: the same exit code, the same
//! words. What is allowed to differ stands in docs/COMPATIBILITY.md, and is held to here as well.

use cjm_tests::ancestor::{Ancestor, PYTHON_MIN, VERSIONS};
use cjm_tests::both::{Both, Said, Who};
use cjm_tests::python;
use cjm_tests::world::World;
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Questions that the ancestor puts on standard output.
const QUESTIONS: [&str; 2] =
    ["Proceed with removal? [y/N]: ", "Install these in the current Python environment? [y/N]: "];
/// A Python that exists and is in no environment, so that nobody finds fault with it.
const PLAIN_PYTHON: &str = "/usr/bin/python3";

/// How much of two answers must be equal.
#[derive(Clone, Copy)]
enum Equal {
    /// Exit code and standard output.
    Words,
    /// Exit code, and the line that tells the verdict up to the number of errors.
    Verdict,
    /// Exit code, and how much was deleted.
    Deleted,
    /// Exit code, and the first line of standard output.
    FirstLine,
    /// Standard output; what was answered with no is a success to them alone.
    Declined,
    /// The exit code.
    Code,
    /// Nothing: the exit codes are theirs and ours.
    Codes(i32, i32),
}

/// Runs `test` for each release that can be had.
fn with_each_release(test: &str, run: impl Fn(&Both)) {
    with(&VERSIONS, test, run);
}

/// Runs `test` for the older release alone: of what it looks at the later one has changed nothing, and each command
/// line costs a run of Python.
fn with_the_older_release(test: &str, run: impl Fn(&Both)) {
    with(&VERSIONS[..1], test, run);
}

fn with(versions: &[&'static str], test: &str, run: impl Fn(&Both)) {
    for version in versions.iter().copied() {
        let world = World::new();
        let Some(ancestor) = Ancestor::find(&world, test, version) else { continue };
        let python =
            python::at_least(PYTHON_MIN.0, PYTHON_MIN.1).expect("the ancestor was installed with it");
        let both = Both::new(&world, ancestor, &python);
        run(&both);
        // With what it still runs to fork from.
        drop(both);
        world.assert_nothing_left();
    }
}

/// Prepares the place for each of them, and compares what they say.
#[track_caller]
fn compare(both: &Both, equal: Equal, prepare: &dyn Fn(&Both), arguments: &[&str], stdin: &str) {
    let [theirs, ours] = [Who::Theirs, Who::Ours].map(|who| {
        both.empty();
        prepare(both);
        both.run(who, arguments, stdin)
    });
    check(both, equal, arguments, &theirs, &ours);
}

#[track_caller]
fn check(both: &Both, equal: Equal, arguments: &[&str], theirs: &Said, ours: &Said) {
    let story = format!("{} {arguments:?}\ntheirs: {theirs:#?}\nours: {ours:#?}", both.ancestor.version);
    match equal {
        Equal::Codes(first, second) => {
            assert_eq!((theirs.code, ours.code), (Some(first), Some(second)), "{story}");
        }
        Equal::Deleted | Equal::FirstLine => {
            let end = if matches!(equal, Equal::Deleted) { " chunk(s)" } else { "\n" };
            let begin = |said: &Said| said.stdout.split_once(end).map(|(begin, _)| begin.to_owned());
            assert!(theirs.code == ours.code && begin(ours).is_some(), "{story}");
            assert_eq!(begin(theirs), begin(ours), "{story}");
        }
        Equal::Code => assert_eq!(theirs.code, ours.code, "{story}"),
        Equal::Verdict => {
            assert_eq!(theirs.code, ours.code, "{story}");
            assert_eq!(verdict(theirs), verdict(ours), "{story}");
        }
        Equal::Declined => {
            assert_eq!((theirs.code, ours.code), (Some(0), Some(1)), "{story}");
            let shown = QUESTIONS.iter().fold(theirs.stdout.clone(), |text, asked| text.replace(asked, ""));
            assert_eq!(shown.strip_suffix("Aborted.\n"), Some(ours.stdout.as_str()), "{story}");
            assert!(ours.stderr.contains("nothing was done"), "{story}");
        }
        Equal::Words => {
            assert_eq!(theirs.code, ours.code, "{story}");
            let words =
                QUESTIONS.iter().fold(theirs.stdout.clone(), |text, question| text.replace(question, ""));
            assert_eq!(words, ours.stdout, "{story}");
        }
    }
}

/// `✗ FILE (kind)` or `✓ FILE (kind): valid…`, wherever it stands.
fn verdict(said: &Said) -> Option<String> {
    let mut lines = said.stdout.lines().chain(said.stderr.lines());
    let line = lines.rfind(|line| line.starts_with(['✓', '✗']))?;
    Some(
        if line.starts_with('✗') { line.rsplit_once(": ").map_or(line, |(head, _)| head) } else { line }
            .to_owned(),
    )
}

fn manifest(name: &str, python_path: &str, conda_env: &str) -> Value {
    json!({
        "format_version": "2.0",
        "install": {"python_path": python_path, "conda_env": conda_env, "db_path": "", "env_vars": {"A": "b"},
                    "installed_at": "2026-11-20T20:22:28+00:00", "installer_version": "x", "package_source": name},
        "code": {"name": name, "version": "1.2.3", "description": "d", "module": "lab_capability.capability",
                 "class": "LabCapability"},
        "drift_tracking": {}, "overrides": {"k": 1},
    })
}

fn install(both: &Both, name: &str, manifest: &Value) {
    both.write(
        &format!("data/manifests/{name}.json"),
        &serde_json::to_string_pretty(manifest).expect("JSON"),
    );
}

fn nothing(_: &Both) {}

/// Its command lines are forked here; what they say is what they say when they are started.
#[test]
fn a_command_line_that_is_forked_says_what_a_started_one_says() {
    with_each_release("a_command_line_that_is_forked_says_what_a_started_one_says", |both| {
        both.empty();
        install(both, "lab-capability", &manifest("lab-capability", PLAIN_PYTHON, "lab-env"));
        for arguments in
            [&["list"][..], &["--help"], &["list", "--nonsense"], &["logs"], &["validate", "none"]]
        {
            let forked = both.run(Who::Theirs, arguments, "");
            let started = both.ancestor.ctl(&both.data(), arguments);
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let (stdout, stderr) = (text(&started.stdout), text(&started.stderr));
            assert_eq!(forked, Said { code: started.status.code(), stdout, stderr }, "{arguments:?}");
        }
    });
}

#[test]
fn lists_and_usage() {
    with_each_release("lists_and_usage", |both| {
        compare(both, Equal::Words, &nothing, &["list"], "");
        let installed = |both: &Both| {
            install(both, "lab-capability", &manifest("lab-capability", PLAIN_PYTHON, "lab-env"));
            install(both, "another", &manifest("another", "/opt/x/envs/from-path/bin/python", ""));
            install(
                both,
                "adapter-t-A",
                &json!({"unit": "adapter", "name": "m.A", "version": "1", "task_name": "t",
                    "module": "m", "class": "A", "required_tool_protocol": "m.P", "protocol_members": {}}),
            );
            both.make_environment("from-path");
            both.write(
                "list.yaml",
                "capabilities:\n- {name: another, env_name: other-env, package: p, python_version: '3.12'}\n",
            );
        };
        compare(both, Equal::Words, &installed, &["list"], "");
        compare(both, Equal::Words, &installed, &["list", "--capabilities", "list.yaml"], "");
        let missing = |both: &Both| {
            installed(both);
            install(both, "lab-capability", &manifest("lab-capability", "/nowhere/bin/python", "lab-env"));
        };
        for arguments in [&["list", "-e"][..], &["list", "--envs", "--capabilities", "list.yaml"]] {
            compare(both, Equal::Words, &missing, arguments, "");
        }
        // An environment that conda did not make is there when its interpreter is.
        let [theirs, ours] = [Who::Theirs, Who::Ours].map(|who| {
            both.empty();
            installed(both);
            both.run(who, &["list", "-e"], "").stdout
        });
        assert!(
            theirs.contains("lab-env (missing)") && ours.contains("lab-env (exists)"),
            "{theirs}\n{ours}"
        );
        for arguments in
            [&[][..], &["frobnicate"], &["set-secret", "x"], &["list", "--nonsense"], &["remove"]]
        {
            compare(both, Equal::Code, &nothing, arguments, "");
        }
        compare(both, Equal::Words, &nothing, &["logs"], "");
        compare(both, Equal::Words, &nothing, &["logs", "--journal"], "");
    });
}

#[test]
fn settings_come_from_the_same_places_in_the_same_order() {
    with_each_release("settings_come_from_the_same_places_in_the_same_order", |both| {
        let prepare = |both: &Both| {
            both.empty();
            both.write("cjm.yaml", "data_dir: ./from-yaml\nruntime: {conda_type: micromamba}\nlater: 1\n");
            both.write("other/cjm.yaml", "data_dir: from-other\n");
        };
        let env = ("CJM_DATA_DIR", "/from/env");
        for (arguments, variables, expected) in [
            (&["list"][..], &[][..], "from-yaml/manifests"),
            (&["list"], &[env], "/from/env/manifests"),
            (&["--data-dir", "/from/told", "list"], &[env], "/from/told/manifests"),
            (&["--cjm-config", "other/cjm.yaml", "list"], &[], "other/from-other/manifests"),
            (&["--cjm-config", "other/cjm.yaml", "list"], &[env], "/from/env/manifests"),
            (&["setup-runtime"], &[("CJM_CONDA_TYPE", "miniforge")], "conda_type: miniforge"),
            (
                &["--conda-type", "conda", "setup-runtime"],
                &[("CJM_CONDA_TYPE", "miniforge")],
                "conda_type: conda",
            ),
        ] {
            prepare(both);
            let [theirs, ours] =
                [Who::Theirs, Who::Ours].map(|who| both.run_with(who, arguments, "", variables));
            check(both, Equal::Words, arguments, &theirs, &ours);
            assert!(ours.stdout.contains(expected), "{expected}: {ours:?}");
        }
        for (arguments, codes) in [
            (&["--conda-type", "pip", "list"][..], (1, 1)),
            (&["--cjm-config", "nowhere.yaml", "list"], (0, 1)),
        ] {
            prepare(both);
            let [theirs, ours] = [Who::Theirs, Who::Ours].map(|who| both.run_with(who, arguments, "", &[]));
            check(both, Equal::Codes(codes.0, codes.1), arguments, &theirs, &ours);
            assert!(ours.stderr.contains("next: "), "{ours:?}");
        }
        prepare(both);
        std::fs::remove_file(both.file("cjm.yaml")).expect("removed");
        // A world's folder has no cjm.yaml above it: the defaults, below the home of the user.
        let [theirs, ours] = [Who::Theirs, Who::Ours].map(|who| both.run_with(who, &["list"], "", &[]));
        check(both, Equal::Words, &["list"], &theirs, &ours);
        assert!(ours.stdout.contains(".cjm/manifests"), "{ours:?}");
    });
}

#[test]
fn verdicts_on_files() {
    with_the_older_release("verdicts_on_files", |both| {
        let good = manifest("lab-capability", PLAIN_PYTHON, "lab-env");
        let without = |pointer: &str| {
            let mut broken = good.clone();
            *broken.pointer_mut(pointer).expect(pointer) = Value::Null;
            broken.to_string()
        };
        let list = "capabilities:\n- {name: a, env_name: e, package: p, python_version: '3.12'}\n";
        let mut single = good.clone();
        single["code"]["config_schema"] = json!({"properties": {"x": {"enum": ["only"]}}});
        single["code"]["resources"] = json!({"min_gpu_vram_mb": 4});
        for (equal, name, text) in [
            (Equal::Words, "good.json", good.to_string()),
            (Equal::Words, "single.json", single.to_string()),
            (Equal::Verdict, "no-name.json", without("/code/name")),
            (Equal::Verdict, "no-code.json", without("/code")),
            (Equal::Verdict, "no-python.json", without("/install/python_path")),
            (Equal::Verdict, "version.json", good.to_string().replace("\"2.0\"", "\"3.0\"")),
            (Equal::Code, "no.json", "{".to_owned()),
            (Equal::Words, "list.yaml", list.to_owned()),
            (Equal::Verdict, "no-package.yaml", list.replace("package: p, ", "")),
            (Equal::Verdict, "no-python.yaml", list.replace(", python_version: '3.12'", "")),
            (Equal::Verdict, "twice.yaml", format!("{list}{}", list.split_once('\n').expect("two lines").1)),
            (Equal::Verdict, "no-list.yaml", "capabilities: 3\n".to_owned()),
            (Equal::Verdict, "adapter.yaml", list.replace("'3.12'", "'3.12', adapters: [{impl: nope}]")),
            (Equal::Words, "clean.py", "import logging\nlog = logging.getLogger(__name__)\n".to_owned()),
            (Equal::Verdict, "plain.py", "import logging\nlogging.basicConfig(level=1)\n".to_owned()),
            (Equal::Verdict, "forced.py", "import logging\nlogging.basicConfig(\n  force=True)\n".to_owned()),
            (Equal::Verdict, "variable.py", "import logging\nlogging.basicConfig(force=x)\n".to_owned()),
            (Equal::Code, "text.txt", "hello\n".to_owned()),
            // Allowed to differ, each for its reason.
            (
                Equal::Codes(1, 0),
                "adapter.json",
                json!({"unit": "adapter", "name": "m.A", "version": "1",
                "task_name": "t", "module": "m", "class": "A", "required_tool_protocol": "m.P",
                "protocol_members": {"methods": [], "properties": ["name"]}})
                .to_string(),
            ),
            (Equal::Codes(1, 0), "flow.yaml", "name: f\nnodes:\n  a: {capability: c}\n".to_owned()),
            (
                Equal::Codes(1, 0),
                "no-description.json",
                without("/code/description").replace("\"description\":null,", ""),
            ),
            (Equal::Codes(0, 1), "both.yaml", list.replace("'3.12'", "'3.12', env_file: e.yml")),
            (Equal::Codes(1, 0), "comment.py", "s = 'logging.basicConfig(force=True)'\n".to_owned()),
            (Equal::Codes(0, 1), "alias.py", "import logging as l\nl.basicConfig(force=True)\n".to_owned()),
        ] {
            compare(both, equal, &|both| drop(both.write(name, &text)), &["validate", name], "");
        }
        let folder = |both: &Both| {
            both.write("package/a.py", "x = 1\n");
            both.write("package/tests_manual/b.py", "import logging\nlogging.basicConfig(force=True)\n");
            both.write("package/.hidden/c.py", "import logging\nlogging.basicConfig(force=True)\n");
        };
        compare(both, Equal::Words, &folder, &["validate", "package"], "");
        compare(both, Equal::Words, &folder, &["validate", "-f", "source", "package"], "");
        compare(both, Equal::Code, &nothing, &["validate", "nowhere.json"], "");
        compare(both, Equal::Codes(1, 2), &folder, &["validate", "-f", "bogus", "package/a.py"], "");
    });
}

#[test]
fn secrets_are_kept_alike_and_a_damaged_file_is_not_lost() {
    with_each_release("secrets_are_kept_alike_and_a_damaged_file_is_not_lost", |both| {
        compare(both, Equal::Codes(0, 1), &nothing, &["list-secrets", "lab"], "");
        let set = ["set-secret", "lab", "A_KEY", "--value", "v é"];
        // Ours wants to know the capability.
        let secrets = ["A_KEY", "B_S", "B", "PIPED"].map(|name| json!({"name": name, "secret": true}));
        let installed = |both: &Both| {
            let code =
                json!({"name": "lab", "version": "1", "module": "m", "class": "C", "worker_env": secrets});
            let manifest =
                json!({"format_version": "2.0", "code": code, "install": {"python_path": "/bin/true"}});
            drop(both.write("data/manifests/lab.json", &manifest.to_string()));
        };
        compare(both, Equal::Words, &installed, &["list-secrets", "lab"], "");
        compare(both, Equal::FirstLine, &installed, &set, "");
        // Each goes on with what the other wrote.
        for (first, second) in [(Who::Theirs, Who::Ours), (Who::Ours, Who::Theirs)] {
            both.empty();
            installed(both);
            assert_eq!(both.run(first, &set, "").code, Some(0));
            // No name of a variable: theirs takes it, ours does not, and lists what is there.
            let odd = ["set-secret", "lab", "B'S", "--value", "2", "--scope", "ann"];
            assert_eq!(both.run(Who::Ours, &odd, "").code, Some(1));
            assert_eq!(both.run(Who::Theirs, &odd, "").code, Some(0));
            assert_eq!(both.run(second, &["set-secret", "lab", "B", "--value", "2"], "").code, Some(0));
            let path = both.data().join("secrets/secrets.json");
            let kept: Value = serde_json::from_slice(&std::fs::read(&path).expect("kept")).expect("JSON");
            assert_eq!(
                kept,
                json!({"__default__": {"lab": {"A_KEY": "v é", "B": "2"}}, "ann": {"lab": {"B'S": "2"}}})
            );
            let mode = |path: &Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
            assert_eq!((mode(&path), mode(path.parent().expect("a folder"))), (0o600, 0o700));
            // Ours marks the one that no manifest declares.
            let of_ann = &["list-secrets", "lab", "--scope", "ann"][..];
            for (equal, arguments) in
                [(Equal::Words, &["list-secrets", "lab"][..]), (Equal::FirstLine, of_ann)]
            {
                let [theirs, ours] = [Who::Theirs, Who::Ours].map(|who| both.run(who, arguments, ""));
                check(both, equal, arguments, &theirs, &ours);
            }
        }
        let piped = both.run(Who::Ours, &["set-secret", "lab", "PIPED", "-"], "from standard input\n");
        assert!(piped.code == Some(0) && !piped.stdout.contains("from standard"), "{piped:?}");
        let names = both.run(Who::Theirs, &["list-secrets", "lab"], "");
        assert!(names.stdout.contains("  - PIPED\n"), "{names:?}");
        assert_eq!(both.run(Who::Ours, &["remove-secret", "lab", "PIPED"], "").code, Some(0));
        assert_eq!(both.run(Who::Ours, &["remove-secret", "lab", "PIPED"], "").code, Some(1));

        let damaged = |both: &Both| {
            installed(both);
            both.write("data/secrets/secrets.json", "{\"__default__\": {\"lab\": ");
        };
        compare(both, Equal::Codes(0, 17), &damaged, &set, "");
        let kept = std::fs::read_to_string(both.data().join("secrets/secrets.json")).expect("kept");
        assert_eq!(kept, "{\"__default__\": {\"lab\": ", "ours ran last, and left it as it is");
    });
}

/// Records of 40 days and of today, as a genuine worker writes them.
fn diagnostics(both: &Both, rows: usize) {
    let connection = rusqlite::Connection::open(both.data().join("diagnostics.db")).expect("opens");
    connection
        .execute_batch(
            "PRAGMA journal_mode=WAL;
             CREATE TABLE records (seq INTEGER PRIMARY KEY AUTOINCREMENT, ts TEXT NOT NULL, worker_session_id TEXT,
                job_id TEXT, level TEXT NOT NULL DEFAULT 'INFO', logger_name TEXT NOT NULL DEFAULT '',
                message TEXT NOT NULL, exc_text TEXT);
             CREATE TABLE stream_chunks (seq INTEGER PRIMARY KEY AUTOINCREMENT, ts TEXT NOT NULL,
                worker_session_id TEXT, stream TEXT NOT NULL DEFAULT 'stdout', content TEXT NOT NULL);
             CREATE INDEX idx_records_ts ON records (ts); CREATE INDEX idx_chunks_ts ON stream_chunks (ts);",
        )
        .expect("tables");
    // In both tables at the same instants: for a size ours forgets by time over both, theirs as many rows of each.
    let now: String = connection.query_row("SELECT datetime('now')", [], |row| row.get(0)).expect("a time");
    let insert = format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
         INSERT INTO TABLE_ (ts, COLUMN_) SELECT strftime('%Y-%m-%dT%H:%M:%f', '{now}',
            CASE WHEN 2 * i <= {rows} THEN '-40 days' ELSE '-1 hour' END) || '000+00:00', printf('%0500d', i) FROM n"
    );
    for (table, column) in [("records", "message"), ("stream_chunks", "content")] {
        connection.execute(&insert.replace("TABLE_", table).replace("COLUMN_", column), []).expect("rows");
    }
}

#[test]
fn retention_deletes_the_same_rows() {
    with_the_older_release("retention_deletes_the_same_rows", |both| {
        compare(both, Equal::Words, &nothing, &["retention"], "");
        compare(both, Equal::Code, &nothing, &["retention", "--max-age-days", "0"], "");
        let filled = |both: &Both| diagnostics(both, 3000);
        compare(both, Equal::Deleted, &filled, &["retention"], "");
        compare(both, Equal::Deleted, &filled, &["retention", "--max-age-days", "60"], "");
        compare(
            both,
            Equal::Deleted,
            &filled,
            &["retention", "--max-age-days=-1", "--max-total-mb", "1.5"],
            "",
        );
        let configured = |both: &Both| {
            filled(both);
            both.write(
                "cjm.yaml",
                "substrate: {diagnostics_retention_days: 0, diagnostics_retention_max_mb: 0.5}\n",
            );
        };
        compare(both, Equal::Deleted, &configured, &["retention"], "");
    });
}

#[test]
fn removals() {
    with_the_older_release("removals", |both| {
        let installed = |both: &Both| {
            let python = both.make_environment("lab-env").join("bin/python");
            install(
                both,
                "lab-capability",
                &manifest("lab-capability", &python.display().to_string(), "lab-env"),
            );
            install(both, "pathless", &manifest("pathless", "", ""));
        };
        let remove = ["remove", "lab-capability"];
        for (arguments, stdin, left) in [
            (&[&remove[..], &["--keep-env", "-y"]].concat()[..], "", (true, false)),
            (&[&remove[..], &["--yes"]].concat(), "", (false, false)),
            (&remove, "y\n", (false, false)),
        ] {
            compare(both, Equal::Words, &installed, arguments, stdin);
            let manifest = both.data().join("manifests/lab-capability.json");
            assert_eq!((both.environment("lab-env").exists(), manifest.exists()), left, "{arguments:?}");
        }
        compare(both, Equal::Declined, &installed, &remove, "n\n");
        assert!(both.environment("lab-env").exists() && both.data().join("manifests").exists());
        let gone = |both: &Both| {
            installed(both);
            std::fs::remove_dir_all(both.environment("lab-env")).expect("removed");
        };
        compare(both, Equal::Words, &gone, &["remove", "lab-capability", "-y"], "");
        compare(both, Equal::Code, &installed, &["remove", "nobody", "-y"], "");
        compare(both, Equal::Code, &installed, &remove, "");
        // What another capability lives in stays.
        let shared = |both: &Both| {
            installed(both);
            install(both, "neighbour", &manifest("neighbour", "/x", "lab-env"));
        };
        both.empty();
        shared(both);
        let kept = both.run(Who::Ours, &["remove", "lab-capability", "-y", "--json"], "");
        let document: Value = serde_json::from_str(&kept.stdout).expect("a document");
        assert_eq!(
            (&document["environment_removed"], &document["shared_with"][0]),
            (&json!(false), &json!("neighbour"))
        );
        assert!(both.environment("lab-env").exists());
    });
}

#[test]
fn setups_say_what_they_would_do() {
    with_the_older_release("setups_say_what_they_would_do", |both| {
        compare(both, Equal::Words, &nothing, &["setup-runtime"], "");
        compare(both, Equal::Code, &nothing, &["--conda-type", "micromamba", "setup-runtime"], "");
        let there = |both: &Both| {
            both.write("prefix/bin/micromamba", "");
            both.write("cjm.yaml", "runtime: {mode: local, conda_type: micromamba, prefix: ./prefix}\n");
        };
        compare(both, Equal::Words, &there, &["setup-runtime"], "");
        let list = |both: &Both| {
            let libraries =
                "interface_libs: [lib-b, lib-a, cjm-substrate, 'git+https://x/cjm-substrate.git']";
            both.write("capabilities.yaml", &format!("capabilities:\n- {{name: a, env_name: a, package: p, python_version: '3.12', {libraries}}}\n"));
            both.write(
                "none.yaml",
                "capabilities:\n- {name: a, env_name: a, package: p, python_version: '3.12'}\n",
            );
        };
        compare(both, Equal::Declined, &list, &["setup-host"], "n\n");
        compare(both, Equal::Words, &list, &["setup-host", "--capabilities", "none.yaml"], "");
        compare(both, Equal::Code, &list, &["setup-host", "--capabilities", "nowhere.yaml"], "");
        both.empty();
        list(both);
        let shown = both.run(Who::Ours, &["setup-host", "--dry-run", "--json"], "");
        let document: Value = serde_json::from_str(&shown.stdout).expect("a document");
        assert_eq!(
            (&document["libraries"], &document["installed"]),
            (&json!(["lib-a", "lib-b"]), &json!(false))
        );
    });
}

/// A package written against the ancestor's classes, in an environment that sees both.
fn laboratory(both: &Both) {
    let home = both.make_environment("lab-env");
    both.write(
        "lab/lab_capability-1.2.4.dist-info/METADATA",
        "Metadata-Version: 2.1\nName: lab-capability\nVersion: 1.2.4\nSummary: Laboratory\n",
    );
    both.write("lab/lab_capability-1.2.4.dist-info/top_level.txt", "lab_capability\n");
    both.write(
        "lab/lab_capability-1.2.4.dist-info/RECORD",
        "lab_capability/__init__.py,,\nlab_capability/capability.py,,\n",
    );
    both.write("lab/lab_capability/__init__.py", "__version__ = '1.2.4'\n");
    both.write("lab/lab_capability/capability.py", include_str!("../fixtures/commands/capability.py"));
    both.write("lab/lab_capability/adapters.py", include_str!("../fixtures/commands/adapters.py"));
    let packages = |home: &Path| {
        let library = std::fs::read_dir(home.join("lib")).expect("lib").flatten().next().expect("one Python");
        library.path().join("site-packages")
    };
    let theirs = both.ancestor.python();
    let theirs = packages(theirs.parent().and_then(Path::parent).expect("its environment"));
    let seen = format!("{}\n{}\n", both.file("lab").display(), theirs.display());
    std::fs::write(packages(&home).join("lab.pth"), seen).expect("written");
    let python = home.join("bin/python").display().to_string();
    install(both, "lab-capability", &manifest("lab-capability", &python, "lab-env"));
}

/// Without what tells when and by whom it was written.
fn timeless(path: &Path) -> Value {
    let mut value: Value = serde_json::from_slice(&std::fs::read(path).expect("written")).expect("JSON");
    for (section, key) in [("install", "installer_version"), ("code", "regenerated_at")] {
        value[section][key] = Value::Null;
    }
    value["generated_at"] = Value::Null;
    // The later release writes an empty one for an adapter that has none.
    if value["config_schema"] == json!({}) {
        value.as_object_mut().expect("an object").remove("config_schema");
    }
    value
}

#[test]
fn manifests_are_written_anew_alike_but_for_what_is_the_users() {
    with_each_release("manifests_are_written_anew_alike_but_for_what_is_the_users", |both| {
        let arguments = ["regenerate-manifest", "lab-capability"];
        let path = both.data().join("manifests/lab-capability.json");
        let [mut theirs, ours] = [Who::Theirs, Who::Ours].map(|who| {
            both.empty();
            laboratory(both);
            let said = both.run(who, &arguments, "");
            assert_eq!(said.code, Some(0), "{said:?}");
            assert_eq!(
                // What is told of values that are not kept follows it.
                said.stdout.lines().find(|line| line.starts_with('✓')),
                Some(&*format!("✓ Regenerated manifest at {}", path.display()))
            );
            timeless(&path)
        });
        assert_eq!(ours["code"]["version"], "1.2.4", "{ours}");
        assert_eq!(
            (&ours["overrides"], &ours["install"]["env_vars"]),
            (&json!({"k": 1}), &json!({"A": "b"}))
        );
        // Its defect: it forgets both.
        theirs["overrides"] = ours["overrides"].clone();
        theirs["install"]["env_vars"] = ours["install"]["env_vars"].clone();
        // The later release writes down how it was installed, which looking again does not tell.
        let mut ours = ours;
        // Nor does it write down what the class said, by which an update tells what the user wrote.
        for key in ["mode", "resolved", "refreshed_at", "source_values"] {
            theirs["install"].as_object_mut().expect("a section").remove(key);
            ours["install"].as_object_mut().expect("a section").remove(key);
        }
        assert_eq!(theirs, ours, "{}", both.ancestor.version);

        let path = both.data().join("manifests/adapter-lab-task-LabAdapter.json");
        let arguments = ["generate-adapter-manifest", "lab-env", "lab_capability.adapters:LabAdapter"];
        let [theirs, ours] = [Who::Theirs, Who::Ours].map(|who| {
            both.empty();
            laboratory(both);
            let said = both.run(who, &arguments, "");
            assert_eq!(said.code, Some(0), "{said:?}");
            (said.stdout, timeless(&path))
        });
        assert_eq!(theirs, ours, "{}", both.ancestor.version);
        for wrong in [
            &["generate-adapter-manifest", "lab-env", "no-colon"][..],
            &["generate-adapter-manifest", "lab-env", "no.module:Class"],
            &["generate-adapter-manifest", "nowhere", "lab_capability.adapters:LabAdapter"],
            &["regenerate-manifest", "nobody"],
        ] {
            compare(both, Equal::Code, &laboratory, wrong, "");
        }
    });
}
