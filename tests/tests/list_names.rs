//! Tools that get another name: which of a list, of an entry and of what a user set goes along, and that none of another
//! tool's is taken.

use cjm_tests::package::{world_with_uv, write_package};
use cjm_tests::repo;
use cjm_tests::tool_lists::{words, write_list, write_tool};
use cjm_tests::world::World;
use cjm_wire::describe::exit;
use serde_json::{Value, json};

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
    let stored = world.data_dir().join("data/mood");
    std::fs::create_dir_all(stored.join("db")).expect("a folder");
    class("moody");
    let entry = world.json(&install)["entries"][0].clone();
    assert_eq!(
        (&entry["renamed_from"], &entry["capability"]),
        (&json!("mood"), &json!("moody")),
        "{entry:#}"
    );
    let told = words(&entry["warnings"]);
    assert!(told.contains("mood is called moody now") && told.contains("list-secrets mood`"), "{entry:#}");
    assert!(told.contains(&format!("`mv {0} {0}y` before its next call", stored.display())), "{entry:#}");
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
    let _ = world.run(&["regenerate-manifest", "one", "--package", "gone.json"]).expect(exit::DOMAIN);
    let _ = world.run(&["regenerate-manifest", "one", "--package", "a.json"]).expect(exit::OK);
    let text = String::from_utf8(manifest_of("one").expect("installed")).expect("text");
    let source = format!("\"package_source\": \"{}\"", world.file("a.json").display());
    assert!(text.contains(&source), "{text}");
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
    // One of its own is in nobody's way.
    let entry = "{name: entry, package: ./second, env_name: apart, python_version: '>=3.9'}";
    let apart = write_list(&world, "apart.yaml", &format!("capabilities: [{entry}]\n"));
    assert_eq!(install(&apart, &[], exit::OK)["capability"], "second");
    let _ = world.run(&["remove", "second", "-y"]).expect(exit::OK);
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

/// Also where the fault is in the name of the environment itself, and in whatever order the list has them.
#[test]
fn an_environment_stays_with_its_entry_though_that_has_a_fault_now() {
    let Some(world) = world_with_uv("an_environment_stays_with_its_entry_though_that_has_a_fault_now") else {
        return;
    };
    for package in ["tool-one", "tool-two"] {
        write_package(&world.file(""), package);
    }
    let sound = "name: a, package: ./tool-one, env_name: '310', python_version: '>=3.9'";
    let other = "name: b, package: ./tool-two, env_name: '310', python_version: '>=3.9'";
    let install = |entries: &[&str], code: u8| {
        let entries: String = entries.iter().map(|entry| format!("- {{{entry}}}\n")).collect();
        let list = write_list(&world, "list.yaml", &format!("capabilities:\n{entries}"));
        world.run(&["install-all", "--capabilities", &list, "--json"]).expect(code).json()["entries"].clone()
    };
    let _ = install(&[sound], exit::OK);
    let faulty = [
        format!("{sound}, worker: []"),
        sound.replace("env_name", "env_nam"),
        // As a list may have it that was written when a number was taken for a name.
        sound.replace("'310'", "310"),
        sound.replace("./tool-one", "[]"),
        format!("{sound}, manifest: x.json"),
        sound.to_owned(),
    ];
    for entry in &faulty {
        for (entries, at) in [([entry, other], 1), ([other, entry], 0)] {
            let told = install(&entries, exit::DOMAIN);
            assert_eq!(told[at]["error"]["code"], "install.shared_environment", "{entry}: {told:#}");
            let words = "`env_name: 310` is already the environment of \"a\"";
            assert_eq!(told[at]["error"]["message"], words, "{entry}: {told:#}");
            assert_eq!(names_installed(&world), ["tool-one"], "{entry}");
        }
    }
    // One with a fault gives nothing: where nothing of it is there it is in nobody's way.
    let _ = world.run(&["remove", "tool-one", "-y"]).expect(exit::OK);
    let told = install(&[&faulty[0], other], exit::DOMAIN);
    assert_eq!(
        (&told[0]["result"], &told[1]["capability"]),
        (&json!("failed"), &json!("tool-two")),
        "{told:#}"
    );
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

/// What a Python tool is called is known only once it has been made.
#[test]
fn python_tools_that_pass_their_names_on_are_all_there_after_one_run() {
    let Some(world) = world_with_uv("python_tools_that_pass_their_names_on_are_all_there_after_one_run")
    else {
        return;
    };
    for name in ["x", "y"] {
        write_package(&world.file(""), name);
    }
    let class = |package: &str, name: &str| {
        let path = world.file(&format!("{package}/{package}/capability.py"));
        let text = std::fs::read_to_string(&path).expect("a class");
        let line = text.lines().find(|line| line.trim_start().starts_with("name = ")).expect("its name");
        let renamed = text.replace(line, &format!("    name = \"{name}\""));
        std::fs::write(&path, renamed).expect("written");
    };
    let python = |name: &str| {
        format!("- {{name: {name}, package: ./{name}, env_name: {name}, python_version: '>=3.9'}}\n")
    };
    write_tool(&world, "z.json", "c", "sh", "1.0.0");
    let text = format!("capabilities:\n- {{name: z, manifest: z.json}}\n{}{}", python("x"), python("y"));
    let list = write_list(&world, "list.yaml", &text);
    let install = |code: u8| {
        world.run(&["install-all", "--capabilities", &list, "--json"]).expect(code).json()["entries"].clone()
    };
    class("x", "a");
    class("y", "b");
    let _ = install(exit::OK);
    assert_eq!(names_installed(&world), ["a", "b", "c"]);
    // Each takes the name of the one after it, and what is no Python tool the first one's.
    class("x", "b");
    class("y", "d");
    write_tool(&world, "z.json", "a", "sh", "2.0.0");
    let entries = install(exit::OK);
    for (at, old, new) in [(0, "c", "a"), (1, "a", "b"), (2, "b", "d")] {
        let told = &entries[at];
        assert_eq!((&told["renamed_from"], &told["capability"]), (&json!(old), &json!(new)), "{entries:#}");
    }
    assert_eq!(names_installed(&world), ["a", "b", "d"]);
    for (tool, says) in [("b", "I am x\n"), ("d", "I am y\n")] {
        assert_eq!(world.run(&["call", tool, "--action", "who", "-r"]).expect(exit::OK).stdout, says);
    }
    // One that is to have the name of a tool that stays is refused, and told once.
    class("y", "b");
    let told = world.run(&["install-all", "--capabilities", &list]).expect(exit::DOMAIN);
    assert_eq!(told.stderr.matches("already installed by the entry").count(), 1, "{}", told.describe());
    assert_eq!(names_installed(&world), ["a", "b", "d"]);
    world.assert_nothing_left();
}

/// Changes the manifest of a tool as its user does, with an editor.
fn edit_manifest(world: &World, tool: &str, edit: impl Fn(&mut Value)) {
    let path = world.data_dir().join(format!("manifests/{tool}.json"));
    let mut manifest: Value =
        serde_json::from_slice(&std::fs::read(&path).expect("installed")).expect("JSON");
    edit(&mut manifest);
    std::fs::write(&path, manifest.to_string()).expect("written");
}

fn manifest_of(world: &World, tool: &str) -> Value {
    let text = std::fs::read(world.data_dir().join(format!("manifests/{tool}.json"))).expect("installed");
    serde_json::from_slice(&text).expect("JSON")
}

#[test]
fn what_the_user_wrote_into_the_manifest_of_a_class_outlives_looking_again_and_an_update() {
    let name = "what_the_user_wrote_into_the_manifest_of_a_class_outlives_looking_again_and_an_update";
    let Some(world) = world_with_uv(name) else { return };
    write_package(&world.file(""), "greeter");
    let class = world.file("greeter/greeter/capability.py");
    let text = std::fs::read_to_string(&class).expect("a class");
    let text = text.replace("return begin", "import os\n        return os.environ[\"GREETING\"]");
    std::fs::write(&class, &text).expect("written");
    let entry = "{name: entry, package: ./greeter, env_name: greeter, python_version: '>=3.9'}";
    let list = write_list(&world, "list.yaml", &format!("capabilities: [{entry}]\n"));
    let install = ["install-all", "--capabilities", &list, "--json"];
    let _ = world.json(&install);
    edit_manifest(&world, "greeter", |manifest| {
        manifest["code"]["worker_env"] = json!([{"name": "GREETING", "default": "Good day from"}]);
        manifest["code"]["description"] = json!("Greets.");
        manifest["code"]["idempotent"] = json!(true);
    });
    let is_as_written = || {
        let said = world.run(&["call", "greeter", "--action", "who", "-r"]).expect(exit::OK).stdout;
        assert_eq!(said, "Good day from greeter\n");
        let code = manifest_of(&world, "greeter")["code"].clone();
        assert_eq!(
            (&code["description"], &code["idempotent"]),
            (&json!("Greets."), &json!(true)),
            "{code:#}"
        );
    };
    is_as_written();
    let _ = world.run(&["regenerate-manifest", "greeter"]).expect(exit::OK);
    is_as_written();
    let told_from = |package: &str, code: u8| {
        let command = ["regenerate-manifest", "greeter", "--package", package];
        let told = world.run(&command).expect(code).stderr;
        (told, manifest_of(&world, "greeter")["install"]["package_source"].clone())
    };
    let source = json!(world.file("greeter").display().to_string());
    let (told, kept) = told_from("./nowhere/greeter", exit::DOMAIN);
    assert!(told.contains("cannot find the package") && told.contains("/nowhere/greeter"), "{told}");
    assert_eq!(kept, source);
    assert_eq!(told_from("./greeter/", exit::OK).1, source);
    is_as_written();
    std::fs::write(&class, text.replace("1.0.0", "1.1.0")).expect("written");
    let told = world.json(&install)["entries"][0].clone();
    assert_eq!((&told["result"], &told["version"]), (&json!("installed"), &json!("1.1.0")), "{told:#}");
    is_as_written();
    world.assert_nothing_left();
}

/// Makes the class of a package call itself otherwise.
fn rename_class(world: &World, package: &str, from: &str, to: &str) {
    let class = world.file(&format!("{package}/{package}/capability.py"));
    let text = std::fs::read_to_string(&class).expect("a class");
    std::fs::write(&class, text.replace(&format!("\"{from}\""), &format!("\"{to}\""))).expect("written");
}

fn set_by_hand(world: &World, tool: &str) {
    edit_manifest(world, tool, |manifest| {
        manifest["overrides"] = json!({"grace": 3});
        manifest["install"]["env_vars"]["REGION"] = json!("mine");
    });
}

fn values_set(world: &World, tool: &str) -> (Value, Value) {
    let manifest = manifest_of(world, tool);
    (manifest["overrides"]["grace"].clone(), manifest["install"]["env_vars"]["REGION"].clone())
}

#[test]
fn what_was_set_in_a_python_tool_goes_along_with_its_new_name_and_into_no_other_tool() {
    let name = "what_was_set_in_a_python_tool_goes_along_with_its_new_name_and_into_no_other_tool";
    let Some(world) = world_with_uv(name) else { return };
    for package in ["alpha", "beta"] {
        write_package(&world.file(""), package);
    }
    let install = |list: &str, package: &str| {
        let entry = format!("{{name: entry, package: ./{package}, env_name: ea, python_version: '>=3.9'}}");
        let list = write_list(&world, list, &format!("capabilities: [{entry}]\n"));
        world.json(&["install-all", "--capabilities", &list, "--json"])["entries"][0].clone()
    };
    let _ = install("list.yaml", "alpha");
    // A journal begins with the first host.
    let _ = world.run(&["call", "alpha"]).expect(exit::OK);
    set_by_hand(&world, "alpha");
    rename_class(&world, "alpha", "alpha", "delta");
    let told = install("list.yaml", "alpha");
    assert_eq!((&told["renamed_from"], &told["displaced"]), (&json!("alpha"), &Value::Null), "{told:#}");
    assert_eq!(values_set(&world, "delta"), (json!(3), json!("mine")));

    // The same entry, and the list of another one after this one is gone: both make another tool.
    let check = |told: &Value, old: &str, new: &str| {
        let named = [&told["capability"], &told["displaced"], &told["renamed_from"], &told["version_before"]];
        assert_eq!(named, [&json!(new), &json!(old), &Value::Null, &Value::Null], "{told:#}");
        let warned = words(&told["warnings"]);
        assert!(
            warned.contains(&format!("the environment of {old} is that of {new} now"))
                && !warned.contains("is called"),
            "{told:#}"
        );
        assert_eq!(
            (names_installed(&world), values_set(&world, new)),
            (vec![new.to_owned()], (Value::Null, Value::Null))
        );
    };
    check(&install("list.yaml", "beta"), "delta", "beta");
    let rows = world.run(&["logs", "--journal", "--type", "capability_removed", "--json"]).expect(exit::OK);
    assert!(rows.stdout.contains("\"displaced_by\":\"beta\""), "{}", rows.describe());
    set_by_hand(&world, "beta");
    std::fs::remove_file(world.file("list.yaml")).expect("removed");
    check(&install("another.yaml", "alpha"), "beta", "delta");
    world.assert_nothing_left();
}

/// Whose file was changed is told, and not who has had the name all along.
#[test]
fn of_two_entries_of_one_name_the_one_whose_file_was_changed_is_blamed_by_validate_as_by_install_all() {
    for order in [["a", "b"], ["b", "a"]] {
        let world = World::new();
        write_tool(&world, "a.json", "sort-lines", "sh", "1.0.0");
        write_tool(&world, "b.json", "b", "sh", "1.0.0");
        let entries: String =
            order.map(|name| format!("- {{name: {name}, manifest: {name}.json}}\n")).concat();
        let list = write_list(&world, "list.yaml", &format!("capabilities:\n{entries}"));
        let install = ["install-all", "--capabilities", &list, "--json"];
        let _ = world.json(&install);
        write_tool(&world, "a.json", "b", "sh", "1.0.0");
        let report = world.run(&install).expect(exit::DOMAIN).json();
        let verdict = world.run(&["validate", &list, "--json"]).expect(exit::DOMAIN).json();
        let errors = verdict["errors"].as_array().expect("errors");
        assert_eq!(
            (errors.len(), errors[0]["message"].as_str().unwrap_or_default()),
            (1, "entry \"a\": \"b\" is already installed by the entry \"b\""),
            "{verdict:#}"
        );
        let failed: Vec<&Value> = report["entries"]
            .as_array()
            .expect("entries")
            .iter()
            .filter(|entry| entry["result"] == "failed")
            .collect();
        assert_eq!((failed.len(), &failed[0]["name"]), (1, &json!("a")), "{report:#}");
        for told in [&errors[0], &failed[0]["error"]] {
            let step = told["next_step"].as_str().unwrap_or_default();
            assert!(told["code"] == "install.capability_twice" && step.contains("another name"), "{told:#}");
        }
        // What gives a name up is in nobody's way, in whatever order.
        write_tool(&world, "b.json", "c", "sh", "1.0.0");
        let _ = world.run(&["validate", &list]).expect(exit::OK);
        let _ = world.run(&install).expect(exit::OK);
        // Two that swap their names wait for each other.
        write_tool(&world, "a.json", "c", "sh", "1.0.0");
        write_tool(&world, "b.json", "b", "sh", "1.0.0");
        let report = world.run(&install).expect(exit::DOMAIN).json();
        let verdict = world.run(&["validate", &list, "--json"]).expect(exit::DOMAIN).json();
        let codes = |all: &Value, key: &str| {
            all.as_array()
                .expect("entries")
                .iter()
                .map(|one| one.pointer(key).cloned().unwrap_or_default())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            codes(&verdict["errors"], "/code"),
            codes(&report["entries"], "/error/code"),
            "{verdict:#} {report:#}"
        );
        assert_eq!(codes(&verdict["errors"], "/code"), ["install.capability_twice"; 2]);
    }
}
