//! Reads `/proc`: the list of pids and the fields of `/proc/PID/stat`.
//!
//! It does not interpret them. What must hold: one open and one read for each process, no allocation, because
//! clearing a tree races against processes that fork.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// A stat line is at most 64 bytes of name and some 50 numbers of at most 20 digits.
const STAT_BYTES_MAX: usize = 2048;

/// Room for a list of children at first: what the kernel gives in one read.
const CHILDREN_BYTES: usize = 4096;

/// The fields of `/proc/PID/stat` that anybody here needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) pid: i32,
    pub(crate) state: char,
    pub(crate) ppid: i32,
    pub(crate) pgid: i32,
    pub(crate) sid: i32,
    /// The kernel's flags of the process, `PF_*`.
    pub(crate) flags: u32,
    /// utime + stime + the same of reaped children.
    pub(crate) cpu_ticks: u64,
    pub(crate) threads: u64,
    pub(crate) start_ticks: u64,
    pub(crate) rss_pages: u64,
    /// How it ended, as wait(2) codes it; 0 while it lives, and where the kernel does not say.
    pub(crate) exit_code: i32,
}

/// The pids that live now, in ascending order. One that is born or dies during the walk may be missing.
pub(crate) fn pids() -> io::Result<impl Iterator<Item = i32>> {
    Ok(std::fs::read_dir("/proc")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| *pid > 0))
}

/// The children of one process.
#[derive(Debug, Default)]
pub(crate) struct Children {
    pub(crate) pids: Vec<i32>,
    /// How many threads the process has. Each has a list of its own, and one that ends hands its list to another,
    /// so what is read of several threads may miss some.
    pub(crate) threads: usize,
}

/// Whether this kernel lists the children of a process (`CONFIG_PROC_CHILDREN`).
pub(crate) fn lists_children() -> bool {
    std::fs::metadata("/proc/thread-self/children").is_ok()
}

/// The children of `pid` as the kernel lists them, oldest first; empty if it is gone. NotFound alone where the
/// kernel has no such lists is not told apart: ask `lists_children` first.
pub(crate) fn children(pid: i32) -> io::Result<Children> {
    let mut children = Children::default();
    let mut text = Vec::with_capacity(CHILDREN_BYTES);
    let tasks = match std::fs::read_dir(format!("/proc/{pid}/task")) {
        Ok(tasks) => tasks,
        Err(error) if is_gone(&error) => return Ok(children),
        Err(error) => return Err(error),
    };
    for task in tasks {
        let path = match task {
            Ok(task) => task.path().join("children"),
            Err(error) if is_gone(&error) => continue,
            Err(error) => return Err(error),
        };
        children.threads += 1;
        text.clear();
        match File::open(path).and_then(|mut file| file.read_to_end(&mut text)) {
            Ok(_) => {}
            Err(error) if is_gone(&error) => continue,
            Err(error) => return Err(error),
        }
        let words = text.split(u8::is_ascii_whitespace);
        children.pids.extend(words.filter_map(|word| std::str::from_utf8(word).ok()?.parse::<i32>().ok()));
    }
    Ok(children)
}

/// The process or thread asked about has ended, or is hidden from us.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH | libc::EACCES | libc::EPERM))
}

/// How many bytes of addresses this process has.
pub(crate) fn address_bytes() -> io::Result<u64> {
    let text = std::fs::read_to_string("/proc/self/statm")?;
    let pages = text.split_ascii_whitespace().next().and_then(|pages| pages.parse::<u64>().ok());
    let pages =
        pages.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "/proc/self/statm has no size"))?;
    Ok(pages * rustix::param::page_size() as u64)
}

/// The stat of `pid`, or None if there is no such process (any more), or it cannot be read.
pub(crate) fn read(pid: i32) -> Option<Stat> {
    try_read(pid).ok().flatten()
}

/// The same for those to whom a process that cannot be read, since no descriptor is left, is not one that is gone.
pub(crate) fn try_read(pid: i32) -> io::Result<Option<Stat>> {
    let mut path = *b"/proc/\0\0\0\0\0\0\0\0\0\0/stat";
    read_at(stat_path(&mut path, pid).as_ref())
}

/// The states of all threads of `pid`; none if it is gone.
pub(crate) fn thread_states(pid: i32) -> io::Result<Vec<char>> {
    let tasks = match std::fs::read_dir(format!("/proc/{pid}/task")) {
        Ok(tasks) => tasks,
        Err(error) if is_gone(&error) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut states = Vec::new();
    for task in tasks {
        match task.and_then(|task| read_at(&task.path().join("stat"))) {
            Ok(stat) => states.extend(stat.map(|stat| stat.state)),
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(states)
}

fn read_at(path: &Path) -> io::Result<Option<Stat>> {
    let mut line = [0_u8; STAT_BYTES_MAX];
    // Reading a process that has been reaped meanwhile gives ESRCH; both mean "gone".
    match File::open(path).and_then(|mut file| file.read(&mut line)) {
        Ok(read) => Ok(parse(&line[..read])),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn stat_path(buffer: &mut [u8; 21], pid: i32) -> &str {
    use std::io::Write;
    let mut rest = &mut buffer[..];
    // Ten digits hold every i32, so this fits.
    let _ = write!(rest, "/proc/{pid}/stat");
    let left = rest.len();
    let used = buffer.len() - left;
    std::str::from_utf8(&buffer[..used]).unwrap_or_default()
}

/// Parses a stat line. The name in parentheses may hold anything, parentheses, blanks and non-UTF-8 included;
/// the last ')' ends it.
fn parse(line: &[u8]) -> Option<Stat> {
    let name_end = line.iter().rposition(|byte| *byte == b')')?;
    let pid_end = line.iter().position(|byte| *byte == b' ')?;
    let pid = std::str::from_utf8(&line[..pid_end]).ok()?.parse().ok()?;
    let rest = std::str::from_utf8(&line[name_end + 1..]).ok()?;
    // Numbered as in proc(5): the state is field 3.
    let mut fields = rest.split_ascii_whitespace();
    let mut field = |skip: usize| fields.nth(skip);
    let state = field(0)?.chars().next()?;
    let ppid = field(0)?.parse().ok()?;
    let pgid = field(0)?.parse().ok()?;
    let sid = field(0)?.parse().ok()?;
    let flags = field(2)?.parse().ok()?; // field 9
    let mut cpu_ticks = field(4)?.parse::<u64>().ok()?; // field 14, utime
    for _ in 0..3 {
        // cutime and cstime are signed in the kernel's format but never negative in practice.
        cpu_ticks += field(0)?.parse::<u64>().unwrap_or(0);
    }
    let threads = field(2)?.parse().ok()?; // field 20
    let start_ticks = field(1)?.parse().ok()?; // field 22
    let rss_pages = field(1)?.parse::<i64>().ok()?.max(0) as u64; // field 24
    let exit_code = field(27).and_then(|code| code.parse().ok()).unwrap_or(0); // field 52
    Some(Stat { pid, state, ppid, pgid, sid, flags, cpu_ticks, threads, start_ticks, rss_pages, exit_code })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_name_does_not_shift_the_fields() {
        let line = b"4711 (x) R 1 (\xff) S 12 34 56 0 -1 4194560 1 2 3 4 100 20 3 1 20 0 7 0 98765 1000 25 18446744073709551615 1 1";
        let stat = parse(line).unwrap();
        let expected = Stat {
            pid: 4711,
            state: 'S',
            ppid: 12,
            pgid: 34,
            sid: 56,
            flags: 4_194_560,
            cpu_ticks: 124,
            threads: 7,
            start_ticks: 98765,
            rss_pages: 25,
            exit_code: 0,
        };
        assert_eq!(stat, expected);
        let rest = " 1".repeat(24);
        assert_eq!(parse(&[line, rest.as_bytes(), b" 2816"].concat()).unwrap().exit_code, 2816);
    }

    #[test]
    fn a_cut_line_is_refused() {
        assert_eq!(parse(b"4711 (x) S 12 34"), None);
        assert_eq!(parse(b""), None);
    }

    #[test]
    fn children_are_listed_and_a_gone_process_has_none_and_is_told_as_one_that_ends() {
        let mut child = std::process::Command::new("/bin/sleep").arg("100").spawn().unwrap();
        let id = child.id() as i32;
        if lists_children() {
            let own = children(std::process::id() as i32).unwrap();
            assert!(own.pids.contains(&id) && own.threads >= 1, "{own:?}");
        }
        let raw = crate::Pid::from_raw(id).unwrap();
        assert!(!crate::tree::is_exiting(raw));
        child.kill().unwrap();
        while read(id).is_none_or(|stat| stat.state != 'Z') {
            std::thread::yield_now();
        }
        assert!(crate::tree::is_exiting(raw), "it is not reaped yet");
        child.wait().unwrap();
        assert!(children(id).unwrap().pids.is_empty() && !crate::tree::is_exiting(raw));
    }

    #[test]
    fn this_process_reads_itself() {
        let own = std::process::id() as i32;
        let stat = read(own).unwrap();
        assert_eq!(stat.pid, own);
        assert_eq!(stat.ppid, std::os::unix::process::parent_id() as i32);
        assert!(stat.rss_pages > 0);
        assert!(pids().unwrap().any(|pid| pid == own));
        let mut longest = *b"/proc/\0\0\0\0\0\0\0\0\0\0/stat";
        assert_eq!(stat_path(&mut longest, i32::MAX), "/proc/2147483647/stat");
    }
}
