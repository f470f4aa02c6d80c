//! The command line, as clap reads it. Only names and help: what a command does is in the file named like it.

use crate::data_dir;
use crate::fault::Fault;
use crate::numbers::{days, megabytes, seconds};
use cjm_catalog::{CliOverrides, Settings};
pub(crate) use cjm_wire::describe::shell_word;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// Runs tools that cannot live in one process, each in its own; writes down what happened.
#[derive(Debug, Parser)]
#[command(name = "cjm-ctl", version, about, arg_required_else_help = true, subcommand_required = true)]
#[command(
    after_help = "Exit codes: 0 ok, 1 the request could not be met, 2 usage, 10 a worker did not start, \
                        11 a worker died, 12 the tool failed, 13 timed out, 14 cancelled, 15 the data directory is \
                        in use, 16 a composition failed, 17 a store refused, 128+n ended by a signal."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
// They may stand in an alias, and once more in a step that was copied: the last one counts. Of any other option one would be
// lost without a word: a second one is refused.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// Everything the host keeps: manifests, environments, journal [env: CJM_DATA_DIR] [default: ~/.cjm]
    #[arg(long, global = true, overrides_with = "data_dir", value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Settings [default: the cjm.yaml of this folder or the next one above]
    #[arg(long, global = true, overrides_with = "cjm_config", value_name = "FILE")]
    pub(crate) cjm_config: Option<PathBuf>,
    /// Where a project keeps its own conda environments [env: CJM_CONDA_PREFIX]
    #[arg(long, global = true, overrides_with = "conda_prefix", value_name = "DIR")]
    pub(crate) conda_prefix: Option<PathBuf>,
    /// What makes conda environments: micromamba, miniforge or conda [env: CJM_CONDA_TYPE]
    #[arg(long, global = true, overrides_with = "conda_type", value_name = "TYPE")]
    pub(crate) conda_type: Option<String>,
    /// One JSON document on stdout; a line of JSON each while following or streaming
    #[arg(long, global = true, overrides_with = "json")]
    pub(crate) json: bool,
    /// Nothing on stderr but errors
    #[arg(long, short, global = true, overrides_with = "quiet")]
    pub(crate) quiet: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the installed capabilities
    List(ListArgs),
    /// Check a folder, a manifest, a capabilities.yaml, a composition or Python source without running anything of it
    Validate(ValidateArgs),
    /// Call one capability and print its result
    Call(CallArgs),
    /// Run a composition of capabilities
    Run(RunArgs),
    /// Show who uses the data directory, and what runs there now
    Status,
    /// Show what happened: records of tools, their raw output, or the journal
    #[command(after_help = "Times are shown in UTC.")]
    Logs(LogsArgs),
    /// Install everything that capabilities.yaml names
    InstallAll(InstallAllArgs),
    /// Look into an installed capability once more and write its manifest anew
    RegenerateManifest(RegenerateArgs),
    /// Write the manifest of a task adapter that lives in an environment
    GenerateAdapterManifest(GenerateAdapterArgs),
    /// Take a capability away: its environment and its manifest
    Remove(RemoveArgs),
    /// Allow the manifests of a folder that came from elsewhere to run, as they are now
    Allow(AllowArgs),
    /// Forget old records and output now; forget old jobs, or archive journal rows, where asked to
    Retention(RetentionArgs),
    /// Install what callers share with capabilities into the present Python environment
    SetupHost(SetupHostArgs),
    /// Fetch the micromamba that makes a project's own conda environments
    SetupRuntime(SetupRuntimeArgs),
    /// Keep a secret of a capability: its tool gets it as a variable, nobody else does
    SetSecret(SetSecretArgs),
    /// List the names of a capability's secrets, never their values
    ListSecrets(ListSecretsArgs),
    /// Forget a secret of a capability
    RemoveSecret(RemoveSecretArgs),
    /// Print the script that lets a shell complete words of this program
    Completions(CompletionsArgs),
    /// Write manual pages into a folder
    Man(ManArgs),
}

/// Of `list`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Compare with this capabilities.yaml
    #[arg(long, value_name = "FILE")]
    pub(crate) capabilities: Option<PathBuf>,
    /// Show what each does: description, actions with their parameters, manifest
    #[arg(long, short)]
    pub(crate) long: bool,
    /// Show the environments, and whether they are there
    #[arg(long, short)]
    pub(crate) envs: bool,
}

/// Of `allow`.
#[derive(Debug, Args)]
pub(crate) struct AllowArgs {
    /// A project's folder, its folder of manifests, or one manifest [default: the present folder]
    #[arg(value_name = "DIR")]
    pub(crate) place: Option<PathBuf>,
    /// Show what is allowed
    #[arg(long, conflicts_with_all = ["place", "revoke"])]
    pub(crate) list: bool,
    /// Take the word back for everything at or below DIR
    #[arg(long)]
    pub(crate) revoke: bool,
    /// Show what each would start, and allow nothing
    #[arg(long, conflicts_with_all = ["list", "revoke"])]
    pub(crate) dry_run: bool,
}

/// Of `validate`.
#[derive(Debug, Args)]
pub(crate) struct ValidateArgs {
    /// The file, or a folder: its list, manifests, compositions, settings, package and Python source
    pub(crate) path: PathBuf,
    /// What it is, when its name and content do not say
    #[arg(long, short, value_enum)]
    pub(crate) format: Option<Format>,
}

/// Kinds of files that can be checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// A capability's manifest
    Manifest,
    /// A task adapter's manifest
    Adapter,
    /// A capability's Python source, a file or a folder: its syntax, and how it configures logging
    Source,
    /// A list of capabilities to install
    #[value(name = "capabilities_yaml", alias = "capabilities-yaml")]
    CapabilitiesYaml,
    /// A composition
    Composition,
    /// Settings, `cjm.yaml`
    Settings,
}

/// Of `call`.
#[derive(Debug, Args)]
pub(crate) struct CallArgs {
    /// The capability (see `cjm-ctl list`)
    pub(crate) name: String,
    /// Arguments: key=value (read as the tool declares it; where it declares nothing, JSON if it reads as a number,
    /// true, false, null, list or object, else text), key:=JSON, key=@PATH (absolute path of a file or folder that is
    /// there), key=@- (a file of what comes on standard input)
    #[arg(value_name = "KEY=VALUE")]
    pub(crate) assignments: Vec<String>,
    /// Arguments as one JSON object; @FILE reads it from a file, - from standard input; key=value wins
    #[arg(long, value_name = "JSON")]
    pub(crate) args: Option<String>,
    /// Which of its actions
    #[arg(long)]
    pub(crate) action: Option<String>,
    /// Call a task adapter instead of the tool itself: the task
    #[arg(long, requires = "method", conflicts_with_all = ["action", "stream"])]
    pub(crate) task: Option<String>,
    /// The method of the task's adapter
    #[arg(long, requires = "task")]
    pub(crate) method: Option<String>,
    /// Bind this task adapter (name, class or module:Class) and no other; may be repeated [default: all that fit]
    #[arg(long, value_name = "ADAPTER")]
    pub(crate) adapter: Vec<String>,
    /// Print results as they come, one line of JSON each
    #[arg(long)]
    pub(crate) stream: bool,
    /// Give up after so many seconds
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true, value_parser = seconds)]
    pub(crate) timeout: Option<f64>,
    /// Configuration of the capability, as one JSON object; @FILE and - as with --args
    #[arg(long, value_name = "JSON")]
    pub(crate) config: Option<String>,
    /// Print a result that is text as it is
    #[arg(long, short)]
    pub(crate) raw: bool,
    /// Do the work even if files of the same work are kept
    #[arg(long)]
    pub(crate) force: bool,
    /// Copy the files that the call makes, and its result, into this folder
    #[arg(long, short, value_name = "DIR", conflicts_with = "stream")]
    pub(crate) output: Option<PathBuf>,
}

/// Of `run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// The composition, YAML or JSON
    pub(crate) composition: PathBuf,
    /// Its inputs, by name: key=value (read as the composition declares it), key:=JSON, key=@PATH, key=@-
    #[arg(value_name = "KEY=VALUE")]
    pub(crate) inputs: Vec<String>,
    /// Inputs as one object in a file, JSON or YAML; - reads them from standard input; key=value wins
    #[arg(long = "inputs", value_name = "FILE")]
    pub(crate) inputs_file: Option<String>,
    /// Give up after so many seconds
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true, value_parser = seconds)]
    pub(crate) timeout: Option<f64>,
}

/// Of `logs`.
#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// The journal: what was attempted, and how it ended
    #[arg(long)]
    pub(crate) journal: bool,
    /// Raw output of the tools
    #[arg(long)]
    pub(crate) chunks: bool,
    /// Only this job; like every id, whole or as shown
    #[arg(long, value_name = "ID")]
    pub(crate) job: Option<String>,
    /// Only this run, or this composition (implies --journal)
    #[arg(long, value_name = "ID")]
    pub(crate) run: Option<String>,
    /// Only this session of a worker
    #[arg(long, value_name = "ID")]
    pub(crate) session: Option<String>,
    /// Only this capability
    #[arg(long, value_name = "NAME")]
    pub(crate) capability: Option<String>,
    /// Only since then: how long ago (90s, 10m, 2h, 1d), or an instant (2026-11-28, '2026-11-28 14:30', UTC)
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub(crate) since: Option<String>,
    /// Only rows of this type, as they are shown (implies --journal); may be repeated. worker_died is deaths alone,
    /// worker_ended the workers that the host ended itself; with --json both have the type worker_died. Likewise
    /// direct_call_failed and direct_call_cancelled
    #[arg(long = "type", value_name = "TYPE", value_delimiter = ',')]
    pub(crate) types: Vec<String>,
    /// Only what became pending, running, completed, failed or cancelled (implies --journal); may be repeated
    #[arg(long, value_name = "STATUS", value_delimiter = ',')]
    pub(crate) status: Vec<String>,
    /// Only this node of a composition, or one element of it as `each[0]` (implies --journal)
    #[arg(long, value_name = "NODE")]
    pub(crate) node: Option<String>,
    /// Only records of this level and above (TRACE, DEBUG, INFO, WARNING, ERROR, CRITICAL)
    #[arg(long)]
    pub(crate) level: Option<String>,
    /// The newest N entries, 0 for all [default: 50; with --json all]
    #[arg(short, long = "limit", value_name = "N", allow_negative_numbers = true)]
    pub(crate) n: Option<i64>,
    /// Go on with what comes (Ctrl-C ends)
    #[arg(long, short)]
    pub(crate) follow: bool,
}

/// Of `install-all`.
#[derive(Debug, Args)]
pub(crate) struct InstallAllArgs {
    /// The list of what to install [default: capabilities_config of cjm.yaml, else capabilities.yaml]
    #[arg(long, value_name = "FILE")]
    pub(crate) capabilities: Option<PathBuf>,
    /// Put this package into every Python environment as well: a requirement, or a folder (also as `-e FOLDER`)
    #[arg(long, value_name = "PACKAGE", allow_hyphen_values = true)]
    pub(crate) substrate_source: Option<String>,
    /// Start from nothing, and find the newest versions again
    #[arg(long)]
    pub(crate) force: bool,
    /// The default
    #[arg(long, hide = true)]
    pub(crate) no_force: bool,
    /// Use what was fetched before and no network
    #[arg(long)]
    pub(crate) offline: bool,
    /// Also change environments in which a running host has a worker
    #[arg(long)]
    pub(crate) while_running: bool,
}

/// Of `setup-host`.
#[derive(Debug, Args)]
pub(crate) struct SetupHostArgs {
    /// The list whose `interface_libs` are meant [default: capabilities_config of cjm.yaml, else capabilities.yaml]
    #[arg(long, value_name = "FILE")]
    pub(crate) capabilities: Option<PathBuf>,
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Do not ask
    #[arg(long, short)]
    pub(crate) yes: bool,
}

/// Of `setup-runtime`.
#[derive(Debug, Args)]
pub(crate) struct SetupRuntimeArgs {
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Fetch it again
    #[arg(long, short)]
    pub(crate) force: bool,
}

/// Of `regenerate-manifest`.
#[derive(Debug, Args)]
pub(crate) struct RegenerateArgs {
    /// The capability
    pub(crate) capability: String,
    /// Look for its package here when the manifest does not say it
    #[arg(long, value_name = "FILE")]
    pub(crate) capabilities: Option<PathBuf>,
    /// Look into this package; it wins over what manifest and list say
    #[arg(long, value_name = "PACKAGE")]
    pub(crate) package: Option<String>,
}

/// Of `generate-adapter-manifest`.
#[derive(Debug, Args)]
pub(crate) struct GenerateAdapterArgs {
    /// The environment that holds the adapter: that of its tool
    pub(crate) env_name: String,
    /// The adapter, as module:Class
    pub(crate) target: String,
}

/// Of `remove`.
#[derive(Debug, Args)]
pub(crate) struct RemoveArgs {
    /// The capability
    pub(crate) capability: String,
    /// Look for the environment's name here when the manifest does not say it
    #[arg(long, value_name = "FILE")]
    pub(crate) capabilities: Option<PathBuf>,
    /// Keep the environment
    #[arg(long)]
    pub(crate) keep_env: bool,
    /// Take it away although a running host has a worker in it
    #[arg(long)]
    pub(crate) while_running: bool,
    /// Do not ask
    #[arg(long, short)]
    pub(crate) yes: bool,
}

/// Of `retention`.
#[derive(Debug, Args)]
pub(crate) struct RetentionArgs {
    /// Forget what is older; 0 or less forgets nothing for its age [default: substrate.diagnostics_retention_days of cjm.yaml, else
    /// 30]
    #[arg(long, value_name = "DAYS", allow_negative_numbers = true, value_parser = days)]
    pub(crate) max_age_days: Option<f64>,
    /// Forget the oldest until the database holds no more: 0.1 or more; 0 forgets all records and output [default:
    /// substrate.diagnostics_retention_max_mb of cjm.yaml, else 500]
    #[arg(long, value_name = "MB", allow_negative_numbers = true, value_parser = megabytes)]
    pub(crate) max_total_mb: Option<f64>,
    /// Forget jobs and compositions that ended before that, with arguments and results; journal rows stay. A host does it
    /// by itself, after substrate.jobs_retention_days of cjm.yaml [default there: 30]
    #[arg(long, value_name = "DAYS", allow_negative_numbers = true, value_parser = days)]
    pub(crate) jobs_max_age_days: Option<f64>,
    /// Move the journal's rows from before that time into a file below archives/, which `logs` still reads: how long ago
    /// (90d, 12h), or a date or time in UTC. Rows of what is unfinished stay
    #[arg(long, value_name = "BEFORE")]
    pub(crate) archive_journal: Option<String>,
}

/// Of `set-secret`.
#[derive(Debug, Args)]
pub(crate) struct SetSecretArgs {
    /// The capability, by the name in its manifest
    pub(crate) capability: String,
    /// The variable its tool reads
    pub(crate) key: String,
    /// `-` reads the value from standard input; without it, you are asked on the terminal
    #[arg(value_name = "-", conflicts_with = "value")]
    pub(crate) source: Option<String>,
    /// The value; it stays in the shell's history
    #[arg(long, value_name = "VALUE", allow_hyphen_values = true)]
    pub(crate) value: Option<String>,
    /// Whose secret it is, for programs that ask for a person's; tools that are called here get those without a scope
    #[arg(long)]
    pub(crate) scope: Option<String>,
    /// The manifest it is for, and no other of that name [default: the one that `list` shows]
    #[arg(long, value_name = "FILE")]
    pub(crate) manifest: Option<PathBuf>,
    /// Keep it for a capability that is not installed yet, or in place of one that is kept for another manifest
    #[arg(long)]
    pub(crate) force: bool,
}

/// Of `list-secrets`.
#[derive(Debug, Args)]
pub(crate) struct ListSecretsArgs {
    /// The capability
    pub(crate) capability: String,
    /// Whose secrets
    #[arg(long)]
    pub(crate) scope: Option<String>,
}

/// Of `remove-secret`.
#[derive(Debug, Args)]
pub(crate) struct RemoveSecretArgs {
    /// The capability
    pub(crate) capability: String,
    /// The variable
    pub(crate) key: String,
    /// Whose secret it is
    #[arg(long)]
    pub(crate) scope: Option<String>,
}

/// Of `completions`.
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// For bash: cjm-ctl completions bash > ~/.local/share/bash-completion/completions/cjm-ctl
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

/// Of `man`.
#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// The folder; it is made if need be
    #[arg(value_name = "DIR")]
    pub(crate) folder: PathBuf,
}

impl Global {
    /// `cjm-ctl` with those of these options that say where, so that a command told to somebody finds the same things.
    pub(crate) fn command(&self) -> String {
        let mut command = "cjm-ctl".to_owned();
        for (option, path) in [("--data-dir", &self.data_dir), ("--cjm-config", &self.cjm_config)] {
            if let Some(path) = path {
                command.push_str(&format!(" {option} {}", shell_word(&path.display().to_string())));
            }
        }
        command
    }

    /// What holds for this command: the command line, the environment, `cjm.yaml`, the defaults.
    ///
    /// # Errors
    /// When a settings file is named or found and cannot be used, or the data directory is somebody else's or none.
    pub(crate) fn settings(&self) -> Result<Settings, Fault> {
        let settings = Settings::resolve(&self.overrides())?;
        data_dir::check_may_be_read(&settings.data_dir)?;
        Ok(settings)
    }

    /// Likewise, of a command that changes something in the data directory.
    ///
    /// # Errors
    /// Also when this user may not write there.
    pub(crate) fn settings_to_write(&self) -> Result<Settings, Fault> {
        let settings = self.settings()?;
        data_dir::check_may_be_written(&settings.data_dir)?;
        Ok(settings)
    }

    /// What the command line says of it.
    pub(crate) fn overrides(&self) -> CliOverrides {
        CliOverrides {
            cjm_config: self.cjm_config.clone(),
            data_dir: self.data_dir.clone(),
            conda_prefix: self.conda_prefix.clone(),
            conda_type: self.conda_type.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_is_told_finds_the_same_things() {
        let global = |arguments: &[&str]| {
            Cli::try_parse_from([&["cjm-ctl"][..], arguments, &["list"]].concat()).expect("parses").global
        };
        assert_eq!(global(&[]).command(), "cjm-ctl");
        assert_eq!(global(&["--data-dir", "/d"]).command(), "cjm-ctl --data-dir /d");
        assert_eq!(global(&["--data-dir", "it's d"]).command(), "cjm-ctl --data-dir 'it'\\''s d'");
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
        let cli = Cli::try_parse_from(["cjm-ctl", "call", "x", "a=1", "b:=[2]", "--json", "--action", "go"])
            .expect("parses");
        assert!(cli.global.json);
        assert!(matches!(cli.command, Command::Call(call) if call.assignments == ["a=1", "b:=[2]"]));
    }

    #[test]
    fn an_option_that_is_given_twice_is_refused_unless_an_alias_may_give_it() {
        for refused in [
            &["install-all", "--capabilities", "a", "--capabilities", "b"][..],
            &["logs", "--capability", "a", "--capability", "b"],
            &["call", "x", "--timeout", "1", "--timeout", "2"],
        ] {
            let error = Cli::try_parse_from([&["cjm-ctl"][..], refused].concat()).expect_err("refused");
            assert_eq!(error.kind(), clap::error::ErrorKind::ArgumentConflict, "{refused:?}");
        }
        let twice = ["cjm-ctl", "--json", "--data-dir", "a", "--data-dir", "b", "list", "-q", "--json", "-q"];
        let cli = Cli::try_parse_from(twice).expect("parses");
        assert_eq!(cli.global.data_dir, Some("b".into()));
        let cli = Cli::try_parse_from([&twice[..], &["--data-dir", "c"]].concat()).expect("parses");
        assert!(cli.global.data_dir == Some("c".into()) && cli.global.json && cli.global.quiet);
    }
}
