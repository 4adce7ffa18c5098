//! The guest's initramfs: the agent as `/init`, the modules it loads, and the directories it mounts on.
//!
//! Pure, and the same bytes for the same input: entries in a fixed order, no times, everything owned by root.
//! The format is cpio's "newc" (`Documentation/driver-api/early-userspace/buffer-format.rst`), uncompressed:
//! the guest would spend more on unpacking than the host saves.

use super::load_order::Condition;
use cpio::newc::{self, ModeFileType};
use std::fmt::Write as _;
use std::io::{self, Write as _};

/// Where the agent finds what to load: lines of `<condition> <file>`, files from [`MODULES`], in load order.
pub const LOAD_LIST: &str = "modules/load";
/// Where the modules are.
pub const MODULES: &str = "modules";

/// What exists from the start: what the agent mounts on, and where it puts the workload's root.
const DIRECTORIES: [&str; 7] = ["dev", "modules", "newroot", "proc", "run", "sys", "tmp"];

/// A module as it is packed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedModule {
    /// When it is loaded.
    pub condition: Condition,
    /// Its file's name: no `/`, no white space.
    pub file_name: String,
    /// The module, uncompressed, as the kernel's build signed it.
    pub contents: Vec<u8>,
}

/// Packs `agent` and `modules`, which are in load order.
///
/// # Errors
/// A file has more than 4 GiB, which the format cannot hold.
pub fn build(agent: &[u8], modules: &[PackedModule]) -> io::Result<Vec<u8>> {
    let size: usize = modules.iter().map(|module| module.contents.len()).sum();
    let mut archive = Archive { bytes: Vec::with_capacity(size + agent.len() + (64 << 10)), entries: 0 };
    for name in DIRECTORIES {
        archive.add(name, ModeFileType::Directory, 0o755, |entry| entry, &[])?;
    }
    // PID 1's standard streams are opened from here before anything is mounted (`console_on_rootfs`).
    let console = |entry: newc::Builder| entry.rdev_major(5).rdev_minor(1);
    archive.add("dev/console", ModeFileType::Char, 0o600, console, &[])?;
    archive.add("init", ModeFileType::Regular, 0o755, |entry| entry, agent)?;
    let mut load = String::new();
    for module in modules {
        let _ = writeln!(load, "{} {}", module.condition, module.file_name);
        let name = format!("{MODULES}/{}", module.file_name);
        archive.add(&name, ModeFileType::Regular, 0o644, |entry| entry, &module.contents)?;
    }
    archive.add(LOAD_LIST, ModeFileType::Regular, 0o644, |entry| entry, load.as_bytes())?;
    newc::trailer(archive.bytes)
}

struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    fn add(
        &mut self,
        name: &str,
        kind: ModeFileType,
        permissions: u32,
        refine: impl FnOnce(newc::Builder) -> newc::Builder,
        contents: &[u8],
    ) -> io::Result<()> {
        let too_large =
            |_| io::Error::new(io::ErrorKind::FileTooLarge, format!("{name} has more than 4 GiB"));
        let size = u32::try_from(contents.len()).map_err(too_large)?;
        // An inode number of its own: the kernel links entries that share one.
        self.entries += 1;
        let links = if matches!(kind, ModeFileType::Directory) { 2 } else { 1 };
        let entry = newc::Builder::new(name).ino(self.entries).nlink(links).mode(permissions);
        let mut writer = refine(entry.set_mode_file_type(kind)).write(&mut self.bytes, size);
        writer.write_all(contents)?;
        writer.finish()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Read;

    struct Entry {
        name: String,
        mode: u32,
        rdev: (u32, u32),
        contents: Vec<u8>,
    }

    fn unpack(archive: &[u8]) -> Vec<Entry> {
        let mut rest = archive;
        let mut entries = Vec::new();
        loop {
            let mut reader = newc::Reader::new(rest).unwrap();
            let entry = reader.entry();
            if entry.is_trailer() {
                return entries;
            }
            assert_eq!((entry.mtime(), entry.uid(), entry.gid()), (0, 0, 0));
            let (name, mode) = (entry.name().to_owned(), entry.mode());
            let rdev = (entry.rdev_major(), entry.rdev_minor());
            let mut contents = Vec::new();
            reader.read_to_end(&mut contents).unwrap();
            entries.push(Entry { name, mode, rdev, contents });
            rest = reader.finish().unwrap();
        }
    }

    fn module(condition: Condition, name: &str, contents: &[u8]) -> PackedModule {
        PackedModule { condition, file_name: name.into(), contents: contents.into() }
    }

    #[test]
    fn everything_is_there_with_its_mode() {
        let modules =
            [module(Condition::Base, "virtio.ko", b"abc"), module(Condition::Disk, "ext4.ko", b"defgh")];
        let archive = build(b"agent", &modules).unwrap();
        let entries = unpack(&archive);
        let listing: Vec<_> =
            entries.iter().map(|entry| format!("{:o} {}", entry.mode, entry.name)).collect();
        assert_eq!(
            listing,
            [
                "40755 dev",
                "40755 modules",
                "40755 newroot",
                "40755 proc",
                "40755 run",
                "40755 sys",
                "40755 tmp",
                "20600 dev/console",
                "100755 init",
                "100644 modules/virtio.ko",
                "100644 modules/ext4.ko",
                "100644 modules/load",
            ]
        );
        let contents = |name: &str| &entries.iter().find(|entry| entry.name == name).unwrap().contents[..];
        assert_eq!(contents("init"), b"agent");
        assert_eq!(contents("modules/ext4.ko"), b"defgh");
        assert_eq!(contents("modules/load"), b"base virtio.ko\ndisk ext4.ko\n");
        assert_eq!(entries[7].rdev, (5, 1));
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out(
            agent in prop::collection::vec(any::<u8>(), 0..50),
            files in prop::collection::btree_map("[a-z_]{1,9}\\.ko", prop::collection::vec(any::<u8>(), 0..50), 0..6),
        ) {
            let modules: Vec<_> = files.iter().map(|(name, contents)| module(Condition::Base, name, contents)).collect();
            let archive = build(&agent, &modules).unwrap();
            prop_assert_eq!(archive.len() % 4, 0);
            prop_assert_eq!(&archive, &build(&agent, &modules).unwrap());
            let entries = unpack(&archive);
            for (name, contents) in &files {
                let entry = entries.iter().find(|entry| entry.name == format!("modules/{name}"));
                prop_assert_eq!(&entry.unwrap().contents, contents);
            }
        }
    }
}
