//! What is told names the thing that is meant: the element of a list, the number as it was written, the way that helps.

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
