//! The binary `cjm-worker`: the shim that owns a tool and serves its surface, and the keeper of all workers.
//! Nobody starts it by hand. The ancestor's host may start it in the place of a Python interpreter.

use cjm_worker::exit;
use std::ffi::OsString;
use std::process::ExitCode;

const HELP: &str = "\
cjm-worker: the worker side of cjm-substrate. The host starts it; there is nothing to run by hand.

Usage: cjm-worker MODE

  shim      own one tool and serve its HTTP surface on descriptor 3; the host link is 4, the lifeline 5
  keeper    start workers for the host on descriptor 0 and clear what they leave
  -m cjm_substrate.core.worker --module M --class C (--fd N | --port P) [--ppid P] [--adapters A,B]
            the same for a host of the Python package cjm-substrate: set this program as `install.python_path` of a
            manifest, and in `install.env_vars`: CJM_WORKER_PYTHON, the interpreter of a Python tool;
            CJM_SUBSTRATE_VERSION, the version that its later releases ask for

To call a capability, use: cjm-ctl call NAME
";

enum Mode {
    Keeper,
    Shim,
    Help,
    Version,
}

fn main() -> ExitCode {
    if let Err(error) = cjm_platform::limits::prepare() {
        return usage(&format!("cannot ignore a signal: {error}"));
    }
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    if cjm_worker::is_ancestors_command_line(&arguments) {
        return cjm_worker::run_for_ancestor(&arguments);
    }
    match mode(arguments.into_iter()) {
        Ok(Mode::Keeper) => match cjm_keeper::run() {
            Ok(code) => code,
            Err(error) => usage(&format!("the keeper talks to its host on descriptor 0: {error}")),
        },
        Ok(Mode::Shim) => cjm_worker::run_shim(),
        Ok(Mode::Help) => {
            say(HELP);
            ExitCode::from(exit::OK)
        }
        Ok(Mode::Version) => {
            say(concat!("cjm-worker ", env!("CARGO_PKG_VERSION"), "\n"));
            ExitCode::from(exit::OK)
        }
        Err(message) => usage(&message),
    }
}

/// Reads the one word of a command line that is not the ancestor's.
fn mode(mut arguments: impl Iterator<Item = OsString>) -> Result<Mode, String> {
    let Some(first) = arguments.next() else { return Err("a mode is missing".to_owned()) };
    let mode = match first.to_str() {
        Some("keeper") => Mode::Keeper,
        Some("shim") => Mode::Shim,
        Some("--help" | "-h" | "help") => return Ok(Mode::Help),
        Some("--version" | "-V") => return Ok(Mode::Version),
        _ => return Err(format!("there is no mode {}", first.display())),
    };
    match arguments.next() {
        None => Ok(mode),
        Some(extra) => {
            Err(format!("{} takes no arguments, and {} was given", first.display(), extra.display()))
        }
    }
}

fn usage(message: &str) -> ExitCode {
    eprintln!("cjm-worker: {message}\n\n{HELP}");
    ExitCode::from(exit::USAGE)
}

fn say(text: &str) {
    use std::io::Write as _;
    // A closed pipe is the reader's business.
    let _ = std::io::stdout().write_all(text.as_bytes());
}
