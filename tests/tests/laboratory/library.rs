//! Task adapters as a program meets them: chosen and refused, called directly and as durable jobs.

use super::pair::{HostKind, NAME, WorkerKind, install};
use cjm_host::{CapabilitySpec, PipelineBuilder, create_pipeline};
use cjm_tests::ancestor::{Ancestor, VERSIONS};
use cjm_tests::world::World;
use cjm_tests::{journal, repo};
use cjm_wire::describe::Described;
use serde_json::{Value, json};

fn builder(world: &World, spec: CapabilitySpec) -> PipelineBuilder {
    create_pipeline([spec])
        .data_dir(world.data_dir())
        .search_path(world.data_dir().join("manifests"))
        .worker_binary(repo::binary("cjm-worker"))
}

async fn choose(world: &World) {
    let greedy = CapabilitySpec::new(NAME).adapters(["GreedyAdapter"]);
    let error = builder(world, greedy).start().await.expect_err("it does not fit");
    assert_eq!(error.code(), "adapter.incompatible");
    let message = error.to_string();
    for words in ["missing methods: paint", "missing properties: colour", "(text, n), and (n) is asked for"] {
        assert!(message.contains(words), "{message}");
    }
    let unknown = CapabilitySpec::new(NAME).adapters(["laboratory.LaboratoryAdaptor"]);
    let error = builder(world, unknown).start().await.expect_err("there is none");
    assert_eq!(error.code(), "adapter.unknown");
    assert!(error.to_string().contains("laboratory.LaboratoryAdapter"), "{error}");
    let none = CapabilitySpec::new(NAME).adapters::<String>([]);
    let pipeline = builder(world, none).start().await.unwrap_or_else(|error| panic!("{error}"));
    let binding = pipeline.binding(NAME).expect("a binding");
    let error = binding.submit_task("lab-task", "run", ()).await.expect_err("nothing is bound");
    assert_eq!(error.code(), "adapter.not_bound");
    assert!(pipeline.shutdown().await.tree_cleared);
}

async fn use_it(world: &World, worker: WorkerKind) {
    let before = journal::rows(&world.journal()).last().map_or(0, |row| row.seq);
    let pipeline = builder(world, NAME.into()).start().await.unwrap_or_else(|error| panic!("{error}"));
    let binding = pipeline.binding(NAME).expect("a binding");
    let wanted =
        json!({"__wire__": "laboratory.result", "data": {"text": "abab", "score": 0.25, "tags": []}});
    let direct: Value = binding.call_task("lab-task", "run", json!({"text": "ab"})).await.expect("a result");
    assert_eq!(direct, wanted);
    let job = binding.submit_task("lab-task", "run", json!({"text": "ab"})).await.expect("accepted");
    assert_eq!(job.result::<Value>().await.expect("a result"), wanted);
    let error =
        binding.call_task::<Value>("lab-task", "run", json!({"fail": "input"})).await.expect_err("it fails");
    assert_eq!(error.code(), "call.tool_failed");
    let error = binding.call_task::<Value>("greedy-task", "run", ()).await.expect_err("not bound");
    assert!(error.to_string().contains("laboratory.GreedyAdapter does not fit"), "{error}");
    let error = binding.call_task::<Value>("lab-task", "nope", ()).await.expect_err("no such method");
    assert!(error.to_string().contains("has no method 'nope'"), "{error}");
    // The worker of the ancestor lists none.
    let step = match worker {
        WorkerKind::Ours => "name a method of the adapter: run, wait",
        WorkerKind::Theirs => "name a public method of the adapter's class: its source has them",
    };
    assert_eq!(error.next_step(), step);
    assert!(pipeline.shutdown().await.tree_cleared);
    // Direct calls account as jobs do, also for a failure.
    let rows = journal::rows(&world.journal());
    let rows: Vec<journal::Row> = rows.into_iter().filter(|row| row.seq > before).collect();
    let accounts: Vec<(bool, bool)> = rows
        .iter()
        .filter(|row| row.event_type == "task_account")
        .map(|row| (row.job_id.is_some(), row.payload["ok"] == true))
        .collect();
    assert_eq!(accounts, [(false, true), (true, true), (false, false)], "{}", journal::tell(&rows));
    assert!(rows.iter().any(|row| row.event_type == "graph_extended" && row.payload == json!({"nodes": 1})));
}

/// An adapter that fits, and is not in the environment: asked for it is refused, found it is left out.
async fn miss_one(world: &World) {
    let ghost = json!({
        "unit": "adapter", "name": "nowhere.Ghost", "task_name": "ghost", "module": "nowhere", "class": "Ghost",
        "protocol_members": {"methods": [{"name": "lab_method"}], "properties": []},
    });
    let path = world.data_dir().join("manifests/adapter-ghost-Ghost.json");
    std::fs::write(&path, ghost.to_string()).expect("a manifest");
    let named = CapabilitySpec::new(NAME).adapters(["Ghost"]);
    let error = builder(world, named).start().await.expect_err("it cannot be imported");
    assert_eq!(error.code(), "adapter.not_loaded");
    assert!(error.to_string().contains("nowhere:Ghost"), "{error}");
    world.assert_nothing_left();
    let pipeline = builder(world, NAME.into()).start().await.unwrap_or_else(|error| panic!("{error}"));
    let binding = pipeline.binding(NAME).expect("a binding");
    let _: Value = binding.call_task("lab-task", "run", ()).await.expect("the other one is bound");
    assert!(pipeline.shutdown().await.tree_cleared);
    std::fs::remove_file(path).expect("removed");
}

#[test]
fn adapters_are_chosen_refused_and_called() {
    for version in VERSIONS {
        for worker in [WorkerKind::Ours, WorkerKind::Theirs] {
            let world = World::new();
            let Some(ancestor) = Ancestor::find(&world, "adapters_are_chosen_refused_and_called", version)
            else {
                return;
            };
            install(&world, &ancestor, HostKind::Ours, worker);
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                choose(&world).await;
                if worker == WorkerKind::Ours {
                    miss_one(&world).await;
                }
                use_it(&world, worker).await;
            });
            world.assert_nothing_left();
        }
    }
}
