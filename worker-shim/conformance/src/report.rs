//! What came of the checks, for people and for programs.

use crate::checks::Check;
use crate::known;
use serde::Serialize;
use serde_json::{Value, json};
use std::fmt::Write as _;

/// What came of one check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// As the contract says.
    Pass,
    /// Not as the contract says.
    Fail,
    /// Not as the contract says, as is known of this release.
    KnownDefect,
    /// It could not be made with this worker.
    Skipped,
}

/// One check that was made, or skipped.
#[derive(Debug, Clone, Serialize)]
pub struct Checked {
    /// Stable: `stream.failure`.
    pub id: &'static str,
    /// Section of `CONTRACT.md`.
    pub section: &'static str,
    /// What the contract says, shortened.
    pub says: &'static str,
    /// What came of it.
    pub verdict: Verdict,
    /// What the worker did, or why the check was skipped.
    pub seen: String,
    /// Why a defect is known, or that one which was known is gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// All of them.
#[derive(Debug, Clone)]
pub struct Report {
    /// What `/health` said.
    pub worker: Value,
    /// Whether its tool is the fixture.
    pub fixture: bool,
    /// In the order in which they were made.
    pub checks: Vec<Checked>,
}

impl Checked {
    pub(crate) fn of(check: &Check, verdict: Verdict, seen: String, release: Option<&str>) -> Self {
        let known = release.and_then(|release| known::defect(check.id, release));
        let (verdict, note) = match (verdict, known) {
            (Verdict::Fail, Some(defect)) => (Verdict::KnownDefect, Some(defect.reason.to_owned())),
            (Verdict::Pass, Some(_)) => {
                (Verdict::Pass, Some("listed as a known defect, and gone".to_owned()))
            }
            (verdict, _) => (verdict, None),
        };
        Self { id: check.id, section: check.section, says: check.says, verdict, seen, note }
    }
}

impl Report {
    /// Ids of the checks with this verdict.
    #[must_use]
    pub fn ids(&self, verdict: Verdict) -> Vec<&'static str> {
        self.checks.iter().filter(|check| check.verdict == verdict).map(|check| check.id).collect()
    }

    /// Whether nothing failed but what is known.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.checks.iter().all(|check| check.verdict != Verdict::Fail)
    }

    /// One document for programs.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let count = |verdict| self.ids(verdict).len();
        json!({
            "worker": self.worker,
            "fixture": self.fixture,
            "good": self.is_good(),
            "summary": {
                "pass": count(Verdict::Pass), "fail": count(Verdict::Fail),
                "known-defect": count(Verdict::KnownDefect), "skipped": count(Verdict::Skipped),
            },
            "checks": self.checks,
        })
    }

    /// Lines for people: failures with all that was seen, the rest one line each.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for check in &self.checks {
            let mark = match check.verdict {
                Verdict::Pass => "pass ",
                Verdict::Fail => "FAIL ",
                Verdict::KnownDefect => "known",
                Verdict::Skipped => "skip ",
            };
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{mark} {:<22} {:<5} {}", check.id, check.section, check.says);
            if matches!(check.verdict, Verdict::Fail | Verdict::KnownDefect | Verdict::Skipped) {
                let _ = writeln!(text, "      {}", check.seen);
            }
            if let Some(note) = &check.note {
                let _ = writeln!(text, "      {note}");
            }
        }
        let count = |verdict| self.ids(verdict).len();
        let _ = writeln!(
            text,
            "\n{} passed, {} failed, {} known defects, {} skipped{}",
            count(Verdict::Pass),
            count(Verdict::Fail),
            count(Verdict::KnownDefect),
            count(Verdict::Skipped),
            if self.fixture {
                ""
            } else {
                " (the tool is not the fixture: only what can be read was checked)"
            }
        );
        text
    }
}
