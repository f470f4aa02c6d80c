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
        found: None,
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
    // What an update that was killed had kept.
    std::fs::create_dir_all(data.path().join("envs/.its-env.former")).expect("made");
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
    let gone = Taken(Some((stamp.clone(), data.path().join("envs/gone"))));
    gone.give_back().expect("nothing to give back");
    assert!(!data.path().join("envs/gone").exists(), "a stamp alone is no environment");
    let in_use = EnvironmentError::EnvironmentMissing { env_name: "any".to_owned() };
    let refused = removal.take_from_calls(|| ask(Err(in_use))).expect_err("it is used");
    assert!(matches!(refused, EnvironmentError::EnvironmentMissing { .. }), "{refused}");
    assert_eq!(Stamp::read(&home), Some(stamp), "it is as it was");
    removal.take_from_calls(|| ask(Ok(()))).expect("nobody uses it");
    assert_eq!((Stamp::read(&home), asked), (None, 3));
}

#[tokio::test]
async fn a_tool_whose_environment_has_no_name_any_more_is_not_taken_from_it() {
    let (data, settings) = fresh();
    // What these names lead to: all environments, and what is none.
    for folder in ["envs", "x"] {
        std::fs::create_dir(data.path().join(folder)).expect("made");
    }
    let plan = async |env_name: &str, installer: &str| {
        let manifest = serde_json::json!({
            "format_version": "2.0",
            "install": {"conda_env": env_name, "python_path": "/none/python", "installer_version": installer},
            "code": {"name": "tool", "version": "1", "module": "m", "class": "C"},
        });
        std::fs::write(data.path().join("manifests/tool.json"), manifest.to_string()).expect("written");
        plan_removal(&settings, "tool", None).await
    };
    for name in [".", "../x", "its env"] {
        let refused = plan(name, "cjm-ctl 1").await.expect_err("its environment would stay, untold");
        let message = refused.to_string();
        let is_told =
            message.contains("tool.json") && message.contains(&format!("install.conda_env: \"{name}\""));
        assert!(is_told, "{message}");
        assert!(refused.next_step().contains("`install.conda_env`"), "{}", refused.next_step());
        // Conda has names that ours are none of.
        let of_conda = plan(name, "").await.expect("it goes");
        assert!(!matches!(of_conda.environment, Place::Own(_)), "{name}: {of_conda:?}");
    }
    assert!(plan("its-env", "cjm-ctl 1").await.is_ok());
}

/// A data directory without anything, and settings that know no other.
fn fresh() -> (tempfile::TempDir, Settings) {
    let data = tempfile::tempdir().expect("tempdir");
    let told = CliOverrides { data_dir: Some(data.path().to_owned()), ..CliOverrides::default() };
    let home = |name: &str| (name == "HOME").then(|| data.path().as_os_str().to_owned());
    let settings = Settings::resolve_from(&told, &home, data.path()).expect("settings");
    std::fs::create_dir(data.path().join("manifests")).expect("made");
    (data, settings)
}

/// Writes the manifest of a tool that lives there.
fn write_tool(data_dir: &Path, name: &str, env_name: &str) {
    let manifest = serde_json::json!({
        "format_version": "2.0",
        "install": {"conda_env": env_name, "python_path": "/none/python"},
        "code": {"name": name, "version": "1", "module": "m", "class": "C"},
    });
    std::fs::write(data_dir.join(format!("manifests/{name}.json")), manifest.to_string()).expect("written");
}

#[tokio::test]
async fn with_a_tool_go_its_environment_where_nobody_else_lives_and_the_adapters_of_that_alone() {
    let (data, settings) = fresh();
    write_tool(data.path(), "tool", "its-env");
    std::fs::create_dir_all(own_home(data.path(), "its-env")).expect("made");
    let adapter = |file: &str, class: &str, env_name: &str| {
        let manifest = serde_json::json!({
            "unit": "adapter", "name": format!("m.{class}"), "task_name": "t", "module": "m", "class": class,
            "conda_env": env_name, "generated_at": "2026-01-01T00:00:00",
        });
        let path = data.path().join("manifests").join(file);
        std::fs::write(&path, manifest.to_string()).expect("written");
        path
    };
    let own = adapter("adapter-t-Own.json", "Own", "its-env");
    adapter("adapter-t-Other.json", "Other", "third-env");
    // One that no installation named.
    adapter("mine.json", "Mine", "its-env");
    let plan = async || plan_removal(&settings, "tool", None).await;
    let alone = plan().await.expect("it goes");
    assert_eq!((&alone.shared_with, &alone.adapters), (&Vec::new(), &vec![own]));
    assert_eq!(alone.environment.path(), Some(own_home(data.path(), "its-env").as_path()));
    assert!(alone.takes_environment() && !alone.spares_namesake && !alone.is_rest());

    write_tool(data.path(), "second", "its-env");
    let shared = plan().await.expect("it goes");
    assert_eq!((&shared.shared_with, shared.takes_environment()), (&vec!["second".to_owned()], false));
    // Nobody knows who lives where; without an environment nobody need know.
    let unreadable = data.path().join("manifests/second.json");
    std::fs::remove_file(&unreadable).expect("removed");
    std::os::unix::fs::symlink(&unreadable, &unreadable).expect("a link to itself");
    let is_unread = |refused: &EnvironmentError| matches!(refused, EnvironmentError::ManifestsUnread { .. });
    assert!(plan().await.is_err_and(|refused| is_unread(&refused)));
    let catalog = Catalog::discover(&settings.manifest_dirs());
    assert!(alone.check_alone(&catalog).is_err_and(|refused| is_unread(&refused)), "it came since");
    std::fs::remove_dir(own_home(data.path(), "its-env")).expect("removed");
    assert!(plan().await.is_ok());
    let _at_work = lock(data.path(), "install-all", []).expect("free");
    assert!(plan().await.is_err(), "an installation may make it just now");
}

/// One that came from elsewhere need not say where it lives.
#[tokio::test]
async fn the_list_says_which_environment_goes_where_the_manifest_does_not() {
    let (data, settings) = fresh();
    write_tool(data.path(), "tool", "");
    std::fs::create_dir_all(own_home(data.path(), "its-env")).expect("made");
    let list = data.path().join("list.yaml");
    let entries = [("other", "third-env"), ("tool", "its-env")]
        .map(|(name, env)| format!("- {{name: {name}, env_name: {env}, package: p, python_version: '3'}}\n"));
    std::fs::write(&list, format!("capabilities:\n{}", entries.concat())).expect("written");
    for (list, env_name) in [(None, None), (Some(list.as_path()), Some("its-env"))] {
        let removal = plan_removal(&settings, "tool", list).await.expect("it goes");
        assert_eq!(
            (removal.env_name.as_deref(), removal.takes_environment()),
            (env_name, env_name.is_some())
        );
    }
}
