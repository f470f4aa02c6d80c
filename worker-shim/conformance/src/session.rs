//! One worker under examination: what it said of itself at the start, and the few ways in which checks talk to it.

use crate::checks::{Check, Touch};
use crate::client::{Answer, ClientError, Endpoint, Streaming};
use serde_json::{Map, Value, json};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What the fixture calls itself; a tool of another name is never called.
const FIXTURE_NAME: &str = "conformance-fixture";
/// How often something that no event tells is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// How long it is looked at.
const LOOK_MAX: Duration = Duration::from_secs(5);

/// A worker that has answered once.
#[derive(Debug)]
pub struct Session {
    endpoint: Endpoint,
    health: Value,
    /// What its tool can do; None when it is not the fixture.
    actions: Option<Vec<String>>,
}

impl Session {
    /// Asks who is there, and whether its tool is the fixture.
    pub(crate) fn begin(endpoint: &Endpoint) -> Result<Self, ClientError> {
        let mut session = Self { endpoint: endpoint.clone(), health: Value::Null, actions: None };
        let health = session.get("/health")?;
        session.health = serde_json::from_slice(&health.body).unwrap_or(Value::Null);
        if session.health["name"] != FIXTURE_NAME {
            return Ok(session);
        }
        let described = session.execute("describe", json!({}))?;
        let described: Value = serde_json::from_slice(&described.body).unwrap_or(Value::Null);
        if described["conformance"] == 1 {
            let actions = described["actions"].as_array().cloned().unwrap_or_default();
            session.actions =
                Some(actions.iter().filter_map(|action| action.as_str().map(str::to_owned)).collect());
        }
        Ok(session)
    }

    /// What `/health` said first; null when that was no JSON.
    #[must_use]
    pub fn health(&self) -> &Value {
        &self.health
    }

    /// Whether the tool is the fixture.
    #[must_use]
    pub fn is_fixture(&self) -> bool {
        self.actions.is_some()
    }

    /// Why a check cannot be made.
    pub(crate) fn lacks(&self, check: &Check) -> Option<String> {
        let Some(actions) = &self.actions else {
            let reads = check.touch == Touch::Reads;
            return (!reads).then(|| "the worker's tool is not the fixture, and is not called".to_owned());
        };
        let missing: Vec<&str> = check
            .needs
            .iter()
            .copied()
            .filter(|needed| !actions.iter().any(|action| action == needed))
            .collect();
        (!missing.is_empty()).then(|| format!("the fixture has no {}", missing.join(", ")))
    }

    pub(crate) fn converse(&self, paths: &[&str]) -> Result<Vec<Answer>, ClientError> {
        self.endpoint.converse(paths)
    }

    pub(crate) fn get(&self, path: &str) -> Result<Answer, ClientError> {
        self.endpoint.exchange("GET", path, "application/json", b"")
    }

    pub(crate) fn send(&self, method: &str, path: &str, body: &[u8]) -> Result<Answer, ClientError> {
        self.endpoint.exchange(method, path, "application/json", body)
    }

    pub(crate) fn send_typed(
        &self,
        path: &str,
        content_type: &str,
        body: &Value,
    ) -> Result<Answer, ClientError> {
        self.endpoint.exchange("POST", path, content_type, body.to_string().as_bytes())
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Result<Answer, ClientError> {
        self.send_typed(path, "application/json", body)
    }

    /// POST /execute of an action.
    pub(crate) fn execute(&self, action: &str, kwargs: Value) -> Result<Answer, ClientError> {
        self.post("/execute", &call(action, kwargs, None))
    }

    /// The same on a thread of its own, as a job.
    pub(crate) fn execute_beside(
        &self,
        action: &str,
        kwargs: Value,
        job: &str,
    ) -> JoinHandle<Result<Answer, ClientError>> {
        self.post_beside("/execute", call(action, kwargs, Some(job)))
    }

    pub(crate) fn post_beside(
        &self,
        path: &'static str,
        body: Value,
    ) -> JoinHandle<Result<Answer, ClientError>> {
        let endpoint = self.endpoint.clone();
        std::thread::spawn(move || {
            endpoint.exchange("POST", path, "application/json", body.to_string().as_bytes())
        })
    }

    /// POST /execute_stream, read to its end.
    pub(crate) fn stream(&self, action: &str, kwargs: Value) -> Result<Answer, ClientError> {
        self.post("/execute_stream", &call(action, kwargs, None))
    }

    /// POST /execute_stream, to be read piece by piece.
    pub(crate) fn open_stream(&self, action: &str) -> Result<Streaming, ClientError> {
        let body = call(action, json!({}), None).to_string();
        self.endpoint.open("POST", "/execute_stream", "application/json", body.as_bytes())
    }

    /// Waits until `/progress` says `message`.
    pub(crate) fn wait_progress(&self, message: &str) -> Result<(), String> {
        self.wait_for(&format!("the progress message {message:?}"), || {
            let answer = self.get("/progress")?;
            let said: Value = serde_json::from_slice(&answer.body).unwrap_or(Value::Null);
            Ok((said["message"] == message).then_some(()))
        })
    }

    /// Looks again and again, for what no event tells.
    pub(crate) fn wait_for<T>(
        &self,
        what: &str,
        mut look: impl FnMut() -> Result<Option<T>, String>,
    ) -> Result<T, String> {
        let began = Instant::now();
        loop {
            if let Some(found) = look()? {
                return Ok(found);
            }
            if began.elapsed() > LOOK_MAX {
                return Err(format!("{what} did not come within {} s", LOOK_MAX.as_secs()));
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

/// The body of a call.
fn call(action: &str, kwargs: Value, job: Option<&str>) -> Value {
    let mut named = Map::from_iter([("action".to_owned(), Value::from(action))]);
    if let Value::Object(kwargs) = kwargs {
        named.extend(kwargs);
    }
    let envelope = job.map_or_else(|| json!({}), |job| json!({ "job_id": job }));
    json!({"args": [], "kwargs": named, "envelope": envelope})
}
