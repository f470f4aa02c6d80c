//! What is told of an entry that came to no good end: of a tool that was installed before, whether that can be called.

use crate::report::{EntryReport, Outcome};
use cjm_wire::ErrorReport;
use cjm_wire::capabilities_file::Entry;

pub(crate) fn blank(entry: &Entry) -> EntryReport {
    EntryReport {
        name: entry.name.clone(),
        outcome: Outcome::Unchanged,
        capability: None,
        version: None,
        version_before: None,
        manifest: None,
        environment: None,
        python_version: None,
        lock_hash: None,
        to_fetch: None,
        renamed_from: None,
        displaced: None,
        values: Vec::new(),
        warnings: entry.unread.clone(),
        seconds: 0.0,
        error: None,
    }
}

/// What a tool that cannot be called needs, of an environment and of a program alone.
pub(crate) const MADE_ANEW: &str = "`install-all` has made it anew";
pub(crate) const PUT_BACK: &str = "its program is there again";

/// Of a tool that was to be brought up to date: what it was `before`, and what is there `now` of one that failed.
pub(crate) fn tell_what_was_installed(
    ended: &mut EntryReport,
    before: Option<(String, String)>,
    now: impl FnOnce() -> Option<(String, String)>,
    what_is_needed: &str,
) {
    // The version of another tool says nothing of this one.
    let before = before.filter(|(capability, _)| ended.displaced.as_ref() != Some(capability));
    let Some((capability, version)) = before else { return };
    ended.version_before = Some(version);
    if ended.outcome == Outcome::Failed {
        tell_what_is_left(ended, capability, now(), what_is_needed);
    }
}

/// Of a tool that was installed and was to be brought up to date.
fn tell_what_is_left(
    ended: &mut EntryReport,
    capability: String,
    installed: Option<(String, String)>,
    what_is_needed: &str,
) {
    let version = ended.version_before.as_deref().unwrap_or_default();
    ended.warnings.push(match &installed {
        Some((capability, version)) => {
            format!("{capability} {version} stays installed as it was, and can be called")
        }
        None => format!(
            "{capability} {version}, which was installed before, cannot be called until {what_is_needed}"
        ),
    });
    ended.version = installed.map(|(_, version)| version);
    ended.capability = Some(capability);
}

pub(crate) fn failed(entry: &Entry, error: &ErrorReport) -> EntryReport {
    EntryReport { outcome: Outcome::Failed, error: Some(error.clone()), ..blank(entry) }
}
