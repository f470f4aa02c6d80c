//! Typed results: `{"__wire__": kind, "data": …}` around the value of a registered result class. A host that
//! does not know the kind keeps the object as it is; references then look through to `data`.

use serde_json::Value;

/// Key that names the kind.
pub const KIND_KEY: &str = "__wire__";
/// Key that holds the value.
pub const DATA_KEY: &str = "data";

/// Splits a tagged result into kind and value; `None` when it is not tagged (exactly these two keys).
#[must_use]
pub fn untag(value: &Value) -> Option<(&str, &Value)> {
    let map = value.as_object().filter(|map| map.len() == 2)?;
    Some((map.get(KIND_KEY)?.as_str()?, map.get(DATA_KEY)?))
}

/// Wraps a value in its kind.
#[must_use]
pub fn tag(kind: &str, data: Value) -> Value {
    let mut map = serde_json::Map::with_capacity(2);
    map.insert(KIND_KEY.to_owned(), Value::from(kind));
    map.insert(DATA_KEY.to_owned(), data);
    Value::Object(map)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn tags_go_on_and_come_off() {
        let tagged = json!({"__wire__": "lab.result", "data": {"text": "hi ☃"}});
        let (kind, data) = untag(&tagged).expect("tagged");
        assert_eq!(tag(kind, data.clone()), tagged);
        for plain in [
            json!({"data": 1}),
            json!({"__wire__": 1, "data": 2}),
            json!([1]),
            json!({"__wire__": "k", "data": 1, "x": 2}),
        ] {
            assert_eq!(untag(&plain), None, "{plain}");
        }
    }
}
