//! What is told names the thing that is meant: the element of a list, the number as it was written, the way that helps.

use cjm_tests::journal;
use cjm_tests::world::{Outcome, World};
use cjm_wire::describe::exit;
use serde_json::{Value, json};

fn says(outcome: &Outcome, words: &str) {
    assert!(outcome.stderr.contains(words), "\"{words}\" is not told: {}", outcome.describe());
}

/// A tool that says the text it is given.
fn world() -> World {
    let world = World::new();
    let parameters = json!({"text": {"type": "string", "required": true}, "n": {"type": "integer", "minimum": 1, "maximum": 9}});
    let say = json!({"argv": ["%s", "{text}"], "parameters": parameters, "result": "stdout_text"});
    world.install_executable("say", "printf", &json!({"it": say}));
    world
}

/// The path of a composition whose node `e` runs over the input `all`.
fn over_all(world: &World, more: &str) -> String {
    let text = format!(
        "name: w\ninputs: {{ all: {{ type: any }} }}\n{more}nodes:\n  e: {{ capability: say, action: it, map: \
         '${{inputs.all}}', args: {{ text: '${{item.k}}' }} }}\n"
    );
    world.write("w.yaml", text).display().to_string()
}

#[test]
fn an_element_whose_reference_does_not_bind_is_named_wherever_it_is_told() {
    let world = world();
    let flow = over_all(&world, "");
    let run = |more: &[&str]| {
        let given = ["run", &flow, "all:=[{\"k\": \"a\"}, {\"x\": 1}]"];
        world.run(&[&given[..], more].concat()).expect(exit::COMPOSITION_FAILED)
    };
    for told in [run(&[]), run(&["-q"])] {
        says(&told, "composition \"w\" failed: node `e[1]`: `${item.k}`: ");
        says(&told, "next: at node `e[1]`: compare the reference with the elements");
    }
    let told = run(&["--json"]).json();
    for error in [&told["error"], &told["nodes"][0]["error"]] {
        let message = error["message"].as_str().unwrap_or_default();
        assert!(message.contains("node `e[1]`: `${item.k}`"), "{told:#}");
        assert_eq!((&error["node"], &error["element"]), (&json!("e"), &json!(1)), "{told:#}");
    }
    // What goes on without it says of which element that holds.
    let flow = over_all(&world, "failure: best_effort\n");
    let told = world.run(&["run", &flow, "all:=[{\"k\": \"a\"}, {\"x\": 1}]", "--json"]);
    let told = told.expect(exit::COMPOSITION_FAILED).json();
    assert_eq!(
        (&told["outcome"], &told["failures"][0]["element"]),
        (&json!("partial"), &json!(1)),
        "{told:#}"
    );
    assert_eq!(told["nodes"][0]["error"]["element"], 1, "{told:#}");
    // A list that does not come about has no elements that could have ended.
    let told = world.run(&["run", &flow, "all:=3"]).expect(exit::COMPOSITION_FAILED);
    assert!(!told.stderr.contains("0 of 0"), "{}", told.describe());
}

#[test]
fn the_error_of_a_node_is_its_first_failure_whoever_carries_it() {
    let world = world();
    let fails = json!({"argv": ["-c", "exit 3", "{a}"], "parameters": {"a": {"type": "string"}}});
    world.install_executable("fails", "sh", &json!({"it": fails}));
    let flow = |failure: &str| {
        let node = "capability: fails, action: it, map: '${inputs.all}', args: { a: '${item.x}' }";
        let head = "inputs: { all: { type: any } }";
        let text = format!("name: w\n{head}\n{failure}nodes:\n  e: {{ {node} }}\n");
        world.write("f.yaml", text).display().to_string()
    };
    // The element that does not bind comes first, and that of another one carries a job.
    for (all, element) in [("all:=[{}, {\"x\": \"1\"}]", 0), ("all:=[{\"x\": \"1\"}]", 0)] {
        let flow = flow("failure: best_effort\n");
        let told = world.run(&["run", &flow, all, "--json"]).expect(exit::COMPOSITION_FAILED).json();
        let (error, of_node) = (&told["error"], &told["nodes"][0]["error"]);
        for error in [error, of_node] {
            assert_eq!((&error["node"], &error["element"]), (&json!("e"), &json!(element)), "{told:#}");
        }
        assert_eq!(error["code"], of_node["code"], "{told:#}");
    }
}

#[test]
fn a_tool_whose_manifest_is_broken_is_not_told_to_be_none() {
    let world = world();
    let manifests = world.data_dir().join("manifests");
    let whole = cjm_tests::world::manifest("foo", &json!({}), &json!({})).to_string();
    let cut = whole.strip_suffix('}').expect("an object");
    std::fs::write(manifests.join("x.json"), format!("{cut},}}")).expect("written");
    let told = world.run(&["call", "foo"]).expect(exit::DOMAIN);
    says(&told, "there is no capability named \"foo\"");
    says(&told, "it may be that of ");
    says(&told, "manifests/x.json, which is broken and does not say whose it is");
    says(&told, "manifests/x.json` shows what is wrong there");
    // What says whose it is, is not that of another one.
    std::fs::write(manifests.join("x.json"), format!("\u{feff}{whole}")).expect("written");
    says(&world.run(&["call", "foo"]).expect(exit::DOMAIN), "manifests/x.json of \"foo\" cannot be used");
    let other = world.run(&["call", "bar"]).expect(exit::DOMAIN);
    assert!(!other.stderr.contains("it may be that of"), "{}", other.describe());
}

#[test]
fn a_key_or_an_action_that_is_given_twice_is_refused() {
    let world = world();
    for (arguments, words) in [
        (&["--args", "{\"n\": 1, \"n\": 2}"][..], "--args has the key `n` twice"),
        (&["n:={\"a\": 1, \"a\": 2}"], "the value of `n:=` has the key `a` twice"),
        (
            &["--action", "it", "action=other"],
            "the action is `it` by --action, and \"other\" by the argument",
        ),
        (&["--action", "it", "--args", "{\"action\": \"other\"}"], "the action is `it` by --action"),
    ] {
        says(&world.run(&[&["call", "say", "text=a"][..], arguments].concat()).expect(exit::USAGE), words);
    }
    let same = world.run(&["call", "say", "text=a", "--action", "it", "action=it"]).expect(0);
    assert_eq!(same.stdout.trim(), "\"a\"");
    says(&world.run(&["logs", "--job", ""]).expect(exit::USAGE), "--job is empty");
}

#[test]
fn a_row_of_output_names_its_tool_also_to_programs() {
    let world = World::new();
    let print = json!({"argv": ["-c", "echo printed >&2; echo '\"x\"'"]});
    world.install_executable("prints", "sh", &json!({"it": print}));
    let called = world.run(&["call", "prints"]).expect(0);
    assert!(!called.stdout.is_empty(), "{}", called.describe());
    let rows = world.json(&["logs", "--chunks", "--json"]);
    let printed = rows.as_array().expect("rows").iter().find(|row| row["content"] == "printed");
    let printed = printed.unwrap_or_else(|| panic!("{rows:#}"));
    assert_eq!(printed["capability"], "prints", "{rows:#}");
    assert!(printed["worker_session_id"].is_string(), "{rows:#}");
}

/// Accounts for what it is given as a number.
const COUNTS: &str = r#"
import os
from cjm_sdk import Capability, action

class Counts(Capability):
    name = "counts"
    version = "1.0.0"

    @action
    def it(self):
        self.account("result_saved", {"a": 2**70, "token": -int(os.environ["TOK"]), "few": 2**62})
        for deep in (125, 600):
            lists = None
            for _ in range(deep):
                lists = [lists]
            self.account("task_account", {"a": lists})
        self.account("task_account", ["x"])
        return 2**70
"#;

#[test]
fn a_number_of_any_length_is_accounted_for_digit_by_digit_and_a_secret_of_digits_is_not_told() {
    let world = World::new();
    let path = world.install_python("counts", "Counts", COUNTS);
    let mut manifest: Value =
        serde_json::from_str(&std::fs::read_to_string(&path).expect("read")).expect("JSON");
    manifest["code"]["worker_env"] = json!([{"name": "TOK", "secret": true}]);
    std::fs::write(&path, manifest.to_string()).expect("written");
    let secret = "123456789012345678901234567890";
    let _ = world.run(&["set-secret", "counts", "TOK", "--value", secret]).expect(0);
    let called = world.run(&["call", "counts"]).expect(0);
    assert_eq!(called.stdout.trim(), "1180591620717411303424", "{}", called.describe());
    let rows = journal::rows(&world.journal());
    let account = rows.iter().find(|row| row.event_type == "result_saved").expect("an account");
    let told =
        json!({"a": "1180591620717411303424", "token": "-[secret]", "few": 4_611_686_018_427_387_904_u64});
    assert_eq!(account.payload, told);
    // What nobody could read does not take it along, and is counted.
    assert!(rows.iter().all(|row| row.event_type != "task_account"));
    let logged = world.run(&["logs"]).expect(0);
    assert!(logged.stdout.contains("3 account(s) of this call were dropped"), "{}", logged.describe());
}

#[test]
fn folders_that_hold_such_files_and_were_not_looked_at_are_named() {
    let world = World::new();
    let flow = "name: f\nnodes:\n  a: { capability: nothing-like-it }\n";
    for file in ["v6/tools/f.yaml", "v6/compositions/f.yaml", "v6/other/notes.yaml", "v6/.kept/f.yaml"] {
        let path = world.file(file);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("mkdir");
        std::fs::write(&path, if file.ends_with("notes.yaml") { "a: 1\n" } else { flow }).expect("written");
    }
    let folder = world.file("v6").display().to_string();
    let verdict = world.json(&["validate", &folder, "--json"]);
    let warnings = verdict["warnings"].as_array().expect("warnings");
    let told: Vec<&str> =
        warnings.iter().filter_map(|w| w.as_str()).filter(|w| w.contains("not looked at")).collect();
    let [told] = told.as_slice() else { panic!("{verdict:#}") };
    assert!(told.starts_with(&format!("{folder}/tools: such files lie there")), "{verdict:#}");
    assert!(told.contains(&format!(" validate {folder}/tools` checks them")), "{verdict:#}");
}

#[test]
fn a_document_has_the_same_keys_whatever_it_holds() {
    let world = world();
    world.install_python(
        "kit",
        "Kit",
        "from cjm_sdk import Capability\n\n\nclass Kit(Capability):\n    pass\n",
    );
    let keys = |value: &Value| value.as_object().expect("an object").keys().cloned().collect::<Vec<_>>();
    let listed = world.json(&["list", "--json"]);
    let tools = listed["capabilities"].as_array().expect("tools");
    assert_eq!(keys(&tools[0]), keys(&tools[1]), "{listed:#}");
    assert!(listed["not_installed"].is_null() && tools[0]["configured"].is_null(), "{listed:#}");
    let called = world.json(&["call", "say", "text=a", "--json"]);
    assert_eq!(
        (&called["written"], &called["left_out"], called.get("error")),
        (&json!([]), &json!([]), Some(&json!(null)))
    );
    let flow = over_all(&world, "");
    let good = world.json(&["run", &flow, "all:=[{\"k\": \"a\"}]", "--json"]);
    let bad = world.run(&["run", &flow, "all:=[{}]", "--json"]).expect(exit::COMPOSITION_FAILED).json();
    assert_eq!(keys(&good), keys(&bad));
    assert_eq!(
        (&good["failures"], &good["still_running"], &good["error"]),
        (&json!([]), &json!(0), &json!(null))
    );
    let status = world.json(&["status", "--json"]);
    assert_eq!(
        (&status["stopped"], &status["left_by_dead_host_count"], status.get("error")),
        (&json!(false), &json!(0), Some(&json!(null)))
    );
}

#[test]
fn the_way_that_a_command_is_told_is_one_that_works() {
    let world = world();
    for (words, code, told) in [
        (
            &["call", "say", "--text", "a"][..],
            exit::USAGE,
            "an argument of the tool is written KEY=VALUE: 'text=VALUE'",
        ),
        (&["call", "say", "text=a", "--timeout", "-1"], exit::USAGE, "--timeout -1.0 is no time to wait"),
        (&["install-all", "tools.yaml"], exit::USAGE, "'--capabilities FILE'"),
    ] {
        let outcome = world.run(words).expect(code);
        says(&outcome, told);
        assert!(!outcome.stderr.contains("as a value"), "{}", outcome.describe());
    }
    let _ = world.run(&["call", "say", "text=a"]).expect(exit::OK);
    // No id has it, at its beginning or at its end.
    let short = world.run(&["logs", "--job", "0f-"]).expect(exit::DOMAIN);
    says(
        &short,
        "--job 0f- (of the beginning of an id as it is shown, at least 4 characters are needed): nothing is known of it",
    );
    let long = world.run(&["list", "--long"]).expect(exit::OK);
    assert!(long.stdout.contains("n: (1 to 9)"), "{}", long.describe());
    // A value that is refused is told as that alone.
    let refused = world.run(&["set-secret", "say", "KEY", "--value", ""]).expect(exit::DOMAIN);
    assert!(!refused.stderr.contains("note:"), "{}", refused.describe());
    let kept = world.run(&["set-secret", "say", "KEY", "--value", "a long secret"]).expect(exit::OK);
    says(&kept, "does not declare it");
    says(&kept, "stands in the shell's history");
    let mut manifest: Value =
        cjm_tests::world::manifest("opt", &json!({"worker_env": [{"name": "MF_OPT"}]}), &json!({}));
    manifest["code"]["runtime"] =
        json!({"kind": "executable", "program": "true", "actions": {"go": {"argv": []}}});
    let path = world.install("opt", &manifest);
    let long = world.run(&["list", "--long"]).expect(exit::OK);
    let line = format!("MF_OPT: not set; set it in {} (`install.env_vars`)", path.display());
    assert!(long.stdout.contains(&line), "{}", long.describe());
}

#[test]
fn what_a_failed_program_said_is_no_traceback() {
    let world = World::new();
    let fail = json!({"argv": ["-c", "echo half; echo whole >&2; exit 3"], "result": "stdout_text"});
    world.install_executable("fails", "sh", &json!({"it": fail}));
    let told = world.run(&["call", "fails", "--json"]).expect(exit::TOOL_FAILED).json();
    let error = &told["error"];
    assert_eq!(
        (&error["stderr_tail"], error.get("traceback")),
        (&json!(["half", "whole"]), None),
        "{told:#}"
    );
}
