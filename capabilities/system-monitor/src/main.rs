//! A capability that says what the machine and its processes use: at once, or as a stream of samples of one tree.
//!
//! It keeps no history and judges nothing; the host that asks does. What must hold: it is cheap enough to run beside
//! everything else, and a machine without a GPU is an answer, not an error.

mod capability;
mod gpu;
mod sample;

fn main() -> std::process::ExitCode {
    cjm_worker::serve::<capability::SystemMonitor>()
}
