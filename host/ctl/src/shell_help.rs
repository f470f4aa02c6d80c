//! `completions` and `man`: what shells and readers want to know of the command line, made from its own definition.

use crate::cli::{Cli, CompletionsArgs, ManArgs};
use crate::fault::{CommandResult, Fault};
use crate::log_filter::STATUSES;
use crate::log_lines::TYPES_AS_SHOWN;
use crate::output::Output;
use cjm_store::diagnostics_reader::LEVELS;
use cjm_wire::describe::{exit, shell_word};
use cjm_wire::event::{EventType, JobStatus};
use clap::builder::PossibleValuesParser;
use clap::{Command, CommandFactory};
use clap_complete::Shell;

const NAME: &str = "cjm-ctl";
/// How the generator's case labels for bash begin, and how the words begin that it compares them with: it joins the parts
/// of a program's name with a hyphen in two ways, so that no label would ever match.
const BASH_LABEL: (&str, &str) = ("cjm__subcmd__ctl", "cjm__ctl");

/// Prints the script that completes words in a shell.
pub(crate) fn completions(args: &CompletionsArgs, output: &Output) -> CommandResult {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut with_words(Cli::command()), NAME, &mut script);
    let mut script = String::from_utf8_lossy(&script).into_owned();
    if args.shell == Shell::Bash {
        script = script.replace(BASH_LABEL.0, BASH_LABEL.1);
    }
    output.text(&script)?;
    Ok(exit::OK)
}

/// Tells shells the words that options of `logs` take. The command line itself does not, since it refuses others with
/// words of its own.
fn with_words(command: Command) -> Command {
    let types = EventType::ALL.iter().map(|kind| kind.as_str());
    let types = PossibleValuesParser::new(types.chain(TYPES_AS_SHOWN));
    let statuses = PossibleValuesParser::new(STATUSES.map(JobStatus::as_str));
    let levels = PossibleValuesParser::new(LEVELS);
    command.mut_subcommand("logs", |logs| {
        logs.mut_arg("types", |option| option.value_parser(types))
            .mut_arg("status", |option| option.value_parser(statuses))
            .mut_arg("level", |option| option.value_parser(levels))
    })
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
    let page = args.folder.join(format!("{NAME}.1"));
    output.note(&format!("wrote pages; `man {}` shows one", shell_word(&page.to_string_lossy())));
    Ok(exit::OK)
}
