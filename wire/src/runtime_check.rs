//! Checks an executable's actions beyond their types: templates name things that exist, patterns compile, signals
//! are known. Pure; used when a manifest is read.

use crate::input_kind::beginning_of;
use crate::runtime::{
    Action, Argument, CACHE_DIR_PREFIX, Executable, Parameter, ParameterKind, ResultSource,
};
use serde_json::Value;

/// Words every template may use besides parameters and outputs.
pub const BUILT_IN_NAMES: [&str; 3] = ["work_dir", "data_dir", "cache_dir"];
/// The longest time, in milliseconds, that an action may take to end after its signal: whoever stops a call waits for it.
pub const CANCEL_GRACE_MS_MAX: u64 = 60_000;
/// Signals a cancel rule may name.
pub const CANCEL_SIGNALS: [&str; 4] = ["SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP"];

/// What is said of a key of a configuration that an executable is given, wherever that is found out.
#[must_use]
pub fn no_configuration(key: &str) -> String {
    format!("an executable has no configuration, and `{key}` was given; pass it with each call")
}

/// What is wrong with a value of a parameter, as the end of a sentence; files are not looked for.
///
/// # Errors
/// When it is of another type, no choice, or beyond a limit.
pub fn check_value(parameter: &Parameter, value: &Value) -> Result<(), String> {
    // A message is kept and shown in many places; a value may have megabytes.
    let shown = || beginning_of(&value.to_string());
    // JSON's `-0` is read as a number with a point, which it was not written as.
    let is_negative_zero = value.as_f64().is_some_and(|number| number == 0.0 && number.is_sign_negative());
    if parameter.kind == ParameterKind::Integer && is_negative_zero {
        return Err("is -0, and a whole number is expected: 0 has no sign".to_owned());
    }
    let expected = match parameter.kind {
        ParameterKind::String | ParameterKind::InputFile | ParameterKind::Path => {
            (!value.is_string()).then_some("text")
        }
        ParameterKind::Integer => (!value.is_i64() && !value.is_u64()).then_some("a whole number"),
        ParameterKind::Number => (!value.is_number()).then_some("a number"),
        ParameterKind::Boolean => (!value.is_boolean()).then_some("true or false"),
    };
    if let Some(expected) = expected {
        return Err(format!("is {}, and {expected} is expected", shown()));
    }
    if value.as_str().is_some_and(|text| text.contains('\0')) {
        return Err("holds a NUL character, which no program can be given".to_owned());
    }
    if let Some(choices) = parameter.choices.as_ref().filter(|choices| !choices.contains(value)) {
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let choices = choices.iter().map(text).collect::<Vec<_>>().join(", ");
        return Err(format!("is {}, and only these are allowed: {choices}", shown()));
    }
    let number = value.as_f64().unwrap_or(0.0);
    if let Some(minimum) = parameter.minimum.filter(|minimum| value.is_number() && number < *minimum) {
        return Err(format!("is {}, below the minimum of {minimum}", shown()));
    }
    if let Some(maximum) = parameter.maximum.filter(|maximum| value.is_number() && number > *maximum) {
        return Err(format!("is {}, above the maximum of {maximum}", shown()));
    }
    Ok(())
}

/// One part of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TemplatePart {
    /// Text as it is.
    Text(String),
    /// `{name}`, `{name.stem}`, `{name.name}`.
    Name {
        /// The parameter, output or built-in word.
        name: String,
        /// `stem` or `name` of a path, when asked for.
        part: Option<String>,
    },
}

/// Splits a template into its parts.
///
/// # Errors
/// What is wrong with it: an open brace, an empty name, an unknown part.
pub fn parse_template(text: &str) -> Result<Vec<TemplatePart>, String> {
    let mut parts = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        literal.push_str(&rest[..at]);
        let brace = &rest[at..=at];
        let after = &rest[at + 1..];
        if let Some(doubled) = after.strip_prefix(brace) {
            literal.push_str(brace);
            rest = doubled;
            continue;
        }
        if brace == "}" {
            return Err(format!("a `}}` without its `{{` in \"{text}\" (write `}}}}` for a brace)"));
        }
        let Some(end) = after.find('}') else {
            return Err(format!("a `{{` without its `}}` in \"{text}\" (write `{{{{` for a brace)"));
        };
        let (name, part) = match after[..end].split_once('.') {
            Some((name, part)) => (name, Some(part.to_owned())),
            None => (&after[..end], None),
        };
        if name.is_empty() {
            return Err(format!("an empty name in \"{text}\""));
        }
        if let Some(unknown) = part.as_deref().filter(|part| !["stem", "name"].contains(part)) {
            return Err(format!("`{{{name}.{unknown}}}` in \"{text}\": only `.stem` and `.name` exist"));
        }
        if !literal.is_empty() {
            parts.push(TemplatePart::Text(std::mem::take(&mut literal)));
        }
        parts.push(TemplatePart::Name { name: name.to_owned(), part });
        rest = &after[end + 1..];
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        parts.push(TemplatePart::Text(literal));
    }
    Ok(parts)
}

/// Key below `runtime`, and what is wrong with it.
type Fault = (String, String);

/// Everything that is wrong with an executable, each thing once.
pub(crate) fn faults(executable: &Executable) -> Vec<Fault> {
    let mut faults: Vec<Fault> = Vec::new();
    if executable.program.is_empty() {
        faults.push(("program".into(), "is empty".into()));
    }
    if executable.actions.is_empty() {
        faults.push(("actions".into(), "an executable needs at least one action".into()));
    }
    if executable.concurrency_max == Some(0) {
        faults.push(("concurrency_max".into(), "must be at least 1".into()));
    }
    for (name, action) in &executable.actions {
        for (key, message) in of_action(action) {
            let fault = (format!("actions.{name}.{key}"), message);
            if !faults.contains(&fault) {
                faults.push(fault);
            }
        }
    }
    faults
}

fn of_action(action: &Action) -> Vec<Fault> {
    let mut faults = of_templates(action);
    faults.extend(of_parameters(action));
    faults.extend(check_cache(action).err());
    if let Some(rule) = action.cancel.as_ref().filter(|rule| !CANCEL_SIGNALS.contains(&rule.signal.as_str()))
    {
        faults.push(("cancel.signal".into(), format!("`{}` is none of {CANCEL_SIGNALS:?}", rule.signal)));
    }
    if action.cancel.as_ref().is_some_and(|rule| rule.grace_ms > CANCEL_GRACE_MS_MAX) {
        let message = format!("must be at most {CANCEL_GRACE_MS_MAX}, which is a minute");
        faults.push(("cancel.grace_ms".into(), message));
    }
    if let Some(message) =
        action.progress.as_ref().and_then(|progress| check_progress(&progress.pattern).err())
    {
        faults.push(("progress.pattern".to_owned(), message));
    }
    if action.timeout_seconds.is_some_and(|seconds| !seconds.is_finite() || seconds <= 0.0) {
        faults.push(("timeout_seconds".into(), "must be above 0".into()));
    }
    faults
}

fn of_templates(action: &Action) -> Vec<Fault> {
    let mut faults = Vec::new();
    for argument in &action.argv {
        let texts = match argument {
            Argument::Always(text) => std::slice::from_ref(text),
            Argument::When { when, args } => {
                if !action.parameters.contains_key(when) {
                    faults.push(("argv".into(), format!("`when` names `{when}`, which is no parameter")));
                }
                args.as_slice()
            }
        };
        texts.iter().for_each(|text| faults.extend(of_template(action, "argv", text)));
    }
    if let Some(text) = &action.stdin {
        faults.extend(of_template(action, "stdin", text));
    }
    for (name, text) in &action.outputs {
        let key = format!("outputs.{name}");
        if BUILT_IN_NAMES.contains(&name.as_str()) || action.parameters.contains_key(name) {
            faults.push((key.clone(), "the name is taken".into()));
        }
        faults.extend(of_template(action, &key, text));
    }
    faults
}

fn of_template(action: &Action, key: &str, text: &str) -> Vec<Fault> {
    let parts = match parse_template(text) {
        Ok(parts) => parts,
        Err(message) => return vec![(key.to_owned(), message)],
    };
    let is_known = |name: &str| {
        BUILT_IN_NAMES.contains(&name)
            || action.parameters.contains_key(name)
            || action.outputs.contains_key(name)
    };
    let unknown = parts.into_iter().filter_map(|part| match part {
        TemplatePart::Name { name, .. } if !is_known(&name) => Some((
            key.to_owned(),
            format!(
                "`{{{name}}}` is neither a parameter nor an output; a brace that stands for itself is written twice, \
                 `{{{{` and `}}}}`"
            ),
        )),
        _ => None,
    });
    unknown.collect()
}

/// What is kept is files, all of them, and they depend on a file: else the next call would find half a result, or an
/// old one.
fn check_cache(action: &Action) -> Result<(), Fault> {
    let in_argv = action.argv.iter().flat_map(|argument| match argument {
        Argument::Always(text) => std::slice::from_ref(text),
        Argument::When { args, .. } => args.as_slice(),
    });
    let named = in_argv.chain(&action.stdin).chain(action.outputs.values()).any(|text| {
        parse_template(text).is_ok_and(|parts| {
            parts.iter().any(|part| matches!(part, TemplatePart::Name { name, .. } if name == "cache_dir"))
        })
    });
    if !named {
        return Ok(());
    }
    if action.main_input().is_none() {
        let message =
            "`{cache_dir}` is named after an input: it needs a required parameter of type `input_file`";
        return Err(("parameters".into(), message.into()));
    }
    if action.result != ResultSource::Files || !action.uses_cache_dir() {
        let message = "`{cache_dir}` keeps files: it needs `outputs` in it, and the result `files`";
        return Err(("result".into(), message.into()));
    }
    for (name, text) in &action.outputs {
        let is_input = action.parameters.iter().any(|(parameter, declared)| {
            declared.kind == ParameterKind::InputFile && *text == format!("{{{parameter}}}")
        });
        if !is_input && !text.starts_with(CACHE_DIR_PREFIX) {
            let message = format!(
                "beside an output in `{{cache_dir}}` each begins with `{CACHE_DIR_PREFIX}` or is one of the input files"
            );
            return Err((format!("outputs.{name}"), message));
        }
    }
    Ok(())
}

fn of_parameters(action: &Action) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (name, parameter) in &action.parameters {
        let key = format!("parameters.{name}");
        if BUILT_IN_NAMES.contains(&name.as_str()) || name == crate::envelope::ACTION_KEY {
            faults.push((key.clone(), "the name is reserved".into()));
        }
        let of_its_type = Parameter { kind: parameter.kind, ..Parameter::default() };
        let mut choices = parameter.choices.iter().flatten();
        if let Some(why) = choices.find_map(|choice| check_value(&of_its_type, choice).err()) {
            faults.push((key.clone(), format!("a choice of its `enum` {why}")));
        }
        if let Some(why) =
            parameter.default.as_ref().and_then(|default| check_value(parameter, default).err())
        {
            faults.push((key.clone(), format!("its default {why}")));
        }
        if let (Some(minimum), Some(maximum)) = (parameter.minimum, parameter.maximum)
            && minimum > maximum
        {
            let message = format!("its minimum of {minimum} is above its maximum of {maximum}");
            faults.push((key, message));
        }
    }
    faults
}

fn check_progress(pattern: &str) -> Result<(), String> {
    let regex = regex_lite::Regex::new(pattern).map_err(|error| error.to_string())?;
    let names: Vec<&str> = regex.capture_names().flatten().collect();
    let complete = names.contains(&"fraction")
        || names.contains(&"percent")
        || (names.contains(&"current") && names.contains(&"total"));
    if complete {
        Ok(())
    } else {
        Err("needs a group named `fraction`, `percent`, or `current` and `total`".into())
    }
}
