//! An installation or a removal, and a call of the same tool that begin in one moment: one of them has to go without.

use cjm_tests::package::{world_with_uv, write_package};
use cjm_tests::world::{COMMAND_MAX, World, eventually, manifest, write_script};
use cjm_tests::{journal, python};
use cjm_wire::describe::exit;
use serde_json::json;
use std::path::Path;

/// From now on, a Python that is looked for on the PATH stands still until `go` is there.
fn hold_the_search_for_python(world: &mut World) {
    let [begun, go, real] = ["begun", "go", "bin/python3"].map(|name| world.file(name));
    std::fs::create_dir_all(world.file("bin")).expect("a folder");
    let script = format!(
        "#!/bin/sh\n: > '{}'\nuntil [ -e '{}' ]; do sleep 0.02; done\nexec /usr/bin/python3 \"$@\"\n",
        begun.display(),
        go.display()
    );
    write_script(&real, &script);
    world.offer_first(&world.file("bin"));
}

/// The installation has looked who runs, and found nobody; then a call begins. Its environment stays until it has ended.
#[test]
fn an_environment_stays_that_a_call_has_begun_to_use_while_an_installation_prepared() {
    const NAME: &str = "an_environment_stays_that_a_call_has_begun_to_use_while_an_installation_prepared";
    let Some(mut world) = world_with_uv(NAME) else { return };
    write_package(&world.file(""), "slow");
    let module = world.file("slow/slow/capability.py");
    let source = std::fs::read_to_string(&module).expect("written above");
    let waits = "    @action\n    def wait(self, until: str):\n        import os, time\n        while not os.path.exists(until):\n            time.sleep(0.02)\n        import slow.late\n        return slow.late.WORD\n";
    std::fs::write(&module, format!("{source}\n{waits}")).expect("a module");
    std::fs::write(world.file("slow/slow/late.py"), "WORD = 'as it was'\n").expect("a module");
    let list = "capabilities: [{name: slow, package: ./slow, env_name: slow, python_version: \">=3.9\"}]\n";
    world.write("capabilities.yaml", list);
    let _ = world.run(&["install-all"]).expect(exit::OK);
    std::fs::write(world.file("slow/slow/late.py"), "WORD = 'anew'\n").expect("a module");
    hold_the_search_for_python(&mut world);

    let installing = world.start(&["install-all", "--json"]);
    eventually("it looks for Python", COMMAND_MAX, || world.file("begun").exists().then_some(()));
    let done = world.file("done").display().to_string();
    let calling = world.start(&["call", "slow", "--action", "wait", &format!("until={done}"), "-r"]);
    eventually("the call to run", COMMAND_MAX, || {
        assert!(!calling.has_ended(), "{}", calling.stderr_so_far());
        journal::rows(&world.journal()).into_iter().find(|row| row.payload["to"] == "running")
    });
    world.write("go", "");
    let refused = installing.wait(COMMAND_MAX).expect(exit::DOMAIN).json();
    assert_eq!(refused["entries"][0]["error"]["code"], "install.host_runs", "{refused:#}");
    world.write("done", "");
    assert_eq!(calling.wait(COMMAND_MAX).expect(exit::OK).stdout.trim(), "as it was");

    // Nothing of it was changed; now it is.
    assert!(world.run(&["list"]).expect(exit::OK).stderr.is_empty());
    let wait = ["call", "slow", "--action", "wait", &format!("until={done}"), "-r"];
    assert_eq!(world.run(&wait).expect(exit::OK).stdout.trim(), "as it was");
    let _ = world.run(&["install-all"]).expect(exit::OK);
    assert_eq!(world.run(&wait).expect(exit::OK).stdout.trim(), "anew");
    world.assert_nothing_left();
}

const STAMP: &str = r#"{"request":"r","python_path":"p","python_version":"3","python_file":"f","lock_hash":"l",
    "capability":"tool"}"#;

/// A Python tool `tool` in an environment of this place, as an installation leaves it; once `go` is there it can be loaded.
fn put_in(world: &World, environment: &Path) {
    let [begun, go] = ["begun", "go"].map(|name| world.file(name).display().to_string());
    let source = format!(
        "import os, time\nfrom cjm_sdk import Capability, action\nopen({begun:?}, 'w').close()\n\
         while not os.path.exists({go:?}):\n    time.sleep(0.02)\n\
         class Tool(Capability):\n    name = 'tool'\n    version = '1'\n    @action\n    def say(self):\n        return 'said'\n"
    );
    std::fs::write(world.python_dir().join("tool.py"), source).expect("a module");
    let interpreter = python::interpreter();
    std::fs::create_dir_all(environment.join("bin")).expect("a folder");
    std::os::unix::fs::symlink(&interpreter, environment.join("bin/python")).expect("a link");
    std::fs::write(environment.join("cjm-stamp.json"), STAMP).expect("written");
    let install = json!({
        "python_path": environment.join("bin/python").display().to_string(), "conda_env": "its-env",
        "installer_version": "cjm-ctl 0.1.0", "env_vars": {"PYTHONPATH": world.python_dir().display().to_string()},
    });
    world.install("tool", &manifest("tool", &json!({"module": "tool", "class": "Tool"}), &install));
}

/// The environment is conda's here, since conda can be made to stand still.
#[test]
fn no_call_begins_with_an_environment_that_is_being_removed() {
    let mut world = World::new();
    let home = world.file("conda/envs/its-env");
    put_in(&world, &home);
    world.write("go", "");
    std::fs::create_dir_all(world.data_dir().join("envs")).expect("a folder");
    std::os::unix::fs::symlink(&home, world.data_dir().join("envs/its-env")).expect("a link");
    let called = world.run(&["call", "tool", "--action", "say", "-r"]).expect(exit::OK);
    assert_eq!(called.stdout.trim(), "said", "{}", called.describe());
    let [removing, end] = ["removing", "end"].map(|name| world.file(name));
    std::fs::create_dir_all(world.file("bin")).expect("a folder");
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in\n--version) echo conda 1 ;;\n*list*) echo '{{\"envs\": [\"{home}\"]}}' ;;\n\
         *remove*) : > '{}'; until [ -e '{}' ]; do sleep 0.02; done; rm -rf '{home}' ;;\nesac\n",
        removing.display(),
        end.display(),
        home = home.display()
    );
    write_script(&world.file("bin/conda"), &script);
    world.offer_first(&world.file("bin"));
    let removal = world.start(&["remove", "tool", "-y"]);
    eventually("conda removes it", COMMAND_MAX, || {
        assert!(!removal.has_ended(), "{}", removal.stderr_so_far());
        removing.exists().then_some(())
    });
    let refused =
        world.run(&["call", "tool", "--action", "say", "--json"]).expect(exit::DIRECTORY_IN_USE).json();
    assert_eq!(refused["error"]["code"], "installation.at_work", "{refused:#}");
    let who = format!("\"tool\" is being removed by process {} (remove of its-env", removal.pid());
    let message = refused["error"]["message"].as_str().unwrap_or_default();
    assert!(message.starts_with(&who), "{message}");
    world.write("end", "");
    let _ = removal.wait(COMMAND_MAX).expect(exit::OK);
    assert!(!home.exists());
    world.assert_nothing_left();
}

/// A removal that was over before the worker said its first word has left nothing that would tell of it.
#[test]
fn a_worker_whose_environment_was_removed_while_it_started_is_not_used() {
    let world = World::new();
    let home = world.data_dir().join("envs/its-env");
    put_in(&world, &home);
    let bin = python::interpreter().parent().expect("a folder").display().to_string();
    std::fs::write(home.join("pyvenv.cfg"), format!("home = {bin}\n")).expect("written");
    let calling = world.start(&["call", "tool", "--action", "say", "--json"]);
    eventually("the tool is loaded", COMMAND_MAX, || {
        assert!(!calling.has_ended(), "{}", calling.stderr_so_far());
        world.file("begun").exists().then_some(())
    });
    let _ = world.run(&["remove", "tool", "-y"]).expect(exit::DIRECTORY_IN_USE);
    assert!(home.join("cjm-stamp.json").exists(), "it is as it was");
    let _ = world.run(&["remove", "tool", "-y", "--while-running"]).expect(exit::OK);
    world.write("go", "");
    let refused = calling.wait(COMMAND_MAX).expect(exit::WORKER_START).json();
    assert_eq!(refused["error"]["code"], "worker.interpreter_missing", "{refused:#}");
    world.assert_nothing_left();
}
