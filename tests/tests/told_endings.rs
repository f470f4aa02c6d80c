//! What is said of calls of a Python tool that end badly: whose the failure is, what led to it, and what the tool said last.
//! With real tools.

use cjm_tests::world::{Outcome, World};

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
    says(&refused, "wrong configuration (level: missing)");
    says(&refused, "correct the configuration: give `level` in it, as in `--config '{\"level\": …}'`");
    assert!(!refused.stderr.contains("correct `level`"), "{}", refused.describe());
    let given = world.run(&["call", "reads", "--action", "ask", "--config", "{\"level\": 3}"]).expect(0);
    assert_eq!(given.stdout.trim(), "3");
    world.assert_nothing_left();
}
