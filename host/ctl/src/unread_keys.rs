//! Keys of the settings file that nobody reads, told once for a whole command, however often it reads the file.

use crate::cli::{Cli, Command};
use crate::output::Output;
use crate::visible::one_line;
use std::path::Path;

/// Tells them. What is wrong with the settings is told by whatever needs them.
pub(crate) fn tell(cli: &Cli, output: &Output) {
    if matches!(cli.command, Command::Completions(_) | Command::Man(_)) {
        return;
    }
    let Ok(settings) = cli.global.settings() else { return };
    let Some(file) = settings.file.as_deref().filter(|_| !settings.unread_keys.is_empty()) else { return };
    // What it looks at, it tells by itself.
    if let Command::Validate(args) = &cli.command
        && [Some(file), file.parent()].into_iter().flatten().any(|looked_at| is_same(looked_at, &args.path))
    {
        return;
    }
    let told: Vec<String> = settings.unread_keys.iter().map(|key| one_line(key).to_string()).collect();
    output.note(&format!("warning: {}: {}", one_line(&file.display().to_string()), told.join("; ")));
}

fn is_same(one: &Path, other: &Path) -> bool {
    one.canonicalize().is_ok_and(|one| other.canonicalize().is_ok_and(|other| one == other))
}
