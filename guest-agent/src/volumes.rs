//! Volumes: ext4 file systems on virtio-blk devices, found by the serial that the host gave them.

#![forbid(unsafe_code)]

use std::fs;
use std::io;
use std::os::fd::OwnedFd;

use proto::Volume;
use rustix::fs::{Mode, OFlags, openat, syncfs};
use rustix::io::Errno;

use crate::error::{Doing, Error};
use crate::mount::{FileSystem, MountError, attach, make_read_only};
use crate::root::Root;
use crate::wait;

/// A mounted volume.
#[derive(Debug)]
pub struct Mounted {
    path: String,
    mount: OwnedFd,
}

/// Mounts the volumes in their order, each at its path in the root.
pub fn mount(volumes: &[Volume], root: &Root) -> Result<Vec<Mounted>, Error> {
    let mount = |volume: &Volume| {
        let path = volume.path.to_string_lossy().into_owned();
        let device = wait::for_device(
            || format!("the disk of volume {path}"),
            || Ok(device_with_serial(&volume.serial)),
        )?;
        let mount = make(&device, volume.read_only).doing(|| format!("mounting volume {path}"))?;
        root.open_directory(volume.path.to_bytes())
            .map_err(io::Error::from)
            .and_then(|directory| attach(&mount, directory))
            .doing(|| format!("mounting volume {path}"))?;
        Ok(Mounted { path, mount })
    };
    volumes.iter().map(mount).collect()
}

/// Leaves the volumes' file systems clean on their disks. No process may use them any more.
pub fn close(volumes: Vec<Mounted>) -> Vec<Error> {
    let close = |volume: &Mounted| -> io::Result<()> {
        // The first says whether the disk took everything, the second marks the file system clean.
        syncfs(openat(&volume.mount, ".", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)?;
        make_read_only(&volume.mount)
    };
    volumes
        .iter()
        .rev()
        .filter_map(|volume| close(volume).doing(|| format!("closing volume {}", volume.path)).err())
        .collect()
}

fn make(device: &str, read_only: bool) -> Result<OwnedFd, MountError> {
    let ext4 = |flags| {
        FileSystem { kind: "ext4", options: &[("source", device)], flags, ..FileSystem::default() }.make()
    };
    match (read_only, ext4(if read_only { &["ro"] } else { &[] })) {
        // Its journal has to be replayed, which a disk that may not be written cannot.
        (true, Err(MountError { errno: Errno::ROFS, .. })) => ext4(&["ro", "noload"]),
        (_, made) => made,
    }
}

/// Whether the machine has disks: volumes of the spec, or raw ones that the workload finds by itself.
#[must_use]
pub fn has_disks() -> bool {
    /// `VIRTIO_ID_BLOCK`, as `/sys/bus/virtio` writes it.
    const BLOCK: &str = "0x0002";
    let devices = fs::read_dir("/sys/bus/virtio/devices").into_iter().flatten().flatten();
    devices
        .filter_map(|device| fs::read_to_string(device.path().join("device")).ok())
        .any(|id| id.trim_end() == BLOCK)
}

/// The device node of the disk with this serial.
fn device_with_serial(serial: &str) -> Option<String> {
    fs::read_dir("/sys/class/block").ok()?.flatten().find_map(|entry| {
        let found = fs::read_to_string(entry.path().join("serial")).ok()?;
        (found.trim_end() == serial).then(|| format!("/dev/{}", entry.file_name().to_string_lossy()))
    })
}
