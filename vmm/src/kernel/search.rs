//! Which kernel a guest gets: the one that was named, else an installed one, else the host's own.
//!
//! Wiring: looks at the host's files. An explicit choice that does not work is an error; of the others the
//! first that works is taken, and the reasons against the rest are told only if none does.

use super::error::{self, Error};
use super::module_dir::is_module_dir;
use super::{bzimage, image, version};
use balloon::regular_file;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Where to look.
#[derive(Clone, Debug)]
pub struct Search {
    /// `--kernel`.
    pub kernel: Option<PathBuf>,
    /// `--modules`.
    pub modules: Option<PathBuf>,
    /// `$BALLAST_KERNEL`.
    pub environment: Option<PathBuf>,
    /// The data directory; kernels are in `kernels/*/vmlinuz` of it.
    pub data_dir: PathBuf,
    /// The root of the host's file system.
    pub root: PathBuf,
    /// The host's running release: the one of its kernels that is known to work.
    pub running: String,
}

impl Search {
    /// A search on this host, with the environment as it is.
    pub fn on_this_host(kernel: Option<PathBuf>, modules: Option<PathBuf>, data_dir: &Path) -> Self {
        let environment = std::env::var_os("BALLAST_KERNEL").filter(|value| !value.is_empty());
        Self {
            kernel,
            modules,
            environment: environment.map(PathBuf::from),
            data_dir: data_dir.to_owned(),
            root: PathBuf::from("/"),
            running: rustix::system::uname().release().to_string_lossy().into_owned(),
        }
    }
}

/// Why a kernel was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It was named with `--kernel`.
    Option,
    /// It was named with `$BALLAST_KERNEL`.
    Environment,
    /// It is installed in the data directory.
    DataDirectory,
    /// It is one of the host's own.
    Host,
}

/// A kernel and its modules, as a distribution packs them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelSource {
    /// The kernel: a bzImage or an ELF image.
    pub image: PathBuf,
    /// Its release.
    pub release: String,
    /// The directory of its modules.
    pub modules: PathBuf,
    /// Why it was chosen.
    pub origin: Origin,
}

/// Finds the guest kernel and its modules.
///
/// # Errors
/// The kernel that was named cannot be used or has no modules, or no other was found.
pub fn find(search: &Search) -> Result<KernelSource, Error> {
    let named = search.kernel.as_ref().map(|path| (path, Origin::Option));
    if let Some((path, origin)) =
        named.or(search.environment.as_ref().map(|path| (path, Origin::Environment)))
    {
        return examine(path, origin)?.with_modules(search);
    }
    let mut passed_over = Vec::new();
    for (paths, origin) in [(installed(search), Origin::DataDirectory), (of_host(search), Origin::Host)] {
        let mut kernels = Vec::new();
        for path in paths {
            match examine(&path, origin) {
                Ok(kernel) => kernels.push(kernel),
                Err(error) => passed_over.push(in_one_line(&error)),
            }
        }
        let running = |kernel: &Kernel| origin == Origin::Host && kernel.release == search.running;
        kernels.sort_by(|a, b| {
            running(b).cmp(&running(a)).then_with(|| version::compare(&b.release, &a.release))
        });
        for kernel in kernels {
            match kernel.with_modules(search) {
                Ok(source) => return Ok(source),
                Err(error) => passed_over.push(in_one_line(&error)),
            }
        }
    }
    Err(Error::NoKernel(passed_over))
}

/// `vmlinuz` or `vmlinux` in each directory of the data directory's `kernels`.
fn installed(search: &Search) -> Vec<PathBuf> {
    let in_dir = |dir: PathBuf| {
        ["vmlinuz", "vmlinux"].map(|name| dir.join(name)).into_iter().find(|path| path.exists())
    };
    entries(&search.data_dir.join("kernels")).into_iter().filter_map(in_dir).collect()
}

/// `/boot/vmlinuz-*`, and `vmlinuz` in the module directories, where some distributions keep it.
fn of_host(search: &Search) -> Vec<PathBuf> {
    let named = |path: &PathBuf| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("vmlinuz-"))
    };
    let in_boot = entries(&search.root.join("boot")).into_iter().filter(named);
    let modules = entries(&search.root.join("lib/modules")).into_iter().map(|dir| dir.join("vmlinuz"));
    in_boot.chain(modules.filter(|path| path.exists())).collect()
}

/// What a directory holds, in the order of names; nothing where it cannot be read.
fn entries(dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> =
        std::fs::read_dir(dir).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    paths
}

struct Kernel {
    image: PathBuf,
    release: String,
    origin: Origin,
}

/// Reads as much of a kernel as names its release.
fn examine(path: &Path, origin: Origin) -> Result<Kernel, Error> {
    let read = |limit: u64| -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        let file = regular_file::open(path).map_err(error::read("kernel", path))?;
        file.take(limit).read_to_end(&mut bytes).map_err(error::read("kernel", path))?;
        Ok(bytes)
    };
    let image = path.canonicalize().map_err(error::read("kernel", path))?;
    let head = read(bzimage::HEAD_BYTES as u64)?;
    let release = if image::is_elf(&head) {
        let whole = read(bzimage::MAX_KERNEL_BYTES)?;
        image::release(&whole).ok_or_else(|| Error::NoRelease(path.to_owned()))?.to_owned()
    } else {
        let unfit = |source| Error::BzImage { path: path.to_owned(), source };
        bzimage::release(&head).map_err(unfit)?.to_owned()
    };
    Ok(Kernel { image, release, origin })
}

impl Kernel {
    /// Finds the modules: where `--modules` says, else beside the kernel, else where the host has its own.
    fn with_modules(self, search: &Search) -> Result<KernelSource, Error> {
        let Self { image, release, origin } = self;
        let of_root =
            |root: &Path| ["lib/modules", "usr/lib/modules"].map(|dir| root.join(dir).join(&release));
        let mut looked = Vec::new();
        if let Some(dir) = &search.modules {
            looked.push(dir.join(&release));
            looked.extend(of_root(dir));
            looked.push(dir.clone());
        } else {
            let beside = image.parent().unwrap_or(Path::new("/"));
            looked.extend([beside.to_owned(), beside.join("modules")]);
            looked.extend(of_root(beside));
            // An unpacked package: boot/vmlinuz-* and lib/modules.
            looked.extend(beside.parent().into_iter().flat_map(of_root));
            looked.extend(of_root(&search.root));
        }
        let found = looked.iter().find(|dir| is_module_dir(dir)).map(|dir| dir.canonicalize());
        match found {
            Some(Ok(modules)) => Ok(KernelSource { image, release, modules, origin }),
            _ => Err(Error::NoModules { release, kernel: image, looked }),
        }
    }
}

/// An error with its causes.
fn in_one_line(error: &Error) -> String {
    let mut line = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        line = format!("{line}: {cause}");
        source = cause.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    struct Host(tempfile::TempDir);

    impl Host {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn path(&self, path: &str) -> PathBuf {
            self.0.path().canonicalize().unwrap().join(path)
        }

        fn kernel(&self, path: &str, release: &str) -> &Self {
            let path = self.path(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bzimage::tests::image(release, b"")).unwrap();
            self
        }

        fn modules(&self, path: &str) -> &Self {
            fs::create_dir_all(self.path(path)).unwrap();
            fs::write(self.path(path).join("modules.dep"), "").unwrap();
            self
        }

        fn search(&self) -> Search {
            let root = self.path("");
            let data_dir = self.path("data");
            let running = "6.1.0-9-amd64".to_owned();
            Search { kernel: None, modules: None, environment: None, data_dir, root, running }
        }

        /// The chosen kernel and its modules, from the root.
        fn find(&self, search: &Search) -> Result<(String, String, Origin), Error> {
            let source = find(search)?;
            let short = |path: PathBuf| path.strip_prefix(self.path("")).unwrap().display().to_string();
            Ok((short(source.image), short(source.modules), source.origin))
        }
    }

    fn found(image: &str, modules: &str, origin: Origin) -> (String, String, Origin) {
        (image.into(), modules.into(), origin)
    }

    #[test]
    fn the_hosts_running_kernel_is_preferred_then_the_newest() {
        let host = Host::new();
        for release in ["6.1.0-10-amd64", "6.1.0-9-amd64", "5.10.0-1-amd64"] {
            host.kernel(&format!("boot/vmlinuz-{release}"), release)
                .modules(&format!("lib/modules/{release}"));
        }
        let mut search = host.search();
        let nine = found("boot/vmlinuz-6.1.0-9-amd64", "lib/modules/6.1.0-9-amd64", Origin::Host);
        assert_eq!(host.find(&search).unwrap(), nine);
        search.running = "6.18.0".into();
        let ten = found("boot/vmlinuz-6.1.0-10-amd64", "lib/modules/6.1.0-10-amd64", Origin::Host);
        assert_eq!(host.find(&search).unwrap(), ten);
    }

    #[test]
    fn an_installed_kernel_goes_before_the_hosts_and_the_newest_of_them_first() {
        let host = Host::new();
        host.kernel("boot/vmlinuz-6.1.0-9-amd64", "6.1.0-9-amd64").modules("lib/modules/6.1.0-9-amd64");
        host.kernel("data/kernels/a/vmlinuz", "6.12-cloud").modules("data/kernels/a/modules");
        host.kernel("data/kernels/b/vmlinuz", "6.2-cloud").modules("data/kernels/b/lib/modules/6.2-cloud");
        let newest = found("data/kernels/a/vmlinuz", "data/kernels/a/modules", Origin::DataDirectory);
        assert_eq!(host.find(&host.search()).unwrap(), newest);
    }

    #[test]
    fn a_named_kernel_rules_and_does_not_fall_back() {
        let host = Host::new();
        host.kernel("data/kernels/a/vmlinuz", "6.12").modules("data/kernels/a/modules");
        host.kernel("deb/boot/vmlinuz-6.1", "6.1").modules("deb/lib/modules/6.1");
        let mut search = host.search();
        search.environment = Some(host.path("deb/boot/vmlinuz-6.1"));
        let deb = |origin| found("deb/boot/vmlinuz-6.1", "deb/lib/modules/6.1", origin);
        assert_eq!(host.find(&search).unwrap(), deb(Origin::Environment));
        search.kernel = search.environment.take();
        assert_eq!(host.find(&search).unwrap(), deb(Origin::Option));
        search.modules = Some(host.path("data"));
        assert!(matches!(host.find(&search), Err(Error::NoModules { .. })));
        for modules in ["deb/lib/modules/6.1", "deb/lib/modules", "deb"] {
            search.modules = Some(host.path(modules));
            assert_eq!(host.find(&search).unwrap(), deb(Origin::Option), "{modules}");
        }
        search.kernel = Some(host.path("none"));
        assert!(host.find(&search).unwrap_err().to_string().contains("/none"));
        fs::write(host.path("none"), "#!/bin/sh").unwrap();
        assert!(matches!(host.find(&search), Err(Error::BzImage { .. })));
    }

    #[test]
    fn a_plain_elf_kernel_is_taken() {
        let host = Host::new();
        host.modules("lib/modules/6.3.1");
        fs::write(host.path("vmlinux"), image::tests::image("6.3.1")).unwrap();
        let search = Search { kernel: Some(host.path("vmlinux")), ..host.search() };
        assert_eq!(host.find(&search).unwrap(), found("vmlinux", "lib/modules/6.3.1", Origin::Option));
    }

    #[test]
    fn nothing_found_tells_what_was_passed_over() {
        let host = Host::new();
        assert!(!host.find(&host.search()).unwrap_err().to_string().contains("passed over"));
        host.kernel("boot/vmlinuz-6.1", "6.1");
        fs::write(host.path("boot/vmlinuz-broken"), "x").unwrap();
        let message = host.find(&host.search()).unwrap_err().to_string();
        assert!(
            message.contains("no modules for kernel 6.1") && message.contains("vmlinuz-broken"),
            "{message}"
        );
    }
}
