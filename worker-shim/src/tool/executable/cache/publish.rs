//! Makes the files of a call those of its slot.
//!
//! Several calls, also of several workers, may make the same files at one moment. What must hold: what was published and
//! is sound stays, since its path and its hash were told to somebody; a directory is replaced in one step; nobody is
//! waited for beyond a named time.

use super::super::hashing::{Hashes, is_unchanged, state_of};
use super::super::plan::Plan;
use super::{KeptFile, RECORD_FILE, Record, Slot};
use cjm_platform::files::exchange;
use cjm_platform::lock::DirectoryLock;
use cjm_platform::mounts::remove_tree;
use indexmap::IndexMap;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

/// How often one that publishes asks for its turn, and how long it waits in between: others need milliseconds.
const TURN_TRIES_MAX: u32 = 200;
const TURN_PAUSE: Duration = Duration::from_millis(10);

/// What lies in a slot now.
enum Published {
    Ours,
    /// What another call has put there meanwhile.
    Anothers(Map<String, Value>),
}

impl Slot {
    /// Makes the files that the program has left in the plan's staging directory those of this slot, and corrects
    /// `files`: where another call was faster, they become what that has made, and the answer is true. Where the files
    /// cannot be kept they stay where they are, and are good for this call. `outputs` are their paths in this slot.
    pub(crate) async fn keep(
        &self,
        plan: &Plan,
        outputs: &IndexMap<String, PathBuf>,
        hashes: &Hashes,
        files: &mut Map<String, Value>,
    ) -> bool {
        // An input that changed while the program ran: nobody can say which of the two it was made of.
        let is_sound = self
            .inputs
            .iter()
            .all(|(path, before)| std::fs::metadata(path).is_ok_and(|found| is_unchanged(before, &found)));
        if !is_sound {
            return false;
        }
        let Ok(published) = self.publish(plan, outputs, hashes, files).await else { return false };
        // What was not kept, or was replaced. What cannot be removed is a leftover in the call's own directory.
        let _ = remove_tree(&plan.cache_dir);
        match published {
            Published::Anothers(theirs) => {
                *files = theirs;
                true
            }
            Published::Ours => {
                for (name, path) in &plan.outputs {
                    if let (Ok(inside), Some(file)) =
                        (path.strip_prefix(&plan.cache_dir), files.get_mut(name))
                    {
                        file["path"] = self.dir.join(inside).to_string_lossy().into();
                    }
                }
                false
            }
        }
    }

    async fn publish(
        &self,
        plan: &Plan,
        outputs: &IndexMap<String, PathBuf>,
        hashes: &Hashes,
        files: &Map<String, Value>,
    ) -> io::Result<Published> {
        self.write_record(plan, files)?;
        let parent = self.dir.parent().unwrap_or(&self.dir);
        std::fs::create_dir_all(parent)?;
        // None where that is a link: one that came from elsewhere would have files moved to where it leads.
        let _turn = turn(parent).await?;
        match std::fs::rename(&plan.cache_dir, &self.dir) {
            Err(error) if matches!(error.kind(), ErrorKind::DirectoryNotEmpty | ErrorKind::AlreadyExists) => {
            }
            renamed => return renamed.map(|()| Published::Ours),
        }
        if self.is_of_another()
            && let Some(theirs) = self.find(outputs, hashes).await
        {
            return Ok(Published::Anothers(theirs));
        }
        match exchange(&plan.cache_dir, &self.dir) {
            // Not every file system can: there it is missing for a moment.
            Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => {
                let aside = plan.work_dir.join("replaced");
                std::fs::rename(&self.dir, &aside)?;
                std::fs::rename(&plan.cache_dir, &self.dir)?;
                let _ = remove_tree(&aside);
            }
            exchanged => exchanged?,
        }
        Ok(Published::Ours)
    }

    fn write_record(&self, plan: &Plan, files: &Map<String, Value>) -> io::Result<()> {
        let mut kept = BTreeMap::new();
        for (name, path) in &plan.outputs {
            let Ok(inside) = path.strip_prefix(&plan.cache_dir) else { continue };
            if inside.components().any(|part| !matches!(part, Component::Normal(_))) {
                return Err(io::Error::other("an output that lies elsewhere"));
            }
            let found = std::fs::metadata(path)?;
            let sha256 = files.get(name).and_then(|file| file["sha256"].as_str()).map(str::to_owned);
            let state = state_of(&found, String::new());
            let file = KeptFile {
                name: inside.to_owned(),
                size: state.size,
                mtime_ns: state.mtime_ns,
                inode: state.inode,
                ctime_ns: state.ctime_ns,
                sha256,
            };
            kept.insert(name.clone(), file);
        }
        let record = serde_json::to_vec(&Record { key: self.key.clone(), files: kept })?;
        std::fs::write(plan.cache_dir.join(RECORD_FILE), record)
    }
}

/// The right to publish below `parent`, of one call of one worker at a time.
async fn turn(parent: &Path) -> io::Result<DirectoryLock> {
    for _ in 0..TURN_TRIES_MAX {
        if let Some(lock) = DirectoryLock::try_acquire(parent)? {
            return Ok(lock);
        }
        tokio::time::sleep(TURN_PAUSE).await;
    }
    Err(io::Error::other("another call publishes for too long"))
}
