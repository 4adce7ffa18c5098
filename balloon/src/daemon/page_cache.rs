//! What the host's page cache holds of the image layers that microVMs map, and what they have mapped: `proc(5)` and
//! mincore(2). Wiring: what it means is [`layers`]'.

#![expect(unsafe_code, reason = "files are mapped, to ask the kernel what of them is in memory")]

use super::fleet::Fleet;
use super::host::{self, Process};
use super::layers::{self, LayerUse};
use crate::resident::{FileId, FileMapping, Mapping, PageCache, parse_smaps};
use rustix::fs::{Mode, OFlags};
use rustix::mm::{MapFlags, ProtFlags};
use std::cell::LazyCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::time::{Duration, Instant};

/// Bytes of files that one tick looks at: a million pages, some milliseconds.
const STEP_BYTES: usize = 4 << 30;
/// For so long a tick looks at what microVMs share, and at one of them in any case. Who is due and not looked at has its turn
/// in the next.
const LOOKS: Duration = Duration::from_millis(10);

/// The host counts as many mappings at a time as fit what it is asked for (fs/seq_file.c), and one at least: less than the
/// lines of one up to those that matter.
const READ_BYTES: usize = 128;

/// The files of layers, mapped here, too.
#[derive(Debug)]
pub struct Files {
    /// How scopes call the state directory.
    state: String,
    open: BTreeMap<FileId, OpenFile>,
    /// Which was read last.
    last: Option<FileId>,
}

/// A mapping of a file, and nothing where the file cannot be had: nobody asks again.
#[derive(Debug, Default)]
struct OpenFile(Option<(PageCache, Mapped)>);

/// Unmapped when dropped.
#[derive(Debug)]
struct Mapped {
    address: usize,
    bytes: usize,
}

impl Files {
    /// No file yet, for the arbiter of the state directory that scopes call `state`.
    #[must_use]
    pub fn new(state: String) -> Self {
        Self { state, open: BTreeMap::new(), last: None }
    }

    /// The layers that `process` maps, of which it takes note.
    ///
    /// # Errors
    /// The host does not say, or the process is gone.
    pub fn uses(&mut self, process: Process) -> io::Result<Vec<LayerUse>> {
        let uses = layers::uses(&layer_mappings(process.pid)?, &self.state);
        for used in &uses {
            self.open.entry(used.id).or_insert_with(|| {
                OpenFile(used.path.as_deref().and_then(|path| {
                    let opened = open(path, used.id);
                    opened
                        .inspect_err(|error| log::warn!("cannot look at the page cache of {path}: {error}"))
                        .ok()
                }))
            });
        }
        Ok(uses)
    }

    /// Reads on: the files in turn, so much of them as one tick may.
    pub fn read_on(&mut self) {
        let after = self.last;
        let order: Vec<FileId> = self.open.keys().copied().collect();
        let next = order.iter().filter(|id| Some(**id) > after);
        let mut left = STEP_BYTES;
        for id in next.chain(order.iter().filter(|id| Some(**id) <= after)) {
            let Some(OpenFile(Some((cache, mapped)))) = self.open.get_mut(id) else { continue };
            match cache.read_on(left) {
                Ok(true) => self.last = Some(*id),
                Ok(false) => return,
                Err(error) => log::warn!("the host does not say how much of an image it holds: {error}"),
            }
            left = left.saturating_sub(mapped.bytes);
            if left == 0 {
                return;
            }
        }
    }

    /// What of a file is in memory, as of its last reading.
    #[must_use]
    pub fn resident(&self, id: FileId) -> Option<u64> {
        let OpenFile(file) = self.open.get(&id)?;
        file.as_ref()?.0.last()?.first().copied()
    }

    /// Looks at what the microVMs of `fleet` share, and what of it is in memory.
    pub fn look_at_all(&mut self, fleet: &mut Fleet) {
        let start = Instant::now();
        let cgroups = LazyCell::new(host::cgroups);
        for (name, process) in fleet.to_look_at() {
            fleet.looked_at(&name);
            // Who is gone is swept by the next tick; what the host does not say has not changed.
            let Ok(uses) = self.uses(process) else { continue };
            let charged_bytes = host::charged_file_bytes(process, cgroups.as_deref());
            if let Err(error) = fleet.observe_layers(&name, &uses, charged_bytes) {
                log::warn!("cannot count what microVM '{name}' shares: {error}");
            }
            if start.elapsed() >= LOOKS {
                break;
            }
        }
        self.read_on();
        if let Err(error) = fleet.settle_layers(|file| self.resident(file)) {
            log::warn!("cannot count what microVMs share: {error}");
        }
        self.retain(|file| fleet.shares(file));
    }

    /// Closes the files that nobody `needs`: a mapping would keep the pages of a file that was removed.
    pub fn retain(&mut self, needs: impl Fn(FileId) -> bool) {
        self.open.retain(|id, _| needs(*id));
    }
}

/// The mappings of layers of a process. To count a mapping the host walks its page tables, and those of guest memory are
/// large: so it is asked for no more than it takes. A VMM maps layers after guest memory, and so, as mmap(2) goes from high
/// addresses to low ones, they come first.
fn layer_mappings(pid: u32) -> io::Result<Vec<Mapping>> {
    let maps = parse_smaps(&host::read(format!("/proc/{pid}/maps"))?);
    let wanted = maps.iter().filter(|mapping| layers::is_layer(mapping)).count();
    let mut lines = BufReader::with_capacity(READ_BYTES, File::open(format!("/proc/{pid}/smaps"))?);
    let (mut found, mut record) = (Vec::new(), String::new());
    while found.len() < wanted {
        let start = record.len();
        if lines.read_line(&mut record)? == 0 {
            break;
        }
        // The first lines of a mapping are where it is and how much of it is resident.
        if record.get(start..).is_some_and(|line| line.starts_with("Pss:")) {
            found.extend(parse_smaps(&record).into_iter().filter(layers::is_layer));
            record.clear();
        }
    }
    Ok(found)
}

/// Maps the file at `path`, if it still is the one that is called `id` among mappings.
fn open(path: &str, id: FileId) -> io::Result<(PageCache, Mapped)> {
    // A name that is another's by now may be of anything.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    let metadata = file.metadata()?;
    let bytes = usize::try_from(metadata.len()).unwrap_or(0);
    if !metadata.is_file() || bytes == 0 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: a new mapping at an address of the kernel's choice, which nobody reads or writes through.
    let address = unsafe {
        rustix::mm::mmap(std::ptr::null_mut(), bytes, ProtFlags::READ, MapFlags::SHARED, &file, 0)
    }?;
    let mapped = Mapped { address: address as usize, bytes };
    let own = parse_smaps(&host::read("/proc/self/maps")?);
    let start = mapped.address as u64;
    if !own.iter().any(|mapping| (mapping.start..mapping.end).contains(&start) && mapping.file == id) {
        return Err(io::Error::new(io::ErrorKind::NotFound, "another file has its name by now"));
    }
    // SAFETY: mapped above, at a page's start, and unmapped only after the value beside it is dropped.
    let mapping = unsafe { FileMapping::new(mapped.address, bytes) };
    Ok((PageCache::new(vec![mapping]), mapped))
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: mapped by `open`, and nobody else knows of it.
        let unmapped = unsafe { rustix::mm::munmap(self.address as *mut _, self.bytes) };
        if let Err(error) = unmapped {
            log::error!("cannot unmap an image layer: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::fd::AsFd;
    use std::os::unix::fs::FileExt;

    #[test]
    fn layers_that_this_process_maps_are_found_and_read() {
        let directory = tempfile::tempdir().unwrap();
        let key = "ab".repeat(32);
        let path = directory.path().join(format!("{key}.erofs"));
        let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        file.set_len(8 << 20).unwrap();
        file.write_all_at(&[1; 3 * 4096], 4096).unwrap();
        // SAFETY: a new mapping, never touched.
        let address = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                8 << 20,
                ProtFlags::READ,
                MapFlags::SHARED,
                file.as_fd(),
                0,
            )
        };
        let address = address.unwrap();
        let process = host::status(std::process::id()).unwrap().process;
        let mut files = Files::new("x".into());
        let ours = |files: &mut Files| {
            let uses = files.uses(process).unwrap();
            uses.into_iter().find(|used| used.path.as_deref().is_some_and(|path| path.contains(&key)))
        };
        let used = ours(&mut files).unwrap();
        assert!((8 << 20..=16 << 20).contains(&used.bytes), "{used:?}");
        assert_eq!(files.resident(used.id), None);
        files.read_on();
        assert_eq!(files.resident(used.id), Some(3 * 4096));
        files.retain(|_| false);
        assert_eq!(files.resident(used.id), None);
        // Its name is another's.
        fs::remove_file(&path).unwrap();
        fs::write(&path, "other").unwrap();
        assert!(open(path.to_str().unwrap(), used.id).is_err());
        std::os::unix::fs::symlink("/etc/passwd", directory.path().join("link")).unwrap();
        assert!(open(directory.path().join("link").to_str().unwrap(), used.id).is_err());
        assert!(open("/dev/tty", used.id).is_err());
        // SAFETY: mapped above.
        unsafe { rustix::mm::munmap(address, 8 << 20) }.unwrap();
    }
}
