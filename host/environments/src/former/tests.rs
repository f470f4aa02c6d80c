//! Updates and recoveries that are killed at each of their steps, and what somebody wrote meanwhile.

use super::*;

const STAMP: &str = r#"{"request":"r","python_path":"p","python_version":"3","python_file":"f",
                        "lock_hash":"l","capability":"c"}"#;

/// An environment with a stamp, and what it holds as text.
fn environment() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("tempdir");
    let home = folder.path().join("envs/tool");
    for (name, text) in [("bin/tool", "old"), ("lib/python3/site-packages/m.py", "old")] {
        let path = home.join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("mkdir");
        std::fs::write(path, text).expect("write");
    }
    std::fs::write(home.join("cjm-stamp.json"), STAMP).expect("write");
    symlink("lib", home.join("lib64")).expect("link");
    (folder, home)
}

/// Beside the environments, as in a data directory.
fn manifests(home: &Path) -> PathBuf {
    home.parent().and_then(Path::parent).expect("a data directory").join("manifests")
}

fn module(home: &Path) -> String {
    std::fs::read_to_string(home.join("lib64/python3/site-packages/m.py")).unwrap_or_default()
}

/// As an installer does: the file is another one.
fn replace(home: &Path) {
    Stamp::remove(home).expect("removed");
    std::fs::write(home.join("bin/tool"), "new").expect("written into");
    let path = home.join("lib/python3/site-packages/m.py");
    std::fs::remove_file(&path).expect("removed");
    std::fs::write(path, "new").expect("written");
}

#[test]
fn what_was_installed_comes_back_unless_the_new_one_came_to_its_end() {
    let (folder, home) = environment();
    let former = Former::keep(&home, &manifests(&home)).expect("kept").expect("something was installed");
    replace(&home);
    drop(former);
    assert_eq!(
        (module(&home), std::fs::read_to_string(home.join("bin/tool")).expect("there")),
        ("old".into(), "old".into())
    );
    assert!(Stamp::read(&home).is_some());

    let former = Former::keep(&home, &manifests(&home)).expect("kept").expect("something was installed");
    replace(&home);
    std::fs::write(home.join("cjm-stamp.json"), STAMP).expect("write");
    former.let_go();
    assert_eq!(module(&home), "new");
    let left = std::fs::read_dir(folder.path().join("envs")).expect("there").count();
    assert_eq!(left, 1, "nothing but the environment");
}

#[test]
fn one_that_was_killed_is_put_back_by_the_next() {
    let (folder, home) = environment();
    // A kill runs no destructor.
    std::mem::forget(Former::keep(&home, &manifests(&home)).expect("kept"));
    replace(&home);
    remove_dir(&home).expect("killed when it made the environment anew");
    recover_quietly(&home);
    assert_eq!(module(&home), "old");
    std::fs::create_dir_all(beside(&home, "copying")).expect("killed when it copied");
    std::mem::forget(Former::keep(&home, &manifests(&home)).expect("kept"));
    recover_quietly(&home);
    assert_eq!(std::fs::read_dir(folder.path().join("envs")).expect("there").count(), 1);
    remove_dir(&home).expect("removed");
    assert!(Former::keep(&home, &manifests(&home)).expect("looked").is_none(), "nothing is installed");
}

/// Where nobody has written anything since.
fn recover_quietly(home: &Path) {
    let mut told = Vec::new();
    recover(home, &manifests(home), &mut told).expect("put back");
    assert_eq!(told, [""; 0]);
}

/// Names of manifests, each with what it says.
fn written(home: &Path) -> Vec<(String, String)> {
    let files = std::fs::read_dir(manifests(home)).expect("a folder").flatten();
    let mut all: Vec<_> = files
        .map(|file| {
            let text = std::fs::read_to_string(file.path()).expect("a manifest");
            (file.file_name().to_string_lossy().into_owned(), text)
        })
        .collect();
    all.sort();
    all
}

/// An update, up to the instant of its kill: how many of its steps it did. The capability `c` becomes `d`, its adapter
/// `a` is written anew and gets a companion, `b`.
fn update(home: &Path, steps: usize) {
    let folder = manifests(home);
    let mut former = None;
    for step in 0..steps {
        let write = |name: &str| {
            Former::write(former.as_ref(), &folder.join(name), b"new").expect("written");
        };
        match step {
            0 => former = Former::keep(home, &folder).expect("kept"),
            1 => replace(home),
            2 => {
                let names = ["a.json", "b.json", "d.json", "c.json"].map(str::to_owned);
                former.as_ref().expect("kept").keep_manifests(&names).expect("kept");
            }
            3 => write("a.json"),
            4 => write("b.json"),
            5 => write("d.json"),
            6 => std::fs::remove_file(folder.join("c.json")).expect("removed"),
            7 => write_whole(&home.join("cjm-stamp.json"), STAMP.as_bytes()).expect("written"),
            _ => former.take().expect("kept").let_go(),
        }
    }
    // A kill runs no destructor.
    std::mem::forget(former);
}

const STEPS: usize = 9;

#[test]
fn manifests_and_environment_are_put_back_together_at_whatever_step_it_was_killed() {
    let old = [("a.json", "old"), ("c.json", "old"), ("other.json", "old")];
    let new = [("a.json", "new"), ("b.json", "new"), ("d.json", "new"), ("other.json", "old")];
    for steps in 0..=STEPS {
        // The recovery is killed as well: after so many of its own.
        for recovered in 0..4 {
            let (folder, home) = environment();
            for (name, text) in old {
                write_whole(&manifests(&home).join(name), text.as_bytes()).expect("written");
            }
            update(&home, steps);
            let copy = former_of(&home);
            if copy.is_dir() && Stamp::read(&home).is_none() {
                if recovered > 0 {
                    put_back_manifests(&home, &manifests(&home), &mut Vec::new()).expect("put back");
                }
                if recovered > 1 {
                    std::fs::remove_file(home.join("bin/tool")).expect("killed when it removed");
                }
                if recovered > 2 {
                    remove_dir(&home).expect("removed");
                }
            }
            recover_quietly(&home);
            let is_done = steps > 7;
            let expected = if is_done { &new[..] } else { &old[..] };
            let expected: Vec<_> =
                expected.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
            assert_eq!(written(&home), expected, "killed after {steps} and {recovered} steps");
            assert_eq!(module(&home), if is_done { "new" } else { "old" }, "{steps} and {recovered}");
            assert!(Stamp::read(&home).is_some(), "{steps} and {recovered}");
            let left = std::fs::read_dir(folder.path().join("envs")).expect("there").count();
            assert_eq!(left, 1, "nothing but the environment: {steps} and {recovered}");
            assert!(!home.join(NOTE).exists() && !home.join(KEPT).exists(), "{steps} and {recovered}");
        }
    }
}

#[test]
fn the_note_comes_after_what_it_speaks_of_and_goes_before_it() {
    let (_folder, home) = environment();
    write_whole(&manifests(&home).join("c.json"), b"old").expect("written");
    // What a package brings under these names is none.
    write_whole(&home.join(NOTE), b"c.json").expect("written");
    std::fs::create_dir(home.join(KEPT)).expect("mkdir");
    let former = Former::keep(&home, &manifests(&home)).expect("kept").expect("something was installed");
    let (note, kept) = (former_of(&home).join(NOTE), former_of(&home).join(KEPT));
    assert!(!note.exists() && !kept.exists());
    // A manifest that cannot be kept, since something stands in its place.
    std::fs::create_dir_all(kept.join("c.json/x")).expect("mkdir");
    assert!(former.keep_manifests(&["c.json".to_owned()]).is_err());
    assert!(!note.exists(), "the manifest would be taken for one that was not there");
    remove_dir(&kept).expect("removed");
    former.keep_manifests(&["c.json".to_owned()]).expect("kept");
    // What is kept cannot be removed.
    write_whole(&note, b"").expect("written");
    remove_dir(&kept).expect("removed");
    std::fs::write(&kept, "").expect("written");
    assert!(put_back_manifests(&home, &manifests(&home), &mut Vec::new()).is_err());
    assert!(!note.exists(), "a note without what it speaks of removes manifests");
    std::fs::remove_file(&kept).expect("removed");
    former.let_go();
    std::fs::write(note_beside(&home), "list.yaml").expect("written");
    for begun in [former_of(&home), beside(&home, "copying")] {
        std::fs::create_dir_all(begun.join("lib")).expect("made");
    }
    forget(&home).expect("forgotten");
    let left = std::fs::read_dir(home.parent().expect("a folder")).expect("there").flatten();
    assert_eq!(left.map(|one| one.path()).collect::<Vec<_>>(), [home]);
}

/// The tool was installed into another environment after an update had been killed.
#[test]
fn a_manifest_that_names_another_environment_since_is_newer_than_what_is_kept() {
    let tool = |env_name: &str, version: &str| {
        format!(
            r#"{{"format_version":"2.0","install":{{"python_path":"/p","conda_env":"{env_name}"}},"code":{{"name":"c","version":"{version}",
            "module":"m","class":"C"}}}}"#
        )
    };
    let adapter = |env_name: &str| {
        let class = r#""unit":"adapter","name":"m.A","task_name":"t","module":"m","class":"A""#;
        format!(r#"{{{class},"conda_env":"{env_name}"}}"#)
    };
    // One that names no environment is of nobody who could have written it since.
    for (env_name, stays) in [("tool", false), ("", false), ("other", true)] {
        let (_folder, home) = environment();
        let write = |name: &str, text: &str| {
            write_whole(&manifests(&home).join(name), text.as_bytes()).expect("written");
        };
        let old = [("a.json", adapter("tool")), ("c.json", tool("tool", "1"))];
        old.iter().for_each(|(name, text)| write(name, text));
        let former = Former::keep(&home, &manifests(&home)).expect("kept").expect("something was installed");
        replace(&home);
        former.keep_manifests(&["a.json", "b.json", "c.json"].map(str::to_owned)).expect("kept");
        let new =
            [("a.json", adapter(env_name)), ("b.json", adapter(env_name)), ("c.json", tool(env_name, "2"))];
        for (name, text) in &new {
            Former::write(Some(&former), &manifests(&home).join(name), text.as_bytes()).expect("written");
        }
        std::mem::forget(former);
        recover_quietly(&home);
        assert_eq!(module(&home), "old");
        let expected = if stays { &new[..] } else { &old[..] };
        let expected: Vec<_> =
            expected.iter().map(|(name, text)| ((*name).to_owned(), text.clone())).collect();
        assert_eq!(written(&home), expected, "{env_name}");
    }
}

/// A copy of an environment may have come with a folder from elsewhere.
#[test]
fn a_note_speaks_of_manifests_beside_each_other_and_of_nothing_else() {
    let (folder, home) = environment();
    let mine = folder.path().join("mine.json");
    write_whole(&mine, b"mine").expect("written");
    let copy = former_of(&home);
    write_whole(&manifests(&home).join("keep.txt"), b"mine").expect("written");
    write_whole(&manifests(&home).join("c.json"), b"new").expect("written");
    let inner = manifests(&home).join("inner");
    write_whole(&inner.join("d.json"), b"mine").expect("written");
    let absolute = mine.display();
    let note = format!("../mine.json\n{absolute}\ninner/d.json\nkeep.txt\n\n..\nc.json");
    write_whole(&copy.join(NOTE), note.as_bytes()).expect("written");
    put_back_manifests(&home, &manifests(&home), &mut Vec::new()).expect("put back");
    assert!(mine.is_file() && inner.join("d.json").is_file());
    assert!(manifests(&home).join("keep.txt").is_file());
    assert!(!manifests(&home).join("c.json").exists(), "what was not there before goes");
}

#[test]
fn a_manifest_that_nobody_touched_is_left_since_its_folder_may_take_nothing() {
    let (_folder, home) = environment();
    write_whole(&manifests(&home).join("c.json"), b"old").expect("written");
    let former = Former::keep(&home, &manifests(&home)).expect("kept").expect("something was installed");
    replace(&home);
    former.keep_manifests(&["c.json".to_owned()]).expect("kept");
    // What is written into a folder first has these names.
    for taken in ["c.link", "c.json.new"] {
        let place = manifests(&home).join(format!("{taken}-{}", std::process::id()));
        std::fs::create_dir_all(place.join("x")).expect("made");
    }
    drop(former);
    assert_eq!(module(&home), "old");
    assert!(Stamp::read(&home).is_some());
}

#[test]
fn an_update_that_fails_puts_its_manifests_back() {
    let (_folder, home) = environment();
    write_whole(&manifests(&home).join("c.json"), b"old").expect("written");
    let former = Former::keep(&home, &manifests(&home)).expect("kept").expect("something was installed");
    replace(&home);
    former.keep_manifests(&["c.json".to_owned()]).expect("kept");
    Former::write(Some(&former), &manifests(&home).join("c.json"), b"new").expect("written");
    drop(former);
    assert_eq!(written(&home), [("c.json".to_owned(), "old".to_owned())]);
}

#[test]
fn what_somebody_wrote_into_a_manifest_after_a_kill_is_kept_beside_it_and_told() {
    for by_hand in ["mine", "", "old", "new"] {
        // Of a manifest that was there, and of one that came with the update.
        for (name, steps) in [("a.json", 4), ("b.json", 5), ("c.json", 3)] {
            let (_folder, home) = environment();
            for old in ["a.json", "c.json"] {
                write_whole(&manifests(&home).join(old), b"old").expect("written");
            }
            update(&home, steps);
            write_whole(&manifests(&home).join(name), by_hand.as_bytes()).expect("written");
            let mut told = Vec::new();
            recover(&home, &manifests(&home), &mut told).expect("put back");
            let mut now = written(&home);
            let kept: Vec<_> = now.extract_if(.., |(name, _)| name.contains(".json.replaced-")).collect();
            assert_eq!(now, ["a.json", "c.json"].map(|name| (name.to_owned(), "old".to_owned())));
            let is_somebodys = match name {
                "a.json" => by_hand == "mine",
                "b.json" => ["mine", "old"].contains(&by_hand),
                _ => ["mine", "new"].contains(&by_hand),
            };
            assert_eq!(kept.len(), usize::from(is_somebodys), "{name} {by_hand}: {told:?}");
            assert_eq!(told.len(), kept.len(), "{told:?}");
            for ((kept, text), told) in kept.iter().zip(&told) {
                assert!(text == by_hand && kept.starts_with(name) && told.contains(kept), "{told}");
            }
        }
    }
}
