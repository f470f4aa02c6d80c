//! The shell under a simulator: the production owner, instances, attempts, direct calls and compositions, over workers
//! that are no processes, a clock that is moved, a disk that fails, and callers who go away. Everything follows from a
//! seed; a failure prints it, and `CJM_SIM_SEED` runs that one scenario again. `CJM_SIM_SCENARIOS` says how many are run.

mod answering;
mod body;
mod checks;
mod compositions;
mod directed;
mod directed_batches;
mod directed_calls;
mod directed_deaths;
mod directed_ends;
mod directed_loads;
mod directed_many;
mod directed_runs;
mod directed_starts;
mod directed_stops;
mod journal;
mod kept;
mod making;
mod parts;
mod scenario;
mod seed;
mod starting;
mod streams;
mod workers;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Scenarios of a run where nothing else is said.
const SCENARIOS: u64 = 5_000;
/// Where seeds begin; each scenario has the next one.
const FIRST_SEED: u64 = 1;

fn number_of(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
#[expect(clippy::print_stdout, reason = "how much was simulated is the result")]
fn the_shell_keeps_what_decide_promises() {
    if let Some(seed) = number_of("CJM_SIM_SEED") {
        let told = scenario::run(seed).unwrap_or_else(|broken| panic!("seed {seed}: {broken}"));
        println!("seed {seed}: {told:?}");
        return;
    }
    let scenarios = number_of("CJM_SIM_SCENARIOS").unwrap_or(SCENARIOS);
    let (next, jobs, begun) = (AtomicU64::new(0), AtomicU64::new(0), Instant::now());
    let failures = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= scenarios || failures.lock().is_ok_and(|failures| failures.len() >= 5) {
                        break;
                    }
                    let seed = FIRST_SEED + number;
                    let outcome = std::panic::catch_unwind(|| scenario::run(seed));
                    match outcome {
                        Ok(Ok(told)) => {
                            jobs.fetch_add(told.jobs, Ordering::Relaxed);
                        }
                        Ok(Err(broken)) => failures.lock().expect("not poisoned").push((seed, broken)),
                        Err(_) => failures.lock().expect("not poisoned").push((seed, "a panic".to_owned())),
                    }
                }
            });
        }
    });
    let mut failures = failures.into_inner().expect("not poisoned");
    failures.sort();
    assert!(
        failures.is_empty(),
        "{}",
        failures.iter().map(|(seed, broken)| format!("CJM_SIM_SEED={seed}: {broken}\n")).collect::<String>()
    );
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "SIMULATED {scenarios} scenarios from seed {FIRST_SEED}, {} jobs, {:.0} scenarios a second",
        jobs.into_inner(),
        scenarios as f64 / seconds
    );
}
