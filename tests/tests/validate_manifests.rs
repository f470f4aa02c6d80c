//! `cjm-ctl validate` of manifests: a fault of form hides no rule that the rest breaks, nothing is told that nobody wrote,
//! and what a tool cannot take is refused in the same words by whoever finds it.

use cjm_tests::world::{World, manifest};
use cjm_wire::describe::exit;
use serde_json::{Value, json};

/// Line and message of each error.
fn told(world: &World, text: &str) -> Vec<(u64, String)> {
    let file = world.write("tool.json", text).display().to_string();
    let verdict = world.run(&["validate", &file, "--json"]).expect(exit::DOMAIN).json();
    let errors = verdict["errors"].as_array().expect("a list").iter();
    errors
        .map(|error| {
            let message = error["message"].as_str().expect("a message").to_owned();
            (error["line"].as_u64().unwrap_or_default(), message)
        })
        .collect()
}

/// A part of a manifest on each line, so that its line says whether it was found.
const BROKEN: &str = r#"{
  "format_version": "2.0",
  "install": {"env_vars": {"A=B": "x", "C": 5}},
  "code": {
    "name": "a b",
    "version": 7,
    "runtime": {
      "kind": "executable", "program": "true",
      "sandbox": true,
      "actions": {
        "go": {
          "argv": ["{nobody}", 5],
          "result": "json",
          "timeout_seconds": 0,
          "cancel": {"signal": "SIGTERM", "grace_ms": -1},
          "parameters": {
            "n": {"type": "integer", "default": 50, "maximum": 10},
            "kind": {"type": "strin", "default": 5},
            "data_dir": {"type": "string"}
          }
        },
        "stop": {"argv": ["{"], "stdin": "{neither}", "outputs": 3}
      }
    }
  }
}"#;

#[test]
fn a_fault_of_form_hides_no_rule_that_the_rest_of_a_manifest_breaks() {
    let world = World::new();
    let found = told(&world, BROKEN);
    let expected = [
        // Rules.
        (3, "install.env_vars: \"A=B\" is no name of a variable"),
        (5, "code.name: \"a b\" must be 1 to 64 letters"),
        (12, "go.argv: `{nobody}` is neither a parameter nor an output"),
        (14, "go.timeout_seconds: must be above 0"),
        (17, "go.parameters.n: its default is 50, above the maximum of 10"),
        (19, "go.parameters.data_dir: the name is reserved"),
        (22, "stop.argv: a `{` without its `}`"),
        // Form.
        (3, "install.env_vars.C: 5 is not of type"),
        (6, "code.version: 7 is not of type"),
        (9, "code.runtime.sandbox: there is no such key"),
        (12, "go.argv.1: 5 has none of the forms"),
        (13, "go.result: \"json\" is none of"),
        (15, "go.cancel.grace_ms: -1 is less than the minimum"),
        (18, "go.parameters.kind.type: \"strin\" is none of"),
        (22, "stop.outputs: 3 is not of type"),
    ];
    for (line, words) in expected {
        let is_told = |one: &&(u64, String)| one.0 == line && one.1.contains(words);
        assert_eq!(found.iter().filter(is_told).count(), 1, "{line} {words}: {found:#?}");
    }
    assert_eq!(found.len(), expected.len(), "{found:#?}");
}

#[test]
fn what_nobody_wrote_breaks_no_rule() {
    let world = World::new();
    let action = |action: Value| json!({"kind": "executable", "program": "true", "actions": {"go": action}});
    for (runtime, expected) in [
        (action(json!({"argv": ["{n}"], "paramters": {"n": {"type": "string"}}})), &["paramters"][..]),
        (action(json!({"argv": ["{n}"], "parameters": []})), &["parameters"]),
        (action(json!({"argv": ["{n}"], "parameters": {"n": 5}})), &["parameters.n"]),
        (action(json!({"argv": [], "parameters": {"n": {"default": 5}}})), &["needs `type`"]),
        (
            action(json!({"argv": ["{cache_dir}"], "outputs": {"o": "{cache_dir}/o"}, "result": "file",
                "parameters": {"i": {"type": "input_file", "required": true}}})),
            &["result"],
        ),
        (json!({"kind": "executable", "program": 5, "actions": []}), &["program", "actions"]),
        (json!({"kind": "executable"}), &["needs `program`", "needs `actions`"]),
        (json!({"kind": "native", "program": []}), &["program"]),
        (json!({"kind": "magic", "program": 5}), &["magic"]),
        (json!({"program": "true"}), &["needs `kind`"]),
    ] {
        let text = manifest("tool", &json!({"runtime": runtime}), &json!({})).to_string();
        let found = told(&world, &text);
        assert_eq!(found.len(), expected.len(), "{text}: {found:#?}");
        for words in expected {
            assert!(found.iter().any(|(_, message)| message.contains(words)), "{text}: {found:#?}");
        }
    }
    // What kind of tool it is hides nothing of the rest.
    let text = json!({"format_version": "2.0", "code": {"name": "a b", "version": "", "runtime": {"kind": "magic"}}});
    let found = told(&world, &text.to_string());
    for words in ["code.name: \"a b\" must be", "code.version: is empty", "\"magic\" is none of"] {
        assert!(found.iter().any(|(_, message)| message.contains(words)), "{found:#?}");
    }
    assert_eq!(found.len(), 3, "{found:#?}");
    // A Python class whose section is none lacks no interpreter.
    let text =
        json!({"format_version": "2.0", "install": 3, "code": {"name": "a", "version": "1", "class": "C"}});
    let messages: Vec<String> =
        told(&world, &text.to_string()).into_iter().map(|(_, message)| message).collect();
    assert!(messages.iter().any(|message| message.starts_with("install: 3 is not of type")), "{messages:?}");
    assert!(!messages.iter().any(|message| message.starts_with("install.python_path")), "{messages:?}");
}

#[test]
fn configuration_of_a_program_is_refused_in_the_same_words_by_all() {
    let world = World::new();
    let words = "an executable has no configuration, and `depth` was given; pass it with each call";
    let runtime = json!({"kind": "executable", "program": "/bin/true", "actions": {"go": {"argv": []}}});
    let schema = json!({"properties": {"depth": {"type": "integer", "default": 1}}});
    let code = json!({"runtime": runtime, "config_schema": schema});
    let text = manifest("tool", &code, &json!({})).to_string();
    let found = told(&world, &text);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].1, format!("code.config_schema: {words}"));
    let list = world.write("list.yaml", "capabilities: [{name: tool, manifest: tool.json}]\n");
    let list = list.display().to_string();
    let refused = world.run(&["install-all", "--capabilities", &list]).expect(exit::DOMAIN);
    assert!(refused.stderr.contains(words), "{}", refused.describe());
    // A schema of nothing takes nothing.
    let empty =
        manifest("tool", &json!({"runtime": runtime, "config_schema": {"properties": {}}}), &json!({}));
    world.write("tool.json", empty.to_string());
    let _ = world.run(&["install-all", "--capabilities", &list]).expect(exit::OK);
    let flow =
        "name: f\nnodes:\n  a: {capability: tool}\ncapabilities:\n  tool:\n    config:\n      depth: 1\n";
    let flow = world.write("flow.yaml", flow).display().to_string();
    let verdict = world.run(&["validate", &flow, "--json"]).expect(exit::DOMAIN).json();
    let error = &verdict["errors"][0];
    let message = format!("capabilities.tool.config.depth: \"tool\" refused its configuration: {words}");
    assert_eq!((&error["line"], &error["message"]), (&json!(7), &json!(message)), "{verdict:#}");
    for command in [&["run", &flow][..], &["call", "tool", "--config", "{\"depth\": 1}"]] {
        let refused = world.run(command).expect(exit::DOMAIN);
        let told = format!("\"tool\" refused its configuration: {words}");
        assert!(refused.stderr.contains(&told), "{}", refused.describe());
    }
    let nothing = flow.replace("flow", "nothing");
    world.write(
        "nothing.yaml",
        "name: f\nnodes:\n  a: {capability: tool}\ncapabilities: {tool: {config: {}}}\n",
    );
    let _ = world.run(&["run", &nothing]).expect(exit::OK);
    let _ = world.run(&["validate", &nothing]).expect(exit::OK);
    world.assert_nothing_left();
}

#[test]
fn a_default_outside_its_own_limits_is_a_fault() {
    let world = World::new();
    for (parameter, words) in [
        (
            json!({"type": "integer", "default": 50, "maximum": 10}),
            "its default is 50, above the maximum of 10",
        ),
        (
            json!({"type": "number", "default": 0.5, "minimum": 1}),
            "its default is 0.5, below the minimum of 1",
        ),
        (
            json!({"type": "string", "default": "c", "enum": ["a", "b"]}),
            "its default is \"c\", and only these are allowed: a, b",
        ),
        (
            json!({"type": "boolean", "default": "yes"}),
            "its default is \"yes\", and true or false is expected",
        ),
        (
            json!({"type": "integer", "enum": [1, "b"]}),
            "a choice of its `enum` is \"b\", and a whole number is expected",
        ),
        (
            json!({"type": "integer", "minimum": 5, "maximum": 1}),
            "its minimum of 5 is above its maximum of 1",
        ),
    ] {
        let actions = json!({"go": {"argv": [], "parameters": {"n": parameter}}});
        let runtime = json!({"kind": "executable", "program": "/bin/true", "actions": actions});
        let found = told(&world, &manifest("tool", &json!({"runtime": runtime}), &json!({})).to_string());
        let message = format!("code.runtime.actions.go.parameters.n: {words}");
        assert_eq!(found.iter().map(|(_, message)| message).collect::<Vec<_>>(), [&message]);
        world.write("list.yaml", "capabilities: [{name: tool, manifest: tool.json}]\n");
        let list = world.file("list.yaml").display().to_string();
        let refused = world.run(&["install-all", "--capabilities", &list]).expect(exit::DOMAIN);
        assert!(refused.stderr.contains(&message), "{}", refused.describe());
    }
}

#[test]
fn what_stands_in_another_place_than_it_belongs_is_told_as_that() {
    let world = World::new();
    let runtime = |parameters: Value| {
        let actions = json!({"go": {"argv": [], "parameters": parameters}});
        json!({"kind": "executable", "program": "/bin/true", "actions": actions})
    };
    let mut beside = manifest("tool", &json!({}), &json!({}));
    beside["runtime"] = runtime(json!({}));
    let found = told(&world, &beside.to_string());
    let hint = (1, "runtime: belongs into `code`".to_owned());
    assert_eq!(found, std::slice::from_ref(&hint), "and nothing of what a Python class would need");
    // Beside faults of form, too.
    beside["code"]["version"] = json!(1);
    beside.as_object_mut().expect("an object").remove("install");
    let found = told(&world, &beside.to_string());
    let words: Vec<&str> = found.iter().map(|(_, message)| message.as_str()).collect();
    assert!(found[0] == hint && words.contains(&"code.version: 1 is not of type \"string\""), "{words:?}");
    assert!(!words.iter().any(|words| words.contains("module") || words.contains("class")), "{words:?}");
    // A schema of the parameters in the place of the parameters.
    let schema = runtime(json!({"type": "object"}));
    let found = told(&world, &manifest("tool", &json!({"runtime": schema}), &json!({})).to_string());
    let message = "parameters.type: the text \"object\" is not of type \"object\"";
    assert!(found.iter().any(|(_, told)| told.ends_with(message)), "{found:?}");
}

/// Earlier versions took these, so that they may be in use.
#[test]
fn an_installed_manifest_that_was_taken_before_is_told_with_the_step_that_helps() {
    let world = World::new();
    let parameters = |default: u32| json!({"n": {"type": "integer", "maximum": 3, "default": default}});
    let actions = |default| json!({"go": {"argv": ["{n}"], "parameters": parameters(default)}});
    let runtime =
        |default| json!({"kind": "executable", "program": "/bin/echo", "actions": actions(default)});
    let schema = json!({"properties": {"depth": {"type": "integer", "default": 1}}});
    let limit = "code.runtime.actions.go.parameters.n: its default is 7, above the maximum of 3";
    let depth = "an executable has no configuration, and `depth` was given";
    for (code, words) in [
        (json!({"runtime": runtime(7)}), limit),
        (json!({"runtime": runtime(2), "config_schema": schema}), depth),
    ] {
        world.install("tool", &manifest("tool", &code, &json!({})));
        let path = world.data_dir().join("manifests/tool.json").display().to_string();
        let refused = world.run(&["call", "tool"]).expect(exit::DOMAIN);
        let step = format!("validate {path}` shows its faults");
        assert!(refused.stderr.contains(words) && refused.stderr.contains(&step), "{}", refused.describe());
        let shown = world.run(&["validate", &path]).expect(exit::DOMAIN);
        assert!(shown.stderr.contains(words), "{}", shown.describe());
        let corrected = manifest("tool", &json!({"runtime": runtime(2)}), &json!({}));
        std::fs::write(&path, corrected.to_string()).expect("written");
        let _ = world.run(&["validate", &path]).expect(exit::OK);
        let _ = world.run(&["call", "tool"]).expect(exit::OK);
    }
    world.assert_nothing_left();
}

/// Other keys a manifest may have, of versions to come and of the ancestor.
#[test]
fn a_mistyped_key_of_a_manifest_that_nobody_reads_is_told_and_a_key_of_its_own_is_not() {
    let world = World::new();
    let runtime = json!({"kind": "executable", "program": "true", "actions": {"go": {"argv": []}}});
    let code = json!({"runtime": runtime, "worker_env_pass": ["MY_TOKEN"], "actions": [], "mine": 1});
    let mut text = manifest("tool", &code, &json!({}));
    text["overides"] = json!({"a": 1});
    text["notes"] = json!("mine");
    let file = world.write("tool.json", text.to_string()).display().to_string();
    let verdict = world.run(&["validate", &file, "--json"]).expect(exit::OK).json();
    let expected = [
        "overides: there is no such key (did you mean \"overrides\"?), and nobody reads it",
        "code.worker_env_pass: there is no such key (did you mean \"worker_env\"?), and nobody reads it",
    ];
    assert_eq!(verdict["warnings"], json!(expected), "{verdict:#}");
}

#[test]
fn an_empty_manifest_is_told_as_that_and_a_type_with_the_one_that_is_like_it() {
    let world = World::new();
    for text in ["", " \n"] {
        let file = world.write("manifests.json", text).display().to_string();
        let verdict =
            world.run(&["validate", "--format", "manifest", &file, "--json"]).expect(exit::DOMAIN).json();
        let message = verdict["errors"][0]["message"].as_str().expect("a message");
        assert!(message.contains("it is empty"), "{verdict:#}");
    }
    let empty = world.install("greeter", &manifest("greeter", &json!({}), &json!({})));
    std::fs::write(&empty, "").expect("written");
    let refused = world.run(&["call", "greeter"]).expect(exit::DOMAIN);
    assert!(refused.stderr.contains("it is empty"), "{}", refused.describe());
    let parameters = json!({"n": {"type": "int"}, "f": {"type": "file"}});
    let code = json!({"runtime": {"kind": "executable", "program": "sh", "actions": {"go": {"argv": [], "parameters": parameters}}}});
    let found = told(&world, &manifest("greeter", &code, &json!({})).to_string());
    for like in ["integer", "input_file"] {
        let meant = format!("did you mean \"{like}\"?");
        assert!(found.iter().any(|(_, message)| message.contains(&meant)), "{like}: {found:#?}");
    }
}
