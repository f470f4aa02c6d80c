//! A secret that lies across a cut: wherever a tool's side shortens a text, and whichever kind of tool it is, no part of the
//! secret is told, in words, in the journal or in the store of records. And a failure has a maximum.

use cjm_tests::world::{Outcome, World, write_script};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// No part of it stands in a number or a word.
const SECRET: &str = "qzKEYVALUE~wvuTSRqp~PONMlkjIHG";
/// Longest part of it that may stand anywhere: no shorter one is struck out.
const PART: usize = 4;

/// Says its secret over and over, so that it lies across every cut, in as many ways as an SDK shortens a text.
const TELLS: &str = r#"
import logging, os, sys, time
from cjm_sdk import Capability, UserInputError, action

class Told:
    def __init__(self, words):
        self.words = words
    def __repr__(self):
        return self.words

class Tells(Capability):
    name = "tells"
    version = "1.0.0"
    config_schema = {"how": "", "pad": 0, "times": 0}

    def initialize(self, config=None):
        super().initialize(config)
        if (config or {}).get("how") == "initialize":
            raise RuntimeError("x" * config["pad"] + self.many(config["times"]))

    def many(self, times=3000):
        return os.environ["TOK"] * times

    @action
    def place(self, pad=0):
        return {"a": [Told("x" * pad + self.many())]}

    @action
    def key(self, pad=0):
        return {"x" * pad + self.many(): object()}

    @action
    def field(self, pad=0):
        raise UserInputError("bad", fields_invalid=["x" * pad + self.many()] * 300)

    @action
    def message(self, pad=0):
        raise UserInputError("x" * pad + self.many())

    @action
    def trace(self, pad=0):
        raise RuntimeError("bad") from ValueError("x" * pad + self.many())

    @action
    def record(self, pad=0):
        # What a tool writes to look like the first mark hides no other.
        self.log("error", "5 bytes dropped here] " + "x" * pad + self.many(9000))
        return 1

    @action
    def logger(self, pad=0):
        logging.getLogger("x" * pad + self.many()).error("said")
        return 1

    @action
    def progress(self, pad=0):
        self.report_progress(0.5, "x" * pad + self.many())
        return 1

    @action
    def printed(self, pad=0):
        sys.stderr.write("x" * pad + self.many(9000) + "\n")
        sys.stderr.flush()
        raise RuntimeError("printed")

    @action
    def long(self, letter, times):
        raise UserInputError(letter * times, fields_invalid=[letter * times])

    @action
    def fields(self, times):
        raise UserInputError("the tool's own words", fields_invalid=["field%d" % n for n in range(times)])
"#;

/// Cannot be loaded.
const UNLOADED: &str = r#"
import os
raise RuntimeError("x" * int(os.environ["PAD"]) + os.environ["TOK"] * 500)
"#;

/// A program that does likewise.
const PROGRAM: &str = r#"#!/usr/bin/perl
my ($how, $pad) = @ARGV;
my $many = ('x' x $pad) . ($ENV{TOK} x 3000);
if ($how eq 'stdout') { print $many; exit 0 }
if ($how eq 'both') { print $many; exit 3 }
if ($how eq 'lines') { print STDERR "$many\n" for 1..3; exit 3 }
print STDERR "$many\n"; exit 3;
"#;

fn with_secret(world: &World, name: &str, path: &std::path::Path, variables: &Value) {
    let mut manifest: Value =
        serde_json::from_str(&std::fs::read_to_string(path).expect("read")).expect("JSON");
    manifest["code"]["worker_env"] = json!([{"name": "TOK", "secret": true}]);
    let all = manifest.pointer_mut("/install/env_vars").and_then(Value::as_object_mut);
    if let (Some(all), Some(more)) = (all, variables.as_object()) {
        all.extend(more.clone());
    }
    std::fs::write(path, manifest.to_string()).expect("written");
    let _ = world.run(&["set-secret", name, "TOK", "--value", SECRET]).expect(0);
}

/// The first part of the secret that stands there, with what stands around it.
fn part_of_secret(text: &str) -> Option<&str> {
    let parts = (0..=SECRET.len() - PART).map(|at| &SECRET[at..at + PART]);
    let at = parts.filter_map(|part| text.find(part)).min()?;
    let (begin, end) = (at.saturating_sub(80), (at + 80).min(text.len()));
    Some(&text[text.floor_char_boundary(begin)..text.ceil_char_boundary(end)])
}

fn tells_no_part(world: &World, what: &str, outcome: &Outcome) {
    let journal = world.run(&["logs", "--journal", "--json"]).expect(0);
    let records = world.run(&["logs", "--json"]).expect(0);
    for text in [&outcome.stdout, &outcome.stderr, &journal.stdout, &records.stdout] {
        assert_eq!(part_of_secret(text), None, "{what}");
    }
}

#[test]
fn no_part_of_a_secret_is_told_wherever_a_tool_side_cuts_a_text() {
    let world = World::new();
    let tells = world.install_python("tells", "Tells", TELLS);
    with_secret(&world, "tells", &tells, &json!({}));
    let program = world.file("program");
    write_script(&program, PROGRAM);
    let action = |result: &str| {
        json!({"argv": ["{how}", "{pad}"], "result": result,
        "parameters": {"how": {"type": "string"}, "pad": {"type": "integer"}}})
    };
    let actions = json!({"text": action("stdout_text"), "json": action("stdout_json")});
    let path = world.install_executable("program", &program.display().to_string(), &actions);
    with_secret(&world, "program", &path, &json!({}));
    // The first of these lies otherwise across a cut than the second does.
    for pad in [0, 13] {
        let pad_argument = format!("pad={pad}");
        for action in ["place", "key", "field", "message", "trace", "record", "logger", "progress", "printed"]
        {
            let told = world.run(&["call", "tells", "--action", action, &pad_argument, "--json"]);
            tells_no_part(&world, action, &told);
        }
        for (action, how) in [("json", "stdout"), ("text", "lines"), ("text", "both"), ("text", "stderr")] {
            let how_argument = format!("how={how}");
            let told =
                world.run(&["call", "program", "--action", action, &how_argument, &pad_argument, "--json"]);
            tells_no_part(&world, how, &told.expect(12));
        }
        // Less than the longest text of a failure, and more.
        for times in [400, 1000] {
            let config = json!({"how": "initialize", "pad": pad, "times": times}).to_string();
            let told = world.run(&["call", "tells", "--action", "place", "--config", &config, "--json"]);
            tells_no_part(&world, "initialize", &told.expect(12));
        }
        let name = format!("unloaded{pad}");
        let path = world.install_python(&name, "Unloaded", UNLOADED);
        with_secret(&world, &name, &path, &json!({"PAD": pad.to_string()}));
        let told = world.run(&["call", &name, "--action", "go", "--json"]);
        tells_no_part(&world, "load", &told.expect(10));
    }
    world.assert_nothing_left();
}

#[test]
fn a_failure_has_a_maximum_and_keeps_the_words_of_its_tool() {
    let world = World::new();
    let tells = world.install_python("tells", "Tells", TELLS);
    with_secret(&world, "tells", &tells, &json!({}));
    let failed = world.run(&["call", "tells", "--action", "fields", "times=1000000", "--json"]).expect(12);
    let error = failed.json_lines().pop().expect("an end");
    assert!(error.to_string().contains("the tool's own words"), "{error}");
    // What holds nothing but escapes is looked at no longer than other letters.
    let took = |letter: &str| {
        let begun = Instant::now();
        let (letter, times) = (format!("letter={letter}"), "times=3000000");
        let failed = world.run(&["call", "tells", "--action", "long", &letter, times, "--json"]).expect(12);
        assert!(
            failed.stdout.contains(" bytes dropped here]") && failed.stdout.len() < 100_000,
            "{}",
            failed.stdout.len()
        );
        begun.elapsed()
    };
    let (letters, slashes) = (took("b"), took("\\"));
    assert!(slashes < 3 * letters + Duration::from_secs(5), "{slashes:?} and not {letters:?}");
    world.assert_nothing_left();
}
