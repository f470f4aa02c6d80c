//! `cargo xtask mutants`: plants the faults of `tests/mutants` one at a time and shows that the test named beside each
//! finds it. A test that passes with its fault in the code proves nothing about it.
//!
//! What must hold: the checkout is only read; each test passes without a fault before it is asked to find one.

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
use std::collections::BTreeSet;
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
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["fault", "planted in", "test", "verdict", "s"]);
    let mut verdicts = Vec::new();
    for mutation in &mutations {
        let begun = Instant::now();
        let run = copy.run_with(mutation)?;
        let verdict = Verdict::of(mutation.times_out, &run);
        let seconds = format!("{:.0}", begun.elapsed().as_secs_f32());
        eprintln!("{}: {}, {seconds} s", mutation.name, verdict.as_str());
        if let Run::NotBuilt(said) = &run {
            said.lines().take(COMPILER_LINES_MAX).for_each(|line| eprintln!("  {line}"));
        }
        let test = format!("{} {}", mutation.package, mutation.test);
        table.add_row([&mutation.name, &mutation.file, &test, verdict.as_str(), &seconds]);
        verdicts.push(verdict);
    }
    print(&table, &verdicts);
    Ok(verdicts.iter().all(|verdict| *verdict == Verdict::Found))
}

/// Runs each test once on the copy as it is.
fn pass_without_faults(copy: &Copy, mutations: &[Mutation]) -> Result<()> {
    let mut done = BTreeSet::new();
    for mutation in mutations {
        let Mutation { package, target, test, .. } = mutation;
        if !done.insert((package, target, test)) {
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
        "MUTANTS {} planted, {} found, {} survived",
        verdicts.len() - count(Verdict::DoesNotCompile),
        count(Verdict::Found),
        count(Verdict::Survived) + count(Verdict::TimedOut),
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
}
