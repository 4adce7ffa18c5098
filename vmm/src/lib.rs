//! Ballast's microVM: the machine, its virtio devices, container images and the command line.

pub mod bus;
pub mod cgroup;
#[cfg(feature = "cli")]
pub mod cli;
pub mod commands;
pub mod config;
pub mod control;
pub mod ending;
mod from_config;
#[cfg(feature = "cli")]
pub mod image;
#[cfg(feature = "cli")]
pub mod kernel;
pub mod link;
pub mod machine;
#[cfg(feature = "cli")]
pub mod plot;
#[cfg(feature = "cli")]
mod process;
pub mod reclaim;
pub mod report;
pub mod run;
pub mod seccomp;
pub mod streams;
pub mod virtio;
#[cfg(feature = "cli")]
pub mod volume;
