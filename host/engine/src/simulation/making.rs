//! Hosts made as `bring_up` makes one, over what is simulated.

use super::journal::SimulatedJournal;
use crate::bring_up::start_runner;
use crate::host::{Host, SimulatedParts};
use crate::services::{History, Services};
use cjm_catalog::{Catalog, ManifestFolder};
use cjm_decide::queue::QueueLimits;
use cjm_store::{InputHashes, Journal, NoDiagnostics};
use cjm_wire::RunId;
use cjm_workers::{HostOptions, Sinks, Workers};
use serde_json::json;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A host as `bring_up` makes one, over what is simulated.
pub(super) fn host(limits: QueueLimits, journal: &Arc<SimulatedJournal>, workers: Arc<dyn Workers>) -> Host {
    host_over(limits, Arc::clone(journal) as Arc<dyn Journal>, Arc::clone(journal), workers)
}

pub(super) fn host_over(
    limits: QueueLimits,
    journal: Arc<dyn Journal>,
    history: Arc<SimulatedJournal>,
    workers: Arc<dyn Workers>,
) -> Host {
    let directory = manifests();
    let mut options = HostOptions::new(directory.join("data"));
    options.actor = "simulator".to_owned();
    options.ready_timeout = Duration::from_secs(5);
    // Longer than anything here takes by itself, and not so long that a moved clock takes seconds.
    options.call_timeout = Duration::from_secs(60 * 60);
    let (events, _) = broadcast::channel(64);
    let services = Services {
        run_id: RunId::new(),
        input_hashes: Arc::new(InputHashes::of(&options.data_dir)),
        history: history as Arc<dyn History>,
        options,
        journal,
        sinks: Arc::new(Sinks { diagnostics: Arc::new(NoDiagnostics), events }),
        workers,
        host_session: "simulated".to_owned(),
        tasks: TaskTracker::new(),
        calls: TaskTracker::new(),
        deadlines: Arc::default(),
        closing: CancellationToken::new(),
        grace_waived: CancellationToken::new(),
    };
    let runner = start_runner(services, limits);
    let catalog = Catalog::discover(&[ManifestFolder::named(&directory)]);
    Host::simulated(SimulatedParts { runner, catalog, diagnostics: Arc::new(NoDiagnostics), directory })
}

/// A folder with the manifests of a tool, of a monitor and of a tool in Python, made once.
fn manifests() -> PathBuf {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["tool", "monitor"] {
            let manifest = json!({
                "format_version": "2.0",
                "code": {
                    "name": name, "version": "1", "description": "simulated",
                    "runtime": {"kind": "native", "program": "/bin/true"},
                },
            });
            let path = folder.path().join(name).with_extension("json");
            std::fs::write(path, manifest.to_string()).expect("written");
        }
        // Nothing runs its interpreter.
        let manifest = json!({
            "format_version": "2.0", "install": {"python_path": "/bin/true"},
            "code": {"name": "python", "version": "1", "module": "m", "class": "C"},
        });
        std::fs::write(folder.path().join("python.json"), manifest.to_string()).expect("written");
        folder
    });
    folder.path().to_owned()
}
