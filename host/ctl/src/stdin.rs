//! Standard input as an argument: `key=@-` makes a file of it, `--args -` and `--config -` read an object from it.
//!
//! What must hold: it is read once, for one of them; the file is gone when the command is done; Ctrl-C is heard while
//! it is waited for.

use crate::assign::{ARGUMENTS_BYTES_MAX, text_of_file};
use crate::fault::Fault;
use crate::interrupt::{Interrupts, interrupted};
use crate::output::Output;
use std::borrow::Cow;
use std::fs::Permissions;
use std::io::{IsTerminal, Read};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// Largest file that is made of standard input.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024 * 1024;
/// Longest text of arguments.
const TEXT_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// How an assignment asks for it.
const FILE_MARK: &str = "=@-";
/// How an option does; the second is what an assignment would say.
const TEXT_MARKS: [&str; 2] = ["-", "@-"];
/// Other users of the machine read nothing of it, whatever the umask.
const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
/// The file's name, and so the stem of what tools make of it.
const FILE_NAME: &str = "stdin";

/// What was read. The file lives as long as this.
#[derive(Debug, Default)]
pub(crate) struct Stdin {
    text: Option<String>,
    file: Option<Folder>,
}

impl Stdin {
    /// Reads standard input if the arguments ask for it, or one of the options that take an object.
    ///
    /// # Errors
    /// When two of them ask, or it cannot be read or kept.
    pub(crate) async fn read(
        options: &[Option<&str>],
        assignments: &[String],
        output: &Output,
        interrupts: &Interrupts,
    ) -> Result<Self, Fault> {
        let as_text = options.iter().flatten().filter(|text| TEXT_MARKS.contains(text)).count();
        let as_file = assignments.iter().filter(|assignment| is_file_mark(assignment)).count();
        if as_text + as_file > 1 {
            return Err(Fault::usage(
                "standard input is asked for more than once".to_owned(),
                "read one of them from it, and write the others out or to files",
            ));
        }
        if as_text + as_file == 0 {
            return Ok(Self::default());
        }
        if std::io::stdin().is_terminal() {
            output.note("reading from the terminal; Ctrl-D ends");
        }
        if as_text > 0 {
            return unless_interrupted(|| text_of(std::io::stdin().lock()), interrupts).await;
        }
        // Here, and not with whoever reads: that one is left behind when the command is interrupted.
        let folder = Folder::new()?;
        let path = folder.path();
        unless_interrupted(move || file_of(std::io::stdin().lock(), &path), interrupts).await?;
        Ok(Self { text: None, file: Some(folder) })
    }

    /// What was read for the option that asked for it.
    pub(crate) fn text(&self) -> Option<&str> {
        self.text.as_deref()
    }

    /// The object that an option gives: what was read, what is in the file that it names with `@`, or its own words.
    ///
    /// # Errors
    /// When that file cannot be read.
    pub(crate) fn object<'a>(&'a self, given: &'a str, cwd: &Path) -> Result<Cow<'a, str>, Fault> {
        match (self.text(), given.strip_prefix('@')) {
            (Some(text), _) if TEXT_MARKS.contains(&given) => Ok(unmarked(text).into()),
            (_, Some(file)) => {
                Ok(unmarked(&text_of_file(&cwd.join(file), ARGUMENTS_BYTES_MAX)?).to_owned().into())
            }
            _ => Ok(given.into()),
        }
    }

    /// The file that `key=@-` means.
    pub(crate) fn file(&self) -> Option<&Path> {
        self.file.as_ref().map(|folder| folder.file.as_path())
    }
}

/// Without the mark that some editors begin a file with, which JSON does not know.
fn unmarked(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// `key=@-`, and not `key:=@-`, which is JSON and no good one.
fn is_file_mark(assignment: &str) -> bool {
    assignment
        .split_once('=')
        .is_some_and(|(key, _)| !key.ends_with(':') && assignment[key.len()..] == *FILE_MARK)
}

fn text_of(stdin: impl Read) -> Result<Stdin, Fault> {
    let mut text = String::new();
    stdin.take(TEXT_BYTES_MAX + 1).read_to_string(&mut text).map_err(|error| unreadable(&error))?;
    if text.len() as u64 > TEXT_BYTES_MAX {
        return Err(too_long(TEXT_BYTES_MAX));
    }
    Ok(Stdin { text: Some(text), file: None })
}

fn file_of(stdin: impl Read, path: &Path) -> Result<(), Fault> {
    let options = &mut std::fs::OpenOptions::new();
    let opened = options.write(true).create_new(true).mode(FILE_MODE).open(path);
    let mut file = opened.map_err(|error| unkept(&error))?;
    let bytes = std::io::copy(&mut stdin.take(FILE_BYTES_MAX + 1), &mut file).map_err(|error| {
        // Reading and writing fail with the same type; a full disk is what happens.
        if error.kind() == std::io::ErrorKind::StorageFull { unkept(&error) } else { unreadable(&error) }
    })?;
    if bytes > FILE_BYTES_MAX {
        return Err(too_long(FILE_BYTES_MAX));
    }
    Ok(())
}

/// A folder for the file, which goes with it.
#[derive(Debug)]
struct Folder {
    file: PathBuf,
    _folder: tempfile::TempDir,
}

impl Folder {
    fn new() -> Result<Self, Fault> {
        let mut builder = tempfile::Builder::new();
        builder.prefix("cjm-").permissions(Permissions::from_mode(FOLDER_MODE));
        let folder = builder.tempdir().map_err(|error| unkept(&error))?;
        Ok(Self { file: folder.path().join(FILE_NAME), _folder: folder })
    }

    fn path(&self) -> PathBuf {
        self.file.clone()
    }
}

async fn unless_interrupted<T: Send + 'static>(
    reads: impl FnOnce() -> Result<T, Fault> + Send + 'static,
    interrupts: &Interrupts,
) -> Result<T, Fault> {
    tokio::select! {
        read = tokio::task::spawn_blocking(reads) => read.unwrap_or_else(|error| Err(unreadable(&error))),
        code = interrupts.wait() => Err(interrupted(code)),
    }
}

fn unreadable(error: &dyn ToString) -> Fault {
    Fault::new("ctl.stdin", "cannot read standard input", "see what writes to it; text must be UTF-8")
        .caused_by(error)
}

fn unkept(error: &std::io::Error) -> Fault {
    let next = match error.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => {
            "the folder for temporary files is not there: make it, or name another one with TMPDIR"
        }
        _ => "free space in the folder for temporary files, or name another one with TMPDIR",
    };
    Fault::new("ctl.stdin", "cannot keep standard input in a file", next).caused_by(error)
}

fn too_long(bytes_max: u64) -> Fault {
    let message = format!("standard input is longer than the {bytes_max} bytes allowed");
    Fault::new("ctl.stdin", message, "write it to a file, and give the file's path")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_mark_asks_for_it() {
        for (assignment, asks) in [
            ("page=@-", true),
            ("page=@-x", false),
            ("page=@./-", false),
            ("page=-", false),
            ("page:=@-", false),
            ("a=b=@-", false),
        ] {
            assert_eq!(is_file_mark(assignment), asks, "{assignment}");
        }
    }

    #[test]
    fn a_file_holds_what_was_read_and_ends_with_its_owner() {
        let content = vec![7_u8; 300_000];
        let folder = Folder::new().expect("made");
        file_of(content.as_slice(), &folder.path()).expect("is kept");
        let read = Stdin { text: None, file: Some(folder) };
        let path = read.file().expect("a file").to_owned();
        assert_eq!(std::fs::read(&path).expect("readable"), content);
        for (place, mode) in [(path.as_path(), 0o600), (path.parent().expect("a folder"), 0o700)] {
            let found = std::fs::metadata(place).expect("there").permissions().mode() & 0o777;
            assert_eq!(found, mode, "{}: {found:o}", place.display());
        }
        assert_eq!(path.file_name().and_then(|name| name.to_str()), Some(FILE_NAME));
        drop(read);
        assert!(!path.exists());
    }

    #[test]
    fn text_must_be_text() {
        assert_eq!(text_of(&b"{}"[..]).expect("text").text(), Some("{}"));
        assert!(text_of(&b"\xff"[..]).is_err());
    }

    #[test]
    fn an_option_gives_its_words_a_file_or_what_was_read() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("o.json"), "of a file").expect("written");
        std::fs::write(folder.path().join("marked.json"), "\u{feff}of an editor").expect("written");
        let read = text_of(&b"was read"[..]).expect("text");
        for (given, object) in [
            ("@marked.json", Some("of an editor")),
            ("-", Some("was read")),
            ("@-", Some("was read")),
            ("@o.json", Some("of a file")),
            ("{\"a\": 1}", Some("{\"a\": 1}")),
            ("@missing.json", None),
        ] {
            let found = read.object(given, folder.path()).ok();
            assert_eq!(found.as_deref(), object, "{given}");
        }
    }
}
