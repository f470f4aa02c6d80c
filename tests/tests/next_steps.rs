//! Every next step that an error names is tried: what stands in backticks is run as a person would type it, and shows
//! what it promises. A step that leads to nothing is worse than none.

use cjm_platform::process::Signal;
use cjm_tests::repo;
use cjm_tests::world::{COMMAND_MAX, Outcome, World, eventually};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

const KIT: &str = "
from cjm_sdk import Capability, action
import os

class Kit(Capability):
    name = 'kit'
    version = '1.0.0'
    config_schema = {'greeting': 'Hello'}

    @action
    def key(self):
        return {}['nokey']

    @action
    def set(self):
        return {1, 2}

    @action
    def refuse(self, page=1):
        raise ValueError('page %s is not there' % page)

    @action
    def die(self):
        os._exit(3)
";

/// One error, and what its next steps must show.
struct Case {
    arguments: &'static [&'static str],
    exit: u8,
    code: &'static str,
    /// Words of the error itself, as text.
    says: &'static [&'static str],
    /// Exit code of each command that the next step names, and what it shows on either stream, in order.
    shows: &'static [(u8, &'static str)],
}

const CASES: [Case; 13] = [
    Case {
        arguments: &["call", "kit", "--action", "key"],
        exit: 12,
        code: "call.tool_failed",
        says: &["KeyError: 'nokey'", "in key", "the fault is in the tool"],
        shows: &[(0, "    KeyError: 'nokey'")],
    },
    Case {
        arguments: &["call", "kit", "--action", "set"],
        exit: 12,
        code: "call.tool_failed",
        says: &["let the tool return plain JSON"],
        shows: &[(0, "call.tool_failed")],
    },
    Case {
        arguments: &["call", "kit", "--action", "refuse"],
        exit: 12,
        code: "call.tool_failed",
        says: &["ValueError: page 1 is not there", "correct the argument that the message speaks of"],
        shows: &[(0, "page 1 is not there")],
    },
    Case {
        arguments: &["call", "kit", "--action", "key", "zzz=1"],
        exit: 1,
        code: "call.arguments_refused",
        says: &["zzz", "the tool has not run"],
        shows: &[(0, "call.arguments_refused")],
    },
    Case {
        arguments: &["call", "kit", "--action", "die"],
        exit: 11,
        code: "call.worker_died",
        says: &["with code 3"],
        shows: &[(0, "with code 3")],
    },
    Case {
        arguments: &["call", "shell", "--action", "say"],
        exit: 1,
        code: "call.arguments_refused",
        says: &["needs `text`", "correct `text`"],
        shows: &[(0, "call.arguments_refused")],
    },
    Case {
        arguments: &["call", "shell", "--action", "fail"],
        exit: 12,
        code: "call.tool_failed",
        says: &["out of ideas"],
        shows: &[(0, "out of ideas")],
    },
    Case {
        arguments: &["call", "shell", "--action", "wait", "--timeout", "0.7"],
        exit: 13,
        code: "call.deadline",
        says: &["did not end within 0.7 s"],
        shows: &[(0, "call.deadline")],
    },
    Case {
        arguments: &["call", "kit", "--action", "key", "--config", "{\"gone\": 1}"],
        exit: 1,
        code: "worker.bad_configuration",
        says: &["gone"],
        shows: &[(0, "greeting")],
    },
    Case {
        arguments: &["call", "kitt"],
        exit: 1,
        code: "host.unknown_capability",
        says: &["kitt", "kit", "broken.json"],
        shows: &[(1, "line 2"), (0, "kit v1.0.0")],
    },
    Case {
        arguments: &["call", "broken"],
        exit: 1,
        code: "host.broken_manifest",
        says: &["line 2"],
        shows: &[(1, "line 2")],
    },
    Case {
        arguments: &["run", "wrong.yaml"],
        exit: 1,
        code: "composition.malformed",
        says: &["wrong.yaml"],
        shows: &[(1, "oops")],
    },
    Case {
        arguments: &["logs", "--journal", "--job", "nobody"],
        exit: 1,
        code: "logs.unknown",
        says: &["nothing is known of it"],
        shows: &[(0, "worker_spawned")],
    },
];

fn world() -> World {
    let world = World::new();
    let path = world.install_python("kit", "Kit", KIT);
    // What install-all would have found.
    let manifest = std::fs::read_to_string(&path).expect("a manifest");
    let mut manifest: Value = serde_json::from_str(&manifest).expect("JSON");
    manifest["code"]["config_schema"] =
        json!({"type": "object", "properties": {"greeting": {"default": "Hello"}}});
    std::fs::write(&path, manifest.to_string()).expect("written");
    world.install_executable(
        "shell",
        "sh",
        &json!({
            "say": {"parameters": {"text": {"type": "string", "required": true}}, "argv": ["-c", "printf '%s' \"$0\"", "{text}"],
                    "result": "stdout_text"},
            "fail": {"argv": ["-c", "echo 'out of ideas' >&2; exit 3"]},
            "wait": {"argv": ["-c", "exec sleep 3600"]},
        }),
    );
    std::fs::write(world.data_dir().join("manifests/broken.json"), "{\n oops }").expect("written");
    world.write("wrong.yaml", "name: w\nnodes:\n  a: {capability: kit, oops: 1}\n");
    world.write("capabilities.yaml", "capabilities: []\n");
    world
}

/// The commands in backticks.
fn commands(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).filter(|part| part.starts_with("cjm-ctl ")).collect()
}

/// Runs a command as it is told, through a shell, without what the world adds.
fn follow(world: &World, command: &str) -> Outcome {
    let binary = repo::binary("cjm-ctl");
    let mut shell = Command::new("sh");
    let folder = binary.parent().unwrap_or(Path::new("/")).display().to_string();
    let path = std::env::var("PATH").unwrap_or_default();
    shell.args(["-c", command]).env("PATH", format!("{folder}:{path}"));
    world.start_command(shell).wait(COMMAND_MAX)
}

#[test]
fn every_next_step_shows_what_it_promises() {
    let world = world();
    for case in &CASES {
        let plain = world.run(case.arguments).expect(case.exit);
        for words in case.says {
            assert!(plain.stderr.contains(words), "{words}\n{}", plain.describe());
        }
        let with_json = world.run(&[case.arguments, &["--json"]].concat()).expect(case.exit);
        let error = with_json.json()["error"].clone();
        assert_eq!(error["code"], case.code, "{}", with_json.describe());
        for next in [plain.stderr.as_str(), error["next_step"].as_str().unwrap_or_default()] {
            let named = commands(next);
            assert_eq!(named.len(), case.shows.len(), "{:?} names {named:?}", case.arguments);
            for (command, (exit, shown)) in named.into_iter().zip(case.shows) {
                let outcome = follow(&world, command).expect(*exit);
                let text = format!("{}{}", outcome.stdout, outcome.stderr);
                assert!(text.contains(shown), "{command} shows \"{shown}\"\n{}", outcome.describe());
            }
        }
    }
    world.assert_nothing_left();
}

/// A person may have several lists, and stand anywhere: the step names the one that the tool came from, while it is there.
#[test]
fn the_step_that_installs_names_the_list_that_the_tool_came_from() {
    let world = world();
    std::fs::create_dir_all(world.file("it's mine")).expect("a folder");
    let list =
        world.write("it's mine/tools.yaml", "capabilities: [{name: entry-of-first, env_name: first}]\n");
    let word = format!("'{}'", list.display().to_string().replace('\'', "'\\''"));
    let environments = world.data_dir().join("envs");
    let install = |name: &str| {
        let python = environments.join(name).join("bin/python").display().to_string();
        let install = json!({"python_path": python, "conda_env": name, "installer_version": "cjm-ctl 0.1.0",
            "capabilities_file": list.display().to_string()});
        let code = json!({"module": "m", "class": "C"});
        world.install(name, &cjm_tests::world::manifest(name, &code, &install))
    };
    let gone = install("gone").display().to_string();
    install("half");
    for name in ["half", "first"] {
        std::fs::create_dir_all(environments.join(name)).expect("a folder");
    }
    std::fs::write(environments.join(".first.list"), format!("{}\nentry-of-first", list.display()))
        .expect("written");
    let check = |is_there: bool| {
        // The second is how many there are for what no list asks for any more.
        for (arguments, steps, without_first) in [
            (&["call", "gone"][..], 1, 1),
            (&["call", "half"], 1, 1),
            (&["call", "first"], 1, 0),
            (&["call", "entry-of-first"], 1, 0),
            (&["call", "any"], 1, 0),
            (&["status"], 2, 1),
            (&["list"], 3, 2),
            (&["validate", &gone], 1, 1),
        ] {
            let steps = if is_there { steps } else { without_first };
            let told = world.run(arguments);
            let named: Vec<&str> =
                commands(&told.stderr).into_iter().filter(|step| step.contains(" install-all")).collect();
            assert_eq!(named.len(), steps, "{}", told.describe());
            for step in named {
                assert_eq!(step.ends_with(&format!(" --capabilities {word}")), is_there, "{step}");
                let followed = follow(&world, step);
                let read = if is_there { "entry-of-first" } else { "Nothing to install" };
                assert!(followed.stdout.contains(read), "{}", followed.describe());
            }
        }
    };
    check(true);
    // A list that is there no more helps nobody.
    std::fs::remove_file(&list).expect("removed");
    check(false);
    world.assert_nothing_left();
}

/// A refusal before a worker was started has left nothing in the journal; one while it started has.
#[test]
fn a_story_is_named_only_where_there_is_one() {
    let world = world();
    let runtime = |program: &str| json!({"kind": "executable", "program": program, "actions": {"go": {"argv": ["-c", "exit 0"]}}});
    let unset = json!({"name": "unset", "version": "1.0.0", "runtime": runtime("sh"),
        "worker_env": [{"name": "API_KEY", "secret": true, "required": true}]});
    world.install("unset", &json!({"format_version": "2.0", "code": unset, "install": {}}));
    world.write("unset.yaml", "name: u\nnodes:\n  a: {capability: unset, action: go}\n");
    world.write("kit.yaml", "name: k\nnodes:\n  a: {capability: kit, action: key}\n");
    let file = |name: &str| world.file(name).display().to_string();
    let (refused, begun) = (file("unset.yaml"), file("kit.yaml"));
    for (arguments, has_story) in [
        (&["call", "unset", "--action", "go"][..], false),
        (&["run", &refused], false),
        (
            &[
                "call",
                "kit",
                "--action",
                "key",
                "--config",
                "{\"greeting\": {\"deep\": \"value\"}, \"gone\": 1}",
            ],
            false,
        ),
        (&["call", "kit", "--action", "key"], true),
        (&["run", &begun], true),
    ] {
        let outcome = world.run(arguments);
        assert_ne!(outcome.code, Some(0), "{}", outcome.describe());
        let named: Vec<&str> =
            commands(&outcome.stderr).into_iter().filter(|told| told.contains("logs --journal")).collect();
        assert_eq!(named.len(), usize::from(has_story), "{named:?}: {}", outcome.describe());
        for command in named {
            let shown = follow(&world, command).expect(0);
            assert!(shown.stdout.contains("KeyError"), "{}", shown.describe());
        }
    }
    world.assert_nothing_left();
}

#[test]
fn an_error_as_json_says_what_a_program_must_know() {
    let world = world();
    let outcome = world.run(&["call", "kit", "--action", "key", "--json"]).expect(12);
    let error = outcome.json()["error"].clone();
    for (key, value) in
        [("category", json!("user_input")), ("retriable", json!(true)), ("exception", json!("KeyError"))]
    {
        assert_eq!(error[key], value, "{error:#}");
    }
    let last = error["traceback"].as_array().and_then(|lines| lines.last()).cloned();
    assert_eq!(last, Some(json!("KeyError: 'nokey'")), "{error:#}");
    for id in ["job_id", "run_id"] {
        assert_eq!(error[id].as_str().map(str::len), Some(36), "{error:#}");
    }
    let stream = world.run(&["call", "kit", "--action", "key", "--stream", "--json"]).expect(12).json();
    assert_eq!(
        (&stream["error"]["category"], &stream["error"]["exception"]),
        (&json!("user_input"), &json!("KeyError"))
    );
    assert!(stream["error"]["run_id"].is_string(), "{stream:#}");
    let refused = world.run(&["call", "shell", "--action", "say", "n=1", "--json"]).expect(1).json();
    assert_eq!(refused["error"]["fields_invalid"], json!(["n"]), "{refused:#}");
}

/// Every command that a document names, whatever it is nested in.
fn commands_of(document: &Value) -> Vec<String> {
    match document {
        Value::String(text) => commands(text).into_iter().map(str::to_owned).collect(),
        Value::Array(items) => items.iter().flat_map(commands_of).collect(),
        Value::Object(fields) => fields.values().flat_map(commands_of).collect(),
        _ => Vec::new(),
    }
}

/// Documents name commands as the text does: whoever runs one stands in the same directory.
#[test]
fn the_commands_of_a_document_find_the_same_directory() {
    let world = world();
    let run = |name: &str, nodes: &str| {
        world.write(name, format!("name: r\nnodes:\n  {nodes}\n")).display().to_string()
    };
    let fails = run("fails.yaml", "a: {capability: kit, action: key}");
    let waits = run("waits.yaml", "a: {capability: shell, action: wait}");
    let install =
        json!({"python_path": "/nowhere/python", "conda_env": "gone", "installer_version": "cjm-ctl 0.1.0"});
    let code = json!({"module": "m", "class": "C"});
    world.install("gone", &cjm_tests::world::manifest("gone", &code, &install));
    let interrupted = world.start(&["run", &waits, "--json"]);
    eventually("a running job", COMMAND_MAX, || {
        world.run(&["logs", "--journal"]).stdout.contains("running").then_some(())
    });
    interrupted.signal(Signal::INT);
    let told = [
        (interrupted.wait(COMMAND_MAX).expect(130), "--run"),
        (world.run(&["run", &fails, "--json"]).expect(16), "--run"),
        (world.run(&["run", &waits, "--timeout", "0.5", "--json"]).expect(13), "--run"),
        (world.run(&["call", "kit", "--action", "key", "--json"]).expect(12), "--job"),
        (world.run(&["call", "gone", "--json"]), "install-all"),
        (world.run(&["list", "--json"]).expect(0), "validate /"),
    ];
    for (outcome, words) in told {
        let named = commands_of(&outcome.json());
        assert!(named.iter().any(|command| command.contains(words)), "{named:?}: {}", outcome.describe());
        let directory = format!(" --data-dir {} ", world.data_dir().display());
        for command in &named {
            assert_eq!(command.matches(&directory).count(), 1, "{command}: {}", outcome.describe());
        }
        if let Some(story) = named.iter().find(|command| command.contains("logs --journal")) {
            assert!(follow(&world, story).expect(0).stdout.contains("[job="), "{story}");
        }
    }
    // What a tool says stays as it is.
    let said = "`cjm-ctl list`";
    let result =
        world.run(&["call", "shell", "--action", "say", &format!("text={said}"), "--json"]).expect(0);
    assert_eq!(result.json()["result"], said);
    world.assert_nothing_left();
}

/// The same of what is told among results: elsewhere a secret would be kept for a tool that nobody asked for.
#[test]
fn the_commands_among_results_find_the_same_directory() {
    let world = world();
    let directory = format!("cjm-ctl --data-dir {} ", world.data_dir().display());
    let secret = json!([{"name": "API_KEY", "secret": true}]);
    let runtime = json!({"kind": "native", "program": "/bin/true"});
    world.install(
        "key",
        &cjm_tests::world::manifest("key", &json!({"runtime": runtime, "worker_env": secret}), &json!({})),
    );
    let listed = world.run(&["list", "--long"]).expect(0);
    let steps = commands(&listed.stdout);
    assert!(matches!(*steps, [step] if step.starts_with(&directory)), "{}", listed.describe());
    let _ = follow(&world, &format!("{} --value 'a long secret'", steps[0])).expect(0);
    let listed = world.run(&["list", "--long"]).expect(0);
    assert!(!listed.stdout.contains("not set"), "{}", listed.describe());
    let untold = world.run(&["set-secret", "key", "API_KEY"]).expect(2);
    assert!(untold.stderr.contains(&format!("`… | {directory}set-secret ")), "{}", untold.describe());
    let _ = world.run(&["call", "kit", "--action", "key"]).expect(12);
    let moved = world.run(&["retention", "--archive-journal", "0s"]).expect(0);
    let steps = commands(&moved.stdout);
    assert!(matches!(*steps, [step] if step.starts_with(&directory)), "{}", moved.describe());
    assert!(follow(&world, steps[0]).expect(0).stdout.contains("worker_spawned"), "{}", moved.describe());
    world.assert_nothing_left();
}

/// A file of another kind is named as what it is; as a composition, everything in it would be wrong.
#[test]
fn a_file_that_is_no_composition_is_named_as_what_it_is() {
    let world = world();
    world.write("cjm.yaml", "data_dir: ./.cjm\n");
    let manifest = world.data_dir().join("manifests/kit.json").display().to_string();
    let file = |name: &str| world.file(name).display().to_string();
    for (path, what, shown) in [
        (file("capabilities.yaml"), "is a list of capabilities, not a composition", "Nothing to install"),
        (manifest, "is the manifest of a tool, not a composition", ""),
        (file("cjm.yaml"), "is the settings of a project, not a composition", ""),
    ] {
        let told = world.run(&["run", &path, "--json"]).expect(1);
        let error = &told.json()["error"];
        assert_eq!(error["code"], "composition.another_file", "{}", told.describe());
        assert!(error["message"].as_str().is_some_and(|words| words.ends_with(what)), "{}", told.describe());
        let next = error["next_step"].as_str().unwrap_or_default();
        assert!(next.contains("`nodes`"), "{next}");
        for command in commands(next).into_iter().filter(|command| !command.contains("NAME")) {
            assert!(follow(&world, command).expect(0).stdout.contains(shown), "{command}");
        }
    }
    // What is wrong with a composition is told as before.
    assert_eq!(
        world.run(&["run", &file("wrong.yaml"), "--json"]).expect(1).json()["error"]["code"],
        "composition.malformed"
    );
    world.assert_nothing_left();
}

/// Where the usual step would lead nowhere, another one is told.
#[test]
fn a_step_fits_what_the_tool_has() {
    let world = world();
    let bare = "from cjm_sdk import Capability\n\nclass Bare(Capability):\n    name = 'bare'\n    config_schema = {'a': 1}\n";
    world.install_python("bare", "Bare", bare);
    let check = |arguments: &[&str], exit: u8, words: &str, never: &str| {
        let told = world.run(arguments).expect(exit);
        assert!(told.stderr.contains(words) && !told.stderr.contains(never), "{}", told.describe());
    };
    check(&["call", "shell", "say", "text=a"], 2, "name it with `--action say`", "no name before");
    check(&["call", "shell", "sya", "text=a"], 2, "`sya` has no `=`", "--action");
    check(&["call", "bare", "x=1"], 1, "mark a method of the tool's class with `@action`", "--action NAME");
    check(&["call", "bare", "--config", "{\"b\": 1}"], 1, "as the message says", "list --json");
    check(
        &["call", "kit", "--config", "{\"b\": 1}"],
        1,
        "list --json` shows its schema",
        "as the message says",
    );
    let _ = world.run(&["call", "kit", "--action", "key"]).expect(12);
    let logs = world.run(&["logs", "--level", "ERROR"]).expect(0);
    assert!(logs.stdout.lines().any(|line| line.contains(" kit] ")), "{}", logs.describe());
    let empty = world.run(&["set-secret", "kit", "K", "--value", "", "--json"]).expect(1);
    let error = empty.json()["error"].clone();
    assert_eq!(error["code"], "secrets.empty", "{}", empty.describe());
    assert_eq!(world.run(&["list-secrets", "kit", "--json"]).expect(0).json()["keys"], json!([]));
    let _ = world.run(&["set-secret", "kit", "K", "--value", "long enough"]).expect(0);
    let next = error["next_step"].as_str().unwrap_or_default();
    let removal = commands(next)[0];
    assert!(follow(&world, removal).expect(0).stdout.contains("Removed secret 'K'"), "{removal}");
    world.assert_nothing_left();
}

/// No installation made it, so none makes it anew: the step names the file that somebody wrote, and the key.
#[test]
fn what_is_wrong_in_a_python_manifest_that_somebody_wrote_is_corrected_there() {
    let world = world();
    let path = world.data_dir().join("manifests/kit.json");
    let good: Value = serde_json::from_slice(&std::fs::read(&path).expect("read")).expect("JSON");
    let file = path.display().to_string();
    let needs = "import nowhere_to_be_had\n";
    std::fs::write(world.python_dir().join("needy.py"), format!("{needs}{KIT}")).expect("a module");
    std::fs::write(world.python_dir().join("faulty.py"), format!("1 / 0\n{KIT}")).expect("a module");
    for (section, key, value, step) in [
        ("install", "python_path", "/nowhere/python", format!("correct `install.python_path` in {file}")),
        ("install", "python_path", "/bin/false", format!("`code.class` are corrected in {file}")),
        (
            "code",
            "module",
            "kti",
            format!("correct `code.module` in {file}; or name the folder that holds `kti`"),
        ),
        (
            "code",
            "module",
            "kti.deep",
            format!("correct `code.module` in {file}; or name the folder that holds `kti`"),
        ),
        ("code", "module", "needy", "install `nowhere_to_be_had` for ".to_owned()),
        ("code", "module", "faulty", format!("`code.class` are corrected in {file}")),
        ("code", "class", "Kti", format!("correct `code.class` in {file}")),
    ] {
        let mut wrong = good.clone();
        wrong[section][key] = value.into();
        std::fs::write(&path, wrong.to_string()).expect("written");
        let told = world.run(&["call", "kit", "--action", "key", "--json"]).expect(10);
        let next = told.json()["error"]["next_step"].as_str().unwrap_or_default().to_owned();
        assert!(next.contains(&step) && !next.contains("install-all"), "{value}: {}", told.describe());
        if value == "/nowhere/python" {
            let listed = world.run(&["list"]).expect(0);
            assert!(listed.stderr.contains(&step), "{}", listed.describe());
            let checked = world.run(&["validate", &file]).expect(0);
            let words = format!("{value} is not there; correct it in {file}");
            assert!(
                checked.stdout.contains(&words) || checked.stderr.contains(&words),
                "{}",
                checked.describe()
            );
        }
    }
    world.assert_nothing_left();
}

/// Options and subcommands that an error names exist, whether or not a test provokes that error.
#[test]
fn every_command_that_a_text_names_can_be_typed() {
    // A world that ends clears every process of this one away; while this one is held, none does.
    let _world = World::new();
    let mut seen = 0;
    for path in repo::sources() {
        // Tests quote commands that users would have typed otherwise.
        if path.ends_with("tests.rs") {
            continue;
        }
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        for command in commands(&text.replace("\\\n", " ")) {
            if command.len() > 120 || command.contains(['\n', '…', '|', '"', '&']) {
                continue;
            }
            let words: Vec<String> = command
                .split_whitespace()
                .skip(1)
                .map(|word| if word.contains('{') { "x".to_owned() } else { word.to_owned() })
                .collect();
            let mut arguments: Vec<&str> = words.iter().map(String::as_str).collect();
            arguments.push("--help");
            let output = Command::new(repo::binary("cjm-ctl")).args(&arguments).output().expect("runs");
            assert!(output.status.success(), "{}: `{command}` is no command: {output:?}", path.display());
            seen += 1;
        }
    }
    assert!(seen >= 15, "only {seen} commands found");
}
