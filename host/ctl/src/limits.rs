//! What to do where the system refused for a limit of its own: too many open files, no more threads, a file that may not
//! grow. The limit decides the next step, whoever ran into it: that a file "cannot be locked" or "written" is no matter of
//! its disk then.

use cjm_platform::fds::open_fd_count;
use cjm_platform::limits::{self, Limit};
use cjm_wire::describe::ErrorReport;

/// Errors whose words are a tool's, whose numbers say nothing of this program.
const OF_TOOLS: [&str; 2] = ["call.", "composition."];

/// Numbers of the system's errors, and the limit behind each.
const NUMBERS: [(i32, Limit); 5] = [
    (24, Limit::OpenFiles),
    (23, Limit::OpenFiles),
    (11, Limit::Processes),
    (27, Limit::FileSize),
    (12, Limit::Memory),
];

/// How many files a database has open: itself, its log and the log's index.
const DATABASE_FILES: u64 = 3;

/// Sets the next step of an error that a limit of the system is behind.
pub(crate) fn advise(report: &mut ErrorReport) {
    if OF_TOOLS.iter().any(|prefix| report.code.starts_with(prefix)) {
        return;
    }
    let said = || std::iter::once(&report.message).chain(&report.causes);
    let found = NUMBERS.iter().find(|(number, _)| {
        // As Rust writes an error of the system, for people and in an account.
        let (shown, debug) = (format!("(os error {number})"), format!("Os {{ code: {number},"));
        said().any(|text| text.contains(&shown) || text.contains(&debug))
    });
    if let Some((_, limit)) = found {
        report.next_step = next_step(*limit);
    } else if said().any(|text| text.contains("out of memory") || text.contains("`ulimit -v`")) {
        // A database has no number for it, and ours comes before the system's.
        report.next_step = next_step(Limit::Memory);
    } else if report.code.starts_with("store.")
        && let Some(files) = limits::soft(Limit::OpenFiles)
        && said().any(|text| text.contains("unable to open database file"))
        // Where they cannot be counted, there was none left to count them with.
        && !open_fd_count().is_ok_and(|open| open as u64 + DATABASE_FILES <= files)
    {
        // The database keeps the number to itself here too.
        report.next_step = next_step(Limit::OpenFiles);
        report.causes.push(format!("no more than {files} files may be open here (`ulimit -n`)"));
    } else if report.code.starts_with("store.")
        && let Some(bytes) = limits::soft(Limit::FileSize)
        && said().any(|text| text.contains("disk I/O error"))
    {
        // The database keeps the number to itself.
        report.next_step = format!("{}, if the disk is well", next_step(Limit::FileSize));
        report.causes.push(format!("no file may be longer than {bytes} bytes here (`ulimit -f`)"));
    }
}

fn next_step(limit: Limit) -> String {
    let now = |unit: u64| limits::soft(limit).map_or(String::new(), |now| format!(", now {}", now / unit));
    match limit {
        Limit::OpenFiles => format!("raise the limit on open files (`ulimit -n`{})", now(1)),
        Limit::Processes => format!(
            "raise the limit on processes and threads (`ulimit -u`{}) or on memory (`ulimit -v`), or end some of this \
             user's processes",
            now(1)
        ),
        // The shell counts in KiB.
        Limit::FileSize => format!("raise the limit on the size of files (`ulimit -f`{})", now(1024)),
        Limit::Memory => "free memory, or raise the limit on it (`ulimit -v`)".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_decides_and_not_the_place() {
        let report = |code: &str, cause: i32| {
            let mut report = ErrorReport::new(code, "cannot lock x", "check the disk", 1);
            report.causes.push(std::io::Error::from_raw_os_error(cause).to_string());
            advise(&mut report);
            report.next_step
        };
        assert!(report("host.directory", 24).contains("ulimit -n"));
        assert!(report("host.threads", 11).contains("ulimit -u"));
        assert!(report("store.file", 27).contains("ulimit -f"));
        assert_eq!(report("host.directory", 13), "check the disk");
        let mut of_sqlite = ErrorReport::new("store.database", "read the journal", "check the disk", 17);
        of_sqlite.causes.push("out of memory".to_owned());
        advise(&mut of_sqlite);
        assert!(of_sqlite.next_step.contains("ulimit -v"));
        assert_eq!(report("call.tool_failed", 24), "check the disk", "a tool's own words");
    }
}
