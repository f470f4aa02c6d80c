//! What somebody has mounted in an environment, or a program where it ran: nothing deletes through it, and whoever would
//! have leaves the rest as it was, and says so. Only root mounts.

use cjm_platform::Signal;
use cjm_tests::package::{world_with_uv, write_package};
use cjm_tests::repo;
use cjm_tests::world::{COMMAND_MAX, World, eventually, manifest};
use cjm_wire::describe::exit;
use serde_json::json;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// The places where a mount may be by now; unmounted when dropped, also where the test fails.
struct Bound([PathBuf; 2]);

impl Drop for Bound {
    fn drop(&mut self) {
        for place in self.0.iter().filter(|place| place.exists()) {
            let _ = Command::new("umount").arg("-lq").arg(place).status();
        }
    }
}

/// Also of a folder on the same disk, whose device number is that of the environment.
#[test]
fn what_is_mounted_in_an_environment_is_not_deleted_through() {
    let world = World::new();
    let python = world.data_dir().join("envs/tool/bin/python").display().to_string();
    let install = json!({"python_path": python, "conda_env": "tool"});
    world.install("tool", &manifest("tool", &json!({"module": "m", "class": "C"}), &install));
    let make_folder = |name: &str| {
        let path = world.data_dir().join(name);
        fs::create_dir_all(&path).expect("a folder");
        fs::write(path.join("pyvenv.cfg"), "").expect("a file");
        path
    };
    let environment = make_folder("envs/tool");
    let place = make_folder("envs/tool/lib/of somebody");
    let theirs = make_folder("theirs").join("pyvenv.cfg");
    let mount = Command::new("mount").arg("--bind").arg(world.data_dir().join("theirs")).arg(&place).output();
    if !mount.as_ref().is_ok_and(|done| done.status.success()) {
        let why = format!("a folder cannot be mounted: {mount:?}");
        return repo::skip("what_is_mounted_in_an_environment_is_not_deleted_through", &why);
    }
    // It goes along with its environment.
    let rest = world.data_dir().join("envs/.tool.removed-1");
    let bound = Bound([place.clone(), rest.join("lib/of somebody")]);
    let refused = world.run(&["remove", "tool", "-y"]).expect(exit::DOMAIN);
    let words = format!("nothing of {} was deleted: {} is mounted", environment.display(), place.display());
    assert!(refused.stderr.contains(&words), "{}", refused.describe());
    assert!(refused.stderr.contains(&format!("`umount '{}'`", place.display())), "{}", refused.describe());
    assert!(environment.join("pyvenv.cfg").exists() && theirs.exists());
    assert!(world.data_dir().join("manifests/tool.json").exists());
    // One in what an earlier removal left is spared, too.
    fs::rename(&environment, &rest).expect("renamed");
    make_folder("envs/tool");
    let told = world.run(&["remove", "tool", "-y"]).expect(exit::DOMAIN);
    assert!(told.stderr.contains("unmount first what is mounted in it"), "{}", told.describe());
    assert!(rest.join("pyvenv.cfg").exists() && theirs.exists() && !environment.exists());
    drop(bound);
    let _ = world.run(&["remove", "tool", "-y"]).expect(exit::OK);
    assert!(!rest.exists() && theirs.exists());
}

#[test]
fn an_installation_over_a_mount_is_refused_and_leaves_the_tool_as_it_was() {
    const NAME: &str = "an_installation_over_a_mount_is_refused_and_leaves_the_tool_as_it_was";
    let Some(world) = world_with_uv(NAME) else { return };
    write_package(&world.file(""), "tool-one");
    let entry = "{name: tool-one, package: ./tool-one, env_name: tool-one, python_version: \">=3.9\"}";
    world.write("capabilities.yaml", format!("capabilities: [{entry}]\n"));
    let _ = world.run(&["install-all"]).expect(exit::OK);
    let environment = world.data_dir().join("envs/tool-one");
    let [place, theirs] = [environment.join("theirs"), world.file("theirs")];
    for folder in [&place, &theirs] {
        fs::create_dir_all(folder).expect("a folder");
    }
    let mount = Command::new("mount").arg("--bind").args([&theirs, &place]).output();
    if !mount.as_ref().is_ok_and(|done| done.status.success()) {
        return repo::skip(NAME, &format!("a folder cannot be mounted: {mount:?}"));
    }
    let bound = Bound([place, world.data_dir().join("envs/.tool-one.former/theirs")]);
    let told = world.run(&["install-all", "--force", "--json"]).expect(exit::DOMAIN).json();
    assert_eq!(told["entries"][0]["error"]["code"], "remove.mounted", "{told:#}");
    let listed = world.run(&["list"]).expect(exit::OK);
    assert!(!listed.stderr.contains("cannot be called"), "{}", listed.describe());
    let _ = world.run(&["call", "tool-one", "--action", "who"]).expect(exit::OK);
    drop(bound);
    let _ = world.run(&["install-all", "--force"]).expect(exit::OK);
}

/// The places that the program of the next test has said it mounted; unmounted when dropped.
struct Said<'w>(&'w World);

impl Said<'_> {
    fn places(&self) -> Vec<PathBuf> {
        let said = fs::read_to_string(self.0.file("places")).unwrap_or_default();
        said.lines().map(PathBuf::from).collect()
    }
}

impl Drop for Said<'_> {
    fn drop(&mut self) {
        for place in self.places() {
            let _ = Command::new("umount").arg("-lq").arg(place).status();
        }
    }
}

/// A program may mount a share or a home where it runs, and not come to unmount it.
#[test]
fn what_a_call_mounted_where_it_ran_is_not_deleted_through() {
    const NAME: &str = "what_a_call_mounted_where_it_ran_is_not_deleted_through";
    let world = World::new();
    let theirs = world.file("theirs/file");
    fs::create_dir_all(world.file("theirs")).expect("a folder");
    fs::write(&theirs, "x").expect("a file");
    let said = Said(&world);
    let [from, to] = [world.file("theirs"), world.file("places")].map(|path| path.display().to_string());
    let mounts = |then: &str| {
        let script = format!("mkdir sub && mount --bind {from} sub && echo $PWD/sub >> {to} && {then}");
        json!({"argv": ["-c", script], "result": "stdout_text"})
    };
    let actions =
        json!({"fails": mounts("exit 3"), "ends": mounts("echo done"), "lasts": mounts("exec sleep 600")});
    world.install_executable("tool", "/bin/sh", &actions);
    let failed = world.run(&["call", "tool", "--action", "fails"]);
    if said.places().is_empty() {
        return repo::skip(NAME, &format!("a folder cannot be mounted: {}", failed.stderr));
    }
    let _ = failed.expect(exit::TOOL_FAILED);
    assert!(theirs.exists(), "deleted with what a failed call left");
    let logs = world.run(&["logs"]).expect(exit::OK).stdout;
    assert!(logs.contains("stays: something is mounted at ") && logs.contains("/sub"), "{logs}");
    let _ = world.run(&["call", "tool", "--action", "ends"]).expect(exit::OK);

    let lasting = world.start(&["call", "tool", "--action", "lasts"]);
    eventually("the third call runs", Duration::from_secs(30), || (said.places().len() == 3).then_some(()));
    lasting.signal(Signal::KILL);
    let _ = lasting.wait(COMMAND_MAX);
    let forget = ["retention", "--jobs-max-age-days", "0.0000001", "--json"];
    let _ = world.run(&["call", "tool", "--action", "ends"]).expect(exit::OK);
    assert!(theirs.exists(), "deleted with what a killed call left");
    let left = world.run(&forget).expect(exit::OK).json()["work_directories_left"].clone();
    assert!(theirs.exists(), "deleted with what was old");
    assert_eq!(left.as_array().map(Vec::len), Some(4), "{left:#}");
    let told = world.run(&forget[..3]).expect(exit::OK).stdout;
    assert_eq!(told.matches(" stays: something is mounted at ").count(), 4, "{told}");
    drop(said);
    let done = world.run(&forget).expect(exit::OK).json();
    assert_eq!((&done["work_directories_deleted"], &done["work_directories_left"]), (&4.into(), &json!([])));
    assert!(theirs.exists());
}
