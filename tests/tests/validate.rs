//! `cjm-ctl validate` of folders and lists: every fault with its file, line and column, before anything is installed; what it
//! finds is what `install-all` would refuse; and nothing of what is looked at runs.

use cjm_tests::world::{World, manifest};
use serde_json::{Value, json};
use std::fs;

/// Without a user's version shims, which take seconds to say which Python they mean.
fn world() -> World {
    let mut world = World::new();
    world.set("PATH", "/usr/local/bin:/usr/bin:/bin");
    world
}

/// File, line, code of each error, in their order.
fn errors(verdict: &Value) -> Vec<(String, Option<u64>, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = verdict["errors"].as_array().expect("a list");
    list.iter()
        .map(|error| {
            assert!(error["next_step"].as_str().is_some_and(|step| !step.is_empty()), "{error}");
            assert_eq!(error["line"].is_u64(), error["column"].is_u64(), "{error}");
            (text(&error["file"]), error["line"].as_u64(), text(&error["code"]))
        })
        .collect()
}

fn place(file: &str, line: impl Into<Option<u64>>, code: &str) -> (String, Option<u64>, String) {
    (file.to_owned(), line.into(), code.to_owned())
}

fn program(name: &str) -> Value {
    let actions = json!({"go": {"argv": []}});
    manifest(
        name,
        &json!({"runtime": {"kind": "executable", "program": "/bin/true", "actions": actions}}),
        &json!({}),
    )
}

/// Writes a file of the project, with its folders.
fn put(world: &World, name: &str, text: &str) {
    let path = world.file(name);
    fs::create_dir_all(path.parent().expect("a folder")).expect("mkdir");
    fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

const PROJECT: &str = "[project]\nname = 'tool'\nversion = '1'\n";

#[test]
fn a_folder_is_looked_through_and_each_fault_has_its_place() {
    let world = world();
    put(&world, "tool/pyproject.toml", PROJECT);
    put(&world, "tool/tool_pkg/__init__.py", "x = 1\n\ndef f(:\n    pass\n");
    put(
        &world,
        "tool/tool_pkg/good.py",
        &format!("open({:?}, 'w')\n", world.file("ran").display().to_string()),
    );
    put(&world, "tool/tool_pkg/logs.py", "import logging\nlogging.basicConfig(force=True)\n");
    put(&world, "tool/setup.cfg", "ignored");
    let verdict = world.run(&["validate", "tool", "--json"]).expect(1).json();
    assert_eq!((&verdict["kind"], &verdict["valid"]), (&"folder".into(), &false.into()), "{verdict}");
    assert_eq!(
        errors(&verdict),
        [
            place("tool/tool_pkg/__init__.py", 3, "source.syntax"),
            place("tool/tool_pkg/logs.py", 2, "source.logging_forced"),
        ]
    );
    assert_eq!(verdict["errors"][0]["column"], 7, "{verdict}");
    assert!(!world.file("ran").exists(), "nothing of it ran");
    let plain = world.run(&["validate", "tool"]).expect(1);
    assert!(plain.stderr.contains("  - tool/tool_pkg/__init__.py:3:7: "), "{}", plain.describe());
    assert!(plain.stderr.contains("2 error(s)") && plain.stderr.contains("next: "), "{}", plain.describe());

    put(&world, "tool/tool_pkg/__init__.py", "x = 1\n");
    put(&world, "tool/tool_pkg/logs.py", "");
    let good = world.run(&["validate", "tool"]).expect(0);
    assert_eq!(good.stdout, "✓ tool (folder): valid\n", "{}", good.describe());

    // A project: its list, settings, composition and manifests beside the source.
    put(&world, "project/capabilities.yaml", "capabilities:\n- {name: t, manifest: tool.json}\n");
    put(&world, "project/tool.json", &program("tool").to_string());
    put(&world, "project/package.json", "{\"name\": \"of another program\"");
    put(&world, "project/cjm.yaml", "data_dir: .cjm\nruntime: {mode: 3}\n");
    put(&world, "project/flow.yaml", "name: f\nnodes:\n  a: {capability: c, oops: 1}\n");
    put(
        &world,
        "project/manifest.json",
        "{\n  \"format_version\": \"2.0\",\n  \"code\": {\"name\": \"a b\", \"version\": \"1\"}}",
    );
    put(&world, "project/venv/pyvenv.cfg", "");
    put(&world, "project/venv/theirs.py", "def (");
    put(&world, "project/scripts/ours.py", "if True:\nx = 1\n");
    let verdict = world.run(&["validate", "project", "--json"]).expect(1).json();
    assert_eq!(
        errors(&verdict),
        [
            place("project/cjm.yaml", 2, "settings_file.malformed"),
            place("project/flow.yaml", 3, "composition.schema"),
            // Its name, its module, its class and, where that would stand, its interpreter.
            place("project/manifest.json", 3, "manifest.invalid"),
            place("project/manifest.json", 3, "manifest.invalid"),
            place("project/manifest.json", 3, "manifest.invalid"),
            place("project/manifest.json", 1, "manifest.invalid"),
            place("project/scripts/ours.py", 2, "source.syntax"),
        ],
        "{verdict}"
    );
    world.assert_nothing_left();
}

#[test]
fn a_project_is_looked_at_where_its_parts_lie() {
    let world = world();
    let broken = "{\n\"format_version\": \"2.0\",\n oops}";
    put(&world, "p/cjm.yaml", "capabilities_config: tools.yaml\n");
    put(
        &world,
        "p/tools.yaml",
        "capabilities:\n- {name: z, manifest: manifests/z.json}\n- {name: gone, manifest: gone.json}\n",
    );
    put(&world, "p/manifests/z.json", broken);
    put(&world, "p/manifests/notes.txt", "of nobody's");
    put(&world, "p/compositions/q.yaml", "name: q\nnodes:\n  a: {capability: c, oops: 1}\n");
    put(&world, "p/compositions/misspelt.yaml", "name: q\nnode:\n  a: {capability: c}\n");
    put(&world, "p/.cjm/manifests/installed.json", broken);
    let verdict = world.run(&["validate", "p", "--json"]).expect(1).json();
    assert_eq!(
        errors(&verdict),
        [
            // The list names this one, and it lies in `manifests` as well: told once.
            place("p/manifests/z.json", 3, "manifest.malformed"),
            place("p/tools.yaml", 3, "install.file"),
            place("p/compositions/misspelt.yaml", 1, "composition.schema"),
            place("p/compositions/misspelt.yaml", 3, "composition.schema"),
            place("p/compositions/q.yaml", 3, "composition.schema"),
            place("p/.cjm/manifests/installed.json", 3, "manifest.malformed"),
        ],
        "{verdict}"
    );
    // A list by another name is looked at though it has none of a list's keys, and one that is not there is a fault.
    put(&world, "p/tools.yaml", "capabilites: []\n");
    let verdict = world.run(&["validate", "p", "--json"]).expect(1).json();
    let found =
        |file: &str, code: &str| errors(&verdict).iter().any(|error| error.0 == file && error.2 == code);
    assert!(found("p/tools.yaml", "capabilities_file.no_list"), "{verdict}");
    put(&world, "p/cjm.yaml", "capabilities_config: lists/all.yaml\ndata_dir: kept\n");
    put(&world, "p/kept/manifests/mine.json", broken);
    let verdict = world.run(&["validate", "p", "--json"]).expect(1).json();
    let files: Vec<String> = errors(&verdict).into_iter().map(|(file, ..)| file).collect();
    assert!(files.contains(&"p/lists/all.yaml".to_owned()), "{verdict}");
    assert!(files.contains(&"p/kept/manifests/mine.json".to_owned()), "{verdict}");
    // So does the directory that a command names, where it lies in the folder.
    std::fs::create_dir_all(world.data_dir().join("manifests")).expect("made");
    std::fs::write(world.data_dir().join("manifests/odd.json"), "{").expect("written");
    let names_odd = |folder: &str| {
        let verdict = world.run(&["validate", folder, "--json"]).expect(1).json();
        errors(&verdict).iter().any(|error| error.0.ends_with("manifests/odd.json"))
    };
    assert_eq!((names_odd(".."), names_odd("p")), (true, false));
    std::fs::remove_file(world.data_dir().join("manifests/odd.json")).expect("removed");

    // One that is in order, looked at from within.
    for name in ["p/kept/manifests/mine.json", "p/.cjm/manifests/installed.json", "p/manifests/z.json"] {
        put(&world, name, &program("z").to_string());
    }
    put(&world, "p/lists/all.yaml", "capabilities:\n- {name: z, manifest: ../manifests/z.json}\n");
    put(&world, "p/compositions/q.yaml", "name: q\nnodes:\n  a: {capability: z, action: go}\n");
    put(&world, "p/compositions/misspelt.yaml", "text: an input of q\n");
    let good = world.run(&["validate", "p", "--json"]).expect(0).json();
    assert_eq!(good["valid"], true, "{good}");
    let warnings = good["warnings"].to_string();
    assert!(warnings.contains("misspelt.yaml: it has no key `nodes`"), "{good}");
    world.assert_nothing_left();
}

/// A list of entries that are each wrong in their own way, and two that are not.
const LIST: &str = "capabilities:
- {name: first, manifest: tool.json}
- {name: again, manifest: tool.json}
- {name: broken, manifest: broken.json}
- {name: absent, manifest: absent.json}
- {name: source, env_name: one, package: ./source, python_version: '>=3.9'}
- {name: shared, env_name: one, package: named, python_version: '>=3.9'}
- {name: project, env_name: project, package: ./project, python_version: '>=3.9'}
- {name: nameless, env_name: nameless, package: ./nameless, python_version: '>=3.9'}
- {name: bare, env_name: bare, package: ./bare, python_version: '>=3.9'}
- {name: newest, env_name: newest, package: named, python_version: newest}
- {name: options, env_name: options, package: '--pre', python_version: '>=3.9'}
- {name: conda, env_name: conda, package: named, env_file: absent.yml}
";

fn list_of_faults(world: &World) {
    put(world, "capabilities.yaml", LIST);
    put(world, "tool.json", &program("tool").to_string());
    put(world, "broken.json", "{\n\"format_version\": \"2.0\",\n oops}");
    put(world, "source/pyproject.toml", PROJECT);
    put(world, "source/tool.py", "\n\nreturn 1\n");
    put(world, "project/pyproject.toml", "[project]\nname = 'p'\nversion = \n");
    put(world, "nameless/pyproject.toml", "[build-system]\nrequires = []\n[project]\nversion = '1'\n");
    put(world, "bare/tool.py", "");
}

#[test]
fn a_list_is_refused_for_what_install_all_would_refuse() {
    let world = world();
    list_of_faults(&world);
    let verdict = world.run(&["validate", "capabilities.yaml", "--json"]).expect(1).json();
    let found = errors(&verdict);
    assert_eq!(
        found,
        [
            place("", 3, "install.capability_twice"),
            place("broken.json", 3, "manifest.malformed"),
            place("", 5, "install.file"),
            place("", 7, "install.shared_environment"),
            place("project/pyproject.toml", 3, "install.broken_project"),
            place("nameless/pyproject.toml", 3, "install.broken_project"),
            place("", 10, "install.bad_folder"),
            place("", 11, "install.bad_python_version"),
            place("", 12, "install.unsupported"),
            place("", 13, "install.file"),
            place("source/tool.py", 3, "source.syntax"),
        ],
        "{verdict}"
    );
    // The same words, where an installation comes to them without making anything.
    let installed = world.run(&["install-all", "--offline", "--json"]).expect(1).json();
    let refused: Vec<&Value> = installed["entries"]
        .as_array()
        .expect("entries")
        .iter()
        .filter(|entry| !entry["error"].is_null())
        .collect();
    for (name, code) in [
        ("again", "install.capability_twice"),
        ("broken", "manifest.malformed"),
        ("absent", "install.file"),
        ("shared", "install.shared_environment"),
        ("project", "install.broken_project"),
        ("nameless", "install.broken_project"),
        ("bare", "install.bad_folder"),
        ("options", "install.unsupported"),
        ("conda", "install.file"),
    ] {
        let error = refused.iter().find(|entry| entry["name"] == name).map(|entry| &entry["error"]["code"]);
        assert_eq!(error, Some(&code.into()), "{name}: {installed}");
    }
    world.assert_nothing_left();
}

/// A key on each line, so that its line says whether it was found.
const TOOL_OF_FAULTS: &str = r#"{
  "format_version": "2.0",
  "code": {
    "name": "tool",
    "version": 7,
    "runtime": {
      "kind": "executable",
      "program": "wc",
      "sandbox": true,
      "actions": {
        "count": {
          "parameters": { "text": { "type": "strin" } },
          "argv": ["-w", 5],
          "result": "json"
        }
      }
    }
  }
}"#;

#[test]
fn rules_of_a_manifest_that_are_broken_are_told_together_with_faults_of_its_form() {
    let world = world();
    let text = r#"{
  "format_version": "2.0",
  "code": {"name": "a", "version": "1", "runtime": {"kind": "executable", "program": "true", "actions": {
    "go": {"argv": ["{nobody}", "{nobody}", "{"]},
    "stop": {"argv": [], "stdin": "{neither}", "timeout_seconds": 0,
      "parameters": {"n": {"type": "integer", "default": "x"}, "data_dir": {"type": "string"}}}
  }}}
}"#;
    put(&world, "a.json", text);
    let verdict = world.run(&["validate", "a.json", "--json"]).expect(1).json();
    let told: Vec<(u64, &str)> = verdict["errors"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|error| (error["line"].as_u64().expect("a line"), error["message"].as_str().expect("a message")))
        .collect();
    let expected = [
        (4, "go.argv: `{nobody}` is neither"),
        (4, "go.argv: a `{` without its `}`"),
        (5, "stop.stdin: `{neither}` is neither"),
        (5, "stop.timeout_seconds: "),
        (6, "stop.parameters.n: its default is \"x\", and a whole number is expected"),
        (6, "stop.parameters.data_dir: the name is reserved"),
    ];
    assert_eq!(told.len(), expected.len(), "{verdict:#}");
    for (line, words) in expected {
        let is_told = |one: &&(u64, &str)| one.0 == line && one.1.contains(words);
        assert_eq!(told.iter().filter(is_told).count(), 1, "{words}: {verdict:#}");
    }
}

#[test]
fn every_fault_of_a_manifest_is_told_at_its_key() {
    let world = world();
    let told_all = |text: &str| -> Vec<(u64, String)> {
        put(&world, "tool.json", text);
        let verdict = world.run(&["validate", "tool.json", "--json"]).expect(1).json();
        let errors = verdict["errors"].as_array().expect("errors").iter();
        errors
            .map(|error| {
                let message = error["message"].as_str().expect("a message");
                (
                    error["line"].as_u64().unwrap_or_default(),
                    message.split(": ").next().unwrap_or(message).to_owned(),
                )
            })
            .collect()
    };
    let told = |text: &str| {
        let found = told_all(text);
        assert!(found.iter().all(|(line, _)| *line > 0), "{found:?}");
        found
    };
    let mut found = told(TOOL_OF_FAULTS);
    found.sort();
    let expected = [
        (5, "code.version"),
        (9, "code.runtime.sandbox"),
        (12, "code.runtime.actions.count.parameters.text.type"),
        (13, "code.runtime.actions.count.argv.1"),
        (14, "code.runtime.actions.count.result"),
    ];
    assert_eq!(found, expected.map(|(line, key)| (line, key.to_owned())));
    let lines: Vec<String> = (0..60).map(|number| format!("\"odd{number}\": 1,\n")).collect();
    let many = told_all(&TOOL_OF_FAULTS.replace("\"sandbox\": true,", &lines.concat()));
    assert_eq!(many.len(), 51, "{many:?}");
    assert_eq!(many.last().map(|(_, words)| words.as_str()), Some("14 more of this kind are not listed"));
    let other_kind = TOOL_OF_FAULTS.replace("\"executable\"", "\"magic\"").replace("7", "\"7\"");
    assert_eq!(told(&other_kind), [(7, "code.runtime.kind".to_owned())]);
    let no_kind = TOOL_OF_FAULTS.replace("\"kind\": \"executable\",", "").replace("7", "\"7\"");
    assert_eq!(told(&no_kind), [(6, "code.runtime".to_owned())]);
}

#[test]
fn a_file_that_is_nothing_we_know_is_told_so_and_is_no_empty_list() {
    let world = world();
    put(&world, "capabilities.yaml", "capabilites:\n- {name: a, manifest: absent.json}\n");
    let refused = world.run(&["install-all"]).expect(1);
    assert!(
        refused.stderr.contains("no key `capabilities` (its keys: capabilites)"),
        "{}",
        refused.describe()
    );
    assert!(refused.stderr.contains("below `capabilities:`"), "{}", refused.describe());
    let verdict = world.run(&["validate", "capabilities.yaml", "--json"]).expect(1).json();
    assert_eq!(errors(&verdict)[0].2, "capabilities_file.no_list", "{verdict}");
    for (name, text) in
        [("notes.yaml", "foo: 1\n"), ("tools.yaml", "capabilites: []\n"), ("none.yaml", "- 1\n")]
    {
        put(&world, name, text);
        let unknown = world.run(&["validate", name, "--json"]).expect(1).json();
        assert_eq!(unknown["error"]["code"], "validate.unknown_format", "{unknown}");
    }
    put(&world, "flow.yaml", "name: f\nnode:\n  a: {capability: c}\n");
    let verdict = world.run(&["validate", "flow.yaml", "--json"]).expect(1).json();
    assert_eq!((&verdict["kind"], &verdict["valid"]), (&"composition".into(), &false.into()), "{verdict}");
    put(&world, "cjm.yaml", "substrate: {diagnostics_retention_days: soon}\n");
    for path in ["cjm.yaml", "."] {
        let verdict = world.run(&["--cjm-config", "/dev/null", "validate", path, "--json"]).expect(1).json();
        let found = errors(&verdict);
        assert!(
            found.iter().any(|(_, line, code)| *line == Some(1) && code == "settings_file.malformed"),
            "{verdict}"
        );
    }
    let once = world.run(&["validate", ".", "--json"]).expect(1).json();
    let malformed =
        errors(&once).into_iter().filter(|(_, _, code)| *code == "settings_file.malformed").count();
    assert_eq!((malformed, &once["warnings"]), (1, &json!([])), "{once:#}");
    put(&world, "cjm.yaml", "substrate: {diagnostics_retention_days: 3}\n");
    let good = world.run(&["validate", "cjm.yaml"]).expect(0);
    assert_eq!(good.stdout, "✓ cjm.yaml (settings): valid\n", "{}", good.describe());
}

#[test]
fn a_folder_with_nothing_in_it_is_told_so() {
    let world = World::new();
    let folder = world.file("empty");
    std::fs::create_dir(&folder).expect("made");
    let verdict = world.json(&["validate", &folder.display().to_string(), "--json"]);
    let warning = verdict["warnings"][0].as_str().expect("a warning");
    assert!(warning.contains("there is nothing to check"), "{verdict:#}");
    let list = "capabilities:\n- {name: a, package: }\n";
    std::fs::write(folder.join("two.yaml"), list).expect("written");
    let verdict = world.json(&["validate", &folder.display().to_string(), "--json"]);
    let [warning] = verdict["warnings"].as_array().expect("a list").as_slice() else { panic!("{verdict:#}") };
    assert!(warning.to_string().contains("two.yaml` checks it"), "{verdict:#}");
    std::fs::remove_file(folder.join("two.yaml")).expect("removed");
    std::fs::write(folder.join("tool.py"), "x = 1\n").expect("written");
    let verdict = world.json(&["validate", &folder.display().to_string(), "--json"]);
    assert_eq!(verdict["warnings"], json!([]), "{verdict:#}");
}

#[test]
fn a_fault_of_one_entry_hides_none_of_another() {
    let world = world();
    let list = "capabilities:\n- name: a\n- {name: b, env_name: b, package: x}\n- {name: c d, manifest: absent.json}\n\
                - {name: e, manifest: absent.json}\n";
    put(&world, "capabilities.yaml", list);
    let verdict = world.run(&["validate", "capabilities.yaml", "--json"]).expect(1).json();
    let found = errors(&verdict).into_iter().map(|(_, line, code)| (line, code)).collect::<Vec<_>>();
    let invalid = "capabilities_file.invalid".to_owned();
    let expected = [(Some(2), invalid.clone()), (Some(3), invalid.clone()), (Some(4), invalid)];
    assert_eq!(found[..3], expected, "{verdict}");
    assert_eq!(found[3..], [(Some(5), "install.file".to_owned())], "{verdict}");
    let why = verdict["errors"][3]["message"].as_str().expect("a message");
    assert_eq!(why.matches("No such file").count(), 1, "{why}");
}

#[test]
fn an_action_that_a_tool_does_not_have_is_named_with_those_that_are_like_it() {
    let world = world();
    world.install_executable("tool", "/bin/true", &json!({"convert": {"argv": []}, "probe": {"argv": []}}));
    put(
        &world,
        "flow.yaml",
        "name: f\nnodes:\n  a: {capability: tool, action: convrt}\n  b: {capability: tool}\n",
    );
    let verdict = world.run(&["validate", "flow.yaml", "--json"]).expect(0).json();
    assert_eq!(
        verdict["warnings"],
        json!([
            "nodes.a.action: \"tool\" has no action \"convrt\" (did you mean \"convert\"?); it has the actions convert, probe",
            "nodes.b.action: \"tool\" has several actions, and none is named; it has the actions convert, probe",
        ])
    );
}

/// A Python tool whose manifest says this of it; its interpreter would tell if it was run.
fn python_tool(world: &World, name: &str, more: &Value) -> Value {
    let mut code = json!({"module": "m", "class": "C"});
    for (key, value) in more.as_object().expect("an object") {
        code[key] = value.clone();
    }
    manifest(name, &code, &json!({"python_path": world.file("ran-if-run").display().to_string()}))
}

#[test]
fn what_the_manifest_of_a_python_tool_does_not_have_is_named_and_nothing_is_guessed() {
    let world = world();
    cjm_tests::world::write_script(&world.file("ran-if-run"), "#!/bin/sh\ntouch ran\n");
    let takes = |properties: Value, required: &[&str], others: bool| json!({"type": "object", "properties": properties, "required": required, "additionalProperties": others});
    let actions = json!([
        {"name": "count", "arguments": takes(json!({"text": {"type": "string"}, "limit": {}}), &["text"], false)},
        {"name": "open", "arguments": takes(json!({"text": {}}), &[], true)},
    ]);
    let schema = json!({"properties": {"language": {"type": "string"}, "depth": {}}});
    world.install(
        "words",
        &python_tool(&world, "words", &json!({"actions": actions, "config_schema": schema})),
    );
    world.install("silent", &python_tool(&world, "silent", &json!({})));
    world.install("named", &python_tool(&world, "named", &json!({"actions": ["one", "two"]})));
    let flow = "name: f
inputs: {which: {}}
capabilities:
  words: {config: {langage: en, depth: 1}}
  silent: {config: {anything: 1}}
nodes:
  a: {capability: words, action: cout, args: {text: x}}
  b: {capability: words, action: count, args: {txt: x, limit: 1}}
  c: {capability: words, args: {text: x}}
  d: {capability: words, action: open, args: {anything: 1}}
  e: {capability: words, args: {action: count, text: x}}
  f: {capability: words, args: {action: '${inputs.which}', anything: 1}}
  g: {capability: words, task: t, method: m, args: {anything: 1}}
  h: {capability: silent, action: whatever, args: {anything: 1}}
  i: {capability: named, action: oen, args: {anything: 1}}
  j: {capability: named, action: one, args: {anything: 1}}
  k: {capability: words, args: {action: cont, text: x}}
";
    put(&world, "flow.yaml", flow);
    let verdict = world.run(&["validate", "flow.yaml", "--json"]).expect(1).json();
    let has = "it has the actions count, open";
    assert_eq!(
        verdict["errors"][0]["message"],
        "capabilities.words.config.langage: \"words\" refused its configuration: there is no key \"langage\" (there are: \
         language, depth) (did you mean \"language\"?)"
    );
    assert_eq!(verdict["errors"].as_array().map(Vec::len), Some(1), "{verdict:#}");
    assert_eq!(
        verdict["warnings"],
        json!([
            format!("nodes.a.action: \"words\" has no action \"cout\" (did you mean \"count\"?); {has}"),
            "nodes.b.args.txt: the action has no such parameter (did you mean \"text\"?)",
            "nodes.b.args: the action needs `text`",
            format!("nodes.c.action: \"words\" has several actions, and none is named; {has}"),
            "nodes.g.task: \"words\" has no adapter for the task \"t\"; it has none",
            "nodes.i.action: \"named\" has no action \"oen\" (did you mean \"one\"?); it has the actions \
             one, two",
            format!("nodes.k.action: \"words\" has no action \"cont\" (did you mean \"count\"?); {has}"),
        ]),
        "{verdict:#}"
    );
    assert!(!world.file("ran").exists(), "no interpreter ran");
}

#[test]
fn a_manifest_that_is_not_allowed_is_told_as_that_with_the_command_that_allows_it() {
    let world = world();
    put(&world, ".cjm/manifests/tool.json", &program("tool").to_string());
    put(
        &world,
        "flow.yaml",
        "name: f\nmonitor: tool\nnodes:\n  a: {capability: tool}\n  b: {capability: absent}\n",
    );
    let verdict = world.run(&["validate", "flow.yaml", "--json"]).expect(0).json();
    let warnings: Vec<&str> =
        verdict["warnings"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    let path = world.file(".cjm/manifests/tool.json").display().to_string();
    for (warning, place) in [(warnings[0], "nodes.a.capability: "), (warnings[2], "monitor: ")] {
        assert!(warning.starts_with(place) && warning.contains("you have not allowed it"), "{verdict:#}");
        let command = format!("`cjm-ctl --data-dir {} allow {path}`", world.data_dir().display());
        assert!(warning.contains(&command), "{verdict:#}");
        assert!(!warning.contains("is not installed"), "{verdict:#}");
    }
    assert_eq!(warnings[1], "nodes.b.capability: \"absent\" is not installed");
    let _ = world.run(&["allow", &path]).expect(0);
    let verdict = world.run(&["validate", "flow.yaml", "--json"]).expect(0).json();
    assert_eq!(verdict["warnings"], json!(["nodes.b.capability: \"absent\" is not installed"]));
}

#[test]
fn a_misspelt_key_of_the_settings_is_told_with_its_place() {
    let world = world();
    put(&world, "cjm.yaml", "modls_dir: m\nsubstrate:\n  drift_detecton: false\n");
    let told = [
        "line 1, column 1: modls_dir: there is no such key (did you mean \"models_dir\"?), and nobody reads it",
        "line 3, column 3: substrate.drift_detecton: there is no such key (did you mean \"drift_detection\"?), and nobody \
         reads it",
    ];
    let verdict = world.run(&["validate", "cjm.yaml", "--json"]).expect(0).json();
    assert_eq!((&verdict["valid"], &verdict["warnings"]), (&json!(true), &json!(told)), "{verdict:#}");
    let verdict = world.run(&["validate", ".", "--json"]).expect(0).json();
    assert_eq!(verdict["warnings"], json!(told.map(|one| format!("./cjm.yaml: {one}"))), "{verdict:#}");
}

#[test]
fn what_is_right_is_told_and_what_only_this_machine_lacks_is_a_warning() {
    let world = world();
    let mut tool = program("tool");
    tool["code"]["runtime"]["program"] = "no-such-program-anywhere".into();
    put(&world, "tool.json", &tool.to_string());
    put(&world, "source/pyproject.toml", PROJECT);
    put(&world, "source/tool.py", "print(1)\n");
    put(
        &world,
        "capabilities.yaml",
        "capabilities:\n- {name: a, manifest: tool.json}\n- {name: b, env_name: b, package: ./source, python_version: '9.9'}\n",
    );
    for path in ["capabilities.yaml", "."] {
        let verdict = world.run(&["validate", path, "--json"]).expect(0).json();
        let warnings = verdict["warnings"].to_string();
        assert!(warnings.contains("no-such-program-anywhere"), "{path}: {verdict}");
        assert!(
            warnings.contains("no Python 9.9 on this machine: the syntax was not looked at"),
            "{verdict}"
        );
        assert_eq!(verdict["valid"], true, "{path}: {verdict}");
    }
    // What the repository ships is in order.
    let shipped = cjm_tests::repo::root().join("capabilities.yaml").display().to_string();
    let verdict = world.run(&["validate", &shipped, "--json"]).expect(0).json();
    assert_eq!(verdict["errors"], json!([]));
}
