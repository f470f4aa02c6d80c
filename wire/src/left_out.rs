//! A key with nothing after it, as `args:` in a file written by hand, counts as left out.

use indexmap::IndexMap;
use serde::{Deserialize, Deserializer};

/// The value, or the default where there is nothing.
pub(crate) fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// The same of a map and of each of its values.
pub(crate) fn or_defaults<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<IndexMap<String, T>, D::Error> {
    let map: Option<IndexMap<String, Option<T>>> = Option::deserialize(deserializer)?;
    Ok(map.into_iter().flatten().map(|(key, value)| (key, value.unwrap_or_default())).collect())
}
