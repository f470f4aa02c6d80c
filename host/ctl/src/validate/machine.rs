//! What a valid file would lack on this machine: programs, interpreters, modules; of a composition `known` tells it.
//! Warnings only, because the file may be meant for another machine.

use cjm_catalog::MANIFEST_BYTES_MAX;
use cjm_catalog::by_hand::place_to_correct;
use cjm_catalog::installation::{install_all_step, list_of};
use cjm_catalog::programs::{self, Lost, make_executable};
use cjm_platform::files::read_regular_to_string;
use cjm_platform::programs::is_executable;
use cjm_wire::Manifest;
use cjm_wire::capabilities_file::CapabilitiesFile;
use cjm_wire::runtime::Runtime;
use std::path::{Path, PathBuf};

/// Of a manifest.
pub(crate) fn manifest_warnings(manifest: &Manifest, path: &Path) -> Vec<String> {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let base = path.parent();
    let program = |program: &str| {
        programs::find(program, base).err().map(|lost| match lost {
            Lost::Nowhere(searched) => {
                format!("code.runtime.program: `{program}` is not on this machine (searched: {searched})")
            }
            Lost::NotExecutable(path) => not_executable("code.runtime.program", &path),
        })
    };
    let mut warnings = Vec::new();
    match manifest.runtime() {
        Runtime::Python { .. } => {
            let python = Path::new(&manifest.install.python_path);
            if !python.is_file() {
                let step = match place_to_correct(manifest, &path) {
                    Some(place) => format!("correct it {place}"),
                    None => {
                        format!("{} makes the environment", install_all_step(list_of(manifest).as_deref()))
                    }
                };
                warnings.push(format!("install.python_path: {} is not there; {step}", python.display()));
            } else if !is_executable(python) {
                warnings.push(not_executable("install.python_path", python));
            } else if !module_is_there(python, &manifest.code.module) {
                warnings.push(format!(
                    "code.module: `{}` was not found in the environment of {}",
                    manifest.code.module,
                    python.display()
                ));
            }
        }
        Runtime::Executable(executable) => warnings.extend(program(&executable.program)),
        Runtime::Native { program: name, .. } | Runtime::Channel { program: name, .. } => {
            warnings.extend(program(&name));
        }
    }
    warnings.extend(programs::arguments_beside(&manifest.runtime(), &path));
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    if stem.as_deref() != Some(&manifest.code.name)
        && path.parent().is_some_and(|dir| dir.ends_with("manifests"))
    {
        warnings.push(format!("code.name: the file should be named {}.json", manifest.code.name));
    }
    warnings
}

fn not_executable(key: &str, path: &Path) -> String {
    format!("{key}: {} is there and is not executable; {}", path.display(), make_executable(path))
}

/// The folder that a file's paths start from.
pub(crate) fn base_of(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    path.parent().unwrap_or(Path::new("/")).to_owned()
}

/// Of a list of capabilities: of the programs that its manifests name. Manifests that are none are errors, found elsewhere.
pub(crate) fn capabilities_warnings(file: &CapabilitiesFile, base: &Path) -> Vec<String> {
    let mut warnings = Vec::new();
    for entry in &file.capabilities {
        let Some(path) = entry.manifest.as_ref().map(|manifest| base.join(manifest)) else { continue };
        let text = read_regular_to_string(&path, MANIFEST_BYTES_MAX as u64).unwrap_or_default();
        let Ok(manifest) = Manifest::parse(&text) else { continue };
        let of_manifest = manifest_warnings(&manifest, &path).into_iter();
        warnings.extend(of_manifest.map(|warning| format!("entry \"{}\": {warning}", entry.name)));
    }
    warnings
}

/// Looks for the module's first part in the environment's packages; interpreters without an environment of their own
/// are given the benefit of the doubt.
fn module_is_there(python: &Path, module: &str) -> bool {
    let top = module.split('.').next().unwrap_or(module);
    let Some(environment) =
        python.parent().and_then(Path::parent).filter(|root| root.join("pyvenv.cfg").is_file())
    else {
        return true;
    };
    let Ok(libraries) = std::fs::read_dir(environment.join("lib")) else { return false };
    libraries.filter_map(Result::ok).any(|library| {
        let packages = library.path().join("site-packages");
        let editable = std::fs::read_dir(&packages).is_ok_and(|listing| {
            listing
                .filter_map(Result::ok)
                .any(|entry| entry.path().extension().is_some_and(|kind| kind == "pth"))
        });
        editable || packages.join(top).is_dir() || packages.join(format!("{top}.py")).is_file()
    })
}
