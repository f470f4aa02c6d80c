//! `run`: one composition by a host that lives as long as the command. Shows each node while it runs, then what each
//! took, then the output.

use crate::allow::tell_choice;
use crate::assign::{ARGUMENTS_BYTES_MAX, arguments, text_of_file};
use crate::call::{DEADLINE_SLACK, deadline, host_options, read_in_time, start_host, time_left};
use crate::cli::{Format, Global, RunArgs};
use crate::fault::{CommandResult, Fault, current_dir};
use crate::interrupt::{Interrupts, interrupted};
use crate::output::Output;
use crate::progress::{Board, Row};
use crate::run_inputs::{self, resolve};
use crate::run_report::{document, state_text, table};
use crate::stdin::Stdin;
use crate::stopping::{end_of_cancelled, longest_grace, named, passed, shut_down, tell_late};
use crate::story::{add_story_of_run, of_run};
use crate::validate::detect;
use cjm_engine::{CompositionOutcome, Host, HostError, HostEvent, NodeState, WorkerState};
use cjm_wire::composition::{COMPOSITION_BYTES_MAX, Composition, InputKind, RunOutcome};
use cjm_wire::describe::{Described, ErrorReport, exit, shell_word};
use cjm_wire::inputs_file::parse_inputs;
use cjm_wire::json::{Arguments, JsonKind};
use cjm_wire::{CompositionId, RunId};
use futures_util::future::{FusedFuture as _, FutureExt as _};
use std::cell::RefCell;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

/// How long a run that is to end may still be on its way to being accepted: its commit. Loading is given up.
const ACCEPT_MAX: Duration = Duration::from_millis(300);

/// The file is another one of ours, and no composition
const NO_COMPOSITION: &str = "composition.another_file";

/// What a run fails with whose time is over.
const DEADLINE_CODE: &str = "composition.deadline";

/// Runs the command.
pub(crate) async fn run(
    global: &Global,
    args: &RunArgs,
    output: &Output,
    interrupts: &Interrupts,
) -> CommandResult {
    let composition = read(&args.composition)?;
    let cwd = current_dir()?;
    let deadline = deadline(args.timeout)?;
    let options = [args.inputs_file.as_deref()];
    let stdin = Stdin::read(&options, &args.inputs, output, interrupts);
    let stdin = read_in_time(stdin, deadline).await?;
    let inputs = resolve(&composition, &given(&composition, args, &stdin, &cwd)?, &cwd)?;
    output.ends_at(deadline);
    let options = host_options(&global.settings_to_write()?);
    let directory = options.data_dir.clone();
    let host = start_host(options, deadline, interrupts, output).await?;
    let tools = || composition.nodes.values().map(|node| node.capability.as_str());
    tell_choice(host.catalog(), tools(), output);
    let grace = longest_grace(host.catalog(), tools());
    let board = RunBoard::new(output, &composition);
    let name = composition.name.clone();
    let what = format!("composition {}", named(&name));
    // The run tells the journal that it was a deadline.
    let timeout = time_left(args.timeout, deadline);
    // It is not dropped while it is being accepted: nobody could cancel it.
    let mut submitting = Box::pin(host.submit_composition_within(composition, inputs, timeout).fuse());
    let told = tokio::select! {
        told = perform(&host, &mut submitting, &board) => told,
        never = tell_late(deadline, &what, grace, &board.board) => match never {},
        code = interrupts.wait() => Err(interrupted(code)),
        // The run has the same deadline and ends by itself; this is for a host that does not see to it.
        () = passed(deadline.and_then(|at| at.checked_add(grace + DEADLINE_SLACK))) => Err(timed_out(&name, args)),
    };
    let (ended, stopped) = match told {
        Ok(told) if told.still_running > 0 => {
            (Some(end_of_failed(&host, told, &name, grace, &board, interrupts).await), None)
        }
        Ok(told) => (Some(told), None),
        Err(fault) => {
            if !submitting.is_terminated() {
                let accepted = tokio::time::timeout(ACCEPT_MAX, &mut submitting);
                tokio::select! {
                    accepted = accepted => {
                        if let Ok(Ok(id)) = accepted {
                            board.running.replace(Some(id));
                        }
                    }
                    // Who asks again while this is waited for waits no longer, and is told all the same.
                    () = interrupts.second(), if interrupts.was_asked() => host.waive_unload_grace(),
                }
            }
            (cancel(&host, &what, grace, &board, interrupts).await, Some(fault))
        }
    };
    drop(submitting);
    board.board.clear();
    let run_id = host.run_id().clone();
    shut_down(host, &what, grace, interrupts, output).await;
    let stopped = stopped.map(|fault| of_run(fault, &directory, &run_id));
    let run_id = run_id.to_string();
    match (ended, stopped) {
        // What was made before it was stopped is told beside why.
        (Some(ended), stopped) => finish(&ended, stopped, &name, &run_id, output),
        (None, Some(fault)) => Err(fault),
        (None, None) => Err(HostError::ShuttingDown.into()),
    }
}

/// Tells the first failure at once, then waits until the calls that it cancelled have ended, so that the table shows how.
async fn end_of_failed(
    host: &Host,
    told: Arc<CompositionOutcome>,
    name: &str,
    grace: Duration,
    board: &RunBoard,
    interrupts: &Interrupts,
) -> Arc<CompositionOutcome> {
    let why = told.failure.as_ref().map_or("failed", |failure| failure.report.message.as_str());
    board.board.say(&format!(
        "composition \"{name}\" failed: {why}; cancelling {}",
        calls_in_words(told.calls_running, told.still_running)
    ));
    let id = &told.composition_id;
    let ended = host.wait_composition_end(id);
    let at_once = || host.cancel_composition_at_once(id);
    let what = "what runs of it";
    let ended = end_of_cancelled(ended, what, grace, &board.board, interrupts, at_once).await;
    // What does not end in time ends with its worker, and the host writes its end.
    ended.and_then(Result::ok).unwrap_or(told)
}

/// Calls that have not ended: those that run, and those that wait.
fn calls_in_words(running: usize, all: usize) -> String {
    let calls = |count: usize| if count == 1 { "call" } else { "calls" };
    match (running.min(all), all.saturating_sub(running)) {
        (0, waiting) => format!("{waiting} waiting {}", calls(waiting)),
        (running, 0) => format!("{running} running {}", calls(running)),
        (running, waiting) => format!("{running} running and {waiting} waiting calls"),
    }
}

/// The inputs of the command line, over those of a file.
fn given(composition: &Composition, args: &RunArgs, stdin: &Stdin, cwd: &Path) -> Result<Arguments, Fault> {
    let declared = |name: &str| run_inputs::declared(composition, name);
    let kind = |name: &str| composition.inputs.get(name).map(|input| input.kind).unwrap_or_default();
    let mut given = of_file(args.inputs_file.as_deref(), stdin, cwd, kind)?;
    given.extend(arguments(None, &args.inputs, cwd, stdin.file(), declared)?);
    Ok(given)
}

/// The inputs that `--inputs` names: a file of JSON or YAML, or standard input.
fn of_file(
    file: Option<&str>,
    stdin: &Stdin,
    cwd: &Path,
    kind: impl Fn(&str) -> InputKind,
) -> Result<Arguments, Fault> {
    let Some(file) = file else { return Ok(Arguments::new()) };
    let text = match stdin.text() {
        Some(text) => text.to_owned(),
        None => text_of_file(&cwd.join(file), ARGUMENTS_BYTES_MAX)?,
    };
    let inputs = parse_inputs(&text, kind).map_err(|error| {
        let next_step = "write one object of inputs by name, as JSON or YAML";
        Fault::new(error.code(), format!("--inputs {file}: {error}"), next_step)
    })?;
    Ok(inputs)
}

fn read(path: &Path) -> Result<Composition, Fault> {
    let text = text_of_file(path, COMPOSITION_BYTES_MAX as u64)?;
    Composition::parse(&text).map_err(|error| {
        if let Some(fault) = no_composition(path, &text) {
            return fault;
        }
        let mut report = ErrorReport::of(&error);
        report.message = format!("{}: {}", path.display(), report.message);
        report.next_step = format!(
            "{}; `cjm-ctl validate {}{}` checks it",
            report.next_step,
            // By a name that says nothing, and without `nodes`, nobody knows that it is meant as one.
            if detect(path, &text).is_none() { "--format composition " } else { "" },
            shell_word(&path.to_string_lossy())
        );
        Fault::from_report(report)
    })
}

/// Where the file is another one of ours: what is wrong with it as a composition helps nobody.
fn no_composition(path: &Path, text: &str) -> Option<Fault> {
    let kind = detect(path, text).filter(|kind| *kind != Format::Composition)?;
    let word = shell_word(&path.to_string_lossy());
    let path = path.display();
    let what = match kind {
        Format::CapabilitiesYaml => {
            return Some(Fault::new(
                NO_COMPOSITION,
                format!("{path} is a list of capabilities, not a composition"),
                format!(
                    "`cjm-ctl install-all --capabilities {word}` installs what it names; a composition has `nodes`"
                ),
            ));
        }
        Format::Settings => "the settings of a project",
        Format::Adapter => "the manifest of an adapter",
        Format::Manifest | Format::Source | Format::Composition => "the manifest of a tool",
    };
    Some(Fault::new(
        NO_COMPOSITION,
        format!("{path} is {what}, not a composition"),
        "give a composition: it has `nodes`, which name the tools they call",
    ))
}

async fn perform(
    host: &Host,
    submitting: impl Future<Output = Result<CompositionId, HostError>>,
    board: &RunBoard,
) -> Result<Arc<CompositionOutcome>, Fault> {
    let work = async {
        let id = submitting.await?;
        board.running.replace(Some(id.clone()));
        host.wait_composition(&id).await
    };
    let mut events = host.events();
    let outcome = tokio::select! {
        biased;
        outcome = work => outcome,
        never = board.follow(&mut events) => match never {},
    };
    // What was said before the end is shown before it.
    board.catch_up(&mut events);
    outcome.map_err(Fault::from)
}

/// Lets what runs end by itself if it can, and returns what came of it.
async fn cancel(
    host: &Host,
    what: &str,
    grace: Duration,
    board: &RunBoard,
    interrupts: &Interrupts,
) -> Option<Arc<CompositionOutcome>> {
    let id = board.running.borrow().clone()?;
    host.cancel_composition(&id);
    let ended = host.wait_composition_end(&id);
    let at_once = || host.cancel_composition_at_once(&id);
    // One that does not end in time ends with its workers.
    end_of_cancelled(ended, what, grace, &board.board, interrupts, at_once).await?.ok()
}

fn finish(
    outcome: &CompositionOutcome,
    stopped: Option<Fault>,
    name: &str,
    run_id: &str,
    output: &Output,
) -> CommandResult {
    let is_late = outcome.failure.as_ref().is_some_and(|failure| failure.report.code == DEADLINE_CODE);
    let code = match outcome.outcome {
        RunOutcome::Completed => exit::OK,
        RunOutcome::Cancelled => exit::CANCELLED,
        RunOutcome::Failed if is_late => exit::TIMED_OUT,
        RunOutcome::Partial | RunOutcome::Failed => exit::COMPOSITION_FAILED,
    };
    let why = match stopped {
        Some(stopped) => Some(stopped),
        None => why(outcome, is_late, name, run_id).map(|fault| fault.with_exit(code)),
    };
    if output.json {
        let report = match &why {
            Some(Fault::Shown(report)) => Some(&**report),
            _ => None,
        };
        output.document_as_it_is(&document(outcome, run_id, report, output))?;
        return Ok(report.map_or(code, |report| report.exit_code));
    }
    let tell_steps = || {
        for line in table(outcome) {
            output.note(&line);
        }
        output.note(&format!("composition {} · run {run_id}", outcome.composition_id));
    };
    // Of one that failed or was stopped, what was made before is kept, if something was.
    let has_made = outcome.nodes.iter().any(|node| node.elements_completed > 0);
    let is_good = matches!(outcome.outcome, RunOutcome::Completed | RunOutcome::Partial);
    let is_stopped = is_late || outcome.outcome == RunOutcome::Cancelled;
    // The only failure of a run that failed is told in full at the end.
    let has_more = outcome.failures.listed().len() > 1;
    if is_good || has_more || (is_stopped && has_made) {
        for failure in outcome.failures.listed() {
            output.error(&failure.to_string());
        }
        if outcome.failures.left_out() > 0 {
            let left_out = outcome.failures.left_out();
            output.error(&format!(
                "and {left_out} more {}",
                if left_out == 1 { "failure" } else { "failures" }
            ));
        }
    }
    if is_good || has_made {
        match (outcome.output.kind(), outcome.output.as_text()) {
            (_, Some(text)) => output.result(&text)?,
            (JsonKind::Null, _) => {}
            _ if output.stdout_tty && outcome.output.to_value().is_ok() => {
                output.document_as_it_is(&outcome.output.to_value().unwrap_or_default())?;
            }
            _ => output.json_text(&outcome.output.compact())?,
        }
    }
    // Last, so that a long output does not scroll it away.
    tell_steps();
    why.map_or(Ok(code), Err)
}

/// Why a run that did not complete ended as it did.
fn why(outcome: &CompositionOutcome, is_late: bool, name: &str, run_id: &str) -> Option<Fault> {
    if outcome.outcome == RunOutcome::Completed {
        return None;
    }
    Some(match &outcome.failure {
        Some(failure) if is_late => {
            let mut report = failure.report.clone();
            add_story_of_run(&mut report, run_id);
            Fault::from_report(report)
        }
        Some(failure) => {
            let mut report = failure.report.clone();
            report.message =
                format!("composition \"{name}\" {}: {}", ended_words(outcome.outcome), report.message);
            add_story_of_run(&mut report, run_id);
            report.details.run_id = Some(RunId::from_text(run_id));
            Fault::from_report(report)
        }
        None => Fault::new(
            "composition.ended",
            format!("composition \"{name}\" {}", ended_words(outcome.outcome)),
            format!("`cjm-ctl logs --journal --run {run_id}` shows what happened"),
        ),
    })
}

fn ended_words(outcome: RunOutcome) -> &'static str {
    match outcome {
        RunOutcome::Partial => "completed in part",
        RunOutcome::Completed | RunOutcome::Failed | RunOutcome::Cancelled => outcome.as_str(),
    }
}

/// A run whose time is over.
fn timed_out(name: &str, args: &RunArgs) -> Fault {
    let seconds = args.timeout.unwrap_or_default();
    HostError::CompositionDeadline { name: name.to_owned(), seconds }.into()
}

/// A row per node.
struct RunBoard {
    board: Board,
    rows: HashMap<String, Row>,
    states: RefCell<HashMap<String, NodeState>>,
    running: RefCell<Option<CompositionId>>,
}

impl RunBoard {
    fn new(output: &Output, composition: &Composition) -> Self {
        let board = Board::new(output, composition.nodes.keys().map(String::as_str));
        let rows = composition.nodes.keys().map(|name| (name.clone(), board.row(name, 0))).collect();
        Self { board, rows, states: RefCell::default(), running: RefCell::default() }
    }

    /// Shows events for as long as it is polled.
    async fn follow(&self, events: &mut Receiver<HostEvent>) -> std::convert::Infallible {
        loop {
            match events.recv().await {
                Ok(event) => self.show(&event),
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return std::future::pending().await,
            }
        }
    }

    /// Shows what has been said so far.
    fn catch_up(&self, events: &mut Receiver<HostEvent>) {
        loop {
            match events.try_recv() {
                Ok(event) => self.show(&event),
                Err(TryRecvError::Lagged(_)) => {}
                Err(TryRecvError::Empty | TryRecvError::Closed) => return,
            }
        }
    }

    fn show(&self, event: &HostEvent) {
        match event {
            HostEvent::Node { node, state, elements_done, elements_total, .. } => {
                let Some(row) = self.rows.get(node) else { return };
                let total = elements_total.unwrap_or(0);
                row.at(*elements_done as u64, total as u64);
                if self.states.borrow_mut().insert(node.clone(), *state) == Some(*state) {
                    return;
                }
                match state {
                    NodeState::Waiting => row.detail("waiting"),
                    NodeState::Running => {
                        row.start();
                        row.say("running");
                    }
                    NodeState::Completed => row.finish(&format!("completed ({elements_done}/{total})")),
                    NodeState::Skipped => row.finish("skipped"),
                    // How many there would have been is not known of one whose list did not come about.
                    ended if total.max(*elements_done) == 0 => row.finish(state_text(*ended)),
                    // The table says how many of them completed.
                    ended => {
                        let total = total.max(*elements_done);
                        row.finish(&format!("{} ({elements_done} of {total} ended)", state_text(*ended)));
                    }
                }
            }
            HostEvent::Worker { instance_id, state: WorkerState::Dead, .. } => {
                self.board.say(&format!("the worker of {instance_id} died"));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_that_wait_are_not_told_as_running() {
        for (running, all, words) in [
            (1, 6, "1 running and 5 waiting calls"),
            (1, 1, "1 running call"),
            (2, 2, "2 running calls"),
            (0, 1, "1 waiting call"),
            (0, 3, "3 waiting calls"),
        ] {
            assert_eq!(calls_in_words(running, all), words);
        }
    }
}
