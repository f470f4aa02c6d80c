//! Compositions told as scripts: documents, and how a run of them goes.

mod script;

use cjm_decide::composition::{
    CompositionEffect, CompositionEvent, CompositionRun, ElementOutcome, NODE_IN_FLIGHT_MAX, NodeProgress,
    NodeStatus, RUN_IN_FLIGHT_MAX,
};
use cjm_wire::composition::Composition;
use cjm_wire::describe::Described;
use cjm_wire::json::{Arguments, Json};
use script::{check, event, run_of, text};
use serde_json::{Value, json};
use std::collections::VecDeque;

#[test]
fn an_empty_composition_completes_at_its_start() {
    check(
        "name: t\nnodes: {}\n",
        &json!({}),
        &[
            ("start", &["ended completed {}"]),
            ("cancel", &[]),
            ("start", &["composition.illegal_transition: the run is ended, where `start` cannot happen"]),
        ],
    );
}

#[test]
fn outputs_bind_when_the_next_node_runs() {
    let document = "
name: t
inputs: {path: {}, loud: {default: true}}
nodes:
  b: {capability: c, args: {deep: [{t: 'say ${a.text}'}], all: '${a}', l: '${inputs.loud}'}}
  a: {capability: c, args: {p: '${inputs.path}'}}
output: {said: '${b.words[0]}'}
";
    check(
        document,
        &json!({"path": "/x"}),
        &[
            ("start", &["submit a {\"p\":\"/x\"}"]),
            (
                "a[0] {\"__wire__\":\"r\",\"data\":{\"text\":\"hi\"}}",
                &[
                    "completed a",
                    "advanced a > b",
                    "submit b {\"deep\":[{\"t\":\"say hi\"}],\"all\":{\"__wire__\":\"r\",\"data\":{\"text\":\"hi\"}},\"l\":true}",
                ],
            ),
            ("a[0] {}", &[]),
            (
                "b[0] {\"words\":[\"w\"]}",
                &["completed b", "advanced b > ", "ended completed {\"said\":\"w\"}"],
            ),
        ],
    );
}

#[test]
fn map_keeps_order_and_fan_in_sees_a_list() {
    let document = "
name: t
nodes:
  list: {capability: c}
  each: {capability: c, map: '${list.items}', args: {x: '${item.v}', i: '${index}'}}
  none: {capability: c, map: []}
  all: {capability: c, args: {xs: '${each}', first: '${each[0]}', none: '${none}'}}
";
    check(
        document,
        &json!({}),
        &[
            ("start", &["completed none", "advanced none > ", "submit list {}"]),
            (
                "list[0] {\"items\":[{\"v\":\"a\"},{\"v\":\"b\"},{\"v\":\"c\"}]}",
                &[
                    "completed list",
                    "advanced list > each",
                    "submit each[0] {\"x\":\"a\",\"i\":0}",
                    "submit each[1] {\"x\":\"b\",\"i\":1}",
                    "submit each[2] {\"x\":\"c\",\"i\":2}",
                ],
            ),
            ("each[2] 30", &[]),
            ("each[0] 10", &[]),
            (
                "each[1] 20",
                &[
                    "completed each",
                    "advanced each > all",
                    "submit all {\"xs\":[10,20,30],\"first\":10,\"none\":[]}",
                ],
            ),
            (
                "all[0] null",
                &[
                    "completed all",
                    "advanced all > ",
                    "ended completed {\"list\":{\"items\":[{\"v\":\"a\"},{\"v\":\"b\"},{\"v\":\"c\"}]},\"each\":[10,20,30],\"none\":[],\"all\":null}",
                ],
            ),
        ],
    );
}

#[test]
fn what_does_not_bind_fails_its_node() {
    check(
        "name: t\nnodes: {a: {capability: c}, b: {capability: c, map: '${a.x}'}, d: {capability: c, after: [b]}}\n",
        &json!({}),
        &[
            ("start", &["submit a {}"]),
            (
                "a[0] {\"x\":\"text\"}",
                &[
                    "completed a",
                    "advanced a > b",
                    "failed b: `map: ${a.x}` gave text, not a list",
                    "skipped d",
                    "first b: `map: ${a.x}` gave text, not a list",
                    "ended failed {\"a\":{\"x\":\"text\"}} (b: `map: ${a.x}` gave text, not a list)",
                ],
            ),
        ],
    );
    check(
        "name: t\nfailure: best_effort\nnodes: {a: {capability: c, map: [{v: 1}, {}, {v: 3}], args: {v: '${item.v}'}}}\n",
        &json!({}),
        &[
            ("start", &["submit a[0] {\"v\":1}", "submit a[2] {\"v\":3}"]),
            ("a[0] 1", &[]),
            (
                "a[2] 3",
                &[
                    "partial a: 1 of 3 elements failed",
                    "advanced a > ",
                    "ended partial {\"a\":[1,null,3]} (a[1]: `${item.v}`: `item` has no field `v` (it has: ))",
                ],
            ),
        ],
    );
}

#[test]
fn results_that_no_parsed_value_holds_go_through_a_run_unchanged() {
    let deep = format!("{}18446744073709551616{}", "[".repeat(2_000), "]".repeat(2_000));
    let mut run = run_of(
        "name: t\nnodes: {a: {capability: c}, b: {capability: c, map: '${a.l}', args: {x: '${item}', n: 18446744073709551617}}}\noutput: {x: '${b}'}\n",
        &json!({}),
    );
    run.handle(event("start")).expect("starts");
    let submits = run.handle(event(&format!("a[0] {{\"l\":[1e400,{deep}]}}"))).expect("in flight");
    let submits: Vec<String> = submits.iter().skip(2).map(text).collect();
    assert_eq!(
        submits,
        [
            "submit b[0] {\"x\":1e400,\"n\":18446744073709551617}".to_owned(),
            format!("submit b[1] {{\"x\":{deep},\"n\":18446744073709551617}}"),
        ]
    );
    run.handle(event(&format!("b[0] {deep}"))).expect("in flight");
    let ended = run.handle(event("b[1] \"\\udc00\"")).expect("in flight").pop().expect("ended");
    assert_eq!(text(&ended), format!("ended completed {{\"x\":[{deep},\"\\udc00\"]}}"));
}

#[test]
fn what_cannot_be_is_refused() {
    let run = check(
        "name: t\nnodes: {a: {capability: c, priority: 7}, b: {capability: c, after: [a]}}\n",
        &json!({}),
        &[
            (
                "a[0] 1",
                &[
                    "composition.illegal_transition: a[0] is not submitted, where `element_ended` cannot happen",
                ],
            ),
            ("start", &["submit a {}"]),
            (
                "b[0] 1",
                &[
                    "composition.illegal_transition: b[0] is not submitted, where `element_ended` cannot happen",
                ],
            ),
            (
                "a[1] 1",
                &[
                    "composition.illegal_transition: a[1] is not submitted, where `element_ended` cannot happen",
                ],
            ),
            (
                "z[0] 1",
                &["composition.illegal_transition: z is unknown, where `element_ended` cannot happen"],
            ),
            ("start", &["composition.illegal_transition: the run is running, where `start` cannot happen"]),
        ],
    );
    let one = NodeProgress::Running { elements_total: 1, in_flight: 1, ended: 0, failed: 0 };
    assert_eq!(run.progress("a"), Some(one));
    assert_eq!((run.progress("b"), run.progress("z")), (Some(NodeProgress::Waiting), None));
}

#[test]
fn priorities_are_inherited_and_order_what_is_submitted() {
    let mut run = run_of(
        "name: t\nnodes: {a: {capability: c}, b: {capability: c, priority: 9}, d: {capability: c, priority: -1}}\n",
        &json!({}),
    );
    let submitted: Vec<(String, i32)> = run
        .handle(CompositionEvent::Start)
        .expect("starts")
        .into_iter()
        .filter_map(|effect| match effect {
            CompositionEffect::Submit(submit) => Some((submit.node, submit.priority)),
            _ => None,
        })
        .collect();
    assert_eq!(submitted, [("b".to_owned(), 9), ("a".to_owned(), 3), ("d".to_owned(), -1)]);
}

/// Runs to the end, each element completing with its index; returns the most that was in flight and the output.
fn run_through(document: &str, inputs: &Value) -> (usize, Value) {
    let mut run = run_of(document, inputs);
    let mut flying: VecDeque<(String, usize)> = VecDeque::new();
    let mut most = 0;
    let mut effects = run.handle(CompositionEvent::Start).expect("starts");
    loop {
        for effect in effects {
            match effect {
                CompositionEffect::Submit(submit) => flying.push_back((submit.node, submit.element)),
                CompositionEffect::Ended { output, .. } => {
                    return (most, output.to_value().expect("plain numbers"));
                }
                _ => {}
            }
        }
        most = most.max(flying.len());
        // Newest and oldest in turn, so that results come out of order.
        let next = if most % 2 == flying.len() % 2 { flying.pop_back() } else { flying.pop_front() };
        let (node, element) = next.expect("a run that has not ended has something in flight");
        let outcome = ElementOutcome::Completed(Json::of(element));
        effects = run.handle(CompositionEvent::ElementEnded { node, element, outcome }).expect("in flight");
    }
}

#[test]
fn long_lists_are_submitted_as_room_appears() {
    let document =
        "name: t\ninputs: {l: {}}\nnodes: {a: {capability: c, map: '${inputs.l}'}}\noutput: '${a}'\n";
    let list: Vec<usize> = (0..5_000).collect();
    let (most, output) = run_through(document, &json!({"l": list}));
    assert_eq!((most, output), (NODE_IN_FLIGHT_MAX, json!(list)));

    let nodes: Vec<String> =
        (0..40).map(|node| format!("n{node}: {{capability: c, map: '${{inputs.l}}'}}")).collect();
    let document =
        format!("name: t\ninputs: {{l: {{}}}}\nnodes: {{{}}}\noutput: '${{n39}}'\n", nodes.join(", "));
    let list: Vec<usize> = (0..300).collect();
    let (most, output) = run_through(&document, &json!({"l": list}));
    assert_eq!((most, output), (RUN_IN_FLIGHT_MAX, json!(list)));
}

/// A list longer than the window, of which the first element ends so; returns how many were submitted in all,
/// how the node ended, and how many cancels were asked for.
fn halted_list(failure: &str, first: &str) -> (usize, String, usize) {
    let elements = NODE_IN_FLIGHT_MAX + 44;
    let list: Vec<usize> = (0..elements).collect();
    let document = format!(
        "name: t\nfailure: {failure}\ninputs: {{l: {{}}}}\nnodes: {{a: {{capability: c, map: '${{inputs.l}}'}}}}\n"
    );
    let mut run = run_of(&document, &json!({"l": list}));
    let (mut submitted, mut cancels, mut end) = (0, 0, String::new());
    let mut lines = VecDeque::from(["start".to_owned(), first.to_owned()]);
    while let Some(line) = lines.pop_front() {
        for effect in run.handle(event(&line)).expect(&line) {
            match effect {
                CompositionEffect::Submit(submit) => {
                    submitted += 1;
                    if submit.element > 0 {
                        lines.push_back(format!("a[{}] 1", submit.element));
                    }
                }
                CompositionEffect::CancelElement { .. } => cancels += 1,
                CompositionEffect::NodeEnded { status, .. } => end = status.as_str().to_owned(),
                CompositionEffect::FirstFailure(_)
                | CompositionEffect::Advanced { .. }
                | CompositionEffect::Ended { .. } => {}
            }
        }
        run.check_invariants().expect(&line);
        if lines.is_empty() && first == "cancel" && end.is_empty() {
            lines.push_back("a[0] ~".to_owned());
        }
    }
    assert!(run.has_ended());
    (submitted, end, cancels)
}

#[test]
fn a_halted_list_submits_nothing_more_and_ends_when_the_last_has_landed() {
    const WINDOW: usize = NODE_IN_FLIGHT_MAX;
    for (failure, first, expected) in [
        ("fail_fast", "a[0] !boom", (WINDOW, "failed", WINDOW - 1)),
        ("best_effort", "a[0] !boom", (WINDOW + 44, "partial", 0)),
        ("fail_fast", "a[0] ~", (WINDOW + 44, "cancelled", 0)),
        ("fail_fast", "cancel", (WINDOW, "cancelled", WINDOW)),
        ("best_effort", "cancel", (WINDOW, "cancelled", WINDOW)),
    ] {
        let (submitted, end, cancels) = halted_list(failure, first);
        assert_eq!((submitted, end.as_str(), cancels), expected, "{failure}, {first}");
    }
    // All that was submitted completes after the cancel: the node did not, for the rest was never submitted.
    let list: Vec<usize> = (0..=WINDOW).collect();
    let mut run = run_of(
        "name: t\ninputs: {l: {}}\nnodes: {a: {capability: c, map: '${inputs.l}'}}\n",
        &json!({"l": list}),
    );
    let mut effects = run.handle(CompositionEvent::Start).expect("starts");
    effects.extend(run.handle(CompositionEvent::CancelRequested).expect("cancels"));
    for element in 0..WINDOW {
        effects.extend(run.handle(event(&format!("a[{element}] 1"))).expect("in flight"));
    }
    let told: Vec<String> = effects.iter().map(text).collect();
    assert_eq!(
        told[told.len() - 2..],
        ["cancelled a".to_owned(), format!("ended cancelled {{\"a\":[{}null]}}", "1,".repeat(WINDOW))]
    );
}

#[test]
fn a_chain_as_long_as_a_composition_may_be_runs_and_unwinds() {
    let document = |last_args: &str| {
        let mut nodes = vec![format!("n0: {{capability: c{last_args}}}")];
        nodes.extend((1..10_000).map(|n| format!("n{n}: {{capability: c, after: [n{}]}}", n - 1)));
        format!(
            "name: t\ninputs: {{n: {{default: 1}}}}\nnodes: {{{}}}\noutput: '${{n9999}}'\n",
            nodes.join(", ")
        )
    };
    assert_eq!(run_through(&document(""), &json!({})), (1, json!(0)));
    let mut run = run_of(&document(", map: '${inputs.n}'"), &json!({}));
    let effects = run.handle(CompositionEvent::Start).expect("starts");
    let skipped = effects
        .iter()
        .filter(|effect| matches!(effect, CompositionEffect::NodeEnded { status: NodeStatus::Skipped, .. }));
    assert_eq!(skipped.count(), 9_999);
    assert!(run.has_ended());
}

#[test]
fn inputs_are_checked_before_anything_runs() {
    let composition = Composition::parse("name: t\ninputs: {a: {}}\nnodes: {}\n").expect("parses");
    let error = CompositionRun::new(composition, Arguments::new(), 0).expect_err("an input is missing");
    assert_eq!((error.code(), error.next_step().as_str()), ("composition.input_missing", "give it: a=VALUE"));
}
