//! What is known of the ancestor's worker: where it does not do what its own documents and hosts expect, by running it.
//! A check that fails and stands here is a known defect and not a failure; one that passes is reported as gone.

/// One of them.
#[derive(Debug, Clone, Copy)]
pub struct Defect {
    /// The check.
    pub check: &'static str,
    /// The releases it was seen in.
    pub releases: &'static [&'static str],
    /// What happens there.
    pub reason: &'static str,
}

/// The releases that were looked at.
pub const RELEASES: [&str; 2] = ["0.0.51", "0.0.74"];

/// All that are known.
pub const DEFECTS: &[Defect] = &[
    Defect {
        check: "health.busy",
        releases: &RELEASES,
        reason: "initialize and reconfigure run on the thread that serves, so nothing answers meanwhile",
    },
    Defect {
        check: "cancel.one_call",
        releases: &RELEASES,
        reason: "the cancel flag belongs to the instance: every running call stops, whatever job is named",
    },
    Defect {
        check: "progress.new_call",
        releases: &RELEASES,
        reason: "progress is an attribute of the instance that no new call resets",
    },
    Defect {
        check: "accounts.forged",
        releases: &RELEASES,
        reason: "any event type is accounted for, so a worker can forge rows of its host's journal",
    },
    Defect {
        check: "stream.abandoned",
        releases: &RELEASES,
        reason: "the generator of a stream nobody reads is dropped without a word to the tool, which works on",
    },
];

/// The defect of a release that this check meets.
#[must_use]
pub fn defect(check: &str, release: &str) -> Option<&'static Defect> {
    DEFECTS.iter().find(|defect| defect.check == check && defect.releases.contains(&release))
}
