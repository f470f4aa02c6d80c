//! `remove`: says what will go, asks, and takes a capability away.

use crate::cli::{Global, RemoveArgs};
use crate::confirm::confirm;
use crate::fault::{CommandResult, Fault};
use crate::journaled;
use crate::kept::way_to_remove;
use crate::output::{Output, path_text};
use crate::visible::one_line;
use cjm_catalog::{Catalog, Settings};
use cjm_environments::{InUse, Place, Removal, plan_removal};
use cjm_store::{FileSecrets, Secrets as _};
use cjm_wire::InstanceId;
use cjm_wire::describe::exit;
use cjm_wire::event::EventType;
use serde_json::json;
use std::path::PathBuf;

/// Runs the command.
pub(crate) async fn run(global: &Global, args: &RemoveArgs, output: &Output) -> CommandResult {
    let settings = global.settings_to_write()?;
    let removal = plan_removal(&settings, &args.capability, args.capabilities.as_deref()).await?;
    let takes_environment = removal.takes_environment() && !args.keep_env;
    let spare_what_runs = || match args.while_running {
        false => Ok(InUse::check(journaled::in_use(&settings.data_dir)?.as_ref(), &args.capability)?),
        true => Ok::<(), Fault>(()),
    };
    spare_what_runs()?;
    if !output.json {
        show(&removal, args.keep_env, output)?;
    }
    if !args.yes {
        confirm("Proceed with removal?", output).await?;
    }
    let claim = removal.claim()?;
    // The question may have stood there for hours.
    if !takes_environment {
        spare_what_runs()?;
    } else {
        removal.check_alone(&Catalog::discover(&settings.manifest_dirs()))?;
        let (_, what) = words(&removal);
        let name = environment_text(&removal);
        say(output, &format!("Removing {what}: {name}..."))?;
        let taken = removal.take_from_calls(spare_what_runs)?;
        removal.remove_of_conda(&taken, &claim, &|line| output.note(line)).await?;
        say(output, &format!("  Removed: {name}"))?;
    }
    take_manifest(&removal, output)?;
    let manifest = removal.manifest.as_ref().map(path_text);
    let payload = json!({
        "manifest": manifest, "environment": removal.environment.path().map(path_text),
        "environment_removed": takes_environment,
    });
    let row = journaled::row(EventType::CapabilityRemoved, Some(&removal.capability), payload);
    journaled::note(&settings.data_dir, vec![row], output);
    let takes_rest = !args.keep_env && removal.shared_with.is_empty();
    if takes_rest {
        delete_rest(&removal).await?;
    }
    let stays = Stays::of(&settings, &removal.capability);
    say(output, &format!("\n{}", done(&removal, &args.capability, args.keep_env)))?;
    if output.json {
        output.document(&json!({
            "capability": removal.capability,
            "manifest": manifest,
            "env_name": removal.env_name,
            "environment": removal.environment.path().map(path_text),
            "environment_removed": takes_environment,
            "shared_with": removal.shared_with,
            "adapters_removed": removal.adapters.iter().filter(|_| takes_rest).map(path_text).collect::<Vec<_>>(),
            "kept": {
                "manifest": removal.kept.as_ref().map(path_text), "secrets": stays.secrets, "data": stays.data.as_ref().map(path_text),
            },
            "answers_now": answers_now(&settings, &removal.capability).as_ref().map(path_text),
        }))?;
    } else {
        let other = answers_now(&settings, &removal.capability);
        stays.tell(&removal.capability, other.is_some(), output)?;
        if let Some(other) = other {
            output.line(&format!(
                "Another manifest has its name, and calls go there now: {}",
                other.display()
            ))?;
        }
    }
    Ok(exit::OK)
}

/// What has become of it, in the name by which it was asked for. Of an environment that stays nobody is told that it went.
fn done(removal: &Removal, name: &str, is_kept: bool) -> String {
    if removal.manifest.is_some() {
        return format!("Capability '{name}' removed successfully.");
    }
    match removal.shared_with.join(", ") {
        others if !others.is_empty() => format!(
            "Environment '{name}' stays, since {others} lives there; what led to it from this data directory is gone."
        ),
        _ if removal.found.is_some() => {
            format!("Environment '{name}' stays; what led to it from this data directory is gone.")
        }
        _ if is_kept => format!("Nothing was removed: environment '{name}' is kept."),
        _ => format!("Environment '{name}' removed successfully."),
    }
}

/// Last, since it may fail in the middle; and beside, since it takes time in which Ctrl-C is heard.
async fn delete_rest(removal: &Removal) -> Result<(), Fault> {
    let rest = removal.clone();
    let deleted = tokio::task::spawn_blocking(move || rest.delete_rest()).await;
    deleted
        .map_err(|_| Fault::new("remove.panicked", "deleting what is left panicked", "run it again"))??;
    Ok(())
}

fn take_manifest(removal: &Removal, output: &Output) -> Result<(), Fault> {
    removal.leave_to_others()?;
    let Some(manifest) = &removal.manifest else { return Ok(()) };
    say(output, &format!("Removing manifest: {}...", manifest.display()))?;
    removal.remove_manifest()?;
    let file = manifest.file_name().unwrap_or_default().to_string_lossy().into_owned();
    say(output, &format!("  Removed: {file}"))?;
    match &removal.kept {
        Some(kept) => say(
            output,
            &format!("  Kept: no installation made it of another file, so it is {} now", kept.display()),
        ),
        None => Ok(()),
    }
}

/// The manifest that stood behind the one that went: whoever calls the name gets another tool from now on.
fn answers_now(settings: &Settings, capability: &str) -> Option<PathBuf> {
    let catalog = Catalog::discover(&settings.manifest_dirs());
    catalog.get(capability).map(|entry| entry.path.clone())
}

/// What is the user's own, and is not taken away with the tool.
struct Stays {
    secrets: Vec<String>,
    /// What the tool kept.
    data: Option<PathBuf>,
}

impl Stays {
    fn of(settings: &Settings, capability: &str) -> Self {
        let data = settings.data_dir.join("data").join(capability);
        Self {
            // Secrets that cannot be read stay as well, and are no reason to fail what is done.
            secrets: FileSecrets::of(&settings.data_dir).names(None, capability).unwrap_or_default(),
            data: InstanceId::is_valid(capability).then_some(data).filter(|data| data.is_dir()),
        }
    }

    /// `is_used`: by another manifest of that name.
    fn tell(&self, capability: &str, is_used: bool, output: &Output) -> Result<(), Fault> {
        for secret in &self.secrets {
            output.say(&format!(
                "Kept: its secret {secret} (`cjm-ctl remove-secret {capability} {secret}` takes it away)"
            ))?;
        }
        match &self.data {
            Some(data) if is_used => output.line(&format!("Kept: what is stored in {}", data.display())),
            Some(data) => {
                output.line(&format!("Kept: what it stored in {} ({})", data.display(), way_to_remove(data)))
            }
            None => Ok(()),
        }
    }
}

fn show(removal: &Removal, keep: bool, output: &Output) -> Result<(), Fault> {
    output.line(&format!("=== Remove Capability: {} ===\n", removal.capability))?;
    match (&removal.manifest, &removal.broken) {
        (Some(manifest), None) => output.line(&format!("Manifest: {}", manifest.display()))?,
        (Some(manifest), Some(why)) => {
            output.line(&format!("Manifest: {} (broken: {})", manifest.display(), one_line(why)))?;
        }
        (None, _) => output.line("Manifest: none; the environment belongs to no capability")?,
    }
    if !removal.needs_environment && removal.env_name.is_none() {
        return output.line("");
    }
    let (label, _) = words(removal);
    let name = environment_text(removal);
    let text = match &removal.env_name {
        None => "(not specified)".to_owned(),
        Some(_) if !removal.environment.exists() => format!("{name} (does not exist)"),
        Some(_) if keep => format!("{name} (will be kept)"),
        Some(_) if !removal.shared_with.is_empty() => {
            format!("{name} (will be kept: {} lives there too)", removal.shared_with.join(", "))
        }
        Some(_) => match &removal.found {
            Some(command) => format!(
                "{name} (will be kept: it was there before, and nothing in it says that an installation made it; `{command}` takes it away)"
            ),
            None => format!("{name} (will be removed)"),
        },
    };
    output.line(&format!("{label}: {text}"))?;
    if (removal.takes_environment() || removal.found.is_some()) && !keep {
        for adapter in &removal.adapters {
            output.line(&format!("Adapter: {} (will be removed)", adapter.display()))?;
        }
    }
    output.line("")
}

/// Its name; of what an earlier removal could not delete the path, since a tool may live in an environment of that name.
fn environment_text(removal: &Removal) -> String {
    match removal.environment.path() {
        Some(path) if removal.is_rest() => path_text(path),
        _ => removal.env_name.clone().unwrap_or_default(),
    }
}

/// What an environment is called: the ancestor knows conda's alone.
fn words(removal: &Removal) -> (&'static str, &'static str) {
    match removal.environment {
        Place::Own(_) => ("Environment", "environment"),
        Place::Conda(..) | Place::Missing => ("Conda env", "conda environment"),
    }
}

fn say(output: &Output, text: &str) -> Result<(), Fault> {
    if output.json { Ok(()) } else { output.line(text) }
}
