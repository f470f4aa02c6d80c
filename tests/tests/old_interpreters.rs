//! Interpreters that the SDK does not run on: passed over where there is a newer one, refused else, and nothing is left of
//! what was begun for them.

use cjm_platform::process::Signal;
use cjm_tests::world::{COMMAND_MAX, Running, World, eventually, write_script};
use cjm_wire::describe::exit;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// An interpreter that says that it is of this minor version.
fn write_python(path: &Path, minor: u32) {
    write_script(
        path,
        &format!("#!/bin/sh\necho '[\"cpython\", [3, {minor}, 18], \"{}\"]'\n", path.display()),
    );
}

/// A world whose PATH begins with a folder, in which a uv does nothing but say what it was asked.
fn world() -> (World, PathBuf, PathBuf) {
    let mut world = World::new();
    let (folder, asked) = (world.file("bin"), world.file("asked"));
    std::fs::create_dir_all(&folder).expect("a folder");
    let uv = format!(
        "#!/bin/sh\n[ \"$1\" = --version ] && echo 'uv 0.13.8' && exit 0\necho \"$*\" > '{}'\nexit 1\n",
        asked.display()
    );
    write_script(&folder.join("uv"), &uv);
    let path = std::env::var("PATH").unwrap_or_default();
    world.set("PATH", format!("{}:{path}", folder.display()));
    (world, folder, asked)
}

/// The error of the only entry, which is written so.
fn install(world: &World, entry: &str, more: &[&str]) -> Value {
    let list = format!("capabilities:\n- {{name: x, package: nothing==1, env_name: its-env, {entry}}}\n");
    let file = world.write("capabilities.yaml", &list).display().to_string();
    let arguments = [&["install-all", "--capabilities", &file, "--json"], more].concat();
    world.run(&arguments).expect(exit::DOMAIN).json()["entries"][0]["error"].clone()
}

/// Nobody is told of an installation that made nothing.
#[track_caller]
fn assert_nothing_begun(world: &World) {
    let status = world.json(&["status", "--json"]);
    assert_eq!(status["unfinished_installations"], json!([]), "{status:#}");
    let listed = world.run(&["list"]).expect(exit::OK);
    assert!(!listed.stderr.contains("broken off"), "{}", listed.describe());
    assert!(!world.data_dir().join("envs/.its-env.list").exists());
}

#[test]
fn an_interpreter_that_the_sdk_does_not_run_on_is_refused_before_anything_is_made() {
    let (world, folder, asked) = world();
    write_python(&folder.join("python3"), 8);
    let error = install(&world, "python_version: '3.8'", &[]);
    assert_eq!(error["code"], "install.old_interpreter", "{error:#}");
    assert!(
        error["message"].to_string().contains("3.9 or later, and this entry takes none of those"),
        "{error:#}"
    );
    let step = error["next_step"].as_str().unwrap_or_default();
    assert!(step.contains("`python_version: \">=3.9\"`"), "{error:#}");
    assert!(!asked.exists(), "nothing was made for it");
    assert_nothing_begun(&world);
    for (version, code) in [
        ("==2.7", "install.old_interpreter"),
        ("3.78", "install.no_interpreter"),
        ("three", "install.bad_python_version"),
    ] {
        let error = install(&world, &format!("python_version: '{version}'"), &[]);
        assert_eq!(error["code"], code, "{error:#}");
        assert_nothing_begun(&world);
        // What no machine has is told before.
        let list = world.file("capabilities.yaml").display().to_string();
        let verdict = world.run(&["validate", &list, "--json"]).json();
        let told = verdict["errors"].as_array().into_iter().flatten().any(|found| found["code"] == code);
        assert_eq!(told, code != "install.no_interpreter", "{verdict:#}");
    }
    // The ancestor's own worker is none of ours.
    let error = install(&world, "python_version: '3.8', worker: genuine", &[]);
    assert_eq!(error["code"], "install.helper_failed", "{error:#}");
    assert!(asked.exists());
}

#[test]
fn a_newer_interpreter_is_taken_where_the_first_one_is_too_old() {
    let (mut world, folder, asked) = world();
    let (old, new) = (folder.join("python3"), folder.join("python3.77"));
    // Nobody else on the PATH is called so plainly.
    world.set("PATH", folder.display().to_string());
    write_python(&old, 8);
    write_python(&new, 77);
    for bounds in [">=3.8", "<3.99", "3"] {
        let error = install(&world, &format!("python_version: '{bounds}'"), &[]);
        assert_eq!(error["code"], "install.helper_failed", "{error:#}");
        let uv = std::fs::read_to_string(&asked).expect("uv makes the environment");
        assert!(uv.contains(&format!("--python {} ", new.display())), "{uv}");
        std::fs::remove_file(&asked).expect("removed");
    }
    // Who asks for the old one gets it.
    let error = install(&world, "python_version: '3.8'", &[]);
    assert_eq!(error["code"], "install.old_interpreter", "{error:#}");
}

/// In the place of conda: it has one environment, whose interpreter is the one that the file names. Where there is a file
/// `slow` it stands still when it has made it, and removes nothing where there is one `stays`.
fn write_conda(folder: &Path, home: &Path) {
    let script = r#"#!/bin/sh
case "$*" in
    --version) echo 'conda 1' ;;
    'env list --json') [ -d 'HOME' ] && echo '{"envs": ["HOME"]}' || echo '{"envs": []}' ;;
    'info --json') echo '{"envs_dirs": ["'"$(dirname 'HOME')"'"]}' ;;
    *--dry-run*) exit 1 ;;
    'env create '*) mkdir -p 'HOME/bin' && cp "$(cat "$4")" 'HOME/bin/python'
        [ -e HOME.slow ] && : >HOME.begun && exec sleep 600
        exit 0 ;;
    'env remove '*) [ -e HOME.stays ] && exit 1
        rm -rf 'HOME' ;;
    *) exit 2 ;;
esac
"#;
    write_script(&folder.join("conda"), &script.replace("HOME", &home.display().to_string()));
}

#[test]
fn an_environment_that_conda_made_with_such_an_interpreter_goes_again_and_the_step_that_is_told_leads_on() {
    let (mut world, folder, asked) = world();
    let (home, old, new) = (world.file("conda/its-env"), world.file("old"), world.file("new"));
    write_python(&old, 8);
    write_python(&new, 12);
    write_conda(&folder, &home);
    world.set("CJM_CONDA_TYPE", "conda");
    let made_with = |python: &Path| world.write("env.yml", python.display().to_string());
    for more in [&[][..], &["--force"]] {
        made_with(&old);
        let error = install(&world, "env_file: env.yml", more);
        assert_eq!(error["code"], "install.old_interpreter", "{error:#}");
        let step = error["next_step"].as_str().unwrap_or_default();
        assert!(
            step.contains("`python>=3.9`") && step.contains("install-all ") && step.ends_with(" --force`"),
            "{error:#}"
        );
        assert!(!home.exists() && !asked.exists(), "it would be found the next time");
        assert_nothing_begun(&world);
    }
    made_with(&new);
    let error = install(&world, "env_file: env.yml", &[]);
    assert_eq!(error["code"], "install.helper_failed", "{error:#}");
    assert!(home.join("bin/python").exists() && asked.exists());
    // What was there before is no deed of this installation, and stays.
    std::fs::copy(&old, home.join("bin/python")).expect("replaced");
    let error = install(&world, "env_file: env.yml", &[]);
    assert_eq!(error["code"], "install.old_interpreter", "{error:#}");
    assert!(home.join("bin/python").exists());
}

/// Whoever looks is told of the first installation that came to no end.
#[track_caller]
fn assert_told(world: &World) {
    let status = world.json(&["status", "--json"]);
    assert_eq!(status["unfinished_installations"][0]["environment"], "its-env", "{status:#}");
    let told = "the installation of \"x\" failed or was broken off";
    let listed = world.run(&["list"]).expect(exit::OK);
    assert!(
        listed.stderr.contains(told) && listed.stderr.contains(" remove x` takes it away"),
        "{}",
        listed.describe()
    );
    let called = world.run(&["call", "x", "--json"]).expect(exit::WORKER_START).json();
    assert_eq!(called["error"]["code"], "installation.broken_off", "{called:#}");
}

/// A world in which conda is about to make an environment whose interpreter is too old; with its home.
fn world_with_conda() -> (World, PathBuf, PathBuf) {
    let (mut world, folder, _) = world();
    let (home, old) = (world.file("conda/its-env"), world.file("old"));
    std::fs::create_dir_all(world.file("conda")).expect("a folder");
    write_python(&old, 8);
    write_conda(&folder, &home);
    world.set("CJM_CONDA_TYPE", "conda");
    world.write("env.yml", old.display().to_string());
    (world, folder, home)
}

const BY_CONDA: &str = "env_file: env.yml";

/// As a kill of the whole tree leaves it.
fn kill_with_helpers(world: &World, running: Running) {
    running.signal(Signal::KILL);
    let _ = running.wait(COMMAND_MAX);
    eventually("its helpers to be gone", COMMAND_MAX, || {
        let installation = world.json(&["status", "--json"])["installation"].clone();
        for pid in installation["helper_pids"].as_array().into_iter().flatten() {
            // One that is gone by now needs no signal.
            let _ = std::process::Command::new("kill").args(["-9", &pid.to_string()]).output().expect("runs");
        }
        installation.is_null().then_some(())
    });
}

#[test]
fn what_a_killed_run_had_conda_begin_is_told_until_it_is_removed_however_the_next_one_fails() {
    let (world, folder, home) = world_with_conda();
    let (slow, begun) = (home.with_extension("slow"), home.with_extension("begun"));
    std::fs::write(&slow, "").expect("written");
    let list = format!("capabilities:\n- {{name: x, package: nothing==1, env_name: its-env, {BY_CONDA}}}\n");
    let list = world.write("capabilities.yaml", &list).display().to_string();
    let running = world.start(&["install-all", "--capabilities", &list]);
    eventually("conda makes it", COMMAND_MAX, || {
        assert!(!running.has_ended(), "{}", running.stderr_so_far());
        begun.exists().then_some(())
    });
    kill_with_helpers(&world, running);
    std::fs::remove_file(&slow).expect("removed");
    assert_told(&world);
    let error = install(&world, BY_CONDA, &[]);
    assert_eq!(error["code"], "install.old_interpreter", "{error:#}");
    assert!(home.exists(), "it may be another's by now");
    assert_told(&world);
    let (conda, away) = (folder.join("conda"), folder.join("away"));
    std::fs::rename(&conda, &away).expect("moved");
    let error = install(&world, BY_CONDA, &[]);
    assert_eq!(error["code"], "install.no_conda", "{error:#}");
    assert_told(&world);
    // Nobody finds it without conda.
    let refused = world.run(&["remove", "x", "-y", "--json"]).expect(exit::DOMAIN).json();
    assert_eq!(refused["error"]["code"], "install.no_conda", "{refused:#}");
    assert_told(&world);
    std::fs::rename(&away, &conda).expect("moved");
    let error = install(&world, "python_version: '3.78'", &[]);
    assert_eq!(error["code"], "install.no_interpreter", "{error:#}");
    assert_told(&world);
    let _ = world.run(&["remove", "x", "-y"]).expect(exit::OK);
    assert!(!home.exists());
    assert_nothing_begun(&world);
    world.assert_nothing_left();
}

#[test]
fn what_a_killed_run_had_conda_make_in_the_place_of_another_one_goes_with_the_next() {
    let (world, _, home) = world_with_conda();
    let (slow, begun) = (home.with_extension("slow"), home.with_extension("begun"));
    std::fs::create_dir(&home).expect("a folder");
    std::fs::write(home.join("mark"), "").expect("written");
    std::fs::write(&slow, "").expect("written");
    let list = format!("capabilities:\n- {{name: x, package: nothing==1, env_name: its-env, {BY_CONDA}}}\n");
    let list = world.write("capabilities.yaml", &list).display().to_string();
    let running = world.start(&["install-all", "--force", "--capabilities", &list]);
    let note = home.with_file_name(".its-env.cjm-made");
    eventually("what conda makes is seen", COMMAND_MAX, || {
        assert!(!running.has_ended(), "{}", running.stderr_so_far());
        (begun.exists() && std::fs::read(&note).is_ok_and(|text| !text.is_empty())).then_some(())
    });
    kill_with_helpers(&world, running);
    std::fs::remove_file(&slow).expect("removed");
    assert!(!home.join("mark").exists());
    let error = install(&world, BY_CONDA, &["--force"]);
    assert_eq!(error["code"], "install.old_interpreter", "{error:#}");
    assert!(home.join("mark").exists(), "it is there as it was");
    let listing = std::fs::read_dir(home.parent().expect("a folder")).expect("listed").flatten();
    let left: Vec<_> = listing.map(|one| one.file_name()).filter(|name| name != "its-env.begun").collect();
    assert_eq!(left, ["its-env"], "what conda had begun is gone");
}

#[test]
fn what_conda_has_made_and_does_not_remove_is_told() {
    let (world, _, home) = world_with_conda();
    let stays = home.with_extension("stays");
    std::fs::write(&stays, "").expect("written");
    let error = install(&world, BY_CONDA, &[]);
    assert_eq!(error["code"], "install.old_interpreter", "{error:#}");
    assert!(home.exists());
    assert_told(&world);
    std::fs::remove_file(&stays).expect("removed");
    let _ = world.run(&["remove", "x", "-y"]).expect(exit::OK);
    assert!(!home.exists());
    assert_nothing_begun(&world);
}

#[test]
fn a_conda_environment_without_an_interpreter_goes_again_and_nobody_is_told() {
    let (world, _, home) = world_with_conda();
    world.write("env.yml", "/dev/null");
    let error = install(&world, BY_CONDA, &[]);
    assert_eq!(error["code"], "install.no_python_inside", "{error:#}");
    assert!(!home.exists());
    assert_nothing_begun(&world);
}
