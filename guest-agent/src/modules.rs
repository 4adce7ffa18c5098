//! Loads the kernel's drivers that the packer put into the initramfs.
//!
//! `/modules/load` names them in dependency order, a line each: a condition and a file below `/modules`.

#![forbid(unsafe_code)]

use std::fs::{self, File};

use rustix::io::Errno;

use crate::error::{Doing, Error};

const DIRECTORY: &str = "/modules";

/// When a module is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// In every machine.
    Base,
    /// When there are volumes.
    Disk,
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
    modules
        .iter()
        .filter(|module| module.condition == condition)
        .filter_map(|module| load_one(&module.file).err())
        .collect()
}

fn load_one(file: &str) -> Result<(), Error> {
    let path = format!("{DIRECTORY}/{file}");
    let module = File::open(&path).doing(|| format!("opening module {file}"))?;
    match rustix::system::finit_module(&module, c"", 0) {
        // Already there, or a driver whose hardware is not.
        Ok(()) | Err(Errno::EXIST | Errno::NODEV) => Ok(()),
        Err(errno) => Err(errno).doing(|| format!("loading module {file}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_keeps_its_order_and_conditions() {
        let modules = parse("base kernel/virtio.ko\n\ndisk virtio_blk.ko\nbase a b.ko\n").unwrap();
        let expected = [
            (Condition::Base, "kernel/virtio.ko"),
            (Condition::Disk, "virtio_blk.ko"),
            (Condition::Base, "a b.ko"),
        ];
        assert_eq!(modules, expected.map(|(condition, file)| Module { condition, file: file.to_owned() }));
    }

    #[test]
    fn a_line_without_a_condition_is_refused() {
        for list in ["virtio.ko", "usb virtio.ko", "base"] {
            assert!(parse(list).unwrap_err().to_string().contains(list));
        }
    }
}
