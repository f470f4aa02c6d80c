//! The live side of the journal: rows fanned out after their commit, and the state of the gate. Nothing here is
//! durable; a subscriber that fell behind is told how much it missed and reads it from the journal by `seq`.

use cjm_wire::Timestamp;
use cjm_wire::event::JournalRow;
use std::sync::Arc;
use tokio::sync::broadcast;

/// Events kept for a subscriber that has not taken them yet.
pub const SUBSCRIBER_EVENTS_MAX: usize = 4096;

/// Something that happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A committed row.
    Row {
        /// Its place in the journal.
        seq: i64,
        /// The row.
        row: Arc<JournalRow>,
    },
    /// A liveness event: fanned out and never written.
    Live(Arc<JournalRow>),
    /// This subscriber was too slow.
    Lost {
        /// How many events it missed.
        count: u64,
        /// Rows after this one can be read from the journal.
        after_seq: i64,
    },
}

/// Receives every event from the moment it was made.
#[derive(Debug)]
pub struct Subscription {
    receiver: broadcast::Receiver<Event>,
    seen_seq: i64,
}

impl Subscription {
    pub(crate) fn new(receiver: broadcast::Receiver<Event>, seen_seq: i64) -> Self {
        Self { receiver, seen_seq }
    }

    /// The next event; `None` when the journal is closed. Cancel-safe.
    pub async fn next(&mut self) -> Option<Event> {
        match self.receiver.recv().await {
            Ok(event) => {
                if let Event::Row { seq, .. } = &event {
                    self.seen_seq = *seq;
                }
                Some(event)
            }
            Err(broadcast::error::RecvError::Lagged(count)) => {
                Some(Event::Lost { count, after_seq: self.seen_seq })
            }
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }

    /// Rows up to this one were seen, or committed before the subscription began.
    #[must_use]
    pub fn seen_seq(&self) -> i64 {
        self.seen_seq
    }
}

/// Whether new work is accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gate {
    /// The last write succeeded.
    Open,
    /// The disk fails; what was accepted before waits in memory and is tried again and again.
    Closed {
        /// Since when.
        since: Timestamp,
        /// What the disk said.
        reason: String,
    },
}

impl Gate {
    /// True when new work is accepted.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Open)
    }
}
