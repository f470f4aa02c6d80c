//! The binary `cjm-conformance`: the suite against one worker, its report on standard output.

use cjm_conformance::{Endpoint, Options, checks, known};
use cjm_wire::describe::{Described, exit};
use clap::Parser;
use serde_json::json;
use std::io::Write as _;
use std::process::ExitCode;

/// Says, check by check, whether a worker speaks the contract.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Exit codes: 0 it does, 1 a check failed, 2 wrong arguments, 10 nobody answered there."
)]
struct Arguments {
    /// The worker: `http://127.0.0.1:PORT` or `unix:PATH`.
    #[arg(required_unless_present = "list")]
    worker: Option<Endpoint>,
    /// One JSON document in place of lines.
    #[arg(long)]
    json: bool,
    /// Only checks whose id begins so; may be repeated.
    #[arg(long, value_name = "ID")]
    only: Vec<String>,
    /// The worker is the ancestor's own, of this release: what is known of it is no failure.
    #[arg(long, value_name = "RELEASE", value_parser = known::RELEASES)]
    known_defects_of: Option<String>,
    /// Names the checks, and makes none.
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let Some(worker) = arguments.worker.filter(|_| !arguments.list) else {
        return say(&list(arguments.json), exit::OK);
    };
    let options = Options { only: arguments.only, known_defects_of: arguments.known_defects_of };
    match cjm_conformance::run(&worker, &options) {
        Ok(report) => {
            let text = if arguments.json { format!("{}\n", report.to_json()) } else { report.to_text() };
            say(&text, if report.is_good() { exit::OK } else { exit::DOMAIN })
        }
        Err(error) => {
            eprintln!("{worker}: {error}\nNext: {}", error.next_step());
            ExitCode::from(error.exit_code())
        }
    }
}

fn list(json: bool) -> String {
    if json {
        let listed: Vec<_> = checks::all()
            .map(|check| json!({"id": check.id, "section": check.section, "says": check.says}))
            .collect();
        return format!("{}\n", json!({ "checks": listed }));
    }
    checks::all().map(|check| format!("{:<22} {:<5} {}\n", check.id, check.section, check.says)).collect()
}

fn say(text: &str, code: u8) -> ExitCode {
    // A closed pipe is the reader's business.
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitCode::from(code)
}
