//! A disk of a test's own that is soon full, with all on it that Ballast writes.

use crate::ballast::Ballast;
use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

/// The disk. Gone when dropped, so it must outlive what was started on it.
pub struct SmallDisk {
    directory: PathBuf,
}

impl SmallDisk {
    /// One of `size` (as mount(8) takes it) under all that this `ballast` writes: its test's directory, and a data directory
    /// there, to which what was prepared is linked.
    #[must_use]
    pub fn under(ballast: &mut Ballast, size: &str) -> Self {
        let disk = Self { directory: ballast.path("") };
        let options = format!("size={size}");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &options, "small-disk"]).arg(&disk.directory);
        assert!(mount.status().unwrap().success(), "{mount:?}");
        let data = ballast.path("data");
        fs::create_dir(&data).unwrap();
        for name in ["cache", "layers", "images", "names"] {
            symlink(ballast.data().join(name), data.join(name)).unwrap();
        }
        ballast.move_data(data);
        disk
    }

    /// Leaves no room for a byte.
    pub fn fill(&self) {
        let mut file = fs::File::create(self.directory.join("full")).unwrap();
        for bytes in [64 << 10, 1] {
            loop {
                match file.write_all(&vec![0; bytes]) {
                    Ok(()) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => panic!("filling the disk: {error}"),
                }
            }
        }
    }

    /// Gives the room back.
    pub fn relieve(&self) {
        fs::remove_file(self.directory.join("full")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Whoever still uses it keeps it until he ends.
        let _ = Command::new("umount").arg("-l").arg(&self.directory).status();
    }
}
