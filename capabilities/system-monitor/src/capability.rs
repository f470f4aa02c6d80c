//! The actions of the monitor, and its two questions of the worker surface.

use crate::sample::{self, CpuMeter, SystemStatus, TreeRow};
use cjm_platform::Pid;
use cjm_platform::tree::process_info;
use cjm_worker::{Action, Call, Capability, Setup, Sink, ToolError};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Shortest and longest time between two samples of a stream.
const INTERVAL_MS_MIN: u64 = 10;
const INTERVAL_MS_MAX: u64 = 3_600_000;
const INTERVAL_MS_DEFAULT: u64 = 50;
/// How long a stream may sleep before it looks at its cancel flag again.
const SLEEP_MAX: Duration = Duration::from_millis(50);
/// Streams are threads that mostly sleep.
const CALLS_MAX: usize = 32;

const ACTIONS: [Action; 3] = [
    Action {
        name: "get_system_status",
        description: "What the machine has and uses: memory, processors, GPU.",
    },
    Action { name: "list_processes", description: "What each process of the machine uses." },
    Action {
        name: "watch",
        description: "A stream of samples of the machine and of the descendants of `root_pid`, one every \
                      `interval_ms`, until it is cancelled or the root is gone; called as a plain action, one sample.",
    },
];

/// The capability.
#[derive(Debug)]
pub(crate) struct SystemMonitor {
    meter: Mutex<CpuMeter>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NoArguments {}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WatchArguments {
    root_pid: i32,
    #[serde(default = "interval_default")]
    interval_ms: u64,
}

/// One line of the stream.
#[derive(Debug, Serialize)]
struct WatchSample {
    ts: String,
    /// Since the stream began.
    elapsed_seconds: f64,
    system: SystemStatus,
    /// The descendants of the root.
    processes: Vec<TreeRow>,
}

impl Capability for SystemMonitor {
    fn load(_: Setup) -> Result<Self, ToolError> {
        Ok(Self { meter: Mutex::new(CpuMeter::start()?) })
    }

    fn version(&self) -> Option<String> {
        Some(env!("CARGO_PKG_VERSION").to_owned())
    }

    fn actions(&self) -> Vec<Action> {
        ACTIONS.to_vec()
    }

    fn concurrency_max(&self) -> usize {
        CALLS_MAX
    }

    fn execute(&self, call: Call) -> Result<Value, ToolError> {
        match call.action() {
            Some("get_system_status") => {
                let NoArguments {} = call.parse()?;
                self.get_system_status()
            }
            Some("list_processes") => {
                let NoArguments {} = call.parse()?;
                self.list_processes()
            }
            Some("watch") => {
                let (root, _) = watch_arguments(&call)?;
                as_json(&watch_sample(root, Instant::now(), &mut CpuMeter::start()?)?)
            }
            _ => {
                let names: Vec<&str> = ACTIONS.iter().map(|action| action.name).collect();
                Err(ToolError::user_input(format!("name an action: {}", names.join(", "))).fields(["action"]))
            }
        }
    }

    fn execute_stream(&self, call: Call, sink: &mut Sink) -> Result<(), ToolError> {
        if call.action() != Some("watch") {
            let result = self.execute(call)?;
            return sink.send(&result);
        }
        let (root, interval) = watch_arguments(&call)?;
        let began = process_info(root).map(|info| info.start_ticks);
        let started = Instant::now();
        let mut meter = CpuMeter::start()?;
        let mut due = started;
        // A number that names another process by now is a root that is gone.
        while process_info(root).map(|info| info.start_ticks) == began {
            call.check_cancel()?;
            sink.send(&watch_sample(root, started, &mut meter)?)?;
            // Samples that could not be taken in time are left out, not made up for.
            due = (due + interval).max(Instant::now());
            sleep_until(due, &call)?;
        }
        Ok(())
    }

    fn get_system_status(&self) -> Result<Value, ToolError> {
        let mut meter = self.meter.lock().unwrap_or_else(PoisonError::into_inner);
        as_json(&sample::system(&mut meter)?)
    }

    fn list_processes(&self) -> Result<Value, ToolError> {
        as_json(&sample::processes()?)
    }
}

fn interval_default() -> u64 {
    INTERVAL_MS_DEFAULT
}

/// The root, which lives, and the time between samples.
fn watch_arguments(call: &Call) -> Result<(Pid, Duration), ToolError> {
    let WatchArguments { root_pid, interval_ms } = call.parse()?;
    if !(INTERVAL_MS_MIN..=INTERVAL_MS_MAX).contains(&interval_ms) {
        let message = format!("`interval_ms` must be {INTERVAL_MS_MIN} to {INTERVAL_MS_MAX}");
        return Err(ToolError::user_input(message).fields(["interval_ms"]));
    }
    let root = Pid::from_raw(root_pid).filter(|root| process_info(*root).is_some()).ok_or_else(|| {
        ToolError::user_input(format!("there is no process {root_pid}")).fields(["root_pid"])
    })?;
    Ok((root, Duration::from_millis(interval_ms)))
}

fn watch_sample(root: Pid, started: Instant, meter: &mut CpuMeter) -> Result<WatchSample, ToolError> {
    let elapsed = started.elapsed();
    Ok(WatchSample {
        ts: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.6f+00:00").to_string(),
        elapsed_seconds: (elapsed.as_secs_f64() * 1e4).round() / 1e4,
        system: sample::system(meter)?,
        processes: sample::tree(root)?,
    })
}

fn sleep_until(due: Instant, call: &Call) -> Result<(), ToolError> {
    loop {
        call.check_cancel()?;
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(SLEEP_MAX));
    }
}

fn as_json(value: &impl Serialize) -> Result<Value, ToolError> {
    serde_json::to_value(value).map_err(|error| ToolError::fatal(error.to_string()))
}
