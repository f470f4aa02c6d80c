//! Drift: whether a tool's code still is what its manifest says. Asked of each new worker before it gets its
//! configuration, so that a key which the code has lost is explained before it is refused; told, and nothing more.

use crate::proxy::Proxy;
use crate::stored_settings::NOTES;
use cjm_wire::canonical::canonical_hash;
use cjm_wire::http;
use cjm_wire::manifest::DriftTracking;
use std::time::Duration;

/// How long questions about drift may take; a capability that needs longer is not asked further.
const DRIFT_MAX: Duration = Duration::from_secs(5);

/// Which sections of the manifest are not what the code says now.
pub(crate) async fn drift(proxy: &Proxy, capability: &str, tracking: &DriftTracking) -> Vec<&'static str> {
    let mut drifted = Vec::new();
    for (section, path, recorded) in [
        ("config_schema", http::CONFIG_SCHEMA, &tracking.config_schema_hash),
        ("structural_surface", http::STRUCTURAL_SURFACE, &tracking.structural_surface_hash),
    ] {
        let Some(recorded) = recorded else { continue };
        let answer = tokio::time::timeout(DRIFT_MAX, proxy.get_unbounded(path)).await;
        let Ok(Ok(body)) = answer else { break };
        // Compared, and not shown.
        let body = body.result();
        let live = std::str::from_utf8(&body).ok().and_then(|text| canonical_hash(text).ok());
        if live.is_some_and(|live| live != *recorded) {
            drifted.push(section);
        }
    }
    if !drifted.is_empty() {
        tracing::warn!(
            target: NOTES, "the code of \"{capability}\" has changed since its manifest was made ({}); \
            `cjm-ctl regenerate-manifest {capability}` makes it anew", drifted.join(", ")
        );
    }
    drifted
}
