//! Who changes what is installed in a data directory: the command that holds its lock writes there who it is and what it
//! works on, and whoever finds the lock held reads it.
//!
//! What must hold: the text is one line, so that who reads it while it is written anew sees the old one or the new one.

use cjm_platform::lock::{
    held_by, holder, holding_process, locking_process, processes_lent_the_lock, sharing_process,
};
use cjm_platform::process::Pid;
use cjm_wire::Timestamp;
use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

/// Held, in a data directory, by whoever changes what is installed there, and by the helpers that it started.
pub const INSTALL_LOCK: &str = "install.lock";

/// Longest text in the lock, in bytes. A longer one says nothing of environments.
const TEXT_BYTES_MAX: usize = 4000;
/// Environments that are named to people; the others are counted.
const NAMED_MAX: usize = 3;
/// Helpers that are looked for; one installation has a few.
const HELPERS_MAX: usize = 16;
/// How long whoever has taken the lock may take to write who it is.
const WRITTEN_MAX: Duration = Duration::from_millis(100);
/// How often it is looked for.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// The command that installs.
pub const INSTALL_ALL: &str = "install-all";
/// The command that takes tools away.
pub const REMOVE: &str = "remove";
/// Between an environment and the entry that asks for it; no name has it.
const OF_ENTRY: char = '=';

/// An environment as the lock names it: with the entry of the list that asks for it, where that has another name.
#[must_use]
pub fn word_of(environment: &str, entry: &str) -> String {
    if entry == environment { environment.to_owned() } else { format!("{environment}{OF_ENTRY}{entry}") }
}

/// What a command that is about to hold the lock says of itself.
#[derive(Debug, Clone)]
pub struct Signature {
    command: &'static str,
    since: Timestamp,
}

impl Signature {
    /// Of this process, which begins now.
    #[must_use]
    pub fn new(command: &'static str) -> Self {
        Self { command, since: Timestamp::now() }
    }

    /// It, with the environments that it still has to change, each as [`word_of`] names it.
    #[must_use]
    pub fn text<'e>(&self, environments: impl IntoIterator<Item = &'e str>) -> String {
        let who = format!("pid {} since {}, {}", std::process::id(), self.since, self.command);
        let names: Vec<&str> = environments.into_iter().collect();
        let text = format!("{who} ({})", names.join(" "));
        if text.len() <= TEXT_BYTES_MAX { text } else { who }
    }
}

/// A command that changes what is installed, as its lock tells it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Installer {
    /// Its number, while it lives and can be seen.
    pub pid: Option<Pid>,
    /// The number that it wrote, of a process that is not seen to hold the lock.
    said_pid: Option<String>,
    /// It was killed: only its helpers hold the lock.
    pub was_killed: bool,
    /// It has ended, with nothing left to do, and something that it started, or that somebody else did, holds its lock on.
    has_ended: bool,
    /// It has the lock and has written nothing there.
    is_silent: bool,
    /// Since when it works.
    pub since: Option<Timestamp>,
    /// `install-all`, `remove`.
    pub command: Option<String>,
    /// The environments that it still has to change; none where it does not say.
    pub environments: Option<Vec<String>>,
    /// The entries that ask for them, where those have other names.
    entries: Vec<String>,
    /// What holds the lock of one that was killed, or has ended.
    pub helpers: Vec<Pid>,
}

impl Installer {
    /// Who changes what is installed in this data directory now; none when nobody does.
    #[must_use]
    pub fn at_work(data_dir: &Path) -> Option<Self> {
        let path = data_dir.join(INSTALL_LOCK);
        // A lock that cannot be asked is told by the installation, which needs it.
        let holder = || held_by(&path).ok().flatten();
        let installer = Self::read(&path, &holder()?);
        // One that has just ended was not killed, and nothing holds its lock.
        (installer.pid.is_some() || holder().is_some()).then_some(installer)
    }

    /// Who holds a lock in which this text was found. It may be that of the one before: who has just taken the lock is waited
    /// for until it has written its own.
    #[must_use]
    pub fn read(lock: &Path, said: &str) -> Self {
        let (mut said, since) = (said.to_owned(), Instant::now());
        let lives_and_has_not_written =
            |said: &str| holding_process(lock, said).is_none() && locking_process(lock).is_some();
        while lives_and_has_not_written(&said) && since.elapsed() < WRITTEN_MAX {
            std::thread::sleep(LOOK_INTERVAL);
            said = holder(lock).unwrap_or_default();
        }
        Self::by_its_words(lock, &said)
    }

    fn by_its_words(lock: &Path, said: &str) -> Self {
        let pid = holding_process(lock, said);
        // The words are those of the one before, where another process has taken the lock: one of ours writes its own at
        // once, and what took it by other means (flock(1)) never will.
        if pid.is_none()
            && let Some(taker) = locking_process(lock).or_else(|| sharing_process(lock))
        {
            return Self { pid: Some(taker), is_silent: true, ..Self::default() };
        }
        let said_pid = said.strip_prefix("pid ").and_then(|rest| rest.split([' ', ',']).next());
        let work = said.split_once(", ").map(|(_, work)| work);
        let (command, names) = match work.and_then(|work| work.strip_suffix(')')?.split_once(" (")) {
            Some((command, names)) => (Some(command), Some(names)),
            None => (work, None),
        };
        let parts = |word: &str| match word.split_once(OF_ENTRY) {
            Some((environment, entry)) => (environment.to_owned(), Some(entry.to_owned())),
            None => (word.to_owned(), None),
        };
        let (environments, entries): (Vec<_>, Vec<_>) =
            names.unwrap_or_default().split_whitespace().map(parts).unzip();
        // Each has a descriptor of the lock, and so have those that it started.
        let helpers = if pid.is_none() { processes_lent_the_lock(lock, HELPERS_MAX) } else { Vec::new() };
        let is_gone = |pid: &str| !Path::new("/proc").join(pid).exists();
        let is_over = pid.is_none() && said_pid.is_some_and(|pid| !helpers.is_empty() || is_gone(pid));
        let had_work_left = names.is_none_or(|names| !names.trim().is_empty());
        Self {
            was_killed: is_over && had_work_left,
            has_ended: is_over && !had_work_left,
            is_silent: false,
            said_pid: said_pid.filter(|_| pid.is_none()).map(str::to_owned),
            since: cjm_platform::lock::since_of(said).map(Timestamp::from_text),
            command: command.map(str::to_owned),
            environments: names.map(|_| environments),
            entries: entries.into_iter().flatten().collect(),
            pid,
            helpers,
        }
    }

    /// Whether it changes this environment, or will. One that does not say what it works on may change any.
    #[must_use]
    pub fn concerns(&self, environment: &str) -> bool {
        self.environments.as_ref().is_none_or(|all| all.iter().any(|one| one == environment))
    }

    /// Whether it installs the tool of this name: that of an entry of its list, or of the environment for it.
    #[must_use]
    pub fn installs(&self, name: &str) -> bool {
        let environments = self.environments.as_deref().unwrap_or_default();
        self.is_install_all() && environments.iter().chain(&self.entries).any(|one| one == name)
    }

    /// Whether it is `install-all`.
    #[must_use]
    pub fn is_install_all(&self) -> bool {
        self.command.as_deref() == Some(INSTALL_ALL)
    }

    /// What it does to a tool: `removed`, or `installed`.
    pub(crate) fn verb(&self) -> &'static str {
        if self.command.as_deref() == Some(REMOVE) { "removed" } else { "installed" }
    }

    /// `kill 8 9`: ends what holds the lock of one that is no more; none where nothing of that is seen, or nobody knows whose
    /// lock that is.
    #[must_use]
    pub fn kill_command(&self) -> Option<String> {
        let helpers: Vec<String> = self.helpers.iter().map(|pid| pid.as_raw().to_string()).collect();
        ((self.was_killed || self.has_ended) && !helpers.is_empty())
            .then(|| format!("kill {}", helpers.join(" ")))
    }

    /// What to do: these words, which say to wait, and before them the command that makes waiting needless.
    #[must_use]
    pub fn next_step(&self, wait: &str) -> String {
        match self.kill_command() {
            Some(kill) => format!("`{kill}` ends it; or {wait}"),
            None => wait.to_owned(),
        }
    }

    /// `install-all of one, two and 5 more`.
    #[must_use]
    pub fn work(&self) -> Option<String> {
        let command = self.command.as_deref()?;
        let names = self.environments.as_deref().unwrap_or_default();
        let mut words = names.iter().take(NAMED_MAX).cloned().collect::<Vec<_>>().join(", ");
        if names.len() > NAMED_MAX {
            words.push_str(&format!(" and {} more", names.len() - NAMED_MAX));
        }
        Some(if words.is_empty() { command.to_owned() } else { format!("{command} of {words}") })
    }
}

/// `process 7 (install-all of one, since 2026-11-29 08:00:00 UTC)`.
impl fmt::Display for Installer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.pid, &self.said_pid) {
            (Some(pid), _) if self.is_silent => {
                write!(f, "process {pid}, which has not said what it does")?;
            }
            (Some(pid), _) => write!(f, "process {pid}")?,
            (None, Some(pid)) if self.was_killed => {
                write!(f, "what process {pid}, which was killed, had started")?;
            }
            (None, Some(pid)) if self.has_ended => {
                write!(f, "what still holds the lock of process {pid}, which has ended")?;
            }
            (None, Some(pid)) => write!(f, "process {pid}")?,
            (None, None) => write!(f, "a process that has not said which it is yet")?,
        }
        let helpers: Vec<String> = self.helpers.iter().map(|pid| format!("process {pid}")).collect();
        let since = self.since.as_ref().map(|since| format!("since {} UTC", since.for_people()));
        let known: Vec<String> = helpers.into_iter().chain(self.work()).chain(since).collect();
        if known.is_empty() { Ok(()) } else { write!(f, " ({})", known.join(", ")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cjm_platform::lock::FileLock;
    use std::time::Duration;

    const PATIENCE: Duration = Duration::from_secs(20);

    #[test]
    fn what_is_written_is_read_and_names_the_environments_that_are_still_to_be_made() {
        let data = tempfile::tempdir().expect("tempdir");
        assert_eq!(Installer::at_work(data.path()), None);
        let signature = Signature::new(INSTALL_ALL);
        let lock = data.path().join(INSTALL_LOCK);
        let lock = FileLock::acquire(&lock, &signature.text(["a", "b", "c", "d"]), PATIENCE).expect("free");
        let installer = Installer::at_work(data.path()).expect("somebody");
        assert_eq!(installer.pid, Some(Pid::current()));
        assert!(installer.concerns("d") && !installer.concerns("e") && !installer.was_killed);
        let words = installer.to_string();
        let us = format!("process {} (install-all of a, b, c and 1 more, since 20", std::process::id());
        assert!(words.starts_with(&us), "{words}");
        lock.set_owner(&signature.text(["d"])).expect("written");
        let later = Installer::at_work(data.path()).expect("somebody");
        assert!(later.concerns("d") && !later.concerns("a"), "{later}");
        lock.set_owner(&signature.text([&*word_of("d", "tool"), &word_of("e", "e")])).expect("written");
        let named = Installer::at_work(data.path()).expect("somebody");
        assert_eq!(named.environments, Some(vec!["d".to_owned(), "e".to_owned()]), "{named}");
        assert!(
            ["d", "e", "tool"].iter().all(|name| named.installs(name)) && !named.installs("a"),
            "{named}"
        );
        assert!(!named.concerns("tool"), "an entry is no environment");
        lock.set_owner(&Signature::new(REMOVE).text([&*word_of("d", "tool")])).expect("written");
        let remover = Installer::at_work(data.path()).expect("somebody");
        assert!(remover.concerns("d") && !remover.installs("d") && !remover.installs("tool"), "{remover}");
        lock.set_owner(&signature.text([])).expect("written");
        let done = Installer::at_work(data.path()).expect("somebody");
        assert!(!done.concerns("d") && done.work().as_deref() == Some("install-all"), "{done}");
        assert!(!done.has_ended, "it only has nothing left to do");
        let many: Vec<String> = (0..100).map(|number| format!("{number:060}")).collect();
        lock.set_owner(&signature.text(many.iter().map(String::as_str))).expect("written");
        let many = Installer::at_work(data.path()).expect("somebody");
        assert!(many.concerns("any") && many.command.as_deref() == Some("install-all"), "{many}");
    }

    #[test]
    fn whoever_has_just_taken_the_lock_is_not_taken_for_the_one_before() {
        let data = tempfile::tempdir().expect("tempdir");
        let before = "pid 4194305 since 1, remove (a)";
        let lock = FileLock::acquire(&data.path().join(INSTALL_LOCK), before, PATIENCE).expect("free");
        std::thread::scope(|scope| {
            let asking = scope.spawn(|| Installer::read(lock.path(), before));
            lock.set_owner(&Signature::new(INSTALL_ALL).text(["b"])).expect("written");
            let found = asking.join().expect("no panic");
            assert!(found.pid == Some(Pid::current()) && found.is_install_all(), "{found:?}");
            assert!(!found.was_killed && found.concerns("b") && !found.concerns("a"), "{found:?}");
        });
    }

    #[test]
    fn a_process_that_is_there_and_holds_nothing_has_neither_ended_nor_been_killed() {
        let data = tempfile::tempdir().expect("tempdir");
        let lock = data.path().join(INSTALL_LOCK);
        std::fs::write(&lock, "").expect("written");
        for words in ["pid 1 since 1, remove ()", "pid 1 since 1, remove (a)", "pid 1 since 1, remove"] {
            let by = Installer::by_its_words(&lock, words);
            assert!(!by.has_ended && !by.was_killed, "{words}: {by:?}");
        }
    }

    #[test]
    fn as_many_holders_are_looked_for_as_are_asked_for() {
        let data = tempfile::tempdir().expect("tempdir");
        let holds = "cat /dev/zero <&9 9>&-";
        let two = left_by(data.path(), "", &format!("{holds} & exec {holds}"));
        let lock = data.path().join(INSTALL_LOCK);
        for (most, found) in [(0, 0), (1, 1), (2, 2), (16, 2)] {
            assert_eq!(processes_lent_the_lock(&lock, most).len(), found, "of {most}");
        }
        end(two);
    }

    /// Of a data directory: what was killed or has ended took its lock, wrote these words there, and what it had started holds
    /// the lock on. The taker is seen no more.
    fn left_with_the_lock(data: &Path, words: &str) -> std::process::Child {
        // It works until nobody reads what it says.
        left_by(data, words, "exec cat /dev/zero <&9 9>&-")
    }

    fn left_by(data: &Path, words: &str, works: &str) -> std::process::Child {
        let path = data.join(INSTALL_LOCK);
        std::fs::write(&path, format!("{words}\n")).expect("written");
        let script = format!("exec 9<>\"$0\"; flock 9; {works}");
        let mut helper = std::process::Command::new("/bin/sh");
        helper.args(["-c", &script]).arg(&path).stdout(std::process::Stdio::piped());
        let mut helper = helper.spawn().expect("starts");
        let stdout = helper.stdout.as_mut().expect("piped");
        std::io::Read::read_exact(stdout, &mut [0; 1]).expect("it has the lock");
        helper
    }

    fn end(mut helper: std::process::Child) {
        helper.kill().expect("killed");
        helper.wait().expect("ends");
    }

    #[test]
    fn a_killed_installer_is_told_by_its_number_while_its_helpers_work() {
        // The number of one that was killed may be another process's by now.
        for number in ["1", "4194305"] {
            let data = tempfile::tempdir().expect("tempdir");
            let silent = left_with_the_lock(data.path(), &format!("pid {number} since 1, remove"));
            let by = Installer::at_work(data.path()).expect("somebody");
            assert!(by.was_killed && by.concerns("any"), "it may have had anything left to do: {by:?}");
            end(silent);
            let helper = left_with_the_lock(data.path(), &format!("pid {number} since 1, remove (a)"));
            let by = Installer::at_work(data.path()).expect("somebody");
            let words = format!(
                "what process {number}, which was killed, had started (process {}, remove of a",
                helper.id()
            );
            assert!(by.was_killed && by.to_string().contains(&words), "{by}");
            assert_eq!(by.kill_command(), Some(format!("kill {}", helper.id())), "{by:?}");
            assert!(by.concerns("a") && !by.concerns("b"), "{by:?}");
            end(helper);
            assert_eq!(Installer::at_work(data.path()), None);
        }
    }

    #[test]
    fn one_that_had_nothing_left_to_do_was_not_killed_whatever_holds_its_lock() {
        let data = tempfile::tempdir().expect("tempdir");
        let helper = left_with_the_lock(data.path(), "pid 4194305 since 1, install-all ()");
        let by = Installer::at_work(data.path()).expect("somebody");
        let words = by.to_string();
        let holder = format!(
            "what still holds the lock of process 4194305, which has ended (process {}, install-all",
            helper.id()
        );
        assert!(words.starts_with(&holder) && !words.contains("killed"), "{words}");
        assert!(!by.was_killed && !by.concerns("a"), "{by:?}");
        let step = by.next_step("wait");
        assert_eq!(step, format!("`kill {}` ends it; or wait", helper.id()));
        end(helper);
    }

    #[test]
    fn a_lock_that_somebody_else_has_taken_is_told_with_his_number_and_none_of_the_words_before() {
        let data = tempfile::tempdir().expect("tempdir");
        let path = data.path().join(INSTALL_LOCK);
        for owner in ["pid 4194305 since 1, install-all (a)", "pid 4194305 since 1, install-all ()", ""] {
            let _lock = FileLock::acquire(&path, owner, PATIENCE).expect("free");
            let by = Installer::at_work(data.path()).expect("somebody");
            let us = format!("process {}, which has not said what it does", std::process::id());
            assert_eq!(by.to_string(), us);
            assert_eq!((by.kill_command(), by.was_killed, by.concerns("any")), (None, false, true), "{by:?}");
        }
        std::fs::write(&path, "pid 4194305 since 1, install-all (a)\n").expect("written");
        let shared = std::process::Command::new("flock")
            .arg("-s")
            .arg(&path)
            .args(["cat", "/dev/zero"])
            .stdout(std::process::Stdio::piped())
            .spawn();
        let mut shared = shared.expect("flock(1)");
        let stdout = shared.stdout.as_mut().expect("piped");
        std::io::Read::read_exact(stdout, &mut [0; 1]).expect("it has the lock");
        let refused = FileLock::try_acquire(&path, "us").expect_err("it is held");
        assert_eq!(refused.code(), "lock.held");
        let by = Installer::read(&path, &holder(&path).unwrap_or_default());
        let him = format!("process {}, which has not said what it does", shared.id());
        assert_eq!((by.to_string(), by.kill_command()), (him, None), "{by:?}");
        // What it started ends with the pipe.
        end(shared);
        // Of a lock in which nobody wrote, what holds it may be anybody's.
        let data = tempfile::tempdir().expect("tempdir");
        let helper = left_with_the_lock(data.path(), "");
        let by = Installer::at_work(data.path()).expect("somebody");
        assert_eq!((by.was_killed, by.kill_command()), (false, None), "{by:?}");
        assert!(by.to_string().contains("has not said which it is"), "{by}");
        end(helper);
    }
}
