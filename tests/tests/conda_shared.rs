//! One environment of conda's that several data directories name, since conda keeps it for all of them.

use cjm_tests::both::{Both, Said, Who};
use cjm_tests::conda_project::{LIST, MODULE, PYPROJECT, document, project};
use cjm_tests::python;
use cjm_tests::world::{COMMAND_MAX, World, eventually, write_script};
use cjm_wire::describe::exit;
use serde_json::Value;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::UNIX_EPOCH;

const OTHER: [&str; 2] = ["--capabilities", "other.yaml"];

/// Two lists whose tools want the same environment.
struct Shared {
    both: Both,
}

impl Shared {
    fn new(world: &World, test: &str) -> Option<Self> {
        let both = project(world, test)?;
        both.write("cjm.yaml", "data_dir: ./.cjm\n");
        both.write("other/pyproject.toml", PYPROJECT);
        both.write("other/my_tool/__init__.py", &MODULE.replace("sys.prefix", "\"of the other\""));
        both.write("other.yaml", &LIST.replace("./my-tool", "./other"));
        Some(Self { both })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.both.file(name)
    }

    fn at(&self, data_dir: &str, arguments: &[&str]) -> Said {
        let place = self.file(data_dir).display().to_string();
        self.both.run(Who::Ours, &[arguments, &["--data-dir", &place]].concat(), "")
    }

    /// A PATH on which uv waits, once it has installed something, until what is returned is written to; a file `reached` is
    /// there when it does.
    fn waiting_uv(&self, world: &World) -> (String, PathBuf) {
        let (folder, gate) = (self.file("waiting"), self.file("gate"));
        std::fs::create_dir_all(&folder).expect("a folder");
        assert!(Command::new("mkfifo").arg(&gate).status().is_ok_and(|made| made.success()));
        let uv = python::uv(world).expect("found before").display().to_string();
        let (reached, gate_text) = (self.file("reached").display().to_string(), gate.display());
        let script = format!(
            "#!/bin/sh\ncase \"$*\" in 'pip install'*)\n'{uv}' \"$@\"; code=$?; : >'{reached}'; read -r _ <'{gate_text}'; \
             exit $code ;;\nesac\nexec '{uv}' \"$@\"\n"
        );
        write_script(&folder.join("uv"), &script);
        let programs = self.file("../bin").display().to_string();
        let path = std::env::var("PATH").unwrap_or_default();
        (format!("{}:{programs}:{path}", folder.display()), gate)
    }

    /// What became of the only entry.
    #[track_caller]
    fn install(&self, data_dir: &str, more: &[&str], code: i32) -> Value {
        let said = self.at(data_dir, &[&["install-all", "--json"], more].concat());
        document(&said, code)["entries"][0].clone()
    }

    /// What its tool says, which is whose code it is.
    fn call(&self, data_dir: &str) -> String {
        let said = self.at(data_dir, &["call", "my-tool", "--action", "where", "--raw"]);
        if said.code == Some(0) { said.stdout.trim_end().to_owned() } else { said.stderr }
    }

    fn home(&self) -> PathBuf {
        self.both.environment("my-env")
    }

    /// The other list is refused what the first one has.
    #[track_caller]
    fn assert_refused(&self, data_dir: &str) {
        let refused = self.install(data_dir, &OTHER, 1);
        assert_eq!(refused["error"]["code"], "install.environment_of_another_list", "{refused}");
    }

    /// As a `--force` leaves it that was killed while conda made the new environment; conda knows that one, unless it was too
    /// early.
    fn kill_a_force(&self, is_known: bool) {
        std::fs::rename(self.home(), self.beside(".my-env.cjm-former")).expect("set aside");
        let root = self.home().ancestors().nth(2).expect("a root").to_owned();
        let made = self.both.make_environment("my-env");
        if !is_known {
            // Nothing but its base.
            std::fs::write(root.join("environments.txt"), format!("{}\n", root.display())).expect("written");
        }
        let found = made.metadata().expect("made");
        if let Ok(born) = found.created() {
            let born = born.duration_since(UNIX_EPOCH).expect("after that").as_nanos();
            let note = format!("{} {} {born}", found.dev(), found.ino());
            std::fs::write(self.beside(".my-env.cjm-made"), note).expect("written");
        }
    }

    fn beside(&self, name: &str) -> PathBuf {
        self.home().with_file_name(name)
    }

    /// What lies where conda makes its environments.
    fn names_beside(&self) -> Vec<String> {
        let listing = std::fs::read_dir(self.beside("")).expect("listed").flatten();
        listing.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    /// Removes the environment and what is told of it, whoever has it.
    fn begin_anew(&self) {
        for name in ["ours", "moved", "theirs", "up", "away", "link"] {
            let path = self.file(name);
            let _ = std::fs::remove_dir_all(&path).or_else(|_| std::fs::remove_file(&path));
        }
        let _ = std::fs::remove_dir_all(self.home());
    }
}

#[test]
fn whatever_lies_where_a_data_directory_was_its_environment_is_taken_by_nobody_without_force() {
    let world = World::new();
    let test = "whatever_lies_where_a_data_directory_was_its_environment_is_taken_by_nobody_without_force";
    let Some(shared) = Shared::new(&world, test) else { return };
    let home = shared.home().display().to_string();
    let (ours, moved) = (shared.file("ours"), shared.file("moved"));
    // Another data directory at the old path.
    assert_eq!(shared.install("ours", &[], 0)["result"], "installed");
    std::fs::rename(&ours, &moved).expect("moved");
    shared.assert_refused("ours");
    assert_eq!(shared.call("moved"), home);
    // An empty folder there.
    let _ = std::fs::remove_dir_all(&ours);
    std::fs::create_dir(&ours).expect("a folder");
    shared.assert_refused("theirs");
    assert_eq!(shared.call("moved"), home);

    shared.begin_anew();
    let up = shared.file("up");
    std::fs::create_dir(&up).expect("a folder");
    assert_eq!(shared.install("up/ours", &[], 0)["result"], "installed");
    std::fs::rename(&up, shared.file("away")).expect("moved");
    std::fs::write(&up, "").expect("a file");
    shared.assert_refused("theirs");
    assert_eq!(shared.call("away/ours"), home);

    // Known by a link, which leads elsewhere now.
    shared.begin_anew();
    let link = shared.file("link");
    let lead_to = |folder: &Path| {
        let _ = std::fs::remove_file(&link);
        let _ = std::fs::create_dir(folder);
        symlink(folder, &link).expect("linked");
    };
    lead_to(&ours);
    assert_eq!(shared.install("link", &[], 0)["result"], "installed");
    lead_to(&moved);
    shared.assert_refused("link");
    assert_eq!(shared.call("ours"), home);
    // On purpose it is taken, and that is said.
    let taken = shared.install("link", &[&OTHER[..], &["--force"]].concat(), 0);
    assert!(taken["warnings"].to_string().contains("moved or removed since"), "{taken}");
    assert_eq!(shared.call("link"), "of the other");
    world.assert_nothing_left();
}

#[test]
fn a_copy_of_a_data_directory_takes_no_environment_from_it() {
    let world = World::new();
    let test = "a_copy_of_a_data_directory_takes_no_environment_from_it";
    let Some(shared) = Shared::new(&world, test) else { return };
    let home = shared.home().display().to_string();
    assert_eq!(shared.install("ours", &[], 0)["result"], "installed");
    let copied = Command::new("cp").arg("-a").args([shared.file("ours"), shared.file("copy")]).status();
    assert!(copied.is_ok_and(|copied| copied.success()));
    std::fs::rename(shared.file("ours"), shared.file("moved")).expect("moved");
    // It runs the same code, and says nothing of whose that is.
    assert_eq!(shared.call("copy"), home);
    assert_eq!(shared.install("copy", &[], 0)["result"], "unchanged");
    shared.assert_refused("copy");
    let removed = document(&shared.at("copy", &["remove", "my-tool", "-y", "--json"]), 0);
    assert_eq!(removed["environment_removed"], false, "{removed}");
    assert_eq!(shared.call("moved"), home);
    assert_eq!(shared.install("moved", &[], 0)["result"], "unchanged");

    // What was restored in its place goes on as it was.
    let restored = Command::new("cp").arg("-a").args([shared.file("moved"), shared.file("again")]).status();
    assert!(restored.is_ok_and(|restored| restored.success()));
    std::fs::remove_dir_all(shared.file("moved")).expect("removed");
    std::fs::rename(shared.file("again"), shared.file("moved")).expect("renamed");
    assert_eq!(shared.call("moved"), home);
    shared.assert_refused("theirs");
    let removed = document(&shared.at("moved", &["remove", "my-tool", "-y", "--json"]), 0);
    assert_eq!(removed["environment_removed"], true, "{removed}");
    assert!(!shared.home().exists());
    world.assert_nothing_left();
}

#[test]
fn while_one_data_directory_installs_into_an_environment_another_one_is_told_to_wait() {
    let world = World::new();
    let test = "while_one_data_directory_installs_into_an_environment_another_one_is_told_to_wait";
    let Some(shared) = Shared::new(&world, test) else { return };
    let (path, gate) = shared.waiting_uv(&world);
    let place = shared.file("ours").display().to_string();
    let begun = ["install-all", "--json", "--data-dir", &place];
    let variables = [("PATH", path.as_str())];
    let (said, meanwhile) = std::thread::scope(|scope| {
        let ours = scope.spawn(|| shared.both.run_with(Who::Ours, &begun, "", &variables));
        eventually("its packages are there", COMMAND_MAX, || shared.file("reached").exists().then_some(()));
        let other =
            |more: &[&str]| shared.at("theirs", &[&["install-all", "--json"], &OTHER[..], more].concat());
        // Another conda, which may make its environments in the same folder, and one whose prefix that is.
        let root = shared.home().ancestors().nth(2).expect("a root").display().to_string();
        let local = format!("runtime: {{mode: local, conda_type: miniforge, prefix: {root}}}\n");
        shared.both.write("local.yaml", &local);
        let meanwhile = [
            other(&[]),
            other(&["--force"]),
            other(&["--conda-type", "miniforge"]),
            other(&["--conda-type", "miniforge", "--force"]),
            other(&["--cjm-config", "local.yaml"]),
        ];
        std::fs::write(&gate, "\n").expect("it goes on");
        (ours.join().expect("it ends"), meanwhile)
    });
    for refused in meanwhile {
        let error = document(&refused, exit::DIRECTORY_IN_USE.into())["entries"][0]["error"].clone();
        assert_eq!(error["code"], "install.in_use", "{error}");
        let told = error["message"].to_string();
        assert!(told.contains("my-env") && told.contains("install-all"), "{told}");
        // Of whoever works on it, by what finds that.
        let step = error["next_step"].to_string();
        assert!(told.contains(&place) && step.contains(&format!("--data-dir {place}")), "{error}");
        assert!(!step.contains("theirs") && !told.contains("bin/"), "{error}");
    }
    assert_eq!(document(&said, 0)["entries"][0]["result"], "installed", "{said:#?}");
    assert_eq!(shared.call("ours"), shared.home().display().to_string());
    shared.assert_refused("theirs");
    world.assert_nothing_left();
}

#[test]
fn what_waits_since_a_killed_force_is_its_own_data_directorys_and_takes_no_place_from_another() {
    let world = World::new();
    let test = "what_waits_since_a_killed_force_is_its_own_data_directorys_and_takes_no_place_from_another";
    let Some(shared) = Shared::new(&world, test) else { return };
    let home = shared.home().display().to_string();
    assert_eq!(shared.install("ours", &[], 0)["result"], "installed");
    for is_known in [true, false] {
        shared.kill_a_force(is_known);
        shared.assert_refused("theirs");
        assert_eq!(shared.install("ours", &[], 0)["result"], "unchanged");
        assert_eq!(shared.call("ours"), home);
        assert_eq!(shared.names_beside(), ["my-env"]);
    }
    // As a version has left it that took the place.
    std::fs::write(shared.beside("../environments.txt"), format!("{home}\n")).expect("written");
    shared.kill_a_force(true);
    let (aside, hidden) = (shared.beside(".my-env.cjm-former"), shared.file("hidden"));
    std::fs::rename(&aside, &hidden).expect("moved");
    assert_eq!(shared.install("theirs", &OTHER, 0)["result"], "installed");
    std::fs::rename(&hidden, &aside).expect("moved");
    for more in [&[][..], &["--force"]] {
        let refused = shared.install("ours", more, 1);
        assert_eq!(refused["error"]["code"], "install.environment_of_another_list", "{refused}");
        assert_eq!(shared.call("theirs"), "of the other");
    }
    assert_eq!(shared.install("theirs", &OTHER, 0)["result"], "unchanged");
    let removed = document(&shared.at("ours", &["remove", "my-tool", "-y", "--json"]), 0);
    assert_eq!(removed["environment_removed"], false, "{removed}");
    assert_eq!(shared.call("theirs"), "of the other");
    assert_eq!(shared.names_beside(), ["my-env"], "nothing waits any more");
    assert_eq!(shared.install("theirs", &[&OTHER[..], &["--force"]].concat(), 0)["result"], "installed");
    world.assert_nothing_left();
}

#[test]
fn what_a_killed_force_left_goes_with_its_tool_and_what_list_says_takes_a_rest_away() {
    let world = World::new();
    let test = "what_a_killed_force_left_goes_with_its_tool_and_what_list_says_takes_a_rest_away";
    let Some(shared) = Shared::new(&world, test) else { return };
    for is_known in [true, false] {
        assert_eq!(shared.install("ours", &[], 0)["result"], "installed");
        shared.kill_a_force(is_known);
        let removed = shared.at("ours", &["remove", "my-tool", "-y"]);
        assert_eq!(removed.code, Some(0), "{removed:#?}");
        assert_eq!(shared.names_beside(), [""; 0], "known to conda: {is_known}");
        let listed = shared.at("ours", &["list", "--envs"]);
        assert!(!listed.stderr.contains("my-env"), "{listed:#?}");
    }
    // Its manifest is gone: by its stamp it is known to be made here.
    let installed = shared.install("ours", &[], 0);
    std::fs::remove_file(installed["manifest"].as_str().expect("a manifest")).expect("removed");
    let listed = shared.at("ours", &["list", "--envs"]);
    assert!(listed.stderr.contains("remove my-env` takes it away\n"), "{listed:#?}");
    let removed = document(&shared.at("ours", &["remove", "my-env", "-y", "--json"]), 0);
    assert_eq!(removed["environment_removed"], true, "{removed}");
    assert!(shared.names_beside().is_empty());
    // Of what somebody had conda make, the link alone is ours.
    let home = shared.both.make_environment("my-env");
    let link = shared.file("ours/envs/my-env");
    symlink(&home, &link).expect("linked");
    let listed = shared.at("ours", &["list", "--envs"]);
    let step = format!("`rm {}` takes the link away", link.display());
    assert!(listed.stderr.contains(&step) && !listed.stderr.contains("remove my-env"), "{listed:#?}");
    world.assert_nothing_left();
}

#[test]
fn an_environment_whose_installation_failed_stays_its_data_directorys() {
    let world = World::new();
    let test = "an_environment_whose_installation_failed_stays_its_data_directorys";
    let Some(shared) = Shared::new(&world, test) else { return };
    let (home, ours) = (shared.home().display().to_string(), shared.file("ours").display().to_string());
    let fail = |data_dir: &str| {
        shared.both.write("my-tool/my_tool/__init__.py", "raise SystemExit(3)\n");
        let failed = shared.install(data_dir, &[], 1);
        assert_eq!(failed["result"], "failed", "{failed}");
        shared.both.write("my-tool/my_tool/__init__.py", MODULE);
    };
    // The first one as well as any later one.
    for _ in 0..2 {
        fail("ours");
        for more in [&[][..], &["--force"]] {
            let refused = shared.install("theirs", &[&OTHER[..], more].concat(), 1);
            assert_eq!(refused["error"]["code"], "install.environment_of_another_list", "{refused}");
            assert!(refused["error"]["message"].to_string().contains(&ours), "{refused}");
        }
        assert_eq!(shared.install("ours", &[], 0)["result"], "installed");
        assert_eq!(shared.call("ours"), home);
    }
    // Nor does it go with a copy, which cannot go on with it.
    let copied = Command::new("cp").arg("-a").args([shared.file("ours"), shared.file("copy")]).status();
    assert!(copied.is_ok_and(|copied| copied.success()));
    fail("ours");
    let told = shared.call("copy");
    assert!(told.contains(&ours) && told.contains("env_name"), "{told}");
    let told = shared.call("ours");
    assert!(told.contains("broken off") && told.contains("install-all"), "{told}");
    let removed = document(&shared.at("copy", &["remove", "my-tool", "-y", "--json"]), 0);
    assert_eq!(removed["environment_removed"], false, "{removed}");
    assert!(shared.home().exists());
    assert_eq!(shared.install("ours", &[], 0)["result"], "installed");
    // Its own removal takes it, also where it is not whole.
    fail("ours");
    let removed = document(&shared.at("ours", &["remove", "my-tool", "-y", "--json"]), 0);
    assert_eq!(removed["environment_removed"], true, "{removed}");
    assert!(!shared.home().exists());
    assert_eq!(shared.install("theirs", &OTHER, 0)["result"], "installed");
    world.assert_nothing_left();
}

#[test]
fn an_environment_of_another_place_with_the_same_last_name_is_none_of_ours() {
    let world = World::new();
    let test = "an_environment_of_another_place_with_the_same_last_name_is_none_of_ours";
    let Some(shared) = Shared::new(&world, test) else { return };
    let home = shared.home();
    let root = home.ancestors().nth(2).expect("a root").to_owned();
    let made = shared.both.make_environment("other-env");
    let known = root.join("environments.txt");
    let mine = shared.file("project/my-env");
    std::fs::create_dir_all(&mine).expect("a folder");
    assert!(
        Command::new("cp").arg("-a").arg(made.join(".")).arg(&mine).status().is_ok_and(|done| done.success())
    );
    std::fs::write(mine.join("precious"), "").expect("written");
    let before = Command::new("ls").arg("-A").arg(&mine).output().expect("listed").stdout;
    let list = [&mine, &root, &made].map(|path| format!("{}\n", path.display())).concat();
    std::fs::write(&known, &list).expect("written");
    for more in [&[][..], &["--force"]] {
        let installed = shared.install("ours", more, 0);
        assert_eq!(installed["result"], "installed", "{installed}");
        assert_eq!(shared.call("ours"), home.display().to_string());
    }
    let removed = document(&shared.at("ours", &["remove", "my-tool", "-y", "--json"]), 0);
    assert_eq!(removed["environment"], home.display().to_string(), "{removed}");
    assert!(!home.exists());
    let now = Command::new("ls").arg("-A").arg(&mine).output().expect("listed").stdout;
    assert_eq!(now, before, "nothing of it was changed");
    // The root of conda itself, by whatever name.
    let name = root.file_name().expect("a name").to_string_lossy().into_owned();
    shared.both.write("capabilities.yaml", &LIST.replace("my-env", &name));
    std::fs::create_dir_all(root.join("bin")).expect("a folder");
    std::os::unix::fs::symlink(made.join("bin/python"), root.join("bin/python")).expect("linked");
    std::fs::write(&known, &list).expect("written");
    for more in [&[][..], &["--force"]] {
        assert_eq!(shared.install("ours", more, 0)["result"], "installed");
        assert_eq!(shared.call("ours"), shared.beside(&name).display().to_string());
        assert!(root.join("bin/python").exists() && made.exists());
    }
    world.assert_nothing_left();
}

#[test]
fn of_an_environment_that_stays_no_removal_says_that_it_went() {
    let world = World::new();
    let test = "of_an_environment_that_stays_no_removal_says_that_it_went";
    let Some(shared) = Shared::new(&world, test) else { return };
    // Its first installation came to no end; another data directory comes to have it, as after a kill while conda made it.
    shared.both.write("my-tool/my_tool/__init__.py", "raise SystemExit(3)\n");
    assert_eq!(shared.install("ours", &[], 1)["result"], "failed");
    let kept = shared.at("ours", &["remove", "my-env", "-y", "--keep-env"]);
    assert!(kept.stdout.contains("Nothing was removed") && shared.home().exists(), "{kept:#?}");
    std::fs::remove_file(shared.file("ours/envs/my-env")).expect("removed");
    assert_eq!(shared.install("theirs", &OTHER, 0)["result"], "installed");
    let removed = shared.at("ours", &["remove", "my-env", "-y"]);
    assert_eq!(removed.code, Some(0), "{removed:#?}");
    let place = shared.file("theirs").display().to_string();
    let told = removed.stdout.lines().last().unwrap_or_default();
    assert!(told.contains("'my-env' stays") && told.contains(&place), "{removed:#?}");
    assert!(!removed.stdout.contains("removed successfully"), "{removed:#?}");
    assert_eq!(shared.call("theirs"), "of the other");
    let again = shared.at("ours", &["remove", "my-env", "-y"]);
    assert_eq!(again.code, Some(1), "nothing of it is left: {again:#?}");
    world.assert_nothing_left();
}

#[test]
fn an_environment_that_was_there_before_its_tool_stays_when_that_is_removed() {
    let world = World::new();
    let test = "an_environment_that_was_there_before_its_tool_stays_when_that_is_removed";
    let Some(shared) = Shared::new(&world, test) else { return };
    let home = shared.both.make_environment("my-env");
    std::fs::write(home.join("precious"), "").expect("written");
    let command = format!("conda env remove -p {}", home.display());
    // Also where the first installation fails, and where there is a second one.
    shared.both.write("my-tool/my_tool/__init__.py", "raise SystemExit(3)\n");
    assert_eq!(shared.install("ours", &[], 1)["result"], "failed");
    let removed = shared.at("ours", &["remove", "my-env", "-y"]);
    assert!(removed.code == Some(0) && removed.stdout.contains(&command), "{removed:#?}");
    assert!(removed.stdout.contains("'my-env' stays"), "{removed:#?}");
    assert_eq!(shared.install("ours", &[], 1)["result"], "failed");
    let listed = shared.at("ours", &["list", "--envs"]);
    assert!(listed.stderr.contains("was there before, and stays"), "{listed:#?}");
    for module in [MODULE.to_owned(), MODULE.replace("1.0.0", "1.0.1")] {
        shared.both.write("my-tool/my_tool/__init__.py", &module);
        let installed = shared.install("ours", &[], 0);
        assert!(installed["warnings"].to_string().contains(&command), "{installed}");
    }
    let removed = shared.at("ours", &["remove", "my-tool", "-y"]);
    assert!(removed.code == Some(0) && removed.stdout.contains(&command), "{removed:#?}");
    assert!(home.join("precious").exists());
    for name in ["cjm-stamp.json", "cjm-unfinished.json"] {
        assert!(!home.join(name).exists(), "{name} says that it is ours");
    }
    assert!(shared.file("ours/envs/my-env").symlink_metadata().is_err());
    // Nobody has it now; who comes next has found it as well, until it is made anew.
    let installed = shared.install("theirs", &OTHER, 0);
    assert!(installed["warnings"].to_string().contains(&command), "{installed}");
    let installed = shared.install("theirs", &[&OTHER[..], &["--force"]].concat(), 0);
    assert!(!installed["warnings"].to_string().contains(&command), "{installed}");
    let removed = document(&shared.at("theirs", &["remove", "my-tool", "-y", "--json"]), 0);
    assert_eq!((&removed["environment_removed"], home.exists()), (&Value::from(true), false), "{removed}");
    world.assert_nothing_left();
}

/// Whatever installations came, failed and were killed in between.
#[test]
fn what_its_user_made_outlives_every_installation_and_removal() {
    let world = World::new();
    let test = "what_its_user_made_outlives_every_installation_and_removal";
    let Some(shared) = Shared::new(&world, test) else { return };
    let own = || {
        let _ = std::fs::remove_dir_all(shared.home());
        std::fs::write(shared.both.make_environment("my-env").join("precious"), "").expect("written");
    };
    let is_there = |name: &str| shared.beside(name).join("precious").is_file();
    let remove = || shared.at("ours", &["remove", "my-tool", "-y"]);
    let install = |more: &[&str]| shared.install("ours", more, 0)["warnings"].to_string();
    let is_told = |warnings: &str| warnings.contains("was there before");
    let begin_anew = || {
        shared.begin_anew();
        for name in shared.names_beside() {
            let path = shared.beside(&name);
            std::fs::remove_dir_all(&path).or_else(|_| std::fs::remove_file(&path)).expect("removed");
        }
    };
    // One that is made anew after an installation, and one that is made after a failed one.
    own();
    assert!(is_told(&install(&[])));
    own();
    assert!(is_told(&install(&[])));
    assert!(remove().code == Some(0) && is_there("my-env"));
    begin_anew();
    let env = std::fs::read_to_string(shared.file("env.yml")).expect("read");
    shared.both.write("env.yml", "dependencies: [unsatisfiable]\n");
    assert_eq!(shared.install("ours", &[], 1)["error"]["code"], "install.helper_failed");
    shared.both.write("env.yml", &env);
    own();
    assert!(is_told(&install(&[])));
    assert!(remove().code == Some(0) && is_there("my-env"));
    begin_anew();
    shared.both.write("my-tool/my_tool/__init__.py", "raise SystemExit(3)\n");
    let _ = shared.install("ours", &[], 1);
    shared.both.write("my-tool/my_tool/__init__.py", MODULE);
    own();
    assert!(is_told(&install(&[])));
    assert!(remove().code == Some(0) && is_there("my-env"));
    begin_anew();
    // One that waits since a `--force` was killed, with and without a tool that was in it.
    for is_installed in [true, false] {
        own();
        if is_installed {
            assert!(is_told(&install(&[])));
        } else {
            std::fs::create_dir_all(shared.file("ours/envs")).expect("made");
            symlink(shared.home(), shared.file("ours/envs/my-env")).expect("linked");
        }
        shared.kill_a_force(true);
        let _ = remove();
        let _ = shared.at("ours", &["remove", "my-env", "-y"]);
        // Where nothing tells of a tool it waits on, for the next installation.
        let waits = !is_installed && is_there(".my-env.cjm-former");
        let stays = is_there("my-env") || is_there(".my-env.cjm-found-1") || waits;
        assert!(stays, "{is_installed}: {:?}", shared.names_beside());
        begin_anew();
    }
    // One that is replaced is kept beside the new one, and that is told.
    own();
    let told = install(&["--force"]);
    assert!(told.contains("cjm-found-1") && is_there(".my-env.cjm-found-1"), "{told}");
    assert!(remove().code == Some(0) && is_there(".my-env.cjm-found-1"));
    world.assert_nothing_left();
}

#[test]
fn what_an_older_version_installed_is_still_ours_after_its_update() {
    let world = World::new();
    let Some(shared) = Shared::new(&world, "what_an_older_version_installed_is_still_ours_after_its_update")
    else {
        return;
    };
    assert_eq!(shared.install("ours", &[], 0)["result"], "installed");
    let path = shared.home().join("cjm-stamp.json");
    let mut stamp: Value = serde_json::from_slice(&std::fs::read(&path).expect("read")).expect("a stamp");
    let keys = stamp.as_object_mut().expect("keys");
    keys.retain(|key, _| !key.starts_with("data_dir"));
    std::fs::write(&path, stamp.to_string()).expect("written");
    shared.both.write("my-tool/my_tool/__init__.py", &MODULE.replace("1.0.0", "1.0.1"));
    let updated = shared.install("ours", &[], 0);
    assert!(updated["result"] == "installed" && updated["warnings"] == serde_json::json!([]), "{updated}");
    let removed = document(&shared.at("ours", &["remove", "my-tool", "-y", "--json"]), 0);
    assert_eq!(
        (&removed["environment_removed"], shared.home().exists()),
        (&Value::from(true), false),
        "{removed}"
    );
    world.assert_nothing_left();
}

#[test]
fn a_data_directory_that_was_restored_goes_on_with_what_it_had_begun() {
    let world = World::new();
    let test = "a_data_directory_that_was_restored_goes_on_with_what_it_had_begun";
    let Some(shared) = Shared::new(&world, test) else { return };
    shared.both.write("my-tool/my_tool/__init__.py", "raise SystemExit(3)\n");
    let _ = shared.install("ours", &[], 1);
    let copied = Command::new("cp").arg("-a").args([shared.file("ours"), shared.file("copy")]).status();
    assert!(copied.is_ok_and(|status| status.success()));
    std::fs::remove_dir_all(shared.file("ours")).expect("removed");
    std::fs::rename(shared.file("copy"), shared.file("ours")).expect("restored");
    shared.both.write("my-tool/my_tool/__init__.py", MODULE);
    assert_eq!(shared.install("ours", &[], 0)["result"], "installed");
    world.assert_nothing_left();
}
