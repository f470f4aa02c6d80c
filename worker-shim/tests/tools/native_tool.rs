//! A capability as its author writes it, with the misbehaviour the tests need. Not part of the product.

use cjm_worker::{Action, Call, Capability, Level, Setup, Sink, ToolError};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

struct Lab {
    setup: Setup,
    config: Mutex<Map<String, Value>>,
    cancels: AtomicU32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Add {
    left: i64,
    right: i64,
}

impl Capability for Lab {
    fn load(setup: Setup) -> Result<Self, ToolError> {
        if setup.secret("LAB_REFUSES").is_some() {
            return Err(ToolError::fatal("the lab refuses to load"));
        }
        setup.logger().log(Level::Info, "lab loaded");
        setup.logger().log(Level::Debug, "not wanted");
        Ok(Self { setup, config: Mutex::default(), cancels: AtomicU32::new(0) })
    }

    fn version(&self) -> Option<String> {
        Some("9.9.9".to_owned())
    }

    fn actions(&self) -> Vec<Action> {
        let names = [
            "echo", "add", "wait", "panic", "busy", "account", "secret", "fail", "count", "child", "nan",
            "cancels", "big", "stubborn", "run",
        ];
        names.map(|name| Action { name, description: "" }).to_vec()
    }

    fn concurrency_max(&self) -> usize {
        3
    }

    fn config_schema(&self) -> Value {
        json!({"type": "object", "properties": {"model": {"type": "string"}}})
    }

    fn config(&self) -> Value {
        Value::Object(self.config.lock().expect("no panic while it is held").clone())
    }

    fn initialize(&self, config: Map<String, Value>) -> Result<(), ToolError> {
        if config.contains_key("bad") {
            return Err(ToolError::user_input("`bad` is bad"));
        }
        if config.contains_key("broken") {
            return Err(ToolError::fatal("no engine"));
        }
        *self.config.lock().expect("no panic while it is held") = config;
        Ok(())
    }

    fn prefetch(&self, call: Call) -> Result<(), ToolError> {
        call.report_progress(0.75, "prefetching");
        Ok(())
    }

    fn on_disable(&self) -> Result<(), ToolError> {
        Err(ToolError::fatal("cannot be disabled"))
    }

    fn on_enable(&self) -> Result<(), ToolError> {
        Ok(())
    }

    fn execute(&self, call: Call) -> Result<Value, ToolError> {
        match call.action().unwrap_or("echo") {
            "add" => {
                let Add { left, right } = call.parse()?;
                Ok(json!(left + right))
            }
            "wait" => {
                call.report_progress(0.5, "waiting");
                while !call.is_cancelled() {
                    std::thread::sleep(Duration::from_millis(2));
                }
                call.check_cancel()?;
                Ok(Value::Null)
            }
            "stubborn" => {
                call.report_progress(0.5, "stubborn");
                loop {
                    std::thread::park();
                }
            }
            "busy" => {
                call.report_progress(0.25, "busy");
                let end = std::time::Instant::now() + Duration::from_millis(500);
                while std::time::Instant::now() < end {
                    std::hint::spin_loop();
                }
                Ok(json!("done"))
            }
            "panic" => panic!("the lab exploded"),
            "account" => {
                let payload = Map::from_iter([("key".to_owned(), json!("é"))]);
                let good = call.account("cache_hit", payload.clone());
                let forged = call.account("state_transition", payload);
                call.report_usage(Map::from_iter([("tokens".to_owned(), json!(7))]));
                call.log(Level::Warning, "accounted");
                Ok(json!([good, forged]))
            }
            "secret" => Ok(json!({
                "secret": self.setup.secret("LAB_KEY"),
                "environment": std::env::var("LAB_KEY").ok(),
            })),
            "fail" => Err(ToolError::resource("no memory").retry_after(2.0)),
            "cancels" => Ok(json!(self.cancels.load(Ordering::SeqCst))),
            "nan" => Ok(json!({"x": f64::NAN})),
            "big" => Ok(Value::from("x".repeat(call.kwargs()["bytes"].as_u64().unwrap_or(0) as usize))),
            "child" => {
                // Its own session, and nobody waits for it.
                let mut child = std::process::Command::new("setsid");
                let child = child.args(["sleep", "1000"]).spawn().map_err(ToolError::from)?;
                Ok(json!(child.id()))
            }
            "run" => {
                let words: Vec<String> = serde_json::from_value(call.kwargs()["argv"].clone())
                    .map_err(|error| ToolError::user_input(error.to_string()))?;
                let (program, arguments) =
                    words.split_first().ok_or_else(|| ToolError::user_input("`argv` is empty"))?;
                let status =
                    std::process::Command::new(program).args(arguments).status().map_err(ToolError::from)?;
                Ok(json!(status.code()))
            }
            _ => Ok(json!({"args": call.args(), "kwargs": call.kwargs(), "job": call.envelope().job_id})),
        }
    }

    fn execute_stream(&self, call: Call, sink: &mut Sink) -> Result<(), ToolError> {
        if call.action() != Some("count") {
            let value = self.execute(call)?;
            return sink.send(&value);
        }
        let to = call.kwargs().get("to").and_then(Value::as_u64).unwrap_or(u64::MAX);
        for number in 0..to {
            sink.send(&json!({"n": number, "é": [1.0, null]}))?;
        }
        if call.kwargs().contains_key("then_fail") { Err(ToolError::transient("broke off")) } else { Ok(()) }
    }

    fn cancel(&self, _: Option<&str>) {
        self.cancels.fetch_add(1, Ordering::SeqCst);
    }

    fn cleanup(&self) -> Result<(), ToolError> {
        let path = self.setup.data_dir().join("cleanups");
        let before = std::fs::read_to_string(&path).unwrap_or_default();
        std::fs::write(path, before + "x")?;
        Ok(())
    }

    fn get_system_status(&self) -> Result<Value, ToolError> {
        Ok(json!({"memory_available_mb": 1.5}))
    }
}

fn main() -> ExitCode {
    cjm_worker::serve::<Lab>()
}
