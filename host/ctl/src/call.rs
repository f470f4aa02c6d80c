//! `call`: one call of one capability by a host that lives as long as the command. The result goes to stdout; the
//! worker and everything it started are gone when the command returns.

use crate::allow::tell_choice;
use crate::assign::{Declared, absolute_text, arguments, json_object};
use crate::cli::{CallArgs, Global};
use crate::declared::{action_of, declared};
use crate::fault::{CommandResult, Fault, current_dir};
use crate::interrupt::{Interrupts, interrupted};
use crate::list::actions;
use crate::out_folder::{self, Written};
use crate::output::Output;
use crate::progress::Board;
use crate::stdin::Stdin;
use crate::stopping::{end_of_cancelled, longest_grace, named, passed, shut_down, tell_late};
use crate::story::{add_story_of_job, of_run};
use crate::visible::one_line;
use cjm_catalog::{Catalog, CatalogEntry, Settings};
use cjm_engine::{
    CallError, Host, HostEvent, HostOptions, JobOutcome, JobRequest, LoadOptions, Target, Timeout, actor,
    check_known,
};
use cjm_store::JournalReader;
use cjm_wire::describe::{ErrorReport, Seconds, exit, shell_word};
use cjm_wire::envelope::{ACTION_KEY, ExecuteRequest};
use cjm_wire::event::JobStatus;
use cjm_wire::json::{Arguments, Json};
use cjm_wire::runtime::{ParameterKind, Runtime};
use cjm_wire::{InstanceId, JobId, RunId, Timestamp};
use futures_util::StreamExt;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a job may take to end once its deadline has passed and the grace of its tool is over: its worker is ended.
pub(crate) const DEADLINE_SLACK: Duration = Duration::from_secs(12);
/// The same of a stream, whose reader may not read: the host ends the call at its deadline in any case.
const STREAM_DEADLINE_GRACE: Duration = Duration::from_millis(100);

/// Runs the command.
pub(crate) async fn run(
    global: &Global,
    args: &CallArgs,
    output: &Output,
    interrupts: &Interrupts,
) -> CommandResult {
    let options = host_options(&global.settings_to_write()?);
    let cwd = current_dir()?;
    let deadline = deadline(args.timeout)?;
    name_comes_first(args)?;
    let options_with_objects = [args.args.as_deref(), args.config.as_deref()];
    let stdin = Stdin::read(&options_with_objects, &args.assignments, output, interrupts);
    let stdin = read_in_time(stdin, deadline).await?;
    let [object, config] = options_with_objects.map(|given| given.map(|given| stdin.object(given, &cwd)));
    let (object, config) = (object.transpose()?, config.transpose()?);
    let catalog = Catalog::discover(&options.manifest_dirs);
    let entry = catalog.get(&args.name);
    let of_tool =
        |key: &str| entry.map_or(Declared::Unknown, |entry| declared(entry, args.action.as_deref(), key));
    name_option_of_action(args, entry)?;
    let mut kwargs = arguments(object.as_deref(), &args.assignments, &cwd, stdin.file(), of_tool)?;
    one_action(args, &kwargs)?;
    // Before anything is made: a data directory that is not there is likely the wrong one.
    check_known(&options, [args.name.as_str()])?;
    tell_choice(&catalog, [args.name.as_str()], output);
    absolute_paths(&mut kwargs, entry, args.action.as_deref(), &cwd)?;
    let config = config.map(|text| json_object(&text, "--config")).transpose()?.map(Value::Object);
    output.ends_at(deadline);
    // Kept until the result is written.
    let directory = options.data_dir.clone();
    let go_on = || copying_goes_on(args, deadline, interrupts);
    let claim = |folder: &Path| out_folder::make(folder, &directory, &go_on);
    let _claimed = args.output.as_deref().map(claim).transpose().map_err(of_no_call)?;
    let host = start_host(options, deadline, interrupts, output).await?;
    let run_id = host.run_id().clone();
    let call = Call { host: &host, kept: &directory.join("data"), args, kwargs, config, output };
    let result = call.perform(deadline, interrupts).await;
    let grace = longest_grace(host.catalog(), [args.name.as_str()]);
    shut_down(host, &named(&args.name), grace, interrupts, output).await;
    result.map_err(|fault| of_run(fault, &directory, &run_id))
}

/// Whether files of a result are read and copied any longer.
fn copying_goes_on(args: &CallArgs, deadline: Option<Instant>, interrupts: &Interrupts) -> Result<(), Fault> {
    if let Some(code) = interrupts.asked() {
        return Err(interrupted(code));
    }
    if deadline.is_none_or(|deadline| Instant::now() < deadline) {
        return Ok(());
    }
    let given = Seconds::of(args.timeout.unwrap_or_default());
    let message = format!("the time for the files of the result was over after {given}");
    let next_step = "give it more time with --timeout; where there is a result, it tells where its files are";
    Err(Fault::new("ctl.output_deadline", message, next_step).with_exit(exit::TIMED_OUT))
}

/// A fault before the tool was asked for anything.
fn of_no_call(mut fault: Fault) -> Fault {
    if let Fault::Shown(report) = &mut fault {
        report.message.push_str("; the tool was not run");
    }
    fault
}

/// The options of the host that a command starts for itself.
pub(crate) fn host_options(settings: &Settings) -> HostOptions {
    let mut options = HostOptions::from(settings);
    options.actor = actor("cjm-ctl");
    options
}

/// Standard input, unless the time of the command is over before it ends.
pub(crate) async fn read_in_time(
    reading: impl Future<Output = Result<Stdin, Fault>>,
    deadline: Option<Instant>,
) -> Result<Stdin, Fault> {
    tokio::select! {
        read = reading => read,
        () = passed(deadline) => Err(Fault::new(
            "ctl.stdin_deadline",
            "the time was over before standard input had ended",
            "give it more time with --timeout, or see what writes to it",
        )
        .with_exit(exit::TIMED_OUT)),
    }
}

/// Starts it, unless the command is asked to end before: somebody else may hold the databases of its directory for long.
pub(crate) async fn start_host(
    options: HostOptions,
    deadline: Option<Instant>,
    interrupts: &Interrupts,
    output: &Output,
) -> Result<Host, Fault> {
    let directory = options.data_dir.clone();
    let start = async {
        let data_dir = directory.clone();
        // Before the host makes a journal where there is none.
        if let Ok(Some(lost)) = tokio::task::spawn_blocking(move || JournalReader::lost(&data_dir)).await {
            output.warning_of("what was journaled before is not all there", &lost);
        }
        Host::start(options).await
    };
    tokio::select! {
        host = start => Ok(host?),
        code = interrupts.wait() => Err(interrupted(code)),
        () = passed(deadline) => Err(Fault::new(
            "host.start_deadline",
            format!("the time was over before a host had started on {}", directory.display()),
            "give it more time with --timeout, or see whether another program holds the databases there",
        )
        .with_exit(exit::TIMED_OUT)),
    }
}

/// When to give up, if ever.
///
/// # Errors
/// When the number is not a time.
pub(crate) fn deadline(seconds: Option<f64>) -> Result<Option<Instant>, Fault> {
    let Some(seconds) = seconds else { return Ok(None) };
    let duration = Duration::try_from_secs_f64(seconds).ok().filter(|duration| !duration.is_zero());
    duration.and_then(|duration| Instant::now().checked_add(duration)).map(Some).ok_or_else(|| {
        Fault::usage(
            format!("--timeout {seconds:?} is no time to wait"),
            "give seconds above 0, and no more than a clock can hold",
        )
    })
}

/// What was given, and what is left of it: starting a host and loading a tool take some.
pub(crate) fn time_left(seconds: Option<f64>, deadline: Option<Instant>) -> Option<Timeout> {
    let given = Duration::try_from_secs_f64(seconds?).ok()?;
    Some(Timeout { given, left: deadline?.saturating_duration_since(Instant::now()) })
}

struct Call<'a> {
    host: &'a Host,
    /// Where tools keep what is theirs.
    kept: &'a Path,
    args: &'a CallArgs,
    kwargs: Arguments,
    config: Option<Value>,
    output: &'a Output,
}

impl Call<'_> {
    async fn perform(self, deadline: Option<Instant>, interrupts: &Interrupts) -> CommandResult {
        let board = Board::new(self.output, [self.args.name.as_str()]);
        let adapters = (!self.args.adapter.is_empty()).then(|| self.args.adapter.clone());
        let load = LoadOptions { config: self.config.clone(), adapters, ..LoadOptions::default() };
        let instance = tokio::select! {
            loaded = self.host.load(&self.args.name, load) => loaded?,
            code = interrupts.wait() => return Err(interrupted(code)),
            () = passed(deadline) => {
                // There is no job to cancel yet. The journal is to say why the worker ends.
                let given = time_left(self.args.timeout, deadline).map_or(Duration::ZERO, |timeout| timeout.given);
                let instance = InstanceId::from_text(self.args.name.clone());
                // An error says that it is gone already.
                let _ = self.host.give_up_start(&instance, given).await;
                return Err(not_begun_in_time(self.args));
            }
        };
        if self.args.stream {
            return tokio::select! {
                result = self.stream(&instance, deadline) => result,
                fault = self.output.reader_left() => Err(fault),
                code = interrupts.wait() => Err(interrupted(code)),
                // The stream has the same deadline; this is for who waits for a reader then.
                () = passed(deadline.and_then(|at| at.checked_add(STREAM_DEADLINE_GRACE))) => {
                    Err(timed_out(self.args))
                }
            };
        }
        let mut request = JobRequest::new(Target::Instance(instance));
        request.action.clone_from(&self.args.action);
        request.task = self.args.task.clone().zip(self.args.method.clone());
        request.kwargs.clone_from(&self.kwargs);
        request.control = self.control();
        // The job tells the journal that it was a deadline.
        request.timeout = time_left(self.args.timeout, deadline);
        let name = named(&self.args.name);
        let grace = longest_grace(self.host.catalog(), [self.args.name.as_str()]);
        let events = self.host.events();
        let job = self.host.submit(request).await?;
        let outcome = tokio::select! {
            outcome = self.host.wait(&job) => outcome?,
            never = show_progress(events, &job, &board, &self.args.name) => match never {},
            never = tell_late(deadline, &name, grace, &board) => match never {},
            code = interrupts.wait() => {
                self.cancel(&job, grace, &board, interrupts).await;
                board.clear();
                return Err(self.of_job(interrupted(code), &job));
            }
            // The job has the same deadline and ends by itself; this is for a host that does not see to it.
            () = passed(deadline.and_then(|at| at.checked_add(grace + DEADLINE_SLACK))) => {
                self.cancel(&job, grace, &board, interrupts).await;
                board.clear();
                return Err(self.of_job(timed_out(self.args), &job));
            }
        };
        board.clear();
        self.print(&outcome, deadline, interrupts)
    }

    /// Flags of the call.
    fn control(&self) -> Map<String, Value> {
        let force = self.args.force.then(|| ("force".to_owned(), Value::Bool(true)));
        force.into_iter().collect()
    }

    /// Asks for the end of the job, and waits for it.
    async fn cancel(&self, job: &JobId, grace: Duration, board: &Board, interrupts: &Interrupts) {
        self.host.cancel(job);
        let (what, at_once) = (named(&self.args.name), || self.host.cancel_at_once(job));
        // One that does not end in time ends with its worker.
        let _ = end_of_cancelled(self.host.wait(job), &what, grace, board, interrupts, at_once).await;
    }

    async fn stream(&self, instance: &InstanceId, deadline: Option<Instant>) -> CommandResult {
        let mut kwargs = Map::new();
        for (name, value) in &self.kwargs {
            kwargs.insert(name.clone(), value.to_value()?);
        }
        if let Some(action) = &self.args.action {
            kwargs.insert(ACTION_KEY.to_owned(), Value::from(action.clone()));
        }
        let mut request = ExecuteRequest { kwargs, ..ExecuteRequest::default() };
        request.envelope.control = self.control();
        let fault = |error: CallError| match error {
            CallError::DeadlinePassed { stderr_tail, .. } => match timed_out(self.args) {
                Fault::Shown(report) => Fault::from_report(ErrorReport { stderr_tail, ..*report }),
                fault => fault,
            },
            error => Fault::from_report(error.to_failure(instance).report),
        };
        let opened = match time_left(self.args.timeout, deadline) {
            Some(timeout) => self.host.call_stream_within(instance, request, timeout).await,
            None => self.host.call_stream(instance, request).await,
        };
        let mut chunks = opened.map_err(fault)?;
        while let Some(chunk) = chunks.next().await {
            self.output.ndjson(&chunk.map_err(fault)?)?;
            self.output.room().await?;
        }
        Ok(exit::OK)
    }

    /// A failed job as a fault: with its ids, and where its story stands.
    fn failed(&self, report: ErrorReport, job: &JobId) -> Fault {
        let mut report = report.of_job(job.clone(), Some(self.host.run_id().clone()));
        add_story_of_job(&mut report, job);
        Fault::from_report(report)
    }

    /// A fault of the command's own, with the job that it ended.
    fn of_job(&self, fault: Fault, job: &JobId) -> Fault {
        let Fault::Shown(report) = fault else { return fault };
        let mut report = report.of_job(job.clone(), Some(self.host.run_id().clone()));
        add_story_of_job(&mut report, job);
        Fault::from_report(report)
    }

    fn print(
        &self,
        outcome: &Arc<JobOutcome>,
        deadline: Option<Instant>,
        interrupts: &Interrupts,
    ) -> CommandResult {
        if let Some(failure) = &outcome.failure {
            return Err(self.failed(failure.report.clone(), &outcome.job_id));
        }
        if outcome.status != JobStatus::Completed {
            let message = format!("the call of \"{}\" ended {}", self.args.name, outcome.status);
            return Err(Fault::new("call.cancelled", message, "call again when it is wanted")
                .with_exit(exit::CANCELLED));
        }
        let result = outcome.result.as_deref().unwrap_or(b"null");
        let result: &RawValue = serde_json::from_slice(result).map_err(|error| {
            Fault::new("call.bad_answer", "the result is not JSON", "the fault is in the tool")
                .caused_by(&error)
                .with_exit(exit::TOOL_FAILED)
        })?;
        let folder = self.args.output.as_deref();
        let go_on = || copying_goes_on(self.args, deadline, interrupts);
        let write = |folder: &Path| out_folder::write(folder, self.kept, result, &self.kwargs, &go_on);
        let written = folder.map(write).transpose();
        // The call is made, and its result is not lost with the folder.
        let (written, unwritten) = match written {
            Ok(written) => (written, None),
            Err(fault) => (None, Some(self.of_job(fault, &outcome.job_id))),
        };
        let result = written.as_ref().map_or(result, |written| &written.result);
        written.iter().for_each(|written| self.tell(written));
        if self.output.json {
            let texts = |path: &PathBuf| path.to_string_lossy().into_owned();
            let left_out = written.iter().flat_map(|written| written.left_out.iter().chain(&written.untold));
            let written = written.iter().flat_map(|written| &written.files);
            let error = match &unwritten {
                Some(Fault::Shown(report)) => Some(self.output.typed_report(report)),
                _ => None,
            };
            let document = CallDocument {
                job_id: &outcome.job_id,
                run_id: self.host.run_id(),
                capability: &self.args.name,
                status: outcome.status,
                result,
                instance_id: outcome.instance_id.as_ref(),
                worker_session_id: outcome.worker_session_id.as_deref(),
                worker_pid: outcome.worker_pid,
                submitted_at: &outcome.submitted_at,
                started_at: outcome.started_at.as_ref(),
                completed_at: outcome.completed_at.as_ref(),
                written: written.map(|(path, _)| texts(path)).collect(),
                left_out: left_out.map(texts).collect(),
                error: error.as_ref(),
            };
            self.output.document_as_it_is(&document)?;
            return Ok(error.map_or(exit::OK, |report| report.exit_code));
        }
        self.print_result(result)?;
        unwritten.map_or(Ok(exit::OK), Err)
    }

    /// Says what was copied, and what was not.
    fn tell(&self, written: &Written) {
        for (path, bytes) in &written.files {
            self.output.note(&format!("wrote {} ({bytes} bytes)", one_line(&path.to_string_lossy())));
        }
        for path in &written.left_out {
            let path = path.to_string_lossy();
            self.output.error(&format!("warning: {} was not copied: it is no file", one_line(&path)));
        }
        let Some((path, more)) = written.untold.split_first() else { return };
        let more = if more.is_empty() { String::new() } else { format!(" (and {} more)", more.len()) };
        self.output.error(&format!(
            "warning: {}{more} was not copied: a result tells a file as an object with its `path` from the root on, and its \
             `bytes`",
            one_line(&path.to_string_lossy())
        ));
    }

    fn print_result(&self, result: &RawValue) -> Result<(), Fault> {
        if self.args.raw
            && let Ok(text) = serde_json::from_str::<String>(result.get())
        {
            return self.output.result(&text);
        }
        let parsed = || Json::parse(result.get()).ok()?.to_value().ok();
        if let Some(value) = self.output.stdout_tty.then(parsed).flatten() {
            return self.output.document_as_it_is(&value);
        }
        // On a terminal this is what a parsed value cannot hold: more levels, longer numbers, other texts.
        self.output.json_text(result.get())
    }
}

/// What `--json` shows of a call. The result is passed on as the text it is: no parsed value holds every one.
#[derive(Serialize)]
struct CallDocument<'a> {
    job_id: &'a JobId,
    run_id: &'a RunId,
    capability: &'a str,
    status: JobStatus,
    result: &'a RawValue,
    instance_id: Option<&'a InstanceId>,
    worker_session_id: Option<&'a str>,
    worker_pid: Option<u32>,
    submitted_at: &'a Timestamp,
    started_at: Option<&'a Timestamp>,
    completed_at: Option<&'a Timestamp>,
    written: Vec<String>,
    left_out: Vec<String>,
    /// Why the result is not in the folder that was named.
    error: Option<&'a ErrorReport>,
}

/// Refuses an argument in the place of the capability, which no name can look like.
fn name_comes_first(args: &CallArgs) -> Result<(), Fault> {
    if !args.name.contains('=') {
        return Ok(());
    }
    let given = args.assignments.iter().find(|word| !word.contains('='));
    let (name, others) = (given.map_or("CAPABILITY", String::as_str), args.assignments.iter());
    let others = others.filter(|word| Some(*word) != given);
    let words = std::iter::once(&args.name).chain(others).map(|word| shell_word(word));
    let words = words.collect::<Vec<_>>().join(" ");
    Err(Fault::usage(
        format!("`{}` is an argument, and stands where the capability does", args.name),
        format!(
            "the capability comes first, its arguments behind it: `cjm-ctl call {} {words}`",
            shell_word(name)
        ),
    ))
}

/// Refuses a word that stands where arguments do and is the name of an action, with the option that it goes with.
fn name_option_of_action(args: &CallArgs, entry: Option<&CatalogEntry>) -> Result<(), Fault> {
    let actions = entry.map(actions).unwrap_or_default();
    let is_action = |word: &&String| {
        let mut named = actions.as_array().into_iter().flatten();
        named.any(|action| action["name"].as_str() == Some(word.as_str()))
    };
    match args.assignments.iter().find(is_action) {
        Some(word) => Err(Fault::usage(
            format!("`{word}` is an action of \"{}\", and no argument: it has no `=`", args.name),
            format!("name it with `--action {word}`; arguments are key=value"),
        )),
        None => Ok(()),
    }
}

/// Refuses an argument `action` beside an option that names another one.
fn one_action(args: &CallArgs, kwargs: &Arguments) -> Result<(), Fault> {
    let (Some(option), Some(argument)) = (&args.action, kwargs.get(ACTION_KEY)) else { return Ok(()) };
    if argument.as_text().as_ref() == Some(option) {
        return Ok(());
    }
    Err(Fault::usage(
        format!(
            "the action is `{option}` by --action, and {} by the argument `{ACTION_KEY}`",
            argument.text()
        ),
        "give one of them",
    ))
}

/// Arguments that the manifest declares as paths start at the present directory, wherever the tool runs.
fn absolute_paths(
    kwargs: &mut Arguments,
    entry: Option<&CatalogEntry>,
    action: Option<&str>,
    cwd: &Path,
) -> Result<(), Fault> {
    let Some(Runtime::Executable(executable)) = entry.map(|entry| entry.manifest.runtime()) else {
        return Ok(());
    };
    let Some(action) = action_of(&executable, action) else { return Ok(()) };
    for (name, parameter) in &action.parameters {
        let Some(path) = kwargs.get(name).and_then(Json::as_text) else { continue };
        let absolute = match parameter.kind {
            ParameterKind::InputFile | ParameterKind::Path => absolute_text(name, &cwd.join(path))?,
            _ => continue,
        };
        kwargs.insert(name.clone(), Json::of(absolute));
    }
    Ok(())
}

/// Shows how far the job is, until the caller drops it.
async fn show_progress(
    mut events: tokio::sync::broadcast::Receiver<HostEvent>,
    job: &JobId,
    board: &Board,
    name: &str,
) -> Infallible {
    let row = board.row(name, 0);
    row.start();
    row.detail("working");
    loop {
        match events.recv().await {
            Ok(HostEvent::Progress { job_id: Some(id), progress, message, .. }) if id == *job => {
                if progress >= 0.0 {
                    row.at(percent(progress), 100);
                }
                row.detail(&message);
            }
            Ok(_) | Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {}
            Err(tokio::sync::broadcast::error::RecvError::Closed) => return std::future::pending().await,
        }
    }
}

/// 0 to 100, whatever the tool said.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to 0..=100 before the cast"
)]
fn percent(progress: f64) -> u64 {
    (progress * 100.0).clamp(0.0, 100.0) as u64
}

/// The time went into the start: what the tool does was not begun.
fn not_begun_in_time(args: &CallArgs) -> Fault {
    Fault::new(
        "call.timed_out",
        format!(
            "\"{}\" was not ready within {}; its start was stopped, and the call was not begun",
            args.name,
            Seconds::of(args.timeout.unwrap_or_default())
        ),
        "give it more time with --timeout, or see what its start did: `cjm-ctl logs --chunks`",
    )
    .with_exit(exit::TIMED_OUT)
}

fn timed_out(args: &CallArgs) -> Fault {
    Fault::new(
        "call.timed_out",
        format!(
            "the call of \"{}\" did not end within {}, and was stopped",
            args.name,
            Seconds::of(args.timeout.unwrap_or_default())
        ),
        "give it more time with --timeout, or see what it did: `cjm-ctl logs --chunks`",
    )
    .with_exit(exit::TIMED_OUT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_of_a_time_is_what_has_not_passed_of_it() {
        let began = Instant::now().checked_sub(Duration::from_secs(3600)).unwrap_or_else(Instant::now);
        let timeout = time_left(Some(5.0), Some(began)).expect("a time");
        assert_eq!((timeout.given, timeout.left), (Duration::from_secs(5), Duration::ZERO));
        assert!(time_left(None, None).is_none());
    }
}
