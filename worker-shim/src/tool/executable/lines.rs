//! Lines out of a stream of bytes, and the last few of them kept.

use std::collections::VecDeque;

/// Lines of standard error kept for an error's text.
const TAIL_LINES_MAX: usize = 20;
/// Longest line kept there, or looked at for progress, in bytes.
pub(crate) const LINE_BYTES_MAX: usize = 2048;

/// Which bytes end a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LineEnd {
    /// `\n` alone: lines that are results.
    Newline,
    /// `\r` as well: progress that is written over and over in one place.
    NewlineOrReturn,
}

/// Cuts bytes into lines. An unfinished line is kept up to a maximum, what is beyond it is not.
#[derive(Debug)]
pub(crate) struct LineCutter {
    end: LineEnd,
    bytes_max: usize,
    open: Vec<u8>,
    overflowed: bool,
}

impl LineCutter {
    pub(crate) fn new(end: LineEnd, bytes_max: usize) -> Self {
        Self { end, bytes_max, open: Vec::new(), overflowed: false }
    }

    /// Gives each line that `bytes` completes to `take`, without its end.
    pub(crate) fn push(&mut self, bytes: &[u8], mut take: impl FnMut(&[u8])) {
        let mut rest = bytes;
        let ends = |byte: &u8| *byte == b'\n' || (self.end == LineEnd::NewlineOrReturn && *byte == b'\r');
        while let Some(at) = rest.iter().position(ends) {
            if self.open.is_empty() {
                take(&rest[..at.min(self.bytes_max)]);
            } else {
                keep(&mut self.open, &rest[..at], self.bytes_max, &mut self.overflowed);
                take(&self.open);
                self.open.clear();
            }
            rest = &rest[at + 1..];
        }
        keep(&mut self.open, rest, self.bytes_max, &mut self.overflowed);
    }

    /// Gives the last line to `take` if it has no end.
    pub(crate) fn finish(&mut self, take: impl FnOnce(&[u8])) {
        if !self.open.is_empty() {
            take(&self.open);
            self.open.clear();
        }
    }

    /// Whether a line was longer than the maximum.
    pub(crate) fn overflowed(&self) -> bool {
        self.overflowed
    }
}

fn keep(open: &mut Vec<u8>, bytes: &[u8], bytes_max: usize, overflowed: &mut bool) {
    let room = bytes_max.saturating_sub(open.len());
    *overflowed |= bytes.len() > room;
    open.extend_from_slice(&bytes[..bytes.len().min(room)]);
}

/// The last lines of a stream that are not blank.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    lines: VecDeque<String>,
}

impl Tail {
    pub(crate) fn push(&mut self, line: &[u8]) {
        let text = String::from_utf8_lossy(line);
        let text = text.trim_end();
        if text.trim().is_empty() {
            return;
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
            cutter.push(piece.as_bytes(), |line| lines.push(String::from_utf8_lossy(line).into_owned()));
        }
        cutter.finish(|line| lines.push(String::from_utf8_lossy(line).into_owned()));
        lines
    }

    #[test]
    fn lines_are_whole_however_the_pieces_fall() {
        assert_eq!(cut(LineEnd::Newline, 99, &["a\nb", "b\n\n", "c"]), ["a", "bb", "", "c"]);
        assert_eq!(cut(LineEnd::Newline, 99, &["a\rb\n"]), ["a\rb"]);
        assert_eq!(cut(LineEnd::NewlineOrReturn, 99, &["1%\r2", "%\r3%\n"]), ["1%", "2%", "3%"]);
        assert_eq!(cut(LineEnd::Newline, 3, &["abc", "def\nghijk\nx"]), ["abc", "ghi", "x"]);
    }

    #[test]
    fn the_tail_keeps_the_newest_lines() {
        let mut tail = Tail::default();
        assert_eq!(tail.text(), None);
        for line in 0..100 {
            tail.push(format!("line {line}  ").as_bytes());
            tail.push(b"   ");
        }
        assert_eq!(tail.last(), Some("line 99"));
        assert_eq!(tail.text().expect("has lines").lines().count(), TAIL_LINES_MAX);
    }
}
