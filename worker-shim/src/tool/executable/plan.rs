//! One call as a command: argv, standard input, output files and the directories of the call.
//!
//! What must hold: a template is never given to a shell and one template is always one argument; the directory
//! is fresh.

use super::Program;
use super::arguments::{Values, text};
use super::before::NotBegun;
use super::not_made::{is_full, not_made};
use crate::calls::CallState;
use crate::sdk::ToolError;
use cjm_platform::lock::{FileLock, LockError};
use cjm_platform::mounts::remove_tree;
use cjm_wire::cache::running_mark;
use cjm_wire::runtime::{Action, Argument};
use cjm_wire::runtime_check::{TemplatePart, parse_template};
use indexmap::IndexMap;
use serde_json::Value;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Outputs whose paths name other outputs, nested at most so deep.
const OUTPUT_DEPTH_MAX: usize = 8;

/// What to run.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The whole vector, the program first.
    pub(crate) argv: Vec<String>,
    /// What the program reads; nothing when None.
    pub(crate) stdin: Option<String>,
    /// Name → absolute path.
    pub(crate) outputs: IndexMap<String, PathBuf>,
    /// The directory of this call, in which the program runs.
    pub(crate) work_dir: PathBuf,
    /// What `{cache_dir}` is while the program runs; made only for an action that names it.
    pub(crate) cache_dir: PathBuf,
    /// Beside the directory while the call runs, so that the next host knows what a killed call left.
    running: FileLock,
}

/// Renders the templates of `action` and makes the directories.
pub(crate) fn make(
    program: &Program,
    action: &Action,
    values: &Values,
    call: &CallState,
) -> Result<Plan, NotBegun> {
    // The session is in the path, because results of earlier workers stay where they are.
    let work_dir = program.work_dir.join(call.id.to_string());
    let (running, rendered) = in_fresh(&work_dir, || render(program, action, values, &work_dir))?;
    let Rendered { argv, stdin, outputs, cache_dir } = rendered;
    Ok(Plan { argv, stdin, outputs, work_dir, cache_dir, running })
}

/// What `fill` makes in the fresh directory; where it fails, nothing is left of it.
fn in_fresh<T>(
    work_dir: &Path,
    fill: impl FnOnce() -> Result<T, NotBegun>,
) -> Result<(FileLock, T), NotBegun> {
    let running = make_fresh(work_dir)?;
    match fill() {
        Ok(filled) => Ok((running, filled)),
        Err(error) => {
            let _ = remove_tree(work_dir);
            let _ = std::fs::remove_file(running.path());
            Err(error)
        }
    }
}

/// Where the outputs of a call lie when `{cache_dir}` is this directory.
pub(crate) fn outputs_in(
    cache_dir: &Path,
    program: &Program,
    action: &Action,
    values: &Values,
) -> Result<IndexMap<String, PathBuf>, NotBegun> {
    let names = Names { action, values, work_dir: cache_dir, cache_dir, data_dir: &program.data_dir };
    action.outputs.keys().map(|name| Ok((name.clone(), names.output(name, 0)?))).collect()
}

/// The templates of the arguments that are there with these values.
pub(crate) fn argument_templates<'a>(
    action: &'a Action,
    values: &'a Values,
) -> impl Iterator<Item = &'a String> {
    let has = |name: &String| values.get(name).is_some_and(|value| *value != Value::Bool(false));
    action.argv.iter().flat_map(move |argument| match argument {
        Argument::Always(template) => std::slice::from_ref(template),
        Argument::When { when, args } if has(when) => args.as_slice(),
        Argument::When { .. } => &[],
    })
}

impl Plan {
    /// Removes what the call leaves in its directory when it failed, and the directory when it is empty.
    ///
    /// # Errors
    /// Why what a failed call left stays, below the capability's own directory; retention finds it.
    pub(crate) fn tidy(&self, succeeded: Succeeded) -> std::io::Result<()> {
        let removed = match succeeded {
            Succeeded::Yes => std::fs::remove_dir(&self.work_dir),
            Succeeded::No => remove_tree(&self.work_dir),
        };
        // A program may have removed its own directory.
        let removed = removed.or_else(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        });
        // Last, so that what is interrupted in between counts as left by a killed call.
        let _ = std::fs::remove_file(self.running.path());
        if let (Ok(()), Some(of_session)) = (&removed, self.work_dir.parent()) {
            // Succeeds when no other call has anything there.
            let _ = std::fs::remove_dir(of_session);
        }
        // Results are what a call that succeeded leaves.
        if succeeded == Succeeded::Yes { Ok(()) } else { removed }
    }
}

/// How often the folder of a worker's calls is made where others remove it.
const PARENT_TRIES_MAX: usize = 16;

/// Whether a call's files are worth keeping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Succeeded {
    Yes,
    No,
}

/// A plan before its call begins.
struct Rendered {
    argv: Vec<String>,
    stdin: Option<String>,
    outputs: IndexMap<String, PathBuf>,
    cache_dir: PathBuf,
}

fn render(
    program: &Program,
    action: &Action,
    values: &Values,
    work_dir: &Path,
) -> Result<Rendered, NotBegun> {
    let cache_dir = work_dir.join("kept");
    let names = Names { action, values, work_dir, cache_dir: &cache_dir, data_dir: &program.data_dir };
    let mut outputs = IndexMap::new();
    for name in action.outputs.keys() {
        let path = names.output(name, 0)?;
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(|error| match is_full(&error) {
                true => not_made(parent, &error),
                false => ToolError::from(error)
                    .context(&format!("the directory {} cannot be made", parent.display())),
            })?;
        }
        outputs.insert(name.clone(), path);
    }
    let mut argv = vec![program.path.to_string_lossy().into_owned()];
    for template in argument_templates(action, values) {
        argv.push(names.render(template, 0)?);
    }
    let stdin = action.stdin.as_ref().map(|template| names.render(template, 0)).transpose()?;
    Ok(Rendered { argv, stdin, outputs, cache_dir })
}

/// The directory, and before it the mark that its call runs.
fn make_fresh(work_dir: &Path) -> Result<FileLock, NotBegun> {
    make_fresh_after(work_dir, || {})
}

/// The same; `parent_made` is told of each moment in which nothing holds the parent.
fn make_fresh_after(work_dir: &Path, mut parent_made: impl FnMut()) -> Result<FileLock, NotBegun> {
    let failed = |error: std::io::Error| not_made(work_dir, &error);
    let parent = work_dir.parent().unwrap_or(work_dir);
    let mut tries = 1;
    let running = loop {
        std::fs::create_dir_all(parent).map_err(failed)?;
        parent_made();
        match FileLock::try_acquire(&running_mark(work_dir), "") {
            Ok(running) => break running,
            // Another call that ends, or retention, found the parent empty and removed it.
            Err(LockError::Io { source, .. })
                if source.kind() == ErrorKind::NotFound && tries < PARENT_TRIES_MAX =>
            {
                tries += 1;
            }
            Err(LockError::Io { source, .. }) => return Err(failed(source).into()),
            Err(held) => return Err(failed(std::io::Error::other(held)).into()),
        }
    };
    std::fs::create_dir(work_dir).map_err(|error| {
        // It would stand for a directory that was never made.
        let _ = std::fs::remove_file(running.path());
        failed(error)
    })?;
    Ok(running)
}

/// What the words of a template stand for.
struct Names<'a> {
    action: &'a Action,
    values: &'a Values,
    work_dir: &'a Path,
    cache_dir: &'a Path,
    data_dir: &'a Path,
}

impl Names<'_> {
    fn render(&self, template: &str, depth: usize) -> Result<String, ToolError> {
        let parts = parse_template(template)
            .map_err(|why| ToolError::fatal(format!("a template of the manifest is broken: {why}")))?;
        let mut out = String::new();
        for part in parts {
            match part {
                TemplatePart::Text(literal) => out.push_str(&literal),
                TemplatePart::Name { name, part } => {
                    let value = self.value(&name, depth)?;
                    out.push_str(&part_of(&value, part.as_deref()));
                }
            }
        }
        Ok(out)
    }

    fn value(&self, name: &str, depth: usize) -> Result<String, ToolError> {
        match name {
            "work_dir" => return Ok(self.work_dir.to_string_lossy().into_owned()),
            "cache_dir" => return Ok(self.cache_dir.to_string_lossy().into_owned()),
            "data_dir" => return Ok(self.data_dir.to_string_lossy().into_owned()),
            _ => {}
        }
        if self.action.outputs.contains_key(name) {
            return Ok(self.output(name, depth + 1)?.to_string_lossy().into_owned());
        }
        self.values.get(name).map(text).ok_or_else(|| {
            ToolError::unfit(format!("argument `{name}` is needed here and was not given")).fields([name])
        })
    }

    fn output(&self, name: &str, depth: usize) -> Result<PathBuf, ToolError> {
        if depth > OUTPUT_DEPTH_MAX {
            return Err(ToolError::fatal(format!(
                "the outputs of the manifest name each other in a circle (`{name}`)"
            )));
        }
        let template = self.action.outputs.get(name).map(String::as_str).unwrap_or_default();
        Ok(self.work_dir.join(self.render(template, depth)?))
    }
}

/// The value, or its file name, or that without its ending.
fn part_of(value: &str, part: Option<&str>) -> String {
    let path = Path::new(value);
    let chosen = match part {
        Some("stem") => path.file_stem(),
        Some("name") => path.file_name(),
        _ => return value.to_owned(),
    };
    chosen.map(|chosen| chosen.to_string_lossy().into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sdk::Kind;
    use std::fs;

    #[test]
    fn the_folder_of_a_workers_calls_may_go_in_the_moment_in_which_a_call_begins() {
        let dir = tempfile::tempdir().expect("a directory");
        let (parent, mut times) = (dir.path().join("work/session"), 0);
        let running = make_fresh_after(&parent.join("1"), || {
            times += 1;
            if times < PARENT_TRIES_MAX {
                fs::remove_dir(&parent).expect("nothing is in it");
            }
        });
        let running = running.expect("made again");
        assert!(parent.join("1").is_dir() && running.path().exists());
        assert_eq!(times, PARENT_TRIES_MAX);
        let gone = make_fresh_after(&dir.path().join("work/other/1"), || {
            fs::remove_dir(dir.path().join("work/other")).expect("nothing is in it");
        });
        assert!(gone.is_err(), "it is not tried for ever");
    }

    #[test]
    fn what_keeps_a_directory_from_being_made_decides_who_can_help() {
        use cjm_wire::error::ErrorCategory::{Fatal, Resource, Transient};
        // ENOSPC (also of inodes), EDQUOT; ENOTDIR, EROFS, EIO; EMFILE, EEXIST.
        for (code, expected) in [
            (28, Resource),
            (122, Resource),
            (20, Fatal),
            (30, Fatal),
            (5, Fatal),
            (24, Transient),
            (17, Transient),
        ] {
            let error = not_made(Path::new("/d"), &std::io::Error::from_raw_os_error(code));
            assert_eq!(error.kind(), Kind::Category(expected), "{error}");
            let told = ToolError::from(NotBegun::from(error));
            assert_eq!(told.kind(), Kind::NotBegun(expected), "{told}");
        }
    }

    #[test]
    fn a_directory_that_cannot_be_made_leaves_no_mark() {
        let dir = tempfile::tempdir().expect("a directory");
        let work_dir = dir.path().join("session/1");
        fs::create_dir_all(&work_dir).expect("it is there already");
        make_fresh(&work_dir).expect_err("somebody's");
        assert!(!running_mark(&work_dir).exists());
    }

    /// A call that has begun in this directory.
    fn begun(work_dir: &Path) -> Plan {
        let running = make_fresh(work_dir).expect("made");
        let (work_dir, cache_dir) = (work_dir.to_owned(), work_dir.join("kept"));
        Plan { argv: Vec::new(), stdin: None, outputs: IndexMap::new(), work_dir, cache_dir, running }
    }

    #[test]
    fn the_mark_of_a_call_is_held_while_it_runs_and_goes_with_its_end() {
        let dir = tempfile::tempdir().expect("a directory");
        let session = dir.path().join("session");
        for (succeeded, result, stays) in
            [(Succeeded::Yes, false, false), (Succeeded::Yes, true, true), (Succeeded::No, true, false)]
        {
            let work_dir = session.join("1");
            let call = begun(&work_dir);
            if result {
                fs::write(work_dir.join("result"), "r").expect("written");
            }
            let taken = FileLock::try_acquire(&running_mark(&work_dir), "");
            assert!(
                matches!(taken, Err(LockError::Held { .. })),
                "a call that runs is taken for a killed one"
            );
            call.tidy(succeeded).expect("nothing is in the way");
            assert!(
                !running_mark(&work_dir).exists(),
                "{succeeded:?}: an ended call is taken for a killed one"
            );
            assert_eq!((work_dir.exists(), session.exists()), (stays, stays), "{succeeded:?}");
            let _ = fs::remove_dir_all(&session);
        }
    }

    #[test]
    fn a_call_that_cannot_be_planned_leaves_neither_directory_nor_mark() {
        let dir = tempfile::tempdir().expect("a directory");
        let work_dir = dir.path().join("session/1");
        let refused = in_fresh(&work_dir, || {
            assert!(work_dir.is_dir() && running_mark(&work_dir).exists());
            Err::<(), NotBegun>(ToolError::unfit("an argument is missing").into())
        });
        refused.expect_err("not planned");
        assert!(!work_dir.exists() && !running_mark(&work_dir).exists());
    }

    #[test]
    fn a_directory_is_made_after_its_mark() {
        let dir = tempfile::tempdir().expect("a directory");
        let work_dir = dir.path().join("1");
        let _other = FileLock::try_acquire(&running_mark(&work_dir), "").expect("free");
        make_fresh(&work_dir).expect_err("it is marked by another");
        assert!(!work_dir.exists(), "without a mark of its own it stays for ever");
    }
}
