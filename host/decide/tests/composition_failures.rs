//! What a failure and a cancel mean for the rest of a run, told as scripts.

mod script;

use cjm_decide::composition::{
    CompositionEffect, CompositionEvent, FAILURES_LISTED_MAX, Halt, NodeProgress, NodeStatus,
};
use cjm_wire::composition::{MAP_ELEMENTS_MAX, RunOutcome};
use script::{check, event, run_of};
use serde_json::json;

#[test]
fn a_run_whose_time_is_over_fails_and_keeps_what_was_made() {
    let document = "name: t\nfailure: best_effort\nnodes:\n  a: {capability: c}\n  b: {capability: c, map: [1, 2]}\n  after: {capability: c, after: [b]}\n";
    let run = check(
        document,
        &json!({}),
        &[
            ("start", &["submit a {}", "submit b[0] {}", "submit b[1] {}"]),
            ("b[0] 1", &[]),
            ("deadline", &["cancel a[0] any", "cancel b[1] any", "cancelled after"]),
            // What comes later changes nothing of how it ends.
            ("cancel", &[]),
            ("deadline", &[]),
            ("a[0] !too late", &["failed a: too late"]),
            ("b[1] ~", &["cancelled b", "ended failed {\"b\":[1,null]} (a: too late)"]),
        ],
    );
    assert_eq!(run.halt(), Some(Halt::Deadline));
    let mut never = run_of(document, &json!({}));
    assert!(!never.handle(event("deadline")).expect("it may come first").is_empty() && never.has_ended());
    assert_eq!(never.handle(event("start")).expect("late"), Vec::new());
    let mut fast = run_of("name: t\nnodes: {a: {capability: c}, b: {capability: c}}\n", &json!({}));
    for line in ["start", "a[0] !boom", "deadline"] {
        let _ = fast.handle(event(line)).expect(line);
    }
    assert_eq!((fast.halt(), fast.in_flight()), (Some(Halt::FirstFailure), 1), "the first reason stays");
    let (output, failures) = fast.so_far();
    assert_eq!((output.compact().as_str(), failures.total()), ("{}", 1));
}

#[test]
fn a_run_whose_calls_are_refused_blames_no_node_and_begins_nothing_more() {
    let nodes = "nodes:\n  a: {capability: c}\n  b: {capability: c, map: [1, 2, 3]}\n  after: {capability: c, after: [b]}\n";
    let start = ("start", &["submit a {}", "submit b[0] {}", "submit b[1] {}", "submit b[2] {}"][..]);
    let run = check(
        &format!("name: t\n{nodes}"),
        &json!({}),
        &[
            start,
            ("b[0] 1", &[]),
            ("refused b[1] b[2]", &["cancel a[0] any", "cancelled b", "cancelled after"]),
            // One that has ended is old news.
            ("refused b[1]", &[]),
            ("cancel", &[]),
            ("a[0] ~", &["cancelled a", "ended failed {\"b\":[1,null,null]}"]),
        ],
    );
    assert_eq!(run.halt(), Some(Halt::Refused));
    // One that makes all it can lets go on what runs.
    check(
        &format!("name: t\nfailure: best_effort\n{nodes}"),
        &json!({}),
        &[
            start,
            ("refused b[0] b[2]", &["cancel a[0] pending", "cancel b[1] pending", "cancelled after"]),
            ("a[0] 5", &["completed a", "advanced a > "]),
            ("b[1] 2", &["cancelled b", "ended failed {\"a\":5,\"b\":[null,2,null]}"]),
        ],
    );
    // A run that is halted already ends as it would have.
    let run = check(
        &format!("name: t\n{nodes}"),
        &json!({}),
        &[
            start,
            ("b[1] 2", &[]),
            (
                "a[0] !boom",
                &["first a: boom", "cancel b[0] any", "cancel b[2] any", "cancelled after", "failed a: boom"],
            ),
            ("refused b[0] b[2]", &["cancelled b", "ended failed {\"b\":[null,2,null]} (a: boom)"]),
            ("refused b[0]", &[]),
        ],
    );
    assert_eq!(run.halt(), Some(Halt::FirstFailure));
    let mut early = run_of(&format!("name: t\n{nodes}"), &json!({}));
    early.handle(event("refused a[0]")).expect_err("it was not asked for");
}

#[test]
fn failing_fast_tells_the_failure_at_once_and_cancels_what_runs() {
    let nodes = "
  a: {capability: c}
  b: {capability: c, map: [1, 2]}
  after_a: {capability: c, args: {x: '${a}'}}
  after_b: {capability: c, after: [b]}
";
    check(
        &format!("name: t\nnodes:{nodes}"),
        &json!({}),
        &[
            ("start", &["submit a {}", "submit b[0] {}", "submit b[1] {}"]),
            ("b[0] 1", &[]),
            (
                "a[0] !boom",
                &[
                    "first a: boom",
                    "skipped after_a",
                    "cancel b[1] any",
                    "cancelled after_b",
                    "failed a: boom",
                ],
            ),
            // It could not be stopped any more: what it made is kept. Its late failure is told after the first.
            ("b[1] 2", &["completed b", "advanced b > ", "ended failed {\"b\":[1,2]} (a: boom)"]),
        ],
    );
    check(
        &format!("name: t\nnodes:{nodes}"),
        &json!({}),
        &[
            ("start", &["submit a {}", "submit b[0] {}", "submit b[1] {}"]),
            ("b[0] 1", &[]),
            (
                "b[1] !late",
                &[
                    "first b[1]: late",
                    "skipped after_b",
                    "cancel a[0] any",
                    "cancelled after_a",
                    "failed b: element [1]: late",
                ],
            ),
            ("cancel", &[]),
            ("a[0] !killed", &["failed a: killed", "ended failed {\"b\":[1,null]} (b[1]: late; a: killed)"]),
        ],
    );
}

#[test]
fn best_effort_makes_all_that_can_be_made() {
    let nodes = "
  a: {capability: c}
  b: {capability: c, map: [1, 2]}
  after_a: {capability: c, args: {x: '${a}'}}
  after_b: {capability: c, after: [b]}
";
    check(
        &format!("name: t\nfailure: best_effort\nnodes:{nodes}output: ['${{a.x.y}}', '${{after_b}}']\n"),
        &json!({}),
        &[
            ("start", &["submit a {}", "submit b[0] {}", "submit b[1] {}"]),
            ("a[0] !boom", &["failed a: boom", "skipped after_a"]),
            ("b[0] 1", &[]),
            ("b[1] 2", &["completed b", "advanced b > after_b", "submit after_b {}"]),
            (
                "after_b[0] 5",
                &["completed after_b", "advanced after_b > ", "ended partial [null,5] (a: boom)"],
            ),
        ],
    );
    // Nothing good came of it.
    check(
        "name: t\nfailure: best_effort\nnodes: {a: {capability: c, map: [1, 2]}}\n",
        &json!({}),
        &[
            ("start", &["submit a[0] {}", "submit a[1] {}"]),
            ("a[1] !two", &[]),
            ("a[0] !one", &["failed a: element [1]: two", "ended failed {} (a[1]: two; a[0]: one)"]),
        ],
    );
}

#[test]
fn what_needs_a_missing_element_is_skipped_and_all_else_runs() {
    let document = "
name: t
failure: best_effort
nodes:
  each: {capability: c, map: [1, 2, 3], args: {x: '${item}'}}
  again: {capability: c, map: '${each}', args: {x: '${item}', i: '${index}'}}
  first: {capability: c, args: {x: '${each[0]}'}}
  second: {capability: c, args: {x: 'see ${each[1].y}'}}
  all: {capability: c, args: {x: '${each}'}}
  later: {capability: c, after: [each]}
  anyway: {capability: c, allow_partial: true, after: [each], args: {x: '${each}', y: '${each[1].y}'}}
  below: {capability: c, args: {x: '${all}'}}
";
    let run = check(
        document,
        &json!({}),
        &[
            ("start", &["submit each[0] {\"x\":1}", "submit each[1] {\"x\":2}", "submit each[2] {\"x\":3}"]),
            ("each[1] !boom", &[]),
            ("each[2] 30", &[]),
            (
                "each[0] 10",
                &[
                    "partial each: 1 of 3 elements failed",
                    "advanced each > again first anyway",
                    "skipped second",
                    "skipped all",
                    "skipped later",
                    "skipped below",
                    "submit again[0] {\"x\":10,\"i\":0}",
                    "submit again[2] {\"x\":30,\"i\":2}",
                    "submit first {\"x\":10}",
                    "submit anyway {\"x\":[10,null,30],\"y\":null}",
                ],
            ),
            (
                "again[1] 5",
                &[
                    "composition.illegal_transition: again[1] is not submitted, where `element_ended` cannot happen",
                ],
            ),
            ("again[0] 100", &[]),
            ("first[0] 1", &["completed first", "advanced first > "]),
            ("anyway[0] 2", &["completed anyway", "advanced anyway > "]),
            (
                "again[2] 300",
                &[
                    "partial again: 1 of 3 elements missing",
                    "advanced again > ",
                    "ended partial {\"each\":[10,null,30],\"again\":[100,null,300],\"first\":1,\"anyway\":2} (each[1]: boom)",
                ],
            ),
        ],
    );
    assert_eq!(run.progress("again"), Some(NodeProgress::Ended(NodeStatus::Partial)));
}

#[test]
fn every_node_that_did_not_complete_says_why() {
    let mut run = run_of(
        "
name: t
failure: best_effort
nodes:
  each: {capability: c, map: [1, 2, 3, 4]}
  all: {capability: c, args: {x: '${each}'}}
  one: {capability: c, args: {x: '${each[1]}'}}
  later: {capability: c, after: [single, each]}
  below: {capability: c, after: [all]}
  single: {capability: c}
  half: {capability: c, map: '${each}'}
",
        &json!({}),
    );
    let mut reasons = Vec::new();
    for line in [
        "start",
        "each[0] 1",
        "each[1] !boom",
        "each[2] ~",
        "each[3] 4",
        "single[0] ~",
        "half[0] !bad",
        "half[3] 1",
    ] {
        for effect in run.handle(event(line)).expect(line) {
            if let CompositionEffect::NodeEnded { node, reason, .. } = effect {
                reasons.push(format!("{node}: {}", reason.unwrap_or_default()));
            }
        }
    }
    let whole = "of which 2 of 4 elements are missing (`allow_partial: true` would do with that)";
    assert_eq!(
        reasons,
        [
            "each: 2 of 4 elements missing, 1 of them failed".to_owned(),
            format!("all: it uses all of each, {whole}"),
            "one: it uses each[1], which is missing".to_owned(),
            format!("later: it comes after all of each, {whole}"),
            "below: it needs all".to_owned(),
            "single: its call was cancelled".to_owned(),
            "half: 3 of 4 elements missing, 1 of them failed".to_owned(),
        ]
    );
    assert!(run.has_ended());
}

#[test]
fn what_never_had_a_call_is_told_as_not_begun() {
    let mut run = run_of(
        "name: t
nodes:
  runs: {capability: c}
  queued: {capability: c}
  queued_list: {capability: c, map: [1, 2]}
  list: {capability: c, map: [1, 2]}
  waits: {capability: c, after: [runs]}
",
        &json!({}),
    );
    let mut reasons = Vec::new();
    for line in [
        "start",
        "cancel",
        "queued[0] -",
        "queued_list[0] -",
        "queued_list[1] -",
        "list[0] ~",
        "list[1] -",
        "runs[0] ~",
    ] {
        for effect in run.handle(event(line)).expect(line) {
            if let CompositionEffect::NodeEnded { node, reason, .. } = effect {
                reasons.push(format!("{node}: {}", reason.unwrap_or_default()));
            }
        }
    }
    assert_eq!(
        reasons,
        [
            "waits: the run was cancelled before it was begun",
            "queued: it was not begun",
            "queued_list: it was not begun",
            "list: 0 of 2 elements had completed when it was cancelled",
            "runs: its call was cancelled",
        ]
    );
    assert!(run.has_ended());
}

#[test]
fn a_long_list_of_failures_is_counted_beyond_its_maximum() {
    let elements = FAILURES_LISTED_MAX + 50;
    let list: Vec<usize> = (0..elements).collect();
    let mut run = run_of(
        "name: t\nfailure: best_effort\ninputs: {l: {}}\nnodes: {a: {capability: c, map: '${inputs.l}'}}\n",
        &json!({"l": list}),
    );
    let mut effects = run.handle(CompositionEvent::Start).expect("starts");
    for element in 1..elements {
        effects = run.handle(event(&format!("a[{element}] !no {element}"))).expect("in flight");
    }
    assert_eq!(effects.len(), 0);
    let ended = run.handle(event("a[0] 7")).expect("in flight").pop();
    let Some(CompositionEffect::Ended { outcome, output, failures }) = ended else {
        panic!("ended: {ended:?}")
    };
    assert_eq!(outcome, RunOutcome::Partial);
    assert_eq!((failures.listed().len(), failures.left_out()), (FAILURES_LISTED_MAX, 49));
    assert_eq!((failures.total(), run.elements_ended("a")), (elements - 1, elements));
    assert_eq!(failures.first().map(ToString::to_string), Some("a[1]: no 1".to_owned()));
    let output = output.to_value().expect("a value");
    assert_eq!((output["a"][0].as_u64(), output["a"][1].is_null()), (Some(7), true));
}

/// What does not bind has ended, too, and what follows it may be a gap.
#[test]
fn a_gap_behind_an_element_that_does_not_bind_is_not_called() {
    let document = "
name: t
failure: best_effort
nodes:
  each: {capability: c, map: [1, 2, 3], args: {x: '${item}'}}
  again: {capability: c, map: '${each}', args: {x: '${item.do}'}}
";
    let run = check(
        document,
        &json!({}),
        &[
            ("start", &["submit each[0] {\"x\":1}", "submit each[1] {\"x\":2}", "submit each[2] {\"x\":3}"]),
            ("each[0] {\"no\":1}", &[]),
            ("each[1] !boom", &[]),
            (
                "each[2] {\"do\":5}",
                &[
                    "partial each: 1 of 3 elements failed",
                    "advanced each > again",
                    "submit again[2] {\"x\":5}",
                ],
            ),
        ],
    );
    assert_eq!((run.elements_ended("each"), run.elements_ended("again")), (3, 2));
    let Some(NodeProgress::Running { failed, .. }) = run.progress("again") else { panic!("it runs") };
    assert_eq!(failed, 1, "the gap is no failure");
    assert_eq!(run.elements_ended("nothing"), 0);
}

#[test]
fn a_list_is_as_long_as_it_may_be_and_no_longer() {
    for (elements, fits) in [(MAP_ELEMENTS_MAX, true), (MAP_ELEMENTS_MAX + 1, false)] {
        let document = "name: t\ninputs: {l: {}}\nnodes: {a: {capability: c, map: '${inputs.l}'}}\n";
        let list: Vec<usize> = vec![0; elements];
        let mut run = run_of(document, &json!({"l": list}));
        let _ = run.handle(CompositionEvent::Start).expect("starts");
        assert_eq!(!run.has_ended(), fits, "{elements}");
    }
}

#[test]
fn a_cancel_reaches_everything() {
    let document =
        "name: t\nnodes: {a: {capability: c}, b: {capability: c}, d: {capability: c, after: [a]}}\n";
    check(
        document,
        &json!({}),
        &[
            ("start", &["submit a {}", "submit b {}"]),
            ("cancel", &["cancel a[0] any", "cancel b[0] any", "cancelled d"]),
            ("cancel", &[]),
            ("a[0] !boom", &["failed a: boom"]),
            ("b[0] ~", &["cancelled b", "ended cancelled {} (a: boom)"]),
        ],
    );
    // A run that fails fast is told to have failed, and stays so.
    check(
        document,
        &json!({}),
        &[
            ("start", &["submit a {}", "submit b {}"]),
            ("a[0] !boom", &["first a: boom", "skipped d", "cancel b[0] any", "failed a: boom"]),
            ("cancel", &[]),
            ("b[0] ~", &["cancelled b", "ended failed {} (a: boom)"]),
        ],
    );
    check(
        document,
        &json!({}),
        &[("cancel", &["cancelled a", "cancelled b", "cancelled d", "ended cancelled {}"]), ("start", &[])],
    );
    // One element that somebody cancelled is no failure: the rest goes on.
    check(
        document,
        &json!({}),
        &[
            ("start", &["submit a {}", "submit b {}"]),
            ("a[0] ~", &["cancelled a", "skipped d"]),
            ("b[0] 1", &["completed b", "advanced b > ", "ended cancelled {\"b\":1}"]),
        ],
    );
    // What was made before the cancel is kept.
    check(
        "name: t\nfailure: best_effort\nnodes: {a: {capability: c, map: [1, 2, 3]}}\n",
        &json!({}),
        &[
            ("start", &["submit a[0] {}", "submit a[1] {}", "submit a[2] {}"]),
            ("a[1] 20", &[]),
            ("cancel", &["cancel a[0] any", "cancel a[2] any"]),
            ("a[0] ~", &[]),
            ("a[2] ~", &["cancelled a", "ended cancelled {\"a\":[null,20,null]}"]),
        ],
    );
}

#[test]
fn an_output_that_does_not_bind_fails_a_run_that_would_have_completed() {
    check(
        "name: t\nnodes: {a: {capability: c}}\noutput: '${a.x}'\n",
        &json!({}),
        &[
            ("start", &["submit a {}"]),
            (
                "a[0] {\"y\":1}",
                &[
                    "completed a",
                    "advanced a > ",
                    "ended failed null (output: `${a.x}`: `a` has no field `x` (it has: y))",
                ],
            ),
        ],
    );
    // It takes nothing else with it.
    check(
        "name: t\nfailure: best_effort\nnodes: {a: {capability: c}}\noutput: {bad: '${a.x}', good: '${a.y}'}\n",
        &json!({}),
        &[
            ("start", &["submit a {}"]),
            (
                "a[0] {\"y\":1}",
                &[
                    "completed a",
                    "advanced a > ",
                    "ended partial {\"bad\":null,\"good\":1} (output: `${a.x}`: `a` has no field `x` (it has: y))",
                ],
            ),
        ],
    );
}
