//! The laboratory through our host, as a program that embeds it: the same steps that the driver of the genuine host
//! performs.

use super::pair::{NAME, ask_surface};
use super::steps;
use cjm_host::wire::ErrorCategory;
use cjm_host::{
    Binding, CallError, HostEvent, JobId, JobRequest, Pipeline, PipelineEvent, Target, create_pipeline,
};
use cjm_tests::repo;
use cjm_tests::world::World;
use futures_util::StreamExt;
use serde_json::{Map, Value, json};

/// Plays everything.
pub(crate) fn play(world: &World) -> (Vec<(String, Value)>, Map<String, Value>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let pipeline = create_pipeline([NAME])
            .data_dir(world.data_dir())
            .search_path(world.data_dir().join("manifests"))
            .worker_binary(repo::binary("cjm-worker"))
            .run_id("run-laboratory")
            .actor("actor-laboratory")
            .start()
            .await
            .unwrap_or_else(|error| panic!("{error}"));
        let journal = world.journal();
        let surface = tokio::task::spawn_blocking(move || ask_surface(&journal)).await.expect("answers");
        let mut calls = Map::new();
        for step in steps::calls().as_array().expect("a list") {
            let id = step["id"].as_str().expect("an id");
            calls.insert(id.to_owned(), perform(&pipeline, step).await);
        }
        assert!(pipeline.shutdown().await.tree_cleared);
        (surface, calls)
    })
}

async fn perform(pipeline: &Pipeline, step: &Value) -> Value {
    let binding = pipeline.binding(NAME).expect("a binding");
    if step["how"] == "stream" {
        return stream(binding, &step["kwargs"]).await;
    }
    let mut events = pipeline.events();
    let job = submit(pipeline, step).await;
    if let Some(wanted) = step["message"].as_str() {
        while let Some(event) = events.next().await {
            if matches!(&event, PipelineEvent::Live(HostEvent::Progress { message, .. }) if message == wanted)
            {
                break;
            }
        }
        pipeline.host().cancel(&job);
    }
    let outcome = pipeline.host().wait(&job).await.expect("the host lives");
    json!({
        "job": job,
        "status": outcome.status,
        "result": outcome.result.as_deref().map(|body| serde_json::from_slice::<Value>(body).expect("JSON")),
        "error": outcome.failure.as_ref().map(|failure| &failure.error),
    })
}

async fn submit(pipeline: &Pipeline, step: &Value) -> JobId {
    let mut request = JobRequest::new(Target::Capability(NAME.to_owned()));
    request.kwargs = cjm_wire::Json::from(&step["kwargs"]).fields().unwrap_or_default();
    request.args = step["args"].as_array().cloned().unwrap_or_default();
    request.control = step["control"].as_object().cloned().unwrap_or_default();
    if let (Some(task), Some(method)) = (step["task"].as_str(), step["method"].as_str()) {
        request.task = Some((task.to_owned(), method.to_owned()));
    }
    pipeline.host().submit(request).await.expect("accepted")
}

async fn stream(binding: &Binding, kwargs: &Value) -> Value {
    let mut chunks = Vec::new();
    let mut found = match binding.stream("", kwargs).await {
        Ok(found) => found,
        Err(error) => panic!("the stream does not begin: {error}"),
    };
    while let Some(chunk) = found.next().await {
        match chunk {
            Ok(chunk) => chunks.push(serde_json::from_str::<Value>(chunk.get()).expect("JSON")),
            Err(error) => return json!({"chunks": chunks, "error": class_and_message(&error)}),
        }
    }
    json!({"chunks": chunks, "error": null})
}

/// As the genuine host raises it.
fn class_and_message(error: &CallError) -> Value {
    let CallError::Tool { error, .. } = error else { panic!("{error}") };
    let class = match error.category {
        ErrorCategory::UserInput => "CapabilityInputError",
        ErrorCategory::Transient => "CapabilityTransientError",
        ErrorCategory::Resource => "CapabilityResourceError",
        ErrorCategory::Fatal => "CapabilityFatalError",
    };
    json!([class, error.message])
}
