//! The read-only layers and the writable root over them.
//!
//! A layer is an EROFS file system on a virtio-pmem device. Which device holds which layer is told by the
//! UUID in the superblock, so nothing depends on the order in which devices appear.

#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown};

use crate::error::{Doing, Error};
use crate::mount::FileSystem;
use crate::wait;

/// Where the root is put together, in the agent's own file system.
pub const ROOT: &str = "/newroot";
/// The layers' mount points are below it. Short: the overlay takes 255 bytes for all of their paths.
const LAYERS: &str = "/l";
/// What the workload writes.
const WRITABLE: &str = "/rw";

/// Devices of the kernel's nvdimm bus, virtio-pmem among them.
const NVDIMM: &str = "/sys/bus/nd/devices";
/// Offset of the superblock (fs/erofs/erofs_fs.h).
const SUPERBLOCK_BYTES: u64 = 1024;
const MAGIC: u32 = 0xe0f5_e1e2;
/// Offset of the UUID in it.
const UUID_OFFSET: usize = 48;

/// Mounts all layers, lowest first, and a writable overlay over them. Returns sentences for the user.
pub fn mount(layers: &[[u8; 16]]) -> Result<Vec<Error>, Error> {
    let devices = find(layers)?;
    let mut notices = Vec::new();
    notices.extend(make_read_only().err());
    let mut lower = Vec::new();
    for (number, device) in devices.iter().enumerate() {
        let path = format!("{LAYERS}/{number}");
        fs::create_dir_all(&path).doing(|| format!("making {path}"))?;
        notices.extend(mount_layer(number, device, &path)?);
        lower.push(path);
    }
    mount_overlay(&lower)?;
    Ok(notices)
}

/// Waits for the devices of all layers and returns their paths.
fn find(layers: &[[u8; 16]]) -> Result<Vec<String>, Error> {
    let mut known = HashMap::new();
    let mut device_of = |uuid| {
        if !known.contains_key(uuid) {
            read_new_devices(&mut known);
        }
        known.get(uuid).map(|name| format!("/dev/{name}"))
    };
    let found = layers.iter().enumerate().map(|(number, uuid)| {
        wait::for_device(|| format!("the device of layer {number}"), || Ok(device_of(uuid)))
    });
    found.collect()
}

/// Adds the layers on devices that are not known yet.
fn read_new_devices(known: &mut HashMap<[u8; 16], String>) {
    for entry in fs::read_dir("/sys/class/block").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("pmem")
            && !known.values().any(|device| *device == name)
            && let Some(uuid) = read_superblock(&name).as_ref().and_then(erofs_uuid)
        {
            known.insert(uuid, name);
        }
    }
}

fn read_superblock(device: &str) -> Option<[u8; 128]> {
    let mut superblock = [0; 128];
    File::open(format!("/dev/{device}")).ok()?.read_exact_at(&mut superblock, SUPERBLOCK_BYTES).ok()?;
    Some(superblock)
}

/// The UUID of an EROFS superblock, if it is one.
fn erofs_uuid(superblock: &[u8; 128]) -> Option<[u8; 16]> {
    let magic = superblock.first_chunk().copied().map(u32::from_le_bytes)?;
    let uuid = superblock.get(UUID_OFFSET..)?.first_chunk()?;
    (magic == MAGIC).then_some(*uuid)
}

/// Has the kernel refuse writes to the layers' devices. The host ignores them, which nobody should take for success.
fn make_read_only() -> Result<(), Error> {
    for entry in fs::read_dir(NVDIMM).into_iter().flatten().flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(b"region") {
            let path = entry.path().join("read_only");
            fs::write(&path, "1").doing(|| format!("writing {}", path.display()))?;
        }
    }
    Ok(())
}

fn mount_layer(number: usize, device: &str, path: &str) -> Result<Option<Error>, Error> {
    let mount = |options: &[(&str, &str)]| {
        FileSystem { kind: "erofs", options, flags: &["ro"], ..FileSystem::default() }.mount(path)
    };
    let with_dax = mount(&[("source", device), ("dax", "always")]);
    let without = match with_dax {
        Ok(_) if is_dax(&fs::read_to_string("/proc/self/mounts").unwrap_or_default(), path) => {
            return Ok(None);
        }
        Ok(_) => String::new(),
        Err(error) => {
            mount(&[("source", device)]).doing(|| format!("mounting layer {number} from {device}"))?;
            format!(": {error}")
        }
    };
    Ok(Some(Error::new(format!(
        "layer {number} is mounted without DAX{without}; its files take memory of the guest"
    ))))
}

/// Whether a line of /proc/mounts says that the file system at `path` really uses DAX: the kernel turns it
/// off with no more than a message when the device or the block size does not allow it.
fn is_dax(mounts: &str, path: &str) -> bool {
    mounts.lines().any(|line| {
        let mut fields = line.split(' ');
        fields.nth(1) == Some(path)
            && fields.nth(1).is_some_and(|options| options.split(',').any(|option| option == "dax=always"))
    })
}

fn mount_overlay(lower: &[String]) -> Result<OwnedFd, Error> {
    let making = |path: &str| fs::create_dir(path).doing(|| format!("making {path}"));
    making(WRITABLE)?;
    FileSystem { kind: "tmpfs", options: &[("mode", "0755")], ..FileSystem::default() }
        .mount(WRITABLE)
        .doing(|| "mounting memory for what the workload writes")?;
    let (upper, work) = (format!("{WRITABLE}/upper"), format!("{WRITABLE}/work"));
    making(&upper)?;
    making(&work)?;
    if let Some(root) = root_attributes(lower)? {
        // The root directory of an overlay is that of its upper layer.
        chown(&upper, Some(root.uid()), Some(root.gid()))
            .doing(|| format!("setting the owner of {upper}"))?;
        fs::set_permissions(&upper, fs::Permissions::from_mode(root.mode() & 0o7777))
            .doing(|| format!("setting the mode of {upper}"))?;
    }
    fs::create_dir_all(ROOT).doing(|| format!("making {ROOT}"))?;
    FileSystem {
        kind: "overlay",
        options: &[
            ("source", "overlay"),
            ("lowerdir", &lower_directories(lower)),
            ("upperdir", &upper),
            ("workdir", &work),
        ],
        ..FileSystem::default()
    }
    .mount(ROOT)
    .doing(|| "mounting the writable root over the layers")
}

/// Those of the highest layer that describes its root; where none does, those of the highest.
fn root_attributes(lowest_first: &[String]) -> Result<Option<Metadata>, Error> {
    let mut top = None;
    for layer in lowest_first.iter().rev() {
        let root = fs::metadata(layer).doing(|| format!("reading {layer}"))?;
        let (seconds, nanoseconds) = proto::UNDESCRIBED_ROOT;
        if (root.mtime(), root.mtime_nsec()) != (seconds, i64::from(nanoseconds)) {
            return Ok(Some(root));
        }
        top = top.or(Some(root));
    }
    Ok(top)
}

/// The overlay's own order: the highest first.
fn lower_directories(lowest_first: &[String]) -> String {
    lowest_first.iter().rev().map(String::as_str).collect::<Vec<_>>().join(":")
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn the_uuid_is_read_from_a_superblock_only() {
        let mut superblock = [0; 128];
        superblock[..4].copy_from_slice(&MAGIC.to_le_bytes());
        superblock[48..64].copy_from_slice(&[7; 16]);
        assert_eq!(erofs_uuid(&superblock), Some([7; 16]));
        superblock[0] ^= 1;
        assert_eq!(erofs_uuid(&superblock), None);
    }

    #[test]
    fn dax_is_told_by_the_mount_table() {
        let mounts = "proc /proc proc rw 0 0\n\
                      /dev/pmem0 /l/0 erofs ro,relatime,user_xattr,acl,cache_strategy=readaround,dax=always 0 0\n\
                      /dev/pmem1 /l/1 erofs ro,relatime,dax=never 0 0\n";
        assert!(is_dax(mounts, "/l/0"));
        assert!(!is_dax(mounts, "/l/1"));
        assert!(!is_dax(mounts, "/l"));
    }

    #[test]
    fn the_root_is_as_the_highest_layer_has_it_that_describes_one() {
        let dir = tempfile::tempdir().unwrap();
        let (seconds, nanoseconds) = proto::UNDESCRIBED_ROOT;
        let undescribed = Duration::new(seconds.cast_unsigned(), nanoseconds);
        let layer = |name: &str, mode, mtime: Duration| {
            let path = dir.path().join(name);
            fs::create_dir(&path).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            File::open(&path).unwrap().set_modified(SystemTime::UNIX_EPOCH + mtime).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let base = layer("base", 0o700, Duration::ZERO);
        let described = layer("described", 0o1777, Duration::from_secs(9));
        let (one, two) = (layer("one", 0o755, undescribed), layer("two", 0o750, undescribed));
        let mode = |layers: &[&String]| {
            let layers: Vec<String> = layers.iter().map(|&layer| layer.clone()).collect();
            root_attributes(&layers).unwrap().map(|root| root.mode() & 0o7777)
        };
        assert_eq!(mode(&[&base, &one, &two]), Some(0o700));
        assert_eq!(mode(&[&base, &described, &two]), Some(0o1777));
        assert_eq!(mode(&[&one, &two]), Some(0o750), "no layer says anything");
        assert_eq!(mode(&[]), None);
    }

    #[test]
    fn as_many_layers_as_a_spec_may_have_fit_the_kernels_limit() {
        let layers: Vec<String> = (0..proto::MAX_LAYERS).map(|n| format!("{LAYERS}/{n}")).collect();
        let lower = lower_directories(&layers);
        assert!(lower.starts_with("/l/15:/l/14:") && lower.ends_with(":/l/0"));
        assert!(lower.len() <= 255);
    }
}
