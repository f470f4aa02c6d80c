//! `retention`: applies the retention of records and output now. The journal has none.

use crate::cli::{Global, RetentionArgs};
use crate::fault::{CommandResult, Fault};
use crate::output::Output;
use cjm_store::{DIAGNOSTICS_FILE, Forgotten, Retention, StoreError, apply_retention};
use cjm_wire::describe::exit;
use serde_json::json;

const MB_BYTES: f64 = 1024.0 * 1024.0;

/// Runs the command.
pub(crate) fn run(global: &Global, args: &RetentionArgs, output: &Output) -> CommandResult {
    for (option, value) in [("--max-age-days", args.max_age_days), ("--max-total-mb", args.max_total_mb)] {
        if value.is_some_and(|value| !value.is_finite()) {
            return Err(Fault::usage(format!("{option} is no number of anything"), "give a number"));
        }
    }
    let settings = global.settings()?;
    let retention = Retention {
        age_max_days: args
            .max_age_days
            .or(settings.behaviour.diagnostics_retention_days)
            .filter(|days| *days > 0.0),
        size_max_mb: args.max_total_mb.or(settings.behaviour.diagnostics_retention_max_mb),
    };
    if retention == Retention::default() {
        let text = "Retention disabled (diagnostics_retention_days <= 0, no size budget). Pass --max-age-days / \
                    --max-total-mb or set the cjm.yaml substrate policy.";
        return nothing(output, text, &retention);
    }
    match apply_retention(&settings.data_dir, &retention) {
        Err(StoreError::NothingYet { .. }) => {
            let path = settings.data_dir.join(DIAGNOSTICS_FILE);
            nothing(
                output,
                &format!("No diagnostics store at {}; nothing to do.", path.display()),
                &retention,
            )
        }
        Err(error) => Err(error.into()),
        Ok(forgotten) => told(output, &forgotten, &retention),
    }
}

fn nothing(output: &Output, text: &str, retention: &Retention) -> CommandResult {
    if output.json {
        return told(output, &Forgotten::default(), retention);
    }
    output.line(text)?;
    Ok(exit::OK)
}

fn told(output: &Output, forgotten: &Forgotten, retention: &Retention) -> CommandResult {
    if output.json {
        output.document(&json!({
            "max_age_days": retention.age_max_days,
            "max_total_mb": retention.size_max_mb,
            "records_deleted": forgotten.records,
            "chunks_deleted": forgotten.chunks,
            "file_bytes_before": forgotten.file_bytes,
        }))?;
        return Ok(exit::OK);
    }
    #[expect(clippy::cast_precision_loss, reason = "one decimal of megabytes is shown")]
    let mb = forgotten.file_bytes as f64 / MB_BYTES;
    output.line(&format!(
        "diagnostics retention: deleted {} record(s) + {} chunk(s) (db {mb:.1} MB; freed pages reuse before the file \
         shrinks). Journal untouched.",
        forgotten.records, forgotten.chunks
    ))?;
    Ok(exit::OK)
}
