//! Checks on the two x86-64 ELF images that a guest starts from, the uncompressed kernel and the agent, and
//! the release that a kernel carries.
//!
//! Pure. Called before an image is cached or handed to `ballast-vmm`, so that what cannot run is named as such
//! here and not by a guest that stays silent.

#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]

use super::version;
use object::elf;
use object::endian::LittleEndian;
use object::read::elf::{FileHeader, ProgramHeader};

/// Why an image cannot be booted.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// No 64-bit little-endian ELF header, or tables outside the file.
    #[error("it is not a complete 64-bit ELF image")]
    NotElf(#[source] object::read::Error),
    /// An ELF image, of another kind.
    #[error("it is an ELF file for machine {machine} of type {kind}, not an executable for x86-64")]
    WrongKind {
        /// `e_machine`.
        machine: u16,
        /// `e_type`.
        kind: u16,
    },
    /// Nothing would be loaded.
    #[error("it has no segment to load")]
    NothingToLoad,
    /// A segment's bytes are not all in the file.
    #[error("it is cut off: a segment ends at byte {end}, the file at byte {file_bytes}")]
    CutOff {
        /// Where the segment ends in the file.
        end: u64,
        /// The file's size.
        file_bytes: u64,
    },
    /// The entry point lies in no segment.
    #[error("its entry point {0:#x} lies in no loaded segment")]
    EntryOutside(u64),
    /// A program that wants a dynamic loader, which a guest does not have.
    #[error("it is dynamically linked, and only a static program runs in the guest")]
    Dynamic,
}

/// Whether `bytes` begin as an ELF file does.
pub fn is_elf(bytes: &[u8]) -> bool {
    bytes.starts_with(&elf::ELFMAG)
}

/// Checks that `image` is a kernel which can be loaded: an x86-64 executable whose segments lie in the file
/// and whose entry point, a physical address in a kernel, lies in one of them.
///
/// # Errors
/// What the image lacks.
pub fn check_kernel(image: &[u8]) -> Result<(), ImageError> {
    check(image).map(|_| ())
}

/// Checks that `image` is a program which can be the guest's first: a static x86-64 executable.
///
/// # Errors
/// What the image lacks.
pub fn check_program(image: &[u8]) -> Result<(), ImageError> {
    let segments = check(image)?;
    let interpreted = segments.iter().any(|segment| segment.p_type(LittleEndian) == elf::PT_INTERP);
    if interpreted { Err(ImageError::Dynamic) } else { Ok(()) }
}

fn check(image: &[u8]) -> Result<&[elf::ProgramHeader64<LittleEndian>], ImageError> {
    let header = elf::FileHeader64::<LittleEndian>::parse(image).map_err(ImageError::NotElf)?;
    let endian = header.endian().map_err(ImageError::NotElf)?;
    let (machine, kind) = (header.e_machine(endian), header.e_type(endian));
    if machine != elf::EM_X86_64 || !matches!(kind, elf::ET_EXEC | elf::ET_DYN) {
        return Err(ImageError::WrongKind { machine: machine.0, kind: kind.0 });
    }
    let segments = header.program_headers(endian, image).map_err(ImageError::NotElf)?;
    let loaded = || segments.iter().filter(|segment| segment.p_type(endian) == elf::PT_LOAD);
    if loaded().all(|segment| segment.p_memsz(endian) == 0) {
        return Err(ImageError::NothingToLoad);
    }
    let file_bytes = image.len() as u64;
    for segment in loaded() {
        let end = segment.p_offset(endian).saturating_add(segment.p_filesz(endian));
        if end > file_bytes {
            return Err(ImageError::CutOff { end, file_bytes });
        }
    }
    let entry = header.e_entry(endian);
    let holds_entry = |segment: &elf::ProgramHeader64<LittleEndian>| {
        entry.checked_sub(segment.p_paddr(endian)).is_some_and(|offset| offset < segment.p_memsz(endian))
    };
    if !loaded().any(holds_entry) {
        return Err(ImageError::EntryOutside(entry));
    }
    Ok(segments)
}

/// The release in the kernel's banner, `Linux version <release> (...`, of `init/version.c`.
pub fn release(image: &[u8]) -> Option<&str> {
    const BANNER: &[u8] = b"Linux version ";
    let mut rest = image;
    loop {
        let start = rest.windows(BANNER.len()).position(|window| window == BANNER)?;
        rest = rest.get(start.checked_add(BANNER.len())?..)?;
        let length = rest.iter().take(version::MAX_RELEASE_BYTES.saturating_add(1)).position(|b| *b == b' ');
        let word =
            length.and_then(|length| rest.get(..length)).and_then(|word| std::str::from_utf8(word).ok());
        if let Some(release) = word.filter(|word| version::is_release(word)) {
            return Some(release);
        }
    }
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The smallest image that [`check_kernel`] accepts: one segment at 16 MiB which holds the banner.
    pub(crate) fn image(release: &str) -> Vec<u8> {
        let banner = format!("Linux version %s\0Linux version {release} (builder) #1\n");
        let mut bytes = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
        bytes.extend([2, 0, 62, 0, 1, 0, 0, 0]);
        for quad in [0x100_0000u64, 64, 0] {
            bytes.extend(quad.to_le_bytes());
        }
        bytes.extend([0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 64, 0, 0, 0, 0, 0]);
        bytes.extend([1, 0, 0, 0, 5, 0, 0, 0]);
        let size = banner.len() as u64;
        for quad in [120, 0xffff_ffff_8100_0000, 0x100_0000, size, size + 4096, 0x1000] {
            bytes.extend(u64::to_le_bytes(quad));
        }
        bytes.extend(banner.as_bytes());
        bytes
    }

    #[test]
    fn a_kernel_is_accepted_and_its_release_read() {
        let image = image("6.1.0-56-cloud-amd64");
        check_kernel(&image).unwrap();
        assert_eq!(release(&image), Some("6.1.0-56-cloud-amd64"));
    }

    #[test]
    fn what_is_no_kernel_is_named() {
        let good = image("6.1.0");
        assert!(matches!(check_kernel(b"MZ"), Err(ImageError::NotElf(_))));
        assert!(matches!(check_kernel(&good[..80]), Err(ImageError::NotElf(_))));
        assert!(matches!(check_kernel(&good[..good.len() - 1]), Err(ImageError::CutOff { .. })));
        let edited = |at: usize, value: u8| {
            let mut bytes = good.clone();
            bytes[at] = value;
            check_kernel(&bytes)
        };
        assert!(matches!(edited(18, 183), Err(ImageError::WrongKind { machine: 183, kind: 2 })));
        assert!(matches!(edited(16, 1), Err(ImageError::WrongKind { machine: 62, kind: 1 })));
        assert!(matches!(edited(64, 4), Err(ImageError::NothingToLoad)));
        assert!(matches!(edited(28, 1), Err(ImageError::EntryOutside(_))));
    }

    #[test]
    fn a_program_must_be_static() {
        let mut program = image("6.1.0-with-a-long-name");
        check_program(&program).unwrap();
        // A second header in place of the first bytes of the banner: PT_INTERP.
        program[56] = 2;
        program[120..124].copy_from_slice(&[3, 0, 0, 0]);
        assert!(matches!(check_program(&program), Err(ImageError::Dynamic)));
    }

    #[test]
    fn a_banner_without_a_release_is_passed_over() {
        assert_eq!(release(b"Linux version %s (%s) Linux version 6.9-x y"), Some("6.9-x"));
        assert_eq!(release(b"Linux version ../../etc ("), None);
        assert_eq!(release(b"Linux version 6"), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = (check_kernel(&bytes), release(&bytes));
        }

        #[test]
        fn any_damage_is_survived(at in any::<prop::sample::Index>(), value: u8, cut in any::<prop::sample::Index>()) {
            let mut bytes = image("6.1.0");
            let at = at.index(120);
            bytes[at] = value;
            let _ = (check_kernel(&bytes), check_program(&bytes));
            bytes.truncate(cut.index(bytes.len()));
            let _ = (check_kernel(&bytes), check_program(&bytes));
        }

        #[test]
        fn a_cut_image_is_never_accepted(cut in any::<prop::sample::Index>()) {
            let mut bytes = image("6.1.0");
            bytes.truncate(cut.index(bytes.len()));
            prop_assert!(check_kernel(&bytes).is_err());
        }
    }
}
