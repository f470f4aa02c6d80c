//! While a tool is installed for the first time it has no manifest: whoever asks for it is told who installs it, from the
//! first instant on.

use cjm_platform::process::Signal;
use cjm_tests::world::{COMMAND_MAX, Running, World, eventually, write_script};
use cjm_wire::describe::exit;
use serde_json::{Value, json};

/// A world where an installation of the package `pkg` stands still at its first look for Python, before it has made
/// anything; entry, environment and package have names of their own.
fn stands_at_its_beginning(world: &mut World) -> Running {
    let begun = world.file("begun");
    // It works until it is ended.
    let python = world.file("bin/python3");
    std::fs::create_dir_all(world.file("bin")).expect("a folder");
    write_script(&python, &format!("#!/bin/sh\n: > '{}'\nexec sleep 600\n", begun.display()));
    let path = std::env::var("PATH").unwrap_or_default();
    world.set("PATH", format!("{}:{path}", world.file("bin").display()));
    std::fs::create_dir_all(world.file("pkg")).expect("a folder");
    world.write("pkg/pyproject.toml", "[project]\nname = \"pkg\"\nversion = \"1\"\n");
    world.write(
        "capabilities.yaml",
        "capabilities: [{name: speech, package: ./pkg, env_name: its-env, python_version: \">=3.9\"}]\n",
    );
    let running = world.start(&["install-all", "--offline"]);
    eventually("it looks for Python", COMMAND_MAX, || {
        assert!(!running.has_ended(), "{}", running.stderr_so_far());
        begun.exists().then_some(())
    });
    running
}

#[test]
fn it_is_told_from_the_first_instant_by_the_names_of_its_entry_and_its_environment_and_by_its_own() {
    let mut world = World::new();
    let running = stands_at_its_beginning(&mut world);
    let environment = world.data_dir().join("envs/its-env");
    assert!(!environment.exists(), "nothing is made yet");
    let who = format!("process {} (install-all of its-env, since 20", running.pid());
    // Its own name is known when it is there: it may be any.
    for name in ["speech", "its-env", "whisper"] {
        let called = world.run(&["call", name, "--json"]).expect(exit::DIRECTORY_IN_USE);
        let error = &called.json()["error"];
        assert_eq!(
            (&error["code"], &error["retriable"]),
            (&json!("installation.at_work"), &json!(true)),
            "{name}: {error}"
        );
        let message = error["message"].as_str().unwrap_or_default();
        assert!(message.contains(&who), "{name}: {error}");
        assert_eq!(message.starts_with("no capability \"whisper\""), name == "whisper", "{error}");
        assert!(error["next_step"].as_str().is_some_and(|step| step.contains(" status`")), "{error}");
    }
    for is_made in [false, true] {
        if is_made {
            std::fs::create_dir_all(&environment).expect("a folder");
        }
        let listed = world.run(&["list"]).expect(exit::OK);
        let told = format!("note: {} belongs to no capability yet: {who}", environment.display());
        assert!(listed.stderr.contains(&told), "{}", listed.describe());
        let document = world.json(&["list", "--json"]);
        assert_eq!(document["unused_environments"], json!([]), "{document:#}");
        let at_work = &document["environments_at_work"];
        assert_eq!(at_work.as_array().map(Vec::len), Some(1), "{document:#}");
        assert_eq!(at_work[0]["path"], environment.display().to_string(), "{document:#}");
        assert_eq!(at_work[0]["installation"]["pid"], running.pid().as_raw(), "{document:#}");
    }
    running.signal(Signal::TERM);
    let _ = running.wait(COMMAND_MAX).expect(143);
    world.assert_nothing_left();
}

/// `name`'s first installation is told as broken off, with a step that names the list.
fn check_broken_off(world: &World, name: &str, (code, exit_code): (&str, u8), words: &str) {
    let refused = world.run(&["call", name, "--json"]).expect(exit_code).json();
    let error = &refused["error"];
    let code_and_retriable = (&error["code"], &error["retriable"]);
    assert_eq!(code_and_retriable, (&json!(code), &json!(false)), "{name}: {error}");
    assert!(error["message"].as_str().is_some_and(|message| message.contains(words)), "{name}: {error}");
    let list = world.file("capabilities.yaml").display().to_string();
    assert!(error["next_step"].as_str().is_some_and(|step| step.contains(&list)), "{name}: {error}");
}

/// Also where it had made nothing yet: whoever looks is told what to go on with, and may take it away.
#[test]
fn one_that_was_killed_is_told_by_its_names_also_where_it_had_made_nothing() {
    let mut world = World::new();
    let running = stands_at_its_beginning(&mut world);
    let environment = world.data_dir().join("envs/its-env");
    running.signal(Signal::KILL);
    let _ = running.wait(COMMAND_MAX);
    let told = world.run(&["status"]).expect(exit::OK);
    let again = format!(" install-all --capabilities {}` goes on", world.file("capabilities.yaml").display());
    assert!(told.stderr.contains(&again), "{}", told.describe());
    assert!(told.stderr.contains("ends it; then `"), "{}", told.describe());
    eventually("its helpers to be gone", COMMAND_MAX, || {
        let installation = world.json(&["status", "--json"])["installation"].clone();
        for pid in installation["helper_pids"].as_array().into_iter().flatten() {
            // One that is gone by now needs no signal.
            let _ = std::process::Command::new("kill").args(["-9", &pid.to_string()]).output().expect("runs");
        }
        installation.is_null().then_some(())
    });
    assert!(!environment.exists(), "nothing is made yet");
    let unfinished = "its installation failed or was broken off";
    let broken_off = ("installation.broken_off", exit::WORKER_START);
    for name in ["speech", "its-env"] {
        check_broken_off(&world, name, broken_off, &format!("\"{name}\" is not installed: {unfinished}"));
    }
    // Its own name is known when it is there: it may be any, until an installation has found it out.
    check_broken_off(
        &world,
        "whisper",
        ("installation.may_be_broken_off", exit::DOMAIN),
        "it may be that of \"speech\", whose installation failed or was broken off",
    );
    let told = "the installation of \"speech\" failed or was broken off";
    let listed = world.run(&["list"]).expect(exit::OK);
    assert!(
        listed.stderr.contains(told) && listed.stderr.contains("remove speech`"),
        "{}",
        listed.describe()
    );
    assert!(world.run(&["status"]).expect(exit::OK).stdout.contains(told));
    let status = world.json(&["status", "--json"]);
    assert_eq!(status["unfinished_installations"][0]["entry"], "speech", "{status:#}");
    let document = world.json(&["list", "--json"]);
    let unused = &document["unused_environments"];
    assert_eq!(
        (&unused[0]["entry"], &unused[0]["exists"]),
        (&json!("speech"), &json!(false)),
        "{document:#}"
    );

    let note = world.data_dir().join("envs/.its-env.list");
    let known = std::fs::read_to_string(&note).expect("a note") + "\nwhisper";
    std::fs::write(&note, known).expect("written");
    check_broken_off(&world, "whisper", broken_off, &format!("\"whisper\" is not installed: {unfinished}"));
    let other = world.run(&["call", "other", "--json"]).expect(exit::DOMAIN).json();
    assert_eq!(other["error"]["code"], "host.unknown_capability", "{other}");
    let told = "the installation of \"whisper\" (entry \"speech\") failed or was broken off";
    assert!(world.run(&["list"]).expect(exit::OK).stderr.contains(told));

    let _ = world.run(&["remove", "speech", "-y"]).expect(exit::OK);
    assert!(world.run(&["list"]).expect(exit::OK).stderr.lines().all(|line| line.starts_with("next: ")));
    let gone = world.run(&["call", "speech", "--json"]).expect(exit::DOMAIN).json();
    assert_eq!(gone["error"]["code"], "host.unknown_capability", "{gone}");
    world.assert_nothing_left();
}

/// What waits for nobody is told as it is: a tool that is there is called, and while only tools are put in again that have
/// their names, a name that nobody has is a mistake.
#[test]
fn an_installation_of_tools_that_have_their_names_hides_no_mistake() {
    let world = World::new();
    let install =
        json!({"python_path": world.data_dir().join("envs/its-env/bin/python"), "conda_env": "its-env"});
    let code = json!({"module": "m", "class": "C"});
    world.install("whisper", &cjm_tests::world::manifest("whisper", &code, &install));
    world.install_executable("shell", "true", &json!({"go": {"argv": []}}));
    let us = std::process::id();
    let lock = world.data_dir().join("install.lock");
    for (work, expected) in [
        ("install-all (its-env=speech)", "host.unknown_capability"),
        ("install-all (its-env=speech other)", "installation.at_work"),
        ("remove (other)", "host.unknown_capability"),
    ] {
        let text = format!("pid {us} since 2026-11-28T20:17:35+00:00, {work}");
        let lock = cjm_platform::lock::FileLock::try_acquire(&lock, &text).expect("free");
        let refused = world.run(&["call", "wisper", "--json"]).json();
        assert_eq!(refused["error"]["code"], expected, "{work}: {refused}");
        let message = refused["error"]["message"].as_str().unwrap_or_default();
        assert!(message.contains("did you mean \"whisper\""), "{work}: {refused}");
        let listed = world.json(&["list", "--json"]);
        let coming: Vec<&Value> =
            listed["environments_at_work"].as_array().into_iter().flatten().map(|one| &one["name"]).collect();
        // What a manifest names is no environment of nobody.
        assert_eq!(coming, if work.contains("speech other") { vec!["other"] } else { vec![] }, "{work}");
        let _ = world.run(&["call", "shell", "--action", "go"]).expect(exit::OK);
        drop(lock);
    }
    assert_eq!(world.json(&["status", "--json"])["installation"], Value::Null);
    world.assert_nothing_left();
}

/// What nothing asks for any more no installation goes on with.
#[test]
fn one_that_failed_and_is_in_the_list_no_more_is_told_with_the_command_that_takes_it_away() {
    let world = World::new();
    let list = world.file("list.yaml").display().to_string();
    let entry = "- {name: speech, package: ./missing, env_name: its-env, python_version: '>=3.9'}\n";
    std::fs::create_dir_all(world.data_dir().join("envs")).expect("a folder");
    let note = world.data_dir().join("envs/.its-env.list");
    let steps = || {
        let status = world.json(&["status", "--json"])["unfinished_installations"].clone();
        let listed = world.run(&["list"]).expect(exit::OK).stderr;
        let called =
            ["speech", "whisper"].map(|name| world.run(&["call", name, "--json"]).json()["error"].clone());
        let step = |value: &Value| value["next_step"].as_str().unwrap_or_default().to_owned();
        [step(&status[0]), listed, step(&called[0]), step(&called[1])]
    };
    let goes_on = format!("install-all --capabilities {list}` goes on with it");
    for (text, is_asked_for) in [
        (Some(format!("capabilities:\n{entry}")), true),
        (Some(format!("capabilities:\n{}", entry.replace("name: speech", "name: other"))), true),
        (Some(format!("capabilities:\n{}", entry.replace("its-env", "[]"))), true),
        (Some("capabilities: [\n".to_owned()), true),
        (Some("capabilities: []\n".to_owned()), false),
        (None, false),
    ] {
        let _ = std::fs::remove_file(&list);
        if let Some(text) = &text {
            std::fs::write(&list, text).expect("written");
        }
        std::fs::write(&note, format!("{list}\nspeech")).expect("written");
        for (step, removes) in steps().iter().zip(["its-env", "speech", "speech", ""]) {
            assert_eq!(step.contains(&goes_on), is_asked_for, "{text:?}: {step}");
            let takes_away = if removes.is_empty() {
                " list` says".to_owned()
            } else {
                format!("remove {removes}` takes it away")
            };
            assert!(
                is_asked_for
                    || (step.contains(if text.is_some() { "no list asks for" } else { "is gone" })
                        && step.contains(&takes_away)),
                "{text:?}: {step}"
            );
        }
    }
    // One entry had two environments, and the name of either alone says which is meant.
    let other = world.data_dir().join("envs/.its-other.list");
    for place in [&note, &other] {
        std::fs::write(place, format!("{list}\nspeech")).expect("written");
    }
    let listed = world.run(&["list"]).expect(exit::OK).stderr;
    let status = world.run(&["status"]).expect(exit::OK).stdout;
    for name in ["its-env", "its-other"] {
        assert!(listed.contains(&format!("remove {name}` takes it away")), "{listed}");
        assert!(status.contains(&format!("envs/{name})")), "{status}");
    }
    let _ = world.run(&["remove", "its-other", "-y"]).expect(exit::OK);
    assert!(note.exists() && !other.exists());
    let _ = world.run(&["remove", "its-env", "-y"]).expect(exit::OK);
    assert_eq!(world.json(&["status", "--json"])["unfinished_installations"], json!([]));
}
