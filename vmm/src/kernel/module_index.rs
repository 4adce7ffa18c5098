//! What a kernel's module directory says about itself: `modules.dep` and `modules.builtin`.
//!
//! Pure: text in, maps out. The formats are those that depmod(8) writes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Component, Path, PathBuf};

/// A module's name as the kernel reports it: `-` and `_` are equal, and written `_`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModuleName(String);

impl ModuleName {
    /// The name that `name` stands for.
    pub fn new(name: &str) -> Self {
        Self(name.replace('-', "_"))
    }

    /// The name of the module in file `path`, where its ending is one of a module's.
    pub fn of_file(path: &Path) -> Option<Self> {
        let file = path.file_name()?.to_str()?;
        let stem =
            [".ko", ".ko.gz", ".ko.xz", ".ko.zst"].iter().find_map(|ending| file.strip_suffix(ending))?;
        (!stem.is_empty()).then(|| Self::new(stem))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ModuleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A module file of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleFile {
    /// Where it is, from the module directory.
    pub path: PathBuf,
    /// The modules it needs by its symbols, where `modules.dep` told.
    pub needs: Option<Vec<ModuleName>>,
}

/// Reads `modules.dep`: a line a module, `path: path path ...`. Lines that are not of this form, and paths that
/// lead out of the directory, are passed over.
pub fn parse_modules_dep(text: &str) -> BTreeMap<ModuleName, ModuleFile> {
    let entry = |line: &str| {
        let (path, needs) = line.split_once(':')?;
        let path = inner_path(path.trim())?;
        let needs =
            needs.split_whitespace().filter_map(|need| ModuleName::of_file(Path::new(need))).collect();
        Some((ModuleName::of_file(&path)?, ModuleFile { path, needs: Some(needs) }))
    };
    text.lines().filter_map(entry).collect()
}

/// Reads `modules.builtin`: the path that each built-in module would have had.
pub fn parse_modules_builtin(text: &str) -> BTreeSet<ModuleName> {
    text.lines().filter_map(|line| ModuleName::of_file(Path::new(line.trim()))).collect()
}

fn inner_path(path: &str) -> Option<PathBuf> {
    let path = PathBuf::from(path);
    path.components().all(|part| matches!(part, Component::Normal(_))).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn modules_dep_is_read() {
        let index = parse_modules_dep(
            "kernel/fs/ext4/ext4.ko.xz: kernel/fs/jbd2/jbd2.ko.xz kernel/lib/crc16.ko.xz\n\
             kernel/arch/x86/crypto/crc32c-intel.ko:\n\
             not a line\n\
             ../../evil.ko:\n\
             /lib/modules/6/absolute.ko:\n\
             kernel/README.txt: x.ko\n",
        );
        let names: Vec<_> = index.keys().map(ModuleName::as_str).collect();
        assert_eq!(names, ["crc32c_intel", "ext4"]);
        let ext4 = &index[&ModuleName::new("ext4")];
        assert_eq!(ext4.path, Path::new("kernel/fs/ext4/ext4.ko.xz"));
        assert_eq!(ext4.needs, Some(vec![ModuleName::new("jbd2"), ModuleName::new("crc16")]));
        assert_eq!(index[&ModuleName::new("crc32c-intel")].needs, Some(vec![]));
    }

    #[test]
    fn modules_builtin_is_read() {
        let builtin = parse_modules_builtin("kernel/fs/ext4/ext4.ko\nkernel/lib/crc-ccitt.ko\n\nx\n");
        assert!(
            builtin.contains(&ModuleName::new("ext4")) && builtin.contains(&ModuleName::new("crc_ccitt"))
        );
        assert_eq!(builtin.len(), 2);
    }

    proptest! {
        #[test]
        fn any_text_is_survived_and_stays_inside(text in "([a-z./:-]{0,20}(\\.ko)?[ :\n]?){0,20}") {
            for file in parse_modules_dep(&text).values() {
                prop_assert!(Path::new("/root").join(&file.path).starts_with("/root"));
                prop_assert!(!file.path.components().any(|part| part == Component::ParentDir));
            }
            let _ = parse_modules_builtin(&text);
        }
    }
}
