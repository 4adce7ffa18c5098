//! ACPI tables of a hardware-reduced machine: what tells a stock kernel about CPUs, interrupts and devices.
//!
//! Pure: returns the bytes that go to [`layout::ACPI`]. Follows ACPI 6.4; devices appear as `LNRO0005`, the id
//! that `drivers/virtio/virtio_mmio.c` binds to.

use super::layout::{self, Ram};
use super::numa;
use acpi_tables::Aml;
use acpi_tables::aml;
use acpi_tables::{madt, rsdp, sdt, xsdt};

pub(super) const OEM_ID: [u8; 6] = *b"BALLST";
pub(super) const OEM_TABLE: [u8; 8] = *b"BALLAST ";
pub(super) const OEM_REVISION: u32 = 1;

const FADT_BYTES: u32 = 276;
const FADT_REVISION: u8 = 6;
/// `ACPI_FADT_NO_VGA` (bit 2) and `ACPI_FADT_NO_CMOS_RTC` (bit 5) of `include/acpi/actbl.h`; the clear bit 1
/// says that there is no 8042.
const FADT_BOOT_ARCH: u16 = 0x24;
/// HW_REDUCED_ACPI, RESET_REG_SUP, and no fixed sleep or power button.
const FADT_FLAGS: u32 = 1 << 20 | 1 << 10 | 1 << 5 | 1 << 4;

/// One virtio-mmio device in the DSDT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VirtioNode {
    /// Guest-physical address of its registers.
    pub address: u32,
    /// Its interrupt.
    pub gsi: u32,
}

/// Builds all tables for `cpus` CPUs, `ram` and these devices, to be placed at [`layout::ACPI`], RSDP first. RAM of
/// several zones gets a node each; a machine of one has no nodes, which spares its kernel the work.
///
/// Returns nothing if they exceed the room there.
#[must_use]
pub fn tables(cpus: u8, ram: &Ram, devices: &[VirtioNode], serial: bool) -> Option<Vec<u8>> {
    let mut bytes = vec![0; rsdp::Rsdp::len()];
    let mut place = |table: &dyn Aml| -> Option<u64> {
        bytes.resize(bytes.len().next_multiple_of(16), 0);
        let address = layout::ACPI.checked_add(bytes.len() as u64)?;
        table.to_aml_bytes(&mut bytes);
        Some(address)
    };

    let dsdt = place(&dsdt(devices, serial))?;
    let fadt = place(&fadt(dsdt))?;
    let madt = place(&madt(cpus))?;
    let mut xsdt = xsdt::XSDT::new(OEM_ID, OEM_TABLE, OEM_REVISION);
    xsdt.add_entry(fadt);
    xsdt.add_entry(madt);
    if ram.zones() > 1 {
        xsdt.add_entry(place(&numa::srat(cpus, ram))?);
        xsdt.add_entry(place(&numa::slit(ram.zones()))?);
    }
    let xsdt = place(&xsdt)?;

    let mut pointer = Vec::new();
    rsdp::Rsdp::new(OEM_ID, xsdt).to_aml_bytes(&mut pointer);
    bytes.get_mut(..pointer.len())?.copy_from_slice(&pointer);
    (bytes.len() as u64 <= layout::ACPI_BYTES).then_some(bytes)
}

/// acpi_tables' own builder cannot set the reset and sleep registers, which this machine needs.
fn fadt(dsdt: u64) -> sdt::Sdt {
    let mut fadt = sdt::Sdt::new(*b"FACP", FADT_BYTES, FADT_REVISION, OEM_ID, OEM_TABLE, OEM_REVISION);
    fadt.write_u16(109, FADT_BOOT_ARCH);
    fadt.write_u32(112, FADT_FLAGS);
    fadt.write(116, sdt::GenericAddress::io_port_address::<u8>(layout::RESET_PORT));
    fadt.write_u8(128, layout::RESET_VALUE);
    fadt.write_u64(140, dsdt);
    fadt.write(244, sdt::GenericAddress::io_port_address::<u8>(layout::SLEEP_CONTROL_PORT));
    fadt.write(256, sdt::GenericAddress::io_port_address::<u8>(layout::SLEEP_STATUS_PORT));
    fadt
}

fn madt(cpus: u8) -> madt::MADT {
    let controller = madt::LocalInterruptController::Address(layout::LOCAL_APIC);
    let mut madt = madt::MADT::new(OEM_ID, OEM_TABLE, OEM_REVISION, controller);
    for cpu in 0..cpus {
        madt.add_structure(madt::ProcessorLocalApic::new(cpu, cpu, madt::EnabledStatus::Enabled));
    }
    madt.add_structure(madt::IoApic::new(0, layout::IO_APIC, 0));
    madt
}

fn dsdt(devices: &[VirtioNode], serial: bool) -> sdt::Sdt {
    let mut code = Vec::new();
    for (number, node) in devices.iter().enumerate() {
        virtio_node(number, *node, &mut code);
    }
    if serial {
        serial_node(&mut code);
    }
    aml::Name::new("_S5_".into(), &aml::Package::new(vec![&layout::SLEEP_TYPE_S5])).to_aml_bytes(&mut code);
    let mut dsdt = sdt::Sdt::new(*b"DSDT", 36, FADT_REVISION, OEM_ID, OEM_TABLE, OEM_REVISION);
    dsdt.append_slice(&code);
    dsdt
}

fn virtio_node(number: usize, node: VirtioNode, code: &mut Vec<u8>) {
    let registers = aml::Memory32Fixed::new(true, node.address, layout::VIRTIO_STRIDE as u32);
    let interrupt = aml::Interrupt::new(true, true, false, false, node.gsi);
    let resources = aml::ResourceTemplate::new(vec![&registers, &interrupt]);
    let hid = aml::Name::new("_HID".into(), &"LNRO0005");
    let uid = aml::Name::new("_UID".into(), &number);
    let cca = aml::Name::new("_CCA".into(), &aml::ONE);
    let crs = aml::Name::new("_CRS".into(), &resources);
    let path = format!("_SB_.VR{number:02X}");
    aml::Device::new(path.as_str().into(), vec![&hid, &uid, &cca, &crs]).to_aml_bytes(code);
}

fn serial_node(code: &mut Vec<u8>) {
    let interrupt = aml::Interrupt::new(true, true, false, false, layout::SERIAL_GSI);
    let ports = aml::IO::new(layout::SERIAL_PORT, layout::SERIAL_PORT, 0, 8);
    let resources = aml::ResourceTemplate::new(vec![&interrupt, &ports]);
    let pnp0501 = aml::EISAName::new("PNP0501");
    let hid = aml::Name::new("_HID".into(), &pnp0501);
    let uid = aml::Name::new("_UID".into(), &aml::ZERO);
    let crs = aml::Name::new("_CRS".into(), &resources);
    aml::Device::new("_SB_.COM1".into(), vec![&hid, &uid, &crs]).to_aml_bytes(code);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many zones of a GiB.
    fn ram(zones: usize) -> Ram {
        Ram::lay(&vec![1 << 30; zones]).unwrap()
    }

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
    }

    fn u32_at(bytes: &[u8], at: usize) -> usize {
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
    }

    fn u64_at(bytes: &[u8], at: usize) -> usize {
        u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize
    }

    fn table(bytes: &[u8], address: usize) -> &[u8] {
        let start = address - layout::ACPI as usize;
        &bytes[start..start + u32_at(bytes, start + 4)]
    }

    #[test]
    fn every_table_is_reachable_and_sums_to_zero() {
        let nodes =
            [VirtioNode { address: 0xd000_0000, gsi: 5 }, VirtioNode { address: 0xd000_1000, gsi: 6 }];
        let bytes = tables(2, &ram(1), &nodes, true).unwrap();
        assert_eq!(&bytes[..8], b"RSD PTR ");
        assert_eq!(sum(&bytes[..20]), 0);
        assert_eq!(sum(&bytes[..36]), 0);
        let xsdt = table(&bytes, u64_at(&bytes, 24));
        assert_eq!(&xsdt[..4], b"XSDT");
        let fadt = table(&bytes, u64_at(xsdt, 36));
        let madt = table(&bytes, u64_at(xsdt, 44));
        let dsdt = table(&bytes, u64_at(fadt, 140));
        for (table, name) in [(xsdt, b"XSDT"), (fadt, b"FACP"), (madt, b"APIC"), (dsdt, b"DSDT")] {
            assert_eq!(&table[..4], name);
            assert_eq!(sum(table), 0, "{}", String::from_utf8_lossy(name));
        }
        assert_eq!(u32_at(fadt, 112) as u32, FADT_FLAGS);
        let devices = dsdt.windows(8).filter(|w| *w == b"LNRO0005").count();
        assert_eq!(devices, 2);
    }

    #[test]
    fn several_zones_are_nodes() {
        let entries = |zones| {
            let bytes = tables(1, &ram(zones), &[], false).unwrap();
            let xsdt = table(&bytes, u64_at(&bytes, 24));
            let entries = (36..xsdt.len()).step_by(8).map(|at| table(&bytes, u64_at(xsdt, at))[..4].to_vec());
            entries.map(|name| String::from_utf8(name).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(entries(1), ["FACP", "APIC"]);
        assert_eq!(entries(2), ["FACP", "APIC", "SRAT", "SLIT"]);
    }

    #[test]
    fn the_largest_machine_fits() {
        let nodes: Vec<_> = (0..layout::VIRTIO_DEVICES as u32)
            .map(|n| VirtioNode { address: 0xd000_0000 + n * 0x1000, gsi: 5 + n })
            .collect();
        assert!(tables(255, &ram(layout::ZONES), &nodes, true).is_some());
    }
}
