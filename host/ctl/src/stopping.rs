//! Waiting for the end of what was stopped. Who is kept waiting is told for what; who asks again has waited enough.

use crate::interrupt::Interrupts;
use crate::output::Output;
use crate::progress::Board;
use crate::visible::{one_line, visible};
use cjm_decide::queue::CANCEL_GRACE_MS;
use cjm_engine::{Host, UNLOAD_GRACE_DEFAULT};
use std::convert::Infallible;
use std::time::{Duration, Instant};

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

/// What was cancelled, until it has `ended`.
pub(crate) async fn end_of_cancelled<T>(
    ended: impl Future<Output = T>,
    what: &str,
    board: &Board,
    interrupts: &Interrupts,
    at_once: impl FnOnce(),
) -> T {
    let told = async {
        tokio::time::sleep(SILENT_WAIT).await;
        let again = if interrupts.was_asked() { " again" } else { "" };
        board.say(&lasts(what, "is cancelled", &format!("; Ctrl-C{again} ends it at once")));
        std::future::pending::<Infallible>().await
    };
    let again = async {
        interrupts.next_for(at_once).await;
        std::future::pending::<Infallible>().await
    };
    tokio::select! {
        ended = ended => ended,
        never = told => match never {},
        never = again => match never {},
    }
}

/// Says what is waited for once the time is over; the host has stopped it by then.
pub(crate) async fn tell_late(deadline: Option<Instant>, what: &str, board: &Board) -> Infallible {
    passed(deadline.and_then(|at| at.checked_add(SILENT_WAIT))).await;
    board.say(&lasts(what, "is late", ""));
    std::future::pending().await
}

/// Ends the host of a command, and with it what still runs of `what`: a stream, say, whose reader has left.
pub(crate) async fn shut_down(host: Host, what: &str, interrupts: &Interrupts, output: &Output) {
    let wait = if interrupts.was_asked() { SILENT_WAIT } else { SILENT_CLEANUP };
    let told = async {
        tokio::time::sleep(wait).await;
        let seconds = UNLOAD_GRACE_DEFAULT.as_secs();
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

fn lasts(what: &str, how: &str, way_out: &str) -> String {
    let seconds = Duration::from_millis(CANCEL_GRACE_MS).as_secs();
    format!("{what} {how} and has not ended yet: it is killed within {seconds} s{way_out}")
}
