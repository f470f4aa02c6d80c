//! Shows an installation while it goes on: a row per entry with its present step.

use crate::output::Output;
use crate::progress::{Board, Row};
use cjm_environments::{InstallEvent, Outcome, Step};

/// The rows of all entries.
pub(crate) struct InstallBoard {
    board: Board,
    rows: Vec<Row>,
}

impl InstallBoard {
    /// One row for each name, in order.
    pub(crate) fn new(output: &Output, names: &[&str]) -> Self {
        let board = Board::new(output, names.iter().copied());
        let rows = names.iter().map(|name| board.row(name, Step::ALL.len() as u64)).collect();
        Self { board, rows }
    }

    /// Shows one event.
    pub(crate) fn show(&self, event: InstallEvent) {
        match event {
            InstallEvent::Preparing(text) => self.board.say(&text),
            InstallEvent::Step { entry, step } => self.with(entry, |row| {
                let done = Step::ALL.iter().position(|known| *known == step).unwrap_or(0);
                row.start();
                row.at(done as u64, Step::ALL.len() as u64);
                row.say(step.label());
            }),
            InstallEvent::Line { entry, text } => self.with(entry, |row| row.detail(&text)),
            InstallEvent::Finished { entry, report } => self.with(entry, |row| {
                if report.outcome != Outcome::Failed {
                    row.at(Step::ALL.len() as u64, Step::ALL.len() as u64);
                }
                row.finish(report.outcome.as_str());
            }),
        }
    }

    /// Leaves the terminal to what comes next.
    pub(crate) fn end(&self) {
        self.board.clear();
    }

    fn with(&self, entry: usize, act: impl FnOnce(&Row)) {
        if let Some(row) = self.rows.get(entry) {
            act(row);
        }
    }
}
