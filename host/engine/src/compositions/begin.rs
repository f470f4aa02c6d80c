//! Compositions as a program meets them: accept one, wait for what it says, ask for its end.

use crate::compositions::driver::Driver;
use crate::compositions::ends::Ends;
use crate::compositions::literals::check_literals;
use crate::compositions::loading::load_all;
use crate::compositions::monitor::Monitor;
use crate::compositions::state::{CompositionHandle, CompositionOutcome, Wish};
use crate::compositions::stored::StoredComposition;
use crate::deadlines::{Limit, Timeout};
use crate::error::HostError;
use crate::host::Host;
use cjm_decide::composition::CompositionRun;
use cjm_store::{Body, Commit, CompositionRecord, Write, rows};
use cjm_wire::composition::Composition;
use cjm_wire::describe::Described;
use cjm_wire::event::JobStatus;
use cjm_wire::json::Arguments;
use cjm_wire::{CompositionId, Timestamp};
use std::sync::Arc;
use tokio::sync::{mpsc, watch};

/// Compositions whose outcome is kept after they have ended; older ones are read from the store.
pub(crate) const ENDED_COMPOSITIONS_MAX: usize = 256;

impl Host {
    /// Accepts a composition: loads what it needs, then runs it.
    ///
    /// # Errors
    /// When it is malformed, its graph is not one, it names another configuration than a loaded instance has, or a
    /// capability does not load.
    pub async fn submit_composition(
        &self,
        composition: Composition,
        inputs: Arguments,
    ) -> Result<CompositionId, HostError> {
        self.submit_composition_within(composition, inputs, None).await
    }

    /// [`Self::submit_composition`] with an end, where a `timeout` is given: how long all of it may take from now, loading
    /// included. A run whose time is over ends `failed`, and what it has begun is stopped as a cancel stops it.
    ///
    /// # Errors
    /// As there, and when the time is over before everything is loaded.
    pub async fn submit_composition_within(
        &self,
        composition: Composition,
        inputs: Arguments,
        timeout: Option<Timeout>,
    ) -> Result<CompositionId, HostError> {
        let host = self.clone();
        if self.services().closing.is_cancelled() {
            return Err(HostError::ShuttingDown);
        }
        self.runtime()
            .run(async move { start(host, composition, inputs, timeout.map(Limit::of)).await })
            .await
    }

    /// Of compositions that have ended only the newest are kept.
    fn forget_ended_compositions(&self) {
        let mut compositions = self.compositions();
        let ended = compositions.iter().filter(|(_, known)| known.has_ended());
        let mut ended: Vec<CompositionId> = ended.map(|(id, _)| id.clone()).collect();
        // Their ids are in the order of their submission.
        ended.sort();
        let beyond = ended.len().saturating_sub(ENDED_COMPOSITIONS_MAX);
        for id in &ended[..beyond] {
            compositions.remove(id);
        }
    }

    /// Waits for what a composition came to: for its end, or, where it fails fast, for its first failure. Calls that run
    /// then are being cancelled: [`CompositionOutcome::still_running`] says how many, and their ends are written before the
    /// host ends.
    ///
    /// # Errors
    /// When neither this host nor its store knows one with this id that runs here or has ended, or the store cannot be read.
    pub async fn wait_composition(&self, id: &CompositionId) -> Result<Arc<CompositionOutcome>, HostError> {
        self.await_composition(id, |_| true).await
    }

    /// Waits until nothing of a composition runs any more, also where it has failed fast.
    ///
    /// # Errors
    /// As there.
    pub async fn wait_composition_end(
        &self,
        id: &CompositionId,
    ) -> Result<Arc<CompositionOutcome>, HostError> {
        self.await_composition(id, |outcome| outcome.still_running == 0).await
    }

    async fn await_composition(
        &self,
        id: &CompositionId,
        wanted: impl Fn(&CompositionOutcome) -> bool,
    ) -> Result<Arc<CompositionOutcome>, HostError> {
        let known = self.compositions().get(id).map(|handle| handle.outcome.clone());
        let Some(mut outcome) = known else { return self.stored_composition(id).await };
        let told = outcome.wait_for(|told| told.as_deref().is_some_and(&wanted)).await;
        let told = told.map_err(|_| HostError::ShuttingDown)?;
        told.clone().ok_or(HostError::ShuttingDown)
    }

    /// One that has ended, and of which this host keeps no more.
    async fn stored_composition(&self, id: &CompositionId) -> Result<Arc<CompositionOutcome>, HostError> {
        let (history, asked) = (Arc::clone(&self.services().history), id.clone());
        // Its output may be large.
        let read = move || Ok(history.composition(&asked)?.and_then(StoredComposition::outcome));
        let stored: Result<_, HostError> =
            self.runtime().handle()?.spawn_blocking(read).await.map_err(|_| HostError::ShuttingDown)?;
        stored?.map(Arc::new).ok_or_else(|| HostError::UnknownComposition(id.clone()))
    }

    /// Asks for the end of a composition.
    pub fn cancel_composition(&self, id: &CompositionId) {
        if let Some(handle) = self.compositions().get(id) {
            handle.ask(Wish::End);
        }
    }

    /// As [`Self::cancel_composition`], without waiting for tools to obey: workers that run calls of it are killed with
    /// them. Of calls that are being cancelled already, for whatever reason, what is left of their grace is waived.
    pub fn cancel_composition_at_once(&self, id: &CompositionId) {
        if let Some(handle) = self.compositions().get(id) {
            handle.ask(Wish::EndAtOnce);
        }
    }
}

/// A name that nothing has, told with what it was to be: it stands at no node.
fn of_monitor(error: &HostError) -> HostError {
    HostError::Graph {
        message: format!("monitor: {error}"),
        code: error.code(),
        next_step: error.next_step(),
    }
}

/// Loads what the composition needs, its monitor too, within its time.
async fn load(
    host: &Host,
    composition: &Composition,
    limit: Option<Limit>,
) -> Result<Option<Result<Monitor, String>>, HostError> {
    let loading = async {
        load_all(host, composition).await?;
        Ok(match &composition.monitor {
            Some(capability) => Some(Monitor::start(host, capability).await),
            None => None,
        })
    };
    let Some(limit) = limit else { return loading.await };
    // What loads goes on, as when another capability fails to.
    tokio::time::timeout_at(limit.at, loading).await.unwrap_or_else(|_| {
        let (name, seconds) = (composition.name.clone(), limit.given.as_secs_f64());
        Err(HostError::CompositionDeadline { name, seconds })
    })
}

/// Loads what the composition needs and starts it.
async fn start(
    host: Host,
    composition: Composition,
    inputs: Arguments,
    limit: Option<Limit>,
) -> Result<CompositionId, HostError> {
    let run = CompositionRun::new(composition.clone(), inputs.clone(), 0).map_err(|error| {
        HostError::Graph { message: error.to_string(), code: error.code(), next_step: error.next_step() }
    })?;
    check_literals(&host, &composition)?;
    // Before anything is started, as for what nodes call: a name that nothing has is a mistake in the document.
    composition
        .monitor
        .as_deref()
        .map(|monitor| host.check(monitor))
        .transpose()
        .map_err(|error| of_monitor(&error))?;
    let monitor = load(&host, &composition, limit).await?;
    // What loaded for long may be accepted by a host that ends, and nobody would end it.
    if host.services().closing.is_cancelled() {
        return Err(HostError::ShuttingDown);
    }
    let id = CompositionId::new();
    let record = CompositionRecord {
        composition_id: id.clone(),
        name: composition.name.clone(),
        run_id: Some(host.run_id().clone()),
        actor: Some(host.services().options.actor.clone()),
        status: JobStatus::Pending,
        submitted_at: Timestamp::now(),
        completed_at: None,
        failure: None,
    };
    let as_text = |value: serde_json::Result<Vec<u8>>| Body::Inline(value.unwrap_or_default());
    let document = as_text(serde_json::to_vec(&composition));
    let commit = Commit::admitting()
        .row(rows::composition_started(&record))
        .write(Write::InsertComposition(
            Box::new(record.clone()),
            document,
            as_text(serde_json::to_vec(&inputs)),
        ))
        .write(Write::StartComposition(id.clone()));
    host.services().journal.commit(commit).await?;
    let (told, outcome) = watch::channel(None);
    let (cancel, cancelled) = watch::channel(Wish::GoOn);
    let (ends_sender, ends) = mpsc::unbounded_channel();
    let tasks = host.services().tasks.clone();
    let driver = Driver::new(host.clone(), &composition, run, record, monitor, limit, ends_sender);
    // For whoever asks, and before it can end.
    host.compositions().insert(id.clone(), CompositionHandle { outcome, cancel });
    tasks.spawn(async move {
        driver.drive(Ends::new(ends), cancelled, told).await;
        host.forget_ended_compositions();
    });
    Ok(id)
}
