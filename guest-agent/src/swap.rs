//! Swap for what is trimmed: anonymous memory that is not used, compressed in the guest's own memory (zram).
//!
//! The workload may not swap by itself (`memory.swap.max` is 0, [`crate::cgroup`]): a limit stays a limit, and a guest
//! that is out of memory is out of memory. Only while the agent reclaims for the host, pages may go there.

use std::ffi::CString;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;

use crate::error::{Doing, Error, chain};
use crate::modules::{self, Condition, Module};
use crate::{clock, kernel_log, worker};

const DEVICE: &str = "/dev/zram0";
const SETTINGS: &str = "/sys/block/zram0";

/// The kernel's swap signature (`union swap_header` in include/linux/swap.h), which stands in the first page.
const SIGNATURE: &[u8] = b"SWAPSPACE2";
const VERSION_OFFSET: usize = 1024;
const LAST_PAGE_OFFSET: usize = 1028;

/// Shorter workloads need none: nothing is trimmed so soon.
const LATER_US: u64 = 5_000_000;

/// Swap that is not made yet.
#[derive(Debug)]
pub struct Swap<'a> {
    modules: &'a [Module],
    memory_bytes: u64,
    due_us: u64,
}

impl<'a> Swap<'a> {
    /// Swap with the drivers among `modules`, in a guest of `memory_bytes` whose workload begins now.
    pub fn later(modules: &'a [Module], memory_bytes: u64) -> Self {
        Self { modules, memory_bytes, due_us: clock::monotonic_us().saturating_add(LATER_US) }
    }

    /// Whether it is time.
    pub fn is_due(&self, now_us: u64) -> bool {
        now_us >= self.due_us
    }

    /// Has a process of its own make it: to load drivers takes a while. What goes wrong stands in the kernel's log, and the
    /// host sees that there is no swap.
    pub fn begin(self) {
        let work = || {
            if let Err(error) = set_up(self.modules, self.memory_bytes) {
                kernel_log::error(&chain(&error));
            }
            Vec::new()
        };
        if let Err(error) = worker::start(work) {
            kernel_log::error(&format!("making a process that sets up swap: {error}"));
        }
    }
}

/// Makes it, as large as the guest's memory: what it really takes is what compressed pages do. Half of the guest's memory is
/// the most that these may take, as a page that does not compress saves nothing.
fn set_up(modules: &[Module], memory_bytes: u64) -> Result<(), Error> {
    if let Some(failure) = modules::load(modules, Condition::Swap).into_iter().next() {
        return Err(failure);
    }
    modules::remove_files();
    let setting = |name: &str, value: u64| {
        fs::write(format!("{SETTINGS}/{name}"), value.to_string())
            .doing(|| format!("setting {name} of {DEVICE}"))
    };
    setting("disksize", memory_bytes)?;
    setting("mem_limit", memory_bytes / 2)?;
    // To read ahead costs here what a page costs, and saves no seek.
    fs::write("/proc/sys/vm/page-cluster", "0").doing(|| "switching off swap read-ahead")?;
    let page_bytes = rustix::param::page_size();
    let header =
        header(page_bytes, memory_bytes).ok_or_else(|| Error::new("swap of such a size is impossible"))?;
    let device = OpenOptions::new().write(true).open(DEVICE).doing(|| format!("opening {DEVICE}"))?;
    device.write_all_at(&header, 0).doing(|| format!("writing to {DEVICE}"))?;
    drop(device);
    swap_on(DEVICE).doing(|| format!("swapping to {DEVICE}"))
}

fn swap_on(device: &str) -> io::Result<()> {
    let device = CString::new(device)?;
    // SAFETY: the argument is a string that ends with a NUL, and lives until the call returns.
    match unsafe { libc::swapon(device.as_ptr(), 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The first page of swap of `bytes`.
fn header(page_bytes: usize, bytes: u64) -> Option<Vec<u8>> {
    let pages = bytes.checked_div(page_bytes as u64)?;
    let last_page = u32::try_from(pages.checked_sub(1)?).ok()?;
    let mut page = vec![0; page_bytes];
    page.get_mut(VERSION_OFFSET..VERSION_OFFSET + 4)?.copy_from_slice(&1u32.to_ne_bytes());
    page.get_mut(LAST_PAGE_OFFSET..LAST_PAGE_OFFSET + 4)?.copy_from_slice(&last_page.to_ne_bytes());
    let signature = page_bytes.checked_sub(SIGNATURE.len())?;
    page.get_mut(signature..)?.copy_from_slice(SIGNATURE);
    Some(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_the_kernels() {
        let page = header(4096, 256 << 20).unwrap();
        assert_eq!(page.len(), 4096);
        assert_eq!(page[1024..1032], [1, 0, 0, 0, 0xff, 0xff, 0, 0]);
        assert_eq!(&page[4086..], b"SWAPSPACE2");
        assert_eq!(header(4096, 4095), None);
        assert_eq!(header(1024, 1 << 20), None, "the fields lie beyond");
    }
}
