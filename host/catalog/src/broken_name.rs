//! Whose a manifest is that cannot be used.

use cjm_platform::files::read_regular_to_string;
use cjm_wire::manifest::MANIFEST_BYTES_MAX;
use std::path::Path;

/// What some editors put before a text, and JSON does not know.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// The name in a manifest that is none, as far as it is JSON.
pub(crate) fn named_in(path: &Path) -> Option<String> {
    let text = read_regular_to_string(path, MANIFEST_BYTES_MAX as u64).ok()?;
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&text);
    let document: serde_json::Value = serde_json::from_str(text).ok()?;
    document.pointer("/code/name")?.as_str().map(str::to_owned)
}
