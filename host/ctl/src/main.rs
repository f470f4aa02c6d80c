//! `cjm-ctl`: the command line of the capability host. It reads words, asks the engine or the stores, and prints what
//! they say; it decides nothing and keeps nothing.

mod allow;
mod assign;
mod call;
mod cli;
mod configured;
mod confirm;
mod data_dir;
mod declared;
mod fault;
mod install_all;
mod install_progress;
mod instant;
mod interrupt;
mod journaled;
mod kept;
mod lane;
mod limits;
mod list;
mod log_filter;
mod log_lines;
mod logs;
mod named_list;
mod not_set;
mod notes;
mod numbers;
mod out_folder;
mod output;
mod progress;
mod regenerate;
mod remove;
mod retention;
mod run;
mod run_inputs;
mod run_report;
mod sdk;
mod secrets;
mod setup;
mod shell_help;
mod status;
mod stdin;
mod stopping;
mod story;
mod tips;
mod troubles;
mod unread_keys;
mod validate;
mod visible;
mod waiting;

use crate::cli::{Cli, Command};
use crate::fault::{CommandResult, Fault};
use crate::interrupt::{Interrupts, interrupted};
use crate::output::Output;
use crate::troubles::Troubles;
use cjm_wire::describe::exit;
use clap::Parser;
use std::ffi::OsString;
use std::process::ExitCode;
use tracing_subscriber::{EnvFilter, Layer as _, layer::SubscriberExt as _, util::SubscriberInitExt as _};

/// Variable with the filter of the program's own log, as `info` or `cjm_engine=debug`.
const LOG_VARIABLE: &str = "CJM_LOG";

/// Threads of the runtime: commands wait, and the host has threads of its own.
const RUNTIME_THREADS: usize = 2;
/// Descriptors that a runtime opens, at least.
const RUNTIME_DESCRIPTORS: usize = 8;

/// Stack of the thread that runs the command: what is usual, also where the shell's limit (`ulimit -s`) gives less.
const STACK_BYTES: usize = 8 * 1024 * 1024;

fn main() -> ExitCode {
    let prepared = cjm_platform::limits::prepare();
    let thread =
        prepared.and_then(|()| std::thread::Builder::new().stack_size(STACK_BYTES).spawn(command_line));
    match thread.map(std::thread::JoinHandle::join) {
        Ok(Ok(code)) => code,
        Ok(Err(panic)) => std::panic::resume_unwind(panic),
        Err(error) => {
            let output = Output::new(asks_for_json(), false);
            let code = output.show(&cannot_start(&error));
            ExitCode::from(output.finish_blocking(code))
        }
    }
}

fn asks_for_json() -> bool {
    std::env::args_os().any(|argument| argument == "--json")
}

fn cannot_start(error: &std::io::Error) -> Fault {
    Fault::new("ctl.runtime", "cannot start", "see that threads and descriptors are to be had")
        .caused_by(error)
}

fn command_line() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let words: Vec<_> = std::env::args_os().collect();
            return ExitCode::from(usage(&tips::with_good_tips(error, &words), &words));
        }
    };
    let output = Output::new(cli.global.json, cli.global.quiet).with_command(&cli.global.command());
    let troubles = start_log(&output);
    let runtime = match start_runtime() {
        Ok(runtime) => runtime,
        Err(error) => {
            let code = output.show(&cannot_start(&error));
            return ExitCode::from(output.finish_blocking(code));
        }
    };
    runtime.spawn(troubles.clone().tell_while_it_runs(output.clone()));
    let ended = runtime.block_on(async {
        let interrupts = Interrupts::listen().map_err(|error| no_signals(&error))?;
        let code = match dispatch(cli, &output, &interrupts).await {
            Ok(code) => {
                troubles.tell(&output);
                code
            }
            Err(fault) => {
                if !fault.is_of_a_store() {
                    troubles.tell(&output);
                }
                output.show(&fault)
            }
        };
        Ok(output.finish(code, &interrupts).await)
    });
    let code = ended.unwrap_or_else(|fault: Fault| {
        let code = output.show(&fault);
        output.finish_blocking(code)
    });
    // Whatever still runs in a blocking thread is not waited for: the answer is out.
    runtime.shutdown_background();
    ExitCode::from(code)
}

/// The runtime panics where it gets no thread or socket; so what it needs is asked for before.
fn start_runtime() -> std::io::Result<tokio::runtime::Runtime> {
    cjm_engine::check_room(RUNTIME_THREADS + 1, RUNTIME_DESCRIPTORS)?;
    tokio::runtime::Builder::new_multi_thread().worker_threads(RUNTIME_THREADS).enable_all().build()
}

fn no_signals(error: &std::io::Error) -> Fault {
    Fault::new("ctl.signals", "cannot catch signals", "see that descriptors are to be had").caused_by(error)
}

async fn dispatch(cli: Cli, output: &Output, interrupts: &Interrupts) -> CommandResult {
    let global = &cli.global;
    unread_keys::tell(&cli, output);
    let command = async {
        match &cli.command {
            Command::List(args) => list::run(global, args, output).await,
            Command::Allow(args) => allow::run(global, args, output),
            Command::Validate(args) => validate::run(global, args, output).await,
            Command::Status => status::run(global, output),
            Command::Logs(args) => logs::run(global, args, output).await,
            Command::InstallAll(args) => install_all::run(global, args, output).await,
            Command::RegenerateManifest(args) => regenerate::manifest(global, args, output).await,
            Command::GenerateAdapterManifest(args) => regenerate::adapter(global, args, output).await,
            Command::Remove(args) => remove::run(global, args, output).await,
            Command::Retention(args) => retention::run(global, args, output),
            Command::SetupHost(args) => setup::host(global, args, output).await,
            Command::SetupRuntime(args) => setup::runtime(global, args, output).await,
            Command::SetSecret(args) => secrets::set(global, args, output).await,
            Command::ListSecrets(args) => secrets::list(global, args, output),
            Command::Completions(args) => shell_help::completions(args, output),
            Command::Man(args) => shell_help::man(args, output),
            Command::RemoveSecret(args) => secrets::remove(global, args, output),
            // These two have something to clear away first.
            Command::Call(args) => call::run(global, args, output, interrupts).await,
            Command::Run(args) => run::run(global, args, output, interrupts).await,
        }
    };
    match &cli.command {
        Command::Call(_) | Command::Run(_) => command.await,
        Command::Logs(args) if args.follow => tokio::select! {
            result = command => result,
            fault = output.reader_left() => Err(fault),
            // Ctrl-C is how following ends; nothing is wrong.
            code = interrupts.wait() => Ok(code),
        },
        _ => tokio::select! {
            result = command => result,
            code = interrupts.wait() => Err(interrupted(code)),
        },
    }
}

/// Arguments of tools are JSON, which holds text alone.
fn not_text() -> Fault {
    let argument = std::env::args_os().find(|argument| argument.to_str().is_none()).unwrap_or_default();
    Fault::new(
        "ctl.path_not_text",
        format!("this argument is not UTF-8: {}", argument.to_string_lossy()),
        "where it names a file, rename that or give a link to it whose path is text; other text is written as UTF-8",
    )
    .with_exit(exit::USAGE)
}

/// Help and version are results; everything else clap says is an error of usage.
fn usage(error: &clap::Error, words: &[OsString]) -> u8 {
    if error.kind() == clap::error::ErrorKind::InvalidUtf8 {
        let output = Output::new(asks_for_json(), false);
        let code = output.show(&not_text());
        return output.finish_blocking(code);
    }
    let is_result = !error.use_stderr();
    let json = asks_for_json();
    if is_result {
        let output = Output::new(false, false);
        // What may be coloured on a terminal is plain elsewhere.
        let text = error.render();
        let text = if output.stdout_color() { text.ansi().to_string() } else { text.to_string() };
        // A failure is told by what follows.
        let _ = output.text(&text);
        return output.finish_blocking(exit::OK);
    }
    if !json {
        // If the terminal is gone there is nobody left to tell.
        let _ = error.print();
        return exit::USAGE;
    }
    let message = error.to_string();
    let message = message.trim().trim_start_matches("error: ").to_owned();
    let output = Output::new(true, false);
    let step = match tips::command_of(words) {
        Some(command) => format!("`{}` shows how it is called", ["cjm-ctl", &command, "--help"].join(" ")),
        None => "`cjm-ctl --help` shows the commands".to_owned(),
    };
    let code = output.show(&Fault::usage(message, step));
    output.finish_blocking(code)
}

/// The log is for whoever asks for it; everybody else is told of what went wrong in words of ours.
fn start_log(output: &Output) -> Troubles {
    let filter = EnvFilter::try_from_env(LOG_VARIABLE).ok();
    let troubles = Troubles::default();
    let told = filter.is_none().then(|| troubles.clone());
    let log =
        tracing_subscriber::fmt::layer().with_writer(output.log_writer()).with_ansi(output.stderr_color);
    let log = filter.map(|filter| log.with_filter(filter));
    let notes = (!output.quiet).then_some(notes::Notes(output.clone()));
    tracing_subscriber::registry().with(log).with(notes).with(told).init();
    troubles
}
