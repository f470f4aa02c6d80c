//! `list`: what is installed. The text is the ancestor's, with a line about how each tool runs; the document has
//! actions, schemas and paths as well.

use crate::assign::lock_not_asked;
use crate::cli::{Global, ListArgs};
use crate::configured::Configured;
use crate::fault::CommandResult;
use crate::not_set;
use crate::output::{Output, path_text};
use crate::visible::one_line;
use cjm_catalog::by_hand::place_to_correct;
use cjm_catalog::installation::{Installation, Unfinished, install_all_step, list_of};
use cjm_catalog::installer::Installer;
use cjm_catalog::programs::{Lost, ProgramError, capability_program, find, make_executable};
use cjm_catalog::{Catalog, CatalogEntry, NotAllowed, Settings, allow_step};
use cjm_environments::{Conda, CondaOptions, env_name_of, running_host};
use cjm_wire::capabilities_file::Entry;
use cjm_wire::describe::{Described, ErrorReport, exit};
use cjm_wire::runtime::{Executable, PATH_FORMAT, Runtime};
use nobodys::Nobodys;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

mod nobodys;

/// Runs the command.
pub(crate) async fn run(global: &Global, args: &ListArgs, output: &Output) -> CommandResult {
    let settings = global.settings()?;
    // A file in its place is told as `status` tells it.
    running_host(&settings.data_dir).map_err(|error| lock_not_asked(&error))?;
    let before = Installer::at_work(&settings.data_dir);
    let catalog = Catalog::discover(&settings.manifest_dirs());
    let configured = args.capabilities.as_deref().map(Configured::read).transpose()?;
    let environments = Environments::look(&settings, &catalog, args.envs || output.json).await;
    let absent = configured.as_ref().map(|list| list.not_installed(&catalog)).unwrap_or_default();
    let nobodys = Nobodys::look(&settings.data_dir, &catalog, before);
    if output.json {
        let mut document = document(&settings, &catalog, &environments, configured.as_ref());
        nobodys.add_to(&mut document);
        document["not_installed"] = Value::Null;
        if configured.is_some() {
            let unread = |entry: &Entry| Some(ErrorReport::of(&catalog.may_be_unread(&entry.name)?));
            let fault = |entry: &Entry| entry.fault.as_ref().map(|fault| ErrorReport::of(fault));
            let error = |entry: &Entry| fault(entry).or_else(|| unread(entry));
            let entries = absent.iter().map(|entry| json!({"name": entry.name, "error": error(entry)}));
            document["not_installed"] = entries.collect();
        }
        output.document(&document)?;
        return Ok(exit::OK);
    }
    let entries: Vec<&CatalogEntry> = catalog.entries().collect();
    let is_unread = catalog.unreadable().next().is_some();
    if entries.is_empty() && is_unread {
        output
            .line(&format!("What is installed in {} cannot be told", settings.manifests_dir().display()))?;
    } else if entries.is_empty() {
        output.line(&format!("No capabilities found in {}", settings.manifests_dir().display()))?;
        if catalog.withheld().is_empty() && nobodys.at_work.is_empty() {
            output.note("next: `cjm-ctl install-all` installs what a capabilities.yaml names");
        }
    } else {
        output.line(&format!("=== Installed Capabilities ({}) ===\n", entries.len()))?;
        for entry in entries {
            output.line(&block(
                entry,
                catalog.shadowed_by(&entry.manifest.code.name),
                args.envs.then_some(&environments),
                args.long.then_some((&settings, output)),
                configured.as_ref(),
            ))?;
        }
    }
    if let (false, Some(path)) = (absent.is_empty(), &args.capabilities) {
        let what = if is_unread { "Perhaps not installed" } else { "Not installed" };
        output.line(&format!("=== {what}, but in {} ({}) ===\n", path.display(), absent.len()))?;
        for entry in &absent {
            let why = entry.fault.as_ref().map(|fault| format!("\n  {}", one_line(&fault.to_string())));
            output.line(&format!("{}{}", one_line(&entry.name), why.unwrap_or_default()))?;
        }
    }
    for entry in catalog.entries() {
        tell_what_is_wrong(entry, output);
    }
    for line in nobodys.lines() {
        output.error(&line);
    }
    for warning in of_withheld(catalog.withheld()) {
        output.error(&warning);
    }
    for problem in catalog.problems() {
        output.warning_of(problem.path.display(), problem);
    }
    Ok(exit::OK)
}

/// A warning for each folder: a project may bring a dozen manifests, and one word allows them all.
fn of_withheld(withheld: &[NotAllowed]) -> Vec<String> {
    let mut folders: Vec<(Option<&Path>, Vec<&NotAllowed>)> = Vec::new();
    for manifest in withheld {
        let folder = manifest.path.parent();
        match folders.iter_mut().find(|(known, _)| *known == folder) {
            Some((_, manifests)) => manifests.push(manifest),
            None => folders.push((folder, vec![manifest])),
        }
    }
    let warning = |(folder, manifests): (Option<&Path>, Vec<&NotAllowed>)| match (
        folder,
        manifests.as_slice(),
    ) {
        (Some(folder), [_, _, ..]) => {
            let named = |manifest: &&NotAllowed| {
                let changed = if manifest.was_allowed { " (changed since)" } else { "" };
                format!("{}{changed}", one_line(&manifest.name))
            };
            let names: Vec<String> = manifests.iter().map(named).collect();
            format!(
                "warning: {} manifests in {} lie in a folder that you did not set up, and you have not allowed them: {}\n  \
                 next: {}",
                manifests.len(),
                folder.display(),
                names.join(", "),
                allow_step(folder)
            )
        }
        (_, manifests) => {
            let words = |one: &&NotAllowed| format!("warning: {one}\n  next: {}", one.next_step());
            manifests.iter().map(words).collect()
        }
    };
    folders.into_iter().map(warning).collect()
}

/// Why a tool cannot be called as far as its installation goes.
fn unfinished(entry: &CatalogEntry) -> Option<Unfinished> {
    Installation::of(entry)?.unfinished()
}

/// That the program of a tool which is one is nowhere, as a call would say.
fn missing_program(entry: &CatalogEntry) -> Option<ProgramError> {
    let program = match entry.manifest.runtime() {
        Runtime::Python { .. } => return None,
        Runtime::Executable(executable) => executable.program,
        Runtime::Native { program, .. } | Runtime::Channel { program, .. } => program,
    };
    capability_program(&entry.manifest.code.name, &program, &entry.path).err()
}

/// A tool that stands in the list and cannot be called as it is.
fn tell_what_is_wrong(entry: &CatalogEntry, output: &Output) {
    let (name, python) = (&entry.manifest.code.name, &entry.manifest.install.python_path);
    if let Some(missing) = missing_program(entry) {
        output.error(&format!("warning: {missing}\n  next: {}", missing.next_step()));
        return;
    }
    if !matches!(entry.manifest.runtime(), Runtime::Python { .. }) {
        return;
    }
    if let Some(unfinished) = unfinished(entry) {
        output.error(&format!("warning: {unfinished}\n  next: {}", unfinished.next_step()));
    } else if !python.is_empty() && !python_exists(entry) {
        let step = match place_to_correct(&entry.manifest, &entry.path) {
            Some(place) => format!("correct `install.python_path` {place}"),
            None => format!("{} makes it anew", install_all_step(list_of(&entry.manifest).as_deref())),
        };
        output.error(&format!(
            "warning: \"{name}\" cannot be called: its environment is gone ({python})\n  next: {step}; \
             `cjm-ctl remove {name}` takes the rest away"
        ));
    } else if let Err(Lost::NotExecutable(path)) = find(python, None) {
        output.error(&format!(
            "warning: \"{name}\" cannot be called: {} is there and is not executable\n  next: {}",
            path.display(),
            make_executable(&path)
        ));
    }
}

/// One capability for people, with a blank line after it.
fn block(
    entry: &CatalogEntry,
    shadowed: &[PathBuf],
    environments: Option<&Environments>,
    long: Option<(&Settings, &Output)>,
    configured: Option<&Configured>,
) -> String {
    let manifest = &entry.manifest;
    let mut text = format!("{} v{}\n", one_line(&manifest.code.name), one_line(&manifest.code.version));
    if let Some((settings, output)) = long {
        text.push_str(&details(entry));
        text.push_str(&not_set::lines(entry, settings, output));
    }
    match manifest.runtime() {
        Runtime::Python { .. } => match (environments, env_name_of(entry)) {
            (Some(environments), Some(name)) => {
                let state = if environments.has(entry) { "exists" } else { "missing" };
                text.push_str(&format!("  Env: {name} ({state})\n"));
            }
            (Some(_), None) => text.push_str("  Env: (not specified in manifest)\n"),
            (None, _) => {}
        },
        Runtime::Executable(executable) => {
            let actions: Vec<&str> = executable.actions.keys().map(String::as_str).collect();
            text.push_str(&format!("  Runtime: executable (actions: {})\n", actions.join(", ")));
        }
        Runtime::Native { program, .. } => text.push_str(&format!("  Runtime: native ({program})\n")),
        Runtime::Channel { program, .. } => text.push_str(&format!("  Runtime: channel ({program})\n")),
    }
    if long.is_some() || !shadowed.is_empty() {
        text.push_str(&format!("  Manifest: {}\n", entry.path.display()));
        if let Some(list) = list_of(manifest).filter(|_| long.is_some()) {
            text.push_str(&format!("  Installed from: {}\n", one_line(&list.display().to_string())));
        }
        for path in shadowed {
            text.push_str(&format!("  Shadows: {}\n", path.display()));
        }
    }
    if let Some(list) = configured {
        match list.entry_of(entry) {
            None => text.push_str(&format!("  (not in {})\n", list.path.display())),
            Some(known)
                if !known.env_name.is_empty() && Some(&known.env_name) != env_name_of(entry).as_ref() =>
            {
                text.push_str(&format!("  Config env: {} (differs from manifest)\n", known.env_name));
            }
            Some(_) => {}
        }
    }
    text
}

/// Description, and each action with what it takes.
fn details(entry: &CatalogEntry) -> String {
    let code = &entry.manifest.code;
    let mut text = String::new();
    if !code.description.is_empty() {
        text.push_str(&format!("  {}\n", one_line(&code.description)));
    }
    for action in actions(entry).as_array().into_iter().flatten() {
        let name = action["name"].as_str().unwrap_or_default();
        text.push_str(&format!("  - {}{}\n", one_line(name), one_line(&parameters(&action["arguments"]))));
        if let Some(words) = action["description"].as_str().filter(|words| !words.is_empty()) {
            text.push_str(&format!("      {}\n", one_line(words)));
        }
        for line in parameter_lines(&action["arguments"]) {
            text.push_str(&format!("        {line}\n"));
        }
    }
    text
}

/// ` file=PATH [n=INTEGER]`: what an action takes, in brackets what may be left out.
fn parameters(schema: &Value) -> String {
    let required = schema["required"].as_array().cloned().unwrap_or_default();
    let properties = schema["properties"].as_object();
    let parts = properties.into_iter().flatten().map(|(name, property)| {
        let kind = match property["enum"].as_array() {
            Some(values) => values.iter().map(shown).collect::<Vec<_>>().join("|"),
            None if property["format"] == PATH_FORMAT => "PATH".to_owned(),
            None => property["type"].as_str().unwrap_or("value").to_uppercase(),
        };
        match required.iter().any(|needed| needed == name) {
            true => format!(" {name}={kind}"),
            false => format!(" [{name}={kind}]"),
        }
    });
    parts.collect()
}

/// What is said of each parameter beyond its name and type.
fn parameter_lines(schema: &Value) -> Vec<String> {
    let properties = schema["properties"].as_object();
    let line = |(name, property): (&String, &Value)| {
        let description = property["description"].as_str().filter(|words| !words.is_empty());
        let default = property.get("default").filter(|value| !value.is_null());
        let default = default.map(|value| format!("default {}", shown(value)));
        let limits: Vec<String> = limits(property).into_iter().chain(default).collect();
        let limits = (!limits.is_empty()).then(|| format!("({})", limits.join(", ")));
        let words: Vec<String> = description.map(str::to_owned).into_iter().chain(limits).collect();
        (!words.is_empty()).then(|| format!("{}: {}", one_line(name), one_line(&words.join(" "))))
    };
    properties.into_iter().flatten().filter_map(line).collect()
}

/// `1 to 10`, `at least 1`: which numbers a parameter takes.
fn limits(property: &Value) -> Option<String> {
    let limit = |name: &str| property[name].as_f64();
    let (least, most) = (limit("minimum"), limit("maximum"));
    let (above, below) = (limit("exclusiveMinimum"), limit("exclusiveMaximum"));
    let words = match (least, most) {
        (Some(least), Some(most)) => vec![format!("{least} to {most}")],
        _ => [("at least", least), ("at most", most)].into_iter().filter_map(with).collect(),
    };
    let words: Vec<String> =
        words.into_iter().chain([("above", above), ("below", below)].into_iter().filter_map(with)).collect();
    (!words.is_empty()).then(|| words.join(", "))
}

fn with((word, limit): (&str, Option<f64>)) -> Option<String> {
    limit.map(|limit| format!("{word} {limit}"))
}

/// A value as it is typed: text without its quotes.
fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn document(
    settings: &Settings,
    catalog: &Catalog,
    environments: &Environments,
    configured: Option<&Configured>,
) -> Value {
    let capability = |entry: &CatalogEntry| {
        let mut value = capability(catalog, entry, environments, configured);
        value["not_set"] = not_set::document(entry, settings);
        value
    };
    let capabilities: Vec<Value> = catalog.entries().map(capability).collect();
    let withheld: Vec<Value> = catalog
        .withheld()
        .iter()
        .map(|withheld| {
            json!({"name": withheld.name, "path": path_text(&withheld.path), "error": ErrorReport::of(withheld)})
        })
        .collect();
    let problems: Vec<Value> = catalog
        .problems()
        .iter()
        .map(|problem| json!({"path": path_text(&problem.path), "error": ErrorReport::of(problem)}))
        .collect();
    json!({"capabilities": capabilities, "withheld": withheld, "problems": problems})
}

fn capability(
    catalog: &Catalog,
    entry: &CatalogEntry,
    environments: &Environments,
    configured: Option<&Configured>,
) -> Value {
    let manifest = &entry.manifest;
    let mut value = json!({
        "name": manifest.code.name,
        "version": manifest.code.version,
        "description": manifest.code.description,
        "runtime": manifest.runtime().kind(),
        "manifest": path_text(&entry.path),
        "capabilities_file": list_of(manifest).map(path_text),
        "shadows": catalog.shadowed_by(&manifest.code.name).iter().map(path_text).collect::<Vec<_>>(),
        "config_schema": manifest.code.config_schema,
        "idempotent": manifest.code.idempotent,
        // Of each kind of tool all keys are there.
        "environment": null, "module": null, "class": null, "program": null, "program_missing": null,
        "actions": actions(entry),
        "configured": configured.map(|list| list.entry_of(entry).is_some()),
    });
    match manifest.runtime() {
        Runtime::Python { .. } => {
            value["environment"] = json!({
                "name": env_name_of(entry),
                "python_path": manifest.install.python_path,
                "exists": environments.has(entry),
                "lock_hash": manifest.install.unknown.get("lock_hash"),
                "unfinished": unfinished(entry).map(|unfinished| ErrorReport::of(&unfinished)),
            });
            value["module"] = manifest.code.module.clone().into();
            value["class"] = manifest.code.class.clone().into();
        }
        Runtime::Executable(Executable { program, .. })
        | Runtime::Native { program, .. }
        | Runtime::Channel { program, .. } => value["program"] = program.into(),
    }
    if value["program"].is_string() {
        value["program_missing"] = json!(missing_program(entry).map(|missing| ErrorReport::of(&missing)));
    }
    value
}

/// The actions of a tool, as far as its manifest tells them: each has a name.
pub(crate) fn actions(entry: &CatalogEntry) -> Value {
    match entry.manifest.runtime() {
        Runtime::Executable(executable) => actions_of(&executable),
        _ => actions_of_code(entry.manifest.code.unknown.get("actions")),
    }
}

/// Actions with the schema of their arguments.
fn actions_of(executable: &Executable) -> Value {
    executable
        .actions
        .iter()
        .map(|(name, action)| {
            json!({
                "name": name,
                "description": action.description,
                "arguments": Executable::arguments_schema(action),
            })
        })
        .collect()
}

/// What a manifest says of its tool's actions: names only, or objects with more.
fn actions_of_code(actions: Option<&Value>) -> Value {
    let Some(Value::Array(actions)) = actions else { return json!([]) };
    actions
        .iter()
        .map(|action| match action {
            Value::String(name) => json!({"name": name, "description": null, "arguments": null}),
            other => {
                let mut action = json!({"name": null, "description": null, "arguments": null});
                other.as_object().into_iter().flatten().for_each(|(key, value)| action[key] = value.clone());
                action
            }
        })
        .collect()
}

/// Which environments there are: conda is asked once, and only for what lies nowhere else.
struct Environments(Vec<String>);

impl Environments {
    async fn look(settings: &Settings, catalog: &Catalog, wanted: bool) -> Self {
        let unknown = |entry: &CatalogEntry| {
            matches!(entry.manifest.runtime(), Runtime::Python { .. }) && !python_exists(entry)
        };
        // A conda that only a found file names is not run for a look.
        if !wanted || !catalog.entries().any(unknown) || !settings.programs_are_allowed() {
            return Self(Vec::new());
        }
        // Without a conda there is nothing that it made.
        let Ok(conda) = Conda::find(&CondaOptions::of(settings)).await else { return Self(Vec::new()) };
        let listed = conda.list().await.unwrap_or_default();
        let name = |path: &PathBuf| Some(path.file_name()?.to_string_lossy().into_owned());
        Self(listed.iter().filter_map(name).collect())
    }

    fn has(&self, entry: &CatalogEntry) -> bool {
        python_exists(entry) || env_name_of(entry).is_some_and(|name| self.0.contains(&name))
    }
}

fn python_exists(entry: &CatalogEntry) -> bool {
    Path::new(&entry.manifest.install.python_path).is_file()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_is_told_with_its_choices_its_default_and_what_it_means() {
        let schema = json!({
            "properties": {
                "page": {"type": "string", "format": "path", "description": "Picture of a page."},
                "layout": {"enum": ["auto", 6], "default": "auto", "description": "How to look."},
                "dpi": {"type": "integer", "minimum": 1.0, "maximum": 600, "default": 300},
                "least": {"type": "number", "minimum": 0.5},
                "over": {"type": "number", "exclusiveMinimum": 0, "maximum": 9, "description": "Over."},
                "any": {"default": 1.5},
            },
            "required": ["page"],
        });
        assert_eq!(
            parameters(&schema),
            " page=PATH [layout=auto|6] [dpi=INTEGER] [least=NUMBER] [over=NUMBER] [any=VALUE]"
        );
        assert_eq!(
            parameter_lines(&schema),
            [
                "page: Picture of a page.",
                "layout: How to look. (default auto)",
                "dpi: (1 to 600, default 300)",
                "least: (at least 0.5)",
                "over: Over. (at most 9, above 0)",
                "any: (default 1.5)"
            ]
        );
        assert!(parameters(&Value::Null).is_empty() && parameter_lines(&Value::Null).is_empty());
    }
}
