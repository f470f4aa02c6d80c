//! Where an argument of a node comes from: what is to be corrected of one that its tool has refused stands there, and not
//! where the document refers to it.

use cjm_wire::composition::{Node, PathStep, Reference};
use cjm_wire::json::Json;
use cjm_wire::template::Template;
use std::fmt::Write as _;

/// Roots of references that are no nodes.
const INPUTS: &str = "inputs";
const ITEM: &str = "item";
const INDEX: &str = "index";

/// What the argument `key` of a node, or its `action`, refers to, in words, each once; none where the document itself has
/// the value. `element` is the place in the list of a mapped node.
#[must_use]
pub fn sources(node: &Node, key: &str, element: Option<usize>) -> Vec<String> {
    let action = || node.action.as_deref().filter(|_| key == "action").map(Json::of);
    let Some(given) = node.args.get(key).cloned().or_else(action) else { return Vec::new() };
    let mut found = Vec::new();
    for reference in Template::read(&given).0.references() {
        let source = source(node, reference, element);
        found.extend(source.filter(|source| !found.contains(source)));
    }
    found
}

fn source(node: &Node, reference: &Reference, element: Option<usize>) -> Option<String> {
    match reference.root.as_str() {
        INPUTS => Some(format!("the input `{}`", path(&reference.path))),
        // The number of an element is nobody's value.
        INDEX => None,
        ITEM => match Template::read(node.map.as_ref()?).0 {
            Template::Reference(list) if list.root == INPUTS => {
                let element = element.map(PathStep::Index);
                let steps = list.path.iter().cloned().chain(element).chain(reference.path.iter().cloned());
                Some(format!("the input `{}`", path(&steps.collect::<Vec<_>>())))
            }
            // Of a list with gaps only what is there is run over: its places are others than the elements'.
            Template::Reference(list) if list.root != ITEM => Some(of_node(&list)),
            _ => element.map(|element| format!("element {element} of the node's `map`")),
        },
        _ => Some(of_node(reference)),
    }
}

fn of_node(reference: &Reference) -> String {
    format!("what node `{}` returns (`{reference}`)", reference.root)
}

/// `names[2].first`.
fn path(steps: &[PathStep]) -> String {
    let mut text = String::new();
    for step in steps {
        let _ = match step {
            PathStep::Field(name) if text.is_empty() => write!(text, "{name}"),
            PathStep::Field(name) => write!(text, ".{name}"),
            PathStep::Index(index) => write!(text, "[{index}]"),
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_argument_refers_to_is_named_where_it_stands() {
        for (map, given, element, expected) in [
            ("null", r#""a""#, None, &[][..]),
            ("null", r#""${inputs.who}""#, None, &["the input `who`"]),
            ("null", r#""${inputs.who.first[1]}""#, None, &["the input `who.first[1]`"]),
            ("null", r#""${make.text}""#, None, &["what node `make` returns (`${make.text}`)"]),
            (
                "null",
                r#"["${inputs.a} ${inputs.b}", "${inputs.a}"]"#,
                None,
                &["the input `a`", "the input `b`"],
            ),
            (r#""${inputs.names}""#, r#""${item}""#, Some(2), &["the input `names[2]`"]),
            (r#""${inputs.names}""#, r#""${item.first}""#, Some(2), &["the input `names[2].first`"]),
            (r#""${make.all}""#, r#""${item}""#, Some(2), &["what node `make` returns (`${make.all}`)"]),
            (r#"["A", 3]"#, r#""${item}""#, Some(1), &["element 1 of the node's `map`"]),
            (r#""${inputs.names}""#, r#""${index}""#, Some(2), &[]),
        ] {
            let node = format!(r#"{{"capability": "c", "map": {map}, "args": {{"x": {given}}}}}"#);
            let node: Node = serde_json::from_str(&node).expect("a node");
            assert_eq!(sources(&node, "x", element), expected, "{map} {given}");
            assert_eq!(sources(&node, "y", element), [""; 0]);
        }
        let node: Node =
            serde_json::from_str(r#"{"capability": "c", "action": "${inputs.do}"}"#).expect("a node");
        assert_eq!(sources(&node, "action", None), ["the input `do`"]);
    }
}
