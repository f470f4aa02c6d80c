//! Entries with an `env_file`, through each of the three programs that make conda environments. No conda is to be had
//! here: a stand-in on the PATH records how it is called and makes a plain virtual environment.

use cjm_tests::both::{Both, Who};
use cjm_tests::conda_project::{LIST, MODULE, PYPROJECT, document, project};
use cjm_tests::python;
use cjm_tests::world::{World, write_script};
use serde_json::{Value, json};
use std::path::Path;

/// Installs, calls, installs again, removes; the stand-in must have been asked exactly `asked`.
fn check(
    settings: &str,
    home: impl Fn(&Both) -> std::path::PathBuf,
    asked: impl Fn(&Both) -> Vec<String>,
    test: &str,
) {
    let world = World::new();
    let Some(both) = project(&world, test) else { return };
    both.write("cjm.yaml", settings);
    let ours = |arguments: &[&str]| both.run_with(Who::Ours, arguments, "", &[]);
    let installed = document(&ours(&["install-all", "--json"]), 0);
    let entry = &installed["entries"][0];
    assert_eq!(entry["result"], "installed", "{installed}");
    assert_eq!(entry["to_fetch"], json!({"bytes": 2_000_000, "packages": 2}), "{installed}");
    assert_eq!(both.asked(), asked(&both), "as it was installed");

    let home = home(&both);
    let path = entry["manifest"].as_str().expect("a manifest");
    let manifest: Value = serde_json::from_slice(&std::fs::read(path).expect("written")).expect("JSON");
    let python = home.join("bin/python").display().to_string();
    assert_eq!(
        (&manifest["install"]["python_path"], &manifest["install"]["conda_env"]),
        (&json!(python), &json!("my-env"))
    );
    let lock = std::fs::read_to_string(home.join("cjm-lock.txt")).expect("a lock");
    assert!(lock.contains("my-tool @ file://"), "{lock}");
    // What we write, the ancestor finds good, and finds.
    let verdict = both.run(Who::Theirs, &["validate", path], "");
    assert_eq!(verdict.code, Some(0), "{verdict:#?}");
    let called = ours(&["call", "my-tool", "--action", "where", "--raw"]);
    assert_eq!(called.stdout.trim_end(), home.display().to_string(), "{called:#?}");
    let listed = ours(&["list", "-e"]);
    assert!(listed.stdout.contains("  Env: my-env (exists)\n"), "{listed:#?}");

    let before = both.asked().len();
    let again = document(&ours(&["install-all", "--json"]), 0);
    assert_eq!(
        (&again["entries"][0]["result"], both.asked().len()),
        (&json!("unchanged"), before),
        "{again}"
    );
    let removed = document(&ours(&["remove", "my-tool", "-y", "--json"]), 0);
    assert_eq!(removed["environment_removed"], true, "{removed}");
    assert!(!home.exists() && !Path::new(path).exists());
    drop(both);
    world.assert_nothing_left();
}

#[test]
fn conda_makes_and_removes_environments_of_the_system() {
    check(
        "data_dir: ./.cjm\n",
        |both| both.environment("my-env"),
        |both| {
            let file = both.file("env.yml").display().to_string();
            vec![
                "conda --version".into(),
                "conda env list --json".into(),
                "conda info --json".into(),
                format!("conda env create -f {file} -n my-env --dry-run --json"),
                format!("conda env create -f {file} -n my-env"),
                "conda env list --json".into(),
                "conda info --json".into(),
            ]
        },
        "conda_makes_and_removes_environments_of_the_system",
    );
}

/// What the ancestor made there has nothing of ours in it.
#[test]
fn an_environment_of_a_tool_that_no_installation_of_ours_wrote_down_goes_with_it() {
    let world = World::new();
    let test = "an_environment_of_a_tool_that_no_installation_of_ours_wrote_down_goes_with_it";
    let Some(both) = project(&world, test) else { return };
    both.write("cjm.yaml", "data_dir: ./.cjm\n");
    let ours = |arguments: &[&str]| both.run_with(Who::Ours, arguments, "", &[]);
    let installed = document(&ours(&["install-all", "--json"]), 0);
    let path = installed["entries"][0]["manifest"].as_str().expect("a manifest");
    let mut manifest: Value = serde_json::from_slice(&std::fs::read(path).expect("written")).expect("JSON");
    manifest["install"]["installer_version"] = json!("");
    std::fs::write(path, manifest.to_string()).expect("written");
    assert_eq!(ours(&["allow", path]).code, Some(0));
    let home = both.environment("my-env");
    std::fs::remove_file(home.join("cjm-stamp.json")).expect("removed");
    let removed = document(&ours(&["remove", "my-tool", "-y", "--json"]), 0);
    assert_eq!((&removed["environment_removed"], home.exists()), (&json!(true), false), "{removed}");
    drop(both);
    world.assert_nothing_left();
}

#[test]
fn what_conda_was_half_making_is_in_nobodys_way_and_what_somebody_has_there_stays() {
    let world = World::new();
    let test = "what_conda_was_half_making_is_in_nobodys_way_and_what_somebody_has_there_stays";
    let Some(both) = project(&world, test) else { return };
    let home = both.environment("my-env");
    let (folder, conda) = (both.file("half"), both.file("../bin/conda"));
    std::fs::create_dir_all(&folder).expect("a folder");
    let programs = conda.parent().expect("a folder").display().to_string();
    let path = format!("{}:{programs}:{}", folder.display(), std::env::var("PATH").unwrap_or_default());
    let data = both.data().display().to_string();
    let with = |path: &str, arguments: &[&str]| {
        both.run_with(Who::Ours, arguments, "", &[("CJM_DATA_DIR", data.as_str()), ("PATH", path)])
    };
    let install = |code: i32| {
        document(&both.run(Who::Ours, &["install-all", "--json"], ""), code)["entries"][0]["result"].clone()
    };
    for ending in ["exit 7", "kill -9 $PPID; exit 7"] {
        let script = format!(
            "#!/bin/sh\ncase \"$*\" in *--dry-run*) ;; 'env create'*)\nmkdir -p '{0}/conda-meta'\n\
             until [ -s '{1}' ]; do sleep 0.01; done\n{ending} ;;\nesac\nexec '{2}' \"$@\"\n",
            home.display(),
            home.with_file_name(".my-env.cjm-made").display(),
            conda.display()
        );
        write_script(&folder.join("conda"), &script);
        let said = with(&path, &["install-all"]);
        let is_killed = said.code.is_none();
        assert_eq!((home.exists(), is_killed), (is_killed, ending.starts_with("kill")), "{said:#?}");
        assert_eq!(install(0), "installed", "after `{ending}`");
        let removed = document(&both.run(Who::Ours, &["remove", "my-tool", "-y", "--json"], ""), 0);
        assert_eq!((&removed["environment_removed"], home.exists()), (&json!(true), false), "{removed}");
    }
    // Conda refuses it, or takes it for an environment.
    std::fs::create_dir_all(&home).expect("made");
    std::fs::write(home.join("precious"), "").expect("written");
    let root = home.ancestors().nth(2).expect("a root");
    for known in ["", &format!("{}\n", home.display())] {
        std::fs::write(root.join("environments.txt"), known).expect("written");
        assert_eq!(install(1), "failed");
        assert!(home.join("precious").exists());
    }
    drop(both);
    world.assert_nothing_left();
}

/// What mamba is asked to make an environment at this place.
fn mamba_making(both: &Both, home: &str) -> Vec<String> {
    let (file, home) = (both.file("env.yml"), both.file(home));
    let (file, home) = (file.display(), home.display());
    vec![
        "mamba --version".into(),
        "mamba env list --json".into(),
        format!("mamba env create -f {file} -p {home} --dry-run --json"),
        format!("mamba env create -f {file} -p {home}"),
        "mamba env list --json".into(),
    ]
}

#[test]
fn mamba_makes_environments_below_the_projects_own_prefix() {
    check(
        "data_dir: ./.cjm\nruntime: {mode: local, conda_type: miniforge, prefix: ./runtime}\n",
        |both| both.file("runtime/envs/my-env"),
        |both| mamba_making(both, "runtime/envs/my-env"),
        "mamba_makes_environments_below_the_projects_own_prefix",
    );
}

/// The place of its link is its own then.
#[test]
fn an_environment_that_conda_makes_in_the_data_directory_stays_in_its_place() {
    check(
        "data_dir: ./.cjm\nruntime: {mode: local, conda_type: miniforge, prefix: ./.cjm}\n",
        |both| both.file(".cjm/envs/my-env"),
        |both| mamba_making(both, ".cjm/envs/my-env"),
        "an_environment_that_conda_makes_in_the_data_directory_stays_in_its_place",
    );
}

#[test]
fn micromamba_has_a_root_of_the_projects_own() {
    check(
        "data_dir: ./.cjm\nruntime: {mode: local, conda_type: micromamba, prefix: ./runtime}\n",
        |both| both.file("runtime/envs/my-env"),
        |both| {
            let (file, root) = (both.file("env.yml"), both.file("runtime"));
            let (file, root) = (file.display(), root.display());
            vec![
                "micromamba --version".into(),
                format!("micromamba -r {root} env list --json"),
                format!("micromamba -r {root} create -f {file} -n my-env --dry-run --json"),
                format!("micromamba -r {root} create -f {file} -n my-env -y"),
                format!("micromamba -r {root} env list --json"),
            ]
        },
        "micromamba_has_a_root_of_the_projects_own",
    );
}

#[test]
fn what_conda_cannot_do_is_told_and_force_begins_anew() {
    let world = World::new();
    let Some(both) = project(&world, "what_conda_cannot_do_is_told_and_force_begins_anew") else { return };
    let install = |more: &[&str]| both.run(Who::Ours, &[&["install-all", "--json"], more].concat(), "");
    both.write("env.yml", "dependencies: [unsatisfiable]\n");
    let failed = document(&install(&[]), 1);
    let error = &failed["entries"][0]["error"];
    assert_eq!(error["code"], "install.helper_failed", "{failed}");
    assert!(error["stderr_tail"].to_string().contains("ResolvePackageNotFound"), "{failed}");
    both.write("env.yml", "dependencies: [python]\n");
    assert_eq!(document(&install(&[]), 0)["entries"][0]["result"], "installed");
    let mark = both.environment("my-env").join("mark");
    std::fs::write(&mark, "").expect("written");
    // What is there is kept, also when the file has changed, as the ancestor does; --force makes it anew.
    both.write("env.yml", "dependencies: [python, more]\n");
    assert_eq!(document(&install(&[]), 0)["entries"][0]["result"], "installed");
    assert!(mark.exists());
    assert_eq!(document(&install(&["--force"]), 0)["entries"][0]["result"], "installed");
    assert!(!mark.exists());
    assert_eq!(names_beside(&both), ["my-env"]);

    both.write("env.yml", "");
    std::fs::remove_file(both.file("env.yml")).expect("removed");
    assert_eq!(document(&install(&[]), 1)["entries"][0]["error"]["code"], "install.file");
    let silent = both.file("silent");
    std::fs::create_dir_all(&silent).expect("a folder");
    write_script(&silent.join("conda"), "#!/bin/sh\nexit 3\n");
    both.write("env.yml", "dependencies: [python]\n");
    let path = format!("{}:/usr/bin:/bin", silent.display());
    let variables = [("PATH", path.as_str()), ("CJM_DATA_DIR", "elsewhere")];
    let uv = python::uv(&world).expect("found before");
    std::os::unix::fs::symlink(uv, silent.join("uv")).expect("a link");
    let missing = both.run_with(Who::Ours, &["install-all", "--json"], "", &variables);
    assert_eq!(document(&missing, 1)["entries"][0]["error"]["code"], "install.no_conda");
    world.assert_nothing_left();
}

/// What lies where conda makes its environments.
fn names_beside(both: &Both) -> Vec<String> {
    let home = both.environment("my-env");
    let listing = std::fs::read_dir(home.parent().expect("a folder")).expect("listed").flatten();
    listing.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn force_takes_a_good_environment_only_when_the_new_one_is_known_to_be_good() {
    let world = World::new();
    let test = "force_takes_a_good_environment_only_when_the_new_one_is_known_to_be_good";
    let Some(both) = project(&world, test) else { return };
    let install = |more: &[&str]| both.run(Who::Ours, &[&["install-all", "--json"], more].concat(), "");
    assert_eq!(document(&install(&[]), 0)["entries"][0]["result"], "installed");
    let home = both.environment("my-env");
    std::fs::write(home.join("mark"), "").expect("written");
    for (file, code) in [
        ("dependencies: [python=3.8]\n", "install.old_interpreter"),
        ("dependencies: [unsatisfiable]\n", "install.helper_failed"),
    ] {
        both.write("env.yml", file);
        let failed = document(&install(&["--force"]), 1);
        assert_eq!(failed["entries"][0]["error"]["code"], code, "{failed}");
        assert_eq!(failed["entries"][0]["version"], "1.0.0", "it is there as it was: {failed}");
        assert!(home.join("mark").exists());
        assert_eq!(names_beside(&both), ["my-env"]);
        let called = both.run(Who::Ours, &["call", "my-tool", "--action", "where", "--raw"], "");
        assert_eq!(called.stdout.trim_end(), home.display().to_string(), "{called:#?}");
        let status = document(&both.run(Who::Ours, &["status", "--json"], ""), 0);
        assert_eq!(status["unfinished_installations"], json!([]), "{status}");
    }
    // Nor does one go that conda does not know any more, as after a change of its settings.
    let known = home.ancestors().nth(2).expect("a root").join("environments.txt");
    let all = std::fs::read_to_string(&known).expect("a list");
    std::fs::write(&known, "").expect("written");
    let failed = document(&install(&["--force"]), 1);
    assert_eq!(failed["entries"][0]["error"]["code"], "install.helper_failed", "{failed}");
    assert_eq!(failed["entries"][0]["version"], "1.0.0", "{failed}");
    std::fs::write(&known, all).expect("written");
    // Also where the new one is found to be no good later than that.
    both.write("env.yml", "dependencies: [python]\n");
    both.write("my-tool/my_tool/__init__.py", "raise SystemExit(3)\n");
    let failed = document(&install(&["--force"]), 1);
    assert!(home.join("mark").exists() && names_beside(&both) == ["my-env"], "{failed}");
    both.write("my-tool/my_tool/__init__.py", MODULE);
    assert_eq!(document(&install(&["--force"]), 0)["entries"][0]["result"], "installed");
    assert!(!home.join("mark").exists() && names_beside(&both) == ["my-env"]);
    world.assert_nothing_left();
}

#[test]
fn an_environment_that_a_tool_of_another_data_directory_lives_in_is_neither_changed_nor_taken_away() {
    let world = World::new();
    let test =
        "an_environment_that_a_tool_of_another_data_directory_lives_in_is_neither_changed_nor_taken_away";
    let Some(both) = project(&world, test) else { return };
    both.write("cjm.yaml", "data_dir: ./.cjm\n");
    let [ours, theirs] = [".cjm", "theirs"].map(|name| both.file(name));
    let in_place = |data_dir: &Path, arguments: &[&str], code: i32| {
        let place = data_dir.display().to_string();
        document(&both.run(Who::Ours, &[arguments, &["--json", "--data-dir", &place]].concat(), ""), code)
    };
    assert_eq!(in_place(&ours, &["install-all"], 0)["entries"][0]["result"], "installed");
    let home = both.environment("my-env");
    let stamp = std::fs::read_to_string(home.join("cjm-stamp.json")).expect("a stamp");
    for arguments in [&["install-all"][..], &["install-all", "--force"]] {
        let refused = in_place(&theirs, arguments, 1);
        let error = &refused["entries"][0]["error"];
        assert_eq!(error["code"], "install.environment_of_another_list", "{refused}");
        assert!(error["message"].to_string().contains(&ours.display().to_string()), "{refused}");
        let now = std::fs::read_to_string(home.join("cjm-stamp.json")).expect("a stamp");
        assert_eq!(now, stamp, "nothing of it was changed");
    }
    // As a version left it that wrote down nobody: the next one takes it, and then it is known whose it is.
    let mut old: Value = serde_json::from_str(&stamp).expect("JSON");
    old.as_object_mut().and_then(|stamp| stamp.remove("data_dir")).expect("it was there");
    std::fs::write(home.join("cjm-stamp.json"), old.to_string()).expect("written");
    assert_eq!(in_place(&theirs, &["install-all"], 0)["entries"][0]["result"], "installed");
    let removed = in_place(&ours, &["remove", "my-tool", "-y"], 0);
    assert_eq!(removed["environment_removed"], false, "{removed}");
    assert!(removed["shared_with"][0].to_string().contains(&theirs.display().to_string()), "{removed}");
    assert!(ours.join("envs/my-env").symlink_metadata().is_err(), "nothing leads there any more");
    let place = theirs.display().to_string();
    let call = ["call", "my-tool", "--action", "where", "--raw", "--data-dir", &place];
    let called = both.run(Who::Ours, &call, "");
    assert_eq!(called.stdout.trim_end(), home.display().to_string(), "{called:#?}");
    assert_eq!(in_place(&theirs, &["remove", "my-tool", "-y"], 0)["environment_removed"], true);
    assert!(!home.exists());
    world.assert_nothing_left();
}

#[test]
fn what_was_found_when_something_was_put_back_is_named_also_where_nothing_has_changed() {
    let world = World::new();
    let test = "what_was_found_when_something_was_put_back_is_named_also_where_nothing_has_changed";
    let Some(both) = project(&world, test) else { return };
    let install = || document(&both.run(Who::Ours, &["install-all", "--json"], ""), 0);
    let installed = install();
    let home = both.environment("my-env");
    // As a kill leaves it, and somebody who came after it.
    std::fs::rename(&home, home.with_file_name(".my-env.cjm-former")).expect("moved");
    std::fs::create_dir(&home).expect("a folder");
    let found = home.with_file_name(".my-env.cjm-found-1").display().to_string();
    for _ in 0..2 {
        let again = install();
        assert_eq!(again["entries"][0]["result"], "unchanged", "{again}");
        assert!(again["entries"][0]["warnings"].to_string().contains(&found), "{again}");
    }
    std::fs::remove_dir(&found).expect("removed");
    assert_eq!(install()["entries"][0]["warnings"], json!([]));

    // Of an environment of ours, an update was killed once its manifest was there.
    both.write(
        "capabilities.yaml",
        &LIST.replace("env_file: env.yml", "python_version: \">=3.9\"").replace("my-env", "own"),
    );
    let manifest = Path::new(installed["entries"][0]["manifest"].as_str().expect("a manifest"));
    std::fs::remove_file(manifest).expect("removed");
    install();
    let own = manifest.ancestors().nth(2).expect("a data directory").join("envs/own");
    let former = own.with_file_name(".own.former");
    std::fs::rename(&own, &former).expect("moved");
    let before = std::fs::read(manifest).expect("a manifest");
    std::fs::create_dir(former.join("cjm-manifests")).expect("a folder");
    std::fs::write(former.join("cjm-manifests/my-tool.json"), &before).expect("written");
    std::fs::write(former.join("cjm-replaced-manifests"), "my-tool.json").expect("written");
    let mut mine: Value = serde_json::from_slice(&before).expect("JSON");
    mine["overrides"] = json!({"mine": 1});
    std::fs::write(manifest, mine.to_string()).expect("written");
    let again = install();
    let warnings = again["entries"][0]["warnings"].to_string();
    assert_eq!(again["entries"][0]["result"], "unchanged", "{again}");
    let listing = std::fs::read_dir(manifest.parent().expect("a folder")).expect("listed").flatten();
    let is_kept = |path: &std::path::PathBuf| path.to_string_lossy().contains("my-tool.json.replaced-");
    let kept: Vec<_> = listing.map(|one| one.path()).filter(is_kept).collect();
    assert!(kept.len() == 1 && warnings.contains(&kept[0].display().to_string()), "{kept:?} {again}");
    assert_eq!(std::fs::read_to_string(&kept[0]).expect("kept"), mine.to_string());
    assert_eq!(std::fs::read(manifest).expect("a manifest"), before);
    world.assert_nothing_left();
}

#[test]
fn micromamba_is_fetched_to_its_place() {
    let world = World::new();
    let Some(both) = project(&world, "micromamba_is_fetched_to_its_place") else { return };
    // Stands in for the network: answers any address with an archive of one program.
    let curl = "#!/bin/sh\nwhile [ $# -gt 0 ]; do case $1 in --output) out=$2 ;; esac; shift; done\n\
                mkdir -p fetched/bin && echo program >fetched/bin/micromamba && tar -cjf \"$out\" -C fetched bin/micromamba\n";
    both.add_script("curl", curl);
    both.write("cjm.yaml", "runtime: {conda_type: micromamba, prefix: ./runtime}\n");
    let setup =
        |more: &[&str]| document(&both.run(Who::Ours, &[&["setup-runtime", "--json"], more].concat(), ""), 0);
    let destination = both.file("runtime/bin/micromamba");
    let shown = setup(&["--dry-run"]);
    assert_eq!((&shown["fetched"], &shown["destination"]), (&json!(false), &json!(destination)), "{shown}");
    assert!(!destination.exists());
    assert_eq!(setup(&[])["fetched"], true);
    assert_eq!(std::fs::read_to_string(&destination).expect("fetched"), "program\n");
    assert_eq!(setup(&[])["fetched"], false, "it is there");
    assert_eq!(setup(&["-f"])["fetched"], true);
    both.add_script("curl", "#!/bin/sh\necho 'no route to host' >&2\nexit 7\n");
    let failed = both.run(Who::Ours, &["setup-runtime", "-f"], "");
    assert!(failed.code == Some(1) && failed.stderr.contains("no route to host"), "{failed:#?}");
    assert_eq!(std::fs::read_to_string(&destination).expect("kept"), "program\n");
}

#[test]
fn the_environment_of_a_data_directory_that_was_moved_is_not_taken_without_a_word() {
    let world = World::new();
    let test = "the_environment_of_a_data_directory_that_was_moved_is_not_taken_without_a_word";
    let Some(both) = project(&world, test) else { return };
    both.write("cjm.yaml", "data_dir: ./.cjm\n");
    both.write("other/pyproject.toml", PYPROJECT);
    both.write("other/my_tool/__init__.py", &MODULE.replace("sys.prefix", "\"of the other\""));
    both.write("other.yaml", &LIST.replace("./my-tool", "./other"));
    let [ours, moved, theirs] = ["ours", "moved", "theirs"].map(|name| both.file(name));
    let at = |data_dir: &Path, arguments: &[&str]| {
        both.run(Who::Ours, &[arguments, &["--data-dir", &data_dir.display().to_string()]].concat(), "")
    };
    let install = |data_dir: &Path, more: &[&str], code: i32| {
        document(&at(data_dir, &[&["install-all", "--json"], more].concat()), code)["entries"][0].clone()
    };
    let call = |data_dir: &Path| at(data_dir, &["call", "my-tool", "--action", "where", "--raw"]);
    let home = both.environment("my-env").display().to_string();
    let other = ["--capabilities", "other.yaml"];
    assert_eq!(install(&ours, &[], 0)["result"], "installed");
    std::fs::rename(&ours, &moved).expect("moved");
    // It may have been moved, or removed.
    let refused = install(&theirs, &other, 1);
    assert_eq!(refused["error"]["code"], "install.environment_of_another_list", "{refused}");
    let told = refused["error"].to_string();
    assert!(told.contains(&ours.display().to_string()) && told.contains("--force"), "{told}");
    assert_eq!(call(&moved).stdout.trim_end(), home);
    // At its new place it is known as the same one, and from there on by its new place.
    assert_eq!(install(&moved, &[], 0)["result"], "unchanged");
    let refused = install(&theirs, &[&other[..], &["--force"]].concat(), 1);
    assert!(refused["error"].to_string().contains(&moved.display().to_string()), "{refused}");
    assert_eq!(call(&moved).stdout.trim_end(), home);

    // Taken on purpose, it is told whose it was, and no call of that one runs another's code.
    std::fs::rename(&moved, &ours).expect("moved back");
    let taken = install(&theirs, &[&other[..], &["--force"]].concat(), 0);
    assert!(taken["warnings"].to_string().contains(&moved.display().to_string()), "{taken}");
    assert_eq!(call(&theirs).stdout.trim_end(), "of the other");
    let refused = call(&ours);
    assert!(refused.code == Some(10) && refused.stderr.contains("theirs"), "{refused:#?}");
    let listed = at(&ours, &["list"]);
    assert!(listed.stderr.contains("theirs"), "{listed:#?}");
    for more in [&[][..], &["--force"]] {
        let refused = install(&ours, more, 1);
        assert_eq!(refused["error"]["code"], "install.environment_of_another_list", "{refused}");
        assert!(!refused["warnings"].to_string().contains("stays installed"), "{refused}");
    }
    let removed = document(&at(&ours, &["remove", "my-tool", "-y", "--json"]), 0);
    assert_eq!(removed["environment_removed"], false, "{removed}");
    assert_eq!(call(&theirs).stdout.trim_end(), "of the other");
    world.assert_nothing_left();
}

#[test]
fn what_a_package_starts_when_it_is_looked_into_does_not_outlive_that() {
    let world = World::new();
    let test = "what_a_package_starts_when_it_is_looked_into_does_not_outlive_that";
    let Some(both) = project(&world, test) else { return };
    let pid = both.file("pid");
    let script = format!("setsid sleep 300 >/dev/null 2>&1 & echo $! >{}", pid.display());
    let module = format!("import subprocess\nsubprocess.run([\"sh\", \"-c\", \"{script}\"])\n{MODULE}");
    both.write("my-tool/my_tool/__init__.py", &module);
    let installed = document(&both.run(Who::Ours, &["install-all", "--json"], ""), 0);
    assert_eq!(installed["entries"][0]["result"], "installed", "{installed}");
    let pid = std::fs::read_to_string(pid).expect("it was started");
    assert!(!Path::new("/proc").join(pid.trim()).exists(), "it lives on");
    world.assert_nothing_left();
}
