//! What lies in an environment and cannot be deleted, and what a program mounted where it ran. Through what somebody has
//! mounted nothing deletes, and whoever would have leaves the rest as it was, and says so; only root mounts. What is another
//! user's is put aside.

use cjm_platform::Signal;
use cjm_tests::other_user::{is_root, set_mode};
use cjm_tests::package::{world_with_uv, write_package};
use cjm_tests::small_disk::SmallDisk;
use cjm_tests::world::{COMMAND_MAX, Outcome, World, eventually, manifest};
use cjm_tests::{python, repo};
use cjm_wire::cache::running_mark;
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

/// What lies elsewhere is neither counted as a tool's nor emptied by a command that is told.
#[test]
fn what_is_mounted_or_linked_in_what_tools_keep_is_not_counted_and_unmounted_first() {
    const NAME: &str = "what_is_mounted_or_linked_in_what_tools_keep_is_not_counted_and_unmounted_first";
    let world = World::new();
    let disk = match SmallDisk::under(&world) {
        Ok(disk) => disk,
        Err(reason) => return repo::skip(NAME, &reason),
    };
    world.install_executable("tool", "/bin/true", &json!({"go": {"argv": []}}));
    let _ = world.run(&["call", "tool"]).expect(exit::OK);
    let [own, place, inner] = ["data/tool", "data/tool/of somebody", "data/tool/of somebody/in"]
        .map(|name| world.data_dir().join(name));
    let theirs = world.file("theirs");
    for folder in [&place, &theirs.join("in")] {
        fs::create_dir_all(folder).expect("a folder");
    }
    fs::write(own.join("page"), vec![b'x'; 1024 * 1024]).expect("written");
    fs::write(theirs.join("photo"), vec![b'x'; 3 * 1024 * 1024]).expect("written");
    std::os::unix::fs::symlink("/usr", world.data_dir().join("data/link")).expect("linked");
    let bound = Bound([inner.clone(), place.clone()]);
    for place in [&place, &inner] {
        let mount = Command::new("mount").arg("--bind").args([&theirs, place]).output();
        if !mount.as_ref().is_ok_and(|done| done.status.success()) {
            return repo::skip(NAME, &format!("a folder cannot be mounted: {mount:?}"));
        }
    }
    disk.fill(512 * 1024);
    let forget = ["retention", "--max-total-mb", "0"];
    let told = world.run(&forget).expect(exit::OK).stdout;
    let way = format!(
        "`umount '{}' '{}'` first, for what is mounted there would be emptied; then `rm -r {}` takes it away",
        inner.display(),
        place.display(),
        own.display()
    );
    assert!(told.contains(&format!("{} holds 1.0 MB that its tool keeps ({way})", own.display())), "{told}");
    assert!(!told.contains("data/link"), "{told}");
    disk.free();
    let removed = world.run(&["remove", "tool", "-y"]).expect(exit::OK);
    assert!(removed.stdout.contains(&format!("{} ({way})", own.display())), "{}", removed.describe());
    world.install_executable("link", "/bin/true", &json!({"go": {"argv": []}}));
    let removed = world.run(&["remove", "link", "-y"]).expect(exit::OK);
    let way = "`rm {}` takes the link away"
        .replace("{}", &world.data_dir().join("data/link").display().to_string());
    assert!(removed.stdout.contains(&way), "{}", removed.describe());
    assert!(theirs.join("photo").exists());
    drop(bound);
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

#[test]
fn a_manifest_that_something_is_mounted_over_is_told_as_that_by_what_would_write_or_remove_it() {
    const NAME: &str =
        "a_manifest_that_something_is_mounted_over_is_told_as_that_by_what_would_write_or_remove_it";
    let world = World::new();
    let actions = json!({"say": {"argv": ["-c", "echo hi"], "result": "stdout_text"}});
    let write = |version: &str| {
        let runtime = json!({"kind": "executable", "program": "sh", "actions": actions});
        let text = manifest("tool", &json!({"runtime": runtime, "version": version}), &json!({})).to_string();
        world.write("tool.json", text);
    };
    write("1.0.0");
    world.write("capabilities.yaml", "capabilities: [{name: tool, manifest: tool.json}]\n");
    let _ = world.run(&["install-all"]).expect(exit::OK);
    let place = world.data_dir().join("manifests/tool.json");
    let theirs = world.file("theirs.json");
    fs::copy(&place, &theirs).expect("copied");
    let mount = Command::new("mount").arg("--bind").args([&theirs, &place]).output();
    if !mount.as_ref().is_ok_and(|done| done.status.success()) {
        return repo::skip(NAME, &format!("a file cannot be mounted: {mount:?}"));
    }
    let bound = Bound([place.clone(), world.file("nothing")]);
    write("2.0.0");
    for (command, action) in [
        (&["install-all"][..], "write"),
        (&["regenerate-manifest", "tool"], "write"),
        (&["remove", "tool", "-y"], "remove"),
    ] {
        let told = world.run(command).expect(exit::DOMAIN);
        let words = format!("cannot {action} {}: something is mounted in its place", place.display());
        assert!(told.stderr.contains(&words), "{}", told.describe());
        assert!(told.stderr.contains(&format!("`umount {}`", place.display())), "{}", told.describe());
        let _ = world.run(&["call", "tool", "--action", "say"]).expect(exit::OK);
    }
    drop(bound);
    let _ = world.run(&["install-all"]).expect(exit::OK);
    let _ = world.run(&["remove", "tool", "-y"]).expect(exit::OK);
}

/// The old name leads into the same environment.
#[test]
fn a_python_tool_that_has_another_name_now_and_stays_under_the_old_one_is_told() {
    const NAME: &str = "a_python_tool_that_has_another_name_now_and_stays_under_the_old_one_is_told";
    let Some(world) = world_with_uv(NAME) else { return };
    write_package(&world.file(""), "tool-one");
    let entry = "{name: a, package: ./tool-one, env_name: e, python_version: \">=3.9\"}";
    world.write("capabilities.yaml", format!("capabilities: [{entry}]\n"));
    let _ = world.run(&["install-all"]).expect(exit::OK);
    let place = world.data_dir().join("manifests/tool-one.json");
    let theirs = world.file("theirs.json");
    fs::copy(&place, &theirs).expect("copied");
    let mount = Command::new("mount").arg("--bind").args([&theirs, &place]).output();
    if !mount.as_ref().is_ok_and(|done| done.status.success()) {
        return repo::skip(NAME, &format!("a file cannot be mounted: {mount:?}"));
    }
    let bound = Bound([place.clone(), world.file("nothing")]);
    let class = world.file("tool-one/tool_one/capability.py");
    let text = fs::read_to_string(&class).expect("a class");
    fs::write(&class, text.replace("\"tool-one\"", "\"renamed\"")).expect("written");
    let told = world.run(&["install-all", "--json"]).expect(exit::OK).json()["entries"][0].clone();
    assert_eq!((&told["capability"], &told["renamed_from"]), (&json!("renamed"), &json!(null)), "{told:#}");
    let warnings = told["warnings"].to_string();
    for words in [
        format!(
            "tool-one, as it was called before, can be called still: {} cannot be removed",
            place.display()
        ),
        "remove tool-one` takes it away".to_owned(),
    ] {
        assert!(warnings.contains(&words), "{told:#}");
    }
    drop(bound);
    let _ = world.run(&["remove", "tool-one", "-y"]).expect(exit::OK);
    let _ = world.run(&["call", "renamed", "--action", "who"]).expect(exit::OK);
}

/// Whom rights hold back: this user, and where that is root, another one.
struct Nobody<'w> {
    world: &'w World,
    is_other: bool,
}

impl<'w> Nobody<'w> {
    fn of(world: &'w World) -> Self {
        let is_other = is_root();
        if is_other {
            let whole = world.data_dir().join("..");
            set_mode(&whole, 0o755);
            let given = Command::new("chown").args(["-R", "65534:65534"]).arg(&whole).status();
            assert!(given.is_ok_and(|status| status.success()));
        }
        Self { world, is_other }
    }

    fn run(&self, arguments: &[&str]) -> Outcome {
        let mut command = if self.is_other {
            let mut other = Command::new("setpriv");
            other.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(repo::binary("cjm-ctl"));
            other
        } else {
            Command::new(repo::binary("cjm-ctl"))
        };
        command.arg("--data-dir").arg(self.world.data_dir()).args(arguments);
        command.env("HOME", self.world.file("")).env("UV_CACHE_DIR", self.world.file("cache"));
        command.env("CJM_WORKER", self.world.file("cjm-worker"));
        self.world.start_command(command).wait(COMMAND_MAX)
    }
}

#[test]
fn an_update_puts_aside_what_it_cannot_delete_and_one_that_fails_leaves_the_tool_as_it_was() {
    const NAME: &str =
        "an_update_puts_aside_what_it_cannot_delete_and_one_that_fails_leaves_the_tool_as_it_was";
    let Some(mut world) = world_with_uv(NAME) else { return };
    let uv = python::uv(&world).expect("it is there");
    for (program, name) in [(&uv, "uv"), (&repo::binary("cjm-worker"), "cjm-worker")] {
        fs::copy(program, world.file(name)).expect("copied");
    }
    world.set("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin", world.file("").display()));
    write_package(&world.file(""), "tool-one");
    let entry = "{name: tool-one, package: ./tool-one, env_name: tool-one, python_version: \">=3.9\"}";
    world.write("capabilities.yaml", format!("capabilities: [{entry}]\n"));
    let nobody = Nobody::of(&world);
    let install = |more: &[&str], code: u8| {
        let told = nobody.run(&[&["install-all", "--json"], more].concat()).expect(code).json();
        told["entries"][0].clone()
    };
    let is_callable = || drop(nobody.run(&["call", "tool-one", "--action", "who"]).expect(exit::OK));
    let put_there = || {
        let held = world.data_dir().join("envs/tool-one/lib/held");
        fs::create_dir_all(&held).expect("a folder");
        fs::write(held.join("file"), "").expect("a file");
        let _whose_it_is_now = Nobody::of(&world);
        set_mode(&held, 0o555);
    };
    let rest = |number: u32| world.data_dir().join(format!("envs/.tool-one.removed-{number}"));
    let _ = install(&[], exit::OK);
    put_there();
    let told = install(&["--force"], exit::OK);
    assert!(told["warnings"].to_string().contains(&format!("`rm -rf {}`", rest(1).display())), "{told:#}");
    is_callable();
    assert!(rest(1).join("lib/held/file").exists());
    put_there();
    world.write("tool-one/tool_one/capability.py", "raise SystemExit(3)\n");
    let told = install(&[], exit::DOMAIN);
    assert_eq!(told["error"]["code"], "install.introspection", "{told:#}");
    let warnings = told["warnings"].to_string();
    assert!(warnings.contains("tool-one 1.0.0 stays installed as it was, and can be called"), "{told:#}");
    assert!(warnings.contains(&rest(2).display().to_string()), "{told:#}");
    is_callable();
    let listed = nobody.run(&["list"]).expect(exit::OK);
    for number in [1, 2] {
        assert!(listed.stderr.contains(&rest(number).display().to_string()), "{}", listed.describe());
        set_mode(&rest(number).join("lib/held"), 0o755);
    }
    // Once its owner lets go of it, it goes with the next one.
    let _ = install(&[], exit::DOMAIN);
    assert!(!rest(1).exists() && !rest(2).exists());
    // What may not even be read keeps the update from its copy, and is named.
    let hidden = world.data_dir().join("envs/tool-one/lib/hidden");
    fs::create_dir(&hidden).expect("a folder");
    let _whose_it_is_now = Nobody::of(&world);
    set_mode(&hidden, 0);
    let told = install(&["--force"], exit::DOMAIN)["error"].to_string();
    assert!(told.contains(&format!("{}: Permission denied", hidden.display())), "{told}");
    is_callable();
    set_mode(&hidden, 0o755);
}

/// Folders of one's own on a disk that is mounted, or that a link leads to, where calls of programs run.
#[test]
fn what_lies_where_calls_run_and_was_made_by_none_is_never_forgotten() {
    const NAME: &str = "what_lies_where_calls_run_and_was_made_by_none_is_never_forgotten";
    let world = World::new();
    world.install_executable("tool", "/bin/sh", &json!({"ends": {"argv": ["-c", "echo done"]}}));
    let _ = world.run(&["call", "tool", "--action", "ends"]).expect(exit::OK);
    let theirs = world.file("theirs");
    // As a killed call would have left it, but for where it lies.
    let old = |folder: PathBuf| {
        fs::create_dir_all(folder.join("in it")).expect("a folder");
        fs::write(running_mark(&folder), "").expect("a mark");
        let changed = std::time::SystemTime::now() - Duration::from_secs(60 * 24 * 3600);
        fs::File::open(&folder).expect("opens").set_modified(changed).expect("set");
        folder
    };
    let session = "01a22857-1886-7071-832b-98ab3cc0675c";
    let kept = [old(theirs.join("2020")), old(theirs.join(session).join("1"))];
    let work = |tool: &str| world.data_dir().join("data").join(tool).join("work");
    let own = [old(work("tool").join("projects/2024")), old(work("tool").join(session).join("notes"))];
    fs::create_dir_all(work("linked").parent().expect("a parent")).expect("a folder");
    std::os::unix::fs::symlink(&theirs, work("linked")).expect("a link");
    let ours = old(work("ours").join(session).join("1"));
    let place = work("mounted").join(session);
    fs::create_dir_all(&place).expect("a folder");
    let mount = Command::new("mount").arg("--bind").args([&theirs, &place]).output();
    if !mount.as_ref().is_ok_and(|done| done.status.success()) {
        return repo::skip(NAME, &format!("a folder cannot be mounted: {mount:?}"));
    }
    let _bound = Bound([place, world.file("nothing")]);
    // The marked ones go with the next host, the old ones with their age.
    let forget = ["retention", "--jobs-max-age-days", "30", "--json"];
    let told = world.run(&forget).expect(exit::OK).json();
    assert_eq!(told["work_directories_deleted"], 1, "{told:#}");
    assert!(!ours.exists());
    let ours = old(work("ours").join(session).join("1"));
    let _ = world.run(&["call", "tool", "--action", "ends"]).expect(exit::OK);
    assert!(!ours.exists());
    for folder in kept.iter().chain(&own) {
        assert!(folder.join("in it").is_dir() && running_mark(folder).exists(), "{}", folder.display());
    }
}

/// Data directories may share a folder that is mounted in both: none of their hosts is told as another's.
#[test]
fn hosts_of_directories_that_share_a_mounted_folder_run_side_by_side() {
    const NAME: &str = "hosts_of_directories_that_share_a_mounted_folder_run_side_by_side";
    let world = World::new();
    let actions = json!({"wait": {"argv": ["-c", "exec sleep 600"]}, "say": {"argv": ["-c", "true"]}});
    let path = world.install_executable("sh", "/bin/sh", &actions);
    let shared = world.file("shared");
    fs::create_dir_all(&shared).expect("a folder");
    fs::copy(path, shared.join("sh.json")).expect("copied");
    let second = world.file("second");
    let bound = Bound([world.data_dir(), second.clone()].map(|data_dir| data_dir.join("manifests")));
    fs::create_dir_all(&bound.0[1]).expect("a folder");
    for place in &bound.0 {
        let mount = Command::new("mount").arg("--bind").args([&shared, place]).output();
        if !mount.as_ref().is_ok_and(|done| done.status.success()) {
            return repo::skip(NAME, &format!("a folder cannot be mounted: {mount:?}"));
        }
    }
    let running = world.start(&["call", "sh", "--action", "wait"]);
    eventually("the call runs", COMMAND_MAX, || {
        (world.json(&["status", "--json"])["running_count"] == 1).then_some(())
    });
    let second = second.display().to_string();
    let _ = world.run(&["--data-dir", &second, "call", "sh", "--action", "say"]).expect(exit::OK);
    let status = world.run(&["--data-dir", &second, "status"]).expect(exit::OK);
    assert!(status.stdout.starts_with("no host uses "), "{}", status.describe());
    running.signal(Signal::TERM);
    let _ = running.wait(COMMAND_MAX).expect(143);
    drop(bound);
}
