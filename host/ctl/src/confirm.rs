//! Asks a person whether to go on. The question goes to stderr, the answer comes from standard input.

use crate::fault::Fault;
use crate::output::Output;
use crate::visible::visible;
use cjm_wire::describe::exit;
use std::io::{BufRead, Read};

/// Longest answer that is read, in bytes.
const ANSWER_BYTES_MAX: u64 = 4096;

/// Asks whether to go on. Anything but a yes is a no.
///
/// # Errors
/// When the answer is no: whoever reads the exit code must not take it for done. When nobody can be asked: standard input
/// has ended, or a program reads the answer.
pub(crate) async fn confirm(question: &str, output: &Output) -> Result<(), Fault> {
    if output.json {
        return Err(Fault::usage("there is nobody to ask with --json", "give -y as well"));
    }
    // If stderr is closed there is nobody to read the question; the answer is what it is.
    output.draw(&format!("{} [y/N]: ", visible(question)));
    let reading = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        std::io::stdin().lock().take(ANSWER_BYTES_MAX).read_line(&mut line).map(|_| line)
    });
    let line = reading.await.unwrap_or_else(|error| Err(std::io::Error::other(error)));
    if line.as_ref().map_or(true, |line| !line.ends_with('\n')) {
        // Nobody has ended the line of the question.
        output.draw("\n");
    }
    match line {
        Ok(line) if matches!(line.trim().to_lowercase().as_str(), "y" | "yes") => Ok(()),
        Ok(line) if !line.is_empty() => Err(Fault::new(
            "ctl.declined",
            "Aborted: the answer was no, and nothing was done",
            "run it again and answer y, or give -y to go on without asking",
        )),
        _ => Err(Fault::new(
            "ctl.not_confirmed",
            "Aborted: nobody answered",
            "give -y to go on without asking",
        )
        .with_exit(exit::DOMAIN)),
    }
}
