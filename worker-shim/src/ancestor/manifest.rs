//! What to run for a module and a class: the ancestor's host passes no more than these, and the rest stands in the
//! manifest that it has read. It names the capability by the directory it gives it, `DATA/data/NAME`.
//!
//! What must hold: the manifest that is taken is the one the host has read, or the start fails and says where was
//! looked; nothing is guessed between two.

use super::arguments::Arguments;
use super::error::AncestorStartError as Error;
use super::{DATA_DIR_VARIABLE, FoundTool, MANIFEST_VARIABLE, PYTHON_VARIABLE, Program};
use super::{SHARED_DATA_DIR_VARIABLE, error};
use cjm_platform::files::read_regular_to_string;
use cjm_platform::{programs, runtime_dir};
use cjm_wire::link::Launch;
use cjm_wire::manifest::{MANIFEST_BYTES_MAX, Manifest};
use cjm_wire::runtime::Runtime;
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Manifests looked at in one folder at most.
const MANIFESTS_MAX: usize = 4096;
/// Below the user's runtime directory: directories of tools whose worker no host has started.
const FOLDER_WITHOUT_HOST: &str = "tools";

/// What stands behind a command line.
#[derive(Debug)]
pub(super) enum Found {
    /// A tool that this process serves.
    Tool(Box<FoundTool>),
    /// A capability in Rust, to be started in the place of this process.
    Program {
        /// Absolute path.
        program: PathBuf,
        /// Its own arguments.
        args: Vec<String>,
    },
}

/// Finds out.
pub(super) fn find(program: Program, arguments: &Arguments) -> Result<Found, Error> {
    let place = Place::of_this_process();
    let read = read_manifest(&place, arguments);
    let (path, manifest) = match read {
        Ok(read) => read,
        // What is linked needs no manifest, and a Python tool only its interpreter.
        Err(error @ Error::NoManifest { .. }) => {
            let launch = match (program, interpreter_variable()) {
                (Program::Capability, _) => Launch::Native {},
                (Program::Shim, Some(python)) => python_launch(python, arguments),
                (Program::Shim, None) => return Err(error),
            };
            let name = place.name.clone().unwrap_or_else(|| arguments.class.clone());
            let data_dir = place.data_dir(&name)?;
            return Ok(Found::Tool(Box::new(FoundTool {
                name,
                version: String::new(),
                launch,
                data_dir,
                secrets: Map::new(),
                own_variables: BTreeSet::new(),
            })));
        }
        Err(error) => return Err(error),
    };
    let launch = match (program, manifest.runtime()) {
        (Program::Capability, _) => Launch::Native {},
        (Program::Shim, Runtime::Python { .. }) => python_launch(interpreter(&manifest)?, arguments),
        (Program::Shim, Runtime::Executable(executable)) => {
            let program = capability_program(&manifest, &executable.program, &path)?;
            Launch::Executable { program: program.display().to_string(), executable }
        }
        (Program::Shim, Runtime::Channel { program, args }) => {
            let program = capability_program(&manifest, &program, &path)?;
            Launch::Channel { program: program.display().to_string(), args }
        }
        (Program::Shim, Runtime::Native { program, args }) => {
            let program = capability_program(&manifest, &program, &path)?;
            return Ok(Found::Program { program, args });
        }
    };
    let (secrets, own_variables) = (secrets(&manifest), manifest.own_variables());
    let name = manifest.code.name;
    let data_dir = place.data_dir(&name)?;
    let version = manifest.code.version;
    Ok(Found::Tool(Box::new(FoundTool { name, version, launch, data_dir, secrets, own_variables })))
}

/// The secrets that the manifest declares and the host has set.
fn secrets(manifest: &Manifest) -> Map<String, Value> {
    let declared = manifest.code.worker_env.iter().flatten().filter(|variable| variable.secret);
    let set =
        declared.filter_map(|variable| Some((variable.name.clone(), std::env::var(&variable.name).ok()?)));
    set.map(|(name, value)| (name, Value::String(value))).collect()
}

/// Starts `program` in the place of this process, with the host's own arguments and descriptors; returns only when
/// that failed.
pub(super) fn replace_with(program: &Path, args: &[String]) -> Error {
    let inherited = std::env::args_os().skip(1);
    let source = Command::new(program).args(args).args(inherited).exec();
    Error::Exec { program: program.to_owned(), source }
}

fn python_launch(python_path: String, arguments: &Arguments) -> Launch {
    Launch::Python {
        python_path,
        module: arguments.module.clone(),
        class: arguments.class.clone(),
        adapters: arguments.adapters.clone(),
    }
}

/// Where the host keeps its things, as its variables say.
struct Place {
    /// The capability, by the directory that belongs to it.
    name: Option<String>,
    own_dir: Option<PathBuf>,
    /// Its folders of manifests, in its order.
    folders: Vec<PathBuf>,
}

impl Place {
    fn of_this_process() -> Self {
        let path = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let own_dir = path(DATA_DIR_VARIABLE);
        let shared = path(SHARED_DATA_DIR_VARIABLE);
        let shared = shared.or_else(|| own_dir.as_deref().and_then(Path::parent).map(Path::to_owned));
        let name = own_dir.as_deref().and_then(Path::file_name).and_then(|name| name.to_str());
        let local = std::env::current_dir().ok().map(|folder| folder.join(".cjm"));
        let data_dir = shared.as_deref().and_then(Path::parent).map(Path::to_owned);
        let folders = local.into_iter().chain(data_dir).map(|folder| folder.join("manifests")).collect();
        Self { name: name.map(str::to_owned), own_dir, folders }
    }

    /// The directory of the capability; where the host gave none, one of the user's that does not outlive a reboot.
    fn data_dir(&self, name: &str) -> Result<PathBuf, Error> {
        if let Some(own) = &self.own_dir {
            return Ok(own.clone());
        }
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        let runtime = runtime_dir::runtime_dir(runtime.as_deref())?;
        Ok(runtime
            .join(FOLDER_WITHOUT_HOST)
            .join(Path::new(name).file_name().unwrap_or(FOLDER_WITHOUT_HOST.as_ref())))
    }
}

fn read_manifest(place: &Place, arguments: &Arguments) -> Result<(PathBuf, Manifest), Error> {
    let named = std::env::var(MANIFEST_VARIABLE).ok().filter(|value| !value.is_empty());
    if let Some(path) = named.as_deref().filter(|named| named.contains('/')) {
        return Ok((PathBuf::from(path), read(Path::new(path))?));
    }
    let Some(name) = named.as_deref().or(place.name.as_deref()) else {
        return by_module_and_class(place, arguments);
    };
    for folder in &place.folders {
        let usual = folder.join(format!("{name}.json"));
        if usual.is_file() {
            let manifest = read(&usual)?;
            if manifest.code.name == name {
                return Ok((usual, manifest));
            }
        }
        // Files may have any name; those that cannot be read are not ours to complain about.
        let mut others = manifests_in(folder);
        if let Some(found) = others.find(|(_, manifest)| manifest.code.name == name) {
            return Ok(found);
        }
    }
    Err(Error::NoManifest { wanted: format!("`{name}`"), looked: shown(&place.folders) })
}

fn by_module_and_class(place: &Place, arguments: &Arguments) -> Result<(PathBuf, Manifest), Error> {
    let meant = |(_, manifest): &(PathBuf, Manifest)| {
        manifest.code.module == arguments.module && manifest.code.class == arguments.class
    };
    let wanted = arguments.tool();
    let mut found: Vec<(PathBuf, Manifest)> =
        place.folders.iter().flat_map(|folder| manifests_in(folder)).filter(meant).collect();
    match found.len() {
        0 => Err(Error::NoManifest { wanted, looked: shown(&place.folders) }),
        1 => Ok(found.remove(0)),
        _ => {
            let names: Vec<String> = found.into_iter().map(|(_, manifest)| manifest.code.name).collect();
            Err(Error::Ambiguous { wanted, names: names.join(", ") })
        }
    }
}

fn manifests_in(folder: &Path) -> impl Iterator<Item = (PathBuf, Manifest)> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut paths: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|e| e == "json")).take(MANIFESTS_MAX).collect();
    paths.sort();
    paths.into_iter().filter_map(|path| read(&path).ok().map(|manifest| (path, manifest)))
}

fn read(path: &Path) -> Result<Manifest, Error> {
    let unreadable = |source| error::AncestorStartError::Unreadable { path: path.to_owned(), source };
    let text = read_regular_to_string(path, MANIFEST_BYTES_MAX as u64);
    Manifest::parse(&text.map_err(|error| unreadable(std::io::Error::other(error)))?)
        .map_err(|source| Error::Manifest { path: path.to_owned(), source })
}

fn interpreter_variable() -> Option<String> {
    std::env::var(PYTHON_VARIABLE).ok().filter(|value| !value.is_empty())
}

/// The interpreter of a Python tool: the variable, else the manifest's, unless that is this very program.
fn interpreter(manifest: &Manifest) -> Result<String, Error> {
    let python = interpreter_variable().unwrap_or_else(|| manifest.interpreter().to_owned());
    if is_this_program(Path::new(&python)) {
        return Err(Error::NoInterpreter(manifest.code.name.clone()));
    }
    Ok(python)
}

fn capability_program(manifest: &Manifest, program: &str, path: &Path) -> Result<PathBuf, Error> {
    let lost =
        |why| Error::NoProgram { capability: manifest.code.name.clone(), program: program.to_owned(), why };
    let found = programs::find(program, path.parent()).map_err(|why| lost(why.to_string()))?;
    if is_this_program(&found) { Err(lost("it is this very program".to_owned())) } else { Ok(found) }
}

fn is_this_program(path: &Path) -> bool {
    let own = std::env::current_exe().and_then(std::fs::canonicalize);
    matches!((own, std::fs::canonicalize(path)), (Ok(own), Ok(other)) if own == other)
}

fn shown(folders: &[PathBuf]) -> String {
    let shown: Vec<String> = folders.iter().map(|folder| folder.display().to_string()).collect();
    shown.join(" or ")
}
