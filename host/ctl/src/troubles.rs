//! What the host could not do beside the answer: rows that were lost, a disk that is full. The host says it as errors of
//! its log; here it becomes a warning with its next step, said once. A command that fails for the same reason says it by
//! its own error alone; one that goes on is not waited for, since room can be made meanwhile.

use crate::output::Output;
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// Most different warnings of one command; the rest would be more of the same.
const WARNINGS_MAX: usize = 20;
/// How long one waits for the command's own error, which may say the same.
const TOLD_AFTER: Duration = Duration::from_secs(2);

/// Hears the errors of the log.
#[derive(Debug, Clone, Default)]
pub(crate) struct Troubles(Arc<Heard>);

#[derive(Debug, Default)]
struct Heard {
    state: Mutex<State>,
    news: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Not told yet, in order.
    waiting: Vec<String>,
    known: BTreeSet<String>,
}

impl Troubles {
    /// Tells what has been heard, with commands as they must be typed here.
    pub(crate) fn tell(&self, output: &Output) {
        let waiting =
            std::mem::take(&mut self.0.state.lock().unwrap_or_else(PoisonError::into_inner).waiting);
        for warning in waiting {
            output.error(&warning);
        }
    }

    /// Tells it while the command goes on. Never returns.
    pub(crate) async fn tell_while_it_runs(self, output: Output) {
        loop {
            self.0.news.notified().await;
            tokio::time::sleep(TOLD_AFTER).await;
            self.tell(&output);
        }
    }

    fn heard(&self, said: Said) {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        // One that comes again with other ids or sizes is the same to whoever reads.
        if state.known.len() >= WARNINGS_MAX || !state.known.insert(said.message.clone()) {
            return;
        }
        state.waiting.push(said.into_warning());
        drop(state);
        self.0.news.notify_one();
    }
}

impl<S: Subscriber> Layer<S> for Troubles {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        // Errors of the libraries below us are for whoever asks for the log.
        if *metadata.level() == Level::ERROR && metadata.target().starts_with("cjm_") {
            let mut said = Said::default();
            event.record(&mut said);
            self.heard(said);
        }
    }
}

/// The words of one event.
#[derive(Debug, Default)]
struct Said {
    message: String,
    reason: Option<String>,
    next_step: Option<String>,
}

impl Said {
    fn into_warning(self) -> String {
        let mut text = format!("warning: {}", self.message);
        if let Some(reason) = self.reason {
            text.push_str(&format!(": {reason}"));
        }
        if let Some(next_step) = self.next_step {
            text.push_str(&format!("\n  next: {next_step}"));
        }
        text
    }

    fn put(&mut self, field: &Field, text: String) {
        match field.name() {
            "message" => self.message = text,
            "reason" | "error" => self.reason = Some(text),
            "next_step" => self.next_step = Some(text),
            _ => {}
        }
    }
}

impl Visit for Said {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.put(field, format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing_subscriber::layer::SubscriberExt as _;

    #[test]
    fn an_error_of_the_log_becomes_one_warning_with_its_next_step() {
        let troubles = Troubles::default();
        let subscriber = tracing_subscriber::registry().with(troubles.clone());
        tracing::subscriber::with_default(subscriber, || {
            for size in [1, 2] {
                tracing::error!(target: "cjm_store::x", reason = "the disk is full", size, next_step = "free space", "rows are lost");
            }
            tracing::error!(target: "cjm_engine::y", error = %"\u{1b}[31m", "odd");
            tracing::error!(target: "hyper::z", "not ours");
            tracing::warn!(target: "cjm_store::x", "no error");
        });
        let state = troubles.0.state.lock().expect("nobody panicked");
        assert_eq!(
            state.waiting,
            ["warning: rows are lost: the disk is full\n  next: free space", "warning: odd: \u{1b}[31m"]
        );
    }
}
