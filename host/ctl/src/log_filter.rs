//! What `logs` is asked to show: which store, and which of its rows. Shortened ids become whole ones here; what names
//! nothing is refused, since an empty answer would read as "nothing happened".

use crate::cli::LogsArgs;
use crate::fault::Fault;
use crate::instant::instant;
use crate::log_lines::{TYPES_AS_SHOWN, end_of_node, type_of};
use cjm_catalog::{Catalog, Settings};
use cjm_store::diagnostics_reader::LEVELS;
use cjm_store::{
    DIAGNOSTICS_FILE, DiagnosticsFilter, DiagnosticsReader, IdKind, JOURNAL_FILE, JournalFilter,
    JournalReader, ResolvedId, SHOWN_CHARS_MIN, StoreError,
};
use cjm_wire::Timestamp;
use cjm_wire::describe::ErrorReport;
use cjm_wire::event::{EventType, JobStatus};
use cjm_wire::suggestions::{in_words, suggestions};
use std::collections::BTreeSet;
use std::path::Path;

/// Most rows of a job that are looked at for the sessions it ran in.
const JOB_ROWS_MAX: usize = 1000;
/// Ends of runs, the newest first, in which a node without rows is looked for.
const RUNS_LOOKED_AT: usize = 100;
/// What `--status` takes.
pub(crate) const STATUSES: [JobStatus; 5] =
    [JobStatus::Pending, JobStatus::Running, JobStatus::Completed, JobStatus::Failed, JobStatus::Cancelled];

/// Which rows are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum View {
    /// What was attempted.
    Journal,
    /// What tools logged.
    Records,
    /// What they printed.
    Chunks,
}

impl View {
    /// The store it is read from.
    pub(crate) fn file(self) -> &'static str {
        if self == Self::Journal { JOURNAL_FILE } else { DIAGNOSTICS_FILE }
    }

    /// The view that the options mean.
    ///
    /// # Errors
    /// When they mean two.
    pub(crate) fn of(args: &LogsArgs) -> Result<Self, Fault> {
        if args.journal && args.chunks {
            // The ancestor's words.
            let message = "--journal and --chunks are different views; pick one.";
            return Err(Fault::usage(message, "give one of them"));
        }
        let of_journal = [
            ("--run", args.run.is_some()),
            ("--node", args.node.is_some()),
            ("--type", !args.types.is_empty()),
            ("--status", !args.status.is_empty()),
        ];
        if args.level.is_some() && (args.journal || args.chunks) {
            let view = if args.journal { "--journal" } else { "--chunks" };
            return Err(Fault::usage(
                format!("--level is about records, and {view} shows none"),
                format!("leave out {view}, or --level"),
            ));
        }
        let of_journal = of_journal.iter().find(|(_, given)| *given);
        if let Some((option, _)) = of_journal
            && args.level.is_some()
        {
            return Err(Fault::usage(
                format!("--level is about records, and {option} asks for the journal, which shows none"),
                format!("leave out {option}, or --level"),
            ));
        }
        match of_journal {
            Some((option, _)) if args.chunks => Err(Fault::usage(
                format!("{option} asks for the journal, and --chunks for output"),
                "give one of them; output can be asked for by --job, --session, --capability and --since",
            )),
            Some(_) => Ok(Self::Journal),
            None if args.journal => Ok(Self::Journal),
            None if args.chunks => Ok(Self::Chunks),
            None => Ok(Self::Records),
        }
    }
}

/// What can be read from the options alone.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    since: Option<Timestamp>,
    statuses: Vec<JobStatus>,
    /// Whether an id that is not known may come: ids are made by hosts, so that nobody has one before its first row.
    ids_may_come: bool,
    /// Whether rows of a capability may come of which nothing is known.
    capability_may_come: bool,
    /// Names of the tools that are installed, where one is asked for.
    installed: Vec<String>,
}

impl Asked {
    /// Checks the options that need no store.
    ///
    /// # Errors
    /// When a level, status, time or number is none.
    pub(crate) fn of(args: &LogsArgs) -> Result<Self, Fault> {
        if let Some(level) = &args.level
            && !LEVELS.iter().any(|known| known.eq_ignore_ascii_case(level))
        {
            return Err(Fault::usage(
                format!("there is no level \"{level}\"{}", in_words(&suggestions(level, LEVELS.into_iter()))),
                format!("one of {}", LEVELS.join(", ")),
            ));
        }
        if let Some(n) = args.n.filter(|n| *n < 0) {
            return Err(Fault::usage(
                format!("-n {n} is no number of entries"),
                "give 1 or more, or 0 for all",
            ));
        }
        for (option, id) in [
            ("--job", &args.job),
            ("--session", &args.session),
            ("--run", &args.run),
            ("--node", &args.node),
            ("--capability", &args.capability),
        ] {
            if id.as_deref().is_some_and(|id| id.trim().is_empty()) {
                return Err(Fault::usage(
                    format!("{option} is empty: it names nothing"),
                    format!("name what is asked for, or leave {option} out"),
                ));
            }
        }
        let statuses = args.status.iter().map(|text| {
            JobStatus::parse(&text.to_lowercase()).ok_or_else(|| {
                let known = STATUSES.map(JobStatus::as_str);
                let meant = in_words(&suggestions(text, known.into_iter()));
                let known = known.join(", ");
                Fault::usage(format!("there is no status \"{text}\"{meant}"), format!("one of {known}"))
            })
        });
        Ok(Self {
            since: args.since.as_deref().map(|text| instant("--since", text)).transpose()?,
            statuses: statuses.collect::<Result<_, _>>()?,
            ..Self::default()
        })
    }

    /// A follower waits for the first rows of a tool that is installed; others hear that there are none.
    pub(crate) fn expect_installed(&mut self, args: &LogsArgs, settings: &Settings) {
        if let Some(name) = args.capability.as_deref() {
            let catalog = Catalog::discover(&settings.manifest_dirs());
            let is_there = catalog.get(name).is_some() || catalog.may_be_unread(name).is_some();
            self.capability_may_come = args.follow && is_there;
            self.installed = catalog.entries().map(|entry| entry.manifest.code.name.clone()).collect();
        }
    }

    fn unknown_name(&self, reader: &JournalReader, option: &str, name: &str) -> Fault {
        let missing = reader.unreadable();
        match option {
            "--capability" => self.unknown_capability(name, &missing),
            _ => unknown(option, name, &missing),
        }
    }

    /// Where rows are missing, nobody knows that there were none.
    fn unknown_capability(&self, name: &str, missing: &[StoreError]) -> Fault {
        let is_installed = self.installed.iter().any(|installed| installed == name);
        if is_installed && missing.is_empty() {
            return Fault::new(
                "logs.not_called",
                format!("--capability {name}: it is installed, and was not called"),
                format!("`cjm-ctl list --long` shows how it is called; `cjm-ctl call {name} …` does it"),
            );
        }
        let others = self.installed.iter().filter(|_| !is_installed);
        let meant = in_words(&suggestions(name, others.map(String::as_str)));
        unknown("--capability", &format!("{name}{meant}"), missing)
    }

    /// Once something is followed, or its store is waited for, nothing is refused any more for being unknown.
    pub(crate) fn expect_all(&mut self) {
        (self.ids_may_come, self.capability_may_come) = (true, true);
    }

    /// The filter of journal rows.
    ///
    /// # Errors
    /// When a name or id names nothing or several things, or the store cannot be read.
    pub(crate) fn journal(&self, reader: &JournalReader, args: &LogsArgs) -> Result<JournalFilter, Fault> {
        let types: Vec<String> = args.types.iter().map(|name| type_of(name).0.to_owned()).collect();
        let whole = |kind, option, id: &Option<String>| {
            id.as_deref().map(|id| whole_id(reader, kind, option, id, self.ids_may_come)).transpose()
        };
        let (node, element) = args.node.as_deref().map(|node| place(reader, node)).transpose()?.unzip();
        let element = element.flatten();
        let (run, composition) = match &args.run {
            Some(id) => run_or_composition(reader, id, self.ids_may_come)?,
            None => (None, None),
        };
        let filter = JournalFilter {
            job: whole(IdKind::Job, "--job", &args.job)?,
            run,
            composition,
            session: whole(IdKind::Session, "--session", &args.session)?,
            node: node.clone(),
            element,
            capability: args.capability.clone(),
            event_types: types.clone(),
            ended_by_host: of_two(&args.types, EventType::WorkerDied),
            direct_call_cancelled: of_two(&args.types, EventType::DirectCallFailed),
            statuses: self.statuses.clone(),
            since: self.since.clone(),
        };
        for kind in types.iter().filter(|kind| EventType::parse(kind).is_none()) {
            // A later version may have written it.
            let one = JournalFilter { event_types: vec![kind.clone()], ..JournalFilter::default() };
            if reader.last(&one, 1)?.is_empty() {
                let known = || EventType::ALL.iter().map(|kind| kind.as_str()).chain(TYPES_AS_SHOWN);
                let meant = in_words(&suggestions(kind, known()));
                let known = known().collect::<Vec<_>>().join(", ");
                return Err(Fault::usage(
                    format!("there is no type \"{kind}\"{meant}"),
                    format!("one of {known}"),
                ));
            }
        }
        for (option, name, may_come, one) in [
            (
                "--capability",
                &args.capability,
                self.capability_may_come,
                JournalFilter { capability: args.capability.clone(), ..JournalFilter::default() },
            ),
            (
                "--node",
                &args.node,
                // A composition that runs comes to it later.
                args.follow,
                JournalFilter { node: node.clone(), element, ..JournalFilter::default() },
            ),
        ] {
            if let Some(name) = name
                && !may_come
                && reader.last(&one, 1)?.is_empty()
            {
                let of_node = JournalFilter { node: node.clone(), ..JournalFilter::default() };
                if option == "--node"
                    && reader.last(&of_node, 1)?.is_empty()
                    && let Some(told) = node_without_rows(reader, &filter, node.as_deref().unwrap_or(name))?
                {
                    return Err(told);
                }
                return Err(self.unknown_name(reader, option, name));
            }
        }
        Ok(filter)
    }

    /// The filter of records or output, and what is missing of the journal where it says whose they are. What is known of
    /// ids stands in the journal, if there is one.
    ///
    /// # Errors
    /// As [`Self::journal`].
    pub(crate) fn diagnostics(
        &self,
        reader: &DiagnosticsReader,
        data_dir: &Path,
        args: &LogsArgs,
        view: View,
    ) -> Result<(DiagnosticsFilter, Vec<StoreError>), Fault> {
        let journal = match JournalReader::open_with_archives(data_dir) {
            Ok(journal) => Some(journal),
            Err(StoreError::NothingYet { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        let mut filter = DiagnosticsFilter {
            level_min: args.level.clone(),
            since: self.since.clone(),
            ..DiagnosticsFilter::default()
        };
        // Workers of other hosts may have said something that no journal knows of.
        let said = |one: &DiagnosticsFilter| -> Result<bool, StoreError> {
            Ok(!reader.last_records(one, 1)?.is_empty()
                || (one.job.is_none() && !reader.last_chunks(one, 1)?.is_empty()))
        };
        let whole = |kind, option, id: &str, one: DiagnosticsFilter| -> Result<String, Fault> {
            match &journal {
                Some(journal) if !said(&one)? => whole_id(journal, kind, option, id, self.ids_may_come),
                None if !self.ids_may_come && !said(&one)? => Err(unknown(option, id, &[])),
                _ => Ok(id.to_owned()),
            }
        };
        if let Some(id) = &args.session {
            let one = DiagnosticsFilter { session: Some(id.clone()), ..DiagnosticsFilter::default() };
            filter.session = Some(whole(IdKind::Session, "--session", id, one)?);
        }
        if let Some(id) = &args.job {
            let one = DiagnosticsFilter { job: Some(id.clone()), ..DiagnosticsFilter::default() };
            filter.job = Some(whole(IdKind::Job, "--job", id, one)?);
        }
        if let Some(name) = &args.capability {
            let sessions = journal.as_ref().map(|journal| journal.sessions_of(name)).transpose()?;
            let sessions = sessions.unwrap_or_default();
            if sessions.is_empty() && !self.capability_may_come {
                let missing = journal.as_ref().map(JournalReader::unreadable).unwrap_or_default();
                return Err(self.unknown_capability(name, &missing));
            }
            filter.sessions = Some(sessions);
        }
        if view == View::Chunks
            && let (Some(job), Some(journal)) = (filter.job.take(), &journal)
        {
            // Output carries no job: it is that of the workers it ran in.
            let of_job = sessions_of_job(journal, &job)?;
            filter.sessions = Some(match filter.sessions {
                Some(sessions) => sessions.into_iter().filter(|session| of_job.contains(session)).collect(),
                None => of_job.into_iter().collect(),
            });
        }
        let asked_for = journal.filter(|_| filter.sessions.is_some());
        Ok((filter, asked_for.map(|journal| journal.unreadable()).unwrap_or_default()))
    }
}

/// Of a type whose rows are shown by two names: which of them is asked for, where it is one alone.
fn of_two(names: &[String], kind: EventType) -> Option<bool> {
    let asked = names.iter().map(|name| type_of(name)).filter(|(name, _)| *name == kind.as_str());
    let asked: BTreeSet<Option<bool>> = asked.map(|(_, other)| other).collect();
    if asked.len() == 1 { asked.into_iter().next().flatten() } else { None }
}

/// What the ends of runs say of a node that never began, and so has no row of its own.
fn node_without_rows(
    reader: &JournalReader,
    asked: &JournalFilter,
    name: &str,
) -> Result<Option<Fault>, StoreError> {
    let finished = JournalFilter {
        run: asked.run.clone(),
        composition: asked.composition.clone(),
        event_types: vec![EventType::RunFinished.as_str().to_owned()],
        ..JournalFilter::default()
    };
    for found in reader.last(&finished, RUNS_LOOKED_AT)?.into_iter().rev() {
        let nodes = found.row.payload.get("nodes").and_then(serde_json::Value::as_array);
        let node = nodes.into_iter().flatten().find(|node| node["name"] == *name);
        if let Some(ended) = node.and_then(end_of_node) {
            let run = found.row.run_id.as_deref().unwrap_or_default();
            return Ok(Some(Fault::new(
                "logs.node_without_rows",
                format!("--node {name}: it made no call; {ended}"),
                format!("`cjm-ctl logs --journal --run {run}` shows what the run did"),
            )));
        }
    }
    Ok(None)
}

fn sessions_of_job(journal: &JournalReader, job: &str) -> Result<BTreeSet<String>, StoreError> {
    let filter = JournalFilter { job: Some(job.to_owned()), ..JournalFilter::default() };
    Ok(journal
        .page(&filter, 0, JOB_ROWS_MAX)?
        .into_iter()
        .filter_map(|row| row.row.worker_session_id)
        .collect())
}

/// The run that an id means, or the composition: `run` prints both, and both are one to who has run one composition.
fn run_or_composition(
    reader: &JournalReader,
    id: &str,
    may_come: bool,
) -> Result<(Option<String>, Option<String>), Fault> {
    if reader.resolve_id(IdKind::Run, id)? == ResolvedId::Unknown
        && let ResolvedId::One(composition) = reader.resolve_id(IdKind::Composition, id)?
    {
        return Ok((None, Some(composition)));
    }
    whole_id(reader, IdKind::Run, "--run", id, may_come).map(|run| (Some(run), None))
}

/// A node as rows show it, and its element where they show one: `each`, `each[0]`, `node=each[0]`.
fn place(reader: &JournalReader, shown: &str) -> Result<(String, Option<u64>), Fault> {
    let of_node = JournalFilter { node: Some(shown.to_owned()), ..JournalFilter::default() };
    if !reader.last(&of_node, 1)?.is_empty() {
        return Ok((shown.to_owned(), None));
    }
    let name = shown.strip_prefix("node=").unwrap_or(shown);
    let element = name.strip_suffix(']').and_then(|name| name.rsplit_once('['));
    let element = element.and_then(|(node, element)| Some((node, element.parse().ok()?)));
    Ok(match element {
        Some((node, element)) => (node.to_owned(), Some(element)),
        None => (name.to_owned(), None),
    })
}

/// The one id that a shortened one means; as it is where nothing is known of it and it may come.
fn whole_id(
    reader: &JournalReader,
    kind: IdKind,
    option: &str,
    id: &str,
    may_come: bool,
) -> Result<String, Fault> {
    match reader.resolve_id(kind, id)? {
        ResolvedId::One(id) => Ok(id),
        ResolvedId::Unknown if may_come => Ok(id.to_owned()),
        ResolvedId::Unknown => {
            let short = too_short(id);
            Err(unknown(option, short.as_deref().unwrap_or(id), &reader.unreadable()))
        }
        ResolvedId::Several(ids, more) => {
            let (number, ids) = (ids.len(), ids.join(", "));
            let (number, ids) =
                if more { (format!("more than {number}"), ids + ", …") } else { (number.to_string(), ids) };
            Err(Fault::new(
                "logs.ambiguous_id",
                format!("{option} {id} means {number} things: {ids}"),
                "give more of its beginning or its end",
            ))
        }
    }
}

/// Said of an id that is too short to be the beginning of what is shown of one.
fn too_short(id: &str) -> Option<String> {
    let is_of_id = id.chars().all(|c| c.is_ascii_hexdigit() || c == '-');
    let is_short = is_of_id && id.len() < SHOWN_CHARS_MIN;
    is_short.then(|| format!("{id} (of the beginning of an id as it is shown, at least {SHOWN_CHARS_MIN} characters are needed)"))
}

/// Where rows are missing, it may stand in those: what keeps them from being read is what has to be told.
fn unknown(option: &str, name: &str, missing: &[StoreError]) -> Fault {
    let Some(first) = missing.first() else {
        return Fault::new(
            "logs.unknown",
            format!("{option} {name}: nothing is known of it"),
            "`cjm-ctl logs --journal` shows what there was, with ids that may be given here",
        );
    };
    let mut report = ErrorReport::of(first);
    report.message = format!("{option} {name}: nothing is known of it in what can be read");
    report.causes = missing.iter().map(ToString::to_string).collect();
    Fault::from_report(report)
}
