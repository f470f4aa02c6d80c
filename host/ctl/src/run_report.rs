//! What a run of a composition took, node by node: a table for people, the numbers for programs.

use crate::output::Output;
use crate::visible::one_line;
use cjm_engine::{CompositionOutcome, NodeOutcome, NodeState};
use cjm_wire::ErrorReport;
use cjm_wire::composition::RunOutcome;
use cjm_wire::event::JobStatus;
use cjm_wire::json::Json;
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde_json::{Value, json};

/// Most process ids shown for one node.
const PIDS_SHOWN_MAX: usize = 4;

/// Width of a table where nothing says how wide it may be, and the least that is of use.
const COLUMNS_DEFAULT: u16 = 80;
const COLUMNS_MIN: u16 = 40;

/// The table, one line each.
pub(crate) fn table(outcome: &CompositionOutcome) -> Vec<String> {
    let mut table = Table::new();
    table.set_content_arrangement(ContentArrangement::Dynamic).set_width(columns());
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    table.set_header(["NODE", "STATUS", "DONE", "WALL s", "BUSY s", "PROCESSES", "CPU s", "PEAK MB"]);
    for column in [2, 3, 4, 6, 7] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    for node in &outcome.nodes {
        table.add_row(cells(node));
    }
    let mut lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    for node in &outcome.nodes {
        if let Some(reason) = &node.reason {
            lines.push(format!(
                "{}: {}: {}",
                one_line(&node.name),
                state_text(node.status),
                one_line(reason)
            ));
        }
    }
    if let Some(fault) = &outcome.monitor_fault {
        let what = match outcome.nodes.iter().any(|node| node.usage.is_some()) {
            true => "the monitor stopped working, and what a step used may be more",
            false => "the monitor did not work, and nothing was measured",
        };
        lines.push(format!("warning: {what}: {}", one_line(fault)));
    } else if outcome.nodes.iter().any(|node| node.usage.is_none() && node.started_at.is_some()) {
        lines.push("CPU s and PEAK MB are measured where the composition names a `monitor:`".to_owned());
    }
    lines
}

/// How wide a table may be: as COLUMNS says, else as the terminal is, else 80.
pub(crate) fn columns() -> u16 {
    let told = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    let terminal = || comfy_table::Table::new().width();
    told.or_else(terminal).filter(|columns| *columns >= COLUMNS_MIN).unwrap_or(COLUMNS_DEFAULT)
}

fn cells(node: &NodeOutcome) -> [String; 8] {
    let began = node.started_at.is_some();
    let seconds = |value: f64| if began { format!("{value:.2}") } else { "-".to_owned() };
    let mut pids: Vec<String> = node.pids.iter().take(PIDS_SHOWN_MAX).map(ToString::to_string).collect();
    if node.pids.len() > PIDS_SHOWN_MAX {
        pids.push(format!("+{}", node.pids.len() - PIDS_SHOWN_MAX));
    }
    [
        one_line(&node.name).into_owned(),
        state_text(node.status).to_owned(),
        if node.elements_total == 0 && node.status != NodeState::Completed {
            // How many there would have been is not known.
            "-".to_owned()
        } else {
            format!("{}/{}", node.elements_completed, node.elements_total)
        },
        seconds(node.wall_seconds),
        seconds(node.busy_seconds),
        if pids.is_empty() { "-".to_owned() } else { pids.join(" ") },
        node.usage.map_or_else(|| "-".to_owned(), |usage| format!("{:.2}", usage.cpu_seconds)),
        node.usage.map_or_else(|| "-".to_owned(), |usage| format!("{:.0}", usage.peak_rss_mb)),
    ]
}

/// As rows and people spell it.
pub(crate) fn state_text(state: NodeState) -> &'static str {
    match state {
        NodeState::Waiting => "waiting",
        NodeState::Running => "running",
        NodeState::Completed => "completed",
        NodeState::Partial => "partial",
        NodeState::Failed => "failed",
        NodeState::Cancelled => "cancelled",
        NodeState::Skipped => "skipped",
    }
}

/// The whole run as one document.
pub(crate) fn document(
    outcome: &CompositionOutcome,
    run_id: &str,
    why: Option<&ErrorReport>,
    output: &Output,
) -> Document {
    let mut nodes: Value = outcome
        .nodes
        .iter()
        .map(|node| {
            let mut value = json!(node);
            value["error"] = json!(node.failure.as_ref().map(|failure| &failure.report));
            value
        })
        .collect();
    output.typed_document(&mut nodes);
    let failures: Vec<Value> = outcome
        .failures
        .listed()
        .iter()
        .map(|error| json!({"node": error.node, "element": error.element, "message": error.message}))
        .collect();
    Document {
        composition_id: outcome.composition_id.to_string(),
        run_id: run_id.to_owned(),
        status: outcome.status,
        outcome: outcome.outcome,
        partial: outcome.outcome == RunOutcome::Partial,
        output: outcome.output.clone(),
        nodes,
        failures,
        failures_left_out: outcome.failures.left_out(),
        still_running: outcome.still_running,
        monitor_fault: outcome.monitor_fault.clone(),
        error: why.map(|report| output.typed_report(report)),
    }
}

/// What `run --json` prints. The output stays text, so that nothing in it is rounded.
#[derive(Debug, serde::Serialize)]
pub(crate) struct Document {
    composition_id: String,
    run_id: String,
    status: JobStatus,
    outcome: RunOutcome,
    partial: bool,
    output: Json,
    nodes: Value,
    failures: Vec<Value>,
    failures_left_out: usize,
    /// Calls that did not end within their grace; their ends are written when the host ends.
    still_running: usize,
    /// Why the composition's monitor has measured nothing.
    monitor_fault: Option<String>,
    error: Option<ErrorReport>,
}
