//! Volumes and disks on the host: named ext4 images that are kept, and any raw image or block device.
//!
//! The command line parses what the user typed ([`argument`]), opens and locks each disk ([`disk`], and
//! [`store`] for volumes) and hands the open files to the VMM, which serves them as virtio-blk. Nobody on the
//! host ever mounts or reads a file system that a guest wrote.

pub mod argument;
pub mod disk;
mod ext4;
pub(crate) mod lock;
pub mod store;

pub use argument::{DiskArgument, VolumeArgument, VolumeName};
pub use disk::OpenDisk;
pub use store::Volumes;
