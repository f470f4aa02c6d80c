//! `logs`: what happened, from the stores, beside a running host or after one. It reads in pages and takes no lock.

use crate::cli::{Global, LogsArgs};
use crate::fault::{CommandResult, Fault};
use crate::log_lines;
use crate::output::Output;
use cjm_store::{
    DIAGNOSTICS_FILE, DiagnosticsFilter, DiagnosticsReader, JOURNAL_FILE, JournalFilter, JournalReader,
    SeqChunk, SeqRecord, SeqRow, StoreError, diagnostics_reader::LEVELS,
};
use cjm_wire::describe::exit;
use serde::Serialize;
use std::collections::VecDeque;
use std::path::Path;
use std::time::Duration;

/// Entries shown when nothing else is said.
const ENTRIES_DEFAULT: usize = 50;
/// Rows read at once.
const PAGE_ROWS: usize = 1000;
/// How soon a follower looks again: quick for a person, and a cheap question for the store.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(100);

/// Runs the command.
pub(crate) async fn run(global: &Global, args: &LogsArgs, output: &Output) -> CommandResult {
    if args.journal && args.chunks {
        // The ancestor's words and exit code.
        let message = "--journal and --chunks are different views; pick one.";
        return Err(Fault::new("logs.two_views", message, "give one of them"));
    }
    if let Some(level) = &args.level
        && !LEVELS.iter().any(|known| known.eq_ignore_ascii_case(level))
    {
        return Err(Fault::usage(
            format!("there is no level \"{level}\""),
            format!("one of {}", LEVELS.join(", ")),
        ));
    }
    let data_dir = global.settings()?.data_dir;
    let view = View::of(args);
    let source = loop {
        match Source::open(&data_dir, args, view) {
            Ok(source) => break source,
            Err(StoreError::NothingYet { .. }) if args.follow => tokio::time::sleep(FOLLOW_INTERVAL).await,
            Err(StoreError::NothingYet { .. }) => return nothing_yet(&data_dir, view, output),
            Err(error) => return Err(error.into()),
        }
    };
    let wanted = match args.n {
        None if output.json => usize::MAX,
        None => ENTRIES_DEFAULT,
        Some(n) if n <= 0 => usize::MAX,
        Some(n) => usize::try_from(n).unwrap_or(usize::MAX),
    };
    let mut printer = Printer { output, listed: 0, follow: args.follow };
    printer.begin()?;
    let mut seq = newest(&source, wanted, &mut printer)?;
    if !args.follow {
        printer.end()?;
        return Ok(exit::OK);
    }
    loop {
        output.flush()?;
        let page = source.page(seq, PAGE_ROWS)?;
        if page.is_empty() {
            tokio::time::sleep(FOLLOW_INTERVAL).await;
        }
        for entry in &page {
            printer.entry(entry)?;
            seq = entry.seq();
        }
    }
}

/// Prints the newest `wanted` entries, oldest first, and says where they end.
fn newest(source: &Source, wanted: usize, printer: &mut Printer<'_>) -> Result<i64, Fault> {
    let mut seq = 0;
    let mut kept = VecDeque::new();
    if wanted <= PAGE_ROWS {
        kept.extend(source.last(wanted)?);
        seq = kept.back().map_or(seq, Entry::seq);
        // Nothing matched yet: what a follower waits for may stand anywhere after this.
    } else {
        loop {
            let page = source.page(seq, PAGE_ROWS)?;
            let Some(last) = page.last() else { break };
            seq = last.seq();
            for entry in page {
                if wanted == usize::MAX {
                    printer.entry(&entry)?;
                    continue;
                }
                if kept.len() == wanted {
                    kept.pop_front();
                }
                kept.push_back(entry);
            }
        }
    }
    for entry in &kept {
        printer.entry(entry)?;
    }
    Ok(seq)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum View {
    Journal,
    Records,
    Chunks,
}

impl View {
    fn of(args: &LogsArgs) -> Self {
        if args.chunks {
            Self::Chunks
        } else if args.journal || args.run.is_some() {
            Self::Journal
        } else {
            Self::Records
        }
    }
}

enum Source {
    Journal(JournalReader, JournalFilter),
    Diagnostics(DiagnosticsReader, DiagnosticsFilter, View),
}

/// One row of any view; as JSON it is the row itself.
#[derive(Serialize)]
#[serde(untagged)]
enum Entry {
    Journal(Box<SeqRow>),
    Record(SeqRecord),
    Chunk(SeqChunk),
}

impl Entry {
    fn seq(&self) -> i64 {
        match self {
            Self::Journal(row) => row.seq,
            Self::Record(record) => record.seq,
            Self::Chunk(chunk) => chunk.seq,
        }
    }

    fn line(&self) -> String {
        match self {
            Self::Journal(row) => log_lines::journal(&row.row),
            Self::Record(record) => log_lines::record(&record.record),
            Self::Chunk(chunk) => log_lines::chunk(&chunk.chunk),
        }
    }
}

impl Source {
    fn open(data_dir: &Path, args: &LogsArgs, view: View) -> Result<Self, StoreError> {
        Ok(match view {
            View::Journal => Self::Journal(
                JournalReader::open(data_dir)?,
                JournalFilter {
                    job: args.job.clone(),
                    run: args.run.clone(),
                    session: args.session.clone(),
                    ..JournalFilter::default()
                },
            ),
            View::Records | View::Chunks => Self::Diagnostics(
                DiagnosticsReader::open(data_dir)?,
                DiagnosticsFilter {
                    job: args.job.clone(),
                    session: args.session.clone(),
                    level_min: args.level.clone(),
                    ..DiagnosticsFilter::default()
                },
                view,
            ),
        })
    }

    fn page(&self, after_seq: i64, limit: usize) -> Result<Vec<Entry>, StoreError> {
        Ok(match self {
            Self::Journal(reader, filter) => journal_entries(reader.page(filter, after_seq, limit)?),
            Self::Diagnostics(reader, filter, View::Chunks) => {
                reader.chunks(filter, after_seq, limit)?.into_iter().map(Entry::Chunk).collect()
            }
            Self::Diagnostics(reader, filter, _) => {
                reader.records(filter, after_seq, limit)?.into_iter().map(Entry::Record).collect()
            }
        })
    }

    fn last(&self, n: usize) -> Result<Vec<Entry>, StoreError> {
        Ok(match self {
            Self::Journal(reader, filter) => journal_entries(reader.last(filter, n)?),
            Self::Diagnostics(reader, filter, View::Chunks) => {
                reader.last_chunks(filter, n)?.into_iter().map(Entry::Chunk).collect()
            }
            Self::Diagnostics(reader, filter, _) => {
                reader.last_records(filter, n)?.into_iter().map(Entry::Record).collect()
            }
        })
    }
}

fn journal_entries(rows: Vec<SeqRow>) -> Vec<Entry> {
    rows.into_iter().map(|row| Entry::Journal(Box::new(row))).collect()
}

/// Lines for people; one array for programs, written row by row so that a journal of years needs no memory; a line
/// each when it goes on.
struct Printer<'a> {
    output: &'a Output,
    listed: usize,
    follow: bool,
}

impl Printer<'_> {
    fn is_array(&self) -> bool {
        self.output.json && !self.follow
    }

    fn begin(&self) -> Result<(), Fault> {
        if self.is_array() { self.output.text("[") } else { Ok(()) }
    }

    fn entry(&mut self, entry: &Entry) -> Result<(), Fault> {
        self.listed += 1;
        if !self.output.json {
            return self.output.line(&entry.line());
        }
        let text = serde_json::to_string(entry).unwrap_or_else(|_| "null".to_owned());
        if self.follow {
            return self.output.line(&text);
        }
        let separator = if self.listed == 1 { "\n" } else { ",\n" };
        self.output.text(&format!("{separator}{text}"))
    }

    fn end(&self) -> Result<(), Fault> {
        if self.is_array() {
            self.output.line(if self.listed == 0 { "]" } else { "\n]" })?;
        }
        self.output.flush()
    }
}

fn nothing_yet(data_dir: &Path, view: View, output: &Output) -> CommandResult {
    let file = if view == View::Journal { JOURNAL_FILE } else { DIAGNOSTICS_FILE };
    if output.json {
        output.line("[]")?;
    } else {
        output.line(&format!("No store at {} (nothing has run here yet).", data_dir.join(file).display()))?;
    }
    Ok(exit::OK)
}
