//! The guest kernel: a stock distribution kernel turned into what `ballast-vmm` boots.
//!
//! Owns the way from `vmlinuz` and `/lib/modules` to two files: the kernel as an uncompressed ELF image, and
//! an initramfs that holds the agent as `/init` and the modules which this kernel needs, in load order. Both
//! are kept in a cache directory and published atomically, so any number of runs may prepare at once. The
//! command line calls [`find`] and [`prepare`]; `ballast-vmm` sees open descriptors only.
//!
//! The files read here are the host's own or named by the user. They may be damaged or of the wrong kind,
//! and every size in them is bounded before it is believed.

#![forbid(unsafe_code)]

pub mod bzimage;
pub mod command_line;
pub mod compression;
pub mod constant;
pub mod image;
pub mod initramfs;
pub mod load_order;
pub mod modinfo;
pub mod module_index;
pub mod version;

mod cache;
mod error;
mod module_dir;
mod prepare;
mod record;
mod search;

pub use command_line::{ParameterError, command_line, parameter};
pub use error::Error;
pub use prepare::{GuestKernel, Survey, prepare, survey, verify};
pub use search::{KernelSource, Origin, Search, find};
