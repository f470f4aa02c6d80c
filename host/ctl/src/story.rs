//! Where the story of a failure stands. It is named only where the journal has one.

use crate::fault::Fault;
use cjm_store::{JournalFilter, JournalReader};
use cjm_wire::{ErrorReport, JobId, RunId};
use std::path::Path;

/// The code of an error whose cause is that the journal is another file by now.
const JOURNAL_MOVED: &str = "store.moved";
/// What every error says that follows from it.
const JOURNAL_MOVED_WORDS: &str = "was removed, replaced or emptied while the host was using it";

/// Says where the whole story of a job stands.
pub(crate) fn add_story_of_job(report: &mut ErrorReport, job: &JobId) {
    add(report, &format!("; `cjm-ctl logs --journal --job {}` tells its story", job.short()));
}

/// The same of a run.
pub(crate) fn add_story_of_run(report: &mut ErrorReport, run_id: &str) {
    add(report, &format!("; `cjm-ctl logs --journal --run {run_id}` tells its story"));
}

fn add(report: &mut ErrorReport, story: &str) {
    // A journal that was taken away tells nothing any more.
    if report.code != JOURNAL_MOVED && !report.message.contains(JOURNAL_MOVED_WORDS) {
        report.next_step.push_str(story);
    }
}

/// A fault without a job of its own, with its run. Its host has ended, so that what there is to tell is in the journal: a
/// refusal before anything was started has left nothing there.
pub(crate) fn of_run(fault: Fault, data_dir: &Path, run_id: &RunId) -> Fault {
    let Fault::Shown(mut report) = fault else { return fault };
    if report.details.job_id.is_none() {
        report.details.run_id.get_or_insert_with(|| run_id.clone());
        if has_rows(data_dir, run_id) {
            add_story_of_run(&mut report, run_id.short());
        }
    }
    Fault::Shown(report)
}

/// False also where the journal cannot be read: `logs` could not show it either.
fn has_rows(data_dir: &Path, run_id: &RunId) -> bool {
    let filter = JournalFilter { run: Some(run_id.to_string()), ..JournalFilter::default() };
    let rows = JournalReader::open(data_dir).and_then(|reader| reader.page(&filter, 0, 1));
    rows.is_ok_and(|rows| !rows.is_empty())
}
