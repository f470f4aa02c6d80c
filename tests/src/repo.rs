//! Where things are: the repository, the binaries built from it, the cache that survives between runs.
//!
//! A copy of the tests somewhere else (as for the run under another user) says where by two variables.

use std::path::{Path, PathBuf};

/// Names the repository when it is not where the tests were compiled.
pub const ROOT_VARIABLE: &str = "CJM_TEST_ROOT";
/// Names the folder of the binaries when it is not the one the test runs from.
pub const BIN_VARIABLE: &str = "CJM_TEST_BIN";
/// Set by the continuous integration: what may be skipped elsewhere must run there.
pub const CI_VARIABLE: &str = "CI";

/// The root of the repository.
#[must_use]
pub fn root() -> PathBuf {
    if let Some(root) = std::env::var_os(ROOT_VARIABLE) {
        return PathBuf::from(root);
    }
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own).to_owned()
}

/// The Rust sources of the product.
#[must_use]
pub fn sources() -> Vec<PathBuf> {
    let mut waiting: Vec<PathBuf> = ["host", "wire", "worker-shim"].map(|folder| root().join(folder)).into();
    let mut found = Vec::new();
    while let Some(folder) = waiting.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                waiting.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found
}

/// A built program of ours.
///
/// # Panics
/// If it was not built: `cargo test` alone builds no binaries of other packages.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    let folder = std::env::var_os(BIN_VARIABLE).map(PathBuf::from).unwrap_or_else(|| {
        let exe = std::env::current_exe().expect("the test's own path");
        // target/PROFILE/deps/TEST-HASH
        exe.ancestors().nth(2).expect("a target folder").to_owned()
    });
    let path = folder.join(name);
    assert!(path.is_file(), "{} is missing; run `cargo build --workspace` first", path.display());
    path
}

/// What is worth keeping between runs: downloads, environments.
#[must_use]
pub fn cache() -> PathBuf {
    let home = std::env::var_os("HOME").map_or_else(std::env::temp_dir, PathBuf::from);
    std::env::var_os("CJM_TEST_CACHE").map_or_else(|| home.join(".cache/cjm-substrate"), PathBuf::from)
}

/// Whether a skipped test is a failure here.
#[must_use]
pub fn is_ci() -> bool {
    std::env::var(CI_VARIABLE).is_ok_and(|value| !value.is_empty() && value != "false" && value != "0")
}

/// Says that a test did not run. `scripts/test` counts these lines, and in CI the test fails instead.
///
/// # Panics
/// In CI.
pub fn skip(test: &str, reason: &str) {
    assert!(!is_ci(), "{test} must run in CI, but: {reason}");
    tell(&format!("\nSKIPPED {test}: {reason}\n"));
}

/// Reports a figure beside its floor and its goal. `scripts/test` repeats these lines at its end.
pub fn measured(text: &str) {
    tell(&format!("\nMEASURED {text}\n"));
}

/// Written past the test harness, which captures `eprintln!` of a test that passes.
fn tell(text: &str) {
    use std::io::Write;
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}
