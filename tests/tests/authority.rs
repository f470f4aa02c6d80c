//! A name gives no right: what lies in a folder that came from elsewhere does not run by itself, gets nobody's secrets,
//! and takes no tool away; and what is asked of the user can be done as it is told.

use cjm_tests::world::{Outcome, World, manifest};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A manifest of a shell command.
fn shell(name: &str, script: &str, more: &Value) -> Value {
    let actions = json!({"go": {"argv": ["-c", script], "result": "stdout_text"}});
    let mut code = json!({"runtime": {"kind": "executable", "program": "/bin/sh", "actions": actions}});
    for (key, value) in more.as_object().into_iter().flatten() {
        code[key] = value.clone();
    }
    manifest(name, &code, &json!({}))
}

fn declares_key(required: bool) -> Value {
    json!({"worker_env": [{"name": "API_KEY", "secret": true, "required": required}]})
}

/// A folder as it comes out of an archive, with these manifests in `.cjm/manifests`.
fn cloned(world: &World, manifests: &[(&str, Value)]) -> PathBuf {
    let project = world.file("cloned");
    let folder = project.join(".cjm/manifests");
    std::fs::create_dir_all(&folder).expect("mkdir");
    for (file, manifest) in manifests {
        std::fs::write(folder.join(file), manifest.to_string()).expect("write");
    }
    project
}

/// Runs `cjm-ctl` there. The user's own data directory is named by HOME alone, as most people have it.
fn there(world: &World, folder: &Path, arguments: &[&str]) -> Outcome {
    let mut command = Command::new("/bin/sh");
    let script = "cd \"$0\" && exec \"$@\"";
    command.arg("-c").arg(script).arg(folder).arg(cjm_tests::repo::binary("cjm-ctl")).args(arguments);
    command.env("HOME", world.file("home"));
    world.start_command(command).wait(cjm_tests::world::COMMAND_MAX)
}

/// A home whose data directory holds `manifests`.
fn home(world: &World, manifests: &[(&str, Value)]) -> PathBuf {
    let folder = world.file("home/.cjm/manifests");
    std::fs::create_dir_all(&folder).expect("mkdir");
    for (file, manifest) in manifests {
        std::fs::write(folder.join(file), manifest.to_string()).expect("write");
    }
    world.file("home/.cjm")
}

fn rows(journal: &Path, kind: &str) -> Vec<(Option<String>, String, Value)> {
    let connection = rusqlite::Connection::open(journal).expect("opens");
    let sql = "SELECT capability_name, actor, payload FROM journal WHERE event_type = ?1 ORDER BY seq";
    let mut statement = connection.prepare(sql).expect("prepares");
    let read = |row: &rusqlite::Row<'_>| {
        let payload: String = row.get(2)?;
        Ok((row.get(0)?, row.get(1)?, serde_json::from_str(&payload).unwrap_or(Value::Null)))
    };
    statement.query_map([kind], read).expect("rows").map(|row| row.expect("row")).collect()
}

#[test]
fn a_cloned_folder_runs_nothing_and_gets_no_secret_until_it_is_allowed() {
    let world = World::new();
    let mine = shell("words", "echo mine $API_KEY", &declares_key(false));
    let theirs = shell("words", "echo theirs $API_KEY; touch ran", &declares_key(false));
    let own = home(&world, &[("words.json", mine)]);
    let only_theirs = shell("other", "echo other; touch ran", &json!({}));
    let project = cloned(&world, &[("wc.json", theirs), ("other.json", only_theirs)]);
    let _ = there(&world, &world.file(""), &["set-secret", "words", "API_KEY", "--value", "hush"]).expect(0);

    let call = there(&world, &project, &["call", "words", "-r"]).expect(0);
    assert_eq!(call.stdout.trim(), "mine hush", "the user's own tool goes on working");
    assert!(call.stderr.contains("wc.json") && call.stderr.contains("cjm-ctl allow"), "{}", call.describe());
    let refused = there(&world, &project, &["call", "other", "--json"]).expect(1);
    let error = refused.json()["error"].clone();
    assert_eq!(error["code"], "manifest.not_allowed", "{}", refused.describe());
    let folder = project.join(".cjm/manifests");
    let says = |text: &str| error.to_string().contains(text);
    assert!(
        says("other.json") && says(&format!("cjm-ctl allow {}", folder.join("other.json").display())),
        "{error}"
    );
    let list = there(&world, &project, &["list", "--json"]).expect(0).json();
    assert_eq!(list["withheld"].as_array().map(Vec::len), Some(2), "{list}");
    assert!(!project.join("ran").exists() && !own.join("data/other").exists(), "nothing of it ran");

    // What the error asks for concerns that manifest alone, and can be looked at before.
    let file = folder.join("other.json").display().to_string();
    let look = there(&world, &project, &["allow", "--dry-run", &file]).expect(0);
    assert!(look.stdout.contains("Would allow other: runs /bin/sh"), "{}", look.describe());
    assert!(look.stdout.contains("  starts /bin/sh -c 'echo other; touch ran'\n"), "{}", look.describe());
    assert!(!look.stdout.contains("words"), "{}", look.describe());
    let _ = there(&world, &project, &["call", "other"]).expect(1);
    let _ = there(&world, &project, &["allow", &file]).expect(0);
    assert_eq!(there(&world, &project, &["call", "other", "-r"]).expect(0).stdout.trim(), "other");
    assert_eq!(there(&world, &project, &["call", "words", "-r"]).expect(0).stdout.trim(), "mine hush");

    let allowed = there(&world, &project, &["allow"]).expect(0);
    assert!(allowed.stdout.contains("Allowed words: runs /bin/sh"), "{}", allowed.describe());
    assert_eq!(there(&world, &project, &["call", "other", "-r"]).expect(0).stdout.trim(), "other");
    let call = there(&world, &project, &["call", "words", "-r"]).expect(0);
    assert_eq!(call.stdout.trim(), "theirs", "allowed, and still no business of the user's secret");
    assert!(call.stderr.contains("stands before") && call.stderr.contains("API_KEY"), "{}", call.describe());
    // There is one value of a name and key: setting one here does not lose the user's by the way.
    let set = ["set-secret", "words", "API_KEY", "--value", "theirs"];
    let refused = there(&world, &project, &set).expect(1);
    assert!(
        refused.stderr.contains("kept for another manifest") && refused.stderr.contains("--force"),
        "{}",
        refused.describe()
    );
    let list = there(&world, &project, &["list"]).expect(0);
    assert!(list.stdout.contains(&format!("Shadows: {}", own.join("manifests/words.json").display())));

    let changed = shell("other", "echo changed", &json!({}));
    std::fs::write(folder.join("other.json"), changed.to_string()).expect("write");
    let refused = there(&world, &project, &["call", "other"]).expect(1);
    assert!(refused.stderr.contains("changed since"), "{}", refused.describe());
    let _ = there(&world, &project, &["allow", "--revoke"]).expect(0);
    assert_eq!(there(&world, &project, &["call", "words", "-r"]).expect(0).stdout.trim(), "mine hush");
    world.assert_nothing_left();
}

#[test]
fn one_word_is_asked_for_a_folder_and_what_is_new_in_it_is_told() {
    let world = World::new();
    home(&world, &[]);
    let tool = |name: &str, says: &str| shell(name, &format!("echo {says}"), &json!({}));
    let project = cloned(&world, &[("one.json", tool("one", "1")), ("two.json", tool("two", "2"))]);
    let folder = project.join(".cjm/manifests");
    let list = there(&world, &project, &["list"]).expect(0);
    let step = format!("`cjm-ctl allow {}`", folder.display());
    assert!(
        list.stderr.contains("2 manifests in ") && list.stderr.contains("one, two"),
        "{}",
        list.describe()
    );
    assert_eq!(list.stderr.matches(&step).count(), 1, "{}", list.describe());
    let _ = there(&world, &project, &["allow", &folder.display().to_string()]).expect(0);
    std::fs::write(folder.join("one.json"), tool("one", "changed").to_string()).expect("write");
    std::fs::write(folder.join("three.json"), tool("three", "3").to_string()).expect("write");
    let list = there(&world, &project, &["list"]).expect(0);
    assert!(list.stderr.contains("one (changed since), three"), "{}", list.describe());
    let allowed = there(&world, &project, &["allow"]).expect(0);
    for words in [
        "Allowed one (changed since you allowed it): runs /bin/sh",
        "Allowed two (as before): runs /bin/sh",
        "Allowed three: runs /bin/sh",
    ] {
        assert!(allowed.stdout.contains(words), "{words}\n{}", allowed.describe());
    }
    world.assert_nothing_left();
}

#[test]
fn no_line_of_a_manifest_looks_like_one_of_ours_where_the_user_decides() {
    let world = World::new();
    home(&world, &[]);
    let actions = json!({"go": {"argv": ["a\nAllowed b: runs /bin/true"]}});
    let code = json!({"runtime": {"kind": "executable", "program": "/bin/echo\nAllowed c: runs /bin/true", "actions": actions}});
    let project = cloned(&world, &[("evil.json", manifest("evil", &code, &json!({})))]);
    for arguments in [&["allow", "--dry-run"][..], &["allow"]] {
        let told = there(&world, &project, arguments).expect(0);
        assert!(
            !told.stdout.lines().any(|line| line.starts_with("Allowed b") || line.starts_with("Allowed c")),
            "{}",
            told.describe()
        );
        assert!(
            told.stdout.contains("\\nAllowed b") && told.stdout.contains("\\nAllowed c"),
            "{}",
            told.describe()
        );
    }
    world.assert_nothing_left();
}

#[test]
fn only_what_is_new_is_a_row_of_the_journal() {
    let world = World::new();
    let own = home(&world, &[("own.json", shell("own", "echo own", &json!({})))]);
    let _ = there(&world, &world.file(""), &["call", "own"]).expect(0);
    let tool = |name: &str, says: &str| shell(name, &format!("echo {says}"), &json!({}));
    let project = cloned(&world, &[("one.json", tool("one", "1")), ("two.json", tool("two", "2"))]);
    let _ = there(&world, &project, &["allow"]).expect(0);
    let _ = there(&world, &project, &["allow"]).expect(0);
    std::fs::write(project.join(".cjm/manifests/one.json"), tool("one", "changed").to_string())
        .expect("write");
    let _ = there(&world, &project, &["allow"]).expect(0);
    let allowed: Vec<usize> = rows(&own.join("journal.db"), "manifests_allowed")
        .into_iter()
        .map(|(_, _, payload)| payload["manifests"].as_array().map_or(0, Vec::len))
        .collect();
    assert_eq!(allowed, [2, 1]);
    world.assert_nothing_left();
}

#[test]
fn a_data_directory_that_the_folder_brings_along_is_found_too_and_installing_is_the_word() {
    let world = World::new();
    home(&world, &[]);
    let project = cloned(&world, &[("evil.json", shell("evil", "touch ran", &json!({})))]);
    std::fs::write(project.join("cjm.yaml"), "data_dir: ./.cjm\n").expect("write");
    std::fs::write(project.join("tool.json"), shell("tool", "echo good", &json!({})).to_string())
        .expect("write");
    std::fs::write(project.join("capabilities.yaml"), "capabilities: [{name: tool, manifest: tool.json}]\n")
        .expect("write");
    let refused = there(&world, &project, &["call", "evil"]).expect(1);
    assert!(refused.stderr.contains("not allowed"), "{}", refused.describe());
    let _ = there(&world, &project, &["install-all"]).expect(0);
    assert_eq!(there(&world, &project, &["call", "tool", "-r"]).expect(0).stdout.trim(), "good");
    let _ = there(&world, &project, &["call", "evil"]).expect(1);
    let _ = there(&world, &project, &["remove", "evil", "-y"]).expect(1);
    assert!(!project.join("ran").exists());
    // Whoever names the directory has given the word for it.
    let _ = there(&world, &project, &["--data-dir", ".cjm", "call", "evil"]).expect(0);
    world.assert_nothing_left();
}

/// What came along may read as the rest of an update that was killed. It is put back, and is neither a word nor a reason to
/// touch anything outside.
#[test]
fn the_rest_of_an_update_that_came_along_allows_nothing_and_reaches_nowhere() {
    let world = World::new();
    home(&world, &[]);
    let project = cloned(&world, &[]);
    std::fs::write(project.join("cjm.yaml"), "data_dir: ./.cjm\n").expect("write");
    let mine = world.file("mine.json");
    std::fs::write(&mine, "{}").expect("write");
    let rest = project.join(".cjm/envs/.lab.former");
    std::fs::create_dir_all(rest.join("cjm-manifests")).expect("mkdir");
    std::fs::write(rest.join("cjm-replaced-manifests"), "evil.json\n../../../mine.json\n").expect("write");
    let evil = shell("evil", "touch ran", &json!({})).to_string();
    std::fs::write(rest.join("cjm-manifests/evil.json"), evil).expect("write");
    let list = "capabilities: [{name: lab, env_name: lab, package: ./lab, python_version: '3.12'}]\n";
    std::fs::create_dir(world.file("lab")).expect("mkdir");
    world.write(
        "lab/pyproject.toml",
        "[project]\nname = \"lab\"\nversion = \"1\"\ndependencies = [\"no-such-thing-here\"]\n",
    );
    let list = world.write("list.yaml", list).display().to_string();
    let told = there(&world, &project, &["install-all", "--offline", "--capabilities", &list]);
    assert_ne!(told.code, Some(0), "{}", told.describe());
    assert!(project.join(".cjm/manifests/evil.json").exists() && !rest.exists(), "it was put back");
    assert_eq!(std::fs::read_to_string(&mine).expect("it is there"), "{}");
    let refused = there(&world, &project, &["call", "evil"]).expect(1);
    assert!(refused.stderr.contains("not allowed"), "{}", refused.describe());
    assert!(!project.join("ran").exists());
}

/// A clone whose settings name a conda of its own, which makes the file `ran` there.
fn cloned_with_conda(world: &World) -> PathBuf {
    let project = cloned(world, &[]);
    let conda = project.join("bin/micromamba");
    std::fs::create_dir_all(project.join("bin")).expect("mkdir");
    cjm_tests::world::write_script(&conda, &format!("#!/bin/sh\ntouch {}/ran\n", project.display()));
    let config = "runtime: {conda_type: micromamba, binaries: {linux-x64: bin/micromamba, linux-arm64: bin/micromamba}}\n";
    std::fs::write(project.join("cjm.yaml"), config).expect("write");
    project
}

#[test]
fn a_program_that_only_a_found_file_names_is_not_run_for_a_look() {
    let world = World::new();
    let python = json!({"python_path": "/nowhere/python", "conda_env": "lab"});
    let lab = manifest("lab", &json!({"module": "m", "class": "C"}), &python);
    home(&world, &[("lab.json", lab)]);
    let project = cloned_with_conda(&world);
    let _ = there(&world, &project, &["list", "--json"]).expect(0);
    assert!(!project.join("ran").exists());
    let allowed = there(&world, &project, &["allow"]).expect(0);
    assert!(allowed.stdout.contains("bin/micromamba"), "{}", allowed.describe());
    let _ = there(&world, &project, &["list", "--json"]).expect(0);
    assert!(project.join("ran").exists(), "with the user's word it is asked");
}

/// Whoever installs a list of his own while standing in a clone has said nothing of what the clone's settings name.
#[test]
fn a_list_that_lies_elsewhere_is_no_word_for_the_programs_of_a_found_file() {
    let mut world = World::new();
    // Nothing is installed by it here.
    std::fs::create_dir(world.file("bin")).expect("made");
    cjm_tests::world::write_script(&world.file("bin/uv"), "#!/bin/sh\necho uv 0.9.0\n");
    world.set("PATH", format!("{}:/usr/bin:/bin", world.file("bin").display()));
    home(&world, &[]);
    let project = cloned_with_conda(&world);
    world.write("plain.json", shell("plain", "echo", &json!({})).to_string());
    world.write("env.yml", "dependencies: [python]\n");
    std::fs::create_dir(world.file("lab")).expect("made");
    world.write("lab/pyproject.toml", "[project]\nname = \"lab\"\nversion = \"1\"\n");
    let install = |list: &Path, code| {
        let list = list.display().to_string();
        there(&world, &project, &["install-all", "--offline", "--json", "--capabilities", &list])
            .expect(code)
            .json()
    };
    let plain = "capabilities: [{name: plain, manifest: plain.json}]\n";
    let own = world.write("own.yaml", plain);
    let _ = install(&own, 0);
    let of_conda = "capabilities: [{name: lab, env_name: lab, env_file: env.yml, package: ./lab}]\n";
    let told = install(&world.write("conda.yaml", of_conda), 1);
    assert_eq!(told["entries"][0]["error"]["code"], "settings.not_allowed", "{told:#}");
    let step = told["entries"][0]["error"]["next_step"].as_str().expect("a step");
    assert!(step.contains("cjm-ctl allow"), "{step}");
    assert!(!project.join("ran").exists(), "nor were the settings allowed by the first one");
    // The list of the project itself is what its owner means.
    std::fs::copy(world.file("plain.json"), project.join("plain.json")).expect("copied");
    std::fs::write(project.join("capabilities.yaml"), plain).expect("write");
    let _ = install(&project.join("capabilities.yaml"), 0);
    let _ = install(&world.file("conda.yaml"), 1);
    assert!(project.join("ran").exists(), "now it is asked");
}

#[test]
fn what_is_no_file_hangs_nobody_and_takes_no_tool_away() {
    let world = World::new();
    world.install("good", &shell("good", "echo good", &json!({})));
    let manifests = world.data_dir().join("manifests");
    let status = Command::new("mkfifo").arg(manifests.join("pipe.json")).status().expect("mkfifo");
    assert!(status.success());
    std::os::unix::fs::symlink("/dev/zero", manifests.join("zero.json")).expect("link");
    std::fs::create_dir(manifests.join("folder.json")).expect("mkdir");
    let pipe = manifests.join("pipe.json").display().to_string();
    let _ = world.run(&["validate", &pipe]).expect(1);
    let list = world.json(&["list", "--json"]);
    let mut codes: Vec<_> = list["problems"].as_array().into_iter().flatten().collect();
    codes.retain(|problem| problem["error"]["code"] == "manifest.not_regular");
    assert_eq!(codes.len(), 3, "{list}");
    assert_eq!(world.run(&["call", "good", "-r"]).expect(0).stdout.trim(), "good");
    let config = world.file("cjm.yaml");
    assert!(Command::new("mkfifo").arg(&config).status().expect("mkfifo").success());
    let refused = world.run(&["list"]).expect(1);
    assert!(refused.stderr.contains("a FIFO"), "{}", refused.describe());
    std::fs::remove_file(&config).expect("remove");
    let list = world.file("capabilities.yaml");
    assert!(Command::new("mkfifo").arg(&list).status().expect("mkfifo").success());
    let refused = world.run(&["install-all"]).expect(1);
    assert!(refused.stderr.contains("a FIFO"), "{}", refused.describe());
    world.assert_nothing_left();
}

#[test]
fn what_a_killed_call_left_goes_with_the_next_host() {
    let world = World::new();
    let actions = json!({
        "fill": {"argv": ["-c", "echo much > big; echo filled; sleep 600"]},
        "make": {"argv": ["-c", "echo x > \"$0\"", "{out}"], "outputs": {"out": "out"}, "result": "files"},
    });
    world.install_executable("filler", "sh", &actions);
    let work = world.data_dir().join("data/filler/work");
    let made = world.run(&["call", "filler", "--action", "make", "--json"]).expect(0).json();
    let result = PathBuf::from(made["result"]["out"]["path"].as_str().expect("a path"));
    let running = world.start(&["call", "filler", "--action", "fill"]);
    let found = |name: &str| {
        let output = Command::new("find").arg(&work).args(["-name", name]).output().expect("find");
        !output.stdout.is_empty()
    };
    cjm_tests::world::eventually("the call fills", std::time::Duration::from_secs(30), || {
        found("big").then_some(())
    });
    running.signal(cjm_platform::process::Signal::KILL);
    let _ = running.wait(cjm_tests::world::COMMAND_MAX);
    let _ = world.run(&["call", "filler", "--action", "make"]).expect(0);
    assert!(!found("big") && !found("*.running"), "what the killed call left is gone");
    assert!(result.exists(), "the result of an earlier call stays");
    world.assert_nothing_left();
}

#[test]
fn a_name_that_nothing_has_makes_nothing_and_says_where_was_looked() {
    let world = World::new();
    std::fs::create_dir_all(world.file("home")).expect("mkdir");
    let refused = there(&world, &world.file(""), &["call", "nosuch"]).expect(1);
    assert!(refused.stderr.contains(".cjm/manifests"), "{}", refused.describe());
    assert!(!world.file("home/.cjm").exists(), "asking makes no data directory");
}

#[test]
fn a_secret_is_checked_and_one_that_is_required_is_asked_for() {
    let world = World::new();
    world.install("speech-api", &shell("speech-api", "echo got $API_KEY", &declares_key(true)));
    let refused = world.run(&["call", "speech-api"]).expect(10);
    let cure = "set-secret speech-api API_KEY`";
    assert!(refused.stderr.contains(cure), "{}", refused.describe());
    let unknown = world.run(&["set-secret", "speech-ap", "API_KEY", "--value", "v"]).expect(1);
    assert!(unknown.stderr.contains("did you mean \"speech-api\"?"), "{}", unknown.describe());
    let undeclared = world.run(&["set-secret", "speech-api", "API_KEX", "--value", "v"]).expect(0);
    assert!(undeclared.stderr.contains("does not declare it"), "{}", undeclared.describe());
    assert!(!undeclared.stdout.contains("next start"), "{}", undeclared.describe());
    assert!(undeclared.stderr.contains("did you mean \"API_KEY\"?"), "{}", undeclared.describe());
    let _ = world.run(&["set-secret", "later", "KEY", "--value", "v", "--force"]).expect(0);
    let _ = world.run(&["set-secret", "speech-api", "API_KEY", "--value", "hush"]).expect(0);
    assert_eq!(world.run(&["call", "speech-api", "-r"]).expect(0).stdout.trim(), "got hush");
    world.assert_nothing_left();
}

#[test]
fn a_secret_of_a_project_that_moved_is_set_anew_as_the_error_says() {
    let world = World::new();
    home(&world, &[]);
    let project = cloned(&world, &[("req.json", shell("req", "echo got $API_KEY", &declares_key(true)))]);
    let _ = there(&world, &project, &["allow"]).expect(0);
    let set = ["set-secret", "req", "API_KEY", "--value", "long enough"];
    let stored = there(&world, &project, &set).expect(0);
    assert!(stored.stdout.contains("from its next start on"), "{}", stored.describe());
    assert!(!stored.stderr.contains("bytes"), "{}", stored.describe());
    let names = there(&world, &project, &["list-secrets", "req"]).expect(0);
    assert!(names.stdout.ends_with("  - API_KEY\n"), "{}", names.describe());

    // A copy: the first one still has it, and the error says that it would lose it.
    let moved = world.file("moved");
    let copied = Command::new("cp").arg("-r").arg(&project).arg(&moved).status().expect("cp");
    assert!(copied.success());
    let _ = there(&world, &moved, &["allow"]).expect(0);
    let refused = there(&world, &moved, &["call", "req"]).expect(10);
    assert!(refused.stderr.contains("set-secret req API_KEY --force`"), "{}", refused.describe());
    let names = there(&world, &moved, &["list-secrets", "req"]).expect(0);
    assert!(names.stdout.contains(&format!("(set for {}", project.display())), "{}", names.describe());

    std::fs::remove_dir_all(&project).expect("removed");
    let names = there(&world, &moved, &["list-secrets", "req"]).expect(0);
    assert!(names.stdout.contains("which is gone)"), "{}", names.describe());
    let short = there(&world, &moved, &["set-secret", "req", "API_KEY", "--value", "hush"]).expect(0);
    assert!(short.stderr.contains("fewer than 8 bytes"), "{}", short.describe());
    assert_eq!(there(&world, &moved, &["call", "req", "-r"]).expect(0).stdout.trim(), "got hush");
    world.assert_nothing_left();
}

#[test]
fn short_lines_of_a_secret_are_told_where_they_are_set_and_are_what_the_logs_then_show() {
    let world = World::new();
    world.install("sec", &shell("sec", "echo \"$API_KEY\" >&2", &declares_key(true)));
    let set = |value: &str| world.run(&["set-secret", "sec", "API_KEY", "--value", value]).expect(0);
    let short = set("pin1234\npin5678");
    let told = "each line of the value has fewer than 8 bytes, so they are not struck out";
    assert!(short.stderr.contains(told), "{}", short.describe());
    let _ = world.run(&["call", "sec"]).expect(0);
    let mixed = set("pin5678\nlong enough");
    assert!(mixed.stderr.contains("1 of the 2 lines of the value has fewer"), "{}", mixed.describe());
    let _ = world.run(&["call", "sec"]).expect(0);
    let logs = world.run(&["logs", "--chunks"]).expect(0);
    assert_eq!(logs.stdout.matches("] pin5678").count(), 2, "{}", logs.describe());
    assert!(logs.stdout.contains("[secret]") && !logs.stdout.contains("long enough"), "{}", logs.describe());
    world.assert_nothing_left();
}

#[test]
fn a_default_without_a_value_is_told() {
    let world = World::new();
    let declares = json!({"worker_env": [{"name": "HUB", "default": "${CJM_MODELS_DIR}/hf"}]});
    world.install("hub", &shell("hub", "echo [$HUB]", &declares));
    let call = world.run(&["call", "hub", "-r"]).expect(0);
    assert_eq!(call.stdout.trim(), "[]");
    let told = "note: \"hub\" does not get HUB";
    assert!(call.stderr.contains(told) && call.stderr.contains("models_dir"), "{}", call.describe());
    assert!(!world.run(&["-q", "call", "hub", "-r"]).expect(0).stderr.contains(told));
}

#[test]
fn code_that_changed_since_its_manifest_is_told_with_the_command() {
    let world = World::new();
    let source = "class T:\n    def get_config_schema(self):\n        return {}\n    def execute(self, **kwargs):\n        return 'done'\n";
    let path = world.install_python("lab", "T", source);
    let quiet = world.run(&["call", "lab"]).expect(0);
    assert!(!quiet.stderr.contains("has changed"), "{}", quiet.describe());
    let mut manifest: Value = serde_json::from_slice(&std::fs::read(&path).expect("read")).expect("JSON");
    manifest["drift_tracking"] = json!({"structural_surface_hash": "sha256:00"});
    std::fs::write(&path, manifest.to_string()).expect("write");
    let told = world.run(&["call", "lab"]).expect(0);
    assert!(told.stderr.contains(" regenerate-manifest lab` makes"), "{}", told.describe());
    let ready = rows(&world.journal(), "worker_ready");
    let drifted: Vec<bool> = ready.iter().map(|row| row.2.get("drifted").is_some()).collect();
    assert_eq!(drifted, [false, true]);
    world.assert_nothing_left();
}

#[test]
fn what_commands_do_stands_in_the_journal_with_the_real_user() {
    let mut world = World::new();
    world.set("USER", "somebody-else");
    world.install("first", &shell("first", "echo 1", &declares_key(false)));
    let _ = world.run(&["call", "first"]).expect(0);
    world.write("tool.json", shell("tool", "echo 2", &json!({})).to_string());
    world.write("capabilities.yaml", "capabilities: [{name: entry, manifest: tool.json}]\n");
    let _ = world.run(&["install-all"]).expect(0);
    let _ = world.run(&["install-all"]).expect(0);
    world.write("broken.yaml", "capabilities: [{name: broken, manifest: nowhere.json}]\n");
    let _ = world.run(&["install-all", "--capabilities", "broken.yaml"]).expect(1);
    let _ = world.run(&["set-secret", "first", "API_KEY", "--value", "hush"]).expect(0);
    let removed = world.run(&["remove-secret", "first", "API_KEY"]).expect(0);
    assert!(removed.stdout.contains("from its next start on"), "{}", removed.describe());
    let _ = world.run(&["regenerate-manifest", "tool"]).expect(0);
    let _ = world.run(&["remove", "tool", "-y"]).expect(0);
    let user = cjm_platform::user::real_user_name();
    let actor = format!("cjm-ctl:{user} (as somebody-else)");
    for (kind, capability, key) in [
        ("capability_installed", "tool", "forced"),
        ("capability_install_failed", "broken", "error"),
        ("secret_set", "first", "key"),
        ("secret_removed", "first", "key"),
        ("manifest_regenerated", "tool", "changed"),
        ("capability_removed", "tool", "manifest"),
    ] {
        let rows = rows(&world.journal(), kind);
        let [(name, by, payload)] = rows.as_slice() else { panic!("{kind}: {rows:?}") };
        assert_eq!((name.as_deref(), by), (Some(capability), &actor), "{kind}");
        assert!(payload.get(key).is_some() && !payload.to_string().contains("hush"), "{payload}");
    }
    assert!(rows(&world.journal(), "state_transition").iter().all(|row| row.1 == actor));
    let failed = world.run(&["logs", "--journal", "--status", "failed"]).expect(0).describe();
    assert!(
        failed.contains("capability_install_failed") && failed.contains(&format!("by {actor}: ")),
        "{failed}"
    );
    // No tool gets this one.
    let _ = world.run(&["set-secret", "first", "OTHER", "--value", "hush"]).expect(0);
    let removed = world.run(&["remove-secret", "first", "OTHER"]).expect(0);
    assert!(!removed.stdout.contains("next start"), "{}", removed.describe());
}

#[test]
fn without_a_home_nothing_is_made_in_the_present_folder() {
    let world = World::new();
    let folder = world.file("here");
    std::fs::create_dir(&folder).expect("made");
    let run = |home: Option<&str>, arguments: &[&str]| {
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg("cd \"$0\" && exec \"$@\"").arg(&folder);
        command.arg(cjm_tests::repo::binary("cjm-ctl")).args(arguments).env_remove("HOME");
        home.map(|home| command.env("HOME", home));
        world.start_command(command).wait(cjm_tests::world::COMMAND_MAX)
    };
    let database = cjm_platform::user::real_user_home().expect("whoever runs tests has a home");
    let expected = database.join(".cjm").display().to_string();
    for home in [None, Some("")] {
        assert_eq!(run(home, &["status", "--json"]).expect(0).json()["data_dir"], expected, "{home:?}");
    }
    for command in [&["status", "--json"][..], &["call", "absent", "--json"], &["install-all", "--json"]] {
        let refused = run(Some("relative"), command).expect(1).json();
        assert_eq!(refused["error"]["code"], "settings.no_data_dir", "{refused:#}");
        let (said, next) =
            (refused["error"]["message"].to_string(), refused["error"]["next_step"].to_string());
        assert!(said.contains("HOME is \\\"relative\\\", which is no absolute path"), "{refused:#}");
        assert!(next.contains("set HOME") && next.contains("--data-dir"), "{refused:#}");
    }
    let kept = world.file("kept").display().to_string();
    for home in [None, Some("relative")] {
        let told = run(home, &["--data-dir", &kept, "status", "--json"]).expect(0).json();
        assert_eq!(told["data_dir"], kept, "an explicit one needs no home");
    }
    assert_eq!(std::fs::read_dir(&folder).expect("a folder").count(), 0, "nothing was made here");
}

/// The word for a folder is none for what lies beside it, though `cjm.yaml` of a folder above leads there.
#[test]
fn a_folder_that_was_named_is_allowed_and_nothing_beside_it() {
    let world = World::new();
    home(&world, &[]);
    let project = cloned(&world, &[("one.json", shell("one", "echo 1", &json!({})))]);
    let settings = "data_dir: ./.cjm\nruntime: {conda_type: micromamba, binaries: {linux-x64: ./evil}}\n";
    std::fs::write(project.join("cjm.yaml"), settings).expect("written");
    let inner = project.join("inner");
    std::fs::create_dir(&inner).expect("made");
    let named = there(&world, &project, &["allow", "inner"]).expect(1);
    assert!(named.stderr.contains("no manifest at "), "{}", named.describe());
    let _ = there(&world, &project, &["call", "one"]).expect(1);
    // What lies in it is meant, by whatever name the settings lead there.
    let of_data = there(&world, &project, &["allow", ".cjm"]).expect(0);
    assert!(
        of_data.stdout.contains("Allowed one") && !of_data.stdout.contains("evil"),
        "{}",
        of_data.describe()
    );
    assert_eq!(there(&world, &project, &["call", "one", "-r"]).expect(0).stdout.trim(), "1");
    let _ = there(&world, &project, &["allow", "--revoke"]).expect(0);
    // Without a name it is the project, from wherever in it.
    let whole = there(&world, &inner, &["allow"]).expect(0);
    assert!(
        whole.stdout.contains("Allowed one") && whole.stdout.contains("cjm.yaml"),
        "{}",
        whole.describe()
    );
    assert_eq!(there(&world, &inner, &["call", "one", "-r"]).expect(0).stdout.trim(), "1");
    world.assert_nothing_left();
}
