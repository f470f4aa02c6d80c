//! The faults that are planted: what `tests/mutants/*.toml` say, checked. It plants nothing.
//!
//! What must hold: the text that an entry replaces occurs exactly once in its file, so that the fault planted is the
//! fault meant.

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::path::Path;

/// Where the entries are, in the repository.
const FOLDER: &str = "tests/mutants";
/// The target of a test that is no program of cargo's, but a unit test of Python.
const PYTHON_TARGET: &str = "python";

/// One fault, and the test that must find it.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(test, derive(Default))]
#[serde(deny_unknown_fields)]
pub(crate) struct Mutation {
    /// Says the fault.
    pub(crate) name: String,
    /// The file it is planted in, from the root.
    pub(crate) file: String,
    /// Text that occurs there exactly once.
    find: String,
    /// What stands there instead.
    replace: String,
    /// The package of the test; of one of Python's the folder, from the root, that holds its `tests`.
    pub(crate) package: String,
    /// `lib` or `bins` for its unit tests, `python` for one of Python, else the name of an integration test.
    pub(crate) target: String,
    /// The test that must fail, as cargo's filter has it, or as unittest does: `test_life.Living.test_cleanup_runs_once`.
    pub(crate) test: String,
    /// What would go wrong for a user.
    harm: String,
    /// The fault makes the test run for ever: then running out of time is its failure.
    #[serde(default)]
    pub(crate) times_out: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entries {
    mutation: Vec<Mutation>,
}

impl Mutation {
    /// Whether its test is one of Python.
    pub(crate) fn is_pythons(&self) -> bool {
        self.target == PYTHON_TARGET
    }

    /// What is run to find it: mutations of which this is the same share a test.
    pub(crate) fn command(&self) -> (&str, &str, &str) {
        (&self.package, &self.target, &self.test)
    }

    /// The file with the fault in it.
    pub(crate) fn plant(&self, text: &str) -> Result<String> {
        let found = text.matches(&self.find).count();
        ensure!(
            found == 1,
            "stale: the text that `{}` replaces occurs {found} times in {}, not once",
            self.name,
            self.file
        );
        let planted = text.replacen(&self.find, &self.replace, 1);
        ensure!(planted != text, "`{}` changes nothing", self.name);
        Ok(planted)
    }
}

/// All entries of the repository at `root`, in the order of the files.
///
/// # Errors
/// Entries that cannot be read or planted, all of them named.
pub(crate) fn read(root: &Path) -> Result<Vec<Mutation>> {
    let folder = root.join(FOLDER);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        files.push(entry?.path());
    }
    files.retain(|file| file.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    let mut mutations = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        let entries: Entries = toml::from_str(&text).with_context(|| file.display().to_string())?;
        mutations.extend(entries.mutation);
    }
    check(root, &mutations)?;
    Ok(mutations)
}

fn check(root: &Path, mutations: &[Mutation]) -> Result<()> {
    let mut problems = Vec::new();
    let mut names = BTreeSet::new();
    for mutation in mutations {
        let name = &mutation.name;
        if !names.insert(name) {
            problems.push(format!("two entries are named `{name}`"));
        }
        if mutation.harm.trim().is_empty() {
            problems.push(format!("`{name}` does not say what would go wrong"));
        }
        let planted = std::fs::read_to_string(root.join(&mutation.file))
            .with_context(|| format!("`{name}`: {}", mutation.file))
            .and_then(|text| mutation.plant(&text));
        problems.extend(planted.err().map(|error| format!("{error:#}")));
    }
    if !problems.is_empty() {
        bail!("entries of {FOLDER}:\n{}", problems.join("\n"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::steps::root;
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    /// Fewer would mean that entries were thrown away where tests should have been written.
    const MUTATIONS_MIN: usize = 40;

    fn each_file(folder: &Path, take: &mut impl FnMut(&Path)) {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                each_file(&path, take);
            } else {
                take(&path);
            }
        }
    }

    /// The folders of all packages, by their names.
    fn packages() -> BTreeMap<String, PathBuf> {
        let mut packages = BTreeMap::new();
        each_file(&root(), &mut |path| {
            if path.ends_with("Cargo.toml") {
                let text = std::fs::read_to_string(path).expect("text");
                let parsed: toml::Value = toml::from_str(&text).expect("a manifest");
                let name = parsed.get("package").and_then(|package| package.get("name")?.as_str());
                let folder = path.parent().expect("a folder").to_owned();
                packages.extend(name.map(|name| (name.to_owned(), folder)));
            }
        });
        packages
    }

    /// What the program of tests is made of that an entry names.
    fn sources(folder: &Path, target: &str) -> String {
        let tests = folder.join("tests").join(target);
        let is_of_target = |path: &Path| match target {
            "lib" | "bins" => path.starts_with(folder.join("src")),
            PYTHON_TARGET => path.starts_with(folder.join("tests")),
            _ => path.starts_with(&tests) || path == tests.with_extension("rs"),
        };
        let mut text = String::new();
        each_file(folder, &mut |path| {
            if is_of_target(path) && path.extension().is_some_and(|kind| kind == "rs" || kind == "py") {
                text.push_str(&std::fs::read_to_string(path).expect("text"));
            }
        });
        text
    }

    #[test]
    fn every_mutation_can_be_planted_and_its_test_is_there() {
        let mutations = read(&root()).expect("the entries");
        assert!(mutations.len() >= MUTATIONS_MIN, "{} mutations", mutations.len());
        let packages = packages();
        let mut texts = BTreeMap::new();
        for mutation in mutations {
            let Mutation { package, target, .. } = &mutation;
            let text = texts.entry((package.clone(), target.clone())).or_insert_with(|| {
                let folder = packages.get(package).cloned().unwrap_or_else(|| root().join(package));
                sources(&folder, target)
            });
            let (between, keyword) = if mutation.is_pythons() { (".", "def") } else { ("::", "fn") };
            let function = mutation.test.rsplit(between).next().expect("a name");
            assert!(
                text.contains(&format!("{keyword} {function}(")),
                "`{}`: no test {function}",
                mutation.name
            );
        }
    }

    #[test]
    fn what_occurs_twice_or_never_is_stale() {
        let mutation = Mutation {
            name: "one is two".to_owned(),
            file: "a.rs".to_owned(),
            find: "1".to_owned(),
            replace: "2".to_owned(),
            ..Mutation::default()
        };
        assert_eq!(mutation.plant("0 1").expect("once"), "0 2");
        for text in ["0", "1 1"] {
            let error = mutation.plant(text).expect_err("stale").to_string();
            assert!(error.starts_with("stale: "), "{error}");
        }
        let same = Mutation { replace: "1".to_owned(), ..mutation };
        assert!(same.plant("1").is_err());
    }
}
