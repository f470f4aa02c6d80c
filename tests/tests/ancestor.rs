//! The genuine ancestor reads our journal: its own `cjm-ctl logs`, two releases of it, on a copy of the database and
//! on the live one.

use cjm_tests::ancestor::{Ancestor, VERSIONS};
use cjm_tests::journal;
use cjm_tests::world::{World, write_script};
use serde_json::json;
use std::path::Path;

/// Text of event types that every run writes.
const EVENT_TYPES: [&str; 5] =
    ["worker_spawned", "worker_ready", "admission_decided", "state_transition", "worker_died"];

#[test]
fn the_ancestor_reads_the_same_journal() {
    for version in VERSIONS {
        let world = World::new();
        let Some(ancestor) = Ancestor::find(&world, "the_ancestor_reads_the_same_journal", version) else {
            continue;
        };
        play(&world);
        let ours = journal::rows(&world.journal());
        assert!(ours.len() >= 10, "{}", journal::tell(&ours));

        let copy = world.file("copy");
        std::fs::create_dir_all(&copy).expect("a folder");
        for name in ["journal.db", "diagnostics.db"] {
            for suffix in ["", "-wal", "-shm"] {
                let from = world.data_dir().join(format!("{name}{suffix}"));
                if from.exists() {
                    std::fs::copy(&from, copy.join(format!("{name}{suffix}"))).expect("a copy");
                }
            }
        }
        for folder in [copy, world.data_dir()] {
            check(&ancestor, &folder, &ours);
        }
        // It opens the database for writing: what it read must still be ours.
        journal::assert_nothing_lost(&ours, &journal::rows(&world.journal()));
        journal::assert_every_job_ended_once(&world.journal());
        let again = world.json(&["call", "echo", "text=after", "--json"]);
        assert!(
            again.to_string().contains("after"),
            "our host works on what the ancestor has opened: {again}"
        );
    }
}

fn check(ancestor: &Ancestor, folder: &Path, ours: &[journal::Row]) {
    let name = format!("{} on {}", ancestor.version, folder.display());
    let output = ancestor.ctl(folder, &["logs", "--journal", "-n", "0"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{name}: {text}\n{}", String::from_utf8_lossy(&output.stderr));
    let lines = text.lines().filter(|line| starts_with_date(line)).count();
    assert_eq!(lines, ours.len(), "{name} lists as many events as there are\n{text}");
    for kind in EVENT_TYPES {
        let held = ours.iter().filter(|row| row.event_type == kind).count();
        let listed = text.lines().filter(|line| starts_with_date(line) && line.contains(kind)).count();
        assert!(held > 0 && listed >= held, "{name}: {kind}: {held} held, {listed} listed\n{text}");
    }
    let job = ours.iter().find_map(|row| row.job_id.clone()).expect("a job");
    let output = ancestor.ctl(folder, &["logs", "--journal", "-n", "0", "--job", &job]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let of_job = ours.iter().filter(|row| row.job_id.as_ref() == Some(&job)).count();
    assert_eq!(text.lines().filter(|line| starts_with_date(line)).count(), of_job, "{name}: --job\n{text}");

    for arguments in [&["logs", "-n", "0"][..], &["logs", "--chunks", "-n", "0"]] {
        let output = ancestor.ctl(folder, arguments);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{name}, {arguments:?}: {text}");
        let word = if arguments.len() == 3 { "a record for the ancestor" } else { "a line for the ancestor" };
        assert!(text.contains(word), "{name}, {arguments:?}: {text}");
    }
}

fn starts_with_date(line: &str) -> bool {
    line.len() > 10 && line.as_bytes()[4] == b'-' && line.as_bytes()[..4].iter().all(u8::is_ascii_digit)
}

/// One composition with a Python tool and an executable, one call that fails, one that works.
fn play(world: &World) {
    let tool = "
import logging
from cjm_sdk import Capability, action

class Tool(Capability):
    name = 'tool'
    version = '1.0.0'

    @action
    def go(self, text):
        print('a line for the ancestor', flush=True)
        logging.getLogger('tool').warning('a record for the ancestor')
        self.report_usage({'words': 1})
        if text == 'bad':
            raise ValueError('bad text')
        return text
";
    world.install_python("tool", "Tool", tool);
    let script = world.file("echo.sh");
    write_script(&script, "#!/bin/sh\necho \"$1\"\n");
    let actions = json!({"echo": {
        "parameters": {"text": {"type": "string", "required": true}}, "argv": ["{text}"], "result": "stdout_text",
    }});
    world.install_executable("echo", &script.display().to_string(), &actions);
    let composition = world.write(
        "c.yaml",
        "name: c\ncapabilities: {tool: {instances: 2}}\nnodes:\n  a: {capability: tool, map: [x, y, z], args: {text: '${item}'}}\n  b: {capability: echo, args: {text: '${a[2]}'}}\n",
    );
    let _ = world.json(&["run", &composition.display().to_string(), "--json"]);
    let _ = world.run(&["call", "tool", "text=bad", "--json"]).expect(cjm_wire::describe::exit::TOOL_FAILED);
    world.assert_nothing_left();
}
