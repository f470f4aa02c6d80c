//! How a command fails, and how that reads: what, cause, the traceback's end, the tool's last lines, next step; the exit
//! code with it.

use crate::visible::{one_line, visible};
use cjm_wire::describe::{Described, ErrorDetails, ErrorReport, exit};

/// The command line cannot be understood
const USAGE: &str = "ctl.usage";

/// Exit code when nobody reads our output any more, as a program has that SIGPIPE ends: what was cut is no success.
pub(crate) const OUTPUT_CLOSED: u8 = 128 + 13;
/// Characters of a quoted line that are shown.
const LINE_CHARS_MAX: usize = 1_000;

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
        Self::new(USAGE, message, next_step).with_exit(exit::USAGE)
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

    /// Whether a store could not be written or read, so that troubles of the same kind need not be told again.
    pub(crate) fn is_of_a_store(&self) -> bool {
        matches!(self, Self::Shown(report) if report.exit_code == exit::STORE)
    }

    /// With another exit code, and what that says.
    pub(crate) fn with_exit(mut self, code: u8) -> Self {
        if let Self::Shown(report) = &mut self {
            report.exit_code = code;
            let said = ErrorDetails::of_exit(code);
            report.details.category = report.details.category.or(said.category);
            report.details.retriable = report.details.retriable.or(said.retriable);
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
    let also = report.also_told();
    lines.extend(also.iter().map(|(label, words)| format!("  {} {}", paint("1", label), indent(words))));
    let quoted = |line: &String| format!("    | {}", shortened(&one_line(line), LINE_CHARS_MAX));
    let traceback = report.traceback_end();
    if !traceback.is_empty() {
        lines.push(format!("  {}", paint("1", "the end of its traceback:")));
        lines.extend(traceback.iter().map(quoted));
    }
    if !report.stderr_tail.is_empty() {
        lines.push(format!("  {}", paint("1", "the tool's last lines:")));
        lines.extend(report.stderr_tail.iter().map(quoted));
    }
    lines.push(format!("  {} {}", paint("1", "next:"), indent(&report.next_step)));
    lines.join("\n")
}

/// A line of a tool without its middle, if it is long: it may have megabytes.
pub(crate) fn shortened(line: &str, chars_max: usize) -> String {
    let Some((begin, _)) = line.char_indices().nth(chars_max / 2) else { return line.to_owned() };
    match line.char_indices().rev().nth(chars_max / 2 - 1) {
        Some((end, _)) if end > begin => {
            format!("{} … ({} bytes left out) … {}", &line[..begin], end - begin, &line[end..])
        }
        _ => line.to_owned(),
    }
}

/// Further lines of a text below its first.
fn indent(text: &str) -> String {
    visible(text.trim_end()).replace('\n', "\n    ")
}

/// The present directory.
///
/// # Errors
/// When it is gone.
pub(crate) fn current_dir() -> Result<std::path::PathBuf, Fault> {
    std::env::current_dir().map_err(|error| {
        Fault::new("ctl.directory", "the present directory cannot be used", "change into another one")
            .caused_by(&error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_line_loses_its_middle_and_a_group_of_exceptions_is_shown() {
        let mut report = ErrorReport::new("x.y", "m", "n", 12);
        report.stderr_tail = vec![format!("begin{}end", "x".repeat(1_000_000)), "é".repeat(999)];
        report.details.traceback = [
            "  + Exception Group Traceback (most recent call last):",
            "  |   File \"t.py\", line 7, in go",
            "  | ExceptionGroup: both (1 sub-exception)",
            "  +-+---------------- 1 ----------------",
            "    | ValueError: a",
        ]
        .map(str::to_owned)
        .into();
        let shown = text(&report, false);
        assert!(shown.len() < 8_000, "{} bytes", shown.len());
        assert!(
            shown.contains("    | begin") && shown.contains("xend") && shown.contains("bytes left out"),
            "{shown}"
        );
        assert!(shown.contains(&"é".repeat(999)), "{shown}");
        assert!(shown.contains("line 7, in go") && shown.contains("ValueError: a"), "{shown}");
    }

    #[test]
    fn a_failure_of_a_tool_shows_the_end_of_its_traceback_and_no_escape_is_obeyed() {
        let mut report = ErrorReport::new("x.y", "\u{1b}]0;t\u{7}", "go\rback", 12);
        report.stderr_tail = vec!["\u{1b}[2J".into()];
        report.details.traceback = (0..9)
            .map(|number| format!("  File \"t.py\", line {number}"))
            .chain(["KeyError: 'x'".into()])
            .collect();
        let shown = text(&report, false);
        assert!(
            shown.contains("    | KeyError: 'x'") && shown.contains("line 4") && !shown.contains("line 3"),
            "{shown}"
        );
        assert!(shown.contains("\\x1b[2J") && shown.contains("go\\rback"), "{shown}");
        assert!(!shown.contains(['\u{1b}', '\u{7}', '\r']), "{shown:?}");
        report.details.fields_invalid = Some(vec!["a".into()]);
        assert!(!text(&report, false).contains("traceback"), "the words say it all");
    }

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
