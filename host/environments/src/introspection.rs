//! Looks into an installed package with the interpreter of its own environment: which capability it holds, its
//! configuration, its surface, its adapters. What it answers comes from foreign code and is checked like any input.

use crate::command::{Answer, STDERR_LINES_MAX, command, run};
use crate::error::EnvironmentError;
use crate::left_running::LeftRunning;
use crate::package::{Folder, Package, Requirements};
use crate::steps::{ADAPTER_STEP, CLASS_STEP, LOOK_STEP, MODULES_STEP, SHADOWED_STEP, requirement_step};
use crate::version::accepts;
use cjm_wire::AdapterManifest;
use cjm_wire::capabilities_file::Entry;
use cjm_wire::manifest::{Code, DeclaredVariable};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long importing a package may take; big ones read gigabytes.
const INTROSPECTION_TIMEOUT: Duration = Duration::from_secs(300);

/// What was found.
#[derive(Debug)]
pub(crate) struct Introspected {
    /// The manifest's section `code`.
    pub(crate) code: Code,
    /// Manifests of the adapters the entry names.
    pub(crate) adapters: Vec<AdapterManifest>,
    /// What is odd, and no error.
    pub(crate) warnings: Vec<String>,
}

/// The document the SDK prints about a tool.
#[derive(Deserialize)]
struct Document {
    name: String,
    version: String,
    #[serde(default)]
    description: String,
    module: String,
    class: String,
    config_schema: Option<Value>,
    worker_env: Option<Vec<DeclaredVariable>>,
    structural_surface: Option<Value>,
    actions: Option<Value>,
    observability_class: Option<String>,
    #[serde(default)]
    adapters: Vec<AdapterManifest>,
    #[serde(default)]
    warnings: Vec<String>,
}

/// The document it prints when it cannot.
#[derive(Deserialize)]
struct Refusal {
    #[serde(default)]
    error: Option<String>,
    message: String,
    #[serde(default)]
    traceback: Option<String>,
    /// What it imports and nobody installed.
    #[serde(default)]
    module_missing: Option<String>,
}

/// Imports the entry's package and describes it.
///
/// # Errors
/// When it does not import, holds no capability or several, or describes itself in another shape.
pub(crate) async fn introspect(
    environment: &Path,
    sdk: &Path,
    entry: &Entry,
    requirements: &Requirements,
    on_line: &(dyn Fn(&str) + Send + Sync),
) -> Result<Introspected, EnvironmentError> {
    let module = module_of(environment, &distribution(requirements))?;
    let python = environment.join("bin/python");
    let folder = match requirements.packages.first() {
        Some(Package::Folder(folder)) => Some(folder.path.as_path()),
        _ => None,
    };
    let variables = Vec::new();
    let subject =
        Subject { python: &python, directory: environment, module: Some(&module), variables, folder };
    let adapters: Vec<&str> = entry.adapters.iter().map(|adapter| adapter.implementation.as_str()).collect();
    ask(&subject, sdk, &adapters, on_line).await
}

/// What is looked into.
#[derive(Debug)]
pub(crate) struct Subject<'a> {
    /// The interpreter.
    pub(crate) python: &'a Path,
    /// Where it runs: its environment.
    pub(crate) directory: &'a Path,
    /// The module; none when only adapters are asked for.
    pub(crate) module: Option<&'a str>,
    /// What a manifest written by hand has its worker start with, `PYTHONPATH` for one.
    pub(crate) variables: Vec<(&'a str, &'a str)>,
    /// The folder of the package's source, which names what the package requires.
    pub(crate) folder: Option<&'a Path>,
}

/// Imports a module and the adapters, and describes the capability.
///
/// # Errors
/// As [`introspect`].
pub(crate) async fn ask(
    subject: &Subject<'_>,
    sdk: &Path,
    adapters: &[&str],
    on_line: &(dyn Fn(&str) + Send + Sync),
) -> Result<Introspected, EnvironmentError> {
    let document: Document = answer(subject, sdk, adapters, on_line).await?;
    Ok(document.into_introspected())
}

/// Imports adapters and describes them.
///
/// # Errors
/// As [`introspect`].
pub(crate) async fn ask_adapters(
    subject: &Subject<'_>,
    sdk: &Path,
    adapters: &[&str],
    on_line: &(dyn Fn(&str) + Send + Sync),
) -> Result<Vec<AdapterManifest>, EnvironmentError> {
    #[derive(Deserialize)]
    struct Adapters {
        adapters: Vec<AdapterManifest>,
    }
    let document: Adapters = answer(subject, sdk, adapters, on_line).await?;
    Ok(document.adapters)
}

/// The module of a package by its requirement or folder.
///
/// # Errors
/// When it has several and none is named like it, the folder is no package, or another version is installed.
pub(crate) fn module_of_package(environment: &Path, package: &str) -> Result<String, EnvironmentError> {
    let package = package.trim().trim_start_matches("-e ").trim_end_matches('/');
    if is_path(package) {
        let path = Path::new(package);
        let called = if path.is_dir() { Folder::read(path)?.distribution } else { None };
        let name = called.unwrap_or_else(|| package.rsplit('/').next().unwrap_or(package).to_owned());
        return module_of(environment, &name);
    }
    let name = requirement_name(package);
    let wanted = specifier(package);
    if let (Some(wanted), Some((_, installed))) = (wanted, installed(environment, name))
        && accepts(wanted, &installed) != Some(true)
    {
        let wanted = wanted.strip_prefix("==").filter(|one| !one.contains(['=', ','])).unwrap_or(wanted);
        let [name, wanted] = [name, wanted.trim()].map(str::to_owned);
        return Err(EnvironmentError::OtherVersion { name, wanted, installed });
    }
    module_of(environment, name)
}

/// What a requirement says of versions: what follows its name and extras, up to a condition or a comment. None where it
/// says nothing, or is a place that the package comes from.
fn specifier(requirement: &str) -> Option<&str> {
    let rest = requirement.get(requirement_name(requirement).len()..)?;
    let rest = rest.split(';').next().unwrap_or(rest);
    let rest = rest.split(" #").next().unwrap_or(rest).trim();
    let rest = match rest.strip_prefix('[') {
        Some(extras) => extras.split_once(']')?.1.trim(),
        None => rest,
    };
    let rest = rest.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')).unwrap_or(rest).trim();
    let is_place = rest.starts_with('@') || requirement.contains("://");
    (!rest.is_empty() && !is_place).then_some(rest)
}

/// Whether a package is told by where it lies.
pub(crate) fn is_path(package: &str) -> bool {
    !package.contains("://") && package.contains('/')
}

async fn answer<T: for<'de> Deserialize<'de>>(
    subject: &Subject<'_>,
    sdk: &Path,
    adapters: &[&str],
    on_line: &(dyn Fn(&str) + Send + Sync),
) -> Result<T, EnvironmentError> {
    let mut question = command(subject.python);
    // Only a host knows what stands for a placeholder.
    question.envs(subject.variables.iter().copied().filter(|(_, value)| !value.contains("${")));
    question.env("PYTHONDONTWRITEBYTECODE", "1").current_dir(subject.directory);
    question.arg(sdk.join("cjm_sdk/introspect.py")).args(subject.module);
    if !adapters.is_empty() {
        question.arg("--adapters").arg(adapters.join(","));
    }
    let left = LeftRunning::of(&mut question);
    let answer = run(question, "introspecting", INTROSPECTION_TIMEOUT, on_line).await?;
    drop(left);
    if !answer.success {
        return Err(refused(answer, subject.folder));
    }
    serde_json::from_slice(&answer.stdout).map_err(|error| EnvironmentError::Introspection {
        message: format!("it described itself in a shape we cannot read: {error}"),
        next_step: LOOK_STEP.into(),
        stderr_tail: answer.stderr_tail,
    })
}

impl Document {
    fn into_introspected(self) -> Introspected {
        let mut unknown = Map::new();
        if let Some(actions) = self.actions {
            unknown.insert("actions".to_owned(), actions);
        }
        if let Some(class) = self.observability_class {
            unknown.insert("observability_class".to_owned(), Value::from(class));
        }
        let code = Code {
            name: self.name,
            version: self.version,
            description: self.description,
            module: self.module,
            class: self.class,
            runtime: None,
            resources: None,
            config_schema: self.config_schema,
            worker_env: self.worker_env,
            regenerated_at: None,
            structural_surface: self.structural_surface,
            idempotent: None,
            unknown,
        };
        Introspected { code, adapters: self.adapters, warnings: self.warnings }
    }
}

/// The introspection says itself what is wrong; where it cannot, the interpreter's last words have to do.
fn refused(answer: Answer, folder: Option<&Path>) -> EnvironmentError {
    match serde_json::from_slice::<Refusal>(&answer.stdout) {
        Ok(refusal) => {
            let traceback = refusal.traceback.unwrap_or_default();
            let lines: Vec<String> = traceback.lines().map(str::to_owned).collect();
            let from = lines.len().saturating_sub(STDERR_LINES_MAX);
            let stderr_tail = answer.stderr_tail.into_iter().chain(lines[from..].to_vec()).collect();
            let next_step = match &refusal.module_missing {
                Some(module) => requirement_step(module, folder).into(),
                None => step_after(refusal.error.as_deref().unwrap_or_default()).into(),
            };
            EnvironmentError::Introspection { message: refusal.message, next_step, stderr_tail }
        }
        Err(_) => EnvironmentError::Introspection {
            message: format!("the interpreter ended with {}", answer.ending),
            next_step: LOOK_STEP.into(),
            stderr_tail: answer.stderr_tail,
        },
    }
}

/// What to do after a refusal of this code.
fn step_after(code: &str) -> &'static str {
    match code {
        "class_missing" | "class_ambiguous" => CLASS_STEP,
        "module_shadowed" => SHADOWED_STEP,
        "adapter_malformed" | "adapter_missing" | "adapter_incomplete" => ADAPTER_STEP,
        _ => LOOK_STEP,
    }
}

/// The importable module of an installed distribution: the one named like it, or its only one.
fn module_of(environment: &Path, distribution: &str) -> Result<String, EnvironmentError> {
    let record = installed(environment, distribution).map(|(folder, _)| folder.join("RECORD"));
    let text = record.and_then(|record| std::fs::read_to_string(record).ok()).unwrap_or_default();
    let modules = modules_in(&text);
    let named = normalized(distribution).replace('-', "_");
    match modules.iter().find(|module| module.to_lowercase() == named).or(modules.iter().next()) {
        Some(module) if modules.len() == 1 || module.to_lowercase() == named => Ok(module.clone()),
        // An editable install lists no files of its own; the name is all there is to go by.
        None => Ok(named),
        Some(_) => {
            let all: Vec<&str> = modules.iter().map(String::as_str).collect();
            Err(EnvironmentError::Introspection {
                message: format!(
                    "the package {distribution} has several modules ({}) and none is named `{named}`",
                    all.join(", ")
                ),
                next_step: MODULES_STEP.into(),
                stderr_tail: Vec::new(),
            })
        }
    }
}

/// Where an installed distribution says what it is, and its version.
fn installed(environment: &Path, distribution: &str) -> Option<(PathBuf, String)> {
    let wanted = normalized(distribution);
    site_packages(environment).into_iter().find_map(|path| {
        let folder = path.file_name()?.to_string_lossy().into_owned();
        let (name, version) = folder.strip_suffix(".dist-info")?.split_once('-')?;
        (normalized(name) == wanted).then(|| (path, version.to_owned()))
    })
}

fn site_packages(environment: &Path) -> Vec<PathBuf> {
    let list = |folder: PathBuf| -> Vec<PathBuf> {
        std::fs::read_dir(folder)
            .map(|listing| listing.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect())
            .unwrap_or_default()
    };
    list(environment.join("lib")).into_iter().flat_map(|python| list(python.join("site-packages"))).collect()
}

/// Top-level modules and packages among a distribution's files.
fn modules_in(record: &str) -> BTreeSet<String> {
    let paths = record.lines().filter_map(|line| line.split(',').next());
    paths
        .filter_map(|path| match path.split_once('/') {
            Some((top, rest)) => (rest.ends_with(".py") && !top.contains('.')).then(|| top.to_owned()),
            None => path.strip_suffix(".py").map(str::to_owned),
        })
        .filter(|module| module != "__pycache__")
        .collect()
}

/// How distributions are compared: lower case, runs of `-`, `_`, `.` as one `-`.
fn normalized(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for c in name.chars().map(|c| if "-_.".contains(c) { '-' } else { c.to_ascii_lowercase() }) {
        if c != '-' || !out.ends_with('-') {
            out.push(c);
        }
    }
    out
}

/// Name of the entry's own distribution: of its folder, or the beginning of its requirement.
fn distribution(requirements: &Requirements) -> String {
    match requirements.packages.first() {
        Some(Package::Folder(folder)) => folder.distribution.clone().unwrap_or_else(|| {
            folder.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
        }),
        Some(Package::Named(text)) => requirement_name(text).to_owned(),
        None => String::new(),
    }
}

/// The name at the beginning of a requirement.
pub(crate) fn requirement_name(text: &str) -> &str {
    let named = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    // `git+https://host/name.git@v1` has no name in front; its last part is one more often than not.
    let text = if text.contains("://") && !text.contains(" @ ") {
        let path = text.split(['@', '#', '?']).next().unwrap_or(text);
        path.trim_end_matches('/').rsplit('/').next().unwrap_or(path).trim_end_matches(".git")
    } else {
        text
    };
    let end = text.find(|c| !named(c)).unwrap_or(text.len());
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use cjm_wire::describe::Described as _;

    #[tokio::test]
    async fn what_is_set_for_the_worker_is_set_for_the_look_too() {
        let sdk = tempfile::tempdir().expect("tempdir");
        std::fs::create_dir(sdk.path().join("cjm_sdk")).expect("mkdir");
        let script = "import os\nassert os.environ.get('LAB_PATH') == '/lab' and 'LAB_DIR' not in os.environ\nprint('{\"adapters\": []}')\n";
        std::fs::write(sdk.path().join("cjm_sdk/introspect.py"), script).expect("write");
        let found =
            std::process::Command::new("/usr/bin/env").args(["which", "python3"]).output().expect("which");
        let python = PathBuf::from(String::from_utf8_lossy(&found.stdout).trim());
        let subject = |variables| Subject {
            python: &python,
            directory: sdk.path(),
            module: None,
            variables,
            folder: None,
        };
        let set = subject(vec![("LAB_PATH", "/lab"), ("LAB_DIR", "${CAPABILITY_DATA_DIR}/x")]);
        ask_adapters(&set, sdk.path(), &[], &|_| {}).await.expect("it found what it needs");
        let unset = ask_adapters(&subject(Vec::new()), sdk.path(), &[], &|_| {}).await;
        assert!(matches!(unset, Err(EnvironmentError::Introspection { .. })), "{unset:?}");
    }

    #[test]
    fn what_to_do_after_a_look_is_of_what_it_failed_by() {
        let ended = |stdout: &str| Answer {
            success: false,
            ending: "exit code 1".to_owned(),
            stdout: stdout.as_bytes().to_vec(),
            stderr_tail: Vec::new(),
        };
        for (said, step) in [
            (r#"{"error": "load_failed", "message": "m"}"#, "must import"),
            (r#"{"error": "adapter_missing", "message": "m"}"#, "MODULE:CLASS"),
            (r#"{"error": "class_missing", "message": "m"}"#, "one capability class"),
            (r#"{"error": "module_shadowed", "message": "m"}"#, "rename the package"),
            ("no word of it", "must import"),
        ] {
            let told = refused(ended(said), None).next_step();
            assert!(told.contains(step), "{said}: {told}");
        }
        let missing = r#"{"error": "load_failed", "message": "m", "module_missing": "yaml"}"#;
        let folder = tempfile::tempdir().expect("tempdir");
        let list = "add the package that brings `yaml` to `interface_libs` of its entry";
        assert!(refused(ended(missing), None).next_step().starts_with(list));
        let project = folder.path().join("pyproject.toml");
        std::fs::write(&project, "").expect("write");
        let told = refused(ended(missing), Some(folder.path())).next_step();
        let expected =
            format!("add the package that brings `yaml` to `dependencies` in {}", project.display());
        assert!(told.starts_with(&expected) && !told.contains("same command"), "{told}");
    }

    #[test]
    fn the_files_of_a_distribution_name_its_modules() {
        let record = "lab_tool/__init__.py,sha256=x,1\nlab_tool/data.bin,,\nhelper.py,,\n../../bin/lab,,\n\
                      lab_tool-1.0.dist-info/RECORD,,\n__pycache__/helper.cpython-311.pyc,,\n";
        assert_eq!(modules_in(record).into_iter().collect::<Vec<_>>(), ["helper", "lab_tool"]);
        let environment = tempfile::tempdir().expect("tempdir");
        let info = environment.path().join("lib/python3.11/site-packages/Lab.Tool-1.0.dist-info");
        std::fs::create_dir_all(&info).expect("mkdir");
        std::fs::write(info.join("RECORD"), record).expect("write");
        assert_eq!(module_of(environment.path(), "lab-tool").expect("named"), "lab_tool");
        std::fs::write(info.join("RECORD"), "other/__init__.py,,\n").expect("write");
        assert_eq!(module_of(environment.path(), "lab-tool").expect("the only one"), "other");
        std::fs::write(info.join("RECORD"), "a.py,,\nb.py,,\n").expect("write");
        assert!(module_of(environment.path(), "lab-tool").is_err());
        assert_eq!(module_of(environment.path(), "not-there").expect("a guess"), "not_there");
    }

    #[test]
    fn a_package_that_is_told_is_the_one_that_is_installed() {
        let environment = tempfile::tempdir().expect("tempdir");
        let info = environment.path().join("lib/python3.11/site-packages/Lab.Tool-1.0.dist-info");
        std::fs::create_dir_all(&info).expect("mkdir");
        std::fs::write(info.join("RECORD"), "lab/__init__.py,,\n").expect("write");
        let module = |package: &str| module_of_package(environment.path(), package);
        for package in [
            "lab-tool",
            "lab-tool==1",
            "lab_tool[more] == 1.0.0",
            "lab-tool==v1.0",
            "lab-tool==01.00",
            "lab-tool==1.*",
            "lab-tool>=1,<2 # ours",
            "lab-tool (==1.0)",
            "lab-tool[more]",
            "lab-tool; python_version>'3'",
            "lab-tool @ https://host/lab_tool-2.0-py3-none-any.whl",
        ] {
            assert_eq!(module(package).unwrap_or_else(|error| panic!("{package}: {error}")), "lab");
        }
        for (package, wanted) in [
            ("lab-tool==1.1", "1.1"),
            ("lab-tool===10", "===10"),
            ("lab-tool==1.0.post1", "1.0.post1"),
            ("lab-tool==1!1.0", "1!1.0"),
            ("lab-tool==2.0 # c", "2.0"),
            ("lab-tool~=2.0", "~=2.0"),
            ("lab-tool>=2", ">=2"),
            ("lab-tool==9,<10", "==9,<10"),
            ("lab-tool[more]==9; python_version>'3'", "9"),
            ("lab-tool==1.0+cu118", "1.0+cu118"),
            ("lab-tool==1.0rc1", "1.0rc1"),
            ("lab-tool==1.0 --hash=sha256:00", "==1.0 --hash"),
            ("lab-tool 1.0", "1.0"),
        ] {
            let refused = module(package).expect_err("another is installed");
            assert_eq!(refused.code(), "install.other_version", "{package}");
            let told = format!("lab-tool {wanted}");
            assert!(refused.to_string().starts_with(&told), "{package}: {refused}");
        }
        // A folder is called by what it says.
        let folder = environment.path().join("checkout");
        std::fs::create_dir(&folder).expect("mkdir");
        let project = "[project]\nname = \"lab-tool\"\nversion = \"2\"\n";
        std::fs::write(folder.join("pyproject.toml"), project).expect("write");
        assert_eq!(module(&folder.display().to_string()).expect("by its project"), "lab");
    }

    #[test]
    fn a_requirement_names_its_distribution() {
        for (text, name) in [
            ("lab", "lab"),
            ("lab-capability==1.0", "lab-capability"),
            ("lab[extra]>=2,<3", "lab"),
            ("lab @ https://host/lab-1.0-py3-none-any.whl", "lab"),
            ("git+https://host/team/lab-tool.git@v1", "lab-tool"),
        ] {
            assert_eq!(requirement_name(text), name, "{text}");
        }
    }
}
