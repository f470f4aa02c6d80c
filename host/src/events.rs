//! What a pipeline does, as it does it: committed rows of the journal, and what is too fleeting to be one.

use cjm_engine::{HostEvent, RowEvent, RowSubscription};
use cjm_wire::event::JournalRow;
use std::sync::Arc;
use tokio::sync::{broadcast, watch};

/// One event.
#[derive(Debug, Clone)]
pub enum PipelineEvent {
    /// A row of the journal, after its commit.
    Row {
        /// Its place in the journal.
        seq: i64,
        /// The row.
        row: Arc<JournalRow>,
    },
    /// Progress, nodes, workers.
    Live(HostEvent),
    /// This listener was too slow.
    Lost {
        /// How many events it missed.
        count: u64,
    },
}

/// Receives every event from the moment it was made; see [`Pipeline::events`](crate::Pipeline::events).
#[derive(Debug)]
pub struct Events {
    rows: Option<RowSubscription>,
    live: Option<broadcast::Receiver<HostEvent>>,
    ended: watch::Receiver<bool>,
}

impl Events {
    pub(crate) fn new(
        rows: RowSubscription,
        live: broadcast::Receiver<HostEvent>,
        ended: watch::Receiver<bool>,
    ) -> Self {
        Self { rows: Some(rows), live: Some(live), ended }
    }

    /// The next event; `None` when the host has ended. Rows keep their order; between rows and the rest there is none.
    /// Cancel-safe.
    pub async fn next(&mut self) -> Option<PipelineEvent> {
        loop {
            if self.rows.is_none() && self.live.is_none() {
                return None;
            }
            tokio::select! {
                // What was told before the end is delivered before it.
                biased;
                row = next_row(&mut self.rows), if self.rows.is_some() => match row {
                    Some(RowEvent::Row { seq, row }) => return Some(PipelineEvent::Row { seq, row }),
                    // Liveness rows come as host events.
                    Some(RowEvent::Live(_)) => {}
                    Some(RowEvent::Lost { count, .. }) => return Some(PipelineEvent::Lost { count }),
                    None => {
                        // The journal is closed: the host has ended, and says nothing more.
                        self.rows = None;
                        self.live = None;
                    }
                },
                live = next_live(&mut self.live), if self.live.is_some() => match live {
                    Ok(event) => return Some(PipelineEvent::Live(event)),
                    Err(broadcast::error::RecvError::Lagged(count)) => return Some(PipelineEvent::Lost { count }),
                    Err(broadcast::error::RecvError::Closed) => self.live = None,
                },
                _ = self.ended.wait_for(|ended| *ended) => {
                    self.rows = None;
                    self.live = None;
                }
            }
        }
    }
}

async fn next_row(rows: &mut Option<RowSubscription>) -> Option<RowEvent> {
    match rows {
        Some(rows) => rows.next().await,
        None => None,
    }
}

async fn next_live(
    live: &mut Option<broadcast::Receiver<HostEvent>>,
) -> Result<HostEvent, broadcast::error::RecvError> {
    match live {
        Some(live) => live.recv().await,
        None => Err(broadcast::error::RecvError::Closed),
    }
}
