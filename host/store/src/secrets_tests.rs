//! Secrets against real files: for whom they are kept, what is refused, and what happens to a damaged or torn file.

use super::*;

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).expect("there").permissions().mode() & 0o777
}

#[test]
fn secrets_are_kept_by_scope_and_capability_for_the_owner_alone() {
    let folder = tempfile::tempdir().expect("tempdir");
    let secrets = FileSecrets::of(&folder.path().join("data"));
    assert_eq!(secrets.names(None, "lab").expect("none yet"), Vec::<String>::new());
    assert!(!secrets.remove(None, "lab", "B").expect("none yet"));
    assert!(!folder.path().join("data").exists(), "reading makes nothing");
    for (scope, capability, key, value) in [
        (None, "lab", "B", "1"),
        (None, "lab", "A", "two\nlines"),
        (Some(""), "lab", "B", "3"),
        (Some("ann"), "lab", "B", "4"),
        (None, "other", "C", ""),
    ] {
        secrets.set(scope, capability, key, value).expect("set");
    }
    assert_eq!(secrets.names(None, "lab").expect("names"), ["A", "B"]);
    assert_eq!(secrets.get(None, "lab", "B").expect("get").as_deref(), Some("3"));
    assert_eq!(secrets.get(Some("ann"), "lab", "B").expect("get").as_deref(), Some("4"));
    assert_eq!((mode(&secrets.folder), mode(&secrets.path())), (0o700, 0o600));
    let text = std::fs::read_to_string(secrets.path()).expect("text");
    let value: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(value["__default__"]["lab"]["A"], "two\nlines");
    assert!(text.starts_with("{\n  \"__default__\": {\n    \"lab\""), "{text}");
    assert!(secrets.remove(Some("ann"), "lab", "B").expect("removed"));
    assert!(!secrets.remove(Some("ann"), "lab", "B").expect("gone"));
    let value: Value = serde_json::from_slice(&std::fs::read(secrets.path()).expect("text")).expect("JSON");
    assert!(value.get("ann").is_none(), "an empty scope goes: {value}");
}

#[test]
fn a_damaged_file_is_refused_and_kept_and_its_text_stands_in_no_message() {
    let folder = tempfile::tempdir().expect("tempdir");
    let secrets = FileSecrets::of(folder.path());
    std::fs::create_dir(&secrets.folder).expect("mkdir");
    for text in ["{\"__default__\": {\"lab\": {\"K\": \"hush\"", "[\"hush\"]", "{\"a\": {\"lab\": \"hush\"}}"]
    {
        std::fs::write(secrets.path(), text).expect("write");
        let errors = [
            secrets.get(None, "lab", "K").expect_err("get"),
            secrets.names(None, "lab").expect_err("names"),
            secrets.set(None, "lab", "K", "new").expect_err("set"),
            secrets.remove(None, "lab", "K").expect_err("remove"),
        ];
        for error in errors {
            assert_eq!((error.code(), error.exit_code()), ("secrets.damaged", exit::STORE));
            assert!(!format!("{error} {error:?} {}", error.next_step()).contains("hush"), "{error:?}");
        }
        assert_eq!(std::fs::read_to_string(secrets.path()).expect("kept"), text);
    }
}

#[test]
fn loose_permissions_are_tightened_and_what_no_variable_can_hold_is_refused() {
    let folder = tempfile::tempdir().expect("tempdir");
    let secrets = FileSecrets::of(folder.path());
    std::fs::create_dir(&secrets.folder).expect("mkdir");
    std::fs::write(secrets.path(), "{}").expect("write");
    for path in [&secrets.folder, &secrets.path()] {
        std::fs::set_permissions(path, Permissions::from_mode(0o755)).expect("chmod");
    }
    secrets.set(None, "lab", "K", "v").expect("set");
    assert_eq!((mode(&secrets.folder), mode(&secrets.path())), (0o700, 0o600));
    for (capability, key, value) in [
        ("", "K", "v"),
        ("../lab", "K", "v"),
        ("lab\n", "K", "v"),
        ("lab", "", "v"),
        ("lab", "A=B", "v"),
        ("lab", "1A", "v"),
        ("lab", "A B", "v"),
        ("lab", "\u{1b}[2J", "v"),
        ("lab", "K", "a\0b"),
    ] {
        let error = secrets.set(None, capability, key, value).expect_err("unusable");
        assert_eq!(error.exit_code(), exit::DOMAIN, "{error}");
    }
}

#[test]
fn a_secret_belongs_to_the_manifest_it_was_set_for_and_to_no_other_of_its_name() {
    let folder = tempfile::tempdir().expect("tempdir");
    let secrets = FileSecrets::of(folder.path());
    let (mine, own) = (Path::new("/p/.cjm/manifests/lab.json"), folder.path().join("manifests/lab.json"));
    let owner = |key: &str| secrets.owner_of(None, "lab", key).expect("reads");
    let belongs = |key: &str, manifest: &Path| {
        crate::owners::belongs_to(folder.path(), owner(key).as_deref(), manifest)
    };
    secrets.set(None, "lab", "PLAIN", "1").expect("set");
    assert!(!folder.path().join(SECRETS_DIR).join(OWNERS_FILE).exists());
    secrets.set_for(None, "lab", "K", "1", mine).expect("set");
    assert_eq!(mode(&folder.path().join(SECRETS_DIR).join(OWNERS_FILE)), 0o600);
    assert_eq!((owner("K").as_deref(), owner("PLAIN"), owner("NONE")), (Some(mine), None, None));
    assert!(belongs("K", mine) && !belongs("K", &own));
    assert!(belongs("PLAIN", &own) && !belongs("PLAIN", mine));

    // The ancestor, which knows nothing of owners, sets another value.
    let text = std::fs::read_to_string(secrets.path()).expect("text").replace("\"K\": \"1\"", "\"K\": \"2\"");
    std::fs::write(secrets.path(), text).expect("written");
    assert_eq!(owner("K"), None);
    secrets.set_for(None, "lab", "K", "3", mine).expect("set");
    secrets.set(None, "lab", "K", "3").expect("set for the directory's own");
    assert_eq!(owner("K"), None);
    secrets.set_for(None, "lab", "K", "4", mine).expect("set");
    assert!(secrets.remove(None, "lab", "K").expect("removed"));
    secrets.set(None, "lab", "K", "4").expect("set");
    assert_eq!(owner("K"), None, "what was removed leaves no owner");
    let error = secrets.set_for(None, "lab", "K", "v", Path::new("relative.json")).expect_err("relative");
    assert_eq!(error.code(), "secrets.unusable");
}

#[test]
fn a_file_that_is_being_written_in_place_is_read_again() {
    let folder = tempfile::tempdir().expect("tempdir");
    let secrets = FileSecrets::of(folder.path());
    secrets.set(None, "lab", "K", "v").expect("set");
    let whole = std::fs::read(secrets.path()).expect("text");
    std::fs::write(secrets.path(), &whole[..10]).expect("torn");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(READ_PAUSE);
            std::fs::write(secrets.path(), &whole).expect("whole again");
        });
        assert_eq!(secrets.get(None, "lab", "K").expect("read again").as_deref(), Some("v"));
    });
}

#[test]
fn writers_side_by_side_lose_nothing() {
    let folder = tempfile::tempdir().expect("tempdir");
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let secrets = FileSecrets::of(folder.path());
            scope.spawn(move || {
                for turn in 0..10 {
                    secrets.set(None, "lab", &format!("K{writer}_{turn}"), "v").expect("set");
                    secrets.names(None, "lab").expect("whole at every instant");
                }
            });
        }
    });
    assert_eq!(FileSecrets::of(folder.path()).names(None, "lab").expect("names").len(), 40);
}

#[test]
fn what_a_linked_folder_leads_to_keeps_its_mode() {
    let dir = tempfile::tempdir().expect("tempdir");
    let elsewhere = dir.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).expect("mkdir");
    std::fs::set_permissions(&elsewhere, Permissions::from_mode(0o755)).expect("chmod");
    let secrets = FileSecrets::of(&dir.path().join("data"));
    std::fs::create_dir(dir.path().join("data")).expect("mkdir");
    std::os::unix::fs::symlink(&elsewhere, &secrets.folder).expect("linked");
    let refused = secrets.set(None, "tool", "KEY", "value").expect_err("others may enter it");
    assert!(matches!(refused, SecretsError::LinkedOpen { .. }), "{refused}");
    assert_eq!((mode(&elsewhere), std::fs::read_dir(&elsewhere).expect("there").count()), (0o755, 0));
    // Closed by its user, it is as good as a folder.
    std::fs::set_permissions(&elsewhere, Permissions::from_mode(0o700)).expect("chmod");
    secrets.set(None, "tool", "KEY", "value").expect("kept");
    assert_eq!(secrets.get(None, "tool", "KEY").expect("read").as_deref(), Some("value"));
}

/// A value that was not written leaves the one before, and whose that is.
#[test]
fn what_cannot_be_written_changes_neither_a_value_nor_its_owner() {
    let folder = tempfile::tempdir().expect("tempdir");
    let (secrets, owner) = (FileSecrets::of(folder.path()), folder.path().join("lab.json"));
    secrets.set_for(None, "lab", "K", "one", &owner).expect("set");
    let files = || {
        [SECRETS_FILE, OWNERS_FILE]
            .map(|file| std::fs::read_to_string(folder.path().join(SECRETS_DIR).join(file)).expect("there"))
    };
    let before = files();
    for file in [SECRETS_FILE, OWNERS_FILE] {
        // As a full disk would, this keeps the one file from being written, and not the other.
        let beside = folder.path().join(SECRETS_DIR).join(format!(".{file}.new"));
        let _ = std::fs::remove_file(&beside);
        std::fs::create_dir(&beside).expect("made");
        let refused = secrets.set_for(None, "lab", "K", "two", &owner).expect_err("not written");
        assert!(refused.to_string().contains(file), "{refused}");
        assert!(secrets.remove(None, "lab", "K").is_err());
        assert_eq!(files(), before);
        std::fs::remove_dir(&beside).expect("removed");
    }
}

/// What an earlier writer left beside the file may be anybody's to read, or lead elsewhere.
#[test]
fn what_was_left_beside_the_file_is_not_written_into() {
    let folder = tempfile::tempdir().expect("tempdir");
    let (secrets, elsewhere) = (FileSecrets::of(folder.path()), folder.path().join("elsewhere"));
    secrets.set(None, "lab", "K", "one").expect("set");
    let beside = folder.path().join(SECRETS_DIR).join(format!(".{SECRETS_FILE}.new"));
    std::fs::write(&beside, "").expect("written");
    std::fs::set_permissions(&beside, Permissions::from_mode(0o644)).expect("chmod");
    secrets.set(None, "lab", "K", "two").expect("set");
    assert_eq!(mode(&secrets.path()), 0o600);
    std::fs::write(&elsewhere, "kept").expect("written");
    std::os::unix::fs::symlink(&elsewhere, &beside).expect("linked");
    secrets.set(None, "lab", "K", "three").expect("set");
    assert_eq!(std::fs::read_to_string(&elsewhere).expect("there"), "kept");
    assert_eq!(secrets.get(None, "lab", "K").expect("read").as_deref(), Some("three"));
}

/// A link would become a file, and the secrets be in two places.
#[test]
fn a_link_in_the_place_of_a_file_is_refused_and_stays() {
    let folder = tempfile::tempdir().expect("tempdir");
    let (secrets, owner) = (FileSecrets::of(folder.path()), folder.path().join("lab.json"));
    secrets.set_for(None, "lab", "K", "one", &owner).expect("set");
    for file in [SECRETS_FILE, OWNERS_FILE] {
        let (path, vault) = (folder.path().join(SECRETS_DIR).join(file), folder.path().join(file));
        std::fs::rename(&path, &vault).expect("moved");
        std::os::unix::fs::symlink(&vault, &path).expect("linked");
        let before = std::fs::read_to_string(&vault).expect("there");
        let set = secrets.set_for(None, "lab", "K", "two", &owner).expect_err("a link");
        let removed = secrets.remove(None, "lab", "K").expect_err("a link");
        for refused in [set, removed] {
            let words = format!("{} is a link to {}, which", path.display(), vault.display());
            assert!(refused.to_string().starts_with(&words), "{refused}");
        }
        assert_eq!(std::fs::read_link(&path).expect("still a link"), vault);
        assert_eq!(std::fs::read_to_string(&vault).expect("there"), before);
        assert_eq!(secrets.get(None, "lab", "K").expect("read").as_deref(), Some("one"), "it is followed");
        std::fs::rename(&vault, &path).expect("moved");
    }
    secrets.set_for(None, "lab", "K", "two", &owner).expect("set");
}

/// A value without an owner would belong to others.
#[test]
fn whoever_finds_a_value_finds_its_owner() {
    let folder = tempfile::tempdir().expect("tempdir");
    let (secrets, owner) = (FileSecrets::of(folder.path()), folder.path().join("lab.json"));
    const KEYS: usize = 100;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..KEYS {
                secrets.set_for(None, "lab", &format!("K{number}"), "value", &owner).expect("set");
            }
        });
        for number in 0..KEYS {
            let key = format!("K{number}");
            while secrets.get(None, "lab", &key).expect("read").is_none() {}
            assert_eq!(secrets.owner_of(None, "lab", &key).expect("read").as_ref(), Some(&owner), "{key}");
        }
    });
}
