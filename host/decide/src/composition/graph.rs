//! The graph of a composition: which node needs which, an order to run them in, and everything that makes it
//! no graph: unknown names, a node that needs itself, a circle.

use cjm_wire::composition::{Composition, CompositionError, Node, RESERVED_NODE_NAMES};
use cjm_wire::describe::Described;
use cjm_wire::json::Json;
use cjm_wire::suggestions::{in_words, suggestions};
use cjm_wire::template::Template;
use indexmap::IndexSet;
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// Most names an error lists.
const NAMES_SHOWN_MAX: usize = 12;
/// Most circles of one composition that are told.
const CIRCLES_MAX: usize = 20;

/// Who needs whom. Nodes are numbered in the order of the document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Graph {
    names: IndexSet<String>,
    dependencies: Vec<Vec<usize>>,
    dependents: Vec<Vec<usize>>,
    order: Vec<usize>,
}

/// Why a document is no graph.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    /// A fault that shows without looking at other nodes.
    #[error(transparent)]
    Document(#[from] CompositionError),
    /// A name nobody has.
    #[error("{place}: there is no node `{name}` (there is {known})")]
    UnknownNode {
        /// Dotted path.
        place: String,
        /// The name.
        name: String,
        /// Names that exist.
        known: String,
    },
    /// A node that needs its own output.
    #[error("{place}: node `{node}` refers to itself")]
    SelfReference {
        /// Dotted path.
        place: String,
        /// The node.
        node: String,
    },
    /// Settings of a capability that no node calls: they would be lost without a word, and more often than not the name is
    /// mistyped.
    #[error(
        "{place}: no node calls `{name}`{meant}, so that nothing reads what is set here; the nodes call {called}"
    )]
    Uncalled {
        /// Dotted path.
        place: String,
        /// The name.
        name: String,
        /// Names like it that nodes call, as an error appends them.
        meant: String,
        /// Names that nodes call.
        called: String,
    },
    /// An argument that the tool is known to refuse.
    #[error("{place}: {message}")]
    ArgumentType {
        /// Dotted path.
        place: String,
        /// What is given, and what is wanted.
        message: String,
    },
    /// Nodes that need each other.
    #[error("nodes need each other in a circle: {}", .path.join(" → "))]
    Cycle {
        /// The whole circle, first and last the same; each needs the next.
        path: Vec<String>,
    },
}

impl Described for GraphError {
    fn code(&self) -> &'static str {
        match self {
            Self::Document(error) => error.code(),
            Self::UnknownNode { .. } => "composition.unknown_node",
            Self::SelfReference { .. } => "composition.self_reference",
            Self::Uncalled { .. } => "composition.uncalled_capability",
            Self::ArgumentType { .. } => "composition.argument_type",
            Self::Cycle { .. } => "composition.cycle",
        }
    }

    fn next_step(&self) -> String {
        match self {
            Self::Document(error) => error.next_step(),
            Self::UnknownNode { place, .. } => format!("correct the name at `{place}`, or add the node"),
            Self::SelfReference { place, .. } => {
                format!("take the reference to the node itself out of `{place}`")
            }
            Self::Uncalled { place, .. } => {
                format!("write under `{place}` the name as the nodes have it, or take the key out")
            }
            Self::ArgumentType { place, .. } => format!("correct the value at `{place}`"),
            Self::Cycle { path } => {
                format!(
                    "take out one of the references along {}, for example by a node that does both",
                    path.join(" → ")
                )
            }
        }
    }
}

impl Graph {
    /// Reads the graph out of a composition, which is checked as a document first.
    ///
    /// # Errors
    /// The first fault found, with its place.
    pub fn build(composition: &Composition) -> Result<Self, GraphError> {
        let (names, dependencies, mut faults) = read(composition);
        if !faults.is_empty() {
            return Err(faults.swap_remove(0));
        }
        let dependents = dependents(&dependencies);
        let order = topological_order(&dependencies, &dependents);
        if order.len() < names.len() {
            let path = circle(&dependencies, &order);
            let path = path.into_iter().map(|node| names[node].clone()).collect();
            return Err(GraphError::Cycle { path });
        }
        Ok(Self { names, dependencies, dependents, order })
    }

    /// Everything that [`Self::build`] finds fault with, where it ends at the first; each circle that shares no node with
    /// one before it, at most 20 of them.
    #[must_use]
    pub fn faults(composition: &Composition) -> Vec<GraphError> {
        let (names, mut dependencies, mut faults) = read(composition);
        for _ in 0..CIRCLES_MAX {
            let order = topological_order(&dependencies, &dependents(&dependencies));
            let path = circle(&dependencies, &order);
            if path.is_empty() {
                break;
            }
            // As if these needed nothing, so that the next circle is another one.
            path.iter().for_each(|node| dependencies[*node].clear());
            let path = path.into_iter().map(|node| names[node].clone()).collect();
            faults.push(GraphError::Cycle { path });
        }
        faults
    }

    /// How many nodes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The name of a node.
    ///
    /// # Panics
    /// When there is no such number.
    #[must_use]
    pub fn name(&self, node: usize) -> &str {
        &self.names[node]
    }

    /// The number of a node.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<usize> {
        self.names.get_index_of(name)
    }

    /// What a node needs, ascending.
    ///
    /// # Panics
    /// When there is no such number.
    #[must_use]
    pub fn dependencies(&self, node: usize) -> &[usize] {
        &self.dependencies[node]
    }

    /// Who needs a node, ascending.
    ///
    /// # Panics
    /// When there is no such number.
    #[must_use]
    pub fn dependents(&self, node: usize) -> &[usize] {
        &self.dependents[node]
    }

    /// All nodes, each after what it needs.
    #[must_use]
    pub fn order(&self) -> &[usize] {
        &self.order
    }
}

/// Names, what each node needs, and the faults that are no circles.
fn read(composition: &Composition) -> (IndexSet<String>, Vec<Vec<usize>>, Vec<GraphError>) {
    let mut faults: Vec<GraphError> = composition.faults().into_iter().map(GraphError::from).collect();
    let names: IndexSet<String> = composition.nodes.keys().cloned().collect();
    let needs = |(name, node): (&String, &Node)| needs_of(name, node, &names, &mut faults);
    let dependencies = composition.nodes.iter().map(needs).collect();
    for root in composition.output.iter().flat_map(nodes_of) {
        faults.extend(find("output", &root, &names).err());
    }
    faults.extend(uncalled(composition));
    (names, dependencies, faults)
}

/// What is set for capabilities that no node calls. The monitor is none of those either: it is loaded as it is.
fn uncalled(composition: &Composition) -> Vec<GraphError> {
    let called: IndexSet<&String> = composition.nodes.values().map(|node| &node.capability).collect();
    let strays = composition.capabilities.keys().filter(|name| !called.contains(name));
    strays
        .map(|name| GraphError::Uncalled {
            place: format!("capabilities.{name}"),
            name: name.clone(),
            meant: match composition.monitor.as_ref().is_some_and(|monitor| monitor == name) {
                true => " (it is the monitor, which is loaded as it is)".to_owned(),
                false => in_words(&suggestions(name, called.iter().map(|name| name.as_str()))),
            },
            called: list(called.iter().copied()),
        })
        .collect()
}

fn dependents(dependencies: &[Vec<usize>]) -> Vec<Vec<usize>> {
    let mut dependents = vec![Vec::new(); dependencies.len()];
    for (node, needs) in dependencies.iter().enumerate() {
        for need in needs {
            dependents[*need].push(node);
        }
    }
    dependents
}

fn needs_of(name: &str, node: &Node, names: &IndexSet<String>, faults: &mut Vec<GraphError>) -> Vec<usize> {
    let mut needs = BTreeSet::new();
    let mut need = |place: &str, root: &str| {
        if root == name {
            faults.push(GraphError::SelfReference { place: place.to_owned(), node: name.to_owned() });
            return;
        }
        match find(place, root, names) {
            Ok(node) => {
                needs.insert(node);
            }
            Err(error) => faults.push(error),
        }
    };
    let map = node.map.iter().map(|map| (format!("nodes.{name}.map"), map));
    let args = node.args.iter().map(|(key, template)| (format!("nodes.{name}.args.{key}"), template));
    for (place, template) in map.chain(args) {
        for root in nodes_of(template) {
            need(&place, &root);
        }
    }
    for earlier in node.after.iter().collect::<IndexSet<_>>() {
        need(&format!("nodes.{name}.after"), earlier);
    }
    needs.into_iter().collect()
}

/// The nodes that a template refers to, each once. A reference that cannot be read is a fault of the document, which is
/// told already.
fn nodes_of(template: &Json) -> IndexSet<String> {
    let template = Template::read(template).0;
    let roots = template.references().into_iter().map(|reference| reference.root.clone());
    roots.filter(|root| !RESERVED_NODE_NAMES.contains(&root.as_str())).collect()
}

fn find(place: &str, name: &str, names: &IndexSet<String>) -> Result<usize, GraphError> {
    names.get_index_of(name).ok_or_else(|| GraphError::UnknownNode {
        place: place.to_owned(),
        name: name.to_owned(),
        known: list(names.iter()),
    })
}

/// Names for people, at most [`NAMES_SHOWN_MAX`] of them.
pub(super) fn list<'a>(names: impl ExactSizeIterator<Item = &'a String>) -> String {
    let total = names.len();
    let mut text = names.take(NAMES_SHOWN_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
    if total == 0 {
        text.push_str("none");
    } else if total > NAMES_SHOWN_MAX {
        // Writing to a String cannot fail.
        let _ = write!(text, ", and {} more", total - NAMES_SHOWN_MAX);
    }
    text
}

/// Kahn's order, by document order among equals; shorter than the graph when there is a circle.
fn topological_order(dependencies: &[Vec<usize>], dependents: &[Vec<usize>]) -> Vec<usize> {
    let mut left: Vec<usize> = dependencies.iter().map(Vec::len).collect();
    let mut ready: BTreeSet<usize> = (0..left.len()).filter(|node| left[*node] == 0).collect();
    let mut order = Vec::with_capacity(left.len());
    while let Some(node) = ready.pop_first() {
        order.push(node);
        for dependent in &dependents[node] {
            left[*dependent] -= 1;
            if left[*dependent] == 0 {
                ready.insert(*dependent);
            }
        }
    }
    order
}

/// One circle among the nodes that the order could not reach: each of them needs another of them, so that
/// walking on must come back.
fn circle(dependencies: &[Vec<usize>], ordered: &[usize]) -> Vec<usize> {
    let ordered: BTreeSet<usize> = ordered.iter().copied().collect();
    let stuck = |node: &usize| !ordered.contains(node);
    let mut path = IndexSet::new();
    let mut at = (0..dependencies.len()).find(|node| stuck(node));
    while let Some(node) = at {
        let (place, new) = path.insert_full(node);
        if !new {
            let mut circle: Vec<usize> = path.into_iter().skip(place).collect();
            circle.push(node);
            return circle;
        }
        at = dependencies[node].iter().copied().find(|need| stuck(need));
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(nodes: &str, expected: Result<&[&str], &str>) {
        let text = format!("name: t\nnodes: {{{nodes}}}\n");
        let composition: Composition = Composition::parse(&text).expect(&text);
        let found = Graph::build(&composition);
        match (found, expected) {
            (Ok(graph), Ok(order)) => {
                let names: Vec<&str> = graph.order().iter().map(|node| graph.name(*node)).collect();
                assert_eq!(names, order, "{nodes}");
            }
            (Err(error), Err(message)) => {
                assert_eq!(error.to_string(), message, "{nodes}");
                assert!(!error.next_step().is_empty());
            }
            (found, expected) => panic!("{nodes}: {found:?} instead of {expected:?}"),
        }
    }

    #[test]
    fn documents_become_graphs_or_named_faults() {
        check("", Ok(&[]));
        check("b: {capability: c, args: {x: '${a}'}}, a: {capability: c}", Ok(&["a", "b"]));
        check(
            "a: {capability: c}, b: {capability: c, map: '${d.list}'}, d: {capability: c, after: [a]}",
            Ok(&["a", "d", "b"]),
        );
        check(
            "a: {capability: c, args: {x: {deep: ['text ${b.f[0]}']}}}",
            Err("nodes.a.args.x: there is no node `b` (there is a)"),
        );
        check("a: {capability: c, after: [z]}", Err("nodes.a.after: there is no node `z` (there is a)"));
        check("a: {capability: c, map: '${a}'}", Err("nodes.a.map: node `a` refers to itself"));
        check(
            "z: {capability: c, args: {x: '${a}'}}, a: {capability: c, map: '${b}'}, b: {capability: c, after: [a]}",
            Err("nodes need each other in a circle: a → b → a"),
        );
        check("a: {capability: c}}\noutput: {x: '${q}'", Err("output: there is no node `q` (there is a)"));
        check(
            "a: {capability: tool}}\nmonitor: m\ncapabilities: {m: {}",
            Err(
                "capabilities.m: no node calls `m` (it is the monitor, which is loaded as it is), so that nothing reads what is \
                 set here; the nodes call tool",
            ),
        );
        check(
            "a: {capability: tool}, b: {capability: other}}\nmonitor: m\ncapabilities: {tool: {}, toll: {}, m: {}",
            Err(
                "capabilities.toll: no node calls `toll` (did you mean \"tool\"?), so that nothing reads what is set here; \
                 the nodes call tool, other",
            ),
        );
    }

    #[test]
    fn every_fault_is_found_and_each_circle_once() {
        let text = "name: t\nnodes:\n  a: {capability: c, args: {x: '${zz}', y: '${inputs.m} ${a}'}, after: [b]}\n  \
                    b: {capability: c, after: [a]}\n  c: {capability: c, map: '${d}'}\n  d: {capability: c, after: [c]}\n  \
                    e: {capability: c, after: [a, q]}\noutput: '${r}'\n";
        let composition = Composition::read(text).expect("reads");
        let found: Vec<String> = Graph::faults(&composition).iter().map(ToString::to_string).collect();
        let known = "(there is a, b, c, d, e)";
        assert_eq!(
            found,
            [
                "nodes.a.args.y: `${inputs.m}` is not declared under `inputs`".to_owned(),
                format!("nodes.a.args.x: there is no node `zz` {known}"),
                "nodes.a.args.y: node `a` refers to itself".to_owned(),
                format!("nodes.e.after: there is no node `q` {known}"),
                format!("output: there is no node `r` {known}"),
                "nodes need each other in a circle: a → b → a".to_owned(),
                "nodes need each other in a circle: c → d → c".to_owned(),
            ]
        );
    }

    #[test]
    fn a_long_circle_is_named_in_full() {
        let nodes: Vec<String> =
            (0..40).map(|i| format!("n{i}: {{capability: c, after: [n{}]}}", (i + 1) % 40)).collect();
        let composition =
            Composition::parse(&format!("name: t\nnodes: {{{}}}\n", nodes.join(", "))).expect("parses");
        let Err(GraphError::Cycle { path }) = Graph::build(&composition) else { panic!("a circle") };
        assert_eq!((path.len(), path.first()), (41, path.last()));
    }
}
