//! `cargo xtask mutants`: plants the faults of `tests/mutants` one at a time and shows that the test named beside each
//! finds it. A test that passes with its fault in the code proves nothing about it.
//!
//! What must hold: the checkout is only read; each test passes without a fault before it is asked to find one, and once
//! more after it has: one that fails now and then has found nothing. That is a run for each test, not for each fault.

mod copy;
mod entries;
mod python;
mod run;

use anyhow::{Result, bail, ensure};
use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table};
use copy::Copy;
use entries::Mutation;
use run::Run;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// Lines of the compiler that are shown of an entry that does not compile.
const COMPILER_LINES_MAX: usize = 30;

/// What became of a planted fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Found,
    Survived,
    DoesNotCompile,
    /// The test neither passed nor failed, and the entry does not say that it may.
    TimedOut,
    /// The test failed with the fault, and failed once more without it.
    FailsWithoutToo,
}

impl Verdict {
    fn of(may_time_out: bool, run: &Run) -> Self {
        match run {
            Run::Failed => Self::Found,
            Run::TimedOut if may_time_out => Self::Found,
            Run::TimedOut => Self::TimedOut,
            Run::Passed(_) => Self::Survived,
            Run::NotBuilt(_) => Self::DoesNotCompile,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Found => "found",
            Self::Survived => "SURVIVED",
            Self::DoesNotCompile => "DOES NOT COMPILE",
            Self::TimedOut => "TIMED OUT",
            Self::FailsWithoutToo => "ITS TEST FAILS WITHOUT THE FAULT TOO",
        }
    }
}

/// Plants and prints; false when a fault was not found.
pub(crate) fn mutants(names: &[String]) -> Result<bool> {
    let mut mutations = entries::read(&crate::steps::root())?;
    let meant = |known: &Mutation, name: &String| known.name.contains(name) || known.file.contains(name);
    if let Some(name) = names.iter().find(|name| !mutations.iter().any(|known| meant(known, name))) {
        bail!("no fault is named `{name}` or planted in such a file");
    }
    mutations.retain(|known| names.is_empty() || names.iter().any(|name| meant(known, name)));
    let copy = Copy::of_the_checkout()?;
    pass_without_faults(&copy, &mutations)?;
    let (mut verdicts, mut times) = (Vec::new(), Vec::new());
    for mutation in &mutations {
        let begun = Instant::now();
        let run = copy.run_with(mutation)?;
        let verdict = Verdict::of(mutation.times_out, &run);
        let seconds = format!("{:.0}", begun.elapsed().as_secs_f32());
        eprintln!("{}: {}, {seconds} s", mutation.name, verdict.as_str());
        if let Run::NotBuilt(said) = &run {
            said.lines().take(COMPILER_LINES_MAX).for_each(|line| eprintln!("  {line}"));
        }
        verdicts.push(verdict);
        times.push(seconds);
    }
    doubt(&mutations, &mut verdicts, |mutation| passes_again(&copy, mutation))?;
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["fault", "planted in", "test", "verdict", "s"]);
    for ((mutation, verdict), seconds) in mutations.iter().zip(&verdicts).zip(&times) {
        let test = format!("{} {}", mutation.package, mutation.test);
        table.add_row([&mutation.name, &mutation.file, &test, verdict.as_str(), seconds]);
    }
    print(&table, &verdicts);
    Ok(verdicts.iter().all(|verdict| *verdict == Verdict::Found))
}

/// Takes back what was found by a test that does not pass without the fault. Each test is asked once.
fn doubt(
    mutations: &[Mutation],
    verdicts: &mut [Verdict],
    mut passes: impl FnMut(&Mutation) -> Result<bool>,
) -> Result<()> {
    let mut known = BTreeMap::new();
    for (mutation, verdict) in mutations.iter().zip(verdicts) {
        if *verdict != Verdict::Found {
            continue;
        }
        let passed = match known.get(&mutation.command()) {
            Some(passed) => *passed,
            None => {
                let passed = passes(mutation)?;
                known.insert(mutation.command(), passed);
                passed
            }
        };
        if !passed {
            *verdict = Verdict::FailsWithoutToo;
        }
    }
    Ok(())
}

/// Runs the test of a mutation on the copy, whole again: [`Copy::run`] builds anew what was built with a fault, programs
/// that the test starts among it.
fn passes_again(copy: &Copy, mutation: &Mutation) -> Result<bool> {
    let Mutation { package, target, test, .. } = mutation;
    let passed = match copy.run(mutation)? {
        Run::Passed(tests) => tests > 0,
        Run::Failed | Run::TimedOut => false,
        Run::NotBuilt(said) => bail!("{package} {target} does not compile any more:\n{said}"),
    };
    let words = if passed { "passes once more without a fault" } else { "FAILS WITHOUT A FAULT" };
    eprintln!("{package} {target} {test}: {words}");
    Ok(passed)
}

/// Runs each test once on the copy as it is.
fn pass_without_faults(copy: &Copy, mutations: &[Mutation]) -> Result<()> {
    let mut done = BTreeSet::new();
    for mutation in mutations {
        let Mutation { package, target, test, .. } = mutation;
        if !done.insert(mutation.command()) {
            continue;
        }
        match copy.run(mutation)? {
            Run::Passed(tests) => ensure!(tests > 0, "{package} {target}: no test is named {test}"),
            Run::Failed | Run::TimedOut => bail!("{package} {target} {test} fails without any fault planted"),
            Run::NotBuilt(said) => bail!("{package} {target} does not compile:\n{said}"),
        }
        eprintln!("{package} {target} {test}: passes as it is");
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the table is the result")]
fn print(table: &Table, verdicts: &[Verdict]) {
    let count = |wanted: Verdict| verdicts.iter().filter(|verdict| **verdict == wanted).count();
    println!("{table}");
    println!(
        "MUTANTS {} planted, {} found, {} survived, {} failed without the fault too",
        verdicts.len() - count(Verdict::DoesNotCompile),
        count(Verdict::Found),
        count(Verdict::Survived) + count(Verdict::TimedOut),
        count(Verdict::FailsWithoutToo),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_failed_test_has_found_a_fault() {
        for (may_time_out, run, verdict) in [
            (false, Run::Failed, Verdict::Found),
            (false, Run::Passed(1), Verdict::Survived),
            (false, Run::NotBuilt(String::new()), Verdict::DoesNotCompile),
            (false, Run::TimedOut, Verdict::TimedOut),
            (true, Run::TimedOut, Verdict::Found),
            (true, Run::Passed(1), Verdict::Survived),
        ] {
            assert_eq!(Verdict::of(may_time_out, &run), verdict);
        }
    }

    #[test]
    fn a_test_that_fails_now_and_then_has_found_nothing_and_each_is_asked_once() {
        let by = |test: &str| {
            let mut mutation = Mutation::default();
            mutation.test = test.to_owned();
            mutation
        };
        let mutations = [by("firm"), by("flaky"), by("firm"), by("flaky"), by("flaky"), by("blind")];
        let found = Verdict::Found;
        let mut verdicts = [found, found, found, Verdict::Survived, found, Verdict::Survived];
        let mut asked = Vec::new();
        doubt(&mutations, &mut verdicts, |mutation| {
            asked.push(mutation.test.clone());
            Ok(mutation.test != "flaky")
        })
        .expect("they run");
        assert_eq!(asked, ["firm", "flaky"]);
        let taken_back = Verdict::FailsWithoutToo;
        assert_eq!(verdicts, [found, taken_back, found, Verdict::Survived, taken_back, Verdict::Survived]);
    }
}
