//! Rows for people: one table, with the ratio and the goal beside each figure.

use crate::row::{Goal, Row, Unit, Verdict};
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

/// The table, ready to print.
pub(crate) fn render(rows: &[Row]) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::ASCII_MARKDOWN)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(["what", "figure", "floor", "", "ratio", "goal", "verdict", "note"]);
    for row in rows {
        let (floor, of) = row.floor.as_ref().map_or_else(
            || ("–".to_owned(), String::new()),
            |(name, figure)| (number(*figure, row.unit), name.clone()),
        );
        let ratio = row.ratio.map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.2}"));
        table.add_row([
            row.what.clone(),
            number(row.figure, row.unit),
            floor,
            of,
            ratio,
            goal(row),
            verdict(row.verdict()).to_owned(),
            row.note.clone(),
        ]);
    }
    for column in [1, 2, 4] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.to_string()
}

fn number(figure: f64, unit: Unit) -> String {
    let digits = match figure.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        _ => 2,
    };
    match unit {
        Unit::Micros => format!("{figure:.digits$} µs"),
        Unit::Millis => format!("{figure:.digits$} ms"),
        Unit::PerSecond => format!("{figure:.digits$} /s"),
        Unit::Megabytes => format!("{figure:.digits$} MB"),
        Unit::Count => format!("{figure:.0}"),
    }
}

fn goal(row: &Row) -> String {
    match row.goal {
        Goal::RatioMax(max) => format!("≤ {max} ×"),
        Goal::RatioMin(min) => format!("≥ {min} ×"),
        Goal::MillisAboveFloor(max) => format!("≤ floor + {max} ms"),
        Goal::LatencyMax(max) | Goal::Max(max) => format!("≤ {}", number(max, row.unit)),
        Goal::RateMin(min) => format!("≥ {}", number(min, row.unit)),
        Goal::Shown => "shown".to_owned(),
    }
}

fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Met => "met",
        Verdict::Short => "short, within the gate",
        Verdict::Missed => "MISSED",
        Verdict::Shown => "",
    }
}
