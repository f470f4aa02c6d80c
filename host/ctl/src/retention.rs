//! `retention`: forgets old records and output now; forgets old jobs and moves old rows of the journal away where that is
//! asked for.

use crate::cli::{Global, RetentionArgs};
use crate::fault::{CommandResult, Fault};
use crate::instant::instant;
use crate::kept::{Kept, disk_of, largest_in, largest_of_tools, results_in, way_to_remove};
use crate::output::{Output, path_text};
use crate::visible::one_line;
use cjm_platform::disk::DiskRoom;
use cjm_store::{
    Archived, DIAGNOSTICS_FILE, DIAGNOSTICS_MB_MAX_DEFAULT, Forgotten, ForgottenJobs, JOURNAL_FILE,
    JournalReader, Retention, StoreError, apply_retention, archive_journal, archives, forget_jobs,
};
use cjm_wire::Timestamp;
use cjm_wire::describe::{ErrorReport, exit, shell_word};
use cjm_wire::settings_file::{RETENTION_DAYS_MAX, RETENTION_MB};
use serde_json::{Map, Value, json};
use std::path::Path;

const MB_BYTES: f64 = 1024.0 * 1024.0;
/// A disk with less room than this is nearly full.
const TIGHT_BYTES: u64 = 2 * 1024 * 1024;
/// Folders of tools that are told then, at most, and what each holds at least.
const KEPT_TOLD_MAX: usize = 3;
const KEPT_TOLD_BYTES_MIN: u64 = 256 * 1024;
/// What else is told then of the data directory, at most.
const LARGEST_TOLD_MAX: usize = 3;
/// What to do where not even the room is left that it takes to forget.
const ROOM_BY_HAND: &str = "make 1 MB free on the disk of the data directory by removing or moving other files there, since \
                            forgetting takes some room itself, as archives do; then run it again";

/// Runs the command.
pub(crate) fn run(global: &Global, args: &RetentionArgs, output: &Output) -> CommandResult {
    for (option, value) in [
        ("--max-age-days", args.max_age_days),
        ("--max-total-mb", args.max_total_mb),
        ("--jobs-max-age-days", args.jobs_max_age_days),
    ] {
        if value.is_some_and(|value| !value.is_finite()) {
            return Err(Fault::usage(format!("{option} is no number of anything"), "give a number"));
        }
    }
    // As in cjm.yaml; 0 stands for nothing at all.
    if args.max_total_mb.is_some_and(|mb| mb != 0.0 && !RETENTION_MB.contains(&mb)) {
        return Err(Fault::usage(
            format!(
                "--max-total-mb is less than {}, or more than {}",
                RETENTION_MB.start(),
                RETENTION_MB.end()
            ),
            format!("give {} or more; 0 forgets all records and output", RETENTION_MB.start()),
        ));
    }
    for (option, value) in
        [("--max-age-days", args.max_age_days), ("--jobs-max-age-days", args.jobs_max_age_days)]
    {
        if value.is_some_and(|value| value.abs() > RETENTION_DAYS_MAX) {
            return Err(Fault::usage(
                format!("{option} is more than {RETENTION_DAYS_MAX} days, the longest time there is"),
                format!("give at most {RETENTION_DAYS_MAX}"),
            ));
        }
    }
    if args.jobs_max_age_days.is_some_and(|days| days <= 0.0) {
        // Elsewhere 0 is for ever; nobody shall lose all jobs by it.
        let next_step = "give more than 0; 0.00001 forgets all that ended over a second ago";
        return Err(Fault::usage("--jobs-max-age-days is 0 or less", next_step));
    }
    let before =
        args.archive_journal.as_deref().map(|text| instant("--archive-journal", text)).transpose()?;
    let settings = global.settings_to_write()?;
    let data_dir = settings.data_dir.as_path();
    let mut told = Told { output, document: Map::new() };
    let asks_for_diagnostics = args.max_age_days.is_some() || args.max_total_mb.is_some();
    if asks_for_diagnostics || (args.jobs_max_age_days.is_none() && before.is_none()) {
        let retention = Retention {
            age_max_days: args
                .max_age_days
                .or(settings.behaviour.diagnostics_retention_days)
                .filter(|days| *days > 0.0),
            // As a host does.
            size_max_mb: args
                .max_total_mb
                .or(settings.behaviour.diagnostics_retention_max_mb)
                .or(Some(DIAGNOSTICS_MB_MAX_DEFAULT)),
        };
        told.diagnostics(data_dir, &retention)?;
    }
    if let Some(days) = args.jobs_max_age_days {
        told.jobs(data_dir, days)?;
    }
    if let Some(before) = before {
        told.journal(data_dir, &before)?;
    }
    told.untouched(data_dir, args.jobs_max_age_days.is_some())?;
    told.end()
}

/// What was done so far: lines as they come, or one document at the end.
struct Told<'a> {
    output: &'a Output,
    document: Map<String, Value>,
}

impl Told<'_> {
    fn diagnostics(&mut self, data_dir: &Path, retention: &Retention) -> Result<(), Fault> {
        let found =
            self.forgotten(apply_retention(data_dir, retention), "diagnostics store", DIAGNOSTICS_FILE)?;
        if let Some(Forgotten { records, chunks, file_bytes, free_bytes }) = found {
            let aged = match retention.age_max_days {
                Some(_) => "",
                None => " Nothing went for its age (0 or less: for ever).",
            };
            self.line(&format!(
                "diagnostics retention: deleted {records} record(s) + {chunks} chunk(s).{aged} The file had {:.1} MB; {:.1} MB \
                 in it are free for new records and output, and it does not get smaller by that. Journal untouched.",
                mb(file_bytes),
                mb(free_bytes)
            ))?;
        }
        let forgotten = found.unwrap_or_default();
        self.add(&json!({
            "max_age_days": retention.age_max_days,
            "max_total_mb": retention.size_max_mb,
            "records_deleted": forgotten.records,
            "chunks_deleted": forgotten.chunks,
            "file_bytes_before": forgotten.file_bytes,
            "free_bytes": forgotten.free_bytes,
        }));
        Ok(())
    }

    fn jobs(&mut self, data_dir: &Path, days: f64) -> Result<(), Fault> {
        let found = self.forgotten(forget_jobs(data_dir, days), "journal", JOURNAL_FILE)?;
        let is_told = found.is_some();
        let forgotten = found.unwrap_or_default();
        let ForgottenJobs {
            jobs,
            compositions,
            files,
            file_bytes,
            work_dirs,
            work_bytes,
            work_dirs_left,
            unfinished,
            free_bytes,
        } = forgotten;
        if is_told {
            self.line(&format!(
                "jobs: forgot {jobs} job(s) + {compositions} composition(s) that ended more than {days} day(s) ago, {files} \
                 file(s) of large bodies ({:.1} MB), and {work_dirs} directory(ies) in which programs left results ({:.1} MB). \
                 Their rows in the journal stay. {:.1} MB in the journal's file are free for new work.",
                mb(file_bytes),
                mb(work_bytes),
                mb(free_bytes)
            ))?;
            for (path, reason) in &work_dirs_left {
                self.line(&format!("jobs: {} stays: {}", path_text(path), one_line(reason)))?;
            }
            if unfinished > 0 {
                self.line(&format!(
                    "jobs: {unfinished} run(s) and job(s) have not ended and stay. What a host left that is gone is ended by \
                     the next `cjm-ctl call` or `run`; this forgets it after that."
                ))?;
            }
        }
        let left: Vec<Value> = work_dirs_left
            .iter()
            .map(|(path, reason)| json!({"path": path_text(path), "reason": reason}))
            .collect();
        self.add(&json!({
            "jobs_max_age_days": days,
            "jobs_deleted": jobs,
            "compositions_deleted": compositions,
            "payload_files_deleted": files,
            "payload_bytes_deleted": file_bytes,
            "work_directories_deleted": work_dirs,
            "work_bytes_deleted": work_bytes,
            "work_directories_left": left,
            "unfinished": unfinished,
            "journal_free_bytes": free_bytes,
        }));
        Ok(())
    }

    /// Where the disk is nearly full still: what tools keep, which no retention takes.
    fn untouched(&mut self, data_dir: &Path, forgot_jobs: bool) -> Result<(), Fault> {
        let is_tight = DiskRoom::of(data_dir).is_some_and(|room| room.bytes < TIGHT_BYTES);
        if is_tight {
            self.full(data_dir)?;
        }
        let results = if is_tight && !forgot_jobs { results_in(data_dir) } else { 0 };
        if results >= KEPT_TOLD_BYTES_MIN {
            self.line(&format!(
                "{:.1} MB of it are results of jobs; `cjm-ctl retention --jobs-max-age-days 7` forgets those that ended over a \
                 week ago, and 0.00001 in place of 7 all",
                mb(results)
            ))?;
        }
        let of_tools = || largest_of_tools(data_dir, KEPT_TOLD_MAX, KEPT_TOLD_BYTES_MIN);
        let kept = if is_tight { of_tools() } else { Vec::new() };
        for Kept { path, bytes } in &kept {
            self.line(&format!(
                "{} holds {:.1} MB that its tool keeps ({})",
                path.display(),
                mb(*bytes),
                way_to_remove(path)
            ))?;
        }
        let kept: Vec<Value> =
            kept.iter().map(|kept| json!({"path": path_text(&kept.path), "bytes": kept.bytes})).collect();
        self.add(&json!({"kept_by_tools": kept}));
        Ok(())
    }

    /// What takes the room of a disk that is nearly full still. The next word is not to forget once more.
    fn full(&mut self, data_dir: &Path) -> Result<(), Fault> {
        let Some(room) = DiskRoom::of(data_dir) else { return Ok(()) };
        let mut own = largest_in(data_dir, usize::MAX, 0);
        let own_bytes: u64 = own.iter().map(|kept| kept.bytes).sum();
        own.retain(|kept| kept.bytes >= KEPT_TOLD_BYTES_MIN && !kept.path.ends_with("data"));
        own.truncate(LARGEST_TOLD_MAX);
        let disk = disk_of(data_dir);
        self.line(&format!(
            "the disk is nearly full still: {:.1} MB of it are free, and all that this was to take is gone. Of what is on it, \
             {:.1} MB are {}; make room by removing or moving other files (`du -xah {} | sort -h | tail -n 20` shows the largest).",
            mb(room.bytes),
            mb(own_bytes),
            data_dir.display(),
            shell_word(&path_text(&disk))
        ))?;
        for Kept { path, bytes } in &own {
            self.line(&format!("{} holds {:.1} MB", path.display(), mb(*bytes)))?;
        }
        let largest: Vec<Value> =
            own.iter().map(|kept| json!({"path": path_text(&kept.path), "bytes": kept.bytes})).collect();
        self.add(&json!({"disk_nearly_full": {
            "disk": path_text(&disk),
            "free_bytes": room.bytes,
            "data_directory_bytes": own_bytes,
            "largest": largest,
        }}));
        Ok(())
    }

    fn journal(&mut self, data_dir: &Path, before: &Timestamp) -> Result<(), Fault> {
        // Beside archives of another journal one of this hides that rows between them are lost.
        if archives(data_dir).is_ok_and(|all| !all.is_empty()) {
            let unreadable = JournalReader::open_with_archives(data_dir)?.unreadable();
            if let Some(lost) =
                unreadable.into_iter().find(|error| matches!(error, StoreError::JournalLost { .. }))
            {
                return Err(lost.into());
            }
        }
        let found = self.forgotten(archive_journal(data_dir, before), "journal", JOURNAL_FILE)?;
        match &found {
            Some(Archived { rows: 0, .. }) => {
                self.line(&format!("journal: nothing that ended is from before {before}; nothing moved."))?;
            }
            Some(Archived { rows, path }) => self.line(&format!(
                "journal: moved {rows} row(s) from before {before} to {}. `cjm-ctl logs --journal` reads them there.",
                path.display()
            ))?,
            None => {}
        }
        let archived = found.filter(|archived| archived.rows > 0);
        self.add(&json!({
            "archive_journal_before": before,
            "journal_rows_archived": archived.as_ref().map_or(0, |archived| archived.rows),
            "archive": archived.as_ref().map(|archived| archived.path.display().to_string()),
        }));
        Ok(())
    }

    /// None, and a word, where there is no such store yet.
    fn unless_nothing<T>(
        &self,
        done: Result<T, StoreError>,
        store: &str,
        file: &str,
    ) -> Result<Option<T>, Fault> {
        match done {
            Ok(done) => Ok(Some(done)),
            Err(StoreError::NothingYet { path }) => {
                let folder = path.parent().unwrap_or(&path);
                self.line(&format!("No {store} at {}; nothing to do.", folder.join(file).display()))?;
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The same where something is forgotten or moved: of a full disk the usual word would send its reader here once more.
    fn forgotten<T>(&self, done: Result<T, StoreError>, store: &str, file: &str) -> Result<Option<T>, Fault> {
        match done {
            Err(error) if error.is_about_room() => {
                let report = ErrorReport { next_step: ROOM_BY_HAND.to_owned(), ..ErrorReport::of(&error) };
                Err(Fault::from_report(report))
            }
            done => self.unless_nothing(done, store, file),
        }
    }

    fn line(&self, text: &str) -> Result<(), Fault> {
        if self.output.json { Ok(()) } else { self.output.say(text) }
    }

    fn add(&mut self, more: &Value) {
        self.document.extend(more.as_object().cloned().unwrap_or_default());
    }

    fn end(self) -> CommandResult {
        if self.output.json {
            self.output.document(&Value::Object(self.document))?;
        }
        Ok(exit::OK)
    }
}

#[expect(clippy::cast_precision_loss, reason = "one decimal of megabytes is shown")]
fn mb(bytes: u64) -> f64 {
    bytes as f64 / MB_BYTES
}
