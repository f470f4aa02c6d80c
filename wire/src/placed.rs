//! A YAML or JSON document with the place of each of its values, so that whoever finds fault with one can say where it
//! stands. JSON is read as the YAML that it is.

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::Spanned;
use std::collections::HashMap;
use std::fmt;

/// Line and column, from 1.
pub type Place = (usize, usize);

/// A document.
#[derive(Debug, Clone, PartialEq)]
pub struct Placed {
    /// What it says.
    pub value: Value,
    /// JSON pointer → where that value begins.
    places: HashMap<String, Place>,
}

impl Placed {
    /// Reads a document.
    ///
    /// # Errors
    /// What the reader says, with line and column in it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (tree, _): (Tree, _) = crate::yaml::with_infinite(text)?;
        let mut places = HashMap::new();
        let value = tree.into_value(&mut String::new(), &mut places);
        Ok(Self { value, places })
    }

    /// Where the value at a JSON pointer begins; of one that is missing, where its parent does.
    #[must_use]
    pub fn place(&self, pointer: &str) -> Option<Place> {
        let mut pointer = pointer;
        loop {
            if let Some(place) = self.places.get(pointer) {
                return Some(*place);
            }
            pointer = &pointer[..pointer.rfind('/')?];
        }
    }

    /// As [`Placed::place`], for keys that are joined by dots. A key with a dot in it leads to its parent.
    #[must_use]
    pub fn place_of_keys(&self, dotted: &str) -> Option<Place> {
        let pointer: String = dotted.split('.').map(|key| format!("/{}", escaped(key))).collect();
        self.place(&pointer)
    }
}

/// Where a key stands: at or before its value, of which the reader knows the line.
#[must_use]
pub fn place_of_key(text: &str, value_line: usize, key: &str) -> Option<Place> {
    let lines: Vec<&str> = text.lines().take(value_line).collect();
    let found =
        |(index, line): (usize, &&str)| Some((index + 1, line[..line.find(key)?].chars().count() + 1));
    lines.iter().enumerate().rev().find_map(found)
}

struct Tree(Spanned<Node>);

enum Node {
    Leaf(Value),
    List(Vec<Tree>),
    Object(Vec<(String, Tree)>),
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Spanned::<Node>::deserialize(deserializer).map(Self)
    }
}

impl Tree {
    fn into_value(self, pointer: &mut String, places: &mut HashMap<String, Place>) -> Value {
        let at = self.0.referenced;
        let number = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        places.insert(pointer.clone(), (number(at.line()), number(at.column())));
        let length = pointer.len();
        let mut child = |key: &str, tree: Self| {
            pointer.push('/');
            pointer.push_str(&escaped(key));
            let value = tree.into_value(pointer, places);
            pointer.truncate(length);
            value
        };
        match self.0.value {
            Node::Leaf(value) => value,
            Node::List(items) => {
                items.into_iter().enumerate().map(|(index, item)| child(&index.to_string(), item)).collect()
            }
            Node::Object(entries) => {
                let mut map = Map::new();
                for (key, tree) in entries {
                    let value = child(&key, tree);
                    map.insert(key, value);
                }
                Value::Object(map)
            }
        }
    }
}

fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Leaf(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Leaf(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        Node::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Leaf(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Leaf(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Leaf(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        // A number that no double holds is a number all the same; what is none counts as nothing.
        let number = Number::from_f64(value.clamp(f64::MIN, f64::MAX));
        Ok(Node::Leaf(number.map_or(Value::Null, Value::Number)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Leaf(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            list.push(entry);
        }
        Ok(Node::Object(list))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_value_knows_its_place() {
        let yaml = "capabilities:\n- name: a\n  adapters:\n  - {impl: 'm:C', lib: null}\n- name: b\n  n: [1, 2.5, true, ~]\n";
        let document = Placed::parse(yaml).expect("good");
        assert_eq!(
            document.value,
            json!({"capabilities": [{"name": "a", "adapters": [{"impl": "m:C", "lib": null}]},
                                    {"name": "b", "n": [1, 2.5, true, null]}]})
        );
        for (pointer, place) in [
            ("", (1, 1)),
            ("/capabilities/0/name", (2, 9)),
            ("/capabilities/0/adapters/0/impl", (4, 12)),
            ("/capabilities/1/n/1", (6, 10)),
            ("/capabilities/1/missing", (5, 3)),
            ("/nowhere/at/all", (1, 1)),
        ] {
            assert_eq!(document.place(pointer), Some(place), "{pointer}");
        }
    }

    #[test]
    fn json_is_read_too_tabs_and_all() {
        let json = "{\n\t\"a/b\": {\"c.d\": 1,\n\t\t\"e\": \"\\u00e9\"},\n  \"n\": 1e3\n}\n";
        let document = Placed::parse(json).expect("good");
        assert_eq!(document.value, json!({"a/b": {"c.d": 1, "e": "é"}, "n": 1000.0}));
        assert_eq!(document.place("/a~1b/e"), Some((3, 8)));
        assert_eq!(document.place_of_keys("n"), Some((4, 8)));
        assert!(Placed::parse("a: b: c").expect_err("no YAML").contains("line"));
    }
}
