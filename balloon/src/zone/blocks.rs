//! Which zone of a VM a guest page lies in: a number for each block, so that a look-up is one read.
//!
//! Zones go by their number in the VM here, as the guest's NUMA nodes do. A zone is one contiguous range; that of
//! the boot memory may have the hole below 4 GiB in it, and is then given in two.

use crate::{BLOCK_BYTES, PAGE_BYTES};

/// What guest-visible zones are multiples of: Linux gives memory to NUMA nodes by whole sections
/// (`SECTION_SIZE_BITS` in `arch/x86/include/asm/sparsemem.h`).
pub const SECTION_BYTES: u64 = 128 << 20;

const PAGES_PER_BLOCK: u64 = BLOCK_BYTES / PAGE_BYTES;
/// Where page numbers of 32 bits end.
const MAX_ADDRESS: u64 = PAGE_BYTES << 32;
/// A block that is in no zone.
const NOTHING: u16 = u16::MAX;

/// Guest memory of one zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Number of the zone in its VM.
    pub zone: u16,
    /// Guest-physical address.
    pub address: u64,
    /// Length.
    pub bytes: u64,
}

/// Extents that cannot be a VM's zones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExtentError {
    /// Not made of whole units.
    #[error(
        "zone {zone} at {address:#x}, {bytes} bytes, is not made of whole units of {unit_bytes} bytes: choose a \
         multiple of that size"
    )]
    Unaligned {
        /// The zone.
        zone: u16,
        /// Guest-physical address.
        address: u64,
        /// Length.
        bytes: u64,
        /// A block, or a section where zones are visible to the guest.
        unit_bytes: u64,
    },
    /// It begins before the one before it ends, or its zone has a lower number.
    #[error("zone {zone} at {address:#x} overlaps or precedes the zone before it")]
    Order {
        /// The zone.
        zone: u16,
        /// Guest-physical address.
        address: u64,
    },
    /// Page numbers end, or zone numbers do.
    #[error("zone {zone} at {address:#x} reaches 16 TiB, or is one of more than 65535 zones")]
    TooLarge {
        /// The zone.
        zone: u16,
        /// Guest-physical address.
        address: u64,
    },
}

/// The zones of one VM by guest page. Takes two bytes for each block of the address space up to the last zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocks {
    zones: Vec<u16>,
}

impl Blocks {
    /// The table of `extents`, ascending by address and zone. The guest sees zones as its NUMA nodes if there are
    /// several: they are then made of whole sections. The only zone of a VM is made of blocks.
    ///
    /// # Errors
    /// An extent is empty, unaligned, out of order or beyond 16 TiB.
    pub fn new(extents: &[Extent]) -> Result<Self, ExtentError> {
        let several = extents.windows(2).any(|pair| matches!(pair, [one, two] if one.zone != two.zone));
        let unit_bytes = if several { SECTION_BYTES } else { BLOCK_BYTES };
        let (mut zones, mut least) = (Vec::new(), 0);
        for &Extent { zone, address, bytes } in extents {
            if bytes == 0 || !address.is_multiple_of(unit_bytes) || !bytes.is_multiple_of(unit_bytes) {
                return Err(ExtentError::Unaligned { zone, address, bytes, unit_bytes });
            }
            let too_large = ExtentError::TooLarge { zone, address };
            let end = address.checked_add(bytes).filter(|end| *end <= MAX_ADDRESS && zone != NOTHING);
            let (begin, end) = (block(address).ok_or(too_large)?, end.and_then(block).ok_or(too_large)?);
            if begin < zones.len() || zone < least {
                return Err(ExtentError::Order { zone, address });
            }
            zones.resize(begin, NOTHING);
            zones.resize(end, zone);
            least = zone;
        }
        Ok(Self { zones })
    }

    /// The zone that guest page number `page` lies in; nothing if it is in none.
    #[must_use]
    pub fn zone_of(&self, page: u32) -> Option<u16> {
        let block = usize::try_from(u64::from(page) / PAGES_PER_BLOCK).ok()?;
        self.zones.get(block).copied().filter(|zone| *zone != NOTHING)
    }
}

fn block(address: u64) -> Option<usize> {
    usize::try_from(address / BLOCK_BYTES).ok()
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECTION: u64 = SECTION_BYTES;
    const BLOCK: u64 = BLOCK_BYTES;

    fn extents(extents: &[(u16, u64, u64)]) -> Vec<Extent> {
        extents.iter().map(|&(zone, address, bytes)| Extent { zone, address, bytes }).collect()
    }

    fn table(list: &[(u16, u64, u64)]) -> Result<Blocks, ExtentError> {
        Blocks::new(&extents(list))
    }

    #[test]
    fn a_hole_is_in_no_zone() {
        let table =
            table(&[(0, 0, 24 * SECTION), (0, 32 * SECTION, SECTION), (1, 33 * SECTION, SECTION)]).unwrap();
        let zone_at = |address: u64| table.zone_of((address / PAGE_BYTES) as u32);
        assert_eq!((zone_at(0), zone_at(24 * SECTION - 1)), (Some(0), Some(0)));
        assert_eq!((zone_at(24 * SECTION), zone_at(32 * SECTION - 1)), (None, None));
        assert_eq!((zone_at(32 * SECTION), zone_at(33 * SECTION - 1)), (Some(0), Some(0)));
        assert_eq!((zone_at(33 * SECTION), zone_at(34 * SECTION - 1)), (Some(1), Some(1)));
        assert_eq!((zone_at(34 * SECTION), table.zone_of(u32::MAX)), (None, None));
        assert_eq!(Blocks::new(&[]).unwrap().zone_of(0), None);
    }

    #[test]
    fn the_guest_sees_whole_sections() {
        assert!(table(&[(0, 0, 24 * BLOCK)]).is_ok(), "a single zone is not seen");
        let unaligned = |zone, address, bytes, unit_bytes| {
            Err(ExtentError::Unaligned { zone, address, bytes, unit_bytes })
        };
        assert_eq!(table(&[(0, 0, SECTION), (1, SECTION, BLOCK)]), unaligned(1, SECTION, BLOCK, SECTION));
        assert_eq!(table(&[(0, 0, BLOCK), (1, SECTION, SECTION)]), unaligned(0, 0, BLOCK, SECTION));
        assert_eq!(table(&[(0, 0, BLOCK + PAGE_BYTES)]), unaligned(0, 0, BLOCK + PAGE_BYTES, BLOCK));
        assert_eq!(table(&[(0, PAGE_BYTES, BLOCK)]), unaligned(0, PAGE_BYTES, BLOCK, BLOCK));
        assert_eq!(table(&[(0, BLOCK, 0)]), unaligned(0, BLOCK, 0, BLOCK));
    }

    #[test]
    fn zones_ascend_below_16_tib() {
        let order = |zone, address| Err(ExtentError::Order { zone, address });
        let too_large = |zone, address| Err(ExtentError::TooLarge { zone, address });
        assert_eq!(table(&[(0, 0, 2 * SECTION), (1, SECTION, SECTION)]), order(1, SECTION));
        assert_eq!(table(&[(0, SECTION, SECTION), (1, 0, SECTION)]), order(1, 0));
        assert_eq!(table(&[(1, 0, SECTION), (0, SECTION, SECTION)]), order(0, SECTION));
        assert_eq!(table(&[(0, MAX_ADDRESS - BLOCK, 2 * BLOCK)]), too_large(0, MAX_ADDRESS - BLOCK));
        assert_eq!(table(&[(0, u64::MAX - BLOCK + 1, BLOCK)]), too_large(0, u64::MAX - BLOCK + 1));
        assert_eq!(table(&[(NOTHING, 0, BLOCK)]), too_large(NOTHING, 0));
        assert_eq!(table(&[(7, MAX_ADDRESS - BLOCK, BLOCK)]).unwrap().zone_of(u32::MAX), Some(7));
    }

    proptest! {
        #[test]
        fn a_table_finds_what_a_search_finds(
            list in prop::collection::vec((0u64..4, 1u64..6, any::<bool>()), 0..6),
            pages in prop::collection::vec(0u32..64 << 15, 32),
        ) {
            let (mut list_of, mut end, mut zone) = (Vec::new(), 0, 0);
            for (hole, sections, new) in list {
                zone += u16::from(new);
                list_of.push(Extent { zone, address: end + hole * SECTION, bytes: sections * SECTION });
                end += (hole + sections) * SECTION;
            }
            let table = Blocks::new(&list_of).unwrap();
            for page in pages {
                let address = u64::from(page) * PAGE_BYTES;
                let found = list_of.iter().find(|it| it.address <= address && address - it.address < it.bytes);
                prop_assert_eq!(table.zone_of(page), found.map(|it| it.zone));
            }
        }
    }
}
