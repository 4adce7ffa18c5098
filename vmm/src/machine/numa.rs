//! ACPI tables that make each zone a node of the guest's: SRAT and SLIT.
//!
//! Pure. Follows ACPI 6.4, sections 5.2.16 and 5.2.17. All CPUs and the first zone are node 0; further zones are nodes
//! with memory only. A node's number is its zone's: Linux numbers proximity domains as they appear
//! (`acpi_map_pxm_to_node`, drivers/acpi/numa/srat.c).

use super::acpi::{OEM_ID, OEM_REVISION, OEM_TABLE};
use super::layout::{HIGH_RAM_START, LOW_RAM_END, Ram, RamRange};
use acpi_tables::sdt::Sdt;
use acpi_tables::slit::SLIT;

const SRAT_REVISION: u8 = 3;
/// Header, and twelve reserved bytes of which the first word is 1.
const SRAT_BYTES: u32 = 48;
const ENABLED: u32 = 1;
/// From one zone to another: what Linux would assume (`REMOTE_DISTANCE`, include/linux/topology.h).
const REMOTE: u8 = 20;

/// Which CPU and which memory belongs to which node.
pub(super) fn srat(cpus: u8, ram: &Ram) -> Sdt {
    let mut srat = Sdt::new(*b"SRAT", SRAT_BYTES, SRAT_REVISION, OEM_ID, OEM_TABLE, OEM_REVISION);
    srat.write_u32(36, 1);
    for cpu in 0..cpus {
        srat.append_slice(&cpu_affinity(cpu));
    }
    // All RAM of the e820 map: Linux takes a table that leaves some out for broken, and throws it away.
    let (_, low) = ram.ranges().first().copied().unwrap_or((0, RamRange { start: 0, bytes: 0 }));
    srat.append_slice(&memory_affinity(0, RamRange { start: 0, bytes: LOW_RAM_END }));
    let high = RamRange { start: HIGH_RAM_START, bytes: low.bytes.saturating_sub(HIGH_RAM_START) };
    for (zone, range) in std::iter::once((0, high)).chain(ram.ranges().iter().skip(1).copied()) {
        srat.append_slice(&memory_affinity(zone, range));
    }
    srat
}

/// How far the nodes are from one another.
pub(super) fn slit(nodes: usize) -> SLIT {
    let mut slit = SLIT::new(OEM_ID, OEM_TABLE, OEM_REVISION, u32::try_from(nodes).unwrap_or(u32::MAX));
    for one in 0..nodes {
        for two in 0..one {
            slit.set_distance(one, two, REMOTE);
        }
    }
    slit
}

/// Processor Local APIC Affinity Structure, of node 0.
fn cpu_affinity(apic_id: u8) -> [u8; 16] {
    let mut entry = [0; 16];
    entry[..2].copy_from_slice(&[0, 16]);
    entry[3] = apic_id;
    entry[4..8].copy_from_slice(&ENABLED.to_le_bytes());
    entry
}

/// Memory Affinity Structure.
fn memory_affinity(node: usize, range: RamRange) -> [u8; 40] {
    let mut entry = [0; 40];
    entry[..2].copy_from_slice(&[1, 40]);
    entry[2..6].copy_from_slice(&u32::try_from(node).unwrap_or(u32::MAX).to_le_bytes());
    entry[8..16].copy_from_slice(&range.start.to_le_bytes());
    entry[16..24].copy_from_slice(&range.bytes.to_le_bytes());
    entry[28..32].copy_from_slice(&ENABLED.to_le_bytes());
    entry
}

#[cfg(test)]
mod tests {
    use super::*;
    use acpi_tables::Aml;

    const GIB: u64 = 1 << 30;

    fn bytes(table: &dyn Aml) -> Vec<u8> {
        let mut bytes = Vec::new();
        table.to_aml_bytes(&mut bytes);
        assert_eq!(bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)), 0, "checksum");
        assert_eq!(bytes[4..8], u32::try_from(bytes.len()).unwrap().to_le_bytes());
        bytes
    }

    #[test]
    fn all_usable_memory_has_a_node() {
        let ram = Ram::lay(&[5 * GIB, GIB, GIB]).unwrap();
        let bytes = bytes(&srat(2, &ram));
        let (mut at, mut cpus, mut memory) = (48, Vec::new(), Vec::new());
        while at < bytes.len() {
            let entry = &bytes[at..at + usize::from(bytes[at + 1])];
            match entry[0] {
                0 => cpus.push((entry[2], entry[3], entry[4])),
                _ => {
                    let number = |at: usize| u64::from_le_bytes(entry[at..at + 8].try_into().unwrap());
                    memory.push((entry[2], number(8), number(16), entry[28]));
                }
            }
            at += entry.len();
        }
        assert_eq!(cpus, [(0, 0, 1), (0, 1, 1)]);
        let ranges: Vec<_> =
            memory.iter().map(|(_, start, bytes, _)| RamRange { start: *start, bytes: *bytes }).collect();
        assert_eq!(ranges, ram.usable());
        assert_eq!(
            memory.iter().map(|entry| (entry.0, entry.3)).collect::<Vec<_>>(),
            [(0, 1), (0, 1), (0, 1), (1, 1), (2, 1)]
        );
    }

    #[test]
    fn nodes_are_near_themselves_and_apart_from_others() {
        let bytes = bytes(&slit(3));
        assert_eq!(bytes[36..44], 3u64.to_le_bytes());
        assert_eq!(bytes[44..], [10, 20, 20, 20, 10, 20, 20, 20, 10]);
    }
}
