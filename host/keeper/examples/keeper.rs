//! A keeper and nothing else, for the tests: the product's own is a mode of `cjm-worker`.

use std::process::ExitCode;

fn main() -> ExitCode {
    match cjm_platform::fds::take_inherited(0) {
        Ok(control) => cjm_keeper::run(control),
        Err(_) => ExitCode::from(cjm_keeper::machine::exit_code::IO),
    }
}
