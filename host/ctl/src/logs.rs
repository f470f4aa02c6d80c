//! `logs`: what happened, from the stores, beside a running host or after one. It reads in pages and takes no lock.

use crate::cli::{Global, LogsArgs};
use crate::fault::{CommandResult, Fault};
use crate::log_filter::{Asked, View};
use crate::log_lines;
use crate::output::Output;
use cjm_store::{
    DiagnosticsFilter, DiagnosticsReader, JournalFilter, JournalReader, SeqChunk, SeqRecord, SeqRow,
    StoreError,
};
use cjm_wire::describe::exit;
use serde::Serialize;
use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
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
    let view = View::of(args)?;
    let mut asked = Asked::of(args)?;
    let settings = global.settings()?;
    asked.expect_installed(args, &settings);
    let data_dir = settings.data_dir;
    let source = match Source::open(&data_dir, &asked, args, view)? {
        None if !args.follow => return nothing_yet(&data_dir, view, output),
        found => found,
    };
    asked.expect_all();
    let mut source = match source {
        Some(source) => source,
        None => when_there_is_one(&data_dir, &asked, args, view, output).await?,
    };
    let wanted = match args.n {
        None if output.json => usize::MAX,
        None => ENTRIES_DEFAULT,
        Some(0) => usize::MAX,
        Some(n) => usize::try_from(n).unwrap_or(usize::MAX),
    };
    let tools = Tools { data_dir: &data_dir, known: RefCell::default() };
    let mut printer = Printer { output, tools, listed: 0, follow: args.follow, whole: args.job.is_some() };
    printer.begin()?;
    let mut seq = match newest(&source, wanted, &mut printer).await {
        Ok(seq) => seq,
        Err(fault) => return printer.cut_off(fault),
    };
    if !args.follow {
        printer.end()?;
        if printer.listed == 0 {
            hint_at_journal(args, view, output);
        }
        return Ok(source.tell_what_is_missing(output));
    }
    source.tell_what_is_missing(output);
    if printer.listed == 0 {
        output.note("note: there is nothing of that yet; this waits for it (Ctrl-C ends)");
    }
    let mut followed = identity(&data_dir, view);
    loop {
        source.look_up_anew(&data_dir, &asked, args);
        let page = source.page(seq, PAGE_ROWS)?;
        if page.is_empty() {
            tokio::time::sleep(FOLLOW_INTERVAL).await;
            // What is read has no name any more; what happens now is written to the file that has it.
            let now = identity(&data_dir, view);
            if now.is_some()
                && now != followed
                && let Ok(Some(anew)) = Source::open(&data_dir, &asked, args, view)
            {
                output.note("note: the store was made anew; this follows the new one");
                (source, seq, followed) = (anew, 0, now);
            }
        }
        for entry in &page {
            printer.entry(entry).await?;
            seq = entry.seq();
        }
    }
}

/// Waits for the first host that writes there.
async fn when_there_is_one(
    data_dir: &Path,
    asked: &Asked,
    args: &LogsArgs,
    view: View,
    output: &Output,
) -> Result<Source, Fault> {
    let store = data_dir.join(view.file());
    output.note(&format!(
        "note: there is no store at {} yet; this waits for it (Ctrl-C ends)",
        store.display()
    ));
    loop {
        if let Some(source) = Source::open(data_dir, asked, args, view)? {
            return Ok(source);
        }
        tokio::time::sleep(FOLLOW_INTERVAL).await;
    }
}

/// Where nothing was said, what was attempted may still be known.
fn hint_at_journal(args: &LogsArgs, view: View, output: &Output) {
    let what = match view {
        View::Journal => return output.note("note: the journal has nothing of that"),
        View::Records => "records",
        View::Chunks => "output",
    };
    let command = match (&args.job, &args.session, &args.capability) {
        (Some(job), _, _) => format!("`cjm-ctl logs --journal --job {job}`"),
        (_, Some(session), _) => format!("`cjm-ctl logs --journal --session {session}`"),
        (_, _, Some(name)) => format!("`cjm-ctl logs --journal --capability {name}`"),
        (None, None, None) => "`cjm-ctl logs --journal`".to_owned(),
    };
    output.note(&format!("note: no {what} of that; {command} shows what was attempted, and how it ended"));
}

/// Which file has the store's name now.
fn identity(data_dir: &Path, view: View) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    let meta = std::fs::metadata(data_dir.join(view.file())).ok()?;
    Some((meta.dev(), meta.ino()))
}

/// Prints the newest `wanted` entries, oldest first, and says where they end.
async fn newest(source: &Source, wanted: usize, printer: &mut Printer<'_>) -> Result<i64, Fault> {
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
                    printer.entry(&entry).await?;
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
        printer.entry(entry).await?;
    }
    Ok(seq)
}

enum Source {
    Journal(JournalReader, JournalFilter),
    /// With what is missing of the journal where that says whose they are.
    Diagnostics(DiagnosticsReader, DiagnosticsFilter, View, Vec<StoreError>),
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

    fn named(&self, tools: &Tools<'_>) -> Named<'_> {
        let session = match self {
            Self::Journal(_) => return Named::Whole(self),
            Self::Record(record) => &record.record.worker_session_id,
            Self::Chunk(chunk) => &chunk.chunk.worker_session_id,
        };
        let capability = tools.of(session.as_deref()).and_then(|tool| tool.capability);
        Named::Beside { entry: self, capability }
    }

    fn line(&self, tools: &Tools<'_>, whole: bool) -> String {
        match self {
            Self::Journal(row) => log_lines::journal(&row.row, whole),
            Self::Record(record) => {
                let tool = tools.of(record.record.worker_session_id.as_deref()).and_then(|tool| tool.shown);
                log_lines::record(&record.record, tool.as_deref())
            }
            Self::Chunk(chunk) => {
                let tool = tools.of(chunk.chunk.worker_session_id.as_deref()).and_then(|tool| tool.shown);
                log_lines::chunk(&chunk.chunk, tool.as_deref())
            }
        }
    }
}

/// Which tool a session belongs to: output does not say it, the journal does.
struct Tools<'a> {
    data_dir: &'a Path,
    known: RefCell<HashMap<String, Option<Tool>>>,
}

/// Whose a session is.
#[derive(Debug, Clone, Default)]
struct Tool {
    /// As people are shown it: the instance, where there may be several.
    shown: Option<String>,
    capability: Option<String>,
}

/// A row as programs get it: those of records and output with the tool, which the row itself does not name.
#[derive(Serialize)]
#[serde(untagged)]
enum Named<'e> {
    Whole(&'e Entry),
    Beside {
        #[serde(flatten)]
        entry: &'e Entry,
        capability: Option<String>,
    },
}

impl Tools<'_> {
    fn of(&self, session: Option<&str>) -> Option<Tool> {
        let session = session?;
        if let Some(known) = self.known.borrow().get(session) {
            return known.clone();
        }
        // Without a journal, or where it cannot be read, output is shown all the same.
        let found = self.look(session).unwrap_or_default();
        self.known.borrow_mut().insert(session.to_owned(), found.clone());
        found
    }

    fn look(&self, session: &str) -> Result<Option<Tool>, StoreError> {
        let filter = JournalFilter { session: Some(session.to_owned()), ..JournalFilter::default() };
        let rows = JournalReader::open_with_archives(self.data_dir)?.page(&filter, 0, 1)?;
        Ok(rows.into_iter().next().map(|row| {
            let capability = row.row.capability_name;
            Tool { shown: row.row.capability_instance_id.or_else(|| capability.clone()), capability }
        }))
    }
}

impl Source {
    /// None where nothing has been written yet.
    fn open(data_dir: &Path, asked: &Asked, args: &LogsArgs, view: View) -> Result<Option<Self>, Fault> {
        let opened = match view {
            View::Journal => JournalReader::open_with_archives(data_dir)
                .map(|reader| asked.journal(&reader, args).map(|filter| Self::Journal(reader, filter))),
            View::Records | View::Chunks => DiagnosticsReader::open(data_dir).map(|reader| {
                let filter = asked.diagnostics(&reader, data_dir, args, view);
                filter.map(|(filter, missing)| Self::Diagnostics(reader, filter, view, missing))
            }),
        };
        match opened {
            Ok(source) => source.map(Some),
            Err(StoreError::NothingYet { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Output and records carry no capability: which sessions are meant stands in the journal, and further ones begin
    /// while this follows.
    fn look_up_anew(&mut self, data_dir: &Path, asked: &Asked, args: &LogsArgs) {
        let Self::Diagnostics(reader, filter, view, _) = self else { return };
        if filter.sessions.is_some()
            // One that cannot be read now is read the next time.
            && let Ok((now, _)) = asked.diagnostics(reader, data_dir, args, *view)
        {
            *filter = now;
        }
    }

    /// Names files whose rows could not be shown; the exit code says so too.
    fn tell_what_is_missing(&self, output: &Output) -> u8 {
        let (words, unreadable) = match self {
            Self::Journal(reader, _) => ("rows of the journal are missing here", reader.unreadable()),
            Self::Diagnostics(_, _, _, missing) => {
                ("rows of the journal that say whose this is are missing", missing.clone())
            }
        };
        for error in &unreadable {
            output.warning_of(words, error);
        }
        if unreadable.is_empty() { exit::OK } else { exit::STORE }
    }

    fn page(&self, after_seq: i64, limit: usize) -> Result<Vec<Entry>, StoreError> {
        Ok(match self {
            Self::Journal(reader, filter) => journal_entries(reader.page(filter, after_seq, limit)?),
            Self::Diagnostics(reader, filter, View::Chunks, _) => {
                reader.chunks(filter, after_seq, limit)?.into_iter().map(Entry::Chunk).collect()
            }
            Self::Diagnostics(reader, filter, ..) => {
                reader.records(filter, after_seq, limit)?.into_iter().map(Entry::Record).collect()
            }
        })
    }

    fn last(&self, n: usize) -> Result<Vec<Entry>, StoreError> {
        Ok(match self {
            Self::Journal(reader, filter) => journal_entries(reader.last(filter, n)?),
            Self::Diagnostics(reader, filter, View::Chunks, _) => {
                reader.last_chunks(filter, n)?.into_iter().map(Entry::Chunk).collect()
            }
            Self::Diagnostics(reader, filter, ..) => {
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
    tools: Tools<'a>,
    listed: usize,
    follow: bool,
    /// Tracebacks are shown whole: one job is asked for.
    whole: bool,
}

impl Printer<'_> {
    fn is_array(&self) -> bool {
        self.output.json && !self.follow
    }

    fn begin(&self) -> Result<(), Fault> {
        if self.is_array() { self.output.text("[") } else { Ok(()) }
    }

    async fn entry(&mut self, entry: &Entry) -> Result<(), Fault> {
        self.output.room().await?;
        self.listed += 1;
        if !self.output.json {
            return self.output.line(&entry.line(&self.tools, self.whole));
        }
        let text = serde_json::to_string(&entry.named(&self.tools)).unwrap_or_else(|_| "null".to_owned());
        if self.follow {
            return self.output.json_text(&text);
        }
        let separator = if self.listed == 1 { "\n" } else { ",\n" };
        self.output.text(&format!("{separator}{text}"))
    }

    /// What was listed stays one document: of the rows that cannot be read, stderr tells.
    fn cut_off(&self, fault: Fault) -> CommandResult {
        match fault {
            Fault::Shown(report) if self.is_array() => {
                self.end()?;
                self.output.error_beside(&report);
                Ok(report.exit_code)
            }
            other => Err(other),
        }
    }

    fn end(&self) -> Result<(), Fault> {
        if self.is_array() {
            self.output.json_text(if self.listed == 0 { "]" } else { "\n]" })?;
        }
        Ok(())
    }
}

fn nothing_yet(data_dir: &Path, view: View, output: &Output) -> CommandResult {
    if output.json {
        output.json_text("[]")?;
    } else {
        output.line(&format!(
            "No store at {} (nothing has run here yet).",
            data_dir.join(view.file()).display()
        ))?;
    }
    Ok(exit::OK)
}
