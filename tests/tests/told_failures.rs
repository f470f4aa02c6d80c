//! What is said where something fails: whose it is, where it arose, why a start failed, and where the rest stands. With real
//! tools, in words and in the journal.

use cjm_platform::process::Signal;
use cjm_tests::journal;
use cjm_tests::world::{Outcome, World, eventually};
use serde_json::{Value, json};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

/// A tool on the channel that writes a file in each call, and then blames an argument.
const BLAMES: &str = r#"
    open(my $c, '+<&=', 3);
    sub take { my ($n, $b) = (shift, ''); while (length $b < $n) { sysread($c, $b, $n - length $b, length $b) or exit 0 } $b }
    sub say_ { my ($k, $id, $b) = @_; syswrite($c, pack('N C x3 Q>', length $b, $k, $id) . $b) }
    while (1) {
        my ($n, $k, $id) = unpack('N C x3 Q>', take(16)); take($n);
        if ($k == 1) { say_(0x81, 0, '{"channel_version":1,"name":"blames","version":"1","supports":[],"concurrency_max":1}') }
        elsif ($k == 0x21) { exit 0 }
        elsif ($k == 2) {
            open(my $f, '>', $ARGV[0]); print $f "done"; close $f;
            say_(0x83, $id, '{"status":500,"body":{"_job_error":{"category":"user_input","message":"no text","retriable":true,"fields_invalid":["text"]}}}')
        }
        else { say_(0x82, $id, '{"status":"ok"}') }
    }
"#;

const KIT: &str = r#"
import time
from cjm_sdk import Capability, action

class Kit(Capability):
    name = "kit"
    version = "1.0.0"

    @action
    def count(self):
        yield 1

    @action
    def bad(self):
        raise RuntimeError("bad")

    @action
    def mistyped(self, text="x"):
        return 1 + text

    @action
    def say(self, word="word"):
        self.log("INFO", "said " + word)
        return word

    @action
    def sleep(self, seconds=60):
        self.log("INFO", "sleeps")
        time.sleep(seconds)
"#;

/// Fails as its configuration says, and for want of a secret.
const SETS_UP: &str = r#"
import os
from cjm_sdk import Capability, action

class SetsUp(Capability):
    name = "setsup"
    version = "1.0.0"
    config_schema = {"how": "well"}

    def initialize(self, config=None):
        super().initialize(config)
        how = (config or {}).get("how", "well")
        if how == "value":
            raise ValueError("how is odd")
        if how == "broken":
            raise RuntimeError("no engine")
        if how == "exit":
            raise SystemExit(3)

    @action
    def ask(self):
        return os.environ["WORDS_TOKEN"]
"#;

/// Cannot be without a configuration.
const NEEDS_A_KEY: &str = r#"
from cjm_sdk import Capability, action

class Needs(Capability):
    name = "needs"
    version = "1.0.0"
    config_schema = {"type": "object", "properties": {"level": {"type": "integer"}}, "required": ["level"]}

    @action
    def ask(self):
        return 1
"#;

fn install_perl(world: &World, name: &str, script: &str, arguments: &[String]) {
    let path = world.write(&format!("{name}.pl"), script).display().to_string();
    let args: Vec<String> = std::iter::once(path).chain(arguments.iter().cloned()).collect();
    let runtime = json!({"kind": "channel", "program": "/usr/bin/perl", "args": args});
    let code = json!({"name": name, "version": "1", "runtime": runtime});
    world.install(name, &json!({"format_version": "2.0", "code": code}));
}

fn error_of(outcome: &Outcome) -> Value {
    outcome.json()["error"].clone()
}

fn says(outcome: &Outcome, words: &str) {
    assert!(outcome.stderr.contains(words), "no `{words}`\n{}", outcome.describe());
}

/// The verdict of the one worker that died.
fn verdict(world: &World) -> String {
    let rows = journal::rows(&world.journal());
    let died: Vec<_> = rows.iter().filter(|row| row.event_type == "worker_died").collect();
    assert_eq!(died.len(), 1, "{}", journal::tell(&rows));
    died[0].payload["verdict"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_tool_that_ran_and_blames_an_argument_has_run() {
    let world = World::new();
    let done = world.file("done").display().to_string();
    install_perl(&world, "blames", BLAMES, std::slice::from_ref(&done));
    let outcome = world.run(&["call", "blames", "text=x", "--json"]).expect(12);
    let error = error_of(&outcome);
    assert_eq!((&error["code"], &error["fields_invalid"]), (&json!("call.tool_failed"), &json!(["text"])));
    assert_eq!(std::fs::read_to_string(done).expect("it ran"), "done");
    let text = world.run(&["call", "blames", "text=x"]).expect(12);
    assert!(!text.stderr.contains("has not run"), "{}", text.describe());
    says(&text, "correct `text`");
}

#[test]
fn a_program_that_ends_before_it_is_ready_is_told_with_its_words_and_no_variable() {
    let mut world = World::new();
    world.set("UNRELATED_VARIABLE", "x");
    install_perl(&world, "early", "print STDERR \"no config file\\n\"; exit 4;", &[]);
    let outcome = world.run(&["call", "early"]).expect(10);
    says(&outcome, "no config file");
    assert!(!outcome.stderr.contains("UNRELATED_VARIABLE"), "{}", outcome.describe());
    let verdict = verdict(&world);
    assert!(verdict.starts_with("the tool could not be loaded: ") && verdict.contains('4'), "{verdict}");
    let logs = world.run(&["logs", "--journal", "--type", "worker_died"]).expect(0);
    assert!(!logs.stdout.contains("unloaded"), "{}", logs.describe());
}

#[test]
fn a_tool_that_does_not_load_shows_where_in_every_place() {
    let mut world = World::new();
    world.set("LAB_MODEL", "x");
    let class = "    def __init__(self):\n        super().__init__()\n        import deeper\n        deeper.open_model({})\n";
    let source = format!("from cjm_sdk import Capability\n\nclass Kit(Capability):\n{class}");
    world.install_python("kit", "Kit", &source);
    std::fs::write(
        world.python_dir().join("deeper.py"),
        "def open_model(table):\n    return table['deep']\n",
    )
    .expect("written");
    let text = world.run(&["call", "kit"]).expect(10);
    says(&text, "deeper.py\", line 2");
    says(&text, "logs --journal --run");
    assert!(!text.stderr.contains("LAB_MODEL"), "{}", text.describe());
    let outcome = world.run(&["call", "kit", "--json"]).expect(10);
    let error = error_of(&outcome);
    assert_eq!(
        (&error["code"], &error["category"], &error["exception"], &error["retriable"]),
        (&json!("worker.load_failed"), &json!("fatal"), &json!("KeyError"), &json!(false))
    );
    assert!(error["traceback"].to_string().contains("deeper.py"), "{error:#}");
    assert!(error["run_id"].is_string(), "{error:#}");
    let logs = world.run(&["logs", "--level", "ERROR"]).expect(0);
    assert!(logs.stdout.contains("could not be loaded: KeyError: 'deep'"), "{}", logs.describe());
    assert!(logs.stdout.contains("deeper.py\", line 2"), "{}", logs.describe());

    // Where the failure speaks of a variable, it is named, with the way to pass it on.
    std::fs::write(
        world.python_dir().join("deeper.py"),
        "import os\n\ndef open_model(table):\n    return os.environ['LAB_MODEL']\n",
    )
    .expect("written");
    let named = world.run(&["call", "kit"]).expect(10);
    says(&named, "the host has LAB_MODEL");
    says(&named, "worker_env_pass: [LAB_MODEL]");
}

#[test]
fn a_failure_in_initialize_and_one_for_want_of_a_secret_are_told_as_what_they_are() {
    let world = World::new();
    let path = world.install_python("setsup", "SetsUp", SETS_UP);
    let mut manifest: Value =
        serde_json::from_str(&std::fs::read_to_string(&path).expect("read")).expect("JSON");
    manifest["code"]["worker_env"] = json!([{"name": "WORDS_TOKEN", "secret": true}, {"name": "WORDS_URL"}]);
    std::fs::write(&path, manifest.to_string()).expect("write");
    for (how, exit, words) in [
        ("value", 1, "refused its configuration: ValueError: how is odd"),
        ("broken", 12, "failed in initialize: RuntimeError: no engine"),
        ("exit", 12, "failed in initialize: SystemExit: 3"),
    ] {
        let config = json!({"how": how}).to_string();
        let failed = world.run(&["call", "setsup", "--action", "ask", "--config", &config]).expect(exit);
        says(&failed, words);
        let traced = failed.stderr.contains("the end of its traceback") && failed.stderr.contains(" logs --");
        assert_eq!(traced, exit == 12, "{}", failed.describe());
        assert_eq!(failed.stderr.contains("correct the configuration"), exit == 1, "{}", failed.describe());
    }
    let set = "set-secret setsup WORDS_TOKEN` asks for the value";
    let unset = world.run(&["call", "setsup", "--action", "ask"]).expect(12);
    says(&unset, "KeyError: 'WORDS_TOKEN'");
    says(&unset, set);
    assert!(!unset.stderr.contains("the fault is in the tool"), "{}", unset.describe());
    let told = error_of(&world.run(&["--json", "call", "setsup", "--action", "ask"]).expect(12));
    assert!(told["next_step"].as_str().is_some_and(|step| step.contains(set)), "{told}");
    let listed = world.run(&["list", "--long"]).expect(0);
    assert!(listed.stdout.contains("WORDS_TOKEN (secret): not set"), "{}", listed.describe());
    assert!(listed.stdout.contains("WORDS_URL: not set"), "{}", listed.describe());
    let _ = world.run(&["set-secret", "setsup", "WORDS_TOKEN", "--value", "a-long-value"]).expect(0);
    let _ = world.run(&["call", "setsup", "--action", "ask"]).expect(0);
    let listed = world.run(&["list", "--long"]).expect(0);
    assert!(!listed.stdout.contains("WORDS_TOKEN (secret): not set"), "{}", listed.describe());
    assert_eq!(
        world.json(&["list", "--json"])["capabilities"][0]["not_set"],
        json!([{"name": "WORDS_URL", "secret": false, "required": false}])
    );
    world.assert_nothing_left();
}

#[test]
fn a_configuration_key_that_nobody_gave_is_refused_before_the_call_as_a_wrong_one_is() {
    let world = World::new();
    let path = world.install_python("needs", "Needs", NEEDS_A_KEY);
    let mut manifest: Value =
        serde_json::from_str(&std::fs::read_to_string(&path).expect("read")).expect("JSON");
    manifest["code"]["config_schema"] =
        json!({"type": "object", "properties": {"level": {"type": "integer"}}, "required": ["level"]});
    std::fs::write(&path, manifest.to_string()).expect("write");
    let flow = "name: f\nnodes:\n  a: {capability: needs, action: ask}\n";
    let flow = world.write("flow.yaml", flow).display().to_string();
    for command in [&["call", "needs", "--action", "ask"][..], &["run", &flow]] {
        let refused = world.run(command).expect(1);
        says(&refused, "\"needs\" refused its configuration: wrong configuration (level: missing;");
        says(&refused, "give `level` in it, as in `--config '{\"level\": …}'`");
    }
    let wrong = world.run(&["call", "needs", "--action", "ask", "--config", "{\"level\": \"x\"}"]).expect(1);
    says(&wrong, "refused its configuration: wrong configuration (level: ");
    assert!(!wrong.stderr.contains("give `level`"), "{}", wrong.describe());
    let _ = world.run(&["call", "needs", "--action", "ask", "--config", "{\"level\": 3}"]).expect(0);
    world.assert_nothing_left();
}

#[test]
fn a_secret_and_a_variable_that_are_missing_together_are_each_told_their_own_way() {
    let world = World::new();
    let declared =
        json!([{"name": "A_KEY", "secret": true, "required": true}, {"name": "B_URL", "required": true}]);
    let runtime = json!({"kind": "native", "program": "/bin/true"});
    let code = json!({"name": "key", "version": "1", "runtime": runtime, "worker_env": declared});
    let manifest = world.install("key", &json!({"format_version": "2.0", "code": code}));
    let refused = world.run(&["call", "key"]).expect(10);
    says(&refused, "\"key\" needs A_KEY, B_URL, which are not set");
    let told = error_of(&world.run(&["--json", "call", "key"]).expect(10));
    for step in [refused.stderr.as_str(), told["next_step"].as_str().expect("a step")] {
        let (secret, plain) = step.split_once("; and set ").expect("two ways");
        assert!(secret.contains("set-secret key A_KEY`"), "{step}");
        assert!(
            plain.starts_with(&format!("B_URL in {} (", manifest.display()))
                && plain.contains("worker_env_pass: [B_URL]"),
            "{step}"
        );
        assert!(!plain.contains("A_KEY"), "{step}");
    }
    world.assert_nothing_left();
}

#[test]
fn stored_names_that_reach_no_tool_are_marked_and_an_unknown_capability_is_an_error() {
    let world = World::new();
    let path = world.install_python("setsup", "SetsUp", SETS_UP);
    let mut manifest: Value =
        serde_json::from_str(&std::fs::read_to_string(&path).expect("read")).expect("JSON");
    manifest["code"]["worker_env"] = json!([{"name": "WORDS_TOKEN", "secret": true}]);
    std::fs::write(&path, manifest.to_string()).expect("write");
    let _ = world.run(&["list-secrets", "setsup"]).expect(0);
    for key in ["WORDS_TOKEN", "WORDS_TOKN"] {
        let _ = world.run(&["set-secret", "setsup", key, "--value", "a-long-value"]).expect(0);
    }
    let listed = world.run(&["list-secrets", "setsup"]).expect(0);
    let line =
        |key: &str| listed.stdout.lines().find(|line| line.contains(key)).unwrap_or_default().to_owned();
    assert_eq!(line("- WORDS_TOKEN").trim(), "- WORDS_TOKEN");
    assert!(line("- WORDS_TOKN").contains("not declared"), "{}", listed.describe());
    assert_eq!(world.json(&["list-secrets", "setsup", "--json"])["undeclared"], json!(["WORDS_TOKN"]));
    let unknown = world.run(&["list-secrets", "setsupp"]).expect(1);
    says(&unknown, "there is no capability 'setsupp'");
    says(&unknown, "setsup");
    // What is kept for what is to come is shown.
    let _ = world.run(&["set-secret", "later", "A_KEY", "--value", "a-long-value", "--force"]).expect(0);
    assert!(world.run(&["list-secrets", "later"]).expect(0).stdout.contains("A_KEY"));
}

#[test]
fn a_start_whose_time_is_over_is_told_as_that() {
    let world = World::new();
    world.install_python("kit", "Kit", &format!("import time\ntime.sleep(60)\n{KIT}"));
    let outcome = world.run(&["call", "kit", "--action", "say", "--timeout", "1.5"]).expect(13);
    says(&outcome, "was not ready within 1.5 s; its start was stopped, and the call was not begun");
    says(&outcome, "logs --journal --run");
    assert_eq!(verdict(&world), "ended by the host: not ready within 1.5 s");
    // It did not die, and is shown as what it is.
    let shown = |kind: &str| world.run(&["logs", "--type", kind]).expect(0).stdout;
    assert!(shown("worker_ended").contains("(not ready within 1.5 s)"), "{}", shown("worker_ended"));
    assert!(!shown("worker_died").contains("not ready"), "{}", shown("worker_died"));
    world.assert_nothing_left();
}

#[test]
fn a_tool_that_gives_its_results_one_by_one_is_to_be_called_as_a_stream() {
    let world = World::new();
    world.install_python("kit", "Kit", KIT);
    says(&world.run(&["call", "kit", "--action", "count"]).expect(12), "call it with `--stream`");
    assert_eq!(world.run(&["call", "kit", "--action", "count", "--stream"]).expect(0).stdout, "1\n");
}

#[test]
fn who_follows_a_capability_sees_what_begins_later() {
    let world = World::new();
    world.install_python("kit", "Kit", KIT);
    let say = |word: &str| {
        let word = format!("word={word}");
        let _ = world.run(&["call", "kit", "--action", "say", &word]).expect(0);
    };
    say("first");
    let follower = world.start(&["logs", "--follow", "--capability", "kit"]);
    let until = |word: &str| {
        let words = format!("said {word}");
        eventually(word, LONG, || follower.stdout_so_far().contains(&words).then_some(()));
    };
    until("first");
    say("second");
    until("second");
    follower.signal(Signal::INT);
    let _ = follower.wait(LONG);
}

#[test]
fn where_nothing_was_said_the_journal_is_named() {
    let world = World::new();
    world.install_python("kit", "Kit", KIT);
    install_perl(&world, "blames", BLAMES, &[world.file("done").display().to_string()]);
    let _ = world.run(&["call", "kit", "--action", "say"]).expect(0);
    let failed = error_of(&world.run(&["call", "blames", "--json"]).expect(12));
    let job = failed["job_id"].as_str().expect("a job");
    let of_job = world.run(&["logs", "--job", job]).expect(0);
    says(&of_job, &format!("logs --journal --job {job}"));
    says(&world.run(&["logs", "--capability", "blames"]).expect(0), "logs --journal --capability blames");
    let said = world.run(&["logs", "--capability", "kit"]).expect(0);
    assert!(!said.stderr.contains("note:"), "{}", said.describe());
}

#[test]
fn a_call_that_is_interrupted_names_its_job_and_run() {
    let world = World::new();
    world.install_python("kit", "Kit", KIT);
    let call = world.start(&["call", "kit", "--action", "sleep", "--json"]);
    eventually("a running job", LONG, || {
        let logs = world.run(&["logs"]);
        logs.stdout.contains("sleeps").then_some(())
    });
    call.signal(Signal::INT);
    let error = error_of(&call.wait(LONG).expect(130));
    let job = error["job_id"].as_str().expect("a job");
    assert!(error["run_id"].is_string() && error["code"] == "ctl.interrupted", "{error:#}");
    assert!(
        error["next_step"].as_str().is_some_and(|step| step.contains("logs --journal --job")),
        "{error:#}"
    );
    let rows = world.run(&["logs", "--journal", "--job", job]).expect(0);
    assert!(rows.stdout.contains("cancelled"), "{}", rows.describe());
}

#[test]
fn a_run_says_why_each_node_did_not_complete_in_words_and_in_the_journal() {
    let world = World::new();
    world.install_python("kit", "Kit", KIT);
    let path = world.write(
        "run.yaml",
        "name: r\nfailure: best_effort\nnodes:\n  each: { capability: kit, action: bad, map: [1, 2] }\n  \
         all: { capability: kit, action: say, args: { word: \"${each}\" } }\n",
    );
    let path = path.display().to_string();
    let outcome = world.run(&["run", &path]).expect(16);
    says(&outcome, "all: skipped: ");
    says(&outcome, "logs --journal --run ");
    // Each failure, and which element it was; how many elements there would have been of what never began is not known.
    // Of the two that run side by side either may be the first.
    for failure in ["\neach[0]: ", "\neach[1]: ", "\neach: failed: element [", "\nall: skipped\n"] {
        says(&outcome, failure);
    }
    assert!(!outcome.stderr.contains("0/0"), "{}", outcome.describe());
    let run = outcome.stderr.split("--run ").nth(1).and_then(|rest| rest.split('`').next()).expect("a run");
    let rows = world.run(&["logs", "--journal", "--run", run]).expect(0);
    assert!(rows.stdout.contains("\n    node all: skipped: "), "{}", rows.describe());
    for element in ["node=each[0]]", "node=each[1]]"] {
        assert!(rows.stdout.contains(element), "{}", rows.describe());
    }
    for shown in ["each[0]", "node=each[0]"] {
        let rows = world.run(&["logs", "--run", run, "--node", shown]).expect(0);
        assert!(rows.stdout.contains("node=each[0]]"), "{}", rows.describe());
        assert!(!rows.stdout.contains("node=each[1]]"), "{}", rows.describe());
        assert!(rows.stdout.contains("admission_decided "), "{}", rows.describe());
    }
    says(&world.run(&["logs", "--node", "each[2]"]).expect(1), "nothing is known of it");
    let composition = outcome.stderr.split("composition ").find_map(|rest| rest.split_once(" · run "));
    let (composition, _) = composition.expect("its id is told");
    let rows = world.run(&["logs", "--run", composition]).expect(0);
    assert!(rows.stdout.contains("\n    node all: skipped: "), "{}", rows.describe());
    // As rows call it where the host ended the worker itself.
    let ended = world.run(&["logs", "--type", "worker ended"]).expect(0);
    assert!(ended.stdout.contains("worker ended"), "{}", ended.describe());
    let skipped = world.run(&["logs", "--run", run, "--node", "all"]).expect(1);
    says(&skipped, "it made no call; skipped: ");
    says(&world.run(&["logs", "--run", run, "--node", "nobody"]).expect(1), "nothing is known of it");
}

#[test]
fn what_a_composition_has_wrong_is_told_once_with_the_key_to_correct() {
    let world = World::new();
    world.install_python("kit", "Kit", KIT);
    for (node, error, step) in [
        (
            "action: say, map: \"${inputs.words}\"",
            "error: composition \"r\" failed: node `a`: `map: ",
            "next: at node `a`: let `map` refer to a list",
        ),
        (
            "action: sya",
            "failed: node a: \"kit\" failed: unknown action",
            "next: correct `nodes.a.action` in",
        ),
        ("action: say, args: {wrod: x}", "has no parameter `wrod`", "next: correct `nodes.a.args.wrod` in"),
    ] {
        let text =
            format!("name: r\ninputs: {{words: {{type: any}}}}\nnodes:\n  a: {{capability: kit, {node}}}\n");
        let outcome =
            world.run(&["run", &world.write("r.yaml", text).display().to_string(), "words=x"]).expect(16);
        says(&outcome, error);
        says(&outcome, step);
    }
}

#[test]
fn a_run_that_is_interrupted_tells_what_was_not_begun_and_where_its_story_is() {
    let world = World::new();
    world.install_python("kit", "Kit", KIT);
    // One worker makes one call at a time: of two sleepers one has no call when the run is interrupted.
    let path = world.write(
        "run.yaml",
        "name: r\nnodes:\n  one: { capability: kit, action: sleep }\n  two: { capability: kit, action: sleep }\n  \
         last: { capability: kit, action: say, after: [one] }\n",
    );
    let run = world.start(&["run", &path.display().to_string()]);
    eventually("a running job", LONG, || world.run(&["logs"]).stdout.contains("sleeps").then_some(()));
    run.signal(Signal::INT);
    let outcome = run.wait(LONG).expect(130);
    says(&outcome, "one: cancelled: its call was cancelled");
    says(&outcome, "two: cancelled: it was not begun");
    says(&outcome, "last: cancelled: the run was cancelled before it was begun");
    says(&outcome, "logs --journal --run ");
    let id = outcome.stderr.split("--run ").nth(1).and_then(|rest| rest.split('`').next()).expect("a run");
    let rows = world.run(&["logs", "--journal", "--run", id]).expect(0);
    assert!(rows.stdout.contains("cancelled"), "{}", rows.describe());
}

#[test]
fn whose_fault_an_exit_code_is_the_program_says_and_nobody_else() {
    let world = World::new();
    let script = |text: &str| json!({"go": {"argv": ["-c", text]}});
    world.install_executable(
        "speaks",
        "/bin/sh",
        &script("echo 'x.mp3: Invalid data found when processing input' >&2; exit 1"),
    );
    world.install_executable("silent", "/bin/sh", &script("exit 3"));
    let speaks = world.run(&["call", "speaks"]).expect(12);
    says(&speaks, "ended with exit code 1: x.mp3: Invalid data");
    says(
        &speaks,
        "read the program's last lines: they say whether an argument, the input or the program is at fault",
    );
    let silent = world.run(&["call", "silent"]).expect(12);
    says(&silent, "it wrote no reason: ");
    for outcome in [&speaks, &silent] {
        assert!(!outcome.stderr.contains("the fault is in the tool"), "{}", outcome.describe());
    }
    assert!(!silent.stderr.contains("last lines"), "{}", silent.describe());

    // What is told as a user's mistake that may be tried again is no fault of the tool's for certain.
    world.install_python("kit", "Kit", KIT);
    let error = error_of(&world.run(&["call", "kit", "--action", "mistyped", "--json"]).expect(12));
    assert_eq!((&error["category"], &error["retriable"]), (&json!("user_input"), &json!(true)), "{error:#}");
    let step = error["next_step"].as_str().expect("a next step");
    assert!(
        step.starts_with(
            "look where the traceback ends: the fault is in the tool there, unless the message speaks of"
        ),
        "{step}"
    );
    assert!(!step.contains("other arguments only avoid it"), "{step}");
}

#[test]
fn a_monitor_that_is_not_there_is_refused_and_one_that_does_not_work_is_told() {
    let world = World::new();
    world.install_python("kit", "Kit", KIT);
    install_perl(&world, "broken", "exit 3;", &[]);
    let run = |monitor: &str, arguments: &[&str]| {
        let nodes = "nodes: { one: { capability: kit, action: say } }";
        let path = world.write("run.yaml", format!("name: r\nmonitor: {monitor}\n{nodes}\n"));
        let path = path.display().to_string();
        world.run(&[&["run", path.as_str()], arguments].concat())
    };
    says(&run("nomon", &[]).expect(1), "no capability named \"nomon\"");
    says(&run("broken", &[]).expect(0), "warning: the monitor did not work");
    let told = run("broken", &["--json"]).expect(0).json();
    assert!(told["monitor_fault"].as_str().is_some_and(|fault| fault.contains("broken")), "{told:#}");
    // What is no monitor is refused the call, and the run is as good as without it.
    says(&run("kit", &[]).expect(0), "warning: the monitor did not work, and nothing was measured: ");
    let told = run("kit", &["--json"]).expect(0).json();
    assert!(told["monitor_fault"].as_str().is_some_and(|fault| fault.contains("watch")), "{told:#}");
    assert_eq!(told["outcome"], "completed", "{told:#}");
    let rows = journal::rows(&world.journal());
    let faults = rows.iter().filter(|row| row.payload["monitor_fault"].is_string()).count();
    assert_eq!(faults, 4, "{}", journal::tell(&rows));
}

#[test]
fn a_result_that_cannot_be_written_is_printed_and_no_file_of_the_users_is_lost() {
    let world = World::new();
    let action =
        json!({"argv": ["-c", "printf made > \"$1\"", "sh", "{out}"], "outputs": {"out": "out.txt"}});
    world.install_executable("maker", "sh", &json!({"make": action}));
    let folder = world.file("o");
    let call = |arguments: &[&str]| {
        let folder = folder.display().to_string();
        world.run(&[&["call", "maker", "-o", folder.as_str()], arguments].concat())
    };
    let _ = call(&[]).expect(0);
    let _ = call(&[]).expect(0);
    std::fs::write(folder.join("out.txt"), "mine").expect("written");
    let refused = call(&[]).expect(1);
    says(&refused, "is not overwritten");
    assert!(refused.stdout.contains("out.txt"), "{}", refused.describe());
    let told = call(&["--json"]).expect(1).json();
    assert_eq!(
        (&told["status"], &told["error"]["code"]),
        (&json!("completed"), &json!("ctl.output")),
        "{told:#}"
    );
    assert_eq!(std::fs::read_to_string(folder.join("out.txt")).expect("there"), "mine");
    // What a result names in another way is told to be left where it is.
    let script = r#"printf '{{"page": "/etc/hostname", "text": "/nowhere"}}'"#;
    world.install_executable(
        "namer",
        "sh",
        &json!({"go": {"argv": ["-c", script], "result": "stdout_json"}}),
    );
    let named = world.run(&["call", "namer", "-o", &world.file("named").display().to_string()]).expect(0);
    says(&named, "warning: /etc/hostname was not copied: a result tells a file as an object with its `path`");
    let jobs =
        || journal::rows(&world.journal()).iter().filter(|row| row.event_type == "worker_spawned").count();
    let before = jobs();
    std::fs::remove_file(folder.join("result.json")).expect("removed");
    std::fs::create_dir(folder.join("result.json")).expect("a folder");
    says(&call(&[]).expect(1), "is no plain file");
    assert_eq!(jobs(), before, "the tool was not started");
}

/// Whatever its file is called.
#[test]
fn a_broken_manifest_is_told_by_the_name_that_it_says() {
    let world = World::new();
    let folder = world.data_dir().join("manifests");
    std::fs::create_dir_all(&folder).expect("a folder");
    let broken =
        json!({"format_version": "2.0", "install": {}, "code": {"name": "word-count", "version": 1}});
    std::fs::write(folder.join("mine.json"), broken.to_string()).expect("written");
    for arguments in [
        &["call", "word-count"][..],
        &["set-secret", "word-count", "KEY", "--value", "x"],
        &["list-secrets", "word-count"],
    ] {
        let refused = world.run(arguments).expect(cjm_wire::describe::exit::DOMAIN);
        let told = refused.stderr.contains("mine.json of \"word-count\" cannot be used: ");
        assert!(told && refused.stderr.contains(" validate "), "{}", refused.describe());
    }
}
