//! How a command fails, and how that reads: what, cause, the tool's last lines, next step; the exit code with it.

use cjm_wire::describe::{Described, ErrorReport, exit};

/// What a command ends with: an exit code, or why it could not go on.
pub(crate) type CommandResult = Result<u8, Fault>;

/// Why a command could not go on.
#[derive(Debug)]
pub(crate) enum Fault {
    /// To be shown.
    Shown(Box<ErrorReport>),
    /// Nobody reads our output any more; nothing is to be said about it.
    OutputClosed,
}

impl<E: Described> From<E> for Fault {
    fn from(error: E) -> Self {
        Self::Shown(Box::new(ErrorReport::of(&error)))
    }
}

impl Fault {
    /// A fault of this program's own making.
    pub(crate) fn new(code: &str, message: impl Into<String>, next_step: impl Into<String>) -> Self {
        Self::Shown(Box::new(ErrorReport {
            code: code.to_owned(),
            message: message.into(),
            causes: Vec::new(),
            next_step: next_step.into(),
            stderr_tail: Vec::new(),
            exit_code: exit::DOMAIN,
            details: Box::default(),
        }))
    }

    /// A command line that cannot be understood.
    pub(crate) fn usage(message: impl Into<String>, next_step: impl Into<String>) -> Self {
        Self::new("ctl.usage", message, next_step).with_exit(exit::USAGE)
    }

    /// From a report somebody else made.
    pub(crate) fn from_report(report: ErrorReport) -> Self {
        Self::Shown(Box::new(report))
    }

    /// Adds what was behind it.
    pub(crate) fn caused_by(mut self, cause: &dyn ToString) -> Self {
        if let Self::Shown(report) = &mut self {
            report.causes.push(cause.to_string());
        }
        self
    }

    /// With another exit code.
    pub(crate) fn with_exit(mut self, code: u8) -> Self {
        if let Self::Shown(report) = &mut self {
            report.exit_code = code;
        }
        self
    }
}

/// The report for people, several lines, no final newline.
pub(crate) fn text(report: &ErrorReport, color: bool) -> String {
    let paint = |style: &str, text: &str| {
        if color { format!("\u{1b}[{style}m{text}\u{1b}[0m") } else { text.to_owned() }
    };
    let mut lines = vec![format!("{} {}", paint("1;31", "error:"), indent(&report.message))];
    for cause in &report.causes {
        lines.push(format!("  {} {}", paint("1", "cause:"), indent(cause)));
    }
    if !report.stderr_tail.is_empty() {
        lines.push(format!("  {}", paint("1", "the tool's last lines:")));
        lines.extend(report.stderr_tail.iter().map(|line| format!("    | {line}")));
    }
    lines.push(format!("  {} {}", paint("1", "next:"), indent(&report.next_step)));
    lines.join("\n")
}

/// Further lines of a text below its first.
fn indent(text: &str) -> String {
    text.trim_end().replace('\n', "\n    ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_says_what_why_and_what_next() {
        let mut report = ErrorReport {
            code: "x.y".into(),
            message: "it broke\nin two".into(),
            causes: vec!["a stone".into()],
            next_step: "use glue".into(),
            stderr_tail: vec!["crack".into()],
            exit_code: 12,
            details: Box::default(),
        };
        assert_eq!(
            text(&report, false),
            "error: it broke\n    in two\n  cause: a stone\n  the tool's last lines:\n    | crack\n  next: use glue"
        );
        report.stderr_tail.clear();
        assert!(text(&report, true).starts_with("\u{1b}[1;31merror:\u{1b}[0m it broke"));
    }
}
