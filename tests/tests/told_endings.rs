//! What is said of calls of a Python tool that end badly: whose the failure is, what led to it, and what the tool said last.
//! With real tools.

use cjm_tests::world::{Outcome, World, write_script};
use serde_json::json;

const ENDS: &str = r#"
import os, sys, time
from cjm_sdk import Capability, UserInputError, action

class Ends(Capability):
    name = "ends"
    version = "1.0.0"

    def chain(self, depth):
        error = None
        for number in range(depth):
            try:
                raise ValueError(number) from error
            except ValueError as raised:
                error = raised
        raise error

    @action
    def end(self, how="well"):
        print("last words of", how, file=sys.stderr)
        if how == "key":
            raise KeyError("deep")
        if how == "value":
            raise ValueError("odd")
        if how == "input":
            raise UserInputError("no such page", fields_invalid=["how"])
        if how == "chain":
            self.chain(5_000)
        if how == "group":
            raise ExceptionGroup("many", [ValueError(number) for number in range(200)])
        if how == "sleep":
            time.sleep(60)
        if how == "exit":
            os._exit(0)
        if how == "names":
            for name in [name for name in sys.modules if name.startswith("cjm_sdk.")]:
                vars(sys.modules[name]).clear()
        return how
"#;

/// Reads a key of its configuration that nobody has to give.
const READS: &str = r#"
from cjm_sdk import Capability, action

class Reads(Capability):
    name = "reads"
    version = "1.0.0"
    config_schema = {"type": "object", "properties": {"level": {"type": "integer"}}, "required": ["level"]}

    @action
    def ask(self):
        return self.config["level"]
"#;

fn says(outcome: &Outcome, words: &str) {
    assert!(outcome.stderr.contains(words), "no `{words}`\n{}", outcome.describe());
}

fn end(world: &World, how: &str, exit: u8) -> Outcome {
    world.run(&["call", "ends", "--action", "end", &format!("how={how}")]).expect(exit)
}

#[test]
fn what_a_tool_said_last_is_told_with_each_failure_of_its_calls() {
    let world = World::new();
    world.install_python("ends", "Ends", ENDS);
    for how in ["key", "value", "input"] {
        says(&end(&world, how, 12), &format!("| last words of {how}"));
    }
    let late = world.run(&["call", "ends", "--action", "end", "how=sleep", "--timeout", "2"]).expect(13);
    says(&late, "| last words of sleep");
    let refused = world.run(&["call", "ends", "--action", "end", "who=me"]).expect(1);
    assert!(!refused.stderr.contains("last lines"), "{}", refused.describe());
    world.assert_nothing_left();
}

/// A program whose calls differ by an argument; it says what it was called with before it does anything else.
fn install_speaker(world: &World, body: &str) {
    let script = world.file("speaks.sh");
    write_script(&script, &format!("#!/bin/sh\n{body}\n"));
    let go = json!({"argv": ["{how}"], "parameters": {"how": {"type": "string"}}, "result": "stdout_json"});
    world.install_executable("speaks", &script.display().to_string(), &json!({"go": go}));
}

#[test]
fn what_a_tool_said_in_a_call_whose_time_was_over_is_told_however_it_was_stopped() {
    let world = World::new();
    install_speaker(&world, r#"echo "words of $1" >&2; [ "$1" = late ] && exec sleep 60; echo '"well"'"#);
    world.install_python("ends", "Ends", ENDS);
    let flow = "name: two\nnodes:\n  first: { capability: speaks, action: go, args: { how: well } }\n  \
                second: { capability: speaks, action: go, after: [first], args: { how: late } }\n";
    let flow = world.write("two.yaml", flow).display().to_string();
    let call = ["call", "speaks", "--action", "go", "how=late", "--timeout", "2"];
    let streamed = ["call", "ends", "--action", "end", "how=sleep", "--timeout", "2", "--stream"];
    let run = ["run", &flow, "--timeout", "3"];
    for (arguments, words) in
        [(&call[..], "words of late"), (&streamed[..], "words of sleep"), (&run[..], "words of late")]
    {
        let told = world.run(arguments).expect(13);
        says(&told, words);
        let told = world.run(&[arguments, &["--json"]].concat()).expect(13);
        let document = told.json_lines().pop().expect("a document");
        let said = document["error"]["stderr_tail"].to_string();
        assert!(said.contains(words), "{}", told.describe());
        // What the tool said in another call, of the same worker, is not about this one.
        assert!(!said.contains("words of well"), "{}", told.describe());
    }
    world.assert_nothing_left();
}

/// Prints and returns, or says nothing and hears nothing until its worker is killed.
const DEAF: &str = r#"
import time
from cjm_sdk import Capability, action

class Deaf(Capability):
    name = "deaf"
    version = "1.0.0"

    @action
    def go(self, how):
        if how == "prints":
            for number in range(3):
                print("words of another", number, flush=True)
        while how == "hangs":
            time.sleep(60)
        return how
"#;

#[test]
fn what_a_tool_said_in_another_call_is_not_told_of_one_whose_worker_was_killed() {
    let world = World::new();
    world.install_python("deaf", "Deaf", DEAF);
    let nodes = "first: { capability: deaf, action: go, args: { how: prints } }\n  \
                 second: { capability: deaf, action: go, after: [first], args: { how: hangs } }";
    let map = "all: { capability: deaf, action: go, map: [prints, hangs], args: { how: \"${item}\" } }";
    for nodes in [nodes, map] {
        let flow = world.write("flow.yaml", format!("name: flow\nnodes:\n  {nodes}\n")).display().to_string();
        let told = world.run(&["run", &flow, "--timeout", "3", "--json"]).expect(13);
        let document = told.json_lines().pop().expect("a document");
        assert_eq!(document["error"]["code"], "composition.deadline", "{}", told.describe());
        assert!(!document.to_string().contains("words of another"), "{}", told.describe());
    }
    world.assert_nothing_left();
}

#[test]
fn a_run_whose_time_was_over_is_told_with_the_words_of_a_call_that_was_stopped() {
    let world = World::new();
    let body =
        r#"echo "words of $1" >&2; [ "$1" = bad ] && exit 3; [ "$1" = late ] && exec sleep 60; echo 1"#;
    install_speaker(&world, body);
    let flow = "name: two\nfailure: best_effort\nnodes:\n  \
                first: { capability: speaks, action: go, args: { how: bad } }\n  \
                second: { capability: speaks, action: go, args: { how: late } }\n";
    let flow = world.write("two.yaml", flow).display().to_string();
    let told = world.run(&["run", &flow, "--timeout", "3", "--json"]).expect(13);
    let document = told.json_lines().pop().expect("a document");
    assert_eq!(document["error"]["stderr_tail"], json!(["words of late"]), "{}", told.describe());
    world.assert_nothing_left();
}

#[test]
fn what_a_program_wrote_where_its_result_is_read_is_told_when_its_time_was_over() {
    let world = World::new();
    let results = ["stdout_text", "stdout_lines", "stdout_json", "exit_code"];
    let action = |result| json!({"argv": ["-c", "echo to-out; echo to-err >&2; sleep 60"], "result": result});
    let actions = results.iter().map(|result| ((*result).to_owned(), action(result))).collect();
    world.install_executable("writes", "/bin/sh", &serde_json::Value::Object(actions));
    for result in results {
        let flow = format!("name: one\nnodes:\n  it: {{ capability: writes, action: {result} }}\n");
        let flow = world.write("one.yaml", &flow).display().to_string();
        let call = ["call", "writes", "--action", result, "--timeout", "2"];
        for arguments in [&call[..], &["run", &flow, "--timeout", "2"]] {
            let told = world.run(&[arguments, &["--json"]].concat()).expect(13);
            let document = told.json_lines().pop().expect("a document");
            let said = document["error"]["stderr_tail"].to_string();
            assert!(said.contains("to-out") && said.contains("to-err"), "{result}: {}", told.describe());
        }
    }
    world.assert_nothing_left();
}

#[test]
fn what_a_tool_said_in_another_call_is_not_told_of_one_that_it_never_saw() {
    let world = World::new();
    install_speaker(&world, r#"echo "words of $1" >&2; rm -- "$0"; echo '"well"'"#);
    let flow = "name: two\nnodes:\n  first: { capability: speaks, action: go, args: { how: well } }\n  \
                second: { capability: speaks, action: go, after: [first], args: { how: late } }\n";
    let flow = world.write("two.yaml", flow).display().to_string();
    let told = world.run(&["run", &flow]);
    says(&told, "node second");
    says(&told, "the tool has not run");
    assert!(!told.stderr.contains("words of"), "{}", told.describe());
    world.assert_nothing_left();
}

#[test]
fn of_a_long_chain_and_of_a_large_group_the_ends_and_the_true_number_are_told() {
    let world = World::new();
    world.install_python("ends", "Ends", ENDS);
    let chain = end(&world, "chain", 12);
    says(&chain, "raised after: ValueError: 4998");
    says(&chain, "raised after: [4993 exceptions left out here]");
    says(&chain, "raised after: ValueError: 0");
    let group = end(&world, "group", 12);
    // Older interpreters have none.
    if !group.stderr.contains("NameError") {
        says(&group, "of its group: ValueError: 0");
        says(&group, "of its group: [197 exceptions left out here]");
    }
    world.assert_nothing_left();
}

#[test]
fn a_tool_that_ends_its_process_in_a_call_died_during_that_call() {
    let world = World::new();
    world.install_python("ends", "Ends", ENDS);
    let ended = end(&world, "exit", 11);
    says(&ended, "died during the call");
    says(&ended, "in the middle of a call, with code 0");
    says(&ended, "last words of exit");
    // One that takes away what its calls are run with says so at its end.
    let names = end(&world, "names", 11);
    says(&names, "overwrites this SDK");
    world.assert_nothing_left();
}

#[test]
fn a_key_of_a_configuration_that_no_manifest_speaks_of_is_told_as_that() {
    let world = World::new();
    world.install_python("reads", "Reads", READS);
    let refused = world.run(&["call", "reads", "--action", "ask"]).expect(1);
    says(&refused, "wrong configuration (level: missing; there are: level)");
    says(&refused, "correct the configuration: give `level` in it, as in `--config '{\"level\": …}'`");
    assert!(!refused.stderr.contains("correct `level`"), "{}", refused.describe());
    let given = world.run(&["call", "reads", "--action", "ask", "--config", "{\"level\": 3}"]).expect(0);
    assert_eq!(given.stdout.trim(), "3");
    world.assert_nothing_left();
}
