//! docs/COMPOSITIONS.md says what is true: its examples are compositions, and its limits are the limits.

use cjm_decide::composition::{FAILURES_LISTED_MAX, Graph, NODE_IN_FLIGHT_MAX, RUN_IN_FLIGHT_MAX};
use cjm_wire::composition::{
    COMPOSITION_BYTES_MAX, Composition, DOCUMENT_DEPTH_MAX, FailurePolicy, MAP_ELEMENTS_MAX, NODES_MAX,
    TEMPLATE_DEPTH_MAX,
};
use cjm_wire::json::JSON_DEPTH_MAX;

const PAGE: &str = include_str!("../../../docs/COMPOSITIONS.md");

/// The examples, by name.
fn examples() -> Vec<Composition> {
    let blocks = PAGE.split("\n```yaml\n").skip(1).filter_map(|rest| rest.split("\n```").next());
    blocks.map(|block| Composition::parse(block).unwrap_or_else(|error| panic!("{error}\n{block}"))).collect()
}

#[test]
fn every_example_of_the_page_is_a_composition() {
    let examples = examples();
    assert!(examples.len() >= 4, "only {} examples found", examples.len());
    for example in &examples {
        let graph = Graph::build(example).unwrap_or_else(|error| panic!("{}: {error}", example.name));
        assert_eq!(graph.order().len(), example.nodes.len());
    }
    let of_name = |name: &str| examples.iter().find(|example| example.name == name).expect(name);
    let exact = &of_name("numbers").nodes["exact"].args;
    assert_eq!(exact["n"].text(), "18446744073709551616");
    assert!(exact["list"].text().contains("-9223372036854775809"));
    let partial = of_name("one-bad-file-does-not-lose-the-others");
    assert_eq!(partial.failure, FailurePolicy::BestEffort);
    assert!(partial.nodes["report"].allow_partial && !partial.nodes["book"].allow_partial);
}

#[test]
fn the_limits_on_the_page_are_the_limits() {
    let thousands = |number: usize| match number {
        0..1_000 => number.to_string(),
        _ => format!("{},{:03}", number / 1_000, number % 1_000),
    };
    for row in [
        format!("| nodes | {} |", thousands(NODES_MAX)),
        format!("| elements of one `map` | {} |", thousands(MAP_ELEMENTS_MAX)),
        format!("| size of the document | {} MiB |", COMPOSITION_BYTES_MAX / 1024 / 1024),
        format!("| nesting of a file, its own keys included | {DOCUMENT_DEPTH_MAX} levels |"),
        format!("| nesting of a template with references | {TEMPLATE_DEPTH_MAX} levels |"),
        format!("| nesting of a value | {} levels |", thousands(JSON_DEPTH_MAX)),
        format!(
            "| calls in flight: of one node, of one run | {NODE_IN_FLIGHT_MAX}, {} |",
            thousands(RUN_IN_FLIGHT_MAX)
        ),
        format!("| failures told one by one | {FAILURES_LISTED_MAX} |"),
    ] {
        assert!(PAGE.contains(&row), "the page lacks: {row}");
    }
}
