//! Waiting for the end of what was stopped. Who is kept waiting is told for what; who asks again has waited enough.

use crate::interrupt::Interrupts;
use crate::output::Output;
use crate::progress::Board;
use crate::visible::{one_line, visible};
use cjm_decide::queue::{cancel_grace, end_grace};
use cjm_engine::{Catalog, Host, UNLOAD_GRACE_DEFAULT};
use std::convert::Infallible;
use std::time::{Duration, Instant};

/// What the host has to write, once the grace of what it stopped is over.
const END_SLACK: Duration = Duration::from_secs(2);
/// How long what was stopped is waited for without a word.
const SILENT_WAIT: Duration = Duration::from_millis(400);
/// The same where nobody asked for an end: tools may clean up for a while.
const SILENT_CLEANUP: Duration = Duration::from_secs(1);

/// Returns when the deadline, if there is one, has passed.
pub(crate) async fn passed(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

/// A capability, as it is told.
pub(crate) fn named(capability: &str) -> String {
    format!("\"{}\"", one_line(capability))
}

/// How long calls of these tools may take to notice that they are stopped: the longest.
pub(crate) fn longest_grace<'a>(catalog: &Catalog, names: impl IntoIterator<Item = &'a str>) -> Duration {
    let entries = names.into_iter().filter_map(|name| catalog.get(name));
    entries.map(|entry| cancel_grace(&entry.manifest.runtime())).max().unwrap_or_default()
}

/// What was cancelled, until it has `ended`: the host sees to that within `grace`. None: it did not.
pub(crate) async fn end_of_cancelled<T>(
    ended: impl Future<Output = T>,
    what: &str,
    grace: Duration,
    board: &Board,
    interrupts: &Interrupts,
    at_once: impl FnOnce(),
) -> Option<T> {
    let told = async {
        tokio::time::sleep(SILENT_WAIT).await;
        let again = if interrupts.was_ctrl_c() { " again" } else { "" };
        board.say(&lasts(what, "is cancelled", grace, &format!("; Ctrl-C{again} ends it at once")));
        std::future::pending::<Infallible>().await
    };
    let again = async {
        interrupts.next_for(at_once).await;
        std::future::pending::<Infallible>().await
    };
    tokio::select! {
        ended = tokio::time::timeout(grace + END_SLACK, ended) => ended.ok(),
        never = told => match never {},
        never = again => match never {},
    }
}

/// Says what is waited for once the time is over; the host has stopped it by then.
pub(crate) async fn tell_late(
    deadline: Option<Instant>,
    what: &str,
    grace: Duration,
    board: &Board,
) -> Infallible {
    passed(deadline.and_then(|at| at.checked_add(SILENT_WAIT))).await;
    board.say(&lasts(what, "is late", grace, ""));
    std::future::pending().await
}

/// Ends the host of a command, and with it what still runs of `what`: a stream, say, whose reader has left. `grace`: see
/// [`longest_grace`].
pub(crate) async fn shut_down(
    host: Host,
    what: &str,
    grace: Duration,
    interrupts: &Interrupts,
    output: &Output,
) {
    let wait = if interrupts.was_asked() { SILENT_WAIT } else { SILENT_CLEANUP };
    let told = async {
        tokio::time::sleep(wait).await;
        let seconds = end_grace(UNLOAD_GRACE_DEFAULT, grace).as_secs_f64().ceil();
        if !output.quiet {
            let words = format!(
                "the host of {what} has not ended yet: what still runs is killed within {seconds} s; Ctrl-C ends it at once"
            );
            output.remark(&visible(&words));
        }
        std::future::pending::<Infallible>().await
    };
    let again = async {
        interrupts.next_for(|| host.waive_unload_grace()).await;
        std::future::pending::<Infallible>().await
    };
    tokio::select! {
        _ = host.clone().shutdown() => {}
        never = told => match never {},
        never = again => match never {},
    }
}

fn lasts(what: &str, how: &str, grace: Duration, way_out: &str) -> String {
    let seconds = grace.as_secs_f64().ceil();
    format!("{what} {how} and has not ended yet: it is killed within {seconds} s{way_out}")
}
