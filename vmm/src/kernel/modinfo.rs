//! What a kernel module says about itself in its `.modinfo` section.
//!
//! Pure. The section is a run of NUL-terminated `key=value` strings (`include/linux/moduleparam.h`). Called for
//! every module that goes into an initramfs.

#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]

use super::module_index::ModuleName;
use object::elf;
use object::endian::LittleEndian;
use object::read::elf::{FileHeader, SectionHeader};

/// Why a file is not a module that can be read.
#[derive(Debug, thiserror::Error)]
pub enum ModinfoError {
    /// No 64-bit little-endian ELF header, or tables outside the file.
    #[error("it is not a complete 64-bit ELF file")]
    NotElf(#[source] object::read::Error),
    /// An ELF file, of another kind.
    #[error("it is not a kernel module for x86-64")]
    WrongKind,
}

/// The fields that decide whether, and after what, a module can be loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModuleInfo {
    /// The modules whose symbols this one uses.
    pub depends: Vec<ModuleName>,
    /// What should be loaded before by what it does, without a symbol to show for it (`softdep=pre: ...`):
    /// a module's name or an alias such as a crypto algorithm's.
    pub loads_after: Vec<ModuleName>,
    /// The release it was built for: the first word of `vermagic`.
    pub release: Option<String>,
}

/// Reads the `.modinfo` section of a module, an ELF relocatable object.
///
/// # Errors
/// The file is not a module.
pub fn parse(module: &[u8]) -> Result<ModuleInfo, ModinfoError> {
    let header = elf::FileHeader64::<LittleEndian>::parse(module).map_err(ModinfoError::NotElf)?;
    let endian = header.endian().map_err(ModinfoError::NotElf)?;
    if header.e_machine(endian) != elf::EM_X86_64 || header.e_type(endian) != elf::ET_REL {
        return Err(ModinfoError::WrongKind);
    }
    let sections = header.sections(endian, module).map_err(ModinfoError::NotElf)?;
    let (_, section) = sections.section_by_name(endian, b".modinfo").ok_or(ModinfoError::WrongKind)?;
    Ok(parse_section(section.data(endian, module).map_err(ModinfoError::NotElf)?))
}

/// Reads the bytes of a `.modinfo` section. What is not understood is passed over.
pub fn parse_section(section: &[u8]) -> ModuleInfo {
    let mut info = ModuleInfo::default();
    let entries = section.split(|byte| *byte == 0).filter_map(|entry| std::str::from_utf8(entry).ok());
    for (key, value) in entries.filter_map(|entry| entry.split_once('=')) {
        match key {
            "depends" => {
                let names = value.split(',').map(str::trim).filter(|name| !name.is_empty());
                info.depends.extend(names.map(ModuleName::new));
            }
            "softdep" => {
                // "pre: a b post: c"
                let words = value.split_whitespace().scan(false, |before, word| {
                    *before = if word.ends_with(':') { word == "pre:" } else { *before };
                    Some((*before, word))
                });
                let before = words.filter(|(before, word)| *before && !word.ends_with(':'));
                info.loads_after.extend(before.map(|(_, word)| ModuleName::new(word)));
            }
            "vermagic" => info.release = value.split_whitespace().next().map(str::to_owned),
            _ => {}
        }
    }
    info
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// An ELF object with `modinfo` as its `.modinfo` section.
    pub(crate) fn module(modinfo: &[u8]) -> Vec<u8> {
        let names = b"\0.modinfo\0.shstrtab\0";
        let (modinfo_at, names_at) = (64, 64 + modinfo.len());
        let table_at = (names_at + names.len()).next_multiple_of(8);
        let mut bytes = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
        bytes.extend([1, 0, 62, 0, 1, 0, 0, 0]);
        for quad in [0, 0, table_at as u64] {
            bytes.extend(u64::to_le_bytes(quad));
        }
        bytes.extend([0, 0, 0, 0, 64, 0, 0, 0, 0, 0, 64, 0, 3, 0, 2, 0]);
        bytes.extend(modinfo);
        bytes.extend(names);
        bytes.resize(table_at + 64, 0);
        for (name, kind, at, size) in
            [(1u32, 1u32, modinfo_at, modinfo.len()), (10, 3, names_at, names.len())]
        {
            bytes.extend(name.to_le_bytes());
            bytes.extend(kind.to_le_bytes());
            for quad in [0, 0, at as u64, size as u64, 0, 1, 0] {
                bytes.extend(u64::to_le_bytes(quad));
            }
        }
        bytes
    }

    fn names(names: &[ModuleName]) -> Vec<&str> {
        names.iter().map(ModuleName::as_str).collect()
    }

    #[test]
    fn the_fields_are_read() {
        let info = parse(&module(
            b"license=GPL\0softdep=pre: crc32c post: other pre: late-one\0alias=fs-ext4\0\
              depends=mbcache,jbd2,crc32c-intel\0vermagic=6.1.0-56-amd64 SMP preempt mod_unload \0",
        ))
        .unwrap();
        assert_eq!(names(&info.depends), ["mbcache", "jbd2", "crc32c_intel"]);
        assert_eq!(names(&info.loads_after), ["crc32c", "late_one"]);
        assert_eq!(info.release.as_deref(), Some("6.1.0-56-amd64"));
    }

    #[test]
    fn empty_fields_name_nothing() {
        assert_eq!(
            parse(&module(b"depends=\0softdep=\0softdep=post: x\0=\0")).unwrap(),
            ModuleInfo::default()
        );
    }

    #[test]
    fn what_is_no_module_is_named() {
        assert!(matches!(parse(b"\x7fELF"), Err(ModinfoError::NotElf(_))));
        let mut program = module(b"depends=\0");
        program[16] = 2;
        assert!(matches!(parse(&program), Err(ModinfoError::WrongKind)));
        let mut nameless = module(b"depends=\0");
        let at = nameless.windows(8).position(|bytes| bytes == b".modinfo").unwrap();
        nameless[at] = b'x';
        assert!(matches!(parse(&nameless), Err(ModinfoError::WrongKind)));
    }

    proptest! {
        #[test]
        fn any_section_is_survived(bytes in prop::collection::vec(any::<u8>(), 0..200), text in "((depends|softdep|vermagic)=[a-z,: \\x00]{0,20}\\x00?){0,5}") {
            let _ = parse_section(&bytes);
            let info = parse_section(text.as_bytes());
            prop_assert!(info.depends.iter().all(|name| !name.as_str().is_empty()));
        }

        #[test]
        fn any_damage_is_survived(at in any::<prop::sample::Index>(), value: u8, cut in any::<prop::sample::Index>()) {
            let mut bytes = module(b"depends=a,b\0");
            let at = at.index(bytes.len());
            bytes[at] = value;
            let _ = parse(&bytes);
            bytes.truncate(cut.index(bytes.len()));
            let _ = parse(&bytes);
        }
    }
}
