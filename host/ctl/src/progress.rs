//! Live progress on stderr: bars for people at a terminal, plain lines otherwise, nothing when `--quiet`. It only
//! shows what it is told.

use crate::output::Output;
use crate::visible::{one_line, visible};
use cjm_platform::stdio::WriteTo;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle, TermLike};
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How often bars are drawn at most.
const FRAMES_PER_SECOND: u8 = 20;
/// How often a spinner moves.
const TICK: Duration = Duration::from_millis(120);
/// Longest message beside a bar, in characters.
const MESSAGE_CHARS_MAX: usize = 60;

/// Several lines of progress, one below the other.
#[derive(Debug)]
pub(crate) struct Board {
    output: Output,
    bars: MultiProgress,
    width: usize,
    lines: bool,
}

/// One of them.
#[derive(Debug)]
pub(crate) struct Row {
    output: Output,
    bar: ProgressBar,
    name: String,
    lines: bool,
}

impl Board {
    /// A board for rows with these names.
    pub(crate) fn new<'a>(output: &Output, names: impl IntoIterator<Item = &'a str>) -> Self {
        let target = if output.draws_bars() { Canvas::target(output) } else { ProgressDrawTarget::hidden() };
        Self {
            output: output.clone(),
            bars: MultiProgress::with_draw_target(target),
            width: names.into_iter().map(|name| name.chars().count()).max().unwrap_or(0),
            lines: !output.draws_bars() && !output.quiet,
        }
    }

    /// Adds a row below the others, with `total` steps (0: not known yet).
    pub(crate) fn row(&self, name: &str, total: u64) -> Row {
        let bar = self.bars.add(ProgressBar::new(total));
        bar.set_style(style(total > 0));
        bar.set_prefix(format!("{:width$}", one_line(name), width = self.width));
        bar.set_message("waiting");
        Row { output: self.output.clone(), bar, name: name.to_owned(), lines: self.lines }
    }

    /// A line above all rows.
    pub(crate) fn say(&self, text: &str) {
        if self.lines {
            self.output.remark(&visible(text));
        } else {
            // Fails only when the terminal is gone.
            let _ = self.bars.println(visible(text));
        }
    }

    /// Takes all rows off the terminal.
    pub(crate) fn clear(&self) {
        // Fails only when the terminal is gone.
        let _ = self.bars.clear();
    }
}

impl Row {
    /// The row moves from now on.
    pub(crate) fn start(&self) {
        self.bar.enable_steady_tick(TICK);
    }

    /// How far, of how many.
    pub(crate) fn at(&self, done: u64, total: u64) {
        if self.bar.length() != Some(total) {
            self.bar.set_length(total);
            self.bar.set_style(style(total > 0));
        }
        self.bar.set_position(done);
    }

    /// What is being done, beside the bar only.
    pub(crate) fn detail(&self, text: &str) {
        self.bar.set_message(shortened(text));
    }

    /// What is being done: beside the bar, or on a line of its own.
    pub(crate) fn say(&self, text: &str) {
        self.detail(text);
        if self.lines {
            self.output.remark(&visible(&format!("{}: {text}", self.name)));
        }
    }

    /// The last word on this row.
    pub(crate) fn finish(&self, text: &str) {
        self.bar.disable_steady_tick();
        self.bar.finish_with_message(shortened(text));
        if self.lines {
            self.output.remark(&visible(&format!("{}: {text}", self.name)));
        }
    }
}

/// Where bars are drawn: as all our words on stderr, so that nobody who moves a bar waits for the terminal.
#[derive(Debug)]
struct Canvas {
    output: Output,
    /// A frame is queued as a whole, so that it is drawn or left out as a whole.
    frame: Mutex<String>,
}

impl Canvas {
    fn target(output: &Output) -> ProgressDrawTarget {
        let canvas = Self { output: output.clone(), frame: Mutex::default() };
        ProgressDrawTarget::term_like_with_hz(Box::new(canvas), FRAMES_PER_SECOND)
    }

    fn size() -> (u16, u16) {
        WriteTo::Stderr.terminal_size().unwrap_or((80, 24))
    }

    fn add(&self, text: &str) -> io::Result<()> {
        self.frame.lock().unwrap_or_else(PoisonError::into_inner).push_str(text);
        Ok(())
    }

    fn moved(&self, by: usize, direction: char) -> io::Result<()> {
        if by == 0 { Ok(()) } else { self.add(&format!("\u{1b}[{by}{direction}")) }
    }
}

impl TermLike for Canvas {
    fn width(&self) -> u16 {
        Self::size().0
    }

    fn height(&self) -> u16 {
        Self::size().1
    }

    fn move_cursor_up(&self, by: usize) -> io::Result<()> {
        self.moved(by, 'A')
    }

    fn move_cursor_down(&self, by: usize) -> io::Result<()> {
        self.moved(by, 'B')
    }

    fn move_cursor_right(&self, by: usize) -> io::Result<()> {
        self.moved(by, 'C')
    }

    fn move_cursor_left(&self, by: usize) -> io::Result<()> {
        self.moved(by, 'D')
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        self.add(text)?;
        self.add("\n")
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.add(text)
    }

    fn clear_line(&self) -> io::Result<()> {
        self.add("\r\u{1b}[2K")
    }

    fn flush(&self) -> io::Result<()> {
        let frame = std::mem::take(&mut *self.frame.lock().unwrap_or_else(PoisonError::into_inner));
        if !frame.is_empty() {
            self.output.draw(&frame);
        }
        Ok(())
    }
}

fn style(with_bar: bool) -> ProgressStyle {
    let template =
        if with_bar { "{prefix} {bar:20} {pos:>3}/{len:<3} {msg}" } else { "{prefix} {spinner} {msg}" };
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("━╸─")
}

fn shortened(text: &str) -> String {
    let text = one_line(text);
    match text.char_indices().nth(MESSAGE_CHARS_MAX) {
        None => text.into_owned(),
        Some((at, _)) => format!("{}…", &text[..at]),
    }
}
