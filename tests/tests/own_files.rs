//! What a user has written or put where an installation works: it is kept beside its place and named, and an entry that is
//! refused takes nothing of anybody.

use cjm_tests::package::{world_with_uv, write_package};
use cjm_tests::tool_lists::{words, write_list, write_tool};
use cjm_tests::world::{World, manifest, write_script};
use cjm_wire::describe::exit;
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;

const ENTRY: &str =
    "capabilities:\n- {name: greeter, package: ./greeter, env_name: greeter, python_version: '>=3.9'}\n";

/// The only entry of what `install-all` reports.
fn install(world: &World, list: &str, more: &[&str], code: u8) -> Value {
    let command = [&["install-all", "--capabilities", list, "--json"], more].concat();
    world.run(&command).expect(code).json()["entries"][0].clone()
}

/// A manifest that somebody wrote, in the place of the tool's; its text.
fn write_by_hand(world: &World) -> String {
    let runtime = json!({"kind": "executable", "program": "echo", "actions": {"hi": {"argv": ["by hand"]}}});
    let code = json!({"version": "9.0.0", "description": "mine, by hand", "runtime": runtime});
    world.install("greeter", &manifest("greeter", &code, &json!({})));
    fs::read_to_string(world.data_dir().join("manifests/greeter.json")).expect("written")
}

/// What is kept of the manifest.
fn kept(world: &World) -> Vec<PathBuf> {
    let listing = fs::read_dir(world.data_dir().join("manifests")).expect("a folder").flatten();
    let is_kept = |path: &PathBuf| path.to_string_lossy().contains("greeter.json.replaced-");
    listing.map(|one| one.path()).filter(is_kept).collect()
}

fn check_manifest_is_kept(world: &World, entry: &Value, by_hand: &str) {
    let kept = kept(world);
    assert_eq!(kept.len(), 1, "{entry:#}");
    assert_eq!(fs::read_to_string(&kept[0]).expect("kept"), by_hand);
    let told = words(&entry["warnings"]);
    let path = kept[0].display().to_string();
    assert!(told.contains(&path) && told.contains("greeter 9.0.0 stood there"), "{entry:#}");
}

#[test]
fn a_manifest_that_somebody_wrote_is_kept_when_a_program_takes_its_place() {
    let world = World::new();
    let by_hand = write_by_hand(&world);
    write_tool(&world, "tool.json", "greeter", "sh", "1.0.0");
    let list = write_list(&world, "list.yaml", "capabilities: [{name: greeter, manifest: tool.json}]\n");
    check_manifest_is_kept(&world, &install(&world, &list, &[], exit::OK), &by_hand);
    write_tool(&world, "tool.json", "greeter", "sh", "2.0.0");
    assert_eq!(install(&world, &list, &[], exit::OK)["warnings"], json!([]), "it is an installation's now");
    assert_eq!(kept(&world).len(), 1);
}

/// Whoever names the file itself has said what is to become of it.
#[test]
fn a_manifest_that_is_installed_where_it_lies_is_not_kept_twice() {
    let world = World::new();
    let _ = write_by_hand(&world);
    let source = world.data_dir().join("manifests/greeter.json").display().to_string();
    let text = format!("capabilities: [{{name: greeter, manifest: {source}}}]\n");
    let list = write_list(&world, "list.yaml", &text);
    let entry = install(&world, &list, &[], exit::OK);
    assert_eq!((&entry["warnings"], kept(&world).len()), (&json!([]), 0), "{entry:#}");
    // It is the only one that there is.
    let there = fs::read_to_string(&source).expect("installed");
    let removed = world.run(&["remove", "greeter", "-y", "--json"]).expect(exit::OK).json();
    let kept = removed["kept"]["manifest"].as_str().unwrap_or_else(|| panic!("{removed:#}"));
    assert_eq!(fs::read_to_string(kept).expect("kept"), there);
}

#[test]
fn what_somebody_put_where_a_python_tool_goes_is_kept_and_named() {
    const NAME: &str = "what_somebody_put_where_a_python_tool_goes_is_kept_and_named";
    let Some(world) = world_with_uv(NAME) else { return };
    write_package(&world.file(""), "greeter");
    let list = write_list(&world, "list.yaml", ENTRY);
    let by_hand = write_by_hand(&world);
    let home = world.data_dir().join("envs/greeter");
    fs::create_dir_all(home.join("src")).expect("a folder");
    fs::write(home.join("src/thesis.txt"), "precious").expect("written");
    let beside = home.with_file_name(".greeter.cjm-found-1");
    // Also where nothing comes of it, and where that is begun anew.
    let class = world.file("greeter/greeter/capability.py");
    let good = fs::read_to_string(&class).expect("a class");
    fs::write(&class, "raise RuntimeError\n").expect("written");
    for more in [&["--force"][..], &[]] {
        let entry = install(&world, &list, more, exit::DOMAIN);
        assert!(words(&entry["warnings"]).contains(&beside.display().to_string()), "{entry:#}");
    }
    fs::write(&class, good).expect("written");
    let entry = install(&world, &list, &[], exit::OK);
    assert!(words(&entry["warnings"]).contains(&beside.display().to_string()), "{entry:#}");
    check_manifest_is_kept(&world, &entry, &by_hand);
    assert_eq!(fs::read_to_string(beside.join("src/thesis.txt")).expect("kept"), "precious");
    assert!(!home.with_file_name(".greeter.cjm-found-2").exists(), "what an installation left is its own");
    // It is told until somebody has taken it away.
    let told = |entry: Value| words(&entry["warnings"]).contains("cjm-found");
    assert!(told(install(&world, &list, &[], exit::OK)));
    fs::remove_dir_all(&beside).expect("removed");
    // What the manifest of an installation speaks for is made anew, and is nobody else's.
    fs::remove_file(home.join("cjm-stamp.json")).expect("removed");
    assert!(!told(install(&world, &list, &[], exit::OK)));
    let _ = world.run(&["remove", "greeter", "-y", "--keep-env"]).expect(exit::OK);
    assert!(!told(install(&world, &list, &[], exit::OK)), "it was kept for that");
    let _ = world.run(&["call", "greeter", "--action", "who"]).expect(exit::OK);
    world.assert_nothing_left();
}

/// It owns nothing of what another list has installed.
#[test]
fn an_entry_that_is_refused_stands_in_the_way_of_no_other_one() {
    const NAME: &str = "an_entry_that_is_refused_stands_in_the_way_of_no_other_one";
    let Some(world) = world_with_uv(NAME) else { return };
    write_package(&world.file(""), "greeter");
    let first = write_list(&world, "first.yaml", ENTRY);
    let _ = install(&world, &first, &[], exit::OK);
    let right = "{name: b, package: ./greeter, env_name: b, python_version: '>=3.9'}";
    for (wrong, more) in [
        ("{name: a, package: ./greeter, python_version: '>=3.9'}", ""),
        ("{name: a, package: ./greeter, env_name: greeter, pythn_version: '>=3.9'}", "--force"),
    ] {
        let _ = install(&world, &first, &["--force"], exit::OK);
        let list = write_list(&world, "second.yaml", &format!("capabilities:\n- {wrong}\n- {right}\n"));
        let command = ["install-all", "--capabilities", &list, "--json", more];
        let command = &command[..if more.is_empty() { 4 } else { 5 }];
        let report = world.run(command).expect(exit::DOMAIN).json();
        let [a, b] = [0, 1].map(|index| &report["entries"][index]);
        assert_eq!((&a["result"], &b["result"]), (&json!("failed"), &json!("installed")), "{report:#}");
        assert!(words(&b["warnings"]).contains(&first), "whose it was is told: {report:#}");
        let taken = a["warnings"].as_array().map_or(0, Vec::len);
        assert_eq!((&a["capability"], taken), (&Value::Null, 0), "{report:#}");
    }
    world.assert_nothing_left();
}

#[test]
fn of_an_entry_that_cannot_be_read_it_is_told_which_version_stays() {
    const NAME: &str = "of_an_entry_that_cannot_be_read_it_is_told_which_version_stays";
    let Some(world) = world_with_uv(NAME) else { return };
    write_package(&world.file(""), "greeter");
    write_tool(&world, "tool.json", "tool", "sh", "2.0.0");
    let both = format!("{ENTRY}- {{name: tool, manifest: tool.json}}\n");
    let list = write_list(&world, "list.yaml", &both);
    let _ = install(&world, &list, &[], exit::OK);
    let wrong = both.replace("python_version", "pythn_version").replace("tool.json", "tool.json, worker: []");
    let _ = write_list(&world, "list.yaml", &wrong);
    let report = || {
        let report =
            world.run(&["install-all", "--capabilities", &list, "--json"]).expect(exit::DOMAIN).json();
        report["entries"].clone()
    };
    let entries = report();
    for (index, (name, version)) in [("greeter", "1.0.0"), ("tool", "2.0.0")].into_iter().enumerate() {
        let entry = &entries[index];
        let told = [&entry["capability"], &entry["version"], &entry["version_before"]];
        assert_eq!(told, [&json!(name), &json!(version), &json!(version)], "{entry:#}");
        let stays = format!("{name} {version} stays installed as it was, and can be called");
        assert!(words(&entry["warnings"]).contains(&stays), "{entry:#}");
    }
    fs::remove_dir_all(world.data_dir().join("envs/greeter")).expect("removed");
    let entry = &report()[0];
    let told = (&entry["version"], &entry["version_before"]);
    assert_eq!(told, (&Value::Null, &json!("1.0.0")), "{entry:#}");
    assert!(words(&entry["warnings"]).contains("cannot be called until"), "{entry:#}");
}

/// As that of a tool is, whichever command writes another in its place.
#[test]
fn the_manifest_of_an_adapter_that_somebody_wrote_is_kept_when_one_is_generated() {
    let world = World::new();
    let found =
        json!({"unit": "adapter", "name": "m.Mine", "task_name": "t", "module": "m", "class": "Mine"});
    let python = world.data_dir().join("envs/its-env/bin/python");
    let path = world.data_dir().join("manifests/adapter-t-Mine.json");
    for file in [&python, &path] {
        fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
    }
    write_script(&python, &format!("#!/bin/sh\ncat <<'END'\n{}\nEND\n", json!({"adapters": [found]})));
    fs::write(&path, found.to_string()).expect("written");
    let command = ["generate-adapter-manifest", "its-env", "m:Mine", "--json"];
    let told = world.run(&command).expect(exit::OK).json();
    let listing = fs::read_dir(world.data_dir().join("manifests")).expect("a folder").flatten();
    let begins = format!("{}.replaced-", path.display());
    let kept: Vec<PathBuf> =
        listing.map(|one| one.path()).filter(|one| one.to_string_lossy().starts_with(&begins)).collect();
    assert_eq!(kept.len(), 1, "{told:#}");
    assert_eq!(fs::read_to_string(&kept[0]).expect("kept"), found.to_string());
    assert!(words(&told["warnings"]).contains(&kept[0].display().to_string()), "{told:#}");
    let again = world.run(&command).expect(exit::OK).json();
    assert_eq!((&again["warnings"], &again["adapter"]["conda_env"]), (&json!([]), &json!("its-env")));
    // What goes with the tool of the environment is what an installation made, of that environment.
    let manifests = world.data_dir().join("manifests");
    let write = |file: &str, class: &str, more: Value| {
        let mut adapter = json!({"unit": "adapter", "name": format!("m.{class}"), "task_name": "t", "module": "m", "class": class});
        for (key, value) in more.as_object().expect("an object") {
            adapter[key] = value.clone();
        }
        fs::write(manifests.join(file), adapter.to_string()).expect("written");
    };
    write("adapter-t-Own.json", "Own", json!({"conda_env": "its-env"}));
    write("named-otherwise.json", "Other", json!({"conda_env": "its-env"}));
    let of_another = json!({"conda_env": "another", "generated_at": "2026-01-01T00:00:00"});
    write("adapter-t-Other.json", "Other", of_another);
    let install = json!({"conda_env": "its-env", "python_path": python});
    let _ = world.install("lab", &manifest("lab", &json!({"module": "m", "class": "C"}), &install));
    let removed = world.run(&["remove", "lab", "-y", "--json"]).expect(exit::OK).json();
    assert_eq!(removed["adapters_removed"], json!([path]), "{removed:#}");
    let stays = ["adapter-t-Own.json", "named-otherwise.json", "adapter-t-Other.json"];
    assert!(!path.exists() && stays.iter().all(|file| manifests.join(file).is_file()), "{removed:#}");
}

/// A tool starts in the folder of whoever calls, where another file of that name may lie.
#[test]
fn an_argument_that_names_a_file_beside_its_manifest_is_told_before_a_call_takes_another_one() {
    let world = World::new();
    let script = world.write("tool.pl", "1;").display().to_string();
    let code = json!({"runtime": {"kind": "channel", "program": "perl", "args": ["tool.pl"]}});
    world.write("tool.json", manifest("greeter", &code, &json!({})).to_string());
    let list = write_list(&world, "list.yaml", "capabilities: [{name: greeter, manifest: tool.json}]\n");
    let told = |warnings: &Value| {
        let told = words(warnings);
        assert!(told.contains("code.runtime.args.0: `tool.pl`") && told.contains(&script), "{warnings:#}");
    };
    told(&install(&world, &list, &[], exit::OK)["warnings"]);
    let source = world.file("tool.json").display().to_string();
    told(&world.run(&["validate", &source, "--json"]).expect(exit::OK).json()["warnings"]);
}
