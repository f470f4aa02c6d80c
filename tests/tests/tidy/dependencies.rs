//! Dependencies between our crates point one way, and the inner crates link nothing that would let them act.

use crate::assert_none;
use cjm_tests::repo;
use serde_json::Value;
use std::collections::BTreeMap;
use std::process::Command;

/// Crate → what of ours it may use. A crate that is not here has not been given a room.
const ALLOWED: [(&str, &[&str]); 19] = [
    ("cjm-wire", &[]),
    ("cjm-platform", &[]),
    ("cjm-quiet-socket", &["cjm-platform"]),
    ("cjm-keeper", &["cjm-platform", "cjm-wire"]),
    ("cjm-decide", &["cjm-wire"]),
    // Of platform only what keeps a deletion out of what is mounted in a folder.
    ("cjm-store", &["cjm-platform", "cjm-wire"]),
    ("cjm-catalog", &["cjm-store", "cjm-platform", "cjm-wire"]),
    ("cjm-environments", &["cjm-catalog", "cjm-store", "cjm-platform", "cjm-wire"]),
    (
        "cjm-workers",
        &["cjm-catalog", "cjm-decide", "cjm-store", "cjm-quiet-socket", "cjm-platform", "cjm-wire"],
    ),
    ("cjm-engine", &["cjm-workers", "cjm-catalog", "cjm-decide", "cjm-store", "cjm-platform", "cjm-wire"]),
    ("cjm-worker", &["cjm-wire", "cjm-platform", "cjm-quiet-socket", "cjm-keeper"]),
    // The suite itself knows the wire alone; its fixture in Rust is a capability.
    ("cjm-conformance", &["cjm-wire", "cjm-worker"]),
    ("cjm-host", &["cjm-engine", "cjm-wire"]),
    // The one tool whose work is to read the kernel's counters, which platform alone does.
    ("cjm-capability-monitor", &["cjm-worker", "cjm-platform"]),
    ("cjm-capability-transcript-store", &["cjm-worker"]),
    ("cjm-ctl", &["*"]),
    ("cjm-tests", &["*"]),
    ("cjm-bench", &["*"]),
    ("xtask", &["*"]),
];

/// Crate → libraries it must not link, because they would let it do what it must not.
const BANNED: [(&str, &[&str]); 5] = [
    ("cjm-wire", &["tokio", "axum", "reqwest", "rusqlite", "libc", "rustix", "nix"]),
    (
        "cjm-decide",
        &[
            "tokio",
            "futures-util",
            "axum",
            "reqwest",
            "rusqlite",
            "jiff",
            "tempfile",
            "libc",
            "rustix",
            "nix",
        ],
    ),
    ("cjm-platform", &["tokio", "axum", "reqwest", "rusqlite", "serde_json"]),
    ("cjm-keeper", &["tokio", "axum", "reqwest", "rusqlite"]),
    // rustix answers how much room a disk has, and takes some for the reserve (`room.rs`); nothing else does.
    ("cjm-store", &["axum", "reqwest", "libc", "nix"]),
];

fn packages() -> Vec<Value> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(repo::root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo's JSON");
    metadata["packages"].as_array().cloned().expect("packages")
}

/// (crate, dependency, whether only its tests use it).
fn dependencies() -> Vec<(String, String, bool)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    packages()
        .iter()
        .flat_map(|package| {
            let name = text(&package["name"]);
            let listed = package["dependencies"].as_array().cloned().unwrap_or_default();
            listed.into_iter().map(move |d| (name.clone(), text(&d["name"]), d["kind"] == "dev"))
        })
        .collect()
}

#[test]
fn dependencies_point_one_way() {
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.into_iter().collect();
    let ours: Vec<String> = packages().iter().filter_map(|p| p["name"].as_str().map(str::to_owned)).collect();
    let mut complaints: Vec<String> = ours
        .iter()
        .filter(|name| !allowed.contains_key(name.as_str()))
        .map(|name| format!("{name}: a new room; add it to ALLOWED in tests/tests/tidy/dependencies.rs"))
        .collect();
    for (name, dependency, dev) in dependencies().iter().filter(|(_, d, _)| ours.contains(d)) {
        let may = allowed.get(name.as_str()).copied().unwrap_or_default();
        // A room's own tests may use the rooms below it and nothing above it either.
        if !may.contains(&"*") && !may.contains(&dependency.as_str()) {
            let kind = if *dev { " (for its tests)" } else { "" };
            complaints.push(format!("{name} must not depend on {dependency}{kind}"));
        }
    }
    assert_none(&complaints);
}

#[test]
fn inner_crates_link_nothing_that_acts() {
    let banned: BTreeMap<&str, &[&str]> = BANNED.into_iter().collect();
    let complaints: Vec<String> = dependencies()
        .iter()
        .filter(|(name, dependency, dev)| {
            !dev && banned.get(name.as_str()).is_some_and(|list| list.contains(&dependency.as_str()))
        })
        .map(|(name, dependency, _)| format!("{name} must not link {dependency}"))
        .collect();
    assert_none(&complaints);
}

#[test]
fn folders_are_named_like_their_crates_and_versions_stand_in_one_table() {
    let mut complaints = Vec::new();
    for package in packages() {
        let name = package["name"].as_str().unwrap_or_default();
        let manifest = package["manifest_path"].as_str().unwrap_or_default();
        let folder = manifest.rsplit('/').nth(1).unwrap_or_default();
        let bare = name.trim_start_matches("cjm-").trim_start_matches("capability-");
        // A tool's folder is named like the capability, which may say more than the crate does.
        let is_tool = name.starts_with("cjm-capability-") && folder.ends_with(bare);
        if folder != bare && !is_tool && !(name == "cjm-worker" && folder == "worker-shim") {
            complaints.push(format!("{manifest}: the folder of {name} should be `{bare}`"));
        }
        let text = std::fs::read_to_string(manifest).unwrap_or_default();
        let (mut in_dependencies, mut of_tests) = (false, false);
        for line in text.lines() {
            if line.starts_with('[') {
                in_dependencies = line.contains("dependencies");
                of_tests = line.contains("dev-dependencies");
            } else if in_dependencies && line.contains('=') && !line.starts_with('#') {
                let inherits = line.replace(' ', "").contains("workspace=true");
                // What only tests switch on must not be on for everybody.
                if !inherits || (line.contains("features") && !of_tests) {
                    complaints.push(format!("{manifest}: `{line}`: say it in the root table"));
                }
            }
        }
    }
    assert_none(&complaints);
}
