//! Lists of capabilities as people write and keep them: keys that are mistyped, several lists, entries whose names are not
//! those of their tools, and updates that fail.

use cjm_tests::tool_lists::{words, write_list, write_tool};
use cjm_tests::world::{World, manifest};
use cjm_wire::describe::exit;
use serde_json::{Value, json};

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
    assert!(
        words(&entry["warnings"]).contains("cannot be called until its program is there again"),
        "{entry:#}"
    );
    cjm_tests::world::write_script(program.as_ref(), "#!/bin/sh\necho back\n");
    assert_eq!(world.run(&["call", "tool", "--action", "say", "-r"]).expect(exit::OK).stdout, "back\n");
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
        assert_eq!(
            installed().matches(&folder).count(),
            4,
            "list, source and twice the program: {}",
            installed()
        );
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
fn a_number_in_the_place_of_a_name_is_told_once_by_validate_as_by_install_all() {
    let world = World::new();
    write_tool(&world, "5", "five", "sh", "1.0.0");
    for (entry, words) in [
        ("{name: a, manifest: 5}", "entry \"a\": `manifest` is 5, and must be one text"),
        ("{name: true, manifest: '5'}", "entry \"true\": `name` is true, and must be one text"),
        (
            "{name: a, env_name: e, package: 5, python_version: 3.10}",
            "entry \"a\": `package` is 5, and must be one text",
        ),
        (
            "{name: a, env_name: 310, package: p, python_version: 3.10}",
            "entry \"a\": `env_name` is 310, and must be one text",
        ),
    ] {
        let list = write_list(&world, "list.yaml", &format!("capabilities:\n- {entry}\n"));
        let verdict = world.run(&["validate", &list, "--json"]).expect(exit::DOMAIN).json();
        let errors = verdict["errors"].as_array().expect("errors");
        assert_eq!((errors.len(), &errors[0]["message"]), (1, &json!(words)), "{entry}: {verdict:#}");
        let command = ["install-all", "--capabilities", &list, "--json"];
        let failed = world.run(&command).expect(exit::DOMAIN).json()["entries"][0]["error"].clone();
        let (_, of_key) = words.split_once(": ").expect("words");
        assert!(failed["message"].as_str().is_some_and(|told| told.ends_with(of_key)), "{failed:#}");
    }
    let quoted = write_list(&world, "list.yaml", "capabilities: [{name: '5', manifest: '5'}]\n");
    let _ = world.run(&["validate", &quoted]).expect(exit::OK);
    let _ = world.run(&["install-all", "--capabilities", &quoted]).expect(exit::OK);
}

/// A builder would read it until the memory ends.
#[test]
fn a_package_folder_with_a_device_in_it_is_refused_before_anything_is_built() {
    let world = World::new();
    std::fs::create_dir_all(world.file("pack/pack")).expect("a folder");
    world.write("pack/pyproject.toml", "[project]\nname = \"pack\"\nversion = \"1.0.0\"\n");
    std::os::unix::fs::symlink("/dev/zero", world.file("pack/pack/data.bin")).expect("linked");
    let text = "capabilities: [{name: p, package: ./pack, env_name: p, python_version: '>=3.9'}]\n";
    let list = write_list(&world, "list.yaml", text);
    let verdict = world.run(&["validate", &list, "--json"]).expect(exit::DOMAIN).json();
    let report = world.run(&["install-all", "--capabilities", &list, "--json"]).expect(exit::DOMAIN).json();
    let error = &report["entries"][0]["error"];
    for told in [&verdict["errors"][0], error] {
        let (message, step) = (told["message"].as_str().unwrap_or_default(), &told["next_step"]);
        assert_eq!(told["code"], "install.no_file_in_folder", "{verdict:#} {report:#}");
        assert!(
            message.ends_with(
                "holds a device, or a link to one: PATH"
                    .replace("PATH", &world.file("pack/pack/data.bin").display().to_string())
                    .as_str()
            ),
            "{message}"
        );
        assert!(
            step.as_str().is_some_and(|step| step.contains("rm ") && step.contains("data.bin`")),
            "{told:#}"
        );
    }
    assert_eq!(verdict["errors"].as_array().map(Vec::len), Some(1), "{verdict:#}");
}

#[test]
fn a_list_without_its_key_or_in_another_encoding_is_told_alike_by_validate_and_install_all() {
    let world = World::new();
    let bare = write_list(&world, "bare.yaml", "- name: s\n");
    let empty = write_list(&world, "empty.yaml", "capabilities:\n");
    let latin = world.write("latin.yaml", b"capabilities: []\n# caf\xe9\n").display().to_string();
    for (list, words) in [
        (&bare, "next: write `capabilities:` in a line of its own above"),
        (&empty, "next: write the entries as a list below `capabilities:`"),
        (&latin, "next: save it as UTF-8"),
    ] {
        for command in [&["validate", list][..], &["install-all", "--capabilities", list]] {
            let told = world.run(command).expect(exit::DOMAIN);
            assert_eq!(told.stderr.matches(words).count(), 1, "{}", told.describe());
            assert_eq!(told.stderr.matches("next: ").count(), 1, "{}", told.describe());
        }
    }
    let told = world.run(&["validate", &empty]).expect(exit::DOMAIN);
    assert!(told.stderr.contains("line 1, column 13: `capabilities` is empty"), "{}", told.describe());
    for text in ["", "\n", "# to be written\n"] {
        let nothing = write_list(&world, "nothing.yaml", text);
        let told = world.run(&["validate", &nothing]).expect(exit::DOMAIN);
        assert!(told.stderr.contains("nothing.yaml is empty"), "{}", told.describe());
    }
}

#[test]
fn of_two_entries_of_one_name_the_one_with_the_mistyped_key_is_told_once_at_its_place() {
    let world = World::new();
    write_tool(&world, "tool.json", "tool", "sh", "1.0.0");
    let wrong = "- {name: tool, manifst: tool.json}\n";
    let right = "- {name: tool, manifest: tool.json}\n";
    for (entries, line, place) in [([wrong, right], 2, 0), ([right, wrong], 3, 1)] {
        let list = write_list(&world, "list.yaml", &format!("capabilities:\n{}", entries.concat()));
        let verdict = world.run(&["validate", &list, "--json"]).expect(exit::DOMAIN).json();
        let errors = verdict["errors"].as_array().expect("errors");
        let (message, at) = (errors[0]["message"].as_str().unwrap_or_default(), &errors[0]["line"]);
        assert_eq!((errors.len(), at), (1, &json!(line)), "{verdict:#}");
        assert!(message.contains("has `manifst` (did you mean \"manifest\"?)"), "{verdict:#}");
        let install = ["install-all", "--capabilities", &list, "--json"];
        let report = world.run(&install).expect(exit::DOMAIN).json();
        let failed = |entry: usize| !report["entries"][entry]["error"].is_null();
        assert_eq!((failed(place), failed(1 - place)), (true, false), "{report:#}");
    }
}

#[test]
fn a_list_that_the_settings_name_and_that_is_missing_is_told_with_who_names_it() {
    let world = World::new();
    world.write("cjm.yaml", "capabilities_config: tools.yaml\n");
    let missing = world.run(&["install-all"]).expect(exit::DOMAIN);
    let names = format!("`capabilities_config` in {} names it", world.file("cjm.yaml").display());
    assert!(missing.stderr.contains(&names), "{}", missing.describe());
    // What is wrong with one that is there, and what somebody named, is told as ever.
    write_list(&world, "tools.yaml", "capabilities: 5\n");
    for arguments in [&["install-all"][..], &["install-all", "--capabilities", "nowhere.yaml"]] {
        let told = world.run(arguments).expect(exit::DOMAIN);
        assert!(!told.stderr.contains("names it"), "{}", told.describe());
    }
    std::fs::remove_file(world.file("cjm.yaml")).expect("removed");
    let usual = world.run(&["install-all"]).expect(exit::DOMAIN);
    assert!(usual.stderr.contains("run the command where capabilities.yaml lies"), "{}", usual.describe());
}
