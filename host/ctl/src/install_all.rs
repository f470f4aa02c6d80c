//! `install-all`: hands the list to the engine's environments, shows them being made, and sums up. It fails when any
//! entry failed, and says of each what to do.

use crate::cli::{Global, InstallAllArgs};
use crate::fault::{CommandResult, Fault};
use crate::install_progress::InstallBoard;
use crate::journaled;
use crate::named_list::with_list;
use crate::output::{Output, path_text};
use crate::run_report::columns;
use crate::sdk;
use cjm_catalog::Settings;
use cjm_environments::{
    AskInUse, CondaOptions, EntryReport, EnvironmentError, InstallOptions, InstallReport, Outcome,
    install_all, read_each_capability,
};
use cjm_store::{FileSecrets, Secrets as _};
use cjm_wire::InstanceId;
use cjm_wire::describe::{ErrorReport, exit, shell_word};
use cjm_wire::event::{EventType, JobStatus, JournalRow};
use comfy_table::{ContentArrangement, Table, presets};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::Path;

/// Runs the command.
pub(crate) async fn run(global: &Global, args: &InstallAllArgs, output: &Output) -> CommandResult {
    let settings = global.settings_to_write()?;
    let list = args.capabilities.as_ref().unwrap_or(&settings.capabilities_config);
    let conda = CondaOptions::of(&settings);
    let is_of_project = args.capabilities.as_ref().is_none_or(|list| is_of_project(list, &settings));
    let conda = if is_of_project { CondaOptions { not_yours: None, ..conda } } else { conda };
    let file = read_each_capability(list)
        .map_err(|error| named_by_settings(&error, args.capabilities.is_none(), &settings))?;
    let options = InstallOptions {
        data_dir: settings.data_dir.clone(),
        capabilities_file: list.clone(),
        python_sdk: sdk::python_sdk(&settings.data_dir)?,
        substrate_source: args.substrate_source.as_deref().map(substrate_source),
        conda,
        force: args.force && !args.no_force,
        offline: args.offline,
        in_use: if args.while_running { None } else { Some(ask_in_use(&settings.data_dir)?) },
    };
    let names: Vec<&str> = file.capabilities.iter().map(|entry| entry.name.as_str()).collect();
    let board = InstallBoard::new(output, &names);
    let report = install_all(&options, &file, &|event| board.show(event)).await;
    board.end();
    let mut report = report?;
    tell_new_names(&mut report.entries, &settings);
    if let Some(list) = &args.capabilities {
        report.entries.iter_mut().for_each(|entry| name_list(entry, list));
    }
    if is_of_project {
        journaled::remember_settings(&settings, output);
    }
    let left_alone = |outcome: Outcome| matches!(outcome, Outcome::Unchanged | Outcome::Kept);
    let changed = report.entries.iter().filter(|entry| !left_alone(entry.outcome));
    // A name may be gone from one tool and be another one's now: that comes later.
    let rows =
        changed.clone().filter_map(gone).chain(changed.map(|entry| row(entry, options.force))).collect();
    journaled::note(&settings.data_dir, rows, output);
    if output.json {
        output.document(&document(&report, &file.unread))?;
    } else {
        for key in &file.unread {
            output.note(&format!("warning: {}: {key}", list.display()));
        }
        sum_up(&report, list, output)?;
    }
    Ok(exit_code(&report))
}

/// Of a list that is not there: who named it, where nobody did on the command line.
fn named_by_settings(error: &EnvironmentError, is_usual: bool, settings: &Settings) -> Fault {
    let is_default = || {
        std::env::current_dir()
            .is_ok_and(|here| settings.capabilities_config == here.join("capabilities.yaml"))
    };
    match (&settings.file, ErrorReport::of(error)) {
        (Some(file), mut report) if is_usual && !is_default() && !settings.capabilities_config.exists() => {
            report.next_step = format!(
                "`capabilities_config` in {} names it: correct that, put the list there, or name another one with \
                 --capabilities FILE",
                file.display()
            );
            Fault::from_report(report)
        }
        (_, report) => Fault::from_report(report),
    }
}

/// Whether the list lies beside the settings or below them: whoever installs another one has said nothing of the programs that
/// these name.
fn is_of_project(list: &Path, settings: &Settings) -> bool {
    let folder = settings.file.as_ref().and_then(|file| file.parent()?.canonicalize().ok());
    // A link in the project is the project's, wherever it leads.
    let as_written = |list: &Path| Some(list.parent()?.canonicalize().ok()?.join(list.file_name()?));
    let as_written = std::path::absolute(list).ok().and_then(|list| as_written(&list));
    folder.is_none_or(|folder| as_written.is_none_or(|list| list.starts_with(folder)))
}

/// A full disk, and waiting for others, are told apart from entries that are at fault themselves.
fn exit_code(report: &InstallReport) -> u8 {
    let errors = || report.entries.iter().filter_map(|entry| entry.error.as_ref());
    let is_taken = errors().next().is_some() && errors().all(|error| error.code == "install.in_use");
    if report.all_well() {
        exit::OK
    } else if errors().any(|error| error.exit_code == exit::STORE) {
        exit::STORE
    } else if is_taken {
        exit::DIRECTORY_IN_USE
    } else {
        exit::DOMAIN
    }
}

/// Steps and warnings name the list that was named: typed without it, they would read another one.
fn name_list(entry: &mut EntryReport, list: &Path) {
    if let Some(error) = &mut entry.error {
        error.next_step = with_list(&error.next_step, list);
    }
    entry.warnings.iter_mut().for_each(|warning| *warning = with_list(warning, list));
}

/// That a capability has another name now: whoever calls the old one calls nothing, or another tool, and its secrets are
/// not those of the new one.
fn tell_new_names(entries: &mut [EntryReport], settings: &Settings) {
    let is_there = |entry: &&EntryReport| entry.outcome != Outcome::Failed;
    let names = |entry: &EntryReport| Some((entry.capability.clone()?, entry.name.clone()));
    let given: HashMap<String, String> = entries.iter().filter(is_there).filter_map(names).collect();
    for entry in entries {
        let old = entry.renamed_from.as_ref().or(entry.displaced.as_ref());
        let (Some(old), Some(new)) = (old, &entry.capability) else { continue };
        let taken_by = given.get(old);
        let secrets = FileSecrets::of(&settings.data_dir).names(None, old).unwrap_or_default();
        let kept = match taken_by {
            _ if secrets.is_empty() => String::new(),
            None => {
                format!("; its secrets stay under the old name: `cjm-ctl list-secrets {old}` shows them")
            }
            Some(_) => format!(
                "; its secrets stay under that name, for the tool that has it now: `cjm-ctl list-secrets {old}` shows them"
            ),
        };
        let data = data_of(&settings.data_dir, old, new, entry.displaced.is_none() && taken_by.is_none());
        let says = if entry.environment.is_some() { "class" } else { "source" };
        let gone = match taken_by {
            None => format!("{old} can be called no more, and its manifest is gone"),
            Some(other) => format!("{old} is the tool of the entry {other} now"),
        };
        let how = match &entry.displaced {
            None => format!("{old} is called {new} now, as its {says} says"),
            Some(_) => format!(
                "the environment of {old} is that of {new} now, which is of another package and takes over nothing of it"
            ),
        };
        entry.warnings.push(format!("{how}: {gone}{kept}{data}"));
    }
}

/// Where that is which a tool stored under its old name, and, where it `is_the_same` tool, how it comes to have it again.
fn data_of(data_dir: &Path, old: &str, new: &str, is_the_same: bool) -> String {
    let folder = |name: &str| data_dir.join("data").join(name);
    let holds_something = std::fs::read_dir(folder(old)).is_ok_and(|mut found| found.next().is_some());
    if !InstanceId::is_valid(old) || !holds_something {
        return String::new();
    }
    let (old, new) = (folder(old), folder(new));
    let word = |path: &Path| shell_word(&path.display().to_string());
    match is_the_same && !new.exists() {
        true => format!(
            "; what it stored is in {} still: `mv {} {}` before its next call gives it that",
            old.display(),
            word(&old),
            word(&new)
        ),
        false => format!("; what it stored is in {} still", old.display()),
    }
}

/// What the journal keeps of a capability that is gone because it has another name now, or another one has its place.
fn gone(entry: &EntryReport) -> Option<JournalRow> {
    let (old, gives) = match (&entry.renamed_from, &entry.displaced) {
        (Some(old), _) => (old, "renamed_to"),
        (None, displaced) => (displaced.as_ref()?, "displaced_by"),
    };
    let manifest = entry.manifest.as_ref().map(|new| path_text(new.with_file_name(format!("{old}.json"))));
    let payload = json!({
        "manifest": manifest,
        "environment": entry.environment.as_ref().map(path_text),
        "environment_removed": false,
        gives: entry.capability,
    });
    Some(journaled::row(EventType::CapabilityRemoved, Some(old), payload))
}

/// What the journal keeps of an entry that was installed, or failed.
fn row(entry: &EntryReport, forced: bool) -> JournalRow {
    let mut payload = json!({
        "entry": entry.name,
        "result": entry.outcome.as_str(),
        "forced": forced,
        "version": entry.version,
        "version_before": entry.version_before,
        "manifest": entry.manifest.as_ref().map(path_text),
        "environment": entry.environment.as_ref().map(path_text),
        "python_version": entry.python_version,
        "lock_hash": entry.lock_hash,
        "error": entry.error.as_ref().map(|error| json!({"code": error.code, "message": error.message})),
    });
    let kind = match &entry.error {
        None => EventType::CapabilityInstalled,
        Some(_) => {
            // Where `logs --status failed` looks.
            payload["status"] = JobStatus::Failed.as_str().into();
            EventType::CapabilityInstallFailed
        }
    };
    // What failed early has no name but its entry's.
    journaled::row(kind, Some(entry.capability.as_deref().unwrap_or(&entry.name)), payload)
}

/// Asked again before each environment is changed: a call may have begun since. Whoever cannot be asked then has no journal,
/// and so no call.
fn ask_in_use(data_dir: &Path) -> Result<AskInUse, Fault> {
    journaled::in_use(data_dir)?;
    let data_dir = data_dir.to_owned();
    Ok(AskInUse::of(move || journaled::in_use(&data_dir).ok().flatten()))
}

/// A folder is meant from where the command is run, not from where the list lies.
fn substrate_source(text: &str) -> String {
    let folder = text.strip_prefix("-e ").map(str::trim);
    let is_path = text == "." || ["./", "../", "/"].iter().any(|start| text.starts_with(start));
    match folder.or(is_path.then_some(text)) {
        Some(folder) => {
            std::path::absolute(folder).map_or_else(|_| folder.to_owned(), |p| p.display().to_string())
        }
        None => text.to_owned(),
    }
}

fn sum_up(report: &InstallReport, list: &Path, output: &Output) -> Result<(), Fault> {
    if report.entries.is_empty() {
        let list = list.display();
        return output.line(&format!(
            "Nothing to install: {list} has no entries. Write them as a list below `capabilities:`, and run this again."
        ));
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["ENTRY", "RESULT", "CAPABILITY", "VERSION", "PYTHON", "SECONDS"]);
    // In a file too: what is for programs is the document.
    table.set_content_arrangement(ContentArrangement::Dynamic).set_width(columns());
    for entry in &report.entries {
        table.add_row([
            entry.name.clone(),
            entry.outcome.as_str().to_owned(),
            entry.capability.clone().unwrap_or_else(|| "-".to_owned()),
            versions(entry),
            entry.python_version.clone().unwrap_or_else(|| "-".to_owned()),
            format!("{:.1}", entry.seconds),
        ]);
    }
    for line in table.lines() {
        output.line(line.trim_end())?;
    }
    for entry in &report.entries {
        if let Some(error) = &entry.error {
            output.error_of(&entry.name, error);
        }
        for value in &entry.values {
            output.line(&format!("{}: {value}", entry.name))?;
        }
        for warning in &entry.warnings {
            output.note(&format!("warning: {}: {warning}", entry.name));
        }
    }
    let failed = report.entries.iter().filter(|entry| entry.outcome == Outcome::Failed).count();
    if failed > 0 {
        output.error(&format!(
            "\n{failed} of {} entries failed{}",
            report.entries.len(),
            if failed < report.entries.len() { "; the others are installed." } else { "." },
        ));
    }
    Ok(())
}

/// `1.0`, or `1.0 → 1.1` of a tool that became another.
fn versions(entry: &EntryReport) -> String {
    match (&entry.version_before, &entry.version) {
        (Some(before), Some(now)) if before != now => format!("{before} → {now}"),
        (_, Some(now)) => now.clone(),
        (Some(before), None) => format!("{before} → -"),
        (None, None) => "-".to_owned(),
    }
}

fn document(report: &InstallReport, unread: &[String]) -> Value {
    json!({
        "ok": report.all_well(),
        "warnings": unread,
        "seconds": report.seconds,
        "entries": report.entries.iter().map(entry_document).collect::<Value>(),
    })
}

fn entry_document(entry: &EntryReport) -> Value {
    json!({
        "name": entry.name,
        "result": entry.outcome.as_str(),
        "capability": entry.capability,
        "version": entry.version,
        "version_before": entry.version_before,
        "renamed_from": entry.renamed_from,
        "displaced": entry.displaced,
        "manifest": entry.manifest.as_ref().map(path_text),
        "environment": entry.environment.as_ref().map(path_text),
        "python_version": entry.python_version,
        "lock_hash": entry.lock_hash,
        "to_fetch": entry.to_fetch.map(|fetch| json!({"bytes": fetch.bytes, "packages": fetch.packages})),
        "values": entry.values,
        "warnings": entry.warnings,
        "seconds": entry.seconds,
        "error": entry.error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_tool_stored_is_given_to_itself_alone_and_into_no_folder_that_is_there() {
        let place = tempfile::tempdir().expect("tempdir");
        let folder = |name: &str| place.path().join("data").join(name);
        let moves = |is_the_same| data_of(place.path(), "old", "new", is_the_same).contains("`mv ");
        std::fs::create_dir_all(folder("old")).expect("made");
        assert_eq!(data_of(place.path(), "old", "new", true), "", "it stored nothing");
        std::fs::write(folder("old/kept"), "").expect("written");
        assert!(moves(true) && !moves(false));
        assert!(data_of(place.path(), "old", "new", false).contains("is in "), "it is told all the same");
        std::fs::create_dir(folder("new")).expect("made");
        assert!(!moves(true), "it would be put into that one");
        assert_eq!(data_of(place.path(), "..", "new", true), "", "no tool is called so");
    }
}
