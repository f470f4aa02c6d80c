//! `cjm-ctl validate` of compositions: every fault with its place, and what `run` refuses before anything starts.

use cjm_tests::world::{World, manifest};
use serde_json::{Value, json};
use std::fs;

fn put(world: &World, name: &str, text: &str) {
    let path = world.file(name);
    fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

const FLOW_OF_FAULTS: &str = "name: f
inputs:
  n: {type: number, default: many}
capabilities:
  tool: {instances: 0}
nodes:
  a: {capability: tool, acton: go}
  b: {capability: tool, map: '${inputs.n}', args: {level: '${nobody}'}}
  c: {capability: tool, after: [d]}
  d: {capability: tool, after: [c]}
";

#[test]
fn a_fault_of_a_composition_hides_none_of_the_others() {
    let world = World::new();
    put(&world, "flow.yaml", FLOW_OF_FAULTS);
    let verdict = world.run(&["validate", "flow.yaml", "--json"]).expect(1).json();
    let told: Vec<(u64, &str)> = verdict["errors"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|error| {
            assert!(error["column"].is_u64(), "{verdict:#}");
            (error["line"].as_u64().expect("a line"), error["message"].as_str().expect("a message"))
        })
        .collect();
    assert_eq!(
        told,
        [
            (3, "inputs.n.default: the default must be a number, and is \"many\""),
            (5, "capabilities.tool.instances: 0 instances run nothing; leave the key out for one"),
            (8, "nodes.b.map: `map` takes a list, and this is `${inputs.n}`, an input that is a number"),
            (8, "nodes.b.args.level: there is no node `nobody` (there is a, b, c, d)"),
            (9, "nodes need each other in a circle: c → d → c"),
            (7, "nodes.a.acton: there is no such key (did you mean \"action\"?)"),
        ],
        "{verdict:#}"
    );
}

const FLOW_OF_LAYERS: &str = "name: f
inputs: {n: 3}
nodes:
  a: {capability: tool, acton: go, args: {text: '${nobody} ${b..c} ${b} ${inputs.m} ${neither}'}}
  b: {args: {x: '${inputs.n} ${a'}}
  c: {capability: tool, args: {level: high}}
  d: 7
  e: {capability: tool, priority: 99999999999, args: [1], after: [a, [b], ghost]}
  f: {capability: tool, task: [1], method: m}
";

#[test]
fn faults_of_form_of_references_and_of_types_are_told_together_and_all_of_one_text() {
    let world = World::new();
    let parameters = json!({"level": {"type": "integer"}, "text": {"type": "string"}});
    world.install_executable("tool", "/bin/true", &json!({"go": {"argv": [], "parameters": parameters}}));
    put(&world, "flow.yaml", FLOW_OF_LAYERS);
    let verdict = world.run(&["validate", "flow.yaml", "--json"]).expect(1).json();
    let mut told: Vec<(u64, &str)> = verdict["errors"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|error| (error["line"].as_u64().expect("a line"), error["message"].as_str().expect("a message")))
        .collect();
    told.sort_unstable();
    assert_eq!(
        told,
        [
            (2, "inputs.n: 3 is not of types \"null\", \"object\""),
            (4, "nodes.a.acton: there is no such key (did you mean \"action\"?)"),
            (4, "nodes.a.args.text: `${b..c}` is no reference (write `${node.field[0]}`)"),
            (4, "nodes.a.args.text: `${inputs.m}` is not declared under `inputs`"),
            (4, "nodes.a.args.text: there is no node `neither` (there is a, b, c, d, e, f)"),
            (4, "nodes.a.args.text: there is no node `nobody` (there is a, b, c, d, e, f)"),
            (5, "nodes.b.args.x: a `${` without its `}` in \"${inputs.n} ${a\""),
            (5, "nodes.b: needs `capability`"),
            (6, "nodes.c.args.level: \"high\" is given, and the tool takes a whole number"),
            (7, "nodes.d: 7 is not of type \"object\""),
            (8, "nodes.e.after.1: [\"b\"] is not of types \"number\", \"string\""),
            (8, "nodes.e.after: there is no node `ghost` (there is a, b, c, d, e, f)"),
            (8, "nodes.e.args: [1] is not of types \"null\", \"object\""),
            (8, "nodes.e.priority: 99999999999 is greater than the maximum of 2147483647"),
            (9, "nodes.f.task: [1] is not of types \"null\", \"number\", \"string\""),
        ],
        "{verdict:#}"
    );
    assert_eq!(verdict["warnings"], json!([]));
}

fn messages(verdict: &Value) -> Vec<&str> {
    let errors = verdict["errors"].as_array().expect("a list").iter();
    errors.map(|error| error["message"].as_str().expect("a text")).collect()
}

const GREETER: &str = r#"
from cjm_sdk import Capability, action

class Greeter(Capability):
    name = "greeter"
    version = "1.0.0"
    config_schema = {"type": "object", "properties": {"greeting": {"type": "string"}}}

    @action
    def greet(self):
        return self.config["greeting"]
"#;

#[test]
fn a_configuration_that_a_run_refuses_is_an_error_where_the_tool_is_installed() {
    let world = World::new();
    let path = world.install_python("greeter", "Greeter", GREETER);
    let mut manifest: Value = serde_json::from_str(&fs::read_to_string(&path).expect("read")).expect("JSON");
    manifest["code"]["config_schema"] =
        json!({"type": "object", "properties": {"greeting": {"type": "string"}}});
    manifest["code"]["actions"] =
        json!([{"name": "greet", "arguments": {"type": "object", "properties": {}}}]);
    fs::write(&path, manifest.to_string()).expect("written");
    let _ = world.install_executable("other", "echo", &json!({"say": {"argv": ["hi"]}}));
    let flow = |config: &str| {
        let config = format!("capabilities: {{greeter: {{config: {config}}}}}\n");
        let nodes = "nodes:\n  z: {capability: other}\n  a: {capability: greeter, action: greet}\n";
        put(&world, "flow.yaml", &format!("name: f\n{config}{nodes}"));
    };
    flow("{greeting: 5}");
    let verdict = world.run(&["validate", "flow.yaml", "--json"]).expect(1).json();
    let told = "\"greeter\" refused its configuration: `greeting` is 5, and the tool takes text";
    assert_eq!(messages(&verdict), [format!("capabilities.greeter.config.greeting: {told}")]);
    flow("{greetin: hi}");
    let refused = world.run(&["--json", "run", "flow.yaml"]).expect(1).json();
    assert_eq!(refused["error"]["fields_invalid"], json!(["greetin"]), "{refused:#}");
    let logged = world.run(&["logs", "--journal"]);
    assert!(!logged.stdout.contains("worker"), "no worker was troubled\n{}", logged.describe());
    // Whether a value is right, the tool says.
    flow("{greeting: 5}");
    let refused = world.run(&["run", "flow.yaml"]).expect(1);
    assert!(refused.stderr.contains("refused its configuration"), "{}", refused.describe());
    flow("{greetin: hi}");
    let verdict = world.run(&["validate", "flow.yaml", "--json"]).expect(1).json();
    assert!(messages(&verdict)[0].contains("there is no key \"greetin\""), "{verdict:#}");
    assert!(messages(&verdict)[0].contains("did you mean \"greeting\""), "{verdict:#}");
    let _ = world.run(&["run", "flow.yaml"]).expect(1);
    flow("{greeting: hi}");
    let _ = world.run(&["validate", "flow.yaml"]).expect(0);
    let _ = world.run(&["run", "flow.yaml"]).expect(0);
    world.assert_nothing_left();
}

#[test]
fn a_composition_without_nodes_is_told_to_call_nothing() {
    let world = World::new();
    put(&world, "flow.yaml", "name: f\nnodes: {}\n");
    let warnings = world.run(&["validate", "flow.yaml", "--json"]).expect(0).json()["warnings"].clone();
    assert_eq!(warnings, json!(["nodes: there is none, so that a run calls no tool"]));
}

/// A kept configuration is not looked at, so that it is no fault.
#[test]
fn a_key_that_a_tool_requires_and_nothing_gives_is_told() {
    let world = World::new();
    let properties =
        json!({"level": {"type": "integer"}, "mode": {"type": "string"}, "name": {"default": "n"}});
    let schema = json!({"type": "object", "properties": properties, "required": ["level", "mode", "name"]});
    let code =
        json!({"module": "never", "class": "Never", "config_schema": schema, "actions": [{"name": "go"}]});
    world.install("never", &manifest("never", &code, &json!({"python_path": "/usr/bin/python3"})));
    let told = |capabilities: &str| {
        let nodes = "nodes:\n  a: {capability: never, action: go}\n  b: {capability: never, action: go}\n";
        put(&world, "flow.yaml", &format!("name: f\n{capabilities}{nodes}"));
        world.run(&["validate", "flow.yaml", "--json"]).expect(0).json()["warnings"].clone()
    };
    let line =
        |keys: &str| format!("capabilities.never.config: \"never\" requires {keys}, which nothing gives");
    let both = line("`level`, `mode`") + ", unless its kept configuration has it";
    assert_eq!(told(""), json!([both]));
    assert_eq!(told("capabilities: {never: {config: {}}}\n"), json!([both]));
    assert_eq!(told("capabilities: {never: {config: {level: 1}}}\n"), json!([line("`mode`")]));
    assert_eq!(told("capabilities: {never: {config: {level: 1, mode: m}}}\n"), json!([]));
}

#[test]
fn an_argument_of_the_wrong_type_is_told_and_a_run_refuses_it_before_anything_starts() {
    let world = World::new();
    let touch = json!({"touch": {"argv": [world.file("ran").display().to_string()]}});
    world.install_executable("first", "/usr/bin/touch", &touch);
    let parameters = json!({"level": {"type": "integer", "minimum": 1}, "text": {"type": "string"}});
    world.install_executable("tool", "/bin/true", &json!({"go": {"argv": [], "parameters": parameters}}));
    let take = json!({"type": "object", "properties": {"text": {"type": "string"}}});
    let actions = json!([{"name": "count", "arguments": take}]);
    let code = json!({"module": "m", "class": "C", "actions": actions});
    world.install("words", &manifest("words", &code, &json!({"python_path": "/usr/bin/false"})));
    let flow = |args: &str| {
        format!(
            "name: f\nnodes:\n  a: {{capability: first}}\n  b: {{capability: tool, after: [a], args: {args}}}\n"
        )
    };
    put(
        &world,
        "flow.yaml",
        &(flow("{level: high, text: '${a}'}") + "  c: {capability: words, args: {text: 7}}\n"),
    );
    let verdict = world.run(&["validate", "flow.yaml", "--json"]).expect(1).json();
    let told = [
        "nodes.b.args.level: \"high\" is given, and the tool takes a whole number",
        "nodes.c.args.text: 7 is given, and the tool takes text",
    ];
    assert_eq!(messages(&verdict), told, "{verdict:#}");
    assert_eq!(verdict["errors"][0]["code"], "composition.argument_type", "{verdict:#}");
    assert_eq!(verdict["errors"][1]["line"], 5, "{verdict:#}");
    put(&world, "flow.yaml", &flow("{level: 0}"));
    let refused = world.run(&["run", "flow.yaml", "--json"]).expect(1).json();
    assert_eq!(refused["error"]["code"], "composition.argument_type", "{refused:#}");
    assert!(refused.to_string().contains("nodes.b.args.level: 0 is given"), "{refused:#}");
    assert!(!world.file("ran").exists(), "nothing was started");
    put(&world, "flow.yaml", &flow("{level: 1}"));
    let _ = world.run(&["run", "flow.yaml"]).expect(0);
    assert!(world.file("ran").exists());
}

#[test]
fn what_a_tool_refuses_by_its_manifest_is_told_and_refused_before_a_run_for_every_kind_of_tool() {
    let world = World::new();
    let number = json!({"n": {"type": "integer", "required": true}});
    world.install_executable("program", "/bin/true", &json!({"go": {"argv": [], "parameters": number}}));
    let take = json!({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]});
    let code = json!({"module": "m", "class": "C", "actions": [{"name": "count", "arguments": take}]});
    world.install("code", &manifest("code", &code, &json!({"python_path": "/usr/bin/false"})));
    for (node, told) in [
        ("{capability: program, args: {n: null}}", Some("args.n: null is given, and the tool needs a value")),
        (
            "{capability: program, args: {n: 5.0}}",
            Some("args.n: 5.0 is given, and the tool takes a whole number"),
        ),
        (
            "{capability: code, args: {n: 5.0}}",
            Some("args.n: 5.0 is given, and the tool takes a whole number"),
        ),
        (
            "{capability: code, args: {n: 1e30}}",
            Some("args.n: 1e30 is given, and the tool takes a whole number"),
        ),
        (
            "{capability: code, args: {n: x, action: count}}",
            Some("args.n: \"x\" is given, and the tool takes a whole number"),
        ),
        ("{capability: code, args: {n: 18446744073709551616}}", None),
        ("{capability: code, args: {n: null}}", None),
    ] {
        put(&world, "flow.yaml", &format!("name: f\nnodes:\n  a: {node}\n"));
        let verdict = world.run(&["validate", "flow.yaml", "--json"]).expect(u8::from(told.is_some())).json();
        let expected: Vec<String> = told.iter().map(|told| format!("nodes.a.{told}")).collect();
        assert_eq!(messages(&verdict), expected, "{node}");
        let ended = world.run(&["run", "flow.yaml", "--json"]);
        assert_eq!(
            ended.stdout.contains("composition.argument_type"),
            told.is_some(),
            "{}",
            ended.describe()
        );
    }
}

#[test]
fn a_task_that_no_adapter_serves_is_told_with_those_that_there_are() {
    let world = World::new();
    world.install_executable("program", "/bin/true", &json!({"go": {"argv": []}}));
    let surface = json!({"methods": [{"name": "add", "params": ["x"]}], "properties": []});
    let code = json!({"module": "m", "class": "C", "structural_surface": surface});
    world.install("code", &manifest("code", &code, &json!({"python_path": "/usr/bin/false"})));
    let adapter = json!({"unit": "adapter", "name": "m.A", "version": "1", "task_name": "sums", "module": "m", "class": "A",
        "protocol_members": {"methods": [{"name": "add", "params": ["x"]}]}});
    let path = world.data_dir().join("manifests/adapter-sums-A.json");
    fs::write(path, adapter.to_string()).expect("written");
    let task = |capability: &str, task: &str| {
        format!("name: f\nnodes:\n  a: {{capability: {capability}, task: {task}, method: add}}\n")
    };
    for (capability, said, told) in [
        ("code", "sums", None),
        ("code", "sum", Some(" (did you mean \"sums\"?); it has sums")),
        ("program", "sums", Some("; it has none")),
    ] {
        put(&world, "flow.yaml", &task(capability, said));
        let verdict = world.run(&["validate", "flow.yaml", "--json"]).expect(0).json();
        let what = format!("nodes.a.task: \"{capability}\" has no adapter for the task \"{said}\"");
        let told: Vec<String> = told.iter().map(|told| format!("{what}{told}")).collect();
        assert_eq!(verdict["warnings"], json!(told));
    }
}

#[test]
fn a_composition_that_is_too_deep_is_told_as_that_whatever_it_is_written_in() {
    let world = World::new();
    let flow = |levels: usize| {
        let value = format!("{}1{}", "[".repeat(levels - 4), "]".repeat(levels - 4));
        format!(
            "{{\"name\": \"f\", \"nodes\": {{\"a\": {{\"capability\": \"c\", \"args\": {{\"v\": {value}}}}}}}}}"
        )
    };
    for name in ["flow.json", "flow.yaml"] {
        put(&world, name, &flow(64));
        let _ = world.run(&["validate", name]).expect(0);
        put(&world, name, &flow(65));
        let verdict = world.run(&["validate", name, "--json"]).expect(1).json();
        assert_eq!(verdict["kind"], "composition", "{verdict:#}");
        assert_eq!(verdict["errors"].as_array().map(Vec::len), Some(1), "{verdict:#}");
        assert!(
            verdict["errors"][0]["message"].to_string().contains("nested deeper than the 64 levels"),
            "{verdict:#}"
        );
    }
}

#[test]
fn what_is_told_is_told_once_with_names_that_are_like_it_and_commands_that_a_shell_takes() {
    let world = World::new();
    world.install_executable("lab", "/bin/true", &json!({"go": {"argv": []}}));
    put(&world, "a flow.yaml", "name: f\nnodes:\n  a: {capability: LAB}\n");
    let verdict = world.json(&["validate", "a flow.yaml", "--json"]);
    let told = "nodes.a.capability: \"LAB\" is not installed (did you mean \"lab\"?)";
    assert_eq!(verdict["warnings"], json!([told]));
    put(&world, "a flow.yaml", "name: f\nnodes:\n  a: {acton: go}\n");
    let refused = world.run(&["run", "a flow.yaml"]).expect(1);
    assert!(refused.stderr.contains("validate 'a flow.yaml'` checks it"), "{}", refused.describe());
    assert_eq!(refused.stderr.matches("error: ").count(), 1, "{}", refused.describe());

    put(&world, "cjm.yaml", "runtime: {mode: 3}\n");
    let plain = world.run(&["--cjm-config", "none", "validate", "cjm.yaml"]).expect(1);
    assert_eq!(plain.stderr.matches("column 17").count(), 1, "{}", plain.describe());
    put(&world, "cjm.yaml", "models_dir: m\ndata_dir: ~bob/x\n");
    let verdict = world.run(&["validate", "cjm.yaml", "--json"]).expect(1).json();
    let error = &verdict["errors"][0];
    assert_eq!(
        (&error["line"], &error["code"]),
        (&json!(2), &json!("settings.home_of_another")),
        "{verdict:#}"
    );
    assert!(error["message"].to_string().contains("data_dir is \\\"~bob/x\\\""), "{verdict:#}");
}

#[track_caller]
fn check_told(world: &World, flow: &str, expected: &[&str]) {
    put(world, "flow.yaml", flow);
    let verdict = world.run(&["validate", "flow.yaml", "--json"]).expect(1).json();
    let told: Vec<&str> = verdict["errors"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|error| error["message"].as_str().expect("a message"))
        .collect();
    assert_eq!(told, expected, "{flow}: {verdict:#}");
    let _ = world.run(&["run", "flow.yaml"]).expect(1);
}

#[test]
fn what_is_set_for_a_capability_that_no_node_calls_is_refused_with_the_name_that_is_meant() {
    let world = World::new();
    let touch = json!({"touch": {"argv": [world.file("ran").display().to_string()]}});
    world.install_executable("tool", "/usr/bin/touch", &touch);
    let flow = |set: &str| {
        format!("name: f\ncapabilities: {{{set}: {{config: {{}}}}}}\nnodes:\n  a: {{capability: tool}}\n")
    };
    let told = "capabilities.toll: no node calls `toll` (did you mean \"tool\"?), so that nothing reads what is set here; \
                the nodes call tool";
    check_told(&world, &flow("toll"), &[told]);
    let refused = world.run(&["run", "flow.yaml", "--json"]).expect(1).json();
    assert_eq!(refused["error"]["code"], "composition.uncalled_capability", "{refused:#}");
    assert!(!world.file("ran").exists(), "nothing was started");
    // Whose name of a capability cannot be read may be who calls it.
    let misspelt = flow("toll").replace("{capability: tool}", "{capabilty: toll}");
    let stray = "nodes.a.capabilty: there is no such key (did you mean \"capability\"?)";
    check_told(&world, &misspelt, &[stray, "nodes.a: needs `capability`"]);
    let other = flow("toll").replace("capability: tool", "capability: tool, acton: touch");
    check_told(&world, &other, &[told, "nodes.a.acton: there is no such key (did you mean \"action\"?)"]);
    put(&world, "flow.yaml", &flow("tool"));
    let _ = world.run(&["run", "flow.yaml"]).expect(0);
    assert!(world.file("ran").exists());
}

#[test]
fn a_relative_file_is_told_and_refused_before_a_run_where_the_tool_takes_an_absolute_one() {
    let world = World::new();
    let touch = json!({"touch": {"argv": [world.file("ran").display().to_string()]}});
    world.install_executable("first", "/usr/bin/touch", &touch);
    let parameters = json!({"file": {"type": "input_file", "required": true}});
    world.install_executable("tool", "/bin/true", &json!({"go": {"argv": [], "parameters": parameters}}));
    put(&world, "a.txt", "a");
    let flow = |inputs: &str, file: &str| {
        format!(
            "name: f\ninputs: {inputs}\nnodes:\n  a: {{capability: first}}\n  b: {{capability: tool, after: [a], \
             args: {{file: '{file}'}}}}\n"
        )
    };
    put(&world, "flow.yaml", &flow("{}", "a.txt"));
    let told = "nodes.b.args.file: \"a.txt\" is given, and the tool takes an absolute path; an input of `type: file` (its \
                default may be a.txt) is made one";
    let verdict = world.run(&["validate", "flow.yaml", "--json"]).expect(1).json();
    assert_eq!(messages(&verdict), [told]);
    let refused = world.run(&["run", "flow.yaml", "--json"]).expect(1).json();
    assert_eq!(refused["error"]["code"], "composition.argument_type", "{refused:#}");
    assert!(!world.file("ran").exists(), "nothing was started");
    // What is told to be written goes well.
    put(&world, "flow.yaml", &flow("{file: {type: file, default: a.txt}}", "${inputs.file}"));
    let _ = world.run(&["validate", "flow.yaml"]).expect(0);
    let _ = world.run(&["run", "flow.yaml"]).expect(0);
    assert!(world.file("ran").exists());
}

#[test]
fn a_number_in_a_file_of_inputs_is_text_as_it_is_written_where_text_is_declared() {
    let world = World::new();
    let parameters = json!({"page": {"type": "string"}});
    let say = json!({"argv": ["{page}"], "parameters": parameters, "result": "stdout_text"});
    world.install_executable("tool", "/bin/echo", &json!({"say": say}));
    let flow = "name: f\ninputs: {page: {type: string, default: 0x10}}\nnodes:\n  a: {capability: tool, args: {page: \
                '${inputs.page}'}}\noutput: '${a}'\n";
    put(&world, "flow.yaml", flow);
    put(&world, "inputs.yaml", "page: 007\n");
    let said = |arguments: &[&str]| {
        let ended = world.run(&[&["run", "flow.yaml", "--json"], arguments].concat()).expect(0);
        ended.json()["output"].clone()
    };
    assert_eq!(said(&["--inputs", "inputs.yaml"]), "007");
    assert_eq!(said(&["page=007"]), "007");
    assert_eq!(said(&[]), "0x10");
    ["007", "1.10"].iter().for_each(|name| put(&world, name, ""));
    put(
        &world,
        "flow.yaml",
        "name: f\ninputs: {f: {type: files, default: [1.10]}}\nnodes: {}\noutput: '${inputs.f}'\n",
    );
    put(&world, "inputs.yaml", "f: [007, 1.10]\n");
    let paths = |names: &[&str]| json!(names.iter().map(|name| world.file(name)).collect::<Vec<_>>());
    assert_eq!(said(&["--inputs", "inputs.yaml"]), paths(&["007", "1.10"]));
    assert_eq!(said(&[]), paths(&["1.10"]));
}

#[test]
fn no_fault_is_told_that_nobody_wrote_and_none_twice() {
    let world = World::new();
    world.install_executable("tool", "/bin/true", &json!({"go": {"argv": []}}));
    let node = |keys: &str| format!("name: f\nnodes:\n  a: {{capability: tool{keys}}}\n");
    let stray = |key: &str, meant: &str| format!("{key}: there is no such key (did you mean \"{meant}\"?)");
    check_told(&world, &node(", tasks: x"), &[&stray("nodes.a.tasks", "task")]);
    check_told(&world, &node(", mapp: 3"), &[&stray("nodes.a.mapp", "map")]);
    check_told(&world, &node(", args: {}, arg: {x: '${nobody}'}"), &[&stray("nodes.a.arg", "args")]);
    check_told(
        &world,
        "name: f\nnodes:\n  a: {capabilty: 3}\n",
        &[&stray("nodes.a.capabilty", "capability"), "nodes.a: needs `capability`"],
    );
    check_told(
        &world,
        &node(", task: [1], method: m"),
        &["nodes.a.task: [1] is not of types \"null\", \"number\", \"string\""],
    );
    check_told(
        &world,
        &(node(", args: {x: '${inputs.a} ${inputs.b}'}") + "inputs: [a]\n"),
        &["inputs: [\"a\"] is not of types \"null\", \"object\""],
    );
    check_told(
        &world,
        &(node(", args: {x: '${inputs.a}'}") + "inputz: {a: {}}\n"),
        &[&stray("inputz", "inputs")],
    );
    check_told(
        &world,
        "name: f\nnodes: [a]\noutput: '${a}'\n",
        &["nodes: [\"a\"] is not of types \"null\", \"object\""],
    );
    check_told(&world, &node(", after: [zz, zz]"), &["nodes.a.after: there is no node `zz` (there is a)"]);
    check_told(
        &world,
        &node(", after: [[1], [2], zz]"),
        &[
            "nodes.a.after: there is no node `zz` (there is a)",
            "nodes.a.after.0: [1] is not of types \"number\", \"string\"",
            "nodes.a.after.1: [2] is not of types \"number\", \"string\"",
        ],
    );
    check_told(
        &world,
        &(node(", acton: go, after: [zz], map: 3") + "inputs: {n: 3}\n"),
        &[
            "nodes.a.map: `map` takes a list, and this is 3",
            "nodes.a.after: there is no node `zz` (there is a)",
            &stray("nodes.a.acton", "action"),
            "inputs.n: 3 is not of types \"null\", \"object\"",
        ],
    );
}

/// What a node asks of its tool is known once its keys are right.
#[test]
fn no_warning_is_given_for_want_of_what_a_stray_key_holds() {
    let world = World::new();
    let action = json!({"parameters": {"n": {"type": "integer", "required": true}}, "argv": ["{n}"]});
    world.install_executable("tool", "/bin/true", &json!({"go": action, "stay": action}));
    let warnings = |keys: &str, code: u8| {
        put(&world, "flow.yaml", &format!("name: f\nnodes:\n  a: {{capability: tool{keys}}}\n"));
        world.run(&["validate", "flow.yaml", "--json"]).expect(code).json()["warnings"].clone()
    };
    for keys in [", acton: go, args: {n: 1}", ", action: go, arg: {n: 1}", ", action: go, args: [1]"] {
        assert_eq!(warnings(keys, 1), json!([]), "{keys}");
    }
    assert_eq!(warnings(", args: {n: 1}", 0).as_array().map(Vec::len), Some(1), "a sound one is looked at");
}

#[test]
fn a_literal_that_a_manifest_refuses_is_refused_in_whichever_node_it_stands() {
    let world = World::new();
    let go = json!({"go": {"parameters": {"n": {"type": "integer"}, "m": {"type": "integer"}}, "argv": ["{n}", "{m}"]}});
    world.install_executable("tool", "/bin/true", &go);
    let node = |n: &str, m: &str| format!("{{capability: tool, action: go, args: {{n: {n}, m: {m}}}}}");
    for (place, first, second) in [
        ("nodes.a.args.m", node("1", "x"), node("1", "1")),
        ("nodes.a.args.n", node("x", "1"), node("1", "1")),
        ("nodes.b.args.n", node("1", "1"), node("x", "1")),
    ] {
        world.write("flow.yaml", format!("name: f\nnodes:\n  a: {first}\n  b: {second}\n"));
        let refused = world.run(&["run", "flow.yaml", "--json"]).expect(1).json();
        assert!(refused["error"]["message"].as_str().is_some_and(|said| said.contains(place)), "{refused:#}");
    }
    let sound = world.write("flow.yaml", format!("name: f\nnodes:\n  a: {}\n", node("1", "1")));
    let _ = world.run(&["run", &sound.display().to_string()]).expect(0);
}

#[test]
fn an_empty_name_is_refused_by_validate_and_run_in_the_same_words() {
    let world = World::new();
    world.install_executable("tool", "/bin/true", &json!({"go": {"argv": []}}));
    for (key, node) in [
        ("capability", "capability: ''"),
        ("task", "capability: tool, task: '', method: m"),
        ("method", "capability: tool, task: t, method: ''"),
    ] {
        let told = format!("nodes.a.{key}: it is empty, and names nothing");
        check_told(&world, &format!("name: f\nnodes:\n  a: {{{node}}}\n"), &[&told]);
        let refused = world.run(&["run", "flow.yaml", "--json"]).expect(1).json();
        assert!(refused["error"]["message"].as_str().is_some_and(|said| said.contains(&told)), "{refused:#}");
    }
}

#[test]
fn what_a_reference_brings_is_corrected_where_it_stands() {
    let world = World::new();
    let source = "from cjm_sdk import Capability, action\n\nclass Kit(Capability):\n    @action\n    \
                  def say(self, word: str = 'word'):\n        return word\n\n    @action\n    \
                  def count(self):\n        return {'n': 1}\n";
    world.install_python("kit", "Kit", source);
    let refers = "nodes: {b: {capability: kit, action: count}, a: {capability: kit, action: say, ";
    for (node, step) in [
        (
            "args: {word: '${inputs.number}'}",
            "the input `number`, to which `nodes.a.args.word` refers, and run it",
        ),
        (
            "map: '${inputs.list}', args: {word: '${item}'}",
            "the input `list[1]`, to which `nodes.a.args.word` refers, and run it",
        ),
        (
            "args: {word: '${b.n}'}",
            "what node `b` returns (`${b.n}`), to which `nodes.a.args.word` refers, and run it",
        ),
        // Of a parameter that there is not, the name is wrong.
        ("args: {wrod: '${inputs.number}'}", "`nodes.a.args.wrod` in the composition and run it"),
    ] {
        let inputs = "inputs: {number: {default: 5}, list: {default: [a, 3]}}";
        put(&world, "flow.yaml", &format!("name: f\n{inputs}\n{refers}{node}}}}}\n"));
        let failed = world.run(&["run", "flow.yaml"]).expect(16);
        let step = format!("next: correct {step} again; the tool has not run");
        assert!(failed.stderr.contains(&step), "{}", failed.describe());
    }
}

#[test]
fn a_file_without_nodes_is_checked_by_the_command_that_is_told() {
    let world = World::new();
    put(&world, "flow.txt", "name: f\n");
    let refused = world.run(&["run", "flow.txt"]).expect(1);
    assert!(
        refused.stderr.contains("validate --format composition flow.txt` checks it"),
        "{}",
        refused.describe()
    );
    let checked = world.run(&["validate", "--format", "composition", "flow.txt"]).expect(1);
    assert!(checked.stderr.contains("needs `nodes`"), "{}", checked.describe());
}
