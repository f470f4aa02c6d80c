//! `completions` and `man`: what shells and readers want to know of the command line, made from its own definition.

use crate::cli::{Cli, CompletionsArgs, ManArgs};
use crate::fault::{CommandResult, Fault};
use crate::output::Output;
use cjm_wire::describe::exit;
use clap::CommandFactory;

const NAME: &str = "cjm-ctl";

/// Prints the script that completes words in a shell.
pub(crate) fn completions(args: &CompletionsArgs, output: &Output) -> CommandResult {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), NAME, &mut script);
    output.text(&String::from_utf8_lossy(&script))?;
    Ok(exit::OK)
}

/// Writes a page for the program and one for each command into a folder.
pub(crate) fn man(args: &ManArgs, output: &Output) -> CommandResult {
    let written = std::fs::create_dir_all(&args.folder)
        .and_then(|()| clap_mangen::generate_to(Cli::command().name(NAME), &args.folder));
    written.map_err(|error| {
        let message = format!("cannot write pages into {}", args.folder.display());
        Fault::new("ctl.man", message, "check the path, its permissions and the space on its disk")
            .caused_by(&error)
    })?;
    output.note(&format!("wrote pages; `man {}/{NAME}.1` shows one", args.folder.display()));
    Ok(exit::OK)
}
