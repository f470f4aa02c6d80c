//! What every error of the product must be able to say of itself, and the exit codes of `cjm-ctl`.
//! Public text lives here; details for a log stay in each error's `Debug`.

use crate::cut::without_middle;
use crate::error::{ErrorCategory, JobError, ResourceShortfall};
use crate::ids::{JobId, RunId};
use crate::raised;
use serde::{Deserialize, Serialize};

/// Exit codes of `cjm-ctl`. 0, 1 and 2 are the ancestor's; further ones start at 10. Ended by a signal: 128+n.
pub mod exit {
    /// All went well.
    pub const OK: u8 = 0;
    /// The request could not be met: bad input files, unknown names, failed entries.
    pub const DOMAIN: u8 = 1;
    /// The command line itself is wrong.
    pub const USAGE: u8 = 2;
    /// A worker could not be started or did not become ready.
    pub const WORKER_START: u8 = 10;
    /// A worker died while it worked.
    pub const WORKER_DIED: u8 = 11;
    /// The tool ran and reported a failure.
    pub const TOOL_FAILED: u8 = 12;
    /// A deadline passed.
    pub const TIMED_OUT: u8 = 13;
    /// The work was cancelled.
    pub const CANCELLED: u8 = 14;
    /// Another host owns the data directory, or an installation is at work there: later it may work.
    pub const DIRECTORY_IN_USE: u8 = 15;
    /// A composition ran and did not complete.
    pub const COMPOSITION_FAILED: u8 = 16;
    /// A store refused to read or write, or the disk had no room for a call.
    pub const STORE: u8 = 17;
}

/// An error that can be shown to a person: a stable code, what happened (`Display`), the causes (`source`),
/// and what to do next.
pub trait Described: std::error::Error {
    /// Stable, dotted, lower case: `manifest.malformed`. Scripts may match on it.
    fn code(&self) -> &'static str;
    /// What the reader should do now; never empty.
    fn next_step(&self) -> String;
    /// Exit code of `cjm-ctl` for this error.
    fn exit_code(&self) -> u8 {
        exit::DOMAIN
    }
    /// Last lines of the tool's standard error, newest last; empty when no tool is involved.
    fn stderr_tail(&self) -> Vec<String> {
        Vec::new()
    }
    /// What else is known of it: whose it is, whether trying again helps, the tool's exception.
    fn details(&self) -> ErrorDetails {
        ErrorDetails::of_exit(self.exit_code())
    }
}

/// A time for people: to a tenth of a second above one, and to three digits below, so that the same time reads the same
/// everywhere.
#[derive(Debug, Clone, Copy)]
pub struct Seconds(pub std::time::Duration);

impl Seconds {
    /// Of a number of seconds; one that is no time is told as none.
    #[must_use]
    pub fn of(seconds: f64) -> Self {
        Self(std::time::Duration::try_from_secs_f64(seconds).unwrap_or_default())
    }
}

impl std::fmt::Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seconds = self.0.as_secs_f64();
        let text = if seconds < 1.0 { format!("{seconds:.3}") } else { format!("{seconds:.1}") };
        write!(f, "{} s", text.trim_end_matches('0').trim_end_matches('.'))
    }
}

/// Most lines of a traceback in a report: the last ones, which say what and where.
pub const TRACEBACK_LINES_MAX: usize = 20;
/// Longest line of a traceback in a report, in bytes, but for the mark of a cut.
pub const TRACEBACK_LINE_BYTES_MAX: usize = 1_000;

/// Lines of a traceback that people are shown: the last frames, and what was raised.
const TRACEBACK_LINES_SHOWN: usize = 6;
/// Where the frames of the Python SDK lie.
const SDK_FOLDER: &str = "/cjm_sdk/";

/// What an error says of itself besides its words, in one place: an enum answers it with one match, and
/// [`Described`] from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// See [`Described::code`].
    pub code: &'static str,
    /// See [`Described::exit_code`].
    pub exit_code: u8,
    /// See [`Described::next_step`].
    pub next_step: String,
}

impl Facts {
    /// Of a case with these.
    #[must_use]
    pub fn new(code: &'static str, exit_code: u8, next_step: impl Into<String>) -> Self {
        Self { code, exit_code, next_step: next_step.into() }
    }

    /// Of an error that another one only passes on.
    #[must_use]
    pub fn of(error: &dyn Described) -> Self {
        Self { code: error.code(), exit_code: error.exit_code(), next_step: error.next_step() }
    }

    /// With another exit code.
    #[must_use]
    pub fn with_exit(self, exit_code: u8) -> Self {
        Self { exit_code, ..self }
    }
}

/// An error as it leaves the process: what `--json` prints under `error`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ErrorReport {
    /// See [`Described::code`].
    pub code: String,
    /// What happened.
    pub message: String,
    /// Causes, outermost first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<String>,
    /// What to do next.
    pub next_step: String,
    /// See [`Described::stderr_tail`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stderr_tail: Vec<String>,
    /// See [`Described::exit_code`].
    pub exit_code: u8,
    /// What else is known; its keys stand beside the others.
    #[serde(flatten)]
    pub details: Box<ErrorDetails>,
}

/// What is known of some errors only. A key without a value stays away.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ErrorDetails {
    /// Who can do something about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<ErrorCategory>,
    /// Whether the same call may be tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retriable: Option<bool>,
    /// Seconds the tool asks to wait before that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_seconds: Option<f64>,
    /// Names of the arguments that were wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fields_invalid: Option<Vec<String>>,
    /// What ran short.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_shortfall: Option<ResourceShortfall>,
    /// Class of the tool's exception, such as `KeyError`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exception: Option<String>,
    /// Last lines of its traceback.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub traceback: Vec<String>,
    /// Class and words of the exceptions that this one was raised from, or while it was dealt with them; the nearest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub raised_after: Vec<String>,
    /// Class and words of the exceptions that this one groups: the first few, and how many there are besides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<String>,
    /// The job that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_id: Option<JobId>,
    /// The run it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<RunId>,
    /// The node of a composition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The element of a mapped node, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub element: Option<usize>,
}

impl ErrorDetails {
    /// What an exit code says by itself: a directory is free again later, and more time or a quieter hour may be enough.
    #[must_use]
    pub fn of_exit(exit_code: u8) -> Self {
        match exit_code {
            exit::DIRECTORY_IN_USE | exit::TIMED_OUT => {
                Self { category: Some(ErrorCategory::Transient), retriable: Some(true), ..Self::default() }
            }
            _ => Self::default(),
        }
    }

    /// What the wire's failure object says.
    #[must_use]
    pub fn of(error: &JobError) -> Self {
        Self {
            category: Some(error.category),
            retriable: Some(error.retriable),
            retry_after_seconds: error.retry_after_seconds,
            fields_invalid: error.fields_invalid.clone(),
            resource_shortfall: error.resource_shortfall,
            exception: error.exception_class().map(str::to_owned),
            traceback: error.traceback.as_deref().map(last_lines).unwrap_or_default(),
            raised_after: error.traceback.as_deref().map(raised::before_the_last).unwrap_or_default(),
            members: error.traceback.as_deref().map(raised::members).unwrap_or_default(),
            ..Self::default()
        }
    }
}

/// Longest chain of causes that is followed.
const CAUSES_MAX: usize = 8;

impl ErrorReport {
    /// A report of no particular error type.
    #[must_use]
    pub fn new(
        code: impl Into<String>,
        message: impl Into<String>,
        next_step: impl Into<String>,
        exit_code: u8,
    ) -> Self {
        Self {
            code: code.into(),
            message: message.into(),
            causes: Vec::new(),
            next_step: next_step.into(),
            stderr_tail: Vec::new(),
            exit_code,
            details: Box::default(),
        }
    }

    /// Collects what `error` says of itself.
    #[must_use]
    pub fn of(error: &dyn Described) -> Self {
        let message = error.to_string();
        let mut causes = Vec::new();
        let mut source = error.source();
        while let Some(cause) = source.filter(|_| causes.len() < CAUSES_MAX) {
            let text = cause.to_string();
            // A message that already quotes its cause would say it twice.
            if !message.contains(&text) && !causes.iter().any(|known: &String| known.contains(&text)) {
                causes.push(text);
            }
            source = cause.source();
        }
        let report = Self::new(error.code(), message, error.next_step(), error.exit_code());
        let (stderr_tail, mut details) = (error.stderr_tail(), Box::new(error.details()));
        if is_output(&details.traceback, &stderr_tail) {
            details.traceback.clear();
        }
        Self { causes, stderr_tail, details, ..report }
    }

    /// With what the wire's failure object says.
    #[must_use]
    pub fn with_job_error(mut self, error: &JobError) -> Self {
        let ErrorDetails { job_id, run_id, node, element, .. } = *self.details;
        self.details = Box::new(ErrorDetails { job_id, run_id, node, element, ..ErrorDetails::of(error) });
        self
    }

    /// The last lines of the traceback, where they help: none where the words of the failure are all there is to know.
    #[must_use]
    pub fn traceback_end(&self) -> &[String] {
        let ErrorDetails { traceback, fields_invalid, .. } = &*self.details;
        // Frames of the SDK alone tell nothing about the tool.
        // Those of a group of exceptions stand behind a frame of lines.
        let is_tools = |line: &String| {
            line.trim_start_matches([' ', '|', '+', '-']).starts_with("File \"") && !line.contains(SDK_FOLDER)
        };
        if !traceback.iter().any(is_tools) || fields_invalid.as_ref().is_some_and(|fields| !fields.is_empty())
        {
            return &[];
        }
        &traceback[traceback.len().saturating_sub(TRACEBACK_LINES_SHOWN)..]
    }

    /// What else people are told of it, each with its label: what ran short, the exceptions that
    /// it groups, and those before it.
    #[must_use]
    pub fn also_told(&self) -> Vec<(&'static str, String)> {
        let mut told = Vec::new();
        if let Some(ResourceShortfall { resource, needed, available }) = self.details.resource_shortfall {
            let of = |words: &str, number: Option<f64>| number.map(|number| format!("{number} MB {words}"));
            let numbers = [of("needed", needed), of("available", available)].into_iter().flatten();
            let numbers = numbers.collect::<Vec<_>>().join(", ");
            if !numbers.is_empty() {
                told.push(("short of:", format!("{}: {numbers}", resource.for_people())));
            }
        }
        // Its members may have no frames, and stand beyond the end of the traceback that is shown.
        told.extend(self.details.members.iter().map(|member| ("of its group:", member.clone())));
        if !self.traceback_end().is_empty() {
            told.extend(self.details.raised_after.iter().map(|raised| ("raised after:", raised.clone())));
        }
        told
    }

    /// With the job it is about, and that job's run.
    #[must_use]
    pub fn of_job(mut self, job_id: JobId, run_id: Option<RunId>) -> Self {
        self.details.job_id = Some(job_id);
        self.details.run_id = run_id;
        self
    }

    /// With its place in a composition.
    #[must_use]
    pub fn at_node(mut self, node: impl Into<String>, element: Option<usize>) -> Self {
        self.details.node = Some(node.into());
        self.details.element = element;
        self
    }
}

/// Whether what stands in the place of a traceback is the output of a failed program, which is told as that.
fn is_output(traceback: &[String], stderr_tail: &[String]) -> bool {
    let is_frame = |line: &String| line.trim_start_matches([' ', '|', '+', '-']).starts_with("File \"");
    !traceback.iter().any(is_frame) && last_lines(&stderr_tail.join("\n")).ends_with(traceback)
}

fn last_lines(traceback: &str) -> Vec<String> {
    let lines: Vec<&str> = traceback.trim_end().lines().collect();
    let last = &lines[lines.len().saturating_sub(TRACEBACK_LINES_MAX)..];
    last.iter().map(|line| without_middle(line, TRACEBACK_LINE_BYTES_MAX).into_owned()).collect()
}

/// A word as a shell reads it back.
#[must_use]
pub fn shell_word(text: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+:@%,=".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Resource;

    #[test]
    fn what_may_be_tried_again_follows_from_the_exit_code() {
        let again = (Some(ErrorCategory::Transient), Some(true));
        for (code, known) in
            [(exit::DIRECTORY_IN_USE, again), (exit::TIMED_OUT, again), (exit::DOMAIN, (None, None))]
        {
            let details = ErrorDetails::of_exit(code);
            assert_eq!((details.category, details.retriable), known, "{code}");
        }
    }

    #[test]
    fn a_time_reads_the_same_whoever_tells_it() {
        for (seconds, told) in [
            (2.0, "2 s"),
            (1.980_047_813, "2 s"),
            (1.5, "1.5 s"),
            (0.7, "0.7 s"),
            (0.0214, "0.021 s"),
            (100.0, "100 s"),
            (-1.0, "0 s"),
        ] {
            assert_eq!(Seconds::of(seconds).to_string(), told);
        }
    }

    fn report_of(traceback: &str) -> ErrorReport {
        let mut error = JobError::new(ErrorCategory::Fatal, "m");
        error.traceback = Some(traceback.to_owned());
        ErrorReport::new("call.tool_failed", "failed", "look", exit::TOOL_FAILED).with_job_error(&error)
    }

    fn raised(class: &str) -> String {
        let frame = "  File \"t.py\", line 7, in go\n    raise it\n";
        format!("Traceback (most recent call last):\n{frame}{class}\n")
    }

    #[test]
    fn what_a_program_said_last_is_no_traceback_and_every_other_is() {
        let traceback = raised("KeyError: 'x'");
        let of_a_group = traceback.replace("  File", "  |   File");
        let long = format!("{}{}\n", "line\n".repeat(2 * TRACEBACK_LINES_MAX), "x".repeat(5_000));
        for (left, stderr, is_traceback) in [
            ("half\nwhole\n", "half\nwhole", false),
            ("whole\n", "half\nwhole", false),
            (long.as_str(), long.as_str(), false),
            // A tool may say on its error stream what it raises.
            (&traceback, &traceback, true),
            (&of_a_group, &of_a_group, true),
            // Said by something else, or by nobody.
            ("whole\n", "half", true),
            ("half\n", "half\nwhole", true),
            ("whole\n", "", true),
        ] {
            let stderr_tail: Vec<String> = stderr.lines().map(str::to_owned).collect();
            assert_eq!(!is_output(&last_lines(left), &stderr_tail), is_traceback, "{left:?} {stderr:?}");
        }
    }

    #[test]
    fn people_are_told_of_a_chain_and_of_a_group() {
        let words = "The above exception was the direct cause of the following exception:";
        let chain =
            [raised("KeyError: 'x'"), raised("RuntimeError: cannot load")].join(&format!("\n{words}\n\n"));
        assert_eq!(report_of(&chain).also_told(), [("raised after:", "KeyError: 'x'".to_owned())]);
        let after = "    +---------------- ... ----------------\n".repeat(2 * TRACEBACK_LINES_MAX);
        let group = "  + Exception Group Traceback (most recent call last):\n  |   File \"t.py\", line 7, in go\n  | \
                     ExceptionGroup: many (1 sub-exception)\n  +-+---------------- 1 ----------------\n    | \
                     ValueError: 0\n    +------------------------------------\n";
        for group in [group.to_owned(), format!("{group}{after}")] {
            assert_eq!(report_of(&group).also_told(), [("of its group:", "ValueError: 0".to_owned())]);
        }
        assert_eq!(report_of(&raised("KeyError: 'x'")).also_told(), []);
    }

    #[test]
    fn of_a_long_line_the_end_is_kept_and_what_is_missing_is_counted() {
        let report = report_of(&raised(&format!("ValueError: {}END", "é".repeat(20_000))));
        let last = report.traceback_end().last().expect("a line").clone();
        assert!(last.starts_with("ValueError: é") && last.ends_with("éEND"), "{last}");
        let kept = last.chars().filter(|letter| *letter == 'é').count();
        assert!(last.contains(&format!("[{} bytes dropped here]", 2 * (20_000 - kept))), "{last}");
        // What its tool has left out already counts as well, and its mark is not cut.
        let line =
            format!("ValueError: {}{}END", "x".repeat(480), crate::cut::mark(5_000) + &"z".repeat(20_000));
        let report = report_of(&raised(&line));
        let last = report.traceback_end().last().expect("a line");
        let told: Vec<usize> = crate::cut::cuts(last).map(|cut| cut.dropped).collect();
        let kept = last.matches(['x', 'z']).count();
        assert_eq!(told, [480 + 5_000 + 20_000 - kept], "{last}");
    }

    #[test]
    fn what_ran_short_is_told_with_its_numbers() {
        let mut report = report_of("");
        let shortfall =
            |needed, available| ResourceShortfall { resource: Resource::GpuVram, needed, available };
        for (shortfall, told) in [
            (shortfall(Some(9000.0), Some(10.5)), Some("GPU memory: 9000 MB needed, 10.5 MB available")),
            (shortfall(Some(9000.0), None), Some("GPU memory: 9000 MB needed")),
            (shortfall(None, None), None),
        ] {
            report.details.resource_shortfall = Some(shortfall);
            let expected: Vec<_> = told.iter().map(|told| ("short of:", (*told).to_owned())).collect();
            assert_eq!(report.also_told(), expected);
        }
    }

    #[test]
    fn a_report_says_of_a_tools_failure_what_the_wire_said_and_nothing_that_is_not_known() {
        let mut error = JobError::new(ErrorCategory::UserInput, "'nokey'");
        error.original_exc_repr = "KeyError('nokey')".to_owned();
        let lines: Vec<String> = (0..30).map(|line| format!("  line {line}")).collect();
        error.traceback = Some(format!("Traceback:\n{}\nKeyError: 'nokey'\n", lines.join("\n")));
        error.retry_after_seconds = Some(1.5);
        error.fields_invalid = Some(vec!["key".to_owned()]);
        let bare = ErrorReport::new("call.tool_failed", "failed", "look", exit::TOOL_FAILED);
        assert_eq!(
            serde_json::to_string(&bare).expect("writes"),
            r#"{"code":"call.tool_failed","message":"failed","next_step":"look","exit_code":12}"#
        );
        let report = bare
            .with_job_error(&error)
            .of_job(JobId::from_text("J"), Some(RunId::from_text("R")))
            .at_node("n", Some(3));
        let value = serde_json::to_value(&report).expect("writes");
        let expected = serde_json::json!({
            "code": "call.tool_failed", "message": "failed", "next_step": "look", "exit_code": 12,
            "category": "user_input", "retriable": true, "retry_after_seconds": 1.5, "fields_invalid": ["key"],
            "exception": "KeyError", "traceback": value["traceback"],
            "job_id": "J", "run_id": "R", "node": "n", "element": 3,
        });
        assert_eq!(value, expected);
        let traceback = value["traceback"].as_array().expect("lines");
        assert_eq!((traceback.len(), &traceback[19]), (TRACEBACK_LINES_MAX, &"KeyError: 'nokey'".into()));
        assert_eq!(serde_json::from_value::<ErrorReport>(value).expect("reads"), report);
        // What an earlier version wrote.
        let old = r#"{"code":"c.d","message":"m","next_step":"n","exit_code":1}"#;
        assert_eq!(serde_json::from_str::<ErrorReport>(old).expect("reads").details, Box::default());
    }
}
