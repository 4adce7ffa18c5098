//! Loads the kernel's drivers that the packer put into the initramfs.
//!
//! `/modules/load` names them in dependency order, a line each: a condition and a file below `/modules`.
//!
//! To verify the modules' signatures takes the kernel most of the time of loading them, and proves nothing here:
//! the host made the kernel, the initramfs and the command line alike. They are therefore cut off first. The
//! kernel notes that in its taint flags (`E`). One that insists on signatures (`CONFIG_MODULE_SIG_FORCE`,
//! `module.sig_enforce`, lockdown) gets them back.

#![forbid(unsafe_code)]

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Doing, Error};
use crate::signature::{TRAILER_BYTES, signature_bytes};

const DIRECTORY: &str = "/modules";

/// When a module is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// In every machine.
    Base,
    /// When there are volumes.
    Disk,
    /// When the workload has run for a while, for swap.
    Swap,
}

/// A line of the list.
#[derive(Debug, PartialEq, Eq)]
pub struct Module {
    condition: Condition,
    file: String,
}

/// Reads the list of modules.
fn parse(list: &str) -> Result<Vec<Module>, Error> {
    list.lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| {
            let (condition, file) = match line.split_once(' ') {
                Some(("base", file)) => (Condition::Base, file),
                Some(("disk", file)) => (Condition::Disk, file),
                Some(("swap", file)) => (Condition::Swap, file),
                _ => return Err(Error::new(format!("reading {DIRECTORY}/load: no condition in {line:?}"))),
            };
            Ok(Module { condition, file: file.to_owned() })
        })
        .collect()
}

/// The modules in the initramfs; none if it has no list, which a kernel with built-in drivers needs not.
pub fn list() -> Result<Vec<Module>, Error> {
    match fs::read_to_string(format!("{DIRECTORY}/load")) {
        Ok(list) => parse(&list),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).doing(|| format!("reading {DIRECTORY}/load")),
    }
}

/// Loads those of one condition, in order. Returns a sentence for each that could not be.
///
/// No single driver is fatal here: what really needs a missing one says so later, with more to tell.
pub fn load(modules: &[Module], condition: Condition) -> Vec<Error> {
    let mut insists = false;
    modules
        .iter()
        .filter(|module| module.condition == condition)
        .filter_map(|module| {
            let path = format!("{DIRECTORY}/{}", module.file);
            load_one(&path, &mut insists).doing(|| format!("loading module {}", module.file)).err()
        })
        .collect()
}

/// Whether there are any of this condition.
pub fn has(modules: &[Module], condition: Condition) -> bool {
    modules.iter().any(|module| module.condition == condition)
}

/// Gives back the memory of their files: none is loaded any more.
pub fn remove_files() {
    // It is only memory.
    let _ = fs::remove_dir_all(DIRECTORY);
}

/// The same of all but those of one condition.
pub fn remove_files_but(modules: &[Module], kept: Condition) {
    for module in modules.iter().filter(|module| module.condition != kept) {
        let _ = fs::remove_file(format!("{DIRECTORY}/{}", module.file));
    }
}

/// Loads a module; `insists` says, and learns, whether the kernel insists on signatures.
fn load_one(path: &str, insists: &mut bool) -> io::Result<()> {
    if !*insists {
        let signature = cut_signature(path)?;
        match insert(path) {
            Err(Errno::KEYREJECTED | Errno::PERM) if !signature.is_empty() => {
                *insists = true;
                OpenOptions::new().append(true).open(path)?.write_all(&signature)?;
            }
            inserted => return Ok(inserted?),
        }
    }
    Ok(insert(path)?)
}

/// Removes the signature from a module's file, and returns it with all that belongs to it.
fn cut_signature(path: &str) -> io::Result<Vec<u8>> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let length = file.metadata()?.len();
    let mut trailer = [0; TRAILER_BYTES];
    let Some(trailer_start) = length.checked_sub(TRAILER_BYTES as u64) else { return Ok(Vec::new()) };
    file.read_exact_at(&mut trailer, trailer_start)?;
    let cut = signature_bytes(&trailer).and_then(|bytes| Some((length.checked_sub(bytes)?, bytes)));
    let Some((start, bytes)) = cut else { return Ok(Vec::new()) };
    let mut signature = vec![0; usize::try_from(bytes).map_err(|_| io::ErrorKind::FileTooLarge)?];
    file.read_exact_at(&mut signature, start)?;
    file.set_len(start)?;
    Ok(signature)
}

/// Has the kernel load a file, which nobody may have open for writing.
fn insert(path: &str) -> Result<(), Errno> {
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    match rustix::system::finit_module(&file, c"", 0) {
        // Already there, or a driver whose hardware is not.
        Ok(()) | Err(Errno::EXIST | Errno::NODEV) => Ok(()),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_keeps_its_order_and_conditions() {
        let modules =
            parse("base kernel/virtio.ko\n\ndisk virtio_blk.ko\nbase a b.ko\nswap zram.ko\n").unwrap();
        let expected = [
            (Condition::Base, "kernel/virtio.ko"),
            (Condition::Disk, "virtio_blk.ko"),
            (Condition::Base, "a b.ko"),
            (Condition::Swap, "zram.ko"),
        ];
        assert_eq!(modules, expected.map(|(condition, file)| Module { condition, file: file.to_owned() }));
    }

    #[test]
    fn a_line_without_a_condition_is_refused() {
        for list in ["virtio.ko", "usb virtio.ko", "base"] {
            assert!(parse(list).unwrap_err().to_string().contains(list));
        }
    }

    #[test]
    fn a_signature_is_cut_off_and_kept() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        let signed = [
            b"moduleSIG".as_slice(),
            &[0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 3],
            b"~Module signature appended~\n",
        ];
        fs::write(path, signed.concat()).unwrap();
        let signature = cut_signature(path).unwrap();
        assert_eq!(fs::read(path).unwrap(), b"module");
        assert_eq!([b"module".as_slice(), &signature].concat(), signed.concat());
        assert_eq!(cut_signature(path).unwrap(), b"", "there is none any more");
        assert_eq!(fs::read(path).unwrap(), b"module");
    }

    #[test]
    fn a_signature_longer_than_its_file_is_none() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        let damaged = [[0; 8].as_slice(), &[1, 0, 0, 0], b"~Module signature appended~\n"].concat();
        fs::write(path, &damaged).unwrap();
        assert_eq!(cut_signature(path).unwrap(), b"");
        assert_eq!(fs::read(path).unwrap(), damaged);
    }
}
