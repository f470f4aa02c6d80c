//! The laboratory: one capability written for the genuine `ToolCapability`, asked the same by all four pairs of host and
//! worker, ours and the ancestor's, in two releases. What the genuine pair answers is what all of them must answer:
//! status, body, headers, outcomes, rows and records, but for what `docs/COMPATIBILITY.md` lists.

mod compare;
mod http;
mod library;
mod life;
mod ours;
mod pair;
mod steps;

use cjm_tests::ancestor::{Ancestor, VERSIONS};
use cjm_tests::world::World;
use compare::{Difference, assert_reasons, unexpected};
use pair::{HostKind, Told, WorkerKind, play};
use std::collections::BTreeSet;

/// Allowed at the surface.
const SURFACE: [Difference; 12] = [
    Difference { at: "GET /health/body/*", because: "Further keys of `/health`" },
    Difference { at: "GET /health/text/*", because: "Further keys of `/health`" },
    Difference { at: "GET /progress/body/*", because: "Progress of a new call" },
    Difference { at: "POST /task */payload/io", because: "`io` in `task_account`" },
    Difference { at: "POST /task */body/methods", because: "A method that an adapter does not have" },
    Difference { at: "POST /task */text/keys", because: "A method that an adapter does not have" },
    Difference { at: "POST /execute nan/body/_job_error/*", because: "A result that is no JSON" },
    Difference { at: "POST /execute unserialisable/body/_job_error/*", because: "A result that is no JSON" },
    Difference {
        at: "POST /initialize */body/_job_error",
        because: "A refused configuration, a failed hook",
    },
    Difference { at: "POST /initialize */text/keys", because: "A refused configuration, a failed hook" },
    Difference {
        at: "POST /reconfigure */body/_job_error",
        because: "A refused configuration, a failed hook",
    },
    Difference { at: "POST /reconfigure */text/keys", because: "A refused configuration, a failed hook" },
];

/// Allowed in what calls through the host come to.
const CALLS: [Difference; 9] = [
    Difference { at: "call/*/error/capability_name", because: "The error of a failed job" },
    Difference { at: "call/*/error/original_exc_repr", because: "The error of a failed job" },
    Difference { at: "call/*/error/traceback", because: "The error of a failed job" },
    Difference { at: "call/*/error/fields_invalid", because: "The error of a failed job" },
    Difference { at: "call/cancel/*", because: "A cancelled call" },
    Difference { at: "call/cancel task/*", because: "A cancelled call" },
    Difference { at: "call/fail cancelled/*", because: "A cancelled call" },
    Difference { at: "call/cancel/error", because: "A cancelled call" },
    Difference { at: "call/nan/error/*", because: "A result that is no JSON" },
];

/// Allowed in the journal.
const ROWS: [Difference; 14] = [
    Difference { at: "rows of */job_snapshot/error/capability_name", because: "The error of a failed job" },
    Difference { at: "rows of */job_snapshot/error/original_exc_repr", because: "The error of a failed job" },
    Difference { at: "rows of */job_snapshot/error/traceback", because: "The error of a failed job" },
    Difference { at: "rows of */job_snapshot/error/fields_invalid", because: "The error of a failed job" },
    Difference { at: "rows of nan/*/job_snapshot/error/*", because: "A result that is no JSON" },
    Difference { at: "rows of cancel", because: "A cancelled call" },
    Difference { at: "rows of cancel task", because: "A cancelled call" },
    Difference { at: "rows of fail cancelled/*", because: "A cancelled call" },
    Difference {
        at: "rows of */admission_decided/payload/exclusive",
        because: "`exclusive` of the first job",
    },
    Difference { at: "rows of */payload/io", because: "`io` in `task_account`" },
    Difference {
        at: "rows of the worker/worker_spawned/payload/env_overlay_keys",
        because: "`env_overlay_keys`",
    },
    Difference { at: "rows of the worker/worker_spawned/payload/port", because: "Where a worker serves" },
    Difference {
        at: "rows of the worker/worker_ready/payload/substrate_version",
        because: "`substrate_version` of our shim",
    },
    Difference {
        at: "rows of the worker/worker_died/payload/returncode",
        because: "The end of an unloaded worker",
    },
];
/// The reason for our first row of each job.
const ACCEPTED: Difference = Difference { at: "", because: "The first row of a job" };
/// The reason for columns that theirs leaves empty.
const FULLER: Difference = Difference { at: "", because: "Columns of rows" };

/// The release, if it can be had.
fn ancestor(test: &str, version: &'static str) -> Option<Ancestor> {
    let world = World::new();
    Ancestor::find(&world, test, version)
}

fn compare(what: &str, told: &Told, genuine: &Told, needed: &mut BTreeSet<&'static str>) -> Vec<String> {
    [
        unexpected(&format!("{what}, surface"), compare::surface(told, genuine), &SURFACE, needed),
        unexpected(&format!("{what}, calls"), compare::calls(told, genuine), &CALLS, needed),
        unexpected(&format!("{what}, rows"), compare::rows(told, genuine), &ROWS, needed),
        unexpected(&format!("{what}, records"), compare::records(told, genuine), &[], needed),
    ]
    .concat()
}

#[test]
fn all_four_pairs_say_the_same_in_two_releases() {
    let mut needed = BTreeSet::new();
    let mut complaints = Vec::new();
    for version in VERSIONS {
        let Some(ancestor) = ancestor("all_four_pairs_say_the_same_in_two_releases", version) else { return };
        let genuine = play(&ancestor, HostKind::Theirs, WorkerKind::Theirs);
        for (what, host, worker) in [
            ("our host, genuine worker", HostKind::Ours, WorkerKind::Theirs),
            ("our host, our worker", HostKind::Ours, WorkerKind::Ours),
            ("genuine host, our worker", HostKind::Theirs, WorkerKind::Ours),
        ] {
            let told = play(&ancestor, host, worker);
            complaints.extend(compare(&format!("{version}: {what}"), &told, &genuine, &mut needed));
        }
    }
    assert!(complaints.is_empty(), "{} differences\n{}", complaints.len(), complaints.join("\n"));
    let all = SURFACE.iter().chain(&CALLS).chain(&ROWS).map(|difference| difference.at);
    let idle: Vec<&str> = all.filter(|at| !needed.contains(at)).collect();
    assert!(idle.is_empty(), "allowed, and no difference any more: {idle:?}");
}

#[test]
fn every_allowed_difference_has_its_reason() {
    for allowed in [&SURFACE[..], &CALLS, &ROWS, &[ACCEPTED, FULLER]] {
        assert_reasons(allowed);
    }
}
