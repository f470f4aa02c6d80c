//! Lists of capabilities as people write and keep them: keys that are mistyped, several lists, entries whose names are not
//! those of their tools, tools that get another name, and updates that fail.

use cjm_tests::package::{world_with_uv, write_package};
use cjm_tests::repo;
use cjm_tests::world::{World, manifest};
use cjm_wire::describe::exit;
use serde_json::{Value, json};

/// A manifest of a program that says a word.
fn write_tool(world: &World, file: &str, name: &str, program: &str, version: &str) {
    let actions = json!({"say": {"argv": ["-c", "echo hi"], "result": "stdout_text"}});
    let runtime = json!({"kind": "executable", "program": program, "actions": actions});
    let text = manifest(name, &json!({"runtime": runtime, "version": version}), &json!({})).to_string();
    world.write(file, text);
}

fn write_list(world: &World, name: &str, text: &str) -> String {
    world.write(name, text).display().to_string()
}

fn words(value: &Value) -> String {
    value
        .as_array()
        .expect("words")
        .iter()
        .map(|word| word.as_str().unwrap_or_default())
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn a_mistyped_key_is_told_by_validate_and_install_all_with_what_is_like_it() {
    let world = World::new();
    write_tool(&world, "tool.json", "tool", "sh", "1.0.0");
    let text = "capabilities:\n- name: a\n  manifest: tool.json\n  adaptors: [x]\n- name: b\n  manfest: tool.json\n\
                - name: c\n  package: p\n  env_nam: c\n  python_version: 3.11\nsubstrat: 1\n";
    let list = write_list(&world, "list.yaml", text);
    let stray = "`adaptors`: there is no such key (did you mean \"adapters\"?), and nobody reads it";
    let faults = ["has `manfest` (did you mean \"manifest\"?)", "has `env_nam` (did you mean \"env_name\"?)"];
    let verdict = world.run(&["validate", &list, "--json"]).expect(exit::DOMAIN).json();
    let warnings = words(&verdict["warnings"]);
    assert!(warnings.contains(&format!("entry \"a\": line 4, column 3: {stray}")), "{verdict:#}");
    assert!(warnings.contains("line 11, column 1: `substrat`"), "{verdict:#}");
    let installed =
        world.run(&["install-all", "--capabilities", &list, "--json"]).expect(exit::DOMAIN).json();
    assert!(words(&installed["warnings"]).contains("`substrat`"), "{installed:#}");
    assert!(words(&installed["entries"][0]["warnings"]).contains(stray), "{installed:#}");
    for (index, fault) in faults.into_iter().enumerate() {
        let error = verdict["errors"][index]["message"].as_str().expect("a message");
        assert!(error.ends_with(fault), "{verdict:#}");
        let error = installed["entries"][index + 1]["error"]["message"].as_str().expect("a message");
        assert!(error.ends_with(fault), "{installed:#}");
    }
    let no_list = write_list(&world, "tools.yaml", "capabilites: []\n");
    for command in [&["validate", &no_list][..], &["install-all", "--capabilities", &no_list]] {
        let told = world.run(command).expect(exit::DOMAIN);
        assert!(told.stderr.contains("did you mean \"capabilities\""), "{}", told.describe());
    }
    // A fault of form in one entry hides no rule that another one breaks.
    let both = "capabilities:\n- {name: x, package: p, env_name: e, python_version: 3, env_file: f}\n\
                - {name: [], manifest: m}\n";
    let told = world.run(&["validate", &write_list(&world, "both.yaml", both)]).expect(exit::DOMAIN);
    for words in ["`python_version` and `env_file`, and has both", "entry number 2: `name` is []"] {
        assert!(told.stderr.contains(words), "{}", told.describe());
    }
}

#[test]
fn a_value_of_a_wrong_kind_fails_its_entry_alone_and_the_others_are_installed() {
    let world = World::new();
    write_tool(&world, "one.json", "one", "sh", "1.0.0");
    write_tool(&world, "two.json", "two", "sh", "1.0.0");
    let python = "env_name: e, package: p, python_version: 3.10";
    let text = format!(
        "capabilities:\n- {{name: one, manifest: one.json}}\n- {{name: wrong, {python}, worker: genuin}}\n\
         - {{name: worse, {python}, adapters: word, interface_libs: word}}\n- word\n- {{name: two, manifest: two.json}}\n"
    );
    let list = write_list(&world, "list.yaml", &text);
    let report = world.run(&["install-all", "--capabilities", &list, "--json"]).expect(exit::DOMAIN).json();
    let entries = report["entries"].as_array().expect("entries");
    let results: Vec<_> = entries.iter().map(|entry| (&entry["name"], &entry["result"])).collect();
    let expected = ["one", "wrong", "worse", "number 4", "two"]
        .map(|name| json!([name, if ["one", "two"].contains(&name) { "installed" } else { "failed" }]));
    assert_eq!(json!(results), json!(expected), "{report:#}");
    let verdict = world.run(&["validate", &list, "--json"]).expect(exit::DOMAIN).json();
    let findings = verdict["errors"].as_array().expect("errors");
    let expected = [
        (
            1,
            3,
            "`worker` is \"genuin\", and must be `shim` or `genuine` (did you mean \"genuine\"?)",
            "write `worker: ",
        ),
        (2, 4, "`interface_libs` is \"word\", and must be a list", "write `interface_libs: ["),
        (2, 4, "`adapters` is \"word\", and must be a list", "write `adapters: [{impl: "),
        (3, 5, "it is \"word\", and must be keys with values", "write `{name: NAME, "),
    ];
    assert_eq!(findings.len(), expected.len(), "{verdict:#}");
    for ((index, line, words, cure), finding) in expected.into_iter().zip(findings) {
        let error = &entries[index]["error"];
        assert_eq!(error["code"], "install.capabilities_invalid", "{report:#}");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (message, step) = (text(&error["message"]), text(&error["next_step"]));
        assert!(message.contains(&format!("line {line}, column ")) && message.contains(words), "{report:#}");
        let others = format!(
            "`cjm-ctl --data-dir {} install-all --capabilities {list}` installs the others",
            world.data_dir().display()
        );
        assert!(step.contains(cure) && step.contains(&others), "{step}");
        assert_eq!(
            (&finding["line"], &finding["code"]),
            (&json!(line), &json!("capabilities_file.wrong_kind"))
        );
        assert!(
            text(&finding["message"]).ends_with(words) && text(&finding["next_step"]).contains(cure),
            "{finding:#}"
        );
    }
    let shown = world.run(&["install-all", "--capabilities", &list]).expect(exit::DOMAIN);
    assert!(
        shown.stderr.contains("3 of 5 entries failed; the others are installed."),
        "{}",
        shown.describe()
    );
    let listed = world.run(&["list", "--capabilities", &list]).expect(exit::OK);
    assert!(listed.stdout.contains("two v1.0.0"), "{}", listed.describe());
}

#[test]
fn a_list_without_entries_is_one_and_what_is_none_says_what_it_is() {
    let world = World::new();
    let empty = write_list(&world, "empty.yaml", "capabilities: []\n");
    let told = world.run(&["install-all", "--capabilities", &empty]).expect(exit::OK);
    assert!(
        told.stdout.contains(&format!("Nothing to install: {empty} has no entries.")),
        "{}",
        told.describe()
    );
    let none = write_list(&world, "none.yaml", "capabilities:\n");
    let told = world.run(&["install-all", "--capabilities", &none]).expect(exit::DOMAIN);
    assert!(told.stderr.contains("`capabilities` is empty, and must be a list"), "{}", told.describe());
    assert!(told.stderr.contains("an empty list is `capabilities: []`"), "{}", told.describe());
}

#[test]
fn the_steps_of_a_failed_entry_name_the_list_that_was_named_and_lead_out_of_no_circle() {
    let world = World::new();
    write_tool(&world, "gone.json", "gone", "no-such-program", "1.0.0");
    let later = manifest("later", &json!({}), &json!({})).to_string().replace("\"2.0\"", "\"3.0\"");
    world.write("later.json", later);
    world.write("none.json", "{");
    let text = "capabilities:\n- {name: gone, manifest: gone.json}\n- {name: later, manifest: later.json}\n\
                - {name: wrong}\n- {name: none, manifest: none.json}\n";
    let list = write_list(&world, "my list.yaml", text);
    let named = format!(" install-all --capabilities '{list}'`");
    let report = world.run(&["install-all", "--capabilities", &list, "--json"]).expect(exit::DOMAIN).json();
    // A path is the name of no package.
    write_tool(&world, "path.json", "path", "./mm.sh", "1.0.0");
    let of_path = write_list(&world, "path.yaml", "capabilities: [{name: path, manifest: path.json}]\n");
    let told = world.run(&["install-all", "--capabilities", &of_path]).expect(exit::DOMAIN);
    assert!(!told.stderr.contains("apt-get"), "{}", told.describe());
    assert!(told.stderr.contains("put a program at `./mm.sh`, or correct the path"), "{}", told.describe());
    let step =
        |index: usize| report["entries"][index]["error"]["next_step"].as_str().expect("a step").to_owned();
    assert!(step(0).contains(&named) && step(2).contains(&named), "{report:#}");
    assert!(
        step(1).contains("\"format_version\": \"2.0\"") && !step(1).contains("install-all"),
        "{report:#}"
    );
    assert!(step(3).contains(&format!(" validate {}`", world.file("none.json").display())), "{report:#}");
    let verdict = world.run(&["validate", &list, "--json"]).expect(exit::DOMAIN).json();
    assert!(verdict["errors"].to_string().contains(&named), "{verdict:#}");
    let verdict = world.run(&["validate", &world.file("later.json").display().to_string(), "--json"]);
    let verdict = verdict.expect(exit::DOMAIN).json();
    assert!(!verdict["errors"].to_string().contains("install-all"), "{verdict:#}");
}

#[test]
fn an_update_of_a_manifest_that_fails_says_that_the_tool_stays_and_whether_it_can_be_called() {
    let world = World::new();
    let program = world.file("program").display().to_string();
    cjm_tests::world::write_script(program.as_ref(), "#!/bin/sh\necho hi\n");
    write_tool(&world, "tool.json", "tool", &program, "1.0.0");
    let list = write_list(&world, "list.yaml", "capabilities: [{name: its-entry, manifest: tool.json}]\n");
    let install = ["install-all", "--capabilities", &list, "--json"];
    let _ = world.json(&install);
    let failed = || world.run(&install).expect(exit::DOMAIN).json()["entries"][0].clone();
    write_tool(&world, "tool.json", "tool", "programm", "2.0.0");
    let entry = failed();
    let told = ["capability", "version_before", "version"].map(|key| entry[key].as_str().unwrap_or_default());
    assert_eq!(told, ["tool", "1.0.0", "1.0.0"], "{entry:#}");
    assert!(
        words(&entry["warnings"]).contains("tool 1.0.0 stays installed as it was, and can be called"),
        "{entry:#}"
    );
    assert_eq!(world.run(&["call", "tool", "--action", "say", "-r"]).expect(exit::OK).stdout, "hi\n");
    world.write("tool.json", "{");
    assert_eq!(failed()["version_before"], "1.0.0", "known by the file that it came from");
    std::fs::remove_file(&program).expect("removed");
    let entry = failed();
    assert!(words(&entry["warnings"]).contains("cannot be called until"), "{entry:#}");
    world.assert_nothing_left();
}

#[test]
fn a_tool_is_in_the_list_that_gives_it_whatever_its_entry_is_called_and_says_which_list_that_is() {
    let world = World::new();
    write_tool(&world, "tool.json", "tool", "sh", "1.0.0");
    write_tool(&world, "other.json", "tool", "sh", "9.0.0");
    let first = write_list(&world, "first.yaml", "capabilities: [{name: its-entry, manifest: tool.json}]\n");
    let same = write_list(&world, "same.yaml", "capabilities: [{name: its-entry, manifest: tool.json}]\n");
    let second =
        write_list(&world, "second.yaml", "capabilities: [{name: tool-too, manifest: other.json}]\n");
    let install =
        |list: &str| world.json(&["install-all", "--capabilities", list, "--json"])["entries"][0].clone();
    let listed =
        |list: &str| world.json(&["list", "--capabilities", list, "--json"])["capabilities"][0].clone();
    assert_eq!(install(&first)["warnings"], json!([]));
    assert_eq!(install(&same)["result"], "unchanged");
    let tool = listed(&first);
    assert_eq!((&tool["configured"], &tool["capabilities_file"]), (&json!(true), &json!(first)), "{tool:#}");
    assert_eq!(listed(&second)["configured"], false);
    let text = world.run(&["list", "--long", "--capabilities", &first]).expect(exit::OK);
    assert!(text.stdout.contains(&format!("  Installed from: {first}\n")), "{}", text.describe());
    assert!(!text.stdout.contains("(not in"), "{}", text.describe());
    let replaced = install(&second);
    let told = words(&replaced["warnings"]);
    assert_eq!(
        told,
        format!("tool was installed from {first} before, and is from {second} now"),
        "{replaced:#}"
    );
    assert_eq!(listed(&second)["capabilities_file"], json!(second));
    let _ = world.run(&["regenerate-manifest", "tool"]).expect(exit::OK);
    assert_eq!(listed(&second)["capabilities_file"], json!(second), "it is as it was");
}

#[test]
fn a_list_is_the_same_file_however_its_path_is_written_and_so_is_a_manifest_in_it() {
    let world = World::new();
    std::fs::create_dir_all(world.file("t")).expect("a folder");
    write_tool(&world, "t/tool.json", "tool", "sh", "1.0.0");
    let text = "capabilities: [{name: its-entry, manifest: ./tool.json}]\n";
    let list = write_list(&world, "t/l.yaml", text);
    let entry =
        |list: &str| world.json(&["install-all", "--capabilities", list, "--json"])["entries"][0].clone();
    assert_eq!(entry("./t/../t/l.yaml")["result"], "installed");
    let listed =
        world.json(&["list", "--capabilities", "t/../t/./l.yaml", "--json"])["capabilities"][0].clone();
    assert_eq!(
        (&listed["configured"], &listed["capabilities_file"]),
        (&json!(true), &json!(list)),
        "{listed:#}"
    );
    write_list(&world, "t/l.yaml", "capabilities: [{name: its-entry, manifest: ../t/tool.json}]\n");
    std::os::unix::fs::symlink(world.file("t"), world.file("link")).expect("a link");
    for written in ["t/l.yaml", &list, "link/l.yaml"] {
        write_tool(&world, "t/tool.json", "tool", "sh", &format!("1.0.{}", written.len()));
        let told = entry(written);
        assert_eq!(
            (&told["result"], &told["warnings"]),
            (&json!("installed"), &json!([])),
            "{written}: {told:#}"
        );
    }
    let manifest = std::fs::read_to_string(world.data_dir().join("manifests/tool.json")).expect("a manifest");
    assert!(!manifest.contains("/../") && !manifest.contains("/./"), "{manifest}");
    // It is known by the file that it came from.
    write_tool(&world, "t/tool.json", "tool", "no-such-program", "2.0.0");
    let failed =
        world.run(&["install-all", "--capabilities", "./t/l.yaml", "--json"]).expect(exit::DOMAIN).json();
    assert_eq!(failed["entries"][0]["capability"], "tool", "{failed:#}");
}

/// What was installed through one of them is unchanged through the other, whichever was first; so is the program that lies
/// beside it.
#[test]
fn a_list_in_a_linked_folder_is_the_list_in_the_real_one() {
    let world = World::new();
    std::fs::create_dir_all(world.file("t")).expect("a folder");
    std::os::unix::fs::symlink(world.file("t"), world.file("link")).expect("a link");
    cjm_tests::world::write_script(&world.file("t/program"), "#!/bin/sh\necho hi\n");
    write_list(&world, "t/l.yaml", "capabilities: [{name: its-entry, manifest: tool.json}]\n");
    let installed =
        || std::fs::read_to_string(world.data_dir().join("manifests/tool.json")).expect("a manifest");
    let paths = ["link/l.yaml", "t/l.yaml"];
    for (version, [first, second]) in [paths, [paths[1], paths[0]]].into_iter().enumerate() {
        let _ = std::fs::remove_dir_all(world.data_dir().join("manifests"));
        let entry =
            |list: &str| world.json(&["install-all", "--capabilities", list, "--json"])["entries"][0].clone();
        write_tool(&world, "t/tool.json", "tool", "./program", &format!("{version}.1"));
        assert_eq!(entry(first)["result"], "installed");
        let before = installed();
        let told = entry(second);
        assert_eq!((&told["result"], &told["warnings"]), (&json!("unchanged"), &json!([])), "{told:#}");
        assert_eq!(installed(), before);
        for list in paths {
            let listed = world.json(&["list", "--capabilities", list, "--json"]);
            let facts = (&listed["capabilities"][0]["configured"], &listed["not_installed"]);
            assert_eq!(facts, (&json!(true), &json!([])), "{listed:#}");
        }
        // An update is one of the same tool, which keeps the paths that it has.
        write_tool(&world, "t/tool.json", "tool", "./program", &format!("{version}.2"));
        let told = entry(second);
        assert_eq!((&told["result"], &told["warnings"]), (&json!("installed"), &json!([])), "{told:#}");
        let folder = format!("{}/", world.file(first).parent().expect("a folder").display());
        assert_eq!(installed().matches(&folder).count(), 3, "list, source and program: {}", installed());
    }
    // One that has another name now is still that of its list.
    write_tool(&world, "other.json", "renamed", "sh", "1.0.0");
    let other = write_list(&world, "other.yaml", "capabilities: [{name: x, manifest: other.json}]\n");
    let _ = world.json(&["install-all", "--capabilities", &other, "--json"]);
    write_tool(&world, "t/tool.json", "renamed", "./program", "3");
    for list in paths {
        let refused =
            world.run(&["install-all", "--capabilities", list, "--json"]).expect(exit::DOMAIN).json();
        assert_eq!(
            refused["entries"][0]["error"]["code"], "install.capability_of_another_list",
            "{refused:#}"
        );
    }
}

#[test]
fn a_module_that_is_missing_is_told_with_the_list_to_install_from() {
    let world = World::new();
    std::fs::create_dir_all(world.file("t")).expect("a folder");
    world.write("t/tool.py", "import a_module_that_is_not_there\n");
    let list = write_list(&world, "its list.yaml", "capabilities: []\n");
    let folder = world.file("t").display().to_string();
    let install = json!({"python_path": cjm_tests::python::interpreter(), "env_vars": {"PYTHONPATH": folder},
        "installer_version": "cjm-ctl 0.1.0", "package_source": folder, "capabilities_file": list});
    world.install("tool", &manifest("tool", &json!({"module": "tool", "class": "Tool"}), &install));
    let refused = world.run(&["call", "tool", "--json"]);
    let step = refused.json()["error"]["next_step"].as_str().unwrap_or_default().to_owned();
    let command = format!(" install-all --capabilities '{list}' --force`");
    assert!(step.contains(&command), "{}", refused.describe());
}

#[test]
fn a_folder_that_is_written_as_a_name_is_refused_by_validate_as_by_install_all() {
    let world = World::new();
    std::fs::create_dir_all(world.file("pack")).expect("a folder");
    world.write("pack/pyproject.toml", "[project]\nname = \"pack\"\nversion = \"1.0.0\"\n");
    for (package, rest) in [
        ("pack", "python_version: '>=3.9'"),
        ("pack/", "python_version: '>=3.9'"),
        ("pack", "env_file: env.yml"),
        ("./pack", "interface_libs: [pack], python_version: '>=3.9'"),
        ("./pack", "adapters: [{impl: 'm:C', lib: pack}], python_version: '>=3.9'"),
    ] {
        let text = format!("capabilities: [{{name: p, package: {package}, env_name: p, {rest}}}]\n");
        let list = write_list(&world, "list.yaml", &text);
        let verdict = world.run(&["validate", &list, "--json"]).expect(exit::DOMAIN).json();
        let codes: Vec<&Value> =
            verdict["errors"].as_array().expect("errors").iter().map(|e| &e["code"]).collect();
        let installed =
            world.run(&["install-all", "--capabilities", &list, "--json"]).expect(exit::DOMAIN).json();
        assert!(
            codes.contains(&&installed["entries"][0]["error"]["code"]),
            "{text}: {verdict:#} {installed:#}"
        );
    }
}

#[test]
fn a_tool_that_has_another_name_now_is_told_as_one_that_is_gone() {
    let mut world = World::new();
    if let Err(error) = world.offer_uv() {
        return repo::skip("a_tool_that_has_another_name_now_is_told_as_one_that_is_gone", &error);
    }
    let class = |name: &str| {
        let declared = "WORKER_ENV = [{\"name\": \"API_KEY\", \"secret\": True}]";
        let text = format!(
            "from cjm_sdk import Capability, action\n\n\nclass Tool(Capability):\n    name = \"{name}\"\n    version = \
             \"1.0.0\"\n    {declared}\n\n    @action\n    def who(self):\n        return \"{name}\"\n"
        );
        world.write("pack/pack/capability.py", text);
    };
    std::fs::create_dir_all(world.file("pack/pack")).expect("a folder");
    world.write(
        "pack/pyproject.toml",
        "[project]\nname = \"pack\"\nversion = \"1.0.0\"\n\n[build-system]\nrequires = [\"uv_build\"]\nbuild-backend = \
         \"uv_build\"\n\n[tool.uv.build-backend]\nmodule-root = \"\"\n",
    );
    world.write("pack/pack/__init__.py", "");
    class("mood");
    let text = "capabilities: [{name: entry, package: ./pack, env_name: pack, python_version: \">=3.9\"}]\n";
    let list = write_list(&world, "list.yaml", text);
    let install = ["install-all", "--capabilities", &list, "--json"];
    let _ = world.json(&install);
    let _ = world.run(&["set-secret", "mood", "API_KEY", "--value", "a long secret"]).expect(exit::OK);
    // A journal begins with the first host.
    let _ = world.run(&["call", "mood"]).expect(exit::OK);
    class("moody");
    let entry = world.json(&install)["entries"][0].clone();
    assert_eq!(
        (&entry["renamed_from"], &entry["capability"]),
        (&json!("mood"), &json!("moody")),
        "{entry:#}"
    );
    let told = words(&entry["warnings"]);
    assert!(told.contains("mood is called moody now") && told.contains("list-secrets mood`"), "{entry:#}");
    let rows = world.run(&["logs", "--journal", "--type", "capability_removed", "--json"]).expect(exit::OK);
    assert!(rows.stdout.contains("\"renamed_to\":\"moody\""), "{}", rows.describe());
    world.assert_nothing_left();
}

/// Secrets and settings are of its name: who takes it would get them.
#[test]
fn a_tool_stays_with_its_entry_though_that_cannot_be_read() {
    let world = World::new();
    write_tool(&world, "a.json", "up", "sh", "1.0.0");
    write_tool(&world, "b.json", "low", "sh", "2.0.0");
    let both = "capabilities:\n- {name: low, manifest: b.json}\n- {name: up, manifest: a.json}\n";
    let list = write_list(&world, "list.yaml", both);
    let install =
        |code: u8| world.run(&["install-all", "--capabilities", &list, "--json"]).expect(code).json();
    let _ = install(exit::OK);
    write_tool(&world, "b.json", "up", "sh", "9.0.0");
    for is_there in [true, false] {
        if !is_there {
            std::fs::remove_file(world.file("a.json")).expect("removed");
        }
        let told = install(exit::DOMAIN);
        let refused = &told["entries"][0]["error"];
        assert_eq!(refused["code"], "install.capability_twice", "{told:#}");
        assert_eq!(refused["message"], "\"up\" is already installed by the entry \"up\"", "{told:#}");
        let listed = world.json(&["list", "--json"]);
        assert!(!listed.to_string().contains("9.0.0"), "{listed:#}");
    }
    world.write("list.yaml", "capabilities:\n- {name: low, manifest: b.json}\n");
    assert_eq!(install(exit::OK)["entries"][0]["version"], "9.0.0", "its entry has gone");
}

#[test]
fn a_change_of_name_takes_no_tool_of_another_list() {
    let world = World::new();
    write_tool(&world, "one.json", "first", "sh", "1.0.0");
    write_tool(&world, "two.json", "second", "sh", "1.0.0");
    let one = write_list(&world, "one.yaml", "capabilities: [{name: first, manifest: one.json}]\n");
    let two = write_list(&world, "two.yaml", "capabilities: [{name: second, manifest: two.json}]\n");
    let install = |list: &str, code: u8| {
        world.run(&["install-all", "--capabilities", list, "--json"]).expect(code).json()
    };
    for list in [&one, &two] {
        let _ = install(list, exit::OK);
    }
    write_tool(&world, "two.json", "first", "sh", "2.0.0");
    let told = install(&two, exit::DOMAIN);
    let error = &told["entries"][0]["error"];
    assert_eq!(error["code"], "install.capability_of_another_list", "{told:#}");
    let words = format!("\"first\" is installed from {one}, and this entry gave \"second\" until now");
    assert_eq!(error["message"], words.as_str(), "{told:#}");
    let listed = world.run(&["list"]).expect(exit::OK);
    assert!(
        listed.stdout.contains("first v1.0.0") && listed.stdout.contains("second"),
        "{}",
        listed.describe()
    );
    // Where that list is gone nobody is robbed.
    std::fs::remove_file(&one).expect("removed");
    let _ = install(&two, exit::OK);
}

/// What `call` says of the tools that were asked for, one after the other.
fn said(world: &World, tools: &[&str]) -> Vec<String> {
    let say = |tool: &&str| world.run(&["call", tool, "--action", "say", "-r"]).expect(exit::OK).stdout;
    tools.iter().map(say).collect()
}

fn names_installed(world: &World) -> Vec<String> {
    let listed = world.json(&["list", "--json"]);
    let all = listed["capabilities"].as_array().expect("tools").iter();
    let mut names: Vec<String> = all.filter_map(|tool| Some(tool["name"].as_str()?.to_owned())).collect();
    names.sort();
    names
}

/// Secrets, settings and jobs are of a name.
#[test]
fn regenerating_a_tool_that_has_another_name_now_takes_the_place_of_none() {
    let world = World::new();
    for (file, name, version) in [("a.json", "one", "1.0.0"), ("b.json", "two", "2.0.0")] {
        write_tool(&world, file, name, "sh", version);
        let text = format!("capabilities: [{{name: {name}-entry, manifest: {file}}}]\n");
        let list = write_list(&world, &format!("{name}.yaml"), &text);
        let _ = world.run(&["install-all", "--capabilities", &list]).expect(exit::OK);
    }
    let manifest_of = |name: &str| std::fs::read(world.data_dir().join(format!("manifests/{name}.json")));
    let before = ["one", "two"].map(|name| manifest_of(name).expect("installed"));
    write_tool(&world, "a.json", "two", "sh", "9.0.0");
    let other = world.file("b.json").display().to_string();
    for command in [&["regenerate-manifest", "one"][..], &["regenerate-manifest", "one", "--package", &other]]
    {
        let refused = world.run(command).expect(exit::DOMAIN);
        assert!(refused.stderr.contains("calls itself \"two\" now, not \"one\""), "{}", refused.describe());
        let step = format!("install-all --capabilities {}`", world.file("one.yaml").display());
        assert!(refused.stderr.contains(&step), "{}", refused.describe());
        assert_eq!(["one", "two"].map(|name| manifest_of(name).expect("installed")), before);
    }
    write_tool(&world, "a.json", "one", "sh", "1.1.0");
    let _ = world.run(&["regenerate-manifest", "one"]).expect(exit::OK);
    assert_ne!(manifest_of("one").expect("installed"), before[0], "under its own name it is written anew");
}

#[test]
fn an_environment_that_another_list_names_keeps_its_tool() {
    let Some(world) = world_with_uv("an_environment_that_another_list_names_keeps_its_tool") else { return };
    let folder = world.file("");
    let write = |list: &str, package: &str| {
        let entry =
            format!("{{name: entry, package: ./{package}, env_name: shared, python_version: '>=3.9'}}");
        write_list(&world, list, &format!("capabilities: [{entry}]\n"))
    };
    for package in ["first", "second"] {
        write_package(&folder, package);
    }
    let (one, two) = (write("one.yaml", "first"), write("two.yaml", "second"));
    let install = |list: &str, more: &[&str], code: u8| {
        let command = [&["install-all", "--capabilities", list, "--json"], more].concat();
        world.run(&command).expect(code).json()["entries"][0].clone()
    };
    let who = |tool: &str| world.run(&["call", tool, "--action", "who", "-r"]).expect(exit::OK).stdout;
    let _ = install(&one, &[], exit::OK);
    for more in [&[][..], &["--force"]] {
        let told = install(&two, more, exit::DOMAIN);
        assert_eq!(told["error"]["code"], "install.environment_of_another_list", "{told:#}");
        let message =
            format!("`env_name: shared` is the environment of \"first\", which is installed from {one}");
        assert_eq!(told["error"]["message"], message.as_str(), "{told:#}");
        let step = told["error"]["next_step"].as_str().unwrap_or_default();
        assert!(step.contains("another `env_name`") && step.contains("remove first`"), "{told:#}");
        assert_eq!(
            (names_installed(&world), who("first").as_str()),
            (vec!["first".to_owned()], "I am first\n")
        );
        assert_eq!(install(&one, &[], exit::OK)["result"], "unchanged");
    }
    // What another list makes of the same package is the same tool, whatever its name is now; and so is a tool of the same
    // name from elsewhere.
    let class = folder.join("first/first/capability.py");
    let text = std::fs::read_to_string(&class).expect("a class");
    std::fs::write(&class, text.replace("\"first\"", "\"renamed\"")).expect("written");
    let copied = write("copied.yaml", "first");
    assert_eq!(install(&copied, &[], exit::OK)["renamed_from"], "first");
    let class = folder.join("second/second/capability.py");
    let text = std::fs::read_to_string(&class).expect("a class");
    std::fs::write(&class, text.replace("\"second\"", "\"renamed\"")).expect("written");
    let told = install(&two, &[], exit::OK);
    assert!(words(&told["warnings"]).contains(&format!("was installed from {copied} before")), "{told:#}");
    // Where that list is gone nobody is robbed.
    std::fs::write(&class, text).expect("written");
    std::fs::remove_file(&two).expect("removed");
    let three = write("three.yaml", "first");
    std::fs::remove_file(&class).expect("removed");
    assert_eq!(install(&three, &[], exit::OK)["capability"], "renamed");
    world.assert_nothing_left();
}

#[test]
fn a_tool_without_an_environment_that_has_another_name_now_is_gone_under_the_old_one() {
    let world = World::new();
    write_tool(&world, "tool.json", "mood", "sh", "1.0.0");
    let list = write_list(&world, "list.yaml", "capabilities: [{name: entry, manifest: tool.json}]\n");
    let install = ["install-all", "--capabilities", &list, "--json"];
    let _ = world.json(&install);
    let _ = world.run(&["set-secret", "mood", "API_KEY", "--value", "a long secret"]).expect(exit::OK);
    assert_eq!(said(&world, &["mood"]), ["hi\n"]);
    // What the user set in it goes along.
    let installed = |name: &str| world.data_dir().join(format!("manifests/{name}.json"));
    let text = std::fs::read_to_string(installed("mood")).expect("installed");
    let mut by_hand: Value = serde_json::from_str(&text).expect("a manifest");
    by_hand["install"]["env_vars"]["MINE"] = json!("kept");
    std::fs::write(installed("mood"), by_hand.to_string()).expect("written");
    write_tool(&world, "tool.json", "moody", "sh", "2.0.0");
    let entry = world.json(&install)["entries"][0].clone();
    let told =
        ["renamed_from", "capability", "version_before"].map(|key| entry[key].as_str().unwrap_or_default());
    assert_eq!(told, ["mood", "moody", "1.0.0"], "{entry:#}");
    let told = words(&entry["warnings"]);
    assert!(told.contains("mood is called moody now, as its source says"), "{entry:#}");
    assert!(told.contains("list-secrets mood`"), "{entry:#}");
    assert_eq!(names_installed(&world), ["moody"]);
    let text = std::fs::read_to_string(installed("moody")).expect("installed");
    assert!(text.contains("\"MINE\": \"kept\""), "{text}");
    let rows = world.run(&["logs", "--journal", "--type", "capability_removed", "--json"]).expect(exit::OK);
    assert!(rows.stdout.contains("\"renamed_to\":\"moody\""), "{}", rows.describe());
    // What the user copied under a name of its own is no old name of it.
    std::fs::write(installed("mine"), text.replace("\"moody\"", "\"mine\"")).expect("written");
    write_tool(&world, "tool.json", "moody", "sh", "3.0.0");
    assert_eq!(world.json(&install)["entries"][0]["renamed_from"], Value::Null);
    assert_eq!(names_installed(&world), ["mine", "moody"]);
    write_tool(&world, "tool.json", "other", "sh", "4.0.0");
    let entry = world.json(&install)["entries"][0].clone();
    let told = words(&entry["warnings"]);
    for old in ["mine", "moody"] {
        let stays = format!("{old} came from the same file, and stays beside other");
        assert!(told.contains(&stays) && told.contains(&format!("remove {old}`")), "{entry:#}");
    }
    assert_eq!(names_installed(&world), ["mine", "moody", "other"]);
}

#[test]
fn tools_that_pass_their_names_on_are_all_there_in_whatever_order_the_list_has_them() {
    for order in [["x", "y"], ["y", "x"]] {
        let world = World::new();
        let entry = |name: &str| format!("- {{name: {name}, manifest: {name}.json}}\n");
        let text = format!("capabilities:\n{}", order.map(entry).concat());
        let list = write_list(&world, "list.yaml", &text);
        let give = |x: &str, y: &str, version: &str| {
            write_tool(&world, "x.json", x, "sh", version);
            write_tool(&world, "y.json", y, "sh", version);
        };
        let install = |code: u8| {
            world.run(&["install-all", "--capabilities", &list, "--json"]).expect(code).json()["entries"]
                .clone()
        };
        let of = |entries: &Value, name: &str| {
            let all = entries.as_array().expect("entries").iter();
            all.clone().find(|entry| entry["name"] == name).cloned().expect("its entry")
        };
        give("a", "b", "1.0.0");
        let _ = install(exit::OK);
        let _ = world.run(&["set-secret", "b", "API_KEY", "--value", "a long secret"]).expect(exit::OK);
        give("b", "c", "2.0.0");
        let entries = install(exit::OK);
        for (name, old, new) in [("x", "a", "b"), ("y", "b", "c")] {
            let told = of(&entries, name);
            assert_eq!((&told["renamed_from"], &told["capability"]), (&json!(old), &json!(new)), "{told:#}");
        }
        let told = words(&of(&entries, "y")["warnings"]);
        assert!(
            told.contains("b is the tool of the entry x now; its secrets stay under that name"),
            "{told}"
        );
        assert_eq!(
            (names_installed(&world), said(&world, &["b", "c"]).len()),
            (vec!["b".into(), "c".into()], 2)
        );
        // Of two that swap their names neither can be first, and the step says how.
        give("c", "b", "3.0.0");
        let entries = install(exit::DOMAIN);
        for (name, taken, owner) in [("x", "c", "y"), ("y", "b", "x")] {
            let error = of(&entries, name)["error"].clone();
            assert_eq!(error["code"], "install.capability_twice", "{error:#}");
            let step = error["next_step"].as_str().unwrap_or_default().to_owned();
            let words = format!("where \"{owner}\" has another name by now");
            assert!(step.contains(&words) && step.contains(&format!("remove {taken}`")), "{error:#}");
        }
        assert_eq!(
            (names_installed(&world), said(&world, &["b", "c"]).len()),
            (vec!["b".into(), "c".into()], 2)
        );
        let _ = world.run(&["remove", "c", "-y"]).expect(exit::OK);
        let entries = install(exit::OK);
        assert_eq!(of(&entries, "x")["capability"], "c", "{entries:#}");
        assert_eq!(of(&entries, "y")["capability"], "b", "{entries:#}");
        assert_eq!(names_installed(&world), ["b", "c"]);
    }
}
