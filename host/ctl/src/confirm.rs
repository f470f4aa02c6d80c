//! Asks a person whether to go on. The question goes to stderr, the answer comes from standard input.

use crate::fault::Fault;
use crate::output::Output;
use crate::visible::visible;
use cjm_wire::describe::exit;
use std::io::{BufRead, Read};

/// Longest answer that is read, in bytes.
const ANSWER_BYTES_MAX: u64 = 4096;

/// Whether to go on. Anything but a yes is a no.
///
/// # Errors
/// When nobody can be asked: standard input has ended, or a program reads the answer.
pub(crate) async fn confirm(question: &str, output: &Output) -> Result<bool, Fault> {
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
    match line {
        Ok(line) if !line.is_empty() => Ok(matches!(line.trim().to_lowercase().as_str(), "y" | "yes")),
        _ => Err(Fault::new(
            "ctl.not_confirmed",
            "Aborted: nobody answered",
            "give -y to go on without asking",
        )
        .with_exit(exit::DOMAIN)),
    }
}
