//! One environment of conda's that several data directories name, since conda keeps it for all of them.

use cjm_tests::both::{Both, Said, Who};
use cjm_tests::conda_project::{LIST, MODULE, PYPROJECT, document, project};
use cjm_tests::world::World;
use serde_json::Value;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

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
