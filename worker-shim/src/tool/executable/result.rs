//! From how a process ended and what it wrote to the call's answer.

use super::Program;
use super::arguments::kind_of_file;
use super::cache::file_value;
use super::hashing::{Hashes, digits};
use super::lines::{LINE_BYTES_MAX, LineCutter, LineEnd, Tail};
use super::plan::Plan;
use super::process::{Ended, SIGKILL, Stop};
use crate::sdk::ToolError;
use crate::tool::quote;
use bytes::Bytes;
use cjm_platform::usage::sample_machine;
use cjm_platform::{Signal, WaitStatus};
use cjm_wire::cut;
use cjm_wire::runtime::{Action, ResultSource};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use std::path::Path;

/// Bytes at the end of a failed result in which its last lines are looked for.
const STDOUT_TAIL_BYTES: usize = 16 * 1024;
/// Bytes of garbage quoted in an error.
const QUOTE_BYTES_MAX: usize = 200;
/// Free memory, in MB, with which nobody kills for lack of it; as workers are judged.
const PLENTY_FREE_MB: u64 = 1024;

/// A process that ended well.
#[derive(Debug)]
pub(crate) struct Done<'a> {
    action: &'a Action,
    code: i32,
    ended: Ended,
    files: Map<String, Value>,
}

/// Says whether the call succeeded, and if not, why.
pub(crate) fn judge<'a>(
    program: &Program,
    action: &'a Action,
    plan: &Plan,
    ended: Ended,
) -> Result<Done<'a>, ToolError> {
    let name = program.short_name();
    match ended.stop {
        Some(Stop::Cancelled) => return Err(ToolError::cancelled()),
        Some(Stop::TimedOut(limit)) => {
            let error = ToolError::too_slow(format!(
                "{name} was stopped: it ran longer than {} s, which is the `timeout_seconds` of its action",
                limit.as_secs_f64()
            ));
            return Err(with_tail(error, &ended));
        }
        Some(Stop::TooMuchOutput(bytes_max)) => {
            let message =
                format!("{name} was stopped: it wrote more than {bytes_max} bytes where its result is read");
            // The end of so much says nothing.
            let ended = Ended { stdout: Vec::new(), ..ended };
            return Err(with_tail(ToolError::fatal(message), &ended));
        }
        None => {}
    }
    let code = match ended.status {
        WaitStatus::Exited { code } => code,
        // Nobody here sent it.
        WaitStatus::Signaled { signal: SIGKILL, .. } => {
            return Err(with_tail(killed(&name, &ended, available_mb()), &ended));
        }
        WaitStatus::Signaled { signal, core_dumped } => {
            // Those by which a process is asked to end; all others tell of a fault in it.
            let known = Signal::from_raw(signal);
            let is_wish = matches!(known, Some(Signal::TERM | Signal::INT | Signal::HUP | Signal::QUIT));
            let signal = known.map_or_else(|| signal.to_string(), |signal| signal.to_string());
            let core = if core_dumped { " and dumped core" } else { "" };
            let error = if is_wish {
                ToolError::killed(format!("{name} was ended by {signal}, from outside or by itself"))
            } else {
                ToolError::fatal(format!("{name} was ended by {signal}{core}"))
            };
            return Err(with_tail(error, &ended));
        }
    };
    let good = action.success_exit_codes.as_deref().unwrap_or(&[0]);
    if !good.contains(&code) {
        let said =
            ended.tail.last().map(str::to_owned).or_else(|| stdout_tail(&ended).last().map(str::to_owned));
        let words = said.map(|line| format!(": {line}")).unwrap_or_default();
        return Err(with_tail(
            ToolError::exit_code(format!("{name} ended with exit code {code}{words}")),
            &ended,
        ));
    }
    let files = files(action, plan, &name)?;
    Ok(Done { action, code, ended, files })
}

impl<'a> Done<'a> {
    /// What a call like this one has made before.
    pub(crate) fn before(action: &'a Action, files: Map<String, Value>) -> Self {
        Self { action, code: 0, ended: Ended::well(), files }
    }

    /// Adds to each file what it holds.
    pub(crate) async fn hash_files(&mut self, hashes: &Hashes) -> Result<(), ToolError> {
        if !matches!(self.action.result, ResultSource::Files | ResultSource::ExitCode) {
            return Ok(());
        }
        for file in self.files.values_mut() {
            let path = Path::new(file["path"].as_str().unwrap_or_default());
            let state = hashes.state(path).await?;
            file["bytes"] = state.size.into();
            file["sha256"] = digits(&state.content_hash).into();
        }
        Ok(())
    }

    /// The files, to correct where they lie.
    pub(crate) fn files_mut(&mut self) -> &mut Map<String, Value> {
        &mut self.files
    }

    /// Whether a byte of the result is shown as `\u{fffd}`, since it is no UTF-8: the rest of it is still worth having.
    pub(crate) fn is_replaced(&self) -> bool {
        let is_text = matches!(self.action.result, ResultSource::StdoutText | ResultSource::StdoutLines);
        self.ended.replaced || is_text && std::str::from_utf8(&self.ended.stdout).is_err()
    }

    /// Whether the result went out line by line already.
    pub(crate) fn was_streamed(&self) -> bool {
        self.ended.streamed
    }

    /// The result as JSON.
    pub(crate) fn body(self) -> Result<Bytes, ToolError> {
        let value = match self.action.result {
            ResultSource::ExitCode if self.action.outputs.is_empty() => json!({ "exit_code": self.code }),
            ResultSource::ExitCode => json!({ "exit_code": self.code, "files": self.files }),
            ResultSource::Files => Value::Object(self.files),
            ResultSource::StdoutText => {
                let text = String::from_utf8_lossy(&self.ended.stdout);
                let text = text.strip_suffix('\n').unwrap_or(&text);
                Value::from(text.strip_suffix('\r').unwrap_or(text))
            }
            ResultSource::StdoutLines => {
                String::from_utf8_lossy(&self.ended.stdout).lines().map(Value::from).collect()
            }
            ResultSource::StdoutJson => return json_body(self.ended),
        };
        Ok(value.to_string().into())
    }
}

/// `json` without the white space between its parts; None where there is none.
fn compact(json: &[u8]) -> Option<Vec<u8>> {
    let mut in_text = false;
    let mut escaped = false;
    let mut keep = |byte: u8| {
        let kept = in_text || !matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
        (in_text, escaped) = match (byte, escaped) {
            (b'"', false) => (!in_text, false),
            (b'\\', false) => (in_text, in_text),
            _ => (in_text, false),
        };
        kept
    };
    let first = json.iter().position(|byte| !keep(*byte))?;
    let mut out = Vec::with_capacity(json.len());
    out.extend_from_slice(&json[..first]);
    out.extend(json[first + 1..].iter().copied().filter(|byte| keep(*byte)));
    Some(out)
}

/// The program's own words, once they are known to be one JSON value: compact, as all results are, and nothing else of
/// them changed.
fn json_body(ended: Ended) -> Result<Bytes, ToolError> {
    let out = Bytes::from(ended.stdout);
    let trimmed = out.slice_ref(out.trim_ascii());
    match serde_json::from_slice::<&RawValue>(&trimmed) {
        Ok(_) => Ok(compact(&trimmed).map_or(trimmed, Bytes::from)),
        Err(error) if trimmed.is_empty() => {
            Err(ToolError::fatal(format!("the program wrote nothing where JSON was promised ({error})")))
        }
        Err(error) => {
            let quote = quote(&trimmed, QUOTE_BYTES_MAX);
            let message =
                format!("the program wrote something else where JSON was promised ({error}): {quote:?}");
            let error = ToolError::fatal(message);
            Err(match ended.tail.text() {
                Some(tail) => error.traceback(tail),
                None => error,
            })
        }
    }
}

fn files(action: &Action, plan: &Plan, name: &str) -> Result<Map<String, Value>, ToolError> {
    let mut files = Map::new();
    for (output, path) in &plan.outputs {
        match std::fs::metadata(path) {
            Ok(meta) if !meta.is_file() => {
                let message = format!(
                    "{name} ended well, and its output `{output}` is a {} and no file: {}",
                    kind_of_file(meta.file_type()),
                    path.display()
                );
                return Err(ToolError::fatal(message));
            }
            Ok(meta) => {
                files.insert(output.clone(), file_value(path, meta.len(), None));
            }
            Err(error) if action.result == ResultSource::Files => {
                let message = format!(
                    "{name} ended well, and its output `{output}` is not there: {}: {error}",
                    path.display()
                );
                return Err(ToolError::fatal(message));
            }
            Err(_) => {}
        }
    }
    Ok(files)
}

/// A SIGKILL that nobody here has sent: what the kernel says decides, as for workers.
fn killed(name: &str, ended: &Ended, available_mb: Option<u64>) -> ToolError {
    match (ended.oom_kills, available_mb) {
        (Some(0), Some(free)) if free >= PLENTY_FREE_MB => ToolError::killed(format!(
            "{name} was killed (SIGKILL): by somebody, by itself or at a limit of its processor time; not for lack of \
             memory, since the kernel killed nothing for that meanwhile and {free} MB were available"
        )),
        (Some(killed @ 1..), _) => ToolError::resource(format!(
            "{name} was killed (SIGKILL), and the kernel killed {killed} process(es) for lack of memory meanwhile"
        )),
        _ => ToolError::resource(format!(
            "{name} was killed (SIGKILL): by somebody, by itself, or for lack of memory"
        )),
    }
}

fn available_mb() -> Option<u64> {
    sample_machine().ok().map(|machine| machine.memory_available_bytes / (1024 * 1024))
}

/// Adds the last lines of standard error.
fn with_tail(error: ToolError, ended: &Ended) -> ToolError {
    let said: Vec<String> = stdout_tail(ended).text().into_iter().chain(ended.tail.text()).collect();
    if said.is_empty() { error } else { error.traceback(said.join("\n")) }
}

/// What a program that was cancelled wrote last of what was to be its result. The answer to such a call carries no words.
pub(crate) fn words_of_cancelled(ended: &Ended) -> Option<String> {
    let words = (ended.stop == Some(Stop::Cancelled)).then(|| stdout_tail(ended).text())??;
    Some(format!("{words}\n"))
}

/// The last lines of what was to be the result.
fn stdout_tail(ended: &Ended) -> Tail {
    let mut tail = Tail::default();
    let mut lines = LineCutter::new(LineEnd::NewlineOrReturn, LINE_BYTES_MAX);
    let from = ended.stdout.len().saturating_sub(STDOUT_TAIL_BYTES);
    if from > 0 {
        lines.push(cut::mark(from).as_bytes(), |_, _| {});
    }
    lines.push(&ended.stdout[from..], |line, end| tail.push(line, end));
    lines.finish(|line, end| tail.push(line, end));
    tail
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_killed_ran_short_of_memory_only_where_the_kernel_does_not_deny_it() {
        use crate::sdk::Kind;
        use cjm_wire::error::ErrorCategory::Resource;
        for (oom_kills, free, expected, words) in [
            (Some(0), Some(PLENTY_FREE_MB), Kind::Killed, "not for lack of memory"),
            (Some(0), Some(PLENTY_FREE_MB - 1), Kind::Category(Resource), "or for lack of memory"),
            (Some(0), None, Kind::Category(Resource), "or for lack of memory"),
            (None, Some(PLENTY_FREE_MB), Kind::Category(Resource), "or for lack of memory"),
            (
                Some(2),
                Some(PLENTY_FREE_MB),
                Kind::Category(Resource),
                "killed 2 process(es) for lack of memory",
            ),
        ] {
            let error = killed("p", &Ended { oom_kills, ..Ended::well() }, free);
            assert_eq!(error.kind(), expected, "{oom_kills:?} {free:?}");
            assert!(error.to_string().contains(words), "{error}");
        }
    }

    #[test]
    fn white_space_goes_and_texts_stay() {
        for (given, expected) in [
            (r#"{ "a b" : [ 1 , "\" x \\" , "é  ☃" ] }"#, Some(r#"{"a b":[1,"\" x \\","é  ☃"]}"#)),
            ("[1,\n\t2]", Some("[1,2]")),
            (r#"{"a":" "}"#, None),
            ("7", None),
        ] {
            let found = compact(given.as_bytes()).map(|bytes| String::from_utf8(bytes).unwrap());
            assert_eq!(found.as_deref(), expected, "{given}");
        }
    }
}
