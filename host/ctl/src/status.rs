//! `status`: which host uses the data directory, since when, and what it runs now. It reads the lock and the journal and
//! asks nothing of that host, so that it answers also when the host does not.

use crate::assign::lock_not_asked;
use crate::cli::Global;
use crate::fault::{CommandResult, Fault};
use crate::output::{Output, path_text};
use crate::visible::one_line;
use crate::waiting::{self, Reasons};
use cjm_catalog::beginning::Beginning;
use cjm_catalog::installation::{
    Installation, Unfinished, env_name_of, install_all_step, list_of, taken_away_step,
};
use cjm_catalog::installer::Installer;
use cjm_catalog::{Catalog, CatalogEntry, ManifestFolder};
use cjm_environments::running_host;
use cjm_platform::lock::{NO_HOST, host_process, since_of};
use cjm_platform::process::Pid;
use cjm_platform::tree::is_stopped;
use cjm_store::{JobFilter, JobRecord, JournalReader, StoreError, WorkerRecord};
use cjm_wire::describe::{Described as _, ErrorReport, exit};
use cjm_wire::event::JobStatus;
use cjm_wire::{Timestamp, WorkerSessionId, ids};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// What a worker without a job may be at: only its host knows.
const WITHOUT_JOB: &str = "without a job (idle, or at a stream or a direct call)";
/// What one does before it takes any call.
const STARTING: &str = "starting: it loads its tool, and takes no call before";
/// Lines of jobs of each kind, and of workers; the others are counted.
const SHOWN_MAX: usize = 50;

/// Of the host's command line.
const COMMAND_CHARS_MAX: usize = 200;

/// Runs the command.
pub(crate) fn run(global: &Global, output: &Output) -> CommandResult {
    let data_dir = global.settings()?.data_dir;
    let holder = running_host(&data_dir).map_err(|error| lock_not_asked(&error))?;
    let installer = Installer::at_work(&data_dir);
    let Some(holder) = holder else { return tell_of_no_host(&data_dir, installer.as_ref(), output) };
    let now = Now::read(&data_dir);
    let (pid, since) = (host_process(&data_dir, &holder), since_of(&holder));
    let command = pid.and_then(command_of);
    // It ends by no wait, and hears no signal before it goes on.
    let stands_still = pid.is_some_and(is_stopped);
    let pid = pid.map(Pid::as_raw);
    if output.json {
        let mut document = json!({
            "data_dir": path_text(&data_dir), "holder": holder, "pid": pid, "since": since, "command": command,
            "stopped": stands_still, "left_by_dead_host_count": 0, "error": null,
        });
        add_installations(&data_dir, installer.as_ref(), &mut document);
        let code = match &now {
            Ok(now) => {
                now.add_to(&mut document);
                exit::OK
            }
            Err(error) => {
                Now::add_unknown(&mut document);
                let report = ErrorReport::of(error);
                document["error"] = json!(report);
                report.exit_code
            }
        };
        output.document(&document)?;
        return Ok(code);
    }
    for line in host_lines(&data_dir, &holder, pid, command.as_deref()) {
        output.line(&line)?;
    }
    for line in now.as_ref().map(Now::lines).unwrap_or_default() {
        output.line(&line)?;
    }
    tell_installation(&data_dir, installer.as_ref(), output)?;
    if let Some(pid) = pid.filter(|_| stands_still) {
        output.line("that host is stopped: it does nothing until it goes on")?;
        output.note(&format!(
            "next: `kill -CONT {pid}` lets it go on, and `kill {pid}` then ends it and what it runs"
        ));
    } else if let Some(pid) = pid {
        output.note(&format!(
            "next: `kill {pid}` stops it and what it runs; `cjm-ctl logs --journal --follow` shows what happens"
        ));
    }
    // Who it is was told, and what it runs nobody can say.
    now.map(|_| exit::OK).map_err(Fault::from)
}

/// What there is to tell where no host uses the directory.
fn tell_of_no_host(data_dir: &Path, installer: Option<&Installer>, output: &Output) -> CommandResult {
    let (left, code, unread) = match left_by_the_dead(data_dir) {
        Ok(left) => (left, exit::OK, None),
        Err(error) => (0, ErrorReport::of(&error).exit_code, Some(error)),
    };
    if output.json {
        let mut document = json!({
            "data_dir": path_text(data_dir), "holder": null, "pid": null, "since": null, "command": null,
            "stopped": false, "left_by_dead_host_count": unread.is_none().then_some(left),
            "error": unread.as_ref().map(|error| ErrorReport::of(error)),
        });
        Now::default().add_to(&mut document);
        add_installations(data_dir, installer, &mut document);
        output.document(&document)?;
        return Ok(code);
    }
    output.line(&format!("no host uses {}", data_dir.display()))?;
    if left > 0 {
        let (jobs, them) =
            if left == 1 { ("1 job that", "it") } else { (&*format!("{left} jobs that"), "them") };
        output.line(&format!(
            "its last host died with {jobs} had not ended: the next `call` or `run` here ends {them} as failed"
        ))?;
    }
    tell_installation(data_dir, installer, output)?;
    unread.map_or(Ok(exit::OK), |error| Err(error.into()))
}

/// An installation that came to no end, and on which nobody works.
struct BrokenOff {
    env_name: String,
    capability: Option<String>,
    entry: Option<String>,
    words: String,
    next_step: String,
}

impl BrokenOff {
    /// All of a data directory: first ones by their notes, updates by the manifests of their tools.
    fn all(data_dir: &Path, installer: Option<&Installer>) -> Vec<Self> {
        let nobody_works_on = |env_name: &str| installer.is_none_or(|by| !by.concerns(env_name));
        let catalog = catalog_of(data_dir);
        let first = Beginning::unended(data_dir).into_iter().filter(|begun| begun.is_noted);
        let mut all: Vec<Self> = first.map(|begun| Self::first(begun, &catalog)).collect();
        for entry in catalog.entries() {
            let update = Self::update(entry);
            all.extend(update.filter(|new| all.iter().all(|known| known.env_name != new.env_name)));
        }
        all.retain(|one| nobody_works_on(&one.env_name));
        all
    }

    fn first(begun: Beginning, catalog: &Catalog) -> Self {
        let names = [Some(&begun.env_name), begun.entry.as_ref(), begun.capability.as_ref()];
        // A tool of such a name lives elsewhere, and would go in its place.
        let free = names.into_iter().flatten().find(|name| catalog.get(name).is_none());
        let next_step = match free.filter(|_| !begun.is_asked_for()) {
            Some(name) => taken_away_step(name, begun.list.as_deref()),
            None => format!("{} goes on with it", install_all_step(begun.list.as_deref())),
        };
        let words = begun.broken_off();
        Self { env_name: begun.env_name, capability: begun.capability, entry: begun.entry, words, next_step }
    }

    fn update(entry: &CatalogEntry) -> Option<Self> {
        let unfinished = Installation::of(entry)?.unfinished()?;
        let Unfinished::BrokenOff { capability, .. } = &unfinished else { return None };
        Some(Self {
            env_name: env_name_of(&entry.manifest)?,
            capability: Some(capability.clone()),
            entry: None,
            words: unfinished.to_string(),
            next_step: unfinished.next_step(),
        })
    }
}

/// What is installed here.
fn catalog_of(data_dir: &Path) -> Catalog {
    Catalog::discover(&[ManifestFolder::named(data_dir.join("manifests"))])
}

fn add_installations(data_dir: &Path, installer: Option<&Installer>, document: &mut Value) {
    document["installation"] = installation_document(installer);
    let left = BrokenOff::all(data_dir, installer).into_iter().map(|one| {
        let path = data_dir.join("envs").join(&one.env_name);
        json!({
            "environment": one.env_name, "path": path_text(&path), "entry": one.entry,
            "capability": one.capability, "next_step": one.next_step,
        })
    });
    document["unfinished_installations"] = left.collect();
}

/// Who changes what is installed here, how to end what a killed one left, and what was broken off.
fn tell_installation(data_dir: &Path, installer: Option<&Installer>, output: &Output) -> Result<(), Fault> {
    for one in BrokenOff::all(data_dir, installer) {
        let path = data_dir.join("envs").join(&one.env_name);
        output.line(&one_line(&format!("{} ({})", one.words, path.display())))?;
        output.note(&format!("next: {}", one.next_step));
    }
    let Some(installer) = installer else { return Ok(()) };
    output.line(&format!("what is installed is being changed by {}", one_line(&installer.to_string())))?;
    if let Some(kill) = installer.kill_command() {
        let of_it = |begun: &Beginning| installer.concerns(&begun.env_name);
        let list = Beginning::unended(data_dir).into_iter().filter(of_it).find_map(|begun| begun.list);
        let list = list.or_else(|| list_of_changed(data_dir, installer));
        let again = install_all_step(list.as_deref());
        output.note(&format!("next: `{kill}` ends it; then {again} goes on"));
    }
    Ok(())
}

/// The list from which a tool came whose environment is being made anew, by its manifest.
fn list_of_changed(data_dir: &Path, installer: &Installer) -> Option<PathBuf> {
    let catalog = catalog_of(data_dir);
    let is_changed = |entry: &&CatalogEntry| {
        env_name_of(&entry.manifest).is_some_and(|env_name| installer.concerns(&env_name))
    };
    catalog.entries().find(is_changed).and_then(|entry| list_of(&entry.manifest))
}

pub(crate) fn installation_document(installer: Option<&Installer>) -> Value {
    let Some(installer) = installer else { return Value::Null };
    let helpers: Vec<i32> = installer.helpers.iter().map(|pid| pid.as_raw()).collect();
    json!({
        "pid": installer.pid.map(Pid::as_raw), "since": installer.since, "command": installer.command,
        "environments": installer.environments, "was_killed": installer.was_killed, "helper_pids": helpers,
    })
}

/// Jobs that the journal has as unfinished though no host lives that could finish them.
fn left_by_the_dead(data_dir: &Path) -> Result<usize, StoreError> {
    let filter = JobFilter { statuses: vec![JobStatus::Running, JobStatus::Pending], ..JobFilter::default() };
    match JournalReader::open(data_dir).and_then(|reader| reader.count_jobs(&filter)) {
        Err(StoreError::NothingYet { .. }) => Ok(0),
        other => other,
    }
}

/// What a host runs.
#[derive(Default)]
struct Now {
    running: Jobs,
    pending: Jobs,
    workers: Vec<WorkerRecord>,
    /// Those that load their tool still.
    starting: Vec<WorkerSessionId>,
    /// Why the first of those that wait do so.
    reasons: Reasons,
    /// There is no journal.
    is_unknown: bool,
}

#[derive(Default)]
struct Jobs {
    /// The oldest: of those that run all that can be, since which worker has none is told by them.
    listed: Vec<JobRecord>,
    count: usize,
}

impl Now {
    /// As its journal has it.
    fn read(data_dir: &Path) -> Result<Self, StoreError> {
        let reader = match JournalReader::open(data_dir) {
            Ok(reader) => reader,
            Err(StoreError::NothingYet { .. }) => return Ok(Self { is_unknown: true, ..Self::default() }),
            Err(error) => return Err(error),
        };
        let jobs = |status, limit| -> Result<Jobs, StoreError> {
            let filter = JobFilter { statuses: vec![status], ..JobFilter::default() };
            let found = reader.jobs(&filter, 0, limit)?;
            Ok(Jobs {
                count: reader.count_jobs(&filter)?,
                listed: found.into_iter().map(|found| found.job).collect(),
            })
        };
        let pending = jobs(JobStatus::Pending, SHOWN_MAX)?;
        Ok(Self {
            running: jobs(JobStatus::Running, usize::MAX)?,
            reasons: Reasons::read(&reader, &pending.listed)?,
            pending,
            workers: reader.living_workers()?,
            // After the others, so that all of them that start are among these.
            starting: reader.starting_workers()?,
            is_unknown: false,
        })
    }

    fn add_to(&self, document: &mut Value) {
        for (name, jobs) in [("running", &self.running), ("pending", &self.pending)] {
            document[name] = jobs.listed.iter().map(|job| job_document(job, &self.workers)).collect();
            document[format!("{name}_count")] = jobs.count.into();
        }
        let pending = &self.pending.listed;
        for (job, told) in pending.iter().zip(document["pending"].as_array_mut().into_iter().flatten()) {
            told["block_reason"] = self.reasons.of(job, pending).into();
        }
        document["workers"] = self.workers.iter().map(|worker| self.worker_document(worker)).collect();
    }

    /// The same keys where nobody knows what they hold.
    fn add_unknown(document: &mut Value) {
        for key in ["running", "running_count", "pending", "pending_count", "workers"] {
            document[key] = Value::Null;
        }
    }

    fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (word, jobs) in [("running", &self.running), ("pending", &self.pending)] {
            let line = |job: &JobRecord| job_line(word, job, &self.workers) + &self.what_it_waits_for(job);
            lines.extend(jobs.listed.iter().take(SHOWN_MAX).map(line));
            lines.extend(and_more(word, jobs.count));
        }
        let is_busy = |worker: &WorkerRecord| {
            let session = Some(&worker.worker_session_id);
            self.running.listed.iter().any(|job| job.worker_session_id.as_ref() == session)
        };
        let idle: Vec<&WorkerRecord> = self.workers.iter().filter(|worker| !is_busy(worker)).collect();
        lines.extend(idle.iter().take(SHOWN_MAX).map(|worker| self.worker_line(worker)));
        lines.extend(and_more("worker", idle.len()));
        if lines.is_empty() {
            lines.push(match self.is_unknown {
                true => "what it runs is not known: it has no journal yet, or none any more".to_owned(),
                false => "it runs nothing now".to_owned(),
            });
        }
        lines
    }

    /// Of a pending job, what its host says that it waits for, and what the journal shows of its tool: a worker that
    /// starts, or other jobs that run.
    fn what_it_waits_for(&self, job: &JobRecord) -> String {
        if job.status != JobStatus::Pending {
            return String::new();
        }
        let starts = |worker: &WorkerRecord| {
            worker.capability_name == job.capability_name && self.starting.contains(&worker.worker_session_id)
        };
        let of_its_tool = |other: &&JobRecord| other.capability_name == job.capability_name;
        if self.workers.iter().any(starts) {
            return ": its worker starts".to_owned();
        }
        let running = self.running.listed.iter().filter(of_its_tool).count();
        waiting::in_words(self.reasons.of(job, &self.pending.listed), running)
    }

    /// Of one that no running job is on.
    fn worker_line(&self, worker: &WorkerRecord) -> String {
        let age = age(&worker.spawned_at).map_or_else(String::new, |age| format!(", for {age}"));
        let does = if self.starting.contains(&worker.worker_session_id) { STARTING } else { WITHOUT_JOB };
        format!("worker   {} (pid {}{age}), {does}", one_line(&worker.instance_id), worker.pid)
    }

    fn worker_document(&self, worker: &WorkerRecord) -> Value {
        let mut document = json!(worker);
        document["is_starting"] = self.starting.contains(&worker.worker_session_id).into();
        document
    }
}

/// Of so many, those that have no line.
fn and_more(word: &str, count: usize) -> Option<String> {
    (count > SHOWN_MAX).then(|| format!("{word:8} and {} more", count - SHOWN_MAX))
}

fn host_lines(data_dir: &Path, holder: &str, pid: Option<i32>, command: Option<&str>) -> Vec<String> {
    let mut lines = vec![match (pid, since_of(holder)) {
        (Some(pid), Some(since)) => {
            let since = Timestamp::from_text(since);
            let age = age(&since).map_or_else(String::new, |age| format!(" ({age})"));
            format!("a host uses {}: pid {pid}, since {} UTC{age}", data_dir.display(), since.for_people())
        }
        _ if holder.starts_with(NO_HOST) => {
            format!("{} is in use by {}", data_dir.display(), one_line(holder))
        }
        _ => format!("a host uses {}: {}", data_dir.display(), one_line(holder)),
    }];
    lines.extend(command.map(|command| format!("  {}", one_line(command))));
    lines
}

fn job_line(word: &str, job: &JobRecord, workers: &[WorkerRecord]) -> String {
    let since = if job.status == JobStatus::Running { job.started_at.as_ref() } else { None };
    let mut line =
        format!("{word:8} job {} of {}", ids::short(job.job_id.as_str()), one_line(&job.capability_name));
    if let Some(action) = job.action.as_deref().or(job.method.as_deref()) {
        line.push_str(&format!(".{}", one_line(action)));
    }
    if let Some(node) = &job.node_id {
        let element = job.element_index.map_or_else(String::new, |index| format!("[{index}]"));
        line.push_str(&format!(", node {}{element}", one_line(node)));
    }
    if let Some(age) = age(since.unwrap_or(&job.submitted_at)) {
        line.push_str(&format!(", for {age}"));
    }
    if let Some(worker) = worker_of(job, workers) {
        line.push_str(&format!(" (worker pid {})", worker.pid));
    }
    line
}

fn worker_of<'w>(job: &JobRecord, workers: &'w [WorkerRecord]) -> Option<&'w WorkerRecord> {
    workers.iter().find(|worker| job.worker_session_id.as_ref() == Some(&worker.worker_session_id))
}

fn job_document(job: &JobRecord, workers: &[WorkerRecord]) -> Value {
    json!({
        "job_id": job.job_id, "capability_name": job.capability_name, "action": job.action, "method": job.method,
        "status": job.status, "submitted_at": job.submitted_at, "started_at": job.started_at, "run_id": job.run_id,
        "composition_id": job.composition_id, "node_id": job.node_id, "element_index": job.element_index,
        "attempt": job.attempt, "actor": job.actor, "worker_pid": worker_of(job, workers).map(|worker| worker.pid),
    })
}

/// How long ago that was.
fn age(since: &Timestamp) -> Option<String> {
    let micros = Timestamp::now().as_micros()?.checked_sub(since.as_micros()?)?;
    // Clocks may have been set back.
    Some(in_words(u64::try_from(micros).unwrap_or(0) / 1_000_000))
}

/// As `2h 5m` or `12s`.
fn in_words(seconds: u64) -> String {
    match (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, seconds) => format!("{seconds}s"),
        (0, 0, minutes, seconds) => format!("{minutes}m {seconds}s"),
        (0, hours, minutes, _) => format!("{hours}h {minutes}m"),
        (days, hours, ..) => format!("{days}d {hours}h"),
    }
}

/// The command line of a process, as a shell reads it; none of somebody else's, or of one in another container.
fn command_of(pid: Pid) -> Option<String> {
    let raw = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let words = raw.strip_suffix(b"\0").unwrap_or(&raw).split(|byte| *byte == 0);
    let words: Vec<String> =
        words.map(|word| crate::cli::shell_word(&String::from_utf8_lossy(word))).collect();
    let command = words.join(" ");
    let shown: String = command.chars().take(COMMAND_CHARS_MAX).collect();
    let cut = if shown.len() < command.len() { "…" } else { "" };
    Some(format!("{shown}{cut}")).filter(|command| !command.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use cjm_wire::JobId;

    fn ago(seconds: i64) -> Timestamp {
        let now = Timestamp::now().as_micros().expect("an instant");
        Timestamp::from_micros(now - seconds * 1_000_000 - 500_000)
    }

    fn job(submitted: i64, started: Option<i64>) -> JobRecord {
        let mut job = JobRecord::new(JobId::new(), "tool", ago(submitted));
        if let Some(started) = started {
            job.status = JobStatus::Running;
            job.started_at = Some(ago(started));
            job.worker_session_id = Some(WorkerSessionId::new());
        }
        job
    }

    fn worker(session: WorkerSessionId) -> WorkerRecord {
        WorkerRecord {
            worker_session_id: session,
            host_session_id: "h".into(),
            instance_id: "tool".into(),
            capability_name: "tool".into(),
            pid: 7,
            spawned_at: ago(70),
            ended_at: None,
        }
    }

    #[test]
    fn an_age_has_two_units_at_most() {
        for (seconds, words) in
            [(0, "0s"), (59, "59s"), (60, "1m 0s"), (3599, "59m 59s"), (7500, "2h 5m"), (90_000, "1d 1h")]
        {
            assert_eq!(in_words(seconds), words);
        }
    }

    #[test]
    fn a_job_is_as_old_as_what_it_does_now() {
        let (running, pending) = (job(600, Some(5)), job(600, None));
        assert!(job_line("running", &running, &[]).ends_with("of tool, for 5s"));
        assert!(job_line("pending", &pending, &[]).ends_with("of tool, for 10m 0s"));
    }

    #[test]
    fn what_has_no_line_is_counted_and_a_worker_is_idle_only_if_no_job_runs_on_it() {
        let running: Vec<JobRecord> = (0..SHOWN_MAX + 2).map(|_| job(9, Some(5))).collect();
        let session = |job: &JobRecord| job.worker_session_id.clone().expect("a session");
        let mut workers: Vec<WorkerRecord> = running.iter().map(|job| worker(session(job))).collect();
        workers.push(worker(WorkerSessionId::new()));
        let running = Jobs { count: running.len(), listed: running };
        let pending = Jobs { count: 60, listed: vec![job(9, None)] };
        let lines = Now { running, pending, workers, ..Now::default() }.lines();
        let has = |line: &str| lines.iter().filter(|known| known.as_str() == line).count();
        assert_eq!((has("running  and 2 more"), has("pending  and 10 more")), (1, 1), "{lines:#?}");
        assert_eq!(
            has("worker   tool (pid 7, for 1m 10s), without a job (idle, or at a stream or a direct call)"),
            1,
            "{lines:#?}"
        );
        let idle = (0..SHOWN_MAX + 3).map(|_| worker(WorkerSessionId::new())).collect();
        let lines = Now { workers: idle, ..Now::default() }.lines();
        assert_eq!(
            (lines.len(), lines.last().map(String::as_str)),
            (SHOWN_MAX + 1, Some("worker   and 3 more"))
        );
    }

    #[test]
    fn of_a_pending_job_what_its_tool_is_at_is_told() {
        let (other, starting) =
            (JobRecord::new(JobId::new(), "other", ago(9)), worker(WorkerSessionId::new()));
        let now = |running: &[JobRecord], workers: &[WorkerRecord], starting: &[WorkerSessionId]| Now {
            running: Jobs { count: running.len(), listed: running.to_vec() },
            pending: Jobs { count: 1, listed: vec![job(9, None)] },
            workers: workers.to_vec(),
            starting: starting.to_vec(),
            reasons: Reasons::default(),
            is_unknown: false,
        };
        let told = |now: &Now| {
            let line = now.lines().into_iter().find(|line| line.starts_with("pending")).expect("a line");
            line.split_once("for 9s").expect("an age").1.to_owned()
        };
        assert_eq!(told(&now(&[other], &[], &[])), "");
        assert_eq!(told(&now(&[job(9, Some(5))], &[], &[])), ": another job of its tool runs");
        let two = [job(9, Some(5)), job(9, Some(5))];
        assert_eq!(told(&now(&two, &[], &[])), ": 2 other jobs of its tool run");
        let session = starting.worker_session_id.clone();
        assert_eq!(told(&now(&[], std::slice::from_ref(&starting), &[])), "");
        assert_eq!(told(&now(&[], &[starting], &[session])), ": its worker starts");
    }

    #[test]
    fn where_there_is_no_journal_nobody_says_that_nothing_runs() {
        let dir = tempfile::tempdir().expect("a folder");
        let lines = Now::read(dir.path()).expect("no error").lines();
        assert!(lines.len() == 1 && lines[0].starts_with("what it runs is not known"), "{lines:?}");
        assert_eq!(Now::default().lines(), ["it runs nothing now"]);
    }
}
