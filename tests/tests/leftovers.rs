//! What failed, interrupted and removed installations leave behind: `list` tells it, `remove` takes it away, and what is the
//! user's own is named and stays.

use cjm_tests::package::{world_with_uv, write_package};
use cjm_tests::world::{World, manifest, write_script};
use cjm_wire::describe::exit;
use serde_json::{Value, json};
use std::fs;

/// Of an environment that is whole.
const STAMP: &str = r#"{"request": "r", "python_path": "p", "python_version": "3", "python_file": "f", "lock_hash": "l",
    "capability": "tool"}"#;

fn make_folder(world: &World, name: &str) -> std::path::PathBuf {
    let path = world.data_dir().join(name);
    fs::create_dir_all(&path).expect("a folder");
    fs::write(path.join("pyvenv.cfg"), "").expect("a file");
    path
}

fn python_tool(world: &World, name: &str) -> String {
    python_tool_in(world, name, name)
}

fn python_tool_in(world: &World, name: &str, env_name: &str) -> String {
    let python = world.data_dir().join(format!("envs/{env_name}/bin/python")).display().to_string();
    let install = json!({"python_path": python, "conda_env": env_name});
    world.install(name, &manifest(name, &json!({"module": "m", "class": "C"}), &install));
    python
}

/// It may be the only one.
#[test]
fn a_manifest_that_no_installation_made_is_kept_when_its_tool_is_removed() {
    let world = World::new();
    let program = json!({"kind": "executable", "program": "/bin/true", "actions": {"go": {"argv": []}}});
    let code = json!({"runtime": program});
    let path = world.data_dir().join("manifests/tool.json");
    for (source, is_kept) in [("", true), ("/from/elsewhere.json", false)] {
        world.install("tool", &manifest("tool", &code, &json!({"package_source": source})));
        let text = fs::read_to_string(&path).expect("a manifest");
        let removed = world.run(&["remove", "tool", "-y", "--json"]).expect(exit::OK).json();
        let kept = removed["kept"]["manifest"].as_str();
        assert_eq!((kept.is_some(), path.exists()), (is_kept, false), "{removed}");
        if let Some(kept) = kept {
            assert_eq!(fs::read_to_string(kept).expect("kept"), text);
            let listed = world.json(&["list", "--json"]);
            assert_eq!((&listed["capabilities"], &listed["problems"]), (&json!([]), &json!([])), "{listed}");
        }
    }
    fs::write(&path, "{").expect("a file");
    let removed = world.run(&["remove", "tool", "-y"]).expect(exit::OK);
    assert!(
        removed.stdout.contains("Kept: no installation made it of another file, so it is "),
        "{}",
        removed.describe()
    );
}

#[test]
fn an_environment_of_nobody_and_a_broken_manifest_are_told_and_can_be_removed() {
    let world = World::new();
    let python = python_tool(&world, "used");
    make_folder(&world, "envs/used");
    let unused = make_folder(&world, "envs/broken");
    let listed = world.run(&["list"]).expect(exit::OK);
    assert!(
        listed.stderr.contains(&format!("{} belongs to no capability", unused.display())),
        "{}",
        listed.describe()
    );
    assert!(
        listed.stderr.contains("`cjm-ctl --data-dir") || listed.stderr.contains("`cjm-ctl remove broken`"),
        "{}",
        listed.describe()
    );
    assert!(listed.stderr.contains(&format!("its environment is gone ({python})")), "{}", listed.describe());
    let document = world.json(&["list", "--json"]);
    let expected = json!([{"name": "broken", "path": unused.display().to_string(), "exists": true, "entry": null,
        "capability": null, "is_rest": false}]);
    assert_eq!(document["unused_environments"], expected, "{document}");
    // Nobody answers: it stays.
    let _ = world.run(&["remove", "broken"]).expect(exit::DOMAIN);
    assert!(unused.exists());
    let removed = world.run(&["remove", "broken", "-y"]).expect(exit::OK);
    assert!(removed.stdout.contains("Environment 'broken' removed successfully."), "{}", removed.describe());
    assert!(!unused.exists() && world.data_dir().join("envs/used").exists());
    let gone = world.run(&["remove", "broken", "-y"]).expect(exit::DOMAIN);
    assert!(gone.stderr.contains("not found"), "{}", gone.describe());

    let broken = world.data_dir().join("manifests/brk.json");
    fs::write(&broken, "{").expect("a file");
    let refused = world.run(&["regenerate-manifest", "brk"]).expect(exit::DOMAIN);
    assert!(refused.stderr.contains("remove brk` takes it away"), "{}", refused.describe());
    let removed = world.run(&["remove", "brk", "-y"]).expect(exit::OK);
    assert!(removed.stdout.contains("brk.json (broken: "), "{}", removed.describe());
    assert!(!broken.exists());
    // A folder of that name is no manifest, and nobody's to remove.
    fs::create_dir(&broken).expect("a folder");
    let _ = world.run(&["remove", "brk", "-y"]).expect(exit::DOMAIN);
    assert!(broken.exists());
    world.assert_nothing_left();
}

/// A slip of the pen costs no tool: whoever follows the words in their order corrects the file.
#[test]
fn the_environment_of_a_tool_whose_manifest_is_broken_is_not_offered_for_removal() {
    const NAME: &str = "the_environment_of_a_tool_whose_manifest_is_broken_is_not_offered_for_removal";
    let Some(world) = world_with_uv(NAME) else { return };
    write_package(&world.file(""), "tool-one");
    let entry = "{name: tool-one, package: ./tool-one, env_name: its-env, python_version: '>=3.9'}";
    world.write("capabilities.yaml", format!("capabilities: [{entry}]\n"));
    let _ = world.run(&["install-all"]).expect(exit::OK);
    let manifest = world.data_dir().join("manifests/tool-one.json");
    let text = fs::read_to_string(&manifest).expect("a manifest");
    fs::write(&manifest, text.replacen('{', "{,", 1)).expect("written");
    let listed = world.run(&["list"]).expect(exit::OK);
    assert!(listed.stderr.contains("tool-one.json"), "{}", listed.describe());
    assert!(!listed.stderr.contains("belongs to no capability"), "{}", listed.describe());
    assert_eq!(world.json(&["list", "--json"])["unused_environments"], json!([]));
    fs::write(&manifest, text).expect("written");
    let _ = world.run(&["call", "tool-one", "--action", "who"]).expect(exit::OK);
    fs::remove_file(&manifest).expect("removed");
    let listed = world.run(&["list"]).expect(exit::OK);
    assert!(listed.stderr.contains("belongs to no capability"), "{}", listed.describe());
    world.assert_nothing_left();
}

#[test]
fn nothing_is_removed_where_no_manifest_can_be_read_and_a_removal_that_was_killed_is_run_again() {
    let world = World::new();
    python_tool(&world, "tool");
    let environment = make_folder(&world, "envs/tool");
    let (manifests, aside) = (world.data_dir().join("manifests"), world.data_dir().join("aside"));
    fs::rename(&manifests, &aside).expect("moved");
    fs::write(&manifests, "").expect("written");
    let refused = world.run(&["remove", "tool", "-y"]).expect(exit::DOMAIN);
    assert!(refused.stderr.contains("what it says of environments is not known"), "{}", refused.describe());
    assert!(!world.run(&["list"]).stderr.contains("remove tool"), "it is not offered either");
    assert!(environment.is_dir());
    fs::remove_file(&manifests).expect("removed");
    fs::rename(&aside, &manifests).expect("moved");
    // Killed between its first two steps, and what it was about to delete is there.
    fs::rename(&environment, world.data_dir().join("envs/.tool.removed-1")).expect("renamed");
    let _ = world.run(&["remove", "tool", "-y"]).expect(exit::OK);
    let left = fs::read_dir(world.data_dir().join("envs")).expect("a folder").count();
    assert_eq!((left, manifests.join("tool.json").exists()), (0, false));
}

#[test]
fn an_interrupted_upgrade_is_told_by_list() {
    let world = World::new();
    let python = python_tool(&world, "used");
    make_folder(&world, "envs/used");
    let bin = make_folder(&world, "envs/used/bin");
    write_script(python.as_ref(), "#!/bin/sh\n");
    assert!(bin.exists() && world.run(&["list"]).expect(exit::OK).stderr.is_empty());
    make_folder(&world, "envs/.used.former");
    let listed = world.run(&["list"]).expect(exit::OK);
    assert!(listed.stderr.contains("the installation of \"used\" was broken off"), "{}", listed.describe());
    assert!(listed.stderr.contains("install-all` puts back"), "{}", listed.describe());
    // A manifest of what is half there would stay where the upgrade is put back.
    let refused = world.run(&["regenerate-manifest", "used"]).expect(exit::WORKER_START);
    assert!(refused.stderr.contains("the installation of \"used\" was broken off"), "{}", refused.describe());
    // Removing it takes the copy too.
    let _ = world.run(&["remove", "used", "-y"]).expect(exit::OK);
    assert_eq!(fs::read_dir(world.data_dir().join("envs")).expect("there").count(), 0);
}

/// Removing the capability of that name would take a tool away that works.
#[test]
fn an_environment_that_has_the_name_of_a_tool_elsewhere_is_not_removed_by_that_name() {
    let world = World::new();
    python_tool_in(&world, "moved", "its-env");
    let left = make_folder(&world, "envs/moved");
    let listed = world.run(&["list"]).expect(exit::OK);
    assert!(
        listed.stderr.contains(&format!("`rm -r {}` takes it away", left.display())),
        "{}",
        listed.describe()
    );
    assert!(!listed.stderr.contains("goes on with it"), "{}", listed.describe());
}

/// Where an environment of that name lives, the rest goes and nothing else.
#[test]
fn a_rest_beside_a_living_environment_of_its_name_is_removed_by_that_name() {
    let world = World::new();
    python_tool_in(&world, "tool", "its-env");
    let living = make_folder(&world, "envs/its-env").join("cjm-stamp.json");
    fs::write(&living, STAMP).expect("a file");
    let copy = make_folder(&world, "envs/.its-env.former");
    let rest = make_folder(&world, "envs/.its-env.removed-1");
    let listed = world.run(&["list"]).expect(exit::OK);
    assert!(listed.stderr.contains("remove its-env` takes it away"), "{}", listed.describe());
    let document = world.json(&["list", "--json"]);
    let expected = json!([{"name": "its-env", "path": rest.display().to_string(), "exists": true, "entry": null,
        "capability": null, "is_rest": true}]);
    assert_eq!(document["unused_environments"], expected, "{document}");
    let removed = world.run(&["remove", "its-env", "-y"]).expect(exit::OK);
    assert!(removed.stdout.contains(&format!("Removing environment: {}", rest.display())), "{removed:?}");
    assert!(!rest.exists() && living.exists() && copy.exists(), "{}", removed.describe());
    assert!(world.data_dir().join("manifests/tool.json").exists());

    // A tool of that name would go in its place.
    python_tool_in(&world, "its-env", "third-env");
    make_folder(&world, "envs/.its-env.removed-1");
    let listed = world.run(&["list"]).expect(exit::OK);
    assert!(
        listed.stderr.contains(&format!("`rm -rf {}` takes it away", rest.display())),
        "{}",
        listed.describe()
    );
}

/// What conda made, conda removes: where it does not, nothing of the tool has gone.
#[test]
fn a_removal_that_conda_refuses_leaves_the_tool_whole() {
    let mut world = World::new();
    let (bin, busy) = (world.file("bin"), world.file("busy"));
    let home = world.file("conda/envs/lab");
    for folder in [&bin, &home.join("conda-meta"), &world.data_dir().join("envs")] {
        fs::create_dir_all(folder).expect("a folder");
    }
    let stamp = home.join("cjm-stamp.json");
    fs::write(&stamp, STAMP).expect("a file");
    let link = world.data_dir().join("envs/lab");
    std::os::unix::fs::symlink(&home, &link).expect("a link");
    python_tool_in(&world, "tool", "lab");
    let manifest = world.data_dir().join("manifests/tool.json");
    let conda = format!(
        "#!/bin/sh\ncase \"$*\" in\n--version) echo 1 ;;\n'env list --json') echo '{{\"envs\": [\"{home}\"]}}' ;;\n\
         'info --json') echo '{{\"envs_dirs\": [\"{folder}\"]}}' ;;\n\
         'env remove'*) [ ! -e {busy} ] || {{ echo the prefix is busy >&2; exit 1; }}; rm -r {home} ;;\nesac\n",
        folder = home.parent().expect("a folder").display(),
        home = home.display(),
        busy = busy.display()
    );
    write_script(&bin.join("conda"), &conda);
    world.offer_first(&bin);
    fs::write(&busy, "").expect("a file");
    let refused = world.run(&["remove", "tool", "-y"]).expect(exit::DOMAIN);
    assert!(refused.stderr.contains("removing the conda environment failed"), "{}", refused.describe());
    assert!(refused.stderr.contains("the prefix is busy"), "{}", refused.describe());
    let there = [&manifest, &stamp, &link].map(|path| path.exists());
    assert_eq!(there, [true; 3], "manifest, stamp and link: {}", refused.describe());
    assert!(world.run(&["list"]).expect(exit::OK).stdout.contains("tool v1.0.0"));

    fs::remove_file(&busy).expect("it was made");
    let _ = world.run(&["remove", "tool", "-y"]).expect(exit::OK);
    let left = [manifest, home, link].map(|path| path.symlink_metadata().is_ok());
    assert_eq!(left, [false; 3], "manifest, environment and link");
    world.assert_nothing_left();
}

#[test]
fn what_is_in_the_list_and_not_installed_is_told_and_a_fault_of_one_entry_hides_nothing() {
    let world = World::new();
    let actions = json!({"go": {"argv": []}});
    let there = world.install_executable("there", "true", &actions);
    python_tool_in(&world, "other-name", "its-env");
    let source = world.data_dir().join("renamed.json").display().to_string();
    let runtime = json!({"kind": "executable", "program": "true", "actions": actions});
    let install = json!({"package_source": source});
    world.install("renamed", &manifest("renamed", &json!({"runtime": runtime}), &install));
    let list = format!(
        "capabilities:\n- {{name: there, manifest: {}}}\n- {{name: absent, manifest: a.json}}\n- {{name: wrong, package: p, \
         env_name: w}}\n- {{name: by-env, package: p, env_name: its-env, python_version: '3'}}\n- {{name: by-manifest, \
         manifest: {source}}}\n- {{name: by-another, package: p, env_name: other-name, python_version: '3'}}\n",
        there.display()
    );
    let file = world.write("capabilities.yaml", list).display().to_string();
    let text = world.run(&["list", "--capabilities", &file]).expect(exit::OK);
    let (installed, absent) = text.stdout.split_once("=== Not installed, but in ").expect("a section");
    assert!(installed.contains("there v1.0.0"), "{}", text.describe());
    assert!(absent.contains("\nabsent\nwrong\n  entry \"wrong\": needs exactly one"), "{}", text.describe());
    assert!(!absent.contains("by-env") && !absent.contains("by-manifest"), "{}", text.describe());
    let document = world.json(&["list", "--capabilities", &file, "--json"]);
    let not_installed = document["not_installed"].as_array().expect("a list");
    let told: Vec<_> = not_installed.iter().map(|entry| (&entry["name"], &entry["error"]["code"])).collect();
    // Its environment has the name of a tool that is installed in another.
    let by_another = (&json!("by-another"), &Value::Null);
    let wrong = (&json!("wrong"), &json!("capabilities_file.invalid"));
    let expected = [(&json!("absent"), &Value::Null), wrong, by_another];
    assert_eq!(told, expected, "{document}");
}

/// What it leads to may be somebody's: `remove` leaves it alone, and so no step names that.
#[test]
fn a_link_among_the_environments_is_told_with_a_step_that_takes_it_alone_away() {
    let world = World::new();
    let folder = world.file("somebody's");
    fs::create_dir_all(folder.join("own")).expect("a folder");
    fs::create_dir_all(world.data_dir().join("envs")).expect("a folder");
    for name in ["y", ".y.removed-1"] {
        std::os::unix::fs::symlink(&folder, world.data_dir().join("envs").join(name)).expect("a link");
    }
    let _ = world.run(&["remove", "y", "-y"]).expect(exit::DOMAIN);
    let listed = world.run(&["list"]).expect(exit::OK);
    let steps = listed.stderr.lines().filter_map(|line| line.trim().strip_prefix("next: `"));
    let steps: Vec<&str> = steps.filter_map(|line| Some(line.split_once('`')?.0)).collect();
    let steps: Vec<&str> = steps.into_iter().filter(|step| !step.contains("install-all")).collect();
    assert_eq!(steps.len(), 2, "{}", listed.describe());
    for step in steps {
        let done = std::process::Command::new("sh").args(["-c", step]).status().expect("a shell");
        assert!(done.success() && step.starts_with("rm "), "{step}");
    }
    assert!(folder.join("own").is_dir(), "what the links led to stays");
    assert_eq!(world.json(&["list", "--json"])["unused_environments"], json!([]));
}

/// An entry that failed may name the environment of another tool; one whose tool calls itself something else is known by
/// its package.
#[test]
fn the_environment_of_another_tool_does_not_make_an_entry_installed() {
    let world = World::new();
    let package = |name: &str| {
        let folder = world.file(name);
        fs::create_dir_all(&folder).expect("a folder");
        let project = format!("[project]\nname = \"{name}\"\nversion = \"1\"\n");
        fs::write(folder.join("pyproject.toml"), project).expect("written");
        folder
    };
    let (laboratory, _) = (package("laboratory"), package("greeter"));
    let python = cjm_tests::python::interpreter();
    let install = json!({"python_path": python, "conda_env": "lab", "package_source": laboratory});
    world.install("lab", &manifest("lab", &json!({"module": "m", "class": "C"}), &install));
    for (folder, is_absent) in [("greeter", true), ("laboratory", false)] {
        let list = format!(
            "capabilities: [{{name: gr, package: ./{folder}, env_name: lab, python_version: '3'}}]\n"
        );
        let file = world.write("capabilities.yaml", list).display().to_string();
        let document = world.json(&["list", "--capabilities", &file, "--json"]);
        let expected = if is_absent { json!([{"name": "gr", "error": null}]) } else { json!([]) };
        assert_eq!(document["not_installed"], expected, "{folder}: {document:#}");
        assert_eq!(document["capabilities"][0]["configured"], !is_absent, "{folder}: {document:#}");
    }
}

#[test]
fn remove_tells_what_of_the_users_stays() {
    let world = World::new();
    let secrets = json!([{"name": "API_KEY", "secret": true}]);
    let install = || {
        let runtime = json!({"kind": "executable", "program": "true", "actions": {"go": {"argv": []}}});
        world.install(
            "tool",
            &manifest("tool", &json!({"runtime": runtime, "worker_env": secrets}), &json!({})),
        );
    };
    install();
    let _ = world.run(&["set-secret", "tool", "API_KEY", "--value", "a long secret"]).expect(exit::OK);
    let data = world.data_dir().join("data/tool");
    fs::create_dir_all(&data).expect("a folder");
    let removed = world.run(&["remove", "tool", "-y"]).expect(exit::OK);
    assert!(
        removed.stdout.contains("Kept: its secret API_KEY (`cjm-ctl --data-dir "),
        "{}",
        removed.describe()
    );
    assert!(
        removed.stdout.contains(&format!("Kept: what it stored in {}", data.display())),
        "{}",
        removed.describe()
    );
    assert!(!removed.stdout.contains("Conda"), "{}", removed.describe());
    install();
    let document = world.json(&["remove", "tool", "-y", "--json"]);
    let manifest = document["kept"]["manifest"].clone();
    let kept = json!({"manifest": manifest, "secrets": ["API_KEY"], "data": data.display().to_string()});
    assert_eq!(document["kept"], kept, "{document}");
}

#[test]
fn a_program_that_is_nowhere_is_told_by_list_as_by_a_call() {
    let world = World::new();
    world.install_executable("here", "sh", &json!({"go": {"argv": ["-c", "true"]}}));
    world.install_executable("gone", "no-such-program-anywhere", &json!({"go": {"argv": []}}));
    let listed = world.run(&["list"]).expect(exit::OK);
    let words = "\"gone\" needs the program `no-such-program-anywhere`, which was not found";
    assert!(listed.stderr.contains(&format!("warning: {words}")), "{}", listed.describe());
    assert!(listed.stderr.contains("next: install `no-such-program-anywhere`"), "{}", listed.describe());
    assert!(!listed.stderr.contains("\"here\""), "{}", listed.describe());
    assert!(world.run(&["call", "gone"]).stderr.contains(words));
    let document = world.json(&["list", "--json"]);
    let missing = |index: usize| document["capabilities"][index]["program_missing"]["code"].clone();
    assert_eq!((missing(0), missing(1)), ("worker.program_missing".into(), Value::Null), "{document:#}");
}

/// `CJM_LOG=info` shows what the host does for a call, and nothing of it comes into the result.
#[test]
fn the_log_of_the_host_shows_the_workers_of_a_call() {
    let mut world = World::new();
    world.install_executable("tool", "sh", &json!({"go": {"argv": ["-c", "true"]}}));
    let quiet = world.run(&["call", "tool"]).expect(exit::OK);
    assert!(!quiet.stderr.contains("INFO"), "{}", quiet.describe());
    world.set("CJM_LOG", "info".to_owned());
    let told = world.run(&["call", "tool"]).expect(exit::OK);
    for words in ["a worker is started", "a worker is ready", "a worker has ended"] {
        assert!(told.stderr.contains(words), "{words}: {}", told.describe());
    }
    assert_eq!(told.stdout, quiet.stdout);
}

#[test]
fn what_a_source_manifest_says_anew_is_what_the_tool_gets_and_what_is_kept_is_told() {
    let world = World::new();
    let list = world
        .write("capabilities.yaml", "capabilities:\n- {name: need, manifest: need.json}\n")
        .display()
        .to_string();
    let write = |region: &str| {
        let actions = json!({"say": {"argv": ["-c", "echo $REGION"], "result": "stdout_text"}});
        let runtime = json!({"kind": "executable", "program": "sh", "actions": actions});
        let install = json!({"env_vars": {"REGION": region}});
        world.write("need.json", manifest("need", &json!({"runtime": runtime}), &install).to_string());
    };
    let install = |flags: &[&str]| {
        let installed =
            world.run(&[&["install-all", "--capabilities", list.as_str()], flags].concat()).expect(0);
        let region = world.run(&["call", "need", "-r"]).expect(0).stdout;
        (installed.stdout, region.trim().to_owned())
    };
    write("eu");
    assert_eq!(install(&[]).1, "eu");
    write("us");
    let (told, region) = install(&[]);
    assert_eq!(region, "us", "{told}");
    assert!(told.contains("need: env_vars REGION: eu -> us") && !told.contains("unchanged"), "{told}");
    assert!(install(&[]).0.contains("unchanged"));
    let copy = world.data_dir().join("manifests/need.json");
    let text = std::fs::read_to_string(&copy).expect("read").replacen("\"us\"", "\"my\"", 1);
    std::fs::write(&copy, text).expect("write");
    for flags in [&[][..], &["--force"]] {
        let (told, region) = install(flags);
        assert_eq!(region, "my", "{told}");
        assert!(told.contains("REGION: my stays") && !told.contains("unchanged"), "{told}");
    }
    write("asia");
    let again = world.run(&["regenerate-manifest", "need"]).expect(0);
    assert!(again.stdout.contains("env_vars REGION: my -> asia"), "{}", again.describe());
    assert_eq!(world.run(&["call", "need", "-r"]).expect(0).stdout.trim(), "asia");
    world.assert_nothing_left();
}

/// The first one has what it gives; one that fails over it leaves it as it is.
#[test]
fn the_second_entry_that_gives_a_capability_changes_nothing() {
    let world = World::new();
    for (file, program) in [("first", "/bin/echo"), ("second", "/bin/true")] {
        let action = json!({"say": {"argv": [file], "result": "stdout_text"}});
        let runtime = json!({"kind": "executable", "program": program, "actions": action});
        let described = manifest("echoer", &json!({"runtime": runtime}), &json!({}));
        world.write(&format!("{file}.json"), described.to_string());
    }
    let list =
        "capabilities:\n  - {name: first, manifest: first.json}\n  - {name: second, manifest: second.json}\n";
    let list = world.write("list.yaml", list).display().to_string();
    for outcome in ["installed", "unchanged"] {
        let document = world.run(&["install-all", "--capabilities", &list, "--json"]);
        let document = document.expect(exit::DOMAIN).json();
        let outcomes = ["/entries/0/result", "/entries/1/result"].map(|at| document.pointer(at).cloned());
        assert_eq!(outcomes, [Some(outcome.into()), Some("failed".into())], "{document}");
        let said = world.run(&["call", "echoer", "--action", "say", "-r"]).expect(exit::OK);
        assert_eq!(said.stdout, "first\n", "{}", said.describe());
    }
    world.assert_nothing_left();
}

#[test]
fn what_a_package_leaves_running_when_it_is_imported_is_in_nobodys_way() {
    const NAME: &str = "what_a_package_leaves_running_when_it_is_imported_is_in_nobodys_way";
    let Some(world) = world_with_uv(NAME) else { return };
    write_package(&world.file(""), "tool-one");
    let module = world.file("tool-one/tool_one/capability.py");
    let text = fs::read_to_string(&module).expect("written above");
    // Without the mark by which it would be ended.
    let leaves = "import os, subprocess\nleft = subprocess.Popen(['/bin/sleep', '600'], env={})\n";
    let at = world.file("left").display().to_string();
    let leaves = format!("{leaves}open({at:?}, 'a').write('%d\\n' % left.pid)\n");
    fs::write(&module, format!("{leaves}{text}")).expect("a module");
    world.write(
        "capabilities.yaml",
        "capabilities: [{name: tool-one, package: ./tool-one, env_name: tool-one, python_version: \">=3.9\"}]\n",
    );
    let _ = world.run(&["install-all"]).expect(exit::OK);
    assert_eq!(world.json(&["status", "--json"])["installation"], Value::Null);
    let _ = world.run(&["install-all", "--force"]).expect(exit::OK);
    let left = fs::read_to_string(world.file("left")).expect("it was imported");
    for pid in left.lines() {
        let killed = std::process::Command::new("kill").args(["-9", pid]).status().expect("runs");
        assert!(killed.success(), "it lived on: {pid}");
    }
    world.assert_nothing_left();
}
