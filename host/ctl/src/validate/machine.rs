//! What a valid file would lack on this machine: programs, interpreters, capabilities. Warnings only, because the file
//! may be meant for another machine.

use cjm_catalog::MANIFEST_BYTES_MAX;
use cjm_catalog::suggestions::{in_words, suggestions};
use cjm_catalog::{Catalog, programs};
use cjm_platform::files::read_regular_to_string;
use cjm_wire::Manifest;
use cjm_wire::capabilities_file::CapabilitiesFile;
use cjm_wire::composition::{Composition, Node};
use cjm_wire::runtime::{Executable, Runtime};
use std::path::{Path, PathBuf};

/// Of a manifest.
pub(crate) fn manifest_warnings(manifest: &Manifest, path: &Path) -> Vec<String> {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let base = path.parent();
    let program = |program: &str| {
        programs::find(program, base).err().map(|searched| {
            format!("code.runtime.program: `{program}` is not on this machine (searched: {searched})")
        })
    };
    let mut warnings = Vec::new();
    match manifest.runtime() {
        Runtime::Python { .. } => {
            let python = Path::new(&manifest.install.python_path);
            if !python.is_file() {
                warnings.push(format!(
                    "install.python_path: {} is not there; `cjm-ctl install-all` makes the environment",
                    python.display()
                ));
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
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    if stem.as_deref() != Some(&manifest.code.name)
        && path.parent().is_some_and(|dir| dir.ends_with("manifests"))
    {
        warnings.push(format!("code.name: the file should be named {}.json", manifest.code.name));
    }
    warnings
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

/// Of a composition.
pub(crate) fn composition_warnings(composition: &Composition, catalog: &Catalog) -> Vec<String> {
    let mut warnings = Vec::new();
    for (name, node) in &composition.nodes {
        let capability = catalog.get(&node.capability);
        match capability.map(|entry| entry.manifest.runtime()) {
            None => {
                warnings.push(format!("nodes.{name}.capability: \"{}\" is not installed", node.capability));
            }
            Some(Runtime::Executable(executable)) => {
                let action = match &node.action {
                    Some(action) => executable.actions.get(action),
                    None if executable.actions.len() == 1 => executable.actions.values().next(),
                    None => None,
                };
                match action {
                    None => warnings.push(action_warning(name, node, &executable)),
                    Some(action) => warnings.extend(argument_warnings(name, node, action)),
                }
            }
            Some(_) => {}
        }
    }
    let watched = composition.monitor.iter().map(|monitor| ("monitor".to_owned(), monitor));
    let loaded = composition.capabilities.keys().map(|name| (format!("capabilities.{name}"), name));
    for (place, name) in watched.chain(loaded) {
        if catalog.get(name).is_none() {
            warnings.push(format!("{place}: \"{name}\" is not installed"));
        }
    }
    warnings
}

fn action_warning(name: &str, node: &Node, executable: &Executable) -> String {
    let known = || executable.actions.keys().map(String::as_str);
    let capability = &node.capability;
    let wrong = match &node.action {
        Some(action) => {
            let meant = in_words(&suggestions(action, known()));
            format!("\"{capability}\" has no action \"{action}\"{meant}")
        }
        None => format!("\"{capability}\" has several actions, and none is named"),
    };
    format!("nodes.{name}.action: {wrong}; it has the actions {}", known().collect::<Vec<_>>().join(", "))
}

fn argument_warnings(name: &str, node: &Node, action: &cjm_wire::runtime::Action) -> Vec<String> {
    let unknown = node.args.keys().filter(|key| !action.parameters.contains_key(*key));
    let missing = action
        .parameters
        .iter()
        .filter(|(key, parameter)| parameter.required && !node.args.contains_key(*key));
    unknown
        .map(|key| format!("nodes.{name}.args.{key}: the action has no such parameter"))
        .chain(missing.map(|(key, _)| format!("nodes.{name}.args: the action needs `{key}`")))
        .collect()
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
