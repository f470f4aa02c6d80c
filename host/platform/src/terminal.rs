//! Asks a person something that nobody should read over their shoulder: on the terminal itself, with its echo off.
//!
//! What must hold: the echo comes back when the question is dropped, however it ends.

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};

/// Longest answer, in bytes.
pub const ANSWER_BYTES_MAX: u64 = 64 * 1024;

/// A terminal whose echo is off.
#[derive(Debug)]
pub struct Hidden {
    terminal: File,
    before: Termios,
}

impl Hidden {
    /// Turns the echo of the controlling terminal off and asks. None when there is no terminal.
    ///
    /// # Errors
    /// When the terminal cannot be used.
    pub fn ask(question: &str) -> io::Result<Option<Self>> {
        let Ok(terminal) = OpenOptions::new().read(true).write(true).open("/dev/tty") else {
            return Ok(None);
        };
        let before = tcgetattr(&terminal)?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        quiet.local_modes.insert(LocalModes::ECHONL);
        // What was typed ahead stays unread: it was not meant for this question.
        tcsetattr(&terminal, OptionalActions::Flush, &quiet)?;
        let mut hidden = Self { terminal, before };
        hidden.terminal.write_all(question.as_bytes())?;
        Ok(Some(hidden))
    }

    /// Another handle on the terminal, to read from in a thread of its own.
    ///
    /// # Errors
    /// When descriptors are used up.
    pub fn reader(&self) -> io::Result<Answer> {
        self.terminal.try_clone().map(Answer)
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // A terminal that is gone needs no echo.
        let _ = tcsetattr(&self.terminal, OptionalActions::Now, &self.before);
    }
}

/// What is going to be typed.
#[derive(Debug)]
pub struct Answer(File);

impl Answer {
    /// Waits for one line; its end is not part of it. Blocks.
    ///
    /// # Errors
    /// When the terminal is gone, or what was typed is no text or longer than [`ANSWER_BYTES_MAX`].
    pub fn line(self) -> io::Result<String> {
        let mut line = String::new();
        BufReader::new(self.0.take(ANSWER_BYTES_MAX)).read_line(&mut line)?;
        if line.len() as u64 == ANSWER_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "too long"));
        }
        Ok(line.trim_end_matches(['\n', '\r']).to_owned())
    }
}
