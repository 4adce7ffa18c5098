//! From a distribution's kernel and its modules to the two files that a VM boots.
//!
//! Wiring: reads the host's files, lets the pure parts decide, stores what comes out.

use super::cache::{self, Cache, INITRAMFS, KERNEL, RECORD};
use super::constant::constant_part;
use super::error::Error;
use super::initramfs::{self, PackedModule};
use super::load_order::{self, Condition, LoadOrder, Need, OrderError, WANTED};
use super::module_dir::ModuleDir;
use super::record::{Inputs, Record};
use super::search::KernelSource;
use super::{bzimage, image};
use crate::config::ImagePart;
use std::convert::Infallible;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Largest agent that is packed: every guest holds it in memory.
const MAX_AGENT_BYTES: u64 = 64 << 20;

/// A kernel ready to boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestKernel {
    /// Its release, as `uname -r` will say.
    pub release: String,
    /// The kernel, an uncompressed ELF image.
    pub elf: PathBuf,
    /// What of it guests can share: nothing of an image that is not the cache's own, as that may change.
    pub shared: Option<ImagePart>,
    /// The initramfs with the agent and the modules.
    pub initramfs: PathBuf,
    /// Whether guests of this kernel can use disks.
    pub disks: bool,
    /// What the user should know and can live with: a sentence each.
    pub notices: Vec<String>,
}

/// Makes `source` bootable: unpacks the kernel and packs `agent` (a static program for the guest) with the
/// modules. Results are kept in `cache_dir` and found again as long as no file they came from has changed.
///
/// # Errors
/// A file cannot be read or is not what it should be, the kernel lacks a module that every guest needs, or
/// the cache cannot be written.
pub fn prepare(source: &KernelSource, agent: &Path, cache_dir: &Path) -> Result<GuestKernel, Error> {
    let cache = Cache::open(cache_dir)?;
    let parts = [&source.image, &source.modules, agent].map(|path| path.as_os_str().as_bytes());
    let record = format!("{RECORD}{}", cache::digest(&parts));
    if let Some(Record { release, elf, initramfs, shared, .. }) = Record::load(&cache.path(&record)) {
        let (elf, initramfs) = (elf.0, initramfs.0);
        return Ok(GuestKernel { release, elf, shared, initramfs, disks: true, notices: vec![] });
    }

    let mut inputs = Inputs::default();
    // The rules for packing are this program's: another build of it starts anew.
    inputs.note_file(Path::new("/proc/self/exe"));
    let (elf, shared) = unpack_kernel(source, &cache, &mut inputs)?;
    let packed = pack(source, agent, &mut inputs)?;
    let name = format!("{INITRAMFS}{}-{}", source.release, cache::digest(&[&packed.archive]));
    let initramfs = cache.publish(&name, &packed.archive)?;
    if packed.notices.is_empty()
        && let Some(finished) = Record::new(inputs, &source.release, (&elf, shared), &initramfs)
        && let Ok(json) = serde_json::to_vec(&finished)
    {
        cache.publish(&record, &json)?;
        let named = |path: &Path| Record::load(path).map(|record| [record.elf.0, record.initramfs.0]);
        // What cannot be removed is in nobody's way.
        if let Err(error) = cache.sweep(named) {
            log::debug!("cannot remove old prepared kernels: {error}");
        }
    }
    let Packed { disks, notices, .. } = packed;
    Ok(GuestKernel { release: source.release.clone(), elf, shared, initramfs, disks, notices })
}

/// The kernel's ELF image: the file itself where it is one, else a copy in the cache, with what of that can be shared.
fn unpack_kernel(
    source: &KernelSource,
    cache: &Cache,
    inputs: &mut Inputs,
) -> Result<(PathBuf, Option<ImagePart>), Error> {
    let path = &source.image;
    let image = inputs.read("kernel", path, bzimage::MAX_KERNEL_BYTES)?;
    if image::is_elf(&image) {
        image::check_kernel(&image).map_err(|source| Error::Elf { path: path.clone(), source })?;
        return Ok((path.clone(), None));
    }
    let name = format!("{KERNEL}{}-{}", source.release, cache::digest(&[&image]));
    let elf = bzimage::extract(&image).map_err(|source| Error::BzImage { path: path.clone(), source })?;
    let shared = constant_part(&elf);
    if let Some(stored) = cache.find(&name) {
        return Ok((stored, shared));
    }
    Ok((cache.publish(&name, &elf)?, shared))
}

struct Packed {
    archive: Vec<u8>,
    disks: bool,
    notices: Vec<String>,
}

fn pack(source: &KernelSource, agent: &Path, inputs: &mut Inputs) -> Result<Packed, Error> {
    let agent_bytes = inputs.read("the guest agent", agent, MAX_AGENT_BYTES)?;
    image::check_program(&agent_bytes).map_err(|source| Error::Agent { path: agent.to_owned(), source })?;
    let mut dir = ModuleDir::open(&source.modules, &source.release, inputs)?;
    let order = order(source, &mut dir, inputs)?;
    let (disks, notices) = (has_disks(&order), notices(source, &order));
    let packed_module = |step: load_order::Step| {
        let contents = dir.take(&step.name)?;
        Some(PackedModule { condition: step.condition, file_name: format!("{}.ko", step.name), contents })
    };
    let modules: Vec<_> = order.steps.into_iter().filter_map(packed_module).collect();
    let archive = initramfs::build(&agent_bytes, &modules).map_err(Error::Initramfs)?;
    Ok(Packed { archive, disks, notices })
}

fn order(source: &KernelSource, dir: &mut ModuleDir<'_>, inputs: &mut Inputs) -> Result<LoadOrder, Error> {
    load_order::order(WANTED, |name| dir.look_up(name, inputs)).map_err(|error| {
        let unfit = |reason| Error::Order {
            release: source.release.clone(),
            modules: source.modules.clone(),
            source: reason,
        };
        match error {
            OrderError::LookUp(error) => error,
            OrderError::Missing { missing } => unfit(OrderError::<Infallible>::Missing { missing }),
            OrderError::Cycle(name) => unfit(OrderError::Cycle(name)),
        }
    })
}

fn has_disks(order: &LoadOrder) -> bool {
    order.missing.iter().all(|wanted| wanted.condition != Condition::Disk)
}

fn notices(source: &KernelSource, order: &LoadOrder) -> Vec<String> {
    let notice = |wanted: &load_order::Wanted| match wanted.need {
        Need::Helpful(lack) => {
            Some(format!("kernel {} has no module `{}`: {lack}", source.release, wanted.name))
        }
        Need::Required => None,
    };
    order.missing.iter().filter_map(notice).collect()
}

/// What a kernel's module directory offers a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survey {
    /// How many modules a guest would load.
    pub modules: usize,
    /// Whether guests of this kernel can use disks.
    pub disks: bool,
    /// As [`GuestKernel::notices`].
    pub notices: Vec<String>,
}

/// Checks the kernel's image as [`prepare`] would, without storing anything.
///
/// # Errors
/// The image cannot be read or booted.
pub fn verify(source: &KernelSource) -> Result<(), Error> {
    let path = &source.image;
    let kernel = Inputs::default().read("kernel", path, bzimage::MAX_KERNEL_BYTES)?;
    if image::is_elf(&kernel) {
        image::check_kernel(&kernel).map_err(|source| Error::Elf { path: path.clone(), source })
    } else {
        bzimage::extract(&kernel).map(drop).map_err(|source| Error::BzImage { path: path.clone(), source })
    }
}

/// Checks the kernel's modules as [`prepare`] would, without storing anything.
///
/// # Errors
/// A module cannot be read, or one that every guest needs is missing.
pub fn survey(source: &KernelSource) -> Result<Survey, Error> {
    let mut inputs = Inputs::default();
    let mut dir = ModuleDir::open(&source.modules, &source.release, &mut inputs)?;
    let order = order(source, &mut dir, &mut inputs)?;
    Ok(Survey { modules: order.steps.len(), disks: has_disks(&order), notices: notices(source, &order) })
}

#[cfg(test)]
mod tests {
    use super::super::modinfo::tests::module;
    use super::super::search::Origin;
    use super::*;
    use std::fs;

    /// A host whose kernel has everything but what a test takes away.
    struct Host(tempfile::TempDir);

    impl Host {
        fn new() -> Self {
            let host = Self(tempfile::tempdir().unwrap());
            let kernel = bzimage::tests::gzip(&image::tests::image("6.1.0"));
            host.write("vmlinuz", &bzimage::tests::image("6.1.0", &kernel));
            host.write("agent", &image::tests::image("6.1.0"));
            for wanted in WANTED {
                let modinfo = format!("name={}\0depends=\0vermagic=6.1.0 SMP \0", wanted.name);
                host.write(&format!("modules/kernel/{}.ko", wanted.name), &module(modinfo.as_bytes()));
            }
            host.write("modules/modules.builtin", b"");
            host
        }

        fn path(&self, path: &str) -> PathBuf {
            self.0.path().join(path)
        }

        fn write(&self, path: &str, contents: &[u8]) {
            fs::create_dir_all(self.path(path).parent().unwrap()).unwrap();
            fs::write(self.path(path), contents).unwrap();
        }

        fn remove(&self, module: &str) {
            fs::remove_file(self.path(&format!("modules/kernel/{module}.ko"))).unwrap();
        }

        fn source(&self) -> KernelSource {
            let (image, modules) = (self.path("vmlinuz"), self.path("modules"));
            KernelSource { image, release: "6.1.0".into(), modules, origin: Origin::Option }
        }

        fn prepare(&self) -> Result<GuestKernel, Error> {
            prepare(&self.source(), &self.path("agent"), &self.path("cache"))
        }
    }

    #[test]
    fn a_kernel_is_prepared_once_and_the_same_each_time() {
        let host = Host::new();
        let first = host.prepare().unwrap();
        assert_eq!((first.release.as_str(), first.disks, first.notices.len()), ("6.1.0", true, 0));
        assert_eq!(fs::read(&first.elf).unwrap(), image::tests::image("6.1.0"));
        let initramfs = fs::read(&first.initramfs).unwrap();
        let list = b"base virtio_mmio.ko\nbase virtio_console.ko\nbase virtio_rng.ko\nbase virtio_pmem.ko\n\
            base nd_pmem.ko\nbase erofs.ko\nbase overlay.ko\nbase virtio_balloon.ko\ndisk virtio_blk.ko\ndisk ext4.ko\n";
        assert!(initramfs.windows(list.len()).any(|window| window == list));
        assert_eq!(host.prepare().unwrap(), first);
        fs::remove_dir_all(host.path("cache")).unwrap();
        assert_eq!(host.prepare().unwrap(), first);
        assert_eq!(fs::read(&first.initramfs).unwrap(), initramfs);
    }

    #[test]
    fn another_agent_makes_another_initramfs_beside_the_first() {
        let host = Host::new();
        let first = host.prepare().unwrap();
        host.write("agent", &image::tests::image("6.1.1"));
        let second = host.prepare().unwrap();
        assert_eq!(first.elf, second.elf);
        assert_ne!(first.initramfs, second.initramfs);
        assert!(first.initramfs.is_file());
    }

    #[test]
    fn many_at_once_agree() {
        let host = Host::new();
        let kernels: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| host.prepare().unwrap())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(kernels.iter().all(|kernel| *kernel == kernels[0]));
    }

    #[test]
    fn what_a_guest_can_live_without_is_a_notice() {
        let host = Host::new();
        assert_eq!(survey(&host.source()).unwrap(), Survey { modules: 12, disks: true, notices: vec![] });
        host.remove("virtio_rng");
        let kernel = host.prepare().unwrap();
        assert_eq!(survey(&host.source()).unwrap().notices, kernel.notices);
        assert!(kernel.disks && kernel.notices[0].contains("`virtio_rng`"), "{:?}", kernel.notices);
        host.remove("ext4");
        let kernel = host.prepare().unwrap();
        assert!(!kernel.disks && kernel.notices[1].contains("volumes"), "{:?}", kernel.notices);
    }

    #[test]
    fn what_a_guest_cannot_live_without_is_an_error() {
        let host = Host::new();
        host.remove("erofs");
        let error = host.prepare().unwrap_err();
        assert_eq!(survey(&host.source()).unwrap_err().to_string(), error.to_string());
        assert!(error.to_string().contains("kernel 6.1.0"), "{error}");
        assert!(std::error::Error::source(&error).unwrap().to_string().contains("`erofs`"));
        host.write("modules/modules.builtin", b"kernel/fs/erofs/erofs.ko\n");
        host.prepare().unwrap();
    }

    #[test]
    fn a_damaged_kernel_or_agent_is_named() {
        let host = Host::new();
        host.write("agent", b"#!/bin/sh\n");
        assert!(matches!(host.prepare(), Err(Error::Agent { .. })));
        let good = fs::read(host.path("vmlinuz")).unwrap();
        verify(&host.source()).unwrap();
        host.write("vmlinuz", &good[..good.len() - 150]);
        let error = host.prepare().unwrap_err();
        assert_eq!(verify(&host.source()).unwrap_err().to_string(), error.to_string());
        assert!(error.to_string().contains("vmlinuz") && error.to_string().contains("--kernel"), "{error}");
    }
}
