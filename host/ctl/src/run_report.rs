//! What a run of a composition took, node by node: a table for people, the numbers for programs.

use cjm_engine::{CompositionOutcome, NodeOutcome, NodeState};
use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Value, json};

/// Most process ids shown for one node.
const PIDS_SHOWN_MAX: usize = 4;

/// The table, one line each.
pub(crate) fn table(outcome: &CompositionOutcome) -> Vec<String> {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    table.set_header(["NODE", "STATUS", "ELEMENTS", "WALL s", "BUSY s", "PROCESSES", "CPU s", "PEAK MB"]);
    for column in [2, 3, 4, 6, 7] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    for node in &outcome.nodes {
        table.add_row(cells(node));
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect()
}

fn cells(node: &NodeOutcome) -> [String; 8] {
    let began = node.started_at.is_some();
    let seconds = |value: f64| if began { format!("{value:.2}") } else { "-".to_owned() };
    let mut pids: Vec<String> = node.pids.iter().take(PIDS_SHOWN_MAX).map(ToString::to_string).collect();
    if node.pids.len() > PIDS_SHOWN_MAX {
        pids.push(format!("+{}", node.pids.len() - PIDS_SHOWN_MAX));
    }
    [
        node.name.clone(),
        state_text(node.status).to_owned(),
        format!("{}/{}", node.elements_completed, node.elements_total),
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
        NodeState::Failed => "failed",
        NodeState::Cancelled => "cancelled",
        NodeState::Skipped => "skipped",
    }
}

/// The whole run as one document.
pub(crate) fn document(outcome: &CompositionOutcome, run_id: &str) -> Value {
    let nodes: Value = outcome
        .nodes
        .iter()
        .map(|node| {
            let mut value = json!(node);
            value["error"] = json!(node.failure.as_ref().map(|failure| &failure.report));
            value
        })
        .collect();
    let mut value = json!({
        "composition_id": outcome.composition_id,
        "run_id": run_id,
        "status": outcome.status,
        "output": outcome.output,
        "nodes": nodes,
    });
    if let Some(failure) = &outcome.failure {
        value["error"] = json!(failure.report);
    }
    value
}
