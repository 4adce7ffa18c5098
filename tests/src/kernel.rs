//! The distribution kernels that the tests' guests run.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// Where ci/setup unpacked them.
const KERNELS: &str = "BALLAST_TEST_KERNELS";

/// A kernel and its modules.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// As `uname -r` says it.
    pub release: String,
    /// The image.
    pub image: PathBuf,
    /// Its modules.
    pub modules: PathBuf,
}

impl Kernel {
    /// The kernel that ci/setup calls `name`.
    #[must_use]
    pub fn named(name: &str) -> Self {
        let kernels = std::env::var_os(KERNELS)
            .unwrap_or_else(|| panic!("{KERNELS} is not set: run this test through ci/promises"));
        let directory = PathBuf::from(kernels).join(name);
        let release = fs::read_to_string(directory.join("release")).unwrap().trim().to_owned();
        let modules = directory.join("lib/modules").join(&release);
        Self { release, image: directory.join("vmlinuz"), modules }
    }

    /// The file of a module, as the kernel loads it; `path` is its path below `kernel/`, without `.ko`.
    #[must_use]
    pub fn module(&self, path: &str) -> Vec<u8> {
        let plain = self.modules.join("kernel").join(path).with_extension("ko");
        let packed = plain.with_extension("ko.xz");
        if plain.exists() {
            return fs::read(plain).unwrap();
        }
        let unpacked = Command::new("xz").arg("-dc").arg(packed).output().unwrap();
        assert!(unpacked.status.success(), "{unpacked:?}");
        unpacked.stdout
    }

    /// The options of `ballast run` for it.
    #[must_use]
    pub fn options(&self) -> [String; 4] {
        let path = |path: &PathBuf| path.to_str().unwrap().to_owned();
        ["--kernel".into(), path(&self.image), "--modules".into(), path(&self.modules)]
    }
}

/// A test of each function on each kernel: `FUNCTION::debian_6_1_cloud` and so on, which call it with the kernel.
#[macro_export]
macro_rules! on_every_kernel {
    ($($promise:ident),* $(,)?) => { $(
        mod $promise {
            $crate::on_kernel!($promise debian_6_1_cloud "6.1-cloud");
            $crate::on_kernel!($promise debian_6_1 "6.1");
            $crate::on_kernel!($promise debian_6_12_cloud "6.12-cloud");
        }
    )* };
}

/// As [`on_every_kernel`], but only the first kernel's is run unless all are asked for: `ci/test --long`.
#[macro_export]
macro_rules! on_a_kernel_or_every {
    ($($promise:ident),* $(,)?) => { $(
        mod $promise {
            $crate::on_kernel!($promise debian_6_1_cloud "6.1-cloud");
            $crate::on_kernel!(#[ignore = "with --long: on a further kernel"] $promise debian_6_1 "6.1");
            $crate::on_kernel!(#[ignore = "with --long: on a further kernel"] $promise debian_6_12_cloud "6.12-cloud");
        }
    )* };
}

/// One test of a promise on one kernel.
#[doc(hidden)]
#[macro_export]
macro_rules! on_kernel {
    ($(#[$attribute:meta])* $promise:ident $test:ident $kernel:literal) => {
        #[test]
        $(#[$attribute])*
        fn $test() {
            super::$promise(&$crate::Kernel::named($kernel));
        }
    };
}
