//! Lines out of a stream of bytes, and the last few of them kept.

use cjm_wire::cut;
use std::collections::VecDeque;

/// Lines of standard error kept for an error's text.
const TAIL_LINES_MAX: usize = 20;
/// Longest line kept there, or looked at for progress, in bytes; of a longer one the middle goes, and is counted.
pub(crate) const LINE_BYTES_MAX: usize = 2048;
/// How much of the end of a long line is kept at most, in bytes.
const LAST_BYTES_MAX: usize = LINE_BYTES_MAX / 2;

/// Which bytes end a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LineEnd {
    /// `\n` alone: lines that are results.
    Newline,
    /// `\r` as well: progress that is written over and over in one place.
    NewlineOrReturn,
}

/// What ended a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// A newline, or the end of all output.
    ForGood,
    /// `\r`: a terminal would write the next line over it.
    ToBeOverwritten,
}

/// Cuts bytes into lines. Of a line beyond the maximum its beginning and its end are kept: what a program says last
/// stands at the end.
#[derive(Debug)]
pub(crate) struct LineCutter {
    end: LineEnd,
    bytes_max: usize,
    /// The beginning of the line that has no end yet.
    open: Vec<u8>,
    /// What came behind the beginning, the newest at the end.
    rest: VecDeque<u8>,
    /// How much of that is kept no more.
    dropped: usize,
    overflowed: bool,
}

impl LineCutter {
    pub(crate) fn new(end: LineEnd, bytes_max: usize) -> Self {
        Self { end, bytes_max, open: Vec::new(), rest: VecDeque::new(), dropped: 0, overflowed: false }
    }

    /// Gives each line that `bytes` completes to `take`, without its end.
    pub(crate) fn push(&mut self, bytes: &[u8], mut take: impl FnMut(&[u8], Ended)) {
        let mut rest = bytes;
        let returns = self.end == LineEnd::NewlineOrReturn;
        let ends = |byte: &u8| *byte == b'\n' || (returns && *byte == b'\r');
        while let Some(at) = rest.iter().position(ends) {
            let ended = if rest[at] == b'\r' { Ended::ToBeOverwritten } else { Ended::ForGood };
            if self.open.is_empty() && at <= self.bytes_max {
                take(&rest[..at], ended);
            } else {
                self.keep(&rest[..at]);
                take(self.close(), ended);
                self.open.clear();
            }
            rest = &rest[at + 1..];
        }
        self.keep(rest);
    }

    /// Gives the last line to `take` if it has no end.
    pub(crate) fn finish(&mut self, take: impl FnOnce(&[u8], Ended)) {
        if !self.open.is_empty() {
            take(self.close(), Ended::ForGood);
            self.open.clear();
        }
    }

    /// Whether a line was longer than the maximum.
    pub(crate) fn overflowed(&self) -> bool {
        self.overflowed
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = self.bytes_max.saturating_sub(self.open.len());
        let (first, behind) = bytes.split_at(bytes.len().min(room));
        self.open.extend_from_slice(first);
        if behind.is_empty() {
            return;
        }
        self.overflowed = true;
        let last_max = self.last_max();
        let newest = &behind[behind.len().saturating_sub(last_max)..];
        let too_many = (self.rest.len() + newest.len()).saturating_sub(last_max);
        self.rest.drain(..too_many);
        self.dropped += behind.len() - newest.len() + too_many;
        self.rest.extend(newest);
    }

    /// The open line as it is given: whole, or its beginning and its end.
    fn close(&mut self) -> &[u8] {
        if !self.rest.is_empty() {
            let last_max = self.last_max();
            let end: Vec<u8> = self.open.iter().chain(&self.rest).copied().collect();
            let whole = end.len() + self.dropped;
            let end = &end[end.len().saturating_sub(last_max)..];
            let end = &end[end.iter().take(3).take_while(|byte| is_inside(**byte)).count()..];
            self.open.truncate(before_letter(&self.open, self.bytes_max - last_max));
            let (before, behind) = cut::halves(&self.open, end);
            self.open.truncate(self.open.len() - before);
            let end = &end[behind..];
            let dropped = whole - self.open.len() - end.len();
            self.open.extend_from_slice(cut::mark(dropped).as_bytes());
            self.open.extend_from_slice(end);
            self.rest.clear();
            self.dropped = 0;
        }
        &self.open
    }

    /// How much of the end of a long line is kept.
    fn last_max(&self) -> usize {
        (self.bytes_max / 2).min(LAST_BYTES_MAX)
    }
}

/// Whether it is no first byte of a letter of UTF-8.
fn is_inside(byte: u8) -> bool {
    byte & 0b1100_0000 == 0b1000_0000
}

/// The same place, or that of the letter which would be cut in two there.
fn before_letter(text: &[u8], at: usize) -> usize {
    match text.get(at) {
        Some(byte) if is_inside(*byte) => {
            (at.saturating_sub(3)..at).rev().find(|at| !is_inside(text[*at])).unwrap_or(at)
        }
        _ => at,
    }
}

/// The last lines of a stream that are not blank.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    lines: VecDeque<String>,
    /// The next line takes the place of the newest one.
    overwrites: bool,
}

impl Tail {
    pub(crate) fn push(&mut self, line: &[u8], ended: Ended) {
        let text = String::from_utf8_lossy(line);
        let text = text.trim_end();
        if text.trim().is_empty() {
            // `\r\n` ends a line for good as well: its second byte comes here as an empty line.
            self.overwrites &= ended == Ended::ToBeOverwritten;
            return;
        }
        if std::mem::replace(&mut self.overwrites, ended == Ended::ToBeOverwritten) {
            self.lines.pop_back();
        }
        if self.lines.len() == TAIL_LINES_MAX {
            self.lines.pop_front();
        }
        self.lines.push_back(text.to_owned());
    }

    /// The newest.
    pub(crate) fn last(&self) -> Option<&str> {
        self.lines.back().map(String::as_str)
    }

    /// All that were kept, oldest first; None when there are none.
    pub(crate) fn text(&self) -> Option<String> {
        if self.lines.is_empty() {
            return None;
        }
        Some(self.lines.iter().map(String::as_str).collect::<Vec<_>>().join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(end: LineEnd, bytes_max: usize, pieces: &[&str]) -> Vec<String> {
        let mut cutter = LineCutter::new(end, bytes_max);
        let mut lines = Vec::new();
        for piece in pieces {
            cutter.push(piece.as_bytes(), |line, _| lines.push(String::from_utf8_lossy(line).into_owned()));
        }
        cutter.finish(|line, _| lines.push(String::from_utf8_lossy(line).into_owned()));
        lines
    }

    #[test]
    fn lines_are_whole_however_the_pieces_fall() {
        assert_eq!(cut(LineEnd::Newline, 99, &["a\nb", "b\n\n", "c"]), ["a", "bb", "", "c"]);
        assert_eq!(cut(LineEnd::Newline, 99, &["a\rb\n"]), ["a\rb"]);
        assert_eq!(cut(LineEnd::NewlineOrReturn, 99, &["1%\r2", "%\r3%\n"]), ["1%", "2%", "3%"]);
    }

    #[test]
    fn of_a_long_line_the_middle_goes() {
        let long = format!("begin{}end", "x".repeat(5000));
        for size in [1, 7, 1000, 6000] {
            let pieces: Vec<&str> =
                long.as_bytes().chunks(size).map(|piece| std::str::from_utf8(piece).unwrap()).collect();
            let lines = cut(LineEnd::NewlineOrReturn, 100, &pieces);
            assert_eq!(lines.len(), 1);
            assert!(lines[0].starts_with("beginxx") && lines[0].ends_with("xxend"), "{size}: {lines:?}");
            assert!(
                lines[0].contains(&format!("x{}x", cut::mark(4908))) && lines[0].len() == 125,
                "{size}: {lines:?}"
            );
        }
        // What comes behind a long line is whole.
        assert_eq!(
            cut(LineEnd::Newline, 10, &["0123456789abcdefgh\nnext\n"]),
            ["01234[8 bytes dropped here]defgh", "next"]
        );
    }

    #[test]
    fn what_a_terminal_would_write_over_leaves_room_for_the_rest() {
        let mut tail = Tail::default();
        let mut cutter = LineCutter::new(LineEnd::NewlineOrReturn, LINE_BYTES_MAX);
        cutter.push(b"opening the file\r\nreading\n", |line, ended| tail.push(line, ended));
        for percent in 0..=100 {
            cutter.push(format!("\r{percent}%").as_bytes(), |line, ended| tail.push(line, ended));
        }
        cutter.push(b"\nlast words", |line, ended| tail.push(line, ended));
        cutter.finish(|line, ended| tail.push(line, ended));
        assert_eq!(tail.text().unwrap(), "opening the file\nreading\n100%\nlast words");
    }

    #[test]
    fn the_tail_keeps_the_newest_lines() {
        let mut tail = Tail::default();
        assert_eq!(tail.text(), None);
        for line in 0..100 {
            tail.push(format!("line {line}  ").as_bytes(), Ended::ForGood);
            tail.push(b"   ", Ended::ForGood);
        }
        assert_eq!(tail.last(), Some("line 99"));
        assert_eq!(tail.text().expect("has lines").lines().count(), TAIL_LINES_MAX);
    }
}
