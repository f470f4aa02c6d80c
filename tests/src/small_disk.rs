//! A disk of a few megabytes under a world's data directory, filled as far as a test wants. Only root can mount one; for
//! others the test says that it was skipped.

use crate::world::World;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;

/// How large the disk is.
pub const DISK_BYTES: u64 = 6 * 1024 * 1024;

/// The mounted disk; unmounted when dropped, which must be before its world is.
#[derive(Debug)]
pub struct SmallDisk {
    place: PathBuf,
}

impl SmallDisk {
    /// Mounts one at the data directory of `world`, which is empty then.
    ///
    /// # Errors
    /// Why there is none.
    pub fn under(world: &World) -> Result<Self, String> {
        Self::of(world, &format!("size={DISK_BYTES}"))
    }

    /// The same with options of tmpfs, such as a size.
    ///
    /// # Errors
    /// Why there is none.
    pub fn of(world: &World, options: &str) -> Result<Self, String> {
        let place = world.data_dir();
        let options = format!("{options},mode=700");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&place).output();
        match mount {
            Ok(done) if done.status.success() => {
                fs::create_dir(place.join("manifests")).expect("a new disk is empty");
                Ok(Self { place })
            }
            Ok(done) => Err(format!(
                "a small disk cannot be mounted: {}",
                String::from_utf8_lossy(&done.stderr).lines().next().unwrap_or_default()
            )),
            Err(error) => Err(format!("mount cannot be run: {error}")),
        }
    }

    /// Takes all that is free but `left` bytes.
    ///
    /// # Panics
    /// When the disk does not do what a disk does.
    pub fn fill(&self, left: u64) {
        let mut file = File::create(self.filler()).expect("created");
        let block = [b'x'; 4096];
        while file.write_all(&block).is_ok() {}
        let length = fs::metadata(self.filler()).expect("there").len();
        file.set_len(length.saturating_sub(left)).expect("shortened");
    }

    /// Gives back what [`fill`](Self::fill) took.
    ///
    /// # Panics
    /// When it took nothing.
    pub fn free(&self) {
        fs::remove_file(self.filler()).expect("it was filled");
    }

    fn filler(&self) -> PathBuf {
        self.place.join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: whoever still has a file open must not keep the test's folder.
        let _ = Command::new("umount").arg("-l").arg(&self.place).status();
    }
}
