//! Where a command's words go: results on stdout, all else on stderr; colour only for people who want it. What a
//! terminal would obey is shown, whoever said it; only documents and asked-for bytes go out as they are.

use crate::fault::{self, Fault};
use crate::interrupt::Interrupts;
use crate::lane::{Failed, Lane};
use crate::visible::{one_line, visible, visible_json};
use cjm_platform::stdio::{WriteTo, is_one_file};
use cjm_wire::describe::{Described, ErrorReport, exit};
use serde::Serialize;
use serde_json::Value;
use std::io::{ErrorKind, IsTerminal};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// How long what is queued may still take once the command was to end.
const LAST_WORDS_GRACE: Duration = Duration::from_millis(500);
/// How often it is looked whether anybody still reads.
const READER_INTERVAL: Duration = Duration::from_millis(250);

/// Keys of our documents whose texts name commands.
const KEYS_WITH_COMMANDS: [&str; 2] = ["next_step", "warnings"];

/// Said where standard output takes no more.
const UNWRITTEN: &str = "cannot write to stdout";

/// How this run of the program speaks.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    /// Documents instead of text.
    pub(crate) json: bool,
    /// Nothing on stderr but errors.
    pub(crate) quiet: bool,
    /// A person looks at stdout.
    pub(crate) stdout_tty: bool,
    /// Bars and colours may go to stderr.
    pub(crate) stderr_tty: bool,
    /// Errors may be coloured.
    pub(crate) stderr_color: bool,
    no_color: bool,
    /// `cjm-ctl` with the options that say where, so that a command which is told finds the same things.
    command: Arc<str>,
    out: Lane,
    err: Lane,
    /// When the command is to end, if it has a deadline.
    deadline: Arc<OnceLock<Instant>>,
    /// Why the command failed, as its document on stdout says it, which may never come there.
    in_document: Arc<OnceLock<Box<ErrorReport>>>,
    /// People were told that stdout takes no more.
    told_unwritten: Arc<OnceLock<()>>,
}

impl Output {
    /// From the options, the terminal and `NO_COLOR`.
    pub(crate) fn new(json: bool, quiet: bool) -> Self {
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let stderr_tty = std::io::stderr().is_terminal() && !dumb;
        let out = Lane::default();
        let err = if is_one_file() { out.clone() } else { Lane::default() };
        Self {
            json,
            quiet,
            stdout_tty: std::io::stdout().is_terminal(),
            stderr_tty,
            stderr_color: stderr_tty && !no_color,
            no_color: no_color || dumb,
            command: "cjm-ctl".into(),
            out,
            err,
            deadline: Arc::default(),
            in_document: Arc::default(),
            told_unwritten: Arc::default(),
        }
    }

    /// The same, telling commands as they must be typed here: `cjm-ctl list` where `command` is `cjm-ctl --data-dir D`.
    pub(crate) fn with_command(self, command: &str) -> Self {
        Self { command: command.into(), ..self }
    }

    /// Words of our own with the commands in them as they must be typed here; also one that reads what another one writes.
    pub(crate) fn typed(&self, text: &str) -> String {
        let alone = text.replace("`cjm-ctl ", &format!("`{} ", self.command));
        alone.replace("`… | cjm-ctl ", &format!("`… | {} ", self.command))
    }

    /// A report for a document, with the commands in it as they must be typed.
    pub(crate) fn typed_report(&self, report: &ErrorReport) -> ErrorReport {
        ErrorReport { next_step: self.typed(&report.next_step), ..report.clone() }
    }

    /// The same of all reports and warnings in a document of our own.
    pub(crate) fn typed_document(&self, value: &mut Value) {
        match value {
            Value::Array(items) => items.iter_mut().for_each(|item| self.typed_document(item)),
            Value::Object(fields) => {
                for (key, value) in fields {
                    match KEYS_WITH_COMMANDS.contains(&key.as_str()) {
                        true => self.typed_texts(value),
                        false => self.typed_document(value),
                    }
                }
            }
            _ => {}
        }
    }

    fn typed_texts(&self, value: &mut Value) {
        match value {
            Value::String(text) => *text = self.typed(text),
            Value::Array(items) => items.iter_mut().for_each(|item| self.typed_texts(item)),
            _ => {}
        }
    }

    /// Bars are wanted, and there is a terminal to draw them on.
    pub(crate) fn draws_bars(&self) -> bool {
        self.stderr_tty && !self.quiet
    }

    /// Results may be coloured.
    pub(crate) fn stdout_color(&self) -> bool {
        self.stdout_tty && !self.no_color
    }

    /// A line of words on stdout.
    ///
    /// # Errors
    /// When stdout is closed or full.
    pub(crate) fn line(&self, text: &str) -> Result<(), Fault> {
        self.text(&format!("{}\n", visible(text)))
    }

    /// A line of our own words on stdout, with the commands that it names as they must be typed here.
    ///
    /// # Errors
    /// When stdout is closed or full.
    pub(crate) fn say(&self, text: &str) -> Result<(), Fault> {
        self.line(&self.typed(text))
    }

    /// A result that is text: byte for byte into a file or pipe, shown on a terminal.
    ///
    /// # Errors
    /// When stdout is closed or full.
    pub(crate) fn result(&self, text: &str) -> Result<(), Fault> {
        if self.stdout_tty { self.line(text) } else { self.text(&format!("{text}\n")) }
    }

    /// A result that is one JSON text: as it is, on a terminal with escapes.
    ///
    /// # Errors
    /// When stdout is closed or full.
    pub(crate) fn json_text(&self, text: &str) -> Result<(), Fault> {
        if self.stdout_tty {
            self.text(&format!("{}\n", visible_json(text)))
        } else {
            self.text(&format!("{text}\n"))
        }
    }

    /// Part of a document, as it is.
    ///
    /// # Errors
    /// When stdout is closed or full.
    pub(crate) fn text(&self, text: &str) -> Result<(), Fault> {
        self.out.push(WriteTo::Stdout, text.as_bytes().to_vec()).map_err(|failed| closed(&failed))
    }

    /// One JSON document of our own: in its reports and warnings commands stand as they must be typed here.
    ///
    /// # Errors
    /// When stdout is closed or full.
    pub(crate) fn document(&self, value: &impl Serialize) -> Result<(), Fault> {
        match serde_json::to_value(value) {
            Ok(mut value) => {
                self.typed_document(&mut value);
                self.document_as_it_is(&value)
            }
            Err(_) => self.document_as_it_is(value),
        }
    }

    /// One JSON document that may hold a tool's words: indented for people, on one line for programs. Escapes stand for what
    /// a terminal would obey, which is the same value: a pipe may lead to a terminal.
    ///
    /// # Errors
    /// When stdout is closed or full.
    pub(crate) fn document_as_it_is(&self, value: &impl Serialize) -> Result<(), Fault> {
        let text =
            if self.stdout_tty { serde_json::to_string_pretty(value) } else { serde_json::to_string(value) };
        let text = text.unwrap_or_else(|error| format!("{{\"unwritable\":\"{error}\"}}"));
        self.text(&format!("{}\n", visible_json(&text)))
    }

    /// One JSON document of a stream, always on one line.
    ///
    /// # Errors
    /// When stdout is closed or full.
    pub(crate) fn ndjson(&self, value: &impl Serialize) -> Result<(), Fault> {
        let text = serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned());
        self.text(&format!("{}\n", visible_json(&text)))
    }

    /// Returns when there is room for more: for who makes more than a document. It is waited for as a task waits, so that
    /// signals and deadlines are heard.
    ///
    /// # Errors
    /// When stdout is closed or full.
    pub(crate) async fn room(&self) -> Result<(), Fault> {
        self.out.room().await.map_err(|failed| closed(&failed))
    }

    /// Returns when nobody can read stdout any more: for who may have nothing to say for long.
    pub(crate) async fn reader_left(&self) -> Fault {
        while !WriteTo::Stdout.has_no_reader() {
            tokio::time::sleep(READER_INTERVAL).await;
        }
        Fault::OutputClosed
    }

    /// The command ends at this time, also where its output is not read.
    pub(crate) fn ends_at(&self, deadline: Option<Instant>) {
        if let Some(deadline) = deadline {
            // There is one deadline to a command.
            let _ = self.deadline.set(deadline);
        }
    }

    /// Waits until all is written: for ever, unless the command is to end. Returns the exit code, which is `code` if
    /// nothing else happened.
    pub(crate) async fn finish(&self, code: u8, interrupts: &Interrupts) -> u8 {
        let written = tokio::select! {
            biased;
            written = self.written() => written,
            forced = self.patience(code, interrupts) => return self.give_up(forced).await,
        };
        let Err(failed) = written else { return code };
        let code = self.tell_unwritten(&failed, code);
        let _ = tokio::time::timeout(LAST_WORDS_GRACE, self.err.drained()).await;
        code
    }

    /// [`Self::finish`] before there is anything to end; blocks.
    pub(crate) fn finish_blocking(&self, code: u8) -> u8 {
        let written = self.out.drain_blocking();
        let code = written.map_or_else(|failed| self.tell_unwritten(&failed, code), |()| code);
        // A failure of stderr leaves nobody to tell.
        let _ = self.err.drain_blocking();
        code
    }

    /// Says on stderr that stdout took no more, and what was to be told there of a failure. The exit code is that of a
    /// write that failed, unless people were told of another failure already.
    fn tell_unwritten(&self, failed: &Failed, code: u8) -> u8 {
        let unsaid = self.in_document.get();
        if let Some(report) = unsaid {
            self.error_beside(report);
        }
        let of_writing = match closed(failed) {
            Fault::Shown(mut report) => {
                crate::limits::advise(&mut report);
                let is_told = self.told_unwritten.get().is_some();
                if !is_told && unsaid.is_none_or(|unsaid| unsaid.message != report.message) {
                    self.error_beside(&report);
                }
                report.exit_code
            }
            Fault::OutputClosed => fault::OUTPUT_CLOSED,
        };
        if code == exit::OK || unsaid.is_some() { of_writing } else { code }
    }

    /// Both streams; a failure of stderr leaves nobody to tell.
    async fn written(&self) -> Result<(), Failed> {
        let written = self.out.drained().await;
        let _ = self.err.drained().await;
        written
    }

    /// Returns a moment after the command was to end, with the exit code of that.
    async fn patience(&self, code: u8, interrupts: &Interrupts) -> u8 {
        let deadline = async {
            match self.deadline.get() {
                Some(deadline) => tokio::time::sleep_until((*deadline).into()).await,
                None => std::future::pending().await,
            }
        };
        let forced = tokio::select! {
            biased;
            asked = interrupts.wait() => asked,
            () = deadline => if code == exit::OK { exit::TIMED_OUT } else { code },
        };
        tokio::time::sleep(LAST_WORDS_GRACE).await;
        forced
    }

    /// Leaves what nobody reads, and says so where that can be read.
    async fn give_up(&self, code: u8) -> u8 {
        let lost = self.out.queued_bytes();
        if lost > 0 {
            if let Some(report) = self.in_document.get() {
                self.error_beside(report);
            }
            let fault = Fault::new(
                "ctl.output_not_read",
                format!("the last {lost} bytes of output were given up: nothing read them"),
                "let what reads the output read on, or write it to a file",
            );
            if let Fault::Shown(report) = fault {
                self.error_beside(&report);
            }
            let _ = tokio::time::timeout(LAST_WORDS_GRACE, self.err.drained()).await;
        }
        code
    }

    /// A remark on stderr, unless `--quiet`.
    pub(crate) fn note(&self, text: &str) {
        if !self.quiet {
            self.remark(&visible(text));
        }
    }

    /// A line on stderr that may be left out where nobody reads, with the commands that it names as they must be typed here.
    pub(crate) fn remark(&self, line: &str) {
        self.err.remark(WriteTo::Stderr, format!("{}\n", self.typed(line)).into_bytes());
    }

    /// For the program's own log, whose lines come from any thread.
    pub(crate) fn log_writer(&self) -> impl Fn() -> LogLines + Send + Sync + 'static + use<> {
        let output = self.clone();
        move || LogLines(output.clone())
    }

    /// Part of what is drawn on stderr, as it is.
    pub(crate) fn draw(&self, text: &str) {
        self.err.remark(WriteTo::Stderr, text.as_bytes().to_vec());
    }

    /// Shows a fault where it belongs, and gives the exit code.
    pub(crate) fn show(&self, fault: &Fault) -> u8 {
        let Fault::Shown(report) = fault else { return fault::OUTPUT_CLOSED };
        let mut report = report.clone();
        crate::limits::advise(&mut report);
        if self.json {
            // What stdout does not take is told on stderr once that is known.
            let _ = self.in_document.set(report.clone());
        }
        let report = &self.typed_report(&report);
        if self.json {
            let _ = self.document_as_it_is(&serde_json::json!({ "error": report }));
        } else {
            if report.message == UNWRITTEN {
                let _ = self.told_unwritten.set(());
            }
            self.colored(&fault::text(report, self.stderr_color));
        }
        report.exit_code
    }

    /// On stderr, always. If stderr is closed there is nobody to tell.
    pub(crate) fn error(&self, text: &str) {
        self.colored(&visible(&self.typed(text)));
    }

    /// What is missing for an error that ends nothing, on stderr; `words` stand before those of the error.
    pub(crate) fn warning_of(&self, words: impl std::fmt::Display, error: &dyn Described) {
        let mut report = ErrorReport::of(error);
        crate::limits::advise(&mut report);
        self.error(&format!("warning: {words}: {}\n  next: {}", report.message, report.next_step));
    }

    /// Why a document on stdout is not all of it, on stderr.
    pub(crate) fn error_beside(&self, report: &ErrorReport) {
        self.colored(&self.typed(&fault::text(report, self.stderr_color)));
    }

    /// What went wrong with one of several, on stderr.
    pub(crate) fn error_of(&self, name: &str, report: &ErrorReport) {
        let text = self.typed(&fault::text(report, self.stderr_color));
        self.colored(&format!("\n{}: {text}", one_line(name)));
    }

    /// On stderr, with our own colours in it.
    fn colored(&self, text: &str) {
        let _ = self.err.push(WriteTo::Stderr, format!("{text}\n").into_bytes());
    }
}

/// Lines of the log, as remarks.
pub(crate) struct LogLines(Output);

impl std::io::Write for LogLines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.err.remark(WriteTo::Stderr, bytes.to_vec());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A path in a document. JSON holds nothing but text, so that bytes which are none are shown as U+FFFD; a document that
/// took the path itself would fail on them.
pub(crate) fn path_text(path: impl AsRef<Path>) -> String {
    path.as_ref().to_string_lossy().into_owned()
}

/// In quotes, as the ancestor writes names in its sentences.
pub(crate) fn quoted(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let escaped = text.replace('\\', "\\\\").replace('\n', "\\n");
    let escaped = if quote == '\'' { escaped.replace('\'', "\\'") } else { escaped };
    format!("{quote}{escaped}{quote}")
}

fn closed(failed: &Failed) -> Fault {
    if failed.kind == ErrorKind::BrokenPipe {
        Fault::OutputClosed
    } else {
        let next = match failed.kind {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "see that its disk has space",
            ErrorKind::FileTooLarge => "raise the limit on the size of files (`ulimit -f`)",
            _ => "see where standard output leads to: it may be closed",
        };
        Fault::new("ctl.output", UNWRITTEN, next).caused_by(&failed.cause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn that_stdout_takes_no_more_is_told_once() {
        for (words, is_told) in [(UNWRITTEN, true), ("something else", false)] {
            let output = Output::new(false, true);
            let _ = output.show(&Fault::new("ctl.output", words, "n"));
            assert_eq!(output.told_unwritten.get().is_some(), is_told, "{words}");
        }
    }

    #[test]
    fn what_was_told_nowhere_else_ends_as_the_write_that_failed() {
        let failed = |kind: ErrorKind| Failed { kind, cause: "why".to_owned() };
        let full = || failed(ErrorKind::StorageFull);
        for json in [true, false] {
            let output = Output::new(json, true);
            assert_eq!(output.tell_unwritten(&full(), exit::OK), exit::DOMAIN);
            let code = output.show(&Fault::new("x.y", "m", "n").with_exit(exit::TOOL_FAILED));
            assert_eq!(code, exit::TOOL_FAILED);
            let ends = |kind| output.tell_unwritten(&failed(kind), code);
            let expected = if json { (exit::DOMAIN, fault::OUTPUT_CLOSED) } else { (code, code) };
            assert_eq!((ends(ErrorKind::StorageFull), ends(ErrorKind::BrokenPipe)), expected, "{json}");
        }
    }
}
