//! What to make of a failure that a tool's worker reported: whose it is, the words for people, and what to do.
//!
//! The wire's categories come from the ancestor, which counts every `KeyError` as the caller's mistake. What must hold
//! here: advice follows where the failure arose, and the exit code says that a tool failed only if it ran.

use crate::required::ways_to_give;
use cjm_wire::describe::{Facts, exit, shell_word};
use cjm_wire::error::{ErrorCategory, JobError, NO_INODE, Resource, fields_left_out, keep_fields};

/// Classes by which a tool says whose the failure is; its words are enough, the class would only repeat them.
const TOLD_CLASSES: [&str; 12] = [
    "UserInputError",
    WRONG_CONFIGURATION,
    "TransientError",
    "ResourceError",
    "FatalError",
    "Cancelled",
    "CapabilityInputError",
    "CapabilityTransientError",
    "CapabilityResourceError",
    "CapabilityFatalError",
    "CapabilityCancelledError",
    "NotSupported",
];
/// Exceptions about a file that is named, but not as it should be.
const FILE_CLASSES: [&str; 4] =
    ["FileNotFoundError", "NotADirectoryError", "IsADirectoryError", "PermissionError"];
/// Folder of the Python SDK, and files of it that write results.
const SDK_FOLDER: &str = "/cjm_sdk/";
const RESULT_FILES: [&str; 2] = ["/cjm_sdk/encode.py", "/cjm_sdk/json_codec.py"];
/// Class of the SDK's own for a result that is no JSON.
const UNWRITABLE: &str = "Unwritable";
/// What Python raises where a value has no form in JSON; what else is raised there, as for want of a module, is no fault of it.
const NO_JSON: [&str; 4] = ["TypeError", "ValueError", "OverflowError", "RecursionError"];
/// Class of the Python SDK's for a configuration that does not fit what the tool declares.
const WRONG_CONFIGURATION: &str = "WrongConfiguration";
/// How a traceback of Python says that a line stands in the method that takes the configuration.
const IN_INITIALIZE: &str = ", in initialize";
/// Class of the Python SDK's for results that come one by one, where one was asked for.
const NEEDS_STREAM: &str = "NeedsStream";
/// Class of the shim and the SDKs for a call that they refused before the tool's own code ran. That fields are named says
/// nothing of this: tools name them too, after they have run.
const UNFIT: &str = "Unfit";
/// Words of the Python SDK where the class of a tool has nothing to call.
const NO_ACTIONS: &str = "no method is marked @action";
/// How every worker lists the tasks that it has, ours and the ancestor's. None lists methods.
const TASKS_LISTED: &str = "(bound: ";
/// Words of Python's before the name of a module that is not there.
const NO_MODULE: &str = "No module named '";
/// Words of the Python SDK about a value that is no text.
const TEXT_EXPECTED: &str = ", and text is expected";
/// Wrong arguments that a step names; the others are counted.
const NAMED_MAX: usize = 5;

/// What Python raises of a value whose type is another one than the code needs, whoever chose it.
const AMBIGUOUS: [&str; 2] = ["AttributeError", "TypeError"];
/// Python's names of what a command line reads a word as that is no text.
const READ_TYPES: [&str; 4] = ["int", "float", "bool", "NoneType"];

/// Class of the shim's for a program that ended with an exit code that is none of success.
const PROGRAM_EXIT: &str = "ProgramExit";

/// Class of the shim's for trouble of this machine's before the tool's own code ran.
const NOT_BEGUN: &str = "NotBegun";
/// Class of the shim's for a program that somebody killed, and not for lack of memory.
const PROGRAM_KILLED: &str = "ProgramKilled";
/// Class of the shim's for a program that ran longer than its manifest lets it.
const PROGRAM_TOO_SLOW: &str = "ProgramTooSlow";

/// Whose failure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// The arguments were refused before the tool ran.
    Refused,
    /// Its configuration was refused, by a call where nobody had given one before; the tool has not run.
    Configuration,
    /// A key that `initialize` looks for and that is not there: it may be one of the configuration.
    KeyOfConfiguration,
    /// This machine's, before the tool ran.
    Machine,
    /// Somebody killed the program.
    Killed,
    /// A program ran longer than its manifest lets it.
    Slow,
    /// The tool says that its caller is wrong.
    Caller,
    /// A file of the caller's is not as the tool needs it.
    File,
    /// An exception that may mean either.
    Unclear,
    /// One that code with a fault raises, more often than code that was asked for what is not there.
    Inside,
    /// A program's exit code: its words say whether input or program is at fault.
    Program,
    /// A fault in the tool.
    Tool,
    /// What it returned is no JSON.
    Result,
    /// It gives its results one by one.
    Stream,
    /// It may work later.
    Later,
    /// Something ran short.
    Resource,
}

impl Origin {
    fn of(error: &JobError) -> Self {
        let class = error.exception_class().map(last_name).unwrap_or_default();
        let traceback = error.traceback.as_deref();
        if class == NEEDS_STREAM {
            return Self::Stream;
        }
        if class == UNWRITABLE || (NO_JSON.contains(&class) && traceback.is_some_and(writes_result)) {
            return Self::Result;
        }
        if class == UNFIT && error.category == ErrorCategory::UserInput && !traceback.is_some_and(names_tool)
        {
            return Self::Refused;
        }
        if class == WRONG_CONFIGURATION && error.category == ErrorCategory::UserInput {
            return Self::Configuration;
        }
        if class == NOT_BEGUN && !traceback.is_some_and(names_tool) {
            return Self::Machine;
        }
        match error.category {
            ErrorCategory::Transient if class == PROGRAM_KILLED => Self::Killed,
            ErrorCategory::Transient if class == PROGRAM_TOO_SLOW => Self::Slow,
            ErrorCategory::Transient => Self::Later,
            ErrorCategory::Resource => Self::Resource,
            ErrorCategory::Fatal if class == PROGRAM_EXIT => Self::Program,
            ErrorCategory::Fatal => Self::Tool,
            ErrorCategory::UserInput => {
                let names_arguments = error.fields_invalid.as_ref().is_some_and(|fields| !fields.is_empty());
                match traceback {
                    Some(text) if text.starts_with("Traceback") && !frames(text).any(is_tools) => {
                        Self::Refused
                    }
                    _ if names_arguments => Self::Caller,
                    _ if FILE_CLASSES.contains(&class) => Self::File,
                    // The category says that other arguments may do: so does the advice.
                    _ if class == "ValueError" => Self::Unclear,
                    Some(text) if class == "KeyError" && fails_in_initialize(text) => {
                        Self::KeyOfConfiguration
                    }
                    _ if matches!(class, "KeyError" | "TypeError") => Self::Inside,
                    _ => Self::Caller,
                }
            }
        }
    }
}

/// The tool ran and reported a failure
const TOOL_FAILED: &str = "call.tool_failed";
/// It refused its configuration
const BAD_CONFIGURATION: &str = "worker.bad_configuration";
/// The arguments were refused before the tool ran
const ARGUMENTS_REFUSED: &str = "call.arguments_refused";

/// This machine was in the way before the tool ran
const NOT_BEGUN_CODE: &str = "call.not_begun";

/// Code, exit code and next step for a failure of `capability`; `tail` are the last lines that are shown with it.
pub(crate) fn facts(capability: &str, error: &JobError, tail: &[String]) -> Facts {
    let failed = |next_step: &str| Facts::new(TOOL_FAILED, exit::TOOL_FAILED, next_step);
    match Origin::of(error) {
        Origin::Refused if error.message.contains(NO_ACTIONS) => Facts::new(
            ARGUMENTS_REFUSED,
            exit::DOMAIN,
            "mark a method of the tool's class with `@action` (`from cjm_sdk import action`): without one no call reaches it; \
             the tool has not run",
        ),
        Origin::Refused => Facts::new(
            ARGUMENTS_REFUSED,
            exit::DOMAIN,
            format!("correct {} and call again; the tool has not run", refused_arguments(capability, error)),
        ),
        Origin::Configuration => Facts::new(
            BAD_CONFIGURATION,
            exit::DOMAIN,
            format!(
                "correct the configuration: give {}; the tool has not run",
                ways_to_give(error.fields_invalid.as_deref().unwrap_or_default())
            ),
        ),
        Origin::KeyOfConfiguration => failed(&format!(
            "look where the traceback ends: if it reads its configuration there, give {}; else the fault is in the tool",
            ways_to_give(&[error.message.trim_matches(['\'', '"']).to_owned()])
        )),
        Origin::Machine => machines(error),
        Origin::Killed => failed(
            "find out who killed it (itself, a supervisor, a limit of its processor time: `ulimit -t`), then call again",
        ),
        Origin::Slow => failed(
            "give it less to do, or raise `timeout_seconds` of the action in the tool's manifest (`cjm-ctl list --long` names the file)",
        ),
        Origin::Caller => failed(&format!("correct {} and call again", arguments(error))),
        Origin::File => failed("see that the file is there and may be read, then call again"),
        Origin::Unclear if has_frames(error) => failed(
            "correct the argument that the message speaks of; if it speaks of none, the fault is in the tool, where the \
             traceback ends",
        ),
        Origin::Unclear => failed(
            "correct the argument that the message speaks of; if it speaks of none, the fault is in the tool",
        ),
        Origin::Inside => failed(&inside(error)),
        Origin::Program if said(error) || !tail.is_empty() => failed(
            "read the program's last lines: they say whether an argument, the input or the program is at fault",
        ),
        Origin::Program => failed(
            "it wrote no reason: see in its manual what this exit code means, and whether its arguments and its input \
             are right",
        ),
        Origin::Tool => failed(&of_tool(error, tail)),
        Origin::Result => failed(
            "let the tool return plain JSON values (no NaN, no sets, no objects of its own), or the path of a file",
        ),
        Origin::Stream => failed(
            "call it with `--stream` (as a stream): it gives its results one by one; a node of a composition needs an \
             action that returns its whole result",
        ),
        Origin::Later => failed(&match error.retry_after_seconds {
            Some(seconds) => format!("try again after {seconds} s"),
            None => "try again".to_owned(),
        }),
        Origin::Resource => failed("free what it ran short of, then try again"),
    }
}

/// Whether `initialize` failed over what it was given; every `KeyError` and `TypeError` is the tool's own.
pub(crate) fn is_of_input(error: &JobError) -> bool {
    let class = error.exception_class().map(last_name).unwrap_or_default();
    match Origin::of(error) {
        Origin::Caller | Origin::Configuration => true,
        Origin::Unclear | Origin::Refused => !matches!(class, "KeyError" | "TypeError"),
        _ => false,
    }
}

/// Whether the tool's own code ran in the call that ended so: what it said then may say why.
pub(crate) fn has_run(error: &JobError) -> bool {
    !matches!(Origin::of(error), Origin::Refused | Origin::Configuration | Origin::Machine)
}

/// The failure in words: with the class of the exception, unless the tool chose it to carry its words.
pub(crate) fn words(error: &JobError) -> String {
    let class = error.exception_class().filter(|class| !class.contains("::")).map(last_name);
    let message = error.message.trim();
    match class.filter(|class| {
        !TOLD_CLASSES.contains(class)
            && ![UNWRITABLE, NEEDS_STREAM, UNFIT, NOT_BEGUN, PROGRAM_EXIT, PROGRAM_KILLED, PROGRAM_TOO_SLOW]
                .contains(class)
    }) {
        Some(class) if message.is_empty() || message == class => class.to_owned(),
        Some(class) => format!("{class}: {message}"),
        None if message.is_empty() => "it gave no reason".to_owned(),
        None => message.to_owned(),
    }
}

/// What to do about a fault in the tool, unless the message speaks of an argument.
fn inside(error: &JobError) -> String {
    let step = match has_frames(error) {
        true => {
            "look where the traceback ends: the fault is in the tool there, unless the message speaks of an argument"
        }
        false => "the fault is in the tool, unless the message speaks of an argument: then correct that",
    };
    format!("{step}{}", text_may_be_meant(error))
}

/// What to do about a fault in the tool itself.
fn of_tool(error: &JobError, tail: &[String]) -> String {
    if let Some(module) = missing_module(error) {
        return requirement_step(module);
    }
    let or_text = text_may_be_meant(error);
    let step = match has_frames(error) {
        true if !or_text.is_empty() => {
            "look where the traceback ends: the fault is in the tool, unless an argument has another type there than it needs"
        }
        true => "look where the traceback ends: the fault is in the tool, and other arguments only avoid it",
        false if said(error) || !tail.is_empty() => {
            "read the message and the tool's last lines: the fault is in the tool"
        }
        false => "read the message: the fault is in the tool",
    };
    format!("{step}{or_text}")
}

/// Where a tool did with a number what is done with text: what a command line makes of an argument that nothing declares.
fn text_may_be_meant(error: &JobError) -> &'static str {
    let class = error.exception_class().map(last_name).unwrap_or_default();
    let mut words = error.message.split(|c: char| !c.is_alphanumeric() && c != '_');
    if AMBIGUOUS.contains(&class) && words.any(|word| READ_TYPES.contains(&word)) {
        "; `key=42` on a command line is a number where the tool declares no type of `key`, and `key:='\"42\"'` is text"
    } else {
        ""
    }
}

/// What to do where a tool imports what its environment has not.
fn requirement_step(module: &str) -> String {
    format!(
        "add the package that brings `{module}` to `dependencies` in the pyproject.toml of the tool (of a package that is no \
         folder: to `interface_libs` of its entry in the list), then run install-all again; if nothing is called \
         `{module}`, correct the import"
    )
}

/// Of what kept this machine from beginning the call.
fn machines(error: &JobError) -> Facts {
    if is_full_disk(error) {
        let cure = match error.message.contains(NO_INODE) {
            true => "remove files from that disk (`df -i` counts inodes)",
            false => "free space on that disk",
        };
        return Facts::new(
            NOT_BEGUN_CODE,
            exit::STORE,
            format!("{cure}, then call again; the tool has not run"),
        );
    }
    let cure = match error.category {
        ErrorCategory::Resource => "free what the message says has run short, then call again",
        ErrorCategory::Transient => "call again; if it stays so, look after what the message names",
        ErrorCategory::Fatal | ErrorCategory::UserInput => "mend what the message names, then call again",
    };
    Facts::new(NOT_BEGUN_CODE, exit::WORKER_START, format!("{cure}; the tool has not run"))
}

/// Whether it is the disk that ran short.
fn is_full_disk(error: &JobError) -> bool {
    let shortfall = error.resource_shortfall.as_ref();
    shortfall.is_some_and(|shortfall| shortfall.resource == Resource::Disk)
}

fn arguments(error: &JobError) -> String {
    match error.fields_invalid.as_deref() {
        None | Some([]) => "the arguments".to_owned(),
        Some(names) => {
            let mut named = names.to_vec();
            // A failure has them all; one more is as long as the words that say how many.
            if named.len() > NAMED_MAX + 1 {
                keep_fields(&mut named, NAMED_MAX);
            }
            let words = |name: &String| match name.as_str() {
                name if fields_left_out(name).is_some() => name.to_owned(),
                // It has an option of its own, which the name alone does not tell.
                "action" => "`action` (`--action NAME`)".to_owned(),
                name => format!("`{name}`"),
            };
            named.iter().map(words).collect::<Vec<_>>().join(", ")
        }
    }
}

/// What to correct of a call that was refused. On a command line, what looks like a number is one wherever the manifest does
/// not declare the argument: it is right there as it stands, and has to be written otherwise.
fn refused_arguments(capability: &str, error: &JobError) -> String {
    let value = error.message.split_once("` is ").and_then(|(_, rest)| rest.strip_suffix(TEXT_EXPECTED));
    let is_number = |value: &str| value.starts_with(|c: char| c == '-' || c.is_ascii_digit());
    let value = match value {
        // One with a fraction may have been written with other digits.
        Some(number) if is_number(number) && number.contains(['.', 'e', 'E']) => Some("…"),
        Some("true" | "false" | "null") => value,
        other => other.filter(|other| is_number(other)),
    };
    match (value, error.fields_invalid.as_deref()) {
        // All that a program takes is declared in its manifest.
        (Some(value), Some([name])) if is_of_rust(error) => {
            format!("`{name}` (`{name}={value}` on a command line gives it as text)")
        }
        (Some(value), Some([name])) => format!(
            "`{name}` (`{name}:='\"{value}\"'` on a command line gives it as text; where the tool's manifest does not \
             declare it, `cjm-ctl regenerate-manifest {}` lets `{name}={value}` do)",
            shell_word(capability)
        ),
        _ => arguments(error),
    }
}

/// Whether the failure is in the form of the shim's own, and not in that of Python's `repr()`.
fn is_of_rust(error: &JobError) -> bool {
    error.original_exc_repr.trim_start().starts_with("Unfit(\"")
}

/// The module that a Python tool imports and that is not there, by the words of Python's own.
fn missing_module(error: &JobError) -> Option<&str> {
    let class = error.exception_class().map(last_name)?;
    let (_, rest) = error.message.split_once(NO_MODULE).filter(|_| class == "ModuleNotFoundError")?;
    let name = rest.split('\'').next()?;
    Some(name.split('.').next().unwrap_or(name)).filter(|name| !name.is_empty())
}

fn last_name(class: &str) -> &str {
    class.rsplit('.').next().unwrap_or(class)
}

/// The files of a Python traceback, outermost first.
fn frames(traceback: &str) -> impl Iterator<Item = &str> {
    // Those of a group of exceptions stand behind a frame of lines.
    let margin = [' ', '|', '+', '-'];
    traceback
        .lines()
        .filter_map(move |line| line.trim_start_matches(margin).strip_prefix("File \"")?.split('"').next())
}

/// Whether the last frame of a tool's is of the method that takes its configuration.
fn fails_in_initialize(traceback: &str) -> bool {
    let mut frames = traceback.lines().filter(|line| line.trim_start().starts_with("File \""));
    frames.next_back().is_some_and(|line| line.ends_with(IN_INITIALIZE) && !line.contains(SDK_FOLDER))
}

/// Whether there is a traceback of Python that ends somewhere.
fn has_frames(error: &JobError) -> bool {
    error.traceback.as_deref().is_some_and(|text| frames(text).next().is_some())
}

/// Whether the failure carries last lines.
fn said(error: &JobError) -> bool {
    error.traceback.as_deref().is_some_and(|text| !text.trim().is_empty())
}

fn names_tool(traceback: &str) -> bool {
    frames(traceback).any(is_tools)
}

fn is_tools(file: &str) -> bool {
    !file.contains(SDK_FOLDER)
}

/// Whether the SDK was writing the result when it failed: the tool had returned.
fn writes_result(traceback: &str) -> bool {
    !frames(traceback).any(is_tools)
        && frames(traceback).any(|file| RESULT_FILES.iter().any(|end| file.ends_with(end)))
}

/// What to name in place of a task or a method that a worker does not have, of which it says this, and lists these
/// methods.
pub(crate) fn what_to_name(said: &str, methods: &[String]) -> String {
    let step = match said.split_once(TASKS_LISTED) {
        Some((_, "[])")) => {
            "name its adapter under `adapters` of its entry in capabilities.yaml and run `cjm-ctl install-all`"
        }
        Some(_) => "name a task that the message lists",
        None if !methods.is_empty() => {
            return format!("name a method of the adapter: {}", methods.join(", "));
        }
        None => "name a public method of the adapter's class: its source has them",
    };
    step.to_owned()
}

#[cfg(test)]
mod tests;
