//! The ancestor's own worker (`python -m cjm_substrate.core.worker`), driven as its own host drives it: no link, no
//! shim; the HTTP surface is all there is. It is owned like any other worker: the keeper's child, its tree cleared.
//!
//! What must hold: it is ready when `/health` answers, and a death is noticed while it is waited for; it is told to
//! clean up before it is signalled; a version of the ancestor other than ours is told and never refused.

use crate::binding::BoundAdapter;
use crate::proxy::Proxy;
use crate::sinks::Sinks;
use cjm_wire::envelope::ExecuteRequest;
use cjm_wire::http::{self, Health, Progress};
use cjm_wire::link::{ProgressReport, WorkerReady};
use cjm_wire::manifest::Manifest;
use cjm_wire::runtime::{PythonWorker, Runtime};
use cjm_wire::{InstanceId, keeper::worker_fd};
use serde_json::{Map, Value};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::Notify;

/// Module that serves the surface.
const WORKER_MODULE: &str = "cjm_substrate.core.worker";
/// Between two questions of a start after a refused one.
const HEALTH_INTERVAL: Duration = Duration::from_millis(50);
/// How often progress is asked for while calls run.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);
/// Variable by which such a worker finds the diagnostics store; it writes its records there itself.
const DIAGNOSTICS_VARIABLE: &str = "CJM_DIAGNOSTICS_DB";

/// Whether a manifest asks for such a worker.
pub(crate) fn is_asked_for(manifest: &Manifest) -> bool {
    matches!(manifest.runtime(), Runtime::Python { worker: PythonWorker::Genuine })
}

/// The command line of the worker of `manifest`, without `--ppid`, which is known when it is spawned.
pub(crate) fn argv(manifest: &Manifest, adapters: &[BoundAdapter]) -> Vec<String> {
    let mut argv: Vec<String> = [
        manifest.install.python_path.as_str(),
        "-m",
        WORKER_MODULE,
        "--module",
        &manifest.code.module,
        "--class",
        &manifest.code.class,
        "--fd",
        &worker_fd::LISTENER.to_string(),
    ]
    .map(str::to_owned)
    .to_vec();
    if !adapters.is_empty() {
        let specs: Vec<&str> = adapters.iter().map(|adapter| adapter.spec.as_str()).collect();
        argv.extend(["--adapters".to_owned(), specs.join(",")]);
    }
    argv
}

/// What it gets beyond the variables of every worker: where records go, and secrets, for which there is no link.
pub(crate) fn variables(secrets: &Map<String, Value>, host_dir: &Path) -> Vec<(String, String)> {
    let mut variables =
        vec![(DIAGNOSTICS_VARIABLE.to_owned(), host_dir.join("diagnostics.db").display().to_string())];
    let secrets = secrets.iter().filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())));
    variables.extend(secrets);
    variables
}

/// Waits until it serves. Connections queue in its socket until then, so one question usually suffices; the caller
/// bounds the time and watches for its death.
pub(crate) async fn first_word(proxy: &Proxy) -> Health {
    loop {
        if let Ok(body) = proxy.get_unbounded(http::HEALTH).await
            && let Some(health) = proxy.read(&body)
        {
            return health;
        }
        tokio::time::sleep(HEALTH_INTERVAL).await;
    }
}

/// What a shim would have said.
pub(crate) fn ready(health: &Health) -> WorkerReady {
    WorkerReady {
        tool_pid: None,
        name: health.name.clone(),
        version: health.version.clone(),
        supports: Vec::new(),
        concurrency_max: 0,
    }
}

/// Jobs whose calls run, so that what the worker says of its progress is told of them.
#[derive(Debug, Default)]
pub(crate) struct RunningJobs {
    jobs: Mutex<Vec<String>>,
    begun: Notify,
}

/// One running job, until it is dropped.
pub(crate) struct RunningJob {
    jobs: Arc<RunningJobs>,
    id: String,
}

impl RunningJobs {
    /// Notes the job of a request; `None` for a call that is no job.
    pub(crate) fn begin(self: &Arc<Self>, body: &[u8]) -> Option<RunningJob> {
        let request: ExecuteRequest = serde_json::from_slice(body).ok()?;
        let id = request.envelope.job_id?.to_string();
        self.list().push(id.clone());
        self.begun.notify_one();
        Some(RunningJob { jobs: Arc::clone(self), id })
    }

    fn list(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for RunningJob {
    fn drop(&mut self) {
        let mut jobs = self.jobs.list();
        if let Some(at) = jobs.iter().position(|id| *id == self.id) {
            jobs.swap_remove(at);
        }
    }
}

/// Follows the progress of a worker's jobs until the list is dropped.
pub(crate) fn follow(proxy: &Proxy, instance: InstanceId, sinks: Arc<Sinks>) -> Arc<RunningJobs> {
    let jobs = Arc::new(RunningJobs::default());
    tokio::spawn(follow_progress(proxy.clone(), Arc::downgrade(&jobs), sinks, instance));
    jobs
}

/// Asks for progress while jobs run, and tells what is new; ends with the worker.
async fn follow_progress(proxy: Proxy, jobs: Weak<RunningJobs>, sinks: Arc<Sinks>, instance: InstanceId) {
    let mut told: Option<Progress> = None;
    loop {
        let Some(running) = jobs.upgrade() else { return };
        if running.list().is_empty() {
            // Wakes for the end too: a waiting task must not keep a dead worker's list.
            let begun = tokio::time::timeout(PROGRESS_INTERVAL, running.begun.notified()).await;
            if begun.is_err() {
                continue;
            }
        }
        drop(running);
        tokio::time::sleep(PROGRESS_INTERVAL).await;
        let Ok(body) = proxy.get(http::PROGRESS).await else { continue };
        let Some(progress) = proxy.read::<Progress>(&body) else { continue };
        let Some(running) = jobs.upgrade() else { return };
        // The value of an earlier call stays until the next one says something.
        if told.as_ref() == Some(&progress) {
            continue;
        }
        for job in running.list().iter() {
            let report = ProgressReport {
                job_id: Some(job.clone()),
                progress: progress.progress,
                message: progress.message.clone(),
            };
            sinks.progress(&instance, report);
        }
        told = Some(progress);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::HostEvent;
    use crate::redaction::Redaction;
    use crate::sinks::nowhere::nowhere;
    use serde_json::json;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::sync::broadcast::error::TryRecvError;

    fn request(job: &str) -> Vec<u8> {
        json!({"args": [], "kwargs": {}, "envelope": {"job_id": job}}).to_string().into_bytes()
    }

    #[test]
    fn a_job_runs_until_its_call_is_over_and_a_call_of_none_is_none() {
        let jobs = Arc::new(RunningJobs::default());
        let (one, other) = (jobs.begin(&request("one")).unwrap(), jobs.begin(&request("other")).unwrap());
        assert!(jobs.begin(b"{}").is_none());
        drop(one);
        assert_eq!(*jobs.list(), ["other"]);
        drop(other);
        assert!(jobs.list().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn progress_is_asked_for_while_jobs_run_and_told_when_it_is_new() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s");
        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        let proxy = Proxy::new("t", &socket, Arc::new(Redaction::default())).unwrap();
        let (sinks, mut events) = nowhere();
        let (asked, mut count) = tokio::sync::watch::channel(0);
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let _ = stream.read(&mut [0; 4096]).await.unwrap();
                let body =
                    json!({"progress": 0.25 * f64::from(*asked.borrow() / 3), "message": ""}).to_string();
                let head =
                    format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
                stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
                asked.send_modify(|asked| *asked += 1);
            }
        });
        let jobs = follow(&proxy, InstanceId::from_text("i"), sinks);
        tokio::time::sleep(20 * PROGRESS_INTERVAL).await;
        assert_eq!(*count.borrow(), 0, "nothing runs");
        let running = jobs.begin(&request("j")).unwrap();
        // Each value three times.
        count.wait_for(|count| *count == 10).await.unwrap();
        drop(running);
        tokio::time::sleep(3 * PROGRESS_INTERVAL).await;
        let mut told = Vec::new();
        loop {
            match events.try_recv() {
                Ok(HostEvent::Progress { job_id, progress, .. }) => {
                    assert_eq!(job_id.unwrap().as_str(), "j");
                    told.push(progress);
                }
                Err(TryRecvError::Empty) => break,
                other => panic!("{other:?}"),
            }
        }
        assert!(told.len() >= 3 && told.windows(2).all(|pair| pair[0] < pair[1]), "{told:?}");
    }
}
