//! Says, check by check, whether a worker speaks the contract of `CONTRACT.md`: over any socket, in any language.
//!
//! It is not a test of our worker: it knows nothing of it, and reads only what a host would read. What must hold: a
//! worker whose tool is not the fixture is never asked to do anything; a check that fails says what it saw.

pub mod checks;
pub mod client;
pub mod known;
pub mod report;
mod session;

pub use client::{ClientError, Endpoint};
pub use report::{Checked, Report, Verdict};
pub use session::Session;

/// What is to be checked.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Only checks whose id begins with one of these; all when empty.
    pub only: Vec<String>,
    /// The worker's release of the ancestor, whose defects are known.
    pub known_defects_of: Option<String>,
}

/// Runs the suite against a worker.
///
/// # Errors
/// When nobody answers there.
pub fn run(endpoint: &Endpoint, options: &Options) -> Result<Report, ClientError> {
    let session = Session::begin(endpoint)?;
    let chosen = |id: &str| options.only.is_empty() || options.only.iter().any(|only| id.starts_with(only));
    let checks = checks::all().filter(|check| chosen(check.id)).map(|check| {
        let (verdict, seen) = match session.lacks(check) {
            Some(why) => (Verdict::Skipped, why),
            None => match (check.run)(&session) {
                Ok(seen) => (Verdict::Pass, seen),
                Err(seen) => (Verdict::Fail, seen),
            },
        };
        Checked::of(check, verdict, seen, options.known_defects_of.as_deref())
    });
    Ok(Report { worker: session.health().clone(), fixture: session.is_fixture(), checks: checks.collect() })
}
