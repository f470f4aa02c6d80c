//! `cjm-ctl install-all`: side by side, idempotent, resumed after a failure, and honest about what failed.

use cjm_tests::package::{world_with_uv, write_package};
use cjm_tests::world::{World, manifest};
use cjm_tests::{python, repo};
use cjm_wire::describe::{Described as _, exit};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// An idempotent second run has nothing to do but look.
const UNCHANGED_MAX: Duration = Duration::from_secs(10);

/// The file with the fault.
const BROKEN_MODULE: &str = "tool-three/tool_three/capability.py";

fn results(document: &Value) -> BTreeMap<String, String> {
    let entries = document["entries"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    entries.iter().map(|entry| (text(&entry["name"]), text(&entry["result"]))).collect()
}

fn expected(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, result)| ((*name).to_owned(), (*result).to_owned())).collect()
}

/// When each manifest was last written.
fn manifest_times(world: &World) -> BTreeMap<String, SystemTime> {
    let entries = std::fs::read_dir(world.data_dir().join("manifests")).expect("manifests");
    let time = |entry: std::fs::DirEntry| {
        let modified = entry.metadata().and_then(|meta| meta.modified()).expect("a time");
        (entry.file_name().to_string_lossy().into_owned(), modified)
    };
    entries.flatten().map(time).collect()
}

/// Three packages, of which the third cannot be imported, a program, and the list that names them all.
fn write_list(folder: &Path) {
    for name in ["tool-one", "tool-two", "tool-three"] {
        write_package(folder, name);
    }
    let module = folder.join(BROKEN_MODULE);
    let good = std::fs::read_to_string(&module).expect("written above");
    std::fs::write(&module, format!("import a_module_that_is_not_there\n{good}")).expect("a file");
    let actions = json!({"say": {"argv": ["hello"], "result": "stdout_text"}});
    let runtime = json!({"kind": "executable", "program": "echo", "actions": actions});
    let echo = manifest("echo", &json!({"runtime": runtime}), &json!({}));
    std::fs::write(folder.join("echo.json"), echo.to_string()).expect("a manifest");
    let mut list = "capabilities:\n- name: echo\n  manifest: ./echo.json\n".to_owned();
    for name in ["tool-one", "tool-two", "tool-three"] {
        list.push_str(&format!(
            "- name: {name}\n  package: ./{name}\n  env_name: {name}\n  python_version: \">=3.9\"\n"
        ));
    }
    std::fs::write(folder.join("capabilities.yaml"), list).expect("a list");
}

/// Takes the fault out of the third package.
fn repair(folder: &Path) {
    let module = folder.join(BROKEN_MODULE);
    let text = std::fs::read_to_string(&module).expect("written before");
    std::fs::write(&module, text.replace("import a_module_that_is_not_there\n", "")).expect("a file");
}

#[test]
fn a_failed_entry_is_resumed_and_a_second_run_changes_nothing() {
    let Some(world) = world_with_uv("a_failed_entry_is_resumed_and_a_second_run_changes_nothing") else {
        return;
    };
    let folder = world.file("packages");
    write_list(&folder);
    let file = folder.join("capabilities.yaml").display().to_string();
    let install = ["install-all", "--capabilities", &file, "--json"];

    let first = world.run(&install).expect(exit::DOMAIN);
    let document = first.json();
    assert_eq!(
        results(&document),
        expected(&[
            ("echo", "installed"),
            ("tool-one", "installed"),
            ("tool-two", "installed"),
            ("tool-three", "failed")
        ]),
        "{}",
        first.describe()
    );
    let failed = document["entries"]
        .as_array()
        .expect("entries")
        .iter()
        .find(|e| e["result"] == "failed")
        .expect("one");
    assert!(failed["error"].to_string().contains("a_module_that_is_not_there"), "{failed:#}");
    assert!(failed["error"]["next_step"].as_str().is_some_and(|text| text.len() > 5), "{failed:#}");
    let plain = world.run(&install[..3]).expect(exit::DOMAIN);
    assert!(plain.stderr.contains("1 of 4 entries failed"), "{}", plain.describe());
    // What was installed works while another entry is broken.
    for (name, answer) in [("echo", "hello"), ("tool-one", "I am tool-one"), ("tool-two", "I am tool-two")] {
        assert!(world.run(&["call", name]).expect(exit::OK).stdout.contains(answer), "{name}");
    }
    // What a method's annotations say decides how an argument is read.
    let text = world.run(&["call", "tool-one", "begin=42"]).expect(exit::OK);
    assert!(text.stdout.contains("42 tool-one"), "{}", text.describe());
    let listed = world.run(&["list", "--long"]).expect(exit::OK);
    assert!(listed.stdout.contains("- who [begin=STRING]"), "{}", listed.describe());

    repair(&folder);
    let second = world.run(&install).expect(exit::OK);
    let unchanged = [("echo", "unchanged"), ("tool-one", "unchanged"), ("tool-two", "unchanged")];
    assert_eq!(
        results(&second.json()),
        expected(&[&unchanged[..], &[("tool-three", "installed")]].concat()),
        "{}",
        second.describe()
    );
    assert!(world.run(&["call", "tool-three"]).expect(exit::OK).stdout.contains("I am tool-three"));

    let before = manifest_times(&world);
    let third = world.run(&install).expect(exit::OK);
    assert_eq!(results(&third.json()), expected(&[&unchanged[..], &[("tool-three", "unchanged")]].concat()));
    assert_eq!(manifest_times(&world), before, "an idempotent run writes nothing");
    assert!(third.elapsed < UNCHANGED_MAX, "{}", third.describe());

    // A manifest names the exact environment it was introspected in.
    let text = std::fs::read_to_string(world.data_dir().join("manifests/tool-one.json")).expect("a manifest");
    let written: Value = serde_json::from_str(&text).expect("JSON");
    let interpreter = written["install"]["python_path"].as_str().expect("a path");
    assert!(interpreter.starts_with(&world.data_dir().display().to_string()), "{interpreter}");
    assert!(python::version_of(Path::new(interpreter)).is_some(), "{interpreter} runs");
    world.assert_nothing_left();
}

#[test]
fn a_list_that_cannot_be_read_installs_nothing_and_says_where() {
    let world = World::new();
    let file =
        world.write("capabilities.yaml", "capabilities:\n- name: a\n  package: [1,\n").display().to_string();
    let outcome = world.run(&["install-all", "--capabilities", &file, "--json"]).expect(exit::DOMAIN);
    assert_eq!(outcome.json()["error"]["code"], "install.capabilities_invalid", "{}", outcome.describe());
    let outcome =
        world.run(&["install-all", "--capabilities", "nowhere.yaml", "--json"]).expect(exit::DOMAIN);
    assert!(
        outcome.json()["error"]["next_step"].as_str().is_some_and(|text| !text.is_empty()),
        "{}",
        outcome.describe()
    );
}

#[test]
fn what_lies_about_in_the_callers_folder_and_environment_breaks_no_installation() {
    let Some(mut world) =
        world_with_uv("what_lies_about_in_the_callers_folder_and_environment_breaks_no_installation")
    else {
        return;
    };
    let packages = world.file("packages");
    write_package(&packages, "tool-one");
    let list = packages.join("capabilities.yaml");
    let entry = "capabilities: [{name: tool-one, package: ./tool-one, env_name: tool-one, python_version: \">=3.9\"}]\n";
    std::fs::write(&list, entry).expect("a list");
    let (ran, junk) = (world.file("ran"), world.file("junk"));
    std::fs::create_dir_all(&junk).expect("a folder");
    let stray =
        format!("open({:?}, 'a').write(__name__)\nraise RuntimeError('a stray module')\n", ran.display());
    for module in ["json", "ast", "inspect", "zipfile"] {
        world.write(&format!("{module}.py"), &stray);
        std::fs::write(junk.join(format!("{module}.py")), &stray).expect("a module");
    }
    world.write("pyproject.toml", "[tool.uv]\nrequired-version = '>=999'\n");
    world.write("uv.toml", "required-version = '>=999'\n");
    let nowhere = world.file("nowhere").display().to_string();
    for name in ["VIRTUAL_ENV", "CONDA_PREFIX", "UV_PROJECT_ENVIRONMENT", "PIP_TARGET", "UV_TARGET"] {
        world.set(name, nowhere.clone());
    }
    for (name, value) in
        [("UV_SYSTEM_PYTHON", "1"), ("PIP_REQUIRE_VIRTUALENV", "1"), ("UV_EXCLUDE_NEWER", "2001-01-01")]
    {
        world.set(name, value);
    }
    world.set("PYTHONPATH", junk.display().to_string());
    world.set("PYTHONSTARTUP", junk.join("json.py").display().to_string());
    let document = world.json(&["install-all", "--capabilities", &list.display().to_string(), "--json"]);
    assert_eq!(results(&document), expected(&[("tool-one", "installed")]), "{document:#}");
    assert!(!ran.exists(), "ran: {:?}", std::fs::read_to_string(&ran));
}

#[test]
fn an_environment_that_a_running_host_uses_is_left_alone_unless_the_user_says_so() {
    let Some(world) =
        world_with_uv("an_environment_that_a_running_host_uses_is_left_alone_unless_the_user_says_so")
    else {
        return;
    };
    write_package(&world.file(""), "tool-one");
    let module = world.file("tool-one/tool_one/capability.py");
    let source = std::fs::read_to_string(&module).expect("written above");
    let waits = "\n    @action\n    def wait(self):\n        import time\n        print('waiting', flush=True)\n        time.sleep(600)\n";
    std::fs::write(&module, format!("{source}{waits}")).expect("a module");
    world.write(
        "capabilities.yaml",
        "capabilities: [{name: tool-one, package: ./tool-one, env_name: tool-one, python_version: \">=3.9\"}]\n",
    );
    let _ = world.run(&["install-all"]).expect(0);
    let running = world.start(&["call", "tool-one", "--action", "wait"]);
    cjm_tests::world::eventually("the call runs", Duration::from_secs(30), || {
        world.run(&["logs", "--chunks"]).stdout.contains("waiting").then_some(())
    });
    // Also where no environment goes: later calls would find nothing.
    let refused = [
        &["remove", "tool-one", "-y"][..],
        &["remove", "tool-one", "-y", "--keep-env"],
        &["install-all", "--force"],
    ];
    for command in refused {
        let mut with_json = command.to_vec();
        with_json.push("--json");
        let refused = world.run(&with_json);
        let text = refused.stdout.clone();
        assert_ne!(refused.code, Some(0), "{}", refused.describe());
        assert!(text.contains("install.host_runs") && text.contains("pid "), "{}", refused.describe());
        assert!(text.contains("--while-running"), "{}", refused.describe());
    }
    let python = world.data_dir().join("envs/tool-one/bin/python");
    assert!(python.exists(), "it is still there");
    let _ = world.run(&["remove", "tool-one", "-y", "--while-running"]).expect(0);
    assert!(!python.exists());
    running.signal(cjm_platform::process::Signal::INT);
    let _ = running.wait(cjm_tests::world::COMMAND_MAX);
    world.assert_nothing_left();
}

#[test]
fn an_entry_that_breaks_a_rule_fails_alone() {
    let world = World::new();
    let tool = |name: &str| {
        let actions = json!({"say": {"argv": ["-c", "echo hi"], "result": "stdout_text"}});
        let runtime = json!({"kind": "executable", "program": "sh", "actions": actions});
        let text = manifest(name, &json!({"runtime": runtime}), &json!({})).to_string();
        world.write(&format!("{name}.json"), text);
    };
    tool("one");
    tool("two");
    let list = world.write(
        "capabilities.yaml",
        "capabilities:\n- {name: one, manifest: one.json}\n- {name: g, package: ./g, env_name: g}\n- {manifest: two.json, \
         name: ''}\n- {name: two, manifest: two.json}\n- {name: two, manifest: one.json}\n",
    );
    let list = list.display().to_string();
    let install = ["install-all", "--capabilities", &list];
    let outcome = world.run(&install).expect(exit::DOMAIN);
    assert!(outcome.stderr.contains("correct entry \"g\": write `python_version:"), "{}", outcome.describe());
    assert!(
        outcome.stderr.contains("3 of 5 entries failed; the others are installed"),
        "{}",
        outcome.describe()
    );
    for name in ["one", "two"] {
        assert_eq!(world.run(&["call", name, "--action", "say", "-r"]).expect(exit::OK).stdout, "hi\n");
    }
    let report = world.run(&[&install[..], &["--json"]].concat()).expect(exit::DOMAIN).json();
    let results: Vec<_> =
        report["entries"].as_array().expect("entries").iter().map(|entry| entry["result"].clone()).collect();
    assert_eq!(results, ["unchanged", "failed", "failed", "unchanged", "failed"], "{report}");
}

#[test]
fn an_upgrade_that_fails_leaves_the_tool_as_it_was_and_one_that_succeeds_says_from_what_to_what() {
    let Some(world) = world_with_uv(
        "an_upgrade_that_fails_leaves_the_tool_as_it_was_and_one_that_succeeds_says_from_what_to_what",
    ) else {
        return;
    };
    write_package(&world.file(""), "tool-one");
    let module = world.file("tool-one/tool_one/capability.py");
    let first = std::fs::read_to_string(&module).expect("written above");
    let second = first.replace("version = \"1.0.0\"", "version = \"2.0.0\"").replace("I am", "I became");
    world.write(
        "capabilities.yaml",
        "capabilities: [{name: tool-one, package: ./tool-one, env_name: tool-one, python_version: \">=3.9\"}]\n",
    );
    let fresh = &world.json(&["install-all", "--json"])["entries"][0];
    assert_eq!((&fresh["version"], &fresh["version_before"]), (&json!("1.0.0"), &Value::Null), "{fresh}");
    let environments = || {
        let names = std::fs::read_dir(world.data_dir().join("envs")).expect("environments").flatten();
        names.map(|entry| entry.file_name()).collect::<Vec<_>>()
    };

    std::fs::write(&module, format!("import a_module_that_is_not_there\n{second}")).expect("a module");
    let [folder, aside] = ["tool-one", "aside"].map(|name| world.file(name));
    for (arguments, is_folder_there) in [
        (&["install-all", "--json"][..], true),
        (&["install-all", "--force", "--json"], true),
        (&["install-all", "--json"], false),
    ] {
        if !is_folder_there {
            std::fs::rename(&folder, &aside).expect("moved");
        }
        let failed = world.run(arguments).expect(exit::DOMAIN);
        let entry = &failed.json()["entries"][0];
        assert_eq!(entry["version"], "1.0.0", "{entry}");
        let warnings = entry["warnings"].to_string();
        assert!(warnings.contains("tool-one 1.0.0 stays installed as it was"), "{warnings}");
        assert!(world.run(&["list"]).expect(exit::OK).stdout.contains("tool-one v1.0.0"));
        let called = world.run(&["call", "tool-one"]).expect(exit::OK);
        assert!(called.stdout.contains("I am tool-one"), "{}", called.describe());
        assert_eq!(environments(), ["tool-one"], "no copy is left");
    }
    std::fs::rename(&aside, &folder).expect("moved back");
    // What is put back is what it was installed from: taking the fault back needs no installation.
    std::fs::write(&module, &first).expect("a module");
    assert_eq!(world.json(&["install-all", "--json"])["entries"][0]["result"], "unchanged");

    std::fs::write(&module, &second).expect("a module");
    let upgraded = world.run(&["install-all"]).expect(exit::OK);
    assert!(upgraded.stdout.contains("1.0.0 → 2.0.0"), "{}", upgraded.describe());
    assert!(world.run(&["call", "tool-one"]).expect(exit::OK).stdout.contains("I became tool-one"));
    assert_eq!(environments(), ["tool-one"], "no copy is left");
    let rows = world.run(&["logs", "--journal", "--json"]).expect(exit::OK);
    assert!(rows.stdout.contains(r#""version":"2.0.0","version_before":"1.0.0""#), "{}", rows.describe());
    world.assert_nothing_left();
}

/// A package whose module, while `wait` is there, says in `begun` that it is imported and goes on when `wait` is gone: an
/// installation that introspects it stands still there.
fn write_gated_package(world: &World) -> Gate {
    write_package(&world.file(""), "tool-one");
    let module = world.file("tool-one/tool_one/capability.py");
    let gate = Gate { wait: world.file("wait"), begun: world.file("begun") };
    let (wait, begun) = (gate.wait.display(), gate.begun.display());
    let stands = format!(
        "import os, time\nif os.path.exists({:?}):\n    open({:?}, 'w').close()\nwhile os.path.exists({:?}):\n    \
         time.sleep(0.01)\n",
        wait.to_string(),
        begun.to_string(),
        wait.to_string()
    );
    let source = std::fs::read_to_string(&module).expect("written above");
    std::fs::write(&module, stands + &source).expect("a module");
    let entry = |name: &str, tool: &str| {
        format!("- {{name: {name}, package: ./{tool}, env_name: {tool}, python_version: \">=3.9\"}}\n")
    };
    write_package(&world.file(""), "tool-two");
    let list = format!("capabilities:\n{}{}", entry("tool-one", "tool-one"), entry("second", "tool-two"));
    world.write("capabilities.yaml", list);
    gate
}

struct Gate {
    wait: std::path::PathBuf,
    begun: std::path::PathBuf,
}

impl Gate {
    /// An installation that stands still at the gate.
    fn stop_at(&self, world: &World, arguments: &[&str]) -> cjm_tests::world::Running {
        std::fs::write(&self.wait, "").expect("a file");
        let _ = std::fs::remove_file(&self.begun);
        let running = world.start(arguments);
        cjm_tests::world::eventually("the module is imported", cjm_tests::world::COMMAND_MAX, || {
            assert!(!running.has_ended(), "{}", running.stderr_so_far());
            self.begun.exists().then_some(())
        });
        running
    }

    /// Kills it. What it had started has the lock until it ends, which it does when the gate opens.
    fn kill(&self, world: &World, running: cjm_tests::world::Running) {
        let pid = running.pid();
        running.signal(cjm_platform::process::Signal::KILL);
        assert_eq!(running.wait(cjm_tests::world::COMMAND_MAX).signal, Some(9));
        let left = format!("what process {pid}, which was killed, had started");
        check_refused(world, 15, "installation.at_work", &left);
        let installation = world.json(&["status", "--json"])["installation"].clone();
        assert_eq!(
            (&installation["pid"], &installation["was_killed"]),
            (&Value::Null, &true.into()),
            "{installation}"
        );
        let status = world.run(&["status"]).expect(exit::OK);
        assert!(status.stdout.contains(&left), "{}", status.describe());
        assert!(status.stderr.contains("`kill "), "{}", status.describe());
        assert!(
            installation["helper_pids"].as_array().is_some_and(|pids| !pids.is_empty()),
            "{installation}"
        );
        // What it says to do ends the helpers that live now, and the gate stays shut.
        let refused = world.run(&["install-all"]).expect(exit::DIRECTORY_IN_USE);
        let kill = refused.stderr.split('`').find(|step| step.starts_with("kill ")).expect("how to end them");
        let _ = std::process::Command::new("/bin/sh").args(["-c", kill]).status().expect("a shell");
        let lock = world.data_dir().join("install.lock");
        cjm_tests::world::eventually("its helper ends", cjm_tests::world::COMMAND_MAX, || {
            cjm_platform::lock::held_by(&lock).expect("asked").is_none().then_some(())
        });
        std::fs::remove_file(&self.wait).expect("the gate opens");
    }
}

/// A call of the tool ends so, and `list` tells the same.
#[track_caller]
fn check_refused(world: &World, code: u8, error_code: &str, words: &str) {
    let called = world.run(&["call", "tool-one", "--json"]).expect(code);
    let error = &called.json()["error"];
    assert_eq!(error["code"], error_code, "{}", called.describe());
    assert_eq!(error["retriable"], error_code == "installation.at_work", "{error}");
    assert!(error["message"].as_str().is_some_and(|message| message.contains(words)), "{error}");
    let listed = world.run(&["list"]).expect(exit::OK);
    assert!(listed.stderr.contains(words), "{}", listed.describe());
}

/// Every command that an installation keeps away says who it is, since when it works and on what, and that it is worth
/// another try; `status` says it too.
#[track_caller]
fn check_named(world: &World, pid: i32) {
    let who = format!("process {pid} (install-all of tool-one, since 20");
    for command in
        [&["install-all"][..], &["remove", "tool-two", "--yes"], &["regenerate-manifest", "tool-two"]]
    {
        let refused = world.run(&[command, &["--json"]].concat()).expect(exit::DIRECTORY_IN_USE);
        let error = &refused.json()["error"];
        assert_eq!(
            (&error["code"], &error["retriable"]),
            (&"install.in_use".into(), &true.into()),
            "{error}"
        );
        assert!(error["message"].as_str().is_some_and(|message| message.contains(&who)), "{error}");
        assert!(error["next_step"].as_str().is_some_and(|step| step.contains(" status`")), "{error}");
    }
    let status = world.run(&["status"]).expect(exit::OK);
    assert!(status.stdout.contains(&who), "{}", status.describe());
    let installation = &world.json(&["status", "--json"])["installation"];
    assert_eq!(installation["environments"], json!(["tool-one"]), "tool-two is whole: {installation}");
    assert_eq!((&installation["pid"], &installation["command"]), (&pid.into(), &"install-all".into()));
}

#[test]
fn what_was_broken_off_is_no_tool_that_another_installation_works_on() {
    const NAME: &str = "what_was_broken_off_is_no_tool_that_another_installation_works_on";
    let Some(world) = world_with_uv(NAME) else { return };
    let gate = write_gated_package(&world);
    let running = gate.stop_at(&world, &["install-all"]);
    gate.kill(&world, running);
    let list = "capabilities:\n- {name: tool-three, package: ./tool-three, env_name: tool-three, python_version: \">=3.9\"}\n";
    let other = world.write("other.yaml", list).display().to_string();
    write_package(&world.file(""), "tool-three");
    let source = world.file("tool-three/tool_three/capability.py");
    let text = std::fs::read_to_string(world.file("tool-one/tool_one/capability.py")).expect("written above");
    std::fs::write(source, text.replace("tool-one", "tool-three")).expect("a module");
    let running = gate.stop_at(&world, &["install-all", "--capabilities", &other]);
    check_refused(&world, 10, "installation.broken_off", "failed or was broken off");
    std::fs::remove_file(&gate.wait).expect("the gate opens");
    let _ = running.wait(cjm_tests::world::COMMAND_MAX).expect(exit::OK);
    world.assert_nothing_left();
}

#[test]
fn a_tool_that_is_put_in_again_says_so_and_one_whose_installation_was_killed_says_that() {
    const NAME: &str = "a_tool_that_is_put_in_again_says_so_and_one_whose_installation_was_killed_says_that";
    let Some(world) = world_with_uv(NAME) else { return };
    let gate = write_gated_package(&world);
    let _ = world.run(&["install-all"]).expect(exit::OK);
    let source = world.file("tool-one/tool_one/capability.py");
    let text = std::fs::read_to_string(&source).expect("written above");
    std::fs::write(&source, text.replace("I am", "I became")).expect("a module");

    let running = gate.stop_at(&world, &["install-all"]);
    let at_work = format!("\"tool-one\" is being installed by process {}", running.pid());
    check_refused(&world, 15, "installation.at_work", &at_work);
    // Whoever works on one tool is in no other's way.
    let other = world.run(&["call", "tool-two"]).expect(exit::OK);
    assert!(other.stdout.contains("I am tool-two"), "{}", other.describe());
    check_named(&world, running.pid().as_raw());
    gate.kill(&world, running);
    check_refused(&world, 10, "installation.broken_off", "the installation of \"tool-one\" was broken off");
    let document = world.json(&["list", "--json"]);
    let unfinished = |name: &str| {
        let all = document["capabilities"].as_array().expect("a list").iter();
        let of = all.into_iter().find(|one| one["name"] == name).expect("it is there");
        of["environment"]["unfinished"]["code"].clone()
    };
    assert_eq!(unfinished("tool-one"), "installation.broken_off", "{document:#}");
    assert_eq!(unfinished("tool-two"), Value::Null, "{document:#}");
    let status = world.run(&["status"]).expect(exit::OK);
    assert!(
        status.stdout.contains("the installation of \"tool-one\" was broken off (")
            && status.stdout.contains("/envs/tool-one)\n")
            && status.stderr.contains("puts back what was there before"),
        "{}",
        status.describe()
    );
    let left = world.json(&["status", "--json"])["unfinished_installations"].clone();
    assert_eq!(left.as_array().map(Vec::len), Some(1), "{left:#}");
    assert_eq!((&left[0]["environment"], &left[0]["capability"]), (&"tool-one".into(), &"tool-one".into()));

    let _ = world.run(&["install-all"]).expect(exit::OK);
    let called = world.run(&["call", "tool-one"]).expect(exit::OK);
    assert!(called.stdout.contains("I became tool-one"), "{}", called.describe());
    assert!(world.run(&["list"]).expect(exit::OK).stderr.is_empty());
    // What is in the folder by now is not what is installed.
    let again = world.run(&["regenerate-manifest", "tool-one"]).expect(exit::OK);
    assert!(again.stderr.contains("takes over what has changed in the folder since"), "{}", again.describe());
    let refused = world.run(&["regenerate-manifest", "tool-one", "--package", "."]).expect(exit::USAGE);
    assert!(refused.stderr.contains("the name of an installed package"), "{}", refused.describe());
    world.assert_nothing_left();
}

#[test]
fn a_first_installation_is_told_while_it_is_at_work_and_when_it_was_killed() {
    let Some(world) =
        world_with_uv("a_first_installation_is_told_while_it_is_at_work_and_when_it_was_killed")
    else {
        return;
    };
    let gate = write_gated_package(&world);
    let running = gate.stop_at(&world, &["install-all"]);
    check_refused(&world, 15, "installation.at_work", &format!("process {}", running.pid()));
    // What is done is waited for no more, whatever its entry is called.
    cjm_tests::world::eventually("the other one is there", std::time::Duration::from_secs(60), || {
        let installation = world.json(&["status", "--json"])["installation"].clone();
        (installation["environments"] == serde_json::json!(["tool-one"])).then_some(())
    });
    gate.kill(&world, running);
    check_refused(&world, 10, "installation.broken_off", "failed or was broken off");
    let _ = world.run(&["install-all"]).expect(exit::OK);
    let called = world.run(&["call", "tool-one"]).expect(exit::OK);
    assert!(called.stdout.contains("I am tool-one"), "{}", called.describe());
    world.assert_nothing_left();
}

/// Whoever looks later, in whatever folder, is told which list it was, and which tool it was to be.
#[test]
fn an_installation_leaves_word_of_its_list_its_entry_and_its_tool() {
    const NAME: &str = "an_installation_leaves_word_of_its_list_its_entry_and_its_tool";
    let Some(world) = world_with_uv(NAME) else { return };
    write_package(&world.file(""), "tool-one");
    let entry = "{name: speech, package: ./tool-one, env_name: its-env, python_version: \">=3.9\"}";
    let list = world.write("tools.yaml", format!("capabilities: [{entry}]\n")).display().to_string();
    let manifest = world.data_dir().join("manifests/tool-one.json");
    std::fs::create_dir_all(manifest.join("in-the-way")).expect("a folder");
    let install = ["install-all", "--capabilities", &list];
    let _ = world.run(&install).expect(exit::DOMAIN);
    std::fs::remove_dir_all(&manifest).expect("removed");
    let refused = world.run(&["call", "tool-one", "--json"]).expect(exit::WORKER_START).json();
    assert_eq!(refused["error"]["code"], "installation.broken_off", "{refused:#}");
    let step = refused["error"]["next_step"].as_str().unwrap_or_default();
    assert!(step.contains(&format!("--capabilities {list}`")), "{step}");
    let unused = world.json(&["list", "--json"])["unused_environments"][0].clone();
    assert_eq!((&unused["entry"], &unused["capability"]), (&"speech".into(), &"tool-one".into()), "{unused}");

    let _ = world.run(&install).expect(exit::OK);
    let tool = world.json(&["list", "--json"])["capabilities"][0].clone();
    assert_eq!((&tool["name"], &tool["capabilities_file"]), (&"tool-one".into(), &list.into()), "{tool}");
    assert!(!world.data_dir().join("envs/.its-env.list").exists(), "the manifest says it from now on");
    world.assert_nothing_left();
}

#[tokio::test]
async fn a_host_that_stays_up_looks_again_before_it_starts_a_worker_anew() {
    const NAME: &str = "a_host_that_stays_up_looks_again_before_it_starts_a_worker_anew";
    let Some(world) = world_with_uv(NAME) else { return };
    let gate = write_gated_package(&world);
    let source = world.file("tool-one/tool_one/capability.py");
    let text = std::fs::read_to_string(&source).expect("written above");
    let dies = "\n    @action\n    def die(self):\n        import os\n        os._exit(3)\n";
    std::fs::write(&source, text + dies).expect("a module");
    let _ = world.run(&["install-all"]).expect(exit::OK);
    let worker = repo::binary("cjm-worker");
    let pipeline = cjm_host::create_pipeline(["tool-one"]).data_dir(world.data_dir()).worker_binary(worker);
    let pipeline = pipeline.start().await.expect("it starts");
    let tool = pipeline.binding("tool-one").expect("it is loaded");
    assert_eq!(tool.call::<String>("who", ()).await.expect("it answers"), "I am tool-one");
    let _ = tool.call::<Value>("die", ()).await.expect_err("it dies");

    let running = gate.stop_at(&world, &["install-all", "--force", "--while-running"]);
    let refused = tool.call::<String>("who", ()).await.expect_err("half of it is there");
    assert_eq!(refused.code(), "installation.at_work", "{refused}");
    std::fs::remove_file(&gate.wait).expect("the gate opens");
    let _ = running.wait(cjm_tests::world::COMMAND_MAX).expect(exit::OK);
    assert_eq!(tool.call::<String>("who", ()).await.expect("it answers again"), "I am tool-one");
    assert!(pipeline.shutdown().await.tree_cleared);
    world.assert_nothing_left();
}
