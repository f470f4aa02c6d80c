//! Where a command's words go: results on stdout, all else on stderr; colour only for people who want it. What a
//! terminal would obey is shown, whoever said it; only documents and asked-for bytes go out as they are.

use crate::fault::{self, Fault};
use crate::visible::{visible, visible_json};
use serde::Serialize;
use std::io::{IsTerminal, Write};
use std::path::Path;

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
}

impl Output {
    /// From the options, the terminal and `NO_COLOR`.
    pub(crate) fn new(json: bool, quiet: bool) -> Self {
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let stderr_tty = std::io::stderr().is_terminal() && !dumb;
        Self {
            json,
            quiet,
            stdout_tty: std::io::stdout().is_terminal(),
            stderr_tty,
            stderr_color: stderr_tty && !no_color,
        }
    }

    /// Bars are wanted, and there is a terminal to draw them on.
    pub(crate) fn draws_bars(&self) -> bool {
        self.stderr_tty && !self.quiet
    }

    /// A line of words on stdout.
    ///
    /// # Errors
    /// When stdout is closed or full.
    pub(crate) fn line(&self, text: &str) -> Result<(), Fault> {
        self.text(&format!("{}\n", visible(text)))
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
        written(std::io::stdout().lock().write_all(text.as_bytes()))
    }

    /// One JSON document: indented for people, on one line for programs. Escapes stand for what a terminal would obey, which
    /// is the same value: a pipe may lead to a terminal.
    ///
    /// # Errors
    /// When stdout is closed or full.
    pub(crate) fn document(&self, value: &impl Serialize) -> Result<(), Fault> {
        let text =
            if self.stdout_tty { serde_json::to_string_pretty(value) } else { serde_json::to_string(value) };
        let text = text.unwrap_or_else(|error| format!("{{\"unwritable\":\"{error}\"}}"));
        self.text(&format!("{}\n", visible_json(&text)))
    }

    /// One JSON document of a stream, always on one line, out at once.
    ///
    /// # Errors
    /// When stdout is closed or full.
    pub(crate) fn ndjson(&self, value: &impl Serialize) -> Result<(), Fault> {
        let text = serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned());
        self.text(&format!("{}\n", visible_json(&text)))?;
        self.flush()
    }

    /// Everything written so far is out.
    ///
    /// # Errors
    /// When stdout is closed or full.
    pub(crate) fn flush(&self) -> Result<(), Fault> {
        written(std::io::stdout().flush())
    }

    /// A remark on stderr, unless `--quiet`.
    pub(crate) fn note(&self, text: &str) {
        if !self.quiet {
            self.error(text);
        }
    }

    /// Shows a fault where it belongs, and gives the exit code.
    pub(crate) fn show(&self, fault: &Fault) -> u8 {
        let Fault::Shown(report) = fault else { return fault::OUTPUT_CLOSED };
        if self.json {
            // If stdout is closed there is nobody left to tell.
            let _ = self.document(&serde_json::json!({ "error": report }));
        } else {
            self.colored(&fault::text(report, self.stderr_color));
        }
        report.exit_code
    }

    /// On stderr, always. If stderr is closed there is nobody to tell.
    pub(crate) fn error(&self, text: &str) {
        self.colored(&visible(text));
    }

    /// On stderr, with our own colours in it.
    fn colored(&self, text: &str) {
        let _ = writeln!(std::io::stderr().lock(), "{text}");
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

fn written(result: std::io::Result<()>) -> Result<(), Fault> {
    result.map_err(|error| {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            Fault::OutputClosed
        } else {
            Fault::new("ctl.output", "cannot write to stdout", "see that its disk has space")
                .caused_by(&error)
        }
    })
}
