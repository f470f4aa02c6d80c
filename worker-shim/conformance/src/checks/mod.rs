//! The checks, in the order in which they are made: what only reads first, what ends the tool last.
//!
//! To add one: a section of `CONTRACT.md` says it, `says` repeats it shortened, `run` returns what it saw, as its value
//! when that is what the contract says and as its error otherwise.

mod calls;
mod control;
mod failures;
mod streams;
mod surface;
mod tool;

use crate::client::Answer;
use crate::session::Session;
use serde_json::Value;

/// What was seen: good, or not.
pub type Outcome = Result<String, String>;

/// What a check does to a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Touch {
    /// Reads, and sends what must be refused before the tool hears of it.
    Reads,
    /// Has the tool do something.
    Fixture,
}

/// One check.
#[derive(Debug, Clone, Copy)]
pub struct Check {
    /// Stable, dotted: what it is about, and what of that.
    pub id: &'static str,
    /// Section of `CONTRACT.md`.
    pub section: &'static str,
    /// What the contract says, shortened.
    pub says: &'static str,
    /// What it does to the worker.
    pub touch: Touch,
    /// Actions of the fixture that it needs.
    pub needs: &'static [&'static str],
    /// Makes it.
    pub run: fn(&Session) -> Outcome,
}

/// All of them.
pub fn all() -> impl Iterator<Item = &'static Check> {
    [
        surface::CHECKS,
        tool::CHECKS,
        calls::CHECKS,
        failures::CHECKS,
        streams::CHECKS,
        control::CHECKS,
        tool::LAST,
    ]
    .into_iter()
    .flatten()
}

/// A check that reads.
const fn reads(
    id: &'static str,
    section: &'static str,
    says: &'static str,
    run: fn(&Session) -> Outcome,
) -> Check {
    Check { id, section, says, touch: Touch::Reads, needs: &[], run }
}

/// A check that needs actions of the fixture.
const fn asks(
    id: &'static str,
    section: &'static str,
    says: &'static str,
    needs: &'static [&'static str],
    run: fn(&Session) -> Outcome,
) -> Check {
    Check { id, section, says, touch: Touch::Fixture, needs, run }
}

/// Status, type and body in one line.
fn shown(answer: &Answer) -> String {
    const SHOWN_CHARS_MAX: usize = 300;
    let text = answer.text();
    let short: String = text.chars().take(SHOWN_CHARS_MAX).collect();
    let more = if short.len() < text.len() { " …" } else { "" };
    let kind = answer.header("content-type").unwrap_or("no content type");
    format!("{} {kind}: {short}{more}", answer.status)
}

/// Good when `good`, with what was seen either way.
fn judge(good: bool, seen: impl Into<String>) -> Outcome {
    if good { Ok(seen.into()) } else { Err(seen.into()) }
}

/// A 200 of JSON.
fn json_of(answer: &Answer) -> Result<Value, String> {
    let is_json = answer.header("content-type") == Some("application/json");
    if answer.status != 200 || !is_json {
        return Err(format!("no 200 of application/json, but {}", shown(answer)));
    }
    serde_json::from_slice(&answer.body).map_err(|error| format!("no JSON ({error}): {}", shown(answer)))
}

/// A status with `{"detail": TEXT}` and nothing else; returns the text.
fn detail_of(answer: &Answer, status: u16) -> Result<String, String> {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or(Value::Null);
    // What the tool says of its failure may stand beside it, and what there is in place of what is not.
    let only = body.as_object().is_some_and(|body| {
        body.keys().all(|key| matches!(key.as_str(), "detail" | "_job_error" | "methods"))
    });
    match body["detail"].as_str() {
        Some(detail) if only && answer.status == status => Ok(detail.to_owned()),
        _ => Err(format!("no {status} with a detail, but {}", shown(answer))),
    }
}

/// The `status` of a hook's answer, which must be one of these.
fn status_of(answer: &Answer, expected: &[&str]) -> Outcome {
    let body = json_of(answer)?;
    let said = body["status"].as_str().unwrap_or_default();
    judge(expected.contains(&said), format!("{body}"))
}
