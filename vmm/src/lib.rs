//! Ballast's microVM: the machine, its virtio devices, container images and the command line.

pub mod config;
#[cfg(feature = "cli")]
pub mod image;
pub mod virtio;
