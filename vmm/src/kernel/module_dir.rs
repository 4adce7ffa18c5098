//! A kernel's module directory on the host: finds module files, unpacks them and reads what they need.
//!
//! Wiring around [`super::module_index`] and [`super::modinfo`]. A directory that depmod has been over is read
//! through its `modules.dep`; one that was only unpacked is searched, and dependencies come from the modules.

use super::compression::Compression;
use super::error::{self, Error};
use super::load_order::Found;
use super::modinfo::{self, ModuleInfo};
use super::module_index::{ModuleFile, ModuleName, parse_modules_builtin, parse_modules_dep};
use super::record::Inputs;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

/// Largest module that is read, packed or not. The largest in distributions (GPU drivers with debug
/// information) take some tens of MiB.
const MAX_MODULE_BYTES: u64 = 128 << 20;

/// Largest index that is read: a distribution's `modules.dep` has less than 1 MiB.
const MAX_INDEX_BYTES: u64 = 64 << 20;

/// How deep module files lie below the directory: 6 levels in distributions' kernels.
const MAX_DEPTH: usize = 16;

/// A kernel's module directory.
#[derive(Debug)]
pub(super) struct ModuleDir<'a> {
    root: &'a Path,
    release: &'a str,
    files: BTreeMap<ModuleName, ModuleFile>,
    built_in: BTreeSet<ModuleName>,
    unpacked: BTreeMap<ModuleName, Vec<u8>>,
}

impl<'a> ModuleDir<'a> {
    /// The modules of kernel `release` in `root`.
    pub(super) fn open(root: &'a Path, release: &'a str, inputs: &mut Inputs) -> Result<Self, Error> {
        let files = match read_index(root, "modules.dep", inputs)? {
            Some(text) => parse_modules_dep(&text),
            None => search(root)?,
        };
        let built_in = read_index(root, "modules.builtin", inputs)?;
        let built_in = built_in.map(|text| parse_modules_builtin(&text)).unwrap_or_default();
        Ok(Self { root, release, files, built_in, unpacked: BTreeMap::new() })
    }

    /// What there is under a name; a module's file is read and kept.
    pub(super) fn look_up(&mut self, name: &ModuleName, inputs: &mut Inputs) -> Result<Found, Error> {
        let Some(file) = self.files.get(name) else {
            let built_in = self.built_in.contains(name);
            return Ok(if built_in { Found::BuiltIn } else { Found::Absent });
        };
        let path = self.root.join(&file.path);
        let packed = inputs.read("module", &path, MAX_MODULE_BYTES)?;
        let contents = match Compression::detect(&packed) {
            None => packed,
            Some(compression) => compression
                .decompress(&packed, packed.len() as u64 * 4, MAX_MODULE_BYTES)
                .map_err(|source| Error::ModulePacking { path: path.clone(), source })?,
        };
        let ModuleInfo { depends, loads_after, release } =
            modinfo::parse(&contents).map_err(|source| Error::Module { path: path.clone(), source })?;
        if let Some(built_for) = release.filter(|release| release != self.release) {
            return Err(Error::ModuleOfAnotherKernel { path, built_for, release: self.release.to_owned() });
        }
        let needs = file.needs.clone().unwrap_or(depends);
        self.unpacked.insert(name.clone(), contents);
        Ok(Found::Module { needs, likes: loads_after })
    }

    /// The unpacked contents of a module that was looked up.
    pub(super) fn take(&mut self, name: &ModuleName) -> Option<Vec<u8>> {
        self.unpacked.remove(name)
    }
}

/// Whether `dir` is a kernel's module directory.
pub(super) fn is_module_dir(dir: &Path) -> bool {
    ["modules.dep", "modules.builtin", "modules.order"].iter().any(|name| dir.join(name).is_file())
}

fn read_index(root: &Path, name: &str, inputs: &mut Inputs) -> Result<Option<String>, Error> {
    match inputs.read("module index", &root.join(name), MAX_INDEX_BYTES) {
        Ok(text) => Ok(Some(String::from_utf8_lossy(&text).into_owned())),
        Err(Error::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Every module file below `root`. Links are not followed: `build` and `source` lead out. Of two files of one
/// name the first in the order of paths counts, so that the result does not depend on the file system.
fn search(root: &Path) -> Result<BTreeMap<ModuleName, ModuleFile>, Error> {
    let mut files = BTreeMap::<ModuleName, ModuleFile>::new();
    let mut dirs = vec![(PathBuf::new(), 0)];
    while let Some((dir, depth)) = dirs.pop() {
        let full = root.join(&dir);
        let listing = || std::fs::read_dir(&full)?.collect::<io::Result<Vec<_>>>();
        for entry in listing().map_err(error::read("module directory", &full))? {
            let kind = entry.file_type().map_err(error::read("module directory", &full))?;
            let path = dir.join(entry.file_name());
            if kind.is_dir() && depth < MAX_DEPTH {
                dirs.push((path, depth + 1));
            } else if let Some(name) = ModuleName::of_file(&path).filter(|_| kind.is_file()) {
                let file = ModuleFile { path, needs: None };
                let kept = files.entry(name).or_insert_with(|| file.clone());
                if file.path < kept.path {
                    *kept = file;
                }
            }
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::super::modinfo::tests::module;
    use super::*;
    use std::fs;

    fn write(root: &Path, path: &str, contents: &[u8]) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, contents).unwrap();
    }

    fn look_up(root: &Path, name: &str) -> Result<Found, Error> {
        let mut inputs = Inputs::default();
        ModuleDir::open(root, "6.1", &mut inputs)?.look_up(&ModuleName::new(name), &mut inputs)
    }

    fn needs(names: &[&str]) -> Found {
        Found::Module { needs: names.iter().map(|name| ModuleName::new(name)).collect(), likes: vec![] }
    }

    #[test]
    fn an_unpacked_package_is_searched() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let bytes = module(b"depends=lib-b\0vermagic=6.1 SMP \0");
        write(root, "kernel/drivers/a-1.ko.gz", &super::super::bzimage::tests::gzip(&bytes));
        write(root, "modules.builtin", b"kernel/fs/ext4/ext4.ko\n");
        std::os::unix::fs::symlink("/", root.join("build")).unwrap();
        assert_eq!(look_up(root, "a_1").unwrap(), needs(&["lib_b"]));
        assert_eq!(look_up(root, "ext4").unwrap(), Found::BuiltIn);
        assert_eq!(look_up(root, "xfs").unwrap(), Found::Absent);
        let mut inputs = Inputs::default();
        let mut modules = ModuleDir::open(root, "6.1", &mut inputs).unwrap();
        modules.look_up(&ModuleName::new("a-1"), &mut inputs).unwrap();
        assert_eq!(modules.take(&ModuleName::new("a-1")), Some(bytes));
    }

    #[test]
    fn modules_dep_rules_where_it_is() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "kernel/a.ko", &module(b"depends=b\0"));
        write(dir.path(), "kernel/unlisted.ko", &module(b""));
        write(dir.path(), "modules.dep", b"kernel/a.ko: kernel/c.ko kernel/b.ko\nkernel/gone.ko:\n");
        assert_eq!(look_up(dir.path(), "a").unwrap(), needs(&["c", "b"]));
        assert_eq!(look_up(dir.path(), "unlisted").unwrap(), Found::Absent);
        let error = look_up(dir.path(), "gone").unwrap_err();
        assert!(error.to_string().contains("kernel/gone.ko"), "{error}");
    }

    #[test]
    fn modules_that_cannot_be_loaded_are_named() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "a.ko", &module(b"vermagic=6.2 SMP \0"));
        write(dir.path(), "b.ko", b"no module");
        write(dir.path(), "c.ko.xz", b"\xfd7zXZ\0 damaged");
        assert!(matches!(look_up(dir.path(), "a"), Err(Error::ModuleOfAnotherKernel { .. })));
        assert!(matches!(look_up(dir.path(), "b"), Err(Error::Module { .. })));
        assert!(matches!(look_up(dir.path(), "c"), Err(Error::ModulePacking { .. })));
    }
}
