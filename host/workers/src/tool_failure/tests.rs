//! Whose failure it is, in which words, and with which step, case by case.

use super::*;
use cjm_wire::error::{ResourceShortfall, no_inode};

fn error(category: ErrorCategory, repr: &str, traceback: Option<&str>, fields: &[&str]) -> JobError {
    JobError {
        original_exc_repr: repr.to_owned(),
        traceback: traceback.map(str::to_owned),
        fields_invalid: (!fields.is_empty()).then(|| fields.iter().map(ToString::to_string).collect()),
        ..JobError::new(category, "words")
    }
}

const IN_TOOL: &str = "Traceback (most recent call last):\n  File \"/c/cjm_sdk/ops.py\", line 1, in _work\n  File \
                       \"/t/tool.py\", line 9, in go\nKeyError: 'x'\n";
const IN_SDK: &str = "Traceback (most recent call last):\n  File \"/c/cjm_sdk/capability.py\", line 1, in execute\n\
                      TypeError: words\n";
const IN_RESULT: &str = "Traceback (most recent call last):\n  File \"/c/cjm_sdk/ops.py\", line 1, in _work\n  File \
                         \"/c/cjm_sdk/encode.py\", line 2, in result_bytes\nValueError: words\n";

#[test]
fn a_step_speaks_of_a_list_only_where_the_message_has_one() {
    for (said, step) in [
        ("No adapter bound for task 'x' (bound: ['lab-task'])", "name a task that the message lists"),
        ("No adapter bound for task 'x' (bound: [])", "name its adapter under `adapters`"),
        ("Task 'lab-task' adapter has no method 'x'", "name a public method of the adapter's class"),
    ] {
        assert!(what_to_name(said, &[]).starts_with(step), "{said}");
    }
    let methods = ["run", "wait"].map(str::to_owned);
    let step = what_to_name("Task 'lab-task' adapter has no method 'x'", &methods);
    assert_eq!(step, "name a method of the adapter: run, wait");
}

#[test]
fn a_key_of_the_configuration_is_no_argument() {
    use ErrorCategory::UserInput;
    let refused = error(
        UserInput,
        "WrongConfiguration('wrong configuration (level: missing)')",
        Some(IN_SDK),
        &["level"],
    );
    let told = facts("lab", &refused, &[]);
    assert_eq!((told.code, told.exit_code), (BAD_CONFIGURATION, exit::DOMAIN));
    let way = "`level` in it, as in `--config '{\"level\": …}'`, or under `capabilities:` of a composition";
    assert_eq!(told.next_step, format!("correct the configuration: give {way}; the tool has not run"));
    assert!(is_of_input(&refused) && !has_run(&refused));
    let in_initialize = IN_TOOL.replace("in go", "in initialize");
    let reads = JobError {
        message: "'level'".to_owned(),
        ..error(UserInput, "KeyError('level')", Some(&in_initialize), &[])
    };
    let told = facts("lab", &reads, &[]);
    assert!(told.next_step.contains(way) && told.next_step.contains("where the traceback ends"), "{told:?}");
    assert_eq!(told.exit_code, exit::TOOL_FAILED);
    assert!(has_run(&reads));
    // Another method reads other things.
    let step = facts("lab", &error(UserInput, "KeyError('level')", Some(IN_TOOL), &[]), &[]).next_step;
    assert!(!step.contains("configuration"), "{step}");
}

#[test]
fn a_disk_that_took_no_call_is_told_as_other_full_disks_are() {
    let shortfall = ResourceShortfall { resource: Resource::Disk, needed: None, available: None };
    let full = |message: &str| JobError {
        message: message.to_owned(),
        resource_shortfall: Some(shortfall),
        ..error(ErrorCategory::Resource, "NotBegun(\"x\")", None, &[])
    };
    for (message, advice) in [("full", "free space on that disk"), (&*no_inode(1), "`df -i` counts inodes")] {
        let facts = facts("lab", &full(message), &[]);
        assert_eq!((facts.code, facts.exit_code), ("call.not_begun", exit::STORE));
        let has_run = !facts.next_step.contains("the tool has not run");
        assert!(facts.next_step.contains(advice) && !has_run, "{facts:?}");
    }
}

#[test]
fn a_step_names_some_of_many_wrong_arguments_and_counts_the_others() {
    for (fields, step) in [
        (&["a", "b", "c", "d", "e", "f"][..], "correct `a`, `b`, `c`, `d`, `e`, `f`"),
        (&["a", "b", "c", "d", "e", "f", "g", "… 94 more"], "correct `a`, `b`, `c`, `d`, `e`, … 96 more"),
    ] {
        let facts = facts("lab", &error(ErrorCategory::UserInput, "", None, fields), &[]);
        assert!(facts.next_step.contains(step), "{facts:?}");
    }
}

#[test]
fn advice_and_exit_code_follow_where_the_failure_arose() {
    use ErrorCategory::{Fatal, Resource, Transient, UserInput};
    for (error, exit_code, advice) in [
        (
            error(UserInput, "KeyError('x')", Some(IN_TOOL), &[]),
            12,
            "look where the traceback ends: the fault",
        ),
        (error(UserInput, "KeyError('x')", None, &[]), 12, "the fault is in the tool, unless"),
        (
            error(UserInput, "TypeError('x')", Some(IN_TOOL), &[]),
            12,
            "unless the message speaks of an argument",
        ),
        (error(UserInput, "ValueError('x')", Some(IN_TOOL), &[]), 12, "if it speaks of none"),
        (error(UserInput, "FileNotFoundError(2)", Some(IN_TOOL), &[]), 12, "the file is there"),
        (error(UserInput, "TypeError('x')", Some(IN_SDK), &[]), 1, "has not run"),
        (
            error(UserInput, "UserInputError('x')", Some(IN_SDK), &["action"]),
            1,
            "correct `action` (`--action NAME`) and",
        ),
        (error(UserInput, "UserInputError('x')", Some(IN_TOOL), &["a", "b"]), 12, "correct `a`, `b`"),
        (error(UserInput, "Unfit(\"x\")", None, &[]), 1, "correct the arguments"),
        (error(UserInput, "Unfit(\"x\")", None, &["n"]), 1, "correct `n`"),
        (
            JobError {
                message: "no action was named (actions: none: no method is marked @action)".to_owned(),
                ..error(UserInput, "Unfit(\"x\")", None, &["action"])
            },
            1,
            "mark a method of the tool's class with `@action`",
        ),
        (error(UserInput, "Unfit('x')", Some(IN_SDK), &[]), 1, "has not run"),
        (error(UserInput, "Unfit('x')", Some(IN_TOOL), &[]), 12, "correct the arguments"),
        (error(UserInput, "ToolError::UserInput(\"x\")", None, &["text"]), 12, "correct `text`"),
        (error(Transient, "NotBegun(\"x\")", None, &[]), 10, "call again; if it stays so"),
        (error(Resource, "NotBegun(\"x\")", None, &[]), 10, "free what the message"),
        (error(Fatal, "NotBegun(\"x\")", None, &[]), 10, "mend what the message names, then"),
        (error(Fatal, "NotBegun('x')", Some(IN_TOOL), &[]), 12, "the traceback ends"),
        (error(Transient, "ProgramKilled(\"x\")", None, &[]), 12, "find out who killed it"),
        (error(Transient, "ProgramTooSlow(\"x\")", None, &[]), 12, "give it less to do"),
        // A tool on the channel writes its own error object.
        (error(UserInput, "", None, &["text"]), 12, "correct `text`"),
        (error(UserInput, "ToolError::UserInput(\"x\")", None, &[]), 12, "correct the arguments"),
        (error(UserInput, "ValueError('NaN')", Some(IN_RESULT), &[]), 12, "plain JSON"),
        (error(UserInput, "KeyError('dataclasses')", Some(IN_RESULT), &[]), 1, "correct the arguments"),
        (error(Fatal, "ImportError('x')", Some(IN_RESULT), &[]), 12, "the traceback ends"),
        (error(Fatal, "Unwritable('x')", None, &[]), 12, "plain JSON"),
        (error(Fatal, "NeedsStream('x')", None, &[]), 12, "call it with `--stream`"),
        (error(Fatal, "RuntimeError('x')", Some(IN_TOOL), &[]), 12, "the traceback ends"),
        (error(Fatal, "ToolError::Fatal(\"x\")", None, &[]), 12, "read the message: the fault"),
        (error(Fatal, "ToolError::Fatal(\"x\")", Some("a line"), &[]), 12, "last lines"),
        (error(Fatal, "ProgramExit(\"x\")", Some("a line"), &[]), 12, "the input or the program"),
        (error(Fatal, "ProgramExit(\"x\")", None, &[]), 12, "it wrote no reason"),
        (error(Transient, "TransientError('x')", Some(IN_TOOL), &[]), 12, "try again"),
        (error(Resource, "MemoryError()", Some(IN_TOOL), &[]), 12, "free what"),
    ] {
        let facts = facts("lab", &error, &[]);
        assert!(facts.next_step.contains(advice), "{error:?}: {facts:?}");
        assert_eq!(facts.exit_code, exit_code, "{error:?}");
        assert_eq!(facts.code == "call.arguments_refused", exit_code == exit::DOMAIN, "{error:?}");
        assert_eq!(facts.code == "call.not_begun", exit_code == exit::WORKER_START, "{error:?}");
        let has_run = !facts.next_step.contains("the tool has not run");
        assert_eq!(has_run, exit_code == exit::TOOL_FAILED, "{error:?}");
    }
}

#[test]
fn what_looks_like_a_number_can_be_given_as_text() {
    let refused = |message: &str| JobError {
        message: message.to_owned(),
        ..error(ErrorCategory::UserInput, "Unfit('x')", None, &["text"])
    };
    for (value, shown) in [("42", "42"), ("-1.5", "…"), ("true", "true"), ("null", "null")] {
        let step =
            facts("my lab", &refused(&format!("argument `text` is {value}, and text is expected")), &[])
                .next_step;
        assert!(step.contains(&format!("`text:='\"{shown}\"'`")), "{step}");
        assert!(
            step.contains("`cjm-ctl regenerate-manifest 'my lab'` lets")
                && step.ends_with("the tool has not run"),
            "{step}"
        );
    }
    for other in
        ["argument `text` is [1], and text is expected", "argument `text` is 1, and a list is expected"]
    {
        let step = facts("lab", &refused(other), &[]).next_step;
        assert_eq!(step, "correct `text` and call again; the tool has not run", "{other}");
    }
    let program = JobError {
        original_exc_repr: "Unfit(\"x\")".to_owned(),
        ..refused("argument `text` is 5, and text is expected")
    };
    let step = facts("lab", &program, &[]).next_step;
    assert_eq!(
        step,
        "correct `text` (`text=5` on a command line gives it as text) and call again; the tool has not run"
    );
}

#[test]
fn a_module_that_a_tool_lacks_is_told_as_a_requirement_to_add() {
    let lacks = |repr: &str, message: &str| {
        let error =
            JobError { message: message.to_owned(), ..error(ErrorCategory::Fatal, repr, Some(IN_TOOL), &[]) };
        facts("lab", &error, &[])
    };
    for module in ["numpyy", "numpyy.linalg"] {
        let told = lacks(
            "ModuleNotFoundError(\"No module named 'numpyy'\")",
            &format!("No module named '{module}'"),
        );
        let step = &told.next_step;
        assert!(step.starts_with("add the package that brings `numpyy` to `dependencies`"), "{step}");
        assert_eq!((told.code, told.exit_code), (TOOL_FAILED, exit::TOOL_FAILED));
    }
    let other = lacks("RuntimeError('x')", "No module named 'numpyy'");
    assert!(other.next_step.contains("the traceback ends"), "{other:?}");
}

#[test]
fn the_class_is_told_unless_the_tool_chose_it_for_its_words() {
    for (repr, message, expected) in [
        ("KeyError('nokey')", "'nokey'", "KeyError: 'nokey'"),
        ("MemoryError()", "", "MemoryError"),
        ("MemoryError()", "MemoryError", "MemoryError"),
        ("requests.exceptions.HTTPError('404')", "404", "HTTPError: 404"),
        ("UserInputError('no such page')", "no such page", "no such page"),
        ("ToolError::Fatal(\"x\")", "ended with 3", "ended with 3"),
        ("ProgramExit(\"x\")", "ended with 3", "ended with 3"),
        ("", "", "it gave no reason"),
    ] {
        let error =
            JobError { original_exc_repr: repr.to_owned(), ..JobError::new(ErrorCategory::Fatal, message) };
        assert_eq!(words(&error), expected, "{repr}");
    }
}

#[test]
fn a_number_where_a_tool_needs_text_may_have_been_meant_as_text() {
    let traceback = "Traceback (most recent call last):\n  File \"/t/words.py\", line 9, in count\n";
    for (class, message, is_told) in [
        ("AttributeError", "'int' object has no attribute 'split'", true),
        ("TypeError", "expected str, bytes or os.PathLike object, not float", true),
        ("AttributeError", "'Words' object has no attribute 'print'", false),
        ("RuntimeError", "int", false),
    ] {
        for category in [ErrorCategory::Fatal, ErrorCategory::UserInput] {
            for traceback in [None, Some(traceback.to_owned())] {
                let error = JobError {
                    original_exc_repr: format!("{class}({message:?})"),
                    traceback,
                    ..JobError::new(category, message)
                };
                let step = facts("words", &error, &[]).next_step;
                let is_of_caller = step.starts_with("correct");
                assert_eq!(step.contains("`key:='\"42\"'`"), is_told && !is_of_caller, "{error:?}: {step}");
                assert!(!(is_told && step.contains("only avoid it")), "{step}");
            }
        }
    }
}
