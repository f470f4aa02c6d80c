//! Files that are kept for the next call like the one that made them.

use crate::harness::{Worker, call, shim};
use crate::http::Answer;
use crate::lifecycle::script;
use cjm_wire::cache::relative_dir;
use cjm_wire::link::{Launch, to_shim};
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

/// Calls that one worker of these tests takes side by side.
const CALLS_AT_ONCE: u32 = 4;
const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
const HELLO_ABC: &str = "89ee37f6626ebabe2d23ae92a841699695948eec42c3cafe7bb9bf6387377686";

/// `text` runs with the input as $1, the output as $2, the greeting as $3; every run leaves a line in `runs`.
fn worker(text: &str) -> Worker {
    let line = format!("echo run >> \"$4/runs\"; {text}");
    let action = json!({
        "argv": ["-c", line, "sh", "{input}", "{out}", "{greeting}", "{data_dir}"],
        "parameters": {
            "input": {"type": "input_file", "required": true},
            "greeting": {"type": "string", "default": "hello "},
            "beside": {"type": "input_file"},
        },
        "outputs": {"out": "{cache_dir}/{input.stem}.txt", "source": "{input}"},
        "result": "files",
    });
    let mut launch = script(json!({"greet": action}));
    if let Launch::Executable { executable, .. } = &mut launch {
        executable.concurrency_max = Some(CALLS_AT_ONCE);
    }
    Worker::ready(shim(), launch).0
}

const GREET: &str = "{{ printf %s \"$3\"; cat \"$1\"; }} > \"$2\"";

fn input(worker: &Worker, name: &str, content: &str) -> PathBuf {
    let path = worker.dir.path().join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, content).unwrap();
    path
}

fn runs(worker: &Worker) -> usize {
    std::fs::read_to_string(worker.data_dir().join("runs")).unwrap_or_default().lines().count()
}

fn greet(worker: &Worker, input: &Path, more: &Value) -> Answer {
    let mut kwargs = json!({"input": input});
    kwargs.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    worker.execute("greet", kwargs)
}

fn out_path(result: &Value) -> PathBuf {
    PathBuf::from(result["out"]["path"].as_str().expect("a path"))
}

fn left_in_work(worker: &Worker) -> usize {
    std::fs::read_dir(worker.data_dir().join("work/session")).map_or(0, Iterator::count)
}

#[test]
fn an_unchanged_input_is_not_worked_on_twice() {
    let worker = worker(GREET);
    let page = input(&worker, "a page.png", "abc");
    let first = greet(&worker, &page, &json!({}));
    assert_eq!(first.header("x-cjm-accounts"), None);
    let result = first.json();
    let config = Map::from_iter([("greeting".to_owned(), json!("hello "))]);
    let dir = worker.data_dir().join(relative_dir("greet", &page, ABC, &config));
    assert_eq!(out_path(&result), dir.join("a page.txt"));
    assert_eq!(std::fs::read_to_string(out_path(&result)).unwrap(), "hello abc");
    assert_eq!(result["source"], json!({"path": page, "bytes": 3, "sha256": ABC}));
    assert_eq!((&result["out"]["bytes"], &result["out"]["sha256"]), (&json!(9), &json!(HELLO_ABC)));

    let second = greet(&worker, &page, &json!({"greeting": "hello "}));
    assert_eq!((second.json(), runs(&worker)), (result.clone(), 1));
    let accounts: Value = serde_json::from_str(second.header("x-cjm-accounts").unwrap()).unwrap();
    assert_eq!(accounts[0]["event_type"], "cache_hit");
    assert_eq!(accounts[0]["payload"]["input_hash"], format!("sha256:{ABC}"));
    assert_eq!(accounts[0]["payload"]["directory"], json!(dir));
    assert_eq!((&accounts[0]["payload"]["files"], &accounts[0]["payload"]["bytes"]), (&json!(1), &json!(9)));
    assert_eq!(accounts.as_array().map(Vec::len), Some(1));

    // The same content under another path is the same work, and is told under its own path.
    let copy = input(&worker, "elsewhere/a page.jpg", "abc");
    let of_copy = greet(&worker, &copy, &json!({})).json();
    assert_eq!((&of_copy["out"], of_copy["source"]["path"].as_str()), (&result["out"], copy.to_str()));
    assert_eq!((runs(&worker), left_in_work(&worker)), (1, 0));
}

#[test]
fn whatever_differs_is_worked_on_again() {
    let worker = worker(GREET);
    let page = input(&worker, "page", "abc");
    let beside = input(&worker, "beside", "1");
    let first = out_path(&greet(&worker, &page, &json!({})).json());
    let mut expected = 1;
    let mut again = |what: &str, more: Value| -> PathBuf {
        expected += 1;
        let path = out_path(&greet(&worker, &page, &more).json());
        assert_eq!(runs(&worker), expected, "{what}");
        path
    };
    assert_ne!(again("another argument", json!({"greeting": "bye "})), first);
    let with_one = again("another file", json!({"beside": beside}));
    std::fs::write(&beside, "2").unwrap();
    assert_ne!(again("another content of the other file", json!({"beside": beside})), with_one);
    std::fs::write(&first, "tampered").unwrap();
    assert_eq!(again("a kept file was changed", json!({})), first);
    assert_eq!(std::fs::read_to_string(&first).unwrap(), "hello abc");
    std::fs::remove_file(&first).unwrap();
    assert_eq!(again("a kept file was removed", json!({})), first);
    // The name holds the beginning of two hashes; what it is of, its record says in full.
    let record = first.parent().unwrap().join(".kept.json");
    let text = std::fs::read_to_string(&record).unwrap();
    std::fs::write(&record, text.replace(ABC, &ABC.replace("ba7816bf", "ba7816ff"))).unwrap();
    assert_eq!(again("another input of the same short hash", json!({})), first);
    std::fs::write(&record, "no record").unwrap();
    assert_eq!(again("a damaged record", json!({})), first);
    std::fs::write(&page, "abcd").unwrap();
    assert_ne!(again("another content", json!({})), first);
    assert_eq!(left_in_work(&worker), 0);
}

#[test]
fn a_kept_file_is_told_with_the_hash_of_what_it_holds_whatever_its_length_and_time() {
    let worker = worker(GREET);
    let page = input(&worker, "page", "abc");
    let first = greet(&worker, &page, &json!({})).json();
    let made = out_path(&first);
    let modified = || std::fs::metadata(&made).and_then(|found| found.modified()).unwrap();
    let since = modified();
    let write = |content: &str| {
        std::fs::write(&made, content).unwrap();
        std::fs::File::options().write(true).open(&made).unwrap().set_modified(since).unwrap();
    };
    let again = |what: &str, expected: usize| {
        assert_eq!(greet(&worker, &page, &json!({})).json(), first, "{what}");
        assert_eq!(
            (std::fs::read_to_string(&made).unwrap().as_str(), runs(&worker)),
            ("hello abc", expected),
            "{what}"
        );
    };
    write("hello xyz");
    again("other bytes of the same length and time", 2);
    // What holds the same is the same: as in a data directory that was copied, with its times or without.
    replace(&made);
    again("another inode", 2);
    std::fs::write(&made, "hello abc").unwrap();
    again("another time", 2);
    // As an earlier version kept it.
    let record = made.with_file_name(".kept.json");
    let mut kept: Value = serde_json::from_str(&std::fs::read_to_string(&record).unwrap()).unwrap();
    for name in ["inode", "ctime_ns"] {
        assert!(kept["files"]["out"].as_object_mut().unwrap().remove(name).is_some(), "{name}: {kept}");
    }
    std::fs::write(&record, kept.to_string()).unwrap();
    again("a record without them", 2);
    write("hello xyz");
    again("a record without them, and other bytes", 3);
}

#[test]
fn a_call_can_be_told_to_run_all_the_same() {
    let worker = worker(GREET);
    let page = input(&worker, "page", "abc");
    let first = greet(&worker, &page, &json!({})).json();
    let mut body = call("greet", json!({"input": page}), None);
    body["envelope"]["control"] = json!({"force": true});
    let forced = worker.post("/execute", &body.to_string());
    assert_eq!((forced.json(), runs(&worker)), (first.clone(), 2));
    assert_eq!(greet(&worker, &page, &json!({})).json(), first);
    assert_eq!(runs(&worker), 2);
}

#[test]
fn the_hosts_word_spares_reading_and_a_changed_file_is_read() {
    use std::os::unix::fs::MetadataExt as _;
    let worker = worker(GREET);
    let page = input(&worker, "page", "abc");
    let found = std::fs::metadata(&page).unwrap();
    let mtime_ns = found.mtime() * 1_000_000_000 + found.mtime_nsec();
    let ctime_ns = found.ctime() * 1_000_000_000 + found.ctime_nsec();
    for (size, expected) in [(3, "told".repeat(16)), (4, ABC.to_owned())] {
        let mut body = call("greet", json!({"input": page}), None);
        let told = format!("sha256:{}", "told".repeat(16));
        body["input_files"] = json!({(page.to_str().unwrap()): {
            "size": size, "mtime_ns": mtime_ns, "inode": found.ino(), "ctime_ns": ctime_ns, "content_hash": told,
        }});
        let result = worker.post("/execute", &body.to_string()).json();
        assert_eq!(result["source"]["sha256"], expected);
        let dir = out_path(&result).parent().unwrap().file_name().unwrap().to_str().unwrap().to_owned();
        assert!(dir.starts_with(&format!("{}_", &expected[..6])), "{dir}");
    }
}

#[test]
fn another_file_in_the_place_of_an_input_is_noticed_also_while_the_program_runs() {
    // As archives, copies with times and cameras leave them: other content, same size and time of change.
    let replaced = "printf xyz > \"$1.new\"; touch -r \"$1\" \"$1.new\"; mv \"$1.new\" \"$1\"";
    let worker = worker(&format!("cat \"$1\" > \"$2\"; {replaced}"));
    let page = input(&worker, "page", "abc");
    let result = greet(&worker, &page, &json!({})).json();
    assert!(out_path(&result).starts_with(worker.data_dir().join("work")), "{result}");
    let second = greet(&worker, &page, &json!({})).json();
    assert_eq!(std::fs::read_to_string(out_path(&second)).unwrap(), "xyz");
    assert_eq!(runs(&worker), 2);
}

#[test]
fn what_failed_or_was_made_of_a_moving_input_is_not_kept() {
    let failing = worker("echo half > \"$2\"; exit 3");
    let page = input(&failing, "page", "abc");
    for _ in 0..2 {
        let error = greet(&failing, &page, &json!({})).job_error();
        assert!(error["message"].as_str().unwrap().contains("exit code 3"), "{error}");
    }
    assert_eq!((runs(&failing), left_in_work(&failing)), (2, 0));
    assert!(!failing.data_dir().join("greet").exists());

    let moving = worker("cat \"$1\" > \"$2\"; echo more >> \"$1\"");
    let page = input(&moving, "page", "abc");
    let result = greet(&moving, &page, &json!({})).json();
    assert!(out_path(&result).starts_with(moving.data_dir().join("work")), "{result}");
    assert_eq!(std::fs::read_to_string(out_path(&result)).unwrap(), "abc");
    assert!(!moving.data_dir().join("greet").exists());
}

/// `CALLS_AT_ONCE` calls with that body begin before any ends, and each writes something else.
fn at_once(worker: &Worker, body: &Value) -> Vec<Answer> {
    let begin = |job: u32| {
        let mut body = body.clone();
        body["envelope"]["job_id"] = job.to_string().into();
        worker.post_beside("/execute", body.to_string())
    };
    let calls: Vec<_> = (0..CALLS_AT_ONCE).map(begin).collect();
    calls.into_iter().map(|call| call.join().unwrap().unwrap()).collect()
}

/// How often a cache hit was told; the results are checked to be one, and what lies at their path.
fn hits_of_one_truth(answers: &[Answer]) -> usize {
    let result = answers[0].json();
    for answer in answers {
        assert_eq!(answer.json(), result, "one path has one hash");
    }
    let hash = std::process::Command::new("sha256sum").arg(out_path(&result)).output().unwrap();
    let hash = String::from_utf8(hash.stdout).unwrap();
    assert_eq!(hash.split(' ').next(), result["out"]["sha256"].as_str(), "of what lies there");
    answers.iter().filter(|answer| answer.header("x-cjm-accounts").is_some()).count()
}

#[test]
fn of_calls_for_the_same_files_at_one_moment_the_first_is_kept_and_given_to_all() {
    // Each waits until all have begun, so that all find nothing and all have something to keep.
    let others = u64::from(CALLS_AT_ONCE);
    let worker = worker(&format!(
        "while [ $(( $(wc -l < \"$4/runs\") % {CALLS_AT_ONCE} )) -ne 0 ]; do sleep 0.01; done; sleep 0.1; echo $$ > \"$2\""
    ));
    let page = input(&worker, "page", "abc");
    let body = call("greet", json!({"input": page}), None);
    let made = at_once(&worker, &body);
    assert_eq!(hits_of_one_truth(&made) as u64, others - 1);
    assert!(out_path(&made[0].json()).starts_with(worker.data_dir().join("greet")));
    // Told to make them anew, one of them replaces what was there, and no other replaces that.
    let mut forced = body.clone();
    forced["envelope"]["control"] = json!({"force": true});
    let again = at_once(&worker, &forced);
    assert_eq!(hits_of_one_truth(&again) as u64, others - 1);
    assert_ne!(again[0].json()["out"], made[0].json()["out"]);
    assert_eq!(
        at_once(&worker, &body).iter().map(Answer::json).collect::<Vec<_>>(),
        vec![again[0].json(); 4]
    );
    assert_eq!((runs(&worker) as u64, left_in_work(&worker)), (2 * others, 0));
}

/// The folder is the tool's, and a data directory may have come from elsewhere.
#[test]
fn a_record_that_is_no_file_is_no_record_and_holds_nobody() {
    let worker = worker(GREET);
    let page = input(&worker, "page.png", "abc");
    let kept = out_path(&greet(&worker, &page, &json!({})).json());
    let record = kept.with_file_name(".kept.json");
    let shapes: [&dyn Fn(&Path); 3] = [
        &|path| {
            let made = std::process::Command::new("mkfifo").arg(path).status();
            assert!(made.expect("mkfifo").success());
        },
        &|path| std::os::unix::fs::symlink("/dev/zero", path).unwrap(),
        &|path| std::fs::create_dir(path).unwrap(),
    ];
    for (round, make) in shapes.into_iter().enumerate() {
        let _ = std::fs::remove_file(&record);
        make(&record);
        let result = greet(&worker, &page, &json!({})).json();
        assert_eq!(result["out"]["sha256"], HELLO_ABC, "{result}");
        assert_eq!(runs(&worker), round + 2, "what has no record is worked on again");
    }
}

#[test]
fn nothing_is_kept_where_a_link_at_the_name_of_an_input_leads_to() {
    let worker = worker(GREET);
    let page = input(&worker, "page", "abc");
    let elsewhere = worker.dir.path().join("elsewhere");
    for folder in [&elsewhere, &worker.data_dir().join("greet")] {
        std::fs::create_dir_all(folder).unwrap();
    }
    std::os::unix::fs::symlink(&elsewhere, worker.data_dir().join("greet/page")).unwrap();
    let made = out_path(&greet(&worker, &page, &json!({})).json());
    assert_eq!(std::fs::read_to_string(&made).unwrap(), "hello abc", "it is good for this call");
    assert!(made.starts_with(worker.data_dir().join("work")), "{}", made.display());
    assert_eq!(std::fs::read_dir(&elsewhere).unwrap().count(), 0);
}

/// What calls with these settings of their tool make, one worker after the other with one directory.
#[test]
fn with_other_settings_of_its_tool_an_input_is_worked_on_again_and_in_another_shell_it_is_not() {
    let data = tempfile::tempdir().unwrap();
    let page = data.path().join("page");
    std::fs::write(&page, "abc").unwrap();
    let settings = [
        (1, "eu", "one", json!({})),
        (1, "eu", "another", json!({})),
        (2, "us", "one", json!({})),
        (3, "us", "one", json!({"LAB_KEY": "s3cret"})),
        (4, "us", "one", json!({"LAB_KEY": "s3cret two"})),
        (4, "us", "another", json!({"LAB_KEY": "s3cret two"})),
    ];
    for (expected, region, shell, secrets) in settings {
        let action = json!({
            "argv": ["-c", "echo run >> \"$3/runs\"; echo \"$REGION $LAB_KEY\" > \"$2\"", "sh", "{input}", "{out}", "{data_dir}"],
            "parameters": {"input": {"type": "input_file", "required": true}},
            "outputs": {"out": "{cache_dir}/out"},
            "result": "files",
        });
        let variables = vec![("REGION", region.to_owned()), ("SHELL_SESSION", shell.to_owned())];
        let mut worker = Worker::start_with(shim(), |_| variables);
        let mut spec = worker.spec(script(json!({"tell": action})), secrets.as_object().unwrap().clone());
        spec.data_dir = data.path().to_str().unwrap().to_owned();
        spec.own_variables = ["REGION".to_owned()].into();
        worker.send(to_shim::SPEC, &serde_json::to_vec(&spec).unwrap());
        worker.wait_ready();
        let made = out_path(&worker.execute("tell", json!({"input": page})).json());
        let key = secrets["LAB_KEY"].as_str().unwrap_or_default();
        assert_eq!(std::fs::read_to_string(&made).unwrap(), format!("{region} {key}\n"));
        let runs = std::fs::read_to_string(data.path().join("runs")).unwrap();
        assert_eq!(runs.lines().count(), expected, "{region}, {shell}, {secrets}");
        let record = std::fs::read_to_string(made.with_file_name(".kept.json")).unwrap();
        assert!(!record.contains("s3cret"), "{record}");
    }
}

/// Another file in its place, of the same size and time.
fn replace(path: &Path) {
    let new = path.with_extension("new");
    let copied = std::process::Command::new("cp").arg("-p").args([path, &new]).status();
    assert!(copied.expect("cp").success());
    std::fs::rename(new, path).unwrap();
}

#[test]
fn with_another_file_that_its_arguments_name_a_program_makes_its_files_anew() {
    let tool = tempfile::tempdir().unwrap();
    let file = |name: &str| tool.path().join(name);
    for name in ["tool.py", "model", "optional", "later"] {
        std::fs::write(file(name), "x").unwrap();
    }
    let copied = std::process::Command::new("cp").args([Path::new("/bin/sh"), &file("program")]).status();
    assert!(copied.expect("cp").success());
    let line = "echo run >> \"$3/runs\"; cat \"$1\" > \"$2\"";
    let action = json!({
        "argv": ["-c", line, "sh", "{input}", "{out}", "{data_dir}", file("tool.py"), "../../../beside",
            "./.././../../with_dots",
            format!("--model={}", file("model").display()), {"when": "careful", "args": [file("optional")]},
            {"when": "list", "args": ["{list}"]}],
        "parameters": {"input": {"type": "input_file", "required": true}, "list": {"type": "path"},
            "careful": {"type": "boolean"}},
        "outputs": {"out": "{cache_dir}/out"},
        "result": "files",
    });
    let mut launch = script(json!({"greet": action}));
    if let Launch::Executable { program, .. } = &mut launch {
        *program = file("program").to_str().unwrap().to_owned();
    }
    let worker = Worker::ready(shim(), launch).0;
    let page = input(&worker, "page", "abc");
    let expect = |expected: usize, what: &str, more: Value| {
        for round in ["first", "again"] {
            greet(&worker, &page, &more).json();
            assert_eq!(runs(&worker), expected, "{what}, {round}");
        }
    };
    expect(1, "nothing is kept", json!({}));
    replace(&file("program"));
    expect(2, "another program", json!({}));
    replace(&file("tool.py"));
    expect(3, "another file among the arguments", json!({}));
    std::fs::write(file("model"), "another").unwrap();
    expect(4, "another file of an option", json!({}));
    std::fs::write(worker.data_dir().join("beside"), "x").unwrap();
    expect(5, "a file named as the program sees it", json!({}));
    std::fs::write(worker.data_dir().join("with_dots"), "x").unwrap();
    expect(6, "and one with dots between", json!({}));
    std::fs::write(file("optional"), "another").unwrap();
    expect(6, "a file that is no argument of this call", json!({}));
    expect(7, "it is one now", json!({"careful": true}));
    replace(&file("optional"));
    expect(8, "and another", json!({"careful": true}));

    let list = json!({"list": file("list")});
    expect(9, "a path where nothing is", list.clone());
    std::fs::write(file("list"), "x").unwrap();
    expect(10, "now there is a file", list.clone());
    replace(&file("list"));
    expect(11, "and another", list.clone());
    std::fs::remove_file(file("list")).unwrap();
    std::fs::create_dir(file("list")).unwrap();
    expect(12, "a folder", list.clone());
    std::fs::write(file("list").join("in it"), "x").unwrap();
    expect(12, "what lies in a folder is not looked at", list);
}
