//! A copy of the tree, in which faults are planted and tests are run. The checkout is only read.
//!
//! What must hold: but for the one fault, the copy is the checkout as it is now, whatever an earlier run left there.

use super::entries::Mutation;
use super::python;
use super::run::{Run, limited, to_its_end};
use crate::steps::{cargo, root, target_folder};
use anyhow::{Context as _, Result, bail, ensure};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Scenarios of the simulator in each run of it.
const SIMULATED_SCENARIOS: u32 = 600;

/// The package of the journeys, which start programs of ours.
const JOURNEYS: &str = "cjm-tests";
/// The packages of those programs. They are built for every journey: one that was left with another fault in it would be
/// started otherwise.
const PROGRAMS: [&str; 2] = ["cjm-ctl", "cjm-worker"];
/// Its tests start an example, which `cargo test --test` does not build.
const KEEPER: &str = "cjm-keeper";

/// Faults are built more often than run: what is optimised for the simulator takes five times as long to build.
const BUILT_QUICKLY: &str = "profile.dev.package.cjm-engine.opt-level=0";

/// The copy.
pub(crate) struct Copy {
    tree: PathBuf,
    target: PathBuf,
    /// Nobody else plants faults in the copy meanwhile.
    _lock: File,
}

impl Copy {
    /// Brings the copy up to date; made where there is none.
    pub(crate) fn of_the_checkout() -> Result<Self> {
        let folder = target_folder().join("mutants");
        let (tree, target) = (folder.join("tree"), folder.join("target"));
        fs::create_dir_all(&tree).with_context(|| tree.display().to_string())?;
        let lock = File::create(folder.join("lock"))?;
        if lock.try_lock().is_err() {
            bail!("another run plants faults in {}; wait for its end", folder.display());
        }
        let copy = Self { tree, target, _lock: lock };
        copy.bring_up_to_date()?;
        Ok(copy)
    }

    fn bring_up_to_date(&self) -> Result<()> {
        let mut git = Command::new("git");
        git.current_dir(root()).args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
        let listed = git.output().context("git did not start")?;
        ensure!(listed.status.success(), "git ls-files: {}", String::from_utf8_lossy(&listed.stderr));
        let mut files = BTreeSet::new();
        for name in listed.stdout.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
            let name = PathBuf::from(OsStr::from_bytes(name));
            if root().join(&name).is_file() {
                files.insert(name);
            }
        }
        remove_others(&self.tree, &self.tree, &files)?;
        for file in &files {
            let (from, to) = (root().join(file), self.tree.join(file));
            // What is the same stays as old as it is, so that cargo builds only what changed.
            if fs::read(&to).is_ok_and(|there| fs::read(&from).is_ok_and(|wanted| wanted == there)) {
                continue;
            }
            fs::create_dir_all(to.parent().unwrap_or(&self.tree))?;
            fs::copy(&from, &to).with_context(|| to.display().to_string())?;
        }
        Ok(())
    }

    /// Runs the test of a mutation with the fault in the copy, which is whole again afterwards.
    pub(crate) fn run_with(&self, mutation: &Mutation) -> Result<Run> {
        let path = self.tree.join(&mutation.file);
        let whole = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        fs::write(&path, mutation.plant(&whole)?)?;
        let run = self.run(mutation);
        fs::write(&path, whole)?;
        run
    }

    /// Runs the test of a mutation as the copy is.
    pub(crate) fn run(&self, mutation: &Mutation) -> Result<Run> {
        if mutation.is_pythons() {
            return python::run(&self.tree, mutation);
        }
        let mut builds = vec![cargo()];
        self.test_of(mutation, &mut builds[0]).args(["--no-run", "--quiet"]);
        if mutation.package == JOURNEYS {
            let mut programs = cargo();
            self.in_copy(&mut programs).args(["build", "--quiet", "--bins"]);
            programs.args(PROGRAMS.iter().flat_map(|package| ["--package", package]));
            builds.push(programs);
        }
        if mutation.package == KEEPER {
            let mut example = cargo();
            self.in_copy(&mut example).args(["build", "--quiet", "--package", KEEPER, "--examples"]);
            builds.push(example);
        }
        for mut build in builds {
            let built = build.output().with_context(|| format!("{build:?} did not start"))?;
            if !built.status.success() {
                return Ok(Run::NotBuilt(String::from_utf8_lossy(&built.stderr).into_owned()));
            }
        }
        let mut test = limited(cargo().get_program());
        self.test_of(mutation, &mut test).env("CJM_SIM_SCENARIOS", SIMULATED_SCENARIOS.to_string());
        let ran = to_its_end(&mut test)?;
        Ok(Run::of(ran.status, tests_passed(&ran.stdout)))
    }

    fn in_copy<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command
            .current_dir(&self.tree)
            .env("CARGO_TARGET_DIR", &self.target)
            .args(["--config", BUILT_QUICKLY])
    }

    /// Has cargo, which `command` starts, run the test of a mutation in the copy.
    fn test_of<'a>(&self, mutation: &Mutation, command: &'a mut Command) -> &'a mut Command {
        self.in_copy(command).args(["test", "--package", &mutation.package]);
        match mutation.target.as_str() {
            "lib" => command.arg("--lib"),
            "bins" => command.arg("--bins"),
            name => command.args(["--test", name]),
        };
        command.arg(&mutation.test)
    }
}

/// Removes what is in the copy and not among `files`.
fn remove_others(tree: &Path, folder: &Path, files: &BTreeSet<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            remove_others(tree, &path, files)?;
        } else if path.strip_prefix(tree).is_ok_and(|name| !files.contains(name)) {
            fs::remove_file(&path).with_context(|| path.display().to_string())?;
        }
    }
    Ok(())
}

/// How many tests passed, as cargo's test programs say.
fn tests_passed(output: &str) -> usize {
    let counts = output.lines().filter_map(|line| line.strip_prefix("test result: ok. "));
    counts.filter_map(|rest| rest.split_once(" passed")?.0.parse::<usize>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passed_tests_are_counted_over_all_programs() {
        let output = "running 2 tests\ntest result: ok. 2 passed; 0 failed; 1 ignored\n\n\
                      test result: ok. 1 passed; 0 failed\ntest result: FAILED. 4 passed; 1 failed\n";
        assert_eq!(tests_passed(output), 3);
        assert_eq!(tests_passed("running 0 tests\ntest result: ok. 0 passed; 0 failed"), 0);
    }
}
