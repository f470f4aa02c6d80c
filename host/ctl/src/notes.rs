//! Notes from below: what the host has to tell the user beside results and errors (drift, a default without a value, a
//! secret that belongs to another manifest) comes as log lines of one target, and is shown as a line of ours.

use crate::output::Output;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// Shows them on standard error.
pub(crate) struct Notes(pub(crate) Output);

impl<S: Subscriber> Layer<S> for Notes {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() != cjm_engine::NOTES {
            return;
        }
        let mut text = Text(String::new());
        event.record(&mut text);
        // What comes from manifests and tools is shown, not obeyed.
        let line: String = text.0.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
        // From threads of the host, which must wait for no reader.
        self.0.remark(&format!("note: {line}"));
    }
}

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}
