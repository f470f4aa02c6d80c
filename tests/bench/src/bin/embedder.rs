//! The smallest program that embeds the host: starts it on the directory it is given, says so, and waits for the end of
//! its standard input. The bench reads what it and its keeper hold resident.

use cjm_host::{Host, HostOptions};
use std::io::{Read, Write};
use std::process::ExitCode;

fn main() -> ExitCode {
    let Some(directory) = std::env::args_os().nth(1) else {
        eprintln!("cjm-bench-embedder DIRECTORY");
        return ExitCode::from(2);
    };
    let host = match Host::start_blocking(HostOptions::new(directory)) {
        Ok(host) => host,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let mut out = std::io::stdout();
    let told = writeln!(out, "ready").and_then(|()| out.flush());
    // The end of the input is the word to go, whatever was said before.
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    let ended = host.block_on(host.clone().shutdown());
    if told.is_ok() && ended.is_ok_and(|report| report.tree_cleared) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
