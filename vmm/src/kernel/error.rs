//! What can go wrong on the way from a distribution kernel to a bootable one.

use super::bzimage::BzImageError;
use super::compression::DecompressError;
use super::image::ImageError;
use super::load_order::OrderError;
use super::modinfo::ModinfoError;
use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};

/// An error of this module. Each says what was being done and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No kernel was found anywhere.
    #[error(
        "no guest kernel found: name one with --kernel FILE or $BALLAST_KERNEL, or install a distribution \
         kernel (Debian: apt install linux-image-cloud-amd64){}", rejected(.0)
    )]
    NoKernel(
        /// The candidates that were passed over, and why.
        Vec<String>,
    ),
    /// A file cannot be read.
    #[error("cannot read {what} {}{}", .path.display(), advice(.source))]
    Read {
        /// What the file is.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file is larger than anything of its kind.
    #[error("{what} {} has more than {limit_bytes} bytes, the most that is read; strip debug information from it",
            .path.display())]
    TooLarge {
        /// What the file is.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The largest that is read.
        limit_bytes: u64,
    },
    /// The kernel is no bzImage that can be unpacked.
    #[error("{} cannot be used as the guest kernel; --kernel takes a vmlinuz (bzImage) or vmlinux (ELF) for \
             x86-64", .path.display())]
    BzImage {
        /// The file.
        path: PathBuf,
        /// What it lacks.
        #[source]
        source: BzImageError,
    },
    /// The kernel is no ELF image that can be booted.
    #[error("{} cannot be used as the guest kernel; --kernel takes a vmlinuz (bzImage) or vmlinux (ELF) for \
             x86-64", .path.display())]
    Elf {
        /// The file.
        path: PathBuf,
        /// What it lacks.
        #[source]
        source: ImageError,
    },
    /// An ELF image without a banner.
    #[error("{} does not say its kernel's release (no \"Linux version\" in it): is it a Linux kernel?",
            .0.display())]
    NoRelease(PathBuf),
    /// No module directory for the kernel.
    #[error("no modules for kernel {release} ({}): looked in {}; name their directory with --modules DIR",
            .kernel.display(), listed(.looked))]
    NoModules {
        /// The kernel's release.
        release: String,
        /// The kernel.
        kernel: PathBuf,
        /// Where they were looked for.
        looked: Vec<PathBuf>,
    },
    /// A needed module is missing, or none can be ordered.
    #[error("kernel {release} with the modules in {} cannot be a guest's; a distribution's own kernel and the \
             whole of its module package can (--kernel, --modules)", .modules.display())]
    Order {
        /// The kernel's release.
        release: String,
        /// The module directory.
        modules: PathBuf,
        /// What is missing.
        #[source]
        source: OrderError<Infallible>,
    },
    /// A module does not unpack.
    #[error("module {} cannot be unpacked; install its package again", .path.display())]
    ModulePacking {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: DecompressError,
    },
    /// A module is not one.
    #[error("module {} cannot be used; install its package again", .path.display())]
    Module {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: ModinfoError,
    },
    /// A module of another kernel.
    #[error("module {} was built for kernel {built_for}, the kernel is {release}: name the directory that \
             belongs to it with --modules DIR", .path.display())]
    ModuleOfAnotherKernel {
        /// The file.
        path: PathBuf,
        /// The release in its `vermagic`.
        built_for: String,
        /// The kernel's release.
        release: String,
    },
    /// The agent is not a program for the guest.
    #[error("the guest agent {} is not an x86-64 program; build or install it beside `ballast`", .path.display())]
    Agent {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: ImageError,
    },
    /// The initramfs cannot be made.
    #[error("cannot pack the guest's initramfs")]
    Initramfs(#[source] io::Error),
    /// The cache cannot be written.
    #[error("cannot store {} in the cache{}", .path.display(), advice(.source))]
    Store {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => ": make it accessible to this user, or run as one who may",
        io::ErrorKind::StorageFull => ": free some space, or put the data elsewhere with $BALLAST_DATA",
        _ => "",
    }
}

fn listed(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

fn rejected(reasons: &[String]) -> String {
    reasons.iter().map(|reason| format!("\n  passed over: {reason}")).collect()
}

/// Turns a failed read of `path` into an error.
pub(super) fn read(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Read { what, path, source }
}
