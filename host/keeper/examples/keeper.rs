//! A keeper and nothing else, for the tests: the product's own is a mode of `cjm-worker`.

use std::process::ExitCode;

fn main() -> ExitCode {
    cjm_keeper::run().unwrap_or(ExitCode::from(cjm_keeper::machine::exit_code::IO))
}
