//! Removals that fail, that are refused, and that leave what others use.

use super::*;
use crate::interpreters::Interpreter;
use cjm_catalog::settings::CliOverrides;
use cjm_wire::describe::Described as _;

/// That of `tool`, which lives in an environment of its own.
fn of_its_env(data_dir: &Path) -> Removal {
    Removal {
        capability: "tool".to_owned(),
        manifest: None,
        kept: None,
        broken: None,
        needs_environment: true,
        env_name: Some("its-env".to_owned()),
        environment: Place::Own(own_home(data_dir, "its-env")),
        shared_with: Vec::new(),
        adapters: Vec::new(),
        spares_namesake: false,
        data_dir: data_dir.to_owned(),
    }
}

#[test]
fn what_waited_for_its_successor_goes_with_its_tool_and_what_only_conda_knows_stays() {
    let data = tempfile::tempdir().expect("tempdir");
    let (link, home) = (own_home(data.path(), "its-env"), data.path().join("conda/its-env"));
    std::fs::create_dir_all(link.parent().expect("a folder")).expect("mkdir");
    std::fs::create_dir_all(&home).expect("mkdir");
    std::os::unix::fs::symlink(&home, &link).expect("linked");
    let removal = Removal { environment: Place::Missing, ..of_its_env(data.path()) };
    removal.delete_rest().expect("nothing to delete");
    assert!(link.exists(), "the conda of today does not know it");
    let aside = set_aside::aside_of(&home);
    std::fs::rename(&home, &aside).expect("moved");
    removal.delete_rest().expect("deleted");
    assert!(!aside.exists() && link.symlink_metadata().is_err());
}

#[test]
fn an_environment_in_which_another_tool_lives_by_now_stays() {
    let data = tempfile::tempdir().expect("tempdir");
    let manifests = data.path().join("manifests");
    std::fs::create_dir(&manifests).expect("made");
    let removal = Removal { manifest: Some(manifests.join("tool.json")), ..of_its_env(data.path()) };
    let is_refused = |name: &str, env_name: &str| {
        let python = format!("/none/envs/{env_name}/bin/python");
        let manifest = serde_json::json!({
            "format_version": "2.0",
            "install": {"conda_env": env_name, "python_path": python},
            "code": {"name": name, "version": "1", "module": "m", "class": "C"},
        });
        std::fs::write(manifests.join(format!("{name}.json")), manifest.to_string()).expect("written");
        let told = removal.check_alone(&Catalog::discover(&[cjm_catalog::ManifestFolder::named(&manifests)]));
        told.is_err_and(|error| error.to_string().contains("\"other\""))
    };
    assert!(!is_refused("tool", "its-env"));
    assert!(!is_refused("third", "third-env"));
    assert!(is_refused("other", "its-env"));
}

#[test]
fn an_environment_stays_that_a_shadowed_manifest_names_or_one_that_cannot_be_read_may_name() {
    let data = tempfile::tempdir().expect("tempdir");
    let folders = ["project", "installed"].map(|name| data.path().join(name));
    let manifest = |name: &str| {
        serde_json::json!({
            "format_version": "2.0",
            "install": {"conda_env": "its-env", "python_path": "/none/envs/its-env/bin/python"},
            "code": {"name": name, "version": "1", "module": "m", "class": "C"},
        })
        .to_string()
    };
    for folder in &folders {
        std::fs::create_dir(folder).expect("made");
        std::fs::write(folder.join("tool.json"), manifest("tool")).expect("written");
    }
    let look = || Catalog::discover(&folders.each_ref().map(cjm_catalog::ManifestFolder::named));
    let but = |folder: &Path| sharers(&look(), &folder.join("tool.json"), Some("its-env"));
    assert_eq!(but(&folders[0]), ["tool"], "its own manifest is used once the first is gone");
    assert_eq!(sharers(&look(), &folders[0].join("tool.json"), Some("other")), [""; 0]);
    std::fs::remove_file(folders[0].join("tool.json")).expect("removed");
    assert_eq!(but(&folders[1]), [""; 0]);

    let unreadable = folders[1].join("second.json");
    std::os::unix::fs::symlink(&unreadable, &unreadable).expect("a link to itself");
    check_all_read(&look(), "second").expect("it is the one that goes");
    let refused = check_all_read(&look(), "tool").expect_err("it may live there");
    assert!(
        matches!(&refused, EnvironmentError::ManifestsUnread { path, .. } if *path == unreadable),
        "{refused}"
    );
    assert_eq!(unused_environments(data.path(), &look()), [], "none is offered for removal");
}

#[test]
fn a_removal_that_fails_leaves_the_tool_whole_or_gone_with_a_rest_that_is_named() {
    let data = tempfile::tempdir().expect("tempdir");
    let home = own_home(data.path(), "its-env");
    let deep = home.join("lib/deep");
    std::fs::create_dir_all(&deep).expect("made");
    std::fs::write(home.join("pyvenv.cfg"), "x").expect("written");
    // What is no file cannot be removed as one, whoever asks.
    let manifest = data.path().join("tool.json");
    std::fs::create_dir(&manifest).expect("made");
    let removal = Removal { manifest: Some(manifest.clone()), ..of_its_env(data.path()) };
    let ok = || Ok::<(), EnvironmentError>(());
    removal.take_from_calls(ok).expect_err("the manifest stays");
    assert!(deep.is_dir() && home.join("pyvenv.cfg").is_file(), "it is as it was");

    std::fs::remove_dir(&manifest).expect("removed");
    std::fs::write(&manifest, "{}").expect("written");
    let adapter = data.path().join("adapter.json");
    std::fs::create_dir(&adapter).expect("made");
    let removal = Removal { adapters: vec![adapter.clone()], ..removal };
    removal.take_from_calls(ok).expect("taken");
    let aside = data.path().join("envs/.its-env.removed-1");
    assert!(!manifest.exists() && !home.exists() && aside.is_dir());
    let found = unused_environments(data.path(), &Catalog::default());
    assert_eq!(found.iter().map(|one| (&one.path, one.is_rest)).collect::<Vec<_>>(), [(&aside, true)]);
    let told = removal.delete_rest().expect_err("the adapter stays");
    assert!(matches!(&told, EnvironmentError::RestStays { path, .. } if *path == adapter), "{told}");
    assert!(!aside.exists());
    // What could not be deleted is in nobody's way, and goes with the next one.
    std::fs::create_dir_all(&deep).expect("made");
    std::fs::create_dir_all(aside.join("old")).expect("made");
    std::fs::create_dir_all(data.path().join("envs/.other.removed-1")).expect("made");
    let removal = Removal { adapters: Vec::new(), ..removal };
    removal.take_from_calls(ok).expect("taken");
    assert!(aside.join("old").is_dir() && data.path().join("envs/.its-env.removed-2/lib/deep").is_dir());
    removal.delete_rest().expect("deleted");
    std::fs::remove_dir(data.path().join("envs/.other.removed-1")).expect("of another one");
    assert_eq!(std::fs::read_dir(data.path().join("envs")).expect("read").count(), 0);
}

#[test]
fn who_uses_an_environment_is_asked_once_no_call_begins_with_it_and_what_is_used_stays_whole() {
    let data = tempfile::tempdir().expect("tempdir");
    let home = own_home(data.path(), "its-env");
    let python = Interpreter {
        path: "/usr/bin/python3".into(),
        version: crate::constraint::PythonVersion(3, 11, 7),
        is_default: true,
    };
    let stamp = Stamp::new("r".into(), &python, "l".into(), "tool".into(), Vec::new());
    let removal = of_its_env(data.path());
    let mut asked = 0;
    let mut ask = |answer: Result<(), EnvironmentError>| {
        asked += 1;
        assert_eq!(Stamp::read(&home), None, "a call that begins now is refused");
        answer
    };
    removal.take_from_calls(|| ask(Ok(()))).expect("nothing is there");
    stamp.write(&home).expect("written");
    let in_use = EnvironmentError::EnvironmentMissing { env_name: "any".to_owned() };
    let refused = removal.take_from_calls(|| ask(Err(in_use))).expect_err("it is used");
    assert!(matches!(refused, EnvironmentError::EnvironmentMissing { .. }), "{refused}");
    assert_eq!(Stamp::read(&home), Some(stamp), "it is as it was");
    removal.take_from_calls(|| ask(Ok(()))).expect("nobody uses it");
    assert_eq!((Stamp::read(&home), asked), (None, 3));
}

#[tokio::test]
async fn a_tool_whose_environment_has_no_name_any_more_is_not_taken_from_it() {
    let data = tempfile::tempdir().expect("tempdir");
    let told = CliOverrides { data_dir: Some(data.path().to_owned()), ..CliOverrides::default() };
    let home = |name: &str| (name == "HOME").then(|| data.path().as_os_str().to_owned());
    let settings = Settings::resolve_from(&told, &home, data.path()).expect("settings");
    std::fs::create_dir(data.path().join("manifests")).expect("made");
    let plan = async |env_name: &str, installer: &str| {
        let manifest = serde_json::json!({
            "format_version": "2.0",
            "install": {"conda_env": env_name, "python_path": "/none/python", "installer_version": installer},
            "code": {"name": "tool", "version": "1", "module": "m", "class": "C"},
        });
        std::fs::write(data.path().join("manifests/tool.json"), manifest.to_string()).expect("written");
        plan_removal(&settings, "tool", None).await
    };
    for name in [".", "../../x", "its env"] {
        let refused = plan(name, "cjm-ctl 1").await.expect_err("its environment would stay, untold");
        let message = refused.to_string();
        let is_told =
            message.contains("tool.json") && message.contains(&format!("install.conda_env: \"{name}\""));
        assert!(is_told, "{message}");
        assert!(refused.next_step().contains("`install.conda_env`"), "{}", refused.next_step());
        // Conda has names that ours are none of.
        assert!(plan(name, "").await.is_ok());
    }
    assert!(plan("its-env", "cjm-ctl 1").await.is_ok());
}
