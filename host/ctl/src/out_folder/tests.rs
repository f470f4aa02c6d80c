//! Folders of results as calls leave them: what is copied under which name, what is refused, and the bounds.

use super::list::LIST_BYTES_MAX;
use super::*;
use serde_json::value::to_raw_value;
use serde_json::{Value, json};

mod locks;

struct Lab {
    folder: tempfile::TempDir,
}

impl Lab {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("tempdir") }
    }

    fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("mkdir");
        std::fs::write(&path, content).expect("write");
        path
    }

    fn out(&self) -> PathBuf {
        self.folder.path().join("out")
    }

    fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data-dir")
    }

    fn write(&self, result: &Value, given: &Value) -> Result<Written, String> {
        self.write_raw(to_raw_value(result).expect("raw").get(), &given.to_string())
    }

    fn write_raw(&self, result: &str, given: &str) -> Result<Written, String> {
        let given = cjm_wire::Json::parse(given).expect("JSON").fields().expect("an object");
        let _claimed = make(&self.out(), &self.data_dir(), &|| Ok(())).expect("a folder");
        let result = RawValue::from_string(result.to_owned()).expect("JSON");
        write(&self.out(), &self.folder.path().join("kept"), &result, &given, &|| Ok(())).map_err(|fault| {
            match fault {
                Fault::Shown(report) => format!("{} {:?}", report.message, report.causes),
                Fault::OutputClosed => "closed".to_owned(),
            }
        })
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.out().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }
}

const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

#[test]
fn files_are_copied_and_inputs_are_not() {
    let lab = Lab::new();
    let (page, first, second) =
        (lab.file("page.png", "x"), lab.file("1/a.txt", "abc"), lab.file("2/a.txt", "other"));
    let result = json!({
        "image": {"path": page, "bytes": 1}, "text": {"path": first, "bytes": 3, "sha256": ABC},
        "more": [{"path": second, "bytes": 5}, {"path": first, "bytes": 3}],
        "no_file": {"path": "/etc/hostname"}, "count": 2,
    });
    let written = lab.write(&result, &json!({"page": page})).expect("written");
    assert_eq!((lab.read("a.txt").as_str(), lab.read("a-2.txt").as_str()), ("abc", "other"));
    assert!(!lab.out().join("page.png").exists() && !lab.out().join("hostname").exists());
    assert_eq!(written.untold, [Path::new("/etc/hostname")], "it is told that it is not copied");
    let names: Vec<String> = written
        .files
        .iter()
        .map(|(path, bytes)| format!("{} {bytes}", path.strip_prefix(lab.out()).expect("inside").display()))
        .take(2)
        .collect();
    assert_eq!(names, ["a.txt 3", "a-2.txt 5"]);
    let kept: Value = serde_json::from_str(&lab.read("result.json")).expect("JSON");
    assert_eq!((&kept["text"]["path"], &kept["more"][1]["path"]), (&json!("a.txt"), &json!("a.txt")));
    assert_eq!((&kept["image"]["path"], &kept["count"]), (&json!(page), &json!(2)));
    let told: Value = serde_json::from_str(written.result.get()).expect("JSON");
    assert_eq!(told["more"][0]["path"], json!(lab.out().join("a-2.txt")));
    // Again, over what is there.
    lab.write(&result, &json!({"page": page})).expect("written");
    let mut left: Vec<_> =
        std::fs::read_dir(lab.out()).expect("a folder").map(|e| e.expect("entry").file_name()).collect();
    left.sort();
    assert_eq!(left, [LIST, "a-2.txt", "a.txt", "result.json"]);
}

#[test]
fn what_somebody_else_wrote_or_changed_is_not_overwritten() {
    let lab = Lab::new();
    let made = lab.file("1/a.txt", "abc");
    let result = json!({"path": made, "bytes": 3});
    let refused = |at: &str| {
        let error = lab.write(&result, &json!({})).expect_err("refused");
        let is_told = |what: &str| error.contains(&format!("{} is {what}", lab.out().join(at).display()));
        assert!(
            is_told("no ") || is_told("another file than the call wrote here: it was changed since"),
            "{error}"
        );
    };
    std::fs::create_dir(lab.out()).expect("a folder");
    std::fs::write(lab.out().join("a.txt"), "mine").expect("written");
    refused("a.txt");
    assert_eq!(lab.read("a.txt"), "mine");
    // The same content may stand there, whoever wrote it; and what a call wrote gives way to the next one's.
    std::fs::write(lab.out().join("a.txt"), "abc").expect("written");
    for content in ["abc", "other"] {
        std::fs::write(&made, content).expect("written");
        lab.write(&json!({"path": made, "bytes": content.len()}), &json!({})).expect("written");
        assert_eq!(lab.read("a.txt"), content);
    }
    std::fs::write(&made, "abc").expect("written");
    std::fs::write(lab.out().join("a.txt"), "corrected by hand").expect("written");
    refused("a.txt");
    std::fs::remove_file(lab.out().join("a.txt")).expect("removed");
    lab.write(&result, &json!({})).expect("written");
    // Known before the call.
    for name in RESULTS {
        let _ = std::fs::remove_file(lab.out().join(name));
        std::fs::create_dir(lab.out().join(name)).expect("a folder");
        assert!(make(&lab.out(), &lab.data_dir(), &|| Ok(())).is_err(), "{name}");
        std::fs::remove_dir(lab.out().join(name)).expect("removed");
        std::os::unix::fs::symlink("/etc/hostname", lab.out().join(name)).expect("a link");
        assert!(make(&lab.out(), &lab.data_dir(), &|| Ok(())).is_err(), "{name}");
        std::fs::remove_file(lab.out().join(name)).expect("removed");
        let _claimed = make(&lab.out(), &lab.data_dir(), &|| Ok(())).expect("free");
    }
}

#[test]
fn results_without_files_are_written_as_they_are() {
    let lab = Lab::new();
    assert_eq!(lab.write(&json!("some\ntext"), &json!({})).expect("written").files.len(), 1);
    assert_eq!(lab.read("result.txt"), "some\ntext\n");
    let many = RawValue::from_string("{\"n\": 123456789012345678901234567890}".to_owned()).expect("JSON");
    let written =
        write(&lab.out(), Path::new("/nowhere"), &many, &Arguments::new(), &|| Ok(())).expect("written");
    assert_eq!((lab.read("result.json").trim_end(), written.result.get()), (many.get(), many.get()));
}

/// Each of these is more than a parsed value can hold, or less than it says.
#[test]
fn nothing_of_a_result_changes_but_the_paths_of_what_was_copied() {
    let lab = Lab::new();
    let (first, second) = (lab.file("a.txt", "abc"), lab.file("b.txt", "other"));
    let tell = |path: &Path, bytes: usize| format!("{{\"path\": {}, \"bytes\":{bytes}}}", json!(path));
    let deep = "[".repeat(500) + &tell(&second, 5) + &"]".repeat(500);
    let result = |first: &str, second: &str| {
        format!(
            "{{ \"f\": {first},\"f\":0.1000000000000000055511151231257827,\"id\":12345678901234567890123,\n\
             \"big\": [1e400, -0.0, 1E2], \"half\":\"\\ud800\",\"twice\": 1, \"twice\": 2, \
             \"n\": {{\"path\": \"a.txt\"}}, \"deep\": {second}}}"
        )
    };
    let given = result(&tell(&first, 3), &deep);
    let written = lab.write_raw(&given, "{}").expect("written");
    assert_eq!((lab.read("a.txt").as_str(), lab.read("b.txt").as_str()), ("abc", "other"));
    let told = |folder: &Path| {
        let named = |path: &Path| json!(folder.join(path.file_name().expect("a name"))).to_string();
        given
            .replace(&json!(first).to_string(), &named(&first))
            .replace(&json!(second).to_string(), &named(&second))
    };
    assert_eq!(written.result.get(), told(&lab.out()));
    assert_eq!(lab.read("result.json").trim_end(), told(Path::new("")));
    // Of arguments, too, all is heard: what the caller gave is not copied.
    let number = format!("{{\"n\": [1e400, {}]}}", json!(first));
    let kept = lab.write_raw(&tell(&first, 3), &number).expect("written");
    assert_eq!(kept.result.get(), tell(&first, 3));
}

#[test]
fn keys_and_paths_are_understood_however_they_are_escaped_and_what_cannot_be_is_told() {
    let lab = Lab::new();
    let path = lab.file("a \"quoted\" \u{e9}.txt", "abc");
    let escaped = json!(path).to_string().replace('/', "\\/").replace('\u{e9}', "\\u00e9");
    let result =
        format!("[{{\"p\\u0061th\":{escaped},\"bytes\":3,\"more\":[{{}},{{\"path\":1}}]}},\"\\\\\"]");
    let written = lab.write_raw(&result, "{}").expect("written");
    assert_eq!(lab.read("a \"quoted\" \u{e9}.txt"), "abc");
    let told: Value = serde_json::from_str(written.result.get()).expect("JSON");
    assert_eq!(told[0]["path"], json!(lab.out().join(path.file_name().expect("a name"))));
    // As Python writes a name that is no Unicode.
    let error = lab.write_raw("{\"path\":\"/a\\udcff\",\"bytes\":3}", "{}").expect_err("refused");
    assert!(error.contains("names a file by a text that is no Unicode"), "{error}");
}

#[test]
fn a_file_that_is_named_from_a_folder_of_the_tools_is_told_to_be_left() {
    let lab = Lab::new();
    let result =
        json!([{"path": "rel.txt", "bytes": 1}, {"path": "mine.txt", "bytes": 1}, {"path": "no_file"}]);
    let written = lab.write(&result, &json!({"input": "mine.txt"})).expect("written");
    assert_eq!(written.untold, [Path::new("rel.txt")]);
    assert_eq!(written.result.get(), result.to_string());
}

#[test]
fn a_folder_is_copied_whole_and_never_over_another_or_into_itself() {
    let lab = Lab::new();
    lab.file("pages/1.txt", "one");
    lab.file("pages/deep/2.txt", "two");
    let result = json!({"path": lab.folder.path().join("pages"), "bytes": 4096});
    lab.write(&result, &json!({})).expect("written");
    assert_eq!(lab.read("pages/deep/2.txt"), "two");
    let error = lab.write(&result, &json!({})).expect_err("refused");
    assert!(error.contains("is there already"), "{error}");
    for above in [lab.folder.path().to_owned(), lab.out(), lab.out().join("pages/..")] {
        let error = lab.write(&json!({"path": above, "bytes": 1}), &json!({})).expect_err("refused");
        assert!(error.contains("holds the folder of --output"), "{error}");
    }
}

/// A folder may come from elsewhere, and the number of the next process can be guessed.
#[test]
fn what_stands_in_the_place_of_a_file_that_is_being_written_is_not_written_to() {
    let lab = Lab::new();
    let victim = lab.file("victim", "theirs");
    let list = RawValue::from_string("[1]".to_owned()).expect("JSON");
    std::fs::create_dir(lab.out()).expect("a folder");
    let part = part_in(&lab.out());
    let fifo = |path: &Path| std::process::Command::new("mkfifo").arg(path).status().expect("it runs");
    for make in [
        &(|| std::os::unix::fs::symlink(&victim, &part).expect("linked")) as &dyn Fn(),
        &|| assert!(fifo(&part).success()),
        &|| std::fs::write(&part, "of one that was killed").expect("written"),
    ] {
        make();
        // Without the look that a call takes at the folder first, since it may be put there after that.
        write(&lab.out(), Path::new("/nowhere"), &list, &Arguments::new(), &|| Ok(())).expect("written");
        assert_eq!((lab.read("result.json").trim_end(), part.symlink_metadata().is_ok()), ("[1]", false));
        assert_eq!(std::fs::read_to_string(&victim).expect("there"), "theirs");
    }
}

#[test]
fn what_lies_in_a_known_folder_is_not_told_to_be_left() {
    let lab = Lab::new();
    let page = lab.file("pages/1.txt", "one");
    let folder = page.parent().expect("a folder");
    // Nor is a folder that is no file of the result.
    let named = json!({"pages": {"path": folder, "bytes": 1}, "first": page, "mounts": ["/", "/etc"]});
    assert!(lab.write(&named, &json!({})).expect("written").untold.is_empty());
    let given = json!({"folder": folder});
    assert!(lab.write(&json!([page]), &given).expect("written").untold.is_empty());
    assert_eq!(lab.write(&json!([page]), &json!({})).expect("written").untold, std::slice::from_ref(&page));
    // What is above all folders, or above what tools keep, says nothing of one file.
    let kept = lab.file("kept/tool/1.txt", "one");
    for (file, above) in [(&page, "/"), (&kept, "/"), (&kept, &*lab.folder.path().display().to_string())] {
        let told = lab.write(&json!([file]), &json!({"b": above})).expect("written").untold;
        assert_eq!(told, std::slice::from_ref(file), "{above}");
    }
    let given = lab.write(&json!([kept]), &json!({"b": kept})).expect("written").untold;
    assert!(given.is_empty(), "{given:?}");
    // Texts that name no file hide none.
    let mut texts: Vec<Value> = (0..UNTOLD_MAX + 10).map(|n| json!(format!("/api/{n}"))).collect();
    texts.push(json!(page));
    assert_eq!(lab.write(&json!(texts), &json!({})).expect("written").untold, [page]);
}

#[test]
fn what_is_no_file_is_told_and_hangs_nobody() {
    let lab = Lab::new();
    lab.file("pages/1.txt", "one");
    let pages = lab.folder.path().join("pages");
    std::os::unix::fs::symlink("/etc/hostname", pages.join("link")).expect("a link");
    let pipe = pages.join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo").success());
    for path in [pipe.as_path(), Path::new("/dev/zero")] {
        let error = lab.write(&json!({"path": path, "bytes": 1}), &json!({})).expect_err("refused");
        assert!(error.contains(&format!("cannot read {}", path.display())), "{error}");
    }
    let mut written = lab.write(&json!({"path": pages, "bytes": 4096}), &json!({})).expect("written");
    written.left_out.sort();
    assert_eq!(
        (lab.read("pages/1.txt").as_str(), &written.left_out),
        ("one", &vec![pages.join("link"), pipe])
    );
}

#[test]
fn a_file_that_is_gone_or_another_is_told() {
    let lab = Lab::new();
    let error = lab.write(&json!({"path": "/nowhere/x", "bytes": 1}), &json!({})).expect_err("refused");
    assert!(error.contains("cannot read /nowhere/x"), "{error}");
    let path = lab.file("a", "abcd");
    for (promised, differs) in [
        (json!({"path": path, "bytes": 4, "sha256": ABC}), "it has another SHA-256 than the result says"),
        // Where it says no hash, its length is all there is to go by.
        (json!({"path": path, "bytes": 3}), "it holds 4 bytes, and the result says 3"),
    ] {
        let error = lab.write(&promised, &json!({})).expect_err("refused");
        assert!(
            error.contains(&format!("{} is not what the result says: {differs}", path.display())),
            "{error}"
        );
    }
    assert_eq!(std::fs::read_dir(lab.out()).expect("a folder").count(), 0, "nothing half is left");
}

#[test]
fn a_file_that_is_named_twice_is_copied_once_and_must_be_what_each_says() {
    for (second, fits) in [
        (json!({"bytes": 3}), true),
        (json!({"bytes": 3, "sha256": ABC}), true),
        (json!({"bytes": 4}), false),
        (json!({"bytes": 3, "sha256": ABC.replace('a', "b")}), false),
    ] {
        let lab = Lab::new();
        let path = lab.file("a", "abc");
        let mut second = second;
        second["path"] = json!(path);
        let written = lab.write(&json!([{"path": path, "bytes": 3}, second]), &json!({}));
        assert_eq!(written.is_ok(), fits, "{second}: {written:?}");
        assert!(lab.out().join("a").exists(), "the first is what it says");
    }
}

#[test]
fn a_tools_file_takes_no_name_that_the_folder_needs_itself() {
    let lab = Lab::new();
    let (result, list) = (lab.file("result.json", "mine"), lab.file(LIST, "yours"));
    let given = json!([{"path": result, "bytes": 4}, {"path": list, "bytes": 5}]);
    for _ in 0..2 {
        let written = lab.write(&given, &json!({})).expect("written");
        assert_eq!(lab.read("result-2.json"), "mine");
        assert_eq!(lab.read(".cjm-output-2.json"), "yours");
        let kept: Value = serde_json::from_str(&lab.read("result.json")).expect("JSON");
        assert_eq!(
            (&kept[0]["path"], &kept[1]["path"]),
            (&json!("result-2.json"), &json!(".cjm-output-2.json"))
        );
        let told: Value = serde_json::from_str(written.result.get()).expect("JSON");
        assert_eq!(told[0]["path"], json!(lab.out().join("result-2.json")));
    }
    // What is being written has such names, and is cleared away.
    let part = lab.file(".cjm-output.7.part", "half");
    lab.write(&json!({"path": part, "bytes": 4}), &json!({})).expect("written");
    assert_eq!(lab.read(".cjm-output.7-2.part"), "half");
    // A text has another name, and leaves that one to files.
    let text = Lab::new();
    let file = text.file("result.txt", "mine");
    text.write(&json!({"path": file, "bytes": 4}), &json!({})).expect("written");
    assert_eq!(text.read("result.txt"), "mine");
}

/// What is being written into `folder`.
fn out(folder: &Path) -> Out<'_> {
    Out {
        go_on: &|| Ok(()),
        folder,
        kept: Path::new("/nowhere"),
        made: List::of(folder),
        given: BTreeSet::new(),
        copies: BTreeMap::new(),
        taken: BTreeSet::new(),
        files: Vec::new(),
        left_out: Vec::new(),
        untold: Vec::new(),
    }
}

#[test]
fn of_one_result_a_bounded_number_of_files_is_copied_and_of_one_name_too() {
    let lab = Lab::new();
    let path = lab.file("a.txt", "abc");
    std::fs::create_dir(lab.out()).expect("a folder");
    let folder = lab.out();
    let mut many = out(&folder);
    many.files = vec![(PathBuf::new(), 0); FILES_MAX - 1];
    many.copy_file(&path, "last", None).expect("the last one that may be");
    let Err(Fault::Shown(report)) = many.copy_file(&path, "more", None) else { panic!("copied") };
    assert!(report.message.contains("more than 100000 files"), "{}", report.message);
    assert!(!folder.join("more").exists());
    let mut same = out(&folder);
    for turn in 1..SAME_NAME_MAX {
        let name = same.free_name(&path).expect("a name");
        assert_eq!(name, if turn == 1 { "a.txt".to_owned() } else { format!("a-{turn}.txt") });
        if turn == 2 {
            // The rest at once.
            same.taken.extend((3..SAME_NAME_MAX).map(|turn| format!("a-{turn}.txt")));
            break;
        }
    }
    assert_eq!(same.free_name(&path).expect("the last one"), format!("a-{SAME_NAME_MAX}.txt"));
    let Err(Fault::Shown(report)) = same.free_name(&path) else { panic!("one more name") };
    assert!(report.message.contains("more than 10000 files are named a.txt"), "{}", report.message);
}

#[test]
fn a_list_that_is_too_long_is_none_and_then_nothing_is_overwritten() {
    let lab = Lab::new();
    let path = lab.file("a.txt", "abc");
    lab.write(&json!({"path": path, "bytes": 3}), &json!({})).expect("written");
    std::fs::write(&path, "abcd").expect("written");
    let list = lab.read(LIST);
    let long = list.trim_end().trim_end_matches('}').to_owned()
        + &" ".repeat(usize::try_from(LIST_BYTES_MAX).expect("small"))
        + "}";
    std::fs::write(lab.out().join(LIST), long).expect("written");
    assert!(!List::of(&lab.out()).has("a.txt"));
    std::fs::write(lab.out().join(LIST), list).expect("written");
    assert!(List::of(&lab.out()).has("a.txt") && List::of(&lab.out()).has("result.json"));
}

#[test]
fn a_call_that_failed_half_way_is_followed_by_one_that_works() {
    let lab = Lab::new();
    let first = lab.file("a.txt", "abc");
    let gone = json!([{"path": first, "bytes": 3}, {"path": lab.folder.path().join("gone"), "bytes": 1}]);
    lab.write(&gone, &json!({})).expect_err("refused");
    assert_eq!(lab.read("a.txt"), "abc");
    std::fs::write(&first, "other").expect("written");
    lab.write(&json!({"path": first, "bytes": 5}), &json!({})).expect("written");
    assert_eq!(lab.read("a.txt"), "other");
}

/// What a call that is killed never comes to is what stands at its end.
#[test]
fn a_call_that_was_killed_leaves_nothing_in_the_way_of_the_next_one() {
    let lab = Lab::new();
    let first = lab.file("a.txt", "abc");
    lab.write(&json!({"path": first, "bytes": 3}), &json!({})).expect("written");
    let folder = lab.out();
    let killed_after = |content: &str, is_named: bool| {
        std::fs::write(&first, content).expect("written");
        let mut killed = out(&folder);
        killed.copy_file(&first, "b.txt", None).expect("copied");
        if is_named {
            killed.copy_file(&first, "a.txt", None).expect("copied");
        } else {
            // Between the two steps.
            killed.made.announce("a.txt", &hex(&Sha256::digest(content))).expect("told");
        }
        std::fs::write(part_in(&folder), "half").expect("written");
        std::fs::write(folder.join(".cjm-output.1.part"), "half").expect("written");
        std::fs::create_dir_all(folder.join(".cjm-output.2.part/deep")).expect("made");
        let mut list = std::fs::OpenOptions::new().append(true).open(folder.join(LIST)).expect("there");
        list.write_all(b"\n{\"cut.txt").expect("written");
    };
    std::fs::write(folder.join(".cjm-output.part"), "mine").expect("written");
    for (turn, is_named) in [true, false, false].into_iter().enumerate() {
        killed_after(&format!("killed {turn}"), is_named);
        for content in ["again", "other"] {
            let (a, b) = (lab.file("1/a.txt", content), lab.file("1/b.txt", content));
            let result = json!([{"path": a, "bytes": 5}, {"path": b, "bytes": 5}]);
            lab.write(&result, &json!({})).unwrap_or_else(|error| panic!("{turn}: {error}"));
            assert_eq!((lab.read("a.txt").as_str(), lab.read("b.txt").as_str()), (content, content));
        }
        let mut left: Vec<_> =
            std::fs::read_dir(&folder).expect("a folder").map(|e| e.expect("entry").file_name()).collect();
        left.sort();
        assert_eq!(left, [LIST, ".cjm-output.part", "a.txt", "b.txt", "result.json"]);
        let list = lab.read(LIST);
        assert_eq!((list.lines().count(), list.matches("a.txt").count()), (1, 1), "{list}");
    }
    // What is no call's is still nobody's to overwrite.
    std::fs::write(folder.join("a.txt"), "corrected by hand").expect("written");
    let result = json!({"path": first, "bytes": 8});
    let error = lab.write(&result, &json!({})).expect_err("refused");
    assert!(error.contains("it was changed since"), "{error}");
}

#[test]
fn a_folder_that_cannot_be_written_or_whose_list_is_no_file_is_refused_before_the_call() {
    let lab = Lab::new();
    let list = lab.out().join(LIST);
    let refused = || match make(&lab.out(), &lab.data_dir(), &|| Ok(())).expect_err("refused") {
        Fault::Shown(report) => report.message,
        Fault::OutputClosed => "closed".to_owned(),
    };
    std::fs::create_dir(lab.out()).expect("made");
    let elsewhere = lab.file("elsewhere", "theirs");
    std::os::unix::fs::symlink(&elsewhere, &list).expect("linked");
    assert!(refused().contains(&format!("{} is no plain file", list.display())));
    std::fs::remove_file(&list).expect("removed");
    assert!(std::process::Command::new("mkfifo").arg(&list).status().expect("mkfifo").success());
    assert!(refused().contains(&format!("{} is no plain file", list.display())));
    // Nor is it followed or waited for where it comes later.
    let mut late = List::of(&lab.out());
    late.announce("a", ABC).expect_err("refused");
    std::fs::remove_file(&list).expect("removed");
    std::os::unix::fs::symlink(&elsewhere, &list).expect("linked");
    late.announce("a", ABC).expect_err("refused");
    assert_eq!(std::fs::read_to_string(&elsewhere).expect("there"), "theirs");
    // There nobody may make a file, not even root.
    let no_place = make(Path::new("/proc"), &lab.data_dir(), &|| Ok(())).expect_err("refused");
    let Fault::Shown(report) = no_place else { panic!("closed") };
    assert_eq!(report.message, "cannot write into /proc");
}

#[test]
fn the_longest_name_is_copied_also_where_it_needs_a_number() {
    let lab = Lab::new();
    let long = "\u{e9}".repeat(125) + ".json";
    let (first, second) = (lab.file(&format!("1/{long}"), "abc"), lab.file(&format!("2/{long}"), "other"));
    let without = "x".repeat(255);
    let (third, fourth) =
        (lab.file(&format!("1/{without}"), "third"), lab.file(&format!("2/{without}"), "the 4th"));
    let result = json!([{"path": first, "bytes": 3}, {"path": second, "bytes": 5}, {"path": third, "bytes": 5},
        {"path": fourth, "bytes": 7}]);
    let written = lab.write(&result, &json!({})).expect("written");
    let told: Value = serde_json::from_str(written.result.get()).expect("JSON");
    for (at, content) in ["abc", "other", "third", "the 4th"].into_iter().enumerate() {
        let path = told[at]["path"].as_str().expect("a path");
        assert_eq!(std::fs::read_to_string(path).expect("there"), content);
    }
    assert_eq!(told[0]["path"], json!(lab.out().join(&long)));
    assert!(told[1]["path"].as_str().expect("a path").ends_with("-2.json"), "{told}");
}

#[test]
fn one_command_at_a_time_writes_into_a_folder_and_what_is_no_folder_is_told_as_that() {
    let lab = Lab::new();
    let refused = |out: &Path| match make(out, &lab.data_dir(), &|| Ok(())).expect_err("refused") {
        Fault::Shown(report) => format!("{} → {}", report.message, report.next_step),
        Fault::OutputClosed => "closed".to_owned(),
    };
    let first = make(&lab.out(), &lab.data_dir(), &|| Ok(())).expect("free");
    let told = refused(&lab.out());
    assert!(told.contains("another call writes into") && told.contains("wait for its end"), "{told}");
    drop(first);
    let again = make(&lab.out(), &lab.data_dir(), &|| Ok(()));
    assert!(again.is_ok(), "{again:?}");
    let file = lab.file("a file", "mine");
    let link = lab.folder.path().join("link");
    std::os::unix::fs::symlink(lab.folder.path().join("nowhere"), &link).expect("linked");
    for no_folder in [&file, &link] {
        let told = refused(no_folder);
        assert_eq!(
            told,
            format!(
                "{} is there, and is no folder → name a folder with --output; one that is not there is made",
                no_folder.display()
            )
        );
    }
    assert_eq!(std::fs::read_to_string(&file).expect("it is there"), "mine");
}

/// It may be larger than the disk, and whoever waits for it has waited for nothing.
#[test]
fn a_file_of_another_length_is_refused_before_it_is_copied() {
    let lab = Lab::new();
    let big = lab.file("big", "");
    File::options().write(true).open(&big).and_then(|file| file.set_len(1 << 42)).expect("sparse");
    let refused = lab.write(&json!({"path": big, "bytes": 7}), &json!({})).expect_err("it is another");
    assert!(refused.contains("it holds 4398046511104 bytes, and the result says 7"), "{refused}");
}

#[test]
fn a_copy_ends_when_it_is_asked_to_and_leaves_no_part() {
    let lab = Lab::new();
    let big = lab.file("big", &"x".repeat(3 * CHUNK_BYTES));
    let result = to_raw_value(&json!({"path": big, "bytes": 3 * CHUNK_BYTES})).expect("raw");
    let asked = std::cell::Cell::new(0);
    // First while it is copied, then while what stands in its place is looked at, which is read to its end in four turns.
    for (whole, stop_at) in [(false, 2), (true, 6)] {
        if whole {
            lab.write_raw(result.get(), "{}").expect("written");
        }
        let _claimed = make(&lab.out(), &lab.data_dir(), &|| Ok(())).expect("a folder");
        asked.set(0);
        let go_on = || {
            asked.set(asked.get() + 1);
            let stop = || Fault::new("ctl.interrupted", "interrupted", "");
            if asked.get() < stop_at { Ok(()) } else { Err(stop()) }
        };
        let stopped = write(&lab.out(), Path::new("/nowhere"), &result, &Arguments::new(), &go_on);
        let Err(Fault::Shown(report)) = stopped else { panic!("{stopped:?}") };
        assert_eq!((report.message.as_str(), asked.get()), ("interrupted", stop_at));
        assert!(!part_in(&lab.out()).exists() && lab.out().join("big").exists() == whole);
    }
    // Also among folders, which have nothing to read, and before the tool runs.
    let folders = lab.folder.path().join("folders");
    for name in ["a", "b", "c"] {
        std::fs::create_dir_all(folders.join(name)).expect("mkdir");
    }
    let result = to_raw_value(&json!({"path": folders, "bytes": 0})).expect("raw");
    let stop = || Err(Fault::new("ctl.interrupted", "interrupted", ""));
    write(&lab.out(), Path::new("/nowhere"), &result, &Arguments::new(), &stop).expect_err("stopped");
    assert!(!part_in(&lab.out()).exists() && !lab.out().join("folders").exists());
    lab.write(&json!({"said": "made"}), &json!({})).expect("written");
    let Err(Fault::Shown(report)) = make(&lab.out(), &lab.data_dir(), &stop) else {
        panic!("it was not asked")
    };
    assert_eq!(report.message, "interrupted");
}
