//! Which part of a kernel's image stays as it is when the kernel runs, so that guests can share it. Pure.
//!
//! The kernel patches its code and writes its data while it boots. What lies behind the code in the same segment it only
//! reads: constants, symbol tables, type information (`RO_DATA` in include/asm-generic/vmlinux.lds.h). And the code ends with
//! padding that nobody ever touches: some thunks must lie at addresses that differ in certain bits
//! (`srso_alias_untrain_ret` in arch/x86/kernel/vmlinux.lds.S), for which 4 MiB of it are laid out in Debian's kernels. That
//! the part stays as it is is a matter of memory, not of correctness: whoever maps it does so copy-on-write.

#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]

use crate::config::ImagePart;
use balloon::PAGE_BYTES;
use object::elf::{self, FileHeader64};
use object::endian::LittleEndian;
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader};

/// Less is not worth a mapping of its own.
const LEAST_BYTES: u64 = 1 << 20;

const PAGE: usize = 4096;
const _: () = assert!(PAGE as u64 == PAGE_BYTES);

/// What padding between functions is made of: the instruction `int3`.
const PADDING: u8 = 0xcc;

/// Pages amid the padding that are none: the thunks, and where code begins and ends. Those that the kernel patches cost a
/// small page each.
const MOST_AMID: u32 = 16;

/// The part of `image`, a kernel, behind its code and with the padding at the end of that. None if it does not say what is
/// code, or there is little behind it.
#[must_use]
pub fn constant_part(image: &[u8]) -> Option<ImagePart> {
    let endian = LittleEndian;
    let header = FileHeader64::<LittleEndian>::parse(image).ok()?;
    let segments = header.program_headers(endian, image).ok()?;
    let is_code = |segment: &&elf::ProgramHeader64<LittleEndian>| {
        segment.p_type(endian) == elf::PT_LOAD && segment.p_flags(endian).0 & elf::PF_X.0 != 0
    };
    let segment = segments.iter().find(is_code)?;
    let (start, file_bytes) = (segment.p_vaddr(endian), segment.p_filesz(endian));
    let sections = header.section_headers(endian, image).ok()?;
    let ends = sections.iter().filter_map(|section| {
        let flags = section.sh_flags(endian).0;
        let wanted = elf::SHF_ALLOC.0 | elf::SHF_EXECINSTR.0;
        let offset = section.sh_addr(endian).checked_sub(start).filter(|offset| *offset < file_bytes)?;
        (flags & wanted == wanted).then_some(offset.checked_add(section.sh_size(endian))?)
    });
    let from = ends.max()?.checked_next_multiple_of(PAGE_BYTES)?;
    let code = image.get(usize::try_from(segment.p_offset(endian)).ok()?..)?;
    let padding = padding_bytes(code.get(..usize::try_from(from).ok()?)?);
    let from = from.checked_sub(padding)?;
    let behind = file_bytes.checked_sub(from)?;
    let bytes = behind.checked_sub(behind.checked_rem(PAGE_BYTES)?)?;
    let part = ImagePart {
        offset: segment.p_offset(endian).checked_add(from)?,
        address: segment.p_paddr(endian).checked_add(from)?,
        bytes,
    };
    let aligned = part.offset.is_multiple_of(PAGE_BYTES) && part.address.is_multiple_of(PAGE_BYTES);
    (aligned && bytes >= LEAST_BYTES).then_some(part)
}

/// How many bytes at the end of `code`, whole pages, are padding but for a few pages.
fn padding_bytes(code: &[u8]) -> u64 {
    let (mut amid, mut padding) = (0_u32, 0);
    for (number, page) in (1..).zip(code.rchunks_exact(PAGE)) {
        if page.iter().all(|byte| *byte == PADDING) {
            padding = number;
        } else if amid == MOST_AMID {
            break;
        } else {
            amid = amid.saturating_add(1);
        }
    }
    PAGE_BYTES.saturating_mul(padding)
}

#[cfg(test)]
#[expect(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    reason = "no guest's numbers: the tests' own"
)]
mod tests {
    use super::*;

    const CODE: u64 = 2 | 4;
    const DATA: u64 = 2;
    const SEGMENT: u64 = 4 << 20;

    /// A kernel of one segment, at 16 MiB of guest memory and 2 MiB of the file, with sections of these flags, begins and
    /// lengths in it.
    fn kernel(offset: u64, sections: &[(u64, u64, u64)]) -> Vec<u8> {
        let mut image = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0".to_vec();
        image.extend([0x100_0000u64, 64, 120].map(u64::to_le_bytes).concat());
        image.extend([0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 64, 0, sections.len() as u8 + 1, 0, 0, 0]);
        image.extend([1, 0, 0, 0, 5, 0, 0, 0]);
        let start = 0xffff_ffff_8100_0000;
        image.extend([offset, start, 0x100_0000, SEGMENT, SEGMENT, 4096].map(u64::to_le_bytes).concat());
        image.extend([0; 64]);
        for (flags, begin, length) in sections {
            image.extend([0, 0, 0, 0, 1, 0, 0, 0]);
            let numbers = [*flags, start + begin, offset + begin, *length, 0, 4096, 0];
            image.extend(numbers.map(u64::to_le_bytes).concat());
        }
        image.resize((offset + SEGMENT) as usize, 0);
        image
    }

    #[test]
    fn what_lies_behind_the_code_in_its_segment_is_constant() {
        let image = kernel(2 << 20, &[(CODE, 0, (1 << 20) + 5), (DATA, 2 << 20, 2 << 20)]);
        let begin = (1 << 20) + 4096;
        let part =
            ImagePart { offset: (2 << 20) + begin, address: 0x100_0000 + begin, bytes: SEGMENT - begin };
        assert_eq!(constant_part(&image), Some(part));
    }

    #[test]
    fn padding_at_the_end_of_the_code_stays_as_it_is_too() {
        let mut image = kernel(2 << 20, &[(CODE, 0, 2 << 20), (DATA, 2 << 20, 2 << 20)]);
        let begin = |image: &[u8]| constant_part(image).unwrap().offset - (2 << 20);
        assert_eq!(begin(&image), 2 << 20);
        let page = |number: usize| (2 << 20) + number * PAGE..(2 << 20) + (number + 1) * PAGE;
        image[page(100).start..page(511).end].fill(PADDING);
        assert_eq!(begin(&image), 100 * 4096);
        // Code amid it, at its end too.
        for number in [511, 510, 300] {
            image[page(number).start + 7] = 0x90;
        }
        assert_eq!(begin(&image), 100 * 4096);
        for number in 200..213 {
            image[page(number).end - 1] = 0x90;
        }
        assert_eq!(begin(&image), 100 * 4096);
        image[page(150).start] = 0x90;
        assert_eq!(begin(&image), 151 * 4096, "more is code that has padding in it");
    }

    #[test]
    fn without_much_behind_the_code_there_is_none() {
        for sections in [
            &[][..],
            &[(DATA, 0, 4 << 20)],
            &[(CODE, 0, 4 << 20)],
            &[(CODE, 0, 4096), (CODE, 3 << 20, 4097)],
            &[(CODE, 0, u64::MAX)],
        ] {
            assert_eq!(constant_part(&kernel(2 << 20, sections)), None, "{sections:?}");
        }
        assert_eq!(constant_part(&kernel((2 << 20) + 8, &[(CODE, 0, 4096)])), None, "not at whole pages");
        let whole = kernel(2 << 20, &[(CODE, 0, 4096)]);
        assert!(constant_part(&whole).is_some());
        for length in [0, 60, 100, 150, 200] {
            assert_eq!(constant_part(&whole[..length]), None, "cut at {length}");
        }
    }
}
