//! `allow`: the user's word that manifests may run which lie in a folder that came from elsewhere. It shows what each of
//! them would run, keeps the word outside that folder, and takes it back.

use crate::cli::{AllowArgs, Global, shell_word};
use crate::fault::{CommandResult, Fault, current_dir};
use crate::journaled;
use crate::output::{Output, path_text};
use crate::visible::one_line;
use cjm_catalog::allowed::{Allowed, Register};
use cjm_catalog::home::variable;
use cjm_catalog::{Catalog, MANIFEST_BYTES_MAX, ManifestFolder, Settings, Standing, unread_step};
use cjm_platform::files::read_regular;
use cjm_wire::Manifest;
use cjm_wire::describe::{Described, exit};
use cjm_wire::event::EventType;
use cjm_wire::runtime::{Action, Argument, Runtime};
use cjm_wire::settings_file::SETTINGS_FILE;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Of a manifest that was allowed before as it is now.
const UNCHANGED: &str = "unchanged";

/// Runs the command.
pub(crate) fn run(global: &Global, args: &AllowArgs, output: &Output) -> CommandResult {
    let register = Register::of_user()?;
    if args.list {
        return list(&register, output);
    }
    // Asked before anything is done: who gave his word stands in the journal, and its settings may be at fault.
    let data_dir = global.settings()?.data_dir;
    if args.place.as_ref().is_none_or(|place| place.is_relative()) {
        current_dir()?;
    }
    let place = place(args)?;
    if args.revoke {
        return revoke(&data_dir, &register, &place, output);
    }
    let (folders, settings) = folders(global, &place, args.place.is_some())?;
    // A settings file of the folder may name programs, and goes with the manifests.
    let settings = settings.filter(|settings| !settings.programs_are_allowed());
    let catalog = Catalog::discover_allowing(&folders, || Ok(Allowed::default()));
    let before = register.read()?;
    let mut manifests = Vec::new();
    for path in catalog.withheld().iter().map(|withheld| &withheld.path) {
        if place.is_file() && !same(&place, path) {
            continue;
        }
        manifests
            .push((path.clone(), read_regular(path, MANIFEST_BYTES_MAX as u64).map_err(|e| unreadable(&e))?));
    }
    for problem in catalog.problems() {
        output.warning_of(problem.path.display(), problem);
    }
    if manifests.is_empty() && settings.is_none() {
        if let Some((path, error)) = catalog.unreadable().next() {
            let message =
                format!("what needs your word cannot be told: cannot read {}: {error}", path.display());
            return Err(Fault::new("allow.unreadable", message, unread_step(path)));
        }
        let looked: Vec<String> = folders.iter().map(|folder| folder.path.display().to_string()).collect();
        return Err(Fault::new(
            "allow.nothing",
            match looked.is_empty() {
                true => format!("{} has nothing that needs your word", place.display()),
                false => format!("no manifest at {} (looked in {})", place.display(), looked.join(", ")),
            },
            "name a project's folder, its folder of manifests, or one manifest",
        ));
    }
    if !args.dry_run {
        register.allow(manifests.iter().map(|(path, content)| (path.as_path(), content.as_slice())))?;
    }
    let mut shown: Vec<Value> =
        manifests.iter().map(|(path, content)| described(path, content, &before)).collect();
    if let Some(settings) = &settings {
        if !args.dry_run {
            settings.allow_programs()?;
        }
        let programs = settings.binaries.values().chain(&settings.conda_prefix);
        let programs: Vec<String> = programs.map(|path| path.display().to_string()).collect();
        shown.push(json!({
            "name": SETTINGS_FILE, "runs": programs.join(", "), "manifest": settings.file.as_ref().map(path_text),
            "standing": "new",
        }));
    }
    let fresh: Vec<&Value> = shown.iter().filter(|manifest| manifest["standing"] != UNCHANGED).collect();
    if !args.dry_run && !fresh.is_empty() {
        journal(&data_dir, EventType::ManifestsAllowed, &fresh, output);
    }
    tell(&shown, args, &register, output)
}

/// What was allowed, or would be.
fn tell(shown: &[Value], args: &AllowArgs, register: &Register, output: &Output) -> CommandResult {
    let (key, word) = if args.dry_run { ("would_allow", "Would allow") } else { ("allowed", "Allowed") };
    if output.json {
        output.document(&json!({key: shown, "register": path_text(register.path())}))?;
        return Ok(exit::OK);
    }
    for manifest in shown {
        // Whoever wrote it wants to be allowed: no line of his may look like one of ours.
        let text = |key: &str| one_line(manifest[key].as_str().unwrap_or_default()).into_owned();
        let standing = match text("standing").as_str() {
            UNCHANGED => " (as before)",
            "changed" => " (changed since you allowed it)",
            _ => "",
        };
        output.line(&format!("{word} {}{standing}: runs {}", text("name"), text("runs")))?;
        output.line(&format!("  {}", text("manifest")))?;
        for start in manifest["starts"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            output.line(&format!("  starts {}", one_line(start)))?;
        }
    }
    output.line(match args.dry_run {
        true => "Nothing was allowed; the same without --dry-run does it.",
        false => "They run as they are now; one that changes must be allowed again.",
    })?;
    Ok(exit::OK)
}

fn list(register: &Register, output: &Output) -> CommandResult {
    let allowed = register.read()?;
    let paths: Vec<&Path> = allowed.paths().collect();
    let unchanged = |path: &Path| {
        read_regular(path, MANIFEST_BYTES_MAX as u64).is_ok_and(|content| allowed.covers(path, &content))
    };
    if output.json {
        let manifests: Vec<Value> = paths
            .iter()
            .map(|path| json!({"manifest": path_text(path), "unchanged": unchanged(path)}))
            .collect();
        output.document(&json!({"allowed": manifests, "register": path_text(register.path())}))?;
        return Ok(exit::OK);
    }
    if paths.is_empty() {
        output.line("Nothing is allowed. Manifests of data directories that you name need no word.")?;
    }
    for path in paths {
        let changed = if unchanged(path) { "" } else { "  (gone or changed since: this word holds no more)" };
        output.line(&format!("{}{changed}", path.display()))?;
    }
    Ok(exit::OK)
}

fn revoke(data_dir: &Path, register: &Register, place: &Path, output: &Output) -> CommandResult {
    let taken: Vec<String> = register.revoke(place)?.iter().map(path_text).collect();
    if !taken.is_empty() {
        journal(data_dir, EventType::ManifestsRevoked, &taken, output);
    }
    if output.json {
        output.document(&json!({"revoked": taken}))?;
        return Ok(exit::OK);
    }
    if taken.is_empty() {
        output.line(&format!("Nothing at {} was allowed.", place.display()))?;
    }
    for path in taken {
        output.line(&format!("No longer allowed: {path}"))?;
    }
    Ok(exit::OK)
}

/// Who gave the word, and for what, stands in the journal as well, if there is one.
fn journal(data_dir: &Path, kind: EventType, manifests: &impl serde::Serialize, output: &Output) {
    let row = journaled::row(kind, None, json!({"manifests": manifests}));
    journaled::note(data_dir, vec![row], output);
}

fn place(args: &AllowArgs) -> Result<PathBuf, Fault> {
    let place = args.place.clone().unwrap_or_else(|| PathBuf::from("."));
    match std::fs::canonicalize(&place) {
        Ok(real) if place.is_dir() => Ok(real),
        // A manifest that is a link is that link, wherever it leads.
        Ok(_) => Ok(std::path::absolute(&place).unwrap_or(place)),
        // What is gone can be revoked.
        Err(_) if args.revoke => Ok(std::path::absolute(&place).unwrap_or(place)),
        Err(error) => {
            let message = format!("there is no {}", place.display());
            Err(Fault::new("allow.place", message, "name a folder or a manifest that exists")
                .caused_by(&error))
        }
    }
}

/// Where manifests lie that need a word: of a project, what a command there would find; of another folder that was named,
/// what of this lies in it, else the folder itself. Whoever names a folder gives no word for what lies beside it.
fn folders(
    global: &Global,
    place: &Path,
    was_named: bool,
) -> Result<(Vec<ManifestFolder>, Option<Settings>), Fault> {
    if !place.is_dir() {
        return Ok((vec![ManifestFolder::found(place.parent().unwrap_or(Path::new("/")))], None));
    }
    let settings = Settings::resolve_from(&global.overrides(), &variable, place)?;
    let mut folders = settings.manifest_dirs();
    folders.retain(|folder| folder.standing == Standing::Found);
    let is_of_project =
        settings.file.as_deref().is_none_or(|file| file.parent().is_some_and(|of| same(of, place)));
    let is_meant = is_of_project || !was_named;
    if !is_meant {
        folders
            .retain(|folder| std::fs::canonicalize(&folder.path).is_ok_and(|real| real.starts_with(place)));
    }
    let has_some = |folder: &ManifestFolder| folder.path.is_dir();
    if was_named && !folders.iter().any(has_some) {
        folders.push(ManifestFolder::found(place));
    }
    Ok((folders, is_meant.then_some(settings)))
}

/// A manifest, and whether the user knows it.
fn described(path: &Path, content: &[u8], before: &Allowed) -> Value {
    let standing = match before.knows(path) {
        true if before.covers(path, content) => UNCHANGED,
        true => "changed",
        false => "new",
    };
    let manifest = std::str::from_utf8(content).ok().and_then(|text| Manifest::parse(text).ok());
    let Some(manifest) = manifest else {
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        let runs = "inside the tools that it fits (a task adapter)";
        return json!({"name": name, "runs": runs, "starts": [], "manifest": path_text(path), "standing": standing});
    };
    json!({
        "name": manifest.code.name, "runs": runs(&manifest), "starts": starts(&manifest), "manifest": path_text(path),
        "standing": standing,
    })
}

/// Each command line, as a shell reads it: of a program's actions one each, with the names of what a call gives in braces.
fn starts(manifest: &Manifest) -> Vec<String> {
    let line = |program: &str, arguments: &mut dyn Iterator<Item = String>| {
        let variables =
            manifest.install.env_vars.iter().map(|(name, value)| format!("{name}={}", shell_word(value)));
        variables.chain([shell_word(program)]).chain(arguments).collect::<Vec<_>>().join(" ")
    };
    match manifest.runtime() {
        Runtime::Python { .. } => {
            vec![line(manifest.interpreter(), &mut std::iter::once(format!("({})", manifest.code.module)))]
        }
        Runtime::Executable(executable) => {
            let of_action =
                |action: &Action| line(&executable.program, &mut action.argv.iter().map(argument));
            executable.actions.values().map(of_action).collect()
        }
        Runtime::Native { program, args } | Runtime::Channel { program, args } => {
            vec![line(&program, &mut args.iter().map(|argument| shell_word(argument)))]
        }
    }
}

/// An argument is text, or an object that says when it is given.
fn argument(argument: &Argument) -> String {
    let value = serde_json::to_value(argument).unwrap_or_default();
    value.as_str().map_or_else(|| shell_word(&value.to_string()), shell_word)
}

/// What would be started.
fn runs(manifest: &Manifest) -> String {
    match manifest.runtime() {
        Runtime::Python { .. } => {
            format!("{} in {}", manifest.code.module, manifest.interpreter())
        }
        Runtime::Executable(executable) => executable.program,
        Runtime::Native { program, .. } | Runtime::Channel { program, .. } => program,
    }
}

fn same(one: &Path, other: &Path) -> bool {
    let real = |path: &Path| Some(std::fs::canonicalize(path.parent()?).ok()?.join(path.file_name()?));
    real(one) == real(other)
}

fn unreadable(error: &cjm_platform::files::FileError) -> Fault {
    Fault::new(error.code(), error.to_string(), error.next_step())
}

/// Says, before capabilities of these names run, which manifest is meant where there are several.
pub(crate) fn tell_choice<'n>(catalog: &Catalog, names: impl IntoIterator<Item = &'n str>, output: &Output) {
    for name in names {
        let Some(entry) = catalog.get(name) else { continue };
        for shadowed in catalog.shadowed_by(name) {
            let (used, not_used) = (entry.path.display(), shadowed.display());
            output.note(&format!("note: \"{name}\" is {used}, which stands before {not_used}"));
        }
        for withheld in catalog.withheld().iter().filter(|withheld| withheld.name == name) {
            let used = entry.path.display();
            output.note(&format!("note: {withheld}; {used} runs\n  next: {}", withheld.next_step()));
        }
    }
}
