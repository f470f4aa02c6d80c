//! Reads `/proc`: the list of pids and the fields of `/proc/PID/stat`.
//!
//! It does not interpret them. What must hold: one open and one read for each process, no allocation, because
//! clearing a tree races against processes that fork.

use std::fs::File;
use std::io::{self, Read};

/// A stat line is at most 64 bytes of name and some 50 numbers of at most 20 digits.
const STAT_BYTES_MAX: usize = 2048;

/// The fields of `/proc/PID/stat` that anybody here needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) pid: i32,
    pub(crate) state: char,
    pub(crate) ppid: i32,
    pub(crate) pgid: i32,
    pub(crate) sid: i32,
    /// utime + stime + the same of reaped children.
    pub(crate) cpu_ticks: u64,
    pub(crate) threads: u64,
    pub(crate) start_ticks: u64,
    pub(crate) rss_pages: u64,
}

/// The pids that live now, in ascending order. One that is born or dies during the walk may be missing.
pub(crate) fn pids() -> io::Result<impl Iterator<Item = i32>> {
    Ok(std::fs::read_dir("/proc")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| *pid > 0))
}

/// The stat of `pid`, or None if there is no such process (any more).
pub(crate) fn read(pid: i32) -> Option<Stat> {
    let mut path = *b"/proc/\0\0\0\0\0\0\0\0\0\0/stat";
    let path = stat_path(&mut path, pid);
    let mut line = [0_u8; STAT_BYTES_MAX];
    // Reading a process that has been reaped meanwhile gives ESRCH; both mean "gone".
    let read = File::open(path).and_then(|mut file| file.read(&mut line)).ok()?;
    parse(&line[..read])
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
    let mut cpu_ticks = field(7)?.parse::<u64>().ok()?; // field 14, utime
    for _ in 0..3 {
        // cutime and cstime are signed in the kernel's format but never negative in practice.
        cpu_ticks += field(0)?.parse::<u64>().unwrap_or(0);
    }
    let threads = field(2)?.parse().ok()?; // field 20
    let start_ticks = field(1)?.parse().ok()?; // field 22
    let rss_pages = field(1)?.parse::<i64>().ok()?.max(0) as u64; // field 24
    Some(Stat { pid, state, ppid, pgid, sid, cpu_ticks, threads, start_ticks, rss_pages })
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
            cpu_ticks: 124,
            threads: 7,
            start_ticks: 98765,
            rss_pages: 25,
        };
        assert_eq!(stat, expected);
    }

    #[test]
    fn a_cut_line_is_refused() {
        assert_eq!(parse(b"4711 (x) S 12 34"), None);
        assert_eq!(parse(b""), None);
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
